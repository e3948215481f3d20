//! Logins are found where docker and podman look for them, and are not told.

use std::fs;

use super::*;

fn files(texts: &[&str]) -> (tempfile::TempDir, Credentials) {
    let dir = tempfile::tempdir().unwrap();
    let files = texts.iter().enumerate().map(|(i, text)| {
        let path = dir.path().join(i.to_string());
        fs::write(&path, text).unwrap();
        path
    });
    let files = files.collect();
    (dir, Credentials { files, helper: None })
}

fn user(credentials: &Credentials, registry: &str, repository: &str) -> Option<String> {
    credentials.find(registry, repository).unwrap().map(|c| format!("{}:{}", c.user, c.secret))
}

// "u:p", "hub:p:q", "team:p", "app:p"
const AUTHS: &str = r#"{"auths":{
    "https://index.docker.io/v1/":{"auth":"aHViOnA6cQ=="},
    "r.example:5000":{"auth":"dTpw"},
    "https://old.example/v2/":{"auth":"dTpw"},
    "quay.example/team":{"auth":"dGVhbTpw"},
    "quay.example/team/app":{"auth":"YXBwOnA="},
    "empty.example":{}}}"#;

#[test]
fn a_login_is_found_by_host_and_by_the_longest_beginning_of_a_repository() {
    let (_dir, c) = files(&[AUTHS]);
    assert_eq!(user(&c, "docker.io", "library/alpine").as_deref(), Some("hub:p:q"));
    assert_eq!(user(&c, "r.example:5000", "a").as_deref(), Some("u:p"));
    assert_eq!(user(&c, "old.example", "a").as_deref(), Some("u:p"));
    assert_eq!(user(&c, "quay.example", "team/app").as_deref(), Some("app:p"));
    assert_eq!(user(&c, "quay.example", "team/other").as_deref(), Some("team:p"));
    for (registry, repository) in [
        ("quay.example", "teams"),
        ("r.example", "a"),
        ("empty.example", "a"),
        ("x.r.example:5000", "a"),
    ] {
        assert_eq!(user(&c, registry, repository), None, "{registry}/{repository}");
    }
}

#[test]
fn the_first_file_that_has_one_counts_and_those_that_are_not_there_do_not() {
    let (dir, mut c) = files(&["", r#"{"auths":{}}"#, AUTHS]);
    c.files.insert(0, dir.path().join("none"));
    c.files.insert(0, dir.path().join("0/below-a-file"));
    assert_eq!(user(&c, "r.example:5000", "a").as_deref(), Some("u:p"));
}

#[test]
fn an_identity_token_stands_for_the_user() {
    let (_dir, c) = files(&[r#"{"auths":{"a.example":{"auth":"dTo=","identitytoken":"tok"}}}"#]);
    let found = c.find("a.example", "x").unwrap().unwrap();
    assert_eq!(found.identity_token.as_deref(), Some("tok"));
}

#[test]
fn nothing_of_a_file_is_told_but_its_name_and_where_it_is_wrong() {
    for text in [
        r#"{"auths":"hunter2"}"#,
        r#"{"auths":{"a.example":"hunter2"}}"#,
        r#"{"auths":{"a.example":{"auth":"hunter2!"}}}"#,
        r#"{"auths":{"a.example":{"auth":"aHVudGVyMg=="}}}"#,
    ] {
        let (_dir, c) = files(&[text]);
        let error = c.find("a.example", "x").unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(!said.contains("hunter2") && !said.contains("aHVudGVyMg"), "{said}");
    }
    let (_dir, c) = files(&[AUTHS]);
    let shown = format!("{:?}", c.find("docker.io", "x").unwrap());
    assert!(shown.contains("hub") && !shown.contains("p:q"), "{shown}");
}

fn helper(name: &str, server: &str) -> io::Result<HelperAnswer> {
    let text = match (name, server) {
        ("own", "a.example") => r#"{"ServerURL":"a.example","Username":"own","Secret":"s"}"#,
        ("store", DOCKER_HUB) => r#"{"Username":"<token>","Secret":"tok"}"#,
        ("broken", _) => "hunter2",
        ("gone", _) => return Err(io::ErrorKind::NotFound.into()),
        _ => return Ok(HelperAnswer { success: false, output: b"credentials not found".into() }),
    };
    Ok(HelperAnswer { success: true, output: text.into() })
}

#[test]
fn a_helper_of_the_registry_goes_before_the_store_and_the_store_before_what_is_written() {
    let (_dir, mut c) = files(&[r#"{"credHelpers":{"a.example":"own","none.example":"none"},
        "credsStore":"store","auths":{"a.example":{"auth":"dTpw"},"b.example":{"auth":"dTpw"}}}"#]);
    c.helper = Some(helper);
    assert_eq!(user(&c, "a.example", "x").as_deref(), Some("own:s"));
    assert_eq!(user(&c, "b.example", "x").as_deref(), Some("u:p"));
    assert_eq!(user(&c, "none.example", "x"), None);
    let hub = c.find("docker.io", "x").unwrap().unwrap();
    assert_eq!(hub.identity_token.as_deref(), Some("tok"));
}

#[test]
fn a_helper_that_cannot_be_asked_is_told_and_none_is_run_by_a_path() {
    for (name, part) in
        [("gone", "run docker-credential-gone"), ("broken", "gives no login"), ("../x", "badly")]
    {
        let (_dir, mut c) = files(&[&format!(r#"{{"credsStore":"{name}"}}"#)]);
        c.helper = Some(helper);
        let error = c.find("a.example", "x").unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn the_files_are_those_of_podman_and_then_docker_s() {
    let variables = |pairs: &'static [(&str, &str)]| {
        move |name: &str| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).into())
    };
    let files = |pairs| Credentials::of(&variables(pairs), 7).files;
    let paths = |texts: &[&str]| texts.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(files(&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", "/a")]), paths(&["/a"]));
    assert_eq!(
        files(&[("HOME", "/h")]),
        paths(&[
            "/run/containers/7/auth.json",
            "/h/.config/containers/auth.json",
            "/h/.docker/config.json"
        ])
    );
    assert_eq!(
        files(&[("XDG_RUNTIME_DIR", "/r"), ("DOCKER_CONFIG", "/d"), ("HOME", "")]),
        paths(&["/r/containers/auth.json", "/d/config.json"])
    );
}
