//! Whether an adapter's less common ways compute what the ordinary kernels do: a driver's mistake there must not spoil a run.
//!
//! That a class of products gets no wrong kernel is the tuner's care, which compares on each class's own shapes. This here is
//! harder, since a run meets more than the tuner does: edges, sums of thousands of terms in as many workgroups as keep the whole
//! adapter busy, all of it more than once, and every run must leave the same bits.

use crate::gpu::Gpu;
use crate::gpu::buffer::Element;
use crate::gpu::tiles::{Tile, Variant};
use crate::ops::attention::{self, Mask};
use crate::ops::conv2d::{Dims, Padding};
use crate::ops::product::{Pass, Product};
use crate::ops::trial::{Trial, Way, compute};

const PASSES: [Pass; 3] = [Pass::Forward, Pass::BackwardInput, Pass::BackwardWeight];

/// Rows, outputs and inputs of the layers that are compared: whole tiles, edges, a sum that is shared, and, in f32, widths
/// that are no multiples of 4.
const LAYERS: [[usize; 3]; 4] = [[64, 64, 64], [70, 36, 100], [600, 68, 20], [70, 37, 101]];

/// Batch, tokens, heads and width of a head of the attention that is compared, forward and backward: edges, a head in two
/// slices, and as many workgroups as keep the adapter busy.
const ATTENTION: [[[usize; 4]; 4]; 2] = [
    [[1, 70, 3, 20], [2, 33, 1, 64], [1, 65, 2, 80], [1, 197, 3, 64]],
    [[1, 70, 3, 20], [2, 33, 1, 64], [1, 65, 2, 80], [16, 197, 12, 64]],
];

/// The same of attention with a mask.
const MASKED: [usize; 4] = [3, 70, 2, 64];

/// Terms of the long sums: an MLP's of a ViT-Base.
const LONG: usize = 3072;
/// Rows and columns that are summed up so, a multiple of no tile: some 70 workgroups on a CPU, over 1,000 on a GPU.
const MANY: [[usize; 2]; 2] = [[260, 268], [2060, 2076]];

/// Lets the tuner choose cooperative matrices on `gpu` if it has them and they are right in all products. Returns whether it
/// may now; false, too, if the driver can't compile or run them.
pub fn allow_cooperative(gpu: &Gpu) -> bool {
    gpu.offered_cooperative().is_some() && allow(gpu, Tile::Cooperative, Element::Half)
}

/// The same for products through the registers of a subgroup, whose lanes are taken to be those of the workgroup in order.
pub fn allow_subgroups(gpu: &Gpu) -> bool {
    gpu.has_subgroups() && allow(gpu, Tile::Subgroup, Element::Word)
}

fn allow(gpu: &Gpu, tile: Tile, element: Element) -> bool {
    // Compared once for an adapter, driver and program version.
    let right = gpu.found_right(tile).unwrap_or_else(|| {
        let right =
            compare(gpu, tile, element, &compute).map_err(|what| tracing::warn!("{tile:?} is not used: {what}"));
        gpu.find_right(tile, right.is_ok());
        right.is_ok()
    });
    if right {
        gpu.allow(tile);
    }
    right
}

/// Compares `tile` with the [reference](Product::reference) in all products of layers and convolutions, recorded in this `way`.
///
/// # Errors
/// The first fault, if there is any.
pub fn compare(gpu: &Gpu, tile: Tile, element: Element, way: Way) -> Result<(), String> {
    for product in products(gpu, element) {
        if matches!(product, Product::Attention { .. }) && !attention::has_memory(gpu) {
            continue;
        }
        // A sum over many rows is shared, too.
        let split = if product.pass() == Pass::BackwardWeight && product.terms() > 512 { 2 } else { 1 };
        let fault = Trial::new(gpu, product, product, way).and_then(|mut trial| trial.fault(Variant { tile, split }));
        match fault {
            Ok(None) => {}
            Ok(Some(what)) => return Err(format!("{} on {}: {what}", product.class(), gpu.info.name)),
            Err(e) => return Err(e.to_string()),
        }
    }
    Ok(())
}

fn products(gpu: &Gpu, element: Element) -> Vec<Product> {
    let suited = LAYERS.into_iter().filter(|[_, n, k]| element == Element::Word || (n % 4, k % 4) == (0, 0));
    let layers = suited.flat_map(|shape| PASSES.map(|pass| (pass, shape)));
    let [rows, cols] = MANY[usize::from(!gpu.is_cpu())];
    let long = [
        (Pass::Forward, [rows, cols, LONG]),
        (Pass::BackwardInput, [rows, LONG, cols]),
        (Pass::BackwardWeight, [LONG, rows, cols]),
    ];
    let linear = |(pass, [rows, out, inp]): (Pass, [usize; 3])| Product::Linear { pass, rows, out, inp, element };
    let conv = |size, channels: [usize; 2], kernel, stride| Dims {
        batch: 3,
        height: size,
        width: size + 1,
        in_channels: channels[0],
        out_channels: channels[1],
        kernel,
        stride,
        padding: Padding::Even(kernel / 2),
        groups: 1,
    };
    // The second has long sums forward and backward, the third over its pixels.
    let size = if gpu.is_cpu() { 6 } else { 40 };
    let dims = [conv(9, [20, 36], 3, 2), conv(size, [344, 348], 3, 1), conv(57, [8, 12], 7, 2)];
    let convs = dims.into_iter().flat_map(|dims| PASSES.map(|pass| Product::Conv2d { pass, dims, element }));
    let of_attention = |([batch, tokens, heads, head_dim], mask): ([usize; 4], Mask)| {
        let dims = attention::Dims { batch, tokens, heads, head_dim };
        [Pass::Forward, Pass::BackwardInput].map(|pass| Product::Attention { pass, dims, element, mask })
    };
    let masked = (MASKED, Mask { causal: true, padded: true });
    let unmasked = ATTENTION[usize::from(!gpu.is_cpu())].map(|shape| (shape, Mask::default()));
    // Of attention by itself there are variants in f16 alone.
    let attention = unmasked.into_iter().chain([masked]).filter(|_| element == Element::Half);
    layers.chain(long).map(linear).chain(convs).chain(attention.flat_map(of_attention)).collect()
}
