//! The mean of two values: of a distilled model's heads.

use crate::error::Result;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Tape};
use crate::ops::{Recorder, average};

#[derive(Debug)]
struct Average {
    inputs: [Act; 2],
    out: Act,
}

impl Tape {
    /// `(a + b) / 2`
    pub fn average(&mut self, a: Act, b: Act, name: &str) -> Act {
        let out = self.act(name, self.shape(a), self.element_of(a));
        self.push(Average { inputs: [a, b], out }, &[a, b], &[], &[out]);
        out
    }
}

impl Layer for Average {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [a, b] = self.inputs.map(|act| s.view(act));
        average::forward(r, &s.view(self.out), &a, &b)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        let label = format!("gradient of either half of {}", s.label(self.out));
        let half = s.tensor(&label, dout.element, dout.len);
        average::backward(r, &half, &dout)?;
        self.inputs.into_iter().try_for_each(|act| s.lend(r, act, half.clone()))
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Average { inputs: self.inputs, out: self.out })
    }
}
