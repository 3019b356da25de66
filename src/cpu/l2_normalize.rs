//! Rows at unit length (PyTorch's `normalize`).
//!
//! ```text
//! out = inp · scale,   scale = 1 / max(‖inp‖, 1e-12)
//! dinp = (dout − out · ⟨out, dout⟩) · scale
//! ```

use super::{Float, check_len};

/// Assigns `out [rows, cols]` and `scale [rows]`.
pub fn forward<T: Float>(out: &mut [T], scale: &mut [T], inp: &[T], rows: usize, cols: usize) {
    let op = "l2_normalize::forward";
    check_len(op, "out", out.len(), rows * cols);
    check_len(op, "scale", scale.len(), rows);
    check_len(op, "inp", inp.len(), rows * cols);
    let least = T::from_f64(1e-12);
    for r in 0..rows {
        let mut sum = T::ZERO;
        for c in 0..cols {
            sum += inp[r * cols + c] * inp[r * cols + c];
        }
        let norm = sum.sqrt();
        scale[r] = T::from_f64(1.0) / if norm > least { norm } else { least };
        for c in 0..cols {
            out[r * cols + c] = inp[r * cols + c] * scale[r];
        }
    }
}

/// Assigns `dinp [rows, cols]`, from what [`forward`] gave.
pub fn backward<T: Float>(dinp: &mut [T], dout: &[T], out: &[T], scale: &[T], rows: usize, cols: usize) {
    let op = "l2_normalize::backward";
    check_len(op, "dinp", dinp.len(), rows * cols);
    check_len(op, "dout", dout.len(), rows * cols);
    check_len(op, "out", out.len(), rows * cols);
    check_len(op, "scale", scale.len(), rows);
    for r in 0..rows {
        let mut along = T::ZERO;
        for c in 0..cols {
            along += out[r * cols + c] * dout[r * cols + c];
        }
        for c in 0..cols {
            dinp[r * cols + c] = (dout[r * cols + c] - out[r * cols + c] * along) * scale[r];
        }
    }
}
