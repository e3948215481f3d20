//! A pod's line in `podshim get pods`, step by step as `kubectl get pods` makes it (Kubernetes:
//! pkg/printers/internalversion/printers.go, printPod).

use plan::Wall;
use serde_json::Value;

use super::{age, number, old, text};

/// NAME, READY, STATUS, RESTARTS, AGE.
pub fn pod_row(pod: &Value, now: Wall) -> Vec<String> {
    let seen = Seen::of(pod);
    let restarts = match seen.last_restart {
        Some(at) if seen.restarts > 0 => {
            let ago = age((now.0 / 1_000_000_000).saturating_sub(at));
            format!("{} ({ago} ago)", seen.restarts)
        }
        _ => seen.restarts.to_string(),
    };
    vec![
        text(pod, "/metadata/name"),
        format!("{}/{}", seen.ready, seen.containers),
        seen.status,
        restarts,
        old(pod, now),
    ]
}

/// IP, NODE, NOMINATED NODE, READINESS GATES.
pub fn wide(pod: &Value) -> Vec<String> {
    let or_none = |text: String| if text.is_empty() { "<none>".into() } else { text };
    let gates = list(pod, "/spec/readinessGates");
    let open = gates.iter().filter(|gate| has_condition(pod, &gate["conditionType"])).count();
    let shown = if gates.is_empty() { String::new() } else { format!("{open}/{}", gates.len()) };
    [
        text(pod, "/status/podIPs/0/ip"),
        text(pod, "/spec/nodeName"),
        text(pod, "/status/nominatedNodeName"),
        shown,
    ]
    .map(or_none)
    .into()
}

/// What is found on the way through a pod's containers.
#[derive(Debug, Default)]
struct Seen {
    /// Mains and sidecars.
    containers: usize,
    ready: usize,
    restarts: u64,
    last_restart: Option<u64>,
    status: String,
}

impl Seen {
    fn of(pod: &Value) -> Seen {
        let phase = text(pod, "/status/phase");
        let reason = text(pod, "/status/reason");
        let is_lost = reason == "NodeLost";
        let sidecars = list(pod, "/spec/initContainers").iter().filter(|c| is_sidecar(c)).count();
        let mut seen = Seen {
            containers: list(pod, "/spec/containers").len() + sidecars,
            status: if reason.is_empty() { phase.clone() } else { reason },
            ..Seen::default()
        };
        let initializing = seen.inits(pod);
        if !initializing || has_condition(pod, &"Initialized".into()) {
            seen.mains(pod);
        }
        if pod.pointer("/metadata/deletionTimestamp").is_some() {
            if is_lost {
                seen.status = "Unknown".into();
            } else if !matches!(phase.as_str(), "Succeeded" | "Failed") {
                seen.status = "Terminating".into();
            }
        }
        seen
    }

    /// Up to the first init container that is not done; whether there is one.
    fn inits(&mut self, pod: &Value) -> bool {
        let specs = list(pod, "/spec/initContainers");
        for (index, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
            self.count_restarts(status);
            let sidecar = specs.iter().any(|c| c["name"] == status["name"] && is_sidecar(c));
            let terminated = status.pointer("/state/terminated");
            if terminated.is_some_and(|t| t["exitCode"] == 0) {
                continue;
            }
            if sidecar && status["started"] == true {
                self.ready += usize::from(status["ready"] == true);
                continue;
            }
            let waiting = text(status, "/state/waiting/reason");
            self.status = match terminated {
                Some(terminated) => format!("Init:{}", ended(terminated)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => {
                    format!("Init:{waiting}")
                }
                None => format!("Init:{index}/{}", specs.len()),
            };
            return true;
        }
        false
    }

    /// The first listed main that waits or has ended gives its reason. Of init containers only the
    /// sidecars' restarts count from now on.
    fn mains(&mut self, pod: &Value) {
        let specs = list(pod, "/spec/initContainers");
        (self.restarts, self.last_restart) = (0, None);
        for status in list(pod, "/status/initContainerStatuses") {
            if specs.iter().any(|c| c["name"] == status["name"] && is_sidecar(c)) {
                self.count_restarts(status);
            }
        }
        let mut running = false;
        for status in list(pod, "/status/containerStatuses").iter().rev() {
            self.count_restarts(status);
            let waiting = text(status, "/state/waiting/reason");
            if !waiting.is_empty() {
                self.status = waiting;
            } else if let Some(terminated) = status.pointer("/state/terminated") {
                self.status = ended(terminated);
            } else if status["ready"] == true && status.pointer("/state/running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.status == "Completed" && running {
            let ready = has_condition(pod, &"Ready".into());
            self.status = if ready { "Running" } else { "NotReady" }.into();
        }
    }

    fn count_restarts(&mut self, status: &Value) {
        self.restarts += number(status, "/restartCount");
        let at = super::seconds(status, "/lastState/terminated/finishedAt");
        self.last_restart = self.last_restart.max(at);
    }
}

fn list<'a>(pod: &'a Value, pointer: &str) -> &'a [Value] {
    pod.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn has_condition(pod: &Value, kind: &Value) -> bool {
    list(pod, "/status/conditions").iter().any(|c| c["type"] == *kind && c["status"] == "True")
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

    /// The states of sidecars, then of mains; what else the status has.
    fn pod(sidecars: &[Value], mains: &[Value], status: Value) -> Value {
        let named = |prefix: &str, list: &[Value]| -> Vec<Value> {
            let name = |i: usize| format!("{prefix}{i}");
            list.iter()
                .enumerate()
                .map(|(i, s)| {
                    let mut s = s.clone();
                    s["name"] = name(i).into();
                    s
                })
                .collect()
        };
        let specs = |list: &[Value], policy: Value| -> Vec<Value> {
            list.iter().map(|s| json!({"name": s["name"], "restartPolicy": policy})).collect()
        };
        let (sidecars, mains) = (named("side", sidecars), named("main", mains));
        let mut pod = json!({
            "metadata": {"name": "p"},
            "spec": {"initContainers": specs(&sidecars, "Always".into()), "containers": specs(&mains, Value::Null)},
            "status": {"initContainerStatuses": sidecars, "containerStatuses": mains},
        });
        for (key, value) in status.as_object().into_iter().flatten() {
            pod["status"][key] = value.clone();
        }
        pod
    }

    fn row(pod: &Value) -> Vec<String> {
        // Ten seconds after the newest restart.
        let mut row = pod_row(pod, Wall(1_000_000_010 * 1_000_000_000));
        row.truncate(4);
        row.remove(0);
        row
    }

    const LAST: &str = "2001-09-09T01:46:40Z";
    const BEFORE: &str = "2001-09-09T01:46:30Z";

    fn running(ready: bool, started: bool, restarts: u32, last: &str) -> Value {
        json!({"ready": ready, "started": started, "restartCount": restarts, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": last}}})
    }

    fn waiting(reason: &str) -> Value {
        json!({"ready": false, "started": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}})
    }

    fn terminated(reason: &str, code: i32, restarts: u32) -> Value {
        json!({"ready": false, "started": false, "restartCount": restarts,
            "state": {"terminated": {"reason": reason, "exitCode": code}}})
    }

    /// The cases of Kubernetes' own TestPrintPodWithRestartableInitContainer, and of this project.
    #[test]
    fn a_row_is_what_kubectl_prints() {
        let initialized = |is: &str| json!({"phase": "Running", "conditions": [{"type": "Initialized", "status": is}]});
        let ready = json!({"phase": "Running", "conditions": [
            {"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}]});
        let not_started = running(false, false, 3, LAST);
        let started = running(false, true, 3, LAST);
        for (pod, expected) in [
            (
                pod(&[not_started.clone(), waiting("")], &[waiting("")], initialized("False")),
                ["0/3", "Init:0/2", "3 (10s ago)"],
            ),
            (
                pod(
                    &[started.clone(), running(false, false, 0, "")],
                    &[waiting("")],
                    initialized("False"),
                ),
                ["0/3", "Init:1/2", "3 (10s ago)"],
            ),
            (
                pod(
                    &[started.clone(), running(false, true, 0, "")],
                    &[running(true, true, 4, BEFORE)],
                    initialized("True"),
                ),
                ["1/3", "Running", "7 (10s ago)"],
            ),
            (
                pod(
                    &[terminated("Error", 137, 3), terminated("Error", 137, 0)],
                    &[terminated("Completed", 0, 4)],
                    json!({"phase": "Succeeded", "conditions": [{"type": "Initialized", "status": "True"}]}),
                ),
                ["0/3", "Completed", "7"],
            ),
            // A sidecar that crashed once everything ran: a main that runs takes nothing back.
            (
                pod(
                    &[waiting("CrashLoopBackOff")],
                    &[running(true, true, 0, "")],
                    initialized("True"),
                ),
                ["1/2", "Init:CrashLoopBackOff", "0"],
            ),
            (
                pod(
                    &[waiting("CrashLoopBackOff")],
                    &[waiting("PodInitializing")],
                    initialized("False"),
                ),
                ["0/2", "Init:CrashLoopBackOff", "0"],
            ),
            (
                pod(&[terminated("", 3, 0)], &[waiting("PodInitializing")], initialized("False")),
                ["0/2", "Init:ExitCode:3", "0"],
            ),
            (
                pod(&[running(true, true, 0, "")], &[waiting("ErrImagePull")], initialized("True")),
                ["1/2", "ErrImagePull", "0"],
            ),
            (
                pod(&[], &[terminated("Completed", 0, 0), running(true, true, 0, "")], ready),
                ["1/2", "Running", "0"],
            ),
            (
                pod(
                    &[],
                    &[terminated("Completed", 0, 0), running(true, true, 0, "")],
                    initialized("True"),
                ),
                ["1/2", "NotReady", "0"],
            ),
            (
                pod(
                    &[],
                    &[terminated("Error", 1, 0), terminated("Completed", 0, 0)],
                    initialized("True"),
                ),
                ["0/2", "Error", "0"],
            ),
            (
                pod(&[], &[], json!({"phase": "Failed", "reason": "DeadlineExceeded"})),
                ["0/0", "DeadlineExceeded", "0"],
            ),
        ] {
            assert_eq!(row(&pod), expected, "{pod:#}");
        }
    }

    #[test]
    fn what_is_being_deleted_is_terminating_until_it_has_ended() {
        for (phase, status) in
            [("Running", "Terminating"), ("Pending", "Terminating"), ("Failed", "Failed")]
        {
            let mut pod = pod(&[], &[running(true, true, 0, "")], json!({"phase": phase}));
            pod["metadata"]["deletionTimestamp"] = LAST.into();
            assert_eq!(row(&pod)[1], status);
        }
    }

    #[test]
    fn a_wide_row_has_what_kubectls_has() {
        let bare = pod(&[], &[], json!({}));
        assert_eq!(wide(&bare), ["<none>"; 4]);
        let mut pod = pod(
            &[],
            &[],
            json!({"podIPs": [{"ip": "1.1.1.1"}], "conditions": [
            {"type": "a", "status": "False"}, {"type": "b", "status": "True"}]}),
        );
        pod["spec"]["nodeName"] = "host".into();
        pod["spec"]["readinessGates"] =
            json!([{"conditionType": "a"}, {"conditionType": "b"}, {"conditionType": "c"}]);
        assert_eq!(wide(&pod), ["1.1.1.1", "host", "<none>", "1/3"]);
    }
}
