//! Gates of channels, with the shortcut and the ReLU behind them in the same kernel.

use crate::error::Result;
use crate::gpu::View;
use crate::model::layers::batch_norm::reverse_join;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, Tape};
use crate::model::value::Memory;
use crate::ops::gate::{Dims, Kind};
use crate::ops::{Recorder, gate};

#[derive(Debug)]
struct Gate {
    inp: Act,
    scale: Act,
    out: Act,
    kind: Kind,
    dims: Dims,
}

/// The reverse of the gate in `relu(inp·σ(scale) + shortcut)`, whose forward pass is [`Join`]'s.
#[derive(Debug)]
struct Branch {
    inp: Act,
    scale: Act,
    branch: Act,
    kind: Kind,
    dims: Dims,
}

#[derive(Debug)]
struct Join {
    inp: Act,
    scale: Act,
    shortcut: Act,
    branch: Act,
    out: Act,
    kind: Kind,
    dims: Dims,
}

impl Tape {
    /// `inp·σ(scale)`, σ as `kind` says, with a `scale` for each channel of each image, in f32.
    pub fn gate(&mut self, inp: Act, scale: Act, name: &str, kind: Kind) -> Act {
        let shape = self.shape(inp);
        let dims = Dims { batch: shape.batch, rows: shape.pixels(), cols: shape.cols };
        let out = self.act(name, shape, self.element_of(inp));
        self.push(Gate { inp, scale, out, kind, dims }, &[inp, scale], &[], &[out]);
        out
    }

    /// `relu(inp·σ(scale) + shortcut)` with a `scale` for each channel of each image, in f32. In reverse the shortcut's gradient comes
    /// first, layers put [aside](Tape::aside) are [recalled](Tape::recall) then, and the gate's follows.
    pub fn gate_onto(&mut self, shortcut: Act, inp: Act, scale: Act, name: &str) -> Act {
        let (shape, element) = (self.shape(inp), self.element_of(inp));
        let dims = Dims { batch: shape.batch, rows: shape.pixels(), cols: shape.cols };
        let out = self.act(name, shape, element);
        let branch = self.value(&format!("{name}.branch"), shape, element, Memory::None);
        self.values[branch.0].masked = true;
        let kind = Kind::Sigmoid;
        self.push(Branch { inp, scale, branch, kind, dims }, &[inp, scale], &[], &[branch]);
        self.recall();
        self.push(Join { inp, scale, shortcut, branch, out, kind, dims }, &[branch, shortcut], &[], &[out]);
        out
    }
}

/// Writes the gradients of both, from that of the gate's result, which counts where `mask` is positive.
fn reverse(
    s: &mut Store,
    r: &mut Recorder,
    [inp, scale]: [Act; 2],
    (dout, mask): (View, Option<View>),
    kind: Kind,
    dims: Dims,
) -> Result<()> {
    let [x, by] = [inp, scale].map(|act| s.view(act));
    let [dinp, dscale] = [inp, scale].map(|act| s.share(act));
    gate::backward(r, &dinp, &dscale, &dout, mask.as_ref(), &x, &by, kind, dims)?;
    s.settle(r, inp, dinp)?;
    s.settle(r, scale, dscale)
}

impl Layer for Gate {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, inp, scale] = [self.out, self.inp, self.scale].map(|act| s.view(act));
        gate::forward(r, &out, &inp, &scale, None, false, self.kind, self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        reverse(s, r, [self.inp, self.scale], (dout, None), self.kind, self.dims)
    }

    fn scratch(&self) -> usize {
        gate::scratch_len(self.dims)
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Gate { inp: self.inp, scale: self.scale, out: self.out, kind: self.kind, shortcut: None })
    }
}

impl Layer for Branch {
    fn forward(&self, _: &Store, _: &mut Recorder) -> Result<()> {
        Ok(())
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let gradient = s.masked_gradient(self.branch);
        reverse(s, r, [self.inp, self.scale], gradient, self.kind, self.dims)
    }

    fn scratch(&self) -> usize {
        gate::scratch_len(self.dims)
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Nothing)
    }
}

impl Layer for Join {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, inp, scale, shortcut] = [self.out, self.inp, self.scale, self.shortcut].map(|act| s.view(act));
        gate::forward(r, &out, &inp, &scale, Some(&shortcut), true, self.kind, self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        reverse_join(s, r, self.out, self.branch, self.shortcut)
    }

    fn operation(&self) -> Option<Operation> {
        let &Join { inp, scale, out, kind, shortcut, .. } = self;
        Some(Operation::Gate { inp, scale, out, kind, shortcut: Some(shortcut) })
    }
}
