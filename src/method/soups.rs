//! Model soups (Wortsman et al., *Model soups: averaging weights of multiple fine-tuned models*, ICML 2022): the mean of
//! several models that were fine-tuned from the same weights. Running statistics are averaged as well.

use crate::error::Result;
use crate::method::Snapshot;

/// Sums of models, in f64.
#[derive(Clone, Debug, Default)]
struct Sum {
    w: Vec<f64>,
    stats: Vec<f64>,
    batches: u64,
    count: usize,
}

impl Sum {
    /// This sum with `model` in it.
    fn with(&self, model: &Snapshot) -> Sum {
        if self.count == 0 {
            let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect();
            return Sum { w: wide(&model.w), stats: wide(&model.stats), batches: model.batches, count: 1 };
        }
        let add = |sum: &[f64], values: &[f32]| {
            assert_eq!(sum.len(), values.len(), "ingredients are images of one arena");
            sum.iter().zip(values).map(|(sum, v)| sum + f64::from(*v)).collect()
        };
        Sum {
            w: add(&self.w, &model.w),
            stats: add(&self.stats, &model.stats),
            batches: self.batches,
            count: self.count + 1,
        }
    }

    fn mean(&self) -> Snapshot {
        let mean = |sum: &[f64]| sum.iter().map(|sum| (sum / self.count as f64) as f32).collect();
        Snapshot { w: mean(&self.w), stats: mean(&self.stats), batches: self.batches }
    }
}

/// The mean of `count` models, which `load` gives one after the other. Panics where there are none.
pub fn uniform(count: usize, mut load: impl FnMut(usize) -> Result<Snapshot>) -> Result<Snapshot> {
    assert!(count > 0, "a soup has ingredients");
    let mut sum = Sum::default();
    for i in 0..count {
        sum = sum.with(&load(i)?);
    }
    Ok(sum.mean())
}

/// What [`greedy`] made.
#[derive(Clone, Debug, PartialEq)]
pub struct GreedySoup {
    /// The soup.
    pub values: Snapshot,
    /// The ingredients in it, in the order in which they were added.
    pub kept: Vec<usize>,
    /// Its accuracy on held-out images.
    pub accuracy: f64,
}

/// The greedy soup (recipe 1 of the paper): models in falling order of `accuracies` on held-out images, each kept where the
/// soup with it is at least as good there as without. `evaluate` gives a soup's accuracy on these images. Of equals the
/// earlier comes first. Panics where there are no models.
pub fn greedy(
    accuracies: &[f64],
    mut load: impl FnMut(usize) -> Result<Snapshot>,
    mut evaluate: impl FnMut(&Snapshot) -> Result<f64>,
) -> Result<GreedySoup> {
    let mut order: Vec<usize> = (0..accuracies.len()).collect();
    order.sort_by(|a, b| accuracies[*b].total_cmp(&accuracies[*a]));
    let first = *order.first().expect("a soup has ingredients");
    let mut sum = Sum::default().with(&load(first)?);
    let (mut kept, mut accuracy) = (vec![first], accuracies[first]);
    for &i in &order[1..] {
        let with = sum.with(&load(i)?);
        let reached = evaluate(&with.mean())?;
        if reached >= accuracy {
            (sum, accuracy) = (with, reached);
            kept.push(i);
        }
    }
    Ok(GreedySoup { values: sum.mean(), kept, accuracy })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(w: &[f32]) -> Snapshot {
        Snapshot { w: w.to_vec(), stats: vec![2.0 * w[0]], batches: 3 }
    }

    #[test]
    fn a_uniform_soup_is_the_mean() {
        let models = [model(&[1.0, 0.5]), model(&[2.0, 0.5]), model(&[6.0, 0.5])];
        let soup = uniform(3, |i| Ok(models[i].clone())).unwrap();
        assert_eq!(soup, Snapshot { w: vec![3.0, 0.5], stats: vec![6.0], batches: 3 });
        assert_eq!(uniform(1, |i| Ok(models[i].clone())).unwrap(), models[0]);
        let tenths = [0.1f32; 7];
        assert_eq!(uniform(7, |i| Ok(model(&tenths[i..=i]))).unwrap().w, [0.1], "seven equal models give themselves");
    }

    /// Accuracy peaks where the mean weight is 2.
    fn accuracy(soup: &Snapshot) -> f64 {
        1.0 - f64::from((soup.w[0] - 2.0).abs()) / 10.0
    }

    #[test]
    fn a_greedy_soup_keeps_what_does_not_make_it_worse() {
        let models = [model(&[9.0]), model(&[3.0]), model(&[1.0]), model(&[2.0])];
        let own: Vec<f64> = models.iter().map(accuracy).collect();
        let mut asked = Vec::new();
        let soup = greedy(
            &own,
            |i| Ok(models[i].clone()),
            |soup| {
                asked.push(soup.w[0]);
                Ok(accuracy(soup))
            },
        )
        .unwrap();
        // 2 alone is perfect; with 3 (0.9) it is 2.5, with 1 (0.9) it is 1.5, with 9 (0.3) it is 5.5: all worse.
        assert_eq!((soup.kept, soup.values, soup.accuracy), (vec![3], models[3].clone(), 1.0));
        assert_eq!(asked, [2.5, 1.5, 5.5]);
    }

    #[test]
    fn an_ingredient_that_changes_nothing_is_kept() {
        let models = [model(&[3.0]), model(&[1.0]), model(&[2.0])];
        let soup = greedy(&[0.9, 0.9, 0.8], |i| Ok(models[i].clone()), |soup| Ok(accuracy(soup))).unwrap();
        // 3, then 3 with 1 (2: better), then with 2 (2: as good).
        assert_eq!((soup.kept, soup.values.w, soup.accuracy), (vec![0, 1, 2], vec![2.0], 1.0));
    }

    #[test]
    fn an_error_of_a_model_is_the_soups() {
        let bad = |_| Err(crate::error::Error::Train("gone".into()));
        assert!(uniform(2, bad).is_err());
        assert!(greedy(&[0.5], bad, |_| Ok(0.0)).is_err());
    }
}
