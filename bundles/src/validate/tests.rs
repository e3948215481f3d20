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
fn each_rule_of_volumes_and_what_fills_them_says_what_the_api_server_says() {
    let volume = |fields: &str| format!("  volumes: [{{name: v, {fields}}}]\n");
    for (container, fields, path, said) in [
        ("", "configMap: {}", "spec.volumes[0].configMap.name", "Required value"),
        ("", "secret: {}", "spec.volumes[0].secret.secretName", "Required value"),
        (
            "",
            "configMap: {name: c, optional: true, defaultMode: 512}",
            "spec.volumes[0].configMap.defaultMode",
            "between 0 and 0777",
        ),
        (
            "",
            "configMap: {name: c, optional: true, items: [{key: k, path: ../x}]}",
            "spec.volumes[0].configMap.items[0].path",
            "must not contain '..'",
        ),
        (
            "",
            "secret: {secretName: c, optional: true, items: [{key: k, path: ..data}]}",
            "spec.volumes[0].secret.items[0].path",
            "must not start with '..'",
        ),
        (
            "",
            "downwardAPI: {items: [{path: a}]}",
            "spec.volumes[0].downwardAPI.items[0]",
            "one of fieldRef and resourceFieldRef is required",
        ),
        (
            "",
            "downwardAPI: {items: [{path: a, fieldRef: {fieldPath: status.podIP}}]}",
            "spec.volumes[0].downwardAPI.items[0].fieldRef.fieldPath",
            "Unsupported value: \"status.podIP\"",
        ),
        (
            "",
            "downwardAPI: {items: [{path: a, resourceFieldRef: {resource: limits.cpu}}]}",
            "spec.volumes[0].downwardAPI.items[0].resourceFieldRef.containerName",
            "Required value",
        ),
        (
            "",
            "projected: {sources: [{configMap: {name: c, optional: true, items: [{key: k, path: p}]}},
               {downwardAPI: {items: [{path: p, fieldRef: {fieldPath: metadata.name}}]}}]}",
            "spec.volumes[0].projected.sources[1]",
            "conflicting duplicate paths",
        ),
        ("", "projected: {sources: [{}]}", "spec.volumes[0].projected.sources[0]", "Required"),
        ("", "hostPath: {path: /a/../b}", "spec.volumes[0].hostPath.path", "must not contain '..'"),
        ("", "hostPath: {path: a}", "spec.volumes[0].hostPath.path", "must be an absolute path"),
        ("", "hostPath: {path: /a, type: Dir}", "spec.volumes[0].hostPath.type", "Unsupported"),
        (
            "    volumeMounts: [{name: v, mountPath: /v, recursiveReadOnly: Enabled}]\n",
            "emptyDir: {}",
            "spec.containers[0].volumeMounts[0].recursiveReadOnly",
            "only be specified when readOnly is true",
        ),
        (
            "    envFrom: [{prefix: 'a='}]\n",
            "emptyDir: {}",
            "spec.containers[0].envFrom[0]",
            "must specify one of: `configMapRef` or `secretRef`",
        ),
        (
            "    env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: a/b, optional: true}}}]\n",
            "emptyDir: {}",
            "spec.containers[0].env[0].valueFrom.secretKeyRef.key",
            "a valid config key must consist of",
        ),
        (
            "    env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 2m}}}]\n",
            "emptyDir: {}",
            "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor",
            "only divisor's values 1m, 1 are supported",
        ),
    ] {
        let found = problems(container, &volume(fields));
        assert!(
            found.iter().any(|p| p.starts_with(path) && p.contains(said)),
            "{fields}: {path}: {said}\nfound: {found:#?}"
        );
    }
}

#[test]
fn objects_have_good_keys_right_encodings_and_what_their_type_needs() {
    let kind = |kind: &str, fields: &str| {
        let text = format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: o}}\n{fields}");
        let report = read(&[Source { name: "o.yaml".into(), text }]);
        report.problems.iter().map(|p| format!("{}: {}", p.path(), p.message())).collect::<Vec<_>>()
    };
    for (name, fields, said) in [
        ("ConfigMap", "data: {a/b: x}", "data[a/b]: Invalid value: \"a/b\": a valid config key"),
        (
            "ConfigMap",
            "data: {a: x}\nbinaryData: {a: eA==}",
            "binaryData[a]: Invalid value: \"a\": duplicate of key",
        ),
        ("ConfigMap", "binaryData: {a: '%'}", "binaryData[a]: not in base64"),
        ("ConfigMap", "data: {a: 1}", "data[a]: expected a string, found the number 1"),
        ("ConfigMap", "dat: {a: x}", "dat: unknown field \"dat\""),
        ("Secret", "data: {a: plain text}", "data[a]: not in base64"),
        (
            "Secret",
            "type: kubernetes.io/tls\nstringData: {tls.crt: x}",
            "data[tls.key]: Required value",
        ),
        ("Secret", "type: kubernetes.io/basic-auth", "data[username]: Required value"),
    ] {
        let found = kind(name, fields);
        assert!(found.iter().any(|p| p.starts_with(said)), "{fields}: {said}\nfound: {found:#?}");
    }
    assert_eq!(
        kind("Secret", "type: kubernetes.io/basic-auth\nstringData: {username: x}"),
        [""; 0]
    );
    let large = "x".repeat(1024 * 1024);
    assert_eq!(kind("ConfigMap", &format!("data: {{a: {large}}}")), [""; 0]);
    let found = kind("ConfigMap", &format!("data: {{a: {large}x}}"));
    assert!(found[0].contains("may not be more than 1048576 bytes"), "{}", found[0].len());
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
        (
            "  initContainers: [{name: i, image: x, restartPolicy: Always, livenessProbe: {httpGet: {port: 0}}}]\n",
            "spec.initContainers[0].livenessProbe.httpGet.port",
            "must be between 1 and 65535, inclusive",
        ),
        (
            "  initContainers: [{name: i, image: x, restartPolicy: Always, startupProbe: {tcpSocket: {port: 70000}}}]\n",
            "spec.initContainers[0].startupProbe.tcpSocket.port",
            "must be between 1 and 65535, inclusive",
        ),
        (
            "  initContainers: [{name: i, image: x, restartPolicy: Always, readinessProbe: {grpc: {port: 99999}}}]\n",
            "spec.initContainers[0].readinessProbe.grpc.port",
            "must be between 1 and 65535, inclusive",
        ),
        (
            "  initContainers: [{name: i, image: x, restartPolicy: Always, readinessProbe: {tcpSocket: {port: web-}}}]\n",
            "spec.initContainers[0].readinessProbe.tcpSocket.port",
            "must not begin or end with a hyphen",
        ),
        (
            "  initContainers: [{name: i, image: x, restartPolicy: Always, lifecycle: {postStart: {httpGet: {port: -1}}}}]\n",
            "spec.initContainers[0].lifecycle.postStart.httpGet.port",
            "must be between 1 and 65535, inclusive",
        ),
        (
            "  initContainers: [{name: i, image: x, restartPolicy: Always, lifecycle: {stopSignal: SIGTERM}}]\n",
            "spec.initContainers[0].lifecycle.stopSignal",
            "may not be set for containers with empty `spec.os.name`",
        ),
        (
            "  initContainers: [{name: i, image: x, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]}]\n",
            "spec.initContainers[0].restartPolicy",
            "must specify restartPolicy when restart rules are used",
        ),
        (
            "  initContainers: [{name: i, image: x, restartPolicy: Never, restartPolicyRules: [{action: Restart}]}]\n",
            "spec.initContainers[0].restartPolicyRules[0].exitCodes",
            "must be specified",
        ),
        (
            "  initContainers: [{name: i, image: x, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [256]}}]}]\n",
            "spec.initContainers[0].restartPolicyRules[0].exitCodes.values[0]",
            "must be between 0 and 255, inclusive",
        ),
    ] {
        let found = problems("", spec);
        assert!(
            found.iter().any(|p| p.starts_with(path) && p.contains(said)),
            "{spec}: {path}: {said}\nfound: {found:#?}"
        );
    }
}

#[test]
fn each_rule_of_a_deployment_says_what_the_api_server_says() {
    let problems = |spec: &str| -> Vec<String> {
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\nspec:\n  selector: {{matchLabels: {{a: b}}}}\n{spec}  template:\n    metadata: {{labels: {{a: b}}}}\n    spec: {{containers: [{{name: c, image: x}}]}}\n"
        );
        let report = read(&[Source { name: "web.yaml".into(), text }]);
        report.problems.iter().map(|p| format!("{}: {}", p.path(), p.message())).collect()
    };
    let rolling =
        |update: &str| problems(&format!("  strategy: {{rollingUpdate: {{{update}}}}}\n"));
    let at = "spec.strategy.rollingUpdate";
    for (update, field, said) in [
        ("maxSurge: half", "maxSurge", "a valid percent string must be a numeric string"),
        ("maxSurge: '%'", "maxSurge", "a valid percent string must be a numeric string"),
        ("maxSurge: -1", "maxSurge", "must be greater than or equal to 0"),
        ("maxUnavailable: 101%", "maxUnavailable", "must not be greater than 100%"),
        ("maxUnavailable: 0, maxSurge: 0%", "maxUnavailable", "may not be 0 when `maxSurge` is 0"),
    ] {
        let found = rolling(update);
        let begin = format!("{at}.{field}: Invalid value: ");
        let fits = |problem: &String| problem.starts_with(&begin) && problem.contains(said);
        assert!(found.len() == 1 && fits(&found[0]), "{update}: {found:?}");
    }
    assert_eq!(rolling("maxSurge: 300%, maxUnavailable: 0"), [""; 0]);
    assert_eq!(
        problems("  strategy: {type: Recreate, rollingUpdate: {}}\n"),
        [format!("{at}: Forbidden: may not be specified when strategy `type` is 'Recreate'")]
    );
    assert_eq!(
        problems("  minReadySeconds: 600\n"),
        ["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"]
    );
    assert_eq!(
        problems("  paused: true\n  minReadySeconds: 5\n  revisionHistoryLimit: 0\n"),
        [""; 0]
    );
}
