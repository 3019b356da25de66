//! The run directory: `config.toml`, `metrics.jsonl`, `radii.csv`, `drift.csv`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::atomic_write;
use crate::error::{Error, Result};
use crate::method::{At, Learned, StepRecord};
use crate::train::records::{DriftRow, Metric, RadiusRow, StepLine};

/// Files that grow line by line.
#[derive(Debug)]
pub struct RunLog {
    metrics: Appender,
    radii: Appender,
    /// Names and rows of the tensors that have a radius.
    tensors: Vec<(String, usize)>,
}

/// A file that grows by whole lines.
#[derive(Debug)]
pub(super) struct Appender {
    path: PathBuf,
    file: File,
}

impl Appender {
    /// Opens `path` to add to it; `fresh` empties it first.
    pub(super) fn open(path: PathBuf, fresh: bool) -> Result<Appender> {
        let file = OpenOptions::new()
            .create(true)
            .append(!fresh)
            .write(true)
            .truncate(fresh)
            .open(&path)
            .map_err(|e| Error::io(&path, "cannot write", e))?;
        Ok(Appender { path, file })
    }

    /// Writes whole lines at once, so that a reader never meets half of one.
    pub(super) fn write(&mut self, lines: &str) -> Result<()> {
        self.file.write_all(lines.as_bytes()).map_err(|e| Error::io(&self.path, "cannot write", e))
    }
}

/// How far a run had come that is gone on with.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    /// Training steps taken.
    pub steps: u64,
    /// What the first column of `radii.csv` had come to: steps, or outer iterations with the post schedule.
    pub radii: u64,
    /// Whether these are all steps of the run: its last evaluations are then made again.
    pub done: bool,
}

impl Reached {
    fn keeps(self, line: &Metric) -> bool {
        match line {
            Metric::Evaluation(e) if e.is_final => e.is_baseline(),
            // An evaluation says how many steps came before it; a training line belongs to the step it has.
            Metric::Evaluation(e) => e.step < self.steps || (e.step == self.steps && !self.done),
            Metric::Step(s) if s.train_loss.is_some() => s.step < self.steps,
            Metric::Step(s) => s.step < self.radii,
            // It belongs to the end of a run, which comes again.
            Metric::Wise(_) => false,
        }
    }
}

impl RunLog {
    /// Starts (or, where a run has `reached` something, goes on with) the logs at `metrics` and `radii`. Lines about what
    /// is run again are dropped.
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
                at.is_none_or(|at| at < reached.radii)
            })?;
        }
        let fresh = reached.is_none();
        let mut log = RunLog {
            metrics: Appender::open(metrics.into(), fresh)?,
            radii: Appender::open(radii.into(), fresh)?,
            tensors,
        };
        if fresh {
            log.radii.write(&(RadiusRow::COLUMNS.join(",") + "\n"))?;
        }
        Ok(log)
    }

    /// A line a training step.
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
            Metric::Step(line).line()
        };
        self.metrics.write(&records.iter().map(line).collect::<String>())
    }

    /// A row per tensor for the radii that were learned, and a line for each iteration after the last step.
    pub fn learned(&mut self, learned: &[Learned]) -> Result<()> {
        let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        let mut lines = String::new();
        for l in learned {
            let step = match l.at {
                At::Step(step) => step,
                At::Iteration(step) => {
                    lines += &Metric::Step(StepLine { step, radius_loss: l.loss, ..StepLine::default() }).line();
                    step
                }
            };
            for ((name, rows), r) in self.tensors.iter().zip(&l.radii) {
                let row = RadiusRow {
                    step,
                    tensor: name.clone(),
                    radius: r.radius,
                    max_norm: r.max_norm,
                    active_rows: r.active_rows.into(),
                    rows: *rows as u64,
                };
                csv.serialize(row).expect("a row of numbers and a name");
            }
        }
        let bytes = csv.into_inner().expect("writing to memory");
        self.metrics.write(&lines)?;
        self.radii.write(std::str::from_utf8(&bytes).expect("CSV of UTF-8 names"))
    }

    /// Any other line of `metrics.jsonl`.
    pub fn metric(&mut self, line: &Metric) -> Result<()> {
        self.metrics.write(&line.line())
    }
}

/// Rewrites a log with only the lines that `keep` wants; a missing file stays missing.
pub(super) fn keep_lines(path: &Path, keep: impl Fn(&str) -> bool) -> Result<()> {
    let Ok(file) = File::open(path) else { return Ok(()) };
    let mut kept = String::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|e| Error::io(path, "cannot read", e))?;
        if keep(&line) {
            kept += &line;
            kept.push('\n');
        }
    }
    atomic_write(path, kept.as_bytes())
}

/// Refuses a folder `dir` that already holds a run rather than overwrite it, or, with `resume`, one that holds none to
/// go on with.
pub fn check(dir: &Path, resume: bool) -> Result<()> {
    if !resume && dir.join("metrics.jsonl").exists() {
        return Err(Error::Usage(format!(
            "{} already holds a run: give another --out, or --resume to go on with it",
            dir.display()
        )));
    }
    if resume && !dir.join(STATE).exists() {
        let what =
            format!("there is no {STATE} to resume from (it comes with the first evaluation): start the run anew");
        return Err(Error::data(dir, what));
    }
    Ok(())
}

/// How to go on with the run in `dir`, whose device was lost.
pub fn after_a_loss(dir: &Path) -> String {
    let saved = dir.join(STATE).exists();
    let dir = dir.display();
    match saved {
        true => format!(
            "what the run had at its last evaluation is kept: go on with `tpgm finetune --config {dir}/config.toml --out {dir} \
             --resume`"
        ),
        false => {
            format!("nothing was saved yet (that comes with the first evaluation): remove {dir} and start the run anew")
        }
    }
}

/// Makes the folder `dir`.
pub fn create(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, "cannot create this folder", e))
}

/// The file to resume from.
pub const STATE: &str = "state.safetensors";

/// What the test sets came to in full.
pub const EVALUATIONS: &str = "evaluations.jsonl";

/// The variants of products that the run goes by.
pub const TUNING: &str = "tuning.json";

/// The images that splits share.
pub const LEAKS: &str = "leaks.csv";

/// Writes `drift.csv`.
pub fn write_drift(path: &Path, rows: &[DriftRow]) -> Result<()> {
    let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    csv.write_record(DriftRow::COLUMNS).expect("writing to memory");
    for row in rows {
        csv.serialize(row).expect("a row of numbers and a name");
    }
    atomic_write(path, &csv.into_inner().expect("writing to memory"))
}
