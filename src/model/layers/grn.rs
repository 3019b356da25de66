//! Global response normalisation over the pixels of each image.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Tape};
use crate::ops::grn::Dims;
use crate::ops::{Recorder, grn};

#[derive(Debug)]
struct Grn {
    inp: Act,
    out: Act,
    norm: Act,
    inverse: Act,
    weight: ParamRef,
    bias: ParamRef,
    eps: f32,
    dims: Dims,
}

impl Tape {
    /// `inp·(1 + weight·s) + bias`, where `s` is each channel's norm over the image beside the mean norm; `weight` and `bias` are
    /// `[cols]`.
    pub fn grn(&mut self, inp: Act, name: &str, weight: ParamRef, bias: ParamRef, eps: f32) -> Act {
        let shape = self.shape(inp);
        let dims = Dims { batch: shape.batch, rows: shape.pixels(), cols: shape.cols };
        let out = self.act(name, shape, self.element_of(inp));
        let norm = self.act(&format!("{name}.norm"), shape.pooled(shape.cols), Element::Word);
        let inverse = self.act(&format!("{name}.inverse"), shape.pooled(1), Element::Word);
        let layer = Grn { inp, out, norm, inverse, weight, bias, eps, dims };
        self.push(layer, &[inp], &[weight, bias], &[out, norm, inverse]);
        out
    }
}

impl Layer for Grn {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, norm, inverse, inp] = [self.out, self.norm, self.inverse, self.inp].map(|act| s.view(act));
        let (weight, bias) = (s.param(self.weight), s.param(self.bias));
        grn::forward(r, &out, &norm, &inverse, &inp, &weight, &bias, self.eps, self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        let [norm, inverse, inp] = [self.norm, self.inverse, self.inp].map(|act| s.view(act));
        let (dweight, dbias, weight) = (s.dparam(self.weight), s.dparam(self.bias), s.param(self.weight));
        let room = ["slope", "weight share", "bias share"].map(|what| {
            let label = format!("{what} of {}", s.label(self.out));
            s.tensor(&label, Element::Word, norm.len)
        });
        let dims = self.dims;
        let room = room.each_ref();
        let dinp = s.share(self.inp);
        grn::backward(r, &dinp, &dweight, &dbias, room, &dout, &inp, &weight, &norm, &inverse, dims)?;
        s.settle(r, self.inp, dinp)
    }

    fn scratch(&self) -> usize {
        grn::scratch_len(self.dims)
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Grn { inp: self.inp, out: self.out, weight: self.weight, bias: self.bias, eps: self.eps })
    }
}
