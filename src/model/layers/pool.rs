//! The mean over a run of an image's tokens or pixels.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Shape, Tape};
use crate::ops::{Recorder, pool};

#[derive(Debug)]
struct Pool {
    inp: Act,
    out: Act,
    dims: pool::Dims,
}

impl Tape {
    /// The mean over `count` tokens from `first` on, `[B, cols]`, which holds `element`.
    pub fn pool(&mut self, inp: Act, name: &str, first: usize, count: usize, element: Element) -> Act {
        let shape: Shape = self.shape(inp);
        let dims = pool::Dims { batch: shape.batch, tokens: shape.pixels(), dim: shape.cols, first, count };
        let out = self.act(name, shape.pooled(shape.cols), element);
        self.push(Pool { inp, out, dims }, &[inp], &[], &[out]);
        out
    }
}

impl Layer for Pool {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        pool::forward(r, &s.view(self.out), &s.view(self.inp), self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        s.add(r, self.inp, |r, dinp, accumulate| pool::backward(r, dinp, &dout, self.dims, accumulate))
    }
}
