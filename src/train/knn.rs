//! Accuracy of a tower's features without any training: each image gets the class that its nearest neighbours among labelled images
//! vote for (Wu et al., CVPR 2018; the protocol of DINO, Caron et al., ICCV 2021).

use rayon::prelude::*;

use crate::error::Result;
use crate::train::evaluate::Classifier;
use crate::train::place::Place;

/// What similarities are divided by before they weigh a vote.
const TEMPERATURE: f32 = 0.07;

/// Labelled features that votes are taken among.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// `[N, width]`, each row of unit length.
    features: Vec<f32>,
    labels: Vec<u32>,
    width: usize,
    classes: usize,
    k: usize,
}

/// Rows of unit length; a row of zeros stays.
fn unit(mut features: Vec<f32>, width: usize) -> Vec<f32> {
    for row in features.chunks_mut(width) {
        let norm = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
        if norm > 0.0 {
            row.iter_mut().for_each(|x| *x /= norm);
        }
    }
    features
}

impl Neighbours {
    /// Of `features` `[N, width]` with the `labels` `[N]`, places in `classes` classes; `k` vote, or all if they are fewer.
    ///
    /// # Panics
    /// Where features and labels do not fit each other, or there is none.
    pub fn new(features: Vec<f32>, labels: Vec<u32>, width: usize, classes: usize, k: usize) -> Neighbours {
        assert_eq!(features.len(), labels.len() * width, "features of each label");
        assert!(!labels.is_empty() && k > 0, "somebody has to vote");
        let k = k.min(labels.len());
        Neighbours { features: unit(features, width), labels, width, classes, k }
    }

    /// The logarithms of each class's votes `[M, classes]` for `features` `[M, width]`: the k most similar (by cosine, the earlier of
    /// equals) weigh exp(similarity / 0.07) each. A class without a vote has the least that one vote can be, exp(−1 / 0.07).
    pub fn votes(&self, features: Vec<f32>) -> Vec<f32> {
        unit(features, self.width).par_chunks(self.width).flat_map_iter(|row| self.vote(row)).collect()
    }

    fn vote(&self, row: &[f32]) -> Vec<f32> {
        let similar = |other: &[f32]| row.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
        let mut all: Vec<(f32, usize)> = self.features.chunks(self.width).map(similar).zip(0..).collect();
        let order = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if self.k < all.len() {
            all.select_nth_unstable_by(self.k - 1, order);
            all.truncate(self.k);
        }
        let mut votes = vec![0f64; self.classes];
        for (similarity, i) in all {
            votes[self.labels[i] as usize] += f64::from(similarity / TEMPERATURE).exp();
        }
        let least = f64::from(-1.0 / TEMPERATURE);
        votes.into_iter().map(|vote| vote.ln().max(least) as f32).collect()
    }
}

/// A tower that answers by its neighbours' votes.
pub struct ByNeighbours<'a> {
    /// A model without a head.
    pub tower: &'a mut dyn Classifier,
    /// Who votes.
    pub neighbours: &'a Neighbours,
}

impl Classifier for ByNeighbours<'_> {
    fn place(&self) -> Place {
        self.tower.place()
    }

    fn capacity(&self) -> usize {
        self.tower.capacity()
    }

    fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        Ok(self.neighbours.votes(self.tower.logits(images, batch)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_vote_by_their_similarity() {
        // At angles of 0, 30, 60 and 90 degrees, of lengths that do not matter.
        let angle = |degrees: f32, length: f32| {
            let radians = degrees.to_radians();
            [length * radians.cos(), length * radians.sin()]
        };
        let train = [angle(0.0, 1.0), angle(30.0, 9.0), angle(60.0, 0.1), angle(90.0, 2.0)].concat();
        let labels = vec![0, 1, 1, 2];
        let votes =
            |k, degrees| Neighbours::new(train.clone(), labels.clone(), 2, 4, k).votes(angle(degrees, 5.0).to_vec());
        let weight = |degrees: f32| f64::from(degrees.to_radians().cos() / 0.07).exp();
        let one = votes(1, 10.0);
        assert!(
            (f64::from(one[0]) - weight(10.0).ln()).abs() < 1e-4 && one[1..].iter().all(|v| *v == -1.0 / 0.07),
            "{one:?}"
        );
        let three = votes(3, 10.0);
        assert!((f64::from(three[1]) - (weight(20.0) + weight(50.0)).ln()).abs() < 1e-4, "{three:?}");
        assert_eq!(three[2..], [-1.0 / 0.07; 2]);
        // More than there are is all of them; no class but those that are there has a vote.
        let all = votes(99, 10.0);
        assert!((f64::from(all[2]) - weight(80.0).ln()).abs() < 1e-4 && all[3] == -1.0 / 0.07, "{all:?}");
    }

    #[test]
    fn the_earlier_of_equals_votes() {
        let train = vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0];
        let votes = Neighbours::new(train, vec![1, 0, 0], 2, 2, 1).votes(vec![1.0, 0.0, 0.0, 0.0]);
        assert!(votes[1] > votes[0], "{votes:?}");
        assert!(votes[2..].iter().all(|v| v.is_finite()), "an image without features: {votes:?}");
    }
}
