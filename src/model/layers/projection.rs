//! A linear map without a bias whose weight is stored transposed, `[inputs, outputs]`, as OpenAI's CLIP has it.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Tape};
use crate::ops::{Recorder, matmul};

#[derive(Debug)]
struct Projection {
    inp: Act,
    out: Act,
    weight: ParamRef,
    rows: usize,
    /// Columns of `inp`, and of `out`.
    from: usize,
    to: usize,
}

impl Tape {
    /// `out = inp·weight`, `weight` `[cols, to]`, in f32.
    pub fn projection(&mut self, inp: Act, name: &str, weight: ParamRef) -> Act {
        let shape = self.shape(inp);
        let (rows, from, to) = (shape.rows(), shape.cols, weight.len / shape.cols.max(1));
        let out = self.act(name, shape.with_cols(to), Element::Word);
        self.push(Projection { inp, out, weight, rows, from, to }, &[inp], &[weight], &[out]);
        out
    }
}

// x·W is the gradient of a linear layer whose weight is W, and the other way round.
impl Layer for Projection {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, inp] = [self.out, self.inp].map(|act| s.view(act));
        matmul::backward_input(r, &out, &inp, &s.param(self.weight), self.rows, self.from, self.to)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let &Projection { rows, from, to, .. } = self;
        let (dout, inp, weight) = (s.gradient(self.out), s.view(self.inp), s.param(self.weight));
        s.assign(r, self.inp, |r, dinp| matmul::forward(r, dinp, &dout, &weight, None, rows, from, to))?;
        match s.trains(self.weight) {
            true => matmul::backward_weight(r, &s.dparam(self.weight), &inp, &dout, rows, from, to),
            false => Ok(()),
        }
    }

    fn scratch(&self) -> usize {
        matmul::scratch_len(self.rows, self.from, self.to)
    }

    fn macs(&self) -> usize {
        self.rows * self.from * self.to
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Projection { inp: self.inp, out: self.out, weight: self.weight })
    }
}
