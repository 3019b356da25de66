//! Rows scaled to unit length.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Tape};
use crate::ops::{Recorder, l2_normalize};

#[derive(Debug)]
struct UnitLength {
    inp: Act,
    out: Act,
    /// The inverse norm of each row.
    scale: Act,
    rows: usize,
    cols: usize,
}

impl Tape {
    /// `inp`'s rows over their lengths.
    pub fn unit_length(&mut self, inp: Act, name: &str) -> Act {
        let shape = self.shape(inp);
        let (rows, cols) = (shape.rows(), shape.cols);
        let out = self.act(name, shape, Element::Word);
        let scale = self.saved(&format!("{name}.scale"), rows);
        self.push(UnitLength { inp, out, scale, rows, cols }, &[inp], &[], &[out, scale]);
        out
    }
}

impl Layer for UnitLength {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, scale, inp] = [self.out, self.scale, self.inp].map(|act| s.view(act));
        l2_normalize::forward(r, &out, &scale, &inp, self.rows, self.cols)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, out, scale) = (s.gradient(self.out), s.view(self.out), s.view(self.scale));
        s.assign(r, self.inp, |r, dinp| l2_normalize::backward(r, dinp, &dout, &out, &scale, self.rows, self.cols))
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::UnitLength { inp: self.inp, out: self.out })
    }
}
