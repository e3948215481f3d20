//! Stories: a pod, what happens to it, and what the heart answers.
//!
//! Each file in `tests/stories` begins with the sentence that it shows and a line `pod:`. A line that
//! begins with a time happens then; the indented lines below it are the answer, and the test compares
//! them. Between two lines the world wakes the heart at each `wake_at`, and does at once whatever the
//! heart asks for, unless the story says otherwise (`fail`, `hold`, `probe`). Processes ignore their
//! stop signal unless the story says that they `obey`; SIGKILL always works.
//!
//! `PODSHIM_WRITE_STORIES=1` writes the answers into the files instead; read the difference.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken story is to stop the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use plan::{
    Action, At, Change, Container, ContainerState, Event, Exit, Fact, Hook, Kind, Life, Mono, Pod,
    Probe, ProbeKind, PullWhen, RestartPolicy, Rule, RuleAction, StartError, State, Subject, Wall,
    change, deletion, exit_code, fold, narrate, plan, refusal, status,
};

/// 2026-01-01T00:00:00Z, so that times in answers are read at a glance.
const WALL_START_S: u64 = 1_767_225_600;

#[test]
fn every_story_happens_as_it_is_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut wrong = String::new();
    let mut count = 0;
    let mut paths: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let told = fs::read_to_string(&path).unwrap();
        // Shown only if the story stops the test.
        println!("{}", path.display());
        let happened = tell(&told);
        count += 1;
        if std::env::var_os("PODSHIM_WRITE_STORIES").is_some() {
            fs::write(&path, happened).unwrap();
        } else if told != happened {
            writeln!(wrong, "{}:\n{}", path.display(), difference(&told, &happened)).unwrap();
        }
    }
    assert!(count > 0, "no stories in {}", folder.display());
    assert!(wrong.is_empty(), "{wrong}");
}

/// Tells the story's own lines again, with the answers that come now.
fn tell(story: &str) -> String {
    let mut world: Option<World> = None;
    let mut out = String::new();
    for line in story.lines() {
        if line.starts_with("    ") {
            continue;
        }
        writeln!(out, "{line}").unwrap();
        if let Some(pod) = line.strip_prefix("pod: ") {
            world = Some(World::new(parse_pod(pod)));
        } else if line.starts_with(|c: char| c.is_ascii_digit()) {
            let (time, what) = line.split_once(' ').unwrap_or((line, ""));
            for answer in world.as_mut().unwrap().happens(parse_time(time), what) {
                writeln!(out, "    {answer}").unwrap();
            }
        }
    }
    out
}

fn difference(told: &str, happened: &str) -> String {
    let (told, happened): (Vec<_>, Vec<_>) = (told.lines().collect(), happened.lines().collect());
    let first = told.iter().zip(&happened).take_while(|(a, b)| a == b).count();
    let part = |lines: &[&str], from: usize| {
        lines.iter().skip(from).take(8).map(|l| format!("  {l}\n")).collect::<String>()
    };
    format!(
        "after line {first}\n{}told:\n{}happened:\n{}",
        part(&told, first.saturating_sub(2)).lines().take(2).collect::<Vec<_>>().join("\n") + "\n",
        part(&told, first),
        part(&happened, first)
    )
}

/// `12.5s` or `1m`; hours are `h`.
fn parse_time(text: &str) -> Mono {
    let unit = match text.as_bytes()[text.len() - 1] {
        b's' => 1.0,
        b'm' => 60.0,
        b'h' => 3600.0,
        _ => panic!("a time ends with s, m or h: {text}"),
    };
    let value: f64 = text[..text.len() - 1].parse().unwrap();
    Mono((value * unit * 1000.0).round() as u64 * (Mono::SECOND / 1000))
}

fn show_time(at: Mono) -> String {
    let ms = at.0 / (Mono::SECOND / 1000);
    if ms.is_multiple_of(1000) {
        format!("{}s", ms / 1000)
    } else {
        format!("{:.3}s", ms as f64 / 1e3)
    }
}

/// `Always grace=30 deadline=60; init migrate; sidecar log startup(period=1 failures=3) pre-stop`
fn parse_pod(text: &str) -> Pod {
    let mut parts = text.split(';').map(str::trim);
    let mut head = parts.next().unwrap().split_whitespace();
    let restart_policy = parse_policy(head.next().unwrap());
    let (gates, head): (Vec<&str>, Vec<&str>) = head.partition(|word| word.starts_with("gate="));
    let numbers: BTreeMap<&str, u32> = head.into_iter().map(number).collect();
    Pod {
        namespace: "default".into(),
        name: "shop".into(),
        uid: "u1".into(),
        restart_policy,
        grace_s: numbers.get("grace").copied().unwrap_or(30),
        active_deadline_s: numbers.get("deadline").copied(),
        gates: gates.iter().map(|gate| gate["gate=".len()..].to_owned()).collect(),
        containers: parts.map(parse_container).collect(),
    }
}

fn number(text: &str) -> (&str, u32) {
    let (key, value) = text.split_once('=').unwrap();
    (key, value.parse().unwrap())
}

fn parse_container(text: &str) -> Container {
    let words: Vec<&str> = text.split_whitespace().collect();
    let within = |name: &str| {
        let (_, rest) = text.split_once(&format!(" {name}("))?;
        Some(rest.split_once(')').unwrap().0)
    };
    Container {
        name: words[1].into(),
        kind: match words[0] {
            "init" => Kind::Init,
            "sidecar" => Kind::Sidecar,
            "main" => Kind::Main,
            other => panic!("init, sidecar or main, not {other}"),
        },
        image: match text.split_once(" image=") {
            Some((_, rest)) => rest.split_whitespace().next().unwrap().into(),
            None => format!("{}:1", words[1]),
        },
        pull: if words.contains(&"pull-always") { PullWhen::EachStart } else { PullWhen::Once },
        policy: text
            .split_once(" policy=")
            .map(|(_, rest)| parse_policy(rest.split_whitespace().next().unwrap())),
        rules: within("rules").into_iter().flat_map(|r| r.split(',')).map(parse_rule).collect(),
        startup: within("startup").map(parse_probe),
        readiness: within("readiness").map(parse_probe),
        liveness: within("liveness").map(parse_probe),
        post_start: words.contains(&"post-start"),
        pre_stop: words.contains(&"pre-stop"),
        notify: words.contains(&"notify"),
        standby: words.contains(&"standby"),
        at_start: words.contains(&"at-start"),
    }
}

fn parse_policy(text: &str) -> RestartPolicy {
    match text {
        "Always" => RestartPolicy::Always,
        "OnFailure" => RestartPolicy::OnFailure,
        "Never" => RestartPolicy::Never,
        other => panic!("a restart policy, not {other}"),
    }
}

/// `restart in 42 43` or `restart-all not-in 0`.
fn parse_rule(text: &str) -> Rule {
    let words: Vec<&str> = text.split_whitespace().collect();
    Rule {
        action: match words[0] {
            "restart" => RuleAction::Restart,
            "restart-all" => RuleAction::RestartAllContainers,
            other => panic!("restart or restart-all, not {other}"),
        },
        within: words[1] == "in",
        codes: words[2..].iter().map(|code| code.parse().unwrap()).collect(),
    }
}

fn parse_probe(text: &str) -> Probe {
    let numbers: BTreeMap<&str, u32> = text.split_whitespace().map(number).collect();
    let get = |key, default| numbers.get(key).copied().unwrap_or(default);
    Probe {
        initial_delay_s: get("delay", 0),
        period_s: get("period", 10),
        timeout_s: get("timeout", 1),
        failure_threshold: get("failures", 3),
        success_threshold: get("successes", 1),
        burst: get("burst", 0) > 0,
        grace_s: numbers.get("grace").copied(),
    }
}

fn parse_kind(text: &str) -> ProbeKind {
    match text {
        "startup" => ProbeKind::Startup,
        "readiness" => ProbeKind::Readiness,
        "liveness" => ProbeKind::Liveness,
        other => panic!("a kind of probe, not {other}"),
    }
}

fn parse_hook(text: &str) -> Hook {
    match text {
        "post-start" => Hook::PostStart,
        "pre-stop" => Hook::PreStop,
        other => panic!("a hook, not {other}"),
    }
}

/// The world that a story plays in.
struct World {
    pod: Pod,
    state: State,
    now: Mono,
    events: Vec<Event>,
    answers: Vec<String>,
    /// Kinds of action that are told besides the ordinary ones: `create`, `resolve`, `clean`, ….
    told: BTreeSet<String>,
    obeying: BTreeSet<usize>,
    /// What a probe says, by container and kind; `hold` leaves it in flight.
    probes: BTreeMap<(usize, ProbeKind), String>,
    /// What becomes of a hook, if it does not succeed at once.
    hooks: BTreeMap<(usize, Hook), String>,
    /// `create app` or `image app` or `sandbox` → how it fails, or `hold`.
    troubles: BTreeMap<String, String>,
}

impl World {
    fn new(pod: Pod) -> World {
        let state = State::new(&pod);
        World {
            pod,
            state,
            now: Mono(0),
            events: Vec::new(),
            answers: Vec::new(),
            told: BTreeSet::new(),
            obeying: BTreeSet::new(),
            probes: BTreeMap::new(),
            hooks: BTreeMap::new(),
            troubles: BTreeMap::new(),
        }
    }

    fn happens(&mut self, at: Mono, what: &str) -> Vec<String> {
        assert!(at >= self.now, "a story does not go back: {what}");
        while let Some(wake) = plan(&self.pod, &self.state, self.now).wake_at {
            assert!(wake > self.now, "a wake-up that has passed");
            if wake > at {
                break;
            }
            self.now = wake;
            self.settle();
        }
        self.now = at;
        self.settle();
        let words: Vec<&str> = what.split_whitespace().collect();
        if !words.is_empty() {
            self.one(&words);
            self.settle();
        }
        std::mem::take(&mut self.answers)
    }

    fn one(&mut self, words: &[&str]) {
        match words {
            ["accept"] => self.fold(Fact::Accepted),
            ["exit", name, code] => self.exit(name, code.parse().unwrap(), false),
            ["exit", name, code, "oom"] => self.exit(name, code.parse().unwrap(), true),
            ["not-found", name] => self.cannot_execute(name),
            ["delete"] => self.fold(Fact::DeleteAsked { grace_s: None }),
            ["delete", grace] => {
                self.fold(Fact::DeleteAsked { grace_s: Some(number(grace).1) });
            }
            ["kill"] => self.fold(Fact::KillAsked),
            ["restart", name] => self.fold(Fact::RestartAsked { c: self.index(name) }),
            ["obey", names @ ..] => {
                self.obeying = names.iter().map(|n| self.index(n)).collect();
            }
            [kind @ ("startup" | "readiness" | "liveness"), name, result] => {
                self.probes.insert((self.index(name), parse_kind(kind)), (*result).into());
            }
            ["probed", kind, name, result] => {
                self.probed(self.index(name), parse_kind(kind), result);
            }
            [hook @ ("post-start" | "pre-stop"), name, result] => {
                self.hooks.insert((self.index(name), parse_hook(hook)), (*result).into());
            }
            ["hooked", hook, name, result] => {
                self.hooked(self.index(name), parse_hook(hook), result);
            }
            ["notify", name] => {
                let c = self.index(name);
                self.fold(Fact::Notified { c, inc: self.running(c) });
            }
            ["change", "pod", deadline] => {
                let active_deadline_s = Some(number(deadline).1);
                self.ask(Fact::Changed { containers: Vec::new(), active_deadline_s });
            }
            ["change", name, ..] => {
                let c = self.index(name);
                let kind = match self.pod.containers[c].kind {
                    Kind::Init => "init",
                    Kind::Sidecar => "sidecar",
                    Kind::Main => "main",
                };
                let container = parse_container(&format!("{kind} {}", words[1..].join(" ")));
                self.changed(c, container, true);
            }
            ["resize", name] => {
                let c = self.index(name);
                self.changed(c, self.pod.containers[c].clone(), false);
            }
            ["stop", name] => self.ask(Fact::StopAsked { c: self.index(name) }),
            ["start", name] => self.ask(Fact::StartAsked { c: self.index(name) }),
            ["tell", kinds @ ..] => self.told = kinds.iter().map(|k| (*k).into()).collect(),
            ["fail", what @ .., how] => {
                self.troubles.insert(what.join(" "), (*how).into());
            }
            ["hold", what @ ..] => {
                self.troubles.insert(what.join(" "), "hold".into());
            }
            ["mend", what @ ..] => {
                self.troubles.remove(&what.join(" "));
            }
            ["created", name] => self.created(self.index(name)),
            ["late", name, inc] => self.created_as(self.index(name), inc.parse().unwrap()),
            ["late", name, inc, "fails"] => {
                let (c, inc) = (self.index(name), inc.parse().unwrap());
                let (reason, message) = ("CreateContainerError".into(), "no room".into());
                self.fold(Fact::CreateFailed { c, inc, reason, message });
            }
            ["pulled", name] => self.image_ready(self.index(name), true),
            ["deletion"] => {
                self.say(deletion(&self.state).map_or("not deleted".into(), |d| {
                    let grace = d.deletion_grace_period_seconds;
                    format!("deleted by {}, grace {grace}s", &d.deletion_timestamp[11..19])
                }));
            }
            ["status"] => self.show_status(),
            ["status", name] => self.show_container(name),
            ["conditions"] => self.show_conditions(),
            ["waiting"] => self.show_waiting(),
            ["events"] => self.show_events(),
            ["exit-code"] => self.say(format!("exit code {}", exit_code(&self.pod, &self.state))),
            _ => panic!("nobody knows how to {words:?}"),
        }
    }

    fn say(&mut self, answer: impl Into<String>) {
        self.answers.push(answer.into());
    }

    fn at(&self) -> At {
        At { mono: self.now, wall: Wall(WALL_START_S * Mono::SECOND + self.now.0) }
    }

    fn index(&self, name: &str) -> usize {
        self.pod.containers.iter().position(|c| c.name == name).unwrap()
    }

    fn name(&self, c: usize) -> &str {
        &self.pod.containers[c].name
    }

    fn fold(&mut self, fact: Fact) {
        self.events.extend(narrate(&self.pod, &self.state, &fact));
        let at = self.at();
        fold(&self.pod, &mut self.state, at, &fact);
        change(&mut self.pod, &fact);
    }

    /// A user's wish, unless it is refused; then why.
    fn ask(&mut self, fact: Fact) {
        match refusal(&self.pod, &self.state, &fact) {
            Some(why) => self.say(format!("refused: {why}")),
            None => self.fold(fact),
        }
    }

    fn changed(&mut self, c: usize, container: Container, restart: bool) {
        let containers = vec![Change { c, container, restart }];
        self.ask(Fact::Changed { containers, active_deadline_s: None });
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            let actions = plan(&self.pod, &self.state, self.now).actions;
            let mut did = false;
            for action in actions {
                did |= self.carry_out(action);
            }
            if !did {
                return;
            }
        }
        panic!("the plan never becomes empty");
    }

    /// Does it, and answers whether anything was done.
    fn carry_out(&mut self, action: Action) -> bool {
        let before = self.state.clone();
        self.tell_of(&action);
        match action {
            Action::MakeSandbox => self.make_sandbox(),
            Action::ResolveImage { c } => self.resolve(c),
            Action::Create { c, inc } => {
                self.fold(Fact::Creating { c, inc });
                match self.troubles.get(&format!("create {}", self.name(c))).cloned() {
                    None => self.created_as(c, inc),
                    Some(how) if how == "hold" => {}
                    Some(reason) => {
                        let message = "no room".into();
                        self.fold(Fact::CreateFailed { c, inc, reason, message });
                    }
                }
            }
            Action::Start { c, inc, .. } => {
                self.fold(Fact::Starting { c, inc });
                let trouble = self.troubles.get(&format!("start {}", self.name(c)));
                if trouble.is_none() {
                    self.fold(Fact::Started { c, inc });
                }
            }
            Action::Probe { c, inc, kind, early, .. } => {
                self.fold(Fact::Probing { c, inc, kind, early });
                let result = self.probes.get(&(c, kind)).cloned().unwrap_or("fails".into());
                self.probed(c, kind, &result);
            }
            Action::Hook { c, inc, hook } => {
                self.fold(Fact::HookRunning { c, inc, hook });
                let result = self.hooks.get(&(c, hook)).cloned().unwrap_or("succeeds".into());
                self.hooked(c, hook, &result);
            }
            Action::RestartAll { c } => self.fold(Fact::RestartingAll { c }),
            Action::Stop { c, inc, why, grace_s } => {
                self.fold(Fact::Stopping { c, inc, why, grace_s });
            }
            Action::End { why, grace_s } => self.fold(Fact::Ending { why, grace_s }),
            Action::Signal { c, inc } => {
                let handled = self.obeying.contains(&c);
                self.fold(Fact::Signalled { c, inc, signal: 15, handled });
                if handled {
                    self.ended(c, inc, Exit { code: 143, signal: Some(15), ..Exit::default() });
                }
            }
            Action::Kill { c, inc } => {
                self.fold(Fact::Killed { c, inc });
                if !self.troubles.contains_key(&format!("kill {}", self.name(c))) {
                    self.ended(c, inc, Exit { code: 137, signal: Some(9), ..Exit::default() });
                }
            }
            Action::Clean { c, inc } => self.fold(Fact::Gone { c, inc }),
            Action::Teardown => self.fold(Fact::TornDown),
        }
        before != self.state
    }

    fn tell_of(&mut self, action: &Action) {
        let one = |verb: &str, c: &usize, inc: &u32| format!("{verb} {}/{inc}", self.name(*c));
        let (kind, text) = match action {
            Action::MakeSandbox => ("sandbox", "make sandbox".into()),
            Action::ResolveImage { c } => ("resolve", format!("resolve {}", self.name(*c))),
            Action::Create { c, inc } => ("create", one("create", c, inc)),
            Action::Start { c, inc, restart_count } => {
                ("", format!("{} (restart {restart_count})", one("start", c, inc)))
            }
            Action::Probe { c, inc, kind, early, .. } => {
                let early = if *early { " early" } else { "" };
                let verb = format!("{} probe", format!("{kind:?}").to_lowercase());
                ("", format!("{}{early}", one(&verb, c, inc)))
            }
            Action::Hook { c, inc, hook } => {
                let verb = if *hook == Hook::PostStart { "postStart" } else { "preStop" };
                ("", one(verb, c, inc))
            }
            Action::RestartAll { c } => ("", format!("restart all for {}", self.name(*c))),
            Action::Stop { c, inc, why, grace_s } => {
                ("", format!("{} {why:?} grace {grace_s}s", one("stop", c, inc)))
            }
            Action::End { why, grace_s } => ("", format!("end {why:?} grace {grace_s}s")),
            Action::Signal { c, inc } => ("", one("signal", c, inc)),
            Action::Kill { c, inc } => ("", one("kill", c, inc)),
            Action::Clean { c, inc } => ("clean", one("clean", c, inc)),
            Action::Teardown => ("", "teardown".into()),
        };
        if kind.is_empty() || self.told.contains(kind) {
            let at = show_time(self.now);
            self.say(format!("{at} {text}"));
        }
    }

    fn make_sandbox(&mut self) {
        self.fold(Fact::SandboxMaking);
        match self.troubles.get("sandbox").map(String::as_str) {
            None => self.fold(Fact::SandboxReady),
            Some("hold") => {}
            Some(how) => {
                let again = how == "for-now";
                let reason = "FailedCreatePodSandBox".into();
                self.fold(Fact::SandboxFailed { reason, message: "no bridge".into(), again });
            }
        }
    }

    fn resolve(&mut self, c: usize) {
        match self.troubles.get(&format!("image {}", self.name(c))).cloned() {
            None => self.image_ready(c, false),
            Some(how) if how == "hold" => self.fold(Fact::ImagePulling { c }),
            Some(reason) => {
                self.fold(Fact::ImagePulling { c });
                self.fold(Fact::ImageFailed { c, reason, message: "no such host".into() });
            }
        }
    }

    fn image_ready(&mut self, c: usize, pulled: bool) {
        let image_id = format!("sha256:{}", self.name(c));
        self.fold(Fact::ImageReady {
            c,
            image_id,
            pulled,
            took_ms: 1200,
            bytes: 4096,
            stale: None,
        });
    }

    fn created(&mut self, c: usize) {
        let creating = self.state.incarnations(c).iter().find(|i| i.phase == Life::Creating);
        self.created_as(c, creating.unwrap().inc);
    }

    fn created_as(&mut self, c: usize, inc: u32) {
        let container_id = format!("{}-{inc}", self.name(c));
        let pid = 1000 + i32::try_from(c * 100).unwrap() + i32::try_from(inc).unwrap();
        self.fold(Fact::Created { c, inc, pid, inode: 7, container_id });
    }

    fn running(&self, c: usize) -> u32 {
        let runs = |p: Life| matches!(p, Life::Starting | Life::Running);
        self.state.incarnations(c).iter().find(|i| runs(i.phase)).expect("it runs").inc
    }

    fn exit(&mut self, name: &str, code: i32, oom: bool) {
        let c = self.index(name);
        let signal = (code > 128).then(|| code - 128);
        self.ended(c, self.running(c), Exit { code, signal, oom, ..Exit::default() });
    }

    fn cannot_execute(&mut self, name: &str) {
        let c = self.index(name);
        let message = "exec /bin/nothing: no such file or directory".into();
        let start_error = Some(StartError { message, errno: Some(2) });
        self.ended(c, self.running(c), Exit { code: 128, start_error, ..Exit::default() });
    }

    fn ended(&mut self, c: usize, inc: u32, exit: Exit) {
        self.fold(Fact::Exited { c, inc, exit });
    }

    fn hooked(&mut self, c: usize, hook: Hook, result: &str) {
        let inc = self.running(c);
        let failure = match result {
            "hold" => return,
            "succeeds" => None,
            "fails" => Some("exited with 3".to_owned()),
            _ => panic!("a hook succeeds, fails or holds, not {result}"),
        };
        self.fold(Fact::HookEnded { c, inc, hook, failure, notice: None });
    }

    fn probed(&mut self, c: usize, kind: ProbeKind, result: &str) {
        let inc = self.running(c);
        let text = || "not yet".to_owned();
        match result {
            "hold" => {}
            "errs" => self.fold(Fact::ProbeErrored { c, inc, kind, message: text() }),
            "succeeds" | "fails" => {
                let success = result == "succeeds";
                self.fold(Fact::Probed { c, inc, kind, success, warned: false, output: text() });
            }
            _ => panic!("a probe succeeds, fails, errs or holds, not {result}"),
        }
    }

    fn show_status(&mut self) {
        let status = status(&self.pod, &self.state, self.at());
        let reason = status.reason.map(|r| format!(" ({r})")).unwrap_or_default();
        self.say(format!("{:?}{reason}", status.phase));
        let all: Vec<_> =
            status.init_container_statuses.into_iter().chain(status.container_statuses).collect();
        for one in all {
            self.show_container(&one.name);
        }
    }

    fn show_container(&mut self, name: &str) {
        let status = status(&self.pod, &self.state, self.at());
        let mut all = status.init_container_statuses.iter().chain(&status.container_statuses);
        let one = all.find(|s| s.name == name).unwrap();
        let mut text = format!("{name} {}", show_state(&one.state));
        if let Some(last) = &one.last_state {
            write!(text, ", before {}", show_state(last)).unwrap();
        }
        write!(text, ", restarts {}", one.restart_count).unwrap();
        text.push_str(if one.started { ", started" } else { "" });
        text.push_str(if one.ready { ", ready" } else { "" });
        self.say(text);
    }

    fn show_conditions(&mut self) {
        for condition in status(&self.pod, &self.state, self.at()).conditions {
            let mut text = format!(
                "{} {} since {}",
                condition.kind,
                condition.status,
                &condition.last_transition_time[11..19]
            );
            if let Some(reason) = condition.reason {
                write!(text, " {reason}").unwrap();
            }
            if let Some(message) = condition.message {
                write!(text, " {message}").unwrap();
            }
            self.say(text);
        }
    }

    fn show_waiting(&mut self) {
        let plan = plan(&self.pod, &self.state, self.now);
        for waiting in plan.waiting {
            let who = match waiting.subject {
                Subject::Pod => "pod",
                Subject::Container(c) => self.name(c),
            };
            let mut text = format!("{who}: {}", waiting.reason);
            if let Some(since) = waiting.since {
                write!(text, ", since {}", show_time(since)).unwrap();
            }
            if let Some(until) = waiting.until {
                write!(text, ", until {}", show_time(until)).unwrap();
            }
            self.say(text);
        }
        let wake = plan.wake_at.map_or("never".into(), show_time);
        self.say(format!("wakes {wake}"));
    }

    fn show_events(&mut self) {
        for event in std::mem::take(&mut self.events) {
            let kind = if event.warning { "Warning" } else { "Normal" };
            let who = event.container.map_or("pod", |c| self.name(c)).to_owned();
            self.say(format!("{kind} {} {who}: {}", event.reason, event.message));
        }
    }
}

fn show_state(state: &ContainerState) -> String {
    let with = |message: &Option<String>| {
        message.as_ref().map(|m| format!(" \"{m}\"")).unwrap_or_default()
    };
    match state {
        ContainerState::Waiting { reason, message } => format!("waiting {reason}{}", with(message)),
        ContainerState::Running { .. } => "running".into(),
        ContainerState::Terminated { exit_code, reason, message, .. } => {
            format!("terminated {exit_code} {reason}{}", with(message))
        }
    }
}
