//! What is stored of a pod of which nothing lives any more, because the host was booted anew: until its new shim
//! says how it is, nobody is to take what was for what is.

use plan::Wall;
use serde_json::{Value, json};

/// The pod with nothing of it ready.
pub fn unready(mut pod: Value, now: Wall) -> Value {
    let Some(status) = pod.get_mut("status") else { return pod };
    for list in ["initContainerStatuses", "containerStatuses"] {
        let containers = status.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter(|c| c["state"]["running"].is_object()) {
            container["ready"] = json!(false);
            container["started"] = json!(false);
        }
    }
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter(|c| c["status"] == "True") {
        let reason = match condition["type"].as_str() {
            Some("Ready" | "ContainersReady") => Some("ContainersNotReady"),
            Some("PodReadyToStartContainers") => None,
            _ => continue,
        };
        condition["status"] = json!("False");
        condition["lastTransitionTime"] = json!(now.rfc3339());
        if let Some(reason) = reason {
            condition["reason"] = json!(reason);
            condition["message"] = json!("the pod has not been started since the host was booted");
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_not_ready_and_what_has_completed_stays() {
        let pod = json!({"status": {
            "phase": "Running",
            "conditions": [
                {"type": "PodReadyToStartContainers", "status": "True"},
                {"type": "Initialized", "status": "True"},
                {"type": "Ready", "status": "True"},
                {"type": "ContainersReady", "status": "False", "lastTransitionTime": "before"},
            ],
            "initContainerStatuses": [
                {"ready": true, "state": {"terminated": {}}},
                {"ready": true, "started": true, "state": {"running": {}}},
            ],
            "containerStatuses": [{"ready": true, "started": true, "state": {"running": {}}}],
        }});
        let found = unready(pod, Wall(0));
        let of = |at: usize| &found["status"]["conditions"][at];
        let values: Vec<&Value> = (0..4).map(|at| &of(at)["status"]).collect();
        assert_eq!(values, ["False", "True", "False", "False"]);
        assert_eq!(of(2)["reason"], "ContainersNotReady");
        assert_eq!(of(2)["lastTransitionTime"], "1970-01-01T00:00:00Z");
        assert_eq!(of(3)["lastTransitionTime"], "before");
        let status = &found["status"];
        assert_eq!(status["initContainerStatuses"][0]["ready"], true);
        assert_eq!(status["initContainerStatuses"][1]["ready"], false);
        assert_eq!(status["containerStatuses"][0]["started"], false);
        let new = json!({"kind": "Pod"});
        assert_eq!(unready(new.clone(), Wall(0)), new);
    }
}
