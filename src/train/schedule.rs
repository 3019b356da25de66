//! Learning-rate schedules.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

/// How long the learning rate rises: `500` steps, or a share of the steps such as `10%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warmup {
    /// So many steps.
    Steps(u64),
    /// So many per cent of the steps of the run, or of the stage of an lp-ft run.
    Percent(f64),
}

impl Warmup {
    /// Its length in steps, of `steps`.
    pub fn steps(self, steps: u64) -> u64 {
        match self {
            Warmup::Steps(count) => count,
            Warmup::Percent(share) => (steps as f64 * share / 100.0).round() as u64,
        }
    }
}

/// Which values a warm-up takes, in words.
const WARMUPS: &str = "a number of steps, or a share of them such as 10%";

impl FromStr for Warmup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = match text.strip_suffix('%') {
            Some(share) => share.parse().ok().filter(|share| (0.0..=100.0).contains(share)).map(Warmup::Percent),
            None => text.parse().ok().filter(|steps| i64::try_from(*steps).is_ok()).map(Warmup::Steps),
        };
        read.ok_or_else(|| WARMUPS.into())
    }
}

impl fmt::Display for Warmup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warmup::Steps(steps) => write!(f, "{steps}"),
            Warmup::Percent(share) => write!(f, "{share}%"),
        }
    }
}

impl Serialize for Warmup {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Warmup::Steps(steps) => to.serialize_u64(*steps),
            Warmup::Percent(_) => to.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Warmup {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "invalid warm-up: a number of steps, or a share of them such as \"10%\"")]
        enum Written {
            Steps(u64),
            Text(String),
        }
        match Written::deserialize(from)? {
            Written::Steps(steps) => Ok(Warmup::Steps(steps)),
            Written::Text(text) => {
                text.parse().map_err(|e| serde::de::Error::custom(format!("invalid warm-up {text:?}: {e}")))
            }
        }
    }
}

/// A schedule over a run of known length.
#[derive(Clone, Debug, PartialEq)]
pub struct LearningRate {
    /// Stages that follow each other, each with a schedule of its own: the steps before it, and the rate that its warm-up reaches.
    pub stages: Vec<(u64, f64)>,
    /// What happens after the warm-up.
    pub schedule: LrSchedule,
    /// How long each stage's rate rises, in a straight line.
    pub warmup: Warmup,
    /// Steps of the run.
    pub steps: u64,
    /// Steps of an epoch.
    pub epoch_steps: u64,
}

impl LearningRate {
    /// A warning where a warm-up is longer than the steps that it is for, so that the rate never gets where the settings have it.
    pub fn never_reached(&self) -> Option<String> {
        let ends = self.stages.iter().skip(1).map(|next| next.0).chain([self.steps]);
        let stages = self.stages.iter().zip(ends).map(|((since, base), end)| (end.saturating_sub(*since), *base));
        let (steps, base) =
            stages.filter(|(steps, _)| *steps > 0).find(|(steps, _)| self.warmup.steps(*steps) > *steps)?;
        let short = |value: f64| format!("{value:.1e}").parse::<f64>().unwrap_or(value);
        let (warmup, most) = (self.warmup, short(base * steps as f64 / self.warmup.steps(steps) as f64));
        let part = if self.stages.len() > 1 { "a part of the run" } else { "the run" };
        Some(format!(
            "the warm-up of {warmup} steps is longer than {part}, which has {steps}: the learning rate rises to {most} and never reaches \
             {}; give fewer by --warmup-steps, or a share of the steps (10%)",
            short(base)
        ))
    }

    /// The rate of step `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        let stage =
            self.stages.iter().rposition(|(since, _)| *since <= step).expect("the first stage begins with step 0");
        let ((since, base), end) = (self.stages[stage], self.stages.get(stage + 1).map_or(self.steps, |next| next.0));
        let (step, length) = (step - since, end.saturating_sub(since));
        let warmup = self.warmup.steps(length);
        if step < warmup {
            return base * (step + 1) as f64 / warmup as f64;
        }
        let step = match self.schedule {
            LrSchedule::CosineEpoch => step - step % self.epoch_steps.max(1),
            _ => step,
        };
        let length = length.saturating_sub(warmup).max(1) as f64;
        let progress = (step.saturating_sub(warmup) as f64 / length).min(1.0);
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
        let warmup = Warmup::Steps(warmup_steps);
        let lr = LearningRate { stages: vec![(0, 1.0)], schedule, warmup, steps: 8, epoch_steps: 3 };
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
    fn a_warm_up_that_is_longer_than_its_steps_is_told() {
        let of = |warmup, stages: &[(u64, f64)]| {
            let (schedule, stages) = (LrSchedule::Cosine, stages.to_vec());
            LearningRate { stages, schedule, warmup, steps: 8, epoch_steps: 3 }.never_reached()
        };
        for warmup in [Warmup::Steps(0), Warmup::Steps(8), Warmup::Percent(100.0)] {
            assert_eq!(of(warmup, &[(0, 1.0)]), None, "{warmup}");
        }
        let told = of(Warmup::Steps(9), &[(0, 0.9)]).unwrap();
        assert!(told.contains("warm-up of 9 steps") && told.contains("rises to 0.8 and never reaches 0.9"), "{told}");
        // The second stage has five steps, and the first three.
        assert_eq!(of(Warmup::Steps(3), &[(0, 1.0), (3, 1.0)]), None);
        let told = of(Warmup::Steps(4), &[(0, 1.0), (3, 1.0)]).unwrap();
        assert!(told.contains("longer than a part of the run, which has 3"), "{told}");
    }

    #[test]
    fn each_stage_has_its_own_schedule() {
        let (schedule, warmup, stages) = (LrSchedule::Linear, Warmup::Steps(0), vec![(0, 2.0), (4, 1.0)]);
        let lr = LearningRate { stages, schedule, warmup, steps: 6, epoch_steps: 3 };
        assert_eq!([0, 1, 2, 3, 4, 5].map(|s| lr.at(s)), [2.0, 1.5, 1.0, 0.5, 1.0, 0.5]);
        // Half of four steps, and half of two: the second stage's first step reaches its rate.
        let lr = LearningRate { warmup: Warmup::Percent(50.0), ..lr };
        assert_eq!([0, 1, 2, 3, 4, 5].map(|s| lr.at(s)), [1.0, 2.0, 2.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn warm_ups_are_read_as_they_are_written() {
        for (text, warmup) in [("0", Warmup::Steps(0)), ("500", Warmup::Steps(500)), ("2.5%", Warmup::Percent(2.5))] {
            assert_eq!(text.parse(), Ok(warmup));
            assert_eq!(warmup.to_string(), text);
        }
        assert_eq!((Warmup::Percent(10.0).steps(36), Warmup::Percent(10.0).steps(3)), (4, 0));
        for wrong in ["", "%", "-1", "1.5", "-1%", "101%", "nan%", "10 %", "9223372036854775808"] {
            assert!(wrong.parse::<Warmup>().is_err(), "{wrong}");
        }
    }
}
