//! The gated activation of an MLP's first layer.

use crate::error::Result;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Tape};
use crate::ops::{Recorder, swiglu};

#[derive(Debug)]
struct SwiGlu {
    inp: Act,
    out: Act,
    rows: usize,
    /// Of `out`.
    cols: usize,
}

impl Tape {
    /// `a·σ(a)·b` of the two halves of `inp`'s channels.
    pub fn swiglu(&mut self, inp: Act, name: &str) -> Act {
        let shape = self.shape(inp);
        let (rows, cols) = (shape.rows(), shape.cols / 2);
        let out = self.act(name, shape.with_cols(cols), self.element_of(inp));
        self.push(SwiGlu { inp, out, rows, cols }, &[inp], &[], &[out]);
        out
    }
}

impl Layer for SwiGlu {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        swiglu::forward(r, &s.view(self.out), &s.view(self.inp), self.rows, self.cols)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, inp) = (s.gradient(self.out), s.view(self.inp));
        s.assign(r, self.inp, |r, dinp| swiglu::backward(r, dinp, &dout, &inp, self.rows, self.cols))
    }
}
