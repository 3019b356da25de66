//! Weights between the pre-trained model θ₀ and a fine-tuned one θ: `θ₀ + λ·(θ − θ₀)`, with one λ for each layer. Nothing is trained.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::flag::in_range;
use crate::method::active::{Finished, Held, Judge, Placed};
use crate::method::saved::Saved;
use crate::method::{Anchor, Learner, Snapshot, best};
use crate::model::place::Place;
use crate::model::{Model, ModelConfig};
use crate::shapes::ParamLayout;

/// Values of α that a sweep tries.
const SWEEP: usize = 11;

/// What λ is, given α.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// WiSE-FT: `λ = α` everywhere.
    Wise,
    /// LiNeS: `λ = α + (1 − α)·(l − 1)/(L − 1)` in block l of L, counted from 1 over all stages. What stands before the blocks or behind
    /// them has `λ = α`, as in the authors' code. Their heads are not fine-tuned; a head that is has the λ of the last block, 1.
    Lines,
}

impl Between {
    /// What `--method` and a comparison call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wise => "wise",
            Self::Lines => "lines",
        }
    }

    /// As its authors write it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Wise => "WiSE",
            Self::Lines => "LiNeS",
        }
    }

    /// The share of `1 − α` that is added to α in the layer of the tensor called `name`. A network of one block has nothing but a last one.
    fn share(self, config: &ModelConfig, name: &str) -> f64 {
        match (self, config.place(name), config.blocks()) {
            (Self::Wise, ..) | (_, Place::Stem | Place::Tail, _) => 0.0,
            (_, Place::Head, _) | (_, Place::Block(_), ..=1) => 1.0,
            (_, Place::Block(block), blocks) => block as f64 / (blocks - 1) as f64,
        }
    }

    /// The weights and running statistics of `model` at `alpha` between `anchor` and `tuned`, computed in f64. Counters of batches are
    /// the fine-tuned model's.
    pub fn snapshot(self, model: &Model, anchor: &Snapshot, tuned: &Snapshot, alpha: f32) -> Snapshot {
        let alpha = f64::from(alpha);
        let mix = |layout: &ParamLayout, anchor: &[f32], tuned: &[f32]| {
            assert_eq!((anchor.len(), tuned.len()), (layout.len, layout.len), "both are images of one arena");
            let mut mixed = tuned.to_vec();
            for param in &layout.params {
                let lambda = alpha + (1.0 - alpha) * self.share(&model.config, &param.name);
                for i in param.offset..param.offset + param.len {
                    mixed[i] = interpolate(anchor[i], tuned[i], lambda);
                }
            }
            mixed
        };
        Snapshot {
            w: mix(model.layout(), &anchor.w, &tuned.w),
            stats: mix(model.buffers(), &anchor.stats, &tuned.stats),
            batches: tuned.batches,
        }
    }
}

fn interpolate(w0: f32, w: f32, lambda: f64) -> f32 {
    ((1.0 - lambda) * f64::from(w0) + lambda * f64::from(w)) as f32
}

/// `count` values of α at equal distances, from 0 to 1; a single one is 1.
pub fn alphas(count: usize) -> Vec<f32> {
    let last = count.saturating_sub(1);
    (0..count).map(|i| if last == 0 { 1.0 } else { (i as f64 / last as f64) as f32 }).collect()
}

/// α of a run's result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "invalid alpha: a number from 0 to 1, or \"sweep\"")]
pub enum Alpha {
    /// This one.
    Is(f32),
    /// What the selection images say.
    Swept(Sweep),
}

/// The word `sweep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sweep {
    /// Eleven values are tried.
    Sweep,
}

impl std::str::FromStr for Alpha {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sweep" => Ok(Self::Swept(Sweep::Sweep)),
            _ => text.parse().map(Self::Is).map_err(|_| "a number from 0 to 1, or sweep".into()),
        }
    }
}

impl Alpha {
    /// Refuses a value of `flag` that is out of range.
    pub(super) fn check(flag: &str, alpha: Option<Alpha>) -> Result<()> {
        match alpha {
            Some(Self::Is(alpha)) => in_range(flag, alpha, |a| (0.0..=1.0).contains(&a), "0 to 1, or sweep"),
            _ => Ok(()),
        }
    }
}

/// Makes the last weights of a run those at α.
#[derive(Debug)]
pub(super) struct Finish(pub(super) Between, pub(super) Alpha);

impl Held for Finish {
    fn save(&self, _: &Learner, _: &mut Saved) -> Result<()> {
        Ok(())
    }

    fn restore(&mut self, _: &mut Learner, _: &Checkpoint, _: u64) -> Result<()> {
        Ok(())
    }

    fn finishes(&self) -> bool {
        true
    }

    /// Excluded tensors stay as they were fine-tuned.
    fn finish(&self, values: Snapshot, anchor: &Anchor, model: &Model, judge: Judge) -> Result<Finished> {
        let Finish(between, alpha) = *self;
        let mut start = anchor.values.clone();
        for (param, excluded) in model.layout().params.iter().zip(anchor.excluded) {
            let at = param.offset..param.offset + param.len;
            if *excluded {
                start.w[at.clone()].copy_from_slice(&values.w[at]);
            }
        }
        let alphas = match alpha {
            Alpha::Is(alpha) => vec![alpha],
            Alpha::Swept(_) => alphas(SWEEP),
        };
        let at = |alpha| between.snapshot(model, &start, &values, alpha);
        let mut tried = Vec::new();
        for &alpha in alphas.iter().filter(|_| alphas.len() > 1) {
            tried.push(judge(&at(alpha), &format!("{} alpha {alpha:.1}", between.title()))?);
        }
        let alpha = alphas[best(&tried).unwrap_or(0)];
        Ok(Finished { values: at(alpha), placed: Some(Placed { between, alpha }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_both_models_at_its_ends() {
        for (w0, w) in [(0.1, 0.3), (-2.0, 4.0), (3.0e8, 1.0), (0.0, 1.0e-30)] {
            assert_eq!((interpolate(w0, w, 0.0), interpolate(w0, w, 1.0)), (w0, w));
        }
        assert_eq!((interpolate(1.0, 3.0, 0.25), interpolate(-2.0, 4.0, 0.25)), (1.5, -0.5));
    }

    #[test]
    fn values_are_those_of_f64_rounded_once() {
        // In f32, 1 − 0.1 and both products are rounded before the sum; 16777216 and 16777218 then give 16777216 or 16777218.
        let (w0, w, lambda) = (16_777_216.0f32, 16_777_218.0f32, f64::from(0.1f32));
        let want = (1.0 - lambda) * f64::from(w0) + lambda * f64::from(w);
        assert_eq!(interpolate(w0, w, lambda), want as f32);
        for equal in [0.1f32, 1.0e-20, -7.3] {
            assert_eq!(interpolate(equal, equal, f64::from(0.3f32)), equal, "a weight that has not moved stays");
        }
    }

    #[test]
    fn alphas_cover_the_line() {
        assert_eq!(alphas(5), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(alphas(11)[7], 0.7);
        assert_eq!((alphas(1), alphas(0)), (vec![1.0], vec![]));
    }
}
