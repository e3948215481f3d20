//! Changing a pod that lives: all of it or nothing.
//!
//! What follows from a new manifest is decided by [`bundles::change`] (what becomes of which
//! container) and by the plan (when). Here limits are written, the pod's file is replaced, and what
//! was made from an old definition keeps what it needs of it: its hooks, its image, its filter.

use std::fs;

use bundles::change::{Change, Effect, between};
use bundles::image::{Hold, Image};
use bundles::resources::{CgroupValues, container_resources, pod_resources};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use plan::{Fact, Life};
use runtime::container::cgroup_name;

use super::compile::{compile, containers};
use super::file::{Definition, OldDefinition, PodFile};
use super::machine::Machine;
use super::sandbox::{ContainerFilter, filters};
use crate::protocol::Reply;

/// A definition that the pod has no more, while something that was made from it exists.
#[derive(Debug)]
pub struct Superseded {
    old: OldDefinition,
    image: Option<Image>,
    pub(super) filter: ContainerFilter,
    /// Keeps the image in the store.
    _hold: Option<Hold>,
}

impl Superseded {
    /// With the image that it named and the filter that follows from it.
    pub fn new(
        old: OldDefinition,
        image: Option<(Image, Hold)>,
        filter: ContainerFilter,
    ) -> Superseded {
        let (image, hold) = image.unzip();
        Superseded { old, image, filter, _hold: hold }
    }
}

/// The limits that a change brings.
#[derive(Default)]
struct Limits {
    steps: Vec<Step>,
    /// What the pod's own group has after them.
    pod: Option<CgroupValues>,
}

/// One control group's limits, as they are and as they are to be.
struct Step {
    /// The container's group; the pod's own if none.
    cgroup: Option<String>,
    /// For messages.
    of: String,
    before: CgroupValues,
    after: CgroupValues,
}

impl Machine {
    /// Makes the pod what a new manifest says; with `check` it only says whether that can be done.
    pub(super) fn change(&mut self, wanted: Definition, check: bool) -> Reply {
        let Definition { pod, objects, always_written, at_start } = wanted;
        let change = match between((&self.file.pod, &self.file.objects), (&pod, &objects)) {
            Ok(None) => return Reply::Changed { changed: false },
            Ok(Some(change)) => change,
            Err(problems) => return Reply::Refused(problems),
        };
        let restarts = |c: usize| change.containers.contains(&(c, Effect::Restart));
        // What does not restart stays what it was made as.
        let merged = |old: &[usize], new: &[usize]| -> Vec<usize> {
            let is = |c: &usize| if restarts(*c) { new.contains(c) } else { old.contains(c) };
            (0..self.pod.containers.len()).filter(is).collect()
        };
        let mut file = PodFile {
            superseded: self.superseded_by(&change),
            always_written: merged(&self.file.always_written, &always_written),
            at_start: merged(&self.file.at_start, &at_start),
            pod: change.pod.clone(),
            objects,
            ..self.file.clone()
        };
        let compiled = compile(&file);
        let of = |(c, effect): &(usize, Effect)| plan::Change {
            c: *c,
            container: compiled.containers[*c].clone(),
            restart: *effect == Effect::Restart,
        };
        let noticed = change.containers.iter().filter(|(_, effect)| *effect != Effect::Nothing);
        let fact = Fact::Changed {
            containers: noticed.map(of).collect(),
            active_deadline_s: compiled
                .active_deadline_s
                .filter(|deadline| self.pod.active_deadline_s != Some(*deadline)),
        };
        if let Some(why) = plan::refusal(&self.pod, &self.state, &fact) {
            return Reply::Error(format!("pod {:?} cannot be changed: {why}", self.pod.name));
        }
        if check {
            return Reply::Changed { changed: true };
        }
        file.changed = Some(fact.clone());
        match self.carry_through(file, &change) {
            Ok(()) => {}
            Err(text) => return Reply::Error(text),
        }
        self.record(fact);
        self.forget_superseded();
        let object = Reply::Pod(Box::new(self.object()));
        self.clients.broadcast(&self.epoll, &object);
        Reply::Changed { changed: true }
    }

    /// All that can fail; when it has, everything is as it was.
    fn carry_through(&mut self, file: PodFile, change: &Change) -> Result<(), String> {
        let path = self.dir.spec();
        let staged = file.stage(&path).map_err(|e| format!("{e:#}"))?;
        let limits = self.limits(change).map_err(|e| runtime::chain(&e));
        let set = limits.and_then(|limits| self.set_limits(&limits.steps).map(|()| limits));
        let limits = set.inspect_err(|_| {
            let _ = fs::remove_file(&staged);
        })?;
        if let Err(e) = fs::rename(&staged, &path) {
            self.undo_limits(&limits.steps);
            let _ = fs::remove_file(&staged);
            return Err(format!("cannot replace {}: {e}", path.display()));
        }
        self.pod_limits = limits.pod;
        self.supersede(&file, change);
        self.file = file;
        Ok(())
    }

    /// Which limits are written, in an order in which the kernel takes them: a container may never
    /// have more than its pod. What is restarted gets its own with its next group; the pod's are
    /// narrowed only when what had the wider ones is gone.
    fn limits(&self, change: &Change) -> Result<Limits, bundles::quantity::QuantityError> {
        let empty = PodSpec::default();
        let old = self.file.pod.spec.as_ref().unwrap_or(&empty);
        let new = change.pod.spec.as_ref().unwrap_or(&empty);
        if self.sandbox.is_none() {
            return Ok(Limits::default());
        }
        let before = match self.pod_limits {
            Some(limits) => limits,
            None => pod_resources(old, &self.host)?,
        };
        let after = pod_resources(new, &self.host)?;
        let wide = before.wider(after);
        let of_pod = |before, after| Step { cgroup: None, of: "the pod".into(), before, after };
        let mut steps = vec![of_pod(before, wide)];
        let resized = change.containers.iter().filter(|(_, effect)| *effect == Effect::Resize);
        for (c, _) in resized {
            let (Some(old), Some(new)) = (containers(old).nth(*c), containers(new).nth(*c)) else {
                continue;
            };
            let (before, after) = (container_resources(old)?, container_resources(new)?);
            let living = self.state.incarnations(*c).iter().filter(|i| i.phase != Life::Exited);
            steps.extend(living.map(|i| Step {
                cgroup: Some(cgroup_name(&new.name, i.inc)),
                of: format!("container {:?}", new.name),
                before,
                after,
            }));
        }
        let restarts = change.containers.iter().any(|(_, effect)| *effect == Effect::Restart);
        let last = if restarts { wide } else { after };
        steps.push(of_pod(wide, last));
        steps.retain(|step| step.before != step.after);
        Ok(Limits { steps, pod: Some(last) })
    }

    fn set_limits(&self, steps: &[Step]) -> Result<(), String> {
        for (done, step) in steps.iter().enumerate() {
            if let Err(text) = self.set_limit(step) {
                self.undo_limits(&steps[..=done]);
                return Err(text);
            }
        }
        Ok(())
    }

    fn set_limit(&self, step: &Step) -> Result<(), String> {
        let Step { cgroup, of, before, after } = step;
        let cgroup = cgroup.as_deref();
        let narrower = after
            .memory_limit_bytes
            .filter(|limit| before.memory_limit_bytes.is_none_or(|before| *limit < before));
        if let Some(limit) = narrower.and_then(|limit| u64::try_from(limit).ok())
            && let Ok(Some(used)) = self.cgroups.memory_in_use(&self.pod_cgroup, cgroup)
            && used > limit
        {
            // On cgroup v2 the kernel would kill instead of refusing.
            return Err(format!(
                "the memory limit of {of} cannot become {}: {} are in use",
                mebibytes(limit),
                mebibytes(used)
            ));
        }
        let set = self.cgroups.set_limits(&self.pod_cgroup, cgroup, after);
        set.map_err(|e| {
            format!("the kernel refuses other resources for {of}: {}", runtime::chain(&e))
        })
    }

    fn undo_limits(&self, steps: &[Step]) {
        for Step { cgroup, before, .. } in steps.iter().rev() {
            if let Err(e) = self.cgroups.set_limits(&self.pod_cgroup, cgroup.as_deref(), before) {
                tracing::error!("{}", runtime::chain(&e));
            }
        }
    }

    /// Whoever was made from an old definition goes on with it.
    fn supersede(&mut self, file: &PodFile, change: &Change) {
        let spec = file.pod.spec.clone().unwrap_or_default();
        let mut filters = filters(&spec, &self.host, &self.layout);
        let restarts = change.containers.iter().filter(|(_, effect)| *effect == Effect::Restart);
        for (c, _) in restarts {
            let c = *c;
            let (image, hold) = (self.images[c].take(), self.holds[c].take());
            let filter = std::mem::replace(
                &mut self.filters[c],
                std::mem::replace(&mut filters[c], ContainerFilter::Unknown),
            );
            self.forget_pulls(c);
            let Some(old) = self.superseded_now(c) else { continue };
            self.superseded.push(Superseded { old, image, filter, _hold: hold });
        }
    }

    /// What container `c` is, if something was made from that.
    fn superseded_now(&self, c: usize) -> Option<OldDefinition> {
        let container = containers(self.file.pod.spec.as_ref()?).nth(c)?.clone();
        let newest = self.state.incarnations(c).iter().map(|i| i.inc).max()?;
        let before = newest.saturating_add(1);
        // One from which nothing was made is superseded by nobody.
        let is_new = self.superseded.iter().all(|s| (s.old.c, s.old.before) != (c, before));
        is_new.then_some(OldDefinition { c, before, container })
    }

    /// All old definitions, once a change has been made.
    fn superseded_by(&self, change: &Change) -> Vec<OldDefinition> {
        let restarts = change.containers.iter().filter(|(_, effect)| *effect == Effect::Restart);
        let now = restarts.filter_map(|(c, _)| self.superseded_now(*c));
        self.superseded.iter().map(|s| s.old.clone()).chain(now).collect()
    }

    /// What incarnation `inc` of container `c` was made from, if the pod has something else now.
    pub(super) fn superseded(&self, c: usize, inc: u32) -> Option<&Superseded> {
        let of = self.superseded.iter().filter(|s| s.old.c == c && inc < s.old.before);
        of.min_by_key(|s| s.old.before)
    }

    /// The container that incarnation `inc` of container `c` was made from.
    pub(super) fn container_of(&self, c: usize, inc: u32) -> Option<&Container> {
        match self.superseded(c, inc) {
            Some(superseded) => Some(&superseded.old.container),
            None => containers(self.file.pod.spec.as_ref()?).nth(c),
        }
    }

    /// The image that it was made from.
    pub(super) fn image_of(&self, c: usize, inc: u32) -> Option<&Image> {
        match self.superseded(c, inc) {
            Some(old) => old.image.as_ref(),
            None => self.images[c].as_ref(),
        }
    }

    /// An incarnation has gone: old definitions that nothing is left of are forgotten, and the pod's
    /// limits become what they are to be once nobody has more.
    pub(super) fn forget_superseded(&mut self) {
        let state = &self.state;
        self.superseded
            .retain(|s| state.incarnations(s.old.c).iter().any(|i| i.inc < s.old.before));
        let Some(before) = self.pod_limits else { return };
        let spec = self.file.pod.spec.as_ref();
        let Some(Ok(after)) = spec.map(|spec| pod_resources(spec, &self.host)) else { return };
        if before == after {
            self.pod_limits = None;
        } else if self.superseded.is_empty() && self.sandbox.is_some() {
            let step = Step { cgroup: None, of: "the pod".into(), before, after };
            match self.set_limit(&step) {
                Ok(()) => self.pod_limits = None,
                // Tried again when the next one goes.
                Err(text) => tracing::warn!("{text}"),
            }
        }
    }
}

/// Bytes as a person writes a limit.
fn mebibytes(bytes: u64) -> String {
    const MEBIBYTE: u64 = 1 << 20;
    if bytes.is_multiple_of(MEBIBYTE) {
        format!("{}Mi", bytes / MEBIBYTE)
    } else {
        format!("{:.1}Mi", bytes as f64 / MEBIBYTE as f64)
    }
}
