//! Root mean square norm over the last dimension (Zhang and Sennrich 2019, eq. 4).
//!
//! ```text
//! x̂ = inp · rstd,   out = x̂ · weight,   rstd = 1 / √(mean(inp²) + eps)
//!
//! dinp    += rstd · (g − x̂ · mean(g · x̂)),   g = dout · weight
//! dweight += Σ_rows dout · x̂
//! ```

use super::{Float, check_len};

/// Assigns `out [rows, cols]`, and for backward `rstd [rows]`; `inp [rows, cols]`, `weight [cols]`.
pub fn forward<T: Float>(out: &mut [T], rstd: &mut [T], inp: &[T], weight: &[T], rows: usize, cols: usize, eps: f64) {
    let op = "rms_norm::forward";
    check_len(op, "out", out.len(), rows * cols);
    check_len(op, "rstd", rstd.len(), rows);
    check_len(op, "inp", inp.len(), rows * cols);
    check_len(op, "weight", weight.len(), cols);
    for r in 0..rows {
        let x = &inp[r * cols..][..cols];
        let mut squares = T::ZERO;
        for c in 0..cols {
            squares += x[c] * x[c];
        }
        rstd[r] = T::ONE / (squares / T::from_f64(cols as f64) + T::from_f64(eps)).sqrt();
        for c in 0..cols {
            out[r * cols + c] = x[c] * rstd[r] * weight[c];
        }
    }
}

/// `dinp [rows, cols]` is added to; `dout`, `inp [rows, cols]`, `weight [cols]`, `rstd [rows]` from forward.
pub fn backward_input<T: Float>(
    dinp: &mut [T],
    dout: &[T],
    inp: &[T],
    weight: &[T],
    rstd: &[T],
    rows: usize,
    cols: usize,
) {
    let op = "rms_norm::backward_input";
    check_len(op, "dinp", dinp.len(), rows * cols);
    check_len(op, "dout", dout.len(), rows * cols);
    check_len(op, "inp", inp.len(), rows * cols);
    check_len(op, "weight", weight.len(), cols);
    check_len(op, "rstd", rstd.len(), rows);
    for r in 0..rows {
        let g = |c: usize| dout[r * cols + c] * weight[c];
        let x_hat = |c: usize| inp[r * cols + c] * rstd[r];
        let mut sum = T::ZERO;
        for c in 0..cols {
            sum += g(c) * x_hat(c);
        }
        let mean = sum / T::from_f64(cols as f64);
        for c in 0..cols {
            dinp[r * cols + c] += rstd[r] * (g(c) - x_hat(c) * mean);
        }
    }
}

/// `dweight [cols]` is added to; `dout`, `inp [rows, cols]`, `rstd [rows]` from forward.
pub fn backward_params<T: Float>(dweight: &mut [T], dout: &[T], inp: &[T], rstd: &[T], rows: usize, cols: usize) {
    let op = "rms_norm::backward_params";
    check_len(op, "dweight", dweight.len(), cols);
    check_len(op, "dout", dout.len(), rows * cols);
    check_len(op, "inp", inp.len(), rows * cols);
    check_len(op, "rstd", rstd.len(), rows);
    for r in 0..rows {
        for c in 0..cols {
            dweight[c] += dout[r * cols + c] * inp[r * cols + c] * rstd[r];
        }
    }
}
