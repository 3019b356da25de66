//! Which point of a grid is reported: decided by the selection images alone. Nothing here has ever seen a test set.

use serde::{Deserialize, Serialize};

use crate::method::best;
use crate::train::Evaluation;
use crate::train::imbalance_args::BestBy;
use crate::train::json_lines::or_nan;

/// Accuracy and loss on the selection images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Top-1 accuracy.
    pub top1: f64,
    /// The figure that choices are made by, of which more is better: what `best-by` names.
    #[serde(deserialize_with = "or_nan")]
    pub by: f64,
    /// Mean cross-entropy; NaN, in JSON null, where it is not a number.
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
}

impl Score {
    /// Of these figures, if choices are made by one of them.
    pub fn new(best_by: BestBy, top1: f64, balanced: f64, loss: f64) -> Score {
        Score { top1, by: best_by.score(top1, balanced, loss).0, loss }
    }

    /// Of an evaluation.
    pub fn of(best_by: BestBy, e: &Evaluation) -> Score {
        Score::new(best_by, e.top1, e.balanced, e.loss)
    }
}

/// The mean of `scores`, one a tuning seed; none where a run failed.
pub fn mean(scores: &[Option<Score>]) -> Option<Score> {
    let known = scores.iter().copied().collect::<Option<Vec<Score>>>().filter(|known| !known.is_empty())?;
    let mean = |f: &dyn Fn(&Score) -> f64| known.iter().map(f).sum::<f64>() / known.len() as f64;
    Some(Score { top1: mean(&|s| s.top1), by: mean(&|s| s.by), loss: mean(&|s| s.loss) })
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
        Some(Score { top1, by: top1, loss })
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
