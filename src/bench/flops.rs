//! How much work a model is, counted from its shapes alone.
//!
//! Counted are the multiply-adds of linear layers, convolutions and attention's two products, two operations each, as
//! papers do; norms, activations, the loss and the optimiser are left out, so that a share of the peak is a lower bound.
//! A backward pass is two products of the same size for each of the forward pass: the gradient of the input and that of
//! the weight (of attention, that of both factors). The first layer needs no gradient of its input, the images.

use crate::model::resnet_config::{ResNetConfig, Stem, Unit};
use crate::model::{ModelConfig, VitConfig};

/// Multiply-adds of a model for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Macs {
    /// Of the forward pass.
    pub forward: u64,
    /// Those of them in the layer that takes the images.
    pub first: u64,
}

impl Macs {
    /// Floating-point operations of a forward pass over `batch` images.
    pub fn inference(self, batch: usize) -> f64 {
        2.0 * (self.forward * batch as u64) as f64
    }

    /// Floating-point operations of a training step on `batch` images.
    pub fn training(self, batch: usize) -> f64 {
        2.0 * ((3 * self.forward - self.first) * batch as u64) as f64
    }
}

/// The multiply-adds of `config` for one image.
pub fn macs(config: &ModelConfig) -> Macs {
    match config {
        ModelConfig::Vit(config) => vit(config),
        ModelConfig::ResNet(config) => resnet(config),
    }
}

fn vit(c: &VitConfig) -> Macs {
    let (tokens, patches, d) = (c.tokens(), c.grid() * c.grid(), c.dim);
    let first = patches * d * 3 * c.patch_size * c.patch_size;
    let linear = tokens * d * (3 * d + d + c.hidden_dim() + c.mlp_dim);
    let attention = 2 * tokens * tokens * d;
    let forward = first + c.depth * (linear + attention) + d * c.classes;
    Macs { forward: forward as u64, first: first as u64 }
}

fn resnet(c: &ResNetConfig) -> Macs {
    // A window of stride 2 takes every other pixel, the first included, whether it is a convolution's or a pool's.
    let conv = |unit: &Unit, size: &mut usize| {
        *size = size.div_ceil(unit.stride);
        *size * *size * unit.out * unit.inp / unit.groups * unit.kernel * unit.kernel
    };
    let mut size = c.image_size;
    let mut forward = 0;
    let mut first = 0;
    for (i, unit) in c.stem_units().iter().enumerate() {
        let macs = conv(unit, &mut size);
        forward += macs;
        first = if i == 0 { macs } else { first };
    }
    if c.stem != Stem::Small {
        size = size.div_ceil(2);
    }
    for block in c.block_units() {
        let mut entering = size.div_ceil(block.shortcut_pool);
        forward += block.shortcut.iter().map(|unit| conv(unit, &mut entering)).sum::<usize>();
        forward += block.units.iter().map(|unit| conv(unit, &mut size)).sum::<usize>();
    }
    Macs { forward: (forward + c.width() * c.classes) as u64, first: first as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::models::NETS;

    /// A network's multiply-adds in thousands.
    fn thousands(name: &str) -> u64 {
        let net = NETS.iter().find(|n| n.name == name).unwrap();
        macs(&(net.config)()).forward / 1000
    }

    #[test]
    fn counts_are_those_that_are_published() {
        // torchvision's documentation gives 1.814, 4.089 and 17.564 billion for these three at 224 pixels.
        assert_eq!(thousands("resnet18"), 1_814_073);
        assert_eq!(thousands("resnet50"), 4_089_184);
        assert_eq!(thousands("vit_base"), 17_563_828);
        // timm's table gives 1.26 billion for ViT-Tiny, 4.61 for ViT-Small.
        assert_eq!(thousands("vit_tiny"), 1_253_683);
        assert_eq!(thousands("vit_small"), 4_598_882);
        // 41 million for the ResNet-20 of He et al.; this one's shortcuts have convolutions.
        assert_eq!(thousands("resnet20"), 40_813);
    }

    #[test]
    fn a_training_step_is_three_passes_without_the_gradient_of_the_images() {
        let macs = Macs { forward: 100, first: 10 };
        assert_eq!((macs.inference(4), macs.training(4)), (800.0, 2.0 * 4.0 * 290.0));
    }
}
