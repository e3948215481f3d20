//! The shim's loop and what it holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use bundles::image::{Hold, Image, Store};
use bundles::layout::{Layout, PodDir};
use plan::{At, Fact, Mono, Plan, State, Subject, Waiting};
use runtime::cgroup::{CgroupValues, Cgroups};
use runtime::clock;
use runtime::journal::{Journal, JournalError};
use runtime::keeper::{Inheritance, Keeper};
use runtime::log::Pump;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::change::Superseded;
use super::children::{Creating, Incarnation};
use super::clients::Clients;
use super::execs::Running;
use super::file::PodFile;
use super::hooks::Sleeping;
use super::image::Pull;
use super::notify::Notifier;
use super::past::{self, Found, Past};
use super::requests::Asking;
use super::result::PodResult;
use super::scrap::{self, Stays};
use super::signals::Signals;
use super::tokens::{self, Token};
use super::watch;
use super::{clients, failpoint, kept};
use crate::history::History;
use crate::protocol::{ContainerUsage, Event, PodWaiting, Reply, Request};

/// One pod being run.
pub struct Machine {
    pub(super) file: PodFile,
    pub(super) layout: Layout,
    pub(super) dir: PodDir,
    pub(super) pod: plan::Pod,
    pub(super) state: State,
    pub(super) journal: Journal,
    /// Its last record could not be written.
    journal_fails: bool,
    /// What the host has of the pod could not be removed.
    pub(super) leaves_something: bool,
    /// Something has happened by which may be planned. A container's output is nothing of that kind, and a
    /// flood of it is not to cost a plan and a status for each batch.
    pub(super) is_news: bool,
    pub(super) epoll: OwnedFd,
    pub(super) signals: Signals,
    timer: OwnedFd,
    pub(super) clients: Clients,
    pub(super) cgroups: Cgroups,
    pub(super) pod_cgroup: String,
    /// To be told as soon as somebody listens.
    early_warning: Option<String>,
    pub(super) host: bundles::host::Host,
    pub(super) wanted: runtime::sandbox::Wanted,
    pub(super) sandbox: Option<runtime::sandbox::Sandbox>,
    /// The pod's own address.
    pub(super) address: Option<Ipv4Addr>,
    pub(super) pump: Option<Pump>,
    /// Logs of runs that have begun while the log of the run before takes no more.
    pub(super) next_logs: BTreeMap<usize, PathBuf>,
    /// Containers whose rotated logs are to be compressed, and the child that does it.
    pub(super) to_pack: BTreeSet<usize>,
    pub(super) packing: Option<i32>,
    /// What was told of a container's log last.
    pub(super) output_told: BTreeMap<usize, String>,
    pub(super) store: Store,
    /// The image of each container, once it is here.
    pub(super) images: Vec<Option<Image>>,
    /// Keep those images in the store while this process lives.
    pub(super) holds: Vec<Option<Hold>>,
    pub(super) filters: Vec<super::sandbox::ContainerFilter>,
    /// Definitions of containers that were changed while something made from them exists.
    pub(super) superseded: Vec<Superseded>,
    /// The limits of the pod's control group, while they are not what its file says.
    pub(super) pod_limits: Option<CgroupValues>,
    pub(super) creating: Vec<Creating>,
    pub(super) living: Vec<Incarnation>,
    /// Programs under way in containers, besides their own.
    pub(super) execs: Vec<Running>,
    pub(super) next_exec: u32,
    /// Hooks that only wait.
    pub(super) sleeping: Vec<Sleeping>,
    /// Children that ask containers' servers.
    pub(super) requests: Vec<Asking>,
    /// Sockets on which containers speak of themselves.
    pub(super) notifiers: Vec<Notifier>,
    pub(super) pulls: Vec<Pull>,
    /// Children that were reaped before anybody knew what they are, with their exit.
    pub(super) strays: HashMap<i32, plan::Exit>,
    /// The process that keeps the pod while this one is dead; `None` if that is dead.
    pub(super) keeper: Option<Keeper>,
    /// What the keeper held, until the pod is taken over.
    held: HashMap<String, OwnedFd>,
    /// What this process is to become, and who wants that.
    upgrade: Option<(u32, OwnedFd)>,
    found: Found,
    history: History,
    last_status: serde_json::Value,
    last_waiting: Vec<Waiting>,
    /// Held for as long as this process lives.
    lock: Option<File>,
}

impl Machine {
    /// Takes on the pod in `pod_dir`.
    pub fn new(
        pod_dir: &Path,
        owner: Option<UnixStream>,
        inheritance: Inheritance,
    ) -> anyhow::Result<Machine> {
        let Inheritance { keeper, mut held } = inheritance;
        let file = PodFile::read(&pod_dir.join("pod.json"))?;
        let layout = file.layout();
        let uid = file.pod.metadata.uid.clone().unwrap_or_default();
        let dir = layout.pod(&uid);
        let lock = match held.remove(kept::LOCK) {
            Some(lock) => File::from(lock),
            None => lock(&dir)?,
        };
        let (journal, past, found) = past::take_on(&file, &dir)?;
        let Past { pod, state, history } = past;
        rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))
            .context("cannot become a subreaper")?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot make epoll")?;
        let signals = Signals::open(&epoll)?;
        if owner.is_some() {
            signals.forget();
        }
        let timer = timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )
        .context("cannot make a timer")?;
        watch::add(&epoll, &timer, EventData::new_u64(tokens::TIMER), EventFlags::IN)?;
        kept::listen(&epoll, &keeper)?;
        let listener = held.remove(kept::LISTENER).map(UnixListener::from);
        let listener = match listener {
            Some(listener) => listener,
            None => clients::listen(&dir.socket())?,
        };
        let clients = Clients::open(&epoll, listener, tokens::LISTENER, tokens::client, owner)?;
        let cgroups = runtime::cgroup::detect()?;
        let mut keeper = Some(keeper);
        let (pod_cgroup, early_warning) =
            super::sandbox::pod_cgroup(&cgroups, &file.pod, keeper.as_mut());
        let spec = file.pod.spec.clone().unwrap_or_default();
        let store = Store::open(&layout.images())?;
        let count = pod.containers.len();
        let host = super::sandbox::host()?;
        let machine = Machine {
            pod_cgroup,
            early_warning,
            wanted: super::sandbox::wanted(&file.pod, &host)?,
            filters: super::sandbox::filters(&spec, &host, &layout),
            host,
            state,
            found,
            keeper,
            held,
            upgrade: None,
            images: vec![None; count],
            holds: (0..count).map(|_| None).collect(),
            superseded: Vec::new(),
            pod_limits: None,
            file,
            layout,
            dir,
            pod,
            journal,
            journal_fails: false,
            epoll,
            signals,
            timer,
            clients,
            cgroups,
            sandbox: None,
            address: None,
            pump: None,
            next_logs: BTreeMap::new(),
            to_pack: BTreeSet::new(),
            packing: None,
            output_told: BTreeMap::new(),
            store,
            creating: Vec::new(),
            living: Vec::new(),
            execs: Vec::new(),
            next_exec: 0,
            sleeping: Vec::new(),
            requests: Vec::new(),
            notifiers: Vec::new(),
            pulls: Vec::new(),
            strays: HashMap::new(),
            history,
            last_status: serde_json::Value::Null,
            last_waiting: Vec::new(),
            lock: Some(lock),
            leaves_something: false,
            is_news: true,
        };
        if let Some(lock) = &machine.lock {
            machine.hold(kept::LOCK, lock.as_fd());
        }
        if let Some(listener) = machine.clients.listener() {
            machine.hold(kept::LISTENER, listener);
        }
        Ok(machine)
    }

    /// Until nothing is left of the pod.
    pub fn run(&mut self, upgraded: bool) -> anyhow::Result<()> {
        let held = std::mem::take(&mut self.held);
        match self.found {
            Found::New => {
                self.record(Fact::Accepted);
            }
            Found::Before => self.adopt(held, upgraded)?,
            Found::Lost => {}
        }
        if let Some(Err(e)) = self.keeper.as_ref().map(Keeper::took_on) {
            tracing::warn!("the keeper does not listen: {e}");
        }
        if let Some(message) = self.early_warning.take() {
            let reason = "NoScope".to_owned();
            let event = plan::Event { warning: true, reason, message, container: None };
            self.tell_event(clock::now(), &event);
        }
        let mut ready = Vec::with_capacity(32);
        loop {
            if self.is_news {
                let wake_at = self.act();
                if self.state.is_over() {
                    break;
                }
                self.upgrade_if_asked();
                self.arm(wake_at)?;
                self.is_news = false;
            }
            ready.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e).context("cannot wait for events"),
            }
            for event in &ready {
                if let Some(token) = tokens::token(event.data.u64()) {
                    self.is_news |= !matches!(token, Token::Stream(_));
                    self.handle(token);
                }
            }
            self.on_time();
        }
        self.say_goodbye();
        Ok(())
    }

    /// As soon as nobody creates a container: creators end with what started them.
    fn upgrade_if_asked(&mut self) {
        if !self.creating.is_empty() {
            return;
        }
        let Some((client, binary)) = self.upgrade.take() else { return };
        let Err(e) = self.become_another(&binary);
        let reply = Reply::Error(format!("the pod stays what it is: {e}"));
        self.clients.send(&self.epoll, client, &reply);
    }

    /// Carries out plans until there is nothing more to do now; says when to look again.
    fn act(&mut self) -> Option<Mono> {
        loop {
            let Plan { actions, waiting, wake_at } =
                plan::plan(&self.pod, &self.state, clock::mono());
            if actions.is_empty() {
                self.tell(waiting);
                return wake_at;
            }
            for action in actions {
                self.carry_out(action);
            }
        }
    }

    /// A fact: told, journalled and folded, in this order of appearance and never undone.
    pub(super) fn record(&mut self, fact: Fact) -> At {
        self.is_news = true;
        let at = clock::now();
        failpoint::around(&self.layout, &fact, "fact", "before");
        let events = plan::narrate(&self.pod, &self.state, &fact);
        let written = self.journal.append(at, &fact);
        failpoint::around(&self.layout, &fact, "fact", "after");
        plan::fold(&self.pod, &mut self.state, at, &fact);
        plan::change(&mut self.pod, &fact);
        for event in events {
            self.tell_event(at, &event);
        }
        self.note_journal(written.err());
        self.shorten_journal();
        at
    }

    /// The pod goes on without its history rather than stop; a successor will know less. It is told once.
    fn note_journal(&mut self, failed: Option<JournalError>) {
        let was_whole = !std::mem::replace(&mut self.journal_fails, failed.is_some());
        let Some(error) = failed.filter(|_| was_whole) else { return };
        let message = format!(
            "{}: until that is mended, a process for this pod that dies is lost with what happens now",
            runtime::chain(&error)
        );
        tracing::error!("{message}");
        let reason = "JournalFailed".to_owned();
        let event = plan::Event { warning: true, reason, message, container: None };
        self.tell_event(clock::now(), &event);
    }

    /// What it has become too long for is forgotten; what is known stays.
    fn shorten_journal(&mut self) {
        let (pod, state, history) = (&self.pod, &self.state, &self.history);
        let past = || Past { pod: pod.clone(), state: state.clone(), history: history.clone() };
        if let Err(e) = past::shorten(&mut self.journal, &self.file, &self.dir, past) {
            tracing::error!("{}", crate::cli::one_line(&e));
        }
    }

    /// The pod's lock, until it is given up.
    pub(super) fn lock(&self) -> Option<BorrowedFd<'_>> {
        self.lock.as_ref().map(AsFd::as_fd)
    }

    /// What has been told so far.
    pub(super) fn history(&self) -> Vec<Event> {
        self.history.events()
    }

    pub(super) fn tell_event(&mut self, at: At, event: &plan::Event) {
        let event = self.history.add(event_of(&self.pod, at, event));
        self.clients.broadcast(&self.epoll, &Reply::Event(event));
    }

    /// Sends status and waiting to those who watch, if they changed.
    fn tell(&mut self, waiting: Vec<Waiting>) {
        let changed = waiting != self.last_waiting;
        self.last_waiting = waiting;
        if !self.clients.anybody_watches() {
            return;
        }
        let status = self.status();
        if status != self.last_status {
            self.last_status = status.clone();
            self.clients.broadcast(&self.epoll, &Reply::Status(Box::new(status)));
        }
        if changed {
            let waiting = self.waiting();
            self.clients.broadcast(&self.epoll, &waiting);
        }
    }

    /// What the plan waited for when there was nothing more to do.
    fn waiting(&self) -> Reply {
        Reply::Waiting(self.last_waiting.iter().map(|w| self.pod_waiting(w)).collect())
    }

    fn pod_waiting(&self, waiting: &Waiting) -> PodWaiting {
        let container = match waiting.subject {
            Subject::Pod => None,
            Subject::Container(c) => self.pod.containers.get(c).map(|c| c.name.clone()),
        };
        let said = match waiting.subject {
            Subject::Container(c) => self.status_of(c),
            Subject::Pod => None,
        };
        let mut reason = waiting.reason.clone();
        if let Some(said) = said {
            reason = format!("{reason}; it says {said:?}");
        }
        let (since, until) = (waiting.since, waiting.until);
        let on_boottime = |at: Option<Mono>| at.map(clock::on_boottime);
        PodWaiting { container, reason, since: on_boottime(since), until: on_boottime(until) }
    }

    /// `status` of the pod, with what only the host knows added.
    fn status(&self) -> serde_json::Value {
        let status = plan::status(&self.pod, &self.state, clock::now());
        let mut value = serde_json::to_value(status).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            let spec = self.file.pod.spec.clone().unwrap_or_default();
            if let Ok(qos) = bundles::resources::qos(&spec) {
                map.insert("qosClass".into(), qos.to_string().into());
            }
            if let Some(ip) = &self.host.host_ip {
                map.insert("hostIP".into(), ip.clone().into());
                map.insert("hostIPs".into(), serde_json::json!([{"ip": ip}]));
            }
            if let Some(ip) = self.pod_ips().first() {
                map.insert("podIP".into(), ip.clone().into());
                map.insert("podIPs".into(), serde_json::json!([{"ip": ip}]));
            }
        }
        value
    }

    /// The whole object.
    pub(super) fn object(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(&self.file.pod).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.insert("apiVersion".into(), "v1".into());
            map.insert("kind".into(), "Pod".into());
            map.insert("status".into(), self.status());
            self.mark_deletion(map);
        }
        // As Kubernetes' scheduler would have written it.
        value["spec"]["nodeName"] = self.host.node_name.clone().into();
        value
    }

    /// `metadata.deletionTimestamp` and its grace period.
    fn mark_deletion(&self, object: &mut serde_json::Map<String, serde_json::Value>) {
        let told = plan::deletion(&self.state).map(serde_json::to_value);
        let metadata = object.get_mut("metadata").and_then(serde_json::Value::as_object_mut);
        if let (Some(Ok(serde_json::Value::Object(told))), Some(metadata)) = (told, metadata) {
            metadata.extend(told);
        }
    }

    fn arm(&self, wake_at: Option<Mono>) -> anyhow::Result<()> {
        let next = [wake_at, self.next_deadline()].into_iter().flatten().min();
        let next = next.map(clock::on_boottime);
        // An absolute time of zero would disarm the timer; one nanosecond is past as well.
        let at = next.map_or(0, |m| m.0.max(1));
        let value = Timespec {
            tv_sec: i64::try_from(at / Mono::SECOND).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(at % Mono::SECOND).unwrap_or(0),
        };
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(
            &self.timer,
            TimerfdTimerFlags::ABSTIME,
            &Itimerspec { it_interval: zero, it_value: value },
        )
        .context("cannot set the timer")?;
        Ok(())
    }

    /// The executor's own deadlines; the plan has its own.
    fn next_deadline(&self) -> Option<Mono> {
        const RETRY_MS: u64 = 100;
        let creators = self.creating.iter().map(|c| c.deadline);
        let probes = self.execs.iter().filter_map(Running::deadline);
        let blocked = self.pump.as_ref().is_some_and(Pump::blocked);
        let retry = blocked.then(|| Mono(clock::mono().0 + RETRY_MS * 1_000_000));
        let requests = self.requests.iter().filter_map(Asking::deadline);
        let sleeps = self.sleeping.iter().map(|s| s.until);
        let rests = self.notifiers.iter().filter_map(Notifier::rests);
        creators.chain(rests).chain(probes).chain(sleeps).chain(requests).chain(retry).min()
    }

    /// What is due by time and not by an event.
    fn on_time(&mut self) {
        let now = clock::now();
        self.end_late_creators(now.mono);
        self.end_late_probes(now.mono);
        self.end_late_requests(now.mono);
        self.end_sleeps(now.mono);
        self.wake_notifiers(now.mono);
        self.retry_logs(now.wall);
        self.pack_logs();
    }

    fn handle(&mut self, token: Token) {
        match token {
            Token::Signals => self.on_signals(),
            // What is due is looked at after every round of events.
            Token::Timer => drain_timer(&self.timer),
            Token::Keeper => self.on_keeper(),
            Token::Orphan(pid) => self.on_orphan(pid.cast_signed()),
            Token::Listener => self.clients.accept(&self.epoll, tokens::client),
            Token::Client(id) => self.on_client(id),
            Token::Creator(pid) => self.on_creator_message(pid.cast_signed()),
            Token::Started(pid) => self.on_start_pipe(pid.cast_signed()),
            Token::Exec(helper) => self.on_exec(helper.cast_signed()),
            Token::Notify(c) => self.on_notification(c as usize),
            Token::Stream(index) => self.on_output(index),
        }
    }

    fn on_client(&mut self, id: u32) {
        let received = self.clients.serve(&self.epoll, id);
        for request in received.requests {
            let reply = match request {
                Ok((request, descriptors)) => self.serve(id, request, descriptors),
                Err(text) => Some(Reply::Error(text)),
            };
            if let Some(reply) = reply {
                self.clients.send(&self.epoll, id, &reply);
            }
        }
        if received.gone {
            self.end_execs_of(id);
        }
        if received.owner_gone {
            self.record(Fact::DeleteAsked { grace_s: None });
        }
    }

    /// `None` if the answer comes later.
    fn serve(&mut self, id: u32, request: Request, descriptors: Vec<OwnedFd>) -> Option<Reply> {
        Some(match request {
            Request::Get => Reply::Pod(Box::new(self.object())),
            Request::Watch => {
                self.clients.watch(id);
                Reply::Pod(Box::new(self.object()))
            }
            Request::Delete { grace_s } => {
                self.record(Fact::DeleteAsked { grace_s });
                Reply::Done
            }
            Request::Kill => {
                self.record(Fact::KillAsked);
                Reply::Done
            }
            Request::Suspend => {
                self.record(Fact::SuspendAsked);
                Reply::Done
            }
            Request::Restart { container } => match self.index_of(&container) {
                Ok(c) => {
                    self.record(Fact::RestartAsked { c });
                    Reply::Done
                }
                Err(text) => Reply::Error(text),
            },
            Request::Stop { container } => self.wish(&container, |c| Fact::StopAsked { c }),
            Request::Start { container } => self.wish(&container, |c| Fact::StartAsked { c }),
            Request::Change { definition, check } => self.change(*definition, check),
            Request::Events => Reply::Events(self.history.events()),
            Request::Waiting => self.waiting(),
            Request::Usage => Reply::Usage(self.usage()),
            Request::Upgrade => {
                return match <[OwnedFd; 1]>::try_from(descriptors) {
                    Ok([binary]) => {
                        self.upgrade = Some((id, binary));
                        None
                    }
                    Err(_) => Some(Reply::Error("no binary came with the request".into())),
                };
            }
            Request::Exec { container, command, terminal } => {
                return match self.exec(id, &container, &command, terminal, descriptors) {
                    Ok(()) => None,
                    Err(text) => Some(Reply::Error(text)),
                };
            }
        })
    }

    /// Does what a user wants of a container, or says why not.
    fn wish(&mut self, container: &str, fact: impl FnOnce(usize) -> Fact) -> Reply {
        let fact = match self.index_of(container) {
            Ok(c) => fact(c),
            Err(text) => return Reply::Error(text),
        };
        if let Some(why) = plan::refusal(&self.pod, &self.state, &fact) {
            let pod = &self.pod.name;
            return Reply::Error(format!("container {container:?} of pod {pod:?}: {why}"));
        }
        self.record(fact);
        Reply::Done
    }

    fn usage(&self) -> Vec<ContainerUsage> {
        let running =
            |c: usize| self.state.incarnations(c).iter().find(|i| i.phase == plan::Life::Running);
        let containers = self.pod.containers.iter().enumerate();
        containers
            .filter_map(|(c, container)| {
                let inc = running(c)?.inc;
                let cgroup = runtime::container::cgroup_name(&container.name, inc);
                // One that has ended in this moment uses nothing.
                let usage = self.cgroups.usage(&self.pod_cgroup, &cgroup).ok()?;
                Some(ContainerUsage {
                    container: container.name.clone(),
                    inc,
                    at: clock::mono(),
                    cpu_ns: usage.cpu_ns,
                    memory_bytes: usage.memory_bytes,
                })
            })
            .collect()
    }

    pub(super) fn index_of(&self, container: &str) -> Result<usize, String> {
        self.pod.containers.iter().position(|c| c.name == container).ok_or_else(|| {
            let names = self.container_names().join(", ");
            format!("pod {} has no container {container:?}; it has: {names}", self.pod.name)
        })
    }

    pub(super) fn container_names(&self) -> Vec<String> {
        self.pod.containers.iter().map(|c| c.name.clone()).collect()
    }

    /// The last words to those who watch; then nothing of this pod is left on the host.
    fn say_goodbye(&mut self) {
        let exit_code = plan::exit_code(&self.pod, &self.state);
        let status = self.status();
        self.clients.broadcast(&self.epoll, &Reply::Status(Box::new(status)));
        if self.file.timeline {
            match runtime::journal::read(&self.dir.journal()) {
                Ok(contents) => {
                    let beginning = past::beginning(&self.file, &contents);
                    let life = crate::timeline::of(beginning, &contents.records, clock::mono());
                    self.clients.broadcast(&self.epoll, &Reply::Timeline(Box::new(life)));
                }
                Err(e) => tracing::warn!("no timeline: {}", runtime::chain(&e)),
            }
        }
        self.clients.broadcast(&self.epoll, &Reply::Over { exit_code });
    }

    /// Sends what is buffered, removes the pod's directory and gives up its lock.
    pub fn finish(mut self) -> anyhow::Result<()> {
        failpoint::at(&self.layout, "finish:said");
        if self.file.is_kept() && !self.state.is_suspended() {
            let (object, exit_code) = (self.object(), plan::exit_code(&self.pod, &self.state));
            let events = self.history.events();
            PodResult { object, exit_code, events }.write(&self.layout, &self.pod.uid)?;
        }
        let lock = self.lock.take();
        self.release_all();
        failpoint::at(&self.layout, "finish:released");
        drop(self.journal);
        drop(self.pump);
        let_go_of_the_log()?;
        let root_lock = runtime::state_dir::lock(&self.layout)?;
        let stays = if self.state.is_suspended() { Stays::Kept } else { Stays::Nothing };
        let removed = scrap::remove_directories(&self.layout, &self.pod, lock, stays)
            .and_then(|()| scrap::unpin_nobodys(&self.layout, &root_lock));
        if self.leaves_something {
            // By this whoever looks for leftovers knows whose they are.
            runtime::state_dir::make_dir(&self.dir.kept, 0o700)?;
        }
        failpoint::at(&self.layout, "finish:removed");
        self.clients.dismiss_visitors();
        let left = runtime::state_dir::leave_if_last(&self.layout, &root_lock);
        drop(root_lock);
        self.clients.finish();
        removed?;
        left?;
        Ok(())
    }
}

/// An event as it is told.
pub fn event_of(pod: &plan::Pod, at: At, event: &plan::Event) -> Event {
    let container = event.container.and_then(|c| pod.containers.get(c));
    Event {
        at: at.wall,
        warning: event.warning,
        reason: event.reason.clone(),
        message: event.message.clone(),
        container: container.map(|c| c.name.clone()),
        first_at: None,
        count: 1,
    }
}

/// The shim's own log lies in the state directory, which could not be unmounted while it is open.
fn let_go_of_the_log() -> anyhow::Result<()> {
    let null = File::options().write(true).open("/dev/null").context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdout(&null).context("cannot redirect standard output")?;
    rustix::stdio::dup2_stderr(&null).context("cannot redirect standard error")?;
    runtime::diagnostics::end();
    Ok(())
}

const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(2);

fn lock(dir: &PodDir) -> anyhow::Result<File> {
    let path = dir.lock();
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    // A creator of a dead shim has it open until it notices.
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
            locked => {
                locked.with_context(|| format!("another shim holds {}", path.display()))?;
                return Ok(file);
            }
        }
    }
}

fn drain_timer(timer: &OwnedFd) {
    let mut ticks = [0; 8];
    // Nothing to read means that it was armed again in between.
    let _ = rustix::io::read(timer, &mut ticks);
}
