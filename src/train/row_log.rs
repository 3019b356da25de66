//! A file of CSV that grows at each evaluation of a run, such as `drift_over_time.csv`.

use std::path::PathBuf;

use serde::Serialize;

use crate::csv_text::csv_text;
use crate::error::Result;
use crate::train::reached::Reached;
use crate::train::run_dir::{Appender, keep_lines};

/// The file. Its rows begin with the step that the evaluation came after.
#[derive(Debug)]
pub(super) struct RowLog(Appender);

impl RowLog {
    /// Writes nothing.
    pub(super) fn nowhere() -> RowLog {
        RowLog(Appender::nowhere())
    }

    /// Starts the file at `path`, with the names of its `columns`, or goes on with it where a run has `reached` something.
    ///
    /// # Errors
    /// A file that can't be read or written.
    pub(super) fn open(path: PathBuf, columns: &[&str], reached: Option<Reached>) -> Result<RowLog> {
        let header = columns.join(",");
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
        Ok(RowLog(log))
    }

    /// Adds rows.
    ///
    /// # Errors
    /// A file that can't be written.
    pub(super) fn write(&mut self, rows: &[impl Serialize]) -> Result<()> {
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
