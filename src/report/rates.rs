//! The page of a learning-rate range test.

use super::charts::line;
use super::html::document;
use super::svg::{Axis, Chart};
use super::text::{escape, number};
use crate::train::lr_find::{Curve, Suggestion};

/// The page about `curve` of the model called `model`, with the sentence that says what to make of it.
pub(super) fn page(model: &str, curve: &Curve, sentence: &str) -> String {
    let x = |i: usize| curve.points[i].0.log10();
    let raw = curve.points.iter().enumerate().map(|(i, point)| (x(i), point.1)).collect();
    let smooth = curve.smooth.iter().enumerate().map(|(i, loss)| (x(i), *loss)).collect();
    let mut series = vec![
        line("smoothed", 0, smooth),
        super::svg::Series { style: super::svg::Style::Faint, ..line("loss", 0, raw) },
    ];
    if let Some(Suggestion { rate, .. }) = curve.suggestion() {
        let losses = || curve.smooth.iter().copied();
        let (low, high) =
            (losses().fold(f64::INFINITY, f64::min), losses().take(curve.points.len()).fold(0.0, f64::max));
        series.push(line(format!("suggested: {}", number(rate)), 1, vec![(rate.log10(), low), (rate.log10(), high)]));
    }
    let title = "Training loss over the learning rate".to_string();
    let x_label = "learning rate, as a power of ten";
    let chart = Chart { id: "rates".into(), title, x_label, axis: Axis::Wide, series, names: Vec::new() };
    let body = format!(
        "<h1>Learning rates for {}</h1>\n<p>{}</p>\n<div class=\"charts\">{}</div>\n",
        escape(model),
        escape(sentence),
        chart.figure()
    );
    document(&format!("Learning rates for {}", escape(model)), &body)
}
