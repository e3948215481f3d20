//! A pump killed at every point, in every combination that matters, and what its successor makes of
//! it. Real SIGKILLs under a flood are in `runtime/tests/log_pump.rs`; here no point is left to chance.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plan::Wall;
use rustix::fs::{CWD, Mode, OFlags, open};
use tempfile::TempDir;

use super::failpoint::{Killed, arm, short_writes};
use super::format::{MAX_CONTENT, Stream};
use super::parse::entry;
use super::pump::{Flow, Pump, PumpError, Taken, Token};
use super::rotation::Rotation;

const START: Wall = Wall(1_795_538_415_000_000_000);

/// One step of a container's and its pump's life.
#[derive(Clone, Debug)]
enum Step {
    Says(Stream, Vec<u8>),
    Take(Stream),
    Drain,
    Switch,
    Rename,
    Delete,
    Truncate,
}
use Step::{Drain, Rename, Says, Switch, Take};
use Stream::{Stderr, Stdout};

/// A container (its ends of the FIFOs) that outlives its pumps.
struct World {
    root: TempDir,
    writers: [rustix::fd::OwnedFd; 2],
    said: [Vec<u8>; 2],
    next: usize,
    log: u32,
    rotation: Option<Rotation>,
}

/// A pump that follows another one. Tests beside this one start programs, which hold a copy of every
/// descriptor, and so the last pump's lock, until they are executed.
fn opened(io: &Path, names: &[&str]) -> Pump {
    try_open(io, names).unwrap()
}

fn try_open(io: &Path, names: &[&str]) -> Result<Pump, PumpError> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Pump::open(io, &names) {
            Err(PumpError::Busy { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

impl World {
    fn new() -> World {
        let root = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
        let pump = opened(&root.path().join("io"), &["main"]);
        let writers = Stream::ALL.map(|stream| {
            open(pump.fifo_path(0, stream), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap()
        });
        World { root, writers, said: [vec![], vec![]], next: 0, log: 0, rotation: None }
    }

    fn path(&self) -> PathBuf {
        self.logs().join(format!("{}.log", self.log))
    }

    fn logs(&self) -> PathBuf {
        self.root.path().join("pod/main")
    }

    /// Runs the rest of the script with a new pump; a step that was begun is not begun again,
    /// except those that a successor has to do again.
    fn run(&mut self, script: &[Step]) {
        let mut pump = opened(&self.root.path().join("io"), &["main"]);
        if let Some(rotation) = self.rotation {
            pump.rotate(rotation);
        }
        assert_eq!(pump.open_log(0, &self.path(), START).unwrap(), Flow::Free);
        while let Some(step) = script.get(self.next) {
            match step {
                Says(stream, bytes) => {
                    let fifo = &self.writers[*stream as usize];
                    assert_eq!(rustix::io::write(fifo, bytes), Ok(bytes.len()), "it fits");
                    self.said[*stream as usize].extend_from_slice(bytes);
                }
                Take(stream) => {
                    let token = Token { container: 0, stream: *stream };
                    assert_ne!(pump.take(token, START).unwrap(), Taken::Blocked);
                }
                Drain => assert_eq!(pump.drain(0, START).unwrap(), Flow::Free),
                Switch => {
                    let path = self.logs().join(format!("{}.log", self.log + 1));
                    assert_eq!(pump.open_log(0, &path, START).unwrap(), Flow::Free);
                    self.log += 1;
                }
                Rename => {
                    std::fs::rename(self.path(), self.logs().join("moved.log")).unwrap();
                    self.next += 1;
                    assert_eq!(pump.open_log(0, &self.path(), START).unwrap(), Flow::Free);
                    continue;
                }
                Step::Delete => std::fs::remove_file(self.path()).unwrap(),
                Step::Truncate => std::fs::write(self.path(), b"").unwrap(),
            }
            self.next += 1;
        }
    }

    /// Runs the script in a pump that dies at the `nth` point; false if it came to its end.
    fn run_and_die(&mut self, script: &[Step], nth: u32) -> bool {
        arm(nth);
        let end = catch_unwind(AssertUnwindSafe(|| self.run(script)));
        arm(0);
        match end {
            Ok(()) => false,
            Err(death) if death.is::<Killed>() => true,
            Err(failure) => std::panic::resume_unwind(failure),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.logs()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// What a stream said, as the logs have it, oldest file first.
    fn logged(&self) -> [Vec<u8>; 2] {
        let mut texts = self.files();
        texts.sort_by_key(|path| std::fs::read(path).unwrap().get(..30).map(<[u8]>::to_vec));
        read_logs(&texts)
    }
}

fn read_logs(paths: &[PathBuf]) -> [Vec<u8>; 2] {
    let mut joined = [vec![], vec![]];
    let mut last = Wall(0);
    for path in paths {
        let text = std::fs::read(path).unwrap();
        assert!(text.is_empty() || text.ends_with(b"\n"), "a line is torn in {path:?}");
        for line in text.split_inclusive(|&b| b == b'\n') {
            let entry = entry(&line[..line.len() - 1]).expect("a line of ours");
            assert!(entry.time > last, "times are unique and rise");
            last = entry.time;
            joined[entry.stream as usize].extend_from_slice(entry.content);
            if entry.full {
                joined[entry.stream as usize].push(b'\n');
            }
        }
    }
    joined
}

fn assert_same(world: &World, how: &str) {
    for (stream, logged) in Stream::ALL.into_iter().zip(world.logged()) {
        let said = &world.said[stream as usize];
        if *said != logged {
            let at = said.iter().zip(&logged).take_while(|(a, b)| a == b).count();
            panic!(
                "{how}: {} bytes said on {}, {} logged, first difference at {at}",
                said.len(),
                stream.name(),
                logged.len()
            );
        }
    }
}

/// Numbered lines, so that a lost, doubled or swapped one shows.
fn lines(from: u32, count: u32, width: usize) -> Vec<u8> {
    (from..from + count).flat_map(|n| format!("{n:0width$}\n").into_bytes()).collect()
}

/// Kills the pump at every point of a script, and lets a successor finish. Returns the number of
/// points.
fn kill_at_every_point(script: &[Step]) -> u32 {
    kill_a_rotating_one(script, None)
}

fn kill_a_rotating_one(script: &[Step], rotation: Option<Rotation>) -> u32 {
    for nth in 1.. {
        let mut world = World { rotation, ..World::new() };
        if !world.run_and_die(script, nth) {
            assert_same(&world, "nobody was killed");
            return nth - 1;
        }
        world.run(script);
        assert_same(&world, &format!("killed at point {nth}"));
    }
    unreachable!("a script has an end")
}

/// The same for every pair of kills: the successor dies as well.
fn kill_at_every_pair_of_points(script: &[Step]) -> u32 {
    let mut pairs = 0;
    for first in 1.. {
        for second in 1.. {
            let mut world = World::new();
            if !world.run_and_die(script, first) {
                return pairs;
            }
            let died = world.run_and_die(script, second);
            if died {
                world.run(script);
                pairs += 1;
            }
            assert_same(&world, &format!("killed at points {first} and {second}"));
            if !died {
                break;
            }
        }
    }
    unreachable!("a script has an end")
}

fn two_streams() -> Vec<Step> {
    vec![
        Says(Stdout, b"one\ntwo\nthr".to_vec()),
        Says(Stderr, b"\x00\xffbin".to_vec()),
        Take(Stdout),
        Take(Stderr),
        Says(Stdout, b"ee\n".to_vec()),
        Says(Stderr, b"ary\n".to_vec()),
        Take(Stderr),
        Take(Stdout),
        Says(Stdout, b"no newline".to_vec()),
        Drain,
    ]
}

#[test]
fn killed_anywhere_a_pump_of_two_streams_loses_and_doubles_nothing() {
    let points = kill_at_every_point(&two_streams());
    assert!(points > 100, "only {points} points: are they still there?");
}

#[test]
fn killed_twice_anywhere_it_loses_and_doubles_nothing() {
    short_writes(30);
    let pairs = kill_at_every_pair_of_points(&two_streams());
    short_writes(usize::MAX);
    assert!(pairs > 5_000, "only {pairs} pairs");
}

#[test]
fn killed_while_it_moves_an_unfinished_line_it_loses_and_doubles_nothing() {
    // An unfinished line of nearly full length is at the end of the stage when a chunk has no room
    // behind it any more: it moves, and is finished only then.
    let long = |n: u8| vec![b'a' + n; MAX_CONTENT - 100];
    let mut script = Vec::new();
    for n in 0..6 {
        script.push(Says(Stdout, [lines(u32::from(n) * 100, 40, 500), long(n)].concat()));
        script.push(Take(Stdout));
        script.push(Says(Stdout, b" and its end\n".to_vec()));
        if n % 2 == 0 {
            script.push(Take(Stdout));
        }
    }
    script.push(Drain);
    kill_at_every_point(&script);
}

#[test]
fn killed_between_the_parts_of_a_long_line_it_loses_and_doubles_nothing() {
    let script = [
        Says(Stdout, vec![b'x'; 60_000]),
        Take(Stdout),
        Says(Stdout, vec![b'y'; MAX_CONTENT]),
        Take(Stdout),
        Says(Stdout, b"\n\n".to_vec()),
        Says(Stderr, vec![b'\n'; 3_000]),
        Take(Stderr),
        Drain,
    ];
    short_writes(20_000);
    kill_at_every_point(&script);
    short_writes(usize::MAX);
}

#[test]
fn killed_while_the_log_is_switched_or_moved_it_loses_and_doubles_nothing() {
    let script = [
        Says(Stdout, b"first run\n".to_vec()),
        Take(Stdout),
        Says(Stdout, b"unfinished".to_vec()),
        Drain,
        Switch,
        Says(Stdout, b"second run\n".to_vec()),
        Says(Stderr, b"oops\n".to_vec()),
        Take(Stdout),
        Drain,
        Rename,
        Says(Stdout, b"after the move\n".to_vec()),
        Drain,
    ];
    kill_at_every_point(&script);
}

#[test]
fn killed_while_it_rotates_it_loses_and_doubles_nothing() {
    let say = |n: u8| Says(Stdout, format!("line {n}\nand\n").into_bytes());
    let mut script: Vec<Step> = (0..6).flat_map(|n| [say(n), Take(Stdout)]).collect();
    script.insert(5, Says(Stderr, b"oops\nunfinished".to_vec()));
    script.insert(6, Take(Stderr));
    script.push(Drain);
    // Each batch is a file.
    let rotation = Rotation { max_bytes: 60, max_files: 100 };
    let points = kill_a_rotating_one(&script, Some(rotation));
    assert!(points > 100, "only {points} points: are they still there?");
    let mut world = World { rotation: Some(rotation), ..World::new() };
    world.run(&script);
    assert_eq!(world.files().len(), 8, "{:?}", world.files());
    // Of files that are too many the oldest go, wherever it dies: what is left is the end.
    for nth in 1..=points {
        let rotation = Some(Rotation { max_bytes: 60, max_files: 3 });
        let mut world = World { rotation, ..World::new() };
        world.run_and_die(&script, nth);
        world.run(&script);
        // One that dies between its last rename and the removal leaves the removal to the next rotation.
        assert!((3..=4).contains(&world.files().len()), "{:?}", world.files());
        for (said, logged) in world.said.iter().zip(world.logged()) {
            assert!(said.ends_with(&logged), "killed at point {nth}");
        }
    }
}

/// Everything that was said since is in the log; what was there before went with the file.
fn after_the_log_is_gone(gone: Step) -> Vec<u8> {
    let mut world = World::new();
    let script = [
        Says(Stdout, b"before\n".to_vec()),
        Take(Stdout),
        gone,
        Says(Stdout, b"after\n".to_vec()),
        Take(Stdout),
    ];
    world.run(&script);
    read_logs(&[world.path()])[0].clone()
}

#[test]
fn a_deleted_log_is_made_again_and_a_truncated_one_goes_on() {
    assert_eq!(after_the_log_is_gone(Step::Delete), b"after\n");
    assert_eq!(after_the_log_is_gone(Step::Truncate), b"after\n");
}

/// A pump dies in the middle of a batch, something happens to the log, and another takes over.
fn after_dying_mid_batch(happens: impl Fn(&Path)) -> (World, PathBuf) {
    let script = [
        Says(Stdout, b"settled\n".to_vec()),
        Take(Stdout),
        Says(Stdout, b"in the batch\n".to_vec()),
        Take(Stdout),
    ];
    // The last point of the whole run lies behind the last store: the intent is closed. Look from
    // there back for the first run that leaves a torn line.
    short_writes(20);
    let world = (1..)
        .map(|nth| {
            let mut world = World::new();
            assert!(world.run_and_die(&script, nth), "no kill tears a line");
            world
        })
        .find(|world| {
            let log = std::fs::read(world.path()).unwrap_or_default();
            log.len() > 60 && !log.ends_with(b"\n")
        })
        .unwrap();
    short_writes(usize::MAX);
    let path = world.path();
    happens(&path);
    let mut world = world;
    world.run(&script);
    (world, path)
}

#[test]
fn a_successor_finishes_a_batch_in_the_renamed_file_that_it_began_in() {
    let (_world, path) = after_dying_mid_batch(|path| {
        std::fs::rename(path, path.with_file_name("old")).unwrap();
    });
    assert_eq!(read_logs(&[path.with_file_name("old")])[0], b"settled\nin the batch\n");
    assert_eq!(read_logs(&[path])[0], b"");
}

#[test]
fn a_successor_writes_the_whole_batch_again_if_its_file_is_gone_or_emptied() {
    let (_world, path) = after_dying_mid_batch(|path| std::fs::remove_file(path).unwrap());
    assert_eq!(read_logs(&[path])[0], b"in the batch\n");
    let (_world, path) = after_dying_mid_batch(|path| std::fs::write(path, b"").unwrap());
    assert_eq!(read_logs(&[path])[0], b"in the batch\n");
}

#[test]
fn killed_while_it_is_made_for_the_first_time_a_pump_can_be_made_again() {
    for nth in 1.. {
        let root = tempfile::tempdir().unwrap();
        let make = || Pump::open(&root.path().join("io"), &["a".to_owned(), "b".to_owned()]);
        arm(nth);
        let end = catch_unwind(AssertUnwindSafe(make));
        arm(0);
        let finished = end.is_ok();
        drop(end);
        opened(&root.path().join("io"), &["a", "b"]);
        if finished {
            assert!(nth > 8);
            return;
        }
    }
}

#[test]
fn only_one_pump_works_in_a_directory_and_only_for_its_containers() {
    let world = World::new();
    let io = world.root.path().join("io");
    let pump = Pump::open(&io, &["main".to_owned()]).unwrap();
    let error = Pump::open(&io, &["main".to_owned()]).unwrap_err();
    assert!(matches!(error, PumpError::Busy { .. }));
    drop(pump);
    let error = try_open(&io, &["other"]).unwrap_err();
    assert!(matches!(error, PumpError::Other { .. }));
    opened(&io, &["main"]);
}

#[test]
fn nothing_is_taken_before_there_is_a_log() {
    let world = World::new();
    let mut pump = opened(&world.root.path().join("io"), &["main"]);
    let error = pump.take(Token { container: 0, stream: Stdout }, START).unwrap_err();
    assert_eq!(error.to_string(), "container \"main\" has no log file yet");
    drop(open(pump.fifo_path(0, Stdout), OFlags::RDWR, Mode::empty()).unwrap());
    assert!(rustix::fs::openat(CWD, world.path(), OFlags::RDONLY, Mode::empty()).is_err());
}
