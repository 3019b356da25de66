//! Sharpness-aware minimisation (Foret et al., ICLR 2021): a step's gradient is taken where the loss is highest near θ, to first order at
//! `θ + ρ·g/‖g‖` (eq. 2), g being the gradient of the loss at θ. It joins any method that takes steps: the second gradient is what methods
//! and optimiser see.
//!
//! ```text
//! for each step:
//!     first  : g = ∂L/∂θ; the loss that is recorded; batch norm's running statistics move
//!     climb  : θ' = θ + ρ·g/(‖g‖ + 1e-12), the norm being over all that is trained
//!     second : g' = ∂L/∂θ', on the same images; running statistics stay
//!     update : of θ by g'
//! ```

use clap::Args;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::error::{Error, Result};
use crate::flag::in_range;
use crate::method::settings::Settings;
use crate::method::stage::Stage;
use crate::method::{Anchor, Learner, Method, MethodArgs};
use crate::model::Model;

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// Take each step's gradient this far up the slope of the loss (SAM): a step then takes two passes, and twice the time; with any method
    /// that takes steps, but not with LoRA [default: at the weights; 0.05 with --method sam]
    #[arg(long, value_name = "RHO")]
    pub sam_rho: Option<f32>,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "sam"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["sam-rho"]
    }

    fn joins(&self, args: &MethodArgs) -> bool {
        args.sam.sam_rho.is_some()
    }

    fn check(&self, args: &MethodArgs) -> Result<()> {
        in_range("sam-rho", args.sam.sam_rho, |rho: f32| rho > 0.0 && rho.is_finite(), "above 0")
    }

    fn validate(&self, args: &MethodArgs, _: &Settings) -> Result<()> {
        let refused = match (args.lora.lora_rank.is_some(), args.solves()) {
            (true, _) => "--lora-rank: the slope is that of whole weights, which adapters have as a product alone",
            (_, true) => "--probe logistic, which takes no steps",
            _ => return Ok(()),
        };
        Err(Error::Usage(format!("--sam-rho does not go with {refused}")))
    }

    fn defaults(&self, _: f64) -> Table {
        toml::toml! { sam-rho = 0.05 }
    }

    fn notes(&self, _: &MethodArgs, _: &[Stage]) -> Vec<String> {
        vec!["each step takes two passes: the loss in the log is that of the first, at the weights".into()]
    }

    fn bytes(&self, args: &MethodArgs, model: &Model) -> u64 {
        if args.sam.sam_rho.is_some() { Learner::ascent_bytes(model) } else { 0 }
    }

    fn prepare(&self, args: &MethodArgs, learner: &mut Learner, _: &Anchor) -> Result<()> {
        args.sam.sam_rho.map_or(Ok(()), |rho| learner.sharpen(rho))
    }
}
