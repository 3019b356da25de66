//! The shape of attention, and which shapes cooperative matrices take: what its host wrapper and the tuner share.

use crate::gpu::Gpu;

/// The widest head that `attention_cooperative.wgsl` takes: of wider ones the rows leave no room in workgroup memory.
pub(super) const WIDEST: usize = 128;
/// Workgroup memory that it may use, in bytes: WebGPU promises half of that, so not every adapter has it.
pub(super) const MEMORY: u32 = 32 << 10;

/// Shape of self-attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Sequence length.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl Dims {
    /// Elements of out.
    pub(super) fn len(self) -> usize {
        self.batch * self.tokens * self.heads * self.head_dim
    }

    /// Rows of scores.
    pub(super) fn stats(self) -> usize {
        self.batch * self.tokens * self.heads
    }

    /// Patches along a side, if the tokens are a class token and a square grid of patches.
    pub(super) fn grid(self) -> usize {
        (self.tokens - 1).isqrt()
    }

    /// Rows of a table of relative positions: one for each offset on the grid, and three for the class token.
    pub fn offsets(self) -> usize {
        (2 * self.grid()).saturating_sub(1).pow(2) + 3
    }

    /// Elements of the scores' gradients, summed up over the images.
    pub fn scores(self) -> usize {
        self.heads * self.tokens * self.tokens
    }

    /// Of so many products of queries and keys.
    pub(super) fn flops(self, products: usize) -> u64 {
        2 * (products * self.len() * self.tokens) as u64
    }
}

/// Whether cooperative matrices could compute heads of this width, in f16, on an adapter that has them.
pub fn suits_matrices(head_dim: usize) -> bool {
    head_dim.is_multiple_of(4) && head_dim <= WIDEST
}

/// Whether an adapter's workgroups have the memory for it.
pub fn has_memory(gpu: &Gpu) -> bool {
    gpu.limits.max_compute_workgroup_storage_size >= MEMORY
}
