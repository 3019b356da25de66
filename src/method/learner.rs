//! The inner problem: a model's weights, their gradient on a batch, and one optimiser step. Plain fine-tuning is this
//! and nothing more.

use std::collections::{HashMap, VecDeque};

use crate::data::Mixed;
use crate::error::{Error, Help, Result};
use crate::gpu::buffer::align;
use crate::gpu::readback::Readback;
use crate::gpu::{Gpu, Program, View, profile};
use crate::method::settings::{BatchNorm, Optimizer, Settings, WINDOW};
use crate::method::snapshot::Snapshot;
use crate::method::stage::{Group, Stage};
use crate::method::targets::Targets;
use crate::method::teacher::Teacher;
use crate::model::{Activations, Cut, Mode, Model, Part, Phase};
use crate::ops::cross_entropy::{self, CHANNELS, Channel};
use crate::ops::product::Product;
use crate::ops::step_state::STATE_WORDS;
use crate::ops::{Recorder, adamw, binary_cross_entropy, loss_scale, norm_clip, sgd};
use crate::shapes::ParamLayout;
use crate::shapes::Segment;
use ascent::Ascent;
use joined::Joined;

mod ascent;
mod features;
mod joined;
mod records;
mod step;
mod teacher;

/// Submissions that may be in flight: the host prepares the next batch while the adapter works, but never runs away.
pub(crate) const IN_FLIGHT: usize = 3;

/// Losses on their way back: the window's first step and its length, the copy, and one of the running statistics behind
/// the window, with their batches.
type Pending = VecDeque<(u64, u64, Readback<f32>, Option<(Readback<f32>, u64)>)>;

/// What a method does in every step, around the optimiser's update.
#[derive(Debug, Default)]
pub struct Around {
    /// When the gradient is complete, and neither clipped nor checked.
    pub before: Program,
    /// When the weights have been updated.
    pub after: Program,
}

/// Weights, gradient and optimiser state on the device, with the programs that train and evaluate them.
#[derive(Debug)]
pub struct Learner<'g> {
    /// The device.
    pub gpu: &'g Gpu,
    /// The model.
    pub model: Model,
    /// The weights θ.
    pub w: View,
    /// The running statistics, empty for a model without any.
    pub stats: View,
    /// Their gradient; scratch for whoever runs a backward pass.
    pub dw: View,
    /// The arena cut to what one binding allows.
    pub segments: Vec<Segment>,
    /// Optimiser state: momentum buffer, or both moments.
    pub moments: Vec<View>,
    /// Steps taken.
    pub steps: u64,
    /// Training batches that went into the running statistics.
    pub batches: u64,
    settings: Settings,
    stage: Stage,
    acts: Activations,
    scratch: View,
    state: View,
    /// Decides what is dropped at random.
    seed: u64,
    health: View,
    /// The scale of the loss's gradient, [`loss_scale::SCALE_WORDS`] words; in f16 alone.
    scale: Option<View>,
    ring: View,
    cast: Program,
    update: Program,
    around: Vec<Around>,
    /// What losses are held against, targets `[capacity, classes]` that follow from it, and the weights of positives; none for one
    /// class for each image, all weighing the same.
    weighted: Option<(Targets, View, Option<View>)>,
    teacher: Option<Teacher>,
    /// The second pass of each step, if there is one.
    ascent: Option<Ascent>,
    /// The ranks that it trains with, if there are others.
    joined: Option<Joined>,
    /// Where passes begin: at the images, or at what crosses this cut.
    cut: Option<Cut>,
    gradients: HashMap<(usize, usize), Program>,
    inference: HashMap<usize, Program>,
    requested: u64,
    pending: Pending,
    /// The running statistics of the last window that were finite, and their batches.
    sound: Option<(Vec<f32>, u64)>,
    in_flight: VecDeque<wgpu::SubmissionIndex>,
}

impl<'g> Learner<'g> {
    /// Bytes of what [`Learner::new`] allocates besides arenas and activations.
    pub(super) fn small_buffers(gpu: &Gpu, layout: &ParamLayout, settings: &Settings) -> Result<u64> {
        let segments = layout.segments(gpu.limits.max_storage_buffer_binding_size)?;
        let partials = norm_clip::partials_len(&segments);
        let lens = [STATE_WORDS, norm_clip::HEALTH_LEN, WINDOW * CHANNELS, partials];
        let scale = settings.half.map(|_| loss_scale::SCALE_WORDS);
        Ok(lens.iter().copied().chain(scale).map(|len| align(len) as u64 * 4).sum())
    }

    pub(super) fn plan(gpu: &Gpu, model: &Model, settings: &Settings) -> Result<Activations> {
        let mode = if settings.recompute { Mode::Recompute } else { Mode::Train };
        model.plan(gpu, settings.micro_batch, mode, settings.precision())
    }

    /// Allocates everything for `model` and uploads `start`.
    pub fn new(gpu: &'g Gpu, model: Model, start: &Snapshot, settings: Settings) -> Result<Learner<'g>> {
        let layout = model.layout();
        start.check(&model);
        let segments = layout.segments(gpu.limits.max_storage_buffer_binding_size)?;
        let (w, stats) = start.upload(gpu, &model)?;
        let dw = layout.arena(gpu, "gradient")?;
        let moments = (0..settings.optimizer.arenas())
            .map(|_| layout.arena(gpu, "optimizer state"))
            .collect::<Result<Vec<_>>>()?;
        let acts = Self::plan(gpu, &model, &settings)?.allocate(gpu)?;
        let scratch = acts.scratch();
        let mut learner = Learner {
            gpu,
            w,
            stats,
            dw,
            moments,
            steps: 0,
            batches: start.batches,
            settings,
            stage: Stage::whole(layout, &settings),
            scratch,
            acts,
            state: gpu.buffer("step state", STATE_WORDS)?,
            seed: 0,
            health: gpu.buffer("health", norm_clip::HEALTH_LEN)?,
            scale: settings.half.map(|by| gpu.upload("loss scale", &loss_scale::start(by.start))).transpose()?,
            ring: gpu.buffer("loss ring", WINDOW * CHANNELS)?,
            cast: Program::new(),
            update: Program::new(),
            around: Vec::new(),
            weighted: None,
            teacher: None,
            ascent: None,
            joined: None,
            cut: None,
            gradients: HashMap::new(),
            inference: HashMap::new(),
            requested: 0,
            pending: VecDeque::new(),
            sound: Some((start.stats.clone(), start.batches)),
            in_flight: VecDeque::new(),
            segments,
            model,
        };
        learner.cast = learner.record_cast(&learner.w)?;
        learner.update = learner.record_update()?;
        Ok(learner)
    }

    /// Trains as `stage` says from now on. Where it begins with the next step, the optimiser starts anew.
    pub fn begin(&mut self, stage: Stage) -> Result<()> {
        let tensors = self.model.layout().params.len();
        assert!(stage.rates.len() == tensors && stage.weight_decays.len() == tensors, "one rate and decay per tensor");
        if stage.since == self.steps {
            for moments in &self.moments {
                self.gpu.write(moments, &vec![0f32; moments.len]);
            }
            if let Some(scale) = &self.scale {
                // Adam's bias corrections, which f16 keeps there.
                let mut words = self.gpu.read::<u32>(scale)?;
                words[3..].fill(0);
                self.gpu.write(scale, &words);
            }
        }
        self.settings.batch_norm = stage.batch_norm;
        self.stage = stage;
        self.begin_at(None);
        self.cut_gradient();
        self.update = self.record_update()?;
        self.record_climb()
    }

    /// Does this as well in every step from now on.
    pub fn surround(&mut self, around: Around) {
        self.around.push(around);
    }

    /// Bytes that [`Learner::weigh`] allocates for passes of `micro_batch` images.
    pub fn target_bytes(targets: &Targets, micro_batch: usize) -> u64 {
        let positive = targets.positive().map_or(0, <[f32]>::len);
        (align(micro_batch * targets.classes()) + align(positive)) as u64 * 4
    }

    /// Holds the losses of all steps, and of radius batches, against this from now on: before anything is recorded.
    pub fn weigh(&mut self, targets: impl Into<Targets>) -> Result<()> {
        let targets = targets.into();
        assert_eq!(targets.classes(), self.model.classes(), "a weight for each class");
        assert!(self.gradients.is_empty(), "classes are weighed before the first step");
        let positive = targets.positive().map(|positive| self.gpu.upload("weights of positives", positive));
        let rows = self.gpu.buffer("targets", self.capacity() * self.model.classes())?;
        self.weighted = Some((targets, rows, positive.transpose()?));
        Ok(())
    }

    /// What its model drops at random follows from `seed`, from the step and from an image's place in its batch.
    pub fn randomize(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// What it is set to.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A recorder on this learner's device and scratch.
    pub fn recorder(&self) -> Recorder<'_> {
        Recorder::new(self.gpu, &self.scratch)
    }

    /// Images that fit a pass.
    pub fn capacity(&self) -> usize {
        self.acts.batch()
    }

    /// The copy of arena `w` that f16 products read: before [`Learner::record_gradient`] at `w`, whenever it has changed.
    pub fn record_cast(&self, w: &View) -> Result<Program> {
        let mut r = self.recorder();
        self.acts.cast_weights(&mut r, w)?;
        Ok(r.program)
    }

    /// Forward, loss and backward at arena `w` for `batch` images, recorded into `r`: adds to `dw`, and the mean over
    /// `of` images to `ring`'s `channel`. With a [loss scale](Learner::scale) `dw` is multiplied by it.
    pub fn record_gradient(
        &self,
        r: &mut Recorder,
        w: &View,
        ring: &View,
        state: &View,
        channel: Channel,
        batch: usize,
        of: usize,
    ) -> Result<()> {
        self.record_gradient_by(r, (w, &self.stats, ring), state, channel, batch, of)
    }

    /// As [`Learner::record_gradient`], with these running statistics.
    fn record_gradient_by(
        &self,
        r: &mut Recorder,
        (w, stats, ring): (&View, &View, &View),
        state: &View,
        channel: Channel,
        batch: usize,
        of: usize,
    ) -> Result<()> {
        let acts = &self.acts;
        let smoothing = self.smoothing(channel);
        let classes = self.model.classes();
        let phase = match (channel, self.settings.batch_norm) {
            (Channel::Train, BatchNorm::Train) => Phase::Train,
            (Channel::Train, BatchNorm::Frozen) => Phase::Frozen,
            _ => Phase::Eval,
        };
        let dims = cross_entropy::Dims { batch, classes, smoothing, grad_scale: 1.0 / of as f32 };
        let part = self.begins_at(channel).map_or(Part::Whole, Part::Behind);
        self.record_teacher(r, w, channel, batch)?;
        let recording = acts.forward_part(&self.model, r, batch, w, stats, phase, part)?;
        let (loss, dlogits, logits, labels) =
            (acts.loss(batch), acts.dlogits(batch), acts.logits(batch), acts.labels(batch));
        match (&self.weighted, &self.scale) {
            (Some((_, targets, Some(positive))), scale) => {
                let both = (&targets.first(batch * classes), positive);
                let dims = binary_cross_entropy::Dims { batch, classes, grad_scale: dims.grad_scale };
                binary_cross_entropy::forward(r, &loss, &dlogits, &logits, both, scale.as_ref(), dims)?;
            }
            (Some((_, targets, None)), scale) => {
                let targets = targets.first(batch * classes);
                cross_entropy::forward_targets(r, &loss, &dlogits, &logits, &targets, scale.as_ref(), dims)?;
            }
            (None, Some(scale)) => cross_entropy::forward_scaled(r, &loss, &dlogits, &logits, &labels, scale, dims)?,
            (None, None) => cross_entropy::forward(r, &loss, &dlogits, &logits, &labels, dims)?,
        }
        self.record_distance(r, &recording, &loss, channel, (batch, of))?;
        cross_entropy::record(r, ring, &loss, state, channel, dims)?;
        let trained = |tensor: usize| channel != Channel::Train || self.is_trained(tensor);
        recording.backward(r, &dlogits, &self.dw, &trained)
    }

    /// The products of its passes that nobody has measured on this adapter.
    pub fn untuned(&self) -> Result<Vec<Product>> {
        let mut r = self.recorder();
        let batch = self.capacity();
        self.record_gradient(&mut r, &self.w, &self.ring, &self.state, Channel::Train, batch, batch)?;
        Ok(r.untuned)
    }

    fn record_update(&self) -> Result<Program> {
        let layout = self.model.layout();
        let groups = self.stage.groups(layout, self.gpu.limits.max_storage_buffer_binding_size)?;
        let trained: Vec<Segment> = groups.iter().flat_map(|g| g.segments.iter().copied()).collect();
        let partials = self.gpu.buffer("gradient norm", norm_clip::partials_len(&trained))?;
        let mut r = self.recorder();
        let (state, health) = (&self.state, &self.health);
        let clip = self.settings.clip_norm;
        norm_clip::forward(&mut r, health, &self.ring, &self.dw, state, &partials, &trained, clip)?;
        if let (Some(scale), Some(by)) = (&self.scale, self.settings.half) {
            let betas = self.settings.optimizer.betas();
            let by = loss_scale::Settle { betas, max_norm: clip, interval: by.interval };
            loss_scale::settle(&mut r, scale, &self.ring, health, state, by)?;
        }
        for Group { rate, weight_decay, segments } in groups {
            match self.settings.optimizer {
                Optimizer::Sgd(hyper) => {
                    let (m, hyper) = (self.moments.first(), sgd::Sgd { weight_decay, ..hyper });
                    sgd::step_at(&mut r, &self.w, m, &self.dw, state, health, &segments, hyper, rate)?;
                }
                Optimizer::AdamW(hyper) => {
                    let [m, v] = [&self.moments[0], &self.moments[1]];
                    let hyper = adamw::AdamW { weight_decay, ..hyper };
                    adamw::step_at(&mut r, &self.w, m, v, &self.dw, state, health, &segments, hyper, rate)?;
                }
            }
        }
        Ok(r.program)
    }

    /// Label smoothing of a loss: radii are learned without it.
    fn smoothing(&self, channel: Channel) -> f32 {
        if channel == Channel::Train { self.settings.smoothing } else { 0.0 }
    }

    /// Writes a part of a batch to the device: its `images` `[part, 3, size, size]` and `labels` `[part]`, of `whole` `[batch]`, for the
    /// loss of `channel`. If the images are `mixed`, the loss is the mean, by their shares, of the losses for both labels; then classes
    /// have been [weighed](Learner::weigh), if only equally. `mixed` is of the whole batch, of which the part begins with image `first`.
    pub fn upload(
        &self,
        images: &[f32],
        labels: &[u32],
        whole: &[u32],
        mixed: Option<(&Mixed, usize)>,
        channel: Channel,
    ) {
        self.write_input(images, labels.len(), self.begins_at(channel));
        self.gpu.write(&self.acts.labels(labels.len()), labels);
        match &self.weighted {
            Some((own, targets, _)) => {
                self.gpu.write(targets, &own.mixed(labels, whole, mixed, self.smoothing(channel)));
            }
            None => assert!(mixed.is_none(), "mixed images need weights of the classes"),
        }
    }

    /// Whether images may have any number of labels, each told apart from the others.
    pub(super) fn has_labels(&self) -> bool {
        matches!(self.weighted, Some((Targets::Labels(_), ..)))
    }

    /// Errors where batch norm can't be trained on passes of `batch` images.
    pub fn check_batch(&self, batch: usize) -> Result<()> {
        let pixels = self.model.norm_pixels().unwrap_or(usize::MAX).saturating_mul(self.model.ranks());
        if self.settings.batch_norm == BatchNorm::Frozen || batch.saturating_mul(pixels) > 1 {
            return Ok(());
        }
        let what = "batch norm can't be trained on a batch of one image where a channel has one pixel";
        Err(Error::Usage(what.into()).with_help(Help::SingleImage))
    }

    /// Records the gradient on `batch` images, of so many in all, and the one up the slope if steps take it.
    fn prepare_gradient(&mut self, batch: usize, of: usize) -> Result<()> {
        self.check_batch(batch)?;
        if self.gradients.contains_key(&(batch, of)) {
            return Ok(());
        }
        let record = |at: (&View, &View, &View)| {
            let mut r = self.recorder();
            self.record_gradient_by(&mut r, at, &self.state, Channel::Train, batch, of)?;
            Ok(r.program)
        };
        let own = record((&self.w, &self.stats, &self.ring))?;
        let climbed = self.up_the_slope().map(record).transpose()?;
        self.gradients.insert((batch, of), own);
        if let (Some(ascent), Some(climbed)) = (&mut self.ascent, climbed) {
            ascent.gradients.insert((batch, of), climbed);
        }
        Ok(())
    }

    /// Notes a submission and waits for the one a few before it.
    pub fn submitted(&mut self, index: wgpu::SubmissionIndex) -> Result<()> {
        self.in_flight.push_back(index);
        if self.in_flight.len() > IN_FLIGHT {
            let oldest = self.in_flight.pop_front();
            let poll = wgpu::PollType::Wait { submission_index: oldest, timeout: None };
            self.gpu.device.poll(poll).map_err(|e| self.gpu.failed("waiting for the GPU", e))?;
        }
        self.gpu.check()
    }

    /// Takes other weights and running statistics.
    pub fn load(&mut self, values: &Snapshot) {
        values.check(&self.model);
        self.gpu.write(&self.w, &values.w);
        self.gpu.write(&self.stats, &values.stats);
        self.batches = values.batches;
    }

    /// Goes on as if `steps` steps had been taken, whose `batches` are in the running statistics; the caller has restored
    /// weights, statistics and moments.
    pub fn resume_at(&mut self, steps: u64, batches: u64) {
        (self.steps, self.batches) = (steps, batches);
        self.requested = steps;
    }

    /// What the device knows of the step at hand, [`STATE_WORDS`] words.
    pub fn state(&self) -> &View {
        &self.state
    }

    /// Runs `program`. Does not wait.
    pub fn submit(&mut self, program: &Program) -> Result<()> {
        let index = Program::run(self.gpu, &[], &[program])?;
        self.submitted(index)
    }

    /// The state of the loss scale, in f16 alone: what a run saves to go on from.
    pub fn scale(&self) -> Option<&View> {
        self.scale.as_ref()
    }

    /// Logits `[batch, classes]` of `images` `[batch, 3, size, size]`, at most [`Learner::capacity`] of them. Waits.
    pub fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        if !self.inference.contains_key(&batch) {
            let mut r = self.recorder();
            let part = self.cut.as_ref().map_or(Part::Whole, Part::Behind);
            let (model, phase) = (&self.model, Phase::Eval);
            self.acts.forward_part(model, &mut r, batch, &self.w, &self.stats, phase, part)?;
            let program = r.program;
            self.inference.insert(batch, program);
        }
        self.write_input(images, batch, self.cut.as_ref());
        Program::run(self.gpu, &[], &[&self.cast, &self.inference[&batch]])?;
        self.gpu.read(&self.acts.logits(batch))
    }

    /// The logits `[batch, classes]` of whatever pass of `batch` images ran last. Waits.
    pub fn last_logits(&self, batch: usize) -> Result<Vec<f32>> {
        self.gpu.read(&self.acts.logits(batch))
    }

    /// One step's dispatches timed one by one (`--trace`), on whatever batch was uploaded last. The step is taken.
    pub fn trace(&mut self, batch: usize) -> Result<Vec<profile::Timing>> {
        self.prepare_gradient(batch, batch)?;
        let mut timings = profile::trace(self.gpu, &[], &self.cast)?;
        timings.extend(profile::trace(self.gpu, &[&self.dw], &self.gradients[&(batch, batch)])?);
        if let Some(ascent) = &self.ascent {
            timings.extend(profile::trace(self.gpu, &[], &ascent.climb)?);
            timings.extend(profile::trace(self.gpu, &[&self.dw], &ascent.gradients[&(batch, batch)])?);
        }
        for program in self.updates() {
            timings.extend(profile::trace(self.gpu, &[], program)?);
        }
        Ok(timings)
    }
}
