//! A linear probe by logistic regression: features are computed once, and the head is solved for by L-BFGS (Liu & Nocedal 1989). How
//! strongly large weights are punished is chosen on other images.

use std::sync::{Arc, Mutex};

use argmin::core::{CostFunction, Executor, Gradient, State};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use rayon::prelude::*;

use crate::data::LabelSets;
use crate::error::{Error, Result};
use crate::method::ClassWeights;
use crate::train::calibration::Logits;
use crate::train::evaluate::{Evaluation, of_logits};
use crate::train::imbalance_args::BestBy;

/// Weights of the penalty that are tried first, one after another, each from the solution of the one before.
const STRENGTHS: [f64; 8] = [1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6];
/// Then those between the best and its neighbours.
const BETWEEN: f64 = 3.162_277_660_168_379_5;
/// Steps of L-BFGS, at most, and pairs that it remembers.
const ITERATIONS: u64 = 300;
const MEMORY: usize = 10;
/// Length of the gradient at which a solution is one.
const GRADIENT: f64 = 1e-6;
/// Parts of the images whose sums are formed on several threads: as many on every machine, so that sums are the same.
const PARTS: usize = 32;

/// Features of labelled images.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// `[N, width]`
    pub features: Vec<f32>,
    /// `[N]`: classes, or places among the sets.
    pub labels: Vec<u32>,
    /// The sets of classes, of images with any number of labels: each class then has a regression of its own, and its weight is that of
    /// its positives.
    pub sets: Option<Arc<LabelSets>>,
}

/// A head that was solved for.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// `[classes, width]`
    pub weight: Vec<f32>,
    /// `[classes]`; zeros without a bias.
    pub bias: Vec<f32>,
    /// Weight of the penalty, half the squared length of the weights, beside the mean loss of an image.
    pub strength: f64,
    /// Share of the images that it was chosen on which it gets right; of images with any number of labels, mean average precision.
    pub accuracy: f64,
}

/// A point, its loss and its gradient.
type Known = (Vec<f64>, f64, Vec<f64>);

/// The weighted mean loss of images, and the penalty; features are scaled so that their mean square is 1.
struct Problem<'a> {
    images: &'a Labelled,
    scale: f64,
    width: usize,
    classes: usize,
    bias: bool,
    strength: f64,
    /// What an image of each class weighs, or what its positives do.
    weights: &'a [f64],
    /// The point that was asked for last, its loss and its gradient: a line search asks for each by itself.
    last: Mutex<Option<Known>>,
}

/// Logits of the scaled `row`, from weights and biases one behind the other.
fn logits(point: &[f64], row: &[f32], scale: f64, classes: usize) -> Vec<f64> {
    let width = row.len();
    let (weight, bias) = point.split_at(classes * width);
    let dot = |c: usize| weight[c * width..][..width].iter().zip(row).map(|(w, x)| w * f64::from(*x)).sum::<f64>();
    (0..classes).map(|c| scale * dot(c) + bias[c]).collect()
}

/// The loss of an image of the class `label`, whose logits become its gradient.
fn of_class(logits: &mut [f64], label: u32, weights: &[f64]) -> f64 {
    let weighs = weights[label as usize];
    let peak = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| (l - peak).exp()).sum();
    let loss = weighs * (sum.ln() + peak - logits[label as usize]);
    logits.iter_mut().for_each(|l| *l = (*l - peak).exp() / sum);
    logits[label as usize] -= 1.0;
    logits.iter_mut().for_each(|p| *p *= weighs);
    loss
}

/// The same of an image that has the classes `own`: the sum of their binary cross-entropies.
fn of_labels(logits: &mut [f64], own: &[u32], weights: &[f64]) -> f64 {
    let mut loss = 0.0;
    for ((class, logit), weight) in (0..).zip(logits).zip(weights) {
        let has = own.binary_search(&class).is_ok();
        // Of −x for a positive: ln(1 + exp(−x)), and 1 − σ(x).
        let x = if has { -*logit } else { *logit };
        let weighs = if has { *weight } else { 1.0 };
        loss += weighs * (x.max(0.0) + (-x.abs()).exp().ln_1p());
        let p = 1.0 / (1.0 + (-x).exp());
        *logit = if has { -weighs * p } else { weighs * p };
    }
    loss
}

impl Problem<'_> {
    /// Loss and gradient.
    fn at(&self, point: &[f64]) -> (f64, Vec<f64>) {
        let mut last = self.last.lock().expect("nobody panics meanwhile");
        if let Some((own, loss, gradient)) = &*last
            && own == point
        {
            return (*loss, gradient.clone());
        }
        let (width, classes, count) = (self.width, self.classes, self.images.labels.len());
        let total: f64 = match &self.images.sets {
            Some(_) => (count * classes) as f64,
            None => self.images.labels.iter().map(|label| self.weights[*label as usize]).sum(),
        };
        let part = |images: (&[f32], &[u32])| {
            let (mut loss, mut gradient) = (0.0, vec![0.0; point.len()]);
            for (row, label) in images.0.chunks(width).zip(images.1) {
                let mut p = logits(point, row, self.scale, classes);
                loss += match &self.images.sets {
                    Some(sets) => of_labels(&mut p, sets.get(*label), self.weights),
                    None => of_class(&mut p, *label, self.weights),
                };
                let (weight, bias) = gradient.split_at_mut(classes * width);
                for ((own, bias), p) in weight.chunks_mut(width).zip(bias).zip(p) {
                    own.iter_mut().zip(row).for_each(|(own, x)| *own += p * self.scale * f64::from(*x));
                    *bias += if self.bias { p } else { 0.0 };
                }
            }
            (loss, gradient)
        };
        let rows = count.div_ceil(PARTS).max(1);
        let parts = self.images.features.par_chunks(rows * width).zip(self.images.labels.par_chunks(rows));
        let sums: Vec<(f64, Vec<f64>)> = parts.map(part).collect();
        let (mut loss, mut gradient) = (0.0, vec![0.0; point.len()]);
        for (own, share) in sums {
            loss += own;
            gradient.iter_mut().zip(share).for_each(|(sum, own)| *sum += own);
        }
        let weights = classes * width;
        loss = loss / total + self.strength / 2.0 * point[..weights].iter().map(|w| w * w).sum::<f64>();
        gradient.iter_mut().for_each(|g| *g /= total);
        gradient[..weights].iter_mut().zip(point).for_each(|(g, w)| *g += self.strength * w);
        *last = Some((point.to_vec(), loss, gradient.clone()));
        (loss, gradient)
    }
}

impl CostFunction for Problem<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, point: &Vec<f64>) -> Result<f64, argmin::core::Error> {
        Ok(self.at(point).0)
    }
}

impl Gradient for Problem<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, point: &Vec<f64>) -> Result<Vec<f64>, argmin::core::Error> {
        Ok(self.at(point).1)
    }
}

/// A strength with its solution.
struct Tried {
    /// On the images for selection: a figure of which more is better, then the loss.
    score: (f64, f64),
    accuracy: f64,
    strength: f64,
    point: Vec<f64>,
}

/// The weights and biases of least loss, from `start` on.
fn least(problem: Problem, start: Vec<f64>) -> Result<Vec<f64>> {
    let fault = |e: argmin::core::Error| Error::Train(format!("logistic regression failed: {e}"));
    // At a minimum there is no direction to search along.
    if problem.at(&start).1.iter().map(|g| g * g).sum::<f64>().sqrt() < GRADIENT {
        return Ok(start);
    }
    let solver = LBFGS::new(MoreThuenteLineSearch::new(), MEMORY).with_tolerance_grad(GRADIENT).map_err(fault)?;
    let solved = Executor::new(problem, solver)
        .configure(|state| state.param(start.clone()).max_iters(ITERATIONS))
        .run()
        .map_err(fault)?;
    Ok(solved.state().get_best_param().cloned().unwrap_or(start))
}

/// The figures of `point` on `images`.
fn figures(point: &[f64], images: &Labelled, scale: f64, classes: usize) -> Evaluation {
    let width = images.features.len() / images.labels.len();
    let row =
        |row: &[f32]| logits(point, row, scale, classes).into_iter().map(|logit| logit as f32).collect::<Vec<f32>>();
    let values: Vec<Vec<f32>> = images.features.par_chunks(width).map(row).collect();
    let logits = Logits { values: values.concat(), labels: images.labels.clone(), sets: images.sets.clone() };
    of_logits(&logits, classes)
}

/// The head for `classes` classes with the least loss on `train`, with `weights` for the classes (all the same without), at the strength that
/// does best on `select`: by the figure that `best_by` names, then by loss. `tell` hears of each strength that was tried, with the accuracy on `select`.
///
/// # Errors
/// [`Error::Train`] where features are not finite, or the solver fails.
pub fn solve(
    (train, select): (&Labelled, &Labelled),
    (classes, bias): (usize, bool),
    weights: Option<&ClassWeights>,
    best_by: BestBy,
    tell: &mut dyn FnMut(f64, f64),
) -> Result<Solution> {
    let width = train.features.len() / train.labels.len();
    let square = train.features.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
    let scale = (train.features.len() as f64 / square).sqrt();
    if !scale.is_finite() {
        return Err(Error::Train("logistic regression: the features are all zero, or not finite numbers".into()));
    }
    let own = weights.map_or(vec![1.0; classes], |own| own.values().iter().map(|w| f64::from(*w)).collect());
    if train.sets.is_none() && train.labels.iter().all(|label| own[*label as usize] == 0.0) {
        return Err(Error::Train("logistic regression: all training images are of classes that weigh nothing".into()));
    }
    let mut at = |strength: f64, start: Vec<f64>| {
        let (last, weights) = (Mutex::new(None), own.as_slice());
        let point = least(Problem { images: train, scale, width, classes, bias, strength, weights, last }, start)?;
        let figures = figures(&point, select, scale, classes);
        let accuracy = figures.main();
        tell(strength, accuracy);
        Ok::<_, Error>(Tried { score: best_by.of(&figures), accuracy, strength, point })
    };
    let mut tried: Vec<Tried> = Vec::new();
    for strength in STRENGTHS {
        let start = tried.last().map_or_else(|| vec![0.0; classes * (width + 1)], |last| last.point.clone());
        tried.push(at(strength, start)?);
    }
    let best = |tried: &[Tried]| {
        let order = |a: &usize, b: &usize| {
            let ([a, b], loss) = ([*a, *b].map(|i| tried[i].score), |of: (f64, f64)| of.1);
            a.0.total_cmp(&b.0).then(loss(b).total_cmp(&loss(a)))
        };
        (0..tried.len()).max_by(order).expect("some were tried")
    };
    let first = best(&tried);
    for strength in [tried[first].strength * BETWEEN, tried[first].strength / BETWEEN] {
        let start = tried[first].point.clone();
        tried.push(at(strength, start)?);
    }
    let Tried { accuracy, strength, point, .. } = tried.swap_remove(best(&tried));
    let (weight, bias) = point.split_at(classes * width);
    Ok(Solution {
        weight: weight.iter().map(|w| (scale * w) as f32).collect(),
        bias: bias.iter().map(|b| *b as f32).collect(),
        strength,
        accuracy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Three clouds of points in four dimensions.
    fn clouds(count: usize, seed: u64) -> Labelled {
        let mut random = Random::new(seed);
        let labels: Vec<u32> = (0..count).map(|i| (i % 3) as u32).collect();
        let noise = random.vec(4 * count);
        let centre = |label: u32, d: usize| if d == label as usize { 1.5 } else { 0.0 };
        let features = (0..4 * count).map(|i| 40.0 * (centre(labels[i / 4], i % 4) + noise[i])).collect();
        Labelled { features, labels, sets: None }
    }

    /// The same points; those of the first two clouds have a label each, and every fourth has both.
    fn labelled(count: usize, seed: u64) -> Labelled {
        let clouds = clouds(count, seed);
        let own = |(i, label): (usize, &u32)| if i % 4 == 0 { vec![0, 1] } else { (*label..2).take(1).collect() };
        let (sets, labels) = LabelSets::of(clouds.labels.iter().enumerate().map(own));
        Labelled { features: clouds.features, labels, sets: Some(Arc::new(sets)) }
    }

    #[test]
    fn the_gradient_is_that_of_the_loss_and_vanishes_at_the_solution() {
        gradient_is_that_of_the_loss(&clouds(30, 1), 3);
        gradient_is_that_of_the_loss(&labelled(30, 1), 2);
    }

    fn gradient_is_that_of_the_loss(images: &Labelled, classes: usize) {
        let problem = |strength| Problem {
            images,
            scale: 0.02,
            width: 4,
            classes,
            bias: true,
            strength,
            weights: &[1.0, 0.5, 3.0][..classes],
            last: Mutex::new(None),
        };
        let point: Vec<f64> = (0..5 * classes).map(|i| (i as f64 * 0.7).sin()).collect();
        let own = problem(0.3);
        let gradient = own.at(&point).1;
        for i in 0..point.len() {
            let moved = |h: f64| {
                let mut moved = point.clone();
                moved[i] += h;
                own.at(&moved).0
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((gradient[i] - difference).abs() < 1e-8, "{i}: {} and {difference}", gradient[i]);
        }
        let solved = least(problem(0.3), vec![0.0; 5 * classes]).unwrap();
        let rest = problem(0.3).at(&solved).1.iter().map(|g| g * g).sum::<f64>().sqrt();
        assert!(rest < 1e-5, "a gradient of {rest} is left");
    }

    #[test]
    fn the_strength_is_the_one_that_does_best_on_other_images() {
        let (train, select) = (clouds(90, 2), clouds(300, 3));
        let mut heard = Vec::new();
        let solution = solve((&train, &select), (3, true), None, BestBy::Top1, &mut |strength, accuracy| {
            heard.push((strength, accuracy))
        })
        .unwrap();
        assert_eq!(heard.len(), STRENGTHS.len() + 2);
        let most = heard.iter().map(|(_, accuracy)| *accuracy).fold(0.0, f64::max);
        assert_eq!(solution.accuracy, most);
        assert!(heard.contains(&(solution.strength, most)) && most > 0.8, "{heard:?}");
        // The weights are those of the features as they are.
        let point: Vec<f64> = solution.weight.iter().chain(&solution.bias).map(|w| f64::from(*w)).collect();
        assert_eq!(figures(&point, &select, 1.0, 3).top1, most);
        let again = solve((&train, &select), (3, true), None, BestBy::Top1, &mut |_, _| {}).unwrap();
        assert_eq!(again, solution);
        // Without a bias there is none.
        assert_eq!(solve((&train, &select), (3, false), None, BestBy::Top1, &mut |_, _| {}).unwrap().bias, [0.0; 3]);
    }
}
