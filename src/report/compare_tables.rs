//! The tables of a comparison's page: accuracies and costs, the grids, who saw which images.

use std::fmt::Write as _;

use super::forest::signed;
use super::html::{escape, integer, number};
use crate::compare::results::{DataResults, EntryResults, Results};
use crate::compare::stats::Estimate;
use crate::gpu::buffer::mib;

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn half(e: &Estimate) -> String {
    e.half.map(|half| format!("<small>± {:.1}</small>", 100.0 * half)).unwrap_or_default()
}

/// Seconds as people read them.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 5940.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// A method a row; the best mean of each accuracy column in bold.
pub(super) fn main(results: &Results, data: &DataResults) -> String {
    let ids = data.sets.iter().filter(|s| s.id).count();
    let oods = data.sets.len() - ids;
    // Test sets in the file's order within each kind, then the mean.
    let order: Vec<usize> = [true, false]
        .into_iter()
        .flat_map(|id| data.sets.iter().enumerate().filter(move |(_, s)| s.id == id).map(|(i, _)| i))
        .collect();
    let width = |sets: usize| sets + usize::from(sets > 1);
    let mut out = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Results\"><table class=\"acc\"><caption><span>Top-1 \
         accuracy in %, mean over seeds ± half the 95 % interval; the best of each column in bold. Gains are in points over {} \
         with the same seed.</span></caption><thead><tr><td></td><th colspan=\"{}\" scope=\"colgroup\" class=\"group\">In \
         distribution (ID)</th><th colspan=\"{}\" scope=\"colgroup\" class=\"group\">Out of distribution (OOD)</th><th \
         colspan=\"3\" scope=\"colgroup\" class=\"group\">Over {}</th><th colspan=\"3\" scope=\"colgroup\" \
         class=\"group\">Cost</th></tr><tr><th scope=\"col\" class=\"name\">Method</th>",
        escape(&results.reference),
        width(ids),
        width(oods),
        escape(&results.reference)
    );
    let means = |first: bool, title: &str| {
        format!("<th scope=\"col\"{}>{title}</th>", if first { " class=\"first\"" } else { "" })
    };
    let mut heads: Vec<String> = order
        .iter()
        .enumerate()
        .map(|(nth, &i)| {
            let set = &data.sets[i];
            let class = if nth == 0 || nth == ids { " class=\"first\"" } else { "" };
            format!("<th scope=\"col\"{class}>{}<small>n = {}</small></th>", escape(&set.name), integer(set.images))
        })
        .collect();
    if oods > 1 {
        heads.push(means(false, "OOD mean"));
    }
    if ids > 1 {
        heads.insert(ids, means(false, "ID mean"));
    }
    heads.push(
        means(true, "ID gain")
            + &means(false, "OOD gain")
            + "<th scope=\"col\">Effective<small>robustness</small></th>",
    );
    heads.push(
        means(true, "Time<small>a model</small>")
            + &means(false, "Memory<small>planned</small>")
            + "<th scope=\"col\">Runs<small>to tune + report</small></th>",
    );
    out += &heads.concat();
    out += "</tr></thead><tbody>";
    // Accuracy cells of an entry in the columns' order.
    let cells = |entry: &EntryResults| -> Option<Vec<Estimate>> {
        let s = entry.summary.as_ref()?;
        let mut cells: Vec<Estimate> = order.iter().map(|i| s.sets[*i]).collect();
        if oods > 1 {
            cells.push(s.ood);
        }
        if ids > 1 {
            cells.insert(ids, s.id);
        }
        Some(cells)
    };
    let rounded = |e: &Estimate| (1000.0 * e.mean).round() as i64;
    let columns = width(ids) + width(oods);
    let best: Vec<Option<i64>> = (0..columns)
        .map(|c| data.entries.iter().filter_map(|e| cells(e).map(|cells| rounded(&cells[c]))).max())
        .collect();
    for entry in &data.entries {
        let _ =
            write!(out, "<tr><th scope=\"row\" class=\"name\">{}{}</th>", escape(&entry.name), below(results, entry));
        match cells(entry) {
            Some(cells) => {
                for (c, e) in cells.iter().enumerate() {
                    let (open, close) = if best[c] == Some(rounded(e)) { ("<b>", "</b>") } else { ("", "") };
                    let first = if c == 0 || c == width(ids) { " class=\"first\"" } else { "" };
                    let _ = write!(out, "<td{first}>{open}{}{close}{}</td>", percent(e.mean), half(e));
                }
            }
            None => out += &"<td>–</td>".repeat(columns),
        }
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
            "<details><summary>{}: {}</summary><div class=\"scroll\" tabindex=\"0\"><table><caption><span>Means over the tuning \
             seeds; the choice goes by the first two columns. What its models come to on the test sets is shown for the \
             reader alone.</span></caption><thead><tr><th scope=\"col\" class=\"name\">Point</th><th scope=\"col\">Rank</th>\
             <th scope=\"col\">{} top-1 %</th><th scope=\"col\">loss</th><th scope=\"col\">ID %</th><th scope=\"col\">OOD \
             %</th></tr></thead><tbody>",
            escape(&entry.name),
            escape(chosen),
            if data.uses.select.is_some() { "select" } else { "val" }
        );
        for (i, point) in entry.points.iter().enumerate() {
            let (open, close) = if entry.chosen == Some(i) { ("<b>", "</b>") } else { ("", "") };
            let dash = || "–".to_string();
            let _ = write!(
                out,
                "<tr><th scope=\"row\" class=\"name\">{open}{}{close}{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
                 <td>{}</td></tr>",
                escape(&point.label),
                point.error.as_ref().map(|e| format!("<br><small>{}</small>", escape(e))).unwrap_or_default(),
                point.rank.map_or_else(dash, |rank| rank.to_string()),
                point.select.map_or_else(dash, |s| percent(s.top1)),
                point.select.map_or_else(dash, |s| number(s.loss)),
                point.accuracy.map_or_else(dash, |a| percent(a.0)),
                point.accuracy.map_or_else(dash, |a| percent(a.1)),
            );
        }
        out += "</tbody></table></div></details>\n";
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

/// Which images each number saw.
pub(super) fn uses(results: &Results, data: &DataResults, radii: &[String]) -> String {
    let uses = &data.uses;
    let mut rows = String::new();
    let mut row = |split: &str, path: &std::path::Path, images: usize, seen: &str| {
        let _ = write!(
            rows,
            "<tr><th scope=\"row\" class=\"name\">{}</th><td>{}</td><td class=\"name\">{}</td><td class=\"name\"><code>{}</code>\
             </td></tr>",
            escape(split),
            integer(images as u64),
            escape(seen),
            escape(&path.display().to_string())
        );
    };
    row("train", &uses.train.0, uses.train.1, "weights");
    let mut choices = vec!["grid points, α, ingredients of greedy soups"];
    if results.weights == crate::compare::config::Weights::Best {
        choices.push("the checkpoint of each run");
    }
    let choices = format!("choices: {}", choices.join(", "));
    let of_radii = if radii.is_empty() { "no radii".into() } else { format!("radii of {}", radii.join(", ")) };
    match &uses.select {
        Some((path, images)) => {
            row("val", &uses.val.0, uses.val.1, &of_radii);
            row("select", path, *images, &choices);
        }
        None => row("val", &uses.val.0, uses.val.1, &format!("{of_radii}; {choices}")),
    }
    for (name, path, images, id) in &uses.tests {
        row(name, path, *images, if *id { "reported only (ID)" } else { "reported only (OOD)" });
    }
    let mut out = format!(
        "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\" class=\"name\">Images</th><th \
         scope=\"col\">n</th><th scope=\"col\" class=\"name\">seen by</th><th scope=\"col\" class=\"name\">where</th></tr>\
         </thead><tbody>{rows}</tbody></table></div>\n"
    );
    if uses.select.is_none() && !radii.is_empty() {
        out += "<p class=\"warn\">Radii and choices share the validation images: what radii were fitted to also judges them. \
                A <code>select</code> split keeps the two apart.</p>\n";
    }
    if uses.leaks.is_empty() {
        out += "<p>No image, by content, is in two of train, val, select and the test sets.</p>\n";
    }
    for leak in &uses.leaks {
        let _ = writeln!(out, "<p class=\"warn\"><b>Leak</b>: {}</p>", escape(leak));
    }
    out
}
