//! LP-FT (Kumar et al., ICLR 2022): a linear probe first, then everything from there, so that a head that knows nothing
//! does not distort the features.

use crate::method::linear_probe;
use crate::method::stage::Stage;
use crate::model::ModelConfig;
use crate::shapes::ParamLayout;

/// Which of the two stages comes first, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LpFt {
    /// Steps of the run.
    pub steps: u64,
    /// Share of them that train the head alone.
    pub share: f64,
}

impl LpFt {
    /// Steps of the probe: at least one, and one is left for the rest.
    pub fn probe_steps(self) -> u64 {
        let steps = (self.steps as f64 * self.share).round() as u64;
        steps.clamp(1, self.steps.saturating_sub(1).max(1))
    }

    /// The stage that step `step` (counted from 0) belongs to, where it starts, and what it trains.
    pub fn stage(self, step: u64, whole: Stage, config: &ModelConfig, layout: &ParamLayout) -> (u64, Stage) {
        match step < self.probe_steps() {
            true => (0, linear_probe::stage(whole, config, layout)),
            false => (self.probe_steps(), whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LpFt;

    #[test]
    fn both_stages_have_a_step() {
        let probe = |steps, share| LpFt { steps, share }.probe_steps();
        assert_eq!([probe(10, 0.5), probe(10, 0.01), probe(10, 0.99), probe(2, 0.5)], [5, 1, 9, 1]);
    }
}
