//! Which container of a pod is meant when none is named, as kubectl decides it.

use serde_json::Value;

use super::terminal::{complain, tell};

/// kubectl's annotation for it.
const DEFAULT: &str = "kubectl.kubernetes.io/default-container";

/// The container that is named; else that of the annotation; else the first main, which is said if
/// there are others. It is one of the pod's, whatever was written: it becomes part of a path.
pub fn default_container(pod: &str, named: Option<&str>, object: &Value) -> anyhow::Result<String> {
    let names = |list: &str| -> Vec<&str> {
        let containers = object["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|c| c["name"].as_str()).collect()
    };
    let (mains, inits) = (names("containers"), names("initContainers"));
    let has = |name: &str| mains.contains(&name) || inits.contains(&name);
    if let Some(named) = named {
        let all = [&inits[..], &mains[..]].concat().join(", ");
        anyhow::ensure!(has(named), "pod {pod} has no container {named:?}; it has: {all}");
        return Ok(named.to_owned());
    }
    if let Some(named) = object["metadata"]["annotations"][DEFAULT].as_str() {
        if has(named) {
            return Ok(named.to_owned());
        }
        complain(&format!("the annotation {DEFAULT} names {named:?}, which pod {pod} has not"));
    }
    let Some(first) = mains.first() else { anyhow::bail!("pod {pod} has no containers") };
    if mains.len() > 1 {
        let inits = inits.iter().map(|name| format!("{name} (init)"));
        let all: Vec<String> = mains.iter().map(ToString::to_string).chain(inits).collect();
        tell(&format!("Defaulted container {first:?} out of: {}\n", all.join(", ")));
    }
    Ok((*first).to_owned())
}

#[cfg(test)]
mod tests {
    use super::default_container;

    #[test]
    fn only_a_container_of_the_pod_is_taken() {
        let pod = |annotation: &str| {
            serde_json::json!({
                "metadata": {"annotations": {"kubectl.kubernetes.io/default-container": annotation}},
                "spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]},
            })
        };
        let chosen = |named, annotation| default_container("p", named, &pod(annotation)).ok();
        assert_eq!(chosen(None, "b").as_deref(), Some("b"));
        assert_eq!(chosen(None, "../../other").as_deref(), Some("a"));
        assert_eq!(chosen(Some("i"), "b").as_deref(), Some("i"));
        assert_eq!(chosen(Some("../../other"), "b"), None);
        assert_eq!(chosen(Some(""), "b"), None);
    }
}
