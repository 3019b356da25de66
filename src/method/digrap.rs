//! Directional gradient projection (Huang et al., *Directional gradient projection for robust fine-tuning of foundation models*, ICLR 2025):
//! where a tensor's gradient leads it away from θ₀, a share ω of what does is taken out. ω is learned from the training gradient, so that
//! no pass over validation data is needed.
//!
//! ```text
//! for each fine-tuning step t, per tensor (algorithm 1):
//!     before : g = ∂L/∂θ_t, d_t = θ_t − θ₀;   proj_t = ⟨g, d_t⟩/‖d_t‖² · d_t                        eq. 3
//!              ω = 0 at t = 1; else ∂ω = cos(g, proj_{t−1}), Adam step on ω, ω ← clamp(ω, 0, 1)     eq. 8
//!              g ← g − ω · proj_t where ⟨g, d_t⟩ < 0                                                eq. 4, 6, 7
//!     inner  : one optimiser step by g                                                              Learner::step
//! ```

use clap::Args;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::flag::positive;
use crate::gpu::View;
use crate::method::active::Held;
use crate::method::saved::{Saved, read_f32, read_u32};
use crate::method::{Anchor, Around, Learner, Method, MethodArgs, Started};
use crate::model::Model;
use crate::ops::digrap;

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// With digrap, Adam's learning rate on omega, the share that is taken out of what leads away from the pre-trained weights
    #[arg(long, value_name = "MU", default_value_t = 5e-2)]
    pub digrap_lr: f32,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "digrap"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["digrap-lr", "exclude"]
    }

    fn check(&self, args: &MethodArgs) -> Result<()> {
        positive("digrap-lr", args.digrap.digrap_lr > 0.0 && args.digrap.digrap_lr.is_finite())
    }

    fn defaults(&self, _: f64) -> Table {
        toml::toml! { weight-decay = 0.0 }
    }

    fn bytes(&self, _: &MethodArgs, model: &Model) -> u64 {
        2 * model.layout().arena_bytes() + digrap::Digrap::bytes(model.layout())
    }

    fn start(&self, args: &MethodArgs, learner: &Learner, anchor: &Anchor) -> Result<Started> {
        let (w0, w_prev) =
            (anchor.upload(learner)?, learner.model.layout().arena(learner.gpu, "weights of the last step")?);
        learner.gpu.write(&w_prev, &anchor.values.w);
        let tables = digrap::Digrap::new(learner.gpu, learner.model.layout(), anchor.excluded)?;
        let projected = (0..anchor.excluded.len()).filter(|t| !anchor.excluded[*t]).collect();
        let mut before = learner.recorder();
        let weights = (&learner.w, &w_prev, &w0);
        tables.step(&mut before, learner.state(), &learner.dw, weights, args.digrap.digrap_lr)?;
        Ok(Started::new(
            Around { before: before.program, ..Around::default() },
            Digrap { w_prev, _w0: w0, tables, projected },
        ))
    }
}

/// The shares of a run, and the weights of its last step.
#[derive(Debug)]
struct Digrap {
    w_prev: View,
    _w0: View,
    tables: digrap::Digrap,
    /// Layout indices of the tensors that have a share.
    projected: Vec<usize>,
}

impl Held for Digrap {
    fn shares(&self, learner: &Learner) -> Result<Vec<(usize, f32)>> {
        let shares = self.tables.shares(learner.gpu)?;
        Ok(self.projected.iter().map(|t| (*t, shares[*t])).collect())
    }

    fn save(&self, learner: &Learner, saved: &mut Saved) -> Result<()> {
        saved.add_u32(learner.gpu, "shares", &self.tables.mars.radii)?;
        saved.add_u32(learner.gpu, "pulls", &self.tables.pulls)?;
        saved.add_f32(learner.gpu, "w_prev", &self.w_prev)
    }

    fn restore(&mut self, learner: &mut Learner, file: &Checkpoint, _: u64) -> Result<()> {
        read_u32(file, "shares", learner.gpu, &self.tables.mars.radii)?;
        read_u32(file, "pulls", learner.gpu, &self.tables.pulls)?;
        read_f32(file, "w_prev", learner.gpu, &self.w_prev)
    }
}
