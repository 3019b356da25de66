//! Fast trainable projection (Tian et al., NeurIPS 2023): TPGM's radii, learned from the training gradient of the step at
//! hand and the drift of the one before, so that no pass over validation data is needed.
//!
//! ```text
//! for each fine-tuning step t:
//!     before : γ = 1e-8 at t = 1; else ∂γ = Σ_r ⟨g_t, c_{t−1}⟩ / n_{t−1}, times k where positive; Adam step on γ
//!     inner  : c_t = (one optimiser step) − θ₀                                  Learner::step
//!     after  : γ ← clamp(γ, 1e-8, max n_t);   θ ← θ₀ + clamp(γ/n_t, 0, 1) · c_t
//! ```

use std::collections::VecDeque;

use clap::Args;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::flag::in_range;
use crate::gpu::View;
use crate::gpu::buffer::align;
use crate::gpu::readback::Readback;
use crate::method::active::{Batches, Held};
use crate::method::radius_record::{At, Learned, RadiusRecord};
use crate::method::saved::{Saved, read_f32, read_u32};
use crate::method::settings::WINDOW;
use crate::method::{Anchor, Around, Learner, Method, MethodArgs, Started};
use crate::model::Model;
use crate::ops::ftp;
use crate::ops::mars::{LOG_WORDS, Mars};
use crate::shapes::Norm;

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// With ftp, the factor on the gradient of a radius that is about to shrink, 0 to 1
    #[arg(long, value_name = "K", default_value_t = 1.0)]
    pub ftp_k: f32,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "ftp"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["ftp-k", "radius-lr", "exclude"]
    }

    fn check(&self, args: &MethodArgs) -> Result<()> {
        in_range("ftp-k", args.ftp.ftp_k, |k| (0.0..=1.0).contains(&k), "0 to 1")
    }

    fn defaults(&self, _: f64) -> Table {
        toml::toml! { weight-decay = 0.0 }
    }

    fn bytes(&self, _: &MethodArgs, model: &Model) -> u64 {
        let layout = model.layout();
        let log = align(WINDOW * layout.params.len() * LOG_WORDS) as u64 * 4;
        2 * layout.arena_bytes() + Mars::bytes(layout, Norm::Mars) + log
    }

    fn start(&self, args: &MethodArgs, learner: &Learner, anchor: &Anchor) -> Result<Started> {
        let settings = FtpSettings { radius_lr: args.radius_lr, k: args.ftp.ftp_k };
        let (ftp, around) = Ftp::new(learner, &anchor.values.w, anchor.excluded, settings)?;
        Ok(Started::new(around, ftp))
    }
}

/// Hyperparameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FtpSettings {
    /// Adam's learning rate on the radii.
    pub radius_lr: f32,
    /// What a positive gradient, which makes a radius smaller, is multiplied by: 1 at most, 0 lets radii only grow.
    pub k: f32,
}

/// The radii of a run, and the weights before their last projection.
#[derive(Debug)]
pub struct Ftp {
    /// Layout indices of the tensors that have a radius.
    pub projected: Vec<usize>,
    /// Weights as the optimiser left them, before their last projection.
    w_prev: View,
    w0: View,
    tables: ftp::Ftp,
    log: View,
    requested: u64,
    pending: VecDeque<(u64, u64, Readback<u32>)>,
}

impl Ftp {
    /// Radii for every tensor of `learner` but those `excluded`, around `anchor` (an arena image), and what
    /// [`Learner::surround`] takes.
    pub fn new(learner: &Learner, anchor: &[f32], excluded: &[bool], settings: FtpSettings) -> Result<(Ftp, Around)> {
        let (gpu, layout) = (learner.gpu, learner.model.layout());
        let w0 = layout.arena(gpu, "anchor weights")?;
        gpu.write(&w0, anchor);
        let w_prev = layout.arena(gpu, "weights before their projection")?;
        gpu.write(&w_prev, anchor);
        let tables = ftp::Ftp::new(gpu, layout, excluded)?;
        let log = gpu.buffer("radius log", WINDOW * layout.params.len() * LOG_WORDS)?;
        let (state, scale) = (learner.state(), learner.scale());
        let mut before = learner.recorder();
        let FtpSettings { radius_lr, k } = settings;
        tables.learn(&mut before, &log, state, &learner.dw, &w_prev, &w0, scale, radius_lr, k)?;
        let mut after = learner.recorder();
        tables.apply(&mut after, &learner.w, &w_prev, &w0)?;
        let projected = (0..layout.params.len()).filter(|t| !excluded[*t]).collect();
        let ftp = Ftp { projected, w_prev, w0, tables, log, requested: 0, pending: VecDeque::new() };
        Ok((ftp, Around { before: before.program, after: after.program }))
    }

    /// To be called after each step: has the log copied before it is written over.
    pub fn note_step(&mut self, learner: &Learner) {
        if learner.steps.is_multiple_of(WINDOW as u64) {
            self.request(learner);
        }
    }

    fn request(&mut self, learner: &Learner) {
        let count = learner.steps - self.requested;
        self.pending.push_back((self.requested, count, learner.gpu.read_later(&self.log)));
        self.requested = learner.steps;
    }

    /// The radii of the steps whose numbers have arrived since the last call, by step; with `wait`, of all of them.
    pub fn records(&mut self, learner: &Learner, wait: bool) -> Result<Vec<(u64, Vec<RadiusRecord>)>> {
        if wait && self.requested < learner.steps {
            self.request(learner);
        }
        let mut records = Vec::new();
        let tensors = self.tables.mars.tensors;
        while let Some((first, count, copy)) = self.pending.front() {
            let Some(log) = (if wait { Some(copy.wait(learner.gpu)?) } else { copy.poll(learner.gpu)? }) else { break };
            records.extend((*first..first + count).map(|step| {
                let slot = (step % WINDOW as u64) as usize;
                (step, RadiusRecord::of_slot(&log, slot, tensors, &self.projected))
            }));
            self.pending.pop_front();
        }
        Ok(records)
    }
}

impl Held for Ftp {
    fn after_step(&mut self, learner: &mut Learner, _: Batches) -> Result<()> {
        self.note_step(learner);
        Ok(())
    }

    fn radii(&self) -> Vec<(usize, usize)> {
        self.projected.iter().map(|t| (*t, self.tables.mars.rows[*t])).collect()
    }

    fn learned(&mut self, learner: &Learner, wait: bool) -> Result<Vec<Learned>> {
        let records = self.records(learner, wait)?.into_iter();
        Ok(records.map(|(step, radii)| Learned { at: At::Step(step), loss: None, radii }).collect())
    }

    fn save(&self, learner: &Learner, saved: &mut Saved) -> Result<()> {
        saved.add_u32(learner.gpu, "radii", &self.tables.mars.radii)?;
        saved.add_f32(learner.gpu, "w_prev", &self.w_prev)
    }

    /// The norms of the last step are measured again: they are not part of the state.
    fn restore(&mut self, learner: &mut Learner, file: &Checkpoint, _: u64) -> Result<()> {
        read_u32(file, "radii", learner.gpu, &self.tables.mars.radii)?;
        read_f32(file, "w_prev", learner.gpu, &self.w_prev)?;
        let mut r = learner.recorder();
        self.tables.mars.measure(&mut r, &self.w_prev, &self.w0)?;
        let program = r.program;
        self.requested = learner.steps;
        learner.submit(&program)
    }
}
