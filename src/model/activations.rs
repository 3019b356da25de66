//! The memory of a network's passes at one batch size, planned from its tape before anything is allocated.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::{Gpu, View};
use crate::model::cut::Cut;
use crate::model::drops::Drops;
use crate::model::half_weights::HalfWeights;
use crate::model::plan::{Lifetimes, Plan, Planned};
use crate::model::precision::Precision;
use crate::model::recording::Recording;
use crate::model::store::{Arenas, Phase, Room, Store};
use crate::model::tape::{Network, RANDOM, Tape};
use crate::ops::Recorder;
use crate::ops::dropout::STATE_LEN;
use crate::shapes::ParamLayout;

/// What activations are planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything that backward needs is kept.
    Train,
    /// What enters each segment of the tape is kept, and the rest computed once more in backward: less memory, a longer step,
    /// the same bits.
    Recompute,
    /// Forward alone.
    Infer,
}

/// Which layers of a pass.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// All.
    Whole,
    /// Those from the images to a cut.
    Below(&'a Cut),
    /// Those from a cut to the end.
    Behind(&'a Cut),
}

const LABELS: &str = "labels";
const LOSS: &str = "loss";
const DLOGITS: &str = "gradient of logits";
const HALF: &str = "weights in f16";
const SCRATCH: &str = "partial sums";

/// Every activation of a network for batches of up to `batch` images, planned and then allocated.
#[derive(Clone, Debug)]
pub struct Activations {
    /// What they take; known before [`Activations::allocate`].
    pub plan: Plan,
    mode: Mode,
    precision: Precision,
    batch: usize,
    /// Elements of an image.
    image_len: usize,
    /// What else the host writes, by its label: how many numbers there are for each of the batch.
    numbers: Vec<(String, usize)>,
    classes: usize,
    layout: ParamLayout,
    statistics: ParamLayout,
    half: HalfWeights,
    scratch: usize,
    norm_pixels: Option<usize>,
    ranks: usize,
    drops: Drops,
    /// The tensors that are written once, by label.
    constants: Vec<(String, Vec<f32>)>,
    allocated: Option<Planned>,
}

impl Activations {
    /// Plans them; tensors whose lifetimes do not overlap share buffers.
    ///
    /// Errors where a kernel does not compile on `gpu`.
    pub fn plan(gpu: &Gpu, net: &dyn Network, batch: usize, mode: Mode, precision: Precision) -> Result<Activations> {
        let (mut acts, lifetimes) = Self::lay_out(gpu, net, batch, mode, precision)?;
        acts.plan.pack(&lifetimes);
        Ok(acts)
    }

    /// As [`Activations::plan`], with a buffer for each tensor: what tests compare with.
    pub fn apart(gpu: &Gpu, net: &dyn Network, batch: usize, mode: Mode, precision: Precision) -> Result<Activations> {
        Ok(Self::lay_out(gpu, net, batch, mode, precision)?.0)
    }

    fn lay_out(
        gpu: &Gpu,
        net: &dyn Network,
        batch: usize,
        mode: Mode,
        precision: Precision,
    ) -> Result<(Activations, Lifetimes)> {
        let (tape, out) = Tape::of(net, batch, precision);
        let layout = ParamLayout::new(&tape.params);
        let acts = Activations {
            plan: Plan::default(),
            mode,
            precision,
            batch,
            image_len: tape.images.map_or(0, |images| tape.shape(images).len() / batch),
            numbers: (tape.numbers.iter())
                .map(|act| (tape.values[act.0].label.clone(), tape.shape(*act).pixels()))
                .collect(),
            classes: tape.shape(out).len() / batch,
            half: HalfWeights::new(&layout, &tape.half),
            scratch: tape.scratch().max(1),
            statistics: ParamLayout::new(&tape.statistics),
            norm_pixels: tape.norm_pixels,
            ranks: tape.ranks,
            drops: tape.drops,
            constants: tape.constants,
            layout,
            allocated: None,
        };
        let (mut plan, mut placeholders) = (Plan::default(), Planned::default());
        let memory = gpu.buffer("placeholder", 1)?;
        let room = Room::Planning { plan: &mut plan, placeholders: &mut placeholders, memory };
        let touched = acts.play(gpu, net, batch, room)?;
        Ok((Activations { plan, ..acts }, placeholders.lifetimes(&touched)))
    }

    /// When each tensor lives in a pass of `batch` images, read off the very dispatches that forward and backward record.
    pub fn lifetimes(&self, gpu: &Gpu, net: &dyn Network, batch: usize) -> Result<Lifetimes> {
        let tensors = self.plan.placeholders(gpu)?;
        let touched = self.play(gpu, net, batch, Room::Planned { plan: &self.plan, tensors: &tensors })?;
        Ok(tensors.lifetimes(&touched))
    }

    /// Goes through a pass of `batch` images without recording it; returns which buffers each dispatch touches.
    fn play(&self, gpu: &Gpu, net: &dyn Network, batch: usize, mut room: Room) -> Result<Vec<Vec<u64>>> {
        let memory = gpu.buffer("placeholder", 1)?;
        let [w, dw] = [0; 2].map(|_| memory.placeholder(self.layout.len));
        let stats = memory.placeholder(self.statistics.len);
        let [_, _, dlogits] = [(LABELS, 1), (LOSS, 1), (DLOGITS, self.classes)]
            .map(|(label, len)| room.take(label, Element::Word, batch * len, true));
        let scratch = room.take(SCRATCH, Element::Word, self.scratch, true);
        let mut r = Recorder::planning(gpu, &scratch);
        // One value has no variance to train a batch norm with.
        let phase =
            if self.norm_pixels.is_some_and(|p| p * batch * self.ranks < 2) { Phase::Frozen } else { Phase::Train };
        let recording = self.record(net, &mut r, batch, room, &w, &stats, phase, Part::Whole)?;
        if self.mode != Mode::Infer {
            recording.backward(&mut r, &dlogits, &dw, &|_| true)?;
        }
        Ok(r.touched().to_vec())
    }

    fn record<'a>(
        &'a self,
        net: &dyn Network,
        r: &mut Recorder,
        batch: usize,
        mut room: Room<'a>,
        w: &View,
        stats: &View,
        phase: Phase,
        part: Part,
    ) -> Result<Recording<'a>> {
        let (mut tape, out) = Tape::of(net, batch, self.precision);
        let half = (self.half.len > 0).then(|| (&self.half, room.take(HALF, Element::Half, self.half.len, true)));
        let (layout, statistics) = (&self.layout, &self.statistics);
        let arenas = Arenas { layout, statistics, w: w.clone(), stats: stats.clone(), half };
        let store = Store::new(std::mem::take(&mut tape.values), room, arenas, phase);
        let layers = match part {
            Part::Whole => 0..tape.entries.len(),
            Part::Below(cut) => 0..cut.entry,
            Part::Behind(cut) => cut.entry..tape.entries.len(),
        };
        Recording::forward(tape, out, store, r, layers, self.mode == Mode::Recompute)
    }

    /// Records the forward pass of `net` over the first `batch` images with the weights in arena `w` and the running
    /// statistics in arena `stats`.
    pub fn forward<'a>(
        &'a self,
        net: &dyn Network,
        r: &mut Recorder,
        batch: usize,
        w: &View,
        stats: &View,
        phase: Phase,
    ) -> Result<Recording<'a>> {
        self.forward_part(net, r, batch, w, stats, phase, Part::Whole)
    }

    /// As [`Activations::forward`], for a part of the layers.
    pub fn forward_part<'a>(
        &'a self,
        net: &dyn Network,
        r: &mut Recorder,
        batch: usize,
        w: &View,
        stats: &View,
        phase: Phase,
        part: Part,
    ) -> Result<Recording<'a>> {
        assert!(batch > 0 && batch <= self.batch, "a batch of {batch}, activations are for {}", self.batch);
        let room = Room::Planned { plan: &self.plan, tensors: self.planned() };
        self.record(net, r, batch, room, w, stats, phase, part)
    }

    /// The cut below all parameters for which `trained` holds, by their places; none if passes have to begin with the images.
    pub fn cut(&self, net: &dyn Network, trained: &dyn Fn(usize) -> bool) -> Option<Cut> {
        let (tape, _) = Tape::of(net, self.batch, self.precision);
        let dropped = if self.mode == Mode::Recompute { tape.segments.saturating_sub(1) } else { 0 };
        Cut::below(&tape, dropped, trained)
    }

    /// What crosses `cut` in a pass over `batch` images: a view of the words of each value, `[batch, words of an image]`. It is there
    /// after [`Part::Below`], and what [`Part::Behind`] reads.
    pub fn crossing(&self, cut: &Cut, batch: usize) -> Vec<View> {
        cut.values.iter().map(|value| self.view(&value.label, batch * value.len).words()).collect()
    }

    /// Elements of each value that crosses `cut`, for one image.
    pub fn crossing_values(&self, cut: &Cut) -> Vec<usize> {
        cut.values.iter().map(|value| value.len).collect()
    }

    /// What crosses `cut` after a whole pass over `batch` images, value by value, as f32. Only of the last cut of a network that
    /// predicts: other values may have given their memory to later ones.
    ///
    /// # Errors
    /// A device that is lost.
    pub fn read_crossing(&self, gpu: &Gpu, cut: &Cut, batch: usize) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for (value, view) in cut.values.iter().zip(self.crossing(cut, batch)) {
            let words: Vec<f32> = gpu.read(&view)?;
            match value.words == value.len {
                true => all.extend(words),
                false => all.extend(words.iter().flat_map(|word| {
                    let [low, high] = [word.to_bits() as u16, (word.to_bits() >> 16) as u16];
                    [low, high].map(|bits| half::f16::from_bits(bits).to_f32())
                })),
            }
        }
        Ok(all)
    }

    /// Allocates them all, and writes what stays the same.
    pub fn allocate(mut self, gpu: &Gpu) -> Result<Activations> {
        self.allocated = Some(self.plan.allocate(gpu)?);
        for (label, values) in &self.constants {
            gpu.write(&self.view(label, values.len()), values);
        }
        Ok(self)
    }

    fn planned(&self) -> &Planned {
        self.allocated.as_ref().expect("activations are allocated before they are used")
    }

    fn view(&self, label: &str, len: usize) -> View {
        self.planned().view(self.plan.find(label), len)
    }

    /// Images `[batch, 3, size, size]`, normalised: what the host writes before a replay.
    pub fn images(&self, batch: usize) -> View {
        self.view("images", batch * self.image_len)
    }

    /// The [numbers](Tape::numbers) `name`, `[batch, count]` u32; none if the network reads none of that name.
    pub fn numbers(&self, name: &str, batch: usize) -> Option<View> {
        let (label, count) = self.numbers.iter().find(|(label, _)| label == name)?;
        Some(self.view(label, batch * count))
    }

    /// Where the random numbers of a training pass come from, a [`State`](crate::ops::dropout::State) that the host writes before it;
    /// none if the network drops nothing.
    pub fn random(&self) -> Option<View> {
        self.drops.any().then(|| self.view(RANDOM, STATE_LEN))
    }

    /// Labels `[batch]`, u32.
    pub fn labels(&self, batch: usize) -> View {
        self.view(LABELS, batch)
    }

    /// Logits `[batch, classes]`.
    pub fn logits(&self, batch: usize) -> View {
        self.view("logits", batch * self.classes)
    }

    /// Gradient of the logits, which the loss writes and backward starts from.
    pub fn dlogits(&self, batch: usize) -> View {
        self.view(DLOGITS, batch * self.classes)
    }

    /// Loss of each sample `[batch]`.
    pub fn loss(&self, batch: usize) -> View {
        self.view(LOSS, batch)
    }

    /// Whether [`Activations::cast_weights`] has anything to do.
    pub fn casts_weights(&self) -> bool {
        self.half.len > 0
    }

    /// In f16, copies the weights in arena `w` that products read: before the first [`Activations::forward`] with them, and
    /// whenever they have changed. The copy serves one set of weights at a time.
    pub fn cast_weights(&self, r: &mut Recorder, w: &View) -> Result<()> {
        match self.casts_weights() {
            true => self.half.cast(r, &self.view(HALF, self.half.len), &self.layout, w),
            false => Ok(()),
        }
    }

    /// Bytes of the weights' copy in another format, which are among the plan's.
    pub fn weight_bytes(&self) -> u64 {
        if self.casts_weights() { self.plan.tensor_bytes(self.plan.find(HALF)) } else { 0 }
    }

    /// Bytes of [`Activations::scratch`], which are among the plan's.
    pub fn scratch_bytes(&self) -> u64 {
        self.plan.tensor_bytes(self.plan.find(SCRATCH))
    }

    /// The largest batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Scratch for a [`Recorder`].
    pub fn scratch(&self) -> View {
        self.view(SCRATCH, self.scratch)
    }
}
