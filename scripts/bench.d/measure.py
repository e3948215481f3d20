"""measure.py WORK PODSHIM ROUNDS JSON [short]: the measuring itself; scripts/bench prepares WORK and runs it.

Every moment is of CLOCK_BOOTTIME: stamp and floor print it, podshim's journal carries it, and the
moment "just before the command" is read here. Values are milliseconds unless their name says else.
"""
import glob
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

WORK, PODSHIM, ROUNDS, JSON = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
SHORT = sys.argv[5:] == ["short"]
IMAGE = "localhost/stamp:1"
CHAINS = (0, 1, 5, 10)
PATIENCE_S = 30
GROUP = f"podshim-bench-{os.getpid()}"
CGROUPS_OF_PEERS = ("libpod_parent", "conmon", GROUP)
values = {}
loads = []


def now():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def put(subject, what, ms):
    values.setdefault((subject, what), []).append(ms)


def stamps(stream, wanted):
    """Reads lines until each (word, tag, how often) of wanted was seen; all moments by (word, tag)."""
    seen = {}
    for line in stream:
        found = re.search(r"(T0|RUN|EXIT) (\S+) (\d+)", line)
        if found:
            seen.setdefault((found[1], found[2]), []).append(int(found[3]))
            if all(len(seen.get((w, t), ())) >= n for w, t, n in wanted):
                return seen
    sys.exit(f"ended without {wanted}: {seen}")


def ms(later, earlier):
    return (later - earlier) / 1e6


def add_chain(subject, n, t0, main):
    put(subject, f"chain of {n}", ms(main, t0))


# The floor.


def floor(*args):
    scratch = f"{WORK}/scratch"
    os.makedirs(scratch, exist_ok=True)
    return subprocess.Popen(
        [f"{WORK}/floor", f"{WORK}/rootfs", scratch, GROUP, *args],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )


def floor_chain(n):
    process = floor("chain", str(n))
    seen = stamps(process.stdout, [("RUN", "main", 1)])
    end_floor(process)
    add_chain("floor", n, seen["T0", "x"][0], seen["RUN", "main"][0])


def floor_restart():
    process = floor("crash")
    seen = stamps(process.stdout, [("RUN", "s0", 2)])
    end_floor(process)
    put("floor", "first restart", ms(seen["RUN", "s0"][1], seen["EXIT", "s0"][0]))


def end_floor(process):
    process.stdin.close()
    process.wait(PATIENCE_S)
    process.stdout.close()


# podshim.

DIRS = ["--root", f"{WORK}/root", "--state", f"{WORK}/state", "--log-dir", f"{WORK}/logs"]


def container(name, *args):
    return {"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["/bin/stamp", *args]}


def pod(name, inits, main, policy, annotations=None):
    file = f"{WORK}/{name}.json"
    with open(file, "w") as f:
        json.dump({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations or {}},
            "spec": {"restartPolicy": policy, "terminationGracePeriodSeconds": 5,
                     "initContainers": inits, "containers": [main]},
        }, f)
    return file


def sidecars(n):
    return [dict(container(f"s{i}", "hold", f"s{i}"), restartPolicy="Always") for i in range(n)]


class Run:
    """One `podshim run`, ended and cleaned at the end of the block."""

    def __init__(self, file, host=None):
        self.began = now()
        inside, network = [], ["--network", "none"]
        if host:
            inside = ["nsenter", "-t", str(host.pid), "-n"]
            network = ["--network", "bridge", "--network-state", f"{WORK}/network"]
        self.process = subprocess.Popen(
            [*inside, PODSHIM, "run", "-q", *DIRS, *network, file], stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def journal(self):
        files = glob.glob(f"{WORK}/state/pods/*/journal")
        assert len(files) == 1, files
        return records(open(files[0]))


def records(lines):
    """The facts of a journal, without its opening."""
    found = (json.loads(line.split(" ", 1)[1]) for line in lines)
    return [record for record in found if "fact" in record]


def podshim_chain(n):
    file = pod("bench", sidecars(n), container("main", "hold", "main"), "Never")
    with Run(file) as run:
        seen = stamps(run.process.stdout, [("RUN", "main", 1)])
        time.sleep(0.05)
        journal = run.journal()
    main = seen["RUN", "main"][0]
    at = {(r["fact"]["fact"], r["fact"].get("c")): r["mono"] for r in reversed(journal)}
    accepted = at["accepted", None]
    add_chain("podshim", n, accepted, main)
    put("podshim", f"whole command, chain of {n}", ms(main, run.began))
    put("podshim phases", f"chain of {n}: command -> accepted", ms(accepted, run.began))
    put("podshim phases", f"chain of {n}: accepted -> sandboxReady", ms(at["sandboxReady", None], accepted))
    # Of one container, by its index in the journal: with none before it 0, else the last one.
    phases = [("creating", "created"), ("created", "starting"), ("starting", "started")]
    for earlier, later in phases:
        spans = [ms(at[later, c], at[earlier, c]) for (fact, c) in at if fact == "creating"]
        put("podshim phases", f"chain of {n}: {earlier} -> {later}, mean of a container", statistics.mean(spans))
    begun = sorted(at["starting", c] for (fact, c) in at if fact == "creating")
    put("podshim phases", f"chain of {n}: sandboxReady -> first starting", ms(begun[0], at["sandboxReady", None]))
    if n:
        put("podshim phases", f"chain of {n}: starting -> next starting, mean", ms(begun[-1], begun[0]) / n)


def podshim_network(host, count=True):
    """A pod with an address, on a host's network that `host`, a process, stands for."""
    with Run(pod("bench", [], container("main", "hold", "main"), "Never"), host) as run:
        main = stamps(run.process.stdout, [("RUN", "main", 1)])["RUN", "main"][0]
        time.sleep(0.05)
        at = {r["fact"]["fact"]: r["mono"] for r in reversed(run.journal())}
    if count:
        put("podshim", "chain of 0, with a network", ms(main, at["accepted"]))
        put("podshim phases", "chain of 0, with a network: accepted -> sandboxReady",
            ms(at["sandboxReady"], at["accepted"]))


def podshim_restart(standby):
    crash = dict(container("s0", "crash", "s0", "300"), restartPolicy="Always")
    notes = {"podshim.dev/standby": "s0"} if standby else {}
    with Run(pod("bench", [crash], container("main", "hold", "main"), "Never", notes)) as run:
        seen = stamps(run.process.stdout, [("RUN", "s0", 2)])
    put("podshim", "first restart" + (", standby" if standby else ""),
        ms(seen["RUN", "s0"][1], seen["EXIT", "s0"][0]))


def execs(number):
    """A program in a running container, by podshim and by nsenter(1), in turns."""
    with Run(pod("bench", [], container("main", "hold", "main"), "Never")) as run:
        stamps(run.process.stdout, [("RUN", "main", 1)])
        pid = next(r["fact"]["pid"] for r in run.journal() if r["fact"]["fact"] == "created")
        ways = [("podshim", [PODSHIM, "exec", *DIRS, "bench", "--"]),
                ("nsenter", ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p"])]
        for subject, way in ways if number % 2 else reversed(ways):
            began = now()
            subprocess.run([*way, "/bin/stamp", "exit"], stdout=subprocess.DEVNULL, check=True)
            put(subject, "exec, whole command", ms(now(), began))


# Bytes of a line and how many lines: what one write(2) of a container brings.
FLOODS = ((100, 500_000), (1024, 250_000), (4096, 60_000))


def floods(number):
    """How fast a container gets rid of its output: by podshim's pump, whose reader nobody is, and by a reader
    that does nothing else, in turns. Neither compresses what it has written."""
    for size, lines in FLOODS:
        ways = [("podshim", podshim_flood), ("reader", reader_flood)]
        for subject, way in ways if number % 2 else reversed(ways):
            put(subject, f"output in lines of {size} bytes, MB/s", size * lines * 1e3 / way(size, lines))


def flooded(text):
    found = re.search(r"FLOOD \d+ (\d+)", text)
    assert found, text
    return int(found[1])


def podshim_flood(size, lines):
    file = pod("flood", [], container("main", "flood", str(size), str(lines)), "Never")
    daemon = subprocess.Popen(
        [PODSHIM, "daemon", *DIRS, "--network", "none", "--container-log-max-size", "2Gi"],
        stderr=subprocess.DEVNULL)
    call = lambda *args: subprocess.run([PODSHIM, *args, *DIRS], check=True, capture_output=True, text=True).stdout
    try:
        while not os.path.exists(f"{WORK}/state.sock"):
            time.sleep(0.01)
        call("apply", "-f", file)
        call("wait", "flood", "--for=jsonpath={.status.phase}=Succeeded", f"--timeout={PATIENCE_S}s")
        told = flooded(call("logs", "flood", "--tail", "3"))
        call("delete", "pod", "flood")
    finally:
        daemon.terminate()
        daemon.wait()
        shutil.rmtree(f"{WORK}/logs", ignore_errors=True)
    return told


def reader_flood(size, lines):
    log = f"{WORK}/reader.log"
    ran = subprocess.run([f"{WORK}/reader", log, f"{WORK}/stamp", "flood", str(size), str(lines)],
                         check=True, capture_output=True, text=True)
    os.unlink(log)
    return flooded(ran.stderr)


def deployment(name, replicas):
    file = f"{WORK}/{name}.json"
    labels = {"app": name}
    with open(file, "w") as f:
        json.dump({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 2,
                         "containers": [container("main", "hold", "main")]}}},
        }, f)
    return file


def sandboxes(name, replicas):
    """How long each pod of a deployment took for its sandbox, once all of them run."""
    deadline = time.monotonic() + 2 * PATIENCE_S
    while time.monotonic() < deadline:
        spans = []
        for file in glob.glob(f"{WORK}/state/pods/*/pod.json"):
            try:
                if not json.load(open(file))["pod"]["metadata"]["name"].startswith(f"{name}-"):
                    continue
                lines = open(f"{os.path.dirname(file)}/journal").read().splitlines()
            except (OSError, ValueError):
                continue
            at = {r["fact"]["fact"]: r["mono"] for r in records(lines)}
            if "started" in at:
                spans.append(ms(at["sandboxReady"], at["sandboxMaking"]))
        if len(spans) == replicas:
            return spans
        time.sleep(0.1)
    sys.exit(f"not all pods of {name} run")


def side_by_side(host, replicas=50):
    """Pods that start at once, and again while as many others end."""
    with Run(deployment("first", replicas), host) as first:
        for span in sandboxes("first", replicas):
            put("podshim", f"sandbox of {replicas} pods at once", span)
        with Run(deployment("second", replicas), host):
            first.process.send_signal(signal.SIGINT)
            for span in sandboxes("second", replicas):
                put("podshim", f"sandbox of {replicas} pods beside the end of {replicas}", span)


def idle_shim():
    """Memory and wake-ups of the shim of a pod with ten containers."""
    with Run(pod("bench", sidecars(9), container("main", "hold", "main"), "Never")) as run:
        stamps(run.process.stdout, [("RUN", "main", 1)])
        time.sleep(3)
        pid = next(r["fact"]["pid"] for r in run.journal() if r["fact"]["fact"] == "created")
        shim = int(re.search(r"PPid:\s+(\d+)", open(f"/proc/{pid}/status").read())[1])
        assert open(f"/proc/{shim}/comm").read().startswith("podshim"), shim
        before = switches(shim)
        time.sleep(10)
        put("podshim", "idle shim, wake-ups in 10 s", switches(shim) - before)
        memory = dict(re.findall(r"(\w+):\s+(\d+) kB", open(f"/proc/{shim}/smaps_rollup").read()))
        for key in ("Private_Dirty", "Rss", "Pss"):
            put("podshim", f"idle shim, 10 containers, {key} KiB", int(memory[key]))


def switches(pid):
    return sum(int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", open(f).read(), re.M)[1])
               for f in glob.glob(f"/proc/{pid}/task/*/status"))


# Peers.


class Peers:
    """podman, crun and runc in one mount and network namespace, where only v1 hierarchies are
    mounted if they control anything (crun refuses the hybrid layout) and /run is empty."""

    def __init__(self):
        ready = f"{WORK}/peers-ready"
        script = (
            "set -e; ip link set lo up; if grep -q '^cgroup ' /proc/mounts; then "
            "umount /sys/fs/cgroup/unified 2>/dev/null || true; fi; "
            "mount -t tmpfs -o mode=755 tmpfs /run; mkdir -p /run/netns /run/lock; "
            f": >{ready}; exec sleep infinity"
        )
        self.holder = subprocess.Popen(
            ["unshare", "-n", "-m", "--propagation", "private", "sh", "-c", script], start_new_session=True)
        until = time.time() + PATIENCE_S
        while not os.path.exists(ready):
            assert time.time() < until and self.holder.poll() is None, "no namespaces for the peers"
            time.sleep(0.02)
        self.has = {name: bool(shutil.which(name)) for name in ("podman", "crun", "runc")}
        self.network = []
        self.env = dict(os.environ, CONTAINERS_CONF=f"{WORK}/containers.conf")
        self.make_bundle()
        if self.has["podman"]:
            self.prepare_podman()

    def run(self, *command, **options):
        return subprocess.run(
            ["nsenter", "-t", str(self.holder.pid), "-n", "-m", "--", *command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.env, **options)

    def podman(self, *args):
        return self.run("podman", "--root", f"{WORK}/podman/root", "--runroot", f"{WORK}/podman/run",
                        "--tmpdir", f"{WORK}/podman/tmp", "--storage-driver", "overlay", *args)

    def prepare_podman(self):
        with open(f"{WORK}/containers.conf", "w") as f:
            f.write(
                "[containers]\n"
                'log_driver = "k8s-file"\n'
                '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
                f'runtime = "{"crun" if self.has["crun"] else "runc"}"\n'
                # Names a path of its own for crun: see clamp.c.
                f'[engine.runtimes]\ncrun = ["{WORK}/crun"]\n'
                f'[network]\nnetwork_config_dir = "{WORK}/podman/networks"\n')
        loaded = self.podman("load", "-i", f"{WORK}/image.tar")
        if loaded.returncode:
            print(f"podman cannot load the image and is left out: {loaded.stderr.strip()[-400:]}", file=sys.stderr)
            self.has["podman"] = False
            return
        # podshim gives a pod loopback only; podman is asked for the same, if it can.
        for network in (["--network", "none"], []):
            self.network = network
            error = self.play(0, warm=True)
            if not error:
                return
        print(f"podman cannot play a pod and is left out: {error}", file=sys.stderr)
        self.has["podman"] = False

    def play(self, n, warm=False):
        inits = [container(f"i{i}", "exit", f"i{i}") for i in range(n)]
        file = pod("peer", inits, container("main", "hold", "main"), "Never")
        began = now()
        result = self.podman("kube", "play", *self.network, file)
        main = None if result.returncode else self.logged("RUN", "main", 1)
        self.podman("pod", "rm", "-f", "-t", "0", "peer")
        if not main:
            return result.stderr.strip()[-400:] or "main said nothing"
        if not warm:
            add_chain("podman", n, began, main[0])
        return None

    def restart(self):
        file = pod("peer", [], container("main", "crash", "main", "300"), "Always")
        result = self.podman("kube", "play", *self.network, file)
        assert not result.returncode, result.stderr
        run, end = self.logged("RUN", "main", 2), self.logged("EXIT", "main", 1)
        self.podman("pod", "rm", "-f", "-t", "0", "peer")
        put("podman", "first restart", ms(run[1], end[0]))

    def logged(self, word, tag, times):
        until = time.time() + PATIENCE_S
        while time.time() < until:
            for file in glob.glob(f"{WORK}/podman/root/overlay-containers/*/userdata/ctr.log"):
                found = re.findall(rf"{word} {tag} (\d+)", open(file).read())
                if len(found) >= times:
                    return [int(x) for x in found]
            time.sleep(0.005)
        return None

    def make_bundle(self):
        namespaces = [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount")]
        os.makedirs(f"{WORK}/bundle", exist_ok=True)
        mount = lambda to, kind, *options: {"destination": to, "type": kind, "source": kind, "options": list(options)}
        config = {
            "ociVersion": "1.0.2", "hostname": "bench", "root": {"path": f"{WORK}/rootfs", "readonly": True},
            "process": {"terminal": False, "user": {"uid": 0, "gid": 0}, "args": ["/bin/stamp", "exit", "main"],
                        "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": True},
            "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs", "nosuid", "mode=755", "size=64k"),
                       mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666"),
                       mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro")],
            "linux": {"cgroupsPath": f"/{GROUP}", "namespaces": namespaces},
        }
        with open(f"{WORK}/bundle/config.json", "w") as f:
            json.dump(config, f)

    def oci(self, name):
        began = now()
        result = self.run(name, "--root", f"{WORK}/oci-{name}", "run", "--bundle", f"{WORK}/bundle", "bench")
        found = re.search(r"RUN main (\d+)", result.stdout)
        if not found:
            print(f"{name} is left out: {result.stderr.strip()[-400:]}", file=sys.stderr)
            self.has[name] = False
            return
        put(name, "chain of 0", ms(int(found[1]), began))

    def close(self):
        if shutil.which("podman") and os.path.exists(f"{WORK}/podman"):
            self.podman("pod", "rm", "-fa", "-t", "0")
            self.podman("rm", "-fa", "-t", "0")
        self.holder.kill()
        self.holder.wait()


def remove_cgroups(there_before):
    for top in set(group_folders()) - there_before:
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(folder)
            except OSError as e:
                print(f"left behind: {folder}: {e}", file=sys.stderr)


def group_folders():
    return [f for name in CGROUPS_OF_PEERS
            for pattern in (f"/sys/fs/cgroup/{name}", f"/sys/fs/cgroup/*/{name}") for f in glob.glob(pattern)]


# The table.


def summary(numbers):
    s = sorted(numbers)
    return statistics.median(s), s[min(len(s) - 1, int(len(s) * 0.95))], s[0], len(s)


def table():
    median = {key: statistics.median(v) for key, v in values.items()}
    print("| subject | what | median | p95 | min | n | x floor | podman / it |\n|---|---|--:|--:|--:|--:|--:|--:|")
    for (subject, what), numbers in values.items():
        m, p95, least, n = summary(numbers)
        plain = what.removeprefix("whole command, ").removesuffix(", standby")
        base, peer = median.get(("floor", plain)), median.get(("podman", plain))
        ratio = lambda a, b: f"{a / b:.1f}" if a and b and subject != "podshim phases" else ""
        over = ratio(peer, m) if subject in ("podshim", "floor") else ""
        print(f"| {subject} | {what} | {m:.2f} | {p95:.2f} | {least:.2f} | {n} | {ratio(m, base)} | {over} |")


def derived():
    """What one sidecar more costs, round by round."""
    for subject in ("floor", "podshim", "podman"):
        none, ten = values.get((subject, "chain of 0"), []), values.get((subject, "chain of 10"), [])
        for a, b in zip(none, ten):
            put(subject, "one sidecar more", (b - a) / 10)


def main():
    there_before = set(group_folders())
    subprocess.run([PODSHIM, "load", *DIRS, "-i", f"{WORK}/image.tar"], check=True, stdout=subprocess.DEVNULL)
    peers = None
    host = subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up; exec sleep 100000"])
    time.sleep(0.5)
    try:
        peers = Peers()
        podshim_chain(0)
        podshim_network(host, count=False)
        values.clear()
        for number in range(ROUNDS):
            loads.append(os.getloadavg()[0])
            if SHORT:
                execs(number)
                podshim_network(host)
                podshim_chain(0)
                floods(number)
                continue
            for n in CHAINS:
                floor_chain(n)
                # Next to each other, because what ran before leaves its mark; and in turns.
                if n == 0 and number % 2:
                    podshim_network(host)
                podshim_chain(n)
                if n == 0 and number % 2 == 0:
                    podshim_network(host)
                if peers.has["podman"]:
                    error = peers.play(n)
                    assert not error, error
            floor_restart()
            podshim_restart(standby=False)
            podshim_restart(standby=True)
            execs(number)
            floods(number)
            if peers.has["podman"]:
                peers.restart()
            for name in ("crun", "runc"):
                if peers.has[name]:
                    peers.oci(name)
            print(f"round {number + 1} of {ROUNDS}, load {loads[-1]:.2f}", file=sys.stderr)
        for _ in range(min(3, ROUNDS)):
            idle_shim()
        side_by_side(host)
        derived()
        table()
        print(f"\nload average of a minute: median {statistics.median(loads):.2f}, most {max(loads):.2f};"
              f" podman network: {' '.join(peers.network) or 'its default bridge'}")
        if JSON:
            with open(JSON, "w") as f:
                json.dump({"kernel": os.uname().release, "cpus": os.cpu_count(), "loads": loads,
                           "podman_network": peers.network,
                           "values": [{"subject": s, "what": w, "values": v} for (s, w), v in values.items()]}, f)
    finally:
        if peers:
            peers.close()
        host.kill()
        host.wait()
        subprocess.run([PODSHIM, "prune", *DIRS], stdout=subprocess.DEVNULL)
        remove_cgroups(there_before)


main()
