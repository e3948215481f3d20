//! One row a rule: what is wrong in an otherwise good pod, and what is said about it.

use crate::manifest::{Source, read};

/// The problems of a pod whose only container and spec have these lines in addition.
fn problems(container: &str, spec: &str) -> Vec<String> {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n{spec}  containers:\n  - name: c\n    image: x\n{container}"
    );
    let report = read(&[Source { name: "pod.yaml".into(), text }]);
    report.problems.iter().map(|p| format!("{}: {}", p.path(), p.message())).collect()
}

#[test]
fn a_good_pod_has_no_problems() {
    assert_eq!(problems("", ""), [""; 0]);
}

#[test]
fn each_rule_of_a_container_says_what_the_api_server_says() {
    for (container, path, said) in [
        ("  - {name: c, image: x}\n", "spec.containers[1].name", "Duplicate value: \"c\""),
        ("  - {name: A_b, image: x}\n", "spec.containers[1].name", "Invalid value: \"A_b\""),
        ("  - {image: x}\n", "spec.containers[1].name", "Required value"),
        ("  - {name: d}\n", "spec.containers[1].image", "Required value"),
        (
            "    imagePullPolicy: Sometimes\n",
            "spec.containers[0].imagePullPolicy",
            "Unsupported value: \"Sometimes\"",
        ),
        (
            "    volumeMounts: [{name: v, mountPath: /v}]\n",
            "spec.containers[0].volumeMounts[0].name",
            "Not found: \"v\"",
        ),
        ("    ports: [{containerPort: 0}]\n", "spec.containers[0].ports[0].containerPort", ""),
        (
            "    ports: [{containerPort: 70000}]\n",
            "spec.containers[0].ports[0].containerPort",
            "must be between 1 and 65535",
        ),
        ("    env: [{name: ''}]\n", "spec.containers[0].env[0].name", "Required value"),
        (
            "    resources: {requests: {cpu: '2'}, limits: {cpu: '1'}}\n",
            "spec.containers[0].resources.requests",
            "must be less than or equal to cpu limit",
        ),
        (
            "    startupProbe: {}\n",
            "spec.containers[0].startupProbe",
            "must specify a handler type",
        ),
        (
            "    startupProbe: {exec: {command: [a]}, successThreshold: 2}\n",
            "spec.containers[0].startupProbe.successThreshold",
            "must be 1",
        ),
        (
            "    securityContext: {runAsUser: -1}\n",
            "spec.containers[0].securityContext.runAsUser",
            "must be between 0 and 2147483647",
        ),
    ] {
        let found = problems(container, "");
        assert!(
            found.iter().any(|p| p.starts_with(path) && p.contains(said)),
            "{container}: {path}: {said}\nfound: {found:#?}"
        );
    }
}

#[test]
fn each_rule_of_init_containers_and_sidecars_says_what_the_api_server_says() {
    for (spec, path, said) in [
        ("  initContainers: [{name: c, image: x}]\n", "spec.", "Duplicate value: \"c\""),
        (
            "  initContainers: [{name: i, image: x, startupProbe: {exec: {command: [a]}}}]\n",
            "spec.initContainers[0].startupProbe",
            "may not be set for init containers without restartPolicy=Always",
        ),
        (
            "  initContainers: [{name: i, image: x, restartPolicy: Sometimes}]\n",
            "spec.initContainers[0].restartPolicy",
            "Unsupported value",
        ),
        (
            "  restartPolicy: Sometimes\n",
            "spec.restartPolicy",
            "supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            "  activeDeadlineSeconds: 0\n",
            "spec.activeDeadlineSeconds",
            "must be between 1 and 2147483647",
        ),
        (
            "  volumes: [{name: v, emptyDir: {}}, {name: v, emptyDir: {}}]\n",
            "spec.volumes[1].name",
            "Duplicate value: \"v\"",
        ),
        ("  hostname: A\n", "spec.hostname", "Invalid value"),
    ] {
        let found = problems("", spec);
        assert!(
            found.iter().any(|p| p.starts_with(path) && p.contains(said)),
            "{spec}: {path}: {said}\nfound: {found:#?}"
        );
    }
}
