//! What may be a name, after `k8s.io/apimachinery/pkg/util/validation` and in its words.
//!
//! Each function gives what is wrong with a text; nothing if it is right.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// `IsDNS1123Label`.
pub fn dns_label(text: &str) -> Vec<&'static str> {
    let mut faults = Vec::new();
    if text.len() > 63 {
        faults.push("must be no more than 63 bytes");
    }
    if !is_label(text) {
        faults.push(LABEL);
    }
    faults
}

/// `IsDNS1123Subdomain`.
pub fn dns_subdomain(text: &str) -> Vec<&'static str> {
    let mut faults = Vec::new();
    if text.len() > 253 {
        faults.push("must be no more than 253 bytes");
    }
    if !text.split('.').all(is_label) {
        faults.push(SUBDOMAIN);
    }
    faults
}

/// `IsQualifiedName`: the keys of labels and annotations.
pub fn qualified(text: &str) -> Vec<&'static str> {
    let mut faults = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((prefix, name)) => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty");
            } else if !dns_subdomain(prefix).is_empty() {
                faults.push("prefix part must be a lowercase RFC 1123 subdomain");
            }
            name
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty");
    } else if name.len() > 63 {
        faults.push("name part must be no more than 63 bytes");
    }
    if !name.is_empty() && !is_word(name) {
        faults.push(QUALIFIED);
    }
    faults
}

/// `IsValidLabelValue`.
pub fn label_value(text: &str) -> Vec<&'static str> {
    let mut faults = Vec::new();
    if text.len() > 63 {
        faults.push("must be no more than 63 bytes");
    }
    if !text.is_empty() && !is_word(text) {
        faults.push(VALUE);
    }
    faults
}

/// `IsRelaxedEnvVarName`, the default since 1.32.
pub fn env_var(text: &str) -> Vec<&'static str> {
    if text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='",
    ]
}

/// `IsConfigMapKey`: the keys of ConfigMaps and Secrets, which become names of files.
pub fn config_key(text: &str) -> Vec<&'static str> {
    let mut faults = Vec::new();
    if text.len() > 253 {
        faults.push("must be no more than 253 characters");
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        faults.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        );
    } else if text == "." {
        faults.push("must not be '.'");
    } else if text == ".." {
        faults.push("must not be '..'");
    } else if text.starts_with("..") {
        faults.push("must not start with '..'");
    }
    faults
}

/// `IsValidPortName`.
pub fn port(text: &str) -> Vec<&'static str> {
    let mut faults = Vec::new();
    if text.len() > 15 {
        faults.push("must be no more than 15 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        faults.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)");
    }
    if text.contains("--") {
        faults.push("must not contain consecutive hyphens");
    }
    if text.starts_with('-') || text.ends_with('-') {
        faults.push("must not begin or end with a hyphen");
    }
    faults
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    has_ends(text, inner) && text.bytes().all(|b| inner(b) || b == b'-')
}

fn is_word(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric();
    has_ends(text, inner) && text.bytes().all(|b| inner(b) || matches!(b, b'-' | b'_' | b'.'))
}

fn has_ends(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [only] => allowed(*only),
        [first, .., last] => allowed(*first) && allowed(*last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains_are_those_of_rfc_1123() {
        for good in ["a", "0", "my-name", "a--b"] {
            assert!(dns_label(good).is_empty(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a_b", "a.b", "ä"] {
            assert_eq!(dns_label(bad), [LABEL], "{bad}");
        }
        assert!(dns_subdomain("a.b-c.d").is_empty());
        assert_eq!(dns_subdomain("a..b"), [SUBDOMAIN]);
        assert_eq!(dns_label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(dns_subdomain(&"a".repeat(254)), ["must be no more than 253 bytes"]);
    }

    #[test]
    fn a_label_has_an_optional_prefix_and_a_name() {
        for good in ["app", "app.kubernetes.io/name", "A_b.c-d"] {
            assert!(qualified(good).is_empty(), "{good}");
        }
        assert_eq!(qualified("/x"), ["prefix part must be non-empty"]);
        assert_eq!(qualified("a/"), ["name part must be non-empty"]);
        assert_eq!(qualified("A/x"), ["prefix part must be a lowercase RFC 1123 subdomain"]);
        assert_eq!(qualified("a/b/c"), [QUALIFIED]);
        assert!(label_value("").is_empty());
        assert_eq!(label_value("a b"), [VALUE]);
    }

    #[test]
    fn a_port_has_a_short_name_with_a_letter() {
        assert!(port("http-2").is_empty());
        assert_eq!(port("80"), ["must contain at least one letter (a-z)"]);
        assert_eq!(port("a--b"), ["must not contain consecutive hyphens"]);
        assert_eq!(port("-a"), ["must not begin or end with a hyphen"]);
        assert_eq!(
            port("sixteen-letters-"),
            ["must be no more than 15 characters", "must not begin or end with a hyphen",]
        );
    }

    #[test]
    fn a_config_key_can_be_a_files_name_and_leads_nowhere_else() {
        for good in ["app.conf", ".hidden", "A_b-c.0", "a..b"] {
            assert!(config_key(good).is_empty(), "{good}");
        }
        for bad in ["", ".", "..", "..data", "a/b", "ä", "a b"] {
            assert_eq!(config_key(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn an_environment_variable_may_be_called_almost_anything() {
        assert!(env_var("0 odd.name-").is_empty());
        assert_eq!(env_var("a=b").len(), 1);
        assert_eq!(env_var("ä").len(), 1);
    }
}
