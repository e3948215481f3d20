//! The sentences of `podshim explain`: values in, text out.

use std::fmt::Write;

use plan::{At, Mono, Wall};
use serde_json::Value;

use super::super::events::kind_of;
use super::super::get::{seconds, status, text};
use super::super::table::age;
use super::super::terminal::printable;
use crate::protocol::{Event, PodWaiting};

/// How many warnings are shown of each container that waits.
const WARNINGS_MAX: usize = 3;

/// Of a pod whose shim answers.
pub fn living(pod: &Value, waiting: &[PodWaiting], events: &[Event], now: At) -> String {
    let mut page = Page::new(pod, now);
    page.header();
    let order = names(pod);
    let mut waiting: Vec<&PodWaiting> = waiting.iter().collect();
    waiting.sort_by_key(|w| order.iter().position(|name| w.container.as_deref() == Some(*name)));
    let mut about: Option<Option<&str>> = None;
    for one in &waiting {
        let container = one.container.as_deref();
        page.waits(one);
        if about != Some(container) {
            page.last_run(container);
            let all = waiting.iter().filter(|w| w.container == one.container);
            let reasons: Vec<&str> = all.map(|w| w.reason.as_str()).collect();
            page.warnings(one, &reasons.join("\n"), events);
        }
        about = Some(container);
    }
    let idle = states(pod).into_iter().filter(|(name, state)| {
        let told = waiting.iter().any(|w| w.container.as_deref() == Some(*name));
        !told && state.get("waiting").is_some()
    });
    let idle: Vec<(&str, &Value)> = idle.collect();
    if waiting.is_empty() && idle.is_empty() {
        page.line(&format!("nothing is waiting: {}", all_states(pod)));
    }
    // Between two steps of the shim.
    for (name, state) in idle {
        let reason = text(state, "/waiting/reason");
        let reason = if reason.is_empty() { "about to start".into() } else { reason };
        page.line(&format!("{name}: {reason}"));
    }
    page.text
}

/// Of a pod whose shim does not answer.
pub fn dead(pod: &Value, is_daemons: bool, owner_lives: bool, now: At) -> String {
    let mut page = Page::new(pod, now);
    page.header();
    page.line(&format!(
        "its shim does not answer, so nothing of it is started, probed or restarted; {}",
        match (is_daemons, owner_lives) {
            (false, true) => "its `podshim run` lives: if the shim is dead, it removes the pod",
            (false, false) => "its `podshim run` is dead: `podshim prune` removes what is left",
            (true, true) => "the daemon lives: if the shim is dead, it starts another one",
            (true, false) => "no daemon runs: `podshim daemon` starts another one",
        }
    ));
    page.line(&format!("when it was last heard of: {}", all_states(pod)));
    page.text
}

/// A pod that the daemon has and that does not live at this moment; `None` if it has ended for good.
pub fn waiting_for_life(object: &Value) -> Option<String> {
    let status = &object["status"];
    if matches!(status["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let why = status["message"].as_str().unwrap_or("the daemon is about to start it");
    Some(format!(
        "pod {}: nothing of it runs at this moment: {}\n",
        printable(name),
        printable(why)
    ))
}

/// Of a pod that has ended, and that the daemon still has; or only remembers, because it was deleted.
pub fn ended(pod: &Value, events: &[Event], deleted: bool, now: At) -> String {
    let mut page = Page::new(pod, now);
    page.header();
    let status = &pod["status"];
    let phase = text(status, "/phase");
    let why = match (text(status, "/reason"), text(status, "/message")) {
        (reason, message) if reason.is_empty() && message.is_empty() => String::new(),
        (reason, message) => format!(" ({})", [reason, message].join(" ").trim()),
    };
    let ago = events.last().map(|event| age(now.wall.0.saturating_sub(event.at.0) / Mono::SECOND));
    let ago = ago.map(|ago| format!(" {ago} ago")).unwrap_or_default();
    page.line(&if deleted {
        format!("it was deleted and is gone; it ended{ago}")
    } else {
        format!("it has ended{ago}, and nothing of it runs or waits: {phase}{why}")
    });
    page.line(&format!("at its end: {}", all_states(pod)));
    let warnings: Vec<&Event> = events.iter().filter(|event| event.warning).collect();
    for event in &warnings[warnings.len().saturating_sub(WARNINGS_MAX)..] {
        let of = event.container.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let often = if event.count > 1 { format!(" (x{})", event.count) } else { String::new() };
        page.line(&format!("  {of}{}: {}{often}", event.reason, event.message.trim()));
    }
    page.text
}

/// Of a pod of which nothing but its logs is left.
pub fn gone(name: &str, namespace: &str, containers: &[String], written: Option<String>) -> String {
    let of = if namespace == "default" { String::new() } else { format!(" -n {namespace}") };
    let written = match written {
        Some(ago) => format!("written last {ago} ago"),
        None => "in which nothing was written".into(),
    };
    format!(
        "pod {name} has ended, and nothing of it runs or waits. Its logs are left ({}), {written}: \
         `podshim logs {name}{of} -c CONTAINER` shows them, `podshim prune` removes them\n",
        printable(&containers.join(", "))
    )
}

struct Page<'a> {
    pod: &'a Value,
    now: At,
    text: String,
}

impl Page<'_> {
    fn new(pod: &Value, now: At) -> Page<'_> {
        Page { pod, now, text: String::new() }
    }

    fn line(&mut self, line: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{}", printable(line));
    }

    /// The columns of `podshim get pods`, in words.
    fn header(&mut self) {
        if let [name, ready, status, restarts, age] = &status::pod_row(self.pod, self.now.wall)[..]
        {
            self.line(&format!(
                "pod {name}: {status}, ready {ready}, restarts {restarts}, age {age}"
            ));
        }
    }

    fn waits(&mut self, waiting: &PodWaiting) {
        let name = waiting.container.as_deref().unwrap_or("the pod");
        let mut line = format!("{name}: {}", in_words(&waiting.reason));
        let since = waiting.since.map(|since| self.now.mono.whole_s_since(since));
        // What an order holds back waits from the pod's first moment on.
        let since = since.or_else(|| self.seconds_ago(&text(self.pod, "/status/startTime")));
        if let Some(since) = since {
            let _ = write!(line, "; since {}", age(since));
        }
        if let Some(until) = waiting.until {
            let _ = write!(line, "; {}", ends(&waiting.reason, until, self.now.mono));
        }
        self.line(&line);
    }

    fn seconds_ago(&self, time: &str) -> Option<u64> {
        let at = seconds(&serde_json::json!({ "at": time }), "/at")?;
        Some((self.now.wall.0 / 1_000_000_000).saturating_sub(at))
    }

    /// How the run before ended, of a container that is to run again.
    fn last_run(&mut self, container: Option<&str>) {
        let status = statuses(self.pod).find(|s| s["name"].as_str() == container);
        let Some(last) = status.and_then(|s| s.pointer("/lastState/terminated")) else { return };
        let ago = self.seconds_ago(&text(last, "/finishedAt")).map(age);
        let ago = ago.map(|ago| format!(", {ago} ago")).unwrap_or_default();
        let message = text(last, "/message");
        let message =
            if message.is_empty() { message } else { format!(": {}", message.trim_end()) };
        self.line(&format!(
            "  last run: {}, exit code {}{ago}{message}",
            text(last, "/reason"),
            last["exitCode"]
        ));
    }

    /// The newest that say something else. What stops has other reasons than what went wrong before.
    fn warnings(&mut self, waiting: &PodWaiting, reasons: &str, events: &[Event]) {
        let begun = waiting.since.filter(|_| is_stop(&waiting.reason));
        let ago_ns = begun.map_or(u64::MAX, |at| self.now.mono.0.saturating_sub(at.0));
        let from = self.now.wall.0.saturating_sub(ago_ns);
        let told = events.iter().filter(|e| e.warning && e.container == waiting.container);
        let new = told.filter(|e| e.at.0 >= from && !is_echo(e, reasons));
        let newest: Vec<&Event> = new.rev().take(WARNINGS_MAX).collect();
        for event in newest.into_iter().rev() {
            let since = |at: Wall| age(self.now.wall.0.saturating_sub(at.0) / Mono::SECOND);
            let often = if event.count > 1 {
                format!("x{} over {}, ", event.count, since(event.first()))
            } else {
                String::new()
            };
            let (kind, ago) = (kind_of(event), since(event.at));
            self.line(&format!("  {kind} {} ({often}{ago} ago): {}", event.reason, event.message));
        }
    }
}

/// Whether an event only says what the reasons and the last run say.
fn is_echo(event: &Event, reasons: &str) -> bool {
    let short = event.message.strip_prefix("Error: ").is_some_and(|m| !m.contains(' '));
    let cause = event.message.split_once(": ").map(|(_, cause)| cause.trim());
    short
        || matches!(event.reason.as_str(), "BackOff" | "Exited")
        || cause.is_some_and(|cause| !cause.is_empty() && reasons.contains(cause))
}

fn begins(reason: &str, beginnings: &[&str]) -> bool {
    beginnings.iter().any(|begin| reason.starts_with(begin))
}

/// Whether the container is to end.
fn is_stop(reason: &str) -> bool {
    begins(reason, &["grace period", "was killed", "is killed", "is stopped", "preStop hook"])
        || own(reason).ends_with("before it is stopped")
}

/// A reason without what the container says of itself (`STATUS=` of sd_notify).
fn own(reason: &str) -> &str {
    reason.split_once("; it says ").map_or(reason, |(own, _)| own)
}

/// A reason that is no sentence by itself becomes one.
fn in_words(reason: &str) -> String {
    match reason.strip_prefix("grace period") {
        Some(rest) => format!("was told to stop, and has not ended yet (grace period){rest}"),
        None => reason.to_owned(),
    }
}

/// What happens when the time is over.
fn ends(reason: &str, until: Mono, now: Mono) -> String {
    let retries = ["back-off", "image pull back-off", "could not be", "the sandbox could not be"];
    let event = if begins(reason, &["startup probe", "readiness probe", "liveness probe"]) {
        "next attempt"
    } else if begins(reason, &retries) {
        "next try"
    } else {
        "at the latest"
    };
    // Rounded up: what is due within a second is not due now.
    match until.0.saturating_sub(now.0).div_ceil(Mono::SECOND) {
        0 => format!("{event} now"),
        seconds => format!("{event} in {}", age(seconds)),
    }
}

fn containers<'a>(pod: &'a Value, lists: [&str; 2]) -> impl Iterator<Item = &'a Value> {
    lists.map(|list| pod.pointer(list).and_then(Value::as_array)).into_iter().flatten().flatten()
}

/// In the order of the manifest.
fn names(pod: &Value) -> Vec<&str> {
    let all = containers(pod, ["/spec/initContainers", "/spec/containers"]);
    all.filter_map(|c| c["name"].as_str()).collect()
}

fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    containers(pod, ["/status/initContainerStatuses", "/status/containerStatuses"])
}

fn states(pod: &Value) -> Vec<(&str, &Value)> {
    statuses(pod).map(|s| (s["name"].as_str().unwrap_or_default(), &s["state"])).collect()
}

/// What each container does, those that do the same together.
fn all_states(pod: &Value) -> String {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for status in statuses(pod) {
        let name = status["name"].as_str().unwrap_or_default();
        let does = does(status);
        match groups.iter_mut().find(|(known, _)| *known == does) {
            Some((_, names)) => names.push(name),
            None => groups.push((does, vec![name])),
        }
    }
    let said: Vec<String> =
        groups.into_iter().map(|(does, names)| format!("{} {does}", names.join(", "))).collect();
    if said.is_empty() { "no container was begun".into() } else { said.join("; ") }
}

fn does(status: &Value) -> String {
    let state = &status["state"];
    if let Some(ended) = state.get("terminated") {
        return match ended["exitCode"].as_i64() {
            Some(0) => "completed".into(),
            Some(code) => format!("ended with exit code {code} ({})", text(ended, "/reason")),
            None => "ended".into(),
        };
    }
    match state.get("waiting") {
        Some(waiting) if text(waiting, "/reason").is_empty() => "waited".into(),
        Some(waiting) => format!("waited ({})", text(waiting, "/reason")),
        None if status["ready"] == true => "running and ready".into(),
        None => "running, not ready".into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use plan::{Exit, Fact, ProbeKind, State, Subject};
    use serde_json::json;

    use super::*;
    use crate::pod::compile::compile;

    const BEGIN_S: u64 = 1_000_000_000;

    fn at(s: u64) -> At {
        At { mono: Mono(s * Mono::SECOND), wall: Wall((BEGIN_S + s) * Mono::SECOND) }
    }

    /// A sidecar `side` with a startup probe and a main `main`, to which facts happen; what is said
    /// of them at `now`, by the plan's own reasons.
    fn said(facts: &[(u64, Fact)], now: u64) -> String {
        let file = json!({
            "pod": {
                "metadata": {"name": "p", "annotations": {"podshim.dev/burst": "false"}},
                "spec": {
                    "initContainers": [{"name": "side", "image": "side:1", "restartPolicy": "Always",
                        "startupProbe": {"exec": {"command": ["true"]}}}],
                    "containers": [{"name": "main", "image": "main:1"}],
                },
            },
            "root": "/", "state": "/", "logs": "/", "network_state": "/",
            "owner": {"pid": 1, "start_ticks": 1},
        });
        let pod = compile(&serde_json::from_value(file).unwrap());
        let mut state = State::new(&pod);
        let mut events = Vec::new();
        for (s, fact) in facts {
            events.extend(plan::narrate(&pod, &state, fact).into_iter().map(|e| Event {
                at: at(*s).wall,
                warning: e.warning,
                reason: e.reason,
                message: e.message,
                container: e.container.map(|c| pod.containers[c].name.clone()),
                first_at: None,
                count: 1,
            }));
            plan::fold(&pod, &mut state, at(*s), fact);
        }
        let waiting: Vec<PodWaiting> = plan::plan(&pod, &state, at(now).mono)
            .waiting
            .into_iter()
            .map(|w| PodWaiting {
                container: match w.subject {
                    Subject::Pod => None,
                    Subject::Container(c) => Some(pod.containers[c].name.clone()),
                },
                reason: w.reason,
                since: w.since,
                until: w.until,
            })
            .collect();
        let object = json!({
            "metadata": {"name": "p", "creationTimestamp": at(0).wall.rfc3339()},
            "spec": {"initContainers": [{"name": "side", "restartPolicy": "Always"}],
                "containers": [{"name": "main"}]},
            "status": plan::status(&pod, &state, at(now)),
        });
        living(&object, &waiting, &events, at(now))
    }

    fn created(s: u64, c: usize) -> Vec<(u64, Fact)> {
        let image = Fact::ImageReady {
            c,
            image_id: "sha256:0".into(),
            pulled: false,
            took_ms: 0,
            bytes: 0,
            stale: None,
        };
        let id = format!("id{c}");
        vec![
            (s, image),
            (s, Fact::Creating { c, inc: 0 }),
            (s, Fact::Created { c, inc: 0, pid: 1, inode: 1, container_id: id }),
        ]
    }

    fn started(s: u64, c: usize) -> Vec<(u64, Fact)> {
        vec![(s, Fact::Starting { c, inc: 0 }), (s, Fact::Started { c, inc: 0 })]
    }

    /// Both exist, and `side` runs since second 2.
    fn begun() -> Vec<(u64, Fact)> {
        let sandbox = [(0, Fact::Accepted), (0, Fact::SandboxMaking), (1, Fact::SandboxReady)];
        [sandbox.to_vec(), created(1, 0), created(1, 1), started(2, 0)].concat()
    }

    fn probed(s: u64, success: bool) -> Vec<(u64, Fact)> {
        let output = if success { "" } else { "not yet" };
        let probe = |fact: &str| {
            let fact = json!({"fact": fact, "c": 0, "inc": 0, "kind": ProbeKind::Startup, "early": false,
                "success": success, "output": output});
            (s, serde_json::from_value(fact).unwrap())
        };
        vec![probe("probing"), probe("probed")]
    }

    #[test]
    fn what_is_held_back_and_the_probe_that_holds_it_back_are_told_in_the_manifests_order() {
        let facts = [begun(), probed(2, false), probed(12, false)].concat();
        assert_eq!(
            said(&facts, 15),
            "pod p: Init:0/1, ready 0/2, restarts 0, age 15s\n\
             side: startup probe of \"side\" has not succeeded (2 of 3 failures; the last said: not yet); \
             since 13s; next attempt in 7s\n\
             main: waits for sidecar \"side\" to be started; since 15s\n"
        );
    }

    #[test]
    fn a_pull_that_fails_and_a_sandbox_that_cannot_be_made_are_tried_again() {
        let fact = |s: &str| (1, serde_json::from_str::<Fact>(s).unwrap());
        let failed = fact(
            r#"{"fact":"sandboxFailed","reason":"FailedCreatePodSandBox","message":"no bridge","again":true}"#,
        );
        let image = fact(
            r#"{"fact":"imageFailed","c":0,"reason":"ErrImagePull","message":"probe: who is that"}"#,
        );
        let text = said(&[(0, Fact::Accepted), (0, Fact::SandboxMaking), failed, image], 4);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert!(
            lines.contains(
                &"the pod: the sandbox could not be made: no bridge; since 3s; next try in 7s"
            ),
            "{text}"
        );
        let pull = "side: image pull back-off (ErrImagePull): probe: who is that; since 3s; next try in 7s";
        assert!(lines.contains(&pull), "{text}");
        // What the reasons say is not said again as a warning.
        assert!(!text.contains("Warning"), "{text}");
    }

    #[test]
    fn a_back_off_tells_how_the_last_run_ended_and_what_warnings_there_were() {
        let exit = Exit { code: 3, message: Some("no config\n".into()), ..Exit::default() };
        let ran = |s: u64, inc: u32| -> Vec<(u64, Fact)> {
            let id = format!("id{inc}");
            let life = [
                (s, Fact::Creating { c: 1, inc }),
                (s, Fact::Created { c: 1, inc, pid: 1, inode: 1, container_id: id }),
                (s, Fact::Starting { c: 1, inc }),
                (s, Fact::Started { c: 1, inc }),
                (s + 1, Fact::Exited { c: 1, inc, exit: exit.clone() }),
                (s + 1, Fact::Gone { c: 1, inc }),
            ];
            // The first one was created already.
            life.into_iter().skip(if inc == 0 { 2 } else { 0 }).collect()
        };
        let failed = r#"{"fact":"createFailed","c":1,"inc":2,"reason":"CreateContainerError","message":"no room on the disk"}"#;
        let facts = [
            begun(),
            probed(2, true),
            ran(3, 0),
            ran(4, 1),
            vec![(5, Fact::Creating { c: 1, inc: 2 }), (5, serde_json::from_str(failed).unwrap())],
        ]
        .concat();
        let text = said(&facts, 9);
        assert!(!text.contains("Warning"), "{text}");
        assert!(
            text.contains(
                "\nmain: back-off 10s restarting failed container; since 4s; next try in 6s\n"
            ),
            "{text}"
        );
        assert!(text.contains("\n  last run: Error, exit code 3, 4s ago: no config\n"), "{text}");
        assert!(text.contains("\nmain: could not be created (CreateContainerError): no room on the disk; since 4s; next try in 6s\n"), "{text}");
    }

    #[test]
    fn what_stops_is_told_with_its_end_and_without_what_went_wrong_before() {
        let ending = [
            (20, Fact::DeleteAsked { grace_s: None }),
            (20, Fact::Ending { why: plan::End::Deleted, grace_s: 30 }),
            (20, Fact::Signalled { c: 1, inc: 0, signal: 15, handled: true }),
        ];
        let facts =
            [begun(), probed(2, false), probed(12, true), started(13, 1), ending.to_vec()].concat();
        assert_eq!(
            said(&facts, 22).lines().skip(1).collect::<Vec<_>>(),
            [
                "side: waits for \"main\" to end before it is stopped; since 2s; at the latest in 28s",
                "main: was told to stop, and has not ended yet (grace period); since 2s; at the latest in 28s",
            ]
        );
    }

    #[test]
    fn if_nothing_waits_the_states_are_told() {
        let facts = [begun(), probed(2, true), started(3, 1)].concat();
        assert_eq!(
            said(&facts, 9),
            "pod p: Running, ready 2/2, restarts 0, age 9s\nnothing is waiting: side, main running and ready\n"
        );
    }

    #[test]
    fn warnings_that_say_more_are_shown_the_newest_last_and_no_line_is_a_programs() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "main"}]}, "status": {}});
        let waiting = PodWaiting {
            container: Some("main".into()),
            reason: "is being created".into(),
            since: Some(at(50).mono),
            until: None,
        };
        let event = |s: u64, message: &str| Event {
            at: at(s).wall,
            warning: true,
            reason: "Failed".into(),
            message: message.into(),
            container: Some("main".into()),
            first_at: Some(at(1).wall),
            count: 4,
        };
        let events = [
            event(2, "one"),
            event(3, "two"),
            event(4, "Error: Echo"),
            event(5, "three\nmain: lies"),
            event(6, "four"),
        ];
        let text = living(&pod, &[waiting], &events, at(61));
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "main: is being created; since 11s",
                "  Warning Failed (x4 over 60s, 58s ago): two",
                "  Warning Failed (x4 over 60s, 56s ago): three\\nmain: lies",
                "  Warning Failed (x4 over 60s, 55s ago): four",
            ]
        );
    }
}
