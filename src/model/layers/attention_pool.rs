//! Attention of one query for each image over all of its tokens, and what stands before it: CLIP's tokens of pixels, SigLIP's
//! learned query.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Shape, Tape};
use crate::ops::{Recorder, attention_pool, column_sum, scratch_len};

#[derive(Debug)]
struct Attend {
    q: Act,
    k: Act,
    v: Act,
    out: Act,
    /// `[B, H, N]`
    prob: Act,
    /// Of `k`.
    shape: Shape,
    heads: usize,
}

#[derive(Debug)]
struct Assemble {
    inp: Act,
    out: Act,
    positions: ParamRef,
    shape: Shape,
}

#[derive(Debug)]
struct Spread {
    latent: ParamRef,
    out: Act,
    rows: usize,
    cols: usize,
}

impl Tape {
    /// What the query `q` `[B, D]` attends to of `k` and `v` `[B, N, D]`; `heads` divides `D`.
    pub fn attend(&mut self, [q, k, v]: [Act; 3], name: &str, heads: usize) -> Act {
        let shape = self.shape(k);
        let out = self.act(name, self.shape(q), self.element_of(q));
        let prob = self.saved(&format!("{name}.prob"), shape.rows() * heads);
        self.push(Attend { q, k, v, out, prob, shape, heads }, &[q, k, v], &[], &[out, prob]);
        out
    }

    /// Tokens: the mean of an image's pixels, then these, plus `positions`, a row for each.
    pub fn tokens_of_pixels(&mut self, inp: Act, name: &str, positions: ParamRef) -> Act {
        let pixels = self.shape(inp);
        let shape = Shape { height: 1 + pixels.pixels(), width: 1, ..pixels };
        let out = self.act(name, shape, self.element_of(inp));
        self.push(Assemble { inp, out, positions, shape }, &[inp], &[positions], &[out]);
        out
    }

    /// `latent` `[cols]` once for each image, in f32.
    pub fn spread(&mut self, latent: ParamRef, name: &str) -> Act {
        let shape = Shape { batch: self.batch, height: 1, width: 1, cols: latent.len };
        self.spread_over(latent, name, shape)
    }

    /// The same once for each pixel of `shape`.
    pub fn spread_over(&mut self, latent: ParamRef, name: &str, shape: Shape) -> Act {
        let out = self.act(name, shape, Element::Word);
        self.push(Spread { latent, out, rows: shape.rows(), cols: shape.cols }, &[], &[latent], &[out]);
        out
    }
}

fn dims(shape: Shape, heads: usize) -> attention_pool::Dims {
    let Shape { batch, height, cols, .. } = shape;
    attention_pool::Dims { batch, tokens: height, heads, head_dim: cols / heads }
}

impl Layer for Attend {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, prob, q, k, v] = [self.out, self.prob, self.q, self.k, self.v].map(|act| s.view(act));
        attention_pool::forward(r, &out, &prob, &q, &k, &v, dims(self.shape, self.heads))
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let inputs = [self.q, self.k, self.v];
        let [q, k, v] = inputs.map(|act| s.view(act));
        let [dq, dk, dv] = inputs.map(|act| s.share(act));
        let (dout, prob) = (s.gradient(self.out), s.view(self.prob));
        let label = format!("gradient of {}", s.label(self.prob));
        let ds = s.tensor(&label, Element::Word, prob.len);
        let dims = dims(self.shape, self.heads);
        attention_pool::backward(r, &dq, &dk, &dv, &ds, &dout, &q, &k, &v, &prob, dims)?;
        inputs.into_iter().zip([dq, dk, dv]).try_for_each(|(act, view)| s.settle(r, act, view))
    }

    fn macs(&self) -> usize {
        2 * self.shape.len()
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Attend { q: self.q, k: self.k, v: self.v, out: self.out, heads: self.heads })
    }
}

impl Layer for Assemble {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, inp] = [self.out, self.inp].map(|act| s.view(act));
        attention_pool::assemble(r, &out, &inp, &s.param(self.positions), dims(self.shape, 1))
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, dinp, dpositions) = (s.gradient(self.out), s.share(self.inp), s.dparam(self.positions));
        attention_pool::assemble_backward(r, &dinp, &dpositions, &dout, dims(self.shape, 1))?;
        s.settle(r, self.inp, dinp)
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::TokensOfPixels { inp: self.inp, out: self.out, positions: self.positions })
    }
}

impl Layer for Spread {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        column_sum::spread(r, &s.view(self.out), &s.param(self.latent), self.rows, self.cols)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        column_sum::forward(r, &s.dparam(self.latent), &s.gradient(self.out), self.rows, self.cols)
    }

    fn scratch(&self) -> usize {
        scratch_len(self.rows, self.cols)
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Spread { latent: self.latent, out: self.out })
    }
}
