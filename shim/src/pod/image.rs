//! Images: found in the store, or pulled by a child of ours.
//!
//! The shim does not talk to registries itself: for a pull it starts its own sealed binary as
//! `podshim pull`, so that no thread, no name look-up and no TLS ever runs in the process that is
//! the pod, and a pull needs no daemon and no living `podshim run`.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use bundles::image::{PullPolicy, Reference, default_policy};
use plan::{Exit, Fact};

use super::compile::containers;
use super::file::PullOverride;
use super::kept;
use super::machine::Machine;

/// `podshim pull` exits with this if the registry could not be reached.
pub const UNREACHABLE: i32 = 3;

/// What is kept of a failed pull's words.
const MESSAGE_MAX_BYTES: u64 = 2048;

/// A pull under way.
#[derive(Debug)]
pub struct Pull {
    /// For which container; `None` if it wants another image now.
    c: Option<usize>,
    pid: i32,
    since_ns: u64,
    errors: OwnedFd,
}

impl Machine {
    pub(super) fn resolve_image(&mut self, c: usize) {
        let text = self.pod.containers[c].image.clone();
        let reference = match Reference::parse(&text) {
            Ok(reference) => reference,
            Err(e) => return self.image_failed(c, "InvalidImageName", runtime::chain(&e)),
        };
        let here = match self.store.resolve_held(&reference, &self.who()) {
            Ok(here) => here,
            Err(e) => return self.image_failed(c, "ImageInspectError", runtime::chain(&e)),
        };
        match (self.pull_policy(c, &reference), here) {
            (PullPolicy::Never, None) => self.image_failed(
                c,
                "ErrImageNeverPull",
                format!("Container image {text:?} is not present with pull policy of Never"),
            ),
            (PullPolicy::Never | PullPolicy::IfNotPresent, Some(found)) => {
                self.image_ready(c, found, None, None);
            }
            (PullPolicy::IfNotPresent, None) | (PullPolicy::Always, _) => {
                self.begin_pull(c, &reference);
            }
        }
    }

    fn pull_policy(&self, c: usize, reference: &Reference) -> PullPolicy {
        match self.file.pull {
            Some(PullOverride::Always | PullOverride::Newer) => PullPolicy::Always,
            Some(PullOverride::Missing) => PullPolicy::IfNotPresent,
            Some(PullOverride::Never) => PullPolicy::Never,
            None => {
                let spec = self.file.pod.spec.as_ref();
                spec.and_then(|s| containers(s).nth(c))
                    .and_then(|c| c.image_pull_policy.as_deref())
                    .and_then(PullPolicy::parse)
                    .unwrap_or_else(|| default_policy(reference))
            }
        }
    }

    /// Whether an image that is here may be used when the registry cannot be asked: only a written
    /// `Always` (or `--pull=always`) insists.
    fn may_fall_back(&self, c: usize) -> bool {
        match self.file.pull {
            Some(pull) => pull != PullOverride::Always,
            None => !self.file.always_written.contains(&c),
        }
    }

    fn begin_pull(&mut self, c: usize, reference: &Reference) {
        self.record(Fact::ImagePulling { c });
        self.pull_now(c, reference);
    }

    /// The pull that a shim before this one began.
    pub(super) fn pull_again(&mut self, c: usize, text: &str) {
        match Reference::parse(text) {
            Ok(reference) => self.pull_now(c, &reference),
            Err(e) => self.image_failed(c, "InvalidImageName", runtime::chain(&e)),
        }
    }

    fn pull_now(&mut self, c: usize, reference: &Reference) {
        match self.spawn_pull(c, reference) {
            Ok(pull) => self.pulls.push(pull),
            Err(e) => self.image_failed(c, "ErrImagePull", format!("cannot start a pull: {e}")),
        }
    }

    fn spawn_pull(&self, c: usize, reference: &Reference) -> std::io::Result<Pull> {
        let (errors, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let child = Command::new("/proc/self/exe")
            .arg("pull")
            .arg("--quiet")
            .arg("--root")
            .arg(&self.layout.root)
            .arg(reference.to_string())
            .envs(&self.file.pull_environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(theirs)
            .spawn()?;
        // Reaped with all other children; the handle is not needed.
        let pid = i32::try_from(child.id()).map_err(std::io::Error::other)?;
        Ok(Pull { c: Some(c), pid, since_ns: runtime::clock::mono().0, errors })
    }

    /// `false` if the child was no pull.
    pub(super) fn on_pull_end(&mut self, pid: i32, exit: &Exit) -> bool {
        let Some(at) = self.pulls.iter().position(|p| p.pid == pid) else { return false };
        let pull = self.pulls.swap_remove(at);
        let took_ms = (runtime::clock::mono().0 - pull.since_ns) / 1_000_000;
        let Some(c) = pull.c else { return true };
        let text = self.pod.containers[c].image.clone();
        let found = Reference::parse(&text)
            .ok()
            .and_then(|reference| self.store.resolve_held(&reference, &self.who()).ok().flatten());
        match (exit.code, found) {
            (0, Some(found)) => self.image_ready(c, found, Some(took_ms), None),
            (UNREACHABLE, Some(found)) if self.may_fall_back(c) => {
                let why = words(pull.errors);
                self.image_ready(c, found, None, Some(why));
            }
            (code, _) => {
                let said = words(pull.errors);
                let message =
                    if said.is_empty() { format!("the pull ended with {code}") } else { said };
                self.image_failed(c, "ErrImagePull", message);
            }
        }
        true
    }

    /// A container wants another image now. What was begun is left to end: it may be of use later.
    pub(super) fn forget_pulls(&mut self, c: usize) {
        self.pulls.iter_mut().filter(|pull| pull.c == Some(c)).for_each(|pull| pull.c = None);
    }

    fn image_ready(
        &mut self,
        c: usize,
        (image, hold): (bundles::image::Image, bundles::image::Hold),
        took_ms: Option<u64>,
        stale: Option<String>,
    ) {
        let fact = Fact::ImageReady {
            c,
            image_id: image.id.clone(),
            pulled: took_ms.is_some(),
            took_ms: took_ms.unwrap_or(0),
            bytes: image.size_bytes,
            stale,
        };
        self.hold(&kept::image(c), hold.file());
        self.images[c] = Some(image);
        self.holds[c] = Some(hold);
        self.record(fact);
    }

    /// This pod, in the words of whoever is told that it needs an image.
    pub(super) fn who(&self) -> String {
        let meta = &self.file.pod.metadata;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        format!("pod {}/{}", text(&meta.namespace), text(&meta.name))
    }

    fn image_failed(&mut self, c: usize, reason: &str, message: String) {
        self.record(Fact::ImageFailed { c, reason: reason.into(), message });
    }
}

/// What a pull said: it has ended, so reading comes to an end too.
fn words(errors: OwnedFd) -> String {
    let mut bytes = Vec::new();
    let read = File::from(errors).take(MESSAGE_MAX_BYTES).read_to_end(&mut bytes);
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    text.trim().trim_start_matches("podshim: ").to_owned()
}
