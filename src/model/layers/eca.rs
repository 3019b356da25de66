//! A convolution along the channels of one row per image.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Tape};
use crate::ops::eca::Dims;
use crate::ops::{Recorder, eca};

#[derive(Debug)]
struct Eca {
    inp: Act,
    out: Act,
    weight: ParamRef,
    dims: Dims,
}

impl Tape {
    /// `inp` `[B, cols]`, in f32, each row convolved with `weight`, as many zeros before it as behind.
    pub fn eca(&mut self, inp: Act, name: &str, weight: ParamRef) -> Act {
        let shape = self.shape(inp);
        let dims = Dims { batch: shape.rows(), channels: shape.cols, kernel: weight.len };
        let out = self.act(name, shape, Element::Word);
        self.push(Eca { inp, out, weight, dims }, &[inp], &[weight], &[out]);
        out
    }
}

impl Layer for Eca {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        eca::forward(r, &s.view(self.out), &s.view(self.inp), &s.param(self.weight), self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, weight) = (s.gradient(self.out), s.param(self.weight));
        if s.trains(self.weight) {
            eca::backward_weight(r, &s.dparam(self.weight), &dout, &s.view(self.inp), self.dims)?;
        }
        s.assign(r, self.inp, |r, dinp| eca::backward_input(r, dinp, &dout, &weight, self.dims))
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Eca { inp: self.inp, out: self.out, weight: self.weight })
    }
}
