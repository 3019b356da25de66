//! The layers of a ResNet: their shapes, and where their tensors lie.

use crate::model::attention_pool::AttentionPool;
use crate::model::params::ParamLayout;
use crate::model::resnet_config::{Downsample, ResNetConfig, Stem, Unit};
use crate::ops::{avg_pool, conv2d, max_pool};

/// A ResNet: its configuration, where its tensors lie, and the shape of every layer.
#[derive(Clone, Debug)]
pub struct ResNet {
    /// What it is made of.
    pub config: ResNetConfig,
    /// Its parameters, by torchvision's (or timm's, or OpenCLIP's) names.
    pub layout: ParamLayout,
    /// Its running statistics.
    pub buffers: ParamLayout,
    pub(super) stem: Vec<Layer>,
    pub(super) blocks: Vec<Block>,
    /// Where the features are not the mean of what leaves the last block.
    pub(super) attention: Option<Box<AttentionPool>>,
    /// Height and width of what leaves the last block.
    size: usize,
}

/// A convolution and its norm: shape, and the indices of their tensors.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) name: String,
    /// For one image.
    pub(super) dims: conv2d::Dims,
    pub(super) weight: usize,
    pub(super) norm_weight: usize,
    pub(super) norm_bias: usize,
    pub(super) running_mean: usize,
    pub(super) running_var: usize,
}

/// A residual block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) units: Vec<Layer>,
    pub(super) shortcut: Option<Layer>,
    /// The average pool before the shortcut's convolution, for one image.
    shortcut_pool: Option<avg_pool::Dims>,
    /// The average pool before the branch's last convolution, for one image.
    branch_pool: Option<avg_pool::Dims>,
}

/// The pool behind the stem.
#[derive(Clone, Copy, Debug)]
pub(super) enum StemPool {
    Max(max_pool::Dims),
    Avg(avg_pool::Dims),
}

impl StemPool {
    pub(super) fn in_len(self) -> usize {
        match self {
            StemPool::Max(dims) => dims.in_len(),
            StemPool::Avg(dims) => dims.in_len(),
        }
    }

    pub(super) fn out_len(self) -> usize {
        match self {
            StemPool::Max(dims) => dims.out_len(),
            StemPool::Avg(dims) => dims.out_len(),
        }
    }

    fn out_height(self) -> usize {
        match self {
            StemPool::Max(dims) => dims.out_height(),
            StemPool::Avg(dims) => dims.out_height(),
        }
    }
}

impl Layer {
    fn new(unit: &Unit, size: usize, layout: &ParamLayout, buffers: &ParamLayout) -> Layer {
        let dims = conv2d::Dims {
            batch: 1,
            height: size,
            width: size,
            in_channels: unit.inp,
            out_channels: unit.out,
            kernel: unit.kernel,
            stride: unit.stride,
            padding: unit.padding(),
            groups: unit.groups,
        };
        Layer {
            name: unit.conv.clone(),
            dims,
            weight: layout.index(&format!("{}.weight", unit.conv)),
            norm_weight: layout.index(&format!("{}.weight", unit.norm)),
            norm_bias: layout.index(&format!("{}.bias", unit.norm)),
            running_mean: buffers.index(&format!("{}.running_mean", unit.norm)),
            running_var: buffers.index(&format!("{}.running_var", unit.norm)),
        }
    }

    pub(super) fn dims(&self, batch: usize) -> conv2d::Dims {
        conv2d::Dims { batch, ..self.dims }
    }

    /// Elements of its input; RGB pixels are padded to four channels, which the convolution reads faster.
    pub(super) fn in_len(&self, batch: usize) -> usize {
        let channels = if self.dims.in_channels == 3 { 4 } else { self.dims.in_channels };
        self.dims(batch).in_pixels() * channels
    }

    pub(super) fn out_len(&self, batch: usize) -> usize {
        self.dims(batch).out_len()
    }
}

impl Block {
    pub(super) fn shortcut_pool(&self, batch: usize) -> Option<avg_pool::Dims> {
        self.shortcut_pool.map(|dims| avg_pool::Dims { batch, ..dims })
    }

    pub(super) fn branch_pool(&self, batch: usize) -> Option<avg_pool::Dims> {
        self.branch_pool.map(|dims| avg_pool::Dims { batch, ..dims })
    }

    pub(super) fn out_len(&self, batch: usize) -> usize {
        self.units[self.units.len() - 1].out_len(batch)
    }
}

impl ResNet {
    /// The model that `config` describes.
    pub fn new(config: ResNetConfig) -> ResNet {
        let (layout, buffers) = (ParamLayout::new(&config.parameters()), ParamLayout::new(&config.buffers()));
        let layer = |unit: &Unit, size: usize| Layer::new(unit, size, &layout, &buffers);
        let mut stem: Vec<Layer> = Vec::new();
        for unit in config.stem_units() {
            let size = stem.last().map_or(config.image_size, |last| last.dims.out_height());
            stem.push(layer(&unit, size));
        }
        let mut size = stem_pool(&config, &stem[stem.len() - 1], 1).out_height();
        let mut blocks = Vec::new();
        for block in config.block_units() {
            let pool = |size: usize, channels: usize, stride: usize| {
                let ceil_mode = config.downsample == Downsample::Avg;
                let dims =
                    avg_pool::Dims { batch: 1, height: size, width: size, channels, kernel: 2, stride, ceil_mode };
                (stride > 1).then_some(dims)
            };
            let shortcut_pool = pool(size, block.units[0].inp, block.shortcut_pool);
            let entering = shortcut_pool.map_or(size, |p| p.out_height());
            let shortcut = block.shortcut.as_ref().map(|unit| layer(unit, entering));
            let mut units: Vec<Layer> = Vec::new();
            let mut branch_pool = None;
            for (i, unit) in block.units.iter().enumerate() {
                if i + 1 == block.units.len() {
                    branch_pool = pool(size, unit.inp, block.branch_pool);
                    size = branch_pool.map_or(size, |p| p.out_height());
                }
                units.push(layer(unit, size));
                size = units[i].dims.out_height();
            }
            blocks.push(Block { units, shortcut, shortcut_pool, branch_pool });
        }
        let attention = AttentionPool::new(&config, &layout).map(Box::new);
        ResNet { stem, blocks, attention, size, layout, buffers, config }
    }

    /// Every convolution.
    pub(super) fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.stem.iter().chain(self.blocks.iter().flat_map(|b| b.units.iter().chain(&b.shortcut)))
    }

    pub(super) fn stem_pool(&self, batch: usize) -> StemPool {
        stem_pool(&self.config, &self.stem[self.stem.len() - 1], batch)
    }

    /// Pixels of what leaves the last block: the fewest values that a batch norm has of an image.
    pub fn pixels(&self) -> usize {
        self.size * self.size
    }
}

/// What comes behind the stem's last convolution.
fn stem_pool(config: &ResNetConfig, last: &Layer, batch: usize) -> StemPool {
    let (height, width, channels) = (last.dims.out_height(), last.dims.out_width(), last.dims.out_channels);
    let max = |kernel, stride, padding| {
        StemPool::Max(max_pool::Dims { batch, height, width, channels, kernel, stride, padding })
    };
    match config.stem {
        Stem::Conv | Stem::Deep => max(3, 2, 1),
        Stem::Clip => {
            StemPool::Avg(avg_pool::Dims { batch, height, width, channels, kernel: 2, stride: 2, ceil_mode: false })
        }
        // Windows of one pixel, which is no pool.
        Stem::Small => max(1, 1, 0),
    }
}
