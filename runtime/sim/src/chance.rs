//! What the world of a seed is like: how fast it is, and how much goes wrong in it.
//!
//! Each life has a temper of its own, from a world where all goes well to one where little does, because
//! a pod that fails everywhere never comes to where the rarer mistakes are.

use plan::{Container, Hook, Kind, Pod, ProbeKind, RestartPolicy};

use crate::choice::{Choice, How};
use crate::pods::CODES;
use crate::rng::Rng;

/// The temper of one life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Temper {
    seed: u64,
    /// Percent of what may fail that does.
    trouble: u64,
    /// How slow things are, from 0 to 3.
    slowness: u64,
    /// How long processes run, from 0 to 3.
    patience: u64,
    /// Percent of stop signals and kills that are not followed at once.
    stubborn: u64,
}

impl Temper {
    pub(crate) fn of_seed(seed: u64) -> Temper {
        let mut rng = Rng::of(seed, u64::MAX - 1);
        Temper {
            seed,
            trouble: rng.pick(&[0, 2, 5, 10, 25, 40]),
            slowness: rng.below(4),
            patience: rng.below(4),
            stubborn: rng.pick(&[0, 20, 50, 80]),
        }
    }

    /// How long the pod is left alone before it is deleted, if nothing has ended it.
    pub(crate) fn until_s(&self) -> u64 {
        let mut rng = Rng::of(self.seed, u64::MAX - 2);
        [rng.within(1, 20), rng.within(10, 100), rng.within(60, 900), rng.within(300, 4000)]
            [usize::try_from(self.patience).unwrap_or(0).min(3)]
    }

    fn delay(&self, rng: &mut Rng) -> u64 {
        match rng.below(8) + 2 * self.slowness {
            0..=3 => 0,
            4..=6 => rng.within(1, 30),
            7..=9 => rng.within(50, 2000),
            10..=12 => rng.within(500, 15_000),
            _ => rng.within(1000, 100_000),
        }
    }

    fn fails(&self, rng: &mut Rng) -> bool {
        rng.percent(self.trouble)
    }

    pub(crate) fn sandbox(&self, rng: &mut Rng) -> Choice {
        let how = match self.fails(rng) {
            true if rng.percent(10) => How::FailsForGood,
            true => How::Fails,
            false => How::Succeeds,
        };
        Choice::new(self.delay(rng), how)
    }

    /// Images and creations.
    pub(crate) fn work(&self, rng: &mut Rng) -> Choice {
        let how = if self.fails(rng) { How::Fails } else { How::Succeeds };
        Choice::new(self.delay(rng), how)
    }

    /// A created process seldom dies before it is started.
    pub(crate) fn waits(&self, rng: &mut Rng) -> Choice {
        match self.fails(rng) && rng.percent(20) {
            true => Choice::new(self.delay(rng), How::DiesOf { signal: 9 }),
            false => Choice::new(0, How::Hangs),
        }
    }

    pub(crate) fn start(&self, rng: &mut Rng) -> Choice {
        let how =
            if self.fails(rng) && rng.percent(40) { How::CannotExecute } else { How::Succeeds };
        let late = if rng.percent(10) { self.delay(rng) } else { rng.below(3) };
        Choice::new(late, how)
    }

    pub(crate) fn life(
        &self,
        rng: &mut Rng,
        container: &Container,
        policy: RestartPolicy,
    ) -> Choice {
        let is_init = container.kind == Kind::Init;
        let runs_on = match container.kind {
            Kind::Init => 3,
            Kind::Main if policy != RestartPolicy::Always => 8,
            _ => 25 + 5 * self.patience,
        };
        if rng.percent(runs_on) {
            return Choice::new(0, How::Hangs);
        }
        let after_ms = match rng.below(4) + self.patience {
            0 => rng.below(3),
            1 | 2 => rng.within(1, 3000),
            3 => rng.within(500, 30_000),
            4 => rng.within(5000, 200_000),
            _ => rng.within(300_000, 900_000),
        };
        let after_ms = if is_init { after_ms.min(20_000) } else { after_ms };
        let how = match rng.below(100) {
            0..=2 => How::RunsOutOfMemory { code: rng.pick(&[137, 0, 1]) },
            3..=6 => How::DiesOf { signal: rng.pick(&[9, 11, 6, 15]) },
            7..=55 if is_init => How::Exits { code: 0 },
            7..=30 => How::Exits { code: 0 },
            _ => How::Exits { code: rng.pick(&CODES) },
        };
        Choice::new(after_ms, how)
    }

    pub(crate) fn signal(&self, rng: &mut Rng) -> Choice {
        if rng.percent(self.stubborn / 2) {
            return Choice::new(0, How::Ignores);
        }
        let how = match rng.below(4) {
            0 => How::Exits { code: 0 },
            1 => How::Exits { code: 3 },
            2 => How::Exits { code: 143 },
            _ => How::DiesOf { signal: 15 },
        };
        let after_ms =
            if rng.percent(self.stubborn) { rng.within(100, 40_000) } else { rng.below(5) };
        Choice::new(after_ms, how)
    }

    pub(crate) fn kill(&self, rng: &mut Rng) -> Choice {
        let after_ms = match rng.percent(self.stubborn / 4) {
            true => rng.within(1000, 60_000),
            false => rng.below(4),
        };
        Choice::new(after_ms, How::Succeeds)
    }

    pub(crate) fn probe(&self, rng: &mut Rng, c: usize, kind: ProbeKind, timeout_s: u32) -> Choice {
        // A probe has a character of its own, else none would ever fail three times in a row.
        let mut own = Rng::of(self.seed ^ 0x70, (c as u64) << 2 | kind as u64);
        let health = match self.trouble {
            0 => 100,
            1..=5 => own.pick(&[0, 50, 90, 100, 100]),
            _ => own.pick(&[0, 0, 20, 50, 70, 90, 100]),
        };
        if rng.percent(self.trouble / 2) {
            return match rng.percent(50) {
                true => Choice::new(self.delay(rng).min(2000), How::Errs),
                false => Choice::new(u64::from(timeout_s) * 1000, How::Hangs),
            };
        }
        let how = if rng.percent(health) { How::Succeeds } else { How::Fails };
        Choice::new(self.delay(rng).min(u64::from(timeout_s) * 1000), how)
    }

    pub(crate) fn hook(&self, rng: &mut Rng, hook: Hook) -> Choice {
        let how = match rng.percent(self.trouble) {
            true if rng.percent(50) => How::Hangs,
            true => How::Fails,
            false => How::Succeeds,
        };
        let after_ms = match hook {
            Hook::PostStart => self.delay(rng),
            Hook::PreStop => rng.pick(&[0, 1, 500, 999, 1000, 1001, 3500, 9999, 30_000]),
        };
        Choice::new(after_ms, how)
    }

    pub(crate) fn notify(&self, rng: &mut Rng) -> Choice {
        let how = match rng.below(10) {
            0 => How::Hangs,
            1 | 2 => How::Twice,
            _ => How::Succeeds,
        };
        Choice::new(self.delay(rng), how)
    }

    /// How many things users do, and how often podshim dies, facts are told twice, the clock jumps and
    /// the timer is late.
    pub(crate) fn strokes(&self) -> [u32; 5] {
        let mut rng = Rng::of(self.seed, u64::MAX - 3);
        let users = rng.pick(&[0, 0, 1, 1, 2, 3, 5]);
        if self.trouble == 0 {
            return [users, 0, 0, 0, 0];
        }
        let crashes = rng.pick(&[0, 0, 0, 0, 1, 1, 2]);
        [users, crashes, rng.pick(&[0, 2, 5]), rng.pick(&[0, 0, 3]), rng.pick(&[0, 0, 0, 4])]
    }

    pub(crate) fn user(&self, rng: &mut Rng, pod: &Pod) -> Choice {
        let until_ms = self.until_s() * 1000;
        let early = rng.percent(40);
        let after_ms = if early { rng.below(5000) } else { rng.below(until_ms) };
        let after_ms = if rng.percent(30) { after_ms / 1000 * 1000 } else { after_ms };
        let containers = pod.containers.len() as u64;
        let container = |rng: &mut Rng| usize::try_from(rng.below(containers)).unwrap_or(0);
        let how = match rng.below(19) {
            0..=2 => How::Delete { grace_s: None },
            3..=5 => How::Delete { grace_s: Some(rng.pick(&[0, 0, 1, 2, 3, 10, 40])) },
            6 => How::KillAll,
            7..=9 => How::Restart { c: container(rng) },
            10..=12 => {
                let seed = u32::try_from(rng.below(1 << 20)).unwrap_or(0);
                How::Change { c: container(rng), seed }
            }
            13 if rng.percent(50) => How::NewImage { c: container(rng) },
            13 => How::Resize { c: container(rng) },
            14 => How::Deadline { seconds: rng.pick(&[1, 20, 300]) },
            18 if rng.percent(50) => How::ShutDown,
            18 => How::Reboot,
            15 => How::StartAgain { c: container(rng) },
            _ => How::Stop { c: container(rng) },
        };
        Choice::new(after_ms, how)
    }

    pub(crate) fn crash(&self, rng: &mut Rng) -> Choice {
        let action = if rng.percent(70) { rng.below(30) } else { rng.below(120) };
        Choice::new(
            action,
            if rng.percent(50) { How::BeforeTheAction } else { How::AfterTheAction },
        )
    }

    pub(crate) fn double(&self, rng: &mut Rng) -> Choice {
        let later = rng.pick(&[0, 0, 1, 3, 30]);
        Choice::new(rng.below(100), How::By { seconds: later })
    }

    pub(crate) fn jump(&self, rng: &mut Rng) -> Choice {
        let year = 31_536_000;
        let seconds = rng.pick(&[year, -year, 3600, -3600, 1, -1]);
        Choice::new(rng.below(100), How::By { seconds })
    }

    pub(crate) fn oversleep(&self, rng: &mut Rng) -> Choice {
        Choice::new(rng.below(40), How::By { seconds: rng.pick(&[1, 1, 2, 5, 30]) })
    }
}
