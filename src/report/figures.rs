//! The part of the page about what a run's model gets wrong and how sure it is of it.

use super::evaluations::TestSet;
use super::read::Run;
use super::text::{escape, number};
use super::{classes, confusion, labels, reliability};

/// Figures that stand open; the others are folded away.
const RELIABILITIES: usize = 8;
const MATRICES: usize = 4;
const TABLES: usize = 2;
/// Cells of all confusion matrices together at most: each takes about 300 bytes of the page.
const CELLS: usize = 5000;

/// Reliability, accuracy by class and confusions under a heading of level `h`; ids start with `id`. Empty without test
/// sets.
pub(super) fn of_run(id: &str, run: &Run, h: &str) -> String {
    let (sets, names) = (run.evaluations.reported(), &run.evaluations.classes);
    let Some(first) = sets.first() else { return String::new() };
    let of_labels = first.figures.labels.is_some();
    let what = if of_labels { "How often labels are there that the" } else { "Accuracy of the" };
    let at = if of_labels { "give each probability" } else { "at each confidence" };
    let mut out = format!("<{h}>Confidence</{h}>\n<p>{what} {} weights {at}", first.model);
    out += &match first.figures.calibrated.as_ref().map(|c| c.temperature) {
        Some(t) => {
            let split = if run.setting("select").is_some_and(|s| !s.is_empty()) { "select" } else { "val" };
            format!(", as it is and with all logits divided by {}, which was fitted on {split}", number(t))
        }
        None => String::new(),
    };
    out += match of_labels {
        true => {
            ". On the diagonal a label is there as often as its probability says; below it the model is too sure. A mark's area, and \
             the bars, tell how many labels, of all images and classes.</p>\n"
        }
        false => {
            ". On the diagonal a model is as often right as it is sure; below it is too sure. A mark's area, and the bars, tell how \
             many images.</p>\n"
        }
    };
    let draw = |(nth, set): (usize, &&TestSet)| reliability::figure(&format!("{id}-rel{nth}"), set);
    out += &folded("charts small", sets.iter().enumerate().map(draw).collect(), RELIABILITIES);
    if of_labels {
        let tables = sets.iter().filter_map(|set| labels::table(set, names)).collect();
        return out + &format!("<{h}>Class by class</{h}>\n") + &folded("", tables, TABLES);
    }
    let (by_class, pairs) = (classes::table(&sets, names), confusion::pairs(&sets, names));
    out += &format!("<{h}>Right and wrong by class</{h}>\n{by_class}{pairs}");
    if (2..=confusion::MOST_CLASSES).contains(&names.len()) {
        out +=
            "<p>Rows are classes, columns what they are taken for, in % of the row: right ones on the diagonal.</p>\n";
        let mut cells = 0;
        let fits = |set: &&&TestSet| {
            cells += set.figures.confusion.len();
            cells <= CELLS
        };
        let drawn: Vec<&&TestSet> = sets.iter().take_while(fits).collect();
        let left: Vec<String> = sets[drawn.len()..].iter().map(|set| escape(&set.name)).collect();
        let draw = |(nth, set): (usize, &&&TestSet)| confusion::figure(&format!("{id}-conf{nth}"), set, names);
        out += &folded("charts", drawn.iter().enumerate().map(draw).collect(), MATRICES);
        if !left.is_empty() {
            out += &format!("<p>Left out, to keep the page small: {}.</p>\n", left.join(", "));
        }
    }
    out
}

/// `figures` in a grid, those after the first `open` folded away.
fn folded(class: &str, figures: Vec<String>, open: usize) -> String {
    let (shown, rest) = figures.split_at(open.min(figures.len()));
    let grid = |figures: &[String]| format!("<div class=\"{class}\">{}</div>\n", figures.concat());
    match rest.len() {
        0 => grid(shown),
        n => format!("{}<details><summary>{n} more</summary>{}</details>\n", grid(shown), grid(rest)),
    }
}
