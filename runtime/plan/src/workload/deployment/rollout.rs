//! How many pods each replica set of a deployment is to have (Kubernetes' deployment controller).

use std::cmp::Reverse;

use super::{DeploymentSpec, ReplicaSet, Strategy};

/// What each is to have, in the order in which they came.
pub struct Sizes {
    /// `spec.replicas`.
    pub replicas: Vec<u32>,
    /// It was given its part of the deployment's size, whether or not that is another one.
    pub is_scaled: Vec<bool>,
    /// The template has no set, and is to be given one.
    pub make_set: bool,
}

/// Sizes of the sets, of which so many pods are available each.
pub fn sizes(
    spec: &DeploymentSpec,
    sets: &[ReplicaSet],
    available: &[u32],
    new: Option<usize>,
) -> Sizes {
    let mut rollout = Rollout {
        spec,
        sets,
        available,
        new,
        replicas: sets.iter().map(|set| set.replicas).collect(),
        is_scaled: vec![false; sets.len()],
    };
    let is_scaling = sets.iter().any(|set| {
        set.replicas > 0 && set.scaled_for.is_some_and(|before| before.replicas != spec.replicas)
    });
    let mut make_set = false;
    if spec.is_paused || is_scaling {
        rollout.scale();
        rollout.is_scaled = rollout.replicas.iter().map(|replicas| *replicas > 0).collect();
    } else {
        make_set = match spec.strategy {
            Strategy::RollingUpdate { .. } => rollout.roll(),
            Strategy::Recreate => rollout.recreate(),
        };
    }
    let Rollout { replicas, is_scaled, .. } = rollout;
    Sizes { replicas, is_scaled, make_set }
}

/// The old sets over `revisionHistoryLimit` that have no pods, those with the lowest revisions.
pub fn forgotten(spec: &DeploymentSpec, sets: &[ReplicaSet], new: Option<usize>) -> Vec<usize> {
    let mut old: Vec<usize> = (0..sets.len()).filter(|n| Some(*n) != new).collect();
    old.sort_by_key(|n| sets[*n].revision);
    let surplus = old.len().saturating_sub(spec.history_limit as usize);
    old.truncate(surplus);
    old.retain(|n| sets[*n].replicas == 0 && sets[*n].pods.is_empty());
    old
}

struct Rollout<'a> {
    spec: &'a DeploymentSpec,
    sets: &'a [ReplicaSet],
    available: &'a [u32],
    new: Option<usize>,
    replicas: Vec<u32>,
    is_scaled: Vec<bool>,
}

impl Rollout<'_> {
    fn total(&self) -> u32 {
        self.replicas.iter().fold(0, |sum, replicas| sum.saturating_add(*replicas))
    }

    /// The old sets, oldest first.
    fn old(&self) -> Vec<usize> {
        let mut old: Vec<usize> = (0..self.sets.len()).filter(|n| Some(*n) != self.new).collect();
        old.sort_by_key(|n| (self.sets[*n].created, self.sets[*n].revision));
        old
    }

    /// One step of a rolling update; whether a set is to be made first.
    fn roll(&mut self) -> bool {
        let Some(new) = self.new else { return true };
        let wanted = self.spec.replicas;
        let room = self.spec.most().saturating_sub(self.total());
        let lacking = wanted.saturating_sub(self.replicas[new]);
        self.replicas[new] = self.replicas[new].min(wanted) + room.min(lacking);

        let min_available = self.spec.min_available();
        // Of the new ones, those that are not available yet may not count on the old ones to go.
        let unavailable = self.replicas[new].saturating_sub(self.available[new]);
        let may_go = self.total().saturating_sub(min_available).saturating_sub(unavailable);
        let mut gone = 0;
        for set in self.old() {
            let ill = self.replicas[set].saturating_sub(self.available[set]);
            let going = ill.min(may_go - gone);
            self.replicas[set] -= going;
            gone += going;
        }
        let available: u32 = self.available.iter().sum();
        let mut spare = if may_go == 0 { 0 } else { available.saturating_sub(min_available) };
        for set in self.old() {
            let going = self.replicas[set].min(spare);
            self.replicas[set] -= going;
            spare -= going;
        }
        false
    }

    /// One step of a recreation; whether a set is to be made first.
    fn recreate(&mut self) -> bool {
        let old = self.old();
        let waits = old.iter().any(|set| {
            self.sets[*set].replicas > 0
                || self.sets[*set].pods.iter().any(|pod| !pod.is_terminal())
        });
        old.into_iter().for_each(|set| self.replicas[set] = 0);
        match self.new {
            _ if waits => false,
            None => true,
            Some(new) => {
                self.replicas[new] = self.spec.replicas;
                false
            }
        }
    }

    /// Gives the sets their parts of a size that has changed, or of a rollout that does not go on.
    fn scale(&mut self) {
        let wanted = self.spec.replicas;
        let mut active: Vec<usize> =
            (0..self.sets.len()).filter(|n| self.replicas[*n] > 0).collect();
        let only = match active.as_slice() {
            [] => self.new.or(self.old().last().copied()),
            [only] => Some(*only),
            _ => None,
        };
        if let Some(only) = only {
            self.replicas[only] = wanted;
            return;
        }
        if let Some(new) = self.new.filter(|new| self.is_saturated(*new)) {
            active.into_iter().filter(|n| *n != new).for_each(|n| self.replicas[n] = 0);
            return;
        }
        if self.spec.strategy == Strategy::Recreate {
            return;
        }
        let most = if wanted == 0 { 0 } else { i64::from(self.spec.most()) };
        let to_add = most - i64::from(self.total());
        if to_add == 0 || active.is_empty() {
            return;
        }
        active.sort_by_key(|n| {
            let created = i128::from(self.sets[*n].created.mono.0);
            (Reverse(self.replicas[*n]), if to_add > 0 { -created } else { created })
        });
        let mut sizes = Vec::new();
        let mut added = 0;
        for set in &active {
            let rest = to_add - added;
            let part = self.part(*set);
            let part = if to_add > 0 { part.min(rest) } else { part.max(rest) };
            added += part;
            sizes.push(i64::from(self.replicas[*set]) + part);
        }
        sizes[0] += to_add - added;
        for (set, size) in active.into_iter().zip(sizes) {
            self.replicas[set] = u32::try_from(size.max(0)).unwrap_or(u32::MAX);
        }
    }

    /// The new set is all that there is to be.
    fn is_saturated(&self, new: usize) -> bool {
        let scaled_for = self.sets[new].scaled_for.map(|before| before.replicas);
        let wanted = self.spec.replicas;
        self.replicas[new] == wanted && scaled_for == Some(wanted) && self.available[new] == wanted
    }

    /// By how much a set changes so that it keeps its part of the whole, rounded to the nearest.
    fn part(&self, set: usize) -> i64 {
        let own = i64::from(self.replicas[set]);
        if self.spec.replicas == 0 {
            return -own;
        }
        let whole = i64::from(self.spec.most());
        let before = self.sets[set].scaled_for.map_or(self.total(), |before| before.most);
        let before = i64::from(before.max(1));
        (2 * own * whole + before) / (2 * before) - own
    }
}
