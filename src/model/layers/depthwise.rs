//! Depth-wise convolutions: each channel with a kernel of its own.

use crate::error::Result;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Shape, Tape};
use crate::ops::depthwise::{Dims, Padding};
use crate::ops::{Recorder, depthwise};

/// The parameters of a depth-wise convolution, and how it goes over its input.
#[derive(Clone, Copy, Debug)]
pub struct DepthwiseParams {
    /// `[channels, 1, kernel, kernel]`
    pub weight: ParamRef,
    /// `[channels]`
    pub bias: Option<ParamRef>,
    /// Height and width of the kernels.
    pub kernel: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Zeros around the image.
    pub padding: Padding,
}

#[derive(Debug)]
struct Depthwise {
    inp: Act,
    out: Act,
    weight: ParamRef,
    bias: Option<ParamRef>,
    dims: Dims,
}

impl Tape {
    /// `inp` `[B, H, W, C]` to `[B, H', W', C]`.
    pub fn depthwise(&mut self, inp: Act, name: &str, own: DepthwiseParams) -> Act {
        let Shape { batch, height, width, cols: channels } = self.shape(inp);
        let DepthwiseParams { weight, bias, kernel, stride, padding } = own;
        let dims = Dims { batch, height, width, channels, kernel, stride, padding };
        let shape = Shape { height: dims.out_height(), width: dims.out_width(), ..self.shape(inp) };
        let out = self.act(name, shape, self.element_of(inp));
        let params: Vec<ParamRef> = [weight].into_iter().chain(bias).collect();
        self.push(Depthwise { inp, out, weight, bias, dims }, &[inp], &params, &[out]);
        out
    }
}

impl Layer for Depthwise {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let (out, inp, weight, bias) = (s.view(self.out), s.view(self.inp), s.param(self.weight), s.maybe(self.bias));
        depthwise::forward(r, &out, &inp, &weight, bias.as_ref(), self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, weight) = (s.gradient(self.out), s.param(self.weight));
        if s.trains(self.weight) {
            depthwise::backward_weight(r, &s.dparam(self.weight), &dout, &s.view(self.inp), self.dims)?;
        }
        if let Some(bias) = self.bias.filter(|bias| s.trains(*bias)) {
            depthwise::backward_bias(r, &s.dparam(bias), &dout, self.dims)?;
        }
        let dims = self.dims;
        s.add(r, self.inp, |r, dinp, accumulate| depthwise::backward_input(r, dinp, &dout, &weight, dims, accumulate))
    }

    fn scratch(&self) -> usize {
        // A smaller batch may cut its sums into more pieces.
        let of = |batch| depthwise::scratch_len(Dims { batch, ..self.dims });
        (1..=self.dims.batch).map(of).max().unwrap_or(0)
    }

    fn macs(&self) -> usize {
        self.dims.out_len() * self.dims.kernel * self.dims.kernel
    }

    fn operation(&self) -> Option<Operation> {
        let &Depthwise { inp, out, weight, bias, dims } = self;
        Some(Operation::Depthwise { inp, out, weight, bias, dims })
    }
}
