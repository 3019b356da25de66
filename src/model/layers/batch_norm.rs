//! Batch norm over the pixels of all images, with the shortcut and the activation behind it in the same kernel.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::operation::{Normed, Operation};
use crate::model::store::{Phase, Store};
use crate::model::tape::{Act, Layer, ParamRef, Shape, Statistic, Tape};
use crate::model::value::Memory;
use crate::ops::batch_norm::Behind;
use crate::ops::{Recorder, batch_norm, relu};
use crate::shapes::Pointwise;

/// The parameters and running statistics of a batch norm, `[channels]` each.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormParams {
    /// Times.
    pub weight: ParamRef,
    /// Plus.
    pub bias: ParamRef,
    /// Of the mean.
    pub running_mean: Statistic,
    /// Of the variance.
    pub running_var: Statistic,
    /// Added to the variance.
    pub eps: f32,
    /// Weight of a batch in the running statistics.
    pub momentum: f32,
}

/// `out = activation(norm(inp))` or `relu(norm(inp) + shortcut)`, or less of it.
#[derive(Clone, Copy, Debug)]
struct Norm {
    own: BatchNormParams,
    inp: Act,
    out: Act,
    mean: Act,
    rstd: Act,
    shortcut: Option<Act>,
    activation: Option<Pointwise>,
    batch: usize,
    dims: batch_norm::Dims,
    ranks: usize,
}

/// The reverse of the norm in `relu(norm(inp) + shortcut)`, whose forward pass is [`Join`]'s.
#[derive(Debug)]
struct Branch(Norm);

#[derive(Debug)]
struct Join {
    norm: Norm,
    branch: Act,
    shortcut: Act,
}

impl Tape {
    /// Declares `name`'s parameters and statistics for this many channels.
    pub fn batch_norm_params(&mut self, name: &str, channels: usize, eps: f32, momentum: f32) -> BatchNormParams {
        let [weight, bias] = ["weight", "bias"].map(|what| self.param(&format!("{name}.{what}"), &[channels]));
        self.norms.extend([weight, bias].iter().flat_map(|param| param.places()));
        let [running_mean, running_var] =
            ["running_mean", "running_var"].map(|what| self.statistic(&format!("{name}.{what}"), channels));
        BatchNormParams { weight, bias, running_mean, running_var, eps, momentum }
    }

    /// `norm(inp)`, through a ReLU if `relu`.
    pub fn batch_norm(&mut self, inp: Act, name: &str, own: BatchNormParams, relu: bool) -> Act {
        self.batch_norm_then(inp, name, own, relu.then_some(Pointwise::Relu))
    }

    /// `norm(inp)`, through an activation if there is one: in the same kernel if that [fuses](batch_norm::fuses).
    pub fn batch_norm_then(
        &mut self,
        inp: Act,
        name: &str,
        own: BatchNormParams,
        activation: Option<Pointwise>,
    ) -> Act {
        let fused = activation.filter(|kind| batch_norm::fuses(*kind));
        let norm = self.norm(inp, name, own, fused, None);
        self.values[norm.out.0].masked = fused.is_none();
        self.push(norm, &[inp], &[own.weight, own.bias], &[norm.out, norm.mean, norm.rstd]);
        match activation.filter(|_| fused.is_none()) {
            Some(kind) => self.activation(norm.out, &format!("{name}.act"), kind),
            None => norm.out,
        }
    }

    /// `relu(norm(inp) + shortcut)`. In reverse the shortcut's gradient comes first, layers put [aside](Tape::aside) are
    /// [recalled](Tape::recall) then, and the norm's follows.
    pub fn batch_norm_onto(&mut self, shortcut: Act, inp: Act, name: &str, own: BatchNormParams) -> Act {
        let norm = self.norm(inp, name, own, Some(Pointwise::Relu), Some(shortcut));
        let branch = self.value(&format!("{name}.branch"), self.shape(norm.out), self.element_of(inp), Memory::None);
        self.values[branch.0].masked = true;
        self.push(
            Branch(Norm { out: branch, ..norm }),
            &[inp],
            &[own.weight, own.bias],
            &[branch, norm.mean, norm.rstd],
        );
        self.recall();
        self.push(Join { norm, branch, shortcut }, &[branch, shortcut], &[], &[norm.out]);
        norm.out
    }

    fn norm(
        &mut self,
        inp: Act,
        name: &str,
        own: BatchNormParams,
        activation: Option<Pointwise>,
        shortcut: Option<Act>,
    ) -> Norm {
        let shape = self.shape(inp);
        let fewest = self.norm_pixels.unwrap_or(usize::MAX);
        self.norm_pixels = Some(fewest.min(shape.pixels()));
        let dims = batch_norm::Dims { rows: shape.rows(), cols: shape.cols, eps: own.eps, momentum: own.momentum };
        let out = self.act(name, shape, self.element_of(inp));
        let row = Shape { batch: 1, ..shape.pooled(shape.cols) };
        let [mean, rstd] =
            ["mean", "rstd"].map(|what| self.value(&format!("{name}.{what}"), row, Element::Word, Memory::Held));
        Norm { own, inp, out, mean, rstd, shortcut, activation, batch: shape.batch, dims, ranks: self.ranks }
    }
}

impl Norm {
    fn mode(&self, s: &Store) -> batch_norm::Mode {
        match s.phase {
            Phase::Train if self.ranks > 1 => batch_norm::Mode::Shared(self.ranks),
            Phase::Train => batch_norm::Mode::Train,
            Phase::Frozen | Phase::Eval => batch_norm::Mode::Eval,
        }
    }

    /// From the gradient of its result, which counts where `mask` is positive.
    fn reverse(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let own = self.activation.filter(|_| self.shortcut.is_none());
        let (dout, out) = match own {
            Some(Pointwise::Relu) => (s.gradient(self.out), Some(s.view(self.out))),
            Some(_) => (s.gradient(self.out), None),
            None => s.masked_gradient(self.out),
        };
        let bias = s.param(self.own.bias);
        let behind = match (own, &out) {
            (_, Some(out)) => Behind::Relu(out),
            (Some(curve), None) => Behind::Curve(curve, &bias),
            (None, None) => Behind::Nothing,
        };
        let (dweight, dbias, weight) = (s.dparam(self.own.weight), s.dparam(self.own.bias), s.param(self.own.weight));
        let [inp, mean, rstd] = [self.inp, self.mean, self.rstd].map(|act| s.view(act));
        let dinp = s.share(self.inp);
        let mode = self.mode(s);
        batch_norm::backward(r, &dinp, &dweight, &dbias, &dout, behind, &inp, &weight, &mean, &rstd, mode, self.dims)?;
        s.settle(r, self.inp, dinp)
    }
}

impl Layer for Norm {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, mean, rstd, inp] = [self.out, self.mean, self.rstd, self.inp].map(|act| s.view(act));
        let (weight, bias) = (s.param(self.own.weight), s.param(self.own.bias));
        let (running_mean, running_var) = (s.statistic(self.own.running_mean), s.statistic(self.own.running_var));
        let shortcut = self.shortcut.map(|act| s.view(act));
        let stats =
            batch_norm::Stats { mean: &mean, rstd: &rstd, running_mean: &running_mean, running_var: &running_var };
        let (shortcut, activation) = (shortcut.as_ref(), self.activation);
        batch_norm::forward(r, &out, stats, &inp, &weight, &bias, shortcut, activation, self.mode(s), self.dims)
    }

    /// Normalises by the statistics that it had, and moves none.
    fn again(&self, s: &mut Store, r: &mut Recorder, leaves: bool) -> Result<()> {
        if leaves {
            return Ok(());
        }
        let [out, mean, rstd, inp] = [self.out, self.mean, self.rstd, self.inp].map(|act| s.view(act));
        let (weight, bias) = (s.param(self.own.weight), s.param(self.own.bias));
        let shortcut = self.shortcut.map(|act| s.view(act));
        let (shortcut, act) = (shortcut.as_ref(), self.activation);
        batch_norm::normalize(r, &out, &inp, &weight, &bias, &mean, &rstd, shortcut, act, self.mode(s), self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        self.reverse(s, r)
    }

    fn scratch(&self) -> usize {
        // A smaller batch may cut its sums into more pieces.
        let pixels = self.dims.rows / self.batch;
        (1..=self.batch).map(|b| batch_norm::scratch_len(b * pixels, self.dims.cols, self.ranks)).max().unwrap_or(0)
    }

    fn operation(&self) -> Option<Operation> {
        let &Norm { own, inp, out, shortcut, activation, .. } = self;
        let BatchNormParams { weight, bias, running_mean: mean, running_var: var, eps, .. } = own;
        let own = Normed { weight, bias, mean, var, eps };
        Some(Operation::BatchNorm { own, inp, out, shortcut, activation })
    }
}

impl Layer for Branch {
    fn forward(&self, _: &Store, _: &mut Recorder) -> Result<()> {
        Ok(())
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        self.0.reverse(s, r)
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Nothing)
    }
}

/// From the gradient of `out`, relu(branch + shortcut), to those of both.
pub(super) fn reverse_join(s: &mut Store, r: &mut Recorder, out: Act, branch: Act, shortcut: Act) -> Result<()> {
    let (dout, out) = (s.gradient(out), s.view(out));
    match s.takes_mask(shortcut) {
        true => s.lend_masked(shortcut, dout.clone(), out.clone()),
        false => s.add(r, shortcut, |r, dinp, accumulate| relu::backward(r, dinp, &dout, &out, accumulate))?,
    }
    s.lend_masked(branch, dout, out);
    Ok(())
}

impl Layer for Join {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        self.norm.forward(s, r)
    }

    fn again(&self, s: &mut Store, r: &mut Recorder, leaves: bool) -> Result<()> {
        self.norm.again(s, r, leaves)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        reverse_join(s, r, self.norm.out, self.branch, self.shortcut)
    }

    fn scratch(&self) -> usize {
        self.norm.scratch()
    }

    fn operation(&self) -> Option<Operation> {
        self.norm.operation()
    }
}
