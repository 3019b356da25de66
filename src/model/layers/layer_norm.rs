//! Layer norm over the channels of a row.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Tape};
use crate::ops::{Recorder, layer_norm, scratch_len};

#[derive(Debug)]
struct LayerNorm {
    inp: Act,
    out: Act,
    mean: Act,
    rstd: Act,
    weight: ParamRef,
    bias: ParamRef,
    dims: layer_norm::Dims,
}

impl Tape {
    /// `inp`'s rows with mean 0 and variance 1, times `name.weight` plus `name.bias`, `[cols]` each; it holds `element`.
    pub fn layer_norm(&mut self, inp: Act, name: &str, eps: f32, element: Element) -> Act {
        let shape = self.shape(inp);
        let dims = layer_norm::Dims { rows: shape.rows(), cols: shape.cols, eps };
        let [weight, bias] = ["weight", "bias"].map(|what| self.param(&format!("{name}.{what}"), &[shape.cols]));
        let out = self.act(name, shape, element);
        let [mean, rstd] = ["mean", "rstd"].map(|what| self.saved(&format!("{name}.{what}"), dims.rows));
        self.push(LayerNorm { inp, out, mean, rstd, weight, bias, dims }, &[inp], &[weight, bias], &[out, mean, rstd]);
        out
    }
}

impl Layer for LayerNorm {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, mean, rstd, inp] = [self.out, self.mean, self.rstd, self.inp].map(|act| s.view(act));
        layer_norm::forward(r, &out, &mean, &rstd, &inp, &s.param(self.weight), &s.param(self.bias), self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        let [mean, rstd, inp] = [self.mean, self.rstd, self.inp].map(|act| s.view(act));
        if s.trains(self.weight) || s.trains(self.bias) {
            let (dweight, dbias) = (s.dparam(self.weight), s.dparam(self.bias));
            layer_norm::backward_params(r, &dweight, &dbias, &dout, &inp, &mean, &rstd, self.dims)?;
        }
        let weight = s.param(self.weight);
        s.add(r, self.inp, |r, dinp, accumulate| {
            layer_norm::backward_input(r, dinp, &dout, &inp, &weight, &mean, &rstd, self.dims, accumulate)
        })
    }

    fn scratch(&self) -> usize {
        scratch_len(self.dims.rows, self.dims.cols)
    }

    fn operation(&self) -> Option<Operation> {
        let &LayerNorm { inp, out, weight, bias, dims, .. } = self;
        Some(Operation::LayerNorm { inp, out, weight, bias, eps: dims.eps })
    }
}
