//! A run's tensors from input to output, grouped by block, with the figures of each at the end of the run.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::read::Run;
use crate::train::blocks::{Group, split};
use crate::train::records::RadiusRow;

/// Below this a tensor has not moved, and its radius means nothing.
pub(super) const UNMOVED: f64 = crate::cpu::mars::TINY;

/// One tensor at the end of the run; NaN never stands for "unknown".
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) group: Group,
    /// The name within its group, such as `attn.qkv.weight`.
    pub(super) label: String,
    pub(super) rows: u64,
    /// Whether it has several rows by its shape; in the L2 norm its radius sees one.
    pub(super) matrix: bool,
    /// At the last outer iteration, where the method has radii.
    pub(super) radius: Option<Radius>,
    /// Index into `Radii::tensors`.
    pub(super) index: Option<usize>,
    /// Largest absolute row sum and L2 norm of θ − θ₀.
    pub(super) drift: Option<(f64, f64)>,
    /// The share of `digrap` at the end, where it has one.
    pub(super) share: Option<f32>,
}

/// A tensor's radius.
#[derive(Clone, Copy, Debug)]
pub(super) struct Radius {
    pub(super) radius: f64,
    /// The largest row norm of the drift.
    pub(super) max_norm: f64,
    pub(super) active_rows: u64,
}

impl Radius {
    fn of(row: &RadiusRow) -> Radius {
        Radius { radius: row.in_force(), max_norm: row.max_norm.into(), active_rows: row.active_rows }
    }
}

/// The run's tensors, ordered by depth.
pub(super) fn by_depth(run: &Run) -> Vec<Tensor> {
    let mut last: HashMap<usize, &RadiusRow> = HashMap::new();
    for (tensor, row) in &run.radii.rows {
        last.insert(*tensor, row);
    }
    let mut tensors: Vec<(String, Option<usize>, Tensor)> = Vec::new();
    for (index, name) in run.radii.tensors.iter().enumerate() {
        let row = last.get(&index);
        let (rows, radius) = (row.map_or(0, |r| r.rows), row.map(|r| Radius::of(r)));
        tensors.push((name.clone(), None, tensor(name, rows, radius, Some(index))));
    }
    let known: HashMap<String, usize> = tensors.iter().enumerate().map(|(i, (n, ..))| (n.clone(), i)).collect();
    // The last row of each is that of the end.
    let shares: HashMap<&String, f32> = run.shares.iter().map(|row| (&row.tensor, row.share)).collect();
    for row in &run.drift {
        let at = known.get(&row.tensor).copied().unwrap_or_else(|| {
            tensors.push((row.tensor.clone(), None, tensor(&row.tensor, row.rows, None, None)));
            tensors.len() - 1
        });
        tensors[at].1 = row.depth;
        tensors[at].2.matrix |= row.rows > 1;
        tensors[at].2.drift = Some((row.mars_drift, row.l2_drift));
        tensors[at].2.share = shares.get(&row.tensor).copied();
    }
    // Only a depth known for all can order all; else the names say it. The sort is stable, so equals keep file order.
    if tensors.iter().all(|(_, depth, _)| depth.is_some()) {
        tensors.sort_by_key(|t| t.1);
    } else {
        tensors.sort_by(|a, b| compare(&a.2.group, &b.2.group));
    }
    tensors.into_iter().map(|(.., tensor)| tensor).collect()
}

fn tensor(name: &str, rows: u64, radius: Option<Radius>, index: Option<usize>) -> Tensor {
    let (group, label) = split(name);
    Tensor { group, label, rows, matrix: rows > 1, radius, index, drift: None, share: None }
}

fn compare(a: &Group, b: &Group) -> Ordering {
    let rank = |g: &Group| match g {
        Group::Embedding => 0,
        Group::Block(_) => 1,
        Group::Head => 2,
    };
    match (a, b) {
        (Group::Block(a), Group::Block(b)) => natural(a).cmp(&natural(b)),
        _ => rank(a).cmp(&rank(b)),
    }
}

/// A sort key under which `blocks.2` comes before `blocks.10`.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut key = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let digits = rest[text..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |n| text + n);
        key.push((rest[..text].to_string(), rest[text..digits].parse().unwrap_or(u64::MAX)));
        rest = &rest[digits..];
    }
    key
}

/// What one outer iteration did, over all tensors.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Iteration {
    pub(super) step: u64,
    pub(super) tensors: u64,
    pub(super) rows: u64,
    /// Rows outside their ball.
    pub(super) active: u64,
    /// Radii without a single row outside, though the tensor has moved: they get no gradient.
    pub(super) dead: u64,
    /// Tensors that are where they started.
    pub(super) unmoved: u64,
}

/// The outer iterations in order; one ends where a tensor comes again.
pub(super) fn iterations(run: &Run) -> Vec<Iteration> {
    let mut out: Vec<Iteration> = Vec::new();
    let mut seen = vec![usize::MAX; run.radii.tensors.len()];
    for (tensor, row) in &run.radii.rows {
        let current = out.last().filter(|i| i.step == row.step && seen[*tensor] != out.len());
        if current.is_none() {
            out.push(Iteration { step: row.step, ..Iteration::default() });
        }
        let nth = out.len();
        seen[*tensor] = nth;
        let iteration = &mut out[nth - 1];
        iteration.tensors += 1;
        iteration.rows += row.rows;
        iteration.active += row.active_rows;
        let unmoved = f64::from(row.max_norm) < UNMOVED;
        iteration.unmoved += u64::from(unmoved);
        iteration.dead += u64::from(row.active_rows == 0 && !unmoved);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_order_by_number() {
        let mut names = ["head.bias", "blocks.10.a", "blocks.9.a", "norm.weight", "blocks.2.a", "cls_token"];
        names.sort_by(|a, b| compare(&split(a).0, &split(b).0));
        assert_eq!(names, ["cls_token", "blocks.2.a", "blocks.9.a", "blocks.10.a", "head.bias", "norm.weight"]);
    }
}
