//! The outer problem of TPGM (Tian et al., CVPR 2023): per-tensor radii, learned on validation data, that bound how far
//! the weights may drift from the pre-trained ones.
//!
//! ```text
//! for each fine-tuning step i:
//!     inner : one optimiser step on θ with a training batch                     Learner::step
//!     outer : if i mod proj_freq == 0, max_iters times:                         Tpgm::outer
//!                 θ̃ = project(θ, γ);  L_val at θ̃;  ∂L_val/∂γ;  Adam step on γ
//!     apply : θ ← project(θ, γ)                                                 Tpgm::apply
//! ```
//!
//! With the `post` schedule θ is fixed while `max_iters` outer iterations run, and is projected once.

use std::collections::{HashMap, VecDeque};

use clap::Args;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::flag::{positive, word};
use crate::gpu::buffer::align;
use crate::gpu::readback::Readback;
use crate::gpu::{Program, View, profile};
use crate::method::active::{Batches, Held, Rest, Trace};
use crate::method::radius_record::{At, Learned, RadiusRecord};
use crate::method::saved::{Saved, read_u32};
use crate::method::settings::{Settings, WINDOW};
use crate::method::{Anchor, Around, Learner, Method, MethodArgs, Started};
use crate::model::Model;
use crate::ops::cross_entropy::{CHANNELS, Channel};
use crate::ops::loss_scale;
use crate::ops::mars::{LOG_WORDS, Mars};
use crate::ops::step_state::{STATE_WORDS, StepState};
use crate::shapes::Norm;
use crate::shapes::ParamLayout;

/// Images of a radius batch that is not made to follow the training batch.
const BATCH: usize = 64;

/// When radii are learned and applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The paper's ResNet recipe: a projection after every step.
    EveryStep,
    /// The paper's ViT recipe: once, after fine-tuning.
    Post,
}

/// Its flags, beside those that it shares.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// When radii are learned: every-step or post
    #[arg(long, default_value = "every-step", value_parser = word::<Schedule>)]
    pub schedule: Schedule,
    /// Steps between two radius updates
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub proj_freq: usize,
    /// Outer iterations of a radius update; 200 with --schedule post
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub max_iters: usize,
    /// Images of a radius batch [default: the batch size]
    #[arg(long, value_name = "N", default_value_t = BATCH, hide_default_value = true)]
    pub radius_batch_size: usize,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "tpgm"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["schedule", "norm", "proj-freq", "max-iters", "radius-lr", "radius-batch-size", "exclude"]
    }

    fn check(&self, args: &MethodArgs) -> Result<()> {
        positive("radius-batch-size", args.tpgm.radius_batch_size > 0)?;
        positive("proj-freq", args.tpgm.proj_freq > 0)?;
        positive("max-iters", args.tpgm.max_iters > 0)
    }

    fn validate(&self, args: &MethodArgs, _: &Settings) -> Result<()> {
        if args.tpgm.schedule == Schedule::Post && args.ema.ema_decay.is_some() {
            return Err(Error::Usage(
                "--ema-decay does not go with --schedule post, which projects the last weights: use every-step".into(),
            ));
        }
        Ok(())
    }

    fn following(&self, args: &MethodArgs, batch: usize) -> Table {
        let mut table = match args.tpgm.schedule {
            Schedule::EveryStep => Table::new(),
            Schedule::Post => toml::toml! {
                norm = "l2"
                max-iters = 200
            },
        };
        table.extend(i64::try_from(batch).map(|batch| ("radius-batch-size".to_string(), batch.into())));
        table
    }

    fn idle(&self, args: &MethodArgs, flag: &str) -> Option<&'static str> {
        (flag == "proj-freq" && args.tpgm.schedule == Schedule::Post).then_some("--schedule every-step")
    }

    fn is_beside_steps(&self, args: &MethodArgs, flag: &str) -> bool {
        args.tpgm.schedule == Schedule::Post && flag != "schedule"
    }

    fn val_batch(&self, args: &MethodArgs) -> Option<usize> {
        Some(args.tpgm.radius_batch_size)
    }

    fn bytes(&self, args: &MethodArgs, model: &Model) -> u64 {
        Tpgm::bytes(model.layout(), args.norm)
    }

    fn start(&self, args: &MethodArgs, learner: &Learner, anchor: &Anchor) -> Result<Started> {
        let Flags { schedule, proj_freq, max_iters, .. } = args.tpgm;
        let settings = TpgmSettings { norm: args.norm, radius_lr: args.radius_lr, max_iters, proj_freq };
        let tpgm = Tpgm::new(learner, &anchor.values.w, anchor.excluded, settings)?;
        Ok(Started::new(Around::default(), Tpgm { schedule, ..tpgm }))
    }
}

/// Hyperparameters of the outer problem.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TpgmSettings {
    /// How drift is measured.
    pub norm: Norm,
    /// Adam's learning rate on the radii.
    pub radius_lr: f32,
    /// Outer iterations at a step that has them.
    pub max_iters: usize,
    /// Every how many steps there are any.
    pub proj_freq: usize,
}

/// An outer iteration's figures.
#[derive(Clone, Debug, PartialEq)]
pub struct OuterRecord {
    /// Counted from 0, over the whole run.
    pub iteration: u64,
    /// Fine-tuning steps taken when it ran.
    pub step: u64,
    /// Mean validation loss at the projected weights.
    pub loss: f32,
    /// One for each projected tensor, in layout order.
    pub radii: Vec<RadiusRecord>,
}

/// The anchor, the projected weights and the radii.
#[derive(Debug)]
pub struct Tpgm {
    /// Row tables and radius state.
    pub mars: Mars,
    /// The anchor θ₀.
    pub w0: View,
    /// Layout indices of the tensors that have a radius.
    pub projected: Vec<usize>,
    /// Outer iterations run.
    pub iterations: u64,
    settings: TpgmSettings,
    schedule: Schedule,
    w_proj: View,
    ring: View,
    log: View,
    state: View,
    project: Program,
    cast: Program,
    /// The radius gradients, if several ranks add them up; else `learn` has them too.
    gradients: Program,
    learn: Program,
    apply: Program,
    losses: HashMap<(usize, usize), Program>,
    requested: u64,
    /// Iterations whose figures have been given.
    told: u64,
    /// The step that each iteration not yet read back belongs to.
    steps: VecDeque<u64>,
    pending: VecDeque<(u64, u64, Readback<f32>, Readback<u32>)>,
}

impl Tpgm {
    /// Bytes on the device, beyond the learner's.
    pub fn bytes(layout: &ParamLayout, norm: Norm) -> u64 {
        let small = [WINDOW * layout.params.len() * LOG_WORDS, STATE_WORDS, WINDOW * CHANNELS];
        2 * layout.arena_bytes()
            + Mars::bytes(layout, norm)
            + small.iter().map(|len| align(*len) as u64 * 4).sum::<u64>()
    }

    /// Radii for every tensor of `learner` but those `excluded` (a flag per tensor, in layout order), around `anchor`
    /// (an arena image).
    pub fn new(learner: &Learner, anchor: &[f32], excluded: &[bool], settings: TpgmSettings) -> Result<Tpgm> {
        let gpu = learner.gpu;
        let layout = learner.model.layout();
        assert_eq!(anchor.len(), layout.len, "the anchor is an image of the arena");
        let w0 = layout.arena(gpu, "anchor weights")?;
        gpu.write(&w0, anchor);
        let w_proj = layout.arena(gpu, "projected weights")?;
        let mars = Mars::new(gpu, layout, settings.norm, excluded)?;
        let log = gpu.buffer("radius log", WINDOW * mars.tensors * LOG_WORDS)?;
        let state = gpu.buffer("outer state", STATE_WORDS)?;

        let (w, dw) = (&learner.w, &learner.dw);
        let mut r = learner.recorder();
        mars.clip(&mut r, w, &w0, true)?;
        mars.project(&mut r, &w_proj, w, &w0)?;
        let project = r.program;
        let mut r = learner.recorder();
        let mut gradients = Program::new();
        if learner.ranks().is_some() {
            mars.gradients(&mut r, &log, &state, dw, w, &w0, learner.scale())?;
            gradients = std::mem::replace(&mut r, learner.recorder()).program;
            mars.learn(&mut r, &log, &state, settings.radius_lr)?;
        } else {
            mars.step_scaled(&mut r, &log, &state, dw, w, &w0, learner.scale(), settings.radius_lr)?;
        }
        if let Some(scale) = learner.scale() {
            loss_scale::observe(&mut r, scale, &log, &state, mars.tensors)?;
        }
        let learn = r.program;
        let mut r = learner.recorder();
        mars.clip(&mut r, w, &w0, false)?;
        mars.apply(&mut r, w, &w0)?;
        let apply = r.program;
        Ok(Tpgm {
            ring: gpu.buffer("radius loss ring", WINDOW * CHANNELS)?,
            cast: learner.record_cast(&w_proj)?,
            projected: (0..mars.tensors).filter(|t| !excluded[*t]).collect(),
            mars,
            w0,
            w_proj,
            log,
            state,
            project,
            gradients,
            learn,
            apply,
            settings,
            schedule: Schedule::EveryStep,
            iterations: 0,
            requested: 0,
            told: 0,
            losses: HashMap::new(),
            steps: VecDeque::new(),
            pending: VecDeque::new(),
        })
    }

    /// One outer iteration on a validation batch: images `[batch, 3, size, size]`, labels `[batch]`. If the learner has
    /// [others](Learner::join), the images are those of its own part. Does not wait, unless for others.
    pub fn outer(&mut self, learner: &mut Learner, images: &[f32], labels: &[u32]) -> Result<()> {
        let (of, micro, part) = (labels.len(), learner.capacity(), learner.part(labels.len()));
        assert!(of > 0, "a radius update on an empty batch");
        let per_image = images.len() / part.len().max(1);
        // Only its place in the ring and the log matters, and which micro-batch runs.
        let slot = (self.iterations % WINDOW as u64) as u32;
        let state = |micro: usize| StepState { slot, micro: micro as u32, ..StepState::default() }.words();
        for (i, start) in part.clone().step_by(micro).enumerate() {
            let own = start..part.end.min(start + micro);
            let key = (own.len(), of);
            if !self.losses.contains_key(&key) {
                let mut r = learner.recorder();
                let (w, ring) = (&self.w_proj, &self.ring);
                learner.record_gradient(&mut r, w, ring, &self.state, Channel::Radius, own.len(), of)?;
                self.losses.insert(key, r.program);
            }
            let at = (start - part.start) * per_image;
            let pixels = &images[at..at + own.len() * per_image];
            learner.upload(pixels, &labels[own.clone()], labels, None, Channel::Radius);
            learner.gpu.write(&self.state, &state(i));
            let mut programs = vec![&self.losses[&key]];
            if i == 0 {
                programs.splice(0..0, [&self.project, &self.cast]);
            }
            if own.end == part.end {
                programs.push(if learner.ranks().is_some() { &self.gradients } else { &self.learn });
            }
            let clear: &[&View] = if i == 0 { &[&learner.dw] } else { &[] };
            let index = Program::run(learner.gpu, clear, &programs)?;
            learner.submitted(index)?;
        }
        if learner.ranks().is_some() {
            if part.is_empty() {
                learner.gpu.write(&self.state, &state(0));
                let index = Program::run(learner.gpu, &[&learner.dw], &[&self.project, &self.gradients])?;
                learner.submitted(index)?;
            }
            self.add_up(learner, slot as usize, part.is_empty())?;
            learner.submit(&self.learn)?;
        }
        self.iterations += 1;
        self.steps.push_back(learner.steps);
        if self.iterations.is_multiple_of(WINDOW as u64) {
            self.request_records(learner);
        }
        Ok(())
    }

    /// Adds up over all ranks the radius gradients and the loss of the iteration in `slot`: a number for each tensor, in place of the
    /// gradient of the weights, from which they follow by sums alone. Waits.
    fn add_up(&self, learner: &Learner, slot: usize, is_empty: bool) -> Result<()> {
        let Some(ranks) = learner.ranks() else { return Ok(()) };
        let (gpu, tensors) = (learner.gpu, self.mars.tensors);
        let (mut log, mut ring): (Vec<f32>, Vec<f32>) = (gpu.read(&self.log)?, gpu.read(&self.ring)?);
        let loss = slot * CHANNELS + Channel::Radius as usize;
        // An entry's last word, LOG_WORDS behind that of the tensor before.
        let places: Vec<usize> =
            (slot * tensors + 1..=(slot + 1) * tensors).map(|entry| entry * LOG_WORDS - 1).collect();
        let mut own: Vec<f32> = places.iter().map(|place| log[*place]).collect();
        own.push(if is_empty { 0.0 } else { ring[loss] });
        let sums = ranks.sum(own)?;
        places.iter().zip(&sums).for_each(|(place, sum)| log[*place] = *sum);
        ring[loss] = sums[tensors];
        gpu.write(&self.log, &log);
        gpu.write(&self.ring, &ring);
        Ok(())
    }

    /// θ ← project(θ, γ).
    pub fn apply(&self, learner: &mut Learner) -> Result<()> {
        learner.submit(&self.apply)
    }

    /// Whether fine-tuning step `step` (counted from 0) learns its radii.
    pub fn is_due(&self, step: u64) -> bool {
        step.is_multiple_of(self.settings.proj_freq as u64)
    }

    /// Outer iterations at a step that is due, or after fine-tuning.
    pub fn max_iters(&self) -> usize {
        self.settings.max_iters
    }

    fn request_records(&mut self, learner: &Learner) {
        let count = self.iterations - self.requested;
        let (ring, log) = (learner.gpu.read_later(&self.ring), learner.gpu.read_later(&self.log));
        self.pending.push_back((self.requested, count, ring, log));
        self.requested = self.iterations;
    }

    /// The figures of iterations whose numbers have arrived since the last call; with `wait`, of all of them.
    pub fn records(&mut self, learner: &Learner, wait: bool) -> Result<Vec<OuterRecord>> {
        if wait && self.requested < self.iterations {
            self.request_records(learner);
        }
        let mut records = Vec::new();
        while let Some((first, count, ring, log)) = self.pending.front() {
            let gpu = learner.gpu;
            let Some(log) = (if wait { Some(log.wait(gpu)?) } else { log.poll(gpu)? }) else { break };
            // Copied before the log.
            let ring = ring.arriving(gpu)?;
            for iteration in *first..first + count {
                let slot = (iteration % WINDOW as u64) as usize;
                records.push(OuterRecord {
                    iteration,
                    step: self.steps.pop_front().expect("a step was noted for every iteration"),
                    loss: ring[slot * CHANNELS + Channel::Radius as usize],
                    radii: RadiusRecord::of_slot(&log, slot, self.mars.tensors, &self.projected),
                });
            }
            self.pending.pop_front();
        }
        self.told += records.len() as u64;
        Ok(records)
    }
}

impl Held for Tpgm {
    fn after_step(&mut self, learner: &mut Learner, next: Batches) -> Result<()> {
        if self.schedule == Schedule::Post {
            return Ok(());
        }
        if self.is_due(learner.steps - 1) {
            for _ in 0..self.settings.max_iters {
                let batch = next()?;
                self.outer(learner, &batch.images, &batch.labels)?;
            }
        }
        self.apply(learner)
    }

    /// A resumed run that has been through it is not projected again.
    fn rest(&self) -> Option<Rest> {
        let (done, of) = (self.iterations, self.settings.max_iters as u64);
        let left = self.schedule == Schedule::Post && done < of;
        left.then_some(Rest { done, of, what: "learning the radii at the fine-tuned weights" })
    }

    fn iterate(&mut self, learner: &mut Learner, next: Batches) -> Result<()> {
        let batch = next()?;
        self.outer(learner, &batch.images, &batch.labels)?;
        if self.rest().is_none() { self.apply(learner) } else { Ok(()) }
    }

    fn has_begun_rest(&self) -> bool {
        self.schedule == Schedule::Post && self.iterations > 0
    }

    fn taken(&self) -> u64 {
        self.iterations
    }

    fn radii(&self) -> Vec<(usize, usize)> {
        self.projected.iter().map(|t| (*t, self.mars.rows[*t])).collect()
    }

    fn learned(&mut self, learner: &Learner, wait: bool) -> Result<Vec<Learned>> {
        let post = self.schedule == Schedule::Post;
        // An outer iteration runs when its step has been counted already.
        let at = |r: &OuterRecord| if post { At::Iteration(r.iteration) } else { At::Step(r.step - 1) };
        let records = self.records(learner, wait)?.into_iter();
        Ok(records.map(|r| Learned { at: at(&r), loss: Some(r.loss), radii: r.radii }).collect())
    }

    fn is_told(&self, step: u64) -> bool {
        let TpgmSettings { max_iters, proj_freq, .. } = self.settings;
        self.schedule == Schedule::Post || self.told >= (step / proj_freq as u64 + 1) * max_iters as u64
    }

    fn recorded(&self, learner: &Learner) -> u64 {
        if self.schedule == Schedule::Post { self.iterations } else { learner.steps }
    }

    fn save(&self, learner: &Learner, saved: &mut Saved) -> Result<()> {
        saved.add_u32(learner.gpu, "radii", &self.mars.radii)
    }

    fn restore(&mut self, learner: &mut Learner, file: &Checkpoint, taken: u64) -> Result<()> {
        (self.iterations, self.requested, self.told) = (taken, taken, taken);
        read_u32(file, "radii", learner.gpu, &self.mars.radii)
    }

    /// Without the forward and backward pass of a radius update.
    fn trace(&self, learner: &Learner) -> Result<Vec<Trace>> {
        let mut timings = Vec::new();
        for program in [&self.project, &self.learn, &self.apply] {
            timings.extend(profile::trace(learner.gpu, &[], program)?);
        }
        Ok(vec![("norms, projection and radii, beside the pass of a radius batch", timings)])
    }
}
