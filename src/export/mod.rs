//! Models for other programs: [`onnx`] files, and a [`folder`] for another [`library`], with a model card.

mod card;
pub mod folder;
pub mod library;
pub mod onnx;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where a model that is exported comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file with its weights.
    pub weights: PathBuf,
    /// The folder of the run that made it, if it is a run's.
    pub run: Option<PathBuf>,
}

impl Origin {
    /// Of `path`: a run's folder, or a model.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a run that has no weights yet.
    pub fn of(path: &Path) -> Result<Origin> {
        if !path.join("config.toml").is_file() {
            return Ok(Origin { weights: path.into(), run: None });
        }
        let weights = path.join("best.safetensors");
        if weights.is_file() {
            return Ok(Origin { weights, run: Some(path.into()) });
        }
        let what = "this run has no best.safetensors yet: it is written at the first evaluation, and when the run ends";
        Err(Error::checkpoint(path, what))
    }
}
