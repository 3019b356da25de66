//! Root mean square norm over the channels of a row.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Tape};
use crate::ops::layer_norm::Dims;
use crate::ops::{Recorder, rms_norm, scratch_len};

#[derive(Debug)]
struct RmsNorm {
    inp: Act,
    out: Act,
    rstd: Act,
    weight: ParamRef,
    dims: Dims,
}

impl Tape {
    /// `inp`'s rows with a mean square of 1, times `name.weight` `[cols]`; it holds `element`.
    pub fn rms_norm(&mut self, inp: Act, name: &str, eps: f32, element: Element) -> Act {
        let shape = self.shape(inp);
        let dims = Dims { rows: shape.rows(), cols: shape.cols, eps };
        let weight = self.param(&format!("{name}.weight"), &[shape.cols]);
        let out = self.act(name, shape, element);
        let rstd = self.saved(&format!("{name}.rstd"), dims.rows);
        self.push(RmsNorm { inp, out, rstd, weight, dims }, &[inp], &[weight], &[out, rstd]);
        out
    }
}

impl Layer for RmsNorm {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, rstd, inp] = [self.out, self.rstd, self.inp].map(|act| s.view(act));
        rms_norm::forward(r, &out, &rstd, &inp, &s.param(self.weight), self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        let [rstd, inp] = [self.rstd, self.inp].map(|act| s.view(act));
        if s.trains(self.weight) {
            rms_norm::backward_params(r, &s.dparam(self.weight), &dout, &inp, &rstd, self.dims)?;
        }
        let weight = s.param(self.weight);
        s.add(r, self.inp, |r, dinp, accumulate| {
            rms_norm::backward_input(r, dinp, &dout, &inp, &weight, &rstd, self.dims, accumulate)
        })
    }

    fn scratch(&self) -> usize {
        scratch_len(self.dims.rows, self.dims.cols)
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::RmsNorm { inp: self.inp, out: self.out, weight: self.weight, eps: self.dims.eps })
    }
}
