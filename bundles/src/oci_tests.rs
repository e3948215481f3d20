//! Whole configurations, compared with snapshots, and what is true of all of them.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use super::fixture::{dir, host, pod};
use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:1000:\nlogs:x:50:app\n";

/// The sets of capabilities are sorted, so that equal configurations are equal texts.
fn to_json(spec: &Spec) -> serde_json::Value {
    let mut value = serde_json::to_value(spec).unwrap();
    let sets = value.pointer_mut("/process/capabilities").unwrap().as_object_mut().unwrap();
    for set in sets.values_mut() {
        let names = set.as_array_mut().unwrap();
        names.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
    value
}

fn of(pod: &Pod, cgroup: CgroupVersion) -> ContainerSpec {
    let image = ImageConfig {
        entrypoint: vec!["/entry".into()],
        cmd: vec!["default".into()],
        env: vec!["PATH=/usr/bin:/bin".into(), "FROM=image".into()],
        ..ImageConfig::default()
    };
    let dir = dir();
    let own = pod.spec.as_ref().unwrap().host_network != Some(true);
    let (net, ipc, uts) = (dir.namespace("net"), dir.namespace("ipc"), dir.namespace("uts"));
    spec(&ContainerInput {
        pod,
        container: &pod.spec.as_ref().unwrap().containers[0],
        inc: 0,
        objects: &Objects::default(),
        image: &image,
        rootfs: Path::new("/run/podshim/pods/0b0e8d4c/mnt/rootfs/main-0"),
        dir: &dir,
        namespaces: Namespaces {
            net: own.then_some(net.as_path()),
            ipc: Some(&ipc),
            uts: own.then_some(uts.as_path()),
            ..Namespaces::default()
        },
        cgroup_path: "/podshim/besteffort/pod0b0e8d4c/main-0",
        cgroup,
        devices: &devices(),
        host: &host(),
        pod_ips: &[],
        notify: false,
        passwd: Some(PASSWD),
        group: Some(GROUP),
    })
    .unwrap()
}

fn default_pod() -> Pod {
    pod("
metadata: {name: p, namespace: default, uid: 0b0e8d4c}
spec:
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: main
    image: x
    args: [\"$(GREETING)\"]
    env: [{name: GREETING, value: hello}]
    volumeMounts: [{name: data, mountPath: /data, readOnly: true}]
")
}

fn restricted_pod() -> Pod {
    pod("
metadata: {name: p, namespace: default, uid: 0b0e8d4c}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 1000, supplementalGroups: [7]}
  containers:
  - name: main
    image: x
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
    resources: {limits: {cpu: 500m, memory: 64Mi}}
")
}

fn host_network_pod() -> Pod {
    pod("
metadata: {name: p, namespace: default, uid: 0b0e8d4c}
spec: {hostNetwork: true, containers: [{name: main, image: x}]}
")
}

fn privileged_pod() -> Pod {
    pod("
metadata: {name: p, namespace: default, uid: 0b0e8d4c}
spec: {containers: [{name: main, image: x, securityContext: {privileged: true}}]}
")
}

fn devices() -> Vec<LinuxDevice> {
    let device = oci_spec::runtime::LinuxDeviceBuilder::default()
        .path("/dev/sda")
        .typ(oci_spec::runtime::LinuxDeviceType::B)
        .major(8)
        .minor(0)
        .file_mode(0o660u32)
        .uid(0u32)
        .gid(6u32);
    vec![device.build().unwrap()]
}

fn all() -> [(&'static str, Pod); 4] {
    [
        ("default", default_pod()),
        ("restricted", restricted_pod()),
        ("host_network", host_network_pod()),
        ("privileged", privileged_pod()),
    ]
}

#[test]
fn whole_configurations_are_as_they_were() {
    for (name, pod) in all() {
        for (version, cgroup) in [("v1", CgroupVersion::V1), ("v2", CgroupVersion::V2)] {
            let made = of(&pod, cgroup);
            insta::assert_json_snapshot!(format!("{name}_{version}_config"), to_json(&made.spec));
            insta::assert_json_snapshot!(format!("{name}_{version}_process"), made.process);
        }
    }
}

#[test]
fn whoever_creates_a_container_is_given_no_filter_and_no_limits_to_set() {
    for (_, pod) in all() {
        let made = of(&pod, CgroupVersion::V2);
        let linux = made.spec.linux().clone().unwrap();
        assert!(linux.seccomp().is_none() && linux.resources().is_none());
        let held = made.spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        let bounding: Vec<String> =
            held.bounding().iter().flatten().map(|c| format!("{c:?}")).collect();
        assert!(bounding.iter().any(|c| c.to_uppercase().contains("ADMIN")), "{bounding:?}");
        let privileged = made.spec.linux().as_ref().is_some_and(|l| l.devices().is_some());
        assert_eq!(made.process.capabilities.contains(CapSet::SYS_ADMIN), privileged);
    }
}

#[test]
fn a_home_is_always_set_and_parents_are_mounted_first() {
    for (_, pod) in all() {
        let made = of(&pod, CgroupVersion::V1);
        assert!(made.process.env.iter().any(|v| v.starts_with("HOME=/")));
        let at: Vec<_> = made.spec.mounts().iter().flatten().map(|m| m.destination()).collect();
        for (index, path) in at.iter().enumerate() {
            let parent = at.iter().position(|p| path.starts_with(p) && p != path);
            assert!(parent.is_none_or(|p| p < index), "{path:?} before its parent");
        }
    }
}
