//! `podshim describe pod`: all that is known of a pod, in kubectl's form.

use std::fmt::Write;

use bundles::layout::Layout;
use serde_json::Value;

use super::events::{ago, of_pod};
use super::table::columns;
use super::terminal::{Output, complain, printable};
use super::{DescribeArgs, FAILED, find_pod, one_line, pods};
use crate::protocol::PodEvent;

/// Prints each pod.
pub fn describe(layout: &Layout, args: &DescribeArgs) -> anyhow::Result<i32> {
    if !matches!(args.kind.as_str(), "pod" | "pods" | "po") {
        anyhow::bail!("only pods can be described, not {:?}: write `describe pod NAME`", args.kind);
    }
    let mut output = Output::default();
    let mut code = 0;
    let mut wanted = Vec::new();
    if args.names.is_empty() {
        wanted.extend(pods(layout)?.into_iter().filter(|p| p.namespace == args.namespace));
    }
    for name in &args.names {
        match find_pod(layout, &args.namespace, name) {
            Ok(pod) => wanted.push(pod),
            Err(e) => {
                complain(&one_line(&e));
                code = FAILED;
            }
        }
    }
    for (i, pod) in wanted.iter().enumerate() {
        match of_pod(layout, pod) {
            Ok((object, events)) => {
                let gap = if i > 0 { "\n\n" } else { "" };
                output.write(format!("{gap}{}", text(&object, &events)).as_bytes());
            }
            Err(e) => {
                complain(&one_line(&e));
                code = FAILED;
            }
        }
    }
    output.end()?;
    Ok(code)
}

/// Lines of `Key:  value`, indented by depth; whatever a manifest or a program put there, each is one.
struct Page {
    text: String,
}

const KEY_WIDTH: usize = 20;

impl Page {
    fn line(&mut self, depth: usize, key: &str, value: &str) {
        let indent = "  ".repeat(depth);
        let key = printable(&format!("{key}:")).into_owned();
        let width = KEY_WIDTH.saturating_sub(indent.len());
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.text,
            "{}",
            format!("{indent}{key:<width$}{}", printable(value)).trim_end()
        );
    }

    /// Several values, one below the other.
    fn list(&mut self, depth: usize, key: &str, values: &[String]) {
        let Some((first, rest)) = values.split_first() else {
            return self.line(depth, key, "<none>");
        };
        self.line(depth, key, first);
        for value in rest {
            let _ = writeln!(self.text, "{:KEY_WIDTH$}{}", "", printable(value));
        }
    }
}

fn str<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn array<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn pairs(value: &Value, separator: &str) -> Vec<String> {
    let map = value.as_object().into_iter().flatten();
    map.map(|(key, v)| format!("{key}{separator}{}", v.as_str().unwrap_or_default())).collect()
}

fn text(pod: &Value, events: &[PodEvent]) -> String {
    let mut page = Page { text: String::new() };
    page.line(0, "Name", str(pod, "/metadata/name"));
    page.line(0, "Namespace", str(pod, "/metadata/namespace"));
    page.line(0, "UID", str(pod, "/metadata/uid"));
    page.line(0, "Start Time", str(pod, "/status/startTime"));
    page.list(0, "Labels", &pairs(&pod["metadata"]["labels"], "="));
    page.list(0, "Annotations", &pairs(&pod["metadata"]["annotations"], ": "));
    page.line(0, "Status", str(pod, "/status/phase"));
    for (key, pointer) in [("Reason", "/status/reason"), ("Message", "/status/message")] {
        if !str(pod, pointer).is_empty() {
            page.line(0, key, str(pod, pointer));
        }
    }
    page.line(0, "IP", str(pod, "/status/podIP"));
    if let Some(owner) = array(pod, "/metadata/ownerReferences").first() {
        page.line(0, "Controlled By", &format!("{}/{}", str(owner, "/kind"), str(owner, "/name")));
    }
    for (title, spec, status) in [
        ("Init Containers", "/spec/initContainers", "/status/initContainerStatuses"),
        ("Containers", "/spec/containers", "/status/containerStatuses"),
    ] {
        let containers = array(pod, spec);
        if containers.is_empty() {
            continue;
        }
        page.line(0, title, "");
        for container in containers {
            let status = array(pod, status).iter().find(|s| s["name"] == container["name"]);
            describe_container(&mut page, container, status.unwrap_or(&Value::Null));
        }
    }
    let conditions = array(pod, "/status/conditions").iter();
    let rows = conditions.map(|c| vec![format!("  {}", str(c, "/type")), str(c, "/status").into()]);
    page.line(0, "Conditions", "");
    page.text += &columns(&[vec![vec!["  Type".into(), "Status".into()]], rows.collect()].concat());
    page.line(0, "Volumes", if array(pod, "/spec/volumes").is_empty() { "<none>" } else { "" });
    for volume in array(pod, "/spec/volumes") {
        describe_volume(&mut page, volume);
    }
    page.line(0, "QoS Class", str(pod, "/status/qosClass"));
    describe_events(&mut page, events);
    page.text
}

fn describe_container(page: &mut Page, container: &Value, status: &Value) {
    page.line(1, str(container, "/name"), "");
    page.line(2, "Container ID", str(status, "/containerID"));
    page.line(2, "Image", str(container, "/image"));
    page.line(2, "Image ID", str(status, "/imageID"));
    if !str(container, "/restartPolicy").is_empty() {
        page.line(2, "Restart Policy", str(container, "/restartPolicy"));
    }
    for (key, pointer) in [("Command", "/command"), ("Args", "/args")] {
        let words: Vec<String> = array(container, pointer)
            .iter()
            .map(|w| w.as_str().unwrap_or_default().to_owned())
            .collect();
        if !words.is_empty() {
            page.list(2, key, &words);
        }
    }
    describe_state(page, "State", &status["state"]);
    if status["lastState"].as_object().is_some_and(|state| !state.is_empty()) {
        describe_state(page, "Last State", &status["lastState"]);
    }
    page.line(2, "Ready", if status["ready"] == true { "True" } else { "False" });
    page.line(2, "Restart Count", &status["restartCount"].as_u64().unwrap_or(0).to_string());
    for (key, kind) in [("Limits", "limits"), ("Requests", "requests")] {
        let amounts = pairs(&container["resources"][kind], ": ");
        if !amounts.is_empty() {
            page.list(2, key, &amounts);
        }
    }
    let variables: Vec<String> = array(container, "/env").iter().map(variable).collect();
    page.list(2, "Environment", &variables);
    let mounts: Vec<String> = array(container, "/volumeMounts")
        .iter()
        .map(|mount| {
            let access = if mount["readOnly"] == true { "ro" } else { "rw" };
            format!("{} from {} ({access})", str(mount, "/mountPath"), str(mount, "/name"))
        })
        .collect();
    page.list(2, "Mounts", &mounts);
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

fn describe_state(page: &mut Page, title: &str, state: &Value) {
    let (word, detail) = match state.as_object().and_then(|state| state.iter().next()) {
        Some((kind, detail)) => (kind.as_str(), detail),
        None => ("waiting", &Value::Null),
    };
    let mut shown = word.to_owned();
    if let Some(first) = shown.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    page.line(2, title, &shown);
    for (key, pointer) in [
        ("Reason", "/reason"),
        ("Message", "/message"),
        ("Started", "/startedAt"),
        ("Finished", "/finishedAt"),
    ] {
        if !str(detail, pointer).is_empty() {
            page.line(3, key, str(detail, pointer));
        }
    }
    if let Some(code) = detail["exitCode"].as_i64() {
        page.line(3, "Exit Code", &code.to_string());
    }
}

fn describe_volume(page: &mut Page, volume: &Value) {
    page.line(1, str(volume, "/name"), "");
    let sources = volume.as_object().into_iter().flatten().filter(|(key, _)| *key != "name");
    for (kind, source) in sources {
        page.line(2, "Type", kind);
        for (key, value) in source.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            page.line(2, key, &value);
        }
    }
}

fn describe_events(page: &mut Page, events: &[PodEvent]) {
    if events.is_empty() {
        return page.line(0, "Events", "<none>");
    }
    page.line(0, "Events", "");
    let mut rows = vec![["  Type", "Reason", "Age", "From", "Message"].map(String::from).to_vec()];
    rows.extend(events.iter().map(|event| {
        let from = event.container.as_deref().map_or("podshim".into(), |c| format!("podshim, {c}"));
        let kind = if event.warning { "Warning" } else { "Normal" };
        let message = printable(&event.message).into_owned();
        vec![format!("  {kind}"), event.reason.clone(), ago(event), from, message]
    }));
    page.text += &columns(&rows);
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
