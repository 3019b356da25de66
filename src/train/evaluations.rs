//! `evaluations.jsonl`: what a run's final evaluations came to in full, class by class and bin by bin, which would swell
//! `metrics.jsonl`.
//!
//! The first line names the classes, `{"classes": [...]}`; then one line per evaluation.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::train::events::TestResult;
use crate::train::records::{Distribution, FullEvaluation, FullLine, Weights};
use crate::train::run_dir::{Appender, keep_lines};

/// The file under way.
#[derive(Debug)]
pub struct EvaluationLog(Appender);

impl EvaluationLog {
    /// Writes nothing.
    pub(super) fn nowhere() -> EvaluationLog {
        EvaluationLog(Appender::nowhere())
    }

    /// Starts the file at `path`. A run that is `resumed` evaluates again at its end: only the evaluations before its
    /// first step stay.
    pub fn open(path: PathBuf, classes: &[String], resumed: bool) -> Result<EvaluationLog> {
        let fresh = !(resumed && path.exists());
        if !fresh {
            let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, "cannot read", e))?;
            let then = text.lines().find_map(|line| match FullLine::parse(line) {
                Ok(FullLine::Classes { classes }) => Some(classes),
                _ => None,
            });
            if then.is_some_and(|then| then != classes) {
                let what = "the outputs of this run are other classes, or in another order (earlier versions sorted numbers as \
                            text): it can't go on, start anew in another --out";
                return Err(Error::data(&path, what));
            }
            keep_lines(&path, |line| match FullLine::parse(line) {
                Ok(FullLine::Classes { .. }) => true,
                Ok(FullLine::Evaluation(e)) => e.model == Weights::Pretrained,
                Err(_) => false,
            })?;
        }
        let mut log = Appender::open(path, fresh)?;
        if fresh {
            log.write(&FullLine::Classes { classes: classes.to_vec() }.line())?;
        }
        Ok(EvaluationLog(log))
    }

    /// Brings the lines to the disk.
    pub fn sync(&mut self) -> Result<()> {
        self.0.sync()
    }

    /// Adds a line; none about a corrupted copy, of which there may be a hundred.
    pub fn write(&mut self, result: &TestResult) -> Result<()> {
        if result.corruption.is_some() {
            return Ok(());
        }
        let line = FullLine::Evaluation(Box::new(FullEvaluation {
            set: result.name.clone(),
            model: result.model,
            kind: result.id.map(Distribution::of),
            evaluation: result.evaluation.clone(),
        }));
        self.0.write(&line.line())
    }
}
