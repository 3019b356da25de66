//! Negative values become zero, those above six become six (Sandler et al. 2018), elementwise.
//!
//! ```text
//! out = min(max(inp, 0), 6)
//! dinp = dout where 0 < inp < 6, else 0
//! ```
//!
//! At the two corners the slope is zero, as in PyTorch.

use super::{Float, check_len};

/// Assigns `out`, of the same length as `inp`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T]) {
    check_len("relu6::forward", "out", out.len(), inp.len());
    for i in 0..inp.len() {
        out[i] = inp[i].max(T::ZERO).min(T::from_f64(6.0));
    }
}

/// Assigns `dinp`; `dout` and `inp` (forward's input) have its length.
pub fn backward_input<T: Float>(dinp: &mut [T], dout: &[T], inp: &[T]) {
    check_len("relu6::backward_input", "dinp", dinp.len(), inp.len());
    check_len("relu6::backward_input", "dout", dout.len(), inp.len());
    for i in 0..inp.len() {
        let inside = inp[i] > T::ZERO && inp[i] < T::from_f64(6.0);
        dinp[i] = if inside { dout[i] } else { T::ZERO };
    }
}
