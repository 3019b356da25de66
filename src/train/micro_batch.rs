//! The value of `--micro-batch`.

use serde::{Deserialize, Serialize};

/// Images that pass through the adapter at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "invalid micro-batch: a number of images, or \"auto\"")]
pub enum MicroBatch {
    /// This many, at most.
    Images(usize),
    /// As many as fit the memory.
    Fitting(Auto),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// Chosen by the program.
    Auto,
}

impl std::str::FromStr for MicroBatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Fitting(Auto::Auto)),
            _ => text.parse().map(Self::Images).map_err(|_| "a number of images, or auto".into()),
        }
    }
}
