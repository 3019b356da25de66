//! The classes of pixels of a strided convolution's input, each with taps of its own.

use crate::cpu::conv2d::Dims;

/// Along one axis, the pixels of the input whose place is congruent to one number modulo the stride: the same taps see all of
/// them.
pub(super) struct Class {
    pub(super) pixels: usize,
    /// The first of their taps; the others follow a stride apart.
    pub(super) first: usize,
    pub(super) taps: usize,
}

impl Class {
    pub(super) fn of(dims: Dims, rest: usize, size: usize) -> Class {
        let Dims { kernel, stride, .. } = dims;
        let first = (rest + dims.padding.before(size, kernel, stride)) % stride;
        let taps = kernel.saturating_sub(first).div_ceil(stride);
        Class { pixels: size.saturating_sub(rest).div_ceil(stride), first, taps }
    }
}

/// Multiply-adds, twice, of the gradient of the input, of one group.
pub(super) fn input_flops(dims: Dims) -> u64 {
    let classes = |size: usize| (0..dims.stride).map(move |rest| Class::of(dims, rest, size));
    let pairs = |size: usize| classes(size).map(|class| class.pixels * class.taps).sum::<usize>();
    2 * (dims.batch * pairs(dims.height) * pairs(dims.width) * dims.in_channels * dims.out_channels) as u64
}
