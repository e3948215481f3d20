//! Manifests with accidents: good ones of which parts were lost, doubled or swapped, and a good pod in
//! which some field holds anything at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bundles::manifest::Report;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::{report, survives};

/// What has its own meaning somewhere in YAML or in a manifest.
const TOKENS: [&str; 48] = [
    ":",
    ": ",
    "- ",
    ",",
    "[",
    "]",
    "{",
    "}",
    "'",
    "\"",
    "#",
    " #",
    "\n",
    "\n  ",
    "\t",
    "\r",
    "\0",
    "\u{1b}",
    "\u{feff}",
    "\u{85}",
    "ö",
    "---\n",
    "...\n",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "!!int ",
    "!!binary ",
    "|",
    ">-",
    "? ",
    "~",
    "null",
    "yes",
    "0x1F",
    "0o17",
    "1_000",
    "-1",
    "1e3",
    ".inf",
    "99999999999999999999",
    "%",
    "@",
    "`",
    "\\",
    "$(A)",
    "../..",
];

static MANIFESTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = |folder: &str| -> Vec<PathBuf> {
        fs::read_dir(here.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let mut paths = [files("../examples"), files("testdata"), files("testdata/yaml")].concat();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    assert!(paths.len() > 20, "{paths:?}");
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
});

#[derive(Clone, Copy, Debug)]
enum Unit {
    Character,
    Word,
    Line,
}

#[derive(Clone, Debug)]
enum Accident {
    Delete,
    Double,
    Swap(Index),
    Insert(&'static str),
}

/// One accident: to how many units from where.
type Accidents = Vec<(Unit, Index, usize, Accident)>;

fn accidents() -> impl Strategy<Value = Accidents> {
    let accident = prop_oneof![
        Just(Accident::Delete),
        Just(Accident::Double),
        any::<Index>().prop_map(Accident::Swap),
        select(&TOKENS[..]).prop_map(Accident::Insert),
    ];
    let unit = select(vec![Unit::Character, Unit::Word, Unit::Line]);
    prop::collection::vec((unit, any::<Index>(), 1_usize..4, accident), 1..5)
}

fn cut(text: &str, unit: Unit) -> Vec<&str> {
    let kind = |c: char| (c.is_alphanumeric(), c.is_whitespace());
    let mut ends: Vec<usize> = match unit {
        Unit::Character => text.char_indices().map(|(at, _)| at).collect(),
        Unit::Line => text.match_indices('\n').map(|(at, _)| at + 1).collect(),
        Unit::Word => {
            let pairs = text.char_indices().zip(text.char_indices().skip(1));
            pairs.filter(|((_, a), (_, b))| kind(*a) != kind(*b)).map(|(_, (at, _))| at).collect()
        }
    };
    ends.push(text.len());
    let mut start = 0;
    let pieces = ends.into_iter().map(|end| {
        let piece = &text[start..end];
        start = end;
        piece
    });
    pieces.filter(|piece| !piece.is_empty()).collect()
}

fn spoil(text: &str, accidents: &Accidents) -> String {
    let mut text = text.to_owned();
    for (unit, at, count, accident) in accidents {
        let mut pieces = cut(&text, *unit);
        if pieces.is_empty() {
            break;
        }
        let first = at.index(pieces.len());
        let last = (first + count).min(pieces.len());
        match accident {
            Accident::Delete => drop(pieces.drain(first..last)),
            Accident::Double => {
                let doubled = pieces[first..last].to_vec();
                pieces.splice(last..last, doubled);
            }
            Accident::Swap(other) => {
                let other = other.index(pieces.len());
                pieces.swap(first, other);
            }
            Accident::Insert(token) => pieces.insert(first, token),
        }
        text = pieces.concat();
    }
    text
}

/// All that is promised of a text that a person may have written.
fn promises(text: &str) -> Report {
    let found = report(text);
    let again = report(text);
    assert_eq!((&found.problems, &found.warnings), (&again.problems, &again.warnings));
    assert_eq!(found.objects, again.objects);
    assert_eq!(found.render(false), again.render(false));
    if found.is_ok(false) {
        found.objects.iter().for_each(survives);
    }
    found
}

/// A pod that sets most of what podshim acts on.
fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "labels": {"app": "a"}, "annotations": {"podshim.dev/standby": "main"}},
        "spec": {
            "hostname": "h", "hostNetwork": false, "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 3, "activeDeadlineSeconds": 60,
            "dnsPolicy": "Default",
            "securityContext": {"runAsUser": 1, "supplementalGroups": [3]},
            "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
            "initContainers": [{
                "name": "side", "image": "alpine:latest", "restartPolicy": "Always",
                "startupProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1, "failureThreshold": 3},
            }],
            "containers": [{
                "name": "main", "image": "alpine:latest", "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c"], "args": ["$(A)"], "workingDir": "/", "tty": false,
                "env": [
                    {"name": "A", "value": "b"},
                    {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "ports": [{"name": "web", "containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}, "requests": {"cpu": "50m"}},
                "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}],
                "securityContext": {"capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true},
            }],
        },
    })
}

/// The same pod in what makes pods.
fn objects() -> Vec<Value> {
    let (pod, mut kept) = (pod(), pod());
    let template = json!({"metadata": pod["metadata"], "spec": pod["spec"]});
    kept["spec"]["restartPolicy"] = "Always".into();
    if let Value::Object(spec) = &mut kept["spec"] {
        spec.remove("activeDeadlineSeconds");
    }
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"},
        "spec": {"completions": 2, "parallelism": 1, "backoffLimit": 3, "template": template}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "a"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}},
            "template": {"metadata": kept["metadata"], "spec": kept["spec"]}}});
    vec![pod, job, deployment]
}

/// All places of a value, each as a JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| places(v, &format!("{at}/{i}"), found));
        }
        Value::Object(fields) => fields.iter().for_each(|(key, v)| {
            let key = key.replace('~', "~0").replace('/', "~1");
            places(v, &format!("{at}/{key}"), found);
        }),
        _ => {}
    }
}

/// YAML in flow notation, of which one or the other is no YAML.
fn small_yaml() -> impl Strategy<Value = String> {
    const SCALARS: [&str; 56] = [
        "",
        "~",
        "null",
        "true",
        "yes",
        "no",
        "on",
        "0",
        "1",
        "-1",
        "-0",
        "+1",
        "007",
        "08",
        "0x",
        "0xff",
        "0b1",
        "0o8",
        "1_0",
        "_1",
        "1.0",
        "1.5",
        "1e3",
        "1e-3",
        "1e400",
        "-.inf",
        ".nan",
        ".5",
        "65535",
        "65536",
        "2147483648",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "'1'",
        "'yes'",
        "''",
        "' '",
        "a",
        "main",
        "v",
        "'a b'",
        "Always",
        "OnFailure",
        "ALL",
        "Memory",
        "/",
        "../x",
        "100m",
        "1Ki",
        "-1Mi",
        "1E400",
        "25%",
        "\"\\e[2J\"",
        "\"\\0\"",
        "!!binary YQ==",
    ];
    let scalar = prop_oneof![
        4 => select(&SCALARS[..]).prop_map(String::from),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<f64>().prop_map(|number| number.to_string()),
        1 => "\\PC{0,12}".prop_map(|text| Value::from(text).to_string()),
        1 => "\\PC{0,6}",
    ];
    let key =
        select(vec!["name", "value", "a", "image", "exec", "'1'", "1", "null", "<<", "\"\\e\""]);
    let nested = scalar.clone().prop_recursive(3, 12, 4, move |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4);
        let map = prop::collection::vec((key.clone(), inner), 0..4);
        prop_oneof![
            list.prop_map(|items| format!("[{}]", items.join(", "))),
            map.prop_map(|entries| {
                let entries = entries.iter().map(|(key, value)| format!("{key}: {value}"));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }),
        ]
    });
    // Most fields are scalars, and what is good must also be looked at.
    prop_oneof![3 => scalar, 1 => nested]
}

#[test]
fn the_objects_that_are_spoiled_are_good() {
    for object in objects() {
        let found = promises(&object.to_string());
        assert!(found.is_ok(false), "{}", found.render(false));
    }
}

fn config() -> ProptestConfig {
    // What fails is printed, and becomes a named case beside the others.
    ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_manifest_with_accidents_gets_a_report(
        manifest in select(MANIFESTS.as_slice()),
        accidents in accidents(),
    ) {
        promises(&spoil(&manifest, &accidents));
    }

    #[test]
    fn a_field_may_hold_anything(
        object in select(objects()),
        place in any::<Index>(),
        value in small_yaml(),
        unknown in prop::option::weighted(0.1, "[a-zA-Z]{1,8}"),
    ) {
        let (mut object, mut found) = (object, Vec::new());
        places(&object, "", &mut found);
        let target = object.pointer_mut(&found[place.index(found.len())]).unwrap();
        match (unknown, target) {
            (Some(name), Value::Object(fields)) => drop(fields.insert(name, "@@".into())),
            (_, target) => *target = "@@".into(),
        }
        promises(&object.to_string().replace("\"@@\"", &value));
    }
}
