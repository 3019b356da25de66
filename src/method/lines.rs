//! LiNeS (Wang et al., *LiNeS: Post-training layer scaling prevents forgetting and enhances model merging*, ICLR 2025): after
//! training, the drift of layer l of L is scaled by `λ(l) = α + β·(l − 1)/(L − 1)`, here with `β = 1 − α` as for their single tasks. So the
//! last block keeps all of its drift and the first a share α of it. Nothing is trained. It joins any method.

use clap::Args;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::error::{Error, Result};
use crate::method::between::{Alpha, Between, Finish};
use crate::method::settings::Settings;
use crate::method::{Anchor, Around, Learner, Method, MethodArgs, Started};
use crate::model::Model;

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// Finish by scaling each layer's drift from the pre-trained weights (LiNeS): that of the first block by ALPHA, of the last by 1, of
    /// those between linearly; with `sweep` by the best ALPHA on the images of --select; with any method [default: as fine-tuned;
    /// sweep with --method lines]
    #[arg(long, value_name = "ALPHA|sweep")]
    pub lines_alpha: Option<Alpha>,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        Between::Lines.name()
    }

    fn flags(&self) -> &'static [&'static str] {
        &["lines-alpha", "exclude"]
    }

    fn joins(&self, args: &MethodArgs) -> bool {
        args.lines.lines_alpha.is_some()
    }

    fn is_beside_steps(&self, _: &MethodArgs, _: &str) -> bool {
        true
    }

    fn check(&self, args: &MethodArgs) -> Result<()> {
        Alpha::check("lines-alpha", args.lines.lines_alpha)
    }

    fn validate(&self, args: &MethodArgs, _: &Settings) -> Result<()> {
        match (args.wise.wise_alpha, args.lines.lines_alpha) {
            (Some(_), Some(_)) => {
                let what = "--wise-alpha and --lines-alpha both say where the last weights lie: leave one out";
                Err(Error::Usage(what.into()))
            }
            _ => Ok(()),
        }
    }

    fn defaults(&self, _: f64) -> Table {
        toml::toml! { lines-alpha = "sweep" }
    }

    fn bytes(&self, _: &MethodArgs, _: &Model) -> u64 {
        0
    }

    fn start(&self, args: &MethodArgs, _: &Learner, _: &Anchor) -> Result<Started> {
        let Some(alpha) = args.lines.lines_alpha else { return Ok(Started::default()) };
        Ok(Started::new(Around::default(), Finish(Between::Lines, alpha)))
    }
}
