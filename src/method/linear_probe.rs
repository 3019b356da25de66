//! Linear probing: the head alone is trained, on features that stay as they were pre-trained. Batch norm takes its running
//! statistics, and backward ends below the head.

use clap::Args;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::error::{Error, Result};
use crate::flag::word;
use crate::method::settings::{BatchNorm, Settings};
use crate::method::stage::{Stage, Trained};
use crate::method::{Method, MethodArgs};
use crate::model::Model;
use crate::model::place::Place;

/// How the head is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// By steps of the optimiser.
    Steps,
    /// By logistic regression over features that are computed once.
    Logistic,
}

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// How linear-probe finds the head: steps (as any training), or logistic (logistic regression over features that are computed once,
    /// without augmentation; its strength is chosen on --select, or on --val without one)
    #[arg(long, value_name = "HOW", default_value = "steps", value_parser = word::<Probe>)]
    pub probe: Probe,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

/// `whole`, with everything but the head at rest.
pub(super) fn probe(whole: Stage, of: &Trained) -> Stage {
    let rate = |name: &str| if of.config.place(name) == Place::Head { 1.0 } else { 0.0 };
    Stage { batch_norm: BatchNorm::Frozen, ..whole.with_rates(rate, of.layout) }
}

impl Method for Rule {
    fn name(&self) -> &'static str {
        "linear-probe"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["probe"]
    }

    fn solves(&self, args: &MethodArgs) -> bool {
        args.linear_probe.probe == Probe::Logistic
    }

    fn validate(&self, _: &MethodArgs, settings: &Settings) -> Result<()> {
        match settings.batch_norm {
            BatchNorm::Frozen => Ok(()),
            BatchNorm::Train => {
                Err(Error::Usage("--method linear-probe keeps the features as they are: leave --bn train out".into()))
            }
        }
    }

    fn defaults(&self, probe_lr: f64) -> Table {
        Table::from_iter([("lr".into(), probe_lr.into())])
    }

    fn trains_head_alone(&self) -> bool {
        true
    }

    fn freezes_batch_norm(&self) -> bool {
        true
    }

    fn stages(&self, _: &MethodArgs, whole: Stage, of: &Trained) -> Result<Vec<Stage>> {
        Ok(vec![probe(whole, of)])
    }

    fn bytes(&self, _: &MethodArgs, _: &Model) -> u64 {
        0
    }
}
