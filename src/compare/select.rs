//! Which point of a grid is reported: decided by the selection images alone. Nothing here has ever seen a test set.

use serde::{Deserialize, Serialize};

use crate::method::best;
use crate::train::Evaluation;
use crate::train::evaluate::Figure;
use crate::train::imbalance_args::{BestBy, Judged};
use crate::train::json_lines::or_nan;

/// Accuracy and loss on the selection images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Top-1 accuracy; NaN, and not written, of images with any number of labels.
    #[serde(default = "nan", deserialize_with = "or_nan", skip_serializing_if = "is_unwritten")]
    pub top1: f64,
    /// Mean average precision, of images with any number of labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<f64>,
    /// The figure that choices are made by, of which more is better: what `best-by` names.
    #[serde(deserialize_with = "or_nan")]
    pub by: f64,
    /// Mean cross-entropy; NaN, in JSON null, where it is not a number.
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
}

/// Of a figure that is not written.
pub(super) fn nan() -> f64 {
    f64::NAN
}

pub(super) fn is_unwritten(figure: &f64) -> bool {
    figure.is_nan()
}

impl Score {
    /// Of these figures, if choices are made by one of them; the main one is mAP or top-1.
    pub fn new(best_by: BestBy, figure: Figure, of: Judged) -> Score {
        let (top1, map) = match figure {
            Figure::Top1 => (of.main, None),
            Figure::Map => (f64::NAN, Some(of.main)),
        };
        Score { top1, map, by: best_by.score(of).0, loss: of.loss }
    }

    /// Of an evaluation.
    pub fn of(best_by: BestBy, e: &Evaluation) -> Score {
        let of = Judged { main: e.main(), balanced: e.balanced, macro_f1: e.macro_f1, loss: e.loss };
        Score::new(best_by, e.figure(), of)
    }

    /// Top-1 accuracy, or mean average precision.
    pub fn main(&self) -> f64 {
        self.map.unwrap_or(self.top1)
    }
}

/// The mean of `scores`, one per tuning seed; none where a run failed.
pub fn mean(scores: &[Option<Score>]) -> Option<Score> {
    let known = scores.iter().copied().collect::<Option<Vec<Score>>>().filter(|known| !known.is_empty())?;
    let mean = |f: &dyn Fn(&Score) -> f64| known.iter().map(f).sum::<f64>() / known.len() as f64;
    let map = known[0].map.map(|_| mean(&Score::main));
    Some(Score { top1: mean(&|s| s.top1), map, by: mean(&|s| s.by), loss: mean(&|s| s.loss) })
}

/// The point of a grid with the best mean over the tuning seeds: by the figure that `best-by` names, then by loss, then the first. A point one of
/// whose runs failed is not chosen; none where that is all of them.
pub fn choose(points: &[Vec<Option<Score>>]) -> Option<usize> {
    let scores = points.iter().map(|scores| mean(scores).map_or((f64::NAN, f64::NAN), |s| (s.by, s.loss)));
    best(&scores.collect::<Vec<_>>())
}

/// Ranks from 1, the best first; a point without a score has none.
pub fn ranks(points: &[Option<Score>]) -> Vec<Option<usize>> {
    let mut ranks = vec![None; points.len()];
    let mut left: Vec<(f64, f64)> = points.iter().map(|p| p.map_or((f64::NAN, f64::NAN), |s| (s.by, s.loss))).collect();
    let mut rank = 0;
    while let Some(i) = best(&left) {
        rank += 1;
        ranks[i] = Some(rank);
        left[i] = (f64::NAN, f64::NAN);
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(top1: f64, loss: f64) -> Option<Score> {
        Some(Score { top1, map: None, by: top1, loss })
    }

    #[test]
    fn the_best_mean_over_the_tuning_seeds_is_chosen() {
        let points = vec![
            vec![score(0.9, 1.0), score(0.5, 1.0)],
            vec![score(0.7, 1.2), score(0.8, 1.0)],
            vec![score(0.75, 1.0), score(0.75, 1.0)],
        ];
        assert_eq!(choose(&points), Some(2), "0.75 with the lesser loss");
        let means: Vec<_> = points.iter().map(|p| mean(p)).collect();
        assert_eq!(ranks(&means), [Some(3), Some(2), Some(1)]);
    }

    #[test]
    fn a_point_with_a_failed_run_is_not_chosen() {
        let points = vec![vec![score(0.9, 0.1), None], vec![score(0.2, 2.0), score(0.2, 2.0)]];
        assert_eq!(choose(&points), Some(1));
        assert_eq!(choose(&[vec![None]]), None);
        assert_eq!(choose(&[vec![]]), None);
        assert_eq!(ranks(&[None, score(0.1, 1.0)]), [None, Some(1)]);
    }
}
