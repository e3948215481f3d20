//! Fetches one blob into the store's partial files, however often the connection breaks.
//!
//! What has arrived is never fetched again: the rest is asked for by range, at once by this process
//! and later by any other. A blob is given out only when all of it has the digest that it is asked
//! for by; what turns out to be wrong is thrown away and, if its beginning was from an earlier pull,
//! fetched once more from the start.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::endpoint::{Endpoint, EndpointError};
use super::failure::HttpError;
use super::http::Answer;
use super::{Progress, PullError, Source};
use crate::image::digest::Digest;
use crate::image::document::Descriptor;
use crate::image::partial::Partial;
use crate::image::store::Store;

/// How often in a row the rest is asked for without a byte coming.
const ATTEMPTS: u32 = 5;
/// How often in all, whatever comes.
const MAX_ATTEMPTS: u32 = 200;
/// The longest wait between two of them.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Bytes between two words about how far it is.
const TELL_EVERY: u64 = 256 << 10;

/// What is fetched for whom.
pub(super) struct Fetch<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) descriptor: &'a Descriptor,
    pub(super) what: &'static str,
    /// Set when the rest of the image cannot be had, so that this needs not be either.
    pub(super) stop: &'a AtomicBool,
    pub(super) tell: &'a mut dyn FnMut(Progress),
}

impl Fetch<'_> {
    /// The whole blob, verified.
    pub(super) fn run(mut self, store: &Store) -> Result<Partial, PullError> {
        let written = |e| PullError::Store(store.write_error(e));
        let digest = &self.descriptor.digest;
        let tell = &mut self.tell;
        let mut waiting = || tell(Progress::Waiting { digest: digest.to_string() });
        let mut partial = Partial::open(&store.partial(), digest, &mut waiting).map_err(written)?;
        let mut failures = Vec::new();
        for endpoint in &self.source.endpoints {
            match self.whole(endpoint, store, &mut partial)? {
                Ok(()) => return Ok(partial),
                Err(error) => failures.push((endpoint.name.clone(), error)),
            }
        }
        if partial.bytes() == 0 {
            partial.remove().map_err(written)?;
        }
        Err(self.source.failed(self.what, failures))
    }

    /// All of it from one place, and right.
    fn whole(
        &mut self,
        endpoint: &Endpoint<'_>,
        store: &Store,
        partial: &mut Partial,
    ) -> Result<Result<(), EndpointError>, PullError> {
        let written = |e| PullError::Store(store.write_error(e));
        let digest = &self.descriptor.digest;
        // What is there may be another's, who may have been wrong.
        let mut again = partial.bytes() > 0;
        loop {
            if partial.bytes() > self.descriptor.size {
                partial.clear().map_err(written)?;
            }
            if let Err(error) = self.fill(endpoint, store, partial)? {
                return Ok(Err(error));
            }
            let found = partial.digest();
            if found == *digest {
                return Ok(Ok(()));
            }
            partial.clear().map_err(written)?;
            if !again {
                return Ok(Err(EndpointError::digest(self.what, digest, &found)));
            }
            let reason = "what was there of it is wrong".to_owned();
            (self.tell)(Progress::Retry { digest: digest.to_string(), reason });
            again = false;
        }
    }

    /// Asks one place until all bytes are there, again while it makes sense.
    fn fill(
        &mut self,
        endpoint: &Endpoint<'_>,
        store: &Store,
        partial: &mut Partial,
    ) -> Result<Result<(), EndpointError>, PullError> {
        let mut fruitless = 0;
        for _ in 0..MAX_ATTEMPTS {
            if partial.bytes() == self.descriptor.size {
                return Ok(Ok(()));
            }
            let before = partial.bytes();
            let error = match self.once(endpoint, store, partial)? {
                Ok(()) => continue,
                Err(error) => error,
            };
            fruitless = if partial.bytes() > before { 0 } else { fruitless + 1 };
            if !error.is_transient() || fruitless >= ATTEMPTS {
                return Ok(Err(error));
            }
            let (digest, reason) = (self.descriptor.digest.to_string(), error.chain());
            (self.tell)(Progress::Retry { digest, reason });
            let doubled = self.source.first_wait.saturating_mul(1 << fruitless.min(16));
            let wait = error.retry_after().unwrap_or(doubled).min(MAX_WAIT);
            self.sleep(wait)?;
        }
        let (host, why) = (endpoint.name.clone(), "it breaks off again and again".into());
        Ok(Err(HttpError::Answer { host, why }.into()))
    }

    /// One request, as far as its answer goes.
    fn once(
        &mut self,
        endpoint: &Endpoint<'_>,
        store: &Store,
        partial: &mut Partial,
    ) -> Result<Result<(), EndpointError>, PullError> {
        let written = |e| PullError::Store(store.write_error(e));
        let answer = match endpoint.blob(&self.descriptor.digest, partial.bytes()) {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error)),
        };
        match (answer.status, starts_at(&answer)) {
            (206, Some(at)) if at == partial.bytes() => {}
            (206, _) => {
                let why = "it sends another part than was asked for".into();
                return Ok(Err(HttpError::Answer { host: answer.host, why }.into()));
            }
            // All of it, from a registry that does not know ranges or has nothing from there on.
            _ => partial.clear().map_err(written)?,
        }
        if answer.status == 416 {
            return Ok(Ok(()));
        }
        let (host, mut body) = (answer.host, answer.body.into_reader());
        let mut buffer = vec![0; 128 << 10];
        let mut told = partial.bytes();
        loop {
            self.check_stop()?;
            let count = match body.read(&mut buffer) {
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Ok(Err(HttpError::Body { host, source }.into())),
            };
            let size = self.descriptor.size;
            if partial.bytes() + count as u64 > size {
                partial.clear().map_err(written)?;
                return Ok(Err(HttpError::TooLong { host, limit: size }.into()));
            }
            partial.add(&buffer[..count]).map_err(written)?;
            let done = partial.bytes();
            if count == 0 || done == size || done >= told + TELL_EVERY {
                told = done;
                let digest = self.descriptor.digest.to_string();
                (self.tell)(Progress::Layer { digest, done, total: size });
            }
            if done == size {
                return Ok(Ok(()));
            }
            if count == 0 {
                let source = io::Error::new(io::ErrorKind::UnexpectedEof, "it ended too early");
                return Ok(Err(HttpError::Body { host, source }.into()));
            }
        }
    }

    fn sleep(&self, mut wait: Duration) -> Result<(), PullError> {
        const STEP: Duration = Duration::from_millis(50);
        while !wait.is_zero() {
            self.check_stop()?;
            let step = wait.min(STEP);
            std::thread::sleep(step);
            wait -= step;
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<(), PullError> {
        if self.stop.load(Ordering::Relaxed) { Err(PullError::Stopped) } else { Ok(()) }
    }
}

/// The first byte of the part that an answer has: `Content-Range: bytes 7-9/10`.
fn starts_at(answer: &Answer) -> Option<u64> {
    let text = answer.headers.get("content-range")?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// A small blob, whole and in memory.
pub(super) fn document(
    source: &Source<'_>,
    descriptor: &Descriptor,
    what: &'static str,
) -> Result<Vec<u8>, PullError> {
    source.try_all(what, &|endpoint| {
        let bytes = endpoint.blob(&descriptor.digest, 0)?.small(descriptor.size)?;
        match Digest::of(&bytes) {
            found if found == descriptor.digest => Ok(bytes),
            found => Err(EndpointError::digest(what, &descriptor.digest, &found)),
        }
    })
}
