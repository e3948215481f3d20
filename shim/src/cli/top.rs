//! `podshim top pod`: what containers use.

use std::collections::BTreeMap;
use std::time::Duration;

use bundles::layout::Layout;

use super::table::columns;
use super::terminal::{Output, complain, tell};
use super::{Connection, FAILED, PodRef, TopArgs, find_pod, one_line, pods};
use crate::protocol::{ContainerUsage, Reply, Request};

/// Between the two looks that a rate takes.
const INTERVAL: Duration = Duration::from_millis(1000);

/// Prints a line for each pod, or with `--containers` for each container.
pub fn top(layout: &Layout, args: &TopArgs) -> anyhow::Result<i32> {
    if !matches!(args.kind.as_str(), "pod" | "pods" | "po") {
        anyhow::bail!("only pods are measured, not {:?}: write `top pod`", args.kind);
    }
    let wanted: Vec<PodRef> = match &args.name {
        Some(name) => vec![find_pod(layout, &args.namespace, name)?],
        None => pods(layout)?.into_iter().filter(|p| p.namespace == args.namespace).collect(),
    };
    if wanted.is_empty() {
        tell("No resources found\n");
        return Ok(0);
    }
    let (before, silent) = look(layout, &wanted);
    let wanted: Vec<&PodRef> = wanted.iter().filter(|pod| before.contains_key(&pod.name)).collect();
    if !wanted.is_empty() {
        std::thread::sleep(INTERVAL);
    }
    let (after, silent_now) = look(layout, wanted);
    if !after.is_empty() {
        let mut output = Output::default();
        output.write(columns(&rows(&before, &after, args.containers)).as_bytes());
        output.end()?;
    }
    Ok(if silent || silent_now { FAILED } else { 0 })
}

/// What each container of each pod uses, by the pod's name, and whether a pod does not answer.
type Usages = BTreeMap<String, Vec<ContainerUsage>>;

fn look<'a>(layout: &Layout, pods: impl IntoIterator<Item = &'a PodRef>) -> (Usages, bool) {
    let mut usages = Usages::new();
    let mut silent = false;
    for pod in pods {
        match usage(layout, pod) {
            Ok(usage) => {
                usages.insert(pod.name.clone(), usage);
            }
            // It has ended meanwhile.
            Err(_) if !layout.name(&pod.namespace, &pod.name).is_symlink() => {}
            Err(e) => {
                complain(&one_line(&e));
                silent = true;
            }
        }
    }
    (usages, silent)
}

fn usage(layout: &Layout, pod: &PodRef) -> anyhow::Result<Vec<ContainerUsage>> {
    match Connection::open(layout, pod)?.ask(&Request::Usage)? {
        Reply::Usage(usage) => Ok(usage),
        other => anyhow::bail!("unexpected answer: {other:?}"),
    }
}

fn rows(before: &Usages, after: &Usages, each: bool) -> Vec<Vec<String>> {
    let head: &[&str] = if each {
        &["POD", "NAME", "CPU(cores)", "MEMORY(bytes)"]
    } else {
        &["NAME", "CPU(cores)", "MEMORY(bytes)"]
    };
    let mut rows = vec![head.iter().map(ToString::to_string).collect()];
    for (pod, new) in after {
        let old: BTreeMap<_, _> =
            before.get(pod).into_iter().flatten().map(|u| ((&u.container, u.inc), u)).collect();
        let cores = |usage: &ContainerUsage| -> Option<u64> {
            let earlier = old.get(&(&usage.container, usage.inc));
            let (used, since) = earlier.map_or((0, 0), |e| (e.cpu_ns.unwrap_or(0), e.at.0));
            let elapsed = usage.at.0.saturating_sub(since).max(1);
            Some(usage.cpu_ns?.saturating_sub(used).saturating_mul(1000).div_ceil(elapsed))
        };
        if each {
            rows.extend(new.iter().map(|usage| {
                let (pod, name) = (pod.clone(), usage.container.clone());
                vec![pod, name, milli(cores(usage)), mebi(usage.memory_bytes)]
            }));
        } else {
            let cpu = new.iter().map(cores).collect::<Option<Vec<u64>>>();
            let memory = new.iter().map(|u| u.memory_bytes).collect::<Option<Vec<u64>>>();
            let sum = |list: Option<Vec<u64>>| list.map(|l| l.iter().sum());
            rows.push(vec![pod.clone(), milli(sum(cpu)), mebi(sum(memory))]);
        }
    }
    rows
}

/// Thousandths of a processor; `<unknown>` if nothing counts them.
fn milli(value: Option<u64>) -> String {
    value.map_or_else(|| "<unknown>".into(), |m| format!("{m}m"))
}

fn mebi(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "<unknown>".into(), |b| format!("{}Mi", b >> 20))
}

#[cfg(test)]
mod tests {
    use plan::Mono;

    use super::*;

    fn used(container: &str, inc: u32, at_s: u64, cpu_ms: u64) -> ContainerUsage {
        ContainerUsage {
            container: container.into(),
            inc,
            at: Mono(at_s * 1_000_000_000),
            cpu_ns: Some(cpu_ms * 1_000_000),
            memory_bytes: Some(3 << 20),
        }
    }

    #[test]
    fn a_rate_is_between_two_looks_at_the_same_incarnation() {
        let before = [("p".into(), vec![used("a", 0, 10, 5000), used("b", 0, 10, 100)])].into();
        let after = [("p".into(), vec![used("a", 0, 12, 6000), used("b", 1, 12, 24)])].into();
        let each = rows(&before, &after, true);
        assert_eq!(each[1], ["p", "a", "500m", "3Mi"]);
        assert_eq!(each[2], ["p", "b", "2m", "3Mi"], "a new one has its own life only");
        assert_eq!(rows(&before, &after, false)[1], ["p", "502m", "6Mi"]);
    }
}
