//! A host, a pod's directories and manifests for the tests of this crate.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use serde::de::DeserializeOwned;

use crate::capability::CapSet;
use crate::host::Host;
use crate::layout::{Layout, PodDir};

/// Four processors, 8 GiB, all capabilities.
pub fn host() -> Host {
    Host {
        memory_bytes: 8 << 30,
        cpus: 4,
        host_ip: Some("192.0.2.1".into()),
        node_name: "node-1".into(),
        hostname: "node-1".into(),
        nofile_hard: 1 << 20,
        pid_max: 32_768,
        capabilities: CapSet::ALL,
        own_oom_score_adj: 0,
        swap_accounting: true,
        thermal_throttle_paths: vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".into()],
    }
}

/// The directories of a pod.
pub fn dir() -> PodDir {
    let layout = Layout {
        root: PathBuf::from("/var/lib/podshim"),
        state: PathBuf::from("/run/podshim"),
        logs: PathBuf::from("/var/log/podshim/pods"),
        network: PathBuf::from("/run/podshim-host/podshim0"),
    };
    layout.pod("0b0e8d4c")
}

/// A value from YAML.
pub fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A pod from YAML; what the API demands and a test does not care about is filled in.
pub fn pod(text: &str) -> Pod {
    let mut value: serde_json::Value = yaml(text);
    if value["spec"].get("containers").is_none() {
        value["spec"]["containers"] = serde_json::json!([]);
    }
    value["apiVersion"] = "v1".into();
    value["kind"] = "Pod".into();
    if value.get("metadata").is_none() {
        value["metadata"] = serde_json::json!({});
    }
    serde_json::from_value(value).unwrap_or_else(|error| panic!("{error}\n{text}"))
}
