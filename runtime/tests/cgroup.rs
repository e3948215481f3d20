//! Pods' cgroups on this host's kernel, whichever version it has. Needs root.
//!
//! Each test has a base of its own, with this process's id in its name, and removes it.

// Helpers of tests are tests, which clippy does not see.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use runtime::cgroup::{self, CgroupError, CgroupValues, Cgroups, FoundPod, Members, Version};
use runtime::devices::{self, EVERY_DEVICE};

const UNLIMITED: CgroupValues = CgroupValues {
    cpu_shares: 2,
    cpu_quota_us: None,
    cpu_period_us: 100_000,
    memory_limit_bytes: None,
    pids_max: None,
};
const LIMITED: CgroupValues = CgroupValues {
    cpu_shares: 512,
    cpu_quota_us: Some(50_000),
    cpu_period_us: 100_000,
    memory_limit_bytes: Some(32 << 20),
    pids_max: Some(50),
};

/// The cgroup below a container's in which the tests' scripts run, as executed programs do.
const EXEC: &str = "test";

/// A pod's cgroup that is removed with all its processes, also when the test fails.
struct TestPod {
    cgroups: Cgroups,
    base: String,
    pod: String,
    children: Vec<Child>,
}

impl TestPod {
    fn new(values: &CgroupValues) -> TestPod {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "the tests of cgroups must be run by root");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let base = format!("podshim-test-{}-{number}", std::process::id());
        let pod = format!("{base}/burstable/podu{number}");
        let cgroups = cgroup::detect().unwrap();
        let test = TestPod { cgroups, base, pod, children: Vec::new() };
        test.cgroups.make_pod(&test.pod, values).unwrap();
        test
    }

    fn container(&self, name: &str, values: &CgroupValues) {
        self.cgroups.make_container(&self.pod, name, values, devices::DEFAULT).unwrap();
    }

    /// Runs a shell script that was born in a cgroup, by a thread that `enter`s it first.
    fn run_in(&mut self, enter: impl FnOnce(&Cgroups, &str) + Send, script: &str) -> u32 {
        // On v2 the whole process moves, not the thread: one test at a time, and back again.
        static MOVING: Mutex<()> = Mutex::new(());
        let _moving = MOVING.lock().unwrap_or_else(PoisonError::into_inner);
        let home = unified_home(&self.cgroups);
        let (cgroups, pod) = (&self.cgroups, &self.pod);
        let in_it = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    enter(cgroups, pod);
                    let child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
                    (child, nix::unistd::gettid())
                })
                .join()
        });
        if let Some(home) = home {
            fs::write(home, "0").unwrap();
        }
        let (child, thread) = in_it.unwrap();
        self.children.push(child);
        // A thread that has been joined may not have left its control group, and on v1 whoever kills the group
        // would find this process there.
        let thread = PathBuf::from(format!("/proc/self/task/{thread}"));
        wait_until("the thread is gone", || !thread.exists());
        self.children.last().unwrap().id()
    }

    fn run_in_container(&mut self, name: &str, script: &str) -> u32 {
        let enter = |cgroups: &Cgroups, pod: &str| {
            cgroups.make_exec(pod, name, EXEC).unwrap().enter().unwrap();
        };
        self.run_in(enter, script)
    }

    fn processes(&self, members: Members<'_>) -> Vec<i32> {
        self.cgroups.processes(&self.pod, members).unwrap()
    }

    /// The file of a container (or, with an empty name, of the pod).
    fn file(&self, controller: &str, name: &str, file: &str) -> PathBuf {
        directory(&self.cgroups, controller, &format!("{}/{name}", self.pod)).join(file)
    }

    fn says(&self, controller: &str, name: &str, file: &str) -> String {
        fs::read_to_string(self.file(controller, name, file)).unwrap().trim().to_owned()
    }
}

impl Drop for TestPod {
    fn drop(&mut self) {
        // A failing test must not hide its own message behind this one's.
        let cleaned = self
            .cgroups
            .kill(&self.pod, Members::Pod)
            .and_then(|_| self.cgroups.remove_pod(&self.pod));
        for child in &mut self.children {
            let _ = child.wait();
        }
        for controller in self.cgroups.controllers().unwrap_or_default() {
            let base = directory(&self.cgroups, &controller, &self.base);
            let _ = fs::remove_dir(base.join("burstable"));
            let _ = fs::remove_dir(&base);
        }
        if !std::thread::panicking() {
            cleaned.unwrap();
        }
    }
}

/// A cgroup's directory in the hierarchy of a controller.
fn directory(cgroups: &Cgroups, controller: &str, cgroup: &str) -> PathBuf {
    let root = match cgroups.version() {
        Version::V2 => PathBuf::from("/sys/fs/cgroup"),
        Version::V1 => {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let mount = mounts.lines().find(|line| {
                line.split_once(" - cgroup ").is_some_and(|(_, after)| {
                    after.split([' ', ',']).any(|option| option == controller)
                })
            });
            PathBuf::from(mount.unwrap().split(' ').nth(4).unwrap())
        }
    };
    root.join(cgroup)
}

/// On v2, the file through which this process gets back to where it is now.
fn unified_home(cgroups: &Cgroups) -> Option<PathBuf> {
    if cgroups.version() == Version::V1 {
        return None;
    }
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    Some(Path::new("/sys/fs/cgroup").join(path).join("cgroup.procs"))
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_pods_limits_are_written_and_making_it_again_changes_them() {
    let pod = TestPod::new(&LIMITED);
    let read = |pod: &TestPod| match pod.cgroups.version() {
        Version::V1 => [
            pod.says("cpu", "", "cpu.shares"),
            pod.says("cpu", "", "cpu.cfs_quota_us"),
            pod.says("memory", "", "memory.limit_in_bytes"),
            pod.says("pids", "", "pids.max"),
        ],
        Version::V2 => [
            pod.says("cpu", "", "cpu.weight"),
            pod.says("cpu", "", "cpu.max"),
            pod.says("memory", "", "memory.max"),
            pod.says("pids", "", "pids.max"),
        ],
    };
    let expected = match pod.cgroups.version() {
        Version::V1 => ["512", "50000", "33554432", "50"],
        Version::V2 => ["59", "50000 100000", "33554432", "50"],
    };
    assert_eq!(read(&pod), expected);

    let more = CgroupValues {
        cpu_quota_us: Some(90_000),
        memory_limit_bytes: Some(64 << 20),
        pids_max: None,
        ..LIMITED
    };
    pod.cgroups.make_pod(&pod.pod, &more).unwrap();
    let [_, quota, memory, pids] = read(&pod);
    assert!(quota.starts_with("90000"), "{quota}");
    assert_eq!((memory.as_str(), pids.as_str()), ("67108864", "max"));
}

#[test]
fn a_container_has_its_limits_no_swap_and_only_its_devices() {
    let mut pod = TestPod::new(&UNLIMITED);
    pod.container("main-0", &LIMITED);
    assert_eq!(pod.says("pids", "main-0", "pids.max"), "50");
    match pod.cgroups.version() {
        Version::V1 => {
            assert_eq!(pod.says("memory", "main-0", "memory.limit_in_bytes"), "33554432");
            let with_swap = pod.file("memory", "main-0", "memory.memsw.limit_in_bytes");
            if with_swap.exists() {
                assert_eq!(fs::read_to_string(with_swap).unwrap().trim(), "33554432");
            }
            let mut listed: Vec<String> =
                pod.says("devices", "main-0", "devices.list").lines().map(String::from).collect();
            let mut expected: Vec<String> =
                devices::DEFAULT.iter().map(ToString::to_string).collect();
            listed.sort();
            expected.sort();
            assert_eq!(listed, expected);
        }
        Version::V2 => {
            assert_eq!(pod.says("memory", "main-0", "memory.max"), "33554432");
            assert_eq!(pod.says("memory", "main-0", "memory.swap.max"), "0");
            assert_eq!(pod.says("memory", "main-0", "memory.oom.group"), "1");
        }
    }
    // Whichever way it is enforced: /dev/null opens; a node of /dev/kmsg can be made, not opened.
    // Not in /tmp, which some releases mount without devices.
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let node = directory.path().join("kmsg");
    let script = format!(
        ": < /dev/null && mknod {node} c 1 11 && ! (: < {node}) && exit 7",
        node = node.display()
    );
    pod.run_in_container("main-0", &script);
    assert_eq!(pod.children[0].wait().unwrap().code(), Some(7));

    pod.cgroups.make_container(&pod.pod, "privileged-0", &UNLIMITED, &[EVERY_DEVICE]).unwrap();
    pod.run_in_container("privileged-0", &format!(": < {} && exit 8", node.display()));
    assert_eq!(pod.children[1].wait().unwrap().code(), Some(8));
}

#[test]
fn a_process_that_enters_a_container_is_in_it_in_every_controller() {
    let mut pod = TestPod::new(&UNLIMITED);
    pod.container("main-0", &UNLIMITED);
    let id = pod.run_in_container("main-0", "exec sleep 1000");
    let expected = pod.cgroups.oci_path(&pod.pod, "main-0").unwrap();
    let own = fs::read_to_string(format!("/proc/{id}/cgroup")).unwrap();
    for controller in pod.cgroups.controllers().unwrap() {
        let line = own.lines().find(|line| match pod.cgroups.version() {
            Version::V1 => line.split(':').nth(1).unwrap().split(',').any(|c| c == controller),
            Version::V2 => line.starts_with("0::"),
        });
        // The path is relative to this process's own cgroup root, where that is not the host's.
        let path = line.unwrap().split(':').nth(2).unwrap();
        // Programs are told apart where processes are found and killed: by pids on v1.
        let told_apart = pod.cgroups.version() == Version::V2 || controller == "pids";
        let path = Path::new(path);
        let leaf = if told_apart { path.parent().unwrap() } else { path };
        assert_eq!(leaf, expected, "{controller}: {own}");
    }
}

#[test]
fn killing_an_incarnation_spares_its_siblings() {
    let mut pod = TestPod::new(&UNLIMITED);
    pod.container("main-0", &UNLIMITED);
    pod.container("main-1", &UNLIMITED);
    let enter = |cgroups: &Cgroups, pod: &str| {
        cgroups.make_creator(pod, "main-0").unwrap().enter().unwrap();
    };
    let creator = pod.run_in(enter, "exec sleep 1000") as i32;
    let container = pod.run_in_container("main-0", "exec sleep 1000") as i32;
    let sibling = pod.run_in_container("main-1", "exec sleep 1000") as i32;
    assert_eq!(pod.processes(Members::Creators), [creator]);
    assert_eq!(pod.processes(Members::Container("main-0")), [container]);

    assert_eq!(pod.cgroups.kill(&pod.pod, Members::Incarnation("main-0")).unwrap(), 2);
    assert_eq!(pod.processes(Members::Pod), [sibling]);
    pod.cgroups.remove_creator(&pod.pod, "main-0").unwrap();
    pod.cgroups.remove_container(&pod.pod, "main-0").unwrap();
    assert_eq!(pod.cgroups.kill(&pod.pod, Members::Incarnation("main-0")).unwrap(), 0);
}

#[test]
fn a_process_that_forks_all_the_time_is_killed_and_its_limit_stays() {
    let limit = CgroupValues { pids_max: Some(200), ..UNLIMITED };
    let mut pod = TestPod::new(&limit);
    pod.container("bomb-0", &limit);
    pod.run_in_container("bomb-0", "bomb() { bomb & bomb & wait; }; exec 2>/dev/null; bomb");
    wait_until("many processes", || pod.processes(Members::Pod).len() > 50);
    assert!(pod.cgroups.kill(&pod.pod, Members::Container("bomb-0")).unwrap() > 50);
    assert_eq!(pod.processes(Members::Pod), [0i32; 0]);
    assert_eq!(pod.says("pids", "bomb-0", "pids.max"), "200");
}

#[test]
fn an_out_of_memory_kill_is_counted_in_its_container() {
    let mut pod = TestPod::new(&UNLIMITED);
    pod.container("greedy-0", &CgroupValues { memory_limit_bytes: Some(8 << 20), ..UNLIMITED });
    pod.container("modest-0", &UNLIMITED);
    assert_eq!(pod.cgroups.oom_kills(&pod.pod, "greedy-0").unwrap(), 0);
    // tail keeps a line until its end has come: this one never ends.
    pod.run_in_container("greedy-0", "exec tail -n 1 /dev/zero");
    let status = pod.children[0].wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
    // With memory.oom.group (v2) the kernel counts each process that it takes along.
    let killed = pod.cgroups.oom_kills(&pod.pod, "greedy-0").unwrap();
    assert!(killed >= 1, "{killed} kills counted");
    assert_eq!(pod.cgroups.oom_kills(&pod.pod, "modest-0").unwrap(), 0);
}

#[test]
fn a_pod_is_found_by_its_uid_and_its_parents_stay_when_it_is_removed() {
    let mut pod = TestPod::new(&UNLIMITED);
    pod.container("main-0", &UNLIMITED);
    let uid = pod.pod.rsplit_once("/pod").unwrap().1.to_owned();
    let expected = [FoundPod { uid, cgroup: pod.pod.clone() }];
    assert_eq!(pod.cgroups.pods(&pod.base).unwrap(), expected);

    pod.run_in_container("main-0", "exec sleep 1000");
    pod.cgroups.kill(&pod.pod, Members::Pod).unwrap();
    pod.cgroups.remove_pod(&pod.pod).unwrap();
    assert_eq!(pod.cgroups.pods(&pod.base).unwrap(), []);
    for controller in pod.cgroups.controllers().unwrap() {
        let parent = directory(&pod.cgroups, &controller, &format!("{}/burstable", pod.base));
        assert!(parent.exists(), "{}", parent.display());
        assert!(!directory(&pod.cgroups, &controller, &pod.pod).exists());
    }
}

#[test]
fn a_cgroup_with_a_process_is_not_removed() {
    let mut pod = TestPod::new(&UNLIMITED);
    pod.container("main-0", &UNLIMITED);
    pod.run_in_container("main-0", "exec sleep 1000");
    let error = pod.cgroups.remove_container(&pod.pod, "main-0").unwrap_err();
    assert!(matches!(error, CgroupError::Remove { .. }), "{error}");
    assert_eq!(pod.processes(Members::Container("main-0")).len(), 1);
}

#[test]
fn several_pods_made_at_once_share_their_parents() {
    let pod = TestPod::new(&UNLIMITED);
    let pods: Vec<String> =
        (0..8).map(|n| format!("{}/burstable/podshared{n}", pod.base)).collect();
    std::thread::scope(|scope| {
        for other in &pods {
            scope.spawn(|| pod.cgroups.make_pod(other, &UNLIMITED).unwrap());
        }
    });
    for other in &pods {
        pod.cgroups.make_container(other, "main-0", &UNLIMITED, devices::DEFAULT).unwrap();
        pod.cgroups.remove_pod(other).unwrap();
    }
}
