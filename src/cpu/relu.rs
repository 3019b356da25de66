//! Negative values become zero.
//!
//! ```text
//! out = max(inp, 0)
//! dinp (= | +=) dout where out > 0, else 0        at zero the slope is 0, as PyTorch has it
//! ```

use super::{Float, check_len};

/// Assigns `out`, as long as `inp`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T]) {
    check_len("relu::forward", "out", out.len(), inp.len());
    for i in 0..inp.len() {
        out[i] = inp[i].max(T::ZERO);
    }
}

/// `dinp` is assigned, or added to with `accumulate`; `dout`, and `out` from forward, are as long.
pub fn backward<T: Float>(dinp: &mut [T], dout: &[T], out: &[T], accumulate: bool) {
    check_len("relu::backward", "dinp", dinp.len(), out.len());
    check_len("relu::backward", "dout", dout.len(), out.len());
    for i in 0..out.len() {
        let g = if out[i] > T::ZERO { dout[i] } else { T::ZERO };
        dinp[i] = if accumulate { dinp[i] + g } else { g };
    }
}
