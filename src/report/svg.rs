//! One line chart as inline SVG: themed by the page's CSS, described for screen readers, legible at half its size.
//!
//! The SVG is written by hand: classes instead of colours are what lets one drawing follow a light page, a dark one and
//! paper.

use std::fmt::Write as _;

use super::text::{escape, number};

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 42.0;
/// Colours (and dashes) that the page's CSS knows: `.s0` to `.s6`.
pub(super) const COLORS: usize = 7;
/// More points than this can't be told apart at this width.
const MOST_POINTS: usize = 700;

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// A thick line.
    Line,
    /// A thick line with a mark at each value, for few values.
    Marks,
    /// A thin pale line behind the others, without a say in the description.
    Faint,
}

/// One line of a chart. A value that is not finite is a gap.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) label: String,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) color: usize,
    pub(super) style: Style,
}

/// The vertical axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    /// Linear.
    Linear,
    /// Linear within 0 to 100.
    Percent,
    /// Logarithmic where the values span more than a factor of 30, else linear.
    Wide,
}

/// A chart: everything but its size.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// Unique on the page.
    pub(super) id: String,
    pub(super) title: String,
    pub(super) x_label: &'static str,
    pub(super) axis: Axis,
    pub(super) series: Vec<Series>,
    /// Names at x = 0, 1, … instead of numbers.
    pub(super) names: Vec<String>,
}

impl Chart {
    /// The `<figure>`, or nothing where no value is finite.
    pub(super) fn figure(&self) -> String {
        let finite = |s: &&Series| s.points.iter().any(|(_, y)| y.is_finite());
        let series: Vec<&Series> = self.series.iter().filter(finite).collect();
        let first = series.iter().find_map(|s| s.points.first());
        if series.iter().flat_map(|s| &s.points).all(|p| Some(p.0) == first.map(|f| f.0)) {
            return String::new(); // values at a single step are no curve: the tables have them
        }
        let Some(frame) = Frame::fit(&series, self.axis) else { return String::new() };
        let mut out = String::new();
        let (id, title) = (escape(&self.id), escape(&self.title));
        let unit = if frame.log { ", logarithmic" } else { "" };
        let _ = write!(out, "<figure><figcaption><b>{title}</b><small>{unit}</small>");
        if series.len() > 1 {
            out.push_str("<span class=\"legend\">");
            for s in &series {
                let faint = if s.style == Style::Faint { " faint" } else { "" };
                let _ = write!(
                    out,
                    "<span><svg viewBox=\"0 0 26 8\" width=\"26\" height=\"8\" aria-hidden=\"true\">\
                     <path class=\"line s{}{faint}\" d=\"M1 4H25\"/></svg>{}</span>",
                    s.color % COLORS,
                    escape(&s.label)
                );
            }
            out.push_str("</span>");
        }
        let _ = write!(
            out,
            "</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{}</desc>",
            self.description(&series)
        );
        self.axes(&frame, &mut out);
        for s in series.iter().filter(|s| s.style == Style::Faint) {
            frame.draw(s, &mut out);
        }
        for s in series.iter().filter(|s| s.style != Style::Faint) {
            frame.draw(s, &mut out);
        }
        out.push_str("</svg></figure>\n");
        out
    }

    fn axes(&self, frame: &Frame, out: &mut String) {
        let right = WIDTH - RIGHT;
        for tick in frame.y_ticks() {
            let y = frame.y(tick);
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text class=\"end\" x=\"{}\" y=\"{:.1}\">{}{}</text>",
                LEFT - 7.0,
                y + 4.0,
                number(tick),
                if self.axis == Axis::Percent { " %" } else { "" }
            );
        }
        let base = HEIGHT - BOTTOM;
        let mut x_tick = |at: f64, text: &str| {
            let x = frame.x(at);
            let _ = write!(
                out,
                "<path class=\"axis\" d=\"M{x:.1} {base}v4\"/><text class=\"mid\" x=\"{x:.1}\" y=\"{}\">{}</text>",
                base + 17.0,
                escape(text)
            );
        };
        if self.names.is_empty() {
            for tick in nice(frame.x0, frame.x1, 6) {
                x_tick(tick, &number(tick));
            }
        } else {
            let every = self.names.len().div_ceil(14);
            for (i, name) in self.names.iter().enumerate().filter(|(i, _)| i % every == 0) {
                x_tick(i as f64, name);
            }
        }
        let _ = write!(
            out,
            "<path class=\"axis\" d=\"M{LEFT} {base}H{right}\"/><text class=\"mid\" x=\"{}\" y=\"{}\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 6.0,
            escape(self.x_label)
        );
    }

    fn description(&self, series: &[&Series]) -> String {
        let place = |x: f64| match self.names.get(x as usize) {
            Some(name) => escape(name),
            None => number(x),
        };
        let unit = if self.axis == Axis::Percent { " %" } else { "" };
        let said = series.iter().filter(|s| s.style != Style::Faint).filter_map(|s| {
            let mut finite = s.points.iter().filter(|(_, y)| y.is_finite());
            let first = finite.next()?;
            let last = finite.next_back().unwrap_or(first);
            let (a, b) = (number(first.1), number(last.1));
            let (from, to) = (place(first.0), place(last.0));
            Some(format!("{}: {a}{unit} at {} {from}, {b}{unit} at {to}.", escape(&s.label), self.x_label))
        });
        said.collect::<Vec<_>>().join(" ")
    }
}

/// The plotted range and its mapping to the picture.
struct Frame {
    x0: f64,
    x1: f64,
    y0: f64,
    y1: f64,
    log: bool,
}

impl Frame {
    fn fit(series: &[&Series], axis: Axis) -> Option<Self> {
        let finite = |s: &&Series| s.points.iter().copied().filter(|p| p.1.is_finite()).collect::<Vec<_>>();
        let all: Vec<(f64, f64)> = series.iter().flat_map(finite).collect();
        let mut ys: Vec<f64> =
            series.iter().filter(|s| s.style != Style::Faint).flat_map(finite).map(|p| p.1).collect();
        let mut faint: Vec<f64> =
            series.iter().filter(|s| s.style == Style::Faint).flat_map(finite).map(|p| p.1).collect();
        // Single batches stray; they must not squeeze the curves that the chart is about.
        faint.sort_by(f64::total_cmp);
        if let Some(last) = faint.len().checked_sub(1) {
            ys.extend([faint[last / 100], faint[last - last / 100]]);
        }
        if ys.is_empty() {
            return None;
        }
        let fold = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)))
        };
        let (mut x0, mut x1) = fold(&mut all.iter().map(|p| p.0));
        if x0 == x1 {
            (x0, x1) = (x0 - 1.0, x1 + 1.0);
        }
        let (lo, hi) = fold(&mut ys.iter().copied());
        let (positive, _) = fold(&mut ys.iter().copied().filter(|y| *y > 0.0));
        if axis == Axis::Wide && lo >= 0.0 && hi > 30.0 * positive {
            let (y0, y1) = (positive.log10() - 0.05, hi.log10() + 0.05);
            return Some(Self { x0, x1, y0, y1, log: true });
        }
        let pad = if hi > lo { 0.06 * (hi - lo) } else { 0.1 * hi.abs().max(1e-12) };
        let (mut y0, mut y1) = (lo - pad, hi + pad);
        if lo >= 0.0 && (y0 < 0.0 || lo < 0.35 * hi) {
            y0 = 0.0;
        }
        if axis == Axis::Percent {
            (y0, y1) = (y0.max(0.0), y1.min(100.0).max(y0.max(0.0) + 1.0));
        }
        Some(Self { x0, x1, y0, y1, log: false })
    }

    fn x(&self, x: f64) -> f64 {
        LEFT + (x - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)
    }

    /// The height of `y`, held within the plot.
    fn y(&self, y: f64) -> f64 {
        let y = if self.log { y.max(f64::MIN_POSITIVE).log10() } else { y };
        let share = ((y - self.y0) / (self.y1 - self.y0)).clamp(0.0, 1.0);
        TOP + (1.0 - share) * (HEIGHT - TOP - BOTTOM)
    }

    fn y_ticks(&self) -> Vec<f64> {
        if !self.log {
            return nice(self.y0, self.y1, 5);
        }
        let decades = (self.y1 - self.y0).ceil() as i32;
        let steps: &[f64] = if decades <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let every = (decades / 6).max(1);
        let range = self.y0.floor() as i32..=self.y1.ceil() as i32;
        let all = range.filter(|d| d % every == 0).flat_map(|d| steps.iter().map(move |s| s * 10f64.powi(d)));
        all.filter(|v| (self.y0..=self.y1).contains(&v.log10())).collect()
    }

    fn draw(&self, series: &Series, out: &mut String) {
        let points = thin(&series.points);
        let (mut d, mut pen_down) = (String::new(), false);
        for (i, &(x, y)) in points.iter().enumerate() {
            if !y.is_finite() {
                pen_down = false;
                continue;
            }
            let _ = write!(d, "{}{:.1} {:.1}", if pen_down { "L" } else { "M" }, self.x(x), self.y(y));
            let alone = !pen_down && points.get(i + 1).is_none_or(|next| !next.1.is_finite());
            if alone {
                d.push_str("h.1"); // round caps make it a dot
            }
            pen_down = true;
        }
        let color = series.color % COLORS;
        let faint = if series.style == Style::Faint { " faint" } else { "" };
        let _ = write!(out, "<path class=\"line s{color}{faint}\" d=\"{d}\"/>");
        if series.style == Style::Marks && points.len() <= 60 {
            for (x, y) in points.iter().filter(|p| p.1.is_finite()) {
                let _ = write!(
                    out,
                    "<circle class=\"m{color}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                    self.x(*x),
                    self.y(*y)
                );
            }
        }
    }
}

/// Keeps each stretch's lowest and highest value and its gaps, so that a spike never vanishes.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let mut out = Vec::with_capacity(MOST_POINTS + 2);
    for stretch in points.chunks(points.len().div_ceil(MOST_POINTS / 2)) {
        let finite = || stretch.iter().copied().enumerate().filter(|(_, p)| p.1.is_finite());
        let low = finite().min_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let high = finite().max_by(|a, b| a.1.1.total_cmp(&b.1.1));
        if let (Some(a), Some(b)) = (low, high) {
            let (first, second) = if a.0 <= b.0 { (a, b) } else { (b, a) };
            out.push(first.1);
            if first.0 != second.0 {
                out.push(second.1);
            }
        }
        out.extend(stretch.iter().find(|p| !p.1.is_finite()));
    }
    out
}

/// About `count` round numbers from `low` to `high`.
pub(super) fn nice(low: f64, high: f64, count: usize) -> Vec<f64> {
    let raw = (high - low) / count as f64;
    if !raw.is_finite() || raw <= 0.0 {
        return vec![low];
    }
    let decade = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * decade).find(|s| *s >= raw * 0.999).unwrap_or(raw);
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    let ticks = (last - first).max(0.0) as usize + 1;
    (0..ticks).map(|i| (first + i as f64) * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_spikes_and_gaps() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
        points[54_321].1 = 99.0;
        points[70_000].1 = f64::NAN;
        let thinned = thin(&points);
        assert!(thinned.len() <= MOST_POINTS + 2, "{}", thinned.len());
        assert!(thinned.contains(&(54_321.0, 99.0)));
        assert!(thinned.iter().any(|p| p.1.is_nan()));
        assert!(thinned.iter().filter(|p| p.1.is_finite()).is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(nice(0.0, 300.0, 6), [0.0, 50.0, 100.0, 150.0, 200.0, 250.0, 300.0]);
        assert_eq!(nice(0.13, 0.52, 4), [0.2, 0.3, 0.4, 0.5].map(|t: f64| (t * 10.0).round() * 0.1));
        assert_eq!(nice(5.0, 5.0, 4), [5.0]);
    }
}
