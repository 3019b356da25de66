//! How far the weights have moved from the anchor: tensor by tensor at the end of a run, and at each evaluation on the way.

use std::path::PathBuf;

use rayon::prelude::*;

use crate::csv_text::csv_text;
use crate::error::Result;
use crate::model::Adapters;
use crate::shapes::{Param, ParamLayout};
use crate::train::reached::Reached;
use crate::train::records::DriftRow;
use crate::train::run_dir::{Appender, keep_lines};

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

/// `drift_over_time.csv`, which grows at each evaluation on the way.
#[derive(Debug)]
pub(super) struct DriftLog(Appender);

impl DriftLog {
    /// Writes nothing.
    pub(super) fn nowhere() -> DriftLog {
        DriftLog(Appender::nowhere())
    }

    /// Starts the file at `path`, or goes on with it where a run has `reached` something.
    ///
    /// # Errors
    /// A file that can't be read or written.
    pub(super) fn open(path: PathBuf, reached: Option<Reached>) -> Result<DriftLog> {
        let header = DriftRow::COLUMNS.join(",");
        if let Some(reached) = reached {
            keep_lines(&path, |line| {
                let at = line.split(',').next().and_then(|step| step.parse().ok());
                at.map_or(line == header, |at| reached.has(at))
            })?;
        }
        let fresh = reached.is_none() || !path.is_file();
        let mut log = Appender::open(path, fresh)?;
        if fresh {
            log.write(&(header + "\n"))?;
        }
        Ok(DriftLog(log))
    }

    /// Adds rows.
    ///
    /// # Errors
    /// A file that can't be written.
    pub(super) fn write(&mut self, rows: &[DriftRow]) -> Result<()> {
        self.0.write(&csv_text(rows))
    }

    /// Brings them to the disk.
    ///
    /// # Errors
    /// A file that can't be written.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.0.sync()
    }
}
