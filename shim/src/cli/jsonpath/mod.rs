//! kubectl's JSONPath: text with `{…}` in it, where `…` is a path, a quoted text, `range PATH` or `end`.
//!
//! It is older than RFC 9535 and differs from it in what people type most: braces, escaped dots,
//! one comparison in a filter, missing fields that are nothing and no fault. No crate reads that
//! dialect, so this one does: fields, indexes, slices, `*`, `..`, unions, filters and ranges. What it
//! does not know is refused with the place where it stands, and never read as something else.

use anyhow::{Context, bail, ensure};
use serde_json::Value;

mod parse;

/// A whole template, for `-o jsonpath=TEMPLATE`.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

/// One path, for `--for=jsonpath=PATH`.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Values(Path),
    /// The parts up to `{end}`, once for each value.
    Range(Path, Vec<Part>),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// A key; if an object has none of that name, the fields one after another that its dots mean:
    /// kubectl reads `['metadata.name']` that way only.
    Key(String, Vec<String>),
    Index(i64),
    Slice {
        from: Option<i64>,
        to: Option<i64>,
        by: usize,
    },
    All,
    /// Everything below that has something below it, and the value itself.
    Descend,
    Union(Vec<Step>),
    /// Those elements of a list that fulfil it.
    Filter(Path, Option<(Operator, Operand)>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Value(Value),
    Path(Path),
}

/// What an index beyond the end of a list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// A fault, as with kubectl.
    Fault,
    /// Not there yet: for who waits.
    Nothing,
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> anyhow::Result<Template> {
        Ok(Template { source: text.to_owned(), parts: parse::template(text)? })
    }

    /// What it says of an object.
    pub fn render(&self, object: &Value) -> anyhow::Result<String> {
        let mut text = String::new();
        render(&self.parts, object, &mut text)
            .with_context(|| format!("jsonpath {:?}", self.source))?;
        Ok(text)
    }
}

impl Path {
    /// Reads a path as `kubectl wait` takes it: the braces and the first dot may be missing.
    pub fn parse_relaxed(text: &str) -> anyhow::Result<Path> {
        let text = text.trim();
        let inner = match text.strip_prefix('{') {
            Some(rest) => {
                rest.strip_suffix('}').with_context(|| format!("{text:?}: \"{{\" is not closed"))?
            }
            None => text,
        };
        let inner = inner.trim();
        ensure!(!inner.is_empty(), "jsonpath expression cannot be empty");
        let dot = if inner.starts_with(['.', '[', '$', '@']) { "" } else { "." };
        parse::path(&format!("{dot}{inner}"))
    }

    /// The values that it leads to, none if a field on the way is missing.
    pub fn find<'a>(&self, root: &'a Value, beyond: Beyond) -> anyhow::Result<Vec<&'a Value>> {
        let mut values = vec![root];
        for step in &self.0 {
            values = step.apply(&values, beyond)?;
        }
        Ok(values)
    }
}

fn render(parts: &[Part], current: &Value, text: &mut String) -> anyhow::Result<()> {
    for part in parts {
        match part {
            Part::Text(constant) => text.push_str(constant),
            Part::Values(path) => {
                let values = path.find(current, Beyond::Fault)?;
                let shown: Vec<String> = values.into_iter().map(shown).collect();
                text.push_str(&shown.join(" "));
            }
            Part::Range(path, parts) => {
                for value in path.find(current, Beyond::Fault)? {
                    render(parts, value, text)?;
                }
            }
        }
    }
    Ok(())
}

/// A text as it is, everything else as JSON.
pub fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Step {
    fn apply<'a>(&self, inputs: &[&'a Value], beyond: Beyond) -> anyhow::Result<Vec<&'a Value>> {
        let mut found = Vec::new();
        if let Step::Union(steps) = self {
            for step in steps {
                found.extend(step.apply(inputs, beyond)?);
            }
            return Ok(found);
        }
        for input in inputs.iter().copied().filter(|input| !input.is_null()) {
            match self {
                Step::Key(key, fields) => {
                    let by_dots = || {
                        let (first, rest) = fields.split_first()?;
                        rest.iter().try_fold(input.get(first)?, |value, field| value.get(field))
                    };
                    found.extend(input.get(key).or_else(by_dots));
                }
                Step::Index(index) => found.extend(at(list(input)?, *index, beyond)?),
                Step::Slice { from, to, by } => {
                    let list = list(input)?;
                    found.extend(slice(list, *from, *to, beyond)?.iter().step_by(*by));
                }
                Step::All => found.extend(children(input)),
                Step::Descend => descend(input, &mut found),
                Step::Filter(left, test) => {
                    for element in list(input)? {
                        if fulfils(element, left, test.as_ref(), beyond)? {
                            found.push(element);
                        }
                    }
                }
                Step::Union(_) => {}
            }
        }
        Ok(found)
    }
}

fn list(value: &Value) -> anyhow::Result<&[Value]> {
    let kind = match value {
        Value::Array(list) => return Ok(list),
        Value::Object(_) => "an object",
        Value::String(_) => "a text",
        _ => "a number or a truth value",
    };
    bail!("[…] was used on {kind}, and only lists have elements")
}

fn at(list: &[Value], index: i64, beyond: Beyond) -> anyhow::Result<Option<&Value>> {
    let found = usize::try_from(from_end(index, list.len())).ok().and_then(|i| list.get(i));
    match beyond {
        Beyond::Fault if found.is_none() => {
            bail!("array index out of bounds: index {index}, length {}", list.len())
        }
        _ => Ok(found),
    }
}

/// Negative numbers count from the end.
fn from_end(index: i64, length: usize) -> i64 {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    if index < 0 { index.saturating_add(length) } else { index }
}

fn slice(
    list: &[Value],
    from: Option<i64>,
    to: Option<i64>,
    beyond: Beyond,
) -> anyhow::Result<&[Value]> {
    let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
    let from = from_end(from.unwrap_or(0), list.len());
    let to = from_end(to.unwrap_or(length), list.len());
    let inside = 0 <= from && to <= length && (from < length || from == to);
    if beyond == Beyond::Fault && !inside && !list.is_empty() {
        bail!("array index out of bounds: slice [{from}:{to}], length {length}");
    }
    let place = |n: i64| usize::try_from(n.clamp(0, length)).unwrap_or(0);
    Ok(list.get(place(from)..place(to)).unwrap_or_default())
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn descend<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    let children = children(value);
    if !children.is_empty() {
        found.push(value);
        children.into_iter().for_each(|child| descend(child, found));
    }
}

fn fulfils(
    element: &Value,
    left: &Path,
    test: Option<&(Operator, Operand)>,
    beyond: Beyond,
) -> anyhow::Result<bool> {
    let lefts = left.find(element, beyond)?;
    let Some((operator, right)) = test else { return Ok(!lefts.is_empty()) };
    let rights = match right {
        Operand::Value(value) => vec![value],
        Operand::Path(path) => path.find(element, beyond)?,
    };
    match (&lefts[..], &rights[..]) {
        ([left], [right]) => operator.holds(left, right),
        ([], _) | (_, []) => Ok(false),
        _ => bail!("a filter can only compare one value with one other"),
    }
}

impl Operator {
    fn holds(self, left: &Value, right: &Value) -> anyhow::Result<bool> {
        let order = match (left, right) {
            (Value::String(l), Value::String(r)) => l.cmp(r),
            (Value::Number(l), Value::Number(r)) => {
                let exact = l.as_i64().zip(r.as_i64()).map(|(l, r)| l.cmp(&r));
                let near = || l.as_f64()?.partial_cmp(&r.as_f64()?);
                exact.or_else(near).context("numbers that cannot be compared")?
            }
            (Value::Bool(l), Value::Bool(r)) if self.is_equality() => l.cmp(r),
            _ => bail!("a filter cannot compare {left} with {right}"),
        };
        Ok(match self {
            Operator::Equal => order.is_eq(),
            Operator::NotEqual => order.is_ne(),
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterOrEqual => order.is_ge(),
        })
    }

    fn is_equality(self) -> bool {
        matches!(self, Operator::Equal | Operator::NotEqual)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    fn list() -> Value {
        json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "web", "tier": "x"}},
             "status": {"phase": "Running", "restarts": 3, "conditions": [
                {"type": "Ready", "status": "True", "old": false},
                {"type": "Initialized", "status": "True", "old": true}]}},
            {"metadata": {"name": "b", "labels": {}},
             "status": {"phase": "Pending", "restarts": 0, "conditions": [
                {"type": "Ready", "status": "False", "reason": "no"}]}},
        ]})
    }

    #[test]
    fn templates_say_what_kubectl_says() {
        for (template, said) in [
            ("{.kind}", "List"),
            ("{$.kind} {@.kind}", "List List"),
            ("{ .kind }", "List"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0].metadata.name}", "a"),
            ("{.items[-1].metadata.name}", "b"),
            ("{.items[0:1].metadata.name}", "a"),
            ("{.items[1:].metadata.name}", "b"),
            ("{.items[:-1].metadata.name}", "a"),
            ("{.items[::2].metadata.name}", "a"),
            ("{.items[0,1].metadata.name}", "a b"),
            ("{.items[0]['metadata']['name']}", "a"),
            ("{.items[0][\"metadata\"].name}", "a"),
            ("{.items[*]['metadata.name', 'status.phase']}", "a b Running Pending"),
            ("{.items[0].metadata.labels['app.kubernetes.io/name']}", "web"),
            ("{.items[0].metadata.labels['app\\.kubernetes\\.io/name']}", "web"),
            ("{.items[0].metadata.labels.app\\.kubernetes\\.io/name}", "web"),
            ("{.items[0].metadata.labels.*}", "web x"),
            ("{..name}", "a b"),
            ("{.items[*].status.conditions[?(@.type==\"Ready\")].status}", "True False"),
            ("{.items[*].status.conditions[?(@.type=='Ready')].status}", "True False"),
            ("{.items[*].status.conditions[?( @.type != 'Ready' )].type}", "Initialized"),
            ("{.items[?(@.status.restarts>0)].metadata.name}", "a"),
            ("{.items[?(@.status.restarts<=0)].metadata.name}", "b"),
            ("{.items[?(@.status.restarts>=-1.5)].metadata.name}", "a b"),
            ("{.items[*].status.conditions[?(@.reason)].type}", "Ready"),
            ("{.items[0].status.conditions[?(@.old==true)].type}", "Initialized"),
            ("{.items[?(@.metadata.name==@.metadata.name)].status.restarts}", "3 0"),
            (
                "{range .items[*]}{.metadata.name}={.status.phase}{\"\\n\"}{end}",
                "a=Running\nb=Pending\n",
            ),
            (
                "{range .items[*]}{.metadata.name}:{range .status.conditions[*]} {.type}{end};{end}.",
                "a: Ready Initialized;b: Ready;.",
            ),
            ("{range .none[*]}x{end}", ""),
            ("name is {.items[0].metadata.name}{'\\t'}{\"q\\\"\"}", "name is a\tq\""),
            (
                "{.items[1].status.conditions[0]}",
                r#"{"reason":"no","status":"False","type":"Ready"}"#,
            ),
            ("{.items[1].metadata.labels}", "{}"),
            ("{.items[0].status.restarts}", "3"),
            ("{.none} {.kind.none} {.none[3].x}", "  "),
            ("{.}", &list().to_string()),
            ("{@}", &list().to_string()),
            ("a}b{.kind}", "a}bList"),
        ] {
            let shown = Template::parse(template).and_then(|t| t.render(&list()));
            assert_eq!(shown.map_err(|e| format!("{e:#}")).as_deref(), Ok(said), "{template}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_place() {
        for (template, why) in [
            ("", "no {…}"),
            (".items", "no {…}"),
            ("{", "at character 2: \"{\" is not closed"),
            ("{.a", "at character 4: \"{\" is not closed"),
            ("{a}", "at character 2: unknown word \"a\""),
            ("{}", "at character 2"),
            ("{.a.}", "at character 5: a name is missing"),
            ("{.a..}", "at character 6"),
            ("{..}", "at character 4"),
            ("{.a...b}", "at character 6"),
            ("{.a[}", "at character 5"),
            ("{.a[]}", "at character 5"),
            ("{.a[b]}", "at character 5"),
            ("{.a[1}", "at character 6"),
            ("{.a[1:2:0]}", "a step is 1 or more"),
            ("{.a[99999999999999999999]}", "at character"),
            ("{.a['b]}", "is not closed"),
            ("{.a b}", "at character 5"),
            ("{.a, .b}", "at character 4"),
            ("{.a | .b}", "at character 5"),
            ("{.a(b)}", "at character 4"),
            ("{.a[?(@.b==1 && @.c==2)]}", "\"&\": a filter compares once"),
            ("{.a[?(@.b=~'x')]}", "at character"),
            ("{.a[?(@.b=1)]}", "\"=\" compares nothing"),
            ("{.a[?(@.b==)]}", "at character"),
            ("{.a[?(@.b==nobody)]}", "at character"),
            ("{.a[?(@.b==\"x)]}", "is not closed"),
            ("{.a[?(@.b)}", "at character"),
            ("{.a[?@.b]}", "at character"),
            ("{range .items[*]}{.a}", "{range} has no {end}"),
            ("{.a}{end}", "at character 6: {end} without {range}"),
            ("{range}{end}", "at character 7"),
            ("{\"a}", "is not closed"),
            ("{\"\\q\"}", "\"\\\\q\""),
            ("{.length()}", "at character 9"),
        ] {
            let refused = format!("{:#}", Template::parse(template).map(|_| ()).unwrap_err());
            assert!(refused.contains(why), "{template}: {refused}");
        }
    }

    #[test]
    fn what_makes_no_sense_for_an_object_is_refused_and_never_left_out() {
        for (template, why) in [
            ("{.items[5]}", "array index out of bounds: index 5, length 2"),
            ("{.items[-3]}", "array index out of bounds"),
            ("{.items[0:9]}", "array index out of bounds"),
            ("{.kind[0]}", "on a text"),
            ("{.items[0].metadata[?(@.x)]}", "on an object"),
            ("{.items[?(@.status.restarts>'x')]}", "cannot compare 3 with \"x\""),
            ("{.items[?(@.status.conditions[*].type=='x')]}", "one value"),
            ("{.items[0].status.conditions[?(@.old<true)]}", "cannot compare"),
        ] {
            let refused = Template::parse(template).unwrap().render(&list()).unwrap_err();
            assert!(format!("{refused:#}").contains(why), "{template}: {refused:#}");
        }
    }

    #[test]
    fn a_path_to_wait_for_may_lack_braces_and_dot_and_what_is_beyond_the_end_is_not_there_yet() {
        for text in [
            "{.items[0].metadata.name}",
            ".items[0].metadata.name",
            "{items[0].metadata.name}",
            "items[0].metadata.name",
            "$.items[0].metadata.name",
        ] {
            let path = Path::parse_relaxed(text).unwrap();
            assert_eq!(path.find(&list(), Beyond::Fault).unwrap(), [&json!("a")], "{text}");
        }
        let path = Path::parse_relaxed("{.items[7].metadata.name}").unwrap();
        assert!(path.find(&list(), Beyond::Nothing).unwrap().is_empty());
        for text in ["", "{}", "{.a", "{.a}{.b}", "{range .a}", "{.a} x", "a b"] {
            assert!(Path::parse_relaxed(text).is_err(), "{text}");
        }
    }
}
