//! The exit code of `podshim run` for a single pod.
//!
//! The pod's own codes come first, because a script asks for what its program said; podshim's own
//! 125, 126 and 127 mean what they mean to `docker run` and `env`.

use crate::fact::{End, Exit};
use crate::model::{Kind, Pod};
use crate::state::State;

/// Whatever podshim itself could not do.
const OURS: i32 = 125;
const CANNOT_EXECUTE: i32 = 126;
const NOT_FOUND: i32 = 127;
/// `errno(3)`: no such file or directory.
const ENOENT: i32 = 2;

/// The code for a pod that is over: the first main's that is not 0, else that of an init container
/// that has failed, else 1 if the pod failed for another reason, else 0.
#[must_use]
pub fn exit_code(pod: &Pod, state: &State) -> i32 {
    if state.ending() == Some(End::SandboxFailed) {
        return OURS;
    }
    let mains = pod.mains().filter_map(|(c, _)| state.last_exit(c)).map(code);
    if let Some(code) = mains.into_iter().find(|code| *code != 0) {
        return code;
    }
    if let Some(code) = failed_init(pod, state) {
        return code;
    }
    i32::from(matches!(
        state.ending(),
        Some(End::DeadlineExceeded | End::InitFailed | End::Interrupted)
    ))
}

/// The code of the init container that the pod hangs on. An OOM kill with code 0 is a failure too.
fn failed_init(pod: &Pod, state: &State) -> Option<i32> {
    let failed = pod
        .containers
        .iter()
        .enumerate()
        .find(|(c, container)| container.kind == Kind::Init && !state.records[*c].completed);
    let (c, _) = failed?;
    state.last_exit(c).map(code).map(|code| if code == 0 { 1 } else { code })
}

fn code(exit: &Exit) -> i32 {
    match &exit.start_error {
        Some(error) if error.errno == Some(ENOENT) => NOT_FOUND,
        Some(_) => CANNOT_EXECUTE,
        None => exit.code,
    }
}
