//! Sum over rows: the gradient of a bias that was added to every row.
//!
//! ```text
//! out_c += Σ_r inp_rc
//! ```

use super::{Float, check_len};

/// `out [cols]` is added to; `inp [rows, cols]`.
pub fn column_sum<T: Float>(out: &mut [T], inp: &[T], rows: usize, cols: usize) {
    check_len("column_sum", "out", out.len(), cols);
    check_len("column_sum", "inp", inp.len(), rows * cols);
    for c in 0..cols {
        for r in 0..rows {
            out[c] += inp[r * cols + c];
        }
    }
}
