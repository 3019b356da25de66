//! Model soups (Wortsman et al., *Model soups: averaging weights of multiple fine-tuned models*, ICML 2022): the mean of
//! several models that were fine-tuned from the same weights. Running statistics are averaged as well.

use crate::error::Result;
use crate::method::Snapshot;
use crate::method::model_stock::ModelStock;

pub use crate::method::soup::{Ingredients, Mixed, Origin, Soup};

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

/// All soups. The first is the default.
pub const SOUPS: &[&dyn Soup] = &[&Uniform, &Greedy, &ModelStock];

/// The soup called `name`.
///
/// # Errors
/// A sentence with all names.
pub fn named(name: &str) -> Result<&'static dyn Soup, String> {
    let soup = SOUPS.iter().copied().find(|soup| soup.name() == name);
    let names = || SOUPS.iter().map(|soup| soup.name()).collect::<Vec<_>>().join(", ");
    soup.ok_or_else(|| format!("unknown soup {name:?}: there are {}", names()))
}

/// The mean.
#[derive(Debug)]
pub struct Uniform;

impl Soup for Uniform {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn mix(&self, of: Ingredients) -> Result<Mixed> {
        let mut sum = Sum::default();
        for i in 0..of.count {
            sum = sum.with(&(of.load)(i)?);
        }
        Ok(Mixed { values: sum.mean(), kept: (0..of.count).collect(), accuracy: None, share: None })
    }
}

/// Recipe 1 of the paper: models in falling order of their accuracies on held-out images, each kept where the soup with it is at
/// least as good there as without. Of equals the earlier comes first.
#[derive(Debug)]
pub struct Greedy;

impl Soup for Greedy {
    fn name(&self) -> &'static str {
        "greedy"
    }

    fn needs_images(&self) -> bool {
        true
    }

    fn mix(&self, of: Ingredients) -> Result<Mixed> {
        let accuracies = of.accuracies;
        let mut order: Vec<usize> = (0..accuracies.len()).collect();
        order.sort_by(|a, b| accuracies[*b].total_cmp(&accuracies[*a]));
        let first = *order.first().expect("a soup has ingredients");
        let mut sum = Sum::default().with(&(of.load)(first)?);
        let (mut kept, mut accuracy) = (vec![first], accuracies[first]);
        for &i in &order[1..] {
            let with = sum.with(&(of.load)(i)?);
            let reached = (of.evaluate)(&with.mean())?;
            if reached >= accuracy {
                (sum, accuracy) = (with, reached);
                kept.push(i);
            }
        }
        Ok(Mixed { values: sum.mean(), kept, accuracy: Some(accuracy), share: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(w: &[f32]) -> Snapshot {
        Snapshot { w: w.to_vec(), stats: vec![2.0 * w[0]], batches: 3 }
    }

    type Evaluate<'a> = &'a mut dyn FnMut(&Snapshot) -> Result<f64>;

    fn mix(soup: &dyn Soup, models: &[Snapshot], accuracies: &[f64], evaluate: Evaluate) -> Mixed {
        let mut load = |i: usize| Ok(models[i].clone());
        let (count, load, origin) = (models.len(), &mut load, None);
        soup.mix(Ingredients { count, load, accuracies, evaluate, origin }).unwrap()
    }

    #[test]
    fn a_uniform_soup_is_the_mean() {
        let uniform = |models: &[Snapshot]| mix(&Uniform, models, &[], &mut |_| panic!("it needs no images")).values;
        let models = [model(&[1.0, 0.5]), model(&[2.0, 0.5]), model(&[6.0, 0.5])];
        assert_eq!(uniform(&models), Snapshot { w: vec![3.0, 0.5], stats: vec![6.0], batches: 3 });
        assert_eq!(uniform(&models[..1]), models[0]);
        let tenths = [0.1f32; 7].map(|tenth| model(&[tenth]));
        assert_eq!(uniform(&tenths).w, [0.1], "seven equal models give themselves");
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
        let soup = mix(&Greedy, &models, &own, &mut |soup| {
            asked.push(soup.w[0]);
            Ok(accuracy(soup))
        });
        // 2 alone is perfect; with 3 (0.9) it is 2.5, with 1 (0.9) it is 1.5, with 9 (0.3) it is 5.5: all worse.
        assert_eq!((soup.kept, soup.values, soup.accuracy), (vec![3], models[3].clone(), Some(1.0)));
        assert_eq!(asked, [2.5, 1.5, 5.5]);
    }

    #[test]
    fn an_ingredient_that_changes_nothing_is_kept() {
        let models = [model(&[3.0]), model(&[1.0]), model(&[2.0])];
        let soup = mix(&Greedy, &models, &[0.9, 0.9, 0.8], &mut |soup| Ok(accuracy(soup)));
        // 3, then 3 with 1 (2: better), then with 2 (2: as good).
        assert_eq!((soup.kept, soup.values.w, soup.accuracy), (vec![0, 1, 2], vec![2.0], Some(1.0)));
    }

    #[test]
    fn an_error_of_a_model_is_the_soups() {
        for soup in [&Uniform as &dyn Soup, &Greedy] {
            let mut load = |_| Err(crate::error::Error::Train("gone".into()));
            let (accuracies, mut evaluate) = ([0.5], |_: &Snapshot| Ok(0.0));
            let (load, evaluate) = (&mut load, &mut evaluate);
            let of = Ingredients { count: 1, load, accuracies: &accuracies, evaluate, origin: None };
            assert!(soup.mix(of).is_err(), "{soup:?}");
        }
        assert!(named("cold").unwrap_err().contains("uniform, greedy"));
    }
}
