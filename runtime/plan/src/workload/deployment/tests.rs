//! What a deployment plans, of one moment, and of a host on which the plan is done and pods get on by chance.

use super::super::Phase;
use super::*;
use crate::time::Wall;

fn at(seconds: u64) -> At {
    At { mono: Mono(seconds * Mono::SECOND), wall: Wall(seconds * Mono::SECOND) }
}

fn pod(uid: &str, phase: Phase, ready: bool, created: u64) -> WorkloadPod {
    WorkloadPod {
        uid: uid.into(),
        name: uid.into(),
        owner: String::new(),
        phase,
        deleting: false,
        created: at(created),
        finished: None,
        restarts: 0,
        ready: ready.then(|| at(created)),
        deletion_cost: 0,
        exit_code: 0,
    }
}

fn spec(replicas: u32) -> DeploymentSpec {
    let quarter = Amount::Percent(25);
    DeploymentSpec {
        replicas,
        strategy: Strategy::rolling(replicas, quarter, quarter),
        min_ready_s: 0,
        progress_deadline_s: Some(600),
        history_limit: 10,
        is_paused: false,
    }
}

fn set(name: &str, revision: u64, replicas: u32, pods: &[WorkloadPod]) -> ReplicaSet {
    ReplicaSet {
        name: name.into(),
        revision,
        created: at(revision),
        replicas,
        scaled_for: None,
        pods: pods.to_vec(),
    }
}

/// Of one set that has so many.
fn planned(replicas: u32, pods: &[WorkloadPod]) -> SetPlan {
    let plan =
        plan(&spec(replicas), &[set("web-1", 1, 0, pods)], Some(0), &Before::default(), at(9));
    plan.sets[0].clone()
}

/// A host: what is planned is done, and how pods get on is the test's.
struct Host {
    spec: DeploymentSpec,
    sets: Vec<ReplicaSet>,
    template: String,
    before: Before,
    now: u64,
    made: u32,
    /// Pods of these templates never get ready.
    broken: Vec<String>,
}

impl Host {
    fn new(spec: DeploymentSpec) -> Host {
        let (sets, broken) = (Vec::new(), Vec::new());
        let before = Before::default();
        Host { spec, sets, template: "a".into(), before, now: 100, made: 0, broken }
    }

    /// Plans and does, once.
    fn turn(&mut self) -> DeploymentPlan {
        loop {
            let new = self.sets.iter().position(|set| set.name == self.template);
            let plan = plan(&self.spec, &self.sets, new, &self.before, at(self.now));
            if plan.make_set {
                self.sets
                    .push(ReplicaSet { created: at(self.now), ..set(&self.template, 0, 0, &[]) });
                continue;
            }
            for (set, plan) in self.sets.iter_mut().zip(&plan.sets) {
                set.replicas = plan.replicas;
                set.revision = plan.revision;
                set.scaled_for = plan.scaled_for;
                for pod in &mut set.pods {
                    pod.deleting |= plan.delete.contains(&pod.uid);
                }
                for _ in 0..plan.create {
                    self.made += 1;
                    let uid = format!("{}{}", set.name, self.made);
                    set.pods.push(pod(&uid, Phase::Pending, false, self.now));
                }
            }
            self.sets.retain(|set| !plan.sets.iter().any(|p| p.name == set.name && p.remove));
            self.before = plan.noted.clone();
            return plan;
        }
    }

    /// The pod of this number of all that can, gets ready or goes.
    fn happen(&mut self, chance: usize) -> bool {
        self.now += 1;
        let (now, broken) = (self.now, self.broken.clone());
        let mut can = Vec::new();
        for (s, set) in self.sets.iter().enumerate() {
            for (p, pod) in set.pods.iter().enumerate() {
                if pod.deleting || (pod.ready.is_none() && !broken.contains(&set.name)) {
                    can.push((s, p));
                }
            }
        }
        if can.is_empty() {
            return false;
        }
        let (s, p) = can[chance % can.len()];
        let pod = &mut self.sets[s].pods[p];
        if pod.deleting {
            self.sets[s].pods.remove(p);
        } else {
            (pod.phase, pod.ready) = (Phase::Running, Some(at(now)));
        }
        true
    }

    fn settle(&mut self) -> DeploymentPlan {
        while {
            self.turn();
            self.happen(0)
        } {}
        self.turn()
    }

    fn sizes(&self) -> Vec<(&str, u32)> {
        self.sets.iter().map(|set| (set.name.as_str(), set.replicas)).collect()
    }

    fn reasons(&self) -> Vec<&'static str> {
        self.before.conditions().iter().map(|condition| condition.reason).collect()
    }

    fn available(&self) -> usize {
        let pods = self.sets.iter().flat_map(|set| &set.pods);
        pods.filter(|pod| self.spec.is_available(pod, at(self.now))).count()
    }

    fn working(&self) -> usize {
        self.sets.iter().flat_map(|set| &set.pods).filter(|pod| pod.is_active()).count()
    }
}

#[test]
fn missing_replicas_are_made_and_ended_ones_replaced() {
    let pods = [pod("a", Phase::Running, true, 1), pod("b", Phase::Failed, false, 2)];
    assert_eq!(planned(3, &pods).create, 2);
}

#[test]
fn a_pod_that_was_deleted_is_replaced_at_once() {
    let mut leaving = pod("a", Phase::Running, true, 1);
    leaving.deleting = true;
    assert_eq!(planned(1, &[leaving]).create, 1);
}

#[test]
fn of_too_many_the_least_useful_goes() {
    let mut cheap = pod("cheap", Phase::Running, true, 1);
    cheap.deletion_cost = -1;
    let pods = [
        pod("old", Phase::Running, true, 1),
        pod("new", Phase::Running, true, 9),
        pod("unready", Phase::Running, false, 2),
        cheap,
        pod("pending", Phase::Pending, false, 3),
    ];
    assert_eq!(planned(4, &pods).delete, ["pending"]);
    assert_eq!(planned(1, &pods).delete, ["pending", "unready", "cheap", "new"]);
}

#[test]
fn it_is_available_when_three_quarters_are_ready() {
    let mut four: Vec<_> = ["a", "b", "c", "d"].map(|uid| pod(uid, Phase::Running, true, 1)).into();
    for (unready, reasons) in [
        (0, ["MinimumReplicasAvailable", "NewReplicaSetAvailable"]),
        (1, ["MinimumReplicasAvailable", "ReplicaSetUpdated"]),
        (2, ["MinimumReplicasUnavailable", "ReplicaSetUpdated"]),
    ] {
        four[..unready].iter_mut().for_each(|pod| pod.ready = None);
        let sets = [set("web-1", 1, 4, &four)];
        let plan = plan(&spec(4), &sets, Some(0), &Before::default(), at(9));
        let said: Vec<_> = plan.status.conditions.iter().map(|c| c.reason).collect();
        assert_eq!(said, reasons, "{unready}");
    }
}

#[test]
fn surge_is_rounded_up_and_unavailable_down_and_never_both_are_none() {
    let rolling = |surge, unavailable| Strategy::RollingUpdate { surge, unavailable };
    let of = |replicas, surge, unavailable| {
        Strategy::rolling(replicas, Amount::Percent(surge), Amount::Percent(unavailable))
    };
    assert_eq!(of(10, 25, 25), rolling(3, 2));
    assert_eq!(of(1, 25, 25), rolling(1, 0));
    assert_eq!(of(3, 0, 25), rolling(0, 1));
    assert_eq!(of(0, 25, 25), rolling(0, 1));
    assert_eq!(Strategy::rolling(4, Amount::Pods(0), Amount::Pods(2)), rolling(0, 2));
}

#[test]
fn a_new_template_is_rolled_out_and_never_are_there_too_many_or_too_few() {
    let amounts = [Amount::Pods(0), Amount::Pods(1), Amount::Percent(25), Amount::Percent(100)];
    let mut chance = 1_usize;
    for replicas in [1, 2, 3, 5, 10] {
        for (surge, unavailable) in amounts.iter().flat_map(|a| amounts.map(|b| (*a, b))) {
            let strategy = Strategy::rolling(replicas, surge, unavailable);
            let mut host = Host::new(DeploymentSpec { strategy, ..spec(replicas) });
            host.settle();
            let Strategy::RollingUpdate { surge, unavailable } = strategy else { unreachable!() };
            // A third template comes while the second is on its way.
            for (template, turns) in [("b", 3), ("c", usize::MAX)] {
                host.template = template.into();
                for _ in 0..turns {
                    host.turn();
                    assert!(host.working() <= (replicas + surge) as usize, "{strategy:?}");
                    let least = replicas.saturating_sub(unavailable) as usize;
                    assert!(host.available() >= least, "{strategy:?} of {replicas}");
                    chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    if !host.happen(chance >> 33) {
                        break;
                    }
                }
            }
            assert_eq!(host.sizes(), [("a", 0), ("b", 0), ("c", replicas)], "{strategy:?}");
            assert_eq!(host.reasons(), ["MinimumReplicasAvailable", "NewReplicaSetAvailable"]);
            assert_eq!(host.sets.iter().map(|set| set.revision).collect::<Vec<_>>(), [1, 2, 3]);
        }
    }
}

#[test]
fn a_template_that_never_gets_ready_leaves_the_old_pods_and_is_late() {
    let mut host = Host::new(spec(4));
    host.settle();
    host.broken = vec!["b".into()];
    host.template = "b".into();
    let plan = host.settle();
    assert_eq!(host.sizes(), [("a", 3), ("b", 2)]);
    let late = plan.wake_at.unwrap();
    assert!(late > at(host.now).mono);
    host.now = late.0 / Mono::SECOND - 1;
    host.turn();
    assert_eq!(host.reasons()[1], "ReplicaSetUpdated");
    host.now += 1;
    assert_eq!(host.turn().wake_at, None);
    assert_eq!(host.reasons()[1], "ProgressDeadlineExceeded");
    // Back to what was: the set of it is taken again, under a new number.
    host.template = "a".into();
    host.settle();
    assert_eq!(host.sizes(), [("a", 4), ("b", 0)]);
    assert_eq!((host.sets[0].revision, host.sets[1].revision), (3, 2));
    assert_eq!(host.reasons()[1], "NewReplicaSetAvailable");
}

#[test]
fn recreate_waits_until_the_last_old_pod_has_gone() {
    let mut host = Host::new(DeploymentSpec { strategy: Strategy::Recreate, ..spec(2) });
    host.settle();
    host.template = "b".into();
    host.turn();
    assert_eq!(host.sizes(), [("a", 0)]);
    host.happen(0);
    host.turn();
    assert_eq!((host.sizes(), host.working()), (vec![("a", 0)], 0));
    host.settle();
    assert_eq!(host.sizes(), [("a", 0), ("b", 2)]);
    assert_eq!(host.working(), 2);
}

#[test]
fn a_pod_is_available_after_it_has_been_ready_for_so_long() {
    let mut host = Host::new(DeploymentSpec { min_ready_s: 30, ..spec(1) });
    host.turn();
    host.happen(0);
    let plan = host.turn();
    assert_eq!(host.reasons(), ["MinimumReplicasUnavailable", "ReplicaSetUpdated"]);
    assert_eq!(plan.wake_at, Some(at(host.now + 30).mono));
    host.now += 30;
    host.turn();
    assert_eq!(host.reasons(), ["MinimumReplicasAvailable", "NewReplicaSetAvailable"]);
}

#[test]
fn a_paused_rollout_stays_as_it_is_and_is_scaled_in_proportion() {
    let mut host = Host::new(spec(10));
    host.settle();
    (host.template, host.broken) = ("b".into(), vec!["b".into()]);
    host.settle();
    assert_eq!(host.sizes(), [("a", 8), ("b", 5)]);
    host.spec = DeploymentSpec { is_paused: true, ..spec(10) };
    host.template = "c".into();
    host.settle();
    assert_eq!(host.sizes(), [("a", 8), ("b", 5)]);
    assert_eq!(host.reasons()[1], "DeploymentPaused");
    // 8 and 5 of 13 are 15 and 10 of 25: the example of Kubernetes' documentation on proportional scaling.
    host.spec = DeploymentSpec { is_paused: true, ..spec(20) };
    host.settle();
    assert_eq!(host.sizes(), [("a", 15), ("b", 10)]);
    host.spec = DeploymentSpec { is_paused: true, ..spec(0) };
    host.settle();
    assert_eq!(host.sizes(), [("a", 0), ("b", 0)]);
    host.spec = spec(2);
    host.turn();
    assert_eq!(host.reasons()[1], "DeploymentResumed");
    host.settle();
    assert_eq!(host.sizes(), [("a", 0), ("b", 0), ("c", 2)]);
}

#[test]
fn one_that_is_paused_from_the_beginning_has_no_pods_until_it_is_resumed() {
    let mut host = Host::new(DeploymentSpec { is_paused: true, ..spec(2) });
    host.settle();
    assert_eq!((host.sizes(), host.working()), (vec![], 0));
    host.spec.is_paused = false;
    host.settle();
    assert_eq!(host.sizes(), [("a", 2)]);
}

#[test]
fn a_rollout_under_way_is_scaled_in_proportion_and_goes_on() {
    let mut host = Host::new(spec(10));
    host.settle();
    (host.template, host.broken) = ("b".into(), vec!["b".into()]);
    host.settle();
    host.spec = spec(20);
    host.turn();
    assert_eq!(host.sizes(), [("a", 15), ("b", 10)]);
    host.broken.clear();
    host.settle();
    assert_eq!(host.sizes(), [("a", 0), ("b", 20)]);
}

#[test]
fn old_templates_over_the_limit_are_forgotten() {
    let mut host = Host::new(DeploymentSpec { history_limit: 2, ..spec(1) });
    for template in ["a", "b", "c", "b", "d"] {
        host.template = template.into();
        host.settle();
    }
    let revisions: Vec<_> = host.sets.iter().map(|set| (set.name.as_str(), set.revision)).collect();
    assert_eq!(revisions, [("b", 4), ("c", 3), ("d", 5)]);
}
