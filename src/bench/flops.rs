//! How much work a model is, counted from its tape.
//!
//! Counted are the multiply-adds of linear layers, convolutions and attention's two products, two operations each, as
//! papers do; norms, activations, the loss and the optimiser are left out, so that a share of the peak is a lower bound.
//! A backward pass is two products of the same size for each of the forward pass: the gradient of the input and that of
//! the weight (of attention, that of both factors). The first layer needs no gradient of its input, the images.

use crate::model::{ModelConfig, Precision, Tape};

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
    let (tape, _) = Tape::of(config, 1, Precision::F32);
    let layers: Vec<u64> = tape.macs().map(|macs| macs as u64).collect();
    Macs { forward: layers.iter().sum(), first: layers[0] }
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
