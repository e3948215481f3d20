//! Every order of events in the lives of tiny pods, up to a depth.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken promise is to stop the test")]
#![allow(clippy::print_stdout, reason = "shown with --nocapture, or if it fails")]

use std::thread;

use sim::{play, search};

/// Pods in the words of stories.
/// If they name an image, users change it, and stop and start sidecars.
const PODS: [&str; 10] = [
    "Never grace=3; main app",
    "Always grace=3; sidecar log startup(period=2 failures=1); main app pre-stop",
    "OnFailure grace=3; sidecar log post-start pre-stop; main app",
    "Never grace=2; init migrate; sidecar log; main app",
    "Never grace=2; sidecar net; sidecar log pre-stop; main app",
    "Always grace=2; main app liveness(period=1 failures=1) readiness(period=1 failures=1)",
    "Never grace=2; sidecar log standby; main app rules(restart-all in 1) policy=Never",
    "Always grace=2; sidecar log image=log:1; main app pre-stop",
    "Never grace=2; init migrate image=migrate:1; sidecar log startup(period=1); main app",
    "Never grace=0 deadline=5; sidecar log notify; main app pull-always at-start",
];
/// After how many calm steps a search begins, and how deep it goes.
const SEARCHES: [(u32, u32); 11] =
    [(0, 4), (2, 4), (4, 3), (5, 3), (6, 4), (7, 3), (8, 4), (9, 3), (10, 4), (12, 3), (14, 3)];

#[test]
fn every_order_of_events_keeps_the_promises() {
    thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || PODS.iter().skip(half).step_by(2).for_each(|pod| one(pod)));
        }
    });
}

fn one(text: &str) {
    let changes = text.contains("image=");
    let pod = play(&format!("pod: {text}\n"), None, None).unwrap().pod;
    let (mut worlds, mut ends, mut checks) = (0, 0, 0);
    for (calm, depth) in SEARCHES {
        let searched = search(&pod, calm, depth, changes)
            .unwrap_or_else(|broken| panic!("{text}: after {calm} calm steps: {}", broken.0));
        worlds += searched.worlds;
        ends += searched.ends;
        checks += searched.tally.checks;
    }
    println!("{text}: {worlds} worlds, {ends} ends, {checks} checks");
    assert!(ends > 1000, "{text}: {ends} ends");
}
