//! What ends a rank, as it tells the others and the user.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What ended one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Exit code of the process.
    pub(super) code: u8,
    /// The error as its user reads it.
    pub(super) text: String,
    /// The text says what ended another rank.
    pub(super) elsewhere: bool,
    /// It ended by request, with its state saved.
    pub(super) stopped: bool,
}

impl Failure {
    /// Of an error, with its text as a user reads it.
    pub fn new(error: &Error, text: String) -> Failure {
        let facts = error.facts();
        let elsewhere = matches!(facts, Error::Elsewhere { .. });
        Failure { code: error.exit_code(), text, elsewhere, stopped: matches!(facts, Error::Stopped { .. }) }
    }

    /// The line that says it, `of` a rank if that is not plain.
    pub(super) fn line(&self, of: Option<&str>) -> String {
        let error = if self.stopped { "" } else { "error: " };
        let of = of.map(|name| format!("{name}: ")).unwrap_or_default();
        format!("{error}{of}{}", self.text)
    }
}
