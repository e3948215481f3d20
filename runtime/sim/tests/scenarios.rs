//! Every scenario comes true in virtual time. (`integration/tests/scenarios.rs` asks the real kernel, but for
//! those of reboots, which `integration/tests/reboot.rs` and a virtual machine do.)

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use sim::Scenario;

#[test]
fn what_is_told_of_pods_comes_true_in_virtual_time() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut wrong = String::new();
    let mut count = 0;
    let of = |folder: &Path| {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    for path in of(&folder).into_iter().chain(of(&folder.join("reboot"))) {
        let scenario = Scenario::read(&fs::read_to_string(&path).unwrap()).unwrap();
        assert!(!scenario.title.is_empty() && !scenario.expectations.is_empty(), "{path:?}");
        let case = scenario.case();
        let outcome = case.live(false);
        let happened = scenario.happenings(&outcome);
        let mut said = scenario.judge(&happened, outcome.phase(&case.pod));
        said.extend(outcome.broken.map(|broken| broken.0));
        if !said.is_empty() {
            wrong += &format!("{}: {said:#?}\n", path.display());
        }
        count += 1;
    }
    assert!(count > 20, "{count}");
    assert!(wrong.is_empty(), "{wrong}");
}
