//! Advice about a comparison: what its own figures say about how far they can be trusted. Each rule is one function.

use crate::compare::entry_runs::{EntryRuns, PointRuns};

/// One sentence about the entries that are no better than guessing in distribution, if there are any. `entries` are those that were
/// trained, by name, with their mean accuracy; `chance` is that of always answering with one class, on `images` images.
pub(super) fn at_chance(entries: &[(&str, f64)], chance: f64, images: u64) -> Option<String> {
    let error = (chance * (1.0 - chance) / images.max(1) as f64).sqrt();
    let guesses = |(_, mean): &&(&str, f64)| chance < 1.0 && *mean <= chance + 2.0 * error;
    let names: Vec<&str> = entries.iter().filter(guesses).map(|(name, _)| *name).collect();
    (!names.is_empty()).then(|| {
        format!(
            "at chance in distribution ({:.1} % for always answering with one class): {}; differences to and from them say nothing \
             about the methods: look at their training loss, and try other settings",
            100.0 * chance,
            names.join(", ")
        )
    })
}

/// How much better `a` is than `b`, and the standard error of that over the images: both saw the same ones, so that their
/// differences are taken image by image (means over the seeds).
fn paired(a: &PointRuns, b: &PointRuns, seeds: &[u64]) -> Option<(f64, f64)> {
    let mut differences: Vec<f64> = Vec::new();
    for seed in seeds {
        let (a, b) = (&a.of(*seed)?.right, &b.of(*seed)?.right);
        if a.is_empty() || a.len() != b.len() || (!differences.is_empty() && differences.len() != a.len()) {
            return None;
        }
        differences.resize(a.len(), 0.0);
        let each = a.iter().zip(b).map(|(a, b)| f64::from(u8::from(*a)) - f64::from(u8::from(*b)));
        differences.iter_mut().zip(each).for_each(|(sum, d)| *sum += d / seeds.len() as f64);
    }
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (n > 1.0).then(|| (mean, (variance / n).sqrt()))
}

/// One sentence where the selection images can't tell the point that they chose from others of its grid: where it is not better than
/// these by two standard errors of the difference.
pub(super) fn undecided(entry: &EntryRuns, seeds: &[u64]) -> Option<String> {
    let chosen = entry.chosen.filter(|_| entry.points.len() > 1)?;
    let others = || entry.points.iter().enumerate().filter(|(i, _)| *i != chosen).map(|(_, point)| point);
    let against = others().filter_map(|other| Some((other, paired(&entry.points[chosen], other, seeds)?)));
    let near: Vec<(&PointRuns, (f64, f64))> =
        against.filter(|(_, (gain, error))| *gain < 2.0 * error || *gain <= 0.0).collect();
    let images = entry.points[chosen].of(*seeds.first()?)?.right.len();
    let (nearest, (gain, error)) = near.iter().min_by(|a, b| a.1.0.total_cmp(&b.1.0))?;
    Some(format!(
        "{}: {images} selection images can't tell {} from {} of {} other points ({} is {:.1} ± {:.1} points below): the choice is \
         near chance; give more selection images, or report a point that was fixed before",
        entry.name,
        entry.points[chosen].label,
        near.len(),
        others().count(),
        nearest.label,
        100.0 * gain,
        200.0 * error
    ))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::compare::outcome::Outcome;
    use crate::compare::plan::Cost;
    use crate::compare::select::Score;

    /// A point whose model has the images right that `right` says, with seed 0.
    fn point(label: &str, right: impl Fn(usize) -> bool) -> PointRuns {
        let right: Vec<bool> = (0..400).map(right).collect();
        let top1 = right.iter().filter(|r| **r).count() as f64 / 400.0;
        let select = Score { top1, map: None, by: top1, loss: 1.0 };
        let outcome = Outcome { dir: PathBuf::new(), select, right, sets: Vec::new(), took: None };
        PointRuns { label: label.into(), runs: vec![(Some(0), Ok(outcome))] }
    }

    fn entry(points: Vec<PointRuns>) -> EntryRuns {
        let (name, note) = ("vanilla".into(), String::new());
        EntryRuns {
            name,
            kind: "trained",
            from: None,
            points,
            chosen: Some(0),
            cost: Cost::default(),
            ingredients: 1,
            note,
        }
    }

    #[test]
    fn entries_at_chance_are_named() {
        let entries = [("vanilla", 0.04), ("tpgm", 0.67), ("ftp", 0.05)];
        let text = at_chance(&entries, 1.0 / 26.0, 208).unwrap();
        assert!(text.starts_with("at chance in distribution (3.8 %") && text.contains(": vanilla, ftp; "), "{text}");
        assert_eq!(at_chance(&entries[1..2], 1.0 / 26.0, 208), None);
        assert_eq!(at_chance(&entries, 1.0, 208), None, "one class is no guess");
    }

    #[test]
    fn points_are_told_apart_image_by_image() {
        // 60 % against 55 %: of the same images, a clear difference; of others, far from one.
        let same = entry(vec![point("lr 0.1", |i| i % 20 < 12), point("lr 0.01", |i| i % 20 < 11)]);
        assert_eq!(undecided(&same, &[0]), None);
        let others = entry(vec![
            point("lr 0.1", |i| i % 20 < 12),
            point("lr 0.01", |i| i % 20 >= 9),
            point("lr 0.001", |i| i % 20 < 2),
        ]);
        let text = undecided(&others, &[0]).unwrap();
        assert!(text.contains("400 selection images can't tell lr 0.1 from 1 of 2 other points"), "{text}");
        assert!(text.contains("(lr 0.01 is 5.0 ± 9.2 points below)"), "{text}");
        assert_eq!(undecided(&entry(vec![point("", |_| true)]), &[0]), None, "there is no grid");
        let unknown = PointRuns { label: "x".into(), runs: vec![(Some(0), Err("failed".into()))] };
        assert_eq!(undecided(&entry(vec![point("lr 0.1", |_| true), unknown]), &[0]), None);
    }
}
