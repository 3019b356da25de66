//! Attention of one query per image over its tokens, and the tokens that CLIP's ResNets make for it (Radford et al.
//! 2021, `AttentionPool2d`).
//!
//! ```text
//! s_n = ⟨q, k_n⟩ / √head_dim      prob = softmax(s)      out = Σ_n prob_n v_n
//!
//! dv_n = prob_n dout
//! ds_n = prob_n · (⟨dout, v_n⟩ − Σ_m prob_m ⟨dout, v_m⟩) / √head_dim
//! dq = Σ_n ds_n k_n      dk_n = ds_n q
//!
//! tokens[b, 0] = mean of inp[b] + pos[0]      tokens[b, 1 + n] = inp[b, n] + pos[1 + n]
//! ```
//!
//! for every image and head. With `D = heads · head_dim`, `q` and `out` are `[batch, D]`, `k` and `v`
//! `[batch, tokens, D]`, each with its heads one after the other; `prob [batch, heads, tokens]` is saved for backward.

use super::{Float, check_len};

/// Shape of an attention pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Tokens of an image; two or more where they are [assembled](assemble) from pixels.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl Dims {
    /// Width of a token.
    pub fn dim(self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements of `q`, `out` and their gradients.
    pub fn query_len(self) -> usize {
        self.batch * self.dim()
    }

    /// Elements of `k`, `v`, `tokens` and their gradients.
    pub fn token_len(self) -> usize {
        self.batch * self.tokens * self.dim()
    }

    /// Elements of `prob`.
    pub fn prob_len(self) -> usize {
        self.batch * self.heads * self.tokens
    }

    /// Elements of `inp`: the tokens but for the first.
    pub fn pixel_len(self) -> usize {
        self.batch * (self.tokens - 1) * self.dim()
    }

    /// Every image and head, in the order of `prob`.
    fn all_heads(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.batch * self.heads).map(move |i| (i / self.heads, i % self.heads))
    }

    fn query(self, b: usize, h: usize, i: usize) -> usize {
        (b * self.heads + h) * self.head_dim + i
    }

    fn key(self, b: usize, n: usize, h: usize, i: usize) -> usize {
        ((b * self.tokens + n) * self.heads + h) * self.head_dim + i
    }

    fn prob(self, b: usize, h: usize, n: usize) -> usize {
        (b * self.heads + h) * self.tokens + n
    }

    fn scale<T: Float>(self) -> T {
        T::ONE / T::from_f64(self.head_dim as f64).sqrt()
    }
}

/// Assigns `out [batch, D]` and `prob [batch, heads, tokens]`; `q [batch, D]`, `k` and `v [batch, tokens, D]`.
pub fn forward<T: Float>(out: &mut [T], prob: &mut [T], q: &[T], k: &[T], v: &[T], dims: Dims) {
    let op = "attention_pool::forward";
    check_len(op, "out", out.len(), dims.query_len());
    check_len(op, "prob", prob.len(), dims.prob_len());
    check_len(op, "q", q.len(), dims.query_len());
    check_len(op, "k", k.len(), dims.token_len());
    check_len(op, "v", v.len(), dims.token_len());
    for (b, h) in dims.all_heads() {
        let score = |n: usize| {
            let mut sum = T::ZERO;
            for i in 0..dims.head_dim {
                sum += q[dims.query(b, h, i)] * k[dims.key(b, n, h, i)];
            }
            sum * dims.scale()
        };
        let scores: Vec<T> = (0..dims.tokens).map(score).collect();
        let highest = scores.iter().fold(scores[0], |highest, &s| highest.max(s));
        let mut total = T::ZERO;
        for &s in &scores {
            total += (s - highest).exp();
        }
        for n in 0..dims.tokens {
            prob[dims.prob(b, h, n)] = (scores[n] - highest).exp() / total;
        }
        for i in 0..dims.head_dim {
            let mut mix = T::ZERO;
            for n in 0..dims.tokens {
                mix += prob[dims.prob(b, h, n)] * v[dims.key(b, n, h, i)];
            }
            out[dims.query(b, h, i)] = mix;
        }
    }
}

/// Assigns `dq [batch, D]`, `dk` and `dv [batch, tokens, D]`, and `ds [batch, heads, tokens]`, the gradient of the
/// products that the scores scale; `dout [batch, D]`, and `prob` from forward.
pub fn backward<T: Float>(
    dq: &mut [T],
    dk: &mut [T],
    dv: &mut [T],
    ds: &mut [T],
    dout: &[T],
    q: &[T],
    k: &[T],
    v: &[T],
    prob: &[T],
    dims: Dims,
) {
    let op = "attention_pool::backward";
    for (tensor, len) in [("dq", dq.len()), ("dout", dout.len()), ("q", q.len())] {
        check_len(op, tensor, len, dims.query_len());
    }
    for (tensor, len) in [("dk", dk.len()), ("dv", dv.len()), ("k", k.len()), ("v", v.len())] {
        check_len(op, tensor, len, dims.token_len());
    }
    for (tensor, len) in [("ds", ds.len()), ("prob", prob.len())] {
        check_len(op, tensor, len, dims.prob_len());
    }
    dq.fill(T::ZERO);
    for (b, h) in dims.all_heads() {
        let (mut dprob, mut delta) = (vec![T::ZERO; dims.tokens], T::ZERO);
        for n in 0..dims.tokens {
            for i in 0..dims.head_dim {
                dprob[n] += dout[dims.query(b, h, i)] * v[dims.key(b, n, h, i)];
            }
            delta += prob[dims.prob(b, h, n)] * dprob[n];
        }
        for n in 0..dims.tokens {
            let p = prob[dims.prob(b, h, n)];
            let g = p * (dprob[n] - delta) * dims.scale();
            ds[dims.prob(b, h, n)] = g;
            for i in 0..dims.head_dim {
                dq[dims.query(b, h, i)] += g * k[dims.key(b, n, h, i)];
                dk[dims.key(b, n, h, i)] = g * q[dims.query(b, h, i)];
                dv[dims.key(b, n, h, i)] = p * dout[dims.query(b, h, i)];
            }
        }
    }
}

/// Assigns `tokens [batch, tokens, D]`: the pixels' mean, then the pixels `inp [batch, tokens − 1, D]`, at their positions
/// `pos [tokens, D]`.
pub fn assemble<T: Float>(tokens: &mut [T], inp: &[T], pos: &[T], dims: Dims) {
    let op = "attention_pool::assemble";
    check_len(op, "tokens", tokens.len(), dims.token_len());
    check_len(op, "inp", inp.len(), dims.pixel_len());
    check_len(op, "pos", pos.len(), dims.tokens * dims.dim());
    let (dim, pixels) = (dims.dim(), dims.tokens - 1);
    let count = T::from_f64(pixels as f64);
    for b in 0..dims.batch {
        for d in 0..dim {
            let mut sum = T::ZERO;
            for n in 0..pixels {
                let x = inp[(b * pixels + n) * dim + d];
                sum += x;
                tokens[(b * dims.tokens + 1 + n) * dim + d] = x + pos[(1 + n) * dim + d];
            }
            tokens[b * dims.tokens * dim + d] = sum / count + pos[d];
        }
    }
}

/// Assigns `dinp [batch, tokens − 1, D]`, adds to `dpos [tokens, D]`; `dtokens [batch, tokens, D]`.
pub fn assemble_backward<T: Float>(dinp: &mut [T], dpos: &mut [T], dtokens: &[T], dims: Dims) {
    let op = "attention_pool::assemble_backward";
    check_len(op, "dinp", dinp.len(), dims.pixel_len());
    check_len(op, "dpos", dpos.len(), dims.tokens * dims.dim());
    check_len(op, "dtokens", dtokens.len(), dims.token_len());
    let (dim, pixels) = (dims.dim(), dims.tokens - 1);
    let count = T::from_f64(pixels as f64);
    for b in 0..dims.batch {
        for d in 0..dim {
            let mean = dtokens[b * dims.tokens * dim + d];
            dpos[d] += mean;
            for n in 0..pixels {
                let direct = dtokens[(b * dims.tokens + 1 + n) * dim + d];
                dpos[(1 + n) * dim + d] += direct;
                dinp[(b * pixels + n) * dim + d] = direct + mean / count;
            }
        }
    }
}
