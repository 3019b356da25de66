//! Multi-head self-attention (Vaswani et al. 2017, eq. 1) on a fused projection.
//!
//! ```text
//! s_ij = ⟨q_i, k_j⟩ / √head_dim      lse_i = ln Σ_j exp(s_ij)      p_ij = exp(s_ij − lse_i)
//! out_i = Σ_j p_ij v_j
//!
//! dv_j = Σ_i p_ij dout_i
//! ds_ij = p_ij · (⟨dout_i, v_j⟩ − δ_i)      δ_i = Σ_j p_ij ⟨dout_i, v_j⟩ = ⟨dout_i, out_i⟩
//! dq_i = Σ_j ds_ij k_j / √head_dim           dk_j = Σ_i ds_ij q_i / √head_dim
//! ```
//!
//! With relative positions (Bao et al. 2022, BEiT) a score has a learned bias for its head and the offset of its tokens on the grid,
//! `s_ij = … + relative[r(i, j)]`, and `drelative[r] = Σ ds_ij` over the images and the pairs of this offset.
//!
//! A masked query sees some keys alone: causal, those up to itself; and with a length for each sequence, those before it, since the
//! rest is padding. Scores of the others are −∞.
//!
//! All for every image and head. With `D = heads · head_dim`, the last dimension of `qkv [batch, tokens, 3D]` holds
//! q, k and v one after the other, each with its heads one after the other (timm's layout). Saved for backward:
//! `out` and `lse`.

use super::{Float, check_len};

/// What becomes of the products of queries and keys besides their scale.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scores<'a, T> {
    /// A bias for each offset of two tokens and head, `[offsets, heads]` ([`relative_index`]).
    pub relative: Option<&'a [T]>,
    /// Whether a query sees keys up to itself alone.
    pub causal: bool,
    /// Keys that are seen in each sequence, `[batch]`, each at least 1.
    pub lengths: Option<&'a [u32]>,
}

impl<T> Scores<'_, T> {
    fn sees(&self, image: usize, query: usize, key: usize) -> bool {
        (!self.causal || key <= query) && self.lengths.is_none_or(|lengths| key < lengths[image] as usize)
    }
}

/// Where the elements of one head of one image lie.
#[derive(Clone, Copy)]
struct Head {
    image: usize,
    head: usize,
    tokens: usize,
    dim: usize,
    head_dim: usize,
}

impl Head {
    /// Every head of every image, in the order of `lse [batch, heads, tokens]`.
    fn all(batch: usize, tokens: usize, heads: usize, head_dim: usize) -> impl Iterator<Item = Self> {
        let dim = heads * head_dim;
        (0..batch * heads).map(move |i| Self { image: i / heads, head: i % heads, tokens, dim, head_dim })
    }

    fn out(&self, token: usize, i: usize) -> usize {
        (self.image * self.tokens + token) * self.dim + self.head * self.head_dim + i
    }

    /// `part`: 0 for q, 1 for k, 2 for v.
    fn qkv(&self, part: usize, token: usize, i: usize) -> usize {
        ((self.image * self.tokens + token) * 3 + part) * self.dim + self.head * self.head_dim + i
    }

    fn q(&self, token: usize, i: usize) -> usize {
        self.qkv(0, token, i)
    }

    fn k(&self, token: usize, i: usize) -> usize {
        self.qkv(1, token, i)
    }

    fn v(&self, token: usize, i: usize) -> usize {
        self.qkv(2, token, i)
    }

    fn lse(&self, token: usize) -> usize {
        (self.image * (self.dim / self.head_dim) + self.head) * self.tokens + token
    }

    /// Where the bias of a pair of tokens stands in `relative`.
    fn relative(&self, query: usize, key: usize) -> usize {
        relative_index(query, key, (self.tokens - 1).isqrt()) * (self.dim / self.head_dim) + self.head
    }

    /// `s_ij` for one query `i` and every key `j`.
    fn scores<T: Float>(&self, qkv: &[T], scores: Scores<T>, query: usize) -> Vec<T> {
        let scale = scale::<T>(self.head_dim);
        let score = |key: usize| {
            if !scores.sees(self.image, query, key) {
                return T::from_f64(f64::NEG_INFINITY);
            }
            let mut sum = T::ZERO;
            for i in 0..self.head_dim {
                sum += qkv[self.q(query, i)] * qkv[self.k(key, i)];
            }
            sum * scale + scores.relative.map_or(T::ZERO, |relative| relative[self.relative(query, key)])
        };
        (0..self.tokens).map(score).collect()
    }

    /// `p_ij` and `ds_ij` for one query `i` and every key `j`.
    fn gradients<T: Float>(
        &self,
        dout: &[T],
        out: &[T],
        qkv: &[T],
        lse: &[T],
        scores: Scores<T>,
        query: usize,
    ) -> Vec<(T, T)> {
        let mut delta = T::ZERO;
        for i in 0..self.head_dim {
            delta += dout[self.out(query, i)] * out[self.out(query, i)];
        }
        let gradient = |(key, score): (usize, T)| {
            let p = (score - lse[self.lse(query)]).exp();
            let mut dp = T::ZERO;
            for i in 0..self.head_dim {
                dp += dout[self.out(query, i)] * qkv[self.v(key, i)];
            }
            (p, p * (dp - delta))
        };
        self.scores(qkv, scores, query).into_iter().enumerate().map(gradient).collect()
    }
}

/// The row of a table of relative positions for a class token and `grid²` patches: offsets from query to key row by row, then class token to
/// patch, patch to class token, and the class token to itself.
pub fn relative_index(query: usize, key: usize, grid: usize) -> usize {
    let side = 2 * grid - 1;
    match (query, key) {
        (0, 0) => side * side + 2,
        (0, _) => side * side,
        (_, 0) => side * side + 1,
        _ => {
            let [(qy, qx), (ky, kx)] = [query, key].map(|t| ((t - 1) / grid, (t - 1) % grid));
            (qy + grid - 1 - ky) * side + qx + grid - 1 - kx
        }
    }
}

fn scale<T: Float>(head_dim: usize) -> T {
    T::ONE / T::from_f64(head_dim as f64).sqrt()
}

/// Assigns `out [batch, tokens, D]` and `lse [batch, heads, tokens]`, the logarithm of the sum of the exponentials
/// of the scaled scores; `qkv [batch, tokens, 3D]`.
pub fn forward<T: Float>(
    out: &mut [T],
    lse: &mut [T],
    qkv: &[T],
    batch: usize,
    tokens: usize,
    heads: usize,
    head_dim: usize,
) {
    forward_scored(out, lse, qkv, Scores::default(), batch, tokens, heads, head_dim);
}

/// The same with biases, or keys that are not seen.
pub fn forward_scored<T: Float>(
    out: &mut [T],
    lse: &mut [T],
    qkv: &[T],
    scores: Scores<T>,
    batch: usize,
    tokens: usize,
    heads: usize,
    head_dim: usize,
) {
    let op = "attention::forward";
    check_len(op, "out", out.len(), batch * tokens * heads * head_dim);
    check_len(op, "lse", lse.len(), batch * heads * tokens);
    check_len(op, "qkv", qkv.len(), batch * tokens * 3 * heads * head_dim);
    for at in Head::all(batch, tokens, heads, head_dim) {
        for query in 0..tokens {
            let row = at.scores(qkv, scores, query);
            let mut largest = row[0];
            for &s in &row {
                largest = largest.max(s);
            }
            // Relative to the largest score, so that the exponentials can't overflow.
            let mut sum = T::ZERO;
            for &s in &row {
                sum += (s - largest).exp();
            }
            let log_sum = largest + sum.ln();
            lse[at.lse(query)] = log_sum;
            for i in 0..head_dim {
                let mut mix = T::ZERO;
                for key in 0..tokens {
                    mix += (row[key] - log_sum).exp() * qkv[at.v(key, i)];
                }
                out[at.out(query, i)] = mix;
            }
        }
    }
}

/// Assigns `dqkv [batch, tokens, 3D]`; `dout [batch, tokens, D]`, `qkv [batch, tokens, 3D]`, and from forward
/// `out [batch, tokens, D]` and `lse [batch, heads, tokens]`.
pub fn backward<T: Float>(
    dqkv: &mut [T],
    dout: &[T],
    out: &[T],
    qkv: &[T],
    lse: &[T],
    batch: usize,
    tokens: usize,
    heads: usize,
    head_dim: usize,
) {
    backward_scored(dqkv, &mut [], dout, out, qkv, lse, Scores::default(), batch, tokens, heads, head_dim);
}

/// The same behind [`forward_scored`]; `drelative [offsets, heads]` is added to if there are such biases.
pub fn backward_scored<T: Float>(
    dqkv: &mut [T],
    drelative: &mut [T],
    dout: &[T],
    out: &[T],
    qkv: &[T],
    lse: &[T],
    scores: Scores<T>,
    batch: usize,
    tokens: usize,
    heads: usize,
    head_dim: usize,
) {
    let op = "attention::backward";
    check_len(op, "dqkv", dqkv.len(), batch * tokens * 3 * heads * head_dim);
    check_len(op, "dout", dout.len(), batch * tokens * heads * head_dim);
    check_len(op, "out", out.len(), batch * tokens * heads * head_dim);
    check_len(op, "qkv", qkv.len(), batch * tokens * 3 * heads * head_dim);
    check_len(op, "lse", lse.len(), batch * heads * tokens);
    if scores.relative.is_some() {
        let mut dscores = vec![T::ZERO; heads * tokens * tokens];
        score_gradients(&mut dscores, dout, out, qkv, lse, scores, batch, tokens, heads, head_dim);
        for (i, ds) in dscores.iter().enumerate() {
            let (head, query, key) = (i / (tokens * tokens), i / tokens % tokens, i % tokens);
            drelative[relative_index(query, key, (tokens - 1).isqrt()) * heads + head] += *ds;
        }
    }
    dqkv.fill(T::ZERO);
    let scale = scale::<T>(head_dim);
    for at in Head::all(batch, tokens, heads, head_dim) {
        for query in 0..tokens {
            for (key, (p, ds)) in at.gradients(dout, out, qkv, lse, scores, query).into_iter().enumerate() {
                for i in 0..head_dim {
                    dqkv[at.q(query, i)] += scale * ds * qkv[at.k(key, i)];
                    dqkv[at.k(key, i)] += scale * ds * qkv[at.q(query, i)];
                    dqkv[at.v(key, i)] += p * dout[at.out(query, i)];
                }
            }
        }
    }
}

/// Assigns `dscores [heads, tokens, tokens]`, the gradient of the scores summed up over the images; the rest as in [`backward_scored`].
pub fn score_gradients<T: Float>(
    dscores: &mut [T],
    dout: &[T],
    out: &[T],
    qkv: &[T],
    lse: &[T],
    scores: Scores<T>,
    batch: usize,
    tokens: usize,
    heads: usize,
    head_dim: usize,
) {
    check_len("attention::score_gradients", "dscores", dscores.len(), heads * tokens * tokens);
    dscores.fill(T::ZERO);
    for at in Head::all(batch, tokens, heads, head_dim) {
        for query in 0..tokens {
            for (key, (_, ds)) in at.gradients(dout, out, qkv, lse, scores, query).into_iter().enumerate() {
                dscores[(at.head * tokens + query) * tokens + key] += ds;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::forward;

    // B, N, H, d = 1, 3, 2, 2
    // qkv = (torch.arange(36, dtype=torch.float64) * 7 % 11 / 5 - 1).reshape(B, N, 3, H, d)
    // q, k, v = qkv.permute(2, 0, 3, 1, 4)
    // print(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten())
    // print(torch.logsumexp(q @ k.mT / d**0.5, -1).flatten())
    #[test]
    fn agrees_with_pytorch() {
        let qkv: Vec<f64> = (0..36).map(|i| f64::from(i * 7 % 11) / 5.0 - 1.0).collect();
        let (mut out, mut lse) = ([f64::NAN; 12], [f64::NAN; 6]);
        forward(&mut out, &mut lse, &qkv, 1, 3, 2, 2);
        let want_out = [
            0.13995323414445088,
            -0.15905707172587175,
            0.011931063203819457,
            -0.4073500221103952,
            -0.26725711582649114,
            -0.19999999999999993,
            -0.3049714882524237,
            -0.5045156042351832,
            0.170660430350047,
            -0.2409429282741282,
            -0.42010207091027135,
            -0.2596416559515593,
        ];
        let want_lse = [
            1.1685001253504854,
            1.1571513184635036,
            1.2533529390928713,
            1.1884658682771112,
            1.1853863809519891,
            1.1682111259095442,
        ];
        for (got, want) in out.iter().zip(want_out).chain(lse.iter().zip(want_lse)) {
            assert!((got - want).abs() <= 1e-14, "{got} should be {want}");
        }
        let far: Vec<f64> = qkv.iter().map(|x| 1e3 * x).collect();
        forward(&mut out, &mut lse, &far, 1, 3, 2, 2);
        assert!(out.iter().chain(&lse).all(|x| x.is_finite()), "scores of a million must not overflow");
    }
}
