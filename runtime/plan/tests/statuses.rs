//! What a user is told of containers that do not run, and other words of a status.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken promise is to stop the test")]

use plan::{
    Action, At, Container, ContainerState, ContainerStatus, End, Exit, Fact, Hook, Kind, Mono, Pod,
    PodPhase, PodStatus, RESTART_DELAY_MAX_S, RestartPolicy, StartError, State, Stop, Wall,
    exit_code, fold, plan, refusal, status,
};

const INIT: usize = 0;
const LOG: usize = 1;
const LATE: usize = 2;
const APP: usize = 3;

fn pod() -> Pod {
    let hooked = |container: Container| Container { post_start: true, ..container };
    Pod {
        namespace: "shop".into(),
        name: "web".into(),
        uid: "u1".into(),
        restart_policy: RestartPolicy::OnFailure,
        grace_s: 30,
        active_deadline_s: None,
        restart_delay_max_s: RESTART_DELAY_MAX_S,
        gates: Vec::new(),
        containers: vec![
            Container::new("init", Kind::Init, "init:1"),
            Container::new("log", Kind::Sidecar, "log:1"),
            Container::new("late", Kind::Init, "late:1"),
            hooked(Container::new("app", Kind::Main, "app:1")),
        ],
    }
}

struct Life {
    pod: Pod,
    state: State,
    s: u64,
}

impl Life {
    fn of(pod: Pod) -> Life {
        let mut life = Life { state: State::new(&pod), pod, s: 0 };
        life.tell(&[Fact::Accepted, Fact::SandboxMaking, Fact::SandboxReady]);
        life
    }

    /// Tells these facts, a second apart.
    fn tell(&mut self, facts: &[Fact]) {
        for fact in facts {
            self.s += 1;
            fold(&self.pod, &mut self.state, at(self.s), fact);
        }
    }

    fn status(&self) -> PodStatus {
        status(&self.pod, &self.state, at(self.s))
    }

    fn of_container(&self, c: usize) -> ContainerStatus {
        let status = self.status();
        let all = status.init_container_statuses.into_iter().chain(status.container_statuses);
        all.into_iter().find(|one| one.name == self.pod.containers[c].name).unwrap()
    }

    /// Its state: the word, and the message.
    fn told(&self, c: usize) -> (String, Option<String>) {
        match self.of_container(c).state {
            ContainerState::Waiting { reason, message }
            | ContainerState::Terminated { reason, message, .. } => (reason, message),
            ContainerState::Running { .. } => ("Running".into(), None),
        }
    }
}

fn at(s: u64) -> At {
    At { mono: Mono(s * Mono::SECOND), wall: Wall(s * Mono::SECOND) }
}

fn started(c: usize, inc: u32) -> Vec<Fact> {
    let container_id = format!("id-{c}-{inc}");
    vec![
        Fact::Creating { c, inc },
        Fact::Created { c, inc, pid: 7, inode: 8, container_id },
        Fact::Starting { c, inc },
        Fact::Started { c, inc },
    ]
}

fn exited(c: usize, inc: u32, code: i32) -> Fact {
    Fact::Exited { c, inc, exit: Exit { code, ..Exit::default() } }
}

fn word(word: &str) -> (String, Option<String>) {
    (word.to_owned(), None)
}

/// Up to main.
fn initialized() -> Life {
    let mut life = Life::of(pod());
    for c in [INIT, LATE] {
        life.tell(&started(c, 0));
        life.tell(&[exited(c, 0, 0), Fact::Gone { c, inc: 0 }]);
    }
    life.tell(&started(LOG, 0));
    life
}

#[test]
fn what_has_not_run_yet() {
    let life = Life::of(pod());
    assert_eq!(life.told(APP), word("PodInitializing"));
    assert_eq!(life.told(LOG), word("PodInitializing"));
    let mut alone = pod();
    alone.containers.drain(..APP);
    assert_eq!(Life::of(alone).told(0), word("ContainerCreating"));
}

#[test]
fn ids_and_images_are_of_what_runs_or_ran_last() {
    let mut life = initialized();
    let ready = |id: &str| Fact::ImageReady {
        c: APP,
        image_id: id.into(),
        pulled: true,
        took_ms: 1,
        bytes: 1,
        stale: None,
    };
    life.tell(&[ready("sha256:1")]);
    life.tell(&started(APP, 0));
    let told = life.of_container(APP);
    assert_eq!(told.container_id.as_deref(), Some("podshim://id-3-0"));
    assert_eq!((told.image.as_str(), told.image_id.as_str()), ("app:1", "sha256:1"));
    // The next one is created and has another image; the one that ran last is told until it runs.
    life.tell(&[exited(APP, 0, 1), Fact::Gone { c: APP, inc: 0 }]);
    let told = life.of_container(APP);
    assert_eq!(told.container_id.as_deref(), Some("podshim://id-3-0"));
    let id = |state: Option<ContainerState>| match state {
        Some(ContainerState::Terminated { container_id, .. }) => container_id,
        other => panic!("{other:?}"),
    };
    assert_eq!(id(Some(told.state)).as_deref(), Some("podshim://id-3-0"));
    life.tell(&started(APP, 1));
    let told = life.of_container(APP);
    assert_eq!(told.container_id.as_deref(), Some("podshim://id-3-1"));
    assert_eq!(id(told.last_state).as_deref(), Some("podshim://id-3-0"));
}

#[test]
fn what_is_to_run_again_says_what_it_waits_for() {
    let mut life = initialized();
    life.tell(&started(APP, 0));
    life.tell(&[exited(APP, 0, 1), Fact::Gone { c: APP, inc: 0 }]);
    life.tell(&started(APP, 1));
    life.tell(&[exited(APP, 1, 1), Fact::Gone { c: APP, inc: 1 }]);
    let back_off = || {
        let text = "back-off 10s restarting failed container=app pod=web_shop(u1)";
        ("CrashLoopBackOff".to_owned(), Some(text.to_owned()))
    };
    assert_eq!(life.told(APP), back_off());
    // What fails meanwhile is told when the back-off is over, to the second.
    let (reason, message) = ("CreateContainerError".to_owned(), "no room".to_owned());
    let failed =
        Fact::CreateFailed { c: APP, inc: 2, reason: reason.clone(), message: message.clone() };
    life.tell(&[Fact::Creating { c: APP, inc: 2 }, failed]);
    assert_eq!(life.told(APP), back_off());
    // The exit was three facts ago.
    life.s += 6;
    assert_eq!(life.told(APP), back_off());
    life.s += 1;
    assert_eq!(life.told(APP), (reason, Some(message)));
    // In a pod that ends nothing is waited for.
    life.tell(&[Fact::Ending { why: End::Deleted, grace_s: 3 }]);
    assert_eq!(life.told(APP), word("Error"));
}

#[test]
fn a_post_start_that_failed_is_told_when_its_back_off_is_over() {
    let mut life = initialized();
    life.tell(&started(APP, 0));
    let (c, inc) = (APP, 0);
    life.tell(&[
        Fact::HookRunning { c, inc, hook: Hook::PostStart },
        Fact::HookEnded {
            c,
            inc,
            hook: Hook::PostStart,
            failure: Some("exited with 3".into()),
            notice: None,
        },
        Fact::Stopping { c, inc, why: Stop::PostStart, grace_s: 3 },
        exited(c, inc, 143),
        Fact::Gone { c, inc },
    ]);
    // The first restart waits for no back-off.
    assert_eq!(life.told(APP), ("PostStartHookError".into(), Some("exited with 3".into())));
}

#[test]
fn what_never_ran_is_lost_when_the_pod_is_over() {
    let lost = || {
        let text = "The container could not be located when the pod was terminated";
        ("ContainerStatusUnknown".to_owned(), Some(text.to_owned()))
    };
    let ending = Fact::Ending { why: End::Deleted, grace_s: 3 };
    // Deleted while the second init container ran: it is up to there that somebody asks.
    let mut life = Life::of(pod());
    life.tell(&started(INIT, 0));
    life.tell(&[exited(INIT, 0, 0), Fact::Gone { c: INIT, inc: 0 }]);
    life.tell(&started(LATE, 0));
    life.tell(std::slice::from_ref(&ending));
    assert_eq!(
        (life.told(LOG), life.told(APP)),
        (word("PodInitializing"), word("PodInitializing"))
    );
    life.tell(&[exited(LATE, 0, 137)]);
    assert_eq!((life.told(LOG), life.told(APP)), (lost(), word("PodInitializing")));
    assert_eq!(life.told(INIT), word("Completed"));
    assert_eq!(life.status().phase, PodPhase::Failed);
    // Deleted during the first: what comes later is only not initialized.
    let mut life = Life::of(pod());
    life.tell(&started(INIT, 0));
    life.tell(&[ending.clone(), exited(INIT, 0, 137)]);
    assert_eq!(
        (life.told(LOG), life.told(APP)),
        (word("PodInitializing"), word("PodInitializing"))
    );
    // Deleted before main was started, and after everything else was.
    let mut life = initialized();
    life.tell(&[ending, exited(LOG, 0, 143)]);
    assert_eq!(life.told(APP), lost());
}

#[test]
fn an_exit_that_nobody_saw_is_a_failure_and_is_told_as_a_kubelet_does() {
    let mut life = initialized();
    life.tell(&started(APP, 0));
    let exit = Exit { code: 137, lost: true, ..Exit::default() };
    life.tell(&[Fact::Adopted { upgraded: false }, Fact::Exited { c: APP, inc: 0, exit }]);
    let status = life.of_container(APP);
    let last = serde_json::to_value(&status.state).unwrap();
    let text = "The container could not be located when the pod was deleted.  The container used to be \
                Running";
    for (field, value) in [("reason", "ContainerStatusUnknown"), ("message", text)] {
        assert_eq!(last["terminated"][field], value, "{last}");
    }
    assert_eq!(last["terminated"]["exitCode"], 137);
}

#[test]
fn a_creation_that_is_told_again_is_no_second_one() {
    let mut life = initialized();
    for facts in 1..=4 {
        let told = &started(APP, 0)[..facts];
        life.tell(told);
        assert_eq!(life.state.incarnations(APP).len(), 1, "{told:?}");
    }
    life.tell(&[exited(APP, 0, 1), Fact::Gone { c: APP, inc: 0 }]);
    life.tell(&started(APP, 0)[..1]);
    assert_eq!(life.state.incarnations(APP).len(), 0);
}

#[test]
fn conditions_that_hold_not_yet_are_as_old_as_the_pod() {
    let pod = pod();
    let mut state = State::new(&pod);
    fold(&pod, &mut state, at(7), &Fact::Accepted);
    fold(&pod, &mut state, at(9), &Fact::SandboxMaking);
    let told = status(&pod, &state, at(9));
    assert_eq!(told.conditions.len(), 5);
    for condition in told.conditions {
        assert_eq!(condition.last_transition_time, "1970-01-01T00:00:07Z", "{}", condition.kind);
    }
}

#[test]
fn what_a_user_cannot_have_is_refused_with_a_reason() {
    let mut life = initialized();
    let refused = |life: &Life, fact: Fact| refusal(&life.pod, &life.state, &fact);
    assert!(refused(&life, Fact::RestartAsked { c: INIT }).is_some_and(|why| why.contains("init")));
    assert_eq!(refused(&life, Fact::RestartAsked { c: LOG }), None);
    assert!(refused(&life, Fact::StopAsked { c: APP }).is_some_and(|why| why.contains("sidecars")));
    assert_eq!(refused(&life, Fact::StartAsked { c: LOG }), Some("nobody has stopped it"));
    life.tell(&[Fact::StopAsked { c: LOG }]);
    assert_eq!(refused(&life, Fact::StopAsked { c: LOG }), Some("it is stopped already"));
    let again = refused(&life, Fact::RestartAsked { c: LOG });
    assert!(again.is_some_and(|why| why.contains("podshim start")));
    life.tell(&[Fact::Ending { why: End::Deleted, grace_s: 3 }]);
    let change = Fact::Changed { containers: Vec::new(), active_deadline_s: Some(1) };
    for fact in [Fact::RestartAsked { c: LOG }, Fact::StartAsked { c: LOG }, change] {
        assert_eq!(refused(&life, fact), Some("the pod ends"));
    }
}

#[test]
fn the_sandbox_is_told_as_long_as_it_is_of_use() {
    let holds = |life: &Life| {
        let status = life.status();
        let found = status.conditions.iter().find(|c| c.kind == "PodReadyToStartContainers");
        found.map(|c| c.status) == Some("True")
    };
    let mut life = Life::of(pod());
    assert!(holds(&life));
    life.tell(&started(INIT, 0));
    life.tell(&[Fact::Ending { why: End::Deleted, grace_s: 3 }]);
    assert!(holds(&life));
    life.tell(&[exited(INIT, 0, 137)]);
    assert!(!holds(&life), "nothing can run any more");
}

#[test]
fn the_exit_code_of_what_could_not_be_executed_is_a_shells() {
    for (errno, code) in [(Some(2), 127), (Some(13), 126), (None, 126)] {
        let mut life = initialized();
        life.tell(&started(APP, 0)[..3]);
        let start_error = Some(StartError { message: "exec".into(), errno });
        let exit = Exit { code: 128, start_error, ..Exit::default() };
        life.tell(&[
            Fact::Exited { c: APP, inc: 0, exit },
            Fact::Ending { why: End::Deleted, grace_s: 3 },
            exited(LOG, 0, 0),
        ]);
        assert_eq!(exit_code(&life.pod, &life.state), code, "{errno:?}");
    }
}

#[test]
fn a_pod_that_says_nothing_of_its_restart_delay_has_the_longest() {
    let mut value = serde_json::to_value(pod()).unwrap();
    value.as_object_mut().unwrap().remove("restart_delay_max_s").expect("the field");
    let read: Pod = serde_json::from_value(value).unwrap();
    assert_eq!(read, pod());
}

#[test]
fn times_are_written_up_to_the_last() {
    assert_eq!(Wall(0).rfc3339(), "1970-01-01T00:00:00Z");
    assert_eq!(Wall(u64::MAX).rfc3339(), "2554-07-21T23:34:33Z");
}

/// What a host that went down leaves of a pod whose main has answered its stop signal with 0.
fn shut_down(policy: RestartPolicy) -> Life {
    let mut life = initialized();
    life.pod.restart_policy = policy;
    life.tell(&started(APP, 0));
    life.tell(&[
        Fact::SuspendAsked,
        Fact::Ending { why: End::Suspended, grace_s: 30 },
        Fact::Signalled { c: APP, inc: 0, signal: 15, handled: true },
        exited(APP, 0, 0),
        Fact::Gone { c: APP, inc: 0 },
    ]);
    assert_eq!(life.status().phase, PodPhase::Running, "it is to go on");
    life.tell(&[Fact::TornDown]);
    assert!(life.state.is_over() && life.state.is_suspended());
    assert_eq!(life.status().phase, PodPhase::Running, "it is to go on");
    life.tell(&[Fact::SandboxLost]);
    assert!(!life.state.is_over() && !life.state.is_suspended());
    life
}

#[test]
fn a_main_that_a_shutdown_has_stopped_has_not_completed_whatever_its_code() {
    let life = shut_down(RestartPolicy::OnFailure);
    let next = plan(&life.pod, &life.state, at(life.s).mono);
    assert!(next.actions.contains(&Action::MakeSandbox), "{next:?}");

    let mut life = shut_down(RestartPolicy::Never);
    let next = plan(&life.pod, &life.state, at(life.s).mono);
    assert_eq!(next.actions, [Action::End { why: End::Interrupted, grace_s: 30 }]);
    life.tell(&[Fact::Ending { why: End::Interrupted, grace_s: 30 }, Fact::TornDown]);
    let status = life.status();
    assert_eq!((status.phase, status.reason.as_deref()), (PodPhase::Failed, Some("Terminated")));
    let message = "Pod was terminated in response to imminent node shutdown.";
    assert_eq!(status.message.as_deref(), Some(message));
    assert_eq!(exit_code(&life.pod, &life.state), 1);
}
