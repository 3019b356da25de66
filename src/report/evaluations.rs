//! A run's final evaluations in full, read from `evaluations.jsonl` and checked.

use std::path::Path;

use serde_json::Value;

use super::read::Kind;
use crate::error::{Error, Result};
use crate::train::Evaluation;
use crate::train::evaluations::Line;

/// All final evaluations of a run, and the names of the classes.
#[derive(Clone, Debug, Default)]
pub struct Evaluations {
    /// The names, in the order of the model's outputs.
    pub classes: Vec<String>,
    /// In file order.
    pub sets: Vec<TestSet>,
}

/// One model on one test set.
#[derive(Clone, Debug)]
pub struct TestSet {
    /// The set's name.
    pub name: String,
    /// Which weights: `best`, `last` or `pretrained`.
    pub model: String,
    /// In or out of distribution, where the run knows.
    pub kind: Option<Kind>,
    /// The figures; every class index in them has a name.
    pub figures: Evaluation,
}

impl Evaluations {
    /// Reads the file `text` of `path`.
    ///
    /// # Errors
    /// A line that can't be understood (but for a last one that was torn), or that does not fit the classes.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self> {
        let lines: Vec<(usize, &str)> = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).collect();
        let mut out = Self::default();
        for (at, (index, line)) in lines.iter().enumerate() {
            let fail = |what: String| Error::data(path, format!("line {}: {what}", index + 1));
            let value: Value = match serde_json::from_str(line) {
                Ok(value) => value,
                Err(_) if at + 1 == lines.len() => break, // the run was stopped in the middle of a write
                Err(e) => return Err(fail(format!("not JSON ({e}); delete the line to go on without it"))),
            };
            if let Some(classes) = value.get("classes") {
                let names = serde_json::from_value(classes.clone());
                out.classes = names.map_err(|e| fail(format!("\"classes\" is no list of names ({e})")))?;
                continue;
            }
            let line: Line = serde_json::from_value(value).map_err(|e| fail(format!("not an evaluation ({e})")))?;
            let (figures, classes) = (&line.evaluation, out.classes.len());
            let named = |class: u32| (class as usize) < classes;
            if figures.per_class.len() != classes || !figures.confusion.iter().all(|c| named(c.0) && named(c.1)) {
                return Err(fail(format!("not an evaluation of the {classes} classes that the first line names")));
            }
            let kind = match line.kind.as_deref() {
                Some("id") => Some(Kind::Id),
                Some("ood") => Some(Kind::Ood),
                _ => None,
            };
            out.sets.push(TestSet { name: line.set, model: line.model, kind, figures: line.evaluation });
        }
        Ok(out)
    }

    /// The test sets as the weights that the run is judged by saw them: the best ones, else the last.
    pub(super) fn reported(&self) -> Vec<&TestSet> {
        let of = |model: &str| self.sets.iter().filter(|s| s.model == model).collect::<Vec<_>>();
        let best = of("best");
        if best.is_empty() { of("last") } else { best }
    }
}
