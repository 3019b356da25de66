//! What stands beside the weights: the configuration of whichever library wrote them.

use serde_json::Value;

use super::Note;
use super::file::Checkpoint;
use super::open_clip_config::OpenClipConfig;
use super::timm_config::{Class, TimmConfig};
use super::torchvision_table::Weights;
use super::transformers_config::{Model, TransformersConfig};
use crate::data::preprocess::Preprocess;
use crate::error::Result;
use crate::model::config::Pool;
use crate::shapes::Activation;

/// A configuration; without one, all methods say "not there".
pub(super) enum Facts<'a> {
    Timm(TimmConfig),
    Transformers(TransformersConfig<'a>),
    OpenClip(OpenClipConfig),
    /// OpenCLIP's, of a tower that timm has.
    Trunk(OpenClipConfig, TimmConfig),
    /// torchvision's own file, known by its name; nothing if it has another.
    Torchvision(Option<Weights>),
}

impl<'a> Facts<'a> {
    /// Of a timm model, alone or in OpenCLIP, which must be one of `classes`.
    pub(super) fn timm(checkpoint: &'a Checkpoint, classes: &[Class]) -> Result<Self> {
        let Some(clip) = OpenClipConfig::of(checkpoint)? else {
            let config = TimmConfig::of(checkpoint);
            config.check(classes)?;
            return Ok(Self::Timm(config));
        };
        clip.check()?;
        let Some(trunk) = clip.trunk()? else {
            return Err(checkpoint.error("has timm's tensors, but its vision_cfg has no timm_model_name"));
        };
        trunk.check(classes)?;
        Ok(Self::Trunk(clip, trunk))
    }

    /// Of a model of torchvision, which has no configuration.
    pub(super) fn torchvision(checkpoint: &Checkpoint) -> Self {
        Self::Torchvision(Weights::of(checkpoint.path()))
    }

    /// Of a model of transformers.
    pub(super) fn transformers(checkpoint: &'a Checkpoint, model: &Model) -> Result<Self> {
        let config = TransformersConfig::of(checkpoint, model.usual())?;
        config.check(model.types, &model.keys)?;
        Ok(Self::Transformers(config))
    }

    /// Of an OpenAI or OpenCLIP model, whose repositories on the hub have one configuration or the other.
    pub(super) fn open_clip(checkpoint: &'a Checkpoint, model: &Model) -> Result<Self> {
        match OpenClipConfig::of(checkpoint)? {
            Some(config) => {
                config.check()?;
                if config.trunk()?.is_some() {
                    return Err(
                        checkpoint.error("has OpenCLIP's own tensors, but its vision_cfg has a timm_model_name")
                    );
                }
                Ok(Self::OpenClip(config))
            }
            None => Self::transformers(checkpoint, model),
        }
    }

    /// timm's configuration, if it is one.
    pub(super) fn timm_config(&self) -> Option<&TimmConfig> {
        match self {
            Self::Timm(config) | Self::Trunk(_, config) => Some(config),
            _ => None,
        }
    }

    /// The file's name.
    pub(super) fn file(&self) -> &'static str {
        match self {
            Self::OpenClip(_) | Self::Trunk(..) => "open_clip_config.json",
            Self::Torchvision(_) => "the file's name",
            Self::Timm(_) | Self::Transformers(_) => "config.json",
        }
    }

    /// Whether there is a configuration.
    pub(super) fn written(&self) -> bool {
        match self {
            Self::Timm(config) => config.root.is_object(),
            Self::Transformers(config) => config.written(),
            Self::OpenClip(_) | Self::Trunk(..) => true,
            Self::Torchvision(weights) => weights.is_some(),
        }
    }

    /// The name of the file that says how the input is made.
    pub(super) fn preprocess_file(&self) -> &str {
        match self {
            Self::Transformers(config) => config.preprocess_file(),
            Self::Timm(_) | Self::OpenClip(_) | Self::Trunk(..) | Self::Torchvision(_) => self.file(),
        }
    }

    /// The pixels that a processor makes of an image, along a side.
    pub(super) fn processed_size(&self) -> Option<usize> {
        match self {
            Self::Transformers(config) => config.crop_size(),
            Self::Timm(_) | Self::OpenClip(_) | Self::Trunk(..) | Self::Torchvision(_) => None,
        }
    }

    /// Blocks of a vision transformer, and where that is written.
    pub(super) fn depth(&self) -> Result<Option<(u64, &str)>> {
        match self {
            Self::Timm(config) | Self::Trunk(_, config) => config.depth(),
            Self::Transformers(config) => Ok(config.depth()),
            Self::OpenClip(config) => Ok(config.depth()),
            Self::Torchvision(_) => Ok(None),
        }
    }

    /// Heads, and where that is written.
    pub(super) fn heads(&self) -> Result<Option<(usize, String)>> {
        match self {
            Self::Timm(config) | Self::Trunk(_, config) => config.heads(),
            Self::Transformers(config) => config.heads(),
            Self::OpenClip(config) => Ok(config.heads()),
            Self::Torchvision(_) => Ok(None),
        }
    }

    /// The activation, where it is written or follows from other entries.
    pub(super) fn activation(&self) -> Result<Option<Activation>> {
        match self {
            Self::Timm(config) | Self::Trunk(_, config) => config.activation(),
            Self::Transformers(config) => config.activation(),
            Self::OpenClip(config) => config.activation(),
            Self::Torchvision(_) => Ok(None),
        }
    }

    /// An error where the activation of gated MLPs is written and is not SiLU. transformers has no other there, whatever
    /// `hidden_act` says.
    pub(super) fn check_gate(&self) -> Result<()> {
        match self {
            Self::Timm(config) | Self::Trunk(_, config) => config.check_gate(),
            Self::Transformers(_) | Self::OpenClip(_) | Self::Torchvision(_) => Ok(()),
        }
    }

    /// Layer norm's epsilon.
    pub(super) fn eps(&self) -> Result<Option<f32>> {
        match self {
            Self::Timm(config) | Self::Trunk(_, config) => config.eps(),
            Self::Transformers(config) => config.eps(),
            Self::OpenClip(config) => config.eps(),
            Self::Torchvision(_) => Ok(None),
        }
    }

    /// The pooling, where it is written.
    pub(super) fn pool(&self) -> Result<Option<Pool>> {
        match self {
            Self::Timm(config) | Self::Trunk(_, config) => config.pool(),
            Self::OpenClip(config) => Ok(config.pool()),
            Self::Transformers(_) | Self::Torchvision(_) => Ok(None),
        }
    }

    /// Whether strides of a ResNet are anti-aliased by averages, which no tensor tells.
    pub(super) fn anti_alias(&self) -> bool {
        match self {
            Self::Timm(config) | Self::Trunk(_, config) => config.value("aa_layer").is_some() && !config.blurs(),
            Self::Transformers(_) | Self::OpenClip(_) | Self::Torchvision(_) => false,
        }
    }

    /// Whether the last norm stands behind the pooling under the name that it has before it.
    pub(super) fn norm_after_pool(&self) -> Result<bool> {
        match self {
            Self::OpenClip(config) => config.norm_after_pool(),
            _ => Ok(false),
        }
    }

    /// What the configuration gives under `key`, and where. What an architecture of timm's has by itself is not told here.
    pub(super) fn told(&self, key: &str) -> Option<(Value, String)> {
        match self {
            Self::Timm(config) | Self::Trunk(_, config) => config.written(key),
            Self::Transformers(config) => Some((config.entry(key)?.clone(), key.into())),
            Self::OpenClip(config) => config.told(key),
            Self::Torchvision(_) => None,
        }
    }

    /// Heads of CoCa's attention pool, where there is OpenCLIP's configuration.
    pub(super) fn pooler_heads(&self) -> Result<Option<usize>> {
        match self {
            Self::OpenClip(config) => config.pooler_heads().map(Some),
            _ => Ok(None),
        }
    }

    /// Height and width of the input.
    pub(super) fn input_size(&self) -> Option<[u64; 2]> {
        match self {
            Self::Timm(config) => config.input_size(),
            Self::Transformers(config) => config.input_size(),
            Self::OpenClip(config) | Self::Trunk(config, _) => config.input_size(),
            Self::Torchvision(weights) => weights.as_ref().map(|weights| [weights.preprocess().image_size as u64; 2]),
        }
    }

    /// Pixels along a side of the input.
    ///
    /// # Errors
    /// Where its sides differ.
    pub(super) fn square_input(&self, checkpoint: &Checkpoint) -> Result<Option<usize>> {
        match self.input_size() {
            Some([height, width]) if height != width => {
                let what =
                    format!("{} gives images of {height} x {width} pixels: only squares are supported", self.file());
                Err(checkpoint.error(what))
            }
            sides => Ok(sides.map(|[side, _]| side as usize)),
        }
    }

    /// The input, where anything is written about it; missing entries are as in `usual`.
    pub(super) fn preprocess(&self, usual: Preprocess, notes: &mut Vec<Note>) -> Result<Option<Preprocess>> {
        match self {
            Self::Timm(config) => config.preprocess(usual, notes),
            Self::Transformers(config) => config.preprocess(usual, notes),
            Self::OpenClip(config) | Self::Trunk(config, _) => config.preprocess(usual.image_size),
            Self::Torchvision(weights) => {
                let own = weights.as_ref().map(Weights::preprocess);
                Ok(own.map(|own| Preprocess { image_size: usual.image_size, ..own }))
            }
        }
    }

    /// Class names, if there is one for each of `outputs`.
    pub(super) fn classes(&self, outputs: usize) -> Option<Vec<String>> {
        match self {
            Self::Timm(config) => config.classes(outputs),
            Self::Transformers(config) => config.classes(outputs),
            Self::OpenClip(_) | Self::Trunk(..) | Self::Torchvision(_) => None,
        }
    }
}
