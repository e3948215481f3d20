//! The checked-in schema is the one of the k8s-openapi that this crate is built with.
//!
//! `UPDATE_SCHEMA=1 cargo test -p bundles --test schema_is_current` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::schemars::SchemaGenerator;
use serde_json::{Map, Value};

/// Everything but the descriptions, which are four fifths of it.
fn without_descriptions(value: &mut Value, names: bool) {
    match value {
        Value::Object(map) => {
            if !names {
                map.retain(|key, _| key != "description");
            }
            for (key, value) in map {
                without_descriptions(value, !names && key == "properties");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| without_descriptions(item, false)),
        _ => {}
    }
}

#[test]
fn the_checked_in_schema_is_current() {
    let mut generator = SchemaGenerator::default();
    generator.subschema_for::<Pod>();
    generator.subschema_for::<Deployment>();
    generator.subschema_for::<Job>();
    generator.subschema_for::<ConfigMap>();
    generator.subschema_for::<Secret>();
    let mut definitions: Map<String, Value> = generator.definitions().clone();
    definitions.values_mut().for_each(|definition| without_descriptions(definition, false));
    let fresh = serde_json::to_string(&definitions).expect("a map of JSON values") + "\n";

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/schema/kubernetes.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(path, &fresh).expect("the schema is written");
    }
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        checked_in == fresh,
        "run: UPDATE_SCHEMA=1 cargo test -p bundles --test schema_is_current"
    );
}
