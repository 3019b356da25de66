//! The sequence becomes one feature vector: the mean of a run of tokens, which is the class token alone or all patches.
//!
//! ```text
//! pooled[b] = Σ_{t in run} inp[b, t] / n        n tokens in the run
//! dinp[b, t] += dpooled[b] / n                  for t in the run
//! ```

use std::ops::Range;

use super::{Float, check_len};

/// Assigns `pooled [batch, dim]`; `inp [batch, tokens, dim]`.
pub fn forward<T: Float>(pooled: &mut [T], inp: &[T], run: Range<usize>, batch: usize, tokens: usize, dim: usize) {
    let op = "pool::forward";
    check_len(op, "pooled", pooled.len(), batch * dim);
    check_len(op, "inp", inp.len(), batch * tokens * dim);
    let count = T::from_f64(run.len() as f64);
    for b in 0..batch {
        for d in 0..dim {
            let mut sum = T::ZERO;
            for t in run.clone() {
                sum += inp[(b * tokens + t) * dim + d];
            }
            pooled[b * dim + d] = sum / count;
        }
    }
}

/// Adds to `dinp [batch, tokens, dim]`; `dpooled [batch, dim]`.
pub fn backward<T: Float>(dinp: &mut [T], dpooled: &[T], run: Range<usize>, batch: usize, tokens: usize, dim: usize) {
    let op = "pool::backward";
    check_len(op, "dinp", dinp.len(), batch * tokens * dim);
    check_len(op, "dpooled", dpooled.len(), batch * dim);
    let count = T::from_f64(run.len() as f64);
    for b in 0..batch {
        for t in run.clone() {
            for d in 0..dim {
                dinp[(b * tokens + t) * dim + d] += dpooled[b * dim + d] / count;
            }
        }
    }
}
