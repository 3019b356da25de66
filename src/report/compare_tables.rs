//! The tables of a comparison's page: accuracies and costs, the grids, who saw which images.

use std::fmt::Write as _;
use std::path::Path;

use super::forest::signed;
use super::seen::{self, Split};
use super::text::{escape, integer, number};
use crate::compare::choice::{Choice, LEVEL, shown};
use crate::compare::results::{DataResults, EntryResults, Results, SetInfo, Summary};
use crate::compare::stats::Estimate;
use crate::compare::tables::{percent, time};
use crate::gpu::buffer::mib;
use crate::train::evaluate::Figure;

fn half(e: &Estimate) -> String {
    e.half.map(|half| format!("<small>± {:.1}</small>", 100.0 * half)).unwrap_or_default()
}

/// A column of accuracies: its head, and one cell per entry.
struct Column {
    head: String,
    cells: Vec<Option<Estimate>>,
    first: bool,
}

impl Column {
    fn new(data: &DataResults, head: String, first: bool, value: impl Fn(&Summary) -> Estimate) -> Column {
        let cells = data.entries.iter().map(|e| e.summary.as_ref().map(&value)).collect();
        Column { head, cells, first }
    }

    fn class(&self) -> &'static str {
        if self.first { " class=\"first\"" } else { "" }
    }

    /// The cell of entry `row`, in bold where it is the best.
    fn cell(&self, row: usize) -> String {
        let rounded = |e: &Estimate| (1000.0 * e.mean).round() as i64;
        let best = self.cells.iter().flatten().map(rounded).max();
        let Some(e) = &self.cells[row] else { return format!("<td{}>–</td>", self.class()) };
        let (open, close) = if best == Some(rounded(e)) { ("<b>", "</b>") } else { ("", "") };
        format!("<td{}>{open}{}{close}{}</td>", self.class(), percent(e.mean), half(e))
    }
}

fn open(out: &mut String, label: &str, caption: &str) {
    let _ = write!(
        out,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{label}\"><table class=\"acc\"><caption><span>{caption}\
         </span></caption><thead>"
    );
}

fn name(results: &Results, entry: &EntryResults) -> String {
    format!("<th scope=\"row\" class=\"name\">{}{}</th>", escape(&entry.name), below(results, entry))
}

/// The sets of one kind, by index.
fn sets(data: &DataResults, id: bool) -> impl Iterator<Item = (usize, &SetInfo)> {
    data.sets.iter().enumerate().filter(move |(_, s)| s.id == id)
}

/// What a mean is of, in a column's head: the one set, or how many.
fn mean_of(data: &DataResults, id: bool) -> String {
    let mut of = sets(data, id);
    match (of.next(), of.count()) {
        (Some((_, one)), 0) => format!("{}, n = {}", escape(&one.name), integer(one.images)),
        (_, more) => format!("{} sets", more + 1),
    }
}

/// One method per row: accuracies, differences, costs; the best of each accuracy in bold.
pub(super) fn main(results: &Results, data: &DataResults) -> String {
    let mut out = String::new();
    let reference = escape(&results.reference);
    open(
        &mut out,
        "Results",
        &format!(
            "{} in %, mean over seeds ± half the 95 % interval. Gains are points over {reference} with the same seed.",
            what(data)
        ),
    );
    let head = |title: &str, small: &str, first: bool| {
        let class = if first { " class=\"first\"" } else { "" };
        format!("<th scope=\"col\"{class}>{title}<small>{small}</small></th>")
    };
    let accuracies = [
        Column::new(data, head("ID", &mean_of(data, true), true), true, |s| s.id),
        Column::new(data, head("OOD", &mean_of(data, false), false), false, |s| s.ood),
    ];
    let heads = [
        accuracies[0].head.clone(),
        accuracies[1].head.clone(),
        head("ID gain", "points", true),
        head("OOD gain", "points", false),
        head("Effective", "robustness", false),
        head("Time", "a model", true),
        head("Memory", "planned", false),
        head("Runs", "to tune + report", false),
    ];
    let _ = write!(out, "<tr><th scope=\"col\" class=\"name\">Method</th>{}</tr></thead><tbody>", heads.concat());
    for (row, entry) in data.entries.iter().enumerate() {
        let _ = write!(out, "<tr>{}", name(results, entry));
        accuracies.iter().for_each(|column| out += &column.cell(row));
        let s = entry.summary.as_ref();
        let gains = [s.and_then(|s| s.id_gain), s.and_then(|s| s.ood_gain), s.and_then(|s| s.effective)];
        for (i, gain) in gains.iter().enumerate() {
            let text = gain.as_ref().map_or("–".into(), |e| signed(100.0 * e.mean) + &half(e));
            let _ = write!(out, "<td{}>{text}</td>", if i == 0 { " class=\"first\"" } else { "" });
        }
        let runs = match entry.kind {
            "pretrained" => "0".into(),
            _ => format!("{} + {}", entry.cost.tune, entry.cost.report),
        };
        let _ = write!(
            out,
            "<td class=\"first\">{}</td><td>{}</td><td>{runs}</td></tr>",
            entry.seconds.map_or("–".into(), time),
            entry.memory.map_or("–".into(), mib)
        );
    }
    out + "</tbody></table></div>\n"
}

/// What the numbers by test set are.
fn caption(data: &DataResults) -> String {
    format!("{} in % by test set, mean over seeds ± half the 95 % interval.", what(data))
}

fn what(data: &DataResults) -> &'static str {
    match Figure::of(data.multi_label) {
        Figure::Top1 => "Top-1 accuracy",
        Figure::Map => "Mean average precision (mAP)",
    }
}

/// One method per row, one test set per column; the best of each in bold.
pub(super) fn by_set(results: &Results, data: &DataResults) -> String {
    let mut out = String::new();
    open(&mut out, "Results by test set", &caption(data));
    let (ids, oods) = (sets(data, true).count(), sets(data, false).count());
    let mut columns = Vec::new();
    for id in [true, false] {
        for (nth, (i, set)) in sets(data, id).enumerate() {
            let class = if nth == 0 { " class=\"first\"" } else { "" };
            let head = format!(
                "<th scope=\"col\"{class}>{}<small>n = {}</small></th>",
                escape(&set.name),
                integer(set.images)
            );
            columns.push(Column::new(data, head, nth == 0, move |s| s.sets[i]));
        }
    }
    let _ = write!(
        out,
        "<tr><td></td><th colspan=\"{ids}\" scope=\"colgroup\" class=\"group\">ID</th><th colspan=\"{oods}\" \
         scope=\"colgroup\" class=\"group\">Out of distribution (OOD)</th></tr><tr><th scope=\"col\" \
         class=\"name\">Method</th>{}</tr></thead><tbody>",
        columns.iter().map(|c| c.head.as_str()).collect::<String>()
    );
    for (row, entry) in data.entries.iter().enumerate() {
        let cells: String = columns.iter().map(|c| c.cell(row)).collect();
        let _ = write!(out, "<tr>{}{cells}</tr>", name(results, entry));
    }
    out + "</tbody></table></div>\n"
}

/// What stands in small print below a method's name: its choice, and how many models it is a mean of where not all.
fn below(results: &Results, entry: &EntryResults) -> String {
    let mut parts: Vec<String> = Vec::new();
    match entry.chosen {
        Some(point) if !entry.points[point].label.is_empty() => parts.push(escape(&entry.points[point].label)),
        None => parts.push("every point of its grid failed".into()),
        _ => {}
    }
    if let Some(from) = &entry.from {
        parts.push(format!("of {}", escape(from)));
    }
    match &entry.models[..] {
        [one] if one.seed.is_none() => parts.push("one model".into()),
        [] => parts.push("no run has finished".into()),
        models if models.len() < results.seeds.len() => {
            parts.push(format!("{} of {} seeds", models.len(), results.seeds.len()));
        }
        _ => {}
    }
    if parts.is_empty() { String::new() } else { format!("<small>{}</small>", parts.join("; ")) }
}

/// The grid of each method that has one, folded away; empty where none has.
pub(super) fn grids(results: &Results, data: &DataResults) -> String {
    let mut out = String::new();
    for entry in data.entries.iter().filter(|e| e.points.len() > 1) {
        let chosen = entry.chosen.map_or("none could be chosen", |p| entry.points[p].label.as_str());
        let _ = write!(
            out,
            "<details><summary>{}: {}</summary><div class=\"scroll\" tabindex=\"0\"><table><caption><span>The first two columns of figures are \
             means over the tuning seeds, and decide the choice. What the models come to on the test sets, means over the seeds that all \
             points have, is shown for the reader alone.</span></caption><thead><tr><th scope=\"col\" class=\"name\">Point</th><th scope=\"col\">Rank</th>\
             <th scope=\"col\">{} {} %</th><th scope=\"col\">loss</th><th scope=\"col\">behind<small>{}</small></th><th scope=\"col\">p\
             <small>Holm</small></th><th scope=\"col\">ID %</th><th scope=\"col\">OOD %</th></tr></thead><tbody>",
            escape(&entry.name),
            escape(chosen),
            if data.uses.select.is_some() { "select" } else { "val" },
            Figure::of(data.multi_label).name(),
            entry.choice.as_ref().map_or("–", |choice| choice.figure)
        );
        for (i, point) in entry.points.iter().enumerate() {
            let (open, close) = if entry.chosen == Some(i) { ("<b>", "</b>") } else { ("", "") };
            let dash = || "–".to_string();
            let against = entry.choice.as_ref().and_then(|choice| Some((choice, choice.points[i]?)));
            let _ = write!(
                out,
                "<tr><th scope=\"row\" class=\"name\">{open}{}{close}{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
                 <td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&point.label),
                point.error.as_ref().map(|e| format!("<br><small>{}</small>", escape(e))).unwrap_or_default(),
                point.rank.map_or_else(dash, |rank| rank.to_string()),
                point.select.map_or_else(dash, |s| percent(s.main())),
                point.select.map_or_else(dash, |s| number(s.loss)),
                against.map_or_else(dash, |(choice, a)| match choice.figure {
                    "loss" => number(a.behind),
                    _ => percent(a.behind),
                }),
                against.map_or_else(dash, |(_, a)| escape(&shown(a.p))),
                point.accuracy.map_or_else(dash, |a| percent(a.0)),
                point.accuracy.map_or_else(dash, |a| percent(a.1)),
            );
        }
        out += "</tbody></table></div>";
        if let Some(choice) = &entry.choice {
            out += &how_sure(choice);
        }
        out += "</details>\n";
    }
    let notes = data.entries.iter().filter(|e| !e.note.is_empty());
    for entry in notes {
        let _ = writeln!(out, "<p><b>{}</b> is made of {}.</p>", escape(&entry.name), escape(&entry.note));
    }
    if out.is_empty() {
        return out;
    }
    let seeds: Vec<String> = results.seeds[..results.grid_seeds].iter().map(u64::to_string).collect();
    let seeds = format!("seed{} {}", if seeds.len() == 1 { "" } else { "s" }, seeds.join(", "));
    format!("<p>Grids were run with {seeds}, the chosen point then with all seeds.</p>\n{out}")
}

/// The tests of a choice, and their outcome.
fn how_sure(choice: &Choice) -> String {
    let (tested, near) = choice.counts();
    let untested = match choice.untested {
        0 => String::new(),
        n => format!("<p>{n} of its points could not be tested: see \u{201c}What to try next\u{201d}.</p>"),
    };
    if tested == 0 {
        return untested;
    }
    format!(
        "<p>Against the chosen point, on {} selection images: {}, p by Holm's correction for {tested}. At the {:.0} % level, {} of them \
         can't be told from it; {}.</p>{untested}",
        integer(choice.images as u64),
        choice.test,
        100.0 * LEVEL,
        if near == 0 { "none".into() } else { near.to_string() },
        choice.power().unwrap_or_default()
    )
}

/// Which images each number saw.
pub(super) fn uses(results: &Results, data: &DataResults, radii: &[String]) -> String {
    let uses = &data.uses;
    let mut splits = Vec::new();
    let mut add = |name: &str, path: &Path, images: usize, seen_by: &str| {
        let (name, path, seen_by) = (name.into(), path.display().to_string(), seen_by.into());
        splits.push(Split { name, path, images: Some(images as u64), seen_by });
    };
    add("train", &uses.train.0, uses.train.1, "weights");
    let mut choices = vec!["grid points, α, ingredients of greedy soups"];
    if results.weights == crate::train::records::Weights::Best {
        choices.push("the checkpoint of each run");
    }
    let choices = format!("choices: {}", choices.join(", "));
    let of_radii = if radii.is_empty() { "no radii".into() } else { format!("radii of {}", radii.join(", ")) };
    match &uses.select {
        Some((path, images)) => {
            add("val", &uses.val.0, uses.val.1, &of_radii);
            add("select", path, *images, &choices);
        }
        None => add("val", &uses.val.0, uses.val.1, &format!("{of_radii}; {choices}")),
    }
    for (name, path, images, id) in &uses.tests {
        add(name, path, *images, if *id { "reported only (ID)" } else { "reported only (OOD)" });
    }
    let mut out = seen::table(&splits);
    if uses.select.is_none() && !radii.is_empty() {
        out += seen::NOT_APART;
    }
    out + &seen::leaks(&uses.leaks)
}
