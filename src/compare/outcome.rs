//! What a finished run says about itself: its evaluations, and in `run.json` what it took.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic::atomic_write;
use crate::checkpoint::Checkpoint;
use crate::compare::select::{Score, is_unwritten, nan};
use crate::error::{Error, Result};
use crate::train::TrainConfig;
use crate::train::by_image::unpacked;
use crate::train::corrupted::copy_name;
use crate::train::evaluate::Figure;
use crate::train::imbalance_args::{BestBy, Judged};
use crate::train::json_lines::or_nan;
use crate::train::records::{EvaluationLine, Metric, Weights, from_bits};

/// Written beside a run when it has finished.
pub const RUN: &str = "run.json";

/// The SHA-256 of each file of a model.
pub type Digests = BTreeMap<String, String>;

/// What a run took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Took {
    /// Seconds from the first step to the last evaluation; of the last part alone where the run was resumed.
    pub seconds: f64,
    /// Whether it was stopped on the way.
    pub resumed: bool,
    /// Bytes planned on the device.
    pub memory: u64,
    /// Steps.
    pub steps: u64,
    /// The adapter's name.
    pub adapter: String,
    /// Whether the best weights were evaluated too, where they are not the last.
    pub best: bool,
    /// The SHA-256 of the model that it began with, and of the file of its head; none where an earlier version did not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Vec<Digests>>,
    /// The SHA-256 of each file of weights that it left.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, Digests>,
}

/// A run's files of weights.
pub const WEIGHTS: [&str; 2] = ["last.safetensors", "best.safetensors"];

/// The SHA-256 of the weights at `path`; of those of a run that are no longer there, as the run's own record has it.
///
/// # Errors
/// Where they can't be read, and no record has it.
pub fn digest(path: &Path) -> Result<Digests> {
    let noted = || -> Option<Digests> {
        let took: Took = serde_json::from_slice(&std::fs::read(path.parent()?.join(RUN)).ok()?).ok()?;
        took.weights.get(path.file_name()?.to_str()?).cloned()
    };
    match noted().filter(|_| !path.exists()) {
        Some(digest) => Ok(digest),
        None => Checkpoint::open(path)?.sha256(),
    }
}

/// What a run of `config` begins with: the SHA-256 of its model, and of the file of its head.
///
/// # Errors
/// Where one can't be read.
pub fn base(config: &TrainConfig) -> Result<Vec<Digests>> {
    let files = [Some(&config.model), config.model_args.head.as_ref()];
    files.into_iter().flatten().map(|path| Checkpoint::open(path)?.sha256()).collect()
}

/// A model's figures on a test set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetFigures {
    /// The set's name.
    pub name: String,
    /// Whether it is in-distribution.
    pub id: bool,
    /// Images.
    pub images: u64,
    /// Top-1 accuracy; NaN, and not written, of images with any number of labels, as the next two.
    #[serde(default = "nan", deserialize_with = "or_nan", skip_serializing_if = "is_unwritten")]
    pub top1: f64,
    /// Top-5 accuracy.
    #[serde(default = "nan", deserialize_with = "or_nan", skip_serializing_if = "is_unwritten")]
    pub top5: f64,
    /// Balanced accuracy; NaN where an earlier version did not write it.
    #[serde(default = "nan", deserialize_with = "or_nan", skip_serializing_if = "is_unwritten")]
    pub balanced: f64,
    /// Mean average precision, of images with any number of labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<f64>,
    /// F1 over all their labels together at a probability of 0.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_f1: Option<f64>,
    /// The mean of the classes' F1; NaN where an earlier version did not write it.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub macro_f1: f64,
    /// Mean cross-entropy; NaN where it is not a number.
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
    /// Expected calibration error.
    pub ece: f64,
    /// The views of each image that the model answered to, if more than the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tta: Option<String>,
}

impl SetFigures {
    /// Top-1 accuracy, or mean average precision.
    pub fn main(&self) -> f64 {
        self.map.unwrap_or(self.top1)
    }
}

/// One model, evaluated.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its run directory.
    pub dir: PathBuf,
    /// On the selection images.
    pub select: Score,
    /// What choices are made by.
    pub best_by: BestBy,
    /// The share of each selection image in that figure: [`by_image`](crate::train::by_image), or 1 for those that are right. Empty where an
    /// earlier version did not write it.
    pub by_image: Vec<f32>,
    /// On the test sets, in the order of the configuration.
    pub sets: Vec<SetFigures>,
    /// What training it took; none for a model that was not trained.
    pub took: Option<Took>,
}

impl Outcome {
    /// Mean top-1, or mAP, over the in-distribution sets.
    pub fn id(&self) -> f64 {
        let of: Vec<f64> = self.sets.iter().filter(|s| s.id).map(SetFigures::main).collect();
        of.iter().sum::<f64>() / of.len() as f64
    }

    /// Mean top-1, or mAP, over the OOD sets, each of `groups` counting once.
    pub fn ood(&self, groups: &[Vec<String>]) -> f64 {
        let ood = || self.sets.iter().filter(|s| !s.id);
        let mut parts: Vec<f64> =
            ood().filter(|s| !groups.iter().flatten().any(|name| *name == s.name)).map(SetFigures::main).collect();
        for group in groups {
            let of: Vec<f64> = ood().filter(|s| group.contains(&s.name)).map(SetFigures::main).collect();
            parts.extend((!of.is_empty()).then(|| of.iter().sum::<f64>() / of.len() as f64));
        }
        parts.iter().sum::<f64>() / parts.len() as f64
    }
}

/// How far the run in a folder has come.
#[derive(Debug)]
pub enum Standing {
    /// There is none.
    Absent,
    /// There is the beginning of one: it was stopped before it had saved anything to go on with.
    Begun,
    /// It was stopped and can be resumed.
    Resumable,
    /// It is whole.
    Finished(Box<Outcome>),
}

/// How far the run has come that `config` describes in `dir`.
///
/// # Errors
/// Where the folder holds a run with other settings, naming the first.
pub fn standing(dir: &Path, config: &TrainConfig, weights: Weights) -> Result<Standing> {
    let path = dir.join("config.toml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let files = WEIGHTS.into_iter().chain([RUN, "metrics.jsonl"]);
            return match files.into_iter().find(|file| dir.join(file).exists()) {
                None => Ok(Standing::Absent),
                Some(file) => {
                    let what = format!(
                        "it has a run's {file}, but no config.toml: put it back, or delete this folder to run it anew"
                    );
                    Err(Error::data(dir, what))
                }
            };
        }
        Err(e) => return Err(Error::io(path, "cannot read", e)),
    };
    if let Some(what) = config.difference(&text) {
        let what =
            format!("this run has other settings ({what}): give another --out, or delete this folder to run it anew");
        return Err(Error::data(dir, what));
    }
    if let Some(outcome) = finished(dir, config, weights)? {
        return Ok(Standing::Finished(outcome.into()));
    }
    if dir.join(crate::train::run_dir::STATE).exists() {
        return Ok(Standing::Resumable);
    }
    match WEIGHTS.into_iter().find(|file| dir.join(file).exists()) {
        None => Ok(Standing::Begun),
        Some(file) => {
            let what = format!(
                "it has a run's {file}, but neither all evaluations that are asked for nor a state.safetensors to go on from: put that \
                 back, or delete this folder to run it anew"
            );
            Err(Error::data(dir, what))
        }
    }
}

/// The test sets of a run, its corrupted copies included: name, and whether in-distribution.
fn test_sets(config: &TrainConfig) -> Result<Vec<(String, bool)>> {
    let mut sets: Vec<(String, bool)> =
        config.reported()?.into_iter().map(|(name, id)| (name.to_string(), id.unwrap_or(false))).collect();
    sets.extend(copies(config)?.into_iter().flatten().map(|name| (name, false)));
    Ok(sets)
}

/// The names of the corrupted copies of each in-distribution test set.
///
/// # Errors
/// Where a corruption is not one.
pub fn copies(config: &TrainConfig) -> Result<Vec<Vec<String>>> {
    let corruptions = config.corruptions()?;
    let of = |name: &str| corruptions.iter().map(|c| copy_name(name, *c)).collect();
    let tests = config.reported()?;
    let groups: Vec<Vec<String>> = tests.iter().filter(|t| t.1 != Some(false)).map(|t| of(t.0)).collect();
    Ok(groups.into_iter().filter(|group| !group.is_empty()).collect())
}

/// The outcome of the run in `dir` if it is whole.
fn finished(dir: &Path, config: &TrainConfig, weights: Weights) -> Result<Option<Outcome>> {
    let took: Option<Took> = std::fs::read(dir.join(RUN)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let Some(took) = took.filter(|took| took.best || weights == Weights::Last) else { return Ok(None) };
    let path = dir.join("metrics.jsonl");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    let evaluation = |line: &str| match Metric::parse(line) {
        Ok(Metric::Evaluation(e)) => Some(*e),
        _ => None,
    };
    let evals: Vec<EvaluationLine> = text.lines().filter_map(evaluation).collect();
    // The last of equals: a run that was resumed at its very end evaluates twice.
    let last_final = |is: &dyn Fn(&EvaluationLine) -> bool| evals.iter().rev().find(|e| e.is_final && is(e));
    let tests = test_sets(config)?;
    let of = |model: Weights| -> Option<Vec<SetFigures>> {
        let figures = tests.iter().map(|(name, id)| {
            let line = last_final(&|e| e.model == Some(model) && e.set == *name)?;
            line.main()?;
            Some(SetFigures {
                name: name.clone(),
                id: *id,
                images: line.images?,
                top1: line.top1.unwrap_or(f64::NAN),
                top5: line.top5.unwrap_or(f64::NAN),
                map: line.map,
                micro_f1: line.micro_f1,
                balanced: line.balanced.unwrap_or(f64::NAN),
                macro_f1: line.macro_f1.unwrap_or(f64::NAN),
                loss: line.loss?,
                ece: line.ece?,
                tta: line.tta.clone(),
            })
        });
        figures.collect()
    };
    // Where the best weights are the last, they are evaluated once.
    let best = if weights == Weights::Best { of(Weights::Best) } else { None };
    let step = best.as_ref().and_then(|_| last_final(&|e| e.model == Some(Weights::Best)).map(|e| e.step));
    let Some(sets) = best.or_else(|| of(Weights::Last)) else { return Ok(None) };
    let select = if config.splits.select.is_some() { "select" } else { "val" };
    let wanted = step.unwrap_or(took.steps);
    let line = evals.iter().rev().find(|e| !e.is_final && e.set == select && e.step == wanted);
    let best_by = config.imbalance.best_by;
    let score = line.and_then(|e| {
        let [balanced, macro_f1] = [e.balanced, e.macro_f1].map(|figure| figure.unwrap_or(f64::NAN));
        let of = Judged { main: e.main()?, balanced, macro_f1, loss: e.loss? };
        Some(Score::new(best_by, Figure::of(e.is_multi_label()), of))
    });
    let by_image = line.and_then(|e| {
        let (own, right) = (e.by_image.as_deref(), e.right.as_deref().unwrap_or_default());
        values_by_image(best_by, e.is_multi_label(), own, (right, usize::try_from(e.images?).ok()?))
    });
    let by_image = by_image.unwrap_or_default();
    Ok(score.map(|select| Outcome { dir: dir.into(), select, best_by, by_image, sets, took: Some(took) }))
}

/// The share of each image in what `best_by` scores, as records have it: by itself, or as which are `right`, where that is the figure.
pub(super) fn values_by_image(
    best_by: BestBy,
    multi_label: bool,
    own: Option<&str>,
    (right, images): (&str, usize),
) -> Option<Vec<f32>> {
    match (best_by, own) {
        (BestBy::Auto | BestBy::Top1, _) if !multi_label => {
            Some(from_bits(right, images)?.into_iter().map(|right| f32::from(u8::from(right))).collect())
        }
        (_, own) => unpacked(own?, images),
    }
}

/// Says that the run in `dir` has finished.
///
/// # Errors
/// Where the file can't be written, or its weights not read.
pub fn finish(dir: &Path, took: Took) -> Result<()> {
    let there = WEIGHTS.into_iter().filter(|file| dir.join(file).exists());
    let digests = there.map(|file| Ok((file.to_string(), Checkpoint::open(dir.join(file))?.sha256()?)));
    let took = Took { weights: digests.collect::<Result<_>>()?, ..took };
    atomic_write(dir.join(RUN), &serde_json::to_vec(&took).expect("plain values always serialise"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_of_ood_sets_counts_once() {
        let set = |name: &str, id, top1| SetFigures {
            name: name.into(),
            id,
            images: 10,
            top1,
            top5: 1.0,
            map: None,
            micro_f1: None,
            balanced: top1,
            macro_f1: top1,
            loss: 1.0,
            ece: 0.0,
            tta: None,
        };
        let sets = vec![
            set("i", true, 0.9),
            set("j", true, 0.7),
            set("a", false, 0.2),
            set("b", false, 0.4),
            set("c", false, 0.9),
        ];
        let select = Score { top1: 0.0, map: None, by: 0.0, loss: 0.0 };
        let (dir, best_by, by_image) = (PathBuf::new(), BestBy::Auto, Vec::new());
        let outcome = Outcome { dir, select, best_by, by_image, sets, took: None };
        assert!((outcome.id() - 0.8).abs() < 1e-12);
        assert!((outcome.ood(&[]) - 0.5).abs() < 1e-12);
        assert!((outcome.ood(&[vec!["a".into(), "b".into()]]) - 0.6).abs() < 1e-12);
    }
}
