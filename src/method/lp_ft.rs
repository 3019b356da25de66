//! LP-FT (Kumar et al., ICLR 2022): a linear probe first, then everything from there, so that a head that knows nothing
//! does not distort the features.

use clap::Args;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::error::{Error, Result};
use crate::flag::{in_range, positive};
use crate::method::linear_probe::probe;
use crate::method::stage::{Stage, Trained};
use crate::method::{Method, MethodArgs};
use crate::model::Model;

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// Share of the steps in which lp-ft trains the head alone
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub probe_share: f64,
    /// Learning rate of these steps [default: --lr if it is given, else that of --method linear-probe]
    #[arg(long, value_name = "LR")]
    pub probe_lr: Option<f64>,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

/// Steps of the probe, of `steps`: at least one, and one is left for the rest.
fn probe_steps(steps: u64, share: f64) -> u64 {
    ((steps as f64 * share).round() as u64).clamp(1, steps.saturating_sub(1).max(1))
}

impl Method for Rule {
    fn name(&self) -> &'static str {
        "lp-ft"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["probe-share", "probe-lr"]
    }

    fn check(&self, args: &MethodArgs) -> Result<()> {
        let Flags { probe_share, probe_lr } = args.lp_ft;
        positive("probe-lr", probe_lr.is_none_or(|lr| lr > 0.0 && lr.is_finite()))?;
        in_range("probe-share", probe_share, |s| s > 0.0 && s < 1.0, "between 0 and 1")
    }

    fn defaults(&self, probe_lr: f64) -> Table {
        Table::from_iter([("probe-lr".into(), probe_lr.into())])
    }

    fn has_stages(&self) -> bool {
        true
    }

    fn stages(&self, args: &MethodArgs, whole: Stage, of: &Trained) -> Result<Vec<Stage>> {
        if of.steps < 2 {
            return Err(Error::Usage("--method lp-ft needs two steps: one for the head, one for everything".into()));
        }
        let since = of.begun.unwrap_or_else(|| probe_steps(of.steps, args.lp_ft.probe_share));
        let probe = Stage { lr: args.lp_ft.probe_lr, ..probe(whole.clone(), of) };
        Ok(vec![probe, Stage { since, ..whole }])
    }

    fn notes(&self, _: &MethodArgs, stages: &[Stage]) -> Vec<String> {
        let whole = stages.last().map(|whole| format!("the first {} steps train the head alone", whole.since));
        whole.into_iter().collect()
    }

    fn bytes(&self, _: &MethodArgs, _: &Model) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::probe_steps;

    #[test]
    fn both_stages_have_a_step() {
        let steps = [(10, 0.5), (10, 0.01), (10, 0.99), (2, 0.5)].map(|(steps, share)| probe_steps(steps, share));
        assert_eq!(steps, [5, 1, 9, 1]);
    }
}
