//! What podshim does with each field of a Pod, Deployment and Job.
//!
//! Nothing is silently ignored: a field is acted on, or harmless, or named in a warning, or refused.
//! Refused is what would widen privileges, change what a container sees, or open a gate if it were
//! left out (a runAsNonRoot, a volume, a startup probe); warned is the rest of what a user may count
//! on. Looks at the manifest as it was written, before defaults. It says nothing about whether a
//! value is right: that is [`crate::validate`]'s.

mod table;

use std::collections::BTreeMap;

use crate::manifest::MAX_PROBLEMS;
use crate::manifest::span::{Data, Finding, Node, Path};
use crate::schema;
use table::{Field, TABLE, Verdict};

/// What a manifest asks for that is not there yet.
#[derive(Debug, Default)]
pub struct Unsupported {
    /// What would mean something else if it were left out.
    pub refused: Vec<Finding>,
    /// What has no effect; each field once, at its first place.
    pub warned: Vec<Finding>,
}

/// Looks at an object of the given definition.
pub fn check(root: &Node, definition: &str) -> Unsupported {
    let mut check = Check::default();
    check.object(root, definition, &Path::default(), false);
    check.finish()
}

#[derive(Default)]
struct Check {
    refused: Vec<Finding>,
    /// By type and field: the first place, and how many there are.
    warned: BTreeMap<(usize, String), (Finding, usize)>,
    order: Vec<String>,
}

impl Check {
    fn object(&mut self, node: &Node, definition: &str, path: &Path, host_network: bool) {
        let Some(kind) = TABLE.iter().find(|kind| kind.name == definition) else { return };
        let fields = schema::fields(definition);
        let on_host = node.get("hostNetwork").is_some_and(|n| matches!(n.data, Data::Bool(true)));
        let host_network = host_network || on_host;
        for entry in node.entries() {
            let Some(field) = kind.fields.iter().find(|field| field.name == entry.key) else {
                continue;
            };
            let path = path.field_of_one_name(&entry.key);
            match field.verdict {
                Verdict::Ignored => {}
                _ if field.is_harmless(&entry.value) => {}
                Verdict::Refused => self.refuse(path, field.why),
                Verdict::Warned => self.warn(definition, path, field.name, field.why),
                Verdict::Acted => {
                    let schema = fields.and_then(|fields| fields.get(&entry.key));
                    if let Some(below) = schema.and_then(schema::target) {
                        self.values(&entry.value, below, &path, host_network);
                    }
                    self.special(definition, field.name, &entry.value, &path, host_network);
                }
            }
        }
    }

    fn values(&mut self, node: &Node, definition: &str, path: &Path, host_network: bool) {
        match &node.data {
            Data::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.object(item, definition, &path.index(i), host_network);
                }
            }
            _ => self.object(node, definition, path, host_network),
        }
    }

    /// The rules that a field's own value does not decide.
    fn special(&mut self, of: &str, field: &str, value: &Node, path: &Path, host_network: bool) {
        match (of.rsplit('.').next(), field) {
            (Some("ResourceRequirements"), "limits" | "requests") => {
                for entry in value.entries() {
                    self.resource(&entry.key, path.key(&entry.key));
                }
            }
            (Some("ContainerPort"), "hostPort")
                if !host_network && !matches!(value.data, Data::Int(0)) =>
            {
                self.refuse(
                    path.clone(),
                    "a port of the host reaches the pod only with `hostNetwork: true`",
                );
            }
            _ => {}
        }
    }

    fn resource(&mut self, name: &str, path: Path) {
        match name {
            "cpu" | "memory" => {}
            "ephemeral-storage" => self.warn(
                "ResourceRequirements",
                path,
                "ephemeral-storage",
                "the use of disk space is not limited",
            ),
            _ => self.refuse(path, "of resources only cpu and memory are given to containers"),
        }
    }

    fn refuse(&mut self, path: Path, why: &str) {
        if self.refused.len() >= MAX_PROBLEMS {
            return;
        }
        self.refused.push(
            Finding::new(path, format!("not supported yet: {why}"))
                .help("remove the field if the pod can do without it")
                .at_key(),
        );
    }

    fn warn(&mut self, of: &str, path: Path, field: &str, why: &str) {
        let key = format!("{of}.{field}");
        let position = self.order.iter().position(|known| *known == key).unwrap_or_else(|| {
            self.order.push(key.clone());
            self.order.len() - 1
        });
        let finding = Finding::new(path, format!("has no effect yet: {why}")).at_key();
        self.warned.entry((position, key)).or_insert((finding, 0)).1 += 1;
    }

    fn finish(self) -> Unsupported {
        let warned = self.warned.into_values().map(|(mut finding, places)| {
            if places > 1 {
                finding.message += &format!(" ({places} places)");
            }
            finding
        });
        Unsupported { refused: self.refused, warned: warned.collect() }
    }
}

impl Field {
    /// Whether the value means the same as leaving the field out.
    fn is_harmless(&self, node: &Node) -> bool {
        let listed = |text: &str| self.fine.contains(&text);
        match &node.data {
            Data::Null => true,
            Data::Bool(value) => (!self.any_value && !value) || listed(&value.to_string()),
            Data::Int(value) => listed(&value.to_string()),
            Data::Float(_) => false,
            Data::String(text) => (!self.any_value && text.is_empty()) || listed(text),
            Data::List(items) => !self.any_value && items.is_empty(),
            Data::Map(entries) => !self.any_value && entries.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every type that is reached from the three kinds through fields that are acted on.
    fn reached() -> BTreeSet<String> {
        let mut todo: Vec<String> =
            [schema::POD, schema::DEPLOYMENT, schema::JOB].map(String::from).into();
        let mut seen = BTreeSet::new();
        while let Some(name) = todo.pop() {
            let Some(fields) = schema::fields(&name) else { continue };
            if !seen.insert(name.clone()) {
                continue;
            }
            let kind = TABLE.iter().find(|kind| kind.name == name);
            let kind = kind.unwrap_or_else(|| panic!("the table lacks {name}"));
            for field in kind.fields.iter().filter(|field| field.verdict == Verdict::Acted) {
                todo.extend(schema::target(&fields[field.name]).map(String::from));
            }
        }
        seen
    }

    #[test]
    fn every_field_of_the_schema_is_in_the_table_exactly_once() {
        for name in reached() {
            let kind = TABLE.iter().find(|kind| kind.name == name).unwrap();
            let mut listed: Vec<&str> = kind.fields.iter().map(|field| field.name).collect();
            listed.sort_unstable();
            let mut known: Vec<&str> =
                schema::fields(&name).unwrap().keys().map(String::as_str).collect();
            known.sort_unstable();
            assert_eq!(listed, known, "{name}");
        }
    }

    #[test]
    fn the_table_has_no_type_that_is_never_reached() {
        let listed: Vec<String> = TABLE.iter().map(|kind| kind.name.to_owned()).collect();
        let unique: BTreeSet<String> = listed.iter().cloned().collect();
        assert_eq!(unique.len(), listed.len(), "a type is listed twice");
        assert_eq!(unique, reached());
    }

    #[test]
    fn what_is_refused_or_warned_of_says_why() {
        for field in TABLE.iter().flat_map(|kind| kind.fields) {
            let complains = matches!(field.verdict, Verdict::Warned | Verdict::Refused);
            assert_eq!(complains, !field.why.is_empty(), "{}", field.name);
        }
    }
}
