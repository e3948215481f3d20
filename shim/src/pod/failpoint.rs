//! Points at which a test can kill a shim, or shim and keeper at once: before and after each fact is
//! written down, before and after each action, and between the steps of what is made and removed. And
//! those at which it can kill the daemon.
//!
//! The file `<root>/failpoint` names one, and whom it kills: `started:after both`, `daemon:stored daemon`. It is gone when that has
//! happened. In debug builds and with the feature `failpoints`; elsewhere they are nothing at all.

/// Every point, as `podshim failpoints` lists them.
pub const POINTS: [&str; 93] = [
    "accepted:before",
    "accepted:after",
    "adopted:before",
    "adopted:after",
    "sandboxMaking:before",
    "sandboxMaking:after",
    "sandboxReady:before",
    "sandboxReady:after",
    "imageReady:before",
    "imageReady:after",
    "creating:before",
    "creating:after",
    "created:before",
    "created:after",
    "starting:before",
    "starting:after",
    "started:before",
    "started:after",
    "hookRunning:before",
    "hookRunning:after",
    "hookEnded:before",
    "hookEnded:after",
    "probing:before",
    "probing:after",
    "probed:before",
    "probed:after",
    "deleteAsked:before",
    "deleteAsked:after",
    "ending:before",
    "ending:after",
    "signalled:before",
    "signalled:after",
    "killed:before",
    "killed:after",
    "exited:before",
    "exited:after",
    "gone:before",
    "gone:after",
    "tornDown:before",
    "tornDown:after",
    "MakeSandbox:before",
    "MakeSandbox:after",
    "ResolveImage:before",
    "ResolveImage:after",
    "Create:before",
    "Create:after",
    "Start:before",
    "Start:after",
    "Probe:before",
    "Probe:after",
    "Hook:before",
    "Hook:after",
    "End:before",
    "End:after",
    "Signal:before",
    "Signal:after",
    "Kill:before",
    "Kill:after",
    "Clean:before",
    "Clean:after",
    "Teardown:before",
    "Teardown:after",
    "sandbox:cgroup",
    "sandbox:namespaces",
    "sandbox:network",
    "sandbox:volumes",
    "start:log",
    "start:connected",
    "exit:drained",
    "teardown:killed",
    "teardown:cgroup",
    "teardown:network",
    "teardown:sandbox",
    "adopt:told",
    "adopt:entered",
    "adopt:containers",
    "finish:said",
    "finish:released",
    "finish:disowned",
    "finish:forgotten",
    "finish:removed",
    "daemon:admitted",
    "daemon:stored",
    "daemon:spawned",
    "daemon:met",
    "daemon:told",
    "daemon:controlled",
    "daemon:rolled",
    "daemon:marked",
    "daemon:ended",
    "daemon:noted",
    "daemon:removed",
    "daemon:adopted",
];

#[cfg(any(debug_assertions, feature = "failpoints"))]
mod armed {
    use std::fs;

    use bundles::layout::Layout;
    use rustix::process::{Pid, Signal, getpid, getppid, kill_process};
    use serde::Serialize;
    use serde_json::Value;

    /// A step between two others.
    pub fn at(layout: &Layout, point: &str) {
        let file = layout.root.join("failpoint");
        let Ok(text) = fs::read_to_string(&file) else { return };
        let Some((armed, whom)) = text.trim().split_once(' ') else { return };
        if armed != point {
            return;
        }
        let keeper = getppid().filter(|_| whom == "both");
        if fs::remove_file(&file).is_ok() {
            keeper.into_iter().chain([getpid()]).for_each(end);
        }
    }

    fn end(pid: Pid) {
        // It is there, and so are we, until this has happened.
        let _ = kill_process(pid, Signal::KILL);
    }

    /// Before or after a fact or an action, which are known by the tags of their JSON.
    pub fn around(layout: &Layout, what: &impl Serialize, tag: &str, side: &str) {
        if let Ok(Value::String(name)) = serde_json::to_value(what).map(|mut v| v[tag].take()) {
            let mut letters = name.chars();
            let name = match (tag, letters.next()) {
                ("action", Some(first)) => first.to_uppercase().chain(letters).collect(),
                _ => name,
            };
            at(layout, &format!("{name}:{side}"));
        }
    }
}

#[cfg(any(debug_assertions, feature = "failpoints"))]
pub use armed::{around, at};

#[cfg(not(any(debug_assertions, feature = "failpoints")))]
mod disarmed {
    use bundles::layout::Layout;

    #[inline(always)]
    pub fn at(_: &Layout, _: &str) {}

    #[inline(always)]
    pub fn around<T>(_: &Layout, _: &T, _: &str, _: &str) {}
}

#[cfg(not(any(debug_assertions, feature = "failpoints")))]
pub use disarmed::{around, at};
