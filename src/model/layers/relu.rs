//! What is negative becomes zero: where no other layer does it in its own kernel.

use crate::error::Result;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Tape};
use crate::ops::{Recorder, relu};

#[derive(Debug)]
struct Relu {
    inp: Act,
    out: Act,
}

impl Tape {
    /// `max(inp, 0)`
    pub fn relu(&mut self, inp: Act, name: &str) -> Act {
        let out = self.act(name, self.shape(inp), self.element_of(inp));
        self.push(Relu { inp, out }, &[inp], &[], &[out]);
        out
    }
}

impl Layer for Relu {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        relu::forward(r, &s.view(self.out), &s.view(self.inp))
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, out) = (s.gradient(self.out), s.view(self.out));
        s.add(r, self.inp, |r, dinp, accumulate| relu::backward(r, dinp, &dout, &out, accumulate))
    }
}
