//! The largest value of each window.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Shape, Tape};
use crate::ops::max_pool::Padding;
use crate::ops::{Recorder, max_pool};

#[derive(Debug)]
struct MaxPool {
    inp: Act,
    out: Act,
    /// Where the values come from, u32.
    tap: Act,
    dims: max_pool::Dims,
}

impl Tape {
    /// `[B, H, W, cols]` to `[B, H', W', cols]`. Pixels outside the image do not count, or count as `zeros`.
    pub fn max_pool(
        &mut self,
        inp: Act,
        name: &str,
        (kernel, stride, padding): (usize, usize, Padding),
        zeros: bool,
    ) -> Act {
        let Shape { batch, height, width, cols: channels } = self.shape(inp);
        let dims = max_pool::Dims { batch, height, width, channels, kernel, stride, padding, zeros };
        let shape = Shape { height: dims.out_height(), width: dims.out_width(), ..self.shape(inp) };
        let out = self.act(name, shape, self.element_of(inp));
        let tap = self.act(&format!("{name}.tap"), shape, Element::Word);
        self.push(MaxPool { inp, out, tap, dims }, &[inp], &[], &[out, tap]);
        out
    }
}

impl Layer for MaxPool {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        max_pool::forward(r, &s.view(self.out), &s.view(self.tap), &s.view(self.inp), self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, tap) = (s.gradient(self.out), s.view(self.tap));
        s.assign(r, self.inp, |r, dinp| max_pool::backward(r, dinp, &dout, &tap, self.dims))
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::MaxPool { inp: self.inp, out: self.out, dims: self.dims })
    }
}
