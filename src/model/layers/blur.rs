//! Images under a fixed filter of 3 × 3 taps.

use crate::error::Result;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Shape, Tape};
use crate::ops::blur::{Dims, Filter};
use crate::ops::{Recorder, blur};

#[derive(Debug)]
struct Blur {
    inp: Act,
    out: Act,
    dims: Dims,
}

impl Tape {
    /// `[B, H, W, cols]` to `[B, ⌈H/stride⌉, ⌈W/stride⌉, cols]`.
    pub fn blur(&mut self, inp: Act, name: &str, stride: usize, filter: Filter) -> Act {
        let Shape { batch, height, width, cols: channels } = self.shape(inp);
        let dims = Dims { batch, height, width, channels, stride, filter };
        let shape = Shape { height: dims.out_height(), width: dims.out_width(), ..self.shape(inp) };
        let out = self.act(name, shape, self.element_of(inp));
        self.push(Blur { inp, out, dims }, &[inp], &[], &[out]);
        out
    }
}

impl Layer for Blur {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        blur::forward(r, &s.view(self.out), &s.view(self.inp), self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        s.assign(r, self.inp, |r, dinp| blur::backward(r, dinp, &dout, self.dims))
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Blur { inp: self.inp, out: self.out, dims: self.dims })
    }
}
