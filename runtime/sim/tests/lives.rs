//! Random lives with a fresh seed, and every life that ever failed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken promise is to stop the test")]

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::thread;

use sim::{Case, Found, Tally};

const LIVES: u64 = 20_000;
const THREADS: u64 = 2;

/// From the operating system, unless `PODSHIM_SIM_SEED` says which.
fn fresh_seed() -> u64 {
    match std::env::var("PODSHIM_SIM_SEED") {
        Ok(seed) => seed.parse().expect("PODSHIM_SIM_SEED is a number"),
        Err(_) => RandomState::new().build_hasher().finish() >> 16,
    }
}

#[test]
fn random_pods_keep_their_promises() {
    let first = fresh_seed();
    println!("seeds {first} to {}", first + LIVES - 1);
    let part = |thread: u64| {
        let mut tally = Tally::default();
        for seed in (first..first + LIVES).skip(usize::try_from(thread).unwrap()).step_by(2) {
            let case = Case::of_seed(seed);
            let outcome = case.live(false);
            tally.add(&outcome.tally);
            if let Some(broken) = outcome.broken {
                let found = Found::of(&case, &broken);
                let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{seed}.json"));
                fs::write(&path, found.write().unwrap()).unwrap();
                panic!(
                    "seed {seed}: {}\n  made small: {}\n  podshim simulate --replay {}\n  (a copy in \
                     runtime/sim/tests/found keeps it)",
                    broken.0,
                    found.broken,
                    path.display()
                );
            }
        }
        tally
    };
    let mut all = Tally::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || part(n))).collect();
        for thread in threads {
            all.add(&thread.join().expect("a broken promise: see above"));
        }
    });
    println!("{} lives, {} faults, {} checks", all.lives, all.faults(), all.checks);
    assert_eq!(all.lives, LIVES);
    // A world in which something never happens proves nothing.
    for (fault, count) in sim::FAULTS.iter().zip(all.faults) {
        assert!(count > 0, "{fault}: never");
    }
    assert_eq!(all.ends.len(), 6, "{:?}", all.ends);
}

#[test]
fn what_once_failed_does_not_fail_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/found");
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let found = Found::read(&fs::read_to_string(&path).unwrap()).unwrap();
        let broken = found.case.live(false).broken;
        assert_eq!(broken, None, "{}", path.display());
        count += 1;
    }
    assert!(count > 0, "nothing in {}", folder.display());
}

#[test]
fn a_seed_gives_the_same_life_again_and_so_does_what_was_written_down_of_it() {
    for seed in 0..300 {
        let case = Case::of_seed(seed);
        let (one, two) = (case.live(true), case.live(false));
        assert_eq!(one.journal, two.journal);
        let script = Some(one.lines);
        let written = Case { script, until_s: Some(case.until_s()), ..case };
        assert_eq!(written.live(false).journal, two.journal, "seed {seed}");
    }
}
