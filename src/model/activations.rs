//! A model with its activations at one batch size: what every model has (images, logits, loss), and its own part.

use crate::error::Result;
use crate::gpu::{Gpu, View};
use crate::model::network::Model;
use crate::model::plan::{Lifetimes, Plan, Planned, Slot};
use crate::model::precision::Precision;
use crate::model::resnet::ResNetPass;
use crate::model::resnet_activations::ResNetSlots;
use crate::model::vit::VitPass;
use crate::model::vit_activations::VitSlots;
use crate::ops::Recorder;

/// What activations are planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything that backward needs is kept.
    Train,
    /// What enters each block is kept, and the rest computed once more in backward: less memory, a longer step, the same
    /// bits.
    Recompute,
    /// Forward alone.
    Infer,
}

/// Which statistics batch norm takes. A model without running statistics has no difference between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The batch's, which move the running ones.
    Train,
    /// The running ones, which stay as they are.
    Eval,
}

/// The slots of one model's own activations.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Vit(Box<VitSlots>),
    ResNet(Box<ResNetSlots>),
}

/// Every activation of a model for batches of up to `batch` images, planned and then allocated.
#[derive(Clone, Debug)]
pub struct Activations {
    /// What they take; known before [`Activations::allocate`].
    pub plan: Plan,
    mode: Mode,
    batch: usize,
    images: Slot,
    labels: Slot,
    logits: Slot,
    dlogits: Slot,
    loss: Slot,
    scratch: Slot,
    part: Part,
    allocated: Option<Planned>,
}

impl Activations {
    pub(super) fn plan(model: &Model, batch: usize, mode: Mode, precision: Precision) -> Activations {
        let mut plan = Plan::default();
        let (size, classes) = (model.image_size(), model.classes().max(1));
        let images = plan.keep("images", batch * 3 * size * size);
        let labels = plan.keep("labels", batch);
        let (part, scratch) = match model {
            Model::Vit(vit) => {
                let (slots, scratch) = VitSlots::plan(vit, &mut plan, batch, mode, precision);
                (Part::Vit(Box::new(slots)), scratch)
            }
            Model::ResNet(net) => {
                let (slots, scratch) = ResNetSlots::plan(net, &mut plan, batch, mode);
                (Part::ResNet(Box::new(slots)), scratch)
            }
        };
        Activations {
            mode,
            batch,
            images,
            labels,
            logits: plan.keep("logits", batch * classes),
            dlogits: plan.keep("gradient of the logits", batch * classes),
            loss: plan.keep("loss", batch),
            scratch: plan.keep("partial sums", scratch),
            part,
            plan,
            allocated: None,
        }
    }

    /// When each tensor lives in a pass of `batch` images, read off the very dispatches that forward and backward record.
    pub fn lifetimes(&self, gpu: &Gpu, model: &Model, batch: usize) -> Result<Lifetimes> {
        let planned = self.plan.placeholders(gpu)?;
        let images = planned.whole(self.images);
        let (layout, buffers) = (model.layout(), model.buffers());
        let [w, dw] = [0; 2].map(|_| images.placeholder(layout.len));
        let stats = images.placeholder(buffers.len);
        let scratch = planned.whole(self.scratch);
        let acts = Activations { allocated: Some(planned), ..self.clone() };
        let pass = Pass::new(model, &acts, batch);
        let mut r = Recorder::planning(gpu, &scratch);
        // One value has no variance to train a batch norm with.
        let phase = if model.norm_pixels().is_some_and(|p| p * batch < 2) { Phase::Eval } else { Phase::Train };
        pass.forward(&mut r, &w, &stats, phase)?;
        if self.mode != Mode::Infer {
            pass.backward(&mut r, &w, &stats, &dw, phase)?;
        }
        Ok(acts.planned().lifetimes(r.touched()))
    }

    /// Allocates them all.
    pub fn allocate(mut self, gpu: &Gpu) -> Result<Activations> {
        self.allocated = Some(self.plan.allocate(gpu)?);
        Ok(self)
    }

    fn planned(&self) -> &Planned {
        self.allocated.as_ref().expect("activations are allocated before they are used")
    }

    pub(super) fn view(&self, slot: Slot, len: usize) -> View {
        self.planned().view(slot, len)
    }

    /// Bytes of the weights' copy in another format, which are among the plan's.
    pub fn weight_bytes(&self) -> u64 {
        match &self.part {
            Part::Vit(slots) => slots.half_weights.as_ref().map_or(0, |half| self.plan.tensor_bytes(half.arena)),
            Part::ResNet(_) => 0,
        }
    }

    /// Bytes of [`Activations::scratch`], which are among the plan's.
    pub fn scratch_bytes(&self) -> u64 {
        self.plan.tensor_bytes(self.scratch)
    }

    /// The largest batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Scratch for a [`Recorder`].
    pub fn scratch(&self) -> View {
        self.planned().whole(self.scratch)
    }
}

/// A model with its activations at one batch size: what a program is recorded against.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    model: &'a Model,
    pub(super) acts: &'a Activations,
    pub(super) batch: usize,
    /// Blocks that backward leaves out, the stem with them; with 0 it leaves out nothing.
    pub(super) frozen_blocks: usize,
}

impl<'a> Pass<'a> {
    pub(super) fn new(model: &'a Model, acts: &'a Activations, batch: usize) -> Pass<'a> {
        assert!(batch > 0 && batch <= acts.batch, "a batch of {batch}, activations are for {}", acts.batch);
        Pass { model, acts, batch, frozen_blocks: 0 }
    }

    /// The same, whose backward stops above the first `frozen_blocks` blocks, if there are any: their gradients, and the
    /// stem's, are left as they are.
    pub fn above(self, frozen_blocks: usize) -> Pass<'a> {
        Pass { frozen_blocks, ..self }
    }

    /// Images `[batch, 3, size, size]`, normalised: what the host writes before a replay.
    pub fn images(&self) -> View {
        self.acts.view(self.acts.images, self.batch * 3 * self.model.image_size() * self.model.image_size())
    }

    /// Labels `[batch]`, u32.
    pub fn labels(&self) -> View {
        self.acts.view(self.acts.labels, self.batch)
    }

    /// Logits `[batch, classes]`.
    pub fn logits(&self) -> View {
        self.acts.view(self.acts.logits, self.batch * self.model.classes())
    }

    /// Gradient of the logits, which the loss writes and backward starts from.
    pub fn dlogits(&self) -> View {
        self.acts.view(self.acts.dlogits, self.batch * self.model.classes())
    }

    /// Loss of each sample `[batch]`.
    pub fn loss(&self) -> View {
        self.acts.view(self.acts.loss, self.batch)
    }

    /// Whether [`Pass::cast_weights`] has anything to do.
    pub fn casts_weights(&self) -> bool {
        self.acts.weight_bytes() > 0
    }

    /// In f16, copies the weights in arena `w` that products read: before the first [`Pass::forward`] with them, and whenever
    /// they have changed. The copy serves one set of weights at a time.
    pub fn cast_weights(&self, r: &mut Recorder, w: &View) -> Result<()> {
        match (self.model, &self.acts.part) {
            (Model::Vit(vit), Part::Vit(slots)) => VitPass::new(vit, *self, slots).cast_weights(r, w),
            _ => Ok(()),
        }
    }

    /// Images to logits with the weights in arena `w` and the running statistics in arena `stats`.
    pub fn forward(&self, r: &mut Recorder, w: &View, stats: &View, phase: Phase) -> Result<()> {
        match (self.model, &self.acts.part) {
            (Model::Vit(vit), Part::Vit(slots)) => VitPass::new(vit, *self, slots).forward(r, w),
            (Model::ResNet(net), Part::ResNet(slots)) => ResNetPass::new(net, *self, slots, w, stats, phase).forward(r),
            _ => unreachable!("activations of another model"),
        }
    }

    /// From [`Pass::dlogits`] to the gradient of every parameter that is not [frozen](Pass::above), added to arena `dw`. `w`, `stats` and `phase` are what
    /// forward ran with.
    pub fn backward(&self, r: &mut Recorder, w: &View, stats: &View, dw: &View, phase: Phase) -> Result<()> {
        match (self.model, &self.acts.part) {
            (Model::Vit(vit), Part::Vit(slots)) => VitPass::new(vit, *self, slots).backward(r, w, dw),
            (Model::ResNet(net), Part::ResNet(slots)) => {
                ResNetPass::new(net, *self, slots, w, stats, phase).backward(r, dw)
            }
            _ => unreachable!("activations of another model"),
        }
    }
}
