//! What `podshim run` has to say about this host before it begins. It changes nothing.

use bundles::manifest::Object;
use k8s_openapi::api::core::v1::Container;

use crate::pod::compile::containers;

const CPU: &str = "systemd may take limits and shares of cpu away from control groups that it does \
                   not know, as those of pods are in this release";

/// Said once if the objects ask for cpu on a host whose cpu controller systemd switches on and off. (On
/// cgroup v2 pods have scopes.)
pub fn cpu(objects: &[Object]) -> Option<&'static str> {
    let is_v1 = || {
        let version = runtime::cgroup::detect().map(|cgroups| cgroups.version());
        matches!(version, Ok(runtime::cgroup::Version::V1))
    };
    let may_lose = asks_for_cpu(objects) && runtime::cgroup::scope::is_systemd() && is_v1();
    may_lose.then_some(CPU)
}

fn asks_for_cpu(objects: &[Object]) -> bool {
    objects.iter().filter_map(Object::pod_spec).flat_map(containers).any(has_cpu)
}

fn has_cpu(container: &Container) -> bool {
    container.resources.as_ref().is_some_and(|resources| {
        [&resources.limits, &resources.requests]
            .into_iter()
            .flatten()
            .any(|amounts| amounts.contains_key("cpu"))
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(spec: serde_json::Value) -> Object {
        let pod: Pod = serde_json::from_value(serde_json::json!({ "spec": spec })).unwrap();
        Object::Pod(Box::new(pod))
    }

    #[test]
    fn a_limit_or_request_of_cpu_in_any_container_counts_and_memory_does_not() {
        let with = |kind: &str, resource: &str| {
            let greedy =
                serde_json::json!({ "name": "a", "resources": { kind: { resource: "1" } } });
            let modest = serde_json::json!({ "name": "b" });
            [
                pod(serde_json::json!({ "containers": [modest, greedy] })),
                pod(serde_json::json!({ "containers": [modest], "initContainers": [greedy] })),
            ]
        };
        for kind in ["limits", "requests"] {
            assert!(with(kind, "cpu").iter().all(|o| asks_for_cpu(std::slice::from_ref(o))));
            assert!(!asks_for_cpu(&with(kind, "memory")));
        }
    }
}
