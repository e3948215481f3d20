//! The file of a failure: what `podshim simulate --replay` steps through, and what a test lives again.

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
    /// If it is none.
    pub fn read(text: &str) -> Result<Found, serde_json::Error> {
        serde_json::from_str(text)
    }
}
