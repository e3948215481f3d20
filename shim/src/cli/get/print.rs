//! What `podshim get` prints: kubectl's columns, or whole objects.

use std::collections::BTreeMap;

use anyhow::Context;
use plan::Wall;
use serde_json::Value;

use super::super::daemon::word;
use super::super::table::{Columns, age};
use super::super::terminal::Output;
use super::{Asked, Format, Kind, number, old, seconds, status, text};

/// Prints lists, and objects that change.
pub struct Printer<'a> {
    asked: &'a Asked<'a>,
    /// Where it goes.
    pub output: Output,
    columns: Columns,
    header: bool,
    /// What was printed last of each object, without its age.
    last: BTreeMap<[String; 3], Vec<String>>,
}

impl<'a> Printer<'a> {
    /// Nothing is printed yet.
    pub fn new(asked: &'a Asked<'a>) -> Printer<'a> {
        Printer {
            asked,
            output: Output::default(),
            columns: Columns::apart(3),
            header: !asked.args.no_headers,
            last: BTreeMap::new(),
        }
    }

    /// All that was found, once.
    pub fn list(&mut self, found: &[Value]) -> anyhow::Result<()> {
        match &self.asked.args.output {
            None | Some(Format::Wide) => {
                let rows = found.iter().map(|object| self.row(object)).collect();
                self.rows(rows);
            }
            Some(Format::Name) => found.iter().for_each(|object| self.name(object)),
            Some(_) => {
                // kubectl prints one object bare and several as a List.
                let whole = match (&self.asked.names[..], found) {
                    ([_], [one]) => one.clone(),
                    (_, many) => list(many),
                };
                self.whole(&whole)?;
            }
        }
        Ok(())
    }

    /// An object that is new or another than before, if that can be seen.
    pub fn change(&mut self, object: &Value) -> anyhow::Result<()> {
        let columns = matches!(self.asked.args.output, None | Some(Format::Wide));
        let mut seen = if columns { self.row(object) } else { vec![object.to_string()] };
        let row = seen.clone();
        if columns {
            // "3 (5s ago)" and the age change by themselves.
            for (heading, cell) in self.headings().iter().zip(&mut seen) {
                match heading.as_str() {
                    "RESTARTS" => cell.truncate(cell.find(' ').unwrap_or(cell.len())),
                    "AGE" => cell.clear(),
                    _ => {}
                }
            }
        }
        let key = ["namespace", "name", "uid"].map(|f| text(&object["metadata"], &format!("/{f}")));
        if self.last.insert(key, seen.clone()).as_ref() == Some(&seen) {
            return Ok(());
        }
        match &self.asked.args.output {
            None | Some(Format::Wide) => self.rows(vec![row]),
            Some(Format::Name) => self.name(object),
            Some(Format::Yaml) => {
                self.output.line("---");
                self.whole(object)?;
            }
            Some(Format::JsonPath(_)) => {
                self.whole(object)?;
                self.output.line("");
            }
            Some(Format::Json) => self.whole(object)?,
        }
        Ok(())
    }

    fn name(&mut self, object: &Value) {
        let name = text(object, "/metadata/name");
        self.output.line(format_args!("{}/{name}", word(self.asked.kind)));
    }

    fn whole(&mut self, object: &Value) -> anyhow::Result<()> {
        let printed = match &self.asked.args.output {
            Some(Format::Yaml) => bundles::yaml::to_string(object).context("cannot print YAML")?,
            Some(Format::JsonPath(template)) => template.render(object)?,
            _ => serde_json::to_string_pretty(object)? + "\n",
        };
        self.output.write(printed.as_bytes());
        Ok(())
    }

    fn rows(&mut self, mut rows: Vec<Vec<String>>) {
        if self.header && !rows.is_empty() {
            self.header = false;
            rows.insert(0, self.headings());
        }
        self.output.write(self.columns.lines(&rows).as_bytes());
    }

    fn headings(&self) -> Vec<String> {
        let mut names = match self.asked.kind {
            Kind::Pod => vec!["NAME", "READY", "STATUS", "RESTARTS", "AGE"],
            Kind::Job => vec!["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"],
            Kind::Deployment => vec!["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"],
            Kind::ReplicaSet => vec!["NAME", "DESIRED", "CURRENT", "READY", "AGE"],
            Kind::ConfigMap => vec!["NAME", "DATA", "AGE"],
            Kind::Secret => vec!["NAME", "TYPE", "DATA", "AGE"],
        };
        if self.asked.args.all_namespaces {
            names.insert(0, "NAMESPACE");
        }
        if self.is_wide() {
            names.extend(match self.asked.kind {
                Kind::Pod => &["IP", "NODE", "NOMINATED NODE", "READINESS GATES"][..],
                Kind::ConfigMap | Kind::Secret => &[],
                _ => &["CONTAINERS", "IMAGES", "SELECTOR"],
            });
        }
        names.into_iter().map(str::to_owned).collect()
    }

    fn is_wide(&self) -> bool {
        self.asked.args.output == Some(Format::Wide)
    }

    fn row(&self, object: &Value) -> Vec<String> {
        let now = runtime::clock::now().wall;
        let mut row = match self.asked.kind {
            Kind::Pod => status::pod_row(object, now),
            Kind::Job => job_row(object, now),
            Kind::Deployment => deployment_row(object, now),
            Kind::ReplicaSet => replica_set_row(object, now),
            Kind::ConfigMap => vec![text(object, "/metadata/name"), data(object), old(object, now)],
            Kind::Secret => {
                let name = text(object, "/metadata/name");
                vec![name, text(object, "/type"), data(object), old(object, now)]
            }
        };
        if let Some(name) = row.first_mut().filter(|_| self.asked.is_one_of_many) {
            name.insert_str(0, &format!("{}/", word(self.asked.kind)));
        }
        if self.asked.args.all_namespaces {
            row.insert(0, text(object, "/metadata/namespace"));
        }
        if self.is_wide() {
            row.extend(match self.asked.kind {
                Kind::Pod => status::wide(object),
                Kind::ConfigMap | Kind::Secret => Vec::new(),
                _ => template(object),
            });
        }
        row
    }
}

fn list(items: &[Value]) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""},
        "items": items})
}

/// The names and images of a workload's mains, and which pods are its own.
fn template(object: &Value) -> Vec<String> {
    let containers = object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    let all = |field: &str| {
        let of = |c: &Value| c[field].as_str().unwrap_or_default().to_owned();
        containers.into_iter().flatten().map(of).collect::<Vec<_>>().join(",")
    };
    let labels = object.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let labels: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let selector = if labels.is_empty() { "<none>".into() } else { labels.join(",") };
    vec![all("name"), all("image"), selector]
}

fn job_row(job: &Value, now: Wall) -> Vec<String> {
    let condition = |kind: &str| {
        job.pointer("/status/conditions")
            .and_then(Value::as_array)
            .is_some_and(|all| all.iter().any(|c| c["type"] == kind && c["status"] == "True"))
    };
    let status = match () {
        () if condition("Complete") => "Complete",
        () if condition("Failed") => "Failed",
        () => "Running",
    };
    let wanted = job.pointer("/spec/completions").and_then(Value::as_u64);
    let succeeded = number(job, "/status/succeeded");
    let completions = match wanted {
        Some(n) => format!("{succeeded}/{n}"),
        None => match number(job, "/spec/parallelism") {
            0 | 1 => format!("{succeeded}/1"),
            many => format!("{succeeded}/1 of {many}"),
        },
    };
    let end = seconds(job, "/status/completionTime").unwrap_or(now.0 / 1_000_000_000);
    let duration = seconds(job, "/status/startTime").map_or(0, |s| end.saturating_sub(s));
    vec![text(job, "/metadata/name"), status.into(), completions, age(duration), old(job, now)]
}

fn deployment_row(deployment: &Value, now: Wall) -> Vec<String> {
    let wanted = deployment.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    vec![
        text(deployment, "/metadata/name"),
        format!("{}/{wanted}", number(deployment, "/status/readyReplicas")),
        number(deployment, "/status/updatedReplicas").to_string(),
        number(deployment, "/status/availableReplicas").to_string(),
        old(deployment, now),
    ]
}

fn replica_set_row(set: &Value, now: Wall) -> Vec<String> {
    let mut row = vec![text(set, "/metadata/name")];
    row.extend(
        ["/spec/replicas", "/status/replicas", "/status/readyReplicas"]
            .map(|at| number(set, at).to_string()),
    );
    row.push(old(set, now));
    row
}

/// How many keys a ConfigMap or Secret has.
fn data(object: &Value) -> String {
    let keys = ["/data", "/binaryData"].map(|at| object.pointer(at).and_then(Value::as_object));
    keys.into_iter().flatten().map(serde_json::Map::len).sum::<usize>().to_string()
}
