//! The table of a comparison, and its files: `results.md`, `results.json`, `results.csv`, `choices.csv`.

use std::fmt::Write as _;
use std::path::Path;

use crate::atomic::atomic_write;
use crate::compare::results::{DataResults, EntryResults, Results};
use crate::compare::stats::Estimate;
use crate::csv_text::csv_text;
use crate::error::{Result, escaped};
use crate::gpu::buffer::mib;
use crate::train::evaluate::Figure;

/// What the numbers of [`accuracies`] are.
pub fn caption(data: &DataResults) -> String {
    let views = data.views().map(|views| format!("; with --tta {views}")).unwrap_or_default();
    format!("{} %, mean and 95 % interval over seeds{views}", Figure::of(data.multi_label).name())
}

fn csv(path: &Path, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<()> {
    atomic_write(path, (csv_text([header]) + &csv_text(rows)).as_bytes())
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

/// Writes the files into `dir`.
///
/// # Errors
/// Where one can't be written.
pub fn write(results: &Results, dir: &Path) -> Result<()> {
    let json = serde_json::to_vec_pretty(results).expect("plain values always serialise");
    atomic_write(dir.join("results.json"), &json)?;
    atomic_write(dir.join("results.md"), markdown(results).as_bytes())?;
    let header = [
        "data",
        "method",
        "chosen",
        "seed",
        "set",
        "kind",
        "images",
        "top1",
        "top5",
        "loss",
        "ece",
        "select_top1",
        "run",
        "balanced",
        "macro_f1",
        "map",
        "micro_f1",
        "select_map",
    ];
    let rows = results.data.iter().flat_map(|data| {
        data.entries.iter().flat_map(move |entry| {
            let chosen = entry.chosen.map_or("", |point| entry.points[point].label.as_str());
            entry.models.iter().flat_map(move |model| {
                model.sets.iter().map(move |set| {
                    vec![
                        data.name.clone(),
                        entry.name.clone(),
                        chosen.into(),
                        text(model.seed),
                        set.name.clone(),
                        if set.id { "id" } else { "ood" }.into(),
                        set.images.to_string(),
                        figure(set.top1),
                        figure(set.top5),
                        set.loss.to_string(),
                        set.ece.to_string(),
                        figure(model.select.top1),
                        model.dir.display().to_string(),
                        figure(set.balanced),
                        figure(set.macro_f1),
                        text(set.map),
                        text(set.micro_f1),
                        text(model.select.map),
                    ]
                })
            })
        })
    });
    csv(&dir.join("results.csv"), &header, rows)?;
    let header = [
        "data",
        "method",
        "point",
        "seeds",
        "select_top1",
        "select_loss",
        "rank",
        "chosen",
        "error",
        "select_map",
        "behind",
        "p_holm",
    ];
    let seeds = results.seeds[..results.grid_seeds].iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let seeds = &seeds;
    let rows = results.data.iter().flat_map(|data| {
        data.entries.iter().filter(|entry| entry.points.len() > 1).flat_map(move |entry| {
            let against = |i: usize| entry.choice.as_ref().and_then(|choice| choice.points[i]);
            entry.points.iter().enumerate().map(move |(i, point)| {
                vec![
                    data.name.clone(),
                    entry.name.clone(),
                    point.label.clone(),
                    seeds.clone(),
                    point.select.map_or(String::new(), |s| figure(s.top1)),
                    text(point.select.map(|s| s.loss)),
                    text(point.rank),
                    (entry.chosen == Some(i)).to_string(),
                    text(point.error.as_ref()),
                    text(point.select.and_then(|s| s.map)),
                    text(against(i).map(|a| a.behind)),
                    text(against(i).map(|a| a.p)),
                ]
            })
        })
    });
    csv(&dir.join("choices.csv"), &header, rows)
}

/// A figure, empty where it is not known.
fn figure(value: f64) -> String {
    if value.is_nan() { String::new() } else { value.to_string() }
}

/// The whole table in Markdown, a data set after the other.
fn markdown(results: &Results) -> String {
    let mut out = String::new();
    for data in &results.data {
        let (header, rows) = accuracies(data);
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| escaped(cell).replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let names: Vec<String> = header.iter().map(|name| name.to_string()).collect();
        let _ =
            write!(out, "{}, {}; gains over {}\n\n", escaped(&data.name), caption(data), escaped(&results.reference));
        out += &line(&names);
        out += &line(&vec!["---".to_string(); names.len()]);
        for row in rows {
            out += &line(&row);
        }
        out.push('\n');
    }
    out
}

/// Seconds as people read them.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 5940.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// A share as a percentage.
pub fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn estimate(e: &Estimate) -> String {
    e.half.map_or_else(|| percent(e.mean), |half| format!("{} ±{:.1}", percent(e.mean), 100.0 * half))
}

fn gain(e: Option<Estimate>) -> String {
    let signed = |e: Estimate| {
        // What rounds to nothing has no sign.
        let mean = if (1000.0 * e.mean).round() == 0.0 { 0.0 } else { e.mean };
        format!("{}{}", if mean > 0.0 { "+" } else { "" }, estimate(&Estimate { mean, ..e }))
    };
    e.map_or("-".into(), signed)
}

/// A header, and one row per method: its choice, each test set, the means, the paired differences, effective robustness, time, memory
/// and runs (to tune + to report).
pub fn accuracies(data: &DataResults) -> (Vec<&str>, Vec<Vec<String>>) {
    let mut header = vec!["method", "chosen"];
    header.extend(data.sets.iter().map(|s| s.name.as_str()));
    let several_ids = data.sets.iter().filter(|s| s.id).count() > 1;
    header.extend(several_ids.then_some("ID mean"));
    header.extend(["OOD mean", "ID gain", "OOD gain", "effective", "time", "memory", "runs"]);
    let row = |entry: &EntryResults| {
        let chosen = entry.chosen.map_or("-", |p| entry.points[p].label.as_str()).to_string();
        let mut row = vec![entry.name.clone(), chosen];
        match &entry.summary {
            Some(s) => {
                row.extend(s.sets.iter().chain(several_ids.then_some(&s.id)).chain([&s.ood]).map(estimate));
                row.extend([s.id_gain, s.ood_gain, s.effective].map(gain));
            }
            None => row.extend(vec!["-".to_string(); header.len() - 5]),
        }
        row.push(entry.seconds.map_or("-".into(), time));
        row.push(entry.memory.map_or("-".into(), mib));
        row.push(format!("{} + {}", entry.cost.tune, entry.cost.report));
        row
    };
    let rows = data.entries.iter().map(row).collect();
    (header, rows)
}
