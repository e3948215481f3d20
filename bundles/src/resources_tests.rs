//! The worked examples of the kubelet's rules, as tables.

use super::*;
use crate::oci::fixture;

/// A pod of these containers; `init` is a list in YAML too.
fn spec(init: &str, mains: &str) -> PodSpec {
    let pod = fixture::pod(&format!("spec: {{initContainers: [{init}], containers: [{mains}]}}"));
    pod.spec.expect("a spec")
}

/// A container of this name that requests (`r`) and is limited (`l`).
fn c(name: &str, requests: &str, limits: &str) -> String {
    format!("{{name: {name}, resources: {{requests: {{{requests}}}, limits: {{{limits}}}}}}}")
}

fn sidecar(name: &str, requests: &str, limits: &str) -> String {
    c(name, requests, limits).replacen('{', "{restartPolicy: Always, ", 1)
}

const BOTH: &str = "cpu: 1, memory: 1Gi";

#[test]
fn quality_of_service_looks_at_all_containers() {
    let none = &c("a", "", "");
    for (init, mains, expected) in [
        (String::new(), none.clone(), Qos::BestEffort),
        (String::new(), c("a", "cpu: 0", "memory: 0"), Qos::BestEffort),
        (String::new(), c("a", "ephemeral-storage: 1Gi", ""), Qos::BestEffort),
        (String::new(), c("a", "", BOTH), Qos::Guaranteed),
        (String::new(), c("a", BOTH, BOTH), Qos::Guaranteed),
        (String::new(), c("a", "cpu: 1000m, memory: 1024Mi", BOTH), Qos::Guaranteed),
        (String::new(), c("a", "cpu: 500m", BOTH), Qos::Burstable),
        (String::new(), c("a", "", "cpu: 1"), Qos::Burstable),
        (String::new(), c("a", "memory: 1", ""), Qos::Burstable),
        (String::new(), format!("{}, {none}", c("b", "", BOTH)), Qos::Burstable),
        (c("i", "", BOTH), c("a", "", BOTH), Qos::Guaranteed),
        (c("i", "", ""), c("a", "", BOTH), Qos::Burstable),
        (sidecar("s", "", ""), c("a", "", BOTH), Qos::Burstable),
        (sidecar("s", "", BOTH), c("a", "", BOTH), Qos::Guaranteed),
    ] {
        assert_eq!(qos(&spec(&init, &mains)), Ok(expected), "{init} | {mains}");
    }
}

#[test]
fn pod_level_resources_decide_the_class_alone() {
    for (resources, expected) in [
        ("limits: {cpu: 1, memory: 1Gi}", Qos::Guaranteed),
        ("requests: {cpu: 1}", Qos::Burstable),
        ("limits: {cpu: 1}", Qos::Burstable),
        ("{}", Qos::BestEffort),
    ] {
        let mut spec = spec("", &c("a", "cpu: 1", ""));
        let text = if resources == "{}" { "{}".into() } else { format!("{{{resources}}}") };
        spec.resources = Some(fixture::yaml(&text));
        assert_eq!(qos(&spec), Ok(expected), "{resources}");
    }
}

#[test]
fn classes_have_kubernetes_names_and_directories_of_their_own() {
    let all = [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort];
    assert_eq!(all.map(|q| q.to_string()), ["Guaranteed", "Burstable", "BestEffort"]);
    assert_eq!(all.map(Qos::directory), ["guaranteed", "burstable", "besteffort"]);
}

/// Milliseconds of cpu: `mains + sidecars`, or the worst moment of the initialization.
#[test]
fn a_pod_requests_what_it_needs_at_its_worst_moment() {
    let cpu = |milli: u32| format!("cpu: {milli}m");
    let (init, side) = (
        |name: &str, milli| c(name, &cpu(milli), ""),
        |name: &str, milli| sidecar(name, &cpu(milli), ""),
    );
    let join = |parts: &[String]| parts.join(", ");
    for (inits, mains, expected) in [
        (vec![], vec![100, 200], 300),
        (vec![init("i", 250)], vec![100, 200], 300),
        (vec![init("i", 500)], vec![100, 200], 500),
        // Init containers run one after another: the largest counts, not the sum.
        (vec![init("i", 500), init("j", 400)], vec![100], 500),
        (vec![side("s", 50)], vec![100], 150),
        // A sidecar runs beside the init containers after it, not beside those before it.
        (vec![side("s", 50), init("i", 200)], vec![100], 250),
        (vec![init("i", 200), side("s", 50)], vec![100], 200),
        (vec![side("s", 50), init("i", 60), side("t", 70)], vec![10], 130),
        (vec![side("s", 50), side("t", 70), init("i", 60)], vec![10], 180),
    ] {
        let mains: Vec<String> =
            mains.iter().enumerate().map(|(n, m)| c(&format!("m{n}"), &cpu(*m), "")).collect();
        let spec = spec(&join(&inits), &join(&mains));
        let request = pod_request(&spec, "cpu").map(Quantity::milli);
        assert_eq!(request, Ok(expected), "{inits:?}");
    }
}

#[test]
fn overhead_comes_on_top_of_requests_and_of_limits_that_there_are() {
    let mut limited = spec("", &c("a", "", "cpu: 1"));
    limited.overhead = Some(fixture::yaml("{cpu: 250m, memory: 1Mi}"));
    let host = fixture::host();
    let values = pod_resources(&limited, &host).expect("quantities");
    assert_eq!((values.cpu_shares, values.cpu_quota_us), (1280, Some(125_000)));
    assert_eq!(values.memory_limit_bytes, None);
}

#[test]
fn a_pod_is_limited_only_if_every_container_is() {
    let limited = &c("a", "", "memory: 1Gi, cpu: 2");
    let free = &c("b", "", "");
    let mi = |n: i64| Some(n << 20);
    for (init, mains, memory, quota) in [
        (String::new(), limited.clone(), mi(1024), Some(200_000)),
        (String::new(), format!("{limited}, {free}"), None, None),
        (c("i", "", ""), limited.clone(), None, None),
        (sidecar("s", "", ""), limited.clone(), None, None),
        (sidecar("s", "", "memory: 16Mi, cpu: 500m"), limited.clone(), mi(1040), Some(250_000)),
        // An init container without a limit counts with that of the sidecars before it.
        (
            format!("{}, {}", sidecar("s", "", "memory: 16Mi, cpu: 500m"), c("i", "", "")),
            limited.clone(),
            mi(1040),
            Some(250_000),
        ),
        (
            format!("{}, {}", c("i", "", ""), sidecar("s", "", "memory: 16Mi, cpu: 500m")),
            limited.clone(),
            None,
            None,
        ),
        (c("i", "", "memory: 4Gi, cpu: 1"), limited.clone(), mi(4096), Some(200_000)),
        (String::new(), c("a", "", "memory: 1Gi"), mi(1024), None),
    ] {
        let values = pod_resources(&spec(&init, &mains), &fixture::host()).expect("quantities");
        assert_eq!((values.memory_limit_bytes, values.cpu_quota_us), (memory, quota), "{init}");
    }
}

#[test]
fn pod_level_resources_replace_the_sums() {
    let mut pod = spec("", &format!("{}, {}", c("a", "cpu: 1", ""), c("b", "", "")));
    pod.resources = Some(fixture::yaml("{limits: {cpu: 2, memory: 64Mi}}"));
    let values = pod_resources(&pod, &fixture::host()).expect("quantities");
    // The request that is not written is what the containers ask for.
    assert_eq!((values.cpu_shares, values.cpu_quota_us), (1024, Some(200_000)));
    assert_eq!(values.memory_limit_bytes, Some(64 << 20));
    pod.containers[0].resources = None;
    let values = pod_resources(&pod, &fixture::host()).expect("quantities");
    assert_eq!(values.cpu_shares, 2048, "or else the limit");
}

#[test]
fn a_pod_may_have_fifteen_percent_of_the_kernels_pids() {
    let values = pod_resources(&spec("", &c("a", "", "")), &fixture::host()).expect("quantities");
    assert_eq!(values.pids_max, Some(4915));
    assert_eq!(
        (values.cpu_shares, values.cpu_quota_us, values.memory_limit_bytes),
        (2, None, None)
    );
}

#[test]
fn a_containers_values() {
    for (requests, limits, shares, quota, memory) in [
        ("", "", 2, None, None),
        ("cpu: 100m", "", 102, None, None),
        ("cpu: 1m", "", 2, None, None),
        ("cpu: 1", "cpu: 2", 1024, Some(200_000), None),
        // Without a request the limit is the request.
        ("", "cpu: 500m", 512, Some(50_000), None),
        // The kernel takes no quota below a millisecond.
        ("", "cpu: 1m", 2, Some(1000), None),
        ("cpu: 10000", "", 262_144, None, None),
        ("cpu: 0", "cpu: 0", 2, None, None),
        ("memory: 32Mi", "memory: 64Mi", 2, None, Some(64 << 20)),
        ("", "memory: 0", 2, None, None),
        ("", "memory: 1500m", 2, None, Some(2)),
    ] {
        let container: Container = fixture::yaml(&c("a", requests, limits));
        let values = container_resources(&container).expect("quantities");
        let expected = CgroupValues {
            cpu_shares: shares,
            cpu_quota_us: quota,
            cpu_period_us: 100_000,
            memory_limit_bytes: memory,
            pids_max: None,
        };
        assert_eq!(values, expected, "{requests} {limits}");
    }
}

#[test]
fn what_is_no_quantity_is_an_error() {
    let pod = spec("", &c("a", "cpu: lots", ""));
    assert!(qos(&pod).is_err());
    assert!(pod_resources(&pod, &fixture::host()).is_err());
    assert!(container_resources(&pod.containers[0]).is_err());
    assert!(oom_score_adj(&pod, &pod.containers[0], &fixture::host()).is_err());
}

/// On a host of 8 GiB.
fn score(spec: &PodSpec, name: &str) -> i32 {
    let container = all_containers(spec).find(|c| c.name == name).expect(name);
    oom_score_adj(spec, container, &fixture::host()).expect("quantities")
}

#[test]
fn the_classes_have_their_oom_scores() {
    assert_eq!(score(&spec("", &c("a", "", BOTH)), "a"), -997);
    assert_eq!(score(&spec("", &c("a", "", "")), "a"), 1000);
    for (memory, expected) in [
        ("0", 999),
        ("1Mi", 999),
        ("4Mi", 999),
        ("16Mi", 999),
        ("2Gi", 750),
        ("8Gi", 3),
        ("9Gi", 3),
    ] {
        let pod = spec("", &c("a", &format!("cpu: 1m, memory: {memory}"), ""));
        let wanted = if memory == "16Mi" { 999 } else { expected };
        assert_eq!(score(&pod, "a"), wanted, "{memory}");
    }
    let mut critical = spec("", &c("a", "", ""));
    critical.priority_class_name = Some("system-node-critical".into());
    assert_eq!(score(&critical, "a"), -997);
}

#[test]
fn a_sidecar_is_not_killed_before_the_most_exposed_main() {
    let inits = format!(
        "{}, {}, {}",
        sidecar("small", "memory: 1Mi", ""),
        sidecar("large", "memory: 6Gi", ""),
        c("init", "memory: 1Mi", "")
    );
    let mains = format!("{}, {}", c("a", "memory: 4Gi", ""), c("b", "memory: 2Gi", ""));
    let pod = spec(&inits, &mains);
    assert_eq!((score(&pod, "a"), score(&pod, "b")), (500, 750));
    assert_eq!(score(&pod, "small"), 750, "as the main with the smallest request");
    assert_eq!(score(&pod, "large"), 250, "its own is lower");
    assert_eq!(score(&pod, "init"), 999, "a regular init container has its own");
}

#[test]
fn a_pod_level_request_is_shared_out() {
    let mut pod = spec("", &format!("{}, {}", c("a", "memory: 1Gi", ""), c("b", "", "")));
    pod.resources = Some(fixture::yaml("{requests: {memory: 3Gi}}"));
    // 2 GiB are nobody's: 1 GiB for each.
    assert_eq!((score(&pod, "a"), score(&pod, "b")), (750, 875));
}
