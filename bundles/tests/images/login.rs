//! Logging in, and to whom a password is said.

use std::fs;
use std::path::PathBuf;

use bundles::image::registry::credentials::Credentials;
use bundles::image::registry::{self, Options, PullError};
use bundles::image::{Image, Reference, Store};
use serde_json::json;

use crate::fake::{Asked, Fake, Says};
use crate::make::TestImage;
use crate::pulling::quick;
use crate::server::Registry;

const SECRET: &str = "p:w";
const BASIC: &str = "Basic dTpwOnc=";

/// A directory with a file of logins and a store.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(auths: &serde_json::Value) -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("auth.json"), json!({ "auths": auths }).to_string()).unwrap();
        Place { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("auth.json")
    }

    fn pull(&self, reference: &Reference) -> Result<Image, PullError> {
        let credentials = Credentials { files: vec![self.file()], helper: None };
        let store = Store::open(&self.dir.path().join("store")).unwrap();
        registry::pull(&store, reference, &Options { credentials, ..quick() }, &mut |_| {})
    }
}

fn words(error: &PullError) -> String {
    let mut text = format!("{error:?} {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn a_registry_with_passwords_gives_to_who_has_one_and_tells_others_what_to_do() {
    let registry = Registry::with_password();
    registry.push("team/app", "v1", &TestImage::small());
    let reference = registry.reference("team/app:v1");
    let name = reference.registry().to_owned();
    Place::new(&json!({ &name: {"auth": "dTpwOnc="} })).pull(&reference).unwrap();
    Place::new(&json!({ format!("{name}/team"): {"username": "u", "password": SECRET} }))
        .pull(&reference)
        .unwrap();

    let error = words(&Place::new(&json!({})).pull(&reference).unwrap_err());
    assert!(error.contains(&format!("podman login {name}")), "{error}");
    let place = Place::new(&json!({ name: {"username": "u", "password": "hunter2"} }));
    let error = words(&place.pull(&reference).unwrap_err());
    assert!(error.contains("refuses the login of user \"u\""), "{error}");
    assert!(error.contains(place.file().to_str().unwrap()), "{error}");
    assert!(!error.contains("hunter2") && !error.contains("Basic "), "{error}");
}

/// A registry that wants tokens, and the server that makes them: `token-<n>` for the n-th request.
fn with_tokens(
    realm: impl Fn(u16) -> String,
    take: impl Fn(&Asked) -> bool + Send + Sync + 'static,
    give: impl Fn(&Asked) -> Says + Send + Sync + 'static,
) -> (Fake, Fake) {
    let tokens = Fake::start(give);
    let realm = realm(tokens.port);
    let registry = Fake::registry(&TestImage::small(), move |asked, says| {
        if take(asked) {
            return says;
        }
        let challenge =
            format!(r#"Bearer realm="{realm}",service="reg",scope="repository:app:pull""#);
        Says::status(401).header("WWW-Authenticate", challenge)
    });
    (registry, tokens)
}

fn on_loopback(port: u16) -> String {
    format!("http://127.0.0.1:{port}/token")
}

fn token(text: &str) -> Says {
    Says::ok(json!({ "token": text }).to_string())
}

#[test]
fn a_token_is_asked_for_once_and_with_the_password_if_there_is_one() {
    for auths in [false, true] {
        let (registry, tokens) = with_tokens(
            on_loopback,
            |asked| asked.header("authorization") == "Bearer t1",
            |_| token("t1"),
        );
        let login = json!({ registry.name(): {"auth": "dTpwOnc="} });
        let place = Place::new(&if auths { login } else { json!({}) });
        place.pull(&registry.reference("app:v1")).unwrap();
        let asked = tokens.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        let account = if auths { "&account=u" } else { "" };
        let path = format!("/token?service=reg&scope=repository%3Aapp%3Apull{account}");
        assert_eq!(asked[0].path, path);
        assert_eq!(asked[0].header("authorization"), if auths { BASIC } else { "" });
        let told = registry.asked();
        assert!(told.iter().all(|a| !a.header("authorization").starts_with("Basic")), "{told:?}");
    }
}

#[test]
fn a_token_that_has_run_out_is_replaced() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let given = AtomicUsize::new(0);
    let (registry, tokens) = with_tokens(
        on_loopback,
        |asked| {
            let wanted = if asked.path.contains("/manifests/") { "Bearer t1" } else { "Bearer t2" };
            asked.header("authorization") == wanted
        },
        move |_| token(&format!("t{}", given.fetch_add(1, Ordering::SeqCst) + 1)),
    );
    Place::new(&json!({})).pull(&registry.reference("app:v1")).unwrap();
    assert_eq!(tokens.asked().len(), 2);
}

#[test]
fn an_identity_token_is_a_refresh_token_in_the_body_and_nowhere_else() {
    let (registry, tokens) = with_tokens(
        on_loopback,
        |asked| asked.header("authorization") == "Bearer t1",
        |_| Says::ok(json!({ "access_token": "t1" }).to_string()),
    );
    let auths = json!({ registry.name(): {"auth": "dTo=", "identitytoken": "id+tok"} });
    Place::new(&auths).pull(&registry.reference("app:v1")).unwrap();
    let [asked] = &tokens.asked()[..] else { panic!("one request") };
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/token"));
    assert_eq!(asked.header("authorization"), "");
    assert_eq!(
        asked.body,
        "grant_type=refresh_token&service=reg&scope=repository%3Aapp%3Apull&client_id=podshim\
         &refresh_token=id%2Btok"
    );
}

#[test]
fn a_token_server_that_refuses_is_told_by_name_and_the_password_is_not() {
    let (registry, _tokens) = with_tokens(on_loopback, |_| false, |_| Says::status(401));
    let place = Place::new(&json!({ registry.name(): {"username": "u", "password": "hunter2"} }));
    let error = words(&place.pull(&registry.reference("app:v1")).unwrap_err());
    assert!(error.contains("refuses the login of user"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_token_server_elsewhere_is_not_told_a_password_without_tls() {
    // TEST-NET-1: if it were asked, the pull would wait and say something else.
    let realm = |_| "http://192.0.2.1/token".to_owned();
    let (registry, _tokens) = with_tokens(realm, |_| false, |_| Says::status(500));
    let place = Place::new(&json!({ registry.name(): {"auth": "dTpwOnc="} }));
    let error = words(&place.pull(&registry.reference("app:v1")).unwrap_err());
    assert!(error.contains("not sent to 192.0.2.1 without TLS"), "{error}");
}

#[test]
fn a_password_goes_neither_along_a_redirect_nor_to_who_asks_for_it_there() {
    let storage = Fake::start(|_| {
        Says::status(401).header("WWW-Authenticate", r#"Basic realm="yours, please""#)
    });
    let to = storage.name();
    let registry = Fake::registry(&TestImage::small(), move |asked, says| {
        if asked.header("authorization") != BASIC {
            return Says::status(401).header("WWW-Authenticate", r#"Basic realm="r""#);
        }
        let address = format!("http://{to}{}", asked.path);
        let is_blob = asked.path.contains("/blobs/");
        if is_blob { Says::status(307).header("Location", address) } else { says }
    });
    // The storage has a login of its own, which is not for this either.
    let login = json!({"auth": "dTpwOnc="});
    let place = Place::new(&json!({ registry.name(): &login, storage.name(): &login }));
    place.pull(&registry.reference("app:v1")).unwrap_err();
    let asked = storage.asked();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|a| a.header("authorization").is_empty()), "{asked:?}");
}

#[test]
fn a_login_in_no_known_way_is_named() {
    let registry = Fake::start(|_| Says::status(401).header("WWW-Authenticate", "Negotiate"));
    let error = words(&Place::new(&json!({})).pull(&registry.reference("app:v1")).unwrap_err());
    assert!(error.contains("not supported") && error.contains("Negotiate"), "{error}");
}
