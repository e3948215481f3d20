//! Objects as YAML text, for `-o yaml`.

/// A value that has no YAML form.
#[derive(Debug, thiserror::Error)]
#[error("cannot write YAML: {0}")]
pub struct YamlError(String);

/// Block style; strings that would read as something else are quoted.
///
/// # Errors
/// [`YamlError`].
pub fn to_string(value: &serde_json::Value) -> Result<String, YamlError> {
    serde_saphyr::to_string(value).map_err(|e| YamlError(e.to_string()))
}
