//! Any of the models: what the trainer, the method and the command line know of them.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Help, Result};
use crate::gpu::Gpu;
use crate::model::activations::{Activations, Mode};
use crate::model::adapters::Adapters;
use crate::model::config::{VitConfig, VitParts};
use crate::model::convnext_config::ConvNextConfig;
use crate::model::drops::Drops;
use crate::model::efficientnet_config::EfficientNetConfig;
use crate::model::precision::Precision;
use crate::model::resnet_config::ResNetConfig;
use crate::model::resnetv2_config::ResNetV2Config;
use crate::model::tape::{Act, Network, Tape};
use crate::model::vgg_config::VggConfig;
use crate::model::vit_stem::Stem;
use crate::ops::distill::On;
use crate::shapes::ParamLayout;

/// What a model is made of, whichever it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ModelConfig {
    /// A vision transformer.
    Vit(VitConfig),
    /// A ResNet.
    ResNet(ResNetConfig),
    /// A ConvNeXt.
    ConvNext(ConvNextConfig),
    /// An EfficientNet or a MobileNet.
    EfficientNet(EfficientNetConfig),
    /// A ResNetV2.
    ResNetV2(ResNetV2Config),
    /// A VGG.
    Vgg(VggConfig),
}

impl From<VitConfig> for ModelConfig {
    fn from(config: VitConfig) -> Self {
        Self::Vit(config)
    }
}

impl From<ResNetConfig> for ModelConfig {
    fn from(config: ResNetConfig) -> Self {
        Self::ResNet(config)
    }
}

impl From<ConvNextConfig> for ModelConfig {
    fn from(config: ConvNextConfig) -> Self {
        Self::ConvNext(config)
    }
}

impl From<EfficientNetConfig> for ModelConfig {
    fn from(config: EfficientNetConfig) -> Self {
        Self::EfficientNet(config)
    }
}

impl From<ResNetV2Config> for ModelConfig {
    fn from(config: ResNetV2Config) -> Self {
        Self::ResNetV2(config)
    }
}

impl From<VggConfig> for ModelConfig {
    fn from(config: VggConfig) -> Self {
        Self::Vgg(config)
    }
}

/// An expression over the configuration of whichever network it is; a vision transformer's may be another.
macro_rules! of_each {
    ($self:ident, $c:ident => $own:expr) => {
        of_each!($self, $c => $own, vit: $own)
    };
    ($self:ident, $c:ident => $own:expr, vit: $vit:expr) => {
        match $self {
            Self::Vit($c) => $vit,
            Self::ResNet($c) => $own,
            Self::ConvNext($c) => $own,
            Self::EfficientNet($c) => $own,
            Self::ResNetV2($c) => $own,
            Self::Vgg($c) => $own,
        }
    };
}

impl ModelConfig {
    /// Outputs of the head; 0 for a model without one.
    pub fn classes(&self) -> usize {
        of_each!(self, c => c.classes)
    }

    /// Gives the model a head for `classes` outputs, with a bias unless features are normalised and there was
    /// none.
    pub fn set_classes(&mut self, classes: usize) {
        let (had, normalize) = (self.classes() > 0, self.normalize());
        of_each!(self, c => {
            c.head_bias = !normalize || (had && c.head_bias);
            c.classes = classes;
        })
    }

    /// Gives the model a head for `classes` outputs, with a bias or without.
    pub fn set_head(&mut self, classes: usize, bias: bool) {
        of_each!(self, c => (c.classes, c.head_bias) = (classes, bias))
    }

    /// Whether its head has a bias, or would have one.
    pub fn head_bias(&self) -> bool {
        of_each!(self, c => c.head_bias)
    }

    /// Whether what enters the head is scaled to unit length.
    pub fn normalize(&self) -> bool {
        of_each!(self, c => c.normalize, vit: c.parts.normalize)
    }

    /// Scales what enters the head to unit length, or not.
    pub fn set_normalize(&mut self, normalize: bool) {
        of_each!(self, c => c.normalize = normalize, vit: c.parts.normalize = normalize)
    }

    /// Height and width of the input, in pixels.
    pub fn image_size(&self) -> usize {
        of_each!(self, c => c.image_size)
    }

    /// Makes images of `size` pixels the input.
    pub fn set_image_size(&mut self, size: usize) {
        of_each!(self, c => c.image_size = size)
    }

    /// Pixels of the image to one pixel of what leaves the last block, or to a patch.
    pub fn stride(&self) -> usize {
        of_each!(self, c => c.stride(), vit: c.patch_size)
    }

    /// Length of the feature vector that enters the head.
    pub fn width(&self) -> usize {
        of_each!(self, c => c.features())
    }

    /// Whether the stem reads one channel, the image's luma, and not three.
    pub fn grey(&self) -> bool {
        of_each!(self, c => c.grey, vit: c.parts.grey)
    }

    /// Makes the stem read one channel or three.
    pub fn set_grey(&mut self, grey: bool) {
        of_each!(self, c => c.grey = grey, vit: {
            c.parts.grey = grey;
            c.parts.backbone.iter_mut().for_each(|backbone| backbone.grey = grey);
        })
    }

    /// The name of the weight that reads the images' channels, `[outputs, channels, height, width]`.
    pub fn stem(&self) -> &'static str {
        match self {
            Self::Vit(c) if c.parts.backbone.is_some() => "patch_embed.backbone.stem.conv.weight",
            Self::Vit(c) => c.parts.stem.as_ref().map_or("patch_embed.proj.weight", Stem::weight),
            Self::ResNet(c) => c.stem_weight(),
            Self::ConvNext(_) => "stem.0.weight",
            Self::EfficientNet(_) => "conv_stem.weight",
            Self::ResNetV2(c) => c.stem_weight(),
            Self::Vgg(_) => "features.0.weight",
        }
    }

    /// The name of the head: its tensors are `head.weight` and `head.bias` of a ViT and of CLIP's ResNets, those of other ResNets
    /// begin with `fc`, those of ConvNeXts and ResNetV2s with `head.fc`, or with `classifier` behind a projection, as those of
    /// EfficientNets.
    pub fn head(&self) -> &'static str {
        match self {
            Self::Vit(_) => "head",
            Self::ResNet(c) => c.head(),
            Self::ConvNext(c) => c.head(),
            Self::EfficientNet(_) => "classifier",
            Self::ResNetV2(_) | Self::Vgg(_) => "head.fc",
        }
    }

    /// Whether `name` is one of the head's tensors.
    pub fn is_head(&self, name: &str) -> bool {
        let rest = name.strip_prefix(self.head());
        rest.is_some_and(|rest| rest.starts_with('.') || rest.starts_with("_dist."))
    }

    /// Whether the same weights mean the same function in both, as far as their shapes don't tell.
    pub fn computes_like(&self, other: &ModelConfig) -> bool {
        match (self, other) {
            (Self::Vit(a), Self::Vit(b)) => {
                let what = |c: &VitConfig| (c.heads, c.activation, c.eps, c.pool, c.parts.normalize);
                let parts = |c: &VitConfig| {
                    let VitParts { block, rms_norm, rope, pool_prefix, .. } = c.parts;
                    (block, rms_norm, rope, pool_prefix, c.parts.attention_pool.and_then(|pool| pool.heads))
                };
                what(a) == what(b) && parts(a) == parts(b)
            }
            (Self::ResNet(a), Self::ResNet(b)) => {
                let what = |c: &ResNetConfig| {
                    let parts = (c.stride_first, c.ceil_pool, c.active_gate, c.norm_groups, c.blur, c.activation);
                    let whole = (c.eps, c.block, c.stem, c.downsample, c.pooling, c.anti_alias, c.attention_inside);
                    (whole, parts, c.normalize)
                };
                what(a) == what(b)
            }
            (Self::ConvNext(a), Self::ConvNext(b)) => {
                let what = |c: &ConvNextConfig| (c.eps, c.head_eps, c.activation, c.stem, c.norm_first, c.normalize);
                what(a) == what(b)
            }
            (Self::EfficientNet(_) | Self::ResNetV2(_) | Self::Vgg(_), _) => {
                let mut other = other.clone();
                other.set_image_size(self.image_size());
                of_each!(self, c => other.set_head(c.classes, c.head_bias));
                other == *self
            }
            _ => false,
        }
    }

    /// The vision transformer that it is.
    pub fn vit(&self) -> Option<&VitConfig> {
        match self {
            Self::Vit(config) => Some(config),
            _ => None,
        }
    }
}

impl Network for ModelConfig {
    fn forward(&self, t: &mut Tape) -> Act {
        of_each!(self, c => c.forward(t))
    }
}

/// A model: its configuration and where its tensors lie. As a network it is its configuration's, which drops what the model does.
#[derive(Clone, Debug)]
pub struct Model {
    /// What it is made of.
    pub config: ModelConfig,
    drops: Drops,
    distills: Option<On>,
    ranks: usize,
    adapters: Option<Adapters>,
    layout: ParamLayout,
    buffers: ParamLayout,
    norm_pixels: Option<usize>,
    norms: Vec<usize>,
}

impl Network for Model {
    fn forward(&self, t: &mut Tape) -> Act {
        self.config.forward(t)
    }

    fn drops(&self) -> Drops {
        self.drops
    }

    fn distills(&self) -> Option<On> {
        self.distills
    }

    fn ranks(&self) -> usize {
        self.ranks
    }
}

impl Model {
    /// The model that `config` describes.
    pub fn new(config: impl Into<ModelConfig>) -> Model {
        let config = config.into();
        let (tape, _) = Tape::of(&config, 1, Precision::F32);
        let (layout, buffers) = (ParamLayout::new(&tape.params), ParamLayout::new(&tape.statistics));
        Model {
            config,
            drops: Drops::default(),
            distills: None,
            ranks: 1,
            adapters: None,
            layout,
            buffers,
            norm_pixels: tape.norm_pixels,
            norms: tape.norms,
        }
    }

    /// The same, which drops this at random while it is trained.
    pub fn dropping(self, drops: Drops) -> Model {
        Model { drops, ..self }
    }

    /// The same, of which a loss keeps this near another model's while it is trained.
    pub fn distilling(self, distills: Option<On>) -> Model {
        Model { distills, ..self }
    }

    /// The same, whose batch norms take their statistics over the images of `ranks` ranks while they are trained: its passes then
    /// [exchange](crate::gpu::Program::exchanges) them.
    pub fn across(self, ranks: usize) -> Model {
        assert!(ranks > 0, "a model on no rank");
        Model { ranks, ..self }
    }

    /// Ranks that its batch norms take their statistics over while they are trained.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// The same with low-rank adapters of the tensors `targets` of its layout, whose product counts `scale` times. Theirs stand behind
    /// the others in the layout.
    pub fn adapted(self, rank: usize, scale: f32, targets: &[usize]) -> Model {
        let (adapters, layout) = Adapters::new(&self.layout, rank, scale, targets);
        Model { adapters: Some(adapters), layout, ..self }
    }

    /// Its low-rank adapters, if it has any.
    pub fn adapters(&self) -> Option<&Adapters> {
        self.adapters.as_ref()
    }

    /// Its parameters, and those of its adapters behind them.
    pub fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    /// Its running statistics.
    pub fn buffers(&self) -> &ParamLayout {
        &self.buffers
    }

    /// Outputs of the head.
    pub fn classes(&self) -> usize {
        self.config.classes()
    }

    /// Height and width of the input, in pixels.
    pub fn image_size(&self) -> usize {
        self.config.image_size()
    }

    /// The fewest pixels of an image that a batch norm sees; none without batch norm.
    pub fn norm_pixels(&self) -> Option<usize> {
        self.norm_pixels
    }

    /// The weights and biases of its batch norms: places in the [layout](Model::layout).
    pub fn norms(&self) -> &[usize] {
        &self.norms
    }

    /// The activations of batches of up to `batch` images, planned but not allocated: tensors whose lifetimes do not
    /// overlap share buffers.
    ///
    /// Errors where a kernel does not compile on `gpu`, the device has no f16 for that `precision`, or the model has a width
    /// that its kernels can't take.
    pub fn plan(&self, gpu: &Gpu, batch: usize, mode: Mode, precision: Precision) -> Result<Activations> {
        self.check_precision(gpu, precision)?;
        Activations::plan(gpu, self, batch, mode, precision)
    }

    fn check_precision(&self, gpu: &Gpu, precision: Precision) -> Result<()> {
        if precision == Precision::F32 {
            return Ok(());
        }
        gpu.check_f16()?;
        let widths = match &self.config {
            ModelConfig::Vit(c) => vec![("tokens have", c.dim), ("MLP has", c.mlp_dim)],
            // They take any: their convolutions have no epilogue.
            ModelConfig::ResNet(_) | ModelConfig::Vgg(_) | ModelConfig::EfficientNet(_) | ModelConfig::ResNetV2(_) => {
                Vec::new()
            }
            ModelConfig::ConvNext(c) => {
                c.stages.iter().flat_map(|s| [("pixels have", s.width), ("MLP has", s.hidden)]).collect()
            }
        };
        match widths.into_iter().find(|(_, width)| !width.is_multiple_of(4)) {
            Some((name, width)) => {
                Err(Error::Usage(format!("f16 needs widths that are multiples of 4, this model's {name} {width}"))
                    .with_help(Help::HalfWidths))
            }
            None => Ok(()),
        }
    }
}
