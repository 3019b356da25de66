//! Tokens of texts to vectors, and one token of each text.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Shape, Tape};
use crate::ops::{Recorder, embedding, pick, scratch_len};

#[derive(Debug)]
struct Embedding {
    ids: Act,
    out: Act,
    /// `[vocabulary, dim]`
    weight: ParamRef,
    /// `[tokens, dim]`
    positions: ParamRef,
    dims: embedding::Dims,
}

#[derive(Debug)]
struct Pick {
    inp: Act,
    at: Act,
    out: Act,
    dims: pick::Dims,
}

impl Tape {
    /// `[B, T, D]`: the row of `weight` `[V, D]` for each of the ids `[B, T]`, and the vector of its place in `positions` `[T, D]`.
    pub fn embedding(&mut self, ids: Act, name: &str, weight: ParamRef, positions: ParamRef) -> Act {
        let shape = self.shape(ids);
        let dim = positions.len / shape.height;
        let dims = embedding::Dims { batch: shape.batch, tokens: shape.height, vocabulary: weight.len / dim, dim };
        let out = self.act(name, shape.with_cols(dim), Element::Word);
        self.push(Embedding { ids, out, weight, positions, dims }, &[ids], &[weight, positions], &[out]);
        out
    }

    /// `[B, D]`: of each text of `inp` `[B, T, D]` the token `at` `[B]`.
    pub fn pick(&mut self, inp: Act, name: &str, at: Act) -> Act {
        let shape: Shape = self.shape(inp);
        let dims = pick::Dims { batch: shape.batch, tokens: shape.height, dim: shape.cols };
        let out = self.act(name, shape.pooled(shape.cols), Element::Word);
        self.push(Pick { inp, at, out, dims }, &[inp, at], &[], &[out]);
        out
    }
}

impl Layer for Embedding {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, ids] = [self.out, self.ids].map(|act| s.view(act));
        embedding::forward(r, &out, &ids, &s.param(self.weight), &s.param(self.positions), self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, ids) = (s.gradient(self.out), s.view(self.ids));
        if s.trains(self.weight) {
            embedding::backward_params(r, &s.dparam(self.weight), &dout, &ids, self.dims)?;
        }
        match s.trains(self.positions) {
            true => embedding::backward_positions(r, &s.dparam(self.positions), &dout, self.dims),
            false => Ok(()),
        }
    }

    fn scratch(&self) -> usize {
        scratch_len(self.dims.batch, self.dims.tokens * self.dims.dim)
    }
}

impl Layer for Pick {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, inp, at] = [self.out, self.inp, self.at].map(|act| s.view(act));
        pick::forward(r, &out, &inp, &at, self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, at) = (s.gradient(self.out), s.view(self.at));
        s.add(r, self.inp, |r, dinp, accumulate| pick::backward_input(r, dinp, &dout, &at, self.dims, accumulate))
    }
}
