//! Random pods: every shape that the heart knows, small and odd ones more often than large ones.

use plan::{Container, Kind, Pod, Probe, PullWhen, RestartPolicy, Rule, RuleAction};

use crate::rng::Rng;

const POLICIES: [RestartPolicy; 3] =
    [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never];

/// Exit codes that processes of this world end with, apart from signals.
pub(crate) const CODES: [i32; 6] = [0, 0, 1, 3, 42, 137];

/// A pod of a seed: up to five init containers and sidecars in any order, and up to three mains.
#[must_use]
pub fn random(seed: u64) -> Pod {
    let mut rng = Rng::of(seed, u64::MAX);
    let before = rng.pick(&[0, 1, 1, 2, 2, 2, 3, 3, 4, 5]);
    let mains = rng.pick(&[1, 1, 1, 2, 2, 3]);
    // How much is written into each container: nothing, a little, a lot.
    let richness = rng.pick(&[0, 10, 25, 25, 50]);
    let mut containers = Vec::new();
    for n in 0..before {
        let kind = if rng.percent(60) { Kind::Sidecar } else { Kind::Init };
        containers.push(container(&mut rng, kind, n, richness));
    }
    for n in 0..mains {
        containers.push(container(&mut rng, Kind::Main, n, richness));
    }
    Pod {
        namespace: "default".into(),
        name: "pod".into(),
        uid: "u".into(),
        restart_policy: policy(&mut rng),
        grace_s: rng.pick(&[0, 1, 2, 3, 5, 5, 10, 30, 60]),
        active_deadline_s: rng.percent(12).then_some(rng.pick(&[1, 10, 60, 400])),
        restart_delay_max_s: if rng.percent(15) { rng.pick(&[1, 7, 60]) } else { 300 },
        gates: if rng.percent(4) { vec!["example.org/gate".into()] } else { Vec::new() },
        containers,
    }
}

/// The pod that the cost of a plan is measured with: ten containers, with everything.
#[must_use]
pub fn of_ten() -> Pod {
    let mut rng = Rng::new(10);
    let kinds = [
        Kind::Init,
        Kind::Sidecar,
        Kind::Sidecar,
        Kind::Sidecar,
        Kind::Init,
        Kind::Sidecar,
        Kind::Sidecar,
    ];
    let mains = [Kind::Main; 3];
    let containers = kinds.into_iter().chain(mains).enumerate().map(|(n, kind)| {
        let runs_on = kind != Kind::Init;
        let probe = |rng: &mut Rng| runs_on.then(|| probe(rng, false));
        Container {
            startup: probe(&mut rng),
            readiness: probe(&mut rng),
            liveness: probe(&mut rng),
            post_start: runs_on,
            pre_stop: runs_on,
            ..container(&mut rng, kind, n, 0)
        }
    });
    Pod { containers: containers.collect(), ..random(10) }
}

fn policy(rng: &mut Rng) -> RestartPolicy {
    let index = usize::try_from(rng.below(3)).unwrap_or(0);
    POLICIES[index.min(2)]
}

fn container(rng: &mut Rng, kind: Kind, n: usize, richness: u64) -> Container {
    let name = match kind {
        Kind::Init => format!("init{n}"),
        Kind::Sidecar => format!("side{n}"),
        Kind::Main => format!("main{n}"),
    };
    let runs_on = kind != Kind::Init;
    let has = |rng: &mut Rng| rng.percent(richness);
    let image = format!("{name}:1");
    Container {
        pull: if has(rng) { PullWhen::EachStart } else { PullWhen::Once },
        policy: (kind != Kind::Sidecar && has(rng)).then(|| policy(rng)),
        rules: if has(rng) { rules(rng) } else { Vec::new() },
        startup: (runs_on && has(rng)).then(|| probe(rng, false)),
        readiness: (runs_on && has(rng)).then(|| Probe { grace_s: None, ..probe(rng, true) }),
        liveness: (runs_on && has(rng)).then(|| probe(rng, false)),
        post_start: runs_on && has(rng),
        pre_stop: runs_on && has(rng),
        notify: runs_on && rng.percent(richness / 2),
        standby: rng.percent(richness / 2),
        at_start: rng.percent(richness / 2),
        ..Container::new(&name, kind, &image)
    }
}

/// What a user makes of container `n` of a pod: its name and kind stay.
pub(crate) fn changed(old: &Container, n: usize, seed: u32) -> Container {
    let mut rng = Rng::new(u64::from(seed));
    let richness = rng.pick(&[0, 10, 25, 50]);
    Container {
        name: old.name.clone(),
        image: format!("{}:{}", old.name, rng.within(2, 9)),
        ..container(&mut rng, old.kind, n, richness)
    }
}

fn probe(rng: &mut Rng, may_want_more: bool) -> Probe {
    Probe {
        initial_delay_s: rng.pick(&[0, 0, 0, 1, 5, 20]),
        period_s: rng.pick(&[1, 1, 2, 3, 10]),
        timeout_s: rng.pick(&[1, 1, 2, 5]),
        failure_threshold: rng.pick(&[1, 1, 2, 3, 4]),
        success_threshold: if may_want_more { rng.pick(&[1, 1, 2, 3]) } else { 1 },
        burst: rng.percent(50),
        grace_s: rng.percent(30).then_some(rng.pick(&[1, 3, 10])),
    }
}

fn rules(rng: &mut Rng) -> Vec<Rule> {
    let count = rng.within(1, 3);
    let rule = |rng: &mut Rng| Rule {
        action: if rng.percent(40) {
            RuleAction::RestartAllContainers
        } else {
            RuleAction::Restart
        },
        within: rng.percent(70),
        codes: (0..rng.within(1, 3)).map(|_| rng.pick(&CODES)).collect(),
    };
    (0..count).map(|_| rule(rng)).collect()
}
