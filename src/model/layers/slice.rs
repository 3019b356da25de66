//! Columns of a value, and values side by side.

use crate::error::Result;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Shape, Tape};
use crate::ops::slice::Dims;
use crate::ops::{Recorder, slice};

#[derive(Debug)]
struct Slice {
    inp: Act,
    out: Act,
    dims: Dims,
}

#[derive(Debug)]
struct Beside {
    parts: Vec<(Act, Dims)>,
    out: Act,
}

impl Tape {
    /// The `count` columns from `first` on.
    pub fn slice(&mut self, inp: Act, name: &str, first: usize, count: usize) -> Act {
        let shape = self.shape(inp);
        let dims = Dims { rows: shape.rows(), pitch: shape.cols, first, count };
        let out = self.act(name, shape.with_cols(count), self.element_of(inp));
        self.push(Slice { inp, out, dims }, &[inp], &[], &[out]);
        out
    }

    /// The columns of the first of `parts`, then those of the next; all have as many rows.
    pub fn beside(&mut self, parts: &[Act], name: &str) -> Act {
        let cols = parts.iter().map(|part| self.shape(*part).cols);
        let shape: Shape = self.shape(parts[0]).with_cols(cols.sum());
        let mut first = 0;
        let place = |part: &Act| {
            let count = self.shape(*part).cols;
            first += count;
            (*part, Dims { rows: shape.rows(), pitch: shape.cols, first: first - count, count })
        };
        let placed = parts.iter().map(place).collect();
        let out = self.act(name, shape, self.element_of(parts[0]));
        self.push(Beside { parts: placed, out }, parts, &[], &[out]);
        out
    }
}

impl Layer for Slice {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        slice::forward(r, &s.view(self.out), &s.view(self.inp), self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        s.add(r, self.inp, |r, dinp, accumulate| slice::backward(r, dinp, &dout, self.dims, accumulate))
    }

    fn operation(&self) -> Option<Operation> {
        let Dims { first, count, .. } = self.dims;
        Some(Operation::Slice { inp: self.inp, out: self.out, first, count })
    }
}

impl Layer for Beside {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let out = s.view(self.out);
        self.parts.iter().try_for_each(|(part, dims)| slice::place(r, &out, &s.view(*part), *dims))
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        (self.parts.iter()).try_for_each(|(part, dims)| s.assign(r, *part, |r, d| slice::forward(r, d, &dout, *dims)))
    }

    fn operation(&self) -> Option<Operation> {
        let parts = self.parts.iter().map(|(part, _)| *part).collect();
        Some(Operation::Beside { parts, out: self.out })
    }
}
