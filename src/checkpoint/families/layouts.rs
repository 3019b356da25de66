//! What libraries call the tensors of networks that several of them have: for those who write a model for another library than the one
//! that it comes from.

use super::names::{Table, in_file};
use super::{convnext, resnet, transformers, transformers_vit};

/// A library's names for a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// transformers' `ViTForImageClassification`; query, key and value are tensors of their own.
    TransformersVit,
    /// transformers' `Dinov2ForImageClassification`, and the same with registers.
    TransformersDinov2 {
        /// Whether there are registers.
        registers: bool,
    },
    /// transformers' `ResNetForImageClassification`.
    TransformersResNet,
    /// transformers' `ConvNextForImageClassification`, and that of V2.
    TransformersConvNext {
        /// Whether responses are normalised.
        v2: bool,
    },
    /// torchvision's `ConvNeXt`.
    TorchvisionConvNext,
}

impl Layout {
    fn table(self) -> (&'static str, &'static Table) {
        match self {
            Self::TransformersVit => ("vit.", transformers_vit::NAMES),
            Self::TransformersDinov2 { registers: false } => ("dinov2.", transformers::NAMES),
            Self::TransformersDinov2 { registers: true } => ("dinov2_with_registers.", transformers::NAMES),
            Self::TransformersResNet => ("resnet.", resnet::NAMES),
            Self::TransformersConvNext { v2: false } => ("convnext.", convnext::TRANSFORMERS_NAMES),
            Self::TransformersConvNext { v2: true } => ("convnextv2.", convnext::TRANSFORMERS_NAMES),
            Self::TorchvisionConvNext => ("", convnext::TORCHVISION_NAMES),
        }
    }

    /// The library's name for a tensor that has this canonical one; nothing if it has no such tensor.
    pub fn name(self, canonical: &str) -> Option<String> {
        let (base, table) = self.table();
        let (name, outside) = in_file(table, canonical)?;
        Some(if outside { name } else { format!("{base}{name}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_libraries_own() {
        for (layout, ours, theirs) in [
            (Layout::TransformersVit, "blocks.3.attn.q.weight", "vit.encoder.layer.3.attention.attention.query.weight"),
            (Layout::TransformersVit, "head.bias", "classifier.bias"),
            (
                Layout::TransformersDinov2 { registers: true },
                "reg_token",
                "dinov2_with_registers.embeddings.register_tokens",
            ),
            (
                Layout::TransformersDinov2 { registers: false },
                "blocks.0.ls1.gamma",
                "dinov2.encoder.layer.0.layer_scale1.lambda1",
            ),
            (
                Layout::TransformersResNet,
                "layer2.0.bn1.running_mean",
                "resnet.encoder.stages.1.layers.0.layer.0.normalization.running_mean",
            ),
            (Layout::TransformersResNet, "fc.weight", "classifier.1.weight"),
            (
                Layout::TransformersConvNext { v2: true },
                "stages.1.blocks.0.mlp.grn.weight",
                "convnextv2.encoder.stages.1.layers.0.grn.weight",
            ),
            (Layout::TorchvisionConvNext, "head.fc.weight", "classifier.2.weight"),
        ] {
            assert_eq!(layout.name(ours).as_deref(), Some(theirs));
        }
        assert_eq!(Layout::TransformersResNet.name("layer1.0.se.fc1.weight"), None);
    }
}
