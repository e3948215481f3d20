//! The log pump against the real kernel: killed under a flood, and on a full disk. Needs root, for
//! the disk is a small tmpfs.

// Helpers of tests are tests, which clippy does not see.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use plan::Wall;
use runtime::log::{Flow, Follower, Line, Pump, Rotation, Start, Stream, Taken, Token, parse};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

fn now() -> Wall {
    runtime::clock::now().wall
}

fn open_pump(dir: &Path) -> Pump {
    Pump::open(&dir.join("io"), &["main".to_owned()]).unwrap()
}

/// The container's ends of the FIFOs, as a creator opens them.
fn writers(pump: &Pump, flags: OFlags) -> [OwnedFd; 2] {
    Stream::ALL.map(|stream| {
        open(pump.fifo_path(0, stream), OFlags::RDWR | OFlags::CLOEXEC | flags, Mode::empty())
            .unwrap()
    })
}

/// Takes what is there until both FIFOs are empty.
fn take_all(pump: &mut Pump) -> Flow {
    loop {
        let mut more = false;
        for stream in Stream::ALL {
            match pump.take(Token { container: 0, stream }, now()).unwrap() {
                Taken::Blocked => return Flow::Blocked,
                Taken::Nothing => {}
                Taken::Bytes(_) => more = true,
            }
        }
        if !more {
            return Flow::Free;
        }
    }
}

/// What each stream said, as the log has it.
fn logged(log: &Path) -> [Vec<u8>; 2] {
    let mut joined = [vec![], vec![]];
    for line in fs::read(log).unwrap().split_inclusive(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\n").expect("no line is torn");
        let entry = parse::entry(line).expect("a line of ours");
        joined[entry.stream as usize].extend_from_slice(entry.content);
        if entry.full {
            joined[entry.stream as usize].push(b'\n');
        }
    }
    joined
}

fn assert_same(said: &[u8], logged: &[u8], what: &str) {
    let same = said.iter().zip(logged).take_while(|(a, b)| a == b).count();
    assert!(
        said.len() == logged.len() && same == said.len(),
        "{what}: {} bytes said, {} logged, the first difference is at {same}",
        said.len(),
        logged.len()
    );
}

/// With `scripts/test --full`.
fn is_full() -> bool {
    std::env::var_os("PODSHIM_TEST_FULL").is_some()
}

const PUMP_DIRECTORY: &str = "PODSHIM_TEST_PUMP_DIRECTORY";
const PUMP_ROTATES: &str = "PODSHIM_TEST_PUMP_ROTATES";
const UNDER_A_FLOOD: &str =
    "a_pump_that_is_killed_again_and_again_under_a_flood_loses_and_doubles_nothing";

/// A pump as a process of its own: this program again, which finds in its environment that it is one.
fn pump_process(dir: &Path, rotates: bool) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", UNDER_A_FLOOD])
        .env(PUMP_DIRECTORY, dir)
        .envs(rotates.then_some((PUMP_ROTATES, "")))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn log_of(dir: &Path) -> PathBuf {
    dir.join("pod/main/0.log")
}

/// Works until it is killed.
fn be_a_pump(dir: &Path) -> ! {
    let mut pump = open_pump(dir);
    if std::env::var_os(PUMP_ROTATES).is_some() {
        pump.rotate(Rotation { max_bytes: 8 << 10, max_files: u32::MAX });
    }
    assert_eq!(pump.open_log(0, &log_of(dir), now()).unwrap(), Flow::Free);
    loop {
        assert_eq!(take_all(&mut pump), Flow::Free);
        let fds: Vec<_> = pump.fds().map(|(fd, _)| fd).collect();
        let mut polled: Vec<_> =
            fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        poll(&mut polled, None).unwrap();
    }
}

#[test]
fn a_pump_that_is_killed_again_and_again_under_a_flood_loses_and_doubles_nothing() {
    if let Some(dir) = std::env::var_os(PUMP_DIRECTORY) {
        be_a_pump(Path::new(&dir));
    }
    // 60 kills each, and 5,040 of them.
    for _ in 0..if is_full() { 84 } else { 1 } {
        kill_under_a_flood();
    }
}

fn kill_under_a_flood() {
    const KILLS: u32 = 60;
    let dir = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let log = log_of(dir.path());
    // Held open here, as by the container: what is in them outlives every pump.
    let fifos = writers(&open_pump(dir.path()), OFlags::empty());
    let enough = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = fifos
        .into_iter()
        .zip([1usize, 700])
        .map(|(fifo, width)| {
            let enough = Arc::clone(&enough);
            thread::spawn(move || {
                let mut said = Vec::new();
                for n in 0.. {
                    if enough.load(Ordering::Relaxed) {
                        break;
                    }
                    // Pieces that end in the middle of lines now and then.
                    let mut text = format!("{n:0width$}").into_bytes();
                    if n % 5 != 0 {
                        text.push(b'\n');
                    }
                    let mut rest = &text[..];
                    while !rest.is_empty() {
                        rest = &rest[rustix::io::write(&fifo, rest).unwrap()..];
                    }
                    said.extend_from_slice(&text);
                }
                (fifo, said)
            })
        })
        .collect();
    // How long a pump lives before its first words are in the log differs from machine to machine, by
    // a hundredfold: measured here, and lives are multiples of it.
    let began = Instant::now();
    let mut pump = pump_process(dir.path(), false);
    while fs::metadata(&log).map_or(0, |log| log.len()) == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "no pump ever works");
        thread::sleep(Duration::from_micros(200));
    }
    let first_words = began.elapsed();
    let kill = |pump: &mut Child| {
        pump.kill().unwrap();
        let status = pump.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "the pump ended by itself: {status:?}");
    };
    kill(&mut pump);
    for n in 0..KILLS {
        let mut pump = pump_process(dir.path(), false);
        // From a quarter of it to twice: kills fall everywhere, opening, reading and writing.
        thread::sleep(first_words * (1 + n * 5 % 8) / 4);
        kill(&mut pump);
    }
    // The last one drains what the writers are stuck with until they see that it is enough.
    enough.store(true, Ordering::Relaxed);
    let mut pump = open_pump(dir.path());
    assert_eq!(pump.open_log(0, &log, now()).unwrap(), Flow::Free);
    while floods.iter().any(|flood| !flood.is_finished()) {
        assert_eq!(take_all(&mut pump), Flow::Free);
    }
    let said: Vec<_> = floods.into_iter().map(|flood| flood.join().unwrap()).collect();
    assert_eq!(take_all(&mut pump), Flow::Free);
    assert_eq!(pump.drain(0, now()).unwrap(), Flow::Free);
    for ((stream, logged), (_, said)) in Stream::ALL.into_iter().zip(logged(&log)).zip(&said) {
        assert!(said.len() > 10_000, "{} bytes are no flood", said.len());
        assert_same(said, &logged, stream.name());
    }
}

#[test]
fn a_follower_of_many_rotations_sees_every_line_once() {
    let rotations = if is_full() { 1000 } else { 200 };
    // In files of 8 KiB, of some 58 lines each.
    let lines: u64 = 62 * rotations;
    let dir = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let logs = dir.path().join("pod/main");
    let [fifo, _stderr] = writers(&open_pump(dir.path()), OFlags::empty());
    // So that a batch is no more than half a file.
    rustix::pipe::fcntl_setpipe_size(&fifo, 4096).unwrap();
    let flood = thread::spawn(move || {
        for n in 0..lines {
            let text = format!("{n:0100}\n").into_bytes();
            assert_eq!(rustix::io::write(&fifo, &text), Ok(text.len()));
        }
        fifo
    });
    let done = AtomicBool::new(false);
    let mut next = 0;
    let mut follower = Follower::new(&logs, Start::Oldest);
    let mut follow = |next: &mut u64| {
        let mut wrong = None;
        let mut sink = |line: Line<'_>| {
            let text = std::str::from_utf8(line.bytes).unwrap();
            if text.parse() == Ok(*next) {
                *next += 1;
            } else {
                wrong.get_or_insert_with(|| text.to_owned());
            }
        };
        follower.poll(&mut sink).unwrap();
        wrong
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut wrong = None;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let mut pump = pump_process(dir.path(), true);
                thread::sleep(Duration::from_millis(300));
                pump.kill().unwrap();
                pump.wait().unwrap();
            }
        });
        while !flood.is_finished() && wrong.is_none() && Instant::now() < deadline {
            wrong = follow(&mut next);
            thread::sleep(Duration::from_millis(10));
        }
        done.store(true, Ordering::Relaxed);
    });
    // What the last pump did not come to.
    let mut pump = open_pump(dir.path());
    assert_eq!(pump.open_log(0, &log_of(dir.path()), now()).unwrap(), Flow::Free);
    while !flood.is_finished() {
        assert_eq!(take_all(&mut pump), Flow::Free);
    }
    let _fifo = flood.join().unwrap();
    assert_eq!(take_all(&mut pump), Flow::Free);
    let wrong = wrong.or_else(|| follow(&mut next));
    assert_eq!((wrong, next), (None, lines), "a line is lost, doubled or torn");
    let files = fs::read_dir(&logs).unwrap().count();
    assert!(files as u64 > rotations, "{files} files");
    let mut all = 0;
    let mut again = Follower::new(&logs, Start::Oldest);
    again
        .poll(&mut |line| {
            assert_eq!(std::str::from_utf8(line.bytes).unwrap().parse(), Ok(all));
            all += 1;
        })
        .unwrap();
    assert_eq!(all, lines);
}

/// A small file system that can be made larger, and is gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(path: PathBuf) -> SmallDisk {
        assert!(nix::unistd::geteuid().is_root(), "this test mounts a tmpfs: run it as root");
        fs::create_dir(&path).unwrap();
        mount("podshim-test", &path, "tmpfs", MountFlags::empty(), c"size=64k").unwrap();
        SmallDisk(path)
    }

    fn grow(&self) {
        mount_remount(&self.0, MountFlags::empty(), c"size=8m").unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_makes_the_writer_wait_and_loses_nothing() {
    let dir = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let disk = SmallDisk::new(dir.path().join("disk"));
    let log = disk.0.join("pod/main/0.log");
    let mut pump = open_pump(dir.path());
    assert_eq!(pump.open_log(0, &log, now()).unwrap(), Flow::Free);
    let [stdout, _stderr] = writers(&pump, OFlags::NONBLOCK);

    let mut said = Vec::new();
    let mut n = 0;
    let mut write = |fd: OwnedFd, said: &mut Vec<u8>| {
        let text = format!("{n:0200}\n").into_bytes();
        match rustix::io::write(fd.as_fd(), &text) {
            Ok(written) => {
                assert_eq!(written, text.len(), "below PIPE_BUF a write is whole");
                said.extend_from_slice(&text);
                n += 1;
                true
            }
            Err(Errno::AGAIN) => false,
            Err(error) => panic!("{error}"),
        }
    };
    let dup = |fd: &OwnedFd| fd.try_clone().unwrap();
    while take_all(&mut pump) == Flow::Free {
        assert!(write(dup(&stdout), &mut said), "the pump keeps up");
    }
    let why = runtime::chain(pump.blocked_on(0).expect("a reason"));
    assert!(why.contains("No space left") && why.contains("0.log"), "{why}");
    // The pipe fills up, and then the program waits; nobody throws anything away.
    while write(dup(&stdout), &mut said) {}
    assert_eq!(
        pump.take(Token { container: 0, stream: Stream::Stdout }, now()).unwrap(),
        Taken::Blocked
    );
    assert_eq!(pump.retry(0, now()).unwrap(), Flow::Blocked);

    // A container that ends and starts again meanwhile: its next log has to wait.
    let next = disk.0.join("pod/main/1.log");
    assert!(
        pump.open_log(0, &next, now()).unwrap_err().to_string().contains("still being written")
    );

    disk.grow();
    assert_eq!(pump.retry(0, now()).unwrap(), Flow::Free);
    assert!(pump.blocked_on(0).is_none());
    assert_eq!(take_all(&mut pump), Flow::Free);
    assert_same(&said, &logged(&log)[Stream::Stdout as usize], "standard output");
    assert_eq!(pump.open_log(0, &next, now()).unwrap(), Flow::Free);
}
