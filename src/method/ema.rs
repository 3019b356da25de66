//! Exponential moving average of the weights (Polyak & Juditsky 1992), from the pre-trained ones on: after every step
//! `average ← decay · average + (1 − decay) · θ`. Running statistics are averaged along. It joins any method; the run goes on from
//! its own weights.

use clap::Args;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::flag::in_range;
use crate::gpu::{Program, View};
use crate::method::active::{Batches, Held};
use crate::method::saved::{Saved, read_f32};
use crate::method::settings::Settings;
use crate::method::snapshot::Snapshot;
use crate::method::stage::Stage;
use crate::method::{Anchor, Around, Learner, Method, MethodArgs, Started};
use crate::model::Model;
use crate::ops::lerp;

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// Decay per step of an exponential moving average of the weights, which is then evaluated and saved; with any
    /// method [default: no average; 0.99 with --method ema]
    #[arg(long, value_name = "DECAY")]
    pub ema_decay: Option<f64>,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "ema"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["ema-decay"]
    }

    fn joins(&self, args: &MethodArgs) -> bool {
        args.ema.ema_decay.is_some()
    }

    fn is_beside_steps(&self, _: &MethodArgs, _: &str) -> bool {
        true
    }

    fn check(&self, args: &MethodArgs) -> Result<()> {
        in_range("ema-decay", args.ema.ema_decay, |d| (0.0..1.0).contains(&d), "at least 0 and below 1")
    }

    fn validate(&self, args: &MethodArgs, _: &Settings) -> Result<()> {
        match args.solves() {
            true => Err(Error::Usage("--ema-decay does not go with --probe logistic, which takes no steps".into())),
            false => Ok(()),
        }
    }

    fn defaults(&self, _: f64) -> Table {
        toml::toml! { ema-decay = 0.99 }
    }

    fn notes(&self, args: &MethodArgs, _: &[Stage]) -> Vec<String> {
        let steps = args.ema.ema_decay.map(|decay| 1.0 / (1.0 - decay));
        let note =
            |steps| format!("the moving average of the weights, over about {steps:.0} steps, is evaluated and saved");
        steps.map(note).into_iter().collect()
    }

    fn bytes(&self, _: &MethodArgs, model: &Model) -> u64 {
        model.layout().arena_bytes() + model.buffers().arena_bytes()
    }

    fn start(&self, args: &MethodArgs, learner: &Learner, anchor: &Anchor) -> Result<Started> {
        let Some(decay) = args.ema.ema_decay else { return Ok(Started::default()) };
        Ok(Started::new(Around::default(), Ema::new(learner, anchor.values, decay)?))
    }
}

/// The averages, on the device.
#[derive(Debug)]
pub struct Ema {
    w: View,
    stats: View,
    update: Program,
}

impl Ema {
    /// Averages that start at `start`.
    pub fn new(learner: &Learner, start: &Snapshot, decay: f64) -> Result<Ema> {
        let (gpu, layout, buffers) = (learner.gpu, learner.model.layout(), learner.model.buffers());
        let (w, stats) = start.upload(gpu, &learner.model)?;
        let most = gpu.limits.max_storage_buffer_binding_size;
        let share = (1.0 - decay) as f32;
        let mut r = learner.recorder();
        lerp::forward(&mut r, &w, &learner.w, &layout.segments(most)?, share)?;
        lerp::forward(&mut r, &stats, &learner.stats, &buffers.segments(most)?, share)?;
        let update = r.program;
        Ok(Ema { w, stats, update })
    }
}

impl Held for Ema {
    /// Takes the weights as they are into the averages.
    fn after_step(&mut self, learner: &mut Learner, _: Batches) -> Result<()> {
        learner.submit(&self.update)
    }

    fn save(&self, learner: &Learner, saved: &mut Saved) -> Result<()> {
        saved.add_f32(learner.gpu, "average", &self.w)?;
        saved.add_f32(learner.gpu, "average_stats", &self.stats)
    }

    fn restore(&mut self, learner: &mut Learner, file: &Checkpoint, _: u64) -> Result<()> {
        read_f32(file, "average", learner.gpu, &self.w)?;
        read_f32(file, "average_stats", learner.gpu, &self.stats)
    }

    fn evaluated(&self, saved: &Saved, batches: u64) -> Option<Snapshot> {
        Some(Snapshot { w: saved.f32("average").into(), stats: saved.f32("average_stats").into(), batches })
    }
}
