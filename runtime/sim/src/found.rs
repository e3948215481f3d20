//! The file of a failure: what `podshim simulate --replay` steps through, and what a test lives again.

use plan::Kind;
use serde::{Deserialize, Serialize};

use crate::book::Broken;
use crate::life::Case;
use crate::shrink::shrink;

/// A failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Which promise was broken when it was found.
    pub broken: String,
    /// The smallest case that is known.
    pub case: Case,
}

impl Found {
    /// A failure, made small.
    #[must_use]
    pub fn of(case: &Case, broken: &Broken) -> Found {
        let (case, broken) = shrink(case, broken);
        Found { broken: broken.0, case }
    }

    /// The text of its file.
    ///
    /// # Errors
    /// None, as far as JSON can hold what a case is made of.
    pub fn write(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Why it is none, or speaks of a container that its pod does not have.
    pub fn read(text: &str) -> Result<Found, String> {
        let found: Found = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let count = found.case.pod.containers.len();
        if !found.case.pod.containers.iter().any(|c| c.kind == Kind::Main) {
            return Err("its pod has no main".to_owned());
        }
        for mut line in found.case.script.iter().flatten().copied() {
            let c = line.choice.how.container_mut().map_or(0, |c| *c).max(line.key.c);
            if c >= count {
                return Err(format!("it speaks of container {c} of {count}, counted from 0"));
            }
        }
        Ok(found)
    }
}
