//! Which images an epoch has, and in which order.

use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::augment::order_rng;

/// Which images an epoch has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampler {
    /// Each image once.
    #[default]
    Once,
    /// As many images of each class, and as many in all as there are: of a small class each image several times, of a large one some.
    Balanced,
}

/// An image of an epoch: `index + n · count`, where it comes for the n-th time (from 0) among `count` images.
pub(super) type Draw = usize;

impl Sampler {
    /// The draws of an epoch over images with these labels, by the seed and the epoch alone.
    pub(super) fn epoch(self, labels: &[u32], shuffle: bool, seed: u64, epoch: u64) -> Vec<Draw> {
        let mut order: Vec<Draw> = match self {
            Sampler::Once => (0..labels.len()).collect(),
            Sampler::Balanced => balanced(labels, &mut order_rng(seed, epoch)),
        };
        if shuffle {
            // Of its own stream where the draws have used the epoch's.
            let seed = if self == Sampler::Once { seed } else { seed ^ 0x006f_7264_6572 };
            order.shuffle(&mut order_rng(seed, epoch));
        }
        order
    }
}

/// Draws in which each class has as many, or one more: each of its images before any comes again.
fn balanced(labels: &[u32], rng: &mut impl Rng) -> Vec<Draw> {
    let count = labels.len();
    let classes = labels.iter().max().map_or(0, |most| *most as usize + 1);
    let mut by_class: Vec<Vec<usize>> = vec![Vec::new(); classes];
    labels.iter().enumerate().for_each(|(index, label)| by_class[*label as usize].push(index));
    by_class.retain(|images| !images.is_empty());
    // Which classes have one more.
    by_class.shuffle(rng);
    let (each, more) = (count / by_class.len().max(1), count % by_class.len().max(1));
    let mut draws = Vec::with_capacity(count);
    for (place, images) in by_class.iter_mut().enumerate() {
        let mut left = each + usize::from(place < more);
        let mut again = 0;
        while left > 0 {
            images.shuffle(rng);
            let taken = left.min(images.len());
            draws.extend(images[..taken].iter().map(|index| index + again * count));
            (left, again) = (left - taken, again + 1);
        }
    }
    draws
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_as_many_draws_and_images_come_again_last() {
        // 12 images of class 0, 2 of class 2, 1 of class 3; class 1 has none.
        let labels: Vec<u32> = [vec![0; 12], vec![2; 2], vec![3]].concat();
        let draws = Sampler::Balanced.epoch(&labels, true, 3, 0);
        assert_eq!(draws.len(), 15);
        let of = |label: u32| draws.iter().filter(|draw| labels[**draw % 15] == label).copied().collect::<Vec<_>>();
        assert_eq!([of(0).len(), of(2).len(), of(3).len()], [5, 5, 5]);
        // Five different images of the large class; each of the two at least twice; the one five times, numbered.
        assert!(of(0).iter().all(|draw| *draw < 12));
        let mut last = of(3);
        last.sort_unstable();
        assert_eq!(last, [14, 29, 44, 59, 74]);
        for image in [12, 13] {
            assert!((2..=3).contains(&of(2).iter().filter(|draw| **draw % 15 == image).count()));
        }
    }

    #[test]
    fn the_seed_and_the_epoch_decide() {
        let labels: Vec<u32> = (0..40).map(|i| u32::from(i % 8 == 0)).collect();
        let draws = |seed, epoch| Sampler::Balanced.epoch(&labels, true, seed, epoch);
        assert_eq!(draws(1, 2), draws(1, 2));
        assert!(draws(1, 2) != draws(1, 3) && draws(1, 2) != draws(2, 2));
        assert_eq!(Sampler::Once.epoch(&labels, false, 1, 2), (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn what_can_not_be_shared_equally_is_shared_nearly_so() {
        for images in 1..20usize {
            let labels: Vec<u32> = (0..images).map(|i| (i as u32).isqrt()).collect();
            let draws = Sampler::Balanced.epoch(&labels, true, 7, 1);
            assert_eq!(draws.len(), images);
            let mut counts = vec![0; 5];
            draws.iter().for_each(|draw| counts[labels[draw % images] as usize] += 1);
            counts.retain(|n| *n > 0);
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
    }
}
