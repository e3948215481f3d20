//! list, get, create, replace, delete.

use std::rc::Rc;

use http::{Response, StatusCode, Uri};
use serde_json::{Value, json};

use super::path::{List, Query};
use super::{Answer, Refusal, json_response, json_text, ok};
use crate::cli::{Connection, PodRef};
use crate::daemon::brief::Brief;
use crate::daemon::store::{Key, Kind, parse};
use crate::daemon::{Daemon, admit, pods};
use crate::pod::failpoint;
use crate::pod::file::Definition;
use crate::protocol::{Reply, Request};
use bundles::manifest::Object;

impl List {
    /// Whether an object, as JSON, is asked for.
    pub fn wants(&self, key: &Key, object: &str) -> bool {
        key.kind == self.kind
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            && self.name.as_ref().is_none_or(|name| *name == key.name)
            && self.selector.as_ref().is_none_or(|selector| selector.fits(&parse(object)))
    }
}

pub fn list(daemon: &Daemon, list: &List) -> Result<Response<Answer>, Refusal> {
    let store = daemon.store.borrow();
    let mut text = json!({
        "apiVersion": list.kind.api_version(),
        "kind": format!("{}List", list.kind.name()),
        "metadata": {"resourceVersion": store.version().to_string()},
    })
    .to_string();
    // The objects are text already: they become the last field.
    text.truncate(text.len() - "}".len());
    text += ",\"items\":[";
    let wanted = store.list(list.kind).filter(|(key, entry)| list.wants(key, entry.text()));
    for (n, (_, entry)) in wanted.enumerate() {
        text += if n > 0 { "," } else { "" };
        text += entry.text();
    }
    text += "]}";
    Ok(json_text(StatusCode::OK, text))
}

fn find(daemon: &Daemon, key: &Key) -> Result<Value, Refusal> {
    let found = daemon.store.borrow().get(key);
    found.ok_or_else(|| Refusal::not_found(key.kind.plural(), &key.name))
}

pub fn get(daemon: &Daemon, key: &Key) -> Result<Response<Answer>, Refusal> {
    Ok(ok(&find(daemon, key)?))
}

/// Whether objects of a kind are the users' to write.
fn may_change(kind: Kind) -> Result<(), Refusal> {
    if kind == Kind::ReplicaSet {
        return Err(Refusal::not_allowed(
            "a replica set is its deployment's: change, scale or delete that".into(),
        ));
    }
    Ok(())
}

pub fn create(daemon: &Rc<Daemon>, list: &List, body: &[u8]) -> Result<Response<Answer>, Refusal> {
    let Some(namespace) = &list.namespace else {
        return Err(Refusal::bad("an object is made in a namespace".into()));
    };
    may_change(list.kind)?;
    let (kind, object) = admit::new_object(daemon.admit(list.kind, namespace, body)?)?;
    let key = Key::of(kind, &object);
    // A `podshim run` may have a pod of this name.
    let runs = kind == Kind::Pod
        && daemon.layout.name(&key.namespace, &key.name).symlink_metadata().is_ok();
    if runs || daemon.store.borrow().brief(&key).is_some() {
        return Err(Refusal::exists(kind.plural(), &key.name));
    }
    failpoint::at(&daemon.layout, "daemon:admitted");
    let stored = daemon.store.borrow_mut().put(kind, object)?;
    failpoint::at(&daemon.layout, "daemon:stored");
    if kind == Kind::Pod {
        daemon.begin(key, pods::uid_of(&stored).to_owned());
    }
    daemon.wake.notify_one();
    Ok(json_response(StatusCode::CREATED, &stored))
}

/// Makes an object another one. An object that is as it was is not touched.
pub async fn replace(
    daemon: &Rc<Daemon>,
    key: &Key,
    body: &[u8],
) -> Result<Response<Answer>, Refusal> {
    may_change(key.kind)?;
    let known = find(daemon, key)?;
    let given: Value = serde_json::from_slice(body).unwrap_or_default();
    for field in ["resourceVersion", "uid"] {
        let (given, known) = (&given["metadata"][field], &known["metadata"][field]);
        if given.is_string() && given != known {
            return Err(Refusal::conflict(format!(
                "{} {:?} has changed: its {field} is {known}, and {given} was given; read it again",
                key.kind.plural(),
                key.name
            )));
        }
    }
    let object = daemon.admit(key.kind, &key.namespace, body)?;
    if object.metadata().name.as_ref() != Some(&key.name) {
        return Err(Refusal::bad("the name of the object is not that of the request".into()));
    }
    let new = admit::replaced(&known, key.kind, &object)?;
    if new == known {
        return Ok(ok(&known));
    }
    if pods::is_deleting(&known) {
        let what = key.kind.plural();
        return Err(Refusal::conflict(format!("{what} {:?} is being deleted", key.name)));
    }
    match &object {
        Object::Pod(pod) if new["spec"] != known["spec"] => {
            change_pod(daemon, key, &known, (**pod).clone()).await?;
        }
        Object::Deployment(_) if new["spec"]["selector"] != known["spec"]["selector"] => {
            return Err(Refusal::invalid(
                "spec.selector: field is immutable (delete the deployment and create it with the other one)"
                    .into(),
            ));
        }
        Object::Job(_) if spec_but(&new, "parallelism") != spec_but(&known, "parallelism") => {
            return Err(Refusal::invalid(
                "spec: field is immutable (of a job only parallelism, labels and annotations change)"
                    .into(),
            ));
        }
        _ => {}
    }
    // It may have been asked to go meanwhile.
    let new = admit::replaced(&find(daemon, key)?, key.kind, &object)?;
    let stored = daemon.store.borrow_mut().put(key.kind, new)?;
    daemon.wake.notify_one();
    Ok(ok(&stored))
}

fn spec_but(object: &Value, field: &str) -> Value {
    let mut spec = object["spec"].clone();
    spec.as_object_mut().map(|spec| spec.remove(field));
    spec
}

/// What changes of a pod is its shim's to say and to do.
async fn change_pod(
    daemon: &Rc<Daemon>,
    key: &Key,
    known: &Value,
    mut pod: k8s_openapi::api::core::v1::Pod,
) -> Result<(), Refusal> {
    let uid = pods::uid_of(known).to_owned();
    if daemon.is_over(&Brief::of(known)) {
        return Err(Refusal::conflict(format!("pods {:?} has ended", key.name)));
    }
    pod.metadata.uid = Some(uid.clone());
    let definition = Box::new(Definition::of(pod, &daemon.read_by_pods(&key.namespace)));
    let layout = daemon.layout.clone();
    let at = PodRef { namespace: key.namespace.clone(), name: key.name.clone(), uid };
    // It talks to the shim as any client does, and waits for it elsewhere.
    let asked = tokio::task::spawn_blocking(move || {
        Connection::open(&layout, &at)?.ask(&Request::Change { definition, check: false })
    });
    match asked.await.map_err(anyhow::Error::from)?? {
        Reply::Changed { .. } => Ok(()),
        Reply::Refused(problems) => Err(Refusal::invalid(problems.join("\n"))),
        other => Err(Refusal::from(anyhow::anyhow!("unexpected answer: {other:?}"))),
    }
}

pub fn delete(
    daemon: &Rc<Daemon>,
    key: &Key,
    uri: &Uri,
    body: &[u8],
) -> Result<Response<Answer>, Refusal> {
    may_change(key.kind)?;
    let known = find(daemon, key)?;
    let options: Value = match body {
        [] => Value::Null,
        body => serde_json::from_slice(body)
            .map_err(|e| Refusal::bad(format!("the body is no DeleteOptions in JSON: {e}")))?,
    };
    let wanted = &options["preconditions"]["uid"];
    if wanted.is_string() && *wanted != known["metadata"]["uid"] {
        return Err(Refusal::conflict(format!(
            "{} {:?} is another one now",
            key.kind.plural(),
            key.name
        )));
    }
    let grace = match options["gracePeriodSeconds"].as_u64() {
        Some(grace) => Some(grace),
        None => Query::of(uri).number("gracePeriodSeconds")?,
    };
    let grace_s = grace.map(|s| u32::try_from(s).unwrap_or(u32::MAX));
    let object = match key.kind {
        Kind::Pod => daemon.delete_pod(key, grace_s)?,
        Kind::ConfigMap | Kind::Secret | Kind::ReplicaSet => {
            daemon.store.borrow_mut().remove(key)?;
            known
        }
        // It goes when its pods have gone.
        Kind::Job | Kind::Deployment
            if pods::is_deleting(&known) && !is_sooner(&known, grace_s) =>
        {
            known
        }
        Kind::Job | Kind::Deployment => {
            let mut new = known.clone();
            if !pods::is_deleting(&known) {
                new["metadata"]["deletionTimestamp"] = json!(runtime::clock::now().wall.rfc3339());
            }
            if let Some(grace_s) = grace_s {
                new["metadata"]["deletionGracePeriodSeconds"] = json!(grace_s);
            }
            daemon.store.borrow_mut().put(key.kind, new)?
        }
    };
    daemon.wake.notify_one();
    Ok(ok(&object))
}

/// Whether something that goes already is to go within a shorter time.
fn is_sooner(known: &Value, grace_s: Option<u32>) -> bool {
    let before = known["metadata"]["deletionGracePeriodSeconds"].as_u64();
    grace_s.is_some_and(|s| before.is_none_or(|before| u64::from(s) < before))
}
