//! SiLU (Elfwing et al. 2018), also called swish, elementwise.
//!
//! ```text
//! out = inp · σ(inp)
//! dinp = dout · σ · (1 + inp · (1 − σ))
//! ```

use super::{Float, check_len};

/// Assigns `out`, of the same length as `inp`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T]) {
    check_len("silu::forward", "out", out.len(), inp.len());
    for i in 0..inp.len() {
        out[i] = inp[i] / (T::ONE + (-inp[i]).exp());
    }
}

/// Assigns `dinp`; `dout` and `inp` (forward's input) have its length.
pub fn backward_input<T: Float>(dinp: &mut [T], dout: &[T], inp: &[T]) {
    check_len("silu::backward_input", "dinp", dinp.len(), inp.len());
    check_len("silu::backward_input", "dout", dout.len(), inp.len());
    for i in 0..inp.len() {
        let gate = T::ONE / (T::ONE + (-inp[i]).exp());
        dinp[i] = dout[i] * gate * (T::ONE + inp[i] * (T::ONE - gate));
    }
}
