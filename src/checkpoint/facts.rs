//! What stands beside the weights: the configuration of whichever library wrote them.

use super::Note;
use super::file::Checkpoint;
use super::open_clip_config::OpenClipConfig;
use super::timm_config::TimmConfig;
use super::transformers_config::TransformersConfig;
use crate::data::preprocess::Preprocess;
use crate::error::Result;
use crate::model::config::Pool;
use crate::shapes::Activation;

/// A configuration; without one, all methods say "not there".
pub(super) enum Facts<'a> {
    Timm(TimmConfig<'a>),
    Transformers(TransformersConfig<'a>),
    OpenClip(OpenClipConfig),
}

impl<'a> Facts<'a> {
    /// Of a timm model.
    pub(super) fn timm(checkpoint: &'a Checkpoint) -> Self {
        Self::Timm(TimmConfig::of(checkpoint))
    }

    /// Of a model of transformers.
    pub(super) fn transformers(checkpoint: &'a Checkpoint) -> Result<Self> {
        Ok(Self::Transformers(TransformersConfig::of(checkpoint)?))
    }

    /// Of an OpenAI or OpenCLIP model, whose repositories on the hub have one configuration or the other.
    pub(super) fn open_clip(checkpoint: &'a Checkpoint) -> Result<Self> {
        match OpenClipConfig::of(checkpoint)? {
            Some(config) => Ok(Self::OpenClip(config)),
            None => Self::transformers(checkpoint),
        }
    }

    /// The file's name.
    pub(super) fn file(&self) -> &'static str {
        if matches!(self, Self::OpenClip(_)) { "open_clip_config.json" } else { "config.json" }
    }

    /// The name of the file that says how the input is made.
    pub(super) fn preprocess_file(&self) -> &str {
        match self {
            Self::Transformers(config) => config.preprocess_file(),
            Self::Timm(_) | Self::OpenClip(_) => self.file(),
        }
    }

    /// The pixels that a processor makes of an image, along a side.
    pub(super) fn processed_size(&self) -> Option<usize> {
        match self {
            Self::Transformers(config) => config.crop_size(),
            Self::Timm(_) | Self::OpenClip(_) => None,
        }
    }

    /// Heads, and where that is written.
    pub(super) fn heads(&self) -> Result<Option<(usize, String)>> {
        match self {
            Self::Timm(config) => config.heads(),
            Self::Transformers(config) => config.heads(),
            Self::OpenClip(config) => Ok(config.heads()),
        }
    }

    /// The activation, where it is written or follows from what is.
    pub(super) fn activation(&self) -> Result<Option<Activation>> {
        match self {
            Self::Timm(config) => config.activation(),
            Self::Transformers(config) => config.activation(),
            Self::OpenClip(config) => Ok(config.activation()),
        }
    }

    /// An error where the activation of gated MLPs is written and is not SiLU. transformers has no other there, whatever
    /// `hidden_act` says.
    pub(super) fn check_gate(&self) -> Result<()> {
        match self {
            Self::Timm(config) => config.check_gate(),
            Self::Transformers(_) | Self::OpenClip(_) => Ok(()),
        }
    }

    /// Layer norm's epsilon.
    pub(super) fn eps(&self) -> Result<Option<f32>> {
        match self {
            Self::Transformers(config) => config.eps(),
            Self::Timm(_) | Self::OpenClip(_) => Ok(None),
        }
    }

    /// The pooling, where it is written.
    pub(super) fn pool(&self) -> Result<Option<Pool>> {
        match self {
            Self::Timm(config) => config.pool(),
            Self::Transformers(_) | Self::OpenClip(_) => Ok(None),
        }
    }

    /// Height and width of the input.
    pub(super) fn input_size(&self) -> Option<[u64; 2]> {
        match self {
            Self::Timm(config) => config.input_size(),
            Self::Transformers(config) => config.input_size(),
            Self::OpenClip(_) => None,
        }
    }

    /// The input, where anything is written about it; what is not is as in `usual`.
    pub(super) fn preprocess(&self, usual: Preprocess, notes: &mut Vec<Note>) -> Result<Option<Preprocess>> {
        match self {
            Self::Timm(config) => config.preprocess(usual, notes),
            Self::Transformers(config) => config.preprocess(usual, notes),
            Self::OpenClip(config) => config.preprocess(usual),
        }
    }

    /// Class names, if there is one for each of `outputs`.
    pub(super) fn classes(&self, outputs: usize) -> Option<Vec<String>> {
        match self {
            Self::Timm(config) => config.classes(outputs),
            Self::Transformers(config) => config.classes(outputs),
            Self::OpenClip(_) => None,
        }
    }
}
