//! The page's tables: ID/OOD accuracy, its details, radius and drift per tensor, and the configuration.

use std::fmt::Write as _;

use super::read::Run;
use super::tensors::Tensor;
use super::text::{escape, integer, number};
use crate::train::records::{Distribution, EvaluationLine, Weights};

/// One model of the accuracy tables.
pub(super) struct Model<'a> {
    name: String,
    /// What a reader must know to read the numbers right; may be empty.
    note: String,
    evals: Vec<&'a EvaluationLine>,
}

impl Model<'_> {
    fn get(&self, set: &str) -> Option<&EvaluationLine> {
        // The last of equals: a run that was resumed at its very end evaluates twice.
        self.evals.iter().rev().find(|e| e.set == set).copied()
    }

    fn same_numbers(&self, other: &Self) -> bool {
        let key = |m: &Self| -> Vec<_> {
            let mut all: Vec<_> =
                m.evals.iter().map(|e| (e.set.clone(), e.main().map(f64::to_bits), e.images)).collect();
            all.sort();
            all
        };
        key(self) == key(other)
    }
}

/// The pre-trained model (once, where the runs agree about it), then each run's models.
pub(super) fn models(runs: &[Run]) -> Vec<Model<'_>> {
    let mut out: Vec<Model<'_>> = Vec::new();
    for run in runs {
        let evals: Vec<&EvaluationLine> = run.evals.iter().filter(|e| e.is_baseline()).collect();
        let model = Model { name: "pre-trained".into(), note: String::new(), evals };
        if !model.evals.is_empty() && !out.iter().any(|m| m.same_numbers(&model)) {
            out.push(model);
            if out.len() > 1 {
                out.iter_mut().for_each(|m| m.note = "pre-trained models or data differ".into());
                let last = out.len() - 1;
                out[last].name = format!("pre-trained ({})", run.name);
            }
        }
    }
    for run in runs {
        let finals: Vec<&EvaluationLine> = run.evals.iter().filter(|e| e.is_final && !e.is_baseline()).collect();
        let mut weights: Vec<Option<Weights>> = Vec::new();
        for e in &finals {
            if !weights.contains(&e.model) {
                weights.push(e.model);
            }
        }
        weights.sort(); // the best before the last
        for which in &weights {
            let evals: Vec<&EvaluationLine> = finals.iter().filter(|e| e.model == *which).copied().collect();
            let note = which.map(|w| format!("{w} weights")).unwrap_or_default();
            out.push(Model { name: run.name.clone(), note, evals });
        }
        let evals: Vec<&EvaluationLine> = run.evals.iter().filter(|e| !e.is_baseline()).collect();
        if let (true, Some(last)) = (finals.is_empty(), evals.iter().map(|e| e.step).max()) {
            out.push(Model { name: run.name.clone(), note: format!("not finished: step {}", integer(last)), evals });
        }
    }
    out
}

/// A test set with its kind and, where all models saw the same number of images, that number.
struct Column {
    set: String,
    kind: Option<Distribution>,
    images: Option<u64>,
}

fn columns(models: &[Model<'_>]) -> Vec<Column> {
    let mut out: Vec<Column> = Vec::new();
    for e in models.iter().flat_map(|m| &m.evals).filter(|e| e.set != "val") {
        match out.iter_mut().find(|c| c.set == e.set) {
            Some(column) => column.kind = column.kind.or(e.kind),
            None => out.push(Column { set: e.set.clone(), kind: e.kind, images: None }),
        }
    }
    for column in &mut out {
        let mut counts = models.iter().filter_map(|m| m.get(&column.set)).map(|e| e.images);
        let first = counts.next().flatten();
        column.images = first.filter(|_| counts.all(|n| n == first));
    }
    out
}

/// A share in percent with its standard error, √(p(1−p)/n).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Percent {
    value: f64,
    error: Option<f64>,
    images: Option<u64>,
}

fn percent(eval: Option<&EvaluationLine>) -> Option<Percent> {
    let eval = eval?;
    let p = eval.main().filter(|p| p.is_finite())?;
    // A mean of average precisions is no share of the images.
    let error = eval
        .images
        .filter(|n| *n > 0 && !eval.is_multi_label())
        .map(|n| 100.0 * (p * (1.0 - p)).max(0.0).sqrt() / (n as f64).sqrt());
    Some(Percent { value: 100.0 * p, error, images: eval.images })
}

/// The mean over sets, known only where all are; the sets' errors are independent.
fn mean(parts: &[Option<Percent>]) -> Option<Percent> {
    let count = parts.len() as f64;
    let value = parts.iter().map(|p| p.map(|p| p.value)).sum::<Option<f64>>()? / count;
    let squares = parts.iter().map(|p| p.and_then(|p| p.error).map(|e| e * e)).sum::<Option<f64>>();
    Some(Percent { value, error: squares.map(|s| s.sqrt() / count), images: None })
}

/// The run's own results in words: mean top-1 over its ID and its OOD sets, and of which weights; empty without any.
pub(super) fn in_words(run: &Run) -> String {
    let models = models(std::slice::from_ref(run));
    let Some(model) = models.iter().find(|m| m.evals.iter().all(|e| !e.is_baseline())) else { return String::new() };
    let sets = columns(&models);
    let of_kind = |kind: Distribution, word: &str| {
        let parts: Vec<_> = sets.iter().filter(|c| c.kind == Some(kind)).map(|c| percent(model.get(&c.set))).collect();
        let mean = mean(&parts).filter(|_| !parts.is_empty())?;
        let of = if parts.len() > 1 { format!(" (mean of {} sets)", parts.len()) } else { String::new() };
        Some(format!("{word} <b>{:.1} %</b>{of}", mean.value))
    };
    let both: Vec<String> =
        [of_kind(Distribution::Id, "ID"), of_kind(Distribution::Ood, "OOD")].into_iter().flatten().collect();
    let weights = if model.note.is_empty() { String::new() } else { format!(" ({})", escape(&model.note)) };
    let figure = run.figure().name();
    if both.is_empty() { String::new() } else { format!(" Test {figure}{weights}: {}.", both.join(", ")) }
}

/// Whether images may have any number of labels.
fn has_labels(models: &[Model<'_>]) -> bool {
    models.iter().flat_map(|m| &m.evals).any(|e| e.is_multi_label())
}

/// Top-1, or mAP, of each model on each test set with the means over ID and OOD sets; empty without test sets.
pub(super) fn accuracy(models: &[Model<'_>]) -> String {
    let sets = columns(models);
    if sets.is_empty() {
        return String::new();
    }
    let kinds = [
        (Some(Distribution::Id), "In distribution (ID)", "ID mean"),
        (Some(Distribution::Ood), "Out of distribution (OOD)", "OOD mean"),
        (None, "Test sets", ""),
    ];
    let (mut groups, mut heads, mut cells) = (String::new(), String::new(), Vec::new());
    for (kind, title, mean_title) in kinds {
        let group: Vec<&Column> = sets.iter().filter(|c| c.kind == kind).collect();
        if group.is_empty() {
            continue;
        }
        let with_mean = kind.is_some() && group.len() > 1;
        let width = group.len() + usize::from(with_mean);
        let _ = write!(groups, "<th colspan=\"{width}\" scope=\"colgroup\" class=\"group\">{title}</th>");
        let mut parts: Vec<Vec<Option<Percent>>> = Vec::new();
        for (nth, column) in group.iter().enumerate() {
            let images = column.images.map(|n| format!("<small>n = {}</small>", integer(n))).unwrap_or_default();
            let first = if nth == 0 { " class=\"first\"" } else { "" };
            let _ = write!(heads, "<th scope=\"col\"{first}>{}{images}</th>", escape(&column.set));
            parts.push(models.iter().map(|m| percent(m.get(&column.set))).collect());
            cells.push((parts[nth].clone(), column.images.is_none(), nth == 0));
        }
        if with_mean {
            let _ = write!(heads, "<th scope=\"col\" class=\"mean\">{mean_title}</th>");
            let of_model = |row: usize| mean(&parts.iter().map(|p| p[row]).collect::<Vec<_>>());
            cells.push(((0..models.len()).map(of_model).collect(), false, false));
        }
    }
    let mut out = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Accuracy table\"><table class=\"acc\">\
         <caption><span>{}; the best of each column in bold</span></caption>\
         <thead><tr><td></td>{groups}</tr><tr><th scope=\"col\" class=\"name\">Model</th>{heads}</tr></thead><tbody>",
        match has_labels(models) {
            true => "Mean average precision (mAP) in %",
            false => "Top-1 accuracy in %, ± one standard error",
        }
    );
    for (row, model) in models.iter().enumerate() {
        let _ = write!(out, "<tr>{}", name_cell(model));
        for (column, with_images, first) in &cells {
            let rounded = |p: &Option<Percent>| p.map(|p| (10.0 * p.value).round() as i64);
            let known = column.iter().flatten().count();
            let best =
                known > 1 && column[row].is_some() && rounded(&column[row]) == column.iter().filter_map(rounded).max();
            let class = if *first { " class=\"first\"" } else { "" };
            let Some(p) = column[row] else {
                let _ = write!(out, "<td{class}>–</td>");
                continue;
            };
            let (open, close) = if best { ("<b>", "</b>") } else { ("", "") };
            let error = p.error.map(|e| format!("<small>± {e:.1}</small>")).unwrap_or_default();
            let images = p.images.filter(|_| *with_images);
            let images = images.map(|n| format!("<small>n = {}</small>", integer(n))).unwrap_or_default();
            let _ = write!(out, "<td{class}>{open}{:.1}{close}{error}{images}</td>", p.value);
        }
        out.push_str("</tr>");
    }
    out + "</tbody></table></div>\n"
}

fn name_cell(model: &Model<'_>) -> String {
    let note = if model.note.is_empty() { String::new() } else { format!(" <small>{}</small>", escape(&model.note)) };
    format!("<th scope=\"row\" class=\"name\">{}{note}</th>", escape(&model.name))
}

/// Every number of the final evaluations, `val` among them.
pub(super) fn details(models: &[Model<'_>]) -> String {
    let of_labels = has_labels(models);
    let (title, heads) = match of_labels {
        true => (
            "Loss, F1 and calibration",
            "<th>mAP %</th><th>Micro F1 %</th><th>Macro F1 %</th><th>Exact %</th><th>Micro F1 % at own thresholds</th><th>Macro F1 \
             % at own</th><th>Exact % at own</th>",
        ),
        false => {
            ("Loss, top-5 and calibration", "<th>Top-1 %</th><th>Top-5 %</th><th>Balanced %</th><th>Macro F1 %</th>")
        }
    };
    let mut out = format!(
        "<details><summary>{title}</summary><div class=\"scroll\" tabindex=\"0\"><table>\
         <thead><tr><th class=\"name\">Model</th><th class=\"name\">Data</th><th>Images</th><th>Loss</th>\
         {heads}<th>Brier</th><th>ECE %</th>"
    );
    // The temperature is fitted on the split that chose the weights.
    let calibrated = models.iter().flat_map(|m| &m.evals).any(|e| e.calibrated.is_some());
    out += if calibrated { "<th>Temperature</th><th>ECE % at it</th><th>Loss at it</th>" } else { "" };
    out += "</tr></thead><tbody>";
    for model in models {
        let mut sets: Vec<&str> = Vec::new();
        for e in &model.evals {
            if !sets.contains(&e.set.as_str()) {
                sets.push(&e.set);
            }
        }
        for e in sets.iter().filter_map(|set| model.get(set)) {
            let text = |v: Option<f64>| v.map_or("–".into(), number);
            let share =
                |v: Option<f64>| v.filter(|v| v.is_finite()).map_or("–".into(), |v| format!("{:.1}", 100.0 * v));
            let images = e.images.map_or("–".into(), integer);
            let own = e.at_own.as_ref();
            let shares = match of_labels {
                true => vec![
                    e.map,
                    e.micro_f1,
                    e.macro_f1,
                    e.exact,
                    own.map(|own| own.micro_f1),
                    own.map(|own| own.macro_f1),
                    own.map(|own| own.exact),
                ],
                false => vec![e.top1, e.top5, e.balanced, e.macro_f1],
            };
            let shares: String = shares.into_iter().map(|v| format!("<td>{}</td>", share(v))).collect();
            let _ = write!(
                out,
                "<tr>{}<td class=\"name\">{}</td><td>{images}</td><td>{}</td>{shares}<td>{}</td><td>{}</td>",
                name_cell(model),
                escape(&e.set),
                text(e.loss),
                text(e.brier),
                share(e.ece)
            );
            if calibrated {
                let [t, loss, ece] =
                    e.temperature.zip(e.calibrated).map_or([None; 3], |(t, c)| [t, c.loss, c.ece].map(Some));
                let _ = write!(out, "<td>{}</td><td>{}</td><td>{}</td>", text(t), share(ece), text(loss));
            }
            out += "</tr>";
        }
    }
    out + "</tbody></table></div></details>\n"
}

/// Maps values to bar lengths in percent, on a logarithmic scale where they span more than a factor of 30.
struct Scale {
    low: f64,
    high: f64,
    log: bool,
}

impl Scale {
    fn fit(values: impl Iterator<Item = f64>) -> Self {
        let positive = values.filter(|v| v.is_finite() && *v > 0.0);
        let (low, high) = positive.fold((f64::INFINITY, 0.0_f64), |(lo, hi), v| (lo.min(v), hi.max(v)));
        // A little below the smallest, so that every value has a bar.
        if high > 30.0 * low { Self { low: low / 1.5, high, log: true } } else { Self { low: 0.0, high, log: false } }
    }

    fn length(&self, v: f64) -> f64 {
        let share =
            if self.log { (v.max(self.low) / self.low).ln() / (self.high / self.low).ln() } else { v / self.high };
        if share.is_finite() { (100.0 * share).clamp(0.0, 100.0) } else { 0.0 }
    }

    fn title(&self) -> String {
        // Two digits are enough to read a bar by.
        let round = |v: f64| format!("{v:.1e}").parse().map_or_else(|_| number(v), number);
        let (low, high) = (round(self.low), round(self.high));
        if self.log { format!("log bar, {low} to {high}") } else { format!("bar from 0 to {high}") }
    }
}

fn bar(scale: &Scale, value: f64, behind: Option<f64>) -> String {
    let rect =
        |class: &str, v: f64| format!("<rect class=\"{class}\" width=\"{:.1}%\" height=\"9\"/>", scale.length(v));
    let behind = behind.map(|v| rect("b1", v)).unwrap_or_default();
    let bar = rect("b0", value);
    format!(
        "<td class=\"bar\"><svg height=\"9\" aria-hidden=\"true\">{behind}{bar}</svg></td><td>{}</td>",
        number(value)
    )
}

/// One row per tensor with its radius and drift, grouped by block; empty where neither is known.
pub(super) fn layers(tensors: &[Tensor]) -> String {
    if tensors.is_empty() {
        return String::new();
    }
    let radius = Scale::fit(tensors.iter().filter_map(|t| t.radius).flat_map(|r| [r.radius, r.max_norm]));
    let drift = Scale::fit(tensors.iter().filter_map(|t| t.drift).map(|d| d.1));
    let (has_radius, has_drift) =
        (tensors.iter().any(|t| t.radius.is_some()), tensors.iter().any(|t| t.drift.is_some()));
    let (mut heads, mut width) = (String::new(), 2);
    if has_radius {
        let _ = write!(
            heads,
            "<th scope=\"col\" colspan=\"2\" class=\"wide\">Radius<small>{}; pale: largest row norm before projection</small>\
             </th><th scope=\"col\">Active rows</th>",
            radius.title()
        );
        width += 3;
    }
    if has_drift {
        let _ = write!(
            heads,
            "<th scope=\"col\" colspan=\"2\" class=\"wide\">L2 drift<small>{}</small></th><th scope=\"col\">Largest row \
             drift</th>",
            drift.title()
        );
        width += 3;
    }
    let has_share = tensors.iter().any(|t| t.share.is_some());
    if has_share {
        heads += "<th scope=\"col\">ω<small>taken out of the gradient</small></th>";
        width += 1;
    }
    let mut out = format!(
        "<div class=\"scroll tall\" tabindex=\"0\" role=\"region\" aria-label=\"Radius and drift by tensor\"><table \
         class=\"layers\"><caption><span>Radius and drift at the end of the run, from input to output</span></caption>\
         <thead><tr><th scope=\"col\" class=\"name\">Tensor</th>{heads}<th scope=\"col\">Rows</th></tr></thead>"
    );
    let mut group = None;
    for tensor in tensors {
        if group != Some(&tensor.group) {
            let _ = write!(
                out,
                "<tr class=\"group\"><th colspan=\"{width}\" scope=\"rowgroup\"><span>{}</span></th></tr>",
                escape(&tensor.group.name())
            );
            group = Some(&tensor.group);
        }
        let _ = write!(out, "<tr><th scope=\"row\" class=\"name\">{}</th>", escape(&tensor.label));
        match tensor.radius {
            Some(r) => {
                let _ = write!(out, "{}<td>{}</td>", bar(&radius, r.radius, Some(r.max_norm)), integer(r.active_rows));
            }
            None if has_radius => out.push_str("<td class=\"bar\"></td><td>none</td><td>–</td>"),
            None => {}
        }
        match tensor.drift {
            Some((mars, l2)) => {
                let _ = write!(out, "{}<td>{}</td>", bar(&drift, l2, None), number(mars));
            }
            None if has_drift => out.push_str("<td class=\"bar\"></td><td>–</td><td>–</td>"),
            None => {}
        }
        if has_share {
            let _ = write!(out, "<td>{}</td>", tensor.share.map_or("none".into(), |share| number(share.into())));
        }
        let _ = write!(out, "<td>{}</td></tr>", integer(tensor.rows));
    }
    out + "</table></div>\n"
}

/// All resolved flags of a run, folded away.
pub(super) fn config(run: &Run) -> String {
    let rows = run.settings().iter().fold(String::new(), |mut rows, (key, value)| {
        let _ =
            write!(rows, "<tr><th scope=\"row\" class=\"name\">{}</th><td>{}</td></tr>", escape(key), escape(value));
        rows
    });
    format!(
        "<details><summary>Resolved configuration</summary><div class=\"scroll\" tabindex=\"0\"><table class=\"config\">\
         {rows}</table></div></details>\n"
    )
}

/// The flags in which the runs differ; empty if there are none.
pub(super) fn differences(runs: &[Run]) -> String {
    let settings: Vec<Vec<(String, String)>> = runs.iter().map(Run::settings).collect();
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in settings.iter().flatten() {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    let value = |run: usize, key: &str| settings[run].iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let mut rows = String::new();
    for key in keys {
        let values: Vec<Option<&str>> = (0..runs.len()).map(|run| value(run, key)).collect();
        if values.windows(2).any(|pair| pair[0] != pair[1]) {
            let _ = write!(rows, "<tr><th scope=\"row\" class=\"name\">{}</th>", escape(key));
            values.iter().for_each(|v| rows += &format!("<td>{}</td>", escape(v.unwrap_or("–"))));
            rows += "</tr>";
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let heads: String = runs.iter().map(|r| format!("<th scope=\"col\">{}</th>", escape(&r.name))).collect();
    format!(
        "<h3>Where the configurations differ</h3><div class=\"scroll\" tabindex=\"0\"><table class=\"config\"><thead><tr>\
         <th scope=\"col\" class=\"name\">Flag</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>\n"
    )
}
