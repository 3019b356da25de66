//! WiSE-FT (Wortsman et al., *Robust fine-tuning of zero-shot models*, CVPR 2022): the straight line between the pre-trained
//! and the fine-tuned weights, `(1 − α)·θ₀ + α·θ`. Nothing is trained; running statistics lie on the same line. It joins any method.

use clap::Args;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::flag::in_range;
use crate::method::active::{Finished, Held, Judge};
use crate::method::saved::Saved;
use crate::method::{Anchor, Around, Learner, Method, MethodArgs, Snapshot, Started, best};
use crate::model::Model;
use crate::shapes::ParamLayout;

/// Places between the pre-trained and the fine-tuned weights that a sweep tries.
const SWEEP: usize = 11;

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// Finish with weights between the pre-trained (0) and the fine-tuned ones (1): at this place, or with `sweep` at the best
    /// on the images of --select; with any method [default: the fine-tuned ones; sweep with --method wise]
    #[arg(long, value_name = "ALPHA|sweep")]
    pub wise_alpha: Option<WiseAlpha>,
}

/// Where between the pre-trained and the fine-tuned weights a run's result lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "invalid alpha: a number from 0 to 1, or \"sweep\"")]
pub enum WiseAlpha {
    /// There: 0 is pre-trained, 1 fine-tuned.
    Alpha(f32),
    /// Where the selection images say.
    Swept(Sweep),
}

/// The word `sweep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sweep {
    /// Eleven places are tried.
    Sweep,
}

impl std::str::FromStr for WiseAlpha {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sweep" => Ok(Self::Swept(Sweep::Sweep)),
            _ => text.parse().map(Self::Alpha).map_err(|_| "a number from 0 to 1, or sweep".into()),
        }
    }
}

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "wise"
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
        match args.wise.wise_alpha {
            Some(WiseAlpha::Alpha(alpha)) => {
                in_range("wise-alpha", alpha, |a| (0.0..=1.0).contains(&a), "0 to 1, or sweep")
            }
            _ => Ok(()),
        }
    }

    fn defaults(&self, _: f64) -> Table {
        toml::toml! { wise-alpha = "sweep" }
    }

    fn bytes(&self, _: &MethodArgs, _: &Model) -> u64 {
        0
    }

    fn start(&self, args: &MethodArgs, _: &Learner, _: &Anchor) -> Result<Started> {
        let Some(alpha) = args.wise.wise_alpha else { return Ok(Started::default()) };
        Ok(Started::new(Around::default(), alpha))
    }
}

impl Held for WiseAlpha {
    fn save(&self, _: &Learner, _: &mut Saved) -> Result<()> {
        Ok(())
    }

    fn restore(&mut self, _: &mut Learner, _: &Checkpoint, _: u64) -> Result<()> {
        Ok(())
    }

    /// Excluded tensors stay as they were fine-tuned.
    fn finish(&self, values: Snapshot, anchor: &Anchor, layout: &ParamLayout, judge: Judge) -> Result<Finished> {
        let mut start = anchor.values.clone();
        for (param, excluded) in layout.params.iter().zip(anchor.excluded) {
            let at = param.offset..param.offset + param.len;
            if *excluded {
                start.w[at.clone()].copy_from_slice(&values.w[at]);
            }
        }
        let alphas = match *self {
            WiseAlpha::Alpha(alpha) => vec![alpha],
            WiseAlpha::Swept(_) => alphas(SWEEP),
        };
        let mut tried = Vec::new();
        for &alpha in alphas.iter().filter(|_| alphas.len() > 1) {
            tried.push(judge(&snapshot(&start, &values, alpha), &format!("WiSE alpha {alpha:.1}"))?);
        }
        let alpha = alphas[best(&tried).unwrap_or(0)];
        Ok(Finished { values: snapshot(&start, &values, alpha), alpha: Some(alpha) })
    }
}

/// `(1 − α)·anchor + α·w`, element by element, computed in f64. `anchor` and `w` are images of the same arena.
pub fn interpolate(anchor: &[f32], w: &[f32], alpha: f32) -> Vec<f32> {
    assert_eq!(anchor.len(), w.len(), "anchor and weights are images of one arena");
    let alpha = f64::from(alpha);
    let between = |(w0, w): (&f32, &f32)| ((1.0 - alpha) * f64::from(*w0) + alpha * f64::from(*w)) as f32;
    anchor.iter().zip(w).map(between).collect()
}

/// [`interpolate`] of weights and running statistics. Counters of batches are the fine-tuned model's.
pub fn snapshot(anchor: &Snapshot, w: &Snapshot, alpha: f32) -> Snapshot {
    Snapshot {
        w: interpolate(&anchor.w, &w.w, alpha),
        stats: interpolate(&anchor.stats, &w.stats, alpha),
        batches: w.batches,
    }
}

/// `count` values of α at equal distances, from 0 (the pre-trained weights) to 1 (the fine-tuned ones); a single one is 1.
pub fn alphas(count: usize) -> Vec<f32> {
    let last = count.saturating_sub(1);
    (0..count).map(|i| if last == 0 { 1.0 } else { (i as f64 / last as f64) as f32 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_both_models_at_its_ends() {
        let (anchor, w) = ([0.1, -2.0, 3.0e8, 0.0], [0.3, 4.0, 1.0, 1.0e-30]);
        assert_eq!(interpolate(&anchor, &w, 0.0), anchor);
        assert_eq!(interpolate(&anchor, &w, 1.0), w);
        assert_eq!(interpolate(&[1.0, -2.0], &[3.0, 4.0], 0.25), [1.5, -0.5]);
    }

    #[test]
    fn values_are_those_of_f64_rounded_once() {
        // In f32, 1 − 0.1 and both products are rounded before the sum; 16777216 and 16777218 then give 16777216 or 16777218.
        let (w0, w, alpha) = (16_777_216.0f32, 16_777_218.0f32, 0.1f32);
        let want = (1.0 - f64::from(alpha)) * f64::from(w0) + f64::from(alpha) * f64::from(w);
        assert_eq!(interpolate(&[w0], &[w], alpha), [want as f32]);
        let equal = [0.1f32, 1.0e-20, -7.3];
        assert_eq!(interpolate(&equal, &equal, 0.3), equal, "a weight that has not moved stays");
    }

    #[test]
    fn running_statistics_go_along_and_counters_stay() {
        let model = |value: f32, batches| Snapshot { w: vec![value], stats: vec![10.0 * value, value], batches };
        let half = snapshot(&model(1.0, 0), &model(2.0, 7), 0.5);
        assert_eq!(half, Snapshot { w: vec![1.5], stats: vec![15.0, 1.5], batches: 7 });
    }

    #[test]
    fn alphas_cover_the_line() {
        assert_eq!(alphas(5), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(alphas(11)[7], 0.7);
        assert_eq!((alphas(1), alphas(0)), (vec![1.0], vec![]));
    }
}
