//! A scenario in each of its shapes.

use super::*;

const TEXT: &str = "# Main is restarted once,\n# and the sidecar stays.\n\
    pod: OnFailure grace=3; sidecar log startup(period=1); main app\n\
    log: startup fails 1 time, ignores its signal\n\
    app: exits 3 after 100ms; exits 0 after 100ms\nthen:\nlog starts before app starts\n\
    log and app run together\napp restarts 1 time\nlog never restarts\napp exits before log exits\n\
    log exits with 137\npod Succeeded\n";

#[test]
fn a_scenario_is_lived_and_judged() {
    let scenario = Scenario::read(TEXT).expect("a scenario");
    assert_eq!(scenario.title, "Main is restarted once, and the sidecar stays.");
    let outcome = scenario.case().live(false);
    assert!(outcome.broken.is_none(), "{:?}", outcome.broken);
    let happened = scenario.happenings(&outcome);
    assert_eq!(scenario.judge(&happened, plan::PodPhase::Succeeded), [""; 0]);
    let wrong = scenario.judge(&happened[1..], plan::PodPhase::Failed);
    assert!(wrong.iter().any(|w| w.starts_with("log starts before app starts: log never did")));
    assert!(wrong.contains(&"pod Succeeded: it is Failed".to_owned()), "{wrong:?}");
}

#[test]
fn the_manifest_says_the_same() {
    let manifest = Scenario::read(TEXT).expect("a scenario").manifest("alpine:latest");
    for part in [
        "restartPolicy: OnFailure\n  terminationGracePeriodSeconds: 3",
        "name: log\n    image: alpine:latest\n    command: [sh, -c, \"trap '' TERM;",
        "0) sleep 0.100 & wait $!; exit 3;; *) sleep 0.100 & wait $!; exit 0;; esac",
        "startupProbe: {initialDelaySeconds: 0, periodSeconds: 1,",
        "podshim.dev/burst: \"false\"",
    ] {
        assert!(manifest.contains(part), "{part}\n{manifest}");
    }
}

#[test]
fn users_wait_for_what_had_happened_before_them() {
    let text = "# .\npod: Never grace=3; sidecar log; main app\napp: exits 0 after 2s\n\
        restart log after 1s\ndelete after 1500ms\nthen:\npod Succeeded\n";
    let times = |name: &str, starts, exits| Seen { container: name.to_owned(), starts, exits };
    let cues = Scenario::read(text).expect("a scenario").cues();
    assert_eq!((cues[0].after_ms, cues[1].after_ms), (1000, 500), "{cues:?}");
    assert_eq!(cues[0].seen, [times("log", 1, 0), times("app", 1, 0)]);
    assert_eq!(cues[1].seen, [times("log", 2, 1), times("app", 1, 0)]);
}

#[test]
fn what_is_not_understood_is_named_with_its_line() {
    for (text, expected) in [
        ("", "there is no line `pod:`"),
        ("app: runs\n", "line 1: the pod comes first: app: runs"),
        ("pod: Sometimes; main app\n", "line 1: \"Sometimes\" is no restart policy"),
        ("pod: Never; sidecar log\n", "line 1: a pod has a main"),
        ("pod: Never; main app\nlog: runs\n", "line 2: there is no container \"log\""),
        ("pod: Never; main app\napp: dances\n", "line 2: nobody knows what \"dances\" means"),
        ("pod: Never; main app\ndelete after 3\n", "line 2: \"3\" is no time like 300ms or 2s"),
        ("pod: Never; main app startup(period)\n", "line 1: \"period\" has no value"),
    ] {
        let said = Scenario::read(text).expect_err(text);
        assert!(said.starts_with(expected), "{text:?}: {said}");
    }
}
