//! A pod.

use serde_json::Value;

use super::page::{Page, array, pairs, rfc1123, str};
use crate::cli::get::seconds;
use crate::cli::table::age;
use crate::protocol::Event;

/// A pod and what happened to it.
pub fn text(pod: &Value, events: &[Event]) -> String {
    let mut page = Page::default();
    page.line(0, "Name", str(pod, "/metadata/name"));
    page.line(0, "Namespace", str(pod, "/metadata/namespace"));
    page.line(0, "UID", str(pod, "/metadata/uid"));
    page.line(0, "Node", &node(pod));
    if !str(pod, "/status/startTime").is_empty() {
        page.line(0, "Start Time", &rfc1123(str(pod, "/status/startTime")));
    }
    page.list(0, "Labels", &pairs(&pod["metadata"]["labels"], "="));
    page.list(0, "Annotations", &pairs(&pod["metadata"]["annotations"], ": "));
    describe_phase(&mut page, pod);
    for (key, pointer) in [("Reason", "/status/reason"), ("Message", "/status/message")] {
        if !str(pod, pointer).is_empty() {
            page.line(0, key, str(pod, pointer));
        }
    }
    page.line(0, "IP", str(pod, "/status/podIP"));
    let ips = array(pod, "/status/podIPs");
    page.line(0, "IPs", if ips.is_empty() { "<none>" } else { "" });
    for ip in ips {
        page.line(1, "IP", str(ip, "/ip"));
    }
    if let Some(owner) = array(pod, "/metadata/ownerReferences").first() {
        page.line(0, "Controlled By", &format!("{}/{}", str(owner, "/kind"), str(owner, "/name")));
    }
    describe_containers(&mut page, 0, pod, true);
    page.conditions(pod, &["Type", "Status"]);
    describe_volumes(&mut page, 0, pod);
    page.line(0, "QoS Class", str(pod, "/status/qosClass"));
    page.events(events);
    page.text
}

/// The containers of a pod, with what they do, or of a template.
pub fn describe_containers(page: &mut Page, depth: usize, pod: &Value, with_status: bool) {
    for (title, spec, status) in [
        ("Init Containers", "/spec/initContainers", "/status/initContainerStatuses"),
        ("Containers", "/spec/containers", "/status/containerStatuses"),
    ] {
        let containers = array(pod, spec);
        if containers.is_empty() {
            continue;
        }
        page.line(depth, title, "");
        for container in containers {
            let status = array(pod, status).iter().find(|s| s["name"] == container["name"]);
            let status = with_status.then(|| status.unwrap_or(&Value::Null));
            describe_container(page, depth + 1, container, status);
        }
    }
}

/// The volumes of a pod or of a template.
pub fn describe_volumes(page: &mut Page, depth: usize, pod: &Value) {
    let volumes = array(pod, "/spec/volumes");
    page.line(depth, "Volumes", if volumes.is_empty() { "<none>" } else { "" });
    for volume in volumes {
        describe_volume(page, depth + 1, volume);
    }
}

/// The host, and its address.
fn node(pod: &Value) -> String {
    match str(pod, "/spec/nodeName") {
        "" => "<none>".into(),
        name => format!("{name}/{}", str(pod, "/status/hostIP")),
    }
}

fn describe_phase(page: &mut Page, pod: &Value) {
    let phase = str(pod, "/status/phase");
    let deletion = seconds(pod, "/metadata/deletionTimestamp");
    match deletion.filter(|_| !matches!(phase, "Succeeded" | "Failed")) {
        Some(until) => {
            let now = runtime::clock::now().wall.0 / 1_000_000_000;
            let lasts = age(now.saturating_sub(until));
            page.line(0, "Status", &format!("Terminating (lasts {lasts})"));
            let grace = &pod["metadata"]["deletionGracePeriodSeconds"];
            page.line(0, "Termination Grace Period", &format!("{grace}s"));
        }
        None => page.line(0, "Status", phase),
    }
}

fn describe_container(page: &mut Page, depth: usize, container: &Value, status: Option<&Value>) {
    let inner = depth + 1;
    page.line(depth, str(container, "/name"), "");
    if let Some(status) = status {
        page.line(inner, "Container ID", str(status, "/containerID"));
    }
    page.line(inner, "Image", str(container, "/image"));
    if let Some(status) = status {
        page.line(inner, "Image ID", str(status, "/imageID"));
    }
    let (ports, host_ports): (Vec<String>, Vec<String>) = array(container, "/ports")
        .iter()
        .map(|port| {
            let protocol = match str(port, "/protocol") {
                "" => "TCP",
                protocol => protocol,
            };
            let shown = |field: &str| format!("{}/{protocol}", port[field].as_u64().unwrap_or(0));
            (shown("containerPort"), shown("hostPort"))
        })
        .unzip();
    for (key, ports) in [("Port", ports), ("Host Port", host_ports)] {
        let key = if ports.len() > 1 { format!("{key}s") } else { key.to_owned() };
        page.line(
            inner,
            &key,
            if ports.is_empty() { "<none>".into() } else { ports.join(", ") }.as_str(),
        );
    }
    if !str(container, "/restartPolicy").is_empty() {
        page.line(inner, "Restart Policy", str(container, "/restartPolicy"));
    }
    for (key, pointer) in [("Command", "/command"), ("Args", "/args")] {
        let words: Vec<String> = array(container, pointer)
            .iter()
            .map(|w| w.as_str().unwrap_or_default().to_owned())
            .collect();
        if !words.is_empty() {
            page.list(inner, key, &words);
        }
    }
    if let Some(status) = status {
        describe_state(page, inner, "State", &status["state"]);
        if status["lastState"].as_object().is_some_and(|state| !state.is_empty()) {
            describe_state(page, inner, "Last State", &status["lastState"]);
        }
        page.line(inner, "Ready", if status["ready"] == true { "True" } else { "False" });
        let restarts = status["restartCount"].as_u64().unwrap_or(0);
        page.line(inner, "Restart Count", &restarts.to_string());
    }
    for (key, kind) in [("Limits", "limits"), ("Requests", "requests")] {
        let amounts = pairs(&container["resources"][kind], ": ");
        if !amounts.is_empty() {
            page.list(inner, key, &amounts);
        }
    }
    let variables: Vec<String> = array(container, "/env").iter().map(variable).collect();
    page.list(inner, "Environment", &variables);
    let mounts: Vec<String> = array(container, "/volumeMounts")
        .iter()
        .map(|mount| {
            let access = if mount["readOnly"] == true { "ro" } else { "rw" };
            format!("{} from {} ({access})", str(mount, "/mountPath"), str(mount, "/name"))
        })
        .collect();
    page.list(inner, "Mounts", &mounts);
}

/// What it is set to, or where that comes from. (A secret's value is never shown.)
fn variable(env: &Value) -> String {
    let name = str(env, "/name");
    let from = &env["valueFrom"];
    let key = |kind: &str, word: &str| {
        let source = &from[kind];
        source.is_object().then(|| {
            format!(
                "<set to the key '{}' of {word} '{}'>",
                str(source, "/key"),
                str(source, "/name")
            )
        })
    };
    let value = key("secretKeyRef", "secret")
        .or_else(|| key("configMapKeyRef", "config map"))
        .or_else(|| {
            let path = str(from, "/fieldRef/fieldPath");
            (!path.is_empty()).then(|| format!("({path})"))
        })
        .or_else(|| {
            let resource = str(from, "/resourceFieldRef/resource");
            (!resource.is_empty()).then(|| format!("({resource})"))
        })
        .unwrap_or_else(|| str(env, "/value").to_owned());
    format!("{name}: {value}")
}

fn describe_state(page: &mut Page, depth: usize, title: &str, state: &Value) {
    let (word, detail) = match state.as_object().and_then(|state| state.iter().next()) {
        Some((kind, detail)) => (kind.as_str(), detail),
        None => ("waiting", &Value::Null),
    };
    let mut shown = word.to_owned();
    if let Some(first) = shown.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    page.line(depth, title, &shown);
    for (key, pointer) in [("Reason", "/reason"), ("Message", "/message")] {
        if !str(detail, pointer).is_empty() {
            page.line(depth + 1, key, str(detail, pointer));
        }
    }
    if let Some(code) = detail["exitCode"].as_i64() {
        page.line(depth + 1, "Exit Code", &code.to_string());
    }
    for (key, pointer) in [("Started", "/startedAt"), ("Finished", "/finishedAt")] {
        if !str(detail, pointer).is_empty() {
            page.line(depth + 1, key, &rfc1123(str(detail, pointer)));
        }
    }
}

fn describe_volume(page: &mut Page, depth: usize, volume: &Value) {
    page.line(depth, str(volume, "/name"), "");
    let sources = volume.as_object().into_iter().flatten().filter(|(key, _)| *key != "name");
    for (kind, source) in sources {
        page.line(depth + 1, "Type", kind);
        for (key, value) in source.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            page.line(depth + 1, key, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_pod_can_write_lines_or_move_the_cursor() {
        let nasty = "a\u{1b}[2J\nb";
        let pod = serde_json::json!({
            "metadata": {"name": nasty, "annotations": {"k": nasty}},
            "spec": {
                "containers": [{"name": nasty, "image": nasty, "command": [nasty, nasty],
                    "env": [{"name": nasty, "value": nasty}],
                    "volumeMounts": [{"name": nasty, "mountPath": nasty}, {"mountPath": nasty}]}],
                "volumes": [{"name": nasty, "hostPath": {"path": nasty, nasty: nasty}}],
            },
            "status": {"phase": nasty, "message": nasty},
        });
        let text = text(&pod, &[]);
        let stray = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(stray) && !text.lines().any(|l| l == "b"), "{text}");
        assert!(text.matches("a\\u{1b}[2J\\nb").count() > 12, "{text}");
    }
}
