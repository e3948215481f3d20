//! What a user is told: phase, conditions, container statuses.

use plan::{At, ContainerState, End, Kind, PodPhase, PodStatus};

use crate::book::{Book, Checked, Own, Stage, must};

/// What was told before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    phase: Option<PodPhase>,
    /// It is not read after each fact: a value may have changed and changed back in between.
    pub seldom: bool,
    /// Value and time of each condition.
    conditions: Vec<(&'static str, String)>,
}

impl Book {
    /// Checks a status against what was told before and against the book.
    pub(crate) fn check_told(&self, at: At, told: &mut Told, status: &PodStatus) -> Checked {
        self.check_phase(told, status.phase)?;
        self.check_conditions(at, told, status)?;
        // Init containers and sidecars are told in spec order, mains by name.
        let mut inits = status.init_container_statuses.iter();
        for (c, own) in self.own.iter().enumerate() {
            let name = self.name(c);
            let shown = match self.pod.containers[c].kind {
                Kind::Main => status.container_statuses.iter().find(|s| s.name == name),
                _ => inits.next().filter(|s| s.name == name),
            };
            let Some(shown) = shown else {
                must!(self, false, "{name} has no status");
                return Ok(());
            };
            self.check_container(c, own, shown)?;
        }
        Ok(())
    }

    fn check_container(&self, c: usize, own: &Own, shown: &plan::ContainerStatus) -> Checked {
        let (container, name) = (&self.pod.containers[c], self.name(c));
        let count = own.starts.saturating_sub(1);
        must!(
            self,
            shown.restart_count == count,
            "restartCount of {name} is {}, not {count}",
            shown.restart_count
        );
        let runs = own.bodies.iter().find(|b| b.stage == Stage::Runs);
        let started = runs.is_some_and(|b| container.kind == Kind::Init || b.started.is_some());
        must!(self, shown.started == started, "{name} is told to be started: {}", shown.started);
        let ready = own.is_ready(container);
        must!(self, shown.ready == ready, "{name} is told to be ready: {}", shown.ready);
        let is_running = matches!(shown.state, ContainerState::Running { .. });
        must!(self, is_running == runs.is_some(), "{name} is told to be {:?}", shown.state);
        if let (ContainerState::Terminated { exit_code, .. }, Some(last)) = (&shown.state, own.last)
        {
            let code = if last.cannot_execute { 128 } else { last.code };
            must!(
                self,
                *exit_code == code,
                "{name} is told to have ended with {exit_code}, not {code}"
            );
        }
        if let ContainerState::Waiting { reason, .. } = &shown.state {
            must!(self, !reason.is_empty(), "{name} waits without a reason");
            let over = own.last.is_some() && (self.ending.is_some() || !self.is_wanted(c));
            let over = over && (self.ending.is_some() || !own.down);
            must!(self, !over, "{name} is told to wait ({reason}), but has ended");
        }
        Ok(())
    }

    fn check_phase(&self, told: &mut Told, phase: PodPhase) -> Checked {
        let expected = self.phase();
        must!(self, phase == expected, "the phase is {phase:?}, not {expected:?}");
        let forward = match told.phase {
            None | Some(PodPhase::Pending) => true,
            Some(PodPhase::Running) => phase != PodPhase::Pending,
            Some(before) => phase == before,
        };
        must!(self, forward, "the phase goes from {:?} to {phase:?}", told.phase);
        told.phase = Some(phase);
        Ok(())
    }

    /// "Succeeded: all mains have ended with 0; Failed: one has not; neither while something lives."
    pub(crate) fn phase(&self) -> PodPhase {
        let mut mains = self.of_kind(Kind::Main).map(|(_, own)| own);
        if !self.is_dead() {
            let all_ran = self.accepted.is_some() && mains.all(|own| own.ran);
            return if all_ran { PodPhase::Running } else { PodPhase::Pending };
        }
        let by_codes = matches!(self.ending, Some((End::Completed | End::Deleted, _)));
        let zero = mains.all(|own| own.last.is_some_and(|last| last.code == 0));
        if by_codes && zero { PodPhase::Succeeded } else { PodPhase::Failed }
    }

    fn check_conditions(&self, at: At, told: &mut Told, status: &PodStatus) -> Checked {
        let first = told.conditions.is_empty();
        for (index, condition) in status.conditions.iter().enumerate() {
            let time = &condition.last_transition_time;
            match told.conditions.get_mut(index) {
                Some(before) if before.0 == condition.status => {
                    let back = told.seldom && *time == at.wall.rfc3339();
                    must!(self, back || before.1 == *time, "the time of {} moves", condition.kind);
                    before.1.clone_from(time);
                }
                Some(before) => {
                    let now = at.wall.rfc3339();
                    must!(self, *time == now, "{} changed at {now}, not at {time}", condition.kind);
                    *before = (condition.status, time.clone());
                }
                // AllContainersRestarting comes later than the others.
                None => {
                    must!(self, first || index == 5, "a condition more: {}", condition.kind);
                    told.conditions.push((condition.status, time.clone()));
                }
            }
        }
        let holds = |kind: &str| {
            status.conditions.iter().find(|c| c.kind == kind).map(|c| c.status == "True")
        };
        if self.accepted.is_none() {
            must!(self, status.conditions.is_empty(), "conditions of a pod that was not accepted");
            return Ok(());
        }
        let mut own = self.own.iter().zip(&self.pod.containers);
        let all = own.all(|(own, k)| k.kind == Kind::Init || own.is_ready(k));
        let ready = all && !matches!(self.phase(), PodPhase::Succeeded | PodPhase::Failed);
        let told = holds("ContainersReady");
        must!(self, told == Some(ready), "the pod's ContainersReady is {told:?}");
        // Nobody here opens a readiness gate.
        let ready = ready && self.pod.gates.is_empty();
        must!(self, holds("Ready") == Some(ready), "the pod's Ready is {:?}", holds("Ready"));
        must!(self, holds("PodScheduled") == Some(true), "PodScheduled is not True");
        let over = holds("AllContainersRestarting").unwrap_or(false);
        must!(self, over == self.starting_over, "AllContainersRestarting is {over}");
        Ok(())
    }
}
