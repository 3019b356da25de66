//! Flags for classes with unequal numbers of images: how much each counts, how often its images come, and what the best checkpoint is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::data::{ClassMap, Dataset, Sampler};
use crate::error::{Error, Result, quote};
use crate::flag::{without_mark, word};
use crate::method::{ClassWeights, LabelTargets};
use crate::train::evaluate::Evaluation;

/// How much each class counts in the loss.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Weighting {
    /// As much as its images.
    #[default]
    None,
    /// As much as any other.
    Balanced,
    /// As a file says.
    File(PathBuf),
}

impl From<String> for Weighting {
    fn from(text: String) -> Weighting {
        match text.as_str() {
            "none" => Weighting::None,
            "balanced" => Weighting::Balanced,
            _ => Weighting::File(text.into()),
        }
    }
}

impl FromStr for Weighting {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.to_string().into())
    }
}

impl From<Weighting> for String {
    fn from(weighting: Weighting) -> String {
        weighting.to_string()
    }
}

impl fmt::Display for Weighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Weighting::None => f.write_str("none"),
            Weighting::Balanced => f.write_str("balanced"),
            Weighting::File(path) => path.display().fmt(f),
        }
    }
}

/// By which figure of the selection images a checkpoint is the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BestBy {
    /// The share of images that are right; of images with any number of labels, mean average precision.
    #[default]
    Auto,
    /// The share of images that are right.
    Top1,
    /// The mean over classes of the share of its images that are right.
    Balanced,
    /// The mean of the classes' F1.
    F1,
    /// Mean average precision.
    Map,
    /// The loss.
    Loss,
}

/// Figures of an evaluation among which a choice is made.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// The share of images that are right, or mean average precision.
    pub main: f64,
    /// The mean over classes of the share of its images that are right.
    pub balanced: f64,
    /// The mean of the classes' F1.
    pub macro_f1: f64,
    /// The loss.
    pub loss: f64,
}

impl BestBy {
    /// What to compare evaluations by: a figure of which more is better, then the loss.
    pub fn score(self, of: Judged) -> (f64, f64) {
        match self {
            BestBy::Auto | BestBy::Top1 | BestBy::Map => (of.main, of.loss),
            BestBy::Balanced => (of.balanced, of.loss),
            BestBy::F1 => (of.macro_f1, of.loss),
            BestBy::Loss => (-of.loss, of.loss),
        }
    }

    /// The same of an evaluation.
    pub fn of(self, e: &Evaluation) -> (f64, f64) {
        self.score(Judged { main: e.main(), balanced: e.balanced, macro_f1: e.macro_f1, loss: e.loss })
    }

    /// # Errors
    /// [`Error::Usage`] for a figure that images with one class, or with any number of labels, don't have.
    pub fn check(self, multi_label: bool) -> Result<()> {
        let refused = match (self, multi_label) {
            (BestBy::Top1 | BestBy::Balanced, true) => "images may have any number of labels: map, f1 or loss",
            (BestBy::Map, false) => "images have one class each: top1, balanced, f1 or loss",
            _ => return Ok(()),
        };
        let own = if self == BestBy::Map {
            "map"
        } else if self == BestBy::Top1 {
            "top1"
        } else {
            "balanced"
        };
        Err(Error::Usage(format!("--best-by {own} can't be had, since {refused} can")))
    }
}

/// How a run treats classes with unequal numbers of images.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImbalanceArgs {
    /// How much each class counts in the loss of training and of radii: none (each image as much as any other), balanced (each class as
    /// much as any other), or a file with one `class weight` per line. Where images may have any number of labels: how much a class's
    /// positives count, with balanced as much as its negatives
    #[arg(long, value_name = "none|balanced|FILE", default_value = "none")]
    pub class_weights: Weighting,
    /// Which training images an epoch has: once (each image once), or balanced (as many draws of each class, and as many in all as there
    /// are images)
    #[arg(long, value_name = "once|balanced", default_value = "once", value_parser = word::<Sampler>)]
    pub sampler: Sampler,
    /// What the best checkpoint is chosen by, on the selection images: top1, balanced (the mean accuracy over classes), f1 (the mean F1
    /// over classes), map (mean average precision, of images with any number of labels), or loss; auto is top1, or map
    #[arg(long, value_name = "auto|top1|balanced|f1|map|loss", default_value = "auto", value_parser = word::<BestBy>)]
    pub best_by: BestBy,
}

/// Images from which on the largest class is said to be many times the smallest.
const MANY_TIMES: usize = 10;

impl ImbalanceArgs {
    /// The weights of the model's classes, for these training images; none if all weigh the same.
    ///
    /// # Errors
    /// [`Error::Data`] naming the file that can't be read or understood, and its line.
    pub fn weights(&self, train: &Dataset, classes: &ClassMap) -> Result<Option<ClassWeights>> {
        let names = classes.names();
        match &self.class_weights {
            Weighting::None => Ok(None),
            Weighting::Balanced if train.is_multi_label() => {
                let weights = LabelTargets::balanced(&train.counts(), train.items.len());
                Ok(Some(ClassWeights::new(weights)))
            }
            Weighting::Balanced => Ok(Some(ClassWeights::balanced(&train.counts()))),
            Weighting::File(path) => read(path, &names).map(|weights| Some(ClassWeights::new(weights))),
        }
    }

    /// A note if the classes of these training images are very unequal in size and nothing is done about that.
    pub fn note(&self, train: &Dataset, names: &[String]) -> Option<String> {
        if self.class_weights != Weighting::None || self.sampler == Sampler::Balanced {
            return None;
        }
        let counts = train.counts();
        let there = || counts.iter().enumerate().filter(|(_, n)| **n > 0);
        let ((most, large), (least, small)) = (there().max_by_key(|c| c.1)?, there().min_by_key(|c| c.1)?);
        (*large >= MANY_TIMES * small).then(|| {
            let (most, least) = (quote(&names[most]), quote(&names[least]));
            let what = format!("train: \"{most}\" has {large} images, \"{least}\" has {small}: small classes may be ignored");
            match train.is_multi_label() {
                true => format!("{what}; --class-weights balanced lets the images that have a class count as much as all others"),
                false => format!(
                    "{what}; --class-weights balanced or --sampler balanced makes all count alike, and --best-by balanced chooses the \
                     checkpoint so"
                ),
            }
        })
    }
}

/// The weights in a file, `class weight` on each line; every class has one.
fn read(path: &Path, names: &[String]) -> Result<Vec<f32>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "cannot read the class weights", e))?;
    let mut weights = vec![None; names.len()];
    for (number, line) in without_mark(&text).lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: String| Error::data(path, format!("line {}: {what}", number + 1));
        let (name, weight) = line.trim().rsplit_once(char::is_whitespace).ok_or_else(|| {
            wrong(format!("\"{}\" is no class with its weight behind it, as in `cat 2.5`", quote(line.trim())))
        })?;
        let name = name.trim_end();
        let place = names.iter().position(|own| own == name);
        let place = place.ok_or_else(|| wrong(format!("\"{}\" is none of the classes", quote(name))))?;
        let weight = weight.parse().ok().filter(|w: &f32| w.is_finite() && *w >= 0.0);
        let weight =
            weight.ok_or_else(|| wrong(format!("the weight of \"{}\" is no number of at least 0", quote(name))))?;
        if weights[place].replace(weight).is_some() {
            return Err(wrong(format!("\"{}\" has a weight already", quote(name))));
        }
    }
    let lacking = names.iter().zip(&weights).find(|(_, weight)| weight.is_none());
    if let Some((name, _)) = lacking {
        return Err(Error::data(path, format!("there is no weight for the class \"{}\"", quote(name))));
    }
    let weights: Vec<f32> = weights.into_iter().flatten().collect();
    match weights.iter().any(|weight| *weight > 0.0) {
        true => Ok(weights),
        false => Err(Error::data(path, "all weights are 0: nothing would be learned")),
    }
}
