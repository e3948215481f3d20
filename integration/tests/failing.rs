//! A test that fails leaves nothing that would make others fail.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;

use integration::{Instance, is_ready, pod};

const FOREVER: &str = "  containers:
  - {name: main, image: alpine:latest, imagePullPolicy: Never, command: [sleep, '1000']}
";

#[test]
fn what_a_failing_test_has_goes_with_it() {
    let fails = |with_daemon: bool| {
        let test = move || {
            let podshim = Instance::new();
            let daemon = with_daemon.then(|| podshim.daemon());
            let running = (!with_daemon).then(|| podshim.start(&pod(FOREVER)));
            if daemon.is_some() {
                podshim.apply(&pod(FOREVER));
            }
            podshim.until("ready", is_ready);
            let (state, pid) = (podshim.state().to_owned(), podshim.pids()["main"]);
            // Without what a panic prints.
            let failure: Box<(std::path::PathBuf, i32)> = Box::new((state, pid));
            let _living = (daemon, running);
            std::panic::resume_unwind(failure)
        };
        let failure = std::thread::spawn(test).join().map(|()| "passed").unwrap_err();
        let (state, pid) = *failure.downcast::<(std::path::PathBuf, i32)>().unwrap();
        assert!(!state.exists(), "{} is there", state.display());
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains(state.to_str().unwrap()), "{mounts}");
        let cmdline = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!cmdline.contains("1000"), "the container lives: {pid}");
    };
    fails(true);
    fails(false);
}
