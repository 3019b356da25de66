//! WiSE-FT (Wortsman et al., *Robust fine-tuning of zero-shot models*, CVPR 2022): the straight line between the pre-trained
//! and the fine-tuned weights, `(1 − α)·θ₀ + α·θ`. Nothing is trained; running statistics lie on the same line. It joins any method.

use clap::Args;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::error::Result;
use crate::method::between::{Alpha, Between, Finish};
use crate::method::{Anchor, Around, Learner, Method, MethodArgs, Started};
use crate::model::Model;

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// Finish with weights between the pre-trained (0) and the fine-tuned ones (1): at this place, or with `sweep` at the best
    /// on the images of --select; with any method [default: the fine-tuned ones; sweep with --method wise]
    #[arg(long, value_name = "ALPHA|sweep")]
    pub wise_alpha: Option<Alpha>,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        Between::Wise.name()
    }

    fn flags(&self) -> &'static [&'static str] {
        &["wise-alpha", "exclude"]
    }

    fn joins(&self, args: &MethodArgs) -> bool {
        args.wise.wise_alpha.is_some()
    }

    fn is_beside_steps(&self, _: &MethodArgs, _: &str) -> bool {
        true
    }

    fn check(&self, args: &MethodArgs) -> Result<()> {
        Alpha::check("wise-alpha", args.wise.wise_alpha)
    }

    fn defaults(&self, _: f64) -> Table {
        toml::toml! { wise-alpha = "sweep" }
    }

    fn bytes(&self, _: &MethodArgs, _: &Model) -> u64 {
        0
    }

    fn start(&self, args: &MethodArgs, _: &Learner, _: &Anchor) -> Result<Started> {
        let Some(alpha) = args.wise.wise_alpha else { return Ok(Started::default()) };
        Ok(Started::new(Around::default(), Finish(Between::Wise, alpha)))
    }
}
