//! Tokens of texts to vectors: rows of a table by their numbers, and the vector of each position.
//!
//! ```text
//! out[b, t] = weight[ids[b, t]] + positions[t]
//! dweight[v] += Σ dout[b, t]    over the tokens whose id is v        dpositions[t] += Σ_b dout[b, t]
//! ```

use super::{Float, check_len};

/// Assigns `out [batch, tokens, dim]`; `ids [batch, tokens]` are rows of `weight [vocabulary, dim]`, `positions [tokens, dim]`.
pub fn forward<T: Float>(out: &mut [T], ids: &[u32], weight: &[T], positions: &[T], tokens: usize, dim: usize) {
    check_len("embedding::forward", "out", out.len(), ids.len() * dim);
    check_len("embedding::forward", "positions", positions.len(), tokens * dim);
    for (row, id) in ids.iter().enumerate() {
        for d in 0..dim {
            out[row * dim + d] = weight[*id as usize * dim + d] + positions[row % tokens * dim + d];
        }
    }
}

/// Adds to `dweight [vocabulary, dim]` and `dpositions [tokens, dim]`; `dout [batch, tokens, dim]`.
pub fn backward_params<T: Float>(
    dweight: &mut [T],
    dpositions: &mut [T],
    dout: &[T],
    ids: &[u32],
    tokens: usize,
    dim: usize,
) {
    check_len("embedding::backward_params", "dout", dout.len(), ids.len() * dim);
    check_len("embedding::backward_params", "dpositions", dpositions.len(), tokens * dim);
    for (row, id) in ids.iter().enumerate() {
        for d in 0..dim {
            dweight[*id as usize * dim + d] += dout[row * dim + d];
            dpositions[row % tokens * dim + d] += dout[row * dim + d];
        }
    }
}
