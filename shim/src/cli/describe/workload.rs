//! Deployments, replica sets, jobs, and what pods read: ConfigMaps and Secrets.

use serde_json::Value;

use super::page::{Page, array, pairs, rfc1123, str};
use super::pod::{describe_containers, describe_volumes};
use crate::cli::get::seconds;
use crate::cli::table::age;
use crate::daemon::store::Kind;
use crate::protocol::Event;

/// An object that is not a pod; of a deployment, `sets` are its replica sets.
pub fn text(kind: Kind, object: &Value, sets: &[Value], events: &[Event]) -> String {
    let mut page = Page::default();
    page.line(0, "Name", str(object, "/metadata/name"));
    page.line(0, "Namespace", str(object, "/metadata/namespace"));
    page.line(0, "UID", str(object, "/metadata/uid"));
    page.line(0, "CreationTimestamp", &rfc1123(str(object, "/metadata/creationTimestamp")));
    if !str(object, "/metadata/deletionTimestamp").is_empty() {
        page.line(0, "Status", "Terminating");
    }
    page.list(0, "Labels", &pairs(&object["metadata"]["labels"], "="));
    page.list(0, "Annotations", &pairs(&object["metadata"]["annotations"], ": "));
    match kind {
        Kind::Pod => {}
        Kind::Deployment => deployment(&mut page, object, sets),
        Kind::ReplicaSet => replica_set(&mut page, object),
        Kind::Job => job(&mut page, object),
        Kind::ConfigMap => config_map(&mut page, object),
        Kind::Secret => secret(&mut page, object),
    }
    if !matches!(kind, Kind::ConfigMap | Kind::Secret) {
        page.events(events);
    }
    page.text
}

fn number(object: &Value, pointer: &str) -> u64 {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn selector(page: &mut Page, object: &Value) {
    let mut terms = pairs(&object["spec"]["selector"]["matchLabels"], "=");
    for term in array(object, "/spec/selector/matchExpressions") {
        let values: Vec<&str> = array(term, "/values").iter().filter_map(Value::as_str).collect();
        let values =
            if values.is_empty() { String::new() } else { format!(" ({})", values.join(",")) };
        terms.push(format!(
            "{} {}{values}",
            str(term, "/key"),
            str(term, "/operator").to_lowercase()
        ));
    }
    if !terms.is_empty() {
        page.line(0, "Selector", &terms.join(","));
    }
}

fn template(page: &mut Page, object: &Value) {
    let template = &object["spec"]["template"];
    page.line(0, "Pod Template", "");
    page.list(1, "Labels", &pairs(&template["metadata"]["labels"], "="));
    let annotations = pairs(&template["metadata"]["annotations"], ": ");
    if !annotations.is_empty() {
        page.list(1, "Annotations", &annotations);
    }
    describe_containers(page, 1, template, false);
    describe_volumes(page, 1, template);
}

fn deployment(page: &mut Page, object: &Value, sets: &[Value]) {
    selector(page, object);
    let count = |field: &str| number(object, &format!("/status/{field}"));
    let desired = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    page.line(
        0,
        "Replicas",
        &format!(
            "{desired} desired | {} updated | {} total | {} available | {} unavailable",
            count("updatedReplicas"),
            count("replicas"),
            count("availableReplicas"),
            count("unavailableReplicas")
        ),
    );
    page.line(0, "StrategyType", str(object, "/spec/strategy/type"));
    page.line(0, "MinReadySeconds", &number(object, "/spec/minReadySeconds").to_string());
    let update = &object["spec"]["strategy"]["rollingUpdate"];
    if update.is_object() {
        let amount = |field: &str| {
            update[field].as_str().map_or_else(|| update[field].to_string(), str::to_owned)
        };
        let (unavailable, surge) = (amount("maxUnavailable"), amount("maxSurge"));
        let text = format!("{unavailable} max unavailable, {surge} max surge");
        page.line(0, "RollingUpdateStrategy", &text);
    }
    template(page, object);
    page.conditions(object, &["Type", "Status", "Reason"]);
    let hash = object["metadata"]["annotations"][crate::workload::REVISION].as_str();
    let shown = |set: &Value| {
        let (have, wanted) = (number(set, "/status/replicas"), number(set, "/spec/replicas"));
        format!("{} ({have}/{wanted} replicas created)", str(set, "/metadata/name"))
    };
    let is_new =
        |set: &&Value| set["metadata"]["annotations"][crate::workload::REVISION].as_str() == hash;
    let old: Vec<String> = sets.iter().filter(|set| !is_new(set)).map(shown).collect();
    let new = sets.iter().find(is_new).map_or_else(|| "<none>".into(), shown);
    page.line(
        0,
        "OldReplicaSets",
        if old.is_empty() { "<none>".into() } else { old.join(", ") }.as_str(),
    );
    page.line(0, "NewReplicaSet", &new);
}

fn replica_set(page: &mut Page, object: &Value) {
    selector(page, object);
    if let Some(owner) = array(object, "/metadata/ownerReferences").first() {
        page.line(0, "Controlled By", &format!("{}/{}", str(owner, "/kind"), str(owner, "/name")));
    }
    let (have, wanted) = (number(object, "/status/replicas"), number(object, "/spec/replicas"));
    page.line(0, "Replicas", &format!("{have} current / {wanted} desired"));
    template(page, object);
}

fn job(page: &mut Page, object: &Value) {
    page.line(0, "Parallelism", &number(object, "/spec/parallelism").to_string());
    let completions = object.pointer("/spec/completions").and_then(Value::as_u64);
    page.line(0, "Completions", &completions.map_or_else(|| "<unset>".into(), |n| n.to_string()));
    page.line(0, "Backoff Limit", &number(object, "/spec/backoffLimit").to_string());
    for (key, pointer) in
        [("Start Time", "/status/startTime"), ("Completed At", "/status/completionTime")]
    {
        if !str(object, pointer).is_empty() {
            page.line(0, key, &rfc1123(str(object, pointer)));
        }
    }
    let (begin, end) =
        (seconds(object, "/status/startTime"), seconds(object, "/status/completionTime"));
    if let (Some(begin), Some(end)) = (begin, end) {
        page.line(0, "Duration", &age(end.saturating_sub(begin)));
    }
    let count = |field: &str| number(object, &format!("/status/{field}"));
    page.line(
        0,
        "Pods Statuses",
        &format!(
            "{} Active ({} Ready) / {} Succeeded / {} Failed",
            count("active"),
            count("ready"),
            count("succeeded"),
            count("failed")
        ),
    );
    template(page, object);
    page.conditions(object, &["Type", "Status", "Reason"]);
}

fn config_map(page: &mut Page, object: &Value) {
    page.line(0, "Data", "");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        page.line(1, key, value.as_str().unwrap_or_default());
    }
    for (key, value) in object["binaryData"].as_object().into_iter().flatten() {
        page.line(1, key, &size(value));
    }
}

/// What is in it is never shown.
fn secret(page: &mut Page, object: &Value) {
    page.line(0, "Type", str(object, "/type"));
    page.line(0, "Data", "");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        page.line(1, key, &size(value));
    }
}

/// How many bytes a text of base64 stands for.
fn size(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    format!("{} bytes", (text.len() / 4 * 3).saturating_sub(padding))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_is_told_with_its_sets_and_a_secret_without_what_it_holds() {
        let deployment = json!({
            "metadata": {"name": "web", "annotations": {"deployment.kubernetes.io/revision": "2"}},
            "spec": {
                "replicas": 3,
                "selector": {
                    "matchLabels": {"app": "web"},
                    "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
                },
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}},
                "template": {"spec": {"containers": [{"name": "c", "image": "x", "command": ["a"]}]}},
            },
            "status": {"replicas": 4, "updatedReplicas": 1, "availableReplicas": 3, "unavailableReplicas": 1},
        });
        let set = |name: &str, revision: &str, replicas: u64| {
            json!({
                "metadata": {"name": name, "annotations": {"deployment.kubernetes.io/revision": revision}},
                "spec": {"replicas": replicas}, "status": {"replicas": replicas},
            })
        };
        let sets = [set("web-a", "1", 3), set("web-b", "2", 1)];
        let text = text(Kind::Deployment, &deployment, &sets, &[]);
        for line in [
            "Selector:           app=web,tier in (a,b)",
            "Replicas:           3 desired | 1 updated | 4 total | 3 available | 1 unavailable",
            "RollingUpdateStrategy: 25% max unavailable, 1 max surge",
            "  Containers:",
            "      Image:        x",
            "OldReplicaSets:     web-a (3/3 replicas created)",
            "NewReplicaSet:      web-b (1/1 replicas created)",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let secret =
            json!({"metadata": {"name": "s"}, "type": "Opaque", "data": {"key": "c2VjcmV0"}});
        let text = super::text(Kind::Secret, &secret, &[], &[]);
        assert!(
            text.contains("key:") && text.contains("6 bytes") && !text.contains("c2Vj"),
            "{text}"
        );
    }
}
