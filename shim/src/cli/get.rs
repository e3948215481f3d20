//! `podshim get`: what there is, in kubectl's columns or as whole objects.

use anyhow::{Context, bail};
use bundles::layout::Layout;
use clap::Args;
use clap_complete::{ArgValueCandidates, ArgValueCompleter};
use plan::Wall;
use serde_json::Value;

use self::print::Printer;
use super::api::Api;
use super::client::has_name;
use super::daemon::kind_of;
use super::jsonpath::Template;
use super::selector::Selector;
use super::table::age;
use super::terminal::{complain, tell};
use super::watched::{Arrivals, Heard, Watched, speaking};
use super::{Connection, FAILED, PodRef, completion, ended, one_line, pods};
use crate::daemon::store::Kind;
use crate::run::objects;

mod print;
pub mod status;

/// `podshim get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// pods, jobs, deployments, replicasets, configmaps or secrets (po, deploy, rs, cm, …), several
    /// with commas between them, `all`, or KIND/NAME
    #[arg(value_name = "KIND")]
    kind: String,
    /// Their names; all if none is given
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(completion::pod_names))]
    names: Vec<String>,
    /// How to print: json, yaml, wide, name, jsonpath=TEMPLATE
    #[arg(
        long,
        short,
        value_name = "FORMAT",
        value_parser = |text: &str| Format::parse(text).map_err(|e| one_line(&e)),
        add = ArgValueCandidates::new(completion::formats)
    )]
    output: Option<Format>,
    /// Without the line of headings
    #[arg(long)]
    no_headers: bool,
    /// Go on: print again what changes
    #[arg(long, short)]
    watch: bool,
    /// Those whose labels fit (KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), KEY, !KEY)
    #[arg(
        long,
        short = 'l',
        value_parser = |text: &str| Selector::parse(text).map_err(|e| one_line(&e))
    )]
    selector: Option<Selector>,
    /// In all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// The namespace to look in
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

/// `-o` of `podshim get`.
#[derive(Clone, Debug, PartialEq)]
enum Format {
    Json,
    Yaml,
    Wide,
    Name,
    JsonPath(Template),
}

impl Format {
    fn parse(text: &str) -> anyhow::Result<Format> {
        Ok(match text {
            "json" => Format::Json,
            "yaml" => Format::Yaml,
            "wide" => Format::Wide,
            "name" => Format::Name,
            "jsonpath" => bail!("jsonpath needs a template: -o jsonpath='{{.metadata.name}}'"),
            other => match other.strip_prefix("jsonpath=") {
                Some(template) => Format::JsonPath(Template::parse(template)?),
                None => bail!("there are json, yaml, wide, name and jsonpath=TEMPLATE"),
            },
        })
    }
}

/// What is asked for.
struct Asked<'a> {
    args: &'a GetArgs,
    kind: Kind,
    names: Vec<&'a str>,
    /// Other kinds are shown too, so that names tell theirs.
    is_one_of_many: bool,
}

/// Prints objects.
pub fn get(layout: &Layout, args: &GetArgs) -> anyhow::Result<i32> {
    let word = if args.kind == "all" { ALL } else { &args.kind };
    if word.contains(',') {
        return several(layout, args, word);
    }
    let asked = Asked::of(args)?;
    let mut printer = Printer::new(&asked);
    let code = match (args.watch, asked.kind) {
        (false, _) => once(layout, &asked, &mut printer)?,
        (true, Kind::Pod) => watch_pods(layout, &asked, &mut printer)?,
        (true, _) => watch_objects(layout, &asked, &mut printer)?,
    };
    printer.output.end()?;
    Ok(code)
}

/// What `all` stands for: what runs, and not what is read.
const ALL: &str = "pods,deployments,replicasets,jobs";

/// Objects of several kinds: a table for each of which there are any, or one list.
fn several(layout: &Layout, args: &GetArgs, words: &str) -> anyhow::Result<i32> {
    if !args.names.is_empty() || words.contains('/') {
        bail!("names are of one kind: write `get KIND NAME` for each kind");
    }
    if args.watch {
        bail!("one kind at a time can be watched (-w)");
    }
    let is_table = matches!(args.output, None | Some(Format::Wide | Format::Name));
    let (mut all, mut failed, mut is_first) = (Vec::new(), false, true);
    let mut asked = None;
    for word in words.split(',') {
        let one = Asked { args, kind: known_kind(word)?, names: Vec::new(), is_one_of_many: true };
        let (found, silent) = find(layout, &one)?;
        failed |= silent;
        if is_table && !found.is_empty() {
            let mut printer = Printer::new(&one);
            if !is_first && args.output != Some(Format::Name) {
                printer.output.line("");
            }
            printer.list(&found)?;
            printer.output.end()?;
            is_first = false;
        }
        all.extend(found);
        asked = Some(one);
    }
    let Some(asked) = asked else { return Ok(0) };
    if !is_table {
        let mut printer = Printer::new(&asked);
        printer.list(&all)?;
        printer.output.end()?;
    } else if all.is_empty() && !failed && args.output.is_none() {
        nothing(layout, &asked)?;
    }
    Ok(if failed { FAILED } else { 0 })
}

fn known_kind(word: &str) -> anyhow::Result<Kind> {
    kind_of(word).with_context(|| {
        format!(
            "podshim has no {word:?}: it has pods, jobs, deployments, replicasets, configmaps and secrets"
        )
    })
}

impl Asked<'_> {
    fn of(args: &GetArgs) -> anyhow::Result<Asked<'_>> {
        let (kind, names) = match args.kind.split_once('/') {
            Some((kind, name)) => {
                let mut names = vec![name];
                for other in &args.names {
                    match other.split_once('/') {
                        Some((same, name)) if same == kind => names.push(name),
                        _ => bail!("{other:?} is not of the form {kind}/NAME as what is before it"),
                    }
                }
                (kind, names)
            }
            None => (args.kind.as_str(), args.names.iter().map(String::as_str).collect()),
        };
        let kind = known_kind(kind)?;
        if !names.is_empty() && args.selector.is_some() {
            bail!("a name cannot be given together with a selector (-l)");
        }
        if !names.is_empty() && args.all_namespaces {
            bail!("a name is looked for in one namespace (-n), not in all (-A)");
        }
        Ok(Asked { args, kind, names, is_one_of_many: false })
    }

    fn in_namespace(&self, namespace: &str) -> bool {
        self.args.all_namespaces || namespace == self.args.namespace
    }

    fn wanted(&self, object: &Value) -> bool {
        let name = text(object, "/metadata/name");
        self.in_namespace(&text(object, "/metadata/namespace"))
            && (self.names.is_empty() || self.names.contains(&name.as_str()))
            && self.args.selector.as_ref().is_none_or(|selector| selector.fits(object))
    }

    fn pod_wanted(&self, pod: &PodRef) -> bool {
        self.in_namespace(&pod.namespace)
            && (self.names.is_empty() || self.names.contains(&pod.name.as_str()))
    }

    /// Complains about each name that is not there.
    fn all_found(&self, found: &[Value]) -> bool {
        let missing: Vec<&&str> = self
            .names
            .iter()
            .filter(|name| !found.iter().any(|o| text(o, "/metadata/name") == ***name))
            .collect();
        for name in &missing {
            let kinds = self.kind.plural();
            complain(&format!("{kinds} {name:?} not found in namespace {:?}", self.args.namespace));
        }
        missing.is_empty()
    }
}

/// All objects that are wanted, in order, and whether a pod did not answer.
fn find(layout: &Layout, asked: &Asked<'_>) -> anyhow::Result<(Vec<Value>, bool)> {
    let (mut found, mut failed) = match asked.kind {
        Kind::Pod => pod_objects(layout, asked)?,
        other => (objects::read(layout, other.name())?, false),
    };
    // Those that only the daemon knows: what has ended, or has not begun.
    if let Some(api) = Api::find(layout)? {
        let namespace = Some(asked.args.namespace.as_str()).filter(|_| !asked.args.all_namespaces);
        match api.list(asked.kind, namespace) {
            Ok(objects) => {
                for object in objects {
                    let uid = &object["metadata"]["uid"];
                    if !found.iter().any(|known| known["metadata"]["uid"] == *uid) {
                        found.push(object);
                    }
                }
            }
            // What lives is shown all the same.
            Err(e) => {
                complain(&one_line(&e));
                failed = true;
            }
        }
    }
    found.retain(|o| asked.wanted(o));
    found.sort_by_key(|o| {
        let name = text(o, "/metadata/name");
        let place = asked.names.iter().position(|n| **n == name);
        (place, text(o, "/metadata/namespace"), name)
    });
    Ok((found, failed))
}

/// The objects of all pods that answer, and whether one did not.
fn pod_objects(layout: &Layout, asked: &Asked<'_>) -> anyhow::Result<(Vec<Value>, bool)> {
    let mut failed = false;
    let mut objects = Vec::new();
    for pod in pods(layout)?.into_iter().filter(|pod| asked.pod_wanted(pod)) {
        match Connection::open(layout, &pod).and_then(|mut c| c.object()) {
            Ok(object) => objects.push(object),
            // It ended between the list and the question.
            Err(_) if !has_name(layout, &pod) => {}
            Err(e) => {
                complain(&one_line(&e));
                failed = true;
            }
        }
    }
    Ok((objects, failed))
}

fn once(layout: &Layout, asked: &Asked<'_>, printer: &mut Printer<'_>) -> anyhow::Result<i32> {
    let (found, silent) = find(layout, asked)?;
    // One that does not answer was complained about already.
    let failed = silent || !asked.all_found(&found);
    if !found.is_empty() || !failed {
        printer.list(&found)?;
    }
    if found.is_empty() && !failed && asked.args.output.is_none() {
        nothing(layout, asked)?;
    }
    Ok(if failed { FAILED } else { 0 })
}

/// kubectl's sentence, and where else there is something.
fn nothing(layout: &Layout, asked: &Asked<'_>) -> anyhow::Result<()> {
    if asked.args.all_namespaces {
        tell("No resources found\n");
        return Ok(());
    }
    let elsewhere = match asked.kind {
        Kind::Pod => pods(layout)?.len(),
        other => objects::read(layout, other.name())?.len(),
    };
    let hint = if elsewhere > 0 && asked.args.selector.is_none() {
        format!(" ({elsewhere} in other namespaces: -A shows them)")
    } else if asked.kind != Kind::Pod && Api::find(layout)?.is_none() {
        " (no daemon runs)".to_owned()
    } else {
        String::new()
    };
    tell(&format!("No resources found in {} namespace.{hint}\n", asked.args.namespace));
    Ok(())
}

/// A line for each change of a pod that can be seen in it, until nobody reads any more.
fn watch_pods(
    layout: &Layout,
    asked: &Asked<'_>,
    printer: &mut Printer<'_>,
) -> anyhow::Result<i32> {
    let mut arrivals = Arrivals::new(layout);
    let mut watched: Vec<Watched> = Vec::new();
    let mut first = true;
    loop {
        let mut arrived = arrivals.next(|pod| asked.pod_wanted(pod))?;
        arrived.retain(|one| asked.wanted(&one.object));
        if first {
            let living: Vec<PodRef> = arrived.iter().map(|one| one.pod.clone()).collect();
            let namespace =
                Some(asked.args.namespace.as_str()).filter(|_| !asked.args.all_namespaces);
            let mut found = ended::all(layout, namespace, &living)?;
            found.retain(|pod| asked.wanted(pod));
            found.iter().try_for_each(|pod| printer.change(pod))?;
            found.extend(arrived.iter().map(|one| one.object.clone()));
            if arrivals.failed || !asked.all_found(&found) {
                return Ok(FAILED);
            }
            first = false;
        }
        for one in &arrived {
            printer.change(&one.object)?;
        }
        watched.append(&mut arrived);
        for index in speaking(&watched, Arrivals::LOOK)?.into_iter().rev() {
            let one = &mut watched[index];
            match one.hear()? {
                None => {
                    arrivals.lost(&watched.swap_remove(index).pod);
                    continue;
                }
                Some(Heard::Object) => {}
                Some(_) => one.ask_again(),
            }
            printer.change(&one.object)?;
        }
        if printer.output.is_broken() {
            return Ok(0);
        }
    }
}

/// Jobs and deployments are files, which their controllers replace.
fn watch_objects(
    layout: &Layout,
    asked: &Asked<'_>,
    printer: &mut Printer<'_>,
) -> anyhow::Result<i32> {
    let (mut found, _) = find(layout, asked)?;
    if !asked.all_found(&found) {
        return Ok(FAILED);
    }
    while !printer.output.is_broken() {
        for object in &found {
            printer.change(object)?;
        }
        std::thread::sleep(Arrivals::LOOK);
        found = find(layout, asked)?.0;
    }
    Ok(0)
}

/// A text of the object; empty if it has none there.
pub(super) fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(object: &Value, pointer: &str) -> u64 {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// A time of the object, in seconds since the epoch.
pub(super) fn seconds(object: &Value, pointer: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(object.pointer(pointer)?.as_str()?).ok()?;
    time.duration_since(std::time::UNIX_EPOCH).ok().map(|d| d.as_secs())
}

fn old(object: &Value, now: Wall) -> String {
    seconds(object, "/metadata/creationTimestamp")
        .or_else(|| seconds(object, "/status/startTime"))
        .map_or_else(|| "<unknown>".into(), |s| age((now.0 / 1_000_000_000).saturating_sub(s)))
}
