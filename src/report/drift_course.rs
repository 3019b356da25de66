//! How far each block had moved from the pre-trained weights, evaluation by evaluation.

use std::collections::HashMap;

use super::charts::marks;
use super::read::Run;
use super::svg::{Axis, COLORS, Chart};
use crate::train::blocks::Group;

/// The chart of `run` with the id `id`: of all blocks, or of some from input to output. Empty for a run without evaluations on the
/// way.
pub(super) fn chart(id: String, run: &Run) -> String {
    titled(id, "Drift from the pre-trained weights over time, L2", run)
}

/// [`chart`] with another title.
pub(super) fn titled(id: String, title: &str, run: &Run) -> String {
    let mut groups: Vec<Group> = Vec::new();
    let mut squares: HashMap<(usize, u64), f64> = HashMap::new();
    let mut steps: Vec<u64> = Vec::new();
    let mut rows: Vec<_> = run.drift_over_time.iter().chain(&run.drift).collect();
    rows.sort_by_key(|row| (row.step, row.depth));
    for row in rows {
        let group = Group::of(&row.tensor);
        let at = groups.iter().position(|g| *g == group).unwrap_or_else(|| {
            groups.push(group);
            groups.len() - 1
        });
        if steps.last() != Some(&row.step) {
            steps.push(row.step);
        }
        *squares.entry((at, row.step)).or_default() += row.l2_drift * row.l2_drift;
    }
    if steps.len() < 2 {
        return String::new();
    }
    let count = groups.len().min(COLORS);
    let chosen = (0..count).map(|i| i * (groups.len() - 1) / (count - 1).max(1));
    let series = chosen.enumerate().map(|(color, at)| {
        let value = |step: &u64| squares.get(&(at, *step)).map(|sum| (*step as f64, sum.sqrt()));
        marks(groups[at].name(), color, [(0.0, 0.0)].into_iter().chain(steps.iter().filter_map(value)).collect())
    });
    let of = if count < groups.len() { format!(", {count} of {} blocks", groups.len()) } else { String::new() };
    let title = format!("{title}{of}");
    Chart { id, title, x_label: "step", axis: Axis::Linear, series: series.collect(), names: Vec::new() }.figure()
}
