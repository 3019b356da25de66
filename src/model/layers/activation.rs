//! Activations that no other layer computes in its own kernel.

use crate::error::Result;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Tape};
use crate::ops::{Recorder, gelu, hard_swish, relu, relu6, silu};
use crate::shapes::{self, Pointwise};

#[derive(Debug)]
struct Activation {
    inp: Act,
    out: Act,
    kind: Pointwise,
}

impl Tape {
    /// `inp` through an activation.
    pub fn activation(&mut self, inp: Act, name: &str, kind: Pointwise) -> Act {
        let out = self.act(name, self.shape(inp), self.element_of(inp));
        self.push(Activation { inp, out, kind }, &[inp], &[], &[out]);
        out
    }
}

impl Layer for Activation {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let (out, inp) = (s.view(self.out), s.view(self.inp));
        match self.kind {
            Pointwise::Relu => relu::forward(r, &out, &inp),
            Pointwise::Relu6 => relu6::forward(r, &out, &inp),
            Pointwise::Silu => silu::forward(r, &out, &inp),
            Pointwise::HardSwish => hard_swish::forward(r, &out, &inp),
            Pointwise::Gelu => gelu::forward(r, &out, &inp, shapes::Activation::Gelu),
        }
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, out, inp) = (s.gradient(self.out), s.view(self.out), s.view(self.inp));
        match self.kind {
            Pointwise::Relu => {
                s.add(r, self.inp, |r, dinp, accumulate| relu::backward(r, dinp, &dout, &out, accumulate))
            }
            Pointwise::Relu6 => s.assign(r, self.inp, |r, dinp| relu6::backward_input(r, dinp, &dout, &inp)),
            Pointwise::Silu => s.assign(r, self.inp, |r, dinp| silu::backward_input(r, dinp, &dout, &inp)),
            Pointwise::HardSwish => s.assign(r, self.inp, |r, dinp| hard_swish::backward_input(r, dinp, &dout, &inp)),
            Pointwise::Gelu => {
                s.assign(r, self.inp, |r, dinp| gelu::backward(r, dinp, &dout, &inp, shapes::Activation::Gelu))
            }
        }
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Activation { inp: self.inp, out: self.out, kind: self.kind })
    }
}
