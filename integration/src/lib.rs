//! What the black-box tests have in common: an instance of podshim of their own, and the check that
//! nothing of it is left on the host.
//!
//! The binary is found by `PODSHIM_BIN`, an image archive by `PODSHIM_TEST_IMAGE` (`scripts/test`
//! sets both); without them, beside the test's own executable and by `scripts/image`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

pub mod api;
pub mod notify;
pub mod strace;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long anything may take; the virtual machine is ten times slower than a host.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// One instance: directories that nobody else uses, and a network namespace that stands for the
/// host's. Commands have to be started by the thread that made it.
pub struct Instance {
    dir: tempfile::TempDir,
    state: PathBuf,
    /// One instance at a time: some tests look at the whole host.
    /// Most tests run alone, so that none waits for a busy machine.
    _alone: Option<MutexGuard<'static, ()>>,
}

static ALONE: Mutex<()> = Mutex::new(());

/// What `podshim` said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Instance {
    /// A new one, with the test image loaded as `alpine:latest`.
    pub fn new() -> Instance {
        // A test that failed has poisoned it; the others still count.
        Instance::made(Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// One of several at once, in threads of their own.
    pub fn beside_others() -> Instance {
        Instance::made(None)
    }

    fn made(alone: Option<MutexGuard<'static, ()>>) -> Instance {
        assert!(nix::unistd::geteuid().is_root(), "the root tests must be run as root");
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let state = PathBuf::from(format!("/run/podshim-test-{}-{number}", std::process::id()));
        // On disk, as images are: a /tmp in memory may be small, and its mounts have other flags.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        // This thread's, and so that of all that it starts: the machine's own is left alone.
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("ip link set lo up");
        let instance = Instance { dir, state, _alone: alone };
        let said = instance.podshim(&["load", "-i", image().to_str().unwrap()]);
        assert_eq!(said.code, 0, "{}", said.err);
        instance
    }

    /// `--root`.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// `--state`.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Where the network of this test's host is remembered.
    pub fn network(&self) -> PathBuf {
        self.dir.path().join("network")
    }

    /// A command line of this instance.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_by(Command::new(binary()), args)
    }

    /// The same of another program.
    pub fn command_by(&self, mut command: Command, args: &[&str]) -> Command {
        command
            .args(args)
            .env("PODSHIM_ROOT", self.root())
            .env("PODSHIM_STATE", &self.state)
            .env("PODSHIM_LOG_DIR", self.dir.path().join("logs"))
            .env("PODSHIM_NETWORK_STATE", self.network())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn podshim(&self, args: &[&str]) -> Said {
        self.finish(self.command(args), args)
    }

    /// The same through another program, which executes the binary with its arguments.
    pub fn run_command(&self, through: Command, args: &[&str]) -> Said {
        self.finish(self.command_by(through, args), args)
    }

    /// Starts another copy of the binary in the background.
    pub fn start_copy(&self, program: &Path, args: &[&str]) -> Running<'_> {
        self.start_command(self.command_by(Command::new(program), args))
    }

    fn finish(&self, mut command: Command, args: &[&str]) -> Said {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = pid_of(&child);
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || ended.send(said(child.wait_with_output().unwrap())));
        end.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            kill_now(pid);
            panic!("podshim {args:?} does not end: {:#?}", end.recv())
        })
    }

    /// Loads the test image under another name, with a changed configuration.
    pub fn load_variant(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let folder = self.dir.path().join("variant");
        fs::create_dir(&folder).unwrap();
        let tar = |args: &[&std::ffi::OsStr]| {
            assert!(Command::new("tar").args(args).status().unwrap().success());
        };
        tar(&["-xf".as_ref(), image().as_ref(), "-C".as_ref(), folder.as_ref()]);
        let read =
            |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        let mut manifest = read(&folder.join("manifest.json"));
        let mut config = read(&folder.join(manifest[0]["Config"].as_str().unwrap()));
        change(&mut config);
        manifest[0]["Config"] = "config.json".into();
        manifest[0]["RepoTags"] = serde_json::json!([name]);
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
        fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
        let archive = self.dir.path().join("variant.tar");
        tar(&["-cf".as_ref(), archive.as_ref(), "-C".as_ref(), folder.as_ref(), ".".as_ref()]);
        let said = self.podshim(&["load", "-i", archive.to_str().unwrap()]);
        assert_eq!(said.code, 0, "{}", said.err);
        fs::remove_dir_all(folder).unwrap();
    }

    /// Writes a manifest and gives its path.
    pub fn manifest(&self, text: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.path().join(format!("manifest-{number}.yaml"));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a manifest to its end; images are not pulled.
    pub fn run(&self, manifest: &str) -> Said {
        self.run_with(&[], manifest)
    }

    /// The same with more options.
    pub fn run_with(&self, options: &[&str], manifest: &str) -> Said {
        let path = self.manifest(manifest);
        self.podshim(&[&["run", "--pull=never"], options, &[&path]].concat())
    }

    /// Runs a manifest with `-o json` and gives all that it printed: events, then whole objects.
    pub fn objects(&self, manifest: &str) -> (i32, Vec<Value>) {
        let said = self.run_with(&["-o", "json"], manifest);
        let parse = |line| serde_json::from_str(line).expect("one JSON object a line");
        (said.code, said.out.lines().map(parse).collect())
    }

    /// Runs a manifest and gives the lifecycle events, in their order, as (reason, container).
    pub fn events(&self, manifest: &str) -> (i32, Vec<(String, String)>) {
        let (code, objects) = self.objects(manifest);
        (code, events(&objects))
    }

    /// Starts a manifest in the background.
    pub fn start(&self, manifest: &str) -> Running<'_> {
        self.start_file(&self.manifest(manifest))
    }

    /// The same with more options.
    pub fn start_with(&self, options: &[&str], manifest: &str) -> Running<'_> {
        let path = self.manifest(manifest);
        self.start_command(self.command(&[&["run", "--pull=never"], options, &[&path]].concat()))
    }

    /// Starts a manifest's file in the background.
    pub fn start_file(&self, path: &str) -> Running<'_> {
        self.start_command(self.command(&["run", "--pull=never", path]))
    }

    /// Starts a manifest with `-o json` as a shell would: in a process group of its own, which
    /// [`Running::ctrl_c`] needs. The other runs end by themselves when the tests are interrupted.
    pub fn start_like_a_shell(&self, manifest: &str) -> Running<'_> {
        use std::os::unix::process::CommandExt;
        let path = self.manifest(manifest);
        // Whoever starts the tests in the background ignores INT, and its children inherit that.
        let mut env = Command::new("env");
        env.arg("--default-signal=INT").arg(binary());
        let mut command = self.command_by(env, &["run", "--pull=never", "-o", "json", &path]);
        command.process_group(0);
        self.start_command(command)
    }

    /// Starts it in the background.
    pub fn start_command(&self, mut command: Command) -> Running<'_> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.path().join(format!("output-{number}"));
        let output = fs::File::create(&path).unwrap();
        let child = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        Running { output: path, child, _instance: PhantomData }
    }

    /// The pods, by their names.
    pub fn pods(&self) -> Vec<Value> {
        let said = self.podshim(&["get", "pods", "-o", "json"]);
        let list: Value = serde_json::from_str(&said.out).unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// The only pod.
    pub fn pod(&self) -> Option<Value> {
        self.pods().into_iter().next()
    }

    /// Waits until the only pod fulfils a condition.
    pub fn until(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let pods = self.until_pods(what, |pods| pods.first().is_some_and(&condition));
        pods.into_iter().next().unwrap()
    }

    /// Waits until the pods together fulfil a condition.
    pub fn until_pods(&self, what: &str, condition: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        until(what, || {
            let pods = self.pods();
            if condition(&pods) { Ok(pods) } else { Err(NotYet { instance: self, pods }) }
        })
    }

    /// What there is to be said of a pod that is not as it should be.
    fn explained(&self, pod: &Value) -> String {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let ask = |command| {
            let Said { out, err, .. } = self.podshim(&[command, name]);
            format!("{command}:\n{out}{err}")
        };
        let shims = ["keep", "shim"].map(|kind| (kind, self.processes(kind)));
        format!("{:#}\n{}{}{shims:?}", pod["status"], ask("events"), ask("explain"))
    }

    /// Asks until this is in the answer.
    pub fn until_said(&self, args: &[&str], wanted: &str) {
        until(&format!("{args:?} says {wanted:?}"), || {
            let Said { out, err, .. } = self.podshim(args);
            if out.contains(wanted) { Ok(()) } else { Err(out + &err) }
        });
    }

    /// The newest process of each container of the only pod, by the pod's journal.
    pub fn pids(&self) -> BTreeMap<String, i32> {
        let pod = self.pod().expect("a pod");
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        let names: Vec<String> = ["initContainers", "containers"]
            .iter()
            .filter_map(|list| pod["spec"][list].as_array())
            .flatten()
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect();
        let mut created = BTreeMap::new();
        let mut pids = BTreeMap::new();
        for fact in self.facts(uid) {
            let key = (fact["c"].clone().as_u64(), fact["inc"].as_u64());
            match fact["fact"].as_str() {
                Some("created") => {
                    created.insert(key, fact["pid"].as_i64().unwrap());
                }
                Some("started") => {
                    let name = names[usize::try_from(key.0.unwrap()).unwrap()].clone();
                    pids.insert(name, i32::try_from(created[&key]).unwrap());
                }
                _ => {}
            }
        }
        pids
    }

    /// The facts of a pod's journal.
    pub fn facts(&self, uid: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.state.join("pods").join(uid).join("journal")).unwrap();
        let facts = text.lines().map(|line| {
            let record: Value = serde_json::from_str(&line[9..]).unwrap();
            record["fact"].clone()
        });
        // What the journal opens with is none.
        facts.filter(|fact| !fact.is_null()).collect()
    }

    /// The pids of this instance's processes of a kind: `shim` or `keep`.
    pub fn processes(&self, kind: &str) -> Vec<i32> {
        let (kind, state) = (format!("\0{kind}\0"), self.state.to_str().unwrap().to_owned());
        let found = processes(|cmdline| cmdline.contains(&kind) && cmdline.contains(&state));
        // What they have forked has their command line until it executes something.
        let of = |pid: &i32, file: &str| {
            fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
        };
        let is_pod = |part: &str| part.starts_with("pod") && part.len() == "pod".len() + 36;
        let in_pod = |pid: &i32| of(pid, "cgroup").lines().any(|line| line.split('/').any(is_pod));
        let parent = |pid: &i32| -> i32 {
            let status = of(pid, "status");
            let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            line.and_then(|pid| pid.trim().parse().ok()).unwrap_or(0)
        };
        let own = |pid: &&i32| !in_pod(pid) && !found.contains(&parent(pid)) && parent(pid) != 0;
        found.iter().filter(own).copied().collect()
    }

    /// The pid of the only pod's shim.
    pub fn shim(&self) -> i32 {
        let found = self.processes("shim");
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]
    }

    /// Kills all of podshim at once, so that nobody takes anything over: containers live on.
    pub fn kill_podshim(&self, running: Running<'_>) {
        running.signal(Signal::SIGSTOP);
        self.kill_shims();
        running.signal(Signal::SIGKILL);
        running.wait();
    }

    /// Kills all shims and their keepers.
    pub fn kill_shims(&self) {
        for kind in ["keep", "shim"] {
            self.processes(kind).into_iter().for_each(kill_now);
        }
    }

    /// What a test that fails has, so that the next one does not find it. It is failing: nothing is said here.
    fn remove_all(&self) {
        let state = self.state.to_string_lossy().into_owned();
        for kind in ["\0keep\0", "\0shim\0"] {
            for pid in processes(|cmdline| cmdline.contains(kind) && cmdline.contains(&state)) {
                // It may have ended.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = self.command(&["prune", "--all"]).output();
    }

    /// Fails if anything of this instance is left: a process, a mount, a cgroup, the state.
    pub fn nothing_is_left(&self) {
        let state = self.state.to_str().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.left(state);
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn left(&self, state: &str) -> Vec<String> {
        let mut left: Vec<String> = processes(|cmdline| cmdline.contains(state))
            .iter()
            .map(|p| format!("pid {p}"))
            .collect();
        let own = self.dir.path().to_str().unwrap();
        let mounts = mounts().into_iter();
        left.extend(mounts.filter(|line| line.contains(state) || line.contains(own)));
        left.extend(self.cgroups());
        if self.state.exists() {
            left.push(format!("{state} exists"));
        }
        for dir in [self.root().join("pods"), self.network().join("addresses")] {
            let kept = fs::read_dir(dir).into_iter().flatten();
            left.extend(kept.map(|e| format!("{}", e.unwrap().path().display())));
        }
        left
    }
}

/// Version and patch level of the kernel.
pub fn linux_version() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(['.', '-']).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Runs a command line of the shell to its end; what it prints.
pub fn run(line: &str) -> String {
    let done = Command::new("sh").args(["-c", line]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{line}: {out}{err}");
    out.into_owned()
}

impl Instance {
    /// Control groups of pods whose directories are in this root.
    fn cgroups(&self) -> Vec<String> {
        let kept = fs::read_dir(self.root().join("pods")).into_iter().flatten();
        let uids: Vec<String> =
            kept.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
        let hierarchies = [
            "/sys/fs/cgroup/podshim",
            "/sys/fs/cgroup/pids/podshim",
            "/sys/fs/cgroup/podshim.slice/podshim-pods.slice",
        ];
        let classes = hierarchies.iter().filter_map(|h| fs::read_dir(h).ok()).flatten().flatten();
        classes
            .filter_map(|class| fs::read_dir(class.path()).ok())
            .flatten()
            .flatten()
            .map(|e| e.path().display().to_string())
            .filter(|path| uids.iter().any(|uid| path.ends_with(&format!("pod{uid}"))))
            .collect()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.remove_all();
        } else {
            self.nothing_is_left();
        }
    }
}

impl Default for Instance {
    fn default() -> Instance {
        Instance::new()
    }
}

/// A `podshim run` in the background.
pub struct Running<'a> {
    output: PathBuf,
    child: Child,
    /// What it prints into goes with it.
    _instance: PhantomData<&'a Instance>,
}

impl Running<'_> {
    /// Its pid.
    pub fn pid(&self) -> i32 {
        pid_of(&self.child)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// What a terminal does on Ctrl-C: its children are in the group too, unless they left it.
    pub fn ctrl_c(&self) {
        nix::sys::signal::killpg(Pid::from_raw(self.pid()), Signal::SIGINT).unwrap();
    }

    /// All that it has printed so far.
    pub fn text(&self) -> String {
        let text = fs::read(&self.output).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits until it has printed something: a container's line tells how far its program is, where
    /// `Started` only means that it was executed.
    pub fn until_printed(&self, wanted: &str) {
        until(&format!("{wanted:?} is printed"), || {
            let text = self.text();
            if text.contains(wanted) { Ok(()) } else { Err(text) }
        });
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Its exit code (128 plus the signal, if one killed it) and all that it printed.
    pub fn wait(mut self) -> (i32, String) {
        let status = until("podshim ends", || {
            let status = self.child.try_wait().unwrap();
            status.ok_or_else(|| self.text())
        });
        (code(status), self.text())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Both do nothing when it was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pods that are not as a test waits for, and all that may tell why, when it is to be told.
struct NotYet<'a> {
    instance: &'a Instance,
    pods: Vec<Value>,
}

impl fmt::Display for NotYet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pods.iter().try_for_each(|pod| writeln!(f, "{}", self.instance.explained(pod)))
    }
}

/// Tries until it succeeds; what it last failed with is shown when patience ends.
pub fn until<T, E: fmt::Display>(what: &str, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        match attempt() {
            Ok(found) => return found,
            Err(seen) => assert!(begun.elapsed() < PATIENCE, "not until now: {what}: {seen}"),
        }
        // In an emulated machine asking takes the time of what is asked for.
        std::thread::sleep(asked.elapsed().max(Duration::from_millis(20)));
    }
}

/// Whether everything is to be tried that there is time for otherwise only in part (`scripts/test --full`).
pub fn is_full() -> bool {
    std::env::var_os("PODSHIM_TEST_FULL").is_some()
}

/// Whether time goes slowly here, in an emulated machine: of matrices a few points are enough, because the
/// host that emulates it has tried more.
pub fn is_slow() -> bool {
    std::env::var_os("PODSHIM_TEST_SLOW").is_some()
}

/// Adds a line to the table that `scripts/test --full` prints: what was tried, how often, and how long it took
/// at most until all was as it should be.
pub fn tabulate(matrix: &str, what: &str, cases: usize, longest: Duration) {
    use std::io::Write;
    let Some(path) = std::env::var_os("PODSHIM_TEST_TABLE") else { return };
    let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
    writeln!(file, "{matrix}\t{what}\t{cases}\t{:.1}", longest.as_secs_f64()).unwrap();
}

/// A manifest of a pod `p` with this `spec`, which is indented by two.
pub fn pod(spec: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n{spec}")
}

/// The lifecycle events of what `-o json` printed, in their order, as (reason, container).
pub fn events(objects: &[Value]) -> Vec<(String, String)> {
    let short = |event: &&Value| {
        let field = event["involvedObject"]["fieldPath"].as_str().unwrap_or_default();
        let container = field.split(['{', '}']).nth(1).unwrap_or_default();
        (event["reason"].as_str().unwrap().to_owned(), container.to_owned())
    };
    of_kind(objects, "Event").iter().map(short).collect()
}

/// The objects of one kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == *kind).collect()
}

/// The place of a container's first event with this reason.
pub fn position(events: &[(String, String)], reason: &str, container: &str) -> usize {
    events
        .iter()
        .position(|(r, c)| r == reason && c == container)
        .unwrap_or_else(|| panic!("no {reason} of {container} in {events:?}"))
}

/// How many events of a container have this reason.
pub fn count(events: &[(String, String)], reason: &str, container: &str) -> usize {
    events.iter().filter(|(r, c)| r == reason && c == container).count()
}

/// A container's status in a Pod object; null if it has none.
pub fn status_of(pod: &Value, container: &str) -> Value {
    ["initContainerStatuses", "containerStatuses"]
        .iter()
        .filter_map(|list| pod["status"][list].as_array())
        .flatten()
        .find(|s| s["name"] == *container)
        .cloned()
        .unwrap_or_default()
}

/// Whether a pod's condition Ready is true.
#[must_use]
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// `kill -9`.
pub fn kill_now(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

fn pid_of(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

/// The exit code, or 128 plus the signal that killed it.
fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn said(output: Output) -> Said {
    Said {
        code: code(output.status),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The binary that is tested.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PODSHIM_BIN") {
        return path.into();
    }
    let exe = std::env::current_exe().unwrap();
    let path = exe.parent().unwrap().parent().unwrap().join("podshim");
    assert!(path.exists(), "build podshim first: {} is missing", path.display());
    path
}

/// The folder of the sources.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The archive of the test image.
pub fn image() -> PathBuf {
    if let Some(path) = std::env::var_os("PODSHIM_TEST_IMAGE") {
        return path.into();
    }
    let path = binary().parent().unwrap().join("test-image.tar");
    if !path.exists() {
        let script = sources().join("scripts/image");
        let status = Command::new(script).arg(&path).status().unwrap();
        assert!(status.success(), "scripts/image failed");
    }
    path
}

fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Processes by their command line, whose arguments end with NUL each.
fn processes(wanted: impl Fn(&str) -> bool) -> Vec<i32> {
    let me = i32::try_from(std::process::id()).unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != me)
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|c| wanted(&String::from_utf8_lossy(&c)))
        })
        .collect()
}
