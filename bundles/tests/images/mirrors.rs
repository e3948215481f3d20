//! Mirrors, other places, and registries with TLS of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bundles::image::registry::places::Places;
use bundles::image::registry::{self, Options, PullError};
use bundles::image::{Image, Reference, Store};

use crate::fake::{Fake, Says};
use crate::make::TestImage;
use crate::pulling::quick;
use crate::server::Registry;

fn with_conf(text: &str) -> Options {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("registries.conf");
    fs::write(&file, text).unwrap();
    Options { places: Places::read(&file, &[]).unwrap(), ..quick() }
}

fn pull(name: &str, options: &Options) -> Result<Image, PullError> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    registry::pull(&store, &Reference::parse(name).unwrap(), options, &mut |_| {})
}

fn conf(location: &str, mirrors: &[String]) -> String {
    let mut text = format!("[[registry]]\nprefix = \"r.example\"\nlocation = \"{location}\"\n");
    for mirror in mirrors {
        text += &format!("[[registry.mirror]]\nlocation = \"{mirror}/cache\"\n");
    }
    text
}

#[test]
fn the_first_mirror_that_has_it_gives_it_all_and_the_name_stays() {
    let empty = Fake::start(|_| Says::status(404));
    let full = Fake::registry(&TestImage::small(), |_, says| says);
    let origin = Fake::registry(&TestImage::small(), |_, says| says);
    let options = with_conf(&conf(&origin.name(), &[empty.name(), full.name()]));
    let image = pull("r.example/team/app:v1", &options).unwrap();
    assert_eq!(image.reference, "r.example/team/app:v1");
    assert_eq!(empty.asked().len(), 1);
    assert_eq!(empty.asked()[0].path, "/v2/cache/team/app/manifests/v1");
    assert_eq!(full.asked().len(), 4);
    assert!(origin.asked().is_empty());
}

#[test]
fn what_a_mirror_gives_wrong_or_not_at_all_comes_from_the_next() {
    let lies = Fake::registry(&TestImage::small(), |asked, mut says| {
        if asked.path.contains("/blobs/") {
            says.body[20] ^= 1;
        }
        says
    });
    let breaks = Fake::registry(&TestImage::small(), |asked, says| {
        if asked.path.contains("/blobs/") { says.breaks_after(25) } else { says }
    });
    let origin = Fake::registry(&TestImage::small(), |_, says| says);
    for mirror in [&lies, &breaks] {
        let options = with_conf(&conf(&origin.name(), &[mirror.name()]));
        pull("r.example/app:v1", &options).unwrap();
    }
}

#[test]
fn if_nobody_has_it_each_is_named_with_its_reason() {
    let empty = Fake::start(|_| Says::status(404));
    let busy = Fake::start(|_| Says::status(503));
    let options = with_conf(&conf("127.0.0.1:1", &[empty.name(), busy.name()]));
    let error = pull("r.example/app:v1", &options).unwrap_err();
    let text = error.to_string();
    for part in [
        format!("{}: {} answers 404", empty.name(), empty.name()),
        format!("{}: {} answers 503", busy.name(), busy.name()),
        "127.0.0.1:1: cannot connect to 127.0.0.1:1".to_owned(),
    ] {
        assert!(text.contains(&part), "{part} is not in {text}");
    }
    assert!(!error.is_unreachable());
    let options = with_conf(&conf("127.0.0.1:1", &[busy.name()]));
    assert!(pull("r.example/app:v1", &options).unwrap_err().is_unreachable());
}

#[test]
fn a_blocked_registry_is_not_asked_and_the_file_is_named() {
    let fake = Fake::start(|_| Says::status(404));
    let text = format!("[[registry]]\nlocation = \"{}\"\nblocked = true\n", fake.name());
    let error = pull(&format!("{}/app:v1", fake.name()), &with_conf(&text)).unwrap_err();
    assert!(error.to_string().contains("blocked in"), "{error}");
    assert!(error.to_string().contains("registries.conf"), "{error}");
    assert!(fake.asked().is_empty());
}

/// An authority, and a certificate for 127.0.0.1 that it signed.
struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Certificates {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key \
                -out ca.crt -addext basicConstraints=critical,CA:TRUE
            openssl req -newkey rsa:2048 -nodes -subj /CN=registry -keyout key.pem -out r.csr
            printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > ext
            openssl x509 -req -in r.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
                -extfile ext -out cert.pem
        "#;
        let made = Command::new("sh").args(["-ec", script]).current_dir(dir.path()).output();
        let made = made.expect("install the Debian package openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Certificates { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn with_certificates(dir: &Path) -> Options {
    Options { certificates: vec![dir.to_owned()], ..quick() }
}

#[test]
fn a_registry_with_a_certificate_of_the_house_is_trusted_where_it_is_put() {
    let made = Certificates::new();
    let registry = Registry::with_tls(&made.path("cert.pem"), &made.path("key.pem"));
    let name = format!("127.0.0.1:{}/no/such:v1", registry.port);
    let put = tempfile::tempdir().unwrap();
    let dir = put.path().join(format!("127.0.0.1:{}", registry.port));
    fs::create_dir(&dir).unwrap();

    // Not trusted, not verified, and not spoken with at all.
    let error = pull(&name, &quick()).unwrap_err();
    let PullError::Refused { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("is not trusted"), "{source}");
    assert!(source.to_string().contains("certs.d/127.0.0.1:"), "{source}");
    assert!(format!("{:?}", pull(&name, &Options { plain_http: true, ..quick() })).contains("400"));

    // Whoever is trusted or need not be says that there is no such image.
    fs::copy(made.path("ca.crt"), dir.join("ca.crt")).unwrap();
    for options in [with_certificates(put.path()), Options { insecure: true, ..quick() }] {
        let text = format!("{:?}", pull(&name, &options).unwrap_err());
        assert!(text.contains("404"), "{text}");
    }

    fs::write(dir.join("other.crt"), "no certificate").unwrap();
    let text = format!("{:?}", pull(&name, &with_certificates(put.path())).unwrap_err());
    assert!(text.contains("other.crt"), "{text}");
    fs::remove_file(dir.join("other.crt")).unwrap();
    fs::write(dir.join("client.key"), "").unwrap();
    let text = format!("{:?}", pull(&name, &with_certificates(put.path())).unwrap_err());
    assert!(text.contains("client.cert"), "{text}");
}

#[test]
fn an_insecure_registry_may_have_no_tls_at_all() {
    let fake = Fake::registry(&TestImage::small(), |_, says| says);
    let name = format!("{}/app:v1", fake.name());
    pull(&name, &Options { insecure: true, ..quick() }).unwrap();
    pull(&name, &Options { plain_http: true, ..quick() }).unwrap();
    let text = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", fake.name());
    pull(&name, &with_conf(&text)).unwrap();
}
