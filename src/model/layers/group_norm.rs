//! Group norm over the pixels of each image, with a ReLU behind it in the same kernel.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Tape};
use crate::ops::group_norm::Dims;
use crate::ops::{Recorder, group_norm};

/// The parameters of a group norm, `[channels]` each.
#[derive(Clone, Copy, Debug)]
pub struct GroupNormParams {
    /// Times.
    pub weight: ParamRef,
    /// Plus.
    pub bias: ParamRef,
    /// Groups of channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
}

#[derive(Debug)]
struct GroupNorm {
    own: GroupNormParams,
    inp: Act,
    out: Act,
    mean: Act,
    rstd: Act,
    relu: bool,
    dims: Dims,
}

impl Tape {
    /// Declares `name`'s parameters for this many channels.
    pub fn group_norm_params(&mut self, name: &str, channels: usize, groups: usize, eps: f32) -> GroupNormParams {
        let [weight, bias] = ["weight", "bias"].map(|what| self.param(&format!("{name}.{what}"), &[channels]));
        GroupNormParams { weight, bias, groups, eps }
    }

    /// `norm(inp)`, through a ReLU if `relu`.
    pub fn group_norm(&mut self, inp: Act, name: &str, own: GroupNormParams, relu: bool) -> Act {
        let shape = self.shape(inp);
        let GroupNormParams { groups, eps, .. } = own;
        let dims = Dims { batch: shape.batch, rows: shape.pixels(), cols: shape.cols, groups, eps };
        let out = self.act(name, shape, self.element_of(inp));
        let [mean, rstd] =
            ["mean", "rstd"].map(|what| self.act(&format!("{name}.{what}"), shape.pooled(shape.cols), Element::Word));
        let layer = GroupNorm { own, inp, out, mean, rstd, relu, dims };
        self.push(layer, &[inp], &[own.weight, own.bias], &[out, mean, rstd]);
        out
    }
}

impl Layer for GroupNorm {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, mean, rstd, inp] = [self.out, self.mean, self.rstd, self.inp].map(|act| s.view(act));
        let (weight, bias) = (s.param(self.own.weight), s.param(self.own.bias));
        group_norm::forward(r, &out, &mean, &rstd, &inp, &weight, &bias, self.relu, self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        let [out, mean, rstd, inp] = [self.out, self.mean, self.rstd, self.inp].map(|act| s.view(act));
        let (dweight, dbias, weight) = (s.dparam(self.own.weight), s.dparam(self.own.bias), s.param(self.own.weight));
        let room = [("slope", 2), ("weight share", 1), ("bias share", 1)].map(|(what, times)| {
            let label = format!("{what} of {}", s.label(self.out));
            s.tensor(&label, Element::Word, times * mean.len)
        });
        let (out, room) = (self.relu.then_some(&out), room.each_ref());
        let dinp = s.share(self.inp);
        let (dims, saved) = (self.dims, [&mean, &rstd]);
        group_norm::backward(r, &dinp, &dweight, &dbias, room, &dout, out, &inp, &weight, saved[0], saved[1], dims)?;
        s.settle(r, self.inp, dinp)
    }

    fn scratch(&self) -> usize {
        group_norm::scratch_len(self.dims)
    }

    fn operation(&self) -> Option<Operation> {
        let &GroupNorm { own: GroupNormParams { weight, bias, groups, eps }, inp, out, relu, .. } = self;
        Some(Operation::GroupNorm { inp, out, weight, bias, groups, eps, relu })
    }
}
