//! Reliability diagrams: accuracy over confidence, before and after the temperature, with the images per bin below.

use std::fmt::Write as _;

use super::evaluations::TestSet;
use super::text::{escape, number};
use crate::train::calibration::Bin;

const SIZE: f64 = 320.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 8.0;
/// The square plot ends here; below it stands the histogram.
const BASE: f64 = TOP + SIZE - LEFT - RIGHT;
const BARS: f64 = 44.0;
const HEIGHT: f64 = BASE + BARS + 46.0;

fn x(share: f64) -> f64 {
    LEFT + share * (SIZE - LEFT - RIGHT)
}

fn y(share: f64) -> f64 {
    BASE - share * (BASE - TOP)
}

/// One set of probabilities of a diagram.
struct Curve<'a> {
    label: String,
    /// Colour and dashes, as in [`super::svg`].
    color: usize,
    bins: &'a [Bin],
}

/// The `<figure>` of one test set.
pub(super) fn figure(id: &str, set: &TestSet) -> String {
    let figures = &set.figures;
    let share = |v: f64| if v.is_finite() { format!("{:.1} %", 100.0 * v) } else { "unknown".into() };
    let mut curves =
        vec![Curve { label: format!("as it is: ECE {}", share(figures.ece)), color: 0, bins: &figures.bins }];
    if let Some(c) = &figures.calibrated {
        let label = format!("at T = {}: ECE {}", number(c.temperature), share(c.ece));
        curves.push(Curve { label, color: 1, bins: &c.bins });
    }
    let mut out = format!("<figure><figcaption><b>{}</b><span class=\"legend\">", escape(&set.name));
    for Curve { label, color, .. } in &curves {
        let _ = write!(
            out,
            "<span><svg viewBox=\"0 0 26 8\" width=\"26\" height=\"8\" aria-hidden=\"true\"><path class=\"line s{color}\" \
             d=\"M1 4H25\"/></svg>{}</span>",
            escape(label)
        );
    }
    let said: Vec<String> = curves.iter().map(|c| format!("{}.", c.label)).collect();
    let _ = write!(
        out,
        "</span></figcaption><svg viewBox=\"0 0 {SIZE} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
         <title id=\"{id}-t\">Reliability on {}</title><desc id=\"{id}-d\">Accuracy over confidence, {} images. {}</desc>",
        escape(&set.name),
        figures.images,
        escape(&said.join(" "))
    );
    axes(&mut out);
    curves.iter().for_each(|c| draw(c, &mut out));
    histogram(&curves, &mut out);
    out + "</svg></figure>\n"
}

fn axes(out: &mut String) {
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (at, text) = (y(tick), number(100.0 * tick));
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/><text class=\"end\" x=\"{}\" y=\"{:.1}\">{text} %</text>",
            x(1.0),
            LEFT - 6.0,
            at + 4.0
        );
        let (at, anchor) = (x(tick), if tick == 1.0 { "end" } else { "mid" });
        // The last label ends where the plot does.
        let nudge = if tick == 1.0 { RIGHT } else { 0.0 };
        let _ = write!(
            out,
            "<path class=\"axis\" d=\"M{at:.1} {:.1}v4\"/><text class=\"{anchor}\" x=\"{:.1}\" y=\"{:.1}\">{text} %</text>",
            BASE + BARS + 6.0,
            at + nudge,
            BASE + BARS + 23.0
        );
    }
    let _ = write!(
        out,
        "<path class=\"ideal\" d=\"M{:.1} {:.1}L{:.1} {:.1}\"/><path class=\"axis\" d=\"M{LEFT} {:.1}H{:.1}\"/>\
         <text class=\"mid\" x=\"{:.1}\" y=\"{:.1}\">confidence</text>",
        x(0.0),
        y(0.0),
        x(1.0),
        y(1.0),
        BASE + BARS + 6.0,
        x(1.0),
        x(0.5),
        HEIGHT - 5.0
    );
}

/// A line through the bins that have images, and a mark each: its area is its share of the images.
fn draw(curve: &Curve, out: &mut String) {
    let filled = || curve.bins.iter().filter(|b| b.images > 0 && b.confidence.is_finite());
    let all = filled().map(|b| b.images).sum::<usize>().max(1) as f64;
    let path: Vec<String> = filled().map(|b| format!("{:.1} {:.1}", x(b.confidence), y(b.accuracy))).collect();
    if path.len() > 1 {
        let _ = write!(out, "<path class=\"line thin s{}\" d=\"M{}\"/>", curve.color, path.join("L"));
    }
    for b in filled() {
        let _ = write!(
            out,
            "<circle class=\"m{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{:.1}\"><title>{} images, confidence {:.1} %, accuracy \
             {:.1} %</title></circle>",
            curve.color,
            x(b.confidence),
            y(b.accuracy),
            1.5 + 9.0 * (b.images as f64 / all).sqrt(),
            b.images,
            100.0 * b.confidence,
            100.0 * b.accuracy
        );
    }
}

/// The images of each bin, the curves side by side.
fn histogram(curves: &[Curve], out: &mut String) {
    let most = curves.iter().flat_map(|c| c.bins).map(|b| b.images).max().unwrap_or(0).max(1) as f64;
    for (nth, curve) in curves.iter().enumerate() {
        let bins = curve.bins.len().max(1) as f64;
        let slot = (x(1.0) - x(0.0)) / bins;
        let width = (slot - 3.0) / curves.len() as f64;
        for (i, bin) in curve.bins.iter().enumerate().filter(|(_, b)| b.images > 0) {
            // However few, they show.
            let height = (bin.images as f64 / most * (BARS - 6.0)).max(1.0);
            let _ = write!(
                out,
                "<rect class=\"m{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>",
                curve.color,
                x(0.0) + slot * i as f64 + 1.5 + width * nth as f64,
                BASE + BARS + 6.0 - height
            );
        }
    }
}
