//! The means over runs of an image's tokens or pixels.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Shape, Tape};
use crate::ops::{Recorder, pool};

#[derive(Debug)]
struct Pool {
    inp: Act,
    out: Act,
    /// One for each run.
    dims: Vec<pool::Dims>,
}

impl Tape {
    /// The mean over `count` tokens from `first` on, `[B, cols]`, which holds `element`.
    pub fn pool(&mut self, inp: Act, name: &str, first: usize, count: usize, element: Element) -> Act {
        self.pool_runs(inp, name, &[(first, count)], element)
    }

    /// The means over several runs, each the first token and their number, beside each other: `[B, runs · cols]`.
    pub fn pool_runs(&mut self, inp: Act, name: &str, runs: &[(usize, usize)], element: Element) -> Act {
        let shape: Shape = self.shape(inp);
        let (dim, stride) = (shape.cols, runs.len() * shape.cols);
        let run = |(i, &(first, count)): (usize, &(usize, usize))| {
            let (batch, tokens) = (shape.batch, shape.pixels());
            pool::Dims { batch, tokens, dim, first, count, stride, column: i * dim }
        };
        let dims = runs.iter().enumerate().map(run).collect();
        let out = self.act(name, shape.pooled(stride), element);
        self.push(Pool { inp, out, dims }, &[inp], &[], &[out]);
        out
    }
}

impl Layer for Pool {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let (out, inp) = (s.view(self.out), s.view(self.inp));
        self.dims.iter().try_for_each(|dims| pool::forward(r, &out, &inp, *dims))
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        s.add(r, self.inp, |r, dinp, accumulate| {
            let mut runs = self.dims.iter().enumerate();
            runs.try_for_each(|(i, dims)| pool::backward(r, dinp, &dout, *dims, accumulate || i > 0))
        })
    }

    fn operation(&self) -> Option<Operation> {
        let runs = self.dims.iter().map(|dims| (dims.first, dims.count)).collect();
        Some(Operation::Pool { inp: self.inp, out: self.out, runs })
    }
}
