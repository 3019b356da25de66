//! `evaluations.jsonl`: what a run's final evaluations came to in full, class by class and bin by bin, which would swell
//! `metrics.jsonl`.
//!
//! The first line names the classes, `{"classes": [...]}`; then a line an evaluation.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::Result;
use crate::train::evaluate::Evaluation;
use crate::train::events::TestResult;
use crate::train::run_dir::{Appender, keep_lines};

/// A line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The test set.
    pub set: String,
    /// Which weights: `pretrained`, `last` or `best`.
    pub model: String,
    /// `id` or `ood`, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The figures.
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

/// The file under way.
#[derive(Debug)]
pub struct EvaluationLog(Appender);

impl EvaluationLog {
    /// Starts the file at `path`. A run that is `resumed` evaluates again at its end: only what was found out before its
    /// first step stays.
    pub fn open(path: PathBuf, classes: &[String], resumed: bool) -> Result<EvaluationLog> {
        let fresh = !(resumed && path.exists());
        if !fresh {
            keep_lines(&path, |line| {
                serde_json::from_str::<Value>(line)
                    .is_ok_and(|line| line.get("classes").is_some() || line["model"] == "pretrained")
            })?;
        }
        let mut log = Appender::open(path, fresh)?;
        if fresh {
            log.write(&format!("{}\n", json!({"classes": classes})))?;
        }
        Ok(EvaluationLog(log))
    }

    /// Adds a line; none about a corrupted copy, of which there may be a hundred.
    pub fn write(&mut self, result: &TestResult) -> Result<()> {
        if result.corruption.is_some() {
            return Ok(());
        }
        let line = Line {
            set: result.name.clone(),
            model: result.model.into(),
            kind: result.id.map(|id| if id { "id" } else { "ood" }.into()),
            evaluation: result.evaluation.clone(),
        };
        let line = serde_json::to_string(&line).expect("plain values always serialise");
        self.0.write(&format!("{line}\n"))
    }
}
