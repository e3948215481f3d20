//! A pod's line in `podshim get pods`, by the rules of `kubectl get pods` (Kubernetes:
//! pkg/printers/internalversion/printers.go, printPod).

use plan::Wall;
use serde_json::Value;

use super::{age, number, old, text};

/// NAME, READY, STATUS, RESTARTS, AGE.
pub fn pod_row(pod: &Value, now: Wall) -> Vec<String> {
    let (ready, total) = ready(pod);
    vec![
        text(pod, "/metadata/name"),
        format!("{ready}/{total}"),
        status(pod),
        restarts(pod, now),
        old(pod, now),
    ]
}

fn list<'a>(pod: &'a Value, pointer: &str) -> &'a [Value] {
    pod.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_sidecar(pod: &Value, name: &Value) -> bool {
    list(pod, "/spec/initContainers")
        .iter()
        .any(|c| c["name"] == *name && c["restartPolicy"] == "Always")
}

/// Mains and sidecars that are ready, and all of them.
fn ready(pod: &Value) -> (usize, usize) {
    let mains = list(pod, "/status/containerStatuses");
    let sidecars =
        list(pod, "/status/initContainerStatuses").iter().filter(|s| is_sidecar(pod, &s["name"]));
    let all: Vec<&Value> = mains.iter().chain(sidecars).collect();
    (all.iter().filter(|s| s["ready"] == true).count(), all.len())
}

/// Whether the init list is through: then restarts are those of mains and sidecars.
fn initialized(pod: &Value) -> bool {
    list(pod, "/status/conditions")
        .iter()
        .any(|c| c["type"] == "Initialized" && c["status"] == "True")
}

fn restarts(pod: &Value, now: Wall) -> String {
    let inits = list(pod, "/status/initContainerStatuses").iter();
    let counted: Vec<&Value> = if initialized(pod) {
        let sidecars = inits.filter(|s| is_sidecar(pod, &s["name"]));
        list(pod, "/status/containerStatuses").iter().chain(sidecars).collect()
    } else {
        inits.collect()
    };
    let sum: u64 = counted.iter().map(|s| number(s, "/restartCount")).sum();
    let newest =
        counted.iter().filter_map(|s| super::seconds(s, "/lastState/terminated/finishedAt")).max();
    match newest {
        Some(at) if sum > 0 => {
            format!("{sum} ({} ago)", age((now.0 / 1_000_000_000).saturating_sub(at)))
        }
        _ => sum.to_string(),
    }
}

fn status(pod: &Value) -> String {
    let phase = text(pod, "/status/phase");
    let reason = text(pod, "/status/reason");
    let mut shown = if reason.is_empty() { phase.clone() } else { reason };
    match init_status(pod) {
        Some(init) if !initialized(pod) => shown = init,
        _ => shown = main_status(pod, shown),
    }
    let deleting = pod.pointer("/metadata/deletionTimestamp").is_some();
    if deleting && !matches!(phase.as_str(), "Succeeded" | "Failed") {
        shown = "Terminating".into();
    }
    shown
}

/// `Init:…` for the first init container that is not done.
fn init_status(pod: &Value) -> Option<String> {
    let statuses = list(pod, "/status/initContainerStatuses");
    for (index, s) in statuses.iter().enumerate() {
        let sidecar = is_sidecar(pod, &s["name"]);
        let terminated = s.pointer("/state/terminated");
        if terminated.is_some_and(|t| t["exitCode"] == 0) || (sidecar && s["started"] == true) {
            continue;
        }
        if let Some(t) = terminated {
            return Some(format!("Init:{}", ended(t)));
        }
        let waiting = text(s, "/state/waiting/reason");
        if !waiting.is_empty() && waiting != "PodInitializing" {
            return Some(format!("Init:{waiting}"));
        }
        return Some(format!("Init:{index}/{}", statuses.len()));
    }
    None
}

/// The first listed main that waits or has ended says why.
fn main_status(pod: &Value, phase: String) -> String {
    let statuses = list(pod, "/status/containerStatuses");
    let said = statuses.iter().find_map(|s| {
        let waiting = text(s, "/state/waiting/reason");
        if !waiting.is_empty() {
            return Some(waiting);
        }
        s.pointer("/state/terminated").map(ended)
    });
    let running =
        statuses.iter().any(|s| s["ready"] == true && s.pointer("/state/running").is_some());
    match said {
        Some(reason) if reason == "Completed" && running => {
            let is_ready = list(pod, "/status/conditions")
                .iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True");
            if is_ready { "Running".into() } else { "NotReady".into() }
        }
        Some(reason) => reason,
        None => phase,
    }
}

fn ended(terminated: &Value) -> String {
    let reason = text(terminated, "/reason");
    if !reason.is_empty() {
        return reason;
    }
    match number(terminated, "/signal") {
        0 => format!("ExitCode:{}", number(terminated, "/exitCode")),
        signal => format!("Signal:{signal}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(init: Value, main: Value) -> Value {
        json!({"metadata": {"name": "p"},
            "spec": {"initContainers": [{"name": "log", "restartPolicy": "Always"}],
                     "containers": [{"name": "app"}]},
            "status": {"phase": "Pending", "initContainerStatuses": [init],
                       "containerStatuses": [main], "conditions": []}})
    }

    #[test]
    fn an_init_container_that_is_not_done_is_what_the_pod_waits_for() {
        let waiting = json!({"name": "log", "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        let main = json!({"name": "app", "state": {"waiting": {"reason": "PodInitializing"}}});
        assert_eq!(status(&pod(waiting, main.clone())), "Init:CrashLoopBackOff");
        let running = json!({"name": "log", "state": {"running": {}}, "started": false});
        assert_eq!(status(&pod(running, main)), "Init:0/1");
    }

    #[test]
    fn a_started_sidecar_counts_in_ready() {
        let sidecar =
            json!({"name": "log", "ready": true, "started": true, "state": {"running": {}}});
        let main = json!({"name": "app", "ready": false, "state": {"waiting": {"reason": "ErrImagePull"}}});
        let pod = pod(sidecar, main);
        assert_eq!(ready(&pod), (1, 2));
        assert_eq!(status(&pod), "ErrImagePull");
    }
}
