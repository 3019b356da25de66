//! Where in a network a tensor is, from the images on, for methods that treat layers differently.

use crate::model::network::ModelConfig;

/// A tensor's part of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Before the first block: patch embedding, tokens and positions, or the first convolutions.
    Stem,
    /// A block, counted from 0 over all stages.
    Block(usize),
    /// Behind the last block: norms, pools and projections.
    Tail,
    /// The classification head.
    Head,
}

impl ModelConfig {
    /// Blocks, over all stages.
    pub fn blocks(&self) -> usize {
        match self {
            Self::Vit(c) => c.depth,
            Self::ResNet(c) => c.stages.iter().map(Vec::len).sum(),
            Self::ConvNext(c) => c.stages.iter().map(|stage| stage.depth).sum(),
            Self::EfficientNet(c) => c.stages.iter().map(Vec::len).sum(),
            Self::ResNetV2(c) => c.stages.iter().map(Vec::len).sum(),
            Self::Vgg(c) => c.widths.len(),
        }
    }

    /// Where the parameter of this canonical name is.
    pub fn place(&self, name: &str) -> Place {
        if self.is_head(name) {
            return Place::Head;
        }
        let mut parts = name.split('.');
        let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match self {
            Self::Vit(_) => match (first, second.parse()) {
                ("blocks", Ok(block)) => Place::Block(block),
                ("cls_token" | "dist_token" | "reg_token" | "pos_embed" | "patch_embed" | "norm_pre", _) => Place::Stem,
                _ => Place::Tail,
            },
            Self::ResNet(c) => match (first.strip_prefix("layer").map(str::parse::<usize>), second.parse::<usize>()) {
                (Some(Ok(stage)), Ok(block)) => {
                    let before: usize = c.stages.iter().take(stage.saturating_sub(1)).map(Vec::len).sum();
                    Place::Block(before + block)
                }
                _ if first == "attnpool" => Place::Tail,
                _ => Place::Stem,
            },
            Self::EfficientNet(c) => match (first, second.parse::<usize>()) {
                ("conv_stem" | "bn1", _) => Place::Stem,
                ("blocks", Ok(stage)) => {
                    let before: usize = c.stages.iter().take(stage).map(Vec::len).sum();
                    Place::Block(before + parts.next().and_then(|block| block.parse::<usize>().ok()).unwrap_or(0))
                }
                _ => Place::Tail,
            },
            Self::Vgg(c) => match (first, second.parse::<usize>()) {
                ("features", Ok(0)) => Place::Stem,
                // What stands between two pools is a block.
                ("features", Ok(place)) => {
                    let step = if c.norm { 3 } else { 2 };
                    let ends = c.widths.iter().scan(0, |end, widths| {
                        *end += step * widths.len() + 1;
                        Some(*end)
                    });
                    Place::Block(ends.take_while(|end| *end <= place).count())
                }
                _ => Place::Tail,
            },
            Self::ResNetV2(c) => match (first, second.parse::<usize>()) {
                ("stem", _) => Place::Stem,
                ("stages", Ok(stage)) => {
                    let before: usize = c.stages.iter().take(stage).map(Vec::len).sum();
                    Place::Block(before + parts.nth(1).and_then(|block| block.parse::<usize>().ok()).unwrap_or(0))
                }
                _ => Place::Tail,
            },
            Self::ConvNext(c) => match (first, second.parse::<usize>()) {
                ("stem", _) => Place::Stem,
                ("stages", Ok(stage)) => {
                    let before: usize = c.stages.iter().take(stage).map(|stage| stage.depth).sum();
                    // What changes the shape belongs to the block behind it.
                    Place::Block(before + parts.nth(1).and_then(|block| block.parse::<usize>().ok()).unwrap_or(0))
                }
                _ => Place::Tail,
            },
        }
    }

    /// Layers as layer-wise rates count them: the stem is 0, the blocks follow, and what stands behind them is last.
    pub fn layer(&self, name: &str) -> usize {
        match self.place(name) {
            Place::Stem => 0,
            Place::Block(block) => block + 1,
            Place::Tail | Place::Head => self.blocks() + 1,
        }
    }
}
