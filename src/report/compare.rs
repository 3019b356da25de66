//! The page about a comparison: what stands where, and the sentences.

use std::cmp::Ordering;
use std::fmt::Write as _;

use super::about;
use super::augmented;
use super::compare_depth::{self, Depth};
use super::compare_tables as tables;
use super::forest::{self, signed};
use super::gallery;
use super::html::STYLE;
use super::label_gallery;
use super::scatter::{Curve, Mark, Scatter, without_far};
use super::seen;
use super::text::{escape, number};
use crate::compare::results::{DataResults, EntryResults, Results, Summary};
use crate::compare::stats::Estimate;
use crate::data::FOLD;
use crate::error::Result;
use crate::train::evaluate::Figure;
use crate::train::records::{Session, Weights};

/// Bytes of all images with answers at most.
const GALLERY: usize = 3_000_000;

/// The page about `results`.
///
/// # Errors
/// Where a run directory can't be read.
pub(super) fn page(results: &Results) -> Result<String> {
    let title = escape(&results.title);
    let mut body = format!("<h1>{title}</h1>\n{}", opening(results));
    let depths = results.data.iter().map(compare_depth::read).collect::<Result<Vec<_>>>()?;
    let sessions: Vec<Session> = depths.iter().flatten().flat_map(|depth| depth.sessions.clone()).collect();
    let facts = about::facts(&sessions, depths.iter().flatten().map(Depth::count).sum());
    if !facts.is_empty() {
        let _ =
            write!(body, "<h2>How it was made</h2>\n<p>Of the reported runs, without those of the grids.</p>\n{facts}");
    }
    let room = GALLERY / results.data.len().max(1);
    for (i, (data, depths)) in results.data.iter().zip(&depths).enumerate() {
        if results.data.len() > 1 {
            let _ = write!(body, "<section><h2>Data set {}</h2>", escape(&data.name));
            body += &section(&format!("d{i}"), results, data, depths, room);
            body += "</section>\n";
        } else {
            body += "<h2>Results</h2>\n";
            body += &section("d0", results, data, depths, room);
        }
    }
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    ))
}

fn opening(results: &Results) -> String {
    let seeds: Vec<String> = results.seeds.iter().map(u64::to_string).collect();
    let weights = match results.weights {
        Weights::Pretrained => "the pre-trained weights",
        Weights::Last => "the weights after the last step",
        Weights::Best => "the weights of each run's best evaluation on the selection images",
    };
    let several = if seeds.len() == 1 { "" } else { "s" };
    let mut out = format!(
        "<p>Seed{several} {}; {weights} are compared. Learning rates and other settings were chosen on validation images alone. \
         Run on {}.</p>\n",
        seeds.join(", "),
        escape(&results.adapter)
    );
    if let Some(folds) = results.folds {
        let _ = writeln!(
            out,
            "<p>Cross-validation: the training images are divided into {folds} folds. The run with seed K holds fold K out, learns from the \
             others, and is tested on it (<i>{FOLD}</i>). Differences are taken fold by fold.</p>"
        );
    }
    if seeds.len() == 1 {
        out += "<p class=\"warn\">One seed says nothing about chance: no difference here has an interval.</p>\n";
    }
    for (name, error) in &results.failures {
        let _ = writeln!(out, "<p class=\"warn\"><b>Failed</b>: {}: {}</p>", escape(name), escape(error));
    }
    out
}

/// Images with the answers of the reference, and of the method that is best out of distribution: all, or the mistakes alone, if those
/// of each take less than half of `room` bytes.
fn answers(results: &Results, data: &DataResults, depths: &[Depth], (h, room): (&str, usize)) -> String {
    let ood = |name: &str| data.entries.iter().find(|e| e.name == name)?.summary.as_ref().map(|s| s.ood.mean);
    let others = depths.iter().filter(|d| d.name() != results.reference && ood(d.name()).is_some());
    let best = others.max_by(|a, b| ood(a.name()).partial_cmp(&ood(b.name())).unwrap_or(Ordering::Equal));
    let reference = depths.iter().find(|d| d.name() == results.reference);
    let mut out = String::new();
    for depth in [reference, best].into_iter().flatten() {
        let (mistakes, others) = match (&depth.run.examples, &depth.run.label_examples) {
            (Some(examples), _) => (gallery::mistakes(examples, "h4"), gallery::others(examples)),
            (_, Some(examples)) => (label_gallery::mistakes(examples, "h4"), label_gallery::others(examples)),
            _ => continue,
        };
        let shown = [mistakes.clone() + &others, mistakes].into_iter().find(|shown| shown.len() <= room / 2);
        match shown {
            Some(shown) => {
                let _ = write!(out, "<h3>{}</h3>\n{shown}", escape(&depth.first()));
            }
            None => {
                let name = escape(&depth.first());
                let _ = writeln!(
                    out,
                    "<p>The images of {name} are left out, to keep the page small: its own page has them.</p>"
                );
            }
        }
    }
    let title = if data.multi_label { "Labels that the models give" } else { "What the models take images for" };
    if out.is_empty() { out } else { format!("<{h}>{title}</{h}>\n{out}") }
}

fn section(id: &str, results: &Results, data: &DataResults, depths: &[Depth], room: usize) -> String {
    let h = if results.data.len() > 1 { "h3" } else { "h2" };
    let mut out = String::new();
    if data.multi_label {
        out += "<p>Images may have any number of labels here: what this page calls accuracy is mean average precision (mAP).</p>\n";
    }
    if let Some(views) = data.views() {
        let _ = writeln!(
            out,
            "<p>On the test sets, all models answered to several views of each image (<code>--tta {}</code>).</p>",
            escape(views)
        );
    }
    out += &verdict(results, data);
    out += &tables::main(results, data);
    if !data.advice.is_empty() {
        let items: String = data.advice.iter().map(|what| format!("<li>{}</li>", escape(what))).collect();
        let _ = writeln!(out, "<{h}>What to try next</{h}>\n<ul class=\"next\">{items}</ul>");
    }
    let _ = writeln!(out, "<{h}>In against out of distribution</{h}>");
    out += &format!("<div class=\"charts\">{}{}</div>\n", scatters(id, data), forests(id, results, data));
    out += &baseline(results, data);
    let _ = writeln!(out, "<{h}>By test set</{h}>");
    if !data.groups.is_empty() {
        let groups: Vec<String> = data.groups.iter().map(|g| group(g)).collect();
        let _ = writeln!(out, "<p>These count once in the OOD mean: {}.</p>", groups.join("; "));
    }
    out += &tables::by_set(results, data);
    out += &answers(results, data, depths, (h, room));
    let _ = writeln!(out, "<{h}>Radius and drift by depth</{h}>");
    out += &compare_depth::section(id, results, depths);
    let _ = writeln!(out, "<{h}>Chosen settings</{h}>");
    out += &tables::grids(results, data);
    let _ = writeln!(out, "<{h}>Which images each number saw</{h}>");
    let radii: Vec<String> = depths.iter().filter(|d| d.learns_radii).map(|d| d.name().to_string()).collect();
    out += &tables::uses(results, data, &radii);
    if let Some(depth) = depths.iter().find(|depth| !depth.run.data.is_empty()) {
        let _ = write!(out, "<{h}>What the images are</{h}>\n{}", seen::contents(&depth.run.data));
    }
    if let Some(depth) = depths.iter().find(|depth| !depth.run.shown.is_empty()) {
        let images = augmented::images(&depth.run, &escape(&depth.first()));
        let _ = write!(out, "<{h}>Training images as the model gets them</{h}>\n{images}");
    }
    out
}

/// Which methods differ from the reference by more than chance over seeds explains.
fn verdict(results: &Results, data: &DataResults) -> String {
    let gains = |gain: fn(&Summary) -> Option<Estimate>| -> Vec<(&str, Estimate)> {
        let of = |e: &'_ EntryResults| e.summary.as_ref().and_then(gain);
        data.entries.iter().filter_map(|e| Some((e.name.as_str(), of(e)?))).collect()
    };
    let mut sentences = Vec::new();
    for (word, gains) in [("OOD", gains(|s| s.ood_gain)), ("ID", gains(|s| s.id_gain))] {
        let sure: Vec<&(&str, Estimate)> = gains.iter().filter(|(_, e)| e.half.is_some()).collect();
        let list = |sign: f64| -> Vec<String> {
            let clear = sure.iter().filter(|(_, e)| sign * e.mean > e.half.unwrap_or(f64::INFINITY));
            clear.map(|(name, e)| format!("{} ({})", escape(name), signed(100.0 * e.mean))).collect()
        };
        let (up, down) = (list(1.0), list(-1.0));
        if sure.is_empty() {
            continue;
        }
        let say = |names: &[String], how: &str| match names {
            [] => None,
            names => Some(format!("{how} {}", names.join(", "))),
        };
        let parts: Vec<String> = [say(&up, "better:"), say(&down, "worse:")].into_iter().flatten().collect();
        let rest = sure.len() - up.len() - down.len();
        let rest = match (rest, parts.is_empty()) {
            (0, _) => String::new(),
            (n, true) => format!("none of {n} methods differs by more than chance over seeds explains"),
            (n, false) => format!("; {n} more can't be told apart from it"),
        };
        sentences.push(format!("{word}: {}{rest}.", parts.join("; ")));
    }
    if sentences.is_empty() {
        return String::new();
    }
    format!(
        "<p>Against <b>{}</b>, by paired differences whose 95 % interval leaves out zero: {}</p>\n",
        escape(&results.reference),
        sentences.join(" ")
    )
}

fn points(e: &Estimate) -> (f64, Option<f64>) {
    (100.0 * e.mean, e.half.map(|half| 100.0 * half))
}

fn scatters(id: &str, data: &DataResults) -> String {
    let mut marks = Vec::new();
    let mut curves = Vec::new();
    for (style, entry) in data.entries.iter().enumerate() {
        let Some(s) = &entry.summary else { continue };
        let ((x, half_x), (y, half_y)) = (points(&s.id), points(&s.ood));
        let models = if entry.models.len() > 1 {
            entry.models.iter().map(|m| (100.0 * m.id, 100.0 * m.ood)).collect()
        } else {
            Vec::new()
        };
        marks.push(Mark { label: entry.name.clone(), at: (x, y), half: (half_x, half_y), models, style });
        if ["wise", "lines"].contains(&entry.kind) {
            let mut points: Vec<(f64, f64)> =
                entry.points.iter().filter_map(|p| p.accuracy).map(|a| (100.0 * a.0, 100.0 * a.1)).collect();
            points.dedup();
            if points.len() > 1 {
                curves.push(Curve { label: format!("{}, every α", entry.name), points, style: Some(style) });
            }
        }
    }
    if let Some(fit) = &data.baseline {
        let line = |i: i32| (f64::from(i) * 0.5, 100.0 * fit.expected(f64::from(i) / 200.0));
        curves.push(Curve { label: "expected from ID".into(), points: (2..=198).map(line).collect(), style: None });
    }
    let figure = Figure::of(data.multi_label).name();
    let whole = Scatter {
        id: format!("{id}-scatter"),
        title: "ID and OOD accuracy".into(),
        marks: marks.clone(),
        curves: curves.clone(),
        whole_curves: true,
        figure,
    };
    let mut out = whole.figure();
    let near = without_far(&marks);
    if near.len() > 1 && near.len() < marks.len() {
        let far = marks.iter().filter(|m| near.iter().all(|n| n.label != m.label)).map(|m| m.label.as_str());
        let close = Scatter {
            id: format!("{id}-close"),
            title: format!("Closer, without {}", far.collect::<Vec<_>>().join(", ")),
            marks: near,
            curves,
            whole_curves: false,
            figure,
        };
        out += &close.figure();
    }
    out
}

fn forests(id: &str, results: &Results, data: &DataResults) -> String {
    let rows = |value: fn(&Summary) -> Option<Estimate>| -> Vec<forest::Row> {
        let of = |(style, entry): (usize, &EntryResults)| {
            let (mean, half) = points(&value(entry.summary.as_ref()?)?);
            Some((entry.name.clone(), mean, half, style))
        };
        data.entries.iter().enumerate().filter_map(of).collect()
    };
    let over = format!("points over {}, same seeds, with 95 % interval", results.reference);
    [
        forest::figure(&format!("{id}-ood"), "OOD gain", &over, &rows(|s| s.ood_gain)),
        forest::figure(&format!("{id}-id"), "ID gain", &over, &rows(|s| s.id_gain)),
        forest::figure(
            &format!("{id}-eff"),
            "Effective robustness",
            "points of OOD accuracy above what ID accuracy explains",
            &rows(|s| s.effective),
        ),
    ]
    .concat()
}

/// The sets of a group; a long one, such as of corrupted copies, by its ends.
fn group(sets: &[String]) -> String {
    match sets {
        [first, .., last] if sets.len() > 4 => format!("{} to {} ({} sets)", escape(first), escape(last), sets.len()),
        few => escape(&few.join(" with ")),
    }
}

/// What effective robustness is measured against, and how far that can be trusted.
fn baseline(results: &Results, data: &DataResults) -> String {
    let Some(fit) = &data.baseline else {
        return "<p>Effective robustness needs plain models of at least two different ID accuracies: there are none here.</p>\n"
            .into();
    };
    let mut out = format!(
        "<p>Effective robustness (Taori et al. 2020) is OOD accuracy minus the OOD accuracy expected at a model's ID accuracy: a straight \
         line between the logits of both, fitted to {} plain models (the pre-trained one where it has a head for these classes, \
         and every run of {}, all points of its grid and all seeds) with ID accuracies from {:.1} to {:.1} %: logit(OOD) = \
         {} · logit(ID) {} {}, R² = {:.2}.",
        fit.n,
        escape(&results.reference),
        100.0 * fit.range.0,
        100.0 * fit.range.1,
        number(fit.slope),
        if fit.intercept < 0.0 { "−" } else { "+" },
        number(fit.intercept.abs()),
        fit.r2
    );
    let (lo, hi) = fit.range;
    let outside: Vec<String> = data
        .entries
        .iter()
        .filter(|e| e.summary.as_ref().is_some_and(|s| s.id.mean < lo || s.id.mean > hi))
        .map(|e| escape(&e.name))
        .collect();
    if !outside.is_empty() {
        let _ = write!(out, " Beyond that range the line is extrapolated: {}.", outside.join(", "));
    }
    out += "</p>\n";
    if fit.slope <= 0.0 {
        out += "<p class=\"warn\">The line falls: among these plain models, more ID accuracy went with less on the OOD sets. It \
                is then no law that relates the two, and effective robustness is only the distance from it.</p>\n";
    } else if fit.n < 5 || fit.r2 < 0.5 {
        out += "<p class=\"warn\">Few models, or a loose fit: read effective robustness with care.</p>\n";
    }
    out
}
