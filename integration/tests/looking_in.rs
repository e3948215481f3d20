//! Looking into pods from another terminal.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use integration::{Instance, PATIENCE, Running};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: side, image: alpine:latest, restartPolicy: Always, command: [sleep, '1000']}
  containers:
  - name: main
    image: alpine:latest
    env: [{name: WHO, value: main}]
    securityContext: {runAsUser: 1000, capabilities: {drop: [ALL]}}
    command: [sleep, '1000']
";

fn running(podshim: &Instance) -> Running<'_> {
    let running = podshim.start(POD);
    podshim.until("running", |p| p["status"]["phase"] == "Running");
    running
}

fn end(running: Running<'_>) {
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait().0, 130);
}

#[test]
fn a_program_runs_in_a_container_with_its_streams_and_its_exit_code() {
    let podshim = Instance::new();
    let running = running(&podshim);
    let said = podshim.podshim(&[
        "exec", "p", "--", "sh", "-c",
        "echo $WHO $(id -u) $(hostname); echo wrong >&2; grep -E 'CapBnd|Seccomp:' /proc/self/status; ls /proc/self/fd | wc -l; exit 7",
    ]);
    assert_eq!(said.code, 7, "{}", said.err);
    // 0, 1, 2 and the directory that ls reads.
    assert_eq!(said.out, "main 1000 p\nCapBnd:\t0000000000000000\nSeccomp:\t2\n4\n");
    assert_eq!(said.err, "wrong\n");

    let said = podshim.podshim(&["exec", "p", "-c", "side", "--", "sh", "-c", "id -u; kill -9 $$"]);
    assert_eq!((said.code, said.out.as_str()), (137, "0\n"));
    for (args, code, text) in [
        (&["exec", "p", "--", "/no/such"][..], 127, "/no/such"),
        (&["exec", "p", "--", "/etc/passwd"], 126, "/etc/passwd"),
        (&["exec", "p", "-c", "nobody", "--", "true"], 1, "it has: side, main"),
        (&["exec", "q", "--", "true"], 1, "not found"),
    ] {
        let said = podshim.podshim(args);
        assert_eq!(said.code, code, "{args:?}: {}", said.err);
        assert!(said.err.contains(text), "{args:?}: {}", said.err);
    }
    end(running);
}

#[test]
fn input_goes_in_much_output_comes_out_and_a_leftover_is_not_waited_for() {
    let podshim = Instance::new();
    let running = running(&podshim);
    let mut child = podshim
        .command(&["exec", "-i", "p", "--", "sh", "-c", "cat; echo end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // More than any pipe holds, both ways at once.
    let text = "0123456789abcde\n".repeat(100_000);
    let mut stdin = child.stdin.take().unwrap();
    let to_write = text.clone();
    let writer = std::thread::spawn(move || stdin.write_all(to_write.as_bytes()).unwrap());
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(out == text + "end\n", "{} bytes", out.len());

    // Without -i there is no input, and nobody waits for it.
    let mut child =
        podshim.command(&["exec", "p", "--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    assert!(child.wait().unwrap().success());

    let began = Instant::now();
    let said = podshim.podshim(&["exec", "p", "--", "sh", "-c", "sleep 1000 & echo begun"]);
    assert_eq!((said.code, said.out.as_str()), (0, "begun\n"));
    assert!(began.elapsed() < Duration::from_secs(100), "it was waited for");
    end(running);
}

#[test]
fn a_program_ends_with_its_terminal_and_with_its_container() {
    let podshim = Instance::new();
    let running = running(&podshim);
    let sleepers = |podshim: &Instance| {
        let said = podshim.podshim(&["exec", "p", "--", "sh", "-c", "ps | grep -c '[s]leep 4711'"]);
        said.out.trim().parse::<u32>().unwrap()
    };
    let mut child = podshim
        .command(&["exec", "p", "--", "sleep", "4711"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while sleepers(&podshim) == 0 {
        assert!(Instant::now() < deadline, "it does not run");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    while sleepers(&podshim) > 0 {
        assert!(Instant::now() < deadline, "it runs although nobody looks");
    }
    let mut child = podshim.command(&["exec", "p", "--", "sleep", "4711"]).spawn().unwrap();
    while sleepers(&podshim) == 0 {
        assert!(Instant::now() < deadline, "it does not run");
    }
    kill(Pid::from_raw(podshim.pids()["main"]), Signal::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(137));
    end(running);
}

/// Reads from a terminal until it has shown a text.
fn until_shown(master: &OwnedFd, shown: &mut String, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 4096];
    while !shown.contains(text) {
        assert!(Instant::now() < deadline, "{text:?} in {shown:?}");
        match nix::unistd::read(master.as_fd(), &mut buffer) {
            Ok(n) => shown.push_str(&String::from_utf8_lossy(&buffer[..n])),
            Err(nix::errno::Errno::EAGAIN) => std::thread::sleep(Duration::from_millis(10)),
            Err(e) => panic!("{e}: {text:?} in {shown:?}"),
        }
    }
}

#[test]
fn a_terminal_is_the_containers_own_and_follows_the_users() {
    let podshim = Instance::new();
    let running = running(&podshim);
    let size =
        |rows, columns| Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let ours = openpty(Some(&size(33, 99)), None).unwrap();
    let slave = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    let before = nix::sys::termios::tcgetattr(ours.slave.as_fd()).unwrap();
    let mut child = podshim
        .command(&["exec", "-it", "p", "--", "sh"])
        .stdin(slave(&ours.slave))
        .stdout(slave(&ours.slave))
        .stderr(slave(&ours.slave))
        .spawn()
        .unwrap();
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(ours.master.as_fd(), nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    let mut shown = String::new();
    let type_in = |text: &str| {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            rest = &rest[nix::unistd::write(ours.master.as_fd(), rest).unwrap()..];
        }
    };
    // What is typed is echoed; so the answers differ from the questions.
    type_in("echo tty=$(tty) term=$TERM; stty size; [ -t 2 ] && echo is''atty\n");
    until_shown(&ours.master, &mut shown, "tty=/dev/pts/");
    until_shown(&ours.master, &mut shown, "term=xterm");
    until_shown(&ours.master, &mut shown, "33 99");
    until_shown(&ours.master, &mut shown, "isatty");

    // Ctrl-C is the program's, not podshim's; a new size arrives.
    type_in("sleep 4711\n");
    until_shown(&ours.master, &mut shown, "sleep 4711");
    std::thread::sleep(Duration::from_millis(500));
    type_in("\x03");
    type_in("echo inter''rupted $?\n");
    until_shown(&ours.master, &mut shown, "interrupted 130");
    rustix::termios::tcsetwinsize(
        &ours.slave,
        rustix::termios::Winsize { ws_row: 44, ws_col: 111, ws_xpixel: 0, ws_ypixel: 0 },
    )
    .unwrap();
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGWINCH).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !shown.contains("44 111") {
        assert!(Instant::now() < deadline, "{shown:?}");
        type_in("stty size; echo asked''now\n");
        until_shown(&ours.master, &mut shown, "askednow");
        shown = shown.replace("askednow", "");
    }
    type_in("exit 9\n");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        let mut buffer = [0; 4096];
        let _ = nix::unistd::read(ours.master.as_fd(), &mut buffer);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "exec does not end");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(9));
    let after = nix::sys::termios::tcgetattr(ours.slave.as_fd()).unwrap();
    assert_eq!(after.local_flags, before.local_flags, "the terminal is as it was");
    end(running);
}

#[test]
fn what_happened_and_what_is_can_be_asked_for() {
    let podshim = Instance::new();
    let running = running(&podshim);
    let said = podshim.podshim(&["events", "p"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let head: Vec<&str> = said.out.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    let started = said.out.lines().position(|l| l.contains("Started") && l.contains("Pod/p/side"));
    let main = said.out.lines().position(|l| l.contains("Started") && l.contains("Pod/p/main"));
    assert!(started.unwrap() < main.unwrap(), "{}", said.out);
    let json = podshim.podshim(&["events", "-o", "json"]).out;
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((first["kind"].as_str(), first["apiVersion"].as_str()), (Some("Event"), Some("v1")));

    let said = podshim.podshim(&["describe", "pod", "p"]);
    for line in [
        "Name:             p",
        "Status:           Running",
        "Init Containers:\n  side:",
        "    Restart Policy: Always",
        "    State:        Running",
        "    Environment:  WHO: main",
        "QoS Class:        BestEffort",
        "  Normal   Started",
    ] {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed(&said.out).contains(&squeezed(line)), "{line:?} in {}", said.out);
    }
    assert_eq!(podshim.podshim(&["describe", "pod", "q"]).code, 1);
    assert_eq!(podshim.podshim(&["describe", "pod/p"]).code, 0);
    assert_eq!(podshim.podshim(&["describe", "job/p"]).code, 1);

    let busy = podshim
        .command(&["exec", "p", "--", "sh", "-c", "while :; do :; done"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = podshim.podshim(&["top", "pod", "p", "--containers"]);
        assert_eq!(said.code, 0, "{}", said.err);
        let row = |name: &str| -> Vec<String> {
            let line = said.out.lines().find(|l| l.split_whitespace().nth(1) == Some(name));
            line.unwrap().split_whitespace().map(str::to_owned).collect()
        };
        let cores = |name: &str| row(name)[2].trim_end_matches('m').parse::<u64>().unwrap();
        if cores("main") > 100 && cores("side") < 100 && row("main")[3].ends_with("Mi") {
            break;
        }
        assert!(Instant::now() < deadline, "{}", said.out);
    }
    let mut busy = busy;
    busy.kill().unwrap();
    busy.wait().unwrap();
    end(running);
}

#[test]
fn logs_can_be_chosen_by_time_and_from_all_containers_at_once() {
    let podshim = Instance::new();
    let running = podshim.start(
        "apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: side, image: alpine:latest, restartPolicy: Always, command: [sh, -c, 'echo from side; sleep 1000']}
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'echo old; while [ ! -e /go ]; do sleep 0.1; done; echo new; echo wrong >&2; sleep 1000']}
",
    );
    podshim.until("running", |p| p["status"]["phase"] == "Running");
    let until = |args: &[&str], wanted: &str| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = podshim.podshim(args);
            if said.out == wanted {
                break;
            }
            assert!(Instant::now() < deadline, "{args:?}: {said:?}");
        }
    };
    until(
        &["logs", "p", "--all-containers", "--prefix"],
        "[pod/p/side] from side\n[pod/p/main] old\n",
    );
    let attached = podshim
        .command(&["attach", "p"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(podshim.podshim(&["exec", "p", "--", "touch", "/go"]).code, 0);
    until(&["logs", "p", "--since", "1h"], "old\nnew\nwrong\n");
    let stamped = podshim.podshim(&["logs", "p", "--timestamps"]).out;
    let time = stamped.lines().find_map(|l| l.strip_suffix(" new")).unwrap().to_owned();
    until(&["logs", "p", "--since-time", &time], "new\nwrong\n");
    assert_eq!(podshim.podshim(&["logs", "p", "--since", "soon"]).code, 1);
    end(running);
    let attached = attached.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&attached.stdout), "new\n");
    assert_eq!(String::from_utf8_lossy(&attached.stderr), "wrong\n");
}

#[test]
fn files_are_copied_in_and_out() {
    let podshim = Instance::new();
    let running = running(&podshim);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir_all(dir.path().join("tree/deep")).unwrap();
    std::fs::write(dir.path().join("tree/deep/file"), "inside").unwrap();
    std::fs::write(dir.path().join("plain"), "x".repeat(200_000)).unwrap();
    let ok = |args: &[&str]| {
        let said = podshim.podshim(args);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        said.out
    };
    ok(&["cp", &path("tree"), "p:/tmp/", "-c", "side"]);
    ok(&["cp", &path("plain"), "p:/tmp/renamed", "-c", "side"]);
    let shown = ok(&[
        "exec",
        "p",
        "-c",
        "side",
        "--",
        "sh",
        "-c",
        "cat /tmp/tree/deep/file; wc -c < /tmp/renamed",
    ]);
    assert_eq!(shown, "inside200000\n");
    ok(&["cp", "p:/tmp/tree", &path("back"), "-c", "side"]);
    assert_eq!(std::fs::read_to_string(dir.path().join("back/deep/file")).unwrap(), "inside");
    ok(&["cp", "p:/tmp/renamed", &path("back"), "-c", "side"]);
    assert_eq!(std::fs::metadata(dir.path().join("back/renamed")).unwrap().len(), 200_000);
    assert_ne!(podshim.podshim(&["cp", "p:/none", &path("x"), "-c", "side"]).code, 0);
    assert_eq!(podshim.podshim(&["cp", &path("none"), "p:/tmp/x"]).code, 1);
    end(running);
}

#[test]
fn a_pods_life_can_be_drawn_while_it_lives_and_when_it_is_over() {
    let podshim = Instance::new();
    let running = running(&podshim);
    let text = podshim.podshim(&["timeline", "p"]);
    assert_eq!(text.code, 0, "{}", text.err);
    assert!(text.out.starts_with("side (sidecar) │"), "{}", text.out);
    let json = podshim.podshim(&["timeline", "p", "-o", "json"]).out;
    let life: serde_json::Value = serde_json::from_str(&json).unwrap();
    let doing = |row: usize| {
        life["rows"][row]["spans"].as_array().unwrap().last().unwrap()["doing"].clone()
    };
    assert_eq!((doing(0), doing(1)), ("running".into(), "running".into()));
    let trace = podshim.podshim(&["timeline", "p", "-o", "perfetto"]).out;
    assert!(serde_json::from_str::<serde_json::Value>(&trace).unwrap()["traceEvents"].is_array());
    end(running);

    let picture = podshim.root().join("life.svg");
    let path = podshim.manifest(
        "apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  containers: [{name: main, image: alpine:latest, command: [sh, -c, 'exit 3']}]
",
    );
    let said =
        podshim.podshim(&["run", "--pull=never", "--timeline", picture.to_str().unwrap(), &path]);
    assert_eq!(said.code, 3, "{}", said.err);
    let svg = std::fs::read_to_string(picture).unwrap();
    assert!(
        svg.starts_with("<svg") && svg.contains("main (main)") && svg.contains("exit code 3"),
        "{svg}"
    );
}

#[test]
fn a_shell_completes_the_names_of_what_lives() {
    let podshim = Instance::new();
    let running = running(&podshim);
    let complete = |words: &[&str]| -> Vec<String> {
        let mut line = vec!["--", "podshim"];
        line.extend(words);
        let out = podshim
            .command(&line)
            .env("PODSHIM_COMPLETE", "bash")
            .env("_CLAP_IFS", "\n")
            .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
            .env("_CLAP_COMPLETE_COMP_TYPE", "9")
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
    };
    assert_eq!(complete(&["exe"]), ["exec"]);
    assert!(complete(&["exec", ""]).contains(&"p".to_owned()));
    assert!(complete(&["wait", ""]).contains(&"p".to_owned()));
    assert!(complete(&["why", ""]).contains(&"p".to_owned()));
    assert!(complete(&["get", "pods", ""]).contains(&"p".to_owned()));
    assert_eq!(complete(&["get", "pods", "-o", "j"]), ["json", "jsonpath="]);
    assert!(complete(&["logs", "p"]).contains(&"p".to_owned()));
    let containers = complete(&["exec", "p", "-c", "s"]);
    assert_eq!(containers, ["side"]);
    for shell in ["bash", "zsh", "fish"] {
        let script = podshim.podshim(&["completion", shell]);
        assert_eq!(script.code, 0, "{}", script.err);
        assert!(script.out.contains("PODSHIM_COMPLETE"), "{}", script.out);
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man");
    assert_eq!(podshim.podshim(&["man", pages.to_str().unwrap()]).code, 0);
    assert!(pages.join("podshim-exec.1").exists());
    end(running);
}
