//! Bins of confidence, of which a reliability diagram has one mark each.

use serde::{Deserialize, Serialize};

use crate::train::json_lines::or_nan;

/// Bins of equal width that confidences 0 to 1 are sorted into.
pub const BINS: usize = 15;

/// The images whose confidence lies in one bin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// How many.
    pub images: usize,
    /// Their mean confidence; 0 if there are none.
    #[serde(deserialize_with = "or_nan")]
    pub confidence: f64,
    /// The share of them that is right; 0 if there are none.
    #[serde(deserialize_with = "or_nan")]
    pub accuracy: f64,
}
