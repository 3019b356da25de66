//! Flags that say of a checkpoint what it can't, or what the user knows better.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Overrides;
use crate::data::{CropMode, Interpolation, Preprocess};
use crate::error::{Error, Result};
use crate::flag::word;
use crate::model::Pool;
use crate::shapes::Activation;

/// What a checkpoint can't say, or says and the user knows better.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModelArgs {
    /// Attention heads, where the file can't say
    #[arg(long, value_name = "N")]
    pub heads: Option<usize>,
    /// The MLP's activation: gelu, gelu_tanh or quick_gelu
    #[arg(long, value_parser = word::<Activation>)]
    pub activation: Option<Activation>,
    /// Pooling before the head: cls or mean
    #[arg(long, value_parser = word::<Pool>)]
    pub pool: Option<Pool>,
    /// What the checkpoint is, where its names don't tell: timm-vit, torchvision-vit, hf-vit, hf-dinov2, clip-vit, hf-clip, hf-siglip,
    /// resnet, hf-resnet, resnetv2, legacy-senet, vgg, torchvision-vgg, convnext, torchvision-convnext, hf-convnext, regnet,
    /// torchvision-regnet, efficientnet, torchvision-efficientnet, torchvision-mobilenetv2, torchvision-mobilenetv3 or torchvision-mnasnet
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<String>,
    /// A .safetensors file with a head [classes, features] to start from, such as CLIP's text embeddings of the classes
    #[arg(long, value_name = "FILE")]
    pub head: Option<PathBuf>,
    /// With --pool mean, a new norm after the mean instead of the one behind the blocks: how MAE is fine-tuned
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub fc_norm: Option<bool>,
    /// Scale features to unit length before the head, as CLIP does; a new head then has no bias [default: the checkpoint's]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub normalize_features: Option<bool>,
    /// Height and width of the model's input, in pixels [default: the checkpoint's]
    #[arg(long, value_name = "PX")]
    pub image_size: Option<usize>,
    /// Channels that the model reads: 1, the luma of each image, or 3. A stem for three is summed for one, a stem for one repeated for
    /// three, each a third [default: the checkpoint's]
    #[arg(long, value_name = "N")]
    pub in_channels: Option<usize>,
    /// Share of the resized image that the centre crop keeps [default: the checkpoint's]
    #[arg(long, value_name = "SHARE")]
    pub crop_pct: Option<f64>,
    /// center (shorter side, then crop), squash (both sides), either with -floor as transformers rounds, border or longest
    /// (longer side, then the mean or black around) [default: the checkpoint's]
    #[arg(long, value_parser = word::<CropMode>)]
    pub crop_mode: Option<CropMode>,
    /// Subtracted from each channel [default: the checkpoint's]
    #[arg(long, num_args = 3, value_names = ["R", "G", "B"])]
    pub mean: Option<Vec<f32>>,
    /// Divides each channel [default: the checkpoint's]
    #[arg(long, num_args = 3, value_names = ["R", "G", "B"])]
    pub std: Option<Vec<f32>>,
    /// bilinear, bicubic or lanczos [default: the checkpoint's]
    #[arg(long, value_parser = word::<Interpolation>)]
    pub interpolation: Option<Interpolation>,
}

impl ModelArgs {
    /// What recognising a checkpoint is told.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            heads: self.heads,
            activation: self.activation,
            image_size: self.image_size,
            pool: self.pool,
            family: self.family.clone(),
            fc_norm: self.fc_norm.unwrap_or(false),
            normalize: self.normalize_features,
            head: self.head.clone(),
            in_channels: self.in_channels,
        }
    }

    /// Whether the model reads one channel, where that is said.
    ///
    /// # Errors
    /// [`Error::Usage`] for another number than 1 and 3.
    pub fn grey(&self) -> Result<Option<bool>> {
        self.overrides().grey()
    }

    /// Whether a flag says how images are made ready.
    pub fn changes_preprocess(&self) -> bool {
        let ModelArgs { crop_pct, crop_mode, mean, std, interpolation, .. } = self;
        crop_pct.is_some() || crop_mode.is_some() || mean.is_some() || std.is_some() || interpolation.is_some()
    }

    /// The checkpoint's preprocessing with the flags' values.
    pub fn preprocess(&self, own: &Preprocess) -> Result<Preprocess> {
        let triple = |flag: &str, values: &Option<Vec<f32>>, own: [f32; 3]| match values {
            None => Ok(own),
            Some(v) => <[f32; 3]>::try_from(v.as_slice())
                .map_err(|_| Error::Usage(format!("--{flag} takes three numbers, one for each channel"))),
        };
        let preprocess = Preprocess {
            image_size: self.image_size.unwrap_or(own.image_size),
            crop_pct: self.crop_pct.unwrap_or(own.crop_pct),
            crop_mode: self.crop_mode.unwrap_or(own.crop_mode),
            interpolation: self.interpolation.unwrap_or(own.interpolation),
            mean: triple("mean", &self.mean, own.mean)?,
            std: triple("std", &self.std, own.std)?,
            grey: own.grey,
        };
        preprocess.validate()?;
        match preprocess.doubt().filter(|_| self.mean.is_some() || self.std.is_some()) {
            Some(doubt) => Err(Error::Usage(doubt)),
            None => Ok(preprocess),
        }
    }
}
