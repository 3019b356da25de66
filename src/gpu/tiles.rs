//! Ways to compute a product: how it is tiled, by what units of an adapter, and how many workgroups share a sum.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// `*_subgroup.wgsl`, 64 × 64, through the registers of a subgroup, where the adapter has such.
    Subgroup,
    /// By cooperative matrices, for f16 operands where [`Gpu::cooperative`](crate::gpu::Gpu::cooperative) has them.
    Cooperative,
}

/// The matrix units of an adapter: what `*_cooperative.wgsl` are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooperative {
    /// Rows, columns and terms of a product of matrices, each 8 or 16.
    pub shape: [usize; 3],
    /// Invocations of a subgroup, which work on a matrix together: the fewest and the most.
    pub subgroup: [usize; 2],
}

/// Invocations of a workgroup, at most.
const LANES: usize = 128;

impl Cooperative {
    /// The matrix units that there are: NVIDIA's, AMD's, Apple's, Mesa's on a CPU, Intel's of Xe2 and of DG2.
    pub const KNOWN: [Cooperative; 6] = [
        Cooperative { shape: [16; 3], subgroup: [32, 32] },
        Cooperative { shape: [16; 3], subgroup: [32, 64] },
        Cooperative { shape: [8; 3], subgroup: [32, 32] },
        Cooperative { shape: [8; 3], subgroup: [8, 8] },
        Cooperative { shape: [8, 16, 16], subgroup: [16, 32] },
        Cooperative { shape: [8, 8, 16], subgroup: [8, 32] },
    ];

    /// Of those that `adapter` offers the largest whose operands are f16 and whose sums are f32; none if it has no such, no
    /// f16, or subgroups that are too large.
    pub fn of(adapter: &wgpu::Adapter) -> Option<Cooperative> {
        use wgpu::{CooperativeScalarType, Features};
        let needed = Features::EXPERIMENTAL_COOPERATIVE_MATRIX | Features::SHADER_F16 | Features::SUBGROUP;
        let info = adapter.get_info();
        let subgroup = [info.subgroup_min_size as usize, info.subgroup_max_size as usize];
        if !adapter.features().contains(needed) || subgroup[0] < 8 || subgroup[1] > 64 {
            return None;
        }
        let offered = adapter
            .cooperative_matrix_properties()
            .into_iter()
            .filter(|p| (p.ab_type, p.cr_type) == (CooperativeScalarType::F16, CooperativeScalarType::F32));
        let shapes = offered.map(|p| [p.m_size, p.n_size, p.k_size].map(|n| n as usize));
        let shape = shapes
            .filter(|shape| shape.iter().all(|n| [8, 16].contains(n)))
            .max_by_key(|s| s.iter().product::<usize>())?;
        Some(Cooperative { shape, subgroup })
    }

    /// Invocations of a workgroup.
    fn lanes(self) -> usize {
        LANES.min(4 * self.subgroup[1])
    }

    /// Rows and columns of out that a workgroup has: 2 × 2 blocks of 2 × 2 matrices.
    pub fn tile(self) -> [usize; 2] {
        [4 * self.shape[0], 4 * self.shape[1]]
    }

    /// Blocks that a subgroup takes, at most: of the largest subgroups there are fewest.
    fn rounds(self) -> usize {
        (4 * self.subgroup[1]).div_ceil(self.lanes())
    }

    /// The text appended to the shader of a product, the types of operands and result aside.
    pub fn text(self) -> String {
        let [rows, cols] = self.tile();
        let rounds = self.rounds();
        format!("{}const ROWS = {rows}u;\nconst COLS = {cols}u;\nconst ROUNDS = {rounds}u;\n", self.matrices())
    }

    /// The shape and the types of matrices, and how many lanes a workgroup has.
    ///
    /// WGSL has names for square matrices alone: [`parse`](crate::gpu::kernel::parse) gives the types the shape that the
    /// constants tell.
    pub fn matrices(self) -> String {
        let [m, n, k] = self.shape;
        let square = if self.shape == [16; 3] { "coop_mat16x16" } else { "coop_mat8x8" };
        let roles = [("a", "f16", "A"), ("b", "f16", "B"), ("c", "f32", "C")];
        let matrices = roles.map(|(name, scalar, role)| format!("alias mat_{name} = {square}<{scalar}, {role}>;\n"));
        format!(
            "const CM = {m}u;\nconst CN = {n}u;\nconst CK = {k}u;\nconst LANES = {}u;\n{}",
            self.lanes(),
            matrices.concat()
        )
    }
}

impl Tile {
    /// All of them that ask nothing of an adapter but subgroups.
    pub const ALL: [Tile; 5] = [Tile::DirectSmall, Tile::Direct, Tile::Tiled, Tile::TiledLarge, Tile::Subgroup];

    /// Whether it is one of `*_direct.wgsl`, which needs [`Gpu::has_wide_subgroups`](crate::gpu::Gpu::has_wide_subgroups).
    pub fn is_direct(self) -> bool {
        matches!(self, Tile::DirectSmall | Tile::Direct)
    }

    /// Rows and columns of a tile for GPUs.
    pub fn side(self) -> usize {
        if self == Tile::TiledLarge { 128 } else { 64 }
    }
}

/// What an adapter's compiler makes of tiles of 128 × 128, by which a thread has 64 sums in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LargeTiles {
    /// They spill: Intel's threads have too few registers.
    Spill,
    /// They leave one or two waves to hide latencies, so they have to show that they are faster: AMD's GCN, whose subgroups
    /// are 64 wide and nothing else.
    Crowd,
    /// They fit.
    Fit,
}

impl LargeTiles {
    /// By an adapter's vendor (of PCI) and its smallest subgroup.
    pub fn of(vendor: u32, smallest_subgroup: u32) -> LargeTiles {
        const INTEL: u32 = 0x8086;
        const AMD: u32 = 0x1002;
        match (vendor, smallest_subgroup) {
            (INTEL, _) => LargeTiles::Spill,
            (AMD, 64) => LargeTiles::Crowd,
            _ => LargeTiles::Fit,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_tiles_are_not_for_every_chip() {
        // Battlemage; Vega 10; Navi 31; Ampere; lavapipe.
        let chips = [(0x8086, 16), (0x1002, 64), (0x1002, 32), (0x10de, 32), (0x10005, 8)];
        let found = chips.map(|(vendor, smallest)| LargeTiles::of(vendor, smallest));
        assert_eq!(found, [LargeTiles::Spill, LargeTiles::Crowd, LargeTiles::Fit, LargeTiles::Fit, LargeTiles::Fit]);
    }

    #[test]
    fn subgroups_of_any_size_share_out_the_matrices_of_a_workgroup() {
        for (shape, subgroup, rounds, tile) in [
            ([16; 3], [32, 32], 1, [64, 64]),
            ([16; 3], [32, 64], 2, [64, 64]),
            ([8; 3], [8, 8], 1, [32, 32]),
            ([8, 16, 16], [16, 32], 1, [32, 64]),
            ([8, 8, 16], [8, 32], 1, [32, 32]),
        ] {
            let matrices = Cooperative { shape, subgroup };
            assert_eq!((matrices.rounds(), matrices.tile()), (rounds, tile), "{matrices:?}");
            assert!(rounds * (matrices.lanes() / subgroup[1]) >= 4, "{matrices:?}: blocks are left over");
        }
    }
}
