//! Radius and drift from input to output, method by method, as means over the reported runs.

use std::fmt::Write as _;

use super::charts::{DRIFT, by_block, drift_by_block, marks};
use super::drift_course;
use super::read::Run;
use super::svg::{COLORS, Series};
use super::tables;
use super::tensors::{self, Tensor, UNMOVED};
use super::text::escape;
use crate::compare::results::{DataResults, Results};
use crate::error::Result;
use crate::method::learns_on_val;
use crate::train::blocks::Group;
use crate::train::records::Session;

/// A trained method with the tensors of its reported runs.
pub(super) struct Depth {
    name: String,
    /// The first run's seed.
    seed: Option<u64>,
    runs: Vec<Vec<Tensor>>,
    /// The processes of all its runs.
    pub(super) sessions: Vec<Session>,
    /// The first run.
    pub(super) run: Run,
    /// Whether its radii are learned on validation images.
    pub(super) learns_radii: bool,
}

impl Depth {
    /// How many runs these are.
    pub(super) fn count(&self) -> usize {
        self.runs.len()
    }

    /// The name and the seed of the first run.
    pub(super) fn first(&self) -> String {
        let seed = self.seed.map(|s| format!(", seed {s}")).unwrap_or_default();
        format!("{}{seed}", self.name)
    }

    fn has_radii(&self) -> bool {
        self.runs.iter().flatten().any(|t| t.radius.is_some())
    }

    /// The name, for which methods the page says that they see validation images.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// Reads the run directories of the trained methods.
///
/// # Errors
/// Where one can't be read.
pub(super) fn read(data: &DataResults) -> Result<Vec<Depth>> {
    let trained = data.entries.iter().filter(|e| e.kind == "trained" && !e.models.is_empty());
    trained
        .map(|entry| {
            let mut runs = entry.models.iter().map(|m| Run::read(&m.dir)).collect::<Result<Vec<_>>>()?;
            Ok(Depth {
                sessions: runs.iter_mut().flat_map(|run| std::mem::take(&mut run.sessions)).collect(),
                name: entry.name.clone(),
                seed: entry.models[0].seed,
                learns_radii: runs[0].setting("method").is_some_and(|name| learns_on_val(&name)),
                runs: runs.iter().map(tensors::by_depth).collect(),
                run: runs.swap_remove(0),
            })
        })
        .collect()
}

/// Mean by group over the runs; `value` gives what a run has.
fn mean(depth: &Depth, color: usize, value: impl Fn(&[Tensor]) -> (Series, Vec<Group>)) -> (Series, Vec<Group>) {
    let runs: Vec<(Series, Vec<Group>)> = depth.runs.iter().map(|run| value(run)).collect();
    let groups = runs.first().map_or(Vec::new(), |(_, groups)| groups.clone());
    let points = groups.iter().map(|group| {
        let of = |(series, groups): &(Series, Vec<Group>)| {
            groups.iter().position(|g| g == group).map(|i| series.points[i].1)
        };
        let values: Vec<f64> = runs.iter().filter_map(of).collect();
        (0.0, values.iter().sum::<f64>() / values.len() as f64)
    });
    (marks(&depth.name, color, points.collect()), groups)
}

/// The mean of `value` over the matrices of each group that have a radius and have moved.
fn radius_by_block(tensors: &[Tensor], value: impl Fn(f64, f64) -> f64) -> (Series, Vec<Group>) {
    let (mut groups, mut values): (Vec<Group>, Vec<Vec<f64>>) = (Vec::new(), Vec::new());
    for tensor in tensors.iter().filter(|t| t.matrix) {
        let Some(r) = tensor.radius.filter(|r| r.max_norm >= UNMOVED) else { continue };
        let at = groups.iter().position(|g| *g == tensor.group).unwrap_or_else(|| {
            groups.push(tensor.group.clone());
            values.push(Vec::new());
            groups.len() - 1
        });
        values[at].push(value(r.radius, r.max_norm));
    }
    let points = values.iter().map(|v| (0.0, v.iter().sum::<f64>() / v.len() as f64)).collect();
    (marks("", 0, points), groups)
}

/// The charts and the tables of radii; empty without a trained run.
pub(super) fn section(id: &str, results: &Results, depths: &[Depth]) -> String {
    if depths.is_empty() {
        return String::new();
    }
    let mut out = String::from("<div class=\"charts\">");
    // A chart has as many lines as can be told apart; each has the reference, to be held against.
    let (plain, others): (Vec<&Depth>, Vec<&Depth>) = depths.iter().partition(|d| d.name == results.reference);
    let chunks: Vec<&[&Depth]> = if others.is_empty() { vec![&[]] } else { others.chunks(COLORS - 1).collect() };
    for (i, chunk) in chunks.iter().enumerate() {
        let shown = plain.iter().chain(chunk.iter()).enumerate();
        let drift = shown.map(|(color, depth)| mean(depth, color, |run| drift_by_block("", 0, run))).collect();
        out += &by_block(format!("{id}-drift{i}"), DRIFT, drift).figure();
    }
    let with_radii: Vec<&Depth> = depths.iter().filter(|d| d.has_radii()).collect();
    for (i, chunk) in with_radii.chunks(COLORS).enumerate() {
        let of = |value: fn(f64, f64) -> f64| {
            let each = chunk.iter().enumerate();
            each.map(|(color, depth)| mean(depth, color, |run| radius_by_block(run, value))).collect()
        };
        out +=
            &by_block(format!("{id}-radius{i}"), "Radius, mean over the matrices of a block", of(|radius, _| radius))
                .figure();
        let held = of(|radius, norm| (radius / norm).min(1.0));
        out += &by_block(format!("{id}-held{i}"), "Radius over the largest row drift before projection", held).figure();
    }
    out += "</div>\n";
    if !with_radii.is_empty() {
        out += "<p>The last of these charts says how tightly a block is held: at 1 its rows move freely, at 0.1 the farthest row keeps a \
                tenth of its drift.</p>\n";
    }
    let over_time = depths.iter().enumerate().map(|(i, depth)| {
        drift_course::titled(format!("{id}-moved{i}"), &format!("{}, L2", depth.first()), &depth.run)
    });
    let over_time: String = over_time.collect();
    if !over_time.is_empty() {
        let _ = writeln!(
            out,
            "<details><summary>Drift from the pre-trained weights over time, block by block</summary><div class=\"charts\">{over_time}\
             </div></details>"
        );
    }
    for depth in with_radii {
        let _ = writeln!(
            out,
            "<details><summary>{}: radius and drift by tensor</summary>{}</details>",
            escape(&depth.first()),
            tables::layers(&depth.runs[0])
        );
    }
    out
}
