//! Some neighbouring columns of a matrix, and columns put beside each other.
//!
//! ```text
//! out[r, c] = inp[r, first + c]
//! dinp[r, first + c] (= | +=) dout[r, c], zero in the other columns
//! ```

use super::{Float, check_len};

/// The columns of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Rows of the matrix.
    pub rows: usize,
    /// Its columns.
    pub pitch: usize,
    /// The first of those that are meant.
    pub first: usize,
    /// How many they are.
    pub count: usize,
}

impl Dims {
    /// Elements of the matrix.
    pub fn len(self) -> usize {
        self.rows * self.pitch
    }

    /// Whether there are no elements.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Elements of the columns.
    pub fn part_len(self) -> usize {
        self.rows * self.count
    }

    /// The index of each element of the columns among them, and in the matrix.
    fn pairs(self) -> impl Iterator<Item = (usize, usize)> {
        let Dims { rows, pitch, first, count } = self;
        assert!(first + count <= pitch, "columns {first} and {count} more of {pitch}");
        (0..rows).flat_map(move |r| (0..count).map(move |c| (r * count + c, r * pitch + first + c)))
    }
}

/// Assigns `out [rows, count]`; `inp [rows, pitch]`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], dims: Dims) {
    check_len("slice::forward", "out", out.len(), dims.part_len());
    check_len("slice::forward", "inp", inp.len(), dims.len());
    dims.pairs().for_each(|(part, whole)| out[part] = inp[whole]);
}

/// `dinp [rows, pitch]` is assigned, or added to with `accumulate`; `dout [rows, count]`.
pub fn backward<T: Float>(dinp: &mut [T], dout: &[T], dims: Dims, accumulate: bool) {
    check_len("slice::backward", "dinp", dinp.len(), dims.len());
    check_len("slice::backward", "dout", dout.len(), dims.part_len());
    if !accumulate {
        dinp.fill(T::ZERO);
    }
    dims.pairs().for_each(|(part, whole)| dinp[whole] += dout[part]);
}

/// Assigns these columns of `whole [rows, pitch]`; `part [rows, count]`.
pub fn place<T: Float>(whole: &mut [T], part: &[T], dims: Dims) {
    check_len("slice::place", "whole", whole.len(), dims.len());
    check_len("slice::place", "part", part.len(), dims.part_len());
    dims.pairs().for_each(|(from, to)| whole[to] = part[from]);
}
