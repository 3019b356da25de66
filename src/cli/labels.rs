//! Tables of models that give an image any number of labels.

use crate::cli::table::{percent, table};
use crate::train::Evaluation;
use crate::train::labels::MultiLabel;

/// The data sets that have such figures, with these.
fn those<'a>(results: &'a [(&str, Evaluation)]) -> impl Iterator<Item = (&'a str, &'a Evaluation, &'a MultiLabel)> {
    results.iter().filter_map(|(name, e)| Some((*name, e, e.labels.as_ref()?)))
}

/// One row per data set: figures at a probability of 0.5, at the model's own thresholds, of probabilities, and with a temperature at it as well.
pub(super) fn table_of(results: &[(&str, Evaluation)]) -> String {
    let mut header = vec!["data", "images", "mAP %", "micro F1 %", "macro F1 %", "exact %"];
    let own = those(results).any(|(_, _, labels)| labels.at_own.is_some());
    if own {
        header.extend(["micro F1 % at own", "macro F1 % at own", "exact % at own"]);
    }
    header.extend(["loss", "ECE", "Brier"]);
    if those(results).any(|(_, e, _)| e.calibrated.is_some()) {
        header.extend(["loss at T", "ECE at T"]);
    }
    let row = |(name, e, labels): (&str, &Evaluation, &MultiLabel)| {
        let mut row = vec![name.to_string(), e.images.to_string(), percent(labels.map)];
        for at in std::iter::once(labels.at_half).chain(labels.at_own) {
            row.extend([at.micro_f1, at.macro_f1, at.exact].map(percent));
        }
        row.extend([format!("{:.4}", e.loss), format!("{:.3}", e.ece), format!("{:.4}", e.brier)]);
        row.extend(e.calibrated.iter().flat_map(|c| [format!("{:.4}", c.loss), format!("{:.3}", c.ece)]));
        row
    };
    let note = "F1 and exact matches at a probability of 0.5";
    let note = if own { format!("{note}, and at the model's own thresholds\n") } else { format!("{note}\n") };
    table(&header, &those(results).map(row).collect::<Vec<_>>()) + &note
}

/// For each data set one row per class.
pub(super) fn tables(classes: &[String], results: &[(&str, Evaluation)]) -> String {
    let text = |value: f64| if value.is_nan() { "-".into() } else { percent(value) };
    let of = |(name, _, labels): (&str, &Evaluation, &MultiLabel)| {
        let rows = classes.iter().zip(&labels.labels).map(|(class, own)| {
            let mut row = vec![class.clone(), own.images.to_string(), text(own.average_precision)];
            row.extend([format!("{:.3}", own.threshold), own.given.to_string(), text(own.f1())]);
            row.push(format!("{:.3}", own.ece));
            row
        });
        let header = [name, "images", "AP %", "threshold", "given", "F1 %", "ECE"];
        format!("\n{}", table(&header, &rows.collect::<Vec<_>>()))
    };
    those(results).map(of).collect()
}
