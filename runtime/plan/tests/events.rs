//! What each fact is worth as Kubernetes events.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken promise is to stop the test")]

use plan::{
    At, Change, Container, End, Exit, Fact, Hook, Kind, Mono, Pod, Probe, ProbeKind,
    RESTART_DELAY_MAX_S, RestartPolicy, StartError, State, Stop, Wall, fold, narrate,
};

fn pod() -> Pod {
    let probe = |container: Container| Container { liveness: Some(Probe::default()), ..container };
    Pod {
        namespace: "default".into(),
        name: "shop".into(),
        uid: "u1".into(),
        restart_policy: RestartPolicy::Never,
        grace_s: 30,
        active_deadline_s: None,
        restart_delay_max_s: RESTART_DELAY_MAX_S,
        gates: Vec::new(),
        containers: vec![
            Container::new("init", Kind::Init, "init:1"),
            probe(Container::new("log", Kind::Sidecar, "log:1")),
            probe(Container::new("app", Kind::Main, "app:1")),
        ],
    }
}

const INIT: usize = 0;
const LOG: usize = 1;
const APP: usize = 2;

fn created(c: usize, inc: u32) -> [Fact; 2] {
    let created = Fact::Created { c, inc, pid: 7, inode: 8, container_id: "x".into() };
    [Fact::Creating { c, inc }, created]
}

fn started(c: usize) -> Vec<Fact> {
    let mut facts = created(c, 0).to_vec();
    facts.extend([Fact::Starting { c, inc: 0 }, Fact::Started { c, inc: 0 }]);
    facts
}

fn exited(c: usize, exit: Exit) -> Fact {
    Fact::Exited { c, inc: 0, exit }
}

fn code(code: i32) -> Exit {
    Exit { code, ..Exit::default() }
}

fn probing(kind: ProbeKind, early: bool) -> Fact {
    Fact::Probing { c: APP, inc: 0, kind, early }
}

fn probed(kind: ProbeKind, success: bool, warned: bool) -> Fact {
    Fact::Probed { c: APP, inc: 0, kind, success, warned, output: "said".into() }
}

fn errored(kind: ProbeKind) -> Fact {
    Fact::ProbeErrored { c: APP, inc: 0, kind, message: "no such thing".into() }
}

/// The events of the last of these facts, after a pod's sandbox, all a second apart.
fn told(facts: &[Fact]) -> Vec<String> {
    let pod = pod();
    let mut state = State::new(&pod);
    let first = [Fact::Accepted, Fact::SandboxMaking, Fact::SandboxReady];
    let mut events = Vec::new();
    for (n, fact) in (1..).zip(first.iter().chain(facts)) {
        events = narrate(&pod, &state, fact);
        let at = At { mono: Mono(n * Mono::SECOND), wall: Wall(n * Mono::SECOND) };
        fold(&pod, &mut state, at, fact);
    }
    let text = |event: plan::Event| {
        let kind = if event.warning { "Warning" } else { "Normal" };
        let who = event.container.map_or("pod", |c| ["init", "log", "app"][c]);
        format!("{kind} {} {who}: {}", event.reason, event.message)
    };
    events.into_iter().map(text).collect()
}

/// What the last fact says where the container runs, and that it says nothing where it does not.
fn only_of_what_runs(before: &[Fact], fact: &Fact, says: &[&str]) {
    let all = |before: &[Fact], first: Vec<Fact>| {
        [&first[..], before, std::slice::from_ref(fact)].concat()
    };
    assert_eq!(told(&all(before, started(APP))), says, "{fact:?}");
    let nothing: [&str; 0] = [];
    assert_eq!(told(&all(before, Vec::new())), nothing, "{fact:?} of nothing");
    assert_eq!(told(&all(before, created(APP, 0).to_vec())), nothing, "{fact:?} of a spare");
    let ended = [started(APP), vec![exited(APP, code(0))]].concat();
    assert_eq!(told(&all(before, ended)), nothing, "{fact:?} of the dead");
}

#[test]
fn images() {
    let ready = |pulled, took_ms, stale: Option<&str>| Fact::ImageReady {
        c: APP,
        image_id: "sha256:1".into(),
        pulled,
        took_ms,
        bytes: 4096,
        stale: stale.map(str::to_owned),
    };
    let pulled = |took: &str| {
        format!(
            "Normal Pulled app: Successfully pulled image \"app:1\" in {took} ({took} including \
             waiting). Image size: 4096 bytes."
        )
    };
    assert_eq!(
        told(&[Fact::ImagePulling { c: APP }]),
        ["Normal Pulling app: Pulling image \"app:1\""]
    );
    for (took_ms, took) in
        [(0, "0ms"), (999, "999ms"), (1000, "1s"), (1200, "1.2s"), (61_001, "61.001s")]
    {
        assert_eq!(told(&[ready(true, took_ms, None)]), [pulled(took)]);
    }
    assert_eq!(
        told(&[ready(false, 0, None)]),
        [
            "Normal Pulled app: Container image \"app:1\" already present on machine and can be accessed by the \
          pod"
        ]
    );
    assert_eq!(
        told(&[ready(false, 0, Some("no route"))]),
        [
            "Warning Failed app: The registry could not be reached, so the image \"app:1\" that is already \
          present is used: no route"
        ]
    );
    let failed = |reason: &str| Fact::ImageFailed {
        c: APP,
        reason: reason.into(),
        message: "no such host".into(),
    };
    let first = [
        "Warning Failed app: Failed to pull image \"app:1\": no such host",
        "Warning Failed app: Error: ErrImagePull",
    ];
    assert_eq!(told(&[failed("ErrImagePull")]), first);
    let later = [
        first[0],
        first[1],
        "Normal BackOff app: Back-off pulling image \"app:1\"",
        "Warning Failed app: Error: ImagePullBackOff",
    ];
    assert_eq!(told(&[failed("ErrImagePull"), failed("ErrImagePull")]), later);
    assert_eq!(
        told(&[failed("ErrImageNeverPull")]),
        [
            "Warning ErrImageNeverPull app: no such host",
            "Warning Failed app: Error: ErrImageNeverPull"
        ]
    );
}

#[test]
fn sandbox_and_creation() {
    let failed = |reason: &str| Fact::SandboxFailed {
        reason: reason.into(),
        message: "no bridge".into(),
        again: true,
    };
    assert_eq!(
        told(&[failed("FailedCreatePodSandBox")]),
        ["Warning FailedCreatePodSandBox pod: Failed to create pod sandbox: no bridge"]
    );
    assert_eq!(told(&[failed("FailedMount")]), ["Warning FailedMount pod: no bridge"]);
    assert_eq!(told(&created(APP, 0)), ["Normal Created app: Container created"]);
    let (reason, message) = ("CreateContainerError".to_owned(), "no room".to_owned());
    let failed = Fact::CreateFailed { c: APP, inc: 0, reason, message };
    assert_eq!(
        told(&[Fact::Creating { c: APP, inc: 0 }, failed]),
        ["Warning Failed app: Error: no room"]
    );
    assert_eq!(told(&started(APP)), ["Normal Started app: Container started"]);
}

#[test]
fn probes() {
    let kind = ProbeKind::Liveness;
    let begun = [probing(kind, false)];
    only_of_what_runs(
        &begun,
        &probed(kind, false, false),
        &["Warning Unhealthy app: Liveness probe failed: said"],
    );
    only_of_what_runs(
        &begun,
        &probed(kind, true, true),
        &["Warning ProbeWarning app: Liveness probe warning: said"],
    );
    only_of_what_runs(&begun, &probed(kind, true, false), &[]);
    // An early failure counts for nothing.
    only_of_what_runs(&[probing(kind, true)], &probed(kind, false, false), &[]);
    // A failure that carries a warning is a failure.
    only_of_what_runs(
        &begun,
        &probed(kind, false, true),
        &["Warning Unhealthy app: Liveness probe failed: said"],
    );
    // What cannot be tried is tried three times.
    let twice = [begun.to_vec(), vec![errored(kind), probing(kind, false), errored(kind)]].concat();
    only_of_what_runs(&twice[..1], &errored(kind), &[]);
    only_of_what_runs(&twice[..3], &errored(kind), &[]);
    only_of_what_runs(
        &[twice, begun.to_vec()].concat(),
        &errored(kind),
        &[
            "Warning Unhealthy app: Liveness probe errored and resulted in unknown state: no such thing",
        ],
    );
}

#[test]
fn hooks() {
    let ended = |hook, failure: Option<&str>, notice: Option<&str>| Fact::HookEnded {
        c: APP,
        inc: 0,
        hook,
        failure: failure.map(str::to_owned),
        notice: notice.map(str::to_owned),
    };
    let begun = |hook| [Fact::HookRunning { c: APP, inc: 0, hook }];
    let (post, pre) = (Hook::PostStart, Hook::PreStop);
    only_of_what_runs(&begun(post), &ended(post, None, None), &[]);
    // What it said is nobody's business.
    only_of_what_runs(
        &begun(post),
        &ended(post, Some("password"), None),
        &["Warning FailedPostStartHook app: PostStartHook failed"],
    );
    only_of_what_runs(
        &begun(pre),
        &ended(pre, Some("password"), Some("plain HTTP")),
        &[
            "Warning LifecycleHTTPFallback app: plain HTTP",
            "Warning FailedPreStopHook app: PreStopHook failed",
        ],
    );
}

#[test]
fn stops() {
    let stopping = |c, why| Fact::Stopping { c, inc: 0, why, grace_s: 3 };
    let of = |c: usize, why| told(&[started(c), vec![stopping(c, why)]].concat());
    for (c, why, text) in [
        (LOG, Stop::Restart, "log: Container log is stopped to be restarted, as a user asked"),
        (LOG, Stop::Asked, "log: Container log is stopped, as a user asked"),
        (LOG, Stop::Changed, "log: Init container log definition changed"),
        (APP, Stop::Changed, "app: Container app definition changed, will be restarted"),
        (LOG, Stop::StartupProbe, "log: Init container log failed startup probe"),
        (LOG, Stop::LivenessProbe, "log: Init container log failed liveness probe"),
        // The pod's policy is Never.
        (APP, Stop::LivenessProbe, "app: Container app failed liveness probe"),
        (APP, Stop::PostStart, "app: FailedPostStartHook"),
    ] {
        assert_eq!(of(c, why), [format!("Normal Killing {text}")]);
    }
    let signalled = |signal, handled| Fact::Signalled { c: APP, inc: 0, signal, handled };
    let stopped = |signal, handled| {
        let last = [stopping(APP, Stop::Restart), signalled(signal, handled)];
        told(&[started(APP), last.to_vec()].concat())
    };
    assert_eq!(
        stopped(15, false),
        [
            "Normal Killing app: process 1 has no handler for SIGTERM, so the kernel drops it; SIGKILL follows in \
          3s"
        ]
    );
    assert!(stopped(34, false)[0].contains("no handler for signal 34,"));
    assert!(stopped(15, true).is_empty());
    // Of what nobody stops, nothing is known.
    assert!(told(&[started(APP), vec![signalled(15, false)]].concat()).is_empty());
}

#[test]
fn another_shim() {
    assert_eq!(
        told(&[Fact::Adopted { upgraded: true }]),
        ["Normal Upgraded pod: podshim's process for this pod has become another version"]
    );
    assert_eq!(
        told(&[Fact::Adopted { upgraded: false }]),
        [
            "Warning Adopted pod: podshim's process for this pod ended before the pod did, and another one \
             has taken the pod over"
        ]
    );
}

#[test]
fn exits() {
    let of = |exit: Exit| told(&[started(APP), vec![exited(APP, exit)]].concat());
    assert_eq!(of(code(0)), ["Normal Exited app: container exited with code 0"]);
    assert_eq!(of(code(3)), ["Warning Exited app: container exited with code 3"]);
    let killed = Exit { code: 137, signal: Some(9), ..Exit::default() };
    assert_eq!(
        of(killed.clone()),
        ["Warning Exited app: container was killed by SIGKILL: exit code 137"]
    );
    assert_eq!(
        of(Exit { oom: true, ..killed.clone() }),
        ["Warning Exited app: container ran out of memory: exit code 137"]
    );
    assert_eq!(
        of(Exit { oom: true, ..code(0) }),
        ["Warning Exited app: container ran out of memory: exit code 0"]
    );
    let start_error = Some(StartError { message: "exec x: no such file".into(), errno: Some(2) });
    assert_eq!(
        of(Exit { start_error, ..code(128) }),
        ["Warning Failed app: Error: exec x: no such file"]
    );
    assert_eq!(
        of(Exit { lost: true, ..code(137) }),
        ["Warning Exited app: container ended while nobody of podshim's was there to see how"]
    );
    // Who was asked to end may end as he likes, but for want of memory.
    let asked = Fact::Signalled { c: APP, inc: 0, signal: 15, handled: true };
    let kill = Fact::Killed { c: APP, inc: 0 };
    for by_us in [asked, kill] {
        let of = |exit| told(&[started(APP), vec![by_us.clone(), exited(APP, exit)]].concat());
        assert_eq!(
            of(killed.clone()),
            ["Normal Exited app: container was killed by SIGKILL: exit code 137"]
        );
        assert_eq!(of(Exit { oom: true, ..killed.clone() }).len(), 1);
        assert!(of(Exit { oom: true, ..killed.clone() })[0].starts_with("Warning"));
    }
    only_of_what_runs(
        &[],
        &exited(APP, code(0)),
        &["Normal Exited app: container exited with code 0"],
    );
}

#[test]
fn ends() {
    let ending = |why| Fact::Ending { why, grace_s: 30 };
    let running = [started(LOG), started(APP)].concat();
    let stopping = [
        "Normal Killing log: Stopping container log",
        "Normal Killing app: Stopping container app",
    ];
    assert_eq!(told(&[running.clone(), vec![ending(End::Deleted)]].concat()), stopping);
    assert_eq!(told(&[started(LOG), vec![ending(End::Completed)]].concat()), stopping[..1]);
    let deadline = "Warning DeadlineExceeded pod: Pod was active on the node longer than the specified deadline";
    assert_eq!(told(&[ending(End::DeadlineExceeded)]), [deadline]);
    // Once.
    let twice = vec![ending(End::Deleted), ending(End::DeadlineExceeded)];
    assert!(told(&[running.clone(), twice].concat()).is_empty());
    let all = Fact::RestartingAll { c: APP };
    let text = "Normal RestartingAllContainers app: Container app exited with a code for which all \
                containers are restarted";
    assert_eq!(told(&[running.clone(), vec![all.clone()]].concat()), [text]);
    assert!(told(&[running, vec![ending(End::Deleted), all]].concat()).is_empty());
}

#[test]
fn what_users_ask() {
    assert_eq!(
        told(&[Fact::RestartAsked { c: INIT }]),
        [
            "Warning RestartRefused init: Container init is not restarted: it is an init container: it runs to \
          completion, and what comes after relies on it"
        ]
    );
    assert!(told(&[started(APP), vec![Fact::RestartAsked { c: APP }]].concat()).is_empty());
    let change = |restart| {
        let container = pod().containers[APP].clone();
        let containers = vec![Change { c: APP, container, restart }];
        Fact::Changed { containers, active_deadline_s: None }
    };
    assert_eq!(
        told(&[change(false)]),
        ["Normal Resized app: Container app has other resources now"]
    );
    assert!(told(&[change(true)]).is_empty());
}

#[test]
fn back_off_is_told_when_the_remains_are_removed() {
    let gone = |c| Fact::Gone { c, inc: 0 };
    let next = |c| {
        let mut facts = created(c, 1).to_vec();
        facts.extend([Fact::Starting { c, inc: 1 }, Fact::Started { c, inc: 1 }]);
        facts
    };
    let first = [started(LOG), vec![exited(LOG, code(1)), gone(LOG)]].concat();
    // The first restart waits for nothing.
    assert!(told(&first).is_empty());
    let again = |rest: Vec<Fact>| told(&[first.clone(), next(LOG), rest].concat());
    let ended = |inc| Fact::Exited { c: LOG, inc, exit: code(1) };
    let of = "Warning BackOff log: Back-off restarting failed container log in pod \
              shop_default(u1)";
    assert_eq!(again(vec![ended(1), Fact::Gone { c: LOG, inc: 1 }]), [of]);
    // Of the remains of another run nothing is told, nor while it runs, nor while the pod ends.
    assert!(again(vec![ended(1), gone(LOG)]).is_empty());
    assert!(again(vec![Fact::Gone { c: LOG, inc: 1 }]).is_empty());
    let ending = Fact::Ending { why: End::Deleted, grace_s: 3 };
    assert!(again(vec![ended(1), ending, Fact::Gone { c: LOG, inc: 1 }]).is_empty());
    // Under Never a main is not restarted at all.
    assert!(told(&[started(APP), vec![exited(APP, code(1)), gone(APP)]].concat()).is_empty());
}
