//! Which charts there are: of one run, and of several laid over each other.

use std::collections::BTreeMap;

use super::read::Run;
use super::svg::{Axis, COLORS, Chart, Series, Style};
use super::tensors::{self, Tensor};
use crate::train::blocks::Group;
use crate::train::evaluate::Figure;
use crate::train::records::{Distribution, EvaluationLine, StepLine, Weights};

/// The title of the chart of drift.
pub(super) const DRIFT: &str = "Drift from the pre-trained weights, L2 by block";
/// Fewer values than this are drawn as they are.
const SMOOTH_FROM: usize = 40;

pub(super) fn line(label: impl Into<String>, color: usize, points: Vec<(f64, f64)>) -> Series {
    Series { label: label.into(), points, color, style: Style::Line }
}

pub(super) fn marks(label: impl Into<String>, color: usize, points: Vec<(f64, f64)>) -> Series {
    Series { style: Style::Marks, ..line(label, color, points) }
}

fn chart(id: String, title: impl Into<String>, axis: Axis, series: Vec<Series>) -> Chart {
    Chart { id, title: title.into(), x_label: "step", axis, series, names: Vec::new() }
}

/// The charts of one run; ids start with `id`.
pub(super) fn of_run(id: &str, run: &Run, tensors: &[Tensor]) -> String {
    let mut out = loss(id, run);
    out += &accuracy(id, run).figure();
    let lr = line("learning rate", 0, values(run, |p| p.lr));
    out += &chart(format!("{id}-lr"), "Learning rate", Axis::Linear, vec![lr]).figure();
    out += &radii(id, run, tensors);
    out += &by_block(format!("{id}-blocks"), DRIFT, vec![drift_by_block(&run.name, 0, tensors)]).figure();
    out
}

/// The charts that hold the runs against each other.
pub(super) fn of_all(runs: &[Run], tensors: &[Vec<Tensor>]) -> String {
    let each = |f: &dyn Fn(usize, &Run) -> Series| runs.iter().enumerate().map(|(i, r)| f(i, r)).collect::<Vec<_>>();
    let losses = each(&|i, r| line(&r.name, i, smooth(&values(r, |p| p.train_loss.map(f64::from)))));
    let val = each(&|i, r| marks(&r.name, i, main_figure(r, |e| e.set == "val")));
    let ood = each(&|i, r| marks(&r.name, i, main_figure(r, |e| e.kind == Some(Distribution::Ood))));
    let [on_val, on_ood] = match runs.first().map(Run::figure) {
        Some(Figure::Map) => ["mAP on val", "Mean mAP on the OOD sets"],
        _ => ["Top-1 on val", "Mean top-1 on the OOD sets"],
    };
    let drift = runs.iter().zip(tensors).enumerate().map(|(i, (r, t))| drift_by_block(&r.name, i, t)).collect();
    [
        chart("all-loss".into(), "Training loss, smoothed", Axis::Linear, losses),
        chart("all-val".into(), on_val, Axis::Percent, val),
        chart("all-ood".into(), on_ood, Axis::Percent, ood),
        by_block("all-blocks".into(), DRIFT, drift),
    ]
    .iter()
    .map(Chart::figure)
    .collect()
}

fn loss(id: &str, run: &Run) -> String {
    let train = values(run, |p| p.train_loss.map(f64::from));
    let radius = values(run, |p| p.radius_loss.map(f64::from));
    // The post-hoc recipe logs outer iterations in lines of their own, which share no axis with training.
    let apart = run.train.iter().any(|p| p.radius_loss.is_some() && p.train_loss.is_none());
    let mut series = Vec::new();
    for (name, color, points) in [("train", 0, &train), ("radius", 1, &radius)] {
        if name == "radius" && apart {
            continue;
        }
        if points.len() >= SMOOTH_FROM {
            series.push(Series { style: Style::Faint, ..line(format!("{name}, each batch"), color, points.clone()) });
            series.push(line(format!("{name}, mean of {}", window(points.len())), color, smooth(points)));
        } else {
            series.push(line(name, color, points.clone()));
        }
    }
    let val = run.evals.iter().filter(|e| e.set == "val" && on_curve(e));
    series.push(marks("val", 2, by_step(val.filter_map(|e| Some((e.step, e.loss?))))));
    let mut out = chart(format!("{id}-loss"), "Loss", Axis::Linear, series).figure();
    if apart {
        let points = radius.iter().enumerate().map(|(i, (_, y))| (i as f64 + 1.0, *y)).collect();
        let series = vec![line("radius loss", 1, points)];
        let chart = chart(format!("{id}-radius-loss"), "Radius loss", Axis::Linear, series);
        out += &Chart { x_label: "outer iteration", ..chart }.figure();
    }
    out
}

fn accuracy(id: &str, run: &Run) -> Chart {
    let mut series = vec![marks("val", 2, main_figure(run, |e| e.set == "val"))];
    let mut sets: Vec<(&str, Option<Distribution>)> = Vec::new();
    for e in run.evals.iter().filter(|e| e.set != "val") {
        if !sets.iter().any(|(s, _)| *s == e.set) {
            sets.push((&e.set, e.kind));
        }
    }
    // Where kinds are known, two means say it; one line per set would be a tangle.
    if sets.iter().all(|(_, kind)| kind.is_some()) {
        for (kind, label, color) in [(Distribution::Id, "ID", 0), (Distribution::Ood, "OOD", 1)] {
            let names: Vec<&str> = sets.iter().filter(|s| s.1 == Some(kind)).map(|s| s.0).collect();
            let label = match names[..] {
                [] => continue,
                [one] => format!("{label}: {one}"),
                _ => format!("{label}, mean of {}", names.len()),
            };
            series.push(marks(label, color, main_figure(run, |e| e.kind == Some(kind))));
        }
    } else {
        let colors = (0..COLORS).filter(|c| *c != 2);
        for ((set, _), color) in sets.iter().zip(colors) {
            series.push(marks(*set, color, main_figure(run, |e| e.set == *set)));
        }
    }
    let title = match run.figure() {
        Figure::Top1 => "Top-1 during training",
        Figure::Map => "mAP during training",
    };
    chart(format!("{id}-top1"), title, Axis::Percent, series)
}

fn radii(id: &str, run: &Run, tensors: &[Tensor]) -> String {
    let iterations = tensors::iterations(run);
    if iterations.len() < 2 {
        return String::new();
    }
    let by_step = iterations.is_sorted_by(|a, b| a.step < b.step);
    let at = |nth: usize, step: u64| if by_step { step as f64 } else { nth as f64 + 1.0 };
    // Matrices from input to output: what the method is about, and few enough to be told apart.
    let matrices: Vec<&Tensor> = tensors.iter().filter(|t| t.index.is_some() && t.matrix).collect();
    let count = matrices.len().min(COLORS - 1);
    let chosen: Vec<&Tensor> = (0..count).map(|i| matrices[i * (matrices.len() - 1) / (count - 1).max(1)]).collect();
    let mut lines: Vec<Series> = Vec::new();
    for (color, tensor) in chosen.iter().enumerate() {
        let rows = run.radii.rows.iter().filter(|r| Some(r.0) == tensor.index).enumerate();
        let label = match &tensor.group {
            Group::Block(prefix) => format!("{prefix}.{}", tensor.label),
            _ => tensor.label.clone(),
        };
        lines.push(line(label, color, rows.map(|(nth, (_, r))| (at(nth, r.step), r.in_force())).collect()));
    }
    let share = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    let each = |f: &dyn Fn(&tensors::Iteration) -> f64| -> Vec<(f64, f64)> {
        iterations.iter().enumerate().map(|(nth, i)| (at(nth, i.step), f(i))).collect()
    };
    let activity = vec![
        line("rows outside their ball", 0, each(&|i| share(i.active, i.rows))),
        line("dead radii", 1, each(&|i| share(i.dead, i.tensors))),
    ];
    let x_label = if by_step { "step" } else { "outer iteration" };
    let radius = chart(format!("{id}-radii"), "Radius of a few tensors", Axis::Wide, lines);
    let activity = chart(format!("{id}-active"), "Rows clipped and radii dead", Axis::Percent, activity);
    [radius, activity].into_iter().map(|c| Chart { x_label, ..c }.figure()).collect()
}

/// The L2 norm of each block's drift, over all its tensors; the points' x are filled in by [`by_block`].
pub(super) fn drift_by_block(name: &str, color: usize, tensors: &[Tensor]) -> (Series, Vec<Group>) {
    let (mut groups, mut squares): (Vec<Group>, Vec<f64>) = (Vec::new(), Vec::new());
    for tensor in tensors {
        let Some((_, l2)) = tensor.drift else { continue };
        let at = groups.iter().position(|g| *g == tensor.group).unwrap_or_else(|| {
            groups.push(tensor.group.clone());
            squares.push(0.0);
            groups.len() - 1
        });
        squares[at] += l2 * l2;
    }
    let points = squares.iter().map(|s| (0.0, s.sqrt())).collect();
    (marks(name, color, points), groups)
}

/// A chart over blocks from input to output, of series whose points each belong to a group.
pub(super) fn by_block(id: String, title: &str, runs: Vec<(Series, Vec<Group>)>) -> Chart {
    let mut all: Vec<Group> = Vec::new();
    for group in runs.iter().flat_map(|(_, groups)| groups) {
        if !all.contains(group) {
            all.push(group.clone());
        }
    }
    let place = |group: &Group| all.iter().position(|g| g == group).unwrap_or(0) as f64;
    let series = runs.into_iter().map(|(series, groups)| {
        let points = series.points.iter().zip(&groups).map(|((_, y), group)| (place(group), *y)).collect();
        Series { points, ..series }
    });
    let names = all.iter().map(Group::short).collect();
    let chart = chart(id, title, Axis::Wide, series.collect());
    Chart { x_label: "block", names, ..chart }
}

fn values(run: &Run, value: impl Fn(&StepLine) -> Option<f64>) -> Vec<(f64, f64)> {
    run.train.iter().filter_map(|p| Some((p.step as f64, value(p)?))).collect()
}

/// Later values of the same step replace earlier ones, as after a resume.
fn by_step(values: impl Iterator<Item = (u64, f64)>) -> Vec<(f64, f64)> {
    values.collect::<BTreeMap<_, _>>().into_iter().map(|(step, y)| (step as f64, y)).collect()
}

/// Whether an evaluation is a point of its run's course; the best weights, evaluated again at the end, are not.
fn on_curve(e: &EvaluationLine) -> bool {
    !e.is_final || e.is_baseline() || e.model == Some(Weights::Last)
}

/// Top-1, or mAP, in percent over training, the mean over the wanted sets, at steps where all of them were evaluated.
fn main_figure(run: &Run, wanted: impl Fn(&EvaluationLine) -> bool) -> Vec<(f64, f64)> {
    let mut steps: BTreeMap<u64, BTreeMap<&str, f64>> = BTreeMap::new();
    for e in run.evals.iter().filter(|e| on_curve(e) && wanted(e)) {
        if let Some(main) = e.main() {
            steps.entry(e.step).or_default().insert(&e.set, 100.0 * main);
        }
    }
    let most = steps.values().map(BTreeMap::len).max().unwrap_or(0);
    let whole = steps.into_iter().filter(|(_, sets)| sets.len() == most);
    whole.map(|(step, sets)| (step as f64, sets.values().sum::<f64>() / sets.len() as f64)).collect()
}

fn window(count: usize) -> usize {
    (count / 30).clamp(5, 201) | 1
}

/// The centred mean over a window that grows with the run; gaps stay gaps.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() < SMOOTH_FROM {
        return points.to_vec();
    }
    let half = window(points.len()) / 2;
    let mean = |i: usize| {
        let around = &points[i.saturating_sub(half)..(i + half + 1).min(points.len())];
        let finite = around.iter().map(|p| p.1).filter(|y| y.is_finite());
        let (sum, count) = finite.fold((0.0, 0.0), |(sum, count), y| (sum + y, count + 1.0));
        if points[i].1.is_finite() { sum / count } else { f64::NAN }
    };
    points.iter().enumerate().map(|(i, p)| (p.0, mean(i))).collect()
}

#[cfg(test)]
mod tests {
    use super::smooth;

    #[test]
    fn smoothing_keeps_a_line_and_a_gap() {
        let mut points: Vec<(f64, f64)> = (0..90).map(|i| (f64::from(i), 2.0 * f64::from(i))).collect();
        assert!((smooth(&points)[45].1 - 90.0).abs() < 1e-12);
        points[45].1 = f64::NAN;
        let smoothed = smooth(&points);
        assert!(smoothed[45].1.is_nan() && smoothed[44].1.is_finite());
    }
}
