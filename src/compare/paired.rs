//! Tests of two models on the same images, with the image as the unit: what one of them gets by chance, the other gets too.
//!
//! [`SignFlips`] is Fisher's randomisation test of paired differences (*The Design of Experiments*, 1935, section 21): if two models are
//! alike, each image's difference could as well have the other sign, so that what |Σ ±d| comes to over all signs says how unusual |Σ d| is.
//! It asks for no normal distribution, and holds with few images. Differences of −1, 0 and 1, which is one seed's right and
//! wrong answers, make it McNemar's exact test (Psychometrika 12, 1947): the binomial of the images that one model alone has right.

use std::collections::BTreeMap;

use crate::random::Random;

/// Where the random signs begin: the same differences have the same p.
const SEED: u64 = 0x7067_6d21;
/// Images that differ, up to which all signs of differences that are no whole numbers are gone through.
const ALL_SIGNS: usize = 14;
/// Draws of random signs at least.
const DRAWS: usize = 9_999;
/// Probabilities below are left out, and no p is smaller.
const TINY: f64 = 1e-25;

/// How |Σ ±d| is distributed where all signs are equally likely.
#[derive(Clone, Debug)]
pub struct SignFlips {
    /// Values, the largest first, each with the probability of reaching it.
    reached: Vec<(f64, f64)>,
    /// The probability of more than the largest at most.
    beyond: f64,
    /// Values that differ by less are equal but for rounding.
    equal: f64,
}

impl SignFlips {
    /// Of `differences`, one for each image, all finite. Whole numbers, and up to 14 that are not 0, are computed exactly; others are drawn, often
    /// enough to resolve the probability `level`.
    pub fn new(differences: &[f64], level: f64) -> SignFlips {
        let sizes: Vec<f64> = differences.iter().map(|d| d.abs()).filter(|d| *d > 0.0).collect();
        let total: f64 = sizes.iter().sum();
        if sizes.iter().all(|d| d.fract() == 0.0) && total < 1e9 {
            return SignFlips::whole(&sizes, total);
        }
        let (mut sums, extra) = match sizes.len() {
            ..=ALL_SIGNS => (all_signs(&sizes), 0),
            _ => (drawn(&sizes, DRAWS.max((40.0 / level).ceil() as usize)), 1),
        };
        sums.sort_by(|a, b| b.total_cmp(a));
        // Of drawn signs, those that were there count as one more draw: p is never 0 (Phipson and Smyth 2010).
        let of = (sums.len() + extra) as f64;
        let reached = sums.into_iter().enumerate().map(|(i, sum)| (sum, (i + 1 + extra) as f64 / of)).collect();
        SignFlips { reached, beyond: 1.0 / of, equal: 1e-9 * total }
    }

    /// The sum of whole numbers: for each size the number of plus signs is binomial, and sizes are independent.
    fn whole(sizes: &[f64], total: f64) -> SignFlips {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        sizes.iter().for_each(|d| *counts.entry(*d as usize).or_default() += 1);
        // Probabilities of Σ of those with a plus, from `from` on.
        let (mut from, mut plus) = (0, vec![1.0]);
        for (size, count) in counts {
            let (first, binomial) = coins(count);
            let mut sum = vec![0.0; plus.len() + size * (binomial.len() - 1)];
            for (i, p) in binomial.iter().enumerate() {
                sum[size * i..].iter_mut().zip(&plus).for_each(|(sum, own)| *sum += p * own);
            }
            let lead = sum.iter().position(|p| *p > TINY).unwrap_or(0);
            let end = sum.iter().rposition(|p| *p > TINY).map_or(sum.len(), |last| last + 1);
            (from, plus) = (from + size * first + lead, sum[lead..end].to_vec());
        }
        let mut by_size: BTreeMap<u64, f64> = BTreeMap::new();
        for (i, p) in plus.iter().enumerate() {
            *by_size.entry((2.0 * (from + i) as f64 - total).abs() as u64).or_default() += p;
        }
        let mut reach = 0.0;
        let reached = by_size.into_iter().rev().map(|(size, p)| {
            reach += p;
            (size as f64, reach.min(1.0))
        });
        SignFlips { reached: reached.collect(), beyond: TINY, equal: 0.0 }
    }

    /// The two-sided p of this Σ d: the probability of one as far from 0.
    pub fn p(&self, sum: f64) -> f64 {
        let as_far = self.reached.partition_point(|(size, _)| *size >= sum.abs() - self.equal);
        as_far.checked_sub(1).map_or(self.beyond, |last| self.reached[last].1)
    }

    /// The least |Σ d| whose p is at most `level`; none where these differences are too few, whatever their signs.
    pub fn least(&self, level: f64) -> Option<f64> {
        let ends = self
            .reached
            .iter()
            .enumerate()
            .filter(|(i, (size, _))| self.reached.get(i + 1).is_none_or(|(next, _)| *next < size - self.equal));
        ends.map(|(_, of)| *of).take_while(|(_, p)| *p <= level).last().map(|(size, _)| size)
    }
}

/// How often `count` fair coins show heads: the first number that is not too unlikely, and the probabilities from there on.
fn coins(count: usize) -> (usize, Vec<f64>) {
    let logs: Vec<f64> = std::iter::once(0.0)
        .chain((1..=count).scan(0.0, |sum, k| {
            *sum += (k as f64).ln();
            Some(*sum)
        }))
        .collect();
    let p = |k: usize| (logs[count] - logs[k] - logs[count - k] - count as f64 * 2f64.ln()).exp();
    let first = (0..=count / 2).find(|k| p(*k) > TINY).unwrap_or(0);
    (first, (first..=count - first).map(p).collect())
}

/// |Σ ±d| of all signs; the first may stay, since all others may be flipped.
fn all_signs(sizes: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0];
    for (i, size) in sizes.iter().enumerate() {
        let minus = if i > 0 { sums.iter().map(|sum| sum - size).collect() } else { Vec::new() };
        sums.iter_mut().for_each(|sum| *sum += size);
        sums.extend(minus);
    }
    sums.into_iter().map(f64::abs).collect()
}

/// |Σ ±d| of `draws` random signs.
fn drawn(sizes: &[f64], draws: usize) -> Vec<f64> {
    let mut random = Random::new(SEED);
    let mut draw = || {
        let mut sum = 0.0;
        for block in sizes.chunks(64) {
            let signs = random.bits();
            // A sign is the highest bit of a number.
            sum +=
                block.iter().enumerate().map(|(i, d)| f64::from_bits(d.to_bits() | ((signs >> i) << 63))).sum::<f64>();
        }
        sum.abs()
    };
    (0..draws).map(|_| draw()).collect()
}

/// Holm's adjusted p (Scandinavian Journal of Statistics 6, 1979): rejecting those of at most α errs once or more with a probability of at most α,
/// however the tests depend on each other.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let (mut adjusted, mut most) = (vec![1.0; p.len()], 0.0_f64);
    for (before, i) in order.into_iter().enumerate() {
        most = most.max((p.len() - before) as f64 * p[i]).min(1.0);
        adjusted[i] = most;
    }
    adjusted
}

/// The least number of images that are all for one model and have a p of at most `level`: 2·2⁻ⁿ.
pub fn unanimous(level: f64) -> usize {
    (2.0 / level).log2().ceil().max(1.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(differences: &[f64]) -> f64 {
        SignFlips::new(differences, 0.05).p(differences.iter().sum())
    }

    fn close(got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-12 * want, "{got} {want}");
    }

    #[test]
    fn few_images_are_worked_out_by_hand() {
        // Nothing differs, one image does, all do.
        close(p(&[]), 1.0);
        close(p(&[0.0; 9]), 1.0);
        close(p(&[1.0]), 1.0);
        close(p(&[0.3]), 1.0);
        close(p(&[1.0; 6]), 2.0 / 64.0);
        close(p(&[-0.5; 6]), 2.0 / 64.0);
        // As many for one as for the other.
        close(p(&[1.0, -1.0, 0.0]), 1.0);
        // One against five of six: (6 + 1)·2/64.
        close(p(&[1.0, 1.0, 1.0, -1.0, 1.0, 1.0]), 14.0 / 64.0);
        // ±3 ±1 ±1 reach 3 in six of eight cases.
        close(p(&[3.0, 1.0, -1.0]), 6.0 / 8.0);
        close(p(&[0.75, 0.25, -0.25]), 6.0 / 8.0);
        close(p(&[3.0, 1.0, 1.0]), 2.0 / 8.0);
    }

    #[test]
    fn the_least_difference_is_one_that_is_told_and_the_next_is_not() {
        for differences in
            [vec![1.0; 40], vec![2.0, 1.0, 3.0, 1.0, 1.0, 2.0, 1.0, 1.0, 3.0], vec![0.3; 12], vec![0.3; 40]]
        {
            let flips = SignFlips::new(&differences, 0.05);
            let least = flips.least(0.05).unwrap();
            assert!(flips.p(least) <= 0.05, "{least}");
            let next = flips.reached.iter().rev().map(|of| of.0).take_while(|size| *size < least - flips.equal).last();
            assert!(next.is_some_and(|size| flips.p(size) > 0.05), "{least} {next:?}");
        }
        // Of 5 coins, 2/32 is the rarest.
        assert_eq!(SignFlips::new(&[1.0; 5], 0.05).least(0.05), None);
        assert_eq!(SignFlips::new(&[], 0.05).least(0.05), None);
        assert_eq!((unanimous(0.05), unanimous(0.0625), unanimous(0.01)), (6, 5, 8));
    }

    #[test]
    fn drawn_signs_come_near_to_all_signs_and_are_the_same_every_time() {
        let differences: Vec<f64> = (0..300).map(|i| if i % 5 < 2 { -1.0 } else { 1.0 }).collect();
        let halves: Vec<f64> = differences.iter().map(|d| d / 2.0).collect();
        let (exact, near) = (p(&differences), p(&halves));
        // z = 60/√300 = 3.46: p = 0.0006.
        assert!((0.0003..0.0009).contains(&exact) && (near - exact).abs() < 0.0008, "{exact} {near}");
        assert_eq!(p(&halves).to_bits(), near.to_bits());
        assert_eq!(p(&[0.5; 300]), 1e-4, "no p is 0");
        // A level that takes more draws.
        let flips = SignFlips::new(&halves, 1e-3);
        assert_eq!(flips.reached.len(), 40_000);
    }

    #[test]
    fn many_images_keep_their_tails() {
        // 2·P(Bin(200 000, ½) ≥ 101 000) = 7.79e-6 (z = 4.4721 less half a step).
        let differences: Vec<f64> = (0..200_000).map(|i| if i < 101_000 { 1.0 } else { -1.0 }).collect();
        let got = p(&differences);
        assert!((got / 7.79e-6 - 1.0).abs() < 0.01, "{got:e}");
        assert_eq!(p(&[1.0; 1000]), TINY);
    }

    #[test]
    fn holm_never_falls_and_never_exceeds_one() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (got, want) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            close(*got, want);
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }
}
