//! The mean of each window.

use crate::error::Result;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Shape, Tape};
use crate::ops::{Recorder, avg_pool};

#[derive(Debug)]
struct AvgPool {
    inp: Act,
    out: Act,
    dims: avg_pool::Dims,
}

impl Tape {
    /// `[B, H, W, cols]` to `[B, H', W', cols]`, by windows of 2 × 2 pixels. With `ceil_mode` they may reach over the edge.
    pub fn avg_pool(&mut self, inp: Act, name: &str, stride: usize, ceil_mode: bool) -> Act {
        let Shape { batch, height, width, cols: channels } = self.shape(inp);
        let dims = avg_pool::Dims { batch, height, width, channels, kernel: 2, stride, padding: 0, ceil_mode };
        self.pool_windows(inp, name, dims)
    }

    /// The same by windows of 3 × 3 pixels around every `stride`-th one; pixels outside do not count.
    pub fn avg_pool_around(&mut self, inp: Act, name: &str, stride: usize) -> Act {
        let Shape { batch, height, width, cols: channels } = self.shape(inp);
        let dims = avg_pool::Dims { batch, height, width, channels, kernel: 3, stride, padding: 1, ceil_mode: false };
        self.pool_windows(inp, name, dims)
    }

    fn pool_windows(&mut self, inp: Act, name: &str, dims: avg_pool::Dims) -> Act {
        let shape = Shape { height: dims.out_height(), width: dims.out_width(), ..self.shape(inp) };
        let out = self.act(name, shape, self.element_of(inp));
        self.push(AvgPool { inp, out, dims }, &[inp], &[], &[out]);
        out
    }
}

impl Layer for AvgPool {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        avg_pool::forward(r, &s.view(self.out), &s.view(self.inp), self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        s.assign(r, self.inp, |r, dinp| avg_pool::backward(r, dinp, &dout, self.dims))
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::AvgPool { inp: self.inp, out: self.out, dims: self.dims })
    }
}
