//! A head from another file: text embeddings of the classes, as zero-shot classification with CLIP has them.

use std::path::{Path, PathBuf};

use super::Note;
use super::file::{Checkpoint, is_float};
use crate::error::{Error, Result};

/// A head `[classes, features]`, perhaps with a bias; its values are read when they are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ZeroShot {
    /// The safetensors file.
    pub path: PathBuf,
    /// The weight's name.
    pub weight: String,
    /// The bias's name.
    pub bias: Option<String>,
    /// Rows of the weight.
    pub classes: usize,
    /// Columns of the weight.
    pub features: usize,
    /// Class names, where the file's metadata has them (`classes`, a JSON list).
    pub names: Option<Vec<String>>,
}

impl ZeroShot {
    /// Opens a file with one floating-point matrix `[classes, features]`, and at most one vector `[classes]` beside it.
    ///
    /// # Errors
    /// Where the file can't be read or has something else.
    pub fn open(path: &Path) -> Result<ZeroShot> {
        let file = Checkpoint::open(path)?;
        let of = |dims: usize| file.tensors().iter().filter(move |t| t.shape.len() == dims && is_float(t.dtype));
        let other = file.tensors().iter().any(|t| !(1..=2).contains(&t.shape.len()) || !is_float(t.dtype));
        let wrong =
            || file.error("is no head: one matrix [classes, features] and perhaps a bias [classes] are expected");
        let (weight, bias) = (of(2).next().ok_or_else(wrong)?, of(1).next());
        let [classes, features] = *weight.shape.as_slice() else { return Err(wrong()) };
        let fits = bias.is_none_or(|b| b.shape == [classes]);
        if of(2).count() > 1 || of(1).count() > 1 || other || !fits || classes == 0 || features == 0 {
            return Err(wrong());
        }
        let listed = ["classes", "tpgm.classes"].iter().find_map(|key| file.metadata().get(*key));
        let names: Option<Vec<String>> = match listed {
            Some(text) => {
                Some(serde_json::from_str(text).map_err(|e| file.error(format!("metadata classes = {text:?}: {e}")))?)
            }
            None => None,
        };
        if names.as_ref().is_some_and(|names| names.len() != classes) {
            return Err(file.error(format!("metadata classes does not name its {classes} classes")));
        }
        Ok(ZeroShot {
            path: path.into(),
            weight: weight.name.clone(),
            bias: bias.map(|b| b.name.clone()),
            classes,
            features,
            names,
        })
    }

    /// Whether it fits a model whose features are `features` long.
    pub(super) fn check(&self, features: usize) -> Result<()> {
        if self.features == features {
            return Ok(());
        }
        let (name, classes, own) = (&self.weight, self.classes, self.features);
        let what = format!("tensor {name} has shape [{classes}, {own}], the model's features are {features} long");
        Err(Error::checkpoint(&self.path, what))
    }

    /// The values of the head's weight or, for `bias`, its bias, which is zero where the file has none.
    pub(super) fn read(&self, bias: bool) -> Result<Vec<f32>> {
        match (bias, &self.bias) {
            (true, None) => Ok(vec![0.0; self.classes]),
            (true, Some(bias)) => Checkpoint::open(&self.path)?.read_f32(bias),
            (false, _) => Checkpoint::open(&self.path)?.read_f32(&self.weight),
        }
    }

    pub(super) fn note(&self) -> Note {
        format!("the head for {} classes is that of {}", self.classes, self.path.display()).into()
    }
}
