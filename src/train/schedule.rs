//! Learning-rate schedules.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the learning rate falls over a run, after its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LrSchedule {
    /// It does not.
    Constant,
    /// Half a cosine to zero, one value per step.
    Cosine,
    /// The same, one value per epoch: the paper's ResNet recipe.
    CosineEpoch,
    /// A straight line to zero.
    Linear,
}

impl fmt::Display for LrSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Constant => "constant",
            Self::Cosine => "cosine",
            Self::CosineEpoch => "cosine-epoch",
            Self::Linear => "linear",
        })
    }
}

/// A schedule over a run of known length.
#[derive(Clone, Debug, PartialEq)]
pub struct LearningRate {
    /// Stages that follow each other, each with a schedule of its own: the steps before it, and the rate that its warm-up reaches.
    pub stages: Vec<(u64, f64)>,
    /// What happens after the warm-up.
    pub schedule: LrSchedule,
    /// Steps over which it rises in a straight line.
    pub warmup_steps: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Steps of an epoch.
    pub epoch_steps: u64,
}

impl LearningRate {
    /// The rate of step `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        let stage =
            self.stages.iter().rposition(|(since, _)| *since <= step).expect("the first stage begins with step 0");
        let ((since, base), end) = (self.stages[stage], self.stages.get(stage + 1).map_or(self.steps, |next| next.0));
        let step = step - since;
        if step < self.warmup_steps {
            return base * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let step = match self.schedule {
            LrSchedule::CosineEpoch => step - step % self.epoch_steps.max(1),
            _ => step,
        };
        let length = (end - since).saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = (step.saturating_sub(self.warmup_steps) as f64 / length).min(1.0);
        base * match self.schedule {
            LrSchedule::Constant => 1.0,
            LrSchedule::Linear => 1.0 - progress,
            LrSchedule::Cosine | LrSchedule::CosineEpoch => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: LrSchedule, warmup_steps: u64) -> Vec<f64> {
        let lr = LearningRate { stages: vec![(0, 1.0)], schedule, warmup_steps, steps: 8, epoch_steps: 3 };
        (0..8).map(|s| (lr.at(s) * 1e4).round() / 1e4).collect()
    }

    #[test]
    fn rates_are_those_of_the_formulas() {
        assert_eq!(rates(LrSchedule::Constant, 2), [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(rates(LrSchedule::Linear, 0), [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]);
        assert_eq!(rates(LrSchedule::Cosine, 0)[4], 0.5);
        // (1 + cos(3π/8)) / 2, the same for steps 3 to 5
        assert_eq!(rates(LrSchedule::CosineEpoch, 0)[3..6], [0.6913, 0.6913, 0.6913]);
        assert_eq!(rates(LrSchedule::Cosine, 4)[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
    }

    #[test]
    fn each_stage_has_its_own_schedule() {
        let (schedule, warmup_steps, stages) = (LrSchedule::Linear, 0, vec![(0, 2.0), (4, 1.0)]);
        let lr = LearningRate { stages, schedule, warmup_steps, steps: 6, epoch_steps: 3 };
        assert_eq!([0, 1, 2, 3, 4, 5].map(|s| lr.at(s)), [2.0, 1.5, 1.0, 0.5, 1.0, 0.5]);
    }
}
