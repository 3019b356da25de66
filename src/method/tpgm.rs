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

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::gpu::buffer::align;
use crate::gpu::readback::Readback;
use crate::gpu::{Program, View, profile};
use crate::method::learner::Learner;
use crate::method::radius_record::RadiusRecord;
use crate::method::settings::{STATE_WORDS, StepState, WINDOW};
use crate::ops::cross_entropy::{CHANNELS, Channel};
use crate::ops::loss_scale;
use crate::ops::mars::{LOG_WORDS, Mars, RADIUS_WORDS};
use crate::shapes::Norm;
use crate::shapes::ParamLayout;

/// When radii are learned and applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The paper's ResNet recipe: a projection after every step.
    EveryStep,
    /// The paper's ViT recipe: once, after fine-tuning.
    Post,
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
    w_proj: View,
    ring: View,
    log: View,
    state: View,
    project: Program,
    cast: Program,
    learn: Program,
    apply: Program,
    losses: HashMap<(usize, usize), Program>,
    requested: u64,
    /// The step that each iteration not yet read back belongs to.
    steps: VecDeque<u64>,
    pending: VecDeque<(u64, u64, Readback<f32>, Readback<u32>)>,
}

impl Tpgm {
    /// Bytes on the device beyond the learner's and two arenas.
    pub(super) fn tables(layout: &ParamLayout, norm: Norm) -> u64 {
        let small = [WINDOW * layout.params.len() * LOG_WORDS, STATE_WORDS, WINDOW * CHANNELS];
        Mars::bytes(layout, norm) + small.iter().map(|len| align(*len) as u64 * 4).sum::<u64>()
    }

    /// Radii for every tensor of `learner` but those `excluded` (a flag a tensor, in layout order), around `anchor` (an
    /// arena image).
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
        mars.step_scaled(&mut r, &log, &state, dw, w, &w0, learner.scale(), settings.radius_lr)?;
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
            learn,
            apply,
            settings,
            iterations: 0,
            requested: 0,
            losses: HashMap::new(),
            steps: VecDeque::new(),
            pending: VecDeque::new(),
        })
    }

    /// One outer iteration on a validation batch: images `[batch, 3, size, size]`, labels `[batch]`. Does not wait.
    pub fn outer(&mut self, learner: &mut Learner, images: &[f32], labels: &[u32]) -> Result<()> {
        let (of, micro) = (labels.len(), learner.capacity());
        assert!(of > 0, "a radius update on an empty batch");
        let per_image = images.len() / of;
        for (i, part) in labels.chunks(micro).enumerate() {
            let (first, key) = (i * micro, (part.len(), of));
            if !self.losses.contains_key(&key) {
                let mut r = learner.recorder();
                let (w, ring) = (&self.w_proj, &self.ring);
                learner.record_gradient(&mut r, w, ring, &self.state, Channel::Radius, part.len(), of)?;
                self.losses.insert(key, r.program);
            }
            learner.upload(&images[first * per_image..(first + part.len()) * per_image], part);
            learner.gpu.write(&self.state, &StepState::outer(self.iterations, i).words());
            let mut programs = vec![&self.losses[&key]];
            if i == 0 {
                programs.splice(0..0, [&self.project, &self.cast]);
            }
            if first + part.len() == of {
                programs.push(&self.learn);
            }
            let clear: &[&View] = if i == 0 { &[&learner.dw] } else { &[] };
            let index = Program::run(learner.gpu, clear, &programs)?;
            learner.submitted(index)?;
        }
        self.iterations += 1;
        self.steps.push_back(learner.steps);
        if self.iterations.is_multiple_of(WINDOW as u64) {
            self.request_records(learner);
        }
        Ok(())
    }

    /// θ ← project(θ, γ).
    pub fn apply(&self, learner: &mut Learner) -> Result<()> {
        learner.submit(&self.apply)
    }

    /// The dispatches that a radius update adds to its forward and backward pass, and those of a projection, timed one by
    /// one (`--trace`). Both are done.
    pub fn trace(&self, learner: &Learner) -> Result<Vec<profile::Timing>> {
        let mut timings = profile::trace(learner.gpu, &[], &self.project)?;
        timings.extend(profile::trace(learner.gpu, &[], &self.learn)?);
        timings.extend(profile::trace(learner.gpu, &[], &self.apply)?);
        Ok(timings)
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
            let ring = ring.poll(gpu)?.expect("the ring was copied before the log, so it has arrived too");
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
        Ok(records)
    }

    /// The radius state as words, for a run that resumes.
    pub fn save_radii(&self, learner: &Learner) -> Result<Vec<u32>> {
        learner.gpu.read(&self.mars.radii)
    }

    /// Goes on from `words` of [`Tpgm::save_radii`] after `iterations` outer iterations.
    pub fn restore_radii(&mut self, learner: &Learner, words: &[u32], iterations: u64) {
        assert_eq!(words.len(), self.mars.tensors * RADIUS_WORDS, "radius state of another model");
        learner.gpu.write(&self.mars.radii, words);
        self.iterations = iterations;
        self.requested = iterations;
    }
}
