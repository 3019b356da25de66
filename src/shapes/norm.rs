//! How drift is measured: the rows of a tensor, and the norm of each.

use serde::{Deserialize, Serialize};

/// How a drift is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// The sum of absolute values of each row; the largest row decides.
    Mars,
    /// The Euclidean norm of the whole tensor.
    L2,
}

impl Norm {
    /// How many rows a tensor of this shape has: those of [`rows_of`] for MARS, one for L2.
    pub fn rows(self, shape: &[usize]) -> usize {
        match self {
            Self::Mars => rows_of(shape),
            Self::L2 => 1,
        }
    }
}

/// Slices along dimension 0, everything else flattened; a 1-D tensor (a bias, a norm's weight) is one single row.
pub fn rows_of(shape: &[usize]) -> usize {
    if shape.len() < 2 { 1 } else { shape[0] }
}
