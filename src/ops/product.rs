//! Matrix products, convolutions and attention as the tuner sees them: their rows, columns and terms, the class of shapes that one
//! choice serves, and the variants that come into question.

use crate::cpu::conv2d;
use crate::gpu::Gpu;
use crate::gpu::buffer::Element;
use crate::gpu::tiles::{LargeTiles, Tile, Variant};
use crate::ops::attention_tails::Mask;
use crate::ops::{attention_dims, conv_classes};

/// Which of a layer's three products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The layer's output.
    Forward,
    /// The gradient of its input.
    BackwardInput,
    /// The gradient of its weight.
    BackwardWeight,
}

/// A product of known shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Of a linear layer.
    Linear {
        /// Which of its products.
        pass: Pass,
        /// Rows of its input.
        rows: usize,
        /// Columns of its output.
        out: usize,
        /// Columns of its input.
        inp: usize,
        /// What its operands hold.
        element: Element,
    },
    /// Of a convolution of one group.
    Conv2d {
        /// Which of its products.
        pass: Pass,
        /// Its shape; channels as they are stored.
        dims: conv2d::Dims,
        /// What its images hold.
        element: Element,
    },
    /// Attention, forward or backward as a whole.
    Attention {
        /// [`Pass::Forward`], or [`Pass::BackwardInput`].
        pass: Pass,
        /// Its shape.
        dims: attention_dims::Dims,
        /// What its tensors hold.
        element: Element,
        /// Which keys are hidden.
        mask: Mask,
    },
}

/// Terms of a sum that a workgroup adds up at least: partial sums cost a store and a load each.
const MIN_CHUNK: usize = 512;
/// Workgroups that keep an adapter busy: a CPU, a GPU.
const BUSY: [usize; 2] = [64, 512];
/// From this many tiles on, the large ones fill a GPU.
const MANY_TILES: usize = 128;

impl Product {
    /// Which of its layer's products it is.
    pub fn pass(self) -> Pass {
        match self {
            Product::Linear { pass, .. } | Product::Conv2d { pass, .. } | Product::Attention { pass, .. } => pass,
        }
    }

    /// What its operands hold.
    pub fn element(self) -> Element {
        match self {
            Product::Linear { element, .. } | Product::Conv2d { element, .. } | Product::Attention { element, .. } => {
                element
            }
        }
    }

    /// Terms of each of its sums.
    pub fn terms(self) -> usize {
        self.shape()[2]
    }

    /// Rows and columns of the result, and terms of each sum.
    fn shape(self) -> [usize; 3] {
        match self {
            Product::Attention { dims, .. } => [dims.stats(), dims.head_dim, dims.tokens.max(dims.head_dim)],
            Product::Linear { pass, rows, out, inp, .. } => match pass {
                Pass::Forward => [rows, out, inp],
                Pass::BackwardInput => [rows, inp, out],
                Pass::BackwardWeight => [out, inp, rows],
            },
            Product::Conv2d { pass, dims, .. } => {
                let taps = dims.kernel * dims.kernel;
                match pass {
                    Pass::Forward => [dims.out_pixels(), dims.out_channels, taps * dims.in_channels],
                    // Each class of pixels is a product of its own, over its share of the taps.
                    Pass::BackwardInput => {
                        let classes = dims.stride * dims.stride;
                        let terms = taps.div_ceil(classes) * dims.out_channels;
                        [dims.in_pixels().div_ceil(classes), dims.in_channels, terms]
                    }
                    Pass::BackwardWeight => [taps * dims.in_channels, dims.out_channels, dims.out_pixels()],
                }
            }
        }
    }

    /// Multiply-adds, twice.
    pub fn flops(self) -> f64 {
        match self {
            Product::Attention { pass, dims, .. } => dims.flops(if pass == Pass::Forward { 2 } else { 7 }) as f64,
            Product::Conv2d { pass: Pass::BackwardInput, dims, .. } => conv_classes::input_flops(dims) as f64,
            _ => 2.0 * self.shape().into_iter().map(|n| n as f64).product::<f64>(),
        }
    }

    /// The class whose choice it shares: rows count by powers of two, so that a last partial batch needs no tuning.
    pub fn class(self) -> String {
        let half = |element: Element| if element == Element::Half { ", f16" } else { "" };
        match self {
            Product::Attention { pass, dims: attention_dims::Dims { tokens, head_dim, .. }, element, mask } => {
                let pass = if pass == Pass::Forward { "forward" } else { "backward" };
                let causal = if mask.causal { ", causal" } else { "" };
                let padded = if mask.padded { ", padded" } else { "" };
                format!("attention::{pass}, {tokens} tokens, heads of {head_dim}{causal}{padded}{}", half(element))
            }
            Product::Linear { pass, rows, out, inp, element } => {
                let half = half(element);
                format!("matmul::{}, {} rows, {inp} to {out}{half}", pass.entry(), rows.next_power_of_two())
            }
            Product::Conv2d { pass, dims, element } => {
                let conv2d::Dims { kernel, stride, in_channels, out_channels, .. } = dims;
                let (pixels, pass) = (dims.out_pixels().next_power_of_two(), pass.entry());
                let half = half(element);
                format!(
                    "conv2d::{pass}, {pixels} pixels, {in_channels} to {out_channels}, {kernel}×{kernel}/{stride}{half}"
                )
            }
        }
    }

    /// Whether cooperative matrices could compute it: a product of f16 whose widths are multiples of 4.
    pub fn suits_matrices(self) -> bool {
        let fits = match self {
            Product::Linear { out, inp, .. } => out.is_multiple_of(4) && inp.is_multiple_of(4),
            Product::Conv2d { dims, .. } => dims.out_channels.is_multiple_of(4) && dims.in_channels.is_multiple_of(4),
            Product::Attention { dims, .. } => attention_dims::suits_matrices(dims.head_dim),
        };
        self.element() == Element::Half && fits
    }

    /// Rows and columns of out that one workgroup of `tile` has; of matrices, about: what they have exactly is
    /// [`Cooperative::tile`](crate::gpu::tiles::Cooperative::tile).
    pub fn tile_size(self, tile: Tile) -> [usize; 2] {
        match (tile, self) {
            (Tile::DirectSmall, Product::Linear { .. }) => [32, 32],
            (Tile::Direct, _) => [64, 32],
            (Tile::DirectSmall, Product::Conv2d { .. }) => [64, 16],
            (Tile::DirectSmall, Product::Attention { .. }) => [64, 32],
            (Tile::Tiled | Tile::TiledLarge | Tile::Subgroup | Tile::Cooperative, _) => [tile.side(), tile.side()],
        }
    }

    fn tiles(self, tile: Tile) -> usize {
        let [m, n, _] = self.shape();
        let [rows, cols] = self.tile_size(tile);
        m.div_ceil(rows) * n.div_ceil(cols)
    }

    /// A tile with as many workgroups to a sum as keep the adapter busy.
    fn with_split(self, tile: Tile) -> Variant {
        let busy = BUSY[usize::from(!tile.is_direct())] / self.tiles(tile);
        let most = self.shape()[2] / MIN_CHUNK;
        let split = if self.pass() == Pass::BackwardWeight { busy.min(most).max(1) } else { 1 };
        Variant { tile, split }
    }

    /// The variant taken on `gpu` where nothing was measured. `direct` says whether `*_direct.wgsl` come into question.
    pub fn default_variant(self, gpu: &Gpu, direct: bool) -> Variant {
        let tile = match (direct, self) {
            (direct, Product::Attention { .. }) => {
                if direct {
                    Tile::Direct
                } else {
                    Tile::Tiled
                }
            }
            (true, Product::Linear { .. }) => {
                // A tall tile is faster where it divides the rows, and wasteful where they barely pass a multiple of it.
                let rows = self.shape()[0];
                if rows.is_multiple_of(64) || rows > 512 { Tile::Direct } else { Tile::DirectSmall }
            }
            (true, Product::Conv2d { .. }) => {
                let channels = self.shape()[1];
                if channels <= 16 || channels == 48 { Tile::DirectSmall } else { Tile::Direct }
            }
            (false, _) if gpu.large_tiles() == LargeTiles::Fit && self.tiles(Tile::TiledLarge) >= MANY_TILES => {
                Tile::TiledLarge
            }
            (false, _) => Tile::Tiled,
        };
        self.with_split(tile)
    }

    /// The plainest variant on `gpu`, which is always right if any is: what the others are held against.
    pub fn reference(self, gpu: &Gpu) -> Variant {
        let direct = gpu.is_cpu() && gpu.has_wide_subgroups();
        Variant { tile: if direct { Tile::Direct } else { Tile::Tiled }, split: 1 }
    }

    /// The variants that are worth measuring on `gpu`, each once.
    pub fn candidates(self, gpu: &Gpu) -> Vec<Variant> {
        let direct = gpu.is_cpu() && gpu.has_wide_subgroups();
        let matrices = gpu.cooperative().filter(|_| self.suits_matrices()).map(|_| Tile::Cooperative);
        if let Product::Attention { .. } = self {
            let matrices = matrices.filter(|_| attention_dims::has_memory(gpu)).map(|tile| Variant { tile, split: 1 });
            return std::iter::once(self.reference(gpu)).chain(matrices).collect();
        }
        let fits = |tile: Tile| tile != Tile::TiledLarge || gpu.large_tiles() != LargeTiles::Spill;
        let plain = Tile::ALL.into_iter().filter(|t| t.is_direct() == direct && gpu.may_choose(*t) && fits(*t));
        let mut found: Vec<Variant> = Vec::new();
        for tile in plain.chain(matrices) {
            let natural = self.with_split(tile);
            let splits = if natural.split == 1 { vec![1] } else { vec![1, natural.split.div_ceil(2), natural.split] };
            for split in splits {
                let variant = Variant { tile, split };
                if !found.contains(&variant) {
                    found.push(variant);
                }
            }
        }
        found
    }

    /// The most workgroups that any variant lets share a sum.
    pub fn largest_split(self) -> usize {
        Tile::ALL.into_iter().map(|tile| self.with_split(tile).split).max().unwrap_or(1)
    }
}

impl Pass {
    /// The entry point's name.
    pub fn entry(self) -> &'static str {
        match self {
            Pass::Forward => "forward",
            Pass::BackwardInput => "backward_input",
            Pass::BackwardWeight => "backward_weight",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_of_an_input_has_the_multiply_adds_of_its_classes() {
        let flops = |height, kernel, stride, padding| {
            let dims = conv2d::Dims {
                batch: 3,
                height,
                width: height,
                in_channels: 8,
                out_channels: 12,
                kernel,
                stride,
                padding: crate::cpu::depthwise::Padding::Even(padding),
                groups: 1,
            };
            Product::Conv2d { pass: Pass::BackwardInput, dims, element: Element::Word }.flops()
                / (2.0 * 3.0 * 8.0 * 12.0)
        };
        // Pixels of the input times taps that see them, those that fall outside the output included.
        assert_eq!(flops(8, 1, 1, 0), 64.0);
        // One pixel of each two by two is seen.
        assert_eq!(flops(8, 1, 2, 0), 16.0);
        assert_eq!(flops(9, 1, 2, 0), 25.0);
        assert_eq!(flops(8, 3, 1, 1), 64.0 * 9.0);
        // Along an axis, even pixels have one tap and odd ones two.
        assert_eq!(flops(8, 3, 2, 1), 12.0 * 12.0);
    }
}
