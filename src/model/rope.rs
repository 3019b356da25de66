//! Rotary positions of patches on a grid: by which angle each pair of a head's elements turns.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

use crate::cpu::rope::{Dims, table};

/// Where the angles come from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Angles {
    /// The row and the column of a patch, each times half of the bands `temperature^(−4n/head_dim)`.
    Axial {
        /// Added to rows and columns.
        offset: f64,
        /// Patches along a side to which those of the model are scaled.
        reference: Option<usize>,
    },
    /// Centres of patches from −1 to 1, in turns over the periods `temperature^(4n/head_dim)`: DINOv3's.
    Centered {
        /// Added to rows and columns.
        offset: f64,
    },
    /// Row and column, times frequencies that each head of each block learns (`rope.freqs`).
    Learned,
}

/// Rotary positions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Where the angles come from.
    pub angles: Angles,
    /// Between the highest and the lowest frequency; of learned ones, only at the start.
    pub temperature: f64,
    /// Whether the column comes before the row.
    pub transposed: bool,
    /// Whether a pair is an element of a head's first half and one of its second, and not two neighbours.
    pub halves: bool,
}

impl Rope {
    /// Cosines and sines of a `grid` × `grid` of patches for a head of `head_dim` elements (a multiple of 4), as
    /// [`ops::rope::forward`](crate::ops::rope::forward) takes them; none if they are learned.
    pub fn table(&self, grid: usize, head_dim: usize) -> Option<Vec<f32>> {
        let bands = head_dim / 4;
        let band = |n: usize| self.temperature.powf(-(n as f64) / bands as f64);
        let angle = |at: usize, n: usize| match self.angles {
            Angles::Axial { offset, reference } => {
                let scale = reference.map_or(1.0, |reference| reference as f64 / grid as f64);
                (at as f64 + offset) * scale * band(n)
            }
            Angles::Centered { offset } => TAU * (2.0 * (at as f64 + 0.5 + offset) / grid as f64 - 1.0) * band(n),
            Angles::Learned => 0.0,
        };
        if self.angles == Angles::Learned {
            return None;
        }
        let dims = Dims { batch: 1, tokens: grid * grid, prefix: 0, heads: 1, head_dim, halves: self.halves };
        let values: Vec<f64> = table(1, dims, |_, t, n| {
            let (row, column) = (t / grid, t % grid);
            let first = (n < bands) != self.transposed;
            angle(if first { row } else { column }, n % bands)
        });
        Some(values.into_iter().map(|x| x as f32).collect())
    }
}
