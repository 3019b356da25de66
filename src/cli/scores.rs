//! The figures of evaluations as JSON and as tables, and the files that they go into.

use std::path::Path;

use serde_json::{Value, json};

use crate::atomic::atomic_write;
use crate::cli::console::warning;
use crate::cli::labels;
use crate::cli::table::{percent, table};
use crate::csv_text::csv_text;
use crate::data::{Dataset, Looks, overlaps};
use crate::error::{Error, Result, shown};
use crate::train::calibration::Logits;
use crate::train::{Evaluation, Temperature};

/// All figures of an evaluation but those by class.
pub(super) fn json_of(name: &str, e: &Evaluation) -> Value {
    let mut row = json!({"data": name, "images": e.images});
    add_figures(&mut row, e);
    row["brier"] = json!(e.brier);
    row["bins"] = json!(e.bins);
    if let Some(c) = &e.calibrated {
        row["calibrated"] = json!(c);
    }
    row
}

/// Adds how good the answers are, by the figures of images with one class or with any number of labels.
pub(super) fn add_figures(row: &mut Value, e: &Evaluation) {
    match &e.labels {
        Some(labels) => {
            row["map"] = json!(labels.map);
            row["micro_f1"] = json!(labels.at_half.micro_f1);
            row["macro_f1"] = json!(labels.at_half.macro_f1);
            row["exact"] = json!(labels.at_half.exact);
            if let Some(own) = labels.at_own {
                row["at_own"] = json!(own);
            }
        }
        None => {
            row["top1"] = json!(e.top1);
            row["top5"] = json!(e.top5);
            row["balanced"] = json!(e.balanced);
            row["macro_f1"] = json!(e.macro_f1);
        }
    }
    row["loss"] = json!(e.loss);
    row["ece"] = json!(e.ece);
}

/// Images and right ones, a class each; of labels, all their figures.
pub(super) fn json_by_class(classes: &[String], e: &Evaluation) -> Value {
    if let Some(labels) = &e.labels {
        let row = |(class, figures)| {
            let mut row = json!(figures);
            row["class"] = json!(class);
            row
        };
        return classes.iter().zip(&labels.labels).map(row).collect();
    }
    let by_class = classes.iter().zip(&e.per_class);
    by_class.map(|(c, (n, right))| json!({"class": c, "images": n, "right": right})).collect()
}

/// The confusion matrix where it is not 0.
pub(super) fn json_of_confusion(classes: &[String], e: &Evaluation) -> Value {
    let name = |class: u32| &classes[class as usize];
    e.confusion.iter().map(|(c, p, n)| json!({"class": name(*c), "predicted": name(*p), "images": n})).collect()
}

/// Writes the confusion matrices to a CSV: a row for each pair of class and predicted class that there is.
pub(super) fn write_confusion(path: &Path, classes: &[String], results: &[(&str, Evaluation)]) -> Result<()> {
    let name = |class: u32| &classes[class as usize];
    let rows = results.iter().flat_map(|(data, e)| {
        e.confusion.iter().map(move |(class, predicted, images)| (data, name(*class), name(*predicted), images))
    });
    let header = csv_text([["data", "class", "predicted", "images"]]);
    atomic_write(path, (header + &csv_text(rows)).as_bytes())
}

/// One row per data set; with a temperature, loss and calibration error at it as well.
pub(super) fn table_of(results: &[(&str, Evaluation)]) -> String {
    if results.iter().any(|(_, e)| e.labels.is_some()) {
        return labels::table_of(results);
    }
    let mut header = vec!["data", "images", "top-1 %", "top-5 %", "balanced %", "macro F1 %", "loss", "ECE", "Brier"];
    if results.iter().any(|(_, e)| e.calibrated.is_some()) {
        header.extend(["loss at T", "ECE at T"]);
    }
    let row = |(name, e): &(&str, Evaluation)| {
        let mut row = vec![name.to_string(), e.images.to_string(), percent(e.top1), percent(e.top5)];
        row.extend([e.balanced, e.macro_f1].map(percent));
        row.extend([format!("{:.4}", e.loss), format!("{:.3}", e.ece), format!("{:.4}", e.brier)]);
        row.extend(e.calibrated.iter().flat_map(|c| [format!("{:.4}", c.loss), format!("{:.3}", c.ece)]));
        row
    };
    table(&header, &results.iter().map(row).collect::<Vec<_>>())
}

/// Says where an image that the temperature is fitted on is also reported on.
pub(super) fn warn_of_leaks(fitted_on: &(&str, Dataset), sets: &[(&str, Dataset)], looks: &Looks) {
    let (name, images) = fitted_on;
    for (other, others) in sets {
        if let Some(twin) = overlaps(&[(*name, images), (*other, others)], 1, looks).first() {
            let example = shown(&twin.second.1);
            warning!("{name} and {other} share images, such as {example}: the temperature will flatter on {other}");
        }
    }
}

/// The temperature of a model whose logits on the data set `name` are `logits`.
pub(super) fn temperature(logits: &Logits, name: &str) -> Result<Temperature> {
    let fitted = Temperature::fit(logits).ok_or_else(|| {
        Error::Train(format!("no temperature can be fitted on {name}: the model's logits there are not all numbers"))
    })?;
    if let Some(doubt) = fitted.doubt(name) {
        warning!("temperature {:.3} is {doubt}", fitted.value);
    }
    Ok(fitted)
}
