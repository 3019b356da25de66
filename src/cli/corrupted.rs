//! Tables about corrupted test sets.

use serde_json::{Value, json};

use crate::cli::scores::add_figures;
use crate::cli::table::{percent, table};
use crate::data::corrupt::{Corruption, CorruptionKind, SEVERITIES};
use crate::train::TestResult;
use crate::train::corrupted::copy_name;
use crate::train::evaluate::{Evaluation, Figure};
use crate::train::tta::Tta;

/// A test set's copies: the corruption of each, and its evaluation.
pub(super) type Copies = Vec<(Corruption, Evaluation)>;

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The mean of the main figure over the severities of a kind.
fn of_kind(kind: CorruptionKind, copies: impl Iterator<Item = (Corruption, f64)>) -> Option<f64> {
    mean(copies.filter(|(corruption, _)| corruption.kind == kind).map(|(_, main)| main))
}

/// The mean over kinds of [`of_kind`]: each kind counts once, with however many severities.
fn of_all(copies: impl Iterator<Item = (Corruption, f64)> + Clone) -> Option<f64> {
    mean(CorruptionKind::ALL.into_iter().filter_map(|kind| of_kind(kind, copies.clone())))
}

fn cell(share: Option<f64>) -> String {
    share.map_or("-".into(), percent)
}

/// The name of the main figure.
fn figure<'a>(mut of: impl Iterator<Item = &'a Evaluation>) -> &'static str {
    of.next().map_or(Figure::Top1, Evaluation::figure).name()
}

/// The name of the set that a corrupted copy was made of.
pub(super) fn copied_from(copy: &TestResult) -> &str {
    let suffix = copy.corruption.map(|corruption| copy_name("", corruption));
    suffix.and_then(|suffix| copy.name.strip_suffix(suffix.as_str())).unwrap_or(&copy.name)
}

/// For each set with copies: one row per kind, one column per model, each the mean over severities.
pub(super) fn model_tables(models: &[(String, Vec<&TestResult>)]) -> String {
    let mut sets: Vec<&str> = Vec::new();
    for copy in models.iter().flat_map(|(_, results)| results).filter(|r| r.corruption.is_some()) {
        if !sets.contains(&copied_from(copy)) {
            sets.push(copied_from(copy));
        }
    }
    let text = |set: &&str| {
        let copies = |results: &[&TestResult]| -> Copies {
            let own = results.iter().filter(|r| copied_from(r) == *set);
            own.filter_map(|r| Some((r.corruption?, r.evaluation.clone()))).collect()
        };
        let columns: Vec<Copies> = models.iter().map(|(_, results)| copies(results)).collect();
        let all = |column: &Copies| column.iter().map(|(c, e)| (*c, e.main())).collect::<Vec<_>>();
        let columns: Vec<_> = columns.iter().map(all).collect();
        let kinds =
            CorruptionKind::ALL.into_iter().filter(|kind| columns.iter().flatten().any(|(c, _)| c.kind == *kind));
        let mut rows: Vec<Vec<String>> = kinds
            .map(|kind| {
                let cells = columns.iter().map(|column| cell(of_kind(kind, column.iter().copied())));
                std::iter::once(kind.name().to_string()).chain(cells).collect()
            })
            .collect();
        let means = columns.iter().map(|column| cell(of_all(column.iter().copied())));
        rows.push(std::iter::once("mean".to_string()).chain(means).collect());
        let figure = figure(models.iter().flat_map(|(_, results)| results).map(|r| &r.evaluation));
        let title = format!("{set} corrupted, {figure} %");
        let mut header = vec![title.as_str()];
        header.extend(models.iter().map(|(name, _)| name.as_str()));
        format!("\n{}\n", table(&header, &rows))
    };
    sets.iter().map(text).collect()
}

/// One row per kind, one column per severity, and the means.
pub(super) fn severity_table(set: &str, clean: &Evaluation, copies: &Copies) -> String {
    let all = || copies.iter().map(|(corruption, e)| (*corruption, e.main()));
    let mut rows = Vec::new();
    for kind in CorruptionKind::ALL {
        let Some(average) = of_kind(kind, all()) else { continue };
        let at = |severity| copies.iter().find(|(c, _)| c.kind == kind && c.severity() == severity);
        let mut row = vec![kind.name().to_string()];
        row.extend(SEVERITIES.map(|severity| cell(at(severity).map(|(_, e)| e.main()))));
        row.push(percent(average));
        rows.push(row);
    }
    let average = of_all(all());
    let mut last = vec!["mean".to_string()];
    last.extend(SEVERITIES.map(|severity| cell(mean(all().filter(|c| c.0.severity() == severity).map(|c| c.1)))));
    last.push(cell(average));
    rows.push(last);
    let title = format!("{set}, {} %", clean.figure().name());
    let error = average.map_or(f64::NAN, |a| 1.0 - a);
    format!(
        "\n{}mean corruption error {} % (not over another model's), of the images as they are {} %\n",
        table(&[&title, "1", "2", "3", "4", "5", "mean"], &rows),
        percent(error),
        percent(1.0 - clean.main())
    )
}

/// One JSON row per copy, with the set that it is `of`, and the number of classes that answers were held to.
pub(super) fn json_rows(set: &str, copies: &Copies, subset: Option<usize>, tta: Tta) -> Vec<Value> {
    let row = |(corruption, e): &(Corruption, Evaluation)| {
        let mut row = json!({
            "data": copy_name(set, *corruption), "of": set, "corruption": corruption.kind,
            "severity": corruption.severity(), "images": e.images,
        });
        add_figures(&mut row, e);
        if let Some(classes) = subset {
            row["subset"] = json!(classes);
        }
        if let Some(views) = tta.name() {
            row["tta"] = json!(views);
        }
        row
    };
    copies.iter().map(row).collect()
}
