//! Which variant of a product's kernels this adapter runs fastest, by class of product: what `ops::tune` measured, and whoever
//! records a product follows. The variants themselves are in [`tiles`](crate::gpu::tiles).

use std::collections::BTreeMap;
use std::sync::MutexGuard;

use crate::gpu::Gpu;
use crate::gpu::tiles::{Choices, Cooperative, LargeTiles, Tile, Variant};

impl Gpu {
    /// Adapter, driver and program version in one line: measurements on one say nothing of another.
    pub fn identity(&self) -> String {
        let i = &self.info;
        let checked = if self.checked { ", checked" } else { "" };
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "{}, {:?} {:04x}:{:04x}, {} {}, tpgm {version}{checked}",
            i.name, i.backend, i.vendor, i.device, i.driver, i.driver_info
        )
    }

    /// Whether this adapter has what `tile` asks for; matrices take operands of f16, besides.
    pub fn runs(&self, tile: Tile) -> bool {
        match tile {
            Tile::DirectSmall | Tile::Direct => self.has_wide_subgroups(),
            Tile::Tiled | Tile::TiledLarge => true,
            Tile::Subgroup => self.has_subgroups(),
            Tile::Cooperative => self.cooperative.is_some(),
        }
    }

    /// Whether the tuner may choose `tile`: this adapter has what it asks for, and where that is uncommon, was
    /// [allowed](Gpu::allow).
    pub fn may_choose(&self, tile: Tile) -> bool {
        let allowed = match tile {
            Tile::Subgroup => self.subgroups_allowed.get().is_some(),
            Tile::Cooperative => self.cooperative_allowed.get().is_some(),
            Tile::DirectSmall | Tile::Direct | Tile::Tiled | Tile::TiledLarge => true,
        };
        allowed && self.runs(tile)
    }

    /// How tiles of 128 × 128 do on this adapter.
    pub fn large_tiles(&self) -> LargeTiles {
        LargeTiles::of(self.info.vendor, self.info.subgroup_min_size)
    }

    /// The adapter's matrix units, where a run may use them.
    pub fn cooperative(&self) -> Option<Cooperative> {
        self.cooperative.filter(|_| self.may_choose(Tile::Cooperative))
    }

    /// The adapter's matrix units, whether a run may use them or not.
    pub fn offered_cooperative(&self) -> Option<Cooperative> {
        self.cooperative
    }

    /// Lets the tuner choose [`Tile::Subgroup`] or [`Tile::Cooperative`] from now on: after `ops::self_check`.
    pub fn allow(&self, tile: Tile) {
        match tile {
            Tile::Subgroup => self.subgroups_allowed.get_or_init(|| ()),
            Tile::Cooperative => self.cooperative_allowed.get_or_init(|| ()),
            Tile::DirectSmall | Tile::Direct | Tile::Tiled | Tile::TiledLarge => &(),
        };
    }

    /// Whether `tile` computes the right thing here, as far as anybody has compared.
    pub fn found_right(&self, tile: Tile) -> Option<bool> {
        self.found().get(&tile).copied()
    }

    /// Keeps what a comparison found.
    pub fn find_right(&self, tile: Tile, right: bool) {
        self.found().insert(tile, right);
    }

    pub(super) fn found(&self) -> MutexGuard<'_, BTreeMap<Tile, bool>> {
        self.found.lock().unwrap_or_else(|e| e.into_inner())
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

    /// Uses these choices and no others.
    pub fn replace_variants(&self, choices: Choices) {
        *self.choices.lock().unwrap_or_else(|e| e.into_inner()) = choices;
    }

    /// Adds to the choices: products that are recorded afterwards use them.
    pub fn choose_variants(&self, choices: Choices) {
        self.choices.lock().unwrap_or_else(|e| e.into_inner()).extend(choices);
    }
}
