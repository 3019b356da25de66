//! One token of each text, by its place.
//!
//! ```text
//! out[b] = inp[b, at[b]]
//! dinp[b, at[b]] += dout[b]
//! ```

use super::{Float, check_len};

/// Assigns `out [batch, dim]`; `inp [batch, tokens, dim]`, `at [batch]` below `tokens`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], at: &[u32], tokens: usize, dim: usize) {
    check_len("pick::forward", "out", out.len(), at.len() * dim);
    check_len("pick::forward", "inp", inp.len(), at.len() * tokens * dim);
    for (b, t) in at.iter().enumerate() {
        let row = (b * tokens + *t as usize) * dim;
        out[b * dim..(b + 1) * dim].copy_from_slice(&inp[row..row + dim]);
    }
}

/// Adds to `dinp [batch, tokens, dim]`; `dout [batch, dim]`.
pub fn backward_input<T: Float>(dinp: &mut [T], dout: &[T], at: &[u32], tokens: usize, dim: usize) {
    check_len("pick::backward_input", "dinp", dinp.len(), at.len() * tokens * dim);
    check_len("pick::backward_input", "dout", dout.len(), at.len() * dim);
    for (b, t) in at.iter().enumerate() {
        for d in 0..dim {
            dinp[(b * tokens + *t as usize) * dim + d] += dout[b * dim + d];
        }
    }
}
