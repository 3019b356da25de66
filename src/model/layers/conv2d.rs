//! Convolutions without a bias.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Shape, Tape};
use crate::ops::conv2d::Padding;
use crate::ops::{Recorder, conv2d};

/// The parameter of a convolution, and how it goes over its input.
#[derive(Clone, Copy, Debug)]
pub struct ConvParams {
    /// `[outputs, inputs / groups, kernel, kernel]`
    pub weight: ParamRef,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Zeros around the image.
    pub padding: Padding,
    /// Groups of channels.
    pub groups: usize,
}

#[derive(Debug)]
struct Conv2d {
    inp: Act,
    out: Act,
    weight: ParamRef,
    dims: conv2d::Dims,
    element: Element,
}

impl Tape {
    /// `inp` `[B, H, W, inputs]` (a fourth channel of zeros may follow three) to `[B, H', W', outputs]`.
    pub fn conv2d(&mut self, inp: Act, name: &str, own: ConvParams) -> Act {
        let (Shape { batch, height, width, .. }, element) = (self.shape(inp), self.element_of(inp));
        let ConvParams { weight, inputs, outputs, kernel, stride, padding, groups } = own;
        let (in_channels, out_channels) = (inputs, outputs);
        let dims = conv2d::Dims { batch, height, width, in_channels, out_channels, kernel, stride, padding, groups };
        self.product(weight, element);
        let shape = Shape { batch, height: dims.out_height(), width: dims.out_width(), cols: outputs };
        let out = self.act(name, shape, element);
        self.push(Conv2d { inp, out, weight, dims, element }, &[inp], &[weight], &[out]);
        out
    }
}

impl Layer for Conv2d {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let weight = s.product_weight(self.weight, self.element);
        conv2d::forward(r, &s.view(self.out), &s.view(self.inp), &weight, self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, weight) = (s.gradient(self.out), s.product_weight(self.weight, self.element));
        if s.trains(self.weight) {
            conv2d::backward_weight(r, &s.dparam(self.weight), &dout, &s.view(self.inp), self.dims)?;
        }
        s.add(r, self.inp, |r, dinp, accumulate| conv2d::backward_input(r, dinp, &dout, &weight, self.dims, accumulate))
    }

    fn scratch(&self) -> usize {
        // A smaller batch may cut its sums into more pieces.
        let of = |batch| conv2d::scratch_len(conv2d::Dims { batch, ..self.dims });
        (1..=self.dims.batch).map(of).max().unwrap_or(0)
    }

    fn macs(&self) -> usize {
        self.dims.out_pixels() * self.dims.weight_len()
    }

    fn operation(&self) -> Option<Operation> {
        let (standardized, &Conv2d { inp, out, weight, dims, .. }) = (None, self);
        Some(Operation::Conv { inp, out, weight, dims, standardized })
    }
}
