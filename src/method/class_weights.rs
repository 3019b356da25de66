//! Weights of the classes in the loss, as in PyTorch's `F.cross_entropy(weight=…, label_smoothing=ε)` with its mean.

use crate::data::Mixed;

/// A weight for each class of the model, 0 or more.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassWeights(Vec<f32>);

impl ClassWeights {
    /// These.
    pub fn new(weights: Vec<f32>) -> ClassWeights {
        ClassWeights(weights)
    }

    /// The same weight for each of `classes`.
    pub fn equal(classes: usize) -> ClassWeights {
        ClassWeights(vec![1.0; classes])
    }

    /// Weights by which each of the classes that have images counts as much as any other, by `counts` of images, 1 on average over
    /// all images: n / (classes · n_c). A class without images has a weight of 1, which label smoothing alone meets.
    pub fn balanced(counts: &[usize]) -> ClassWeights {
        let (images, classes) = (counts.iter().sum::<usize>(), counts.iter().filter(|n| **n > 0).count());
        let weight = |n: &usize| if *n == 0 { 1.0 } else { images as f64 / (classes * n) as f64 };
        ClassWeights(counts.iter().map(|n| weight(n) as f32).collect())
    }

    /// The weights, in the order of the classes.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// Targets `[labels, classes]` of a part of a batch, whose mean cross-entropy over the `whole` batch is the weighted one:
    ///
    /// ```text
    /// target_bc = B / Σ_whole w_label · ((1 − ε) · w_label · [c = label] + ε/C · w_c)
    /// ```
    ///
    /// B is the number of images of the whole. A batch whose images all weigh nothing gives no gradient.
    pub(super) fn targets(&self, labels: &[u32], whole: &[u32], smoothing: f32) -> Vec<f32> {
        let weight = |label: &u32| f64::from(self.0[*label as usize]);
        let sum: f64 = whole.iter().map(weight).sum();
        let norm = if sum > 0.0 { whole.len() as f64 / sum } else { 0.0 };
        let (smoothing, classes) = (f64::from(smoothing), self.0.len());
        let off = self.0.iter().map(|w| norm * smoothing / classes as f64 * f64::from(*w));
        let off: Vec<f64> = off.collect();
        let row = |label: &u32| {
            let on = norm * (1.0 - smoothing) * weight(label);
            let mut row = off.clone();
            row[*label as usize] += on;
            row.into_iter().map(|target| target as f32)
        };
        labels.iter().flat_map(row).collect()
    }

    /// The same for a part, from image `first` of a batch on, whose images may be mixed: the mean, by their shares, of the targets for
    /// both labels.
    pub(super) fn mixed_targets(
        &self,
        labels: &[u32],
        whole: &[u32],
        mixed: Option<(&Mixed, usize)>,
        smoothing: f32,
    ) -> Vec<f32> {
        let mut targets = self.targets(labels, whole, smoothing);
        if let Some((Mixed { labels: others, own }, first)) = mixed {
            let other = self.targets(&others[first..first + labels.len()], others, smoothing);
            let (own, rest) = (*own as f32, (1.0 - own) as f32);
            targets.iter_mut().zip(other).for_each(|(target, other)| *target = own * *target + rest * other);
        }
        targets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::cross_entropy;

    // x = torch.tensor([[1.5, -0.25, 0.75], [0.3, -1.2, 2.0], [-0.5, 0.25, 0.1]], dtype=torch.float64, requires_grad=True)
    // loss = F.cross_entropy(x, torch.tensor([2, 0, 1]), weight=torch.tensor([0.5, 2.0, 1.25]).double(), label_smoothing=0.1)
    // loss.backward(); print(loss, x.grad)
    #[test]
    fn agrees_with_pytorch() {
        let logits = [1.5, -0.25, 0.75, 0.3, -1.2, 2.0, -0.5, 0.25, 0.1];
        let (labels, weights) = ([2, 0, 1], ClassWeights::new(vec![0.5, 2.0, 1.25]));
        let mut targets = weights.targets(&labels[..2], &labels, 0.1);
        targets.extend(weights.targets(&labels[2..], &labels, 0.1));
        let targets: Vec<f64> = targets.into_iter().map(f64::from).collect();
        let (mut loss, mut dlogits) = ([f64::NAN; 3], [f64::NAN; 9]);
        cross_entropy::forward_targets(&mut loss, &mut dlogits, &logits, &targets, 3, 3, 1.0 / 3.0);
        let want_grad = [
            0.19804940957624176,
            0.017410377759875636,
            -0.2154597873361174,
            -0.10154888557632448,
            -0.012669088060846365,
            0.11421797363717082,
            0.0994877249065247,
            -0.2777533735351848,
            0.17826564862866,
        ];
        let mean = loss.iter().sum::<f64>() / 3.0;
        assert!((mean - 1.1698455929534908).abs() < 1e-7, "{mean}");
        for (got, want) in dlogits.iter().zip(want_grad) {
            assert!((got - want).abs() < 1e-7, "{got} should be {want}");
        }
    }

    #[test]
    fn balanced_weights_are_one_on_average() {
        let weights = ClassWeights::balanced(&[30, 0, 10, 20]);
        assert_eq!(weights.values(), [20.0 / 30.0, 1.0, 2.0, 1.0]);
        assert_eq!(ClassWeights::balanced(&[7, 7]).values(), [1.0, 1.0]);
    }

    #[test]
    fn a_batch_that_weighs_nothing_has_no_targets() {
        let weights = ClassWeights::new(vec![0.0, 1.0]);
        assert_eq!(weights.targets(&[0, 0], &[0, 0], 0.1), [0.0; 4]);
    }
}
