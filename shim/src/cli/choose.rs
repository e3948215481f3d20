//! Which container of a pod is meant when none is named, as kubectl decides it.

use serde_json::Value;

use super::terminal::tell;

/// kubectl's annotation for it.
const DEFAULT: &str = "kubectl.kubernetes.io/default-container";

/// The container that is named; else that of the annotation; else the first main, which is said if
/// there are others.
pub fn default_container(pod: &str, named: Option<&str>, object: &Value) -> anyhow::Result<String> {
    let names = |list: &str| -> Vec<&str> {
        let containers = object["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|c| c["name"].as_str()).collect()
    };
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    if let Some(named) = object["metadata"]["annotations"][DEFAULT].as_str() {
        return Ok(named.to_owned());
    }
    let (mains, inits) = (names("containers"), names("initContainers"));
    let Some(first) = mains.first() else { anyhow::bail!("pod {pod} has no containers") };
    if mains.len() > 1 {
        let inits = inits.iter().map(|name| format!("{name} (init)"));
        let all: Vec<String> = mains.iter().map(ToString::to_string).chain(inits).collect();
        tell(&format!("Defaulted container {first:?} out of: {}\n", all.join(", ")));
    }
    Ok((*first).to_owned())
}
