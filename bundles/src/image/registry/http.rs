//! HTTP as registries speak it: one host, its redirects, and what may go wrong with both.
//!
//! Redirects are followed here and not by the client, because what a registry may be told is not
//! for where it sends us to: a login goes to the host that was asked and nowhere else, and from TLS
//! nothing leads to a connection without it. What an answer means is for the caller.

use std::io::Read as _;
use std::sync::OnceLock;
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use ureq::http::{HeaderMap, Request};
use ureq::{Agent, Body};

use super::failure::{HttpError, failed};
use super::tls::Trust;
use super::url::Url;

/// How long a registry may take to answer the connection, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may send nothing.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// Where one host sends us: registries send to a storage, which may send on once or twice.
const MAX_REDIRECTS: usize = 5;
/// How much of a refusal is read to tell it.
const MAX_MESSAGE: u64 = 16 << 10;

/// Whether and how TLS is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Security {
    /// TLS, and a certificate that is trusted.
    Tls,
    /// This machine itself: plain unless it turns out to want TLS, which then is verified.
    Loopback,
    /// The user said that anybody may be it: TLS that is not verified, or none.
    Insecure,
    /// The user said: no TLS.
    Plain,
}

/// One host that is asked.
#[derive(Debug)]
pub(super) struct Host {
    /// As in `registry-1.docker.io` and `localhost:5000`.
    pub(super) name: String,
    pub(super) security: Security,
    trust: Trust,
    secure: OnceLock<Agent>,
    plain: OnceLock<Agent>,
    /// Whether it speaks TLS, once that is known.
    speaks_tls: OnceLock<bool>,
}

/// An answer whose status is not looked at yet.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    /// Who gave it: the host that was asked, or one that it redirected to.
    pub(super) host: String,
    pub(super) redirected: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Default)]
pub(super) struct Question<'a> {
    pub(super) accept: &'a [&'a str],
    /// From which byte on.
    pub(super) from: u64,
    /// The value of the Authorization header.
    pub(super) login: Option<&'a str>,
    /// A form to be posted.
    pub(super) form: Option<&'a str>,
}

impl Host {
    pub(super) fn new(name: &str, security: Security, trust: Trust) -> Host {
        // Who put a certificate there for a registry on loopback means it to be asked for.
        let wants_tls = security == Security::Loopback && trust.is_for(name);
        Host {
            name: name.to_owned(),
            security: if wants_tls { Security::Tls } else { security },
            trust,
            secure: OnceLock::new(),
            plain: OnceLock::new(),
            speaks_tls: OnceLock::new(),
        }
    }

    /// Asks for `path`, which begins with a slash, and follows redirects.
    pub(super) fn ask(&self, path: &str, question: Question<'_>) -> Result<Answer, HttpError> {
        let (mut url, mut response) = self.begin(path, question)?;
        let mut question = question;
        let mut redirected = false;
        for _ in 0..MAX_REDIRECTS {
            let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let location = response.headers().get(LOCATION).map(|l| l.as_bytes().to_vec());
            let Some(location) = location.filter(|_| is_redirect) else {
                return Ok(answer(&url, response, redirected));
            };
            let next = self.redirect(&url, &location)?;
            if next.origin() != url.origin() {
                question.login = None;
                redirected = true;
            }
            let agent = self.agent(next.is_tls())?;
            response = send(&agent, &next, question)?;
            url = next;
        }
        Err(refused(&url, "", "there are too many redirects, one after the other"))
    }

    /// Asks any address, for a token. There are no redirects: they would be a way for one host to
    /// see what is meant for another.
    pub(super) fn ask_at(&self, url: &Url, question: Question<'_>) -> Result<Answer, HttpError> {
        let agent = self.agent(url.is_tls())?;
        Ok(answer(url, send(&agent, url, question)?, false))
    }

    /// Whether the host was found to speak without TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.speaks_tls.get() == Some(&false)
    }

    fn begin(&self, path: &str, question: Question<'_>) -> Result<(Url, Response), HttpError> {
        let ask = |tls: bool| {
            let url = Url::new(tls, &self.name, path);
            let response = send(&self.agent(tls)?, &url, question)?;
            Ok((url, response))
        };
        if let Some(tls) = self.speaks_tls.get() {
            return ask(*tls);
        }
        let (first, second) = match self.security {
            Security::Tls => (true, None),
            Security::Plain => (false, None),
            Security::Loopback => (false, Some(true)),
            Security::Insecure => (true, Some(false)),
        };
        let settle = |tls| {
            // Whoever was first found the same.
            let _ = self.speaks_tls.set(tls);
        };
        let result = ask(first);
        let may_speak_other = match &result {
            // What servers that want TLS say to those who do not speak it.
            Ok((_, response)) => !first && response.status() == 400,
            Err(HttpError::Connect { .. }) => first,
            Err(_) => true,
        };
        if let (Some(second), true) = (second, may_speak_other) {
            match ask(second) {
                Ok(answer) => {
                    settle(second);
                    return Ok(answer);
                }
                // It does speak TLS, so that is what is wrong.
                Err(error @ HttpError::Certificate { .. }) => return Err(error),
                Err(_) => {}
            }
        }
        if result.is_ok() {
            settle(first);
        }
        result
    }

    fn redirect(&self, from: &Url, location: &[u8]) -> Result<Url, HttpError> {
        let text = String::from_utf8_lossy(location);
        let told = text.split(['?', '#']).next().unwrap_or_default();
        let Some(next) = from.join(&text) else {
            return Err(refused(from, told, "it is no address of HTTP"));
        };
        if from.is_tls() && !next.is_tls() && self.security != Security::Insecure {
            return Err(refused(from, told, "it leads away from TLS"));
        }
        Ok(next)
    }

    fn agent(&self, tls: bool) -> Result<Agent, HttpError> {
        let place = if tls { &self.secure } else { &self.plain };
        if let Some(agent) = place.get() {
            return Ok(agent.clone());
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .user_agent(concat!("podshim/", env!("CARGO_PKG_VERSION")));
        if self.security == Security::Loopback || super::is_loopback(&self.name) {
            // A proxy's loopback is not ours.
            config = config.proxy(None);
        }
        if tls {
            let verified = self.security != Security::Insecure;
            let trusted = self.trust.config(&self.name, verified).map_err(|source| {
                HttpError::Trust { host: self.name.clone(), source: Box::new(source) }
            })?;
            config = config.tls_config(trusted);
        }
        Ok(place.get_or_init(|| config.build().new_agent()).clone())
    }
}

type Response = ureq::http::Response<Body>;

fn answer(url: &Url, response: Response, redirected: bool) -> Answer {
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
        host: url.host().to_owned(),
        redirected,
    }
}

fn refused(from: &Url, to: &str, why: &'static str) -> HttpError {
    let to = to.chars().take(200).collect();
    HttpError::Redirect { host: from.host().to_owned(), to, why }
}

fn send(agent: &Agent, url: &Url, question: Question<'_>) -> Result<Response, HttpError> {
    let host = || url.host().to_owned();
    let wrong = |e: ureq::http::Error| HttpError::Answer { host: host(), why: e.to_string() };
    let mut request = Request::builder().uri(url.to_string());
    for accept in question.accept {
        request = request.header("Accept", *accept);
    }
    if let Some(login) = question.login {
        request = request.header(AUTHORIZATION, login);
    }
    if question.from > 0 {
        request = request.header("Range", format!("bytes={}-", question.from));
    }
    let sent = match question.form {
        None => agent.run(request.method("GET").body(()).map_err(wrong)?),
        Some(form) => {
            let request = request.method("POST").header(CONTENT_TYPE, FORM);
            agent.run(request.body(form).map_err(wrong)?)
        }
    };
    sent.map_err(|source| failed(host(), source))
}

const FORM: &str = "application/x-www-form-urlencoded";

impl Answer {
    /// The answer if its status is one of `wanted`, and what it says otherwise.
    pub(super) fn expect(self, wanted: &[u16]) -> Result<Answer, HttpError> {
        if wanted.contains(&self.status) {
            return Ok(self);
        }
        let seconds = self.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let (host, status) = (self.host, self.status);
        let mut body = Vec::new();
        // What it says is worth telling, but its silence is no other error.
        let _ = self.body.into_reader().take(MAX_MESSAGE).read_to_end(&mut body);
        let retry_after = seconds.map(Duration::from_secs);
        Err(HttpError::Status { host, status, message: message(&body), retry_after })
    }

    /// All of a body that should be small.
    pub(super) fn small(self, limit: u64) -> Result<Vec<u8>, HttpError> {
        let host = self.host;
        let mut body = Vec::new();
        let mut reader = self.body.into_reader().take(limit.saturating_add(1));
        match reader.read_to_end(&mut body) {
            Err(source) => Err(HttpError::Body { host, source }),
            Ok(_) if body.len() as u64 > limit => Err(HttpError::TooLong { host, limit }),
            Ok(_) => Ok(body),
        }
    }
}

/// What a registry says is wrong: the first of its `errors`, fit for a terminal.
fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        errors: Vec<Reason>,
    }
    #[derive(serde::Deserialize)]
    struct Reason {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(refusal) = serde_json::from_slice::<Refusal>(body) else { return String::new() };
    let Some(Reason { code, message }) = refusal.errors.into_iter().next() else {
        return String::new();
    };
    let text = if message.is_empty() { code } else { message };
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_s_words_are_told_without_what_would_write_over_a_terminal() {
        let body = br#"{"errors":[{"code":"DENIED","message":"not\u001b[2J yours"}]}"#;
        assert_eq!(message(body), "not[2J yours");
        assert_eq!(message(br#"{"errors":[{"code":"UNKNOWN"}]}"#), "UNKNOWN");
        assert_eq!(message(b"<html>"), "");
    }
}
