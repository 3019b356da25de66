//! Estimates under each other with their intervals and a line at zero, as inline SVG.

use std::fmt::Write as _;

use super::scatter::shape;
use super::svg::nice;
use super::text::{escape, number};

const WIDTH: f64 = 520.0;
const ROW: f64 = 24.0;
const LEFT: f64 = 132.0;
const RIGHT: f64 = 96.0;
const TOP: f64 = 6.0;
const BOTTOM: f64 = 42.0;
/// Longer names are cut: the page's table has them whole.
const NAME: usize = 17;

/// A row: name, mean, half the width of its interval, and the style of its mark.
pub(super) type Row = (String, f64, Option<f64>, usize);

/// The `<figure>` of `rows`, in percentage points; nothing without rows.
pub(super) fn figure(id: &str, title: &str, axis: &str, rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    // An interval over two seeds can be wider than everything there is to see: it is cut at the frame.
    let most = rows.iter().map(|r| r.1.abs()).fold(1.0, f64::max);
    let ends = rows.iter().flat_map(|(_, mean, half, _)| {
        let half = half.unwrap_or(0.0).min(2.5 * most);
        [mean - half, mean + half]
    });
    let (lo, hi) = ends.fold((0.0_f64, 0.0_f64), |(lo, hi), v| (lo.min(v), hi.max(v)));
    let pad = 0.05 * (hi - lo).max(1.0);
    let (lo, hi) = (lo - pad, hi + pad);
    let place = |v: f64| LEFT + ((v - lo) / (hi - lo)).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT);
    let (base, title) = (TOP + ROW * rows.len() as f64, escape(title));
    let said: Vec<String> = rows.iter().map(|r| format!("{}: {}.", escape(&r.0), value(r))).collect();
    let mut out = format!(
        "<figure><figcaption><b>{title}</b></figcaption><svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" \
         aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{}</desc>",
        base + BOTTOM,
        said.join(" ")
    );
    for tick in nice(lo, hi, 5) {
        let x = place(tick);
        let class = if tick.abs() < 1e-9 { "axis" } else { "grid" };
        let _ = write!(
            out,
            "<path class=\"{class}\" d=\"M{x:.1} {TOP}V{base}\"/><text class=\"mid\" x=\"{x:.1}\" y=\"{}\">{}</text>",
            base + 17.0,
            number(tick)
        );
    }
    for (i, row) in rows.iter().enumerate() {
        let (name, mean, half, style) = row;
        let y = TOP + ROW * (i as f64 + 0.5);
        if let Some(half) = half {
            let (a, b) = (place(mean - half), place(mean + half));
            let _ = write!(
                out,
                "<path d=\"M{a:.1} {y:.1}H{b:.1}\" style=\"stroke:var(--c{});stroke-width:2\" opacity=\".75\"/>",
                style % 7
            );
        }
        let name: String = if name.chars().count() > NAME {
            name.chars().take(NAME - 1).chain(['…']).collect()
        } else {
            name.clone()
        };
        let _ = write!(
            out,
            "{}<text class=\"end\" x=\"{}\" y=\"{:.1}\">{}</text><text x=\"{}\" y=\"{:.1}\">{}</text>",
            shape(*style, place(*mean), y, 4.5),
            LEFT - 10.0,
            y + 4.0,
            escape(&name),
            WIDTH - RIGHT + 8.0,
            y + 4.0,
            value(row)
        );
    }
    let _ = writeln!(
        out,
        "<text class=\"mid\" x=\"{}\" y=\"{}\">{}</text></svg></figure>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        base + BOTTOM - 7.0,
        escape(axis)
    );
    out
}

fn value((_, mean, half, _): &Row) -> String {
    signed(*mean) + &half.map(|half| format!(" ± {half:.1}")).unwrap_or_default()
}

/// With its sign and one decimal; a zero has none.
pub(super) fn signed(v: f64) -> String {
    let text = format!("{:.1}", v.abs());
    match v {
        _ if text == "0.0" => text,
        v if v < 0.0 => format!("−{text}"),
        _ => format!("+{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_drawn_with_their_values() {
        let svg = figure("f", "T", "points", &[("a".into(), -1.25, Some(500.0), 0), ("b".into(), 0.0, None, 1)]);
        assert!(svg.contains("−1.2 ± 500.0") && svg.contains(">0.0<") && !svg.contains("NaN"), "{svg}");
        assert!(figure("f", "T", "points", &[]).is_empty());
        assert_eq!([signed(0.04), signed(-0.04), signed(2.0), signed(-3.16)], ["0.0", "0.0", "+2.0", "−3.2"]);
    }
}
