//! A gate for each channel of each image (Hu et al. 2018, squeeze and excitation), with a shortcut and a ReLU behind it.
//!
//! ```text
//! out = relu(inp · σ(scale) + shortcut)
//!
//! dinp = g · σ(scale)      g = dout where out > 0
//! dscale = σ'(scale) · Σ_rows g · inp
//! ```
//!
//! The shortcut's gradient is g itself.

use super::{Float, check_len};

fn sigmoid<T: Float>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// Assigns `out [batch, rows, cols]`; `inp` and `shortcut` have its shape, `scale [batch, cols]`.
pub fn forward<T: Float>(
    out: &mut [T],
    inp: &[T],
    scale: &[T],
    shortcut: Option<&[T]>,
    relu: bool,
    batch: usize,
    rows: usize,
    cols: usize,
) {
    check_len("gate::forward", "out", out.len(), batch * rows * cols);
    check_len("gate::forward", "inp", inp.len(), batch * rows * cols);
    check_len("gate::forward", "scale", scale.len(), batch * cols);
    for i in 0..inp.len() {
        let y = inp[i] * sigmoid(scale[i / (rows * cols) * cols + i % cols]);
        let y = shortcut.map_or(y, |shortcut| y + shortcut[i]);
        out[i] = if relu { y.max(T::ZERO) } else { y };
    }
}

/// Assigns `dinp [batch, rows, cols]` and `dscale [batch, cols]`. With `out`, the output of a ReLU, `dout` counts only where that is
/// positive.
pub fn backward<T: Float>(
    dinp: &mut [T],
    dscale: &mut [T],
    dout: &[T],
    out: Option<&[T]>,
    inp: &[T],
    scale: &[T],
    batch: usize,
    rows: usize,
    cols: usize,
) {
    check_len("gate::backward", "dinp", dinp.len(), batch * rows * cols);
    check_len("gate::backward", "dscale", dscale.len(), batch * cols);
    check_len("gate::backward", "dout", dout.len(), batch * rows * cols);
    check_len("gate::backward", "inp", inp.len(), batch * rows * cols);
    check_len("gate::backward", "scale", scale.len(), batch * cols);
    dscale.fill(T::ZERO);
    for i in 0..inp.len() {
        let channel = i / (rows * cols) * cols + i % cols;
        let gate = sigmoid(scale[channel]);
        let g = if out.is_some_and(|out| out[i] <= T::ZERO) { T::ZERO } else { dout[i] };
        dinp[i] = g * gate;
        dscale[channel] += g * inp[i] * gate * (T::ONE - gate);
    }
}
