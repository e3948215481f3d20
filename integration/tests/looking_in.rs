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
