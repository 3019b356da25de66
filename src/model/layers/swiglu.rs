//! The gated activation of an MLP's first layer, or of two first layers.

use crate::error::Result;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Tape};
use crate::ops::swiglu::Gate;
use crate::ops::{Recorder, swiglu};

#[derive(Debug)]
struct SwiGlu {
    inp: Act,
    out: Act,
    rows: usize,
    /// Of `out`.
    cols: usize,
}

#[derive(Debug)]
struct Pair {
    gate: Act,
    value: Act,
    out: Act,
    by: Gate,
    rows: usize,
    cols: usize,
}

impl Tape {
    /// `gate·σ(gate)·value`, or what else `by` says.
    pub fn swiglu_pair(&mut self, gate: Act, value: Act, name: &str, by: Gate) -> Act {
        let shape = self.shape(gate);
        let out = self.act(name, shape, self.element_of(gate));
        self.push(Pair { gate, value, out, by, rows: shape.rows(), cols: shape.cols }, &[gate, value], &[], &[out]);
        out
    }

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

    fn operation(&self) -> Option<Operation> {
        Some(Operation::SwiGlu { inp: self.inp, out: self.out })
    }
}

impl Layer for Pair {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, gate, value] = [self.out, self.gate, self.value].map(|act| s.view(act));
        swiglu::forward_pair(r, &out, &gate, &value, self.by, self.rows, self.cols)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let inputs = [self.gate, self.value];
        let ([gate, value], [dgate, dvalue]) = (inputs.map(|act| s.view(act)), inputs.map(|act| s.share(act)));
        let dout = s.gradient(self.out);
        swiglu::backward_pair(r, &dgate, &dvalue, &dout, &gate, &value, self.by, self.rows, self.cols)?;
        s.settle(r, self.gate, dgate)?;
        s.settle(r, self.value, dvalue)
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Gated { gate: self.gate, value: self.value, out: self.out, by: self.by })
    }
}
