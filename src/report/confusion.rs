//! Which classes are taken for which: a heat map of each test set, and the pairs that are confused most.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::evaluations::TestSet;
use super::text::{escape, integer};
use crate::train::records::Distribution;

/// More classes than this can't be told apart in a heat map.
pub(super) const MOST_CLASSES: usize = 50;
/// Up to here a cell has room for its number, and beyond it for a thinner font only.
const NUMBERED: usize = 16;
/// Rows of the table of pairs.
const PAIRS: usize = 15;
const WIDTH: f64 = 520.0;
/// Characters of a class's name beside its row.
const NAME: usize = 14;

/// `name`, cut where it is too long to stand beside a row.
fn short(name: &str) -> String {
    if name.chars().count() <= NAME {
        return name.into();
    }
    name.chars().take(NAME - 1).collect::<String>().trim_end().to_string() + "…"
}

/// The heat map of one test set as a `<figure>`: one row per class, one column per predicted class, shares of the row.
pub(super) fn figure(id: &str, set: &TestSet, classes: &[String]) -> String {
    let names: Vec<String> = classes.iter().map(|c| short(c)).collect();
    let longest = names.iter().map(|n| n.chars().count()).max().unwrap_or(0) as f64;
    let left = 7.2 * longest + 10.0;
    let cell = (WIDTH - left - 4.0) / classes.len().max(1) as f64;
    // Rows keep room for a line of text, whatever the columns have.
    let row = cell.clamp(13.0, 30.0);
    let base = row * classes.len() as f64 + 2.0;
    let height = base + 6.2 * longest + 30.0;
    let counts = |class: u32| set.figures.per_class[class as usize].0.max(1);
    let share = |(class, _, n): (u32, u32, u32)| f64::from(n) / counts(class) as f64;
    let worst = set.figures.confusion.iter().copied().filter(|c| c.0 != c.1).max_by_key(|c| c.2);
    let worst = worst.map_or("No image is taken for another class.".into(), |(class, predicted, n)| {
        let (class, of) = (class as usize, counts(class));
        format!("Most often {} is taken for {}: {n} of {of} images.", classes[class], classes[predicted as usize])
    });
    let title = escape(&set.name);
    let mut out = format!(
        "<figure><figcaption><b>{title}</b></figcaption><svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
         aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">Confusion matrix on {title}</title><desc id=\"{id}-d\">One row \
         per class, one column per predicted class, in % of the row. {}</desc>",
        escape(&worst)
    );
    for (i, name) in names.iter().enumerate() {
        let (name, at) = (escape(name), i as f64 + 0.5);
        let (y, x) = (at * row + 2.0, left + at * cell);
        let _ = write!(
            out,
            "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{name}</text><text class=\"end\" transform=\"translate({:.1} \
             {:.1}) rotate(-60)\">{name}</text><path class=\"grid\" d=\"M{left:.1} {y:.1}H{:.1}\"/>",
            left - 6.0,
            y + 4.5,
            x + 4.0,
            base + 12.0,
            WIDTH - 4.0
        );
    }
    for &(class, predicted, n) in &set.figures.confusion {
        let p = share((class, predicted, n));
        let color = if class == predicted { 0 } else { 1 };
        let (x, y) = (left + f64::from(predicted) * cell, f64::from(class) * row + 2.0);
        // A single image in a thousand still shows.
        let _ = write!(
            out,
            "<rect class=\"bg\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{cell:.1}\" height=\"{row:.1}\"/><rect class=\"m{color}\" \
             opacity=\"{:.2}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{} taken for {}: {n} of \
             {}</title></rect>",
            0.12 + 0.88 * p,
            x + 0.5,
            y + 0.5,
            cell - 1.0,
            row - 1.0,
            escape(&classes[class as usize]),
            escape(&classes[predicted as usize]),
            counts(class)
        );
        if classes.len() <= NUMBERED {
            let on = if p > 0.6 { "mid on" } else { "mid ink" };
            let (x, y) = (x + cell / 2.0, y + row / 2.0 + 4.5);
            let _ = write!(out, "<text class=\"{on}\" x=\"{x:.1}\" y=\"{y:.1}\">{:.0}</text>", 100.0 * p);
        }
    }
    out + "</svg></figure>\n"
}

/// The pairs that are confused most, over all sets of a kind; empty where nothing is confused.
pub(super) fn pairs(sets: &[&TestSet], classes: &[String]) -> String {
    let groups = by_kind(sets);
    let mut images: Vec<Vec<usize>> = vec![vec![0; classes.len()]; groups.len()];
    let mut wrong: BTreeMap<(u32, u32), Vec<u64>> = BTreeMap::new();
    for (group, (_, members)) in groups.iter().enumerate() {
        for figures in members.iter().map(|s| &s.figures) {
            figures.per_class.iter().enumerate().for_each(|(class, (n, _))| images[group][class] += n);
            for &(class, predicted, n) in figures.confusion.iter().filter(|c| c.0 != c.1) {
                wrong.entry((class, predicted)).or_insert_with(|| vec![0; groups.len()])[group] += u64::from(n);
            }
        }
    }
    // A class of few images must not come first, so counts rank and shares are told.
    let mut ranked: Vec<_> =
        wrong.into_iter().map(|(pair, counts)| (counts.iter().sum::<u64>(), pair, counts)).collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    if ranked.is_empty() {
        return String::new();
    }
    let heads: String = groups.iter().map(|(title, _)| format!("<th scope=\"col\">{title} %</th>")).collect();
    let mut out = format!(
        "<div class=\"scroll\" tabindex=\"0\"><table><caption><span>The pairs confused most, of {}: images, and their share \
         of the true class</span></caption><thead><tr><th scope=\"col\" class=\"name\">Class</th><th scope=\"col\" \
         class=\"name\">taken for</th><th scope=\"col\">Images</th>{heads}</tr></thead><tbody>",
        integer(ranked.len() as u64)
    );
    for (total, (class, predicted), counts) in ranked.into_iter().take(PAIRS) {
        let _ = write!(
            out,
            "<tr><th scope=\"row\" class=\"name\">{}</th><td class=\"name\">{}</td><td>{}</td>",
            escape(&classes[class as usize]),
            escape(&classes[predicted as usize]),
            integer(total)
        );
        for (group, n) in counts.iter().enumerate() {
            let text = match images[group][class as usize] {
                0 => "–".into(),
                of => format!("{:.1}", 100.0 * *n as f64 / of as f64),
            };
            let _ = write!(out, "<td>{text}</td>");
        }
        out += "</tr>";
    }
    out + "</tbody></table></div>\n"
}

/// The sets of each kind that there are, under the kind's short title.
pub(super) fn by_kind<'a>(sets: &[&'a TestSet]) -> Vec<(&'static str, Vec<&'a TestSet>)> {
    [(Some(Distribution::Id), "ID"), (Some(Distribution::Ood), "OOD"), (None, "Test")]
        .into_iter()
        .map(|(kind, title)| (title, sets.iter().filter(|s| s.kind == kind).copied().collect::<Vec<_>>()))
        .filter(|(_, members)| !members.is_empty())
        .collect()
}
