//! A pod that runs and a manifest for it that is another one now: what follows for which container,
//! or why it cannot be done.
//!
//! More can change than the API server lets: what a container *is* can be taken down and made again
//! without its pod. What the pod is (its volumes, namespaces, order, policies) cannot, and then
//! nothing is changed at all. The rules for resources are those of KEP-1287 as far as a host has them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::manifest::span::Path;
use crate::objects::Objects;
use crate::quantity::QuantityError;
use crate::references::{self, Reference};
use crate::resources::{all_containers, limit, qos, request};

/// What a manifest has become.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The pod as it is to be.
    pub pod: Pod,
    /// Each container that is another one, by its index (init containers first).
    pub containers: Vec<(usize, Effect)>,
}

/// What follows for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is stopped, and started as what it is now.
    Restart,
    /// Its limits are written anew while it runs.
    Resize,
    /// Nothing that it or its control group would notice.
    Nothing,
}

/// What is kept at most of all that is wrong.
const PROBLEMS_MAX: usize = 20;
/// The annotations of ours.
const PREFIX: &str = "podshim.dev/";

/// Compares a pod that runs with what it is to be, each with the ConfigMaps and Secrets that it
/// refers to. `None` if there is no difference.
///
/// # Errors
/// Why it cannot become that: a sentence each, in the API server's manner.
pub fn between(
    (old, old_objects): (&Pod, &Objects),
    (new, new_objects): (&Pod, &Objects),
) -> Result<Option<Change>, Vec<String>> {
    let empty = PodSpec::default();
    let old_spec = old.spec.as_ref().unwrap_or(&empty);
    let new_spec = new.spec.as_ref().unwrap_or(&empty);
    let mut problems = Vec::new();
    annotations(&old.metadata, &new.metadata, &mut problems);
    let (inits, new_inits) =
        (of_option(&old_spec.init_containers), of_option(&new_spec.init_containers));
    let same = names("spec.initContainers", inits, new_inits, &mut problems)
        & names("spec.containers", &old_spec.containers, &new_spec.containers, &mut problems);
    let mut containers = Vec::new();
    if same {
        let renewed = |container: &Container| {
            let references = references::of_container(container, &Path::default());
            references.iter().any(|r| differs(r, old_objects, new_objects))
        };
        let both = all_containers(old_spec).zip(all_containers(new_spec)).enumerate();
        for (index, (old, new)) in both {
            let path = match index.checked_sub(inits.len()) {
                None => format!("spec.initContainers[{index}]"),
                Some(main) => format!("spec.containers[{main}]"),
            };
            let on_host = new_spec.host_network == Some(true);
            fixed_fields(old, new, on_host, &path, &mut problems);
            let found = effect(old, new).map_err(|e| vec![format!("{path}.resources: {e}")])?;
            let found = if renewed(new) { Some(Effect::Restart) } else { found };
            containers.extend(found.map(|effect| (index, effect)));
        }
        match (qos(old_spec), qos(new_spec)) {
            (Ok(before), Ok(after)) if before != after => problems.push(format!(
                "spec: Invalid value: \"{after}\": Pod QoS Class may not change as a result of resizing \
                 (it is {before})"
            )),
            _ => {}
        }
    }
    deadline(old_spec, new_spec, &mut problems);
    pod_fields(old_spec, new_spec, &mut problems);
    let volumes = references::of(new_spec, &Path::default().field("spec"));
    let volumes = volumes.iter().filter(|r| r.path.to_string().starts_with("spec.volumes"));
    problems.extend(volumes.filter(|r| differs(r, old_objects, new_objects)).map(|r| {
        let Reference { path, kind, name, .. } = r;
        format!(
            "{path}: Forbidden: {kind} \"{name}\" is another one now, and the files of a volume are \
             not written again while the pod runs"
        )
    }));
    if !problems.is_empty() {
        problems.truncate(PROBLEMS_MAX);
        return Err(problems);
    }
    let mut pod = old.clone();
    pod.spec.clone_from(&new.spec);
    pod.metadata.labels.clone_from(&new.metadata.labels);
    pod.metadata.annotations.clone_from(&new.metadata.annotations);
    let same = pod == *old && containers.is_empty();
    Ok((!same).then_some(Change { pod, containers }))
}

fn of_option(list: &Option<Vec<Container>>) -> &[Container] {
    list.as_deref().unwrap_or_default()
}

fn differs(reference: &Reference, old: &Objects, new: &Objects) -> bool {
    let Reference { kind, name, .. } = reference;
    old.get(*kind, name) != new.get(*kind, name)
}

/// Ours decide how a pod is made; nobody else's do anything.
fn annotations(old: &ObjectMeta, new: &ObjectMeta, problems: &mut Vec<String>) {
    let ours = |meta: &ObjectMeta| -> BTreeSet<(String, String)> {
        let all = meta.annotations.clone().unwrap_or_default().into_iter();
        all.filter(|(key, _)| key.starts_with(PREFIX)).collect()
    };
    let (old, new) = (ours(old), ours(new));
    let keys: BTreeSet<&String> = old.symmetric_difference(&new).map(|(key, _)| key).collect();
    problems.extend(keys.into_iter().map(|key| {
        format!("metadata.annotations[{key}]: Forbidden: may not change while the pod runs")
    }));
}

/// `false` if the containers are others: then nothing else can be said of them.
fn names(path: &str, old: &[Container], new: &[Container], problems: &mut Vec<String>) -> bool {
    let names = |list: &[Container]| list.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    let (old, new) = (names(old), names(new));
    if old == new {
        return true;
    }
    let missing = |from: &[String], of: &[String]| {
        let missing = of.iter().filter(|name| !from.contains(name)).map(|n| format!("{n:?}"));
        missing.collect::<Vec<_>>().join(", ")
    };
    let (added, removed) = (missing(&old, &new), missing(&new, &old));
    let text = match (added.as_str(), removed.as_str()) {
        ("", "") => "may not change their order".to_owned(),
        (added, "") => format!("may not add or remove containers (added: {added})"),
        ("", removed) => format!("may not add or remove containers (removed: {removed})"),
        _ => format!("may not add or remove containers (added: {added}; removed: {removed})"),
    };
    problems.push(format!("{path}: Forbidden: pod updates {text}"));
    false
}

/// What is decided once for all of a container's lives.
fn fixed_fields(
    old: &Container,
    new: &Container,
    on_host: bool,
    path: &str,
    problems: &mut Vec<String>,
) {
    let mut refuse = |field: &str, why: &str| {
        problems.push(format!("{path}.{field}: Forbidden: may not change while the pod runs{why}"));
    };
    if old.restart_policy != new.restart_policy {
        refuse("restartPolicy", "");
    }
    if old.restart_policy_rules != new.restart_policy_rules {
        refuse("restartPolicyRules", "");
    }
    let host_ports = |container: &Container| {
        let ports = container.ports.iter().flatten().filter(|port| port.host_port.is_some());
        ports.cloned().collect::<Vec<_>>()
    };
    if !on_host && host_ports(old) != host_ports(new) {
        refuse("ports", ": hostPorts are the pod's");
    }
}

fn effect(old: &Container, new: &Container) -> Result<Option<Effect>, QuantityError> {
    if old == new {
        return Ok(None);
    }
    let mut rest = new.clone();
    rest.resources.clone_from(&old.resources);
    rest.resize_policy.clone_from(&old.resize_policy);
    if rest != *old {
        return Ok(Some(Effect::Restart));
    }
    let mut effect = Effect::Nothing;
    for resource in ["cpu", "memory"] {
        let same = request(old, resource)? == request(new, resource)?
            && limit(old, resource)? == limit(new, resource)?;
        if same {
            continue;
        }
        let mut policies = new.resize_policy.iter().flatten();
        let restarts =
            policies.any(|p| p.resource_name == resource && p.restart_policy == "RestartContainer");
        if restarts {
            return Ok(Some(Effect::Restart));
        }
        effect = Effect::Resize;
    }
    Ok(Some(effect))
}

/// It may come, or come earlier.
fn deadline(old: &PodSpec, new: &PodSpec, problems: &mut Vec<String>) {
    let path = "spec.activeDeadlineSeconds: Invalid value";
    match (old.active_deadline_seconds, new.active_deadline_seconds) {
        (Some(_), None) => problems
            .push(format!("{path}: null: must not update from a positive integer to nil value")),
        (Some(old), Some(new)) if new > old => {
            problems.push(format!("{path}: {new}: must be less than or equal to previous value"));
        }
        _ => {}
    }
}

/// All the rest of the spec.
fn pod_fields(old: &PodSpec, new: &PodSpec, problems: &mut Vec<String>) {
    let rest = |spec: &PodSpec| {
        let rest = PodSpec {
            init_containers: None,
            containers: Vec::new(),
            active_deadline_seconds: None,
            ..spec.clone()
        };
        serde_json::to_value(rest).unwrap_or_default()
    };
    let mut paths = Vec::new();
    differences(&rest(old), &rest(new), "spec", &mut paths);
    let paths = paths.into_iter();
    problems
        .extend(paths.map(|path| format!("{path}: Forbidden: may not change while the pod runs")));
}

/// The paths of what is different, as deep as both sides have the same shape.
fn differences(old: &Value, new: &Value, path: &str, paths: &mut Vec<String>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let side = |side: &serde_json::Map<String, Value>| side.get(key).cloned();
                let (old, new) = (side(old).unwrap_or_default(), side(new).unwrap_or_default());
                differences(&old, &new, &format!("{path}.{key}"), paths);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (i, (old, new)) in old.iter().zip(new).enumerate() {
                differences(old, new, &format!("{path}[{i}]"), paths);
            }
        }
        _ => paths.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "p", "namespace": "default", "uid": "u", "labels": {"a": "b"}},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 30,
                "activeDeadlineSeconds": 100,
                "volumes": [{"name": "v", "emptyDir": {}}],
                "initContainers": [
                    {"name": "i", "image": "i"},
                    {"name": "s", "image": "s", "restartPolicy": "Always",
                     "resources": {"limits": {"cpu": "1", "memory": "64Mi"},
                                   "requests": {"cpu": "1", "memory": "64Mi"}}}
                ],
                "containers": [
                    {"name": "m", "image": "m",
                     "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}],
                     "resources": {"limits": {"cpu": "1", "memory": "64Mi"},
                                   "requests": {"cpu": "500m", "memory": "64Mi"}},
                     "env": [{"name": "A", "value": "1"}],
                     "ports": [{"containerPort": 80, "hostPort": 80}]}
                ]
            }
        })
    }

    /// What follows if the value at `pointer` becomes `value`.
    fn changed(pointer: &str, value: Value) -> Result<Option<Change>, Vec<String>> {
        let mut new = pod();
        match new.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => {
                let (above, key) = pointer.rsplit_once('/').unwrap();
                new.pointer_mut(above).unwrap()[key] = value;
            }
        }
        let read = |value: Value| -> Pod { serde_json::from_value(value).unwrap() };
        let objects = Objects::default();
        between((&read(pod()), &objects), (&read(new), &objects))
    }

    #[test]
    fn each_field_of_a_container_has_its_effect_on_it_alone() {
        use Effect::{Nothing, Resize, Restart};
        let limits = |cpu: &str, memory: &str| {
            json!({"limits": {"cpu": cpu, "memory": memory},
                   "requests": {"cpu": "500m", "memory": "64Mi"}})
        };
        for (pointer, value, expected) in [
            ("/spec/containers/0/image", json!("n"), Some((2, Restart))),
            ("/spec/containers/0/args", json!(["x"]), Some((2, Restart))),
            ("/spec/containers/0/env/0/value", json!("2"), Some((2, Restart))),
            ("/spec/initContainers/0/command", json!(["x"]), Some((0, Restart))),
            (
                "/spec/initContainers/1/readinessProbe",
                json!({"periodSeconds": 3}),
                Some((1, Restart)),
            ),
            ("/spec/initContainers/1/lifecycle", json!({"preStop": {}}), Some((1, Restart))),
            ("/spec/containers/0/resources", limits("2", "64Mi"), Some((2, Resize))),
            ("/spec/containers/0/resources", limits("1000m", "65536Ki"), Some((2, Nothing))),
            ("/spec/containers/0/resources", limits("1", "65Mi"), Some((2, Restart))),
            ("/spec/containers/0/resizePolicy", json!([]), Some((2, Nothing))),
            ("/metadata/labels/a", json!("c"), None),
            ("/spec/activeDeadlineSeconds", json!(99), None),
        ] {
            let change = changed(pointer, value).unwrap().expect(pointer);
            assert_eq!(change.containers, Vec::from_iter(expected), "{pointer}");
            assert_eq!(change.pod.metadata.uid.as_deref(), Some("u"));
        }
        assert_eq!(changed("/metadata/name", json!("p")), Ok(None));
    }

    #[test]
    fn what_the_pod_is_does_not_change_and_every_field_is_named() {
        for (pointer, value, expected) in [
            (
                "/spec/volumes/0/emptyDir",
                json!({"medium": "Memory"}),
                "spec.volumes[0].emptyDir.medium: Forbidden",
            ),
            ("/spec/hostNetwork", json!(true), "spec.hostNetwork: Forbidden"),
            ("/spec/restartPolicy", json!("Always"), "spec.restartPolicy: Forbidden"),
            (
                "/spec/terminationGracePeriodSeconds",
                json!(5),
                "spec.terminationGracePeriodSeconds: Forbidden",
            ),
            (
                "/spec/activeDeadlineSeconds",
                json!(101),
                "must be less than or equal to previous value",
            ),
            ("/spec/activeDeadlineSeconds", Value::Null, "must not update from a positive integer"),
            (
                "/spec/initContainers/1/restartPolicy",
                Value::Null,
                "spec.initContainers[1].restartPolicy: Forbidden",
            ),
            ("/spec/containers/0/name", json!("n"), "(added: \"n\"; removed: \"m\")"),
            ("/spec/initContainers", json!([]), "(removed: \"i\", \"s\")"),
            (
                "/spec/containers/0/ports/0/hostPort",
                json!(81),
                "spec.containers[0].ports: Forbidden",
            ),
            (
                "/metadata/annotations",
                json!({"podshim.dev/standby": "m"}),
                "annotations[podshim.dev/standby]",
            ),
        ] {
            let problems = changed(pointer, value).unwrap_err();
            assert_eq!(problems.len(), 1, "{pointer}: {problems:?}");
            assert!(problems[0].contains(expected), "{pointer}: {problems:?}");
        }
        let with = |resources: Value| -> Pod {
            let containers = json!([{"name": "m", "resources": resources}]);
            serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}}))
                .unwrap()
        };
        let (old, new) = (with(json!({"requests": {"cpu": "1"}})), with(json!({})));
        let objects = Objects::default();
        let problems = between((&old, &objects), (&new, &objects)).unwrap_err();
        assert!(problems[0].contains("Pod QoS Class may not change"), "{problems:?}");
    }

    #[test]
    fn a_changed_object_restarts_who_has_it_in_its_environment_and_may_not_be_in_a_volume() {
        let objects = |text: &str| -> Objects {
            serde_json::from_value(json!({"config_maps": {"c": {"data": {"k": text}}}})).unwrap()
        };
        let between_objects = |spec: Value| {
            let mut pod = pod();
            for (key, value) in spec.as_object().unwrap() {
                pod["spec"][key] = value.clone();
            }
            let pod: Pod = serde_json::from_value(pod).unwrap();
            between((&pod, &objects("YQ==")), (&pod, &objects("Yg==")))
        };
        let main = json!([{"name": "m", "envFrom": [{"configMapRef": {"name": "c"}}]}]);
        let change = between_objects(json!({"containers": main})).unwrap().unwrap();
        assert_eq!(change.containers, [(2, Effect::Restart)]);
        let volumes = json!([{"name": "v", "configMap": {"name": "c"}}]);
        let problems = between_objects(json!({"volumes": volumes})).unwrap_err();
        assert!(
            problems[0].starts_with("spec.volumes[0].configMap.name: Forbidden"),
            "{problems:?}"
        );
        assert_eq!(between_objects(json!({})), Ok(None));
    }
}
