//! How elementwise kernels and sums over rows are spread over invocations.

use crate::gpu::program;

/// Invocations of a workgroup of elementwise kernels.
pub(super) const WG: usize = 64;
/// Elements that a lane of an elementwise kernel takes.
pub(super) const PER_LANE: usize = 16;
/// The same on a CPU adapter, where a workgroup is [`CPU_LANES`] wide: long enough to be worth its start.
pub(super) const CPU_PER_LANE: usize = 512;
/// Lanes of a CPU's vector register.
pub(super) const CPU_LANES: usize = 8;

/// Rows that one lane adds up in the first stage of a sum over rows.
pub(super) const ROWS_PER_CHUNK: usize = 64;

/// A grid for `len` elements of an elementwise kernel.
pub(super) fn elementwise(len: usize) -> [u32; 3] {
    program::fold(len.div_ceil(WG * PER_LANE))
}
