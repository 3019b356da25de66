//! The run directory: `config.toml`, `metrics.jsonl`, `radii.csv`, `drift.csv`.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::atomic_write;
use crate::csv_text::csv_text;
use crate::error::{Error, Result};
use crate::method::{At, Learned, StepRecord};
use crate::train::board::Board;
use crate::train::reached::Reached;
use crate::train::records::{DriftRow, Metric, RadiusRow, StepLine};

/// Files that grow line by line.
#[derive(Debug)]
pub struct RunLog {
    metrics: Appender,
    radii: Appender,
    /// Names and rows of the tensors that have a radius.
    tensors: Vec<(String, usize)>,
    /// Where TensorBoard is told the same, if anywhere.
    pub(super) board: Option<Board>,
}

/// A file that grows by whole lines; none on the ranks of a run that don't write.
#[derive(Debug)]
pub(super) struct Appender {
    path: PathBuf,
    file: Option<File>,
}

impl Appender {
    /// Writes nothing.
    pub(super) fn nowhere() -> Appender {
        Appender { path: PathBuf::new(), file: None }
    }

    /// Opens `path` to add to it; `fresh` empties it first.
    pub(super) fn open(path: PathBuf, fresh: bool) -> Result<Appender> {
        let file = OpenOptions::new()
            .create(true)
            .append(!fresh)
            .write(true)
            .truncate(fresh)
            .open(&path)
            .map_err(|e| Error::io(&path, "cannot write", e))?;
        Ok(Appender { path, file: Some(file) })
    }

    /// Writes whole lines at once, so that a reader never meets half of one.
    pub(super) fn write(&mut self, lines: &str) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(lines.as_bytes()).map_err(|e| Error::io(&self.path, "cannot write", e))
    }

    /// Brings the lines to the disk.
    pub(super) fn sync(&mut self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_data().map_err(|e| Error::io(&self.path, "cannot write", e))
    }
}

impl RunLog {
    /// Writes nothing.
    pub(super) fn nowhere() -> RunLog {
        let (metrics, radii) = (Appender::nowhere(), Appender::nowhere());
        RunLog { metrics, radii, tensors: Vec::new(), board: None }
    }

    /// Starts (or, where a run has `reached` something, goes on with) the logs at `metrics` and `radii`. Lines about parts
    /// that are run again are dropped.
    pub fn open(
        metrics: &Path,
        radii: &Path,
        tensors: Vec<(String, usize)>,
        reached: Option<Reached>,
    ) -> Result<RunLog> {
        if let Some(reached) = reached {
            keep_lines(metrics, |line| Metric::parse(line).is_ok_and(|line| reached.keeps(&line)))?;
            keep_lines(radii, |line| {
                let at = line.split(',').next().and_then(|s| s.parse::<u64>().ok());
                at.map_or(line == RadiusRow::COLUMNS.join(","), |at| at < reached.radii)
            })?;
        }
        let fresh = reached.is_none();
        let mut log = RunLog {
            metrics: Appender::open(metrics.into(), fresh)?,
            radii: Appender::open(radii.into(), fresh)?,
            tensors,
            board: None,
        };
        if fresh {
            log.radii.write(&(RadiusRow::COLUMNS.join(",") + "\n"))?;
        }
        Ok(log)
    }

    /// One line per training step.
    pub fn steps(
        &mut self,
        records: &[StepRecord],
        epoch_steps: u64,
        lr: impl Fn(u64) -> f64,
        radius_loss: impl Fn(u64) -> Option<f32>,
    ) -> Result<()> {
        let line = |r: &StepRecord| {
            let (loss_scale, skipped) = r.scale.unzip();
            let line = StepLine {
                step: r.step,
                epoch: Some(r.step / epoch_steps),
                lr: Some(lr(r.step)),
                train_loss: Some(r.loss),
                grad_norm: Some(r.grad_norm),
                loss_scale,
                skipped: skipped.unwrap_or(false),
                radius_loss: radius_loss(r.step),
            };
            Metric::Step(line)
        };
        self.lines(records.iter().map(line))
    }

    /// A row per tensor for the radii that were learned, and a line for each iteration after the last step.
    pub fn learned(&mut self, learned: &[Learned]) -> Result<()> {
        if learned.is_empty() {
            return Ok(());
        }
        let (mut lines, mut rows) = (Vec::new(), Vec::new());
        for l in learned {
            let step = match l.at {
                At::Step(step) => step,
                At::Iteration(step) => {
                    lines.push(Metric::Step(StepLine { step, radius_loss: l.loss, ..StepLine::default() }));
                    step
                }
            };
            rows.extend(self.tensors.iter().zip(&l.radii).map(|((name, rows), r)| RadiusRow {
                step,
                tensor: name.clone(),
                radius: r.radius,
                max_norm: r.max_norm,
                active_rows: r.active_rows.into(),
                rows: *rows as u64,
            }));
        }
        self.lines(lines)?;
        self.radii.write(&csv_text(&rows))?;
        if let Some(board) = &mut self.board {
            rows.chunk_by(|a, b| a.step == b.step).try_for_each(|rows| board.radii(rows))?;
        }
        Ok(())
    }

    fn lines(&mut self, lines: impl IntoIterator<Item = Metric>) -> Result<()> {
        let mut text = String::new();
        for line in lines {
            text += &line.line();
            self.board.as_mut().map_or(Ok(()), |board| board.metric(&line))?;
        }
        self.metrics.write(&text)
    }

    /// Brings all lines to the disk, before a state that takes them for written.
    pub fn sync(&mut self) -> Result<()> {
        self.metrics.sync()?;
        self.radii.sync()
    }

    /// Any other line of `metrics.jsonl`.
    pub fn metric(&mut self, line: &Metric) -> Result<()> {
        self.metrics.write(&line.line())?;
        self.board.as_mut().map_or(Ok(()), |board| board.metric(line))
    }
}

/// Rewrites a log with only the lines that `keep` wants; a missing file stays missing. A last line that was torn, by a power cut
/// for example, goes.
pub(super) fn keep_lines(path: &Path, keep: impl Fn(&str) -> bool) -> Result<()> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(path, "cannot read", e)),
    };
    let whole = &bytes[..bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)];
    let kept: String =
        String::from_utf8_lossy(whole).split_inclusive('\n').filter(|line| keep(line.trim_end())).collect();
    atomic_write(path, kept.as_bytes())
}

/// What a folder has of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A beginning, with neither a state to go on from nor weights.
    Beginning,
    /// A state to go on from.
    State,
}

/// What the folder `dir` has of a run, for one that is to begin there, or to go on with `resume`.
///
/// # Errors
/// A folder that holds a run, rather than overwrite it; with `resume`, one that holds none to go on with.
pub fn check(dir: &Path, resume: bool) -> Result<Found> {
    let has = |file: &str| dir.join(file).exists();
    let weights = has("last.safetensors") || has("best.safetensors");
    let shown = dir.display();
    match (resume, has(STATE)) {
        (true, true) => Ok(Found::State),
        (false, true) => Err(Error::Usage(format!(
            "{shown} already holds a run: give another --out, or go on with it by `tpgm finetune --resume {shown}`"
        ))),
        (false, false) if weights => {
            Err(Error::Usage(format!("{shown} already holds the weights of a run: give another --out")))
        }
        (true, false) if weights => {
            let what = format!("there is no {STATE} to go on from: start a new run in another --out");
            Err(Error::data(dir, what))
        }
        _ if has("metrics.jsonl") || has("config.toml") => Ok(Found::Beginning),
        (true, false) => Err(Error::data(dir, "there is no run to go on with in this folder")),
        (false, false) => Ok(Found::Nothing),
    }
}

/// How to go on with the run in `dir`, which was stopped.
pub fn how_to_go_on(dir: &Path) -> String {
    let shown = dir.display();
    match dir.join(STATE).exists() {
        true => format!("go on from the state that was saved last with `tpgm finetune --resume {shown}`"),
        false => format!("no state was saved: `tpgm finetune --resume {shown}` starts anew"),
    }
}

/// Makes the folder `dir`.
pub fn create(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::io(dir, "cannot create this folder", e))
}

/// The file to resume from.
pub const STATE: &str = "state.safetensors";

/// What the test sets came to in full.
pub const EVALUATIONS: &str = "evaluations.jsonl";

/// The variants of products that the run uses.
pub const TUNING: &str = "tuning.json";

/// The images that splits share.
pub const LEAKS: &str = "leaks.csv";

/// How far each tensor had moved at each evaluation on the way.
pub const DRIFT_OVER_TIME: &str = "drift_over_time.csv";

/// The shares of `digrap`.
pub const SHARES: &str = "shares.csv";

/// The processes that the run went on in.
pub const SESSIONS: &str = "sessions.json";

/// What to try next.
pub const ADVICE: &str = "advice.json";

/// Writes `drift.csv`.
pub fn write_drift(path: &Path, rows: &[DriftRow]) -> Result<()> {
    atomic_write(path, (csv_text([DriftRow::COLUMNS]) + &csv_text(rows)).as_bytes())
}
