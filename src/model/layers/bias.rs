//! The bias of a convolution, with a ReLU behind it in the same kernel: that of an affine batch norm which does nothing else.

use crate::error::Result;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Tape};
use crate::ops::{Recorder, batch_norm, column_sum, relu, scratch_len};
use crate::shapes::Pointwise;

#[derive(Debug)]
struct Bias {
    inp: Act,
    out: Act,
    bias: ParamRef,
    /// Of the norm that does nothing: its weight and 1 / √var, and its mean.
    ones: Act,
    zeros: Act,
    relu: bool,
    dims: batch_norm::Dims,
}

impl Tape {
    /// `inp + bias`, with a bias for each of its channels, through a ReLU if `relu`.
    pub fn bias(&mut self, inp: Act, name: &str, bias: ParamRef, relu: bool) -> Act {
        let shape = self.shape(inp);
        let out = self.act(name, shape, self.element_of(inp));
        let [ones, zeros] = [("ones", 1.0), ("zeros", 0.0)]
            .map(|(what, value)| self.constant(&format!("{name}.{what}"), vec![value; shape.cols]));
        let dims = batch_norm::Dims { rows: shape.rows(), cols: shape.cols, eps: 0.0, momentum: 0.0 };
        self.push(Bias { inp, out, bias, ones, zeros, relu, dims }, &[inp, ones, zeros], &[bias], &[out]);
        out
    }
}

impl Layer for Bias {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, inp, ones, zeros] = [self.out, self.inp, self.ones, self.zeros].map(|act| s.view(act));
        let (bias, mode, act) = (s.param(self.bias), batch_norm::Mode::Eval, self.relu.then_some(Pointwise::Relu));
        batch_norm::normalize(r, &out, &inp, &ones, &bias, &zeros, &ones, None, act, mode, self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let mut dout = s.gradient(self.out);
        if self.relu {
            let (out, behind) = (s.view(self.out), dout);
            let label = format!("gradient before the ReLU of {}", s.label(self.out));
            dout = s.tensor(&label, out.element, out.len);
            relu::backward(r, &dout, &behind, &out, false)?;
        }
        if s.trains(self.bias) {
            column_sum::forward(r, &s.dparam(self.bias), &dout, self.dims.rows, self.dims.cols)?;
        }
        s.settle(r, self.inp, dout)
    }

    fn scratch(&self) -> usize {
        scratch_len(self.dims.rows, self.dims.cols)
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Bias { inp: self.inp, out: self.out, bias: self.bias, relu: self.relu })
    }
}
