//! Logging in: what a registry's challenge asks for, and to whom a password may be said.
//!
//! The protocols are those of RFC 7617 (Basic) and of the distribution project's token and OAuth2
//! pages (Bearer). A challenge counts only if the registry itself made it, not somebody to whom it
//! redirected (CVE-2020-15157); a password goes to the registry it is for and to the token server
//! that this registry names, and over a connection without TLS only to this machine or where the
//! user said so. It is in no error, no log and no `Debug`.

use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use ureq::http::header::WWW_AUTHENTICATE;

use super::credentials::{Credential, CredentialError};
use super::failure::HttpError;
use super::http::{Answer, Host, Question, Security};
use super::url::{Url, form};

/// Bytes of a token server's answer.
const MAX_TOKEN: u64 = 256 << 10;

/// Why nobody was logged in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The registry wants a login in a way that is not known.
    #[error("{host} asks for a login that is not supported: {challenge:?}")]
    Challenge {
        /// The registry.
        host: String,
        /// What it asks for.
        challenge: String,
    },
    /// There is no password for it.
    #[error("{host} wants a login; `docker login {host}` or `podman login {host}` stores one")]
    Missing {
        /// The registry.
        host: String,
    },
    /// The password that there is was refused.
    #[error("{host} refuses the login of user {user:?} that is stored in {origin}")]
    Refused {
        /// The registry.
        host: String,
        /// The name.
        user: String,
        /// The file that has it.
        origin: String,
    },
    /// A password would be read by others on its way.
    #[error(
        "the password for {host} is not sent to {to} without TLS; mark the registry as insecure \
         if that is what you want"
    )]
    Plain {
        /// The registry.
        host: String,
        /// Who asks for it.
        to: String,
    },
    /// The token server does not give a token.
    #[error("{host} sends to {realm} for a token, which gives none")]
    Token {
        /// The registry.
        host: String,
        /// The token server.
        realm: String,
        /// Why.
        source: Box<HttpError>,
    },
    /// Passwords cannot be looked up.
    #[error("look up the login for {host}")]
    Credential {
        /// The registry.
        host: String,
        /// Why.
        source: Box<CredentialError>,
    },
}

/// The login at one registry for one repository.
#[derive(Debug, Default)]
pub(super) struct Auth {
    known: Mutex<Option<Header>>,
}

/// The value of an Authorization header, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Header(String);

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Header(..)")
    }
}

impl Header {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Gives the password for a registry, if there is one.
pub(super) type Find<'a> = &'a dyn Fn() -> Result<Option<Credential>, CredentialError>;

impl Auth {
    /// What to send along with a request.
    pub(super) fn header(&self) -> Option<Header> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs in as `refusal`, the registry's 401, asks. `used` was sent with the refused request.
    pub(super) fn log_in(
        &self,
        host: &Host,
        repository: &str,
        refusal: &Answer,
        used: Option<&Header>,
        find: Find<'_>,
    ) -> Result<(), AuthError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != used {
            // Another thread did it meanwhile.
            return Ok(());
        }
        let name = || host.name.clone();
        let values = refusal.headers.get_all(WWW_AUTHENTICATE).iter();
        let texts: Vec<String> =
            values.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
        let challenges: Vec<Challenge> = texts.iter().flat_map(|t| challenges(t)).collect();
        let by = |scheme: &str| challenges.iter().find(|c| c.scheme.eq_ignore_ascii_case(scheme));
        let credential = find()
            .map_err(|source| AuthError::Credential { host: name(), source: Box::new(source) })?;
        let header = if let Some(bearer) = by("bearer") {
            let token = token(host, repository, bearer, credential.as_ref())?;
            format!("Bearer {token}")
        } else if by("basic").is_some() {
            let credential = credential.ok_or_else(|| AuthError::Missing { host: name() })?;
            if used.is_some() {
                return Err(refused_as(host, &credential));
            }
            if host.is_plain() && !may_be_plain(&host.name, host.security, &host.name) {
                return Err(AuthError::Plain { host: name(), to: name() });
            }
            basic(&credential)
        } else {
            let challenge = texts.join(", ").chars().take(200).collect();
            return Err(AuthError::Challenge { host: name(), challenge });
        };
        *known = Some(Header(header));
        Ok(())
    }
}

/// Why a fresh login did not help either.
pub(super) fn refused(host: &Host, find: Find<'_>) -> AuthError {
    match find() {
        Ok(Some(credential)) => refused_as(host, &credential),
        Ok(None) => AuthError::Missing { host: host.name.clone() },
        Err(source) => AuthError::Credential { host: host.name.clone(), source: Box::new(source) },
    }
}

fn refused_as(host: &Host, credential: &Credential) -> AuthError {
    AuthError::Refused {
        host: host.name.clone(),
        user: credential.user.clone(),
        origin: credential.origin.clone(),
    }
}

fn basic(credential: &Credential) -> String {
    let text = format!("{}:{}", credential.user, credential.secret);
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
}

/// Whether a secret of `registry` may go to `to` without TLS. A registry elsewhere may not make us talk to what
/// listens on this machine.
fn may_be_plain(registry: &str, security: Security, to: &str) -> bool {
    let told = matches!(security, Security::Insecure | Security::Plain);
    let stays_here = super::is_loopback(registry) && super::is_loopback(to);
    stays_here || (told && to == registry)
}

/// Asks the token server that the registry names.
fn token(
    host: &Host,
    repository: &str,
    challenge: &Challenge,
    credential: Option<&Credential>,
) -> Result<String, AuthError> {
    let wrong = || AuthError::Challenge {
        host: host.name.clone(),
        challenge: challenge.to_string().chars().take(200).collect(),
    };
    let realm = challenge.get("realm").and_then(Url::parse).ok_or_else(wrong)?;
    if !realm.is_tls() && !may_be_plain(&host.name, host.security, realm.host()) {
        // Also without a password: whoever reads a token can use it.
        let (host, to) = (host.name.clone(), realm.host().to_owned());
        return Err(AuthError::Plain { host, to });
    }
    let ours = format!("repository:{repository}:pull");
    let scope = challenge.get("scope").unwrap_or(&ours);
    let service = challenge.get("service").unwrap_or_default();
    let asked = match credential {
        Some(Credential { identity_token: Some(identity), .. }) => {
            let text = form(&[
                ("grant_type", "refresh_token"),
                ("service", service),
                ("scope", scope),
                ("client_id", "podshim"),
                ("refresh_token", identity),
            ]);
            host.ask_at(&realm, Question { form: Some(&text), ..Question::default() })
        }
        _ => {
            let login = credential.map(basic);
            let mut pairs = vec![("service", service), ("scope", scope)];
            if let Some(credential) = credential {
                pairs.push(("account", &credential.user));
            }
            pairs.retain(|(_, value)| !value.is_empty());
            let url = realm.with_query(&pairs);
            host.ask_at(&url, Question { login: login.as_deref(), ..Question::default() })
        }
    };
    let failed = |source| {
        let realm = realm.host().to_owned();
        AuthError::Token { host: host.name.clone(), realm, source: Box::new(source) }
    };
    let answer = asked.map_err(failed)?;
    if let (401 | 403, Some(credential)) = (answer.status, credential) {
        return Err(refused_as(host, credential));
    }
    let body = answer.expect(&[200]).and_then(|a| a.small(MAX_TOKEN)).map_err(failed)?;
    read_token(&body).ok_or_else(|| {
        let why = "it is no JSON with a token".to_owned();
        failed(HttpError::Answer { host: realm.host().to_owned(), why })
    })
}

fn read_token(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Given {
        token: Option<String>,
        access_token: Option<String>,
    }
    let given: Given = serde_json::from_slice(body).ok()?;
    let is_whole =
        |token: &String| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    given.token.or(given.access_token).filter(is_whole)
}

/// What a registry wants (RFC 9110, section 11.3).
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn get(&self, key: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(k, _)| k.eq_ignore_ascii_case(key));
        found.map(|(_, value)| value.as_str())
    }
}

impl std::fmt::Display for Challenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.scheme)?;
        self.parameters.iter().try_for_each(|(key, value)| write!(f, " {key}={value:?}"))
    }
}

/// Reads a header's challenges. A word without `=` begins a new one.
fn challenges(text: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find(['=', ' ', ',', '\t']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let value = after.trim_start().strip_prefix('=');
        match (value, found.last_mut()) {
            (Some(value), Some(challenge)) => {
                let (value, after) = parameter(value.trim_start());
                challenge.parameters.push((word.to_owned(), value));
                rest = after;
            }
            // A parameter before any scheme: nothing of it is to be understood.
            (Some(_), None) => return found,
            (None, _) => {
                found.push(Challenge { scheme: word.to_owned(), parameters: Vec::new() });
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    found
}

/// A value, in quotes or not, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_quotes_commas_and_several_schemes() {
        let text = r#"Bearer realm="https://auth.example/token",service="a \"b\", c", scope=x:y:z, Basic realm=r"#;
        let found = challenges(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].get("REALM"), Some("https://auth.example/token"));
        assert_eq!(found[0].get("service"), Some("a \"b\", c"));
        assert_eq!(found[0].get("scope"), Some("x:y:z"));
        assert_eq!((found[1].scheme.as_str(), found[1].get("realm")), ("Basic", Some("r")));
        assert!(challenges("").is_empty());
        assert!(challenges("realm=x").is_empty());
        assert_eq!(challenges("Negotiate")[0].scheme, "Negotiate");
    }

    #[test]
    fn a_secret_goes_without_tls_where_the_user_said_so_or_stays_on_this_machine() {
        for (registry, security, to, may) in [
            ("r.example", Security::Tls, "r.example", false),
            ("r.example", Security::Tls, "127.0.0.1:8080", false),
            ("r.example", Security::Plain, "127.0.0.1:8080", false),
            ("r.example", Security::Plain, "r.example", true),
            ("r.example", Security::Insecure, "other.example", false),
            ("localhost:5000", Security::Loopback, "127.0.0.1:5001", true),
            ("localhost:5000", Security::Loopback, "r.example", false),
        ] {
            assert_eq!(may_be_plain(registry, security, to), may, "{registry} {to}");
        }
    }

    #[test]
    fn a_token_is_under_either_name_and_never_more_than_a_header_holds() {
        assert_eq!(read_token(br#"{"token":"a","access_token":"b"}"#).as_deref(), Some("a"));
        assert_eq!(read_token(br#"{"access_token":"b"}"#).as_deref(), Some("b"));
        assert_eq!(read_token(br#"{"token":"a\r\nX: y"}"#), None);
        assert_eq!(read_token(b"{}"), None);
    }
}
