//! The windows of an image as rows: what a linear layer makes a convolution of.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Shape, Tape};
use crate::ops::depthwise::Padding;
use crate::ops::unfold::Dims;
use crate::ops::{Recorder, unfold};

#[derive(Debug)]
struct Unfold {
    inp: Act,
    out: Act,
    dims: Dims,
}

impl Tape {
    /// `[B, H, W, cols]`, of which `channels` count, to `[B, H', W', channels·kernel²]`, which holds `element`: one row per window,
    /// in the order of a convolution's weight. Windows are square, `stride` pixels apart, with `padding` zeros around the image.
    pub fn unfold(
        &mut self,
        inp: Act,
        name: &str,
        channels: usize,
        (kernel, stride, padding): (usize, usize, Padding),
        element: Element,
    ) -> Act {
        let Shape { batch, height, width, .. } = self.shape(inp);
        let dims = Dims { batch, height, width, channels, kernel, stride, padding };
        let cols = channels * kernel * kernel;
        let out = self.act(name, Shape { batch, height: dims.out_height(), width: dims.out_width(), cols }, element);
        self.push(Unfold { inp, out, dims }, &[inp], &[], &[out]);
        out
    }
}

impl Layer for Unfold {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        unfold::forward(r, &s.view(self.out), &s.view(self.inp), self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, dims) = (s.gradient(self.out), self.dims);
        s.add(r, self.inp, |r, dinp, accumulate| unfold::backward(r, dinp, &dout, dims, accumulate))
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Unfold { inp: self.inp, out: self.out, dims: self.dims })
    }
}
