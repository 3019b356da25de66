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

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::align;
use crate::gpu::readback::Readback;
use crate::method::learner::{Around, Learner};
use crate::method::radius_record::RadiusRecord;
use crate::method::settings::WINDOW;
use crate::ops::ftp;
use crate::ops::mars::{LOG_WORDS, Mars, RADIUS_WORDS};
use crate::shapes::Norm;
use crate::shapes::ParamLayout;

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
    pub w_prev: View,
    tables: ftp::Ftp,
    log: View,
    requested: u64,
    pending: VecDeque<(u64, u64, Readback<u32>)>,
}

impl Ftp {
    /// Bytes on the device beyond the learner's and two arenas.
    pub fn tables(layout: &ParamLayout) -> u64 {
        Mars::bytes(layout, Norm::Mars) + align(WINDOW * layout.params.len() * LOG_WORDS) as u64 * 4
    }

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
        let ftp = Ftp { projected, w_prev, tables, log, requested: 0, pending: VecDeque::new() };
        Ok((ftp, Around { before: before.program, after: after.program }))
    }

    /// Rows of each tensor.
    pub fn rows(&self) -> &[usize] {
        &self.tables.mars.rows
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

    /// The radius state as words, for a run that resumes.
    pub fn save_radii(&self, learner: &Learner) -> Result<Vec<u32>> {
        learner.gpu.read(&self.tables.mars.radii)
    }

    /// Goes on after `steps` steps from what [`Ftp::save_radii`] gave, and `w_prev` of the same moment.
    ///
    /// The norms of the last step are measured again: they are not part of the state.
    pub fn restore(
        &mut self,
        learner: &mut Learner,
        radii: &[u32],
        w_prev: &[f32],
        anchor: &[f32],
        steps: u64,
    ) -> Result<()> {
        assert_eq!(radii.len(), self.tables.mars.tensors * RADIUS_WORDS, "radius state of another model");
        let gpu = learner.gpu;
        gpu.write(&self.tables.mars.radii, radii);
        gpu.write(&self.w_prev, w_prev);
        let w0 = learner.model.layout().arena(gpu, "anchor weights")?;
        gpu.write(&w0, anchor);
        let mut r = learner.recorder();
        self.tables.mars.measure(&mut r, &self.w_prev, &w0)?;
        learner.submit(&r.program)?;
        self.requested = steps;
        Ok(())
    }
}
