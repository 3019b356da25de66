//! How far the weights have moved from the anchor, tensor by tensor.

use rayon::prelude::*;

use crate::model::Adapters;
use crate::shapes::{Param, ParamLayout};
use crate::train::records::DriftRow;

/// The largest row drift (MARS) and the L2 norm of each tensor's drift, in f64, after `step` steps; `values` and `anchor` are laid
/// out as `layout` says.
pub(super) fn rows(layout: &ParamLayout, values: &[f32], anchor: &[f32], step: u64) -> Vec<DriftRow> {
    let own = |((param, _), _): &((&Param, _), _)| !Adapters::is_part(&param.name);
    let both = layout.unpack(values).zip(layout.unpack(anchor)).filter(own).enumerate();
    let tensors: Vec<(usize, &Param, &[f32], &[f32])> =
        both.map(|(depth, ((param, w), (_, w0)))| (depth, param, w, w0)).collect();
    let row = |(depth, param, w, w0): &(usize, &Param, &[f32], &[f32])| {
        let delta: Vec<f64> = w.iter().zip(*w0).map(|(w, w0)| f64::from(*w) - f64::from(*w0)).collect();
        let row = |row: &[f64]| row.iter().map(|d| d.abs()).sum::<f64>();
        let mars_drift = delta.chunks(param.len / param.rows()).map(row).fold(0.0, f64::max);
        let l2_drift = delta.iter().map(|d| d * d).sum::<f64>().sqrt();
        let (tensor, rows) = (param.name.clone(), param.rows() as u64);
        DriftRow { step, tensor, depth: Some(*depth), mars_drift, l2_drift, rows }
    };
    tensors.par_iter().map(row).collect()
}
