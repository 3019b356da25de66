//! Multi-head self-attention over the tokens of an image.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Shape, Tape};
use crate::ops::{Recorder, attention};

#[derive(Debug)]
struct Attention {
    qkv: Act,
    out: Act,
    /// The logarithm of the softmax's sum, `[B, H, N]`.
    lse: Act,
    shape: Shape,
    heads: usize,
}

impl Tape {
    /// What the tokens attend to, `[B, N, D]`, from query, key and value `[B, N, 3D]`; `heads` divides `D`.
    pub fn attention(&mut self, qkv: Act, name: &str, heads: usize) -> Act {
        let shape = self.shape(qkv).with_cols(self.shape(qkv).cols / 3);
        let out = self.act(name, shape, self.element_of(qkv));
        let lse = self.saved(&format!("{name}.lse"), shape.rows() * heads);
        self.push(Attention { qkv, out, lse, shape, heads }, &[qkv], &[], &[out, lse]);
        out
    }
}

impl Attention {
    fn dims(&self) -> attention::Dims {
        let Shape { batch, height, cols, .. } = self.shape;
        attention::Dims { batch, tokens: height, heads: self.heads, head_dim: cols / self.heads }
    }
}

impl Layer for Attention {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        attention::forward(r, &s.view(self.out), &s.view(self.lse), &s.view(self.qkv), self.dims())
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        let [out, qkv, lse] = [self.out, self.qkv, self.lse].map(|act| s.view(act));
        let label = format!("gradient of {}", s.label(self.lse));
        let delta = s.tensor(&label, Element::Word, lse.len);
        s.assign(r, self.qkv, |r, dqkv| attention::backward(r, dqkv, &delta, &dout, &out, &qkv, &lse, self.dims()))
    }

    fn macs(&self) -> usize {
        2 * self.shape.height * self.shape.len()
    }
}
