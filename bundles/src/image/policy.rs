//! When a container's image is pulled: Kubernetes' `imagePullPolicy` and its default.
//!
//! Only the words and the default are here. What to do when a pull fails is decided by who pulls.

use super::Reference;

/// `imagePullPolicy` of a container (Kubernetes API, `v1.PullPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Ask the registry each time the container starts.
    Always,
    /// Ask the registry only if the image is not in the store.
    IfNotPresent,
    /// Never ask the registry.
    Never,
}

impl PullPolicy {
    /// The policy that a manifest writes as `text`; `None` for any other word.
    #[must_use]
    pub fn parse(text: &str) -> Option<PullPolicy> {
        match text {
            "Always" => Some(PullPolicy::Always),
            "IfNotPresent" => Some(PullPolicy::IfNotPresent),
            "Never" => Some(PullPolicy::Never),
            _ => None,
        }
    }
}

/// The policy of a container whose manifest has none: `Always` for the tag `latest`, which is also
/// the tag of a name that has neither tag nor digest; `IfNotPresent` for all others.
#[must_use]
pub fn default_policy(reference: &Reference) -> PullPolicy {
    if reference.tag() == Some("latest") { PullPolicy::Always } else { PullPolicy::IfNotPresent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_and_no_tag_are_asked_for_each_time_all_others_once() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, policy) in [
            ("alpine".to_owned(), PullPolicy::Always),
            ("alpine:latest".to_owned(), PullPolicy::Always),
            ("localhost:5000/a".to_owned(), PullPolicy::Always),
            ("alpine:3.20".to_owned(), PullPolicy::IfNotPresent),
            (format!("alpine@{digest}"), PullPolicy::IfNotPresent),
        ] {
            assert_eq!(default_policy(&Reference::parse(&text).unwrap()), policy, "{text}");
        }
    }

    #[test]
    fn the_words_are_kubernetes() {
        assert_eq!(PullPolicy::parse("Never"), Some(PullPolicy::Never));
        assert_eq!(PullPolicy::parse("Always"), Some(PullPolicy::Always));
        assert_eq!(PullPolicy::parse("IfNotPresent"), Some(PullPolicy::IfNotPresent));
        assert_eq!(PullPolicy::parse("always"), None);
    }
}
