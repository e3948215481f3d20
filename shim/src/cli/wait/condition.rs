//! What `--for` says, and whether a pod fulfils it.

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::super::jsonpath::{Beyond, Path, shown};

/// `--for`.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// It is there.
    Create,
    /// It is not there (any more).
    Delete,
    /// `status.conditions` has one of this type with this status; upper and lower case are the same.
    Status {
        /// Its type.
        kind: String,
        /// `True`, `False`, `Unknown`.
        status: String,
    },
    /// A path leads to a value: this one, or any.
    Value(Path, Option<String>),
}

impl Condition {
    /// Reads what `kubectl wait --for` takes.
    pub fn parse(text: &str) -> anyhow::Result<Condition> {
        match text.to_ascii_lowercase().as_str() {
            "create" => return Ok(Condition::Create),
            "delete" => return Ok(Condition::Delete),
            _ => {}
        }
        if let Some(condition) = text.strip_prefix("condition=") {
            let (kind, status) = condition.split_once('=').unwrap_or((condition, "True"));
            ensure!(
                !kind.is_empty() && !status.is_empty(),
                "write the condition like condition=Ready or condition=Ready=False"
            );
            return Ok(Condition::Status { kind: kind.to_owned(), status: status.to_owned() });
        }
        if let Some(input) = text.strip_prefix("jsonpath=") {
            let (path, wanted) = split(input)?;
            return Ok(Condition::Value(Path::parse_relaxed(path)?, wanted));
        }
        bail!(
            "unrecognized condition: podshim waits for condition=NAME[=VALUE], \
             jsonpath='{{PATH}}'[=VALUE], delete and create"
        )
    }

    /// Whether a living pod fulfils it.
    pub fn is_met(&self, pod: &Value) -> anyhow::Result<bool> {
        match self {
            Condition::Create => Ok(true),
            Condition::Delete => Ok(false),
            Condition::Status { kind, status } => {
                let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
                let is = |value: &Value, wanted: &str| {
                    value.as_str().is_some_and(|v| v.eq_ignore_ascii_case(wanted))
                };
                let found = conditions.into_iter().find(|c| is(&c["type"], kind));
                Ok(found.is_some_and(|c| is(&c["status"], status)))
            }
            Condition::Value(path, wanted) => match path.find(pod, Beyond::Nothing)?[..] {
                [] => Ok(false),
                [value] => leads_to(value, wanted.as_deref()),
                _ => bail!("given jsonpath expression matches more than one value"),
            },
        }
    }
}

fn leads_to(value: &Value, wanted: Option<&str>) -> anyhow::Result<bool> {
    let Some(wanted) = wanted else { return Ok(true) };
    if value.is_object() || value.is_array() {
        bail!("jsonpath leads to a nested object or list which is not supported");
    }
    Ok(shown(value).trim() == wanted.trim())
}

/// The path and the value that follows its `=`. (Filters have `==` and quotes in them.)
fn split(input: &str) -> anyhow::Result<(&str, Option<String>)> {
    const FORM: &str =
        "write it like jsonpath='{.status.phase}'=Running or jsonpath='{.status.podIP}'";
    let end = if input.trim_start().starts_with('{') {
        closing_brace(input).with_context(|| format!("{input:?}: \"{{\" is not closed; {FORM}"))?
    } else {
        single_equals(input).unwrap_or(input.len())
    };
    let (path, rest) = input.split_at(end);
    let rest = rest.trim();
    if rest.is_empty() {
        return Ok((path, None));
    }
    let value =
        rest.strip_prefix('=').with_context(|| format!("{rest:?} follows the path; {FORM}"))?;
    let value = value.trim_matches(['\'', '"']);
    ensure!(!value.is_empty(), "jsonpath wait has to have a value after equal sign; {FORM}");
    Ok((path, Some(value.to_owned())))
}

/// The byte after the `}` that stands in no quotes.
fn closing_brace(input: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in input.char_indices() {
        match (quote, c) {
            (None, '}') => return Some(at + 1),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

/// The `=` that is part of no comparison.
fn single_equals(input: &str) -> Option<usize> {
    let bytes = input.as_bytes();
    let is = |at: Option<usize>, wanted: &[u8]| {
        at.and_then(|at| bytes.get(at)).is_some_and(|b| wanted.contains(b))
    };
    (0..bytes.len()).find(|at| {
        bytes[*at] == b'=' && !is(at.checked_add(1), b"=") && !is(at.checked_sub(1), b"=!<>")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn pod() -> Value {
        serde_json::json!({"status": {"phase": "Running", "containerStatuses": [{"restartCount": 3}],
            "conditions": [{"type": "Ready", "status": "False"}, {"type": "Initialized", "status": "True"}]}})
    }

    #[test]
    fn conditions_are_met_as_kubectl_says() {
        for (condition, met) in [
            ("condition=Ready", false),
            ("condition=ready=false", true),
            ("condition=Ready=False", true),
            ("condition=Initialized", true),
            ("condition=Nothing", false),
            ("condition=Nothing=False", false),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath='{.status.phase}'=Running", false),
            ("jsonpath={.status.phase}='Running'", true),
            ("jsonpath={.status.phase}=running", false),
            ("jsonpath=.status.phase=Running", true),
            ("jsonpath={.status.phase}", true),
            ("jsonpath={.status.podIP}", false),
            ("jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=False", true),
            ("jsonpath=.status.conditions[?(@.type==\"Ready\")].status=False", true),
            ("jsonpath={.status.conditions[?(@.type!='Ready')].status}=True", true),
            ("jsonpath={.status.containerStatuses[0].restartCount}=3", true),
            ("jsonpath={.status.containerStatuses[1].restartCount}=3", false),
            ("DELETE", false),
        ] {
            let parsed = Condition::parse(condition);
            if condition.starts_with("jsonpath='") {
                // A shell takes these quotes away; what is left of them is no path.
                assert!(parsed.is_err(), "{condition}");
            } else {
                assert_eq!(parsed.unwrap().is_met(&pod()).unwrap(), met, "{condition}");
            }
        }
    }

    #[test]
    fn what_cannot_be_waited_for_is_refused() {
        for condition in [
            "",
            "Ready",
            "condition=",
            "condition=Ready=",
            "jsonpath=",
            "jsonpath={.a",
            "jsonpath={.a}=",
            "jsonpath={.a}x",
            "jsonpath={.a[?(@.b=~'c')]}",
        ] {
            assert!(Condition::parse(condition).is_err(), "{condition}");
        }
        for condition in ["jsonpath={.status.conditions[*].type}=Ready", "jsonpath={.status}=x"] {
            assert!(Condition::parse(condition).unwrap().is_met(&pod()).is_err(), "{condition}");
        }
    }
}
