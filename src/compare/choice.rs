//! Whether the images that a grid point was chosen on can tell it from the other points: paired tests over images.
//!
//! Tested is the figure that the choice was made by, its mean over the tuning seeds. The image is the unit: what a model gets right
//! depends on the image more than on the seed, so that an image's answers with several seeds are one difference, their mean.

use serde::Serialize;

use crate::compare::entry_runs::{EntryRuns, PointRuns};
use crate::compare::outcome::Outcome;
use crate::compare::paired::{SignFlips, holm, unanimous};
use crate::train::imbalance_args::BestBy;

/// The probability of calling alike points different, once or more among all of a grid.
pub const LEVEL: f64 = 0.05;

/// The place of each selection image of each tuning seed among all of them, where seeds have different ones.
pub(super) type Places = Vec<Vec<usize>>;

/// A point against the chosen one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Against {
    /// How much better the chosen one is on the selection images: a share, or for the loss in nats.
    pub behind: f64,
    /// The two-sided p of that by the paired test, after Holm's correction over the other points.
    pub p: f64,
}

impl Against {
    /// Whether the selection images can tell the points apart.
    pub fn is_told(&self) -> bool {
        self.p <= LEVEL && self.behind > 0.0
    }
}

/// How sure a choice among the points of a grid is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// The figure that the choice was made by.
    pub figure: &'static str,
    /// The test.
    pub test: &'static str,
    /// Selection images.
    pub images: usize,
    /// By point of the grid; none for the chosen one, for those that failed, and for those without values by image.
    pub points: Vec<Option<Against>>,
    /// Points that have runs but no values by image, or values that are no numbers.
    pub untested: usize,
    /// The nearest of the points, and the least difference to it that would be told if as many answers differed; none without such.
    pub nearest: Option<(usize, Option<f64>)>,
}

/// Differences of two points, and what their sum has to be multiplied by for the difference of the figures.
struct Pair {
    differences: Vec<f64>,
    scale: f64,
}

impl Pair {
    /// `a` minus `b`; none where a value is not known or no number.
    fn new(a: &PointRuns, b: &PointRuns, seeds: &[u64], places: Option<&Places>) -> Option<Pair> {
        let runs: Vec<(&Outcome, &Outcome)> =
            seeds.iter().map(|seed| Some((a.of(*seed)?, b.of(*seed)?))).collect::<Option<_>>()?;
        let first = runs.first()?.0.by_image.len();
        let mut differences =
            vec![0.0; places.map_or(first, |all| all.iter().flatten().max().map_or(0, |most| most + 1))];
        for (k, (a, b)) in runs.iter().enumerate() {
            let (own, n) = (places.map(|all| &all[k]), a.by_image.len());
            let fits = own.map_or(n == first, |own| n == own.len());
            if n == 0 || b.by_image.len() != n || !fits || a.best_by != b.best_by {
                return None;
            }
            // Each seed's mean counts as much as any other's, however many images it is of.
            let weight = first as f64 / n as f64;
            for (i, (a, b)) in a.by_image.iter().zip(&b.by_image).enumerate() {
                differences[own.map_or(i, |own| own[i])] += weight * (f64::from(*a) - f64::from(*b));
            }
        }
        let scale = 1.0 / (first * seeds.len()) as f64;
        differences.iter().all(|d| d.is_finite()).then_some(Pair { differences, scale })
    }

    fn sum(&self) -> f64 {
        self.differences.iter().sum()
    }
}

impl Choice {
    /// Of an entry whose points had the tuning `seeds`; none where nothing was chosen among several points.
    pub(super) fn new(entry: &EntryRuns, seeds: &[u64], places: Option<&Places>) -> Option<Choice> {
        let chosen = entry.chosen.filter(|_| entry.points.len() > 1)?;
        let own = entry.points[chosen].of(*seeds.first()?)?;
        let whole = |point: &&PointRuns| seeds.iter().all(|seed| point.of(*seed).is_some());
        let others = || entry.points.iter().enumerate().filter(|(i, point)| *i != chosen && whole(point));
        let pairs: Vec<(usize, Pair)> = others()
            .filter_map(|(i, other)| Some((i, Pair::new(&entry.points[chosen], other, seeds, places)?)))
            .collect();
        let level = LEVEL / pairs.len().max(1) as f64;
        let flips: Vec<SignFlips> = pairs.iter().map(|(_, pair)| SignFlips::new(&pair.differences, level)).collect();
        let p: Vec<f64> = pairs.iter().zip(&flips).map(|((_, pair), flips)| flips.p(pair.sum())).collect();
        let mut points = vec![None; entry.points.len()];
        for ((i, pair), p) in pairs.iter().zip(holm(&p)) {
            points[*i] = Some(Against { behind: pair.sum() * pair.scale, p });
        }
        let images = pairs.first().map_or(own.by_image.len(), |(_, pair)| pair.differences.len());
        let top1 = matches!(own.best_by, BestBy::Auto | BestBy::Top1) && own.select.map.is_none();
        let least = |pair: &Pair, flips: &SignFlips| {
            // Where too few answers differ: the fewest that would do, all for one.
            let fewest = Some(unanimous(level)).filter(|fewest| top1 && *fewest <= images);
            flips.least(level).map(|sum| sum * pair.scale).or(fewest.map(|n| n as f64 / images as f64))
        };
        let behind = |i: &usize| points[*i].map_or(f64::NAN, |against| against.behind);
        // Of those that can't be told, if there are any: the sentence is about these.
        let told = |i: &usize| points[*i].is_some_and(|against| against.is_told());
        let nearest = pairs
            .iter()
            .zip(&flips)
            .min_by(|((a, _), _), ((b, _), _)| told(a).cmp(&told(b)).then(behind(a).total_cmp(&behind(b))));
        Some(Choice {
            figure: figure(own),
            test: match (top1, seeds.len()) {
                (true, 1) => "exact McNemar test",
                (_, 1) => "sign-flip test over images",
                _ => "sign-flip test over images, each its mean over the seeds",
            },
            images,
            untested: others().count() - pairs.len(),
            nearest: nearest.map(|((i, pair), flips)| (*i, least(pair, flips))),
            points,
        })
    }

    /// How many points were tested against the chosen one, and how many of them can't be told from it.
    pub fn counts(&self) -> (usize, usize) {
        let tested = self.points.iter().flatten();
        (tested.clone().count(), tested.filter(|against| !against.is_told()).count())
    }

    /// A difference of the figure, with its unit.
    pub fn amount(&self, value: f64) -> String {
        match self.figure {
            "loss" => format!("{value:.4} of loss"),
            figure if value.abs() < 0.00095 => format!("{:.2} points of {figure}", 100.0 * value),
            figure => format!("{:.1} points of {figure}", 100.0 * value),
        }
    }

    /// What a difference has to be for these images to tell it, as a part of a sentence.
    pub fn power(&self) -> Option<String> {
        let (_, least) = self.nearest?;
        Some(match least {
            Some(least) => format!("with as many answers that differ, {} or more would be told", self.amount(least)),
            None => "so few answers differ that no difference would be told".into(),
        })
    }
}

/// What tables call the figure that choices were made by.
fn figure(outcome: &Outcome) -> &'static str {
    match outcome.best_by {
        BestBy::Loss => "loss",
        BestBy::Balanced => "balanced accuracy",
        BestBy::F1 => "macro F1",
        BestBy::Auto | BestBy::Top1 | BestBy::Map if outcome.select.map.is_some() => "mAP",
        BestBy::Auto | BestBy::Top1 | BestBy::Map => "top-1",
    }
}

/// A p as tables show it.
pub fn shown(p: f64) -> String {
    match p {
        p if p < 0.001 => "< 0.001".into(),
        p if p < 0.1 => format!("{p:.3}"),
        p => format!("{p:.2}"),
    }
}

/// The places of images that are known by `names`, those of each seed: an image of several seeds has one place.
pub(super) fn places<T: Ord>(names: &[Vec<T>]) -> Places {
    let mut known = std::collections::BTreeMap::new();
    let mut place = |name| {
        let next = known.len();
        *known.entry(name).or_insert(next)
    };
    names.iter().map(|own| own.iter().map(&mut place).collect()).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::compare::plan::Cost;
    use crate::compare::select::Score;

    /// A point with these values by image, of each seed from 0 on.
    pub(in crate::compare) fn point(label: &str, best_by: BestBy, seeds: &[Vec<f32>]) -> PointRuns {
        let run = |(seed, values): (usize, &Vec<f32>)| {
            let by = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
            let select = Score { top1: by, map: (best_by == BestBy::Map).then_some(by), by, loss: 1.0 };
            let (dir, by_image) = (PathBuf::new(), values.clone());
            (Some(seed as u64), Ok(Outcome { dir, select, best_by, by_image, sets: Vec::new(), took: None }))
        };
        PointRuns { label: label.into(), runs: seeds.iter().enumerate().map(run).collect() }
    }

    pub(in crate::compare) fn entry(points: Vec<PointRuns>) -> EntryRuns {
        let (name, note) = ("vanilla".into(), String::new());
        let cost = Cost::default();
        EntryRuns { name, kind: "trained", from: None, points, chosen: Some(0), cost, ingredients: 1, note }
    }

    /// Truth values as top-1 accuracy has them.
    pub(in crate::compare) fn right(images: usize, right: impl Fn(usize) -> bool) -> Vec<f32> {
        (0..images).map(|i| f32::from(u8::from(right(i)))).collect()
    }

    fn against(entry: &EntryRuns, seeds: &[u64]) -> Vec<Against> {
        Choice::new(entry, seeds, None).unwrap().points.into_iter().flatten().collect()
    }

    #[test]
    fn points_are_told_apart_image_by_image() {
        let top1 = |label, f: fn(usize) -> bool| point(label, BestBy::Auto, &[right(400, f)]);
        // 60 % against 55 %: of the same images, a clear difference; of others, far from one.
        let same = entry(vec![top1("a", |i| i % 20 < 12), top1("b", |i| i % 20 < 11)]);
        let told = against(&same, &[0]);
        assert!(told.len() == 1 && told[0].is_told() && (told[0].behind - 0.05).abs() < 1e-12, "{told:?}");
        assert!((told[0].p - 2f64.powi(-19)).abs() < 1e-12, "{told:?}");
        let others = entry(vec![top1("a", |i| i % 20 < 12), top1("b", |i| i % 20 >= 9), top1("c", |i| i % 20 < 2)]);
        let told = Choice::new(&others, &[0], None).unwrap();
        assert_eq!((told.counts(), told.images, told.nearest.unwrap().0), ((2, 1), 400, 1));
        // 340 answers differ: P(|S| ≥ 50) at 2.5 % or less takes a sum of 42, which is 10.5 points.
        let least = told.nearest.unwrap().1.unwrap();
        assert!((0.100..0.115).contains(&least), "{least}");
        assert_eq!(Choice::new(&entry(vec![top1("", |_| true)]), &[0], None), None, "there is no grid");
        // The nearest point of all is told, by twelve images that it alone lacks; the sentence is about the other.
        let near =
            entry(vec![top1("a", |i| i % 20 < 12), top1("b", |i| i % 20 < 12 && i >= 20), top1("c", |i| i % 20 >= 9)]);
        let told = Choice::new(&near, &[0], None).unwrap();
        let [b, c] = [1, 2].map(|i| told.points[i].unwrap());
        assert!(b.is_told() && !c.is_told() && b.behind < c.behind, "{told:?}");
        assert_eq!(told.nearest.unwrap().0, 2);
    }

    #[test]
    fn seeds_are_no_images() {
        // Six images of twelve, with three seeds alike: the p of six coins and not of eighteen.
        let values = |f: fn(usize) -> bool| vec![right(12, f); 3];
        let grid =
            entry(vec![point("a", BestBy::Top1, &values(|_| true)), point("b", BestBy::Top1, &values(|i| i < 6))]);
        let told = against(&grid, &[0, 1, 2]);
        assert!((told[0].p - 2.0 / 64.0).abs() < 1e-12 && (told[0].behind - 0.5).abs() < 1e-12, "{told:?}");
        assert!(Choice::new(&grid, &[0, 1, 2], None).unwrap().test.contains("each its mean over the seeds"));
        // The same answers of seeds that have different images are of eighteen images.
        let names: Vec<Vec<usize>> = (0..3).map(|seed| (0..12).map(|i| 12 * seed + i).collect()).collect();
        let apart = Choice::new(&grid, &[0, 1, 2], Some(&places(&names))).unwrap();
        assert_eq!(apart.images, 36);
        assert!((apart.points[1].unwrap().p - 2f64.powi(-17)).abs() < 1e-12, "{apart:?}");
        let shared: Vec<Vec<usize>> = (0..3).map(|_| (0..12).collect()).collect();
        assert_eq!(Choice::new(&grid, &[0, 1, 2], Some(&places(&shared))).unwrap().points[1], Some(told[0]));
    }

    #[test]
    fn edges_are_undecided_and_never_an_error() {
        let top1 = |label, values: Vec<f32>| point(label, BestBy::Top1, &[values]);
        // The same answers; one image; too few images for any difference.
        let same = entry(vec![top1("a", vec![1.0; 50]), top1("b", vec![1.0; 50])]);
        let told = Choice::new(&same, &[0], None).unwrap();
        assert_eq!(told.points[1], Some(Against { behind: 0.0, p: 1.0 }));
        assert_eq!(told.nearest, Some((1, Some(6.0 / 50.0))), "six images, all for one");
        let one = Choice::new(&entry(vec![top1("a", vec![1.0]), top1("b", vec![0.0])]), &[0], None).unwrap();
        assert_eq!((one.points[1], one.nearest), (Some(Against { behind: 1.0, p: 1.0 }), Some((1, None))));
        // A failed run is no point, and one without values can't be tested.
        let failed = PointRuns { label: "x".into(), runs: vec![(Some(0), Err("failed".into()))] };
        let nan = top1("nan", vec![f32::NAN; 50]);
        let grid = entry(vec![top1("a", vec![1.0; 50]), failed, top1("old", Vec::new()), nan]);
        let told = Choice::new(&grid, &[0], None).unwrap();
        assert_eq!((told.counts(), told.untested, told.nearest), ((0, 0), 2, None));
    }

    #[test]
    fn many_points_take_a_clearer_difference() {
        // Six images all for one: 0.031 alone, and 0.094 as one of three.
        let top1 = |label, lost: usize| point(label, BestBy::Top1, &[right(100, |i| i >= lost)]);
        let two = entry(vec![top1("a", 0), top1("b", 6)]);
        assert!(against(&two, &[0])[0].is_told());
        let four = entry(vec![top1("a", 0), top1("b", 6), top1("c", 6), top1("d", 6)]);
        let told = against(&four, &[0]);
        assert!(told.iter().all(|a| !a.is_told() && (a.p - 6.0 / 64.0).abs() < 1e-12), "{told:?}");
    }

    #[test]
    fn what_the_choice_was_made_by_is_tested() {
        // Losses that differ a little on every image, and no answer that does.
        let loss =
            |label, more: f32| point(label, BestBy::Loss, &[(0..60).map(|i| -(i as f32) / 60.0 - more).collect()]);
        let grid = entry(vec![loss("a", 0.0), loss("b", 0.01)]);
        let told = Choice::new(&grid, &[0], None).unwrap();
        assert_eq!((told.figure, told.counts()), ("loss", (1, 0)));
        assert!((told.points[1].unwrap().behind - 0.01).abs() < 1e-6, "{told:?}");
        assert!(told.power().unwrap().contains("of loss"), "{told:?}");
        let map = Choice::new(
            &entry(vec![point("a", BestBy::Map, &[vec![0.5]]), point("b", BestBy::Map, &[vec![0.5]])]),
            &[0],
            None,
        );
        assert_eq!(map.unwrap().figure, "mAP");
    }
}
