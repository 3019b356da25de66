//! Which variant of a product's kernels this adapter runs fastest, by class of product: what `ops::tune` measured, and
//! whoever records a product goes by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::gpu::Gpu;

/// How a product is tiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tile {
    /// `*_direct.wgsl`, for CPU adapters: the smaller of its two register tiles.
    DirectSmall,
    /// `*_direct.wgsl`, the larger one.
    Direct,
    /// Through workgroup memory, 64 × 64.
    Tiled,
    /// Through workgroup memory, 128 × 128.
    TiledLarge,
}

impl Tile {
    /// All of them.
    pub const ALL: [Tile; 4] = [Tile::DirectSmall, Tile::Direct, Tile::Tiled, Tile::TiledLarge];

    /// Whether it is one of `*_direct.wgsl`, which needs [`Gpu::has_wide_subgroups`].
    pub fn is_direct(self) -> bool {
        matches!(self, Tile::DirectSmall | Tile::Direct)
    }

    /// Rows and columns of a tile through workgroup memory.
    pub fn side(self) -> usize {
        if self == Tile::TiledLarge { 128 } else { 64 }
    }
}

/// A way to compute a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Variant {
    /// Its kernel's tile.
    pub tile: Tile,
    /// Workgroups that share a sum over many rows (a weight's gradient): partial sums, which one more pass adds up.
    pub split: usize,
}

/// Variants by class of product, as in `matmul::forward, 1024 rows, 192 to 768`.
pub type Choices = BTreeMap<String, Variant>;

impl Gpu {
    /// Adapter, driver and program version in one line: what is measured on one says nothing of another.
    pub fn identity(&self) -> String {
        let i = &self.info;
        let checked = if self.checked { ", checked" } else { "" };
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "{}, {:?} {:04x}:{:04x}, {} {}, tpgm {version}{checked}",
            i.name, i.backend, i.vendor, i.device, i.driver, i.driver_info
        )
    }

    /// The choice for a class of products, if there is one.
    pub fn chosen(&self, class: &str) -> Option<Variant> {
        self.choices.lock().unwrap_or_else(|e| e.into_inner()).get(class).copied()
    }

    /// All choices made so far.
    pub fn choices(&self) -> Choices {
        self.choices.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Computes every product in this variant from now on, where the adapter can run it, and all else by the kernels that
    /// go with it: how the tests go through the variants with whole models.
    pub fn force_variant(&self, variant: Option<Variant>) {
        *self.forced.lock().unwrap_or_else(|e| e.into_inner()) = variant;
    }

    /// What [`Gpu::force_variant`] was given last.
    pub fn forced_variant(&self) -> Option<Variant> {
        *self.forced.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Goes by these choices and no others.
    pub fn replace_variants(&self, choices: Choices) {
        *self.choices.lock().unwrap_or_else(|e| e.into_inner()) = choices;
    }

    /// Adds to the choices: products that are recorded afterwards go by them.
    pub fn choose_variants(&self, choices: Choices) {
        self.choices.lock().unwrap_or_else(|e| e.into_inner()).extend(choices);
    }
}
