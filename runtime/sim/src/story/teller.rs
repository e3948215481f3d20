//! The world that a story plays in: it does at once what the heart asks for.

use std::collections::{BTreeMap, BTreeSet};

use plan::{
    Action, At, Change, Event, Exit, Fact, Hook, Life, Mono, Pod, ProbeKind, StartError, State,
    Wall, change, fold, narrate, plan, refusal,
};

use super::words;
use crate::book::{Book, Broken};
use crate::pod_line;
use crate::table::Row;
use crate::world::Record;

/// 2026-01-01T00:00:00Z, so that times in answers are read at a glance.
const WALL_START_S: u64 = 1_767_225_600;

type Told = Result<(), String>;

/// The world.
pub(super) struct Teller {
    /// What the pod is now.
    pub(super) pod: Pod,
    pub(super) state: State,
    pub(super) now: Mono,
    pub(super) events: Vec<Event>,
    answers: Vec<String>,
    asked: Vec<Row>,
    journal: Vec<Record>,
    book: Book,
    broken: Option<Broken>,
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

impl Teller {
    pub(super) fn new(pod: &Pod) -> Teller {
        Teller {
            pod: pod.clone(),
            state: State::new(pod),
            now: Mono(0),
            events: Vec::new(),
            answers: Vec::new(),
            asked: Vec::new(),
            journal: Vec::new(),
            book: Book::new(pod),
            broken: None,
            told: BTreeSet::new(),
            obeying: BTreeSet::new(),
            probes: BTreeMap::new(),
            hooks: BTreeMap::new(),
            troubles: BTreeMap::new(),
        }
    }

    pub(super) fn into_parts(self) -> (Vec<Record>, Vec<Row>, Option<Broken>) {
        (self.journal, self.asked, self.broken)
    }

    /// What the heart answers to one line.
    pub(super) fn happens(&mut self, at: Mono, what: &str) -> Result<Vec<String>, String> {
        self.wait_until(at)?;
        let words: Vec<&str> = what.split_whitespace().collect();
        if !words.is_empty() {
            self.one(&words)?;
            self.settle()?;
        }
        Ok(std::mem::take(&mut self.answers))
    }

    /// Time passes.
    pub(super) fn wait_until(&mut self, at: Mono) -> Told {
        if at < self.now {
            return Err("a story does not go back".to_owned());
        }
        while let Some(wake) = plan(&self.pod, &self.state, self.now).wake_at {
            if wake <= self.now {
                return Err("the heart wants to be woken in the past".to_owned());
            }
            if wake > at {
                break;
            }
            self.now = wake;
            self.settle()?;
        }
        self.now = at;
        self.settle()
    }

    fn one(&mut self, words: &[&str]) -> Told {
        match words {
            ["accept"] => self.fold(Fact::Accepted),
            ["exit", name, code] => self.exit(name, words::code(code)?, false)?,
            ["exit", name, code, "oom"] => self.exit(name, words::code(code)?, true)?,
            ["not-found", name] => self.cannot_execute(name)?,
            ["delete"] => self.fold(Fact::DeleteAsked { grace_s: None }),
            ["delete", grace] => {
                let grace_s = Some(words::number(grace)?.1);
                self.fold(Fact::DeleteAsked { grace_s });
            }
            ["kill"] => self.fold(Fact::KillAsked),
            ["restart", name] => {
                let c = self.index(name)?;
                self.fold(Fact::RestartAsked { c });
            }
            ["obey", names @ ..] => {
                self.obeying = names.iter().map(|n| self.index(n)).collect::<Result<_, _>>()?;
            }
            [kind @ ("startup" | "readiness" | "liveness"), name, result] => {
                self.probes.insert((self.index(name)?, words::kind(kind)?), (*result).into());
            }
            ["probed", kind, name, result] => {
                self.probed(self.index(name)?, words::kind(kind)?, result)?;
            }
            [hook @ ("post-start" | "pre-stop"), name, result] => {
                self.hooks.insert((self.index(name)?, words::hook(hook)?), (*result).into());
            }
            ["hooked", hook, name, result] => {
                self.hooked(self.index(name)?, words::hook(hook)?, result)?;
            }
            ["notify", name] => {
                let c = self.index(name)?;
                let inc = self.running(c)?;
                self.fold(Fact::Notified { c, inc });
            }
            ["change", "pod", deadline] => {
                let active_deadline_s = Some(words::number(deadline)?.1);
                self.wish(Fact::Changed { containers: Vec::new(), active_deadline_s });
            }
            ["change", name, ..] => {
                let c = self.index(name)?;
                let kind = pod_line::kind_word(self.pod.containers[c].kind);
                let container = pod_line::container(&format!("{kind} {}", words[1..].join(" ")))?;
                self.changed(Change { c, container, restart: true });
            }
            ["resize", name] => {
                let c = self.index(name)?;
                let container = self.pod.containers[c].clone();
                self.changed(Change { c, container, restart: false });
            }
            ["stop", name] => {
                let c = self.index(name)?;
                self.wish(Fact::StopAsked { c });
            }
            ["start", name] => {
                let c = self.index(name)?;
                self.wish(Fact::StartAsked { c });
            }
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
            ["created", name] => self.created(self.index(name)?)?,
            ["late", name, inc] => self.created_as(self.index(name)?, words::incarnation(inc)?),
            ["late", name, inc, "fails"] => {
                let (c, inc) = (self.index(name)?, words::incarnation(inc)?);
                let (reason, message) = ("CreateContainerError".into(), "no room".into());
                self.fold(Fact::CreateFailed { c, inc, reason, message });
            }
            ["pulled", name] => self.image_ready(self.index(name)?, true),
            question => {
                let first = self.answers.len();
                self.ask(question)?;
                let given = &self.answers[first..];
                let rows = given.iter().map(|what| Row {
                    at: self.now,
                    who: "(asked)".to_owned(),
                    what: what.clone(),
                });
                self.asked.extend(rows);
            }
        }
        Ok(())
    }

    pub(super) fn say(&mut self, answer: impl Into<String>) {
        self.answers.push(answer.into());
    }

    pub(super) fn at(&self) -> At {
        At { mono: self.now, wall: Wall(WALL_START_S * Mono::SECOND + self.now.0) }
    }

    fn index(&self, name: &str) -> Result<usize, String> {
        let found = self.pod.containers.iter().position(|c| c.name == name);
        found.ok_or_else(|| format!("the pod has no container {name}"))
    }

    pub(super) fn name(&self, c: usize) -> &str {
        self.pod.containers.get(c).map_or("?", |k| &k.name)
    }

    fn fold(&mut self, fact: Fact) {
        self.events.extend(narrate(&self.pod, &self.state, &fact));
        let at = self.at();
        fold(&self.pod, &mut self.state, at, &fact);
        self.book.note(self.now, &fact);
        change(&mut self.pod, &fact);
        self.journal.push(Record { at, fact });
    }

    /// A user's wish, unless it is refused; then why.
    fn wish(&mut self, fact: Fact) {
        let refused = refusal(&self.pod, &self.state, &fact);
        if refused.is_some() != self.book.refuses(&fact) {
            self.check(Err(Broken(format!("a user hears {refused:?} of {fact:?}"))));
        }
        match refused {
            Some(why) => self.say(format!("refused: {why}")),
            None => self.fold(fact),
        }
    }

    fn changed(&mut self, change: Change) {
        self.wish(Fact::Changed { containers: vec![change], active_deadline_s: None });
    }

    /// Remembers the first promise that is broken.
    fn check(&mut self, checked: Result<(), Broken>) {
        if let Err(broken) = checked {
            self.broken.get_or_insert(broken);
        }
    }

    fn settle(&mut self) -> Told {
        for _ in 0..100 {
            let plan = plan(&self.pod, &self.state, self.now);
            if plan.actions.is_empty() {
                let next = self.book.check_settled(self.now);
                let checked = next.and_then(|next| self.book.check_waiting(self.now, &plan, next));
                self.check(checked);
            }
            let mut did = false;
            for action in plan.actions {
                did |= self.carry_out(action)?;
            }
            if !did {
                return Ok(());
            }
        }
        Err("the plan never becomes empty".to_owned())
    }

    /// Does it, and answers whether anything was done.
    fn carry_out(&mut self, action: Action) -> Result<bool, String> {
        let checked = self.book.check_action(self.now, &action);
        self.check(checked);
        let before = self.state.clone();
        self.tell_of(&action);
        match action {
            Action::MakeSandbox => self.make_sandbox(),
            Action::ResolveImage { c } => self.resolve(c),
            Action::Create { c, inc } => self.create(c, inc)?,
            Action::Start { c, inc, .. } => {
                self.fold(Fact::Starting { c, inc });
                if self.trouble("start", c).is_none() {
                    self.fold(Fact::Started { c, inc });
                }
            }
            Action::Probe { c, inc, kind, early, .. } => {
                self.fold(Fact::Probing { c, inc, kind, early });
                let result = self.probes.get(&(c, kind)).cloned().unwrap_or("fails".into());
                self.probed(c, kind, &result)?;
            }
            Action::Hook { c, inc, hook } => {
                self.fold(Fact::HookRunning { c, inc, hook });
                let result = self.hooks.get(&(c, hook)).cloned().unwrap_or("succeeds".into());
                self.hooked(c, hook, &result)?;
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
                if self.trouble("kill", c).is_none() {
                    self.ended(c, inc, Exit { code: 137, signal: Some(9), ..Exit::default() });
                }
            }
            Action::Clean { c, inc } => self.fold(Fact::Gone { c, inc }),
            Action::Teardown => self.fold(Fact::TornDown),
        }
        Ok(before != self.state)
    }

    fn tell_of(&mut self, action: &Action) {
        let (kind, text) = super::show::action(self, action);
        if kind.is_empty() || self.told.contains(kind) {
            let at = words::show_time(self.now);
            self.say(format!("{at} {text}"));
        }
    }

    /// How something fails, if the story says so.
    fn trouble(&self, what: &str, c: usize) -> Option<String> {
        self.troubles.get(&format!("{what} {}", self.name(c))).cloned()
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
        match self.trouble("image", c) {
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

    fn create(&mut self, c: usize, inc: u32) -> Told {
        self.fold(Fact::Creating { c, inc });
        match self.trouble("create", c) {
            None => self.created_as(c, inc),
            Some(how) if how == "hold" => {}
            Some(reason) => {
                let message = "no room".into();
                self.fold(Fact::CreateFailed { c, inc, reason, message });
            }
        }
        Ok(())
    }

    fn created(&mut self, c: usize) -> Told {
        let creating = self.state.incarnations(c).iter().find(|i| i.phase == Life::Creating);
        let Some(inc) = creating.map(|i| i.inc) else {
            return Err(format!("{} is not being created", self.name(c)));
        };
        self.created_as(c, inc);
        Ok(())
    }

    fn created_as(&mut self, c: usize, inc: u32) {
        let container_id = format!("{}-{inc}", self.name(c));
        let pid = i32::try_from(1000 + c * 100).unwrap_or(0) + i32::try_from(inc).unwrap_or(0);
        self.fold(Fact::Created { c, inc, pid, inode: 7, container_id });
    }

    fn running(&self, c: usize) -> Result<u32, String> {
        let runs = |p: Life| matches!(p, Life::Starting | Life::Running);
        let found = self.state.incarnations(c).iter().find(|i| runs(i.phase)).map(|i| i.inc);
        found.ok_or_else(|| format!("{} does not run", self.name(c)))
    }

    fn exit(&mut self, name: &str, code: i32, oom: bool) -> Told {
        let c = self.index(name)?;
        let signal = (code > 128).then(|| code - 128);
        let inc = self.running(c)?;
        self.ended(c, inc, Exit { code, signal, oom, ..Exit::default() });
        Ok(())
    }

    fn cannot_execute(&mut self, name: &str) -> Told {
        let c = self.index(name)?;
        let message = "exec /bin/nothing: no such file or directory".into();
        let start_error = Some(StartError { message, errno: Some(2) });
        let inc = self.running(c)?;
        self.ended(c, inc, Exit { code: 128, start_error, ..Exit::default() });
        Ok(())
    }

    fn ended(&mut self, c: usize, inc: u32, exit: Exit) {
        self.fold(Fact::Exited { c, inc, exit });
    }

    fn hooked(&mut self, c: usize, hook: Hook, result: &str) -> Told {
        let inc = self.running(c)?;
        let failure = match result {
            "hold" => return Ok(()),
            "succeeds" => None,
            "fails" => Some("exited with 3".to_owned()),
            _ => return Err(format!("a hook succeeds, fails or holds, not {result}")),
        };
        self.fold(Fact::HookEnded { c, inc, hook, failure, notice: None });
        Ok(())
    }

    fn probed(&mut self, c: usize, kind: ProbeKind, result: &str) -> Told {
        let inc = self.running(c)?;
        let text = || "not yet".to_owned();
        match result {
            "hold" => {}
            "errs" => self.fold(Fact::ProbeErrored { c, inc, kind, message: text() }),
            "succeeds" | "fails" => {
                let success = result == "succeeds";
                self.fold(Fact::Probed { c, inc, kind, success, warned: false, output: text() });
            }
            _ => return Err(format!("a probe succeeds, fails, errs or holds, not {result}")),
        }
        Ok(())
    }
}
