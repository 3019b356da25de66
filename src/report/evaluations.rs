//! A run's final evaluations in full, read from `evaluations.jsonl` and checked.

use std::path::Path;

use crate::error::{Error, Result};
use crate::train::Evaluation;
use crate::train::json_lines::lines;
use crate::train::records::{Distribution, FullLine, Weights};

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
    /// Which weights.
    pub model: Weights,
    /// In or out of distribution, where the run knows.
    pub kind: Option<Distribution>,
    /// The figures; every class index in them has a name.
    pub figures: Evaluation,
}

impl Evaluations {
    /// Reads the file `text` of `path`.
    ///
    /// # Errors
    /// A line that can't be understood (but for a last one that was torn), or that does not fit the classes.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut out = Self::default();
        for (line, i) in lines(path, text, FullLine::parse)?.into_iter().zip(1..) {
            let line = match line {
                FullLine::Classes { classes } => {
                    out.classes = classes;
                    continue;
                }
                FullLine::Evaluation(line) => *line,
            };
            let (figures, classes) = (&line.evaluation, out.classes.len());
            let named = |class: u32| (class as usize) < classes;
            if figures.per_class.len() != classes || !figures.confusion.iter().all(|c| named(c.0) && named(c.1)) {
                let what = format!("line {i}: not an evaluation of the {classes} classes that the first line names");
                return Err(Error::data(path, what));
            }
            out.sets.push(TestSet { name: line.set, model: line.model, kind: line.kind, figures: line.evaluation });
        }
        Ok(out)
    }

    /// The test sets as the weights that the run is judged by saw them: the best ones, else the last.
    pub(super) fn reported(&self) -> Vec<&TestSet> {
        let of = |model: Weights| self.sets.iter().filter(|s| s.model == model).collect::<Vec<_>>();
        let best = of(Weights::Best);
        if best.is_empty() { of(Weights::Last) } else { best }
    }
}
