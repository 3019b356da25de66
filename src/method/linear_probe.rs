//! Linear probing: the head alone is trained, on features that stay as they were pre-trained. Batch norm takes its running
//! statistics, and backward ends below the head.

use toml::Table;

use crate::error::{Error, Result};
use crate::method::settings::{BatchNorm, Settings};
use crate::method::stage::{Stage, Trained};
use crate::method::{Method, MethodArgs};
use crate::model::Model;
use crate::model::place::Place;

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
