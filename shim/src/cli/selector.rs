//! Label selectors as `kubectl -l` takes them: `app=web,tier!=db,env in (a, b),env notin (c),x,!y`.

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// All of its requirements have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    /// Also fulfilled by what has no such label.
    NotIn(Vec<String>),
    Exists,
    Missing,
}

impl Selector {
    /// Reads one; a text that is none is refused with the part that is wrong.
    pub fn parse(text: &str) -> anyhow::Result<Selector> {
        let parts = split(text)?.into_iter().map(str::trim).filter(|part| !part.is_empty());
        let requirements: anyhow::Result<Vec<Requirement>> = parts
            .map(|part| requirement(part).with_context(|| format!("selector {part:?}")))
            .collect();
        Ok(Selector(requirements?))
    }

    /// Whether an object's labels fulfil it.
    pub fn fits(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|Requirement { key, test }| {
            let value = labels.get(key).and_then(Value::as_str);
            let among = |values: &[String]| value.is_some_and(|v| values.iter().any(|w| w == v));
            match test {
                Test::In(values) => among(values),
                Test::NotIn(values) => !among(values),
                Test::Exists => value.is_some(),
                Test::Missing => value.is_none(),
            }
        })
    }
}

/// At commas that stand in no brackets.
fn split(text: &str) -> anyhow::Result<Vec<&str>> {
    let (mut parts, mut begin, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            '(' | ')' => bail!("selector {text:?}: \"{c}\" stands where none can"),
            ',' if !inside => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    ensure!(!inside, "selector {text:?}: \"(\" is not closed");
    parts.push(&text[begin..]);
    Ok(parts)
}

fn requirement(part: &str) -> anyhow::Result<Requirement> {
    if let Some((before, values)) = part.split_once('(') {
        let values = values.strip_suffix(')').context("something follows \")\"")?;
        let words: Vec<&str> = before.split_whitespace().collect();
        let values = values.split(',').map(str::trim).map(value).collect::<Result<_, _>>()?;
        return match words[..] {
            [k, "in"] => Ok(Requirement { key: key(k)?, test: Test::In(values) }),
            [k, "notin"] => Ok(Requirement { key: key(k)?, test: Test::NotIn(values) }),
            _ => bail!("only \"KEY in (…)\" and \"KEY notin (…)\" have brackets"),
        };
    }
    let one = |k: &str, v: &str| anyhow::Ok((key(k.trim())?, vec![value(v.trim())?]));
    if let Some((k, v)) = part.split_once("!=") {
        let (key, values) = one(k, v)?;
        return Ok(Requirement { key, test: Test::NotIn(values) });
    }
    if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
        let (key, values) = one(k, v)?;
        return Ok(Requirement { key, test: Test::In(values) });
    }
    match part.strip_prefix('!') {
        Some(k) => Ok(Requirement { key: key(k.trim())?, test: Test::Missing }),
        None => Ok(Requirement { key: key(part)?, test: Test::Exists }),
    }
}

/// A label's key: a name, after a `/` if it has a prefix.
fn key(text: &str) -> anyhow::Result<String> {
    let name = text.rsplit('/').next().unwrap_or_default();
    let known = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    ensure!(!name.is_empty() && text.chars().all(known), "{text:?} is no key of a label");
    Ok(text.to_owned())
}

/// A label's value; it may be empty.
fn value(text: &str) -> anyhow::Result<String> {
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ensure!(text.chars().all(known), "{text:?} is no value of a label");
    Ok(text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn selectors_choose_as_kubectls_do() {
        let pod = serde_json::json!({"metadata": {"labels": {"app": "web", "example.com/tier": "db", "empty": ""}}});
        for (text, fits) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            (" app = web ", true),
            ("app=other", false),
            ("app!=web", false),
            ("app!=other", true),
            ("none!=web", true),
            ("none=", false),
            ("empty=", true),
            ("app", true),
            ("none", false),
            ("!none", true),
            ("!app", false),
            ("app in (web, x)", true),
            ("app in (x,y)", false),
            ("app notin (x,y)", true),
            ("none notin (x)", true),
            ("app notin (web)", false),
            ("example.com/tier=db,app in (web,x),!none", true),
            ("example.com/tier=db,app=other", false),
        ] {
            assert_eq!(Selector::parse(text).unwrap().fits(&pod), fits, "{text:?}");
        }
        assert!(!Selector::parse("a=b").unwrap().fits(&serde_json::json!({"metadata": {}})));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in [
            "=web",
            "app=(",
            "app=a)",
            "app in web",
            "app between (a)",
            "in (a)",
            "a b",
            "app=a b",
            "app in (a) x",
            "((a))",
            "!",
            "app=a=b",
            "app>3",
        ] {
            assert!(Selector::parse(text).is_err(), "{text:?}");
        }
    }
}
