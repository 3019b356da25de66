//! The sum of an image's splits, weighed by a softmax over them.

use crate::error::Result;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Tape};
use crate::ops::split_attention::Dims;
use crate::ops::{Recorder, split_attention};

#[derive(Debug)]
struct SplitAttention {
    inp: Act,
    logits: Act,
    out: Act,
    /// `[B, radix, C]`
    prob: Act,
    dims: Dims,
}

impl Tape {
    /// `inp` `[B, H, W, radix·C]` to `[B, H, W, C]`: the sum of its splits, weighed by the softmax of `logits` `[B, radix·C]` in f32, which
    /// are stored by `groups` of channels.
    pub fn split_attention(&mut self, inp: Act, logits: Act, name: &str, radix: usize, groups: usize) -> Act {
        let shape = self.shape(inp);
        let (batch, pixels, channels) = (shape.batch, shape.pixels(), shape.cols / radix);
        let dims = Dims { batch, pixels, channels, radix, groups };
        let out = self.act(name, shape.with_cols(channels), self.element_of(inp));
        let prob = self.saved(&format!("{name}.prob"), dims.weights_len());
        self.push(SplitAttention { inp, logits, out, prob, dims }, &[inp, logits], &[], &[out, prob]);
        out
    }
}

impl Layer for SplitAttention {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, prob, inp, logits] = [self.out, self.prob, self.inp, self.logits].map(|act| s.view(act));
        split_attention::forward(r, &out, &prob, &inp, &logits, self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let inputs = [self.inp, self.logits];
        let [dinp, dlogits] = inputs.map(|act| s.share(act));
        let (dout, inp, prob) = (s.gradient(self.out), s.view(self.inp), s.view(self.prob));
        split_attention::backward(r, &dinp, &dlogits, &dout, &inp, &prob, self.dims)?;
        inputs.into_iter().zip([dinp, dlogits]).try_for_each(|(act, view)| s.settle(r, act, view))
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::SplitAttention { inp: self.inp, logits: self.logits, out: self.out, dims: self.dims })
    }
}
