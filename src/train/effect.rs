//! Which settings have an effect in a run. A value that the user gave is kept, whatever the method is, and named if it changes
//! nothing.

use toml::Table;

use crate::error::{Error, Result};
use crate::method::Schedule;
use crate::model::Precision;
use crate::train::config::TrainConfig;
use crate::train::method_args::Method;
use crate::train::optim_args::OptimizerName;

/// What a setting without effect would go with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Idle {
    /// The flag that it goes with.
    pub(super) with: &'static str,
    /// Whether it is a mistake to give it beside another value of that flag.
    pub(super) refused: bool,
}

impl TrainConfig {
    /// Why `key` has no effect in this run; none if it has one.
    pub(super) fn idle(&self, key: &str) -> Option<Idle> {
        let (optim, method) = (&self.optim, &self.method);
        let is = |methods: &[Method]| methods.contains(&method.name);
        let sgd = optim.optimizer == OptimizerName::Sgd;
        let (effect, with, refused) = match key {
            "radius" => (is(&[Method::FixedRadius]), "--method fixed-radius", true),
            "ftp-k" => (is(&[Method::Ftp]), "--method ftp", true),
            "anchor-decay" => (is(&[Method::L2Sp]), "--method l2-sp", true),
            "layer-decay" => (is(&[Method::Llrd]), "--method llrd", true),
            "freeze-blocks" => (is(&[Method::Partial]), "--method partial", true),
            "probe-share" | "probe-lr" => (is(&[Method::LpFt]), "--method lp-ft", true),
            // A momentum of 0 is no contradiction.
            "momentum" => (sgd || optim.momentum == 0.0, "--optimizer sgd", true),
            "nesterov" => (sgd || !optim.nesterov, "--optimizer sgd", true),
            "loss-scale" => (self.memory.precision() == Precision::F16, "--precision f16", true),
            "schedule" | "max-iters" | "radius-batch-size" => (is(&[Method::Tpgm]), "--method tpgm", false),
            "proj-freq" if method.schedule == Schedule::Post => (false, "--schedule every-step", false),
            "proj-freq" => (is(&[Method::Tpgm]), "--method tpgm", false),
            "norm" => (is(&[Method::Tpgm, Method::FixedRadius]), "--method tpgm or fixed-radius", false),
            "radius-lr" => (is(&[Method::Tpgm, Method::Ftp]), "--method tpgm or ftp", false),
            "exclude" => {
                let anchored = [Method::Tpgm, Method::Ftp, Method::FixedRadius, Method::L2Sp, Method::Spd];
                (is(&anchored), "--method tpgm, ftp, fixed-radius, l2-sp or spd", false)
            }
            _ => return None,
        };
        (!effect).then_some(Idle { with, refused })
    }

    /// Whether `key` of the configuration belongs to another method than the one that runs, so that its default means nothing.
    pub(super) fn is_foreign(&self, key: &str) -> bool {
        !self.given.contains(key) && self.idle(key).is_some_and(|idle| idle.refused)
    }

    /// Refuses a value of `beside`, which is given in the same place as the method, if it belongs to another.
    pub(super) fn refuse(&self, beside: &Table) -> Result<()> {
        let mut idle = beside.keys().filter_map(|key| Some((key, self.idle(key).filter(|idle| idle.refused)?)));
        match idle.next() {
            Some((key, Idle { with, .. })) => Err(Error::Usage(format!("--{key} goes with {with}: leave it out"))),
            None => Ok(()),
        }
    }

    /// What the user gave and has no effect in this run, with the reason, such as `layer-decay (goes with --method llrd)`.
    pub fn without_effect(&self) -> Vec<(&str, String)> {
        let keys = self.given.iter().filter_map(|key| Some((key.as_str(), self.idle(key)?.with)));
        keys.map(|(key, with)| (key, format!("{key} (goes with {with})"))).collect()
    }

    /// A sentence about what the user gave and has no effect.
    pub fn note(&self) -> Option<String> {
        let named: Vec<String> = self.without_effect().into_iter().map(|(_, named)| named).collect();
        (!named.is_empty()).then(|| format!("without effect in this run: {}", named.join(", ")))
    }
}
