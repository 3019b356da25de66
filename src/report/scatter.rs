//! ID against OOD accuracy as inline SVG: one mark per method with its intervals, faint dots for its models, curves behind them.

use std::fmt::Write as _;

use super::svg::nice;
use super::text::{escape, number};

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 22.0; // half of the label `100 %`
const TOP: f64 = 10.0;
const BOTTOM: f64 = 44.0;
/// Colours of the page's CSS: `--c0` to `--c6`.
const COLORS: usize = 7;

/// A method: where its mean is, its intervals, its models. In percent.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) label: String,
    pub(super) at: (f64, f64),
    /// Half widths of the intervals.
    pub(super) half: (Option<f64>, Option<f64>),
    pub(super) models: Vec<(f64, f64)>,
    /// Decides colour and shape.
    pub(super) style: usize,
}

/// A line through (ID, OOD) points in percent; dashed ones have no dots.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) label: String,
    pub(super) points: Vec<(f64, f64)>,
    /// The style of the mark it belongs to; none for a dashed line in the text's colour.
    pub(super) style: Option<usize>,
}

/// The drawing.
#[derive(Clone, Debug)]
pub(super) struct Scatter {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) marks: Vec<Mark>,
    pub(super) curves: Vec<Curve>,
    /// Whether curves count for the range of the axes.
    pub(super) whole_curves: bool,
    /// What both axes have.
    pub(super) figure: &'static str,
}

struct Axes {
    x: (f64, f64),
    y: (f64, f64),
}

impl Axes {
    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let across = (x - self.x.0) / (self.x.1 - self.x.0);
        let up = (y - self.y.0) / (self.y.1 - self.y.0);
        (LEFT + across * (WIDTH - LEFT - RIGHT), TOP + (1.0 - up) * (HEIGHT - TOP - BOTTOM))
    }
}

/// The range of `values` with some room, within 0 to 100, and at least two points wide.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (lo, hi) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)));
    let pad = (0.08 * (hi - lo)).max(1.0 - 0.5 * (hi - lo)).max(0.2);
    ((lo - pad).max(-0.5), (hi + pad).min(100.5))
}

/// A mark of one of four shapes around (x, y).
pub(super) fn shape(style: usize, x: f64, y: f64, r: f64) -> String {
    let fill = format!("style=\"fill:var(--c{})\"", style % COLORS);
    let d = match style % 4 {
        0 => return format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r:.1}\" {fill}/>"),
        1 => format!("M{:.1} {:.1}h{:.1}v{:.1}h-{:.1}z", x - r, y - r, 2.0 * r, 2.0 * r, 2.0 * r),
        2 => format!("M{x:.1} {:.1}l{:.1} {:.1}h-{:.1}z", y - 1.2 * r, 1.15 * r, 2.1 * r, 2.3 * r),
        _ => {
            let r = 1.3 * r;
            format!("M{x:.1} {:.1}l{r:.1} {r:.1}l-{r:.1} {r:.1}l-{r:.1} -{r:.1}z", y - r)
        }
    };
    format!("<path d=\"{d}\" {fill}/>")
}

impl Scatter {
    /// The `<figure>`, or nothing without marks.
    pub(super) fn figure(&self) -> String {
        if self.marks.is_empty() {
            return String::new();
        }
        let curves = || self.curves.iter().filter(|c| self.whole_curves && c.style.is_some()).flat_map(|c| &c.points);
        let all = || self.marks.iter().flat_map(|m| m.models.iter().chain([&m.at])).chain(curves());
        let axes = Axes { x: range(all().map(|p| p.0)), y: range(all().map(|p| p.1)) };
        let (id, title) = (escape(&self.id), escape(&self.title));
        let mut out = format!("<figure><figcaption><b>{title}</b><span class=\"legend\">");
        for mark in &self.marks {
            let _ = write!(
                out,
                "<span><svg viewBox=\"0 0 14 14\" width=\"14\" height=\"14\" aria-hidden=\"true\">{}</svg>{}</span>",
                shape(mark.style, 7.0, 7.0, 4.2),
                escape(&mark.label)
            );
        }
        for curve in &self.curves {
            let _ = write!(
                out,
                "<span><svg viewBox=\"0 0 26 8\" width=\"26\" height=\"8\" aria-hidden=\"true\"><path class=\"line\" {} \
                 d=\"M1 4H25\"/></svg>{}</span>",
                stroke(curve.style),
                escape(&curve.label)
            );
        }
        let said: Vec<String> = self
            .marks
            .iter()
            .map(|m| format!("{}: ID {} %, OOD {} %.", escape(&m.label), number(round(m.at.0)), number(round(m.at.1))))
            .collect();
        let _ = write!(
            out,
            "</span></figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{}</desc><clipPath id=\"{id}-c\"><rect x=\"{LEFT}\" \
             y=\"{TOP}\" width=\"{}\" height=\"{}\"/></clipPath>",
            said.join(" "),
            WIDTH - LEFT - RIGHT,
            HEIGHT - TOP - BOTTOM
        );
        grid(&axes, self.figure, &mut out);
        let _ = write!(out, "<g clip-path=\"url(#{id}-c)\">");
        self.curves.iter().for_each(|c| curve(&axes, c, &mut out));
        for mark in &self.marks {
            interval(&axes, mark, &mut out);
            for model in &mark.models {
                let (x, y) = axes.place(*model);
                let _ = write!(
                    out,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\" opacity=\".45\" style=\"fill:var(--c{})\"/>",
                    mark.style % COLORS
                );
            }
        }
        for mark in &self.marks {
            let (x, y) = axes.place(mark.at);
            let _ = write!(
                out,
                "<g class=\"mark\"><title>{}</title>{}</g>",
                escape(&mark.label),
                shape(mark.style, x, y, 5.0)
            );
        }
        out + "</g></svg></figure>\n"
    }
}

/// The marks but those so far off that all others would be one heap: a minority beyond a gap of over half of all, and of over 10 points, on
/// either axis.
pub(super) fn without_far(marks: &[Mark]) -> Vec<Mark> {
    let mut near = marks.to_vec();
    for axis in [|m: &Mark| m.at.0, |m: &Mark| m.at.1] {
        loop {
            near.sort_by(|a, b| axis(a).total_cmp(&axis(b)));
            let gap = |i: &usize| axis(&near[*i]) - axis(&near[*i - 1]);
            let Some(split) = (1..near.len()).max_by(|a, b| gap(a).total_cmp(&gap(b))) else { break };
            let (width, span) = (gap(&split), axis(&near[near.len() - 1]) - axis(&near[0]));
            if width <= 10.0 || width <= 0.5 * span || 2 * split == near.len() {
                break;
            }
            if 2 * split < near.len() { drop(near.drain(..split)) } else { near.truncate(split) }
        }
    }
    near.sort_by_key(|m| m.style);
    near
}

fn round(v: f64) -> f64 {
    (10.0 * v).round() / 10.0
}

fn stroke(style: Option<usize>) -> String {
    match style {
        Some(style) => format!("style=\"stroke:var(--c{})\"", style % COLORS),
        None => "style=\"stroke:var(--soft);stroke-dasharray:6 5;stroke-width:1.5\"".into(),
    }
}

fn grid(axes: &Axes, figure: &str, out: &mut String) {
    let (right, base) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tick in nice(axes.y.0, axes.y.1, 5) {
        let (_, y) = axes.place((axes.x.0, tick));
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text class=\"end\" x=\"{}\" y=\"{:.1}\">{} %</text>",
            LEFT - 7.0,
            y + 4.0,
            number(tick)
        );
    }
    for tick in nice(axes.x.0, axes.x.1, 6) {
        let (x, _) = axes.place((tick, axes.y.0));
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{base}\"/><text class=\"mid\" x=\"{x:.1}\" y=\"{}\">{} %</text>",
            base + 17.0,
            number(tick)
        );
    }
    let _ = write!(
        out,
        "<path class=\"axis\" d=\"M{LEFT} {TOP}V{base}H{right}\"/><text class=\"mid\" x=\"{}\" y=\"{}\">ID {figure} (across), \
         OOD mean {figure} (up)</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 6.0
    );
}

fn curve(axes: &Axes, curve: &Curve, out: &mut String) {
    let mut d = String::new();
    for (i, point) in curve.points.iter().enumerate() {
        let (x, y) = axes.place(*point);
        let _ = write!(d, "{}{x:.1} {y:.1}", if i == 0 { "M" } else { "L" });
    }
    let _ = write!(out, "<path class=\"line\" {} d=\"{d}\"/>", stroke(curve.style));
    if let Some(style) = curve.style {
        for point in &curve.points {
            let (x, y) = axes.place(*point);
            let _ = write!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\" style=\"fill:var(--c{})\"/>",
                style % COLORS
            );
        }
    }
}

fn interval(axes: &Axes, mark: &Mark, out: &mut String) {
    let ((x, y), color) = (mark.at, mark.style % COLORS);
    let ends = [mark.half.0.map(|h| ((x - h, y), (x + h, y))), mark.half.1.map(|h| ((x, y - h), (x, y + h)))];
    for (a, b) in ends.into_iter().flatten() {
        let ((ax, ay), (bx, by)) = (axes.place(a), axes.place(b));
        let _ = write!(
            out,
            "<path d=\"M{ax:.1} {ay:.1}L{bx:.1} {by:.1}\" style=\"stroke:var(--c{color});stroke-width:1.2\" opacity=\".45\"/>"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_lie_within_their_axes_and_are_described() {
        let mark = |label: &str, x, y, style| Mark {
            label: label.into(),
            at: (x, y),
            half: (Some(40.0), None),
            models: vec![(x - 1.0, y), (x + 1.0, y)],
            style,
        };
        let curve = Curve { label: "line".into(), points: vec![(0.0, 0.0), (100.0, 100.0)], style: None };
        let scatter = Scatter {
            id: "s".into(),
            title: "A <title>".into(),
            marks: vec![mark("a & b", 70.0, 40.0, 0), mark("c", 72.0, 44.0, 9)],
            curves: vec![curve],
            whole_curves: true,
            figure: "top-1",
        };
        let svg = scatter.figure();
        assert!(svg.contains("A &lt;title&gt;") && svg.contains("a &amp; b: ID 70 %, OOD 40 %."), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(range([70.0, 72.0].into_iter()), (69.8, 72.2));
        assert_eq!(range([50.0].into_iter()), (49.0, 51.0));
        assert_eq!(range([0.0, 100.0].into_iter()), (-0.5, 100.5));
        assert!(Scatter { marks: Vec::new(), ..scatter }.figure().is_empty());
    }

    #[test]
    fn what_makes_a_heap_of_the_others_is_left_out() {
        let near = |at: &[(f64, f64)]| -> Vec<usize> {
            let mark = |(style, at): (usize, &(f64, f64))| Mark {
                label: style.to_string(),
                at: *at,
                half: (None, None),
                models: Vec::new(),
                style,
            };
            without_far(&at.iter().enumerate().map(mark).collect::<Vec<_>>()).iter().map(|m| m.style).collect()
        };
        assert!(near(&[]).is_empty());
        assert_eq!(near(&[(10.0, 10.0), (90.0, 90.0)]), [0, 1]);
        // Two below on both axes, one on its OOD accuracy alone.
        let (far, ood) = ([(15.0, 9.0), (24.0, 15.0)], [(95.0, 20.0)]);
        let heap = [(96.8, 68.7), (97.8, 71.0), (97.2, 70.2), (94.5, 64.1)];
        assert_eq!(near(&[&far[..], &heap[..]].concat()), [2, 3, 4, 5]);
        assert_eq!(near(&[&ood[..], &heap[..]].concat()), [1, 2, 3, 4]);
        assert_eq!(near(&heap), [0, 1, 2, 3], "3.8 points are no gap");
        assert_eq!(
            near(&[(10.0, 10.0), (11.0, 11.0), (90.0, 90.0), (91.0, 91.0)]),
            [0, 1, 2, 3],
            "neither is the heap"
        );
    }
}
