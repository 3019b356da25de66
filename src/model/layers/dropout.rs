//! Random drops while a model is trained: values in front of the head, and images' branches of residual blocks.

use crate::error::Result;
use crate::model::store::{Phase, Store};
use crate::model::tape::{Act, Layer, Tape};
use crate::model::value::ParamRef;
use crate::ops::dropout::{Dims, Each};
use crate::ops::{Recorder, dropout};

use super::LinearParams;

#[derive(Debug)]
struct Drop {
    inp: Act,
    out: Act,
    random: Act,
    dims: Dims,
}

impl Tape {
    /// Writes the block at place `at` of all from 0 to `last`: what it drops, it drops with the share `at / last` of the rate.
    pub fn at_depth<T>(&mut self, at: usize, last: usize, write: impl FnOnce(&mut Tape) -> T) -> T {
        self.path = self.drops.path * at as f64 / last.max(1) as f64;
        let result = write(self);
        self.path = 0.0;
        result
    }

    /// Writes a part of a network whose blocks drop nothing.
    pub fn undropped<T>(&mut self, write: impl FnOnce(&mut Tape) -> T) -> T {
        let path = std::mem::take(&mut self.drops.path);
        let result = write(self);
        self.drops.path = path;
        result
    }

    /// Whether the block that is being written drops branches.
    pub fn drops_paths(&self) -> bool {
        self.path > 0.0
    }

    /// A block's branch, which is dropped for some of the images.
    pub fn drop_path(&mut self, branch: Act, name: &str) -> Act {
        self.dropped(branch, name, Each::Image, self.path)
    }

    /// What enters the head `name`, of which some values are dropped.
    pub fn head_dropout(&mut self, features: Act, name: &str) -> Act {
        self.enters_head(features);
        self.dropped(features, name, Each::Value, self.drops.head)
    }

    /// [`Tape::linear_onto`], with the branch dropped for some of the images if the block drops any.
    pub fn branch_onto(
        &mut self,
        stream: Act,
        inp: Act,
        name: &str,
        layer: LinearParams,
        gamma: Option<ParamRef>,
    ) -> Act {
        if !self.drops_paths() {
            return self.linear_onto(stream, inp, name, layer, gamma);
        }
        let branch = self.linear(inp, &format!("{name}.branch"), layer, self.element_of(stream));
        let branch = self.drop_path(branch, name);
        self.add(stream, branch, name, gamma)
    }

    fn dropped(&mut self, inp: Act, name: &str, each: Each, rate: f64) -> Act {
        if rate == 0.0 {
            return inp;
        }
        let (shape, random) = (self.shape(inp), self.random.expect("a tape with rates has random numbers"));
        let out = self.act(&format!("{name}.dropped"), shape, self.element_of(inp));
        let dims = Dims { batch: shape.batch, per: shape.pixels() * shape.cols, each, layer: self.drawn, rate };
        self.drawn += 1;
        self.push(Drop { inp, out, random, dims }, &[inp, random], &[], &[out]);
        out
    }
}

impl Drop {
    /// In evaluation everything is kept. It is the same dispatch, since the plan of the memory is that of a training pass.
    fn dims(&self, s: &Store) -> Dims {
        match s.phase {
            Phase::Train | Phase::Frozen => self.dims,
            Phase::Eval => Dims { rate: 0.0, ..self.dims },
        }
    }
}

impl Layer for Drop {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, inp, random] = [self.out, self.inp, self.random].map(|act| s.view(act));
        dropout::forward(r, &out, &inp, &random, self.dims(s))
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (dout, random, dims) = (s.gradient(self.out), s.view(self.random), self.dims(s));
        s.assign(r, self.inp, |r, dinp| dropout::backward(r, dinp, &dout, &random, dims))
    }
}
