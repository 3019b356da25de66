//! Weights of a checkpoint as what two narrow matrices add to those of its base (LoRA): `W = W₀ + alpha/rank · B·A`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Checkpoint;
use crate::error::Result;
use crate::model::Adapters;

/// Adapters of a checkpoint's weights.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    /// Rows of A and columns of B.
    pub rank: usize,
    /// The product counts alpha/rank times.
    pub alpha: f32,
    /// Each weight's.
    pub of: Vec<Adapted>,
}

/// The adapter of one weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapted {
    /// The weight's name in the file.
    pub target: String,
    /// A `[rank, inputs]`, row-major.
    pub a: Vec<f32>,
    /// B `[outputs, rank]`, row-major.
    pub b: Vec<f32>,
}

/// What a delta says of the adapters in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptersOf {
    /// Rows of A and columns of B.
    pub rank: usize,
    /// The product counts alpha/rank times.
    pub alpha: f32,
    /// The weights that have one, by their names in the base.
    pub targets: BTreeSet<String>,
}

impl AdaptersOf {
    /// Whether `name` is A or B of one of the targets.
    pub(super) fn is_part(&self, name: &str) -> bool {
        self.targets.iter().any(|target| Adapters::names(target).iter().any(|part| part == name))
    }

    /// The weight `target` of `base` with the adapter that `delta` has for it. Sums are in f64 and rounded once to f32.
    ///
    /// # Errors
    /// Where a tensor is missing, or A and B do not fit the weight.
    pub(super) fn merged(&self, target: &str, base: &Checkpoint, delta: &Checkpoint) -> Result<Vec<f32>> {
        let mut w = base.read_f32(target)?;
        let [a, b] = Adapters::names(target);
        let (rank, rows) = (self.rank, base.tensor(target).and_then(|t| t.shape.first().copied()).unwrap_or(0));
        let [a_values, b_values] = [&a, &b].map(|name| delta.read_f32(name));
        let (a_values, b_values) = (a_values?, b_values?);
        let columns = w.len().checked_div(rows).unwrap_or(0);
        if rows == 0 || rank == 0 || a_values.len() != rank * columns || b_values.len() != rows * rank {
            let what = format!("{a} and {b} should be [{rank}, {columns}] and [{rows}, {rank}], to go with {target}");
            return Err(delta.error(what));
        }
        let scale = f64::from(self.alpha / rank as f32);
        let mut sums = vec![0.0f64; columns];
        for (row, b) in w.chunks_mut(columns).zip(b_values.chunks(rank)) {
            sums.fill(0.0);
            for (a, b) in a_values.chunks(columns).zip(b) {
                sums.iter_mut().zip(a).for_each(|(sum, a)| *sum += f64::from(*a) * f64::from(*b));
            }
            row.iter_mut().zip(&sums).for_each(|(w, sum)| *w = (f64::from(*w) + scale * sum) as f32);
        }
        Ok(w)
    }
}
