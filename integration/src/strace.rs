//! System calls that go wrong: `strace` lets the N-th call of a kind fail as the kernel would (strace(1),
//! "Tampering"); the call is not made.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::{is_full, is_slow, tabulate, until};

/// How a system call goes wrong, and the kernel's words for it.
#[derive(Clone, Copy, Debug)]
pub struct Wrong {
    /// As strace has it.
    pub how: &'static str,
    /// As strerror(3) has it; empty if nobody has to tell of it.
    pub words: &'static str,
}

const fn error(how: &'static str, words: &'static str) -> Wrong {
    Wrong { how, words }
}

/// `EMFILE`.
pub const NO_DESCRIPTORS: Wrong = error("error=EMFILE", "Too many open files");
/// `ENOSPC`.
pub const DISK_FULL: Wrong = error("error=ENOSPC", "No space left on device");
/// `EBUSY`.
pub const BUSY: Wrong = error("error=EBUSY", "Device or resource busy");
/// `EIO`.
pub const BROKEN: Wrong = error("error=EIO", "Input/output error");
/// `ENOMEM`.
pub const NO_MEMORY: Wrong = error("error=ENOMEM", "Cannot allocate memory");
/// `EAGAIN`.
pub const NO_PIDS: Wrong = error("error=EAGAIN", "Resource temporarily unavailable");
/// `EINTR`.
pub const INTERRUPTED: Wrong = error("error=EINTR", "Interrupted system call");
/// 0.2 s, which nobody has to tell.
pub const SLOW: Wrong = error("delay_enter=200000", "");

/// Which call goes wrong: the `number`-th of its kind, in each process and thread that is traced.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its name.
    pub call: &'static str,
    /// What becomes of it.
    pub wrong: Wrong,
    /// Counted from 1.
    pub number: usize,
}

/// A process that is traced.
pub struct Traced {
    strace: Child,
    trace: PathBuf,
}

impl Fault {
    /// What strace is to do, for a command line.
    #[must_use]
    pub fn options(&self) -> [String; 4] {
        let Fault { call, wrong, number } = self;
        let inject = format!("inject={call}:{}:when={number}", wrong.how);
        ["-e".into(), format!("trace={call}"), "-e".into(), inject]
    }

    /// Does it to a process that runs; with `children` also to all that it makes from now on.
    #[must_use]
    pub fn attach(&self, pid: i32, children: bool, trace: PathBuf) -> Traced {
        let mut strace = Command::new("strace");
        strace.arg("-o").arg(&trace).args(self.options()).args(["-p", &pid.to_string()]);
        strace.args(children.then_some("-f"));
        let strace = strace.stderr(Stdio::null()).spawn().expect("strace (a Debian package)");
        until("strace traces", || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).unwrap();
            if tracer.trim() == "0" { Err(status) } else { Ok(()) }
        });
        Traced { strace, trace }
    }

    /// The line of a trace in which it happened, if it has.
    #[must_use]
    pub fn find(&self, trace: &str) -> Option<String> {
        let mark = if self.wrong.words.is_empty() { "(DELAYED)" } else { "(INJECTED)" };
        trace.lines().find(|line| line.contains(mark)).map(str::to_owned)
    }
}

impl Traced {
    /// Waits until whom it traces has ended, and gives back the trace.
    #[must_use]
    pub fn wait(mut self) -> String {
        let ended =
            until("strace ends", || self.strace.try_wait().unwrap().ok_or_else(String::new));
        assert!(ended.code().is_some(), "{ended}");
        self.read()
    }

    /// Lets whom it traces go on alone, and gives back the trace.
    #[must_use]
    pub fn let_go(mut self) -> String {
        let pid = Pid::from_raw(i32::try_from(self.strace.id()).unwrap());
        // It has ended with whom it traced, maybe.
        let _ = nix::sys::signal::kill(pid, Signal::SIGINT);
        self.strace.wait().unwrap();
        self.read()
    }

    fn read(&self) -> String {
        let text = fs::read_to_string(&self.trace).unwrap();
        fs::remove_file(&self.trace).unwrap();
        text
    }
}

/// Calls, and how each of them goes wrong.
pub type Calls<'a> = [(&'static str, &'a [Wrong])];

/// Has each call go wrong in each way: the first, the second, the fifth… of its kind, or with `--full` each, until
/// `live` says that there are no so many. Where time is short, the first of the first `few` calls.
pub fn each(whose: &str, few: usize, calls: &Calls<'_>, mut live: impl FnMut(Fault) -> bool) {
    for (call, wrongs) in calls.iter().take(if is_slow() { few } else { usize::MAX }) {
        for wrong in wrongs.iter().take(if is_slow() { 1 } else { usize::MAX }) {
            let (mut lives, mut longest) = (0, Duration::ZERO);
            let (mut number, mut step) = (1, 1);
            loop {
                let begun = Instant::now();
                if !live(Fault { call, wrong: *wrong, number }) {
                    break;
                }
                lives += 1;
                longest = longest.max(begun.elapsed());
                if is_slow() {
                    break;
                }
                number += step;
                if !is_full() {
                    step *= 3;
                }
            }
            assert!(lives > 0, "{whose} makes no {call}");
            let matrix = format!("one system call of {whose} goes wrong");
            tabulate(&matrix, &format!("{call}, {}", wrong.how), lives, longest);
        }
    }
}
