//! The sequence becomes one feature vector.
//!
//! ```text
//! cls    pooled[b] = inp[b, 0]
//! mean   pooled[b] = Σ_t inp[b, t] / P    over the P patch tokens, without the class token
//!
//! dinp[b, t] = dpooled[b]        cls: for t = 0, else 0
//! dinp[b, t] = dpooled[b] / P    mean: for patch tokens, else 0
//! ```

use std::ops::Range;

use super::{Float, check_len};
use crate::model::config::Pool;

/// The tokens whose mean is taken: just one of them for `cls`.
fn pooled_tokens(op: &str, kind: Pool, has_cls: bool, tokens: usize) -> Range<usize> {
    match kind {
        Pool::Cls => {
            assert!(has_cls, "{op}: pooling the class token of a model that has none");
            0..1
        }
        Pool::Mean => usize::from(has_cls)..tokens,
    }
}

/// Assigns `pooled [batch, dim]`; `inp [batch, tokens, dim]`.
pub fn forward<T: Float>(
    pooled: &mut [T],
    inp: &[T],
    kind: Pool,
    has_cls: bool,
    batch: usize,
    tokens: usize,
    dim: usize,
) {
    let op = "pool::forward";
    check_len(op, "pooled", pooled.len(), batch * dim);
    check_len(op, "inp", inp.len(), batch * tokens * dim);
    let range = pooled_tokens(op, kind, has_cls, tokens);
    let count = T::from_f64(range.len() as f64);
    for b in 0..batch {
        for d in 0..dim {
            let mut sum = T::ZERO;
            for t in range.clone() {
                sum += inp[(b * tokens + t) * dim + d];
            }
            pooled[b * dim + d] = sum / count;
        }
    }
}

/// Assigns all of `dinp [batch, tokens, dim]`, zeros included; `dpooled [batch, dim]`.
pub fn backward<T: Float>(
    dinp: &mut [T],
    dpooled: &[T],
    kind: Pool,
    has_cls: bool,
    batch: usize,
    tokens: usize,
    dim: usize,
) {
    let op = "pool::backward";
    check_len(op, "dinp", dinp.len(), batch * tokens * dim);
    check_len(op, "dpooled", dpooled.len(), batch * dim);
    let range = pooled_tokens(op, kind, has_cls, tokens);
    let count = T::from_f64(range.len() as f64);
    dinp.fill(T::ZERO);
    for b in 0..batch {
        for t in range.clone() {
            for d in 0..dim {
                dinp[(b * tokens + t) * dim + d] = dpooled[b * dim + d] / count;
            }
        }
    }
}
