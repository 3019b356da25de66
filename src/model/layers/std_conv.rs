//! Convolutions whose weights are standardised, each output channel's by itself.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::layers::ConvParams;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Shape, Tape};
use crate::ops::{Recorder, conv2d, standardize};

#[derive(Debug)]
struct StdConv {
    inp: Act,
    out: Act,
    weight: ParamRef,
    /// The standardised weight, of what the product reads.
    standard: Act,
    rows: standardize::Dims,
    dims: conv2d::Dims,
}

impl Tape {
    /// As [`Tape::conv2d`], with the weights of each output channel at a mean of 0 and a variance of 1, to which `eps` is added.
    pub fn std_conv2d(&mut self, inp: Act, name: &str, own: ConvParams, eps: f32) -> Act {
        let (Shape { batch, height, width, .. }, element) = (self.shape(inp), self.element_of(inp));
        let ConvParams { weight, inputs, outputs, kernel, stride, padding, groups } = own;
        let (in_channels, out_channels) = (inputs, outputs);
        let dims = conv2d::Dims { batch, height, width, in_channels, out_channels, kernel, stride, padding, groups };
        let shape = Shape { batch, height: dims.out_height(), width: dims.out_width(), cols: outputs };
        let out = self.act(name, shape, element);
        let row = Shape { batch: 1, height: outputs, width: 1, cols: dims.weight_len() / outputs };
        let standard = self.act(&format!("{name}.standard"), row, element);
        let rows = standardize::Dims { rows: outputs, cols: row.cols, eps };
        self.push(StdConv { inp, out, weight, standard, rows, dims }, &[inp], &[weight], &[out, standard]);
        out
    }
}

impl Layer for StdConv {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, standard, inp] = [self.out, self.standard, self.inp].map(|act| s.view(act));
        standardize::forward(r, &standard, &s.param(self.weight), self.rows)?;
        conv2d::forward(r, &out, &inp, &standard, self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, standard) = (s.gradient(self.out), s.view(self.standard));
        if s.trains(self.weight) {
            let label = format!("gradient of {}", s.label(self.standard));
            let dstandard = s.tensor(&label, Element::Word, standard.len);
            standardize::clear(r, &dstandard, self.rows)?;
            conv2d::backward_weight(r, &dstandard, &dout, &s.view(self.inp), self.dims)?;
            standardize::backward(r, &s.dparam(self.weight), &dstandard, &s.param(self.weight), self.rows)?;
        }
        let dims = self.dims;
        s.add(r, self.inp, |r, dinp, accumulate| conv2d::backward_input(r, dinp, &dout, &standard, dims, accumulate))
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
        let (standardized, &StdConv { inp, out, weight, dims, .. }) = (Some(self.rows.eps), self);
        Some(Operation::Conv { inp, out, weight, dims, standardized })
    }
}
