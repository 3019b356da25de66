//! Images as convolutions read them: channels last, four to a pixel.

use crate::error::Result;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Shape, Tape};
use crate::ops::{Recorder, conv2d};

#[derive(Debug)]
struct Pixels {
    images: Act,
    out: Act,
    channels: usize,
    shape: Shape,
}

impl Tape {
    /// `[B, size, size, 4]` of the images, of which the first `channels` count and the others are zero.
    pub fn pixels(&mut self, images: Act, name: &str, channels: usize) -> Act {
        let shape = self.shape(images);
        // A convolution reads four channels faster than three.
        let out = self.act(name, shape.with_cols(4), self.element());
        self.push(Pixels { images, out, channels, shape }, &[images], &[], &[out]);
        out
    }
}

impl Layer for Pixels {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let Shape { batch, cols, .. } = self.shape;
        conv2d::to_nhwc(r, &s.view(self.out), &s.view(self.images), batch, [cols, self.channels], self.shape.pixels())
    }

    fn backward(&self, _: &mut Store, _: &mut Recorder) -> Result<()> {
        unreachable!("images want no gradient")
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Pixels { images: self.images, out: self.out })
    }
}
