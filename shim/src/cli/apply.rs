//! `podshim apply -f FILE`: pods that run become what a manifest says now. Where a
//! daemon is, it is asked to.

use bundles::layout::Layout;
use bundles::manifest::Object;
use k8s_openapi::api::core::v1::Pod;

use super::api::Api;
use super::terminal::Output;
use super::{ApplyArgs, Connection, FAILED, PodRef, complain, find_pod};
use crate::pod::file::Definition;
use crate::protocol::{Reply, Request};
use crate::run::objects_of;

/// Changes the pods of manifests; all of them, or none.
pub fn apply(layout: &Layout, args: &ApplyArgs) -> anyhow::Result<i32> {
    if let Some(api) = Api::find(layout)? {
        return super::daemon::apply(&api, args);
    }
    let Some((objects, read)) = objects_of(&args.files, args.strict)? else { return Ok(FAILED) };
    let file = args.files.first().map(|f| f.display().to_string()).unwrap_or_default();
    let mut wanted = Vec::new();
    let mut complaints = Vec::new();
    for object in objects {
        match target(layout, object, &file) {
            Ok((pod, found)) => wanted.push((found, Definition::of(pod, &read))),
            Err(text) => complaints.push(text),
        }
    }
    complaints.iter().for_each(|text| complain(text));
    if !complaints.is_empty() {
        return Ok(FAILED);
    }
    // Of several, none is changed if one cannot be.
    if wanted.len() > 1 {
        let mut refused = false;
        for (pod, definition) in &wanted {
            refused |= ask(layout, pod, definition.clone(), true)?.is_none();
        }
        if refused {
            return Ok(FAILED);
        }
    }
    let mut output = Output::default();
    let mut code = 0;
    for (pod, definition) in wanted {
        code = code.max(change(layout, &pod, definition, &mut output)?);
    }
    output.end()?;
    Ok(code)
}

/// The living pod that an object is about.
fn target(layout: &Layout, object: Object, file: &str) -> Result<(Pod, PodRef), String> {
    let kind = match &object {
        Object::Deployment(_) => "Deployment",
        Object::Job(_) => "Job",
        _ => "Pod",
    };
    let meta = object.metadata().clone();
    let namespace = meta.namespace.unwrap_or_else(|| "default".into());
    let name = meta.name.unwrap_or_default();
    let Object::Pod(pod) = object else {
        return Err(format!(
            "{kind} {name:?}: only pods are changed while they run; end its `podshim run` and run it \
             anew: `podshim run {file}`"
        ));
    };
    if name.is_empty() {
        return Err("a pod without a name (generateName) is always another one; name it".into());
    }
    match find_pod(layout, &namespace, &name) {
        Ok(found) => Ok((*pod, found)),
        Err(_) => Err(format!(
            "pods {name:?} does not run in namespace {namespace:?}; to run it: `podshim run {file}`"
        )),
    }
}

/// Makes a pod that runs another one.
pub fn change(
    layout: &Layout,
    pod: &PodRef,
    definition: Definition,
    output: &mut Output,
) -> anyhow::Result<i32> {
    let Some(changed) = ask(layout, pod, definition, false)? else { return Ok(FAILED) };
    let what = if changed { "configured" } else { "unchanged" };
    output.line(format_args!("pod/{} {what}", pod.name));
    Ok(0)
}

/// Asks a pod's shim; `None` if the change is refused, which has been told.
fn ask(
    layout: &Layout,
    pod: &PodRef,
    definition: Definition,
    check: bool,
) -> anyhow::Result<Option<bool>> {
    let request = Request::Change { definition: Box::new(definition), check };
    match Connection::open(layout, pod)?.ask(&request)? {
        Reply::Changed { changed } => Ok(Some(changed)),
        Reply::Refused(problems) => {
            for problem in problems {
                complain(&format!("the Pod {:?} is not changed: {problem}", pod.name));
            }
            Ok(None)
        }
        other => anyhow::bail!("unexpected answer: {other:?}"),
    }
}
