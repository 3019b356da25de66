//! What a run tells TensorBoard: the figures of its records, how far its weights have moved, and augmented training images.
//!
//! A figure's step is how many training steps came before it: that of the line about step 0 is 1, since its loss is known after it.
//! Iterations after the last step count on from there.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::model::Adapters;
use crate::shapes::ParamLayout;
use crate::tfevents::{EventFile, Histogram, Value};
use crate::train::blocks::Group;
use crate::train::json_lines::lines;
use crate::train::reached::Reached;
use crate::train::records::{EvaluationLine, Metric, RadiusRow, StepLine};

/// The folder of a run directory that has the event files.
const FOLDER: &str = "tensorboard";

/// The same while the event files of a run that has ended are written.
const PART: &str = "tensorboard.part";

/// The folder with the event files of the run in `dir`.
pub fn folder(dir: &Path) -> PathBuf {
    dir.join(FOLDER)
}

/// Whether the run in `dir` has event files.
pub fn is_in(dir: &Path) -> bool {
    EventFile::is_in(&folder(dir))
}

/// Writes the event files of a run that has ended without any, from its records alone: `steps` and `post` as of [`Board::open`].
///
/// # Errors
/// As [`Board::open`].
pub fn write_later(dir: &Path, steps: u64, post: bool) -> Result<()> {
    let part = dir.join(PART);
    if part.exists() {
        std::fs::remove_dir_all(&part).map_err(|e| Error::io(&part, "cannot remove", e))?;
    }
    Board { file: EventFile::create(&part, 0)?, steps, post }.repeat(dir, 0)?;
    std::fs::rename(&part, folder(dir)).map_err(|e| Error::io(&part, "cannot rename", e))
}

/// A block, and its tensors' weights with those of the anchor.
type Moved<'a> = (Group, Vec<(&'a [f32], &'a [f32])>);

/// An event file under way.
#[derive(Debug)]
pub struct Board {
    file: EventFile,
    /// Training steps of the whole run.
    steps: u64,
    /// Whether radii are learned after the last step.
    post: bool,
}

impl Board {
    /// Starts a file for the run in `dir` of `steps` training steps, whose radii are learned after them if `post` says so. A run that
    /// has `reached` something has written its records so far: what they have and no event file keeps is written again.
    ///
    /// # Errors
    /// Records that can't be read, a folder that can't be written.
    pub fn open(dir: &Path, reached: Option<Reached>, steps: u64, post: bool) -> Result<Board> {
        let folder = folder(dir);
        // What comes at the end of a run comes again; else all of its last step is kept.
        let since = match reached {
            Some(reached) if EventFile::is_in(&folder) => reached.steps + u64::from(!reached.done),
            _ => 0,
        };
        let mut board = Board { file: EventFile::create(&folder, since)?, steps, post };
        if reached.is_some() {
            board.repeat(dir, since)?;
        }
        Ok(board)
    }

    fn repeat(&mut self, dir: &Path, since: u64) -> Result<()> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path)
                .map(|text| (path.clone(), text))
                .map_err(|e| Error::io(path, "cannot read", e))
        };
        let (path, text) = read("metrics.jsonl")?;
        for line in lines(&path, &text, Metric::parse)? {
            if self.place(&line) >= since {
                self.metric(&line)?;
            }
        }
        let (path, text) = read("radii.csv")?;
        let rows = csv::Reader::from_reader(text.as_bytes()).deserialize().collect::<Result<Vec<RadiusRow>, _>>();
        let rows = rows.map_err(|e| Error::data(path, format!("not a readable CSV file: {e}")))?;
        for rows in rows.chunk_by(|a, b| a.step == b.step) {
            if self.radii_place(rows[0].step) >= since {
                self.radii(rows)?;
            }
        }
        Ok(())
    }

    fn place(&self, line: &Metric) -> u64 {
        match line {
            Metric::Evaluation(e) => e.step,
            Metric::Placed(placed) => placed.step,
            Metric::Step(StepLine { step, train_loss: Some(_), .. }) => step + 1,
            Metric::Step(iteration) => self.steps + iteration.step + 1,
        }
    }

    fn radii_place(&self, step: u64) -> u64 {
        if self.post { self.steps + step + 1 } else { step + 1 }
    }

    /// Writes the figures of a line of `metrics.jsonl`.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn metric(&mut self, line: &Metric) -> Result<()> {
        let group = match line {
            Metric::Evaluation(e) => {
                let EvaluationLine { set, is_final, model, .. } = &**e;
                let model = model.filter(|_| *is_final).map(|model| format!("/{model}")).unwrap_or_default();
                format!("{set}{model}")
            }
            Metric::Placed(placed) => if placed.wise_alpha.is_some() { "wise" } else { "lines" }.into(),
            Metric::Step(_) => "train".into(),
        };
        let Ok(Json::Object(figures)) = serde_json::to_value(line) else { return Ok(()) };
        let figure = |(key, value): (&String, &Json)| {
            let value = if value.is_f64() { value.as_f64()? } else { return None };
            Some(Value::scalar(format!("{group}/{}", key.strip_prefix("train_").unwrap_or(key)), value))
        };
        self.file.write(self.place(line), figures.iter().filter_map(figure).collect())
    }

    /// Writes a summary of the radii of one iteration.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn radii(&mut self, rows: &[RadiusRow]) -> Result<()> {
        let Some(first) = rows.first() else { return Ok(()) };
        let radii = || rows.iter().map(RadiusRow::in_force);
        let (outside, all) = rows.iter().fold((0, 0), |sum, row| (sum.0 + row.active_rows, sum.1 + row.rows));
        let values = [
            ("mean", radii().sum::<f64>() / rows.len() as f64),
            ("least", radii().fold(f64::INFINITY, f64::min)),
            ("largest", radii().fold(f64::NEG_INFINITY, f64::max)),
            ("rows_outside", outside as f64 / all.max(1) as f64),
        ];
        let values = values.into_iter().map(|(name, value)| Value::scalar(format!("radii/{name}"), value));
        self.file.write(self.radii_place(first.step), values.collect())
    }

    /// Writes a PNG of augmented training images.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn augmented(&mut self, png: Vec<u8>) -> Result<()> {
        // Width and height stand at bytes 16 and 20 of every PNG.
        let side = |at: usize| png.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        self.file.write(0, vec![Value::image("augmented", [side(16), side(20)], png)])
    }

    /// Writes how far each weight of each block is from the anchor after `step` steps; `values` and `anchor` are laid out as `layout`
    /// says.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn drift(&mut self, layout: &ParamLayout, values: &[f32], anchor: &[f32], step: u64) -> Result<()> {
        let mut groups: Vec<Moved> = Vec::new();
        let both = layout.unpack(values).zip(layout.unpack(anchor));
        for ((param, w), (_, w0)) in both.filter(|((param, _), _)| !Adapters::is_part(&param.name)) {
            let group = Group::of(&param.name);
            match groups.iter_mut().find(|(known, _)| *known == group) {
                Some((_, tensors)) => tensors.push((w, w0)),
                None => groups.push((group, vec![(w, w0)])),
            }
        }
        let histogram = |(group, tensors): &Moved| {
            let each = tensors.iter().flat_map(|(w, w0)| w.iter().zip(*w0));
            let moved = each.map(|(w, w0)| f64::from(*w) - f64::from(*w0)).filter(|d| d.is_finite());
            Some(Value::histogram(format!("drift/{}", group.name()), Histogram::new(moved)?))
        };
        let values = groups.par_iter().filter_map(histogram).collect();
        self.file.write(step, values)
    }
}
