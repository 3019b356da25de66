//! SwiGLU (Shazeer 2020): one half of a row gates the other.
//!
//! ```text
//! inp = [a | b]   out = a·s·b                      s = σ(a)
//!                 da = dout · b·s·(1 + a·(1 − s))
//!                 db = dout · a·s
//! ```

use super::{Float, check_len};

/// Assigns `out` `[rows, cols]`; `inp` is `[rows, 2·cols]`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], rows: usize, cols: usize) {
    check_len("swiglu::forward", "out", out.len(), rows * cols);
    check_len("swiglu::forward", "inp", inp.len(), 2 * rows * cols);
    for row in 0..rows {
        for col in 0..cols {
            let at = 2 * row * cols + col;
            let (a, b) = (inp[at], inp[at + cols]);
            out[row * cols + col] = a * sigmoid(a) * b;
        }
    }
}

/// Assigns `dinp` `[rows, 2·cols]`; `dout` is `[rows, cols]`, `inp` forward's.
pub fn backward<T: Float>(dinp: &mut [T], dout: &[T], inp: &[T], rows: usize, cols: usize) {
    check_len("swiglu::backward", "dinp", dinp.len(), 2 * rows * cols);
    check_len("swiglu::backward", "dout", dout.len(), rows * cols);
    check_len("swiglu::backward", "inp", inp.len(), 2 * rows * cols);
    for row in 0..rows {
        for col in 0..cols {
            let at = 2 * row * cols + col;
            let (a, b, d) = (inp[at], inp[at + cols], dout[row * cols + col]);
            let s = sigmoid(a);
            dinp[at] = d * b * s * (T::ONE + a * (T::ONE - s));
            dinp[at + cols] = d * a * s;
        }
    }
}

fn sigmoid<T: Float>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}
