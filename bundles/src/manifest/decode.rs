//! From nodes to typed objects: which kind it is, and the four looks at it.
//!
//! Knows the kinds that podshim runs and how complaints find their place; what is wrong with an
//! object is said by the modules that it calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;

use super::diagnostic::Problem;
use super::source::Source;
use super::span::{Data, Finding, Node, Path, Span};
use super::yaml::{self, Fault};
use super::{MAX_PROBLEMS, Report, defaults};
use crate::{schema, supported, validate};

/// An object that podshim runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// `v1`, kind Pod.
    Pod(Box<Pod>),
    /// `apps/v1`, kind Deployment.
    Deployment(Box<Deployment>),
    /// `batch/v1`, kind Job.
    Job(Box<Job>),
}

impl Object {
    /// The kind's name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Object::Pod(_) => "Pod",
            Object::Deployment(_) => "Deployment",
            Object::Job(_) => "Job",
        }
    }

    /// The object's metadata.
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Object::Pod(pod) => &pod.metadata,
            Object::Deployment(deployment) => &deployment.metadata,
            Object::Job(job) => &job.metadata,
        }
    }

    /// The template of a workload's pods.
    #[must_use]
    pub fn template(&self) -> Option<&PodTemplateSpec> {
        match self {
            Object::Pod(_) => None,
            Object::Deployment(deployment) => Some(&deployment.spec.template),
            Object::Job(job) => job.spec.as_ref().map(|spec| &spec.template),
        }
    }

    fn fill_in(&mut self) {
        match self {
            Object::Pod(pod) => defaults::pod(pod),
            Object::Deployment(deployment) => defaults::deployment(deployment),
            Object::Job(job) => defaults::job(job),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pod,
    Deployment,
    Job,
    List,
}

const KINDS: [(&str, &str, Kind); 4] = [
    ("v1", "Pod", Kind::Pod),
    ("apps/v1", "Deployment", Kind::Deployment),
    ("batch/v1", "Job", Kind::Job),
    ("v1", "List", Kind::List),
];

impl Kind {
    fn definition(self) -> &'static str {
        match self {
            Kind::Pod => schema::POD,
            Kind::Deployment => schema::DEPLOYMENT,
            Kind::Job => schema::JOB,
            Kind::List => "",
        }
    }
}

/// Collects what all sources hold.
#[derive(Default)]
pub(super) struct Reader {
    report: Report,
    /// Kind, namespace and name of what was read, and where.
    names: BTreeMap<(&'static str, String, String), Problem>,
}

impl Reader {
    pub(super) fn source(&mut self, source: &Arc<Source>) {
        let parsed = yaml::parse(&source.text);
        let problem = |fault: Fault| {
            Problem::new(source, fault.span, "", &fault.message, fault.help.as_deref())
        };
        self.report.problems.extend(parsed.faults.into_iter().map(problem));
        self.report.problems.truncate(MAX_PROBLEMS);
        self.report.warnings.extend(parsed.doubts.into_iter().map(problem));
        self.report.warnings.truncate(MAX_PROBLEMS);
        for document in &parsed.documents {
            self.document(source, document);
        }
    }

    /// Says so if there was nothing at all.
    pub(super) fn finish(mut self, first: Option<&Arc<Source>>) -> Report {
        let report = &mut self.report;
        if report.objects.is_empty()
            && report.problems.is_empty()
            && let Some(source) = first
        {
            let help = "a manifest holds a Pod, a Deployment or a Job";
            report.problems.push(Problem::new(source, 0..0, "", "no object here", Some(help)));
        }
        self.report
    }

    fn document(&mut self, source: &Arc<Source>, node: &Node) {
        if !matches!(node.data, Data::Map(_)) {
            let finding = Finding::new(Path::default(), "not an object")
                .help("a manifest begins with `apiVersion:` and `kind:`");
            return self.problem(source, node, finding);
        }
        match kind_of(node) {
            Ok(Kind::List) => self.list(source, node),
            Ok(kind) => self.object(source, node, kind),
            Err(findings) => findings.into_iter().for_each(|f| self.problem(source, node, f)),
        }
    }

    fn list(&mut self, source: &Arc<Source>, node: &Node) {
        for entry in node.entries() {
            let known = ["apiVersion", "kind", "metadata", "items"];
            if !known.contains(&entry.key.as_str()) {
                let path = Path::default().field_of_one_name(&entry.key);
                let finding = Finding::new(path, format!("unknown field {:?}", entry.key)).at_key();
                self.problem(source, node, finding);
            }
        }
        match node.get("items").map(|items| &items.data) {
            Some(Data::List(items)) => items.iter().for_each(|item| self.document(source, item)),
            None | Some(Data::Null) => {}
            Some(_) => {
                let finding = Finding::new(Path::default().field("items"), "expected a list");
                self.problem(source, node, finding);
            }
        }
    }

    fn object(&mut self, source: &Arc<Source>, node: &Node, kind: Kind) {
        let walked = schema::walk(node, kind.definition(), &source.text);
        let decoded = match kind {
            Kind::Pod => typed(walked.value).map(Object::Pod),
            Kind::Deployment => typed(walked.value).map(Object::Deployment),
            Kind::Job => typed(walked.value).map(Object::Job),
            Kind::List => return,
        };
        let mut findings = walked.findings;
        match decoded {
            Ok(mut object) => {
                object.fill_in();
                let is_volume = |path: &Path| path.to_string().contains("spec.volumes[");
                let volumes = walked.damaged.iter().any(is_volume);
                let is_echo = |finding: &Finding| is_echo(finding, &walked.damaged, volumes);
                findings.extend(validate::check(&object).into_iter().filter(|f| !is_echo(f)));
                self.name(source, node, &object, &mut findings);
                self.report.objects.push(object);
            }
            Err(error) => findings.push(Finding::new(Path::default(), error)),
        }
        let unsupported = supported::check(node, kind.definition());
        let known: Vec<Path> = findings.iter().map(|finding| finding.path.clone()).collect();
        let new = unsupported.refused.into_iter().filter(|finding| !known.contains(&finding.path));
        findings.extend(new);
        findings.into_iter().for_each(|finding| self.problem(source, node, finding));
        let room = MAX_PROBLEMS - self.report.warnings.len();
        let warnings = unsupported.warned.into_iter().take(room);
        self.report.warnings.extend(warnings.map(|finding| locate(source, node, finding)));
    }

    /// One input cannot hold one object twice; which of them would be meant?
    fn name(
        &mut self,
        source: &Arc<Source>,
        node: &Node,
        object: &Object,
        findings: &mut Vec<Finding>,
    ) {
        let metadata = object.metadata();
        let Some(name) = metadata.name.clone().filter(|name| !name.is_empty()) else { return };
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let path = Path::default().field("metadata.name");
        let place = locate(source, node, Finding::new(path.clone(), ""));
        match self.names.get(&(object.kind(), namespace.clone(), name.clone())) {
            None => {
                self.names.insert((object.kind(), namespace, name), place);
            }
            // To find a place's line takes time, and nobody would read of it.
            Some(_) if self.is_full() => {}
            Some(first) => findings.push(
                Finding::new(path, format!("Duplicate value: {name:?}")).help(format!(
                    "a {} of this name in namespace {namespace} is already at {}:{}",
                    object.kind(),
                    first.source(),
                    first.line()
                )),
            ),
        }
    }

    fn is_full(&self) -> bool {
        self.report.problems.len() >= MAX_PROBLEMS
    }

    fn problem(&mut self, source: &Arc<Source>, node: &Node, finding: Finding) {
        if self.is_full() {
            return;
        }
        let problem = locate(source, node, finding);
        if !self.report.problems.contains(&problem) {
            self.report.problems.push(problem);
        }
    }
}

fn typed<T: DeserializeOwned>(value: serde_json::Value) -> Result<Box<T>, String> {
    serde_json::from_value(value).map(Box::new).map_err(|error| error.to_string())
}

/// Whether a complaint only repeats that something was left out of the typed object, which has been
/// said with the reason. What refers to a volume does so if any volume was left out.
fn is_echo(finding: &Finding, damaged: &[Path], damaged_volumes: bool) -> bool {
    if damaged_volumes && finding.message.starts_with("Not found") {
        return true;
    }
    damaged.iter().any(|path| {
        finding.path.is_within(path)
            || (finding.message.starts_with("Required") && path.is_within(&finding.path))
    })
}

fn locate(source: &Arc<Source>, node: &Node, finding: Finding) -> Problem {
    let span: Span =
        if finding.at_key { node.locate_key(&finding.path) } else { node.locate(&finding.path) };
    let path = finding.path.to_string();
    Problem::new(source, span, &path, &finding.message, finding.help.as_deref())
}

fn kind_of(node: &Node) -> Result<Kind, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut text = |field: &str| match node.get(field) {
        Some(value) if value.as_str().is_some_and(|text| !text.is_empty()) => {
            value.as_str().map(String::from)
        }
        Some(value) if !value.is_null() && value.as_str().is_none() => {
            findings.push(Finding::new(Path::default().field(field), "expected a string"));
            None
        }
        _ => {
            let example = if field == "kind" { "Pod" } else { "v1" };
            findings.push(
                Finding::new(Path::default().field(field), "Required value")
                    .help(format!("every object says what it is, as in `{field}: {example}`")),
            );
            None
        }
    };
    let (version, kind) = (text("apiVersion"), text("kind"));
    let Some(kind_name) = kind else { return Err(findings) };
    let Some((right_version, _, kind)) = KINDS.iter().find(|(_, name, _)| *name == kind_name)
    else {
        let message =
            format!("podshim does not run a {kind_name}; it runs Pod, Deployment and Job");
        let finding = Finding::new(Path::default().field("kind"), message);
        findings.push(finding.help(instead_of(&kind_name)));
        return Err(findings);
    };
    match version {
        Some(version) if version != *right_version => {
            let message = format!("{kind_name} has no version {version:?} here");
            let finding = Finding::new(Path::default().field("apiVersion"), message);
            findings.push(finding.help(format!("write `apiVersion: {right_version}`")));
            Err(findings)
        }
        Some(_) => Ok(*kind),
        None => Err(findings),
    }
}

fn instead_of(kind: &str) -> String {
    match kind {
        "ReplicaSet" | "StatefulSet" | "DaemonSet" | "ReplicationController" => {
            "a Deployment is the nearest: it keeps a number of pods running".into()
        }
        "CronJob" => "a Job runs once; let a timer of the host (systemd, cron) start it".into(),
        _ => match schema::nearest(kind, KINDS.map(|(_, name, _)| name)) {
            Some(near) => format!("did you mean {near}?"),
            None => "remove it from what is run here".into(),
        },
    }
}
