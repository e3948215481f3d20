//! Who we are at a registry: the files in which docker and podman keep logins, and their helpers.
//!
//! The formats are docker's `config.json` (`auths`, `credHelpers`, `credsStore`) and containers'
//! `auth.json` (containers-auth.json(5)), whose keys may also name a repository. A helper is a
//! program; this crate starts none, so whoever pulls gives the function that does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;

/// Bytes of a file with logins.
const MAX_FILE: u64 = 1 << 20;
/// Docker Hub's name in docker's own file and for its helpers.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Why logins cannot be looked up. Says which file and where, never what is in it.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not say what such files do.
    #[error("{} is no file of logins: line {line}, column {column}", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
    },
    /// A login in a file is none.
    #[error("{}: the login for {key:?} is no user and password in base 64", path.display())]
    Login {
        /// Which.
        path: PathBuf,
        /// The registry.
        key: String,
    },
    /// A helper has no name that a program could have.
    #[error("{} names a credential helper badly: {name:?}", path.display())]
    HelperName {
        /// Which.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A helper cannot be asked.
    #[error("run docker-credential-{name}, which {} names", path.display())]
    Helper {
        /// The file that names it.
        path: PathBuf,
        /// The helper.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A helper does not say what helpers do.
    #[error("docker-credential-{name} gives no login in JSON")]
    HelperAnswer {
        /// The helper.
        name: String,
    },
}

/// A login. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user's name.
    pub user: String,
    pub(super) secret: String,
    /// A token that stands for the user at a token server, instead of name and password.
    pub(super) identity_token: Option<String>,
    /// Where it is from, to be told.
    pub origin: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Credential { user, origin, .. } = self;
        f.debug_struct("Credential").field("user", user).field("origin", origin).finish()
    }
}

/// What a helper said.
pub struct HelperAnswer {
    /// Whether it ended with success.
    pub success: bool,
    /// Its standard output.
    pub output: Vec<u8>,
}

/// Runs `docker-credential-<first>` with the word `get` and the second as its input.
pub type RunHelper = fn(&str, &str) -> io::Result<HelperAnswer>;

/// Where logins are looked for.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Files, in the order in which they are asked. Those that are not there do not matter.
    pub files: Vec<PathBuf>,
    /// How helpers are run; without it they are not.
    pub helper: Option<RunHelper>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl Credentials {
    /// The files of docker and podman for the user whose environment `variable` gives.
    #[must_use]
    pub fn of(variable: &dyn Fn(&str) -> Option<std::ffi::OsString>, uid: u32) -> Credentials {
        let path = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(file) = path("REGISTRY_AUTH_FILE") {
            return Credentials { files: vec![file], helper: None };
        }
        let home = path("HOME");
        let at_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let runtime = path("XDG_RUNTIME_DIR")
            .map_or_else(|| format!("/run/containers/{uid}").into(), |dir| dir.join("containers"));
        let config = path("XDG_CONFIG_HOME").or_else(|| at_home(".config"));
        let docker = path("DOCKER_CONFIG").or_else(|| at_home(".docker"));
        let files = [
            Some(runtime.join("auth.json")),
            config.map(|dir| dir.join("containers/auth.json")),
            docker.map(|dir| dir.join("config.json")),
        ];
        Credentials { files: files.into_iter().flatten().collect(), helper: None }
    }

    /// The login for a repository at `registry`, if any file or helper has one.
    pub(super) fn find(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialError> {
        for path in &self.files {
            let Some(config) = read(path)? else { continue };
            let found = self.find_in(path, &config, registry, repository)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn find_in(
        &self,
        path: &Path,
        config: &Config,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialError> {
        let own = config.cred_helpers.iter().find(|(key, _)| normal(key) == registry);
        if let Some((_, name)) = own {
            return self.ask(path, name, registry);
        }
        if !config.creds_store.is_empty() {
            let found = self.ask(path, &config.creds_store, registry)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        // The longest key that is the name or a beginning of it: host/team/app, host/team, host.
        let mut wanted = format!("{registry}/{repository}");
        loop {
            for (key, auth) in config.auths.iter().filter(|(key, _)| normal(key) == wanted) {
                let found = auth.read(path, key)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            match wanted.rfind('/') {
                Some(slash) => wanted.truncate(slash),
                None => return Ok(None),
            }
        }
    }

    fn ask(
        &self,
        path: &Path,
        name: &str,
        registry: &str,
    ) -> Result<Option<Credential>, CredentialError> {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || !name.bytes().all(is_word) {
            let (path, name) = (path.to_owned(), name.chars().take(100).collect());
            return Err(CredentialError::HelperName { path, name });
        }
        let Some(run) = self.helper else { return Ok(None) };
        let server = if registry == "docker.io" { DOCKER_HUB } else { registry };
        let answer = run(name, server).map_err(|source| CredentialError::Helper {
            path: path.to_owned(),
            name: name.to_owned(),
            source,
        })?;
        if !answer.success {
            // The protocol's words for "I have none", and every other failure: another file may
            // have a login, and without one the registry's refusal is told.
            return Ok(None);
        }
        from_helper(name, &answer.output).map(Some)
    }
}

fn from_helper(name: &str, output: &[u8]) -> Result<Credential, CredentialError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Given {
        username: String,
        secret: String,
    }
    let wrong = || CredentialError::HelperAnswer { name: name.to_owned() };
    let Given { username, secret } = serde_json::from_slice(output).map_err(|_| wrong())?;
    let origin = format!("docker-credential-{name}");
    if username == "<token>" {
        let identity_token = Some(secret);
        return Ok(Credential { user: username, secret: String::new(), identity_token, origin });
    }
    Ok(Credential { user: username, secret, identity_token: None, origin })
}

impl Auth {
    fn read(&self, path: &Path, key: &str) -> Result<Option<Credential>, CredentialError> {
        let wrong = || CredentialError::Login { path: path.to_owned(), key: key.to_owned() };
        let (mut user, mut secret) = (self.username.clone(), self.password.clone());
        if !self.auth.is_empty() {
            let decoded = base64::engine::general_purpose::STANDARD.decode(self.auth.trim());
            let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let text = text.ok_or_else(wrong)?;
            let (name, word) = text.split_once(':').ok_or_else(wrong)?;
            // Older versions of docker pad with NUL.
            (user, secret) = (name.to_owned(), word.trim_matches('\0').to_owned());
        }
        let identity_token = (!self.identitytoken.is_empty()).then(|| self.identitytoken.clone());
        if identity_token.is_none() && user.is_empty() {
            return Ok(None);
        }
        let origin = path.display().to_string();
        Ok(Some(Credential { user, secret, identity_token, origin }))
    }
}

/// A key without what different programs write around it.
fn normal(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (text, has_scheme) = bare.map_or((key, false), |bare| (bare, true));
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    };
    let is_address = has_scheme || matches!(path.trim_end_matches('/'), "" | "v1" | "v2");
    if is_address { host.to_owned() } else { format!("{host}/{path}") }
}

fn read(path: &Path) -> Result<Option<Config>, CredentialError> {
    let failed = |source| CredentialError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(failed(source)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    // podman makes an empty file when it has none.
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    // serde's own words may hold a value of the file, so only the place is told.
    serde_json::from_slice(&bytes).map(Some).map_err(|e| CredentialError::Format {
        path: path.to_owned(),
        line: e.line(),
        column: e.column(),
    })
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
