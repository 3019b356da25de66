//! A branch that is added to a stream where no product ends in the sum.

use crate::error::Result;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Tape};
use crate::ops::{Recorder, residual, scratch_len};

#[derive(Debug)]
struct Add {
    stream: Act,
    branch: Act,
    gamma: Option<ParamRef>,
    out: Act,
    rows: usize,
    cols: usize,
}

impl Tape {
    /// `out = stream + gamma·branch`, which holds what both hold; without `gamma`, plainly the sum.
    pub fn add(&mut self, stream: Act, branch: Act, name: &str, gamma: Option<ParamRef>) -> Act {
        let shape = self.shape(stream);
        let out = self.act(name, shape, self.element_of(stream));
        let params: Vec<ParamRef> = gamma.into_iter().collect();
        let layer = Add { stream, branch, gamma, out, rows: shape.rows(), cols: shape.cols };
        self.push(layer, &[stream, branch], &params, &[out]);
        out
    }
}

impl Layer for Add {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, stream, branch] = [self.out, self.stream, self.branch].map(|act| s.view(act));
        residual::forward(r, &out, &stream, &branch, s.maybe(self.gamma).as_ref(), self.rows, self.cols)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, branch) = (s.gradient(self.out), self.branch);
        let Some(gamma) = self.gamma else {
            s.lend(r, branch, dout.clone())?;
            return s.lend(r, self.stream, dout);
        };
        if s.trains(gamma) {
            residual::backward_params(r, &s.dparam(gamma), &dout, &s.view(branch), self.rows, self.cols)?;
        }
        let weight = s.param(gamma);
        s.assign(r, branch, |r, dbranch| residual::backward_input(r, dbranch, &dout, &weight, self.rows, self.cols))?;
        s.pass_on(r, self.out, self.stream)
    }

    fn scratch(&self) -> usize {
        scratch_len(self.rows, self.cols)
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Add { stream: self.stream, branch: self.branch, gamma: self.gamma, out: self.out })
    }
}
