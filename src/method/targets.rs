//! What a loss is held against where that is more than one class for each image, all weighing the same.

use std::sync::Arc;

use crate::data::{LabelSets, Mixed};
use crate::method::class_weights::ClassWeights;

/// What the losses of a run are held against.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// One class for each image: softmax and cross-entropy, classes weighing so.
    Classes(ClassWeights),
    /// Any number of labels for each image: sigmoid and binary cross-entropy.
    Labels(LabelTargets),
}

impl From<ClassWeights> for Targets {
    fn from(weights: ClassWeights) -> Targets {
        Targets::Classes(weights)
    }
}

impl From<LabelTargets> for Targets {
    fn from(targets: LabelTargets) -> Targets {
        Targets::Labels(targets)
    }
}

impl Targets {
    /// How many classes there are.
    pub fn classes(&self) -> usize {
        match self {
            Targets::Classes(weights) => weights.values().len(),
            Targets::Labels(targets) => targets.positive.len(),
        }
    }

    /// The weights of positives `[classes]`, where labels are told apart one by one.
    pub fn positive(&self) -> Option<&[f32]> {
        match self {
            Targets::Classes(_) => None,
            Targets::Labels(targets) => Some(&targets.positive),
        }
    }

    /// Targets `[labels, classes]` of a part, from image `first` of a batch with the labels `whole` on, whose images may be mixed.
    pub(super) fn mixed(
        &self,
        labels: &[u32],
        whole: &[u32],
        mixed: Option<(&Mixed, usize)>,
        smoothing: f32,
    ) -> Vec<f32> {
        match self {
            Targets::Classes(weights) => weights.mixed_targets(labels, whole, mixed, smoothing),
            Targets::Labels(targets) => targets.mixed(labels, mixed, smoothing),
        }
    }
}

/// Labels by their sets, and what the positives of each class weigh: PyTorch's `BCEWithLogitsLoss(pos_weight)` with its mean over images
/// and classes.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelTargets {
    sets: Arc<LabelSets>,
    positive: Vec<f32>,
}

impl LabelTargets {
    /// Of labels that are places in `sets`, whose positives weigh `positive` `[classes]`.
    pub fn new(sets: Arc<LabelSets>, positive: Vec<f32>) -> LabelTargets {
        LabelTargets { sets, positive }
    }

    /// Weights by which the positives of each class count as much as its negatives: negatives / positives, by `counts` of positives
    /// among `images`. A class that all images have, or none, weighs 1.
    pub fn balanced(counts: &[usize], images: usize) -> Vec<f32> {
        let weight = |positives: &usize| match *positives {
            0 => 1.0,
            all if all == images => 1.0,
            some => ((images - some) as f64 / some as f64) as f32,
        };
        counts.iter().map(weight).collect()
    }

    /// Targets `[labels, classes]`: (1 − ε)·y + ε/2, where y is 1 for a label and else 0. Of mixed images the mean by their shares.
    fn mixed(&self, labels: &[u32], mixed: Option<(&Mixed, usize)>, smoothing: f32) -> Vec<f32> {
        let classes = self.positive.len();
        let smoothing = f64::from(smoothing);
        let mut share = vec![0.0; labels.len() * classes];
        let mut add = |labels: &[u32], own: f64| {
            for (row, label) in share.chunks_mut(classes).zip(labels) {
                self.sets.get(*label).iter().for_each(|class| row[*class as usize] += own);
            }
        };
        match mixed {
            Some((Mixed { labels: others, own }, first)) => {
                add(labels, *own);
                add(&others[first..first + labels.len()], 1.0 - own);
            }
            None => add(labels, 1.0),
        }
        share.into_iter().map(|share: f64| ((1.0 - smoothing) * share + smoothing / 2.0) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> (LabelTargets, Vec<u32>) {
        let (sets, labels) = LabelSets::of([vec![0, 2], vec![], vec![1]].into_iter());
        (LabelTargets::new(Arc::new(sets), vec![1.0; 3]), labels)
    }

    #[test]
    fn labels_are_smoothed_towards_a_half() {
        let (targets, labels) = targets();
        assert_eq!(targets.mixed(&labels, None, 0.0), [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        assert_eq!(targets.mixed(&labels[..2], None, 0.5), [0.75, 0.25, 0.75, 0.25, 0.25, 0.25]);
    }

    #[test]
    fn mixed_images_have_both_labels_by_their_shares() {
        let (targets, labels) = targets();
        let mixed = Mixed { labels: labels.iter().rev().copied().collect(), own: 0.75 };
        let all = targets.mixed(&labels, Some((&mixed, 0)), 0.0);
        assert_eq!(all, [0.75, 0.25, 0.75, 0.0, 0.0, 0.0, 0.25, 0.75, 0.25]);
        // A part of the batch has its own others.
        assert_eq!(targets.mixed(&labels[2..], Some((&mixed, 2)), 0.0), all[6..]);
    }

    #[test]
    fn balanced_positives_weigh_as_much_as_negatives() {
        assert_eq!(LabelTargets::balanced(&[2, 8, 0, 10], 10), [4.0, 0.25, 1.0, 1.0]);
    }
}
