//! A branch joins the residual stream, through layer scale (Touvron et al. 2021) where the model has it.
//!
//! ```text
//! out = inp + gamma · branch             gamma = 1 without layer scale
//!
//! dbranch = gamma · dout
//! dgamma += Σ_rows dout · branch
//! ```
//!
//! The gradient of `inp` is `dout` itself: the stream's gradient buffer just goes on being used.

use super::{Float, check_len};

/// Assigns `out [rows, cols]`; `inp`, `branch [rows, cols]`, `gamma [cols]`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], branch: &[T], gamma: Option<&[T]>, rows: usize, cols: usize) {
    let op = "residual::forward";
    check_len(op, "out", out.len(), rows * cols);
    check_len(op, "inp", inp.len(), rows * cols);
    check_len(op, "branch", branch.len(), rows * cols);
    check_len(op, "gamma", gamma.map_or(cols, <[T]>::len), cols);
    for i in 0..rows * cols {
        out[i] = inp[i] + gamma.map_or(branch[i], |gamma| gamma[i % cols] * branch[i]);
    }
}

/// Assigns `dbranch [rows, cols]`; `dout [rows, cols]`, `gamma [cols]`.
pub fn backward_input<T: Float>(dbranch: &mut [T], dout: &[T], gamma: Option<&[T]>, rows: usize, cols: usize) {
    let op = "residual::backward_input";
    check_len(op, "dbranch", dbranch.len(), rows * cols);
    check_len(op, "dout", dout.len(), rows * cols);
    check_len(op, "gamma", gamma.map_or(cols, <[T]>::len), cols);
    for i in 0..rows * cols {
        dbranch[i] = gamma.map_or(dout[i], |gamma| gamma[i % cols] * dout[i]);
    }
}

/// `dgamma [cols]` is added to; `dout`, `branch [rows, cols]`.
pub fn backward_params<T: Float>(dgamma: &mut [T], dout: &[T], branch: &[T], rows: usize, cols: usize) {
    let op = "residual::backward_params";
    check_len(op, "dgamma", dgamma.len(), cols);
    check_len(op, "dout", dout.len(), rows * cols);
    check_len(op, "branch", branch.len(), rows * cols);
    for i in 0..rows * cols {
        dgamma[i % cols] += dout[i] * branch[i];
    }
}
