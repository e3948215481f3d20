//! `podshim describe pod`: all that is known of a pod, in kubectl's form.

use std::fmt::Write;

use bundles::layout::Layout;
use serde_json::Value;

use super::client::has_name;
use super::events::{interval, kind_of, of_pod};
use super::get::seconds;
use super::table::{Columns, age};
use super::terminal::{Output, complain, printable};
use super::{DescribeArgs, FAILED, ended, find_pod, one_line, pods, pods_named};
use crate::protocol::PodEvent;

/// Prints each pod.
pub fn describe(layout: &Layout, args: &DescribeArgs) -> anyhow::Result<i32> {
    let names = pods_named(&args.kind, &args.names, "described")?;
    let mut output = Output::default();
    let mut code = 0;
    let wanted = if names.is_empty() { all_names(layout, &args.namespace)? } else { names };
    if wanted.is_empty() {
        super::tell(&format!("No resources found in {} namespace.\n", args.namespace));
    }
    for (i, name) in wanted.iter().enumerate() {
        match find(layout, &args.namespace, name) {
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

fn all_names(layout: &Layout, namespace: &str) -> anyhow::Result<Vec<String>> {
    let living = pods(layout)?;
    let mut names: Vec<String> = ended::all(layout, Some(namespace), &living)?
        .iter()
        .map(|pod| str(pod, "/metadata/name").to_owned())
        .chain(living.into_iter().filter(|pod| pod.namespace == namespace).map(|pod| pod.name))
        .collect();
    names.sort();
    Ok(names)
}

/// A pod and what happened to it: its shim knows, or, if it does not live, the daemon.
fn find(layout: &Layout, namespace: &str, name: &str) -> anyhow::Result<(Value, Vec<PodEvent>)> {
    let silent = match find_pod(layout, namespace, name) {
        Ok(pod) => match of_pod(layout, &pod) {
            // It ended between the question where it is and the one how it is.
            Err(e) if !has_name(layout, &pod) => e,
            told => return told,
        },
        Err(e) => e,
    };
    ended::find(layout, namespace, name)?.ok_or(silent)
}

/// Lines of `Key:  value`, indented by depth; whatever a manifest or a program put there, each is one.
struct Page {
    text: String,
}

const KEY_WIDTH: usize = 20;

impl Page {
    fn line(&mut self, depth: usize, key: &str, value: &str) {
        let indent = "  ".repeat(depth);
        let key = format!("{}: ", printable(key));
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
    describe_conditions(&mut page, pod);
    page.line(0, "Volumes", if array(pod, "/spec/volumes").is_empty() { "<none>" } else { "" });
    for volume in array(pod, "/spec/volumes") {
        describe_volume(&mut page, volume);
    }
    page.line(0, "QoS Class", str(pod, "/status/qosClass"));
    describe_events(&mut page, events);
    page.text
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

/// kubectl's two columns.
fn describe_conditions(page: &mut Page, pod: &Value) {
    let conditions = array(pod, "/status/conditions");
    if conditions.is_empty() {
        return;
    }
    page.line(0, "Conditions", "");
    let mut rows = vec![vec!["  Type".to_owned(), "Status".to_owned()]];
    rows.extend(conditions.iter().map(|c| {
        let cell = |pointer: &str| printable(str(c, pointer)).into_owned();
        vec![format!("  {}", cell("/type")), cell("/status")]
    }));
    page.text += &Columns::apart(2).lines(&rows);
}

/// `2026-11-28T13:52:36Z` as `Sat, 28 Nov 2026 13:52:36 +0000`; what is no time stays as it is.
fn rfc1123(time: &str) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let shown = || {
        let since_epoch = seconds(&serde_json::json!({ "at": time }), "/at")?;
        // Day 0 was a Thursday.
        let day = DAYS.get(usize::try_from(since_epoch / 86_400 % 7).ok()?)?;
        let (date, clock) = time.split_once('T')?;
        let mut date = date.split('-');
        let (year, month, day_of_month) = (date.next()?, date.next()?, date.next()?);
        let month = MONTHS.get(month.parse::<usize>().ok()?.checked_sub(1)?)?;
        Some(format!("{day}, {day_of_month} {month} {year} {} +0000", clock.get(..8)?))
    };
    shown().unwrap_or_else(|| time.to_owned())
}

fn describe_container(page: &mut Page, container: &Value, status: &Value) {
    page.line(1, str(container, "/name"), "");
    page.line(2, "Container ID", str(status, "/containerID"));
    page.line(2, "Image", str(container, "/image"));
    page.line(2, "Image ID", str(status, "/imageID"));
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
            2,
            &key,
            if ports.is_empty() { "<none>".into() } else { ports.join(", ") }.as_str(),
        );
    }
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
    for (key, pointer) in [("Reason", "/reason"), ("Message", "/message")] {
        if !str(detail, pointer).is_empty() {
            page.line(3, key, str(detail, pointer));
        }
    }
    if let Some(code) = detail["exitCode"].as_i64() {
        page.line(3, "Exit Code", &code.to_string());
    }
    for (key, pointer) in [("Started", "/startedAt"), ("Finished", "/finishedAt")] {
        if !str(detail, pointer).is_empty() {
            page.line(3, key, &rfc1123(str(detail, pointer)));
        }
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
    let now = runtime::clock::now().wall;
    let mut rows = vec![
        ["  Type", "Reason", "Age", "From", "Message"].map(String::from).to_vec(),
        ["  ----", "------", "----", "----", "-------"].map(String::from).to_vec(),
    ];
    rows.extend(events.iter().map(|event| {
        let from = event.container.as_deref().map_or("podshim".into(), |c| format!("podshim, {c}"));
        let message = printable(event.message.trim()).into_owned();
        let kind = format!("  {}", kind_of(event));
        vec![kind, event.reason.clone(), interval(event, now), from, message]
    }));
    page.text += &Columns::apart(2).lines(&rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_kubectl_describes_them() {
        assert_eq!(rfc1123("2026-11-28T13:52:36Z"), "Sat, 28 Nov 2026 13:52:36 +0000");
        assert_eq!(rfc1123("1970-01-01T00:00:00Z"), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(rfc1123("soon"), "soon");
    }

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
