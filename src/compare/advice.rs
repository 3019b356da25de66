//! Advice about a comparison: what its own figures say about how far they can be trusted. Each rule is one function.

use crate::compare::choice::{Choice, LEVEL, shown};
use crate::compare::entry_runs::EntryRuns;
use crate::compare::outcome::Outcome;

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

/// One sentence where the selection images can't tell the point that they chose from others of its grid, or where that is not known.
pub(super) fn undecided(entry: &EntryRuns, choice: &Choice) -> Option<String> {
    let chosen = &entry.points[entry.chosen?].label;
    let (tested, near) = choice.counts();
    let untested = match choice.untested {
        0 => String::new(),
        n => format!(
            "whether they can tell {chosen} from {n} {} is not known: the records of an earlier version have no values by image, or \
             they are no numbers",
            if tested > 0 { "more" } else { "of its other points" }
        ),
    };
    let images = choice.images;
    let (nearest, power) = match (near, choice.nearest, choice.power()) {
        (1.., Some((nearest, _)), Some(power)) => (nearest, power),
        _ => {
            let whose = if images > 0 { format!("{images} selection images") } else { "the selection images".into() };
            return (!untested.is_empty()).then(|| format!("{}: of {whose}, {untested}", entry.name));
        }
    };
    let against = choice.points[nearest]?;
    let several = if untested.is_empty() { untested } else { format!("; {untested}") };
    Some(format!(
        "{}: {images} selection images can't tell {chosen} from {near} of {tested} other points at the {:.0} % level ({}, Holm's \
         correction; {} is {} below, p = {}; {power}): the choice is near chance; give more selection images, or report a point that \
         was fixed before{several}",
        entry.name,
        100.0 * LEVEL,
        choice.test,
        entry.points[nearest].label,
        choice.amount(against.behind),
        shown(against.p)
    ))
}

/// One sentence where a soup is far worse on the selection images than the worst of the models that it was made of, those of `from`: by
/// over three standard errors of such a difference between independent samples.
pub(super) fn fallen(soup: &EntryRuns, from: &EntryRuns) -> Option<String> {
    let ingredients = |seed: Option<u64>| -> Vec<&Outcome> {
        match seed {
            Some(seed) => from.points.iter().filter_map(|point| point.of(seed)).collect(),
            None => {
                from.points[from.chosen.unwrap_or(0)].runs.iter().filter_map(|(_, run)| run.as_ref().ok()).collect()
            }
        }
    };
    let worst = soup.points[soup.chosen?].runs.iter().filter_map(|(seed, run)| {
        let (made, of) = (run.as_ref().ok()?, ingredients(*seed));
        let least = of.iter().map(|o| o.select.main()).min_by(f64::total_cmp)?;
        let own = made.select.main();
        let error = ((own * (1.0 - own) + least * (1.0 - least)) / made.by_image.len().max(1) as f64).sqrt();
        (own < least - 3.0 * error).then_some((own, least, of.len()))
    });
    let (own, least, of) = worst.min_by(|a, b| (a.0 - a.1).total_cmp(&(b.0 - b.1)))?;
    Some(format!(
        "{}: {:.1} % on the selection images, where the worst of its {of} models has {:.1} %: mixed in this way they lose what they have \
         learned, and its differences say nothing about them: leave it out, or try another kind of soup",
        soup.name,
        100.0 * own,
        100.0 * least
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::choice::tests::{entry, point, right};
    use crate::compare::entry_runs::PointRuns;
    use crate::train::imbalance_args::BestBy;

    fn told(runs: &EntryRuns) -> Option<String> {
        undecided(runs, &Choice::new(runs, &[0], None)?)
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
    fn a_choice_that_chance_made_is_told_with_the_size_of_the_test() {
        let top1 = |label, f: fn(usize) -> bool| point(label, BestBy::Auto, &[right(400, f)]);
        let sure = entry(vec![top1("lr 0.1", |i| i % 20 < 12), top1("lr 0.01", |i| i % 20 < 11)]);
        assert_eq!(told(&sure), None);
        let grid =
            vec![top1("lr 0.1", |i| i % 20 < 12), top1("lr 0.01", |i| i % 20 >= 9), top1("lr 0.001", |i| i % 20 < 2)];
        let text = told(&entry(grid)).unwrap();
        for part in [
            "vanilla: 400 selection images can't tell lr 0.1 from 1 of 2 other points at the 5 % level (exact McNemar test, Holm's",
            "; lr 0.01 is 5.0 points of top-1 below, p = 0.30; ",
            "points of top-1 or more would be told)",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(told(&entry(vec![top1("", |_| true)])), None, "there is no grid");
    }

    #[test]
    fn what_can_not_be_tested_is_said() {
        let top1 = |label, values: Vec<f32>| point(label, BestBy::Auto, &[values]);
        let old = told(&entry(vec![top1("lr 0.1", Vec::new()), top1("lr 0.01", Vec::new())])).unwrap();
        assert!(
            old.contains(
                "of the selection images, whether they can tell lr 0.1 from 1 of its other points is not known"
            ),
            "{old}"
        );
        let mixed = vec![top1("lr 0.1", vec![1.0; 9]), top1("lr 0.01", vec![1.0; 9]), top1("lr 1", Vec::new())];
        let text = told(&entry(mixed)).unwrap();
        assert!(text.contains("from 1 of 1 other points") && text.contains("from 1 more is not known"), "{text}");
        let failed = PointRuns { label: "x".into(), runs: vec![(Some(0), Err("failed".into()))] };
        assert_eq!(told(&entry(vec![top1("lr 0.1", vec![1.0; 9]), failed])), None, "failures are told elsewhere");
    }

    #[test]
    fn a_soup_that_has_lost_its_models_is_told() {
        let share = |hits: usize| vec![right(400, move |i| i < hits)];
        let both = [share(390), share(392)].concat();
        let mut from = entry(vec![point("lr 0.1", BestBy::Auto, &both), point("lr 1", BestBy::Auto, &share(40))]);
        let soup = |hits: usize, seed: Option<u64>| {
            let mut made = entry(vec![point("", BestBy::Auto, &share(hits))]);
            made.name = "model-stock".into();
            made.points[0].runs[0].0 = seed;
            made
        };
        let text = fallen(&soup(96, None), &from).unwrap();
        assert!(
            text.starts_with("model-stock: 24.0 % on the selection images, where the worst of its 2 models has 97.5 %"),
            "{text}"
        );
        // A soup of the grid has the bad point among its models.
        assert_eq!(fallen(&soup(96, Some(0)), &from), None);
        assert!(
            fallen(&soup(10, Some(0)), &from).unwrap().contains("2.5 % on")
                && fallen(&soup(385, None), &from).is_none()
        );
        from.points[0].runs.iter_mut().for_each(|(_, run)| *run = Err("failed".into()));
        assert_eq!(fallen(&soup(96, None), &from), None, "there is nothing to hold it against");
    }
}
