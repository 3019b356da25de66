//! 2-D convolution without a bias, over images whose channels lie together (NHWC).
//!
//! ```text
//! out[b, y, x, o] = Σ_{i, ky, kx} inp[b, y·s − p + ky, x·s − q + kx, g·I + i] · weight[o, i, ky, kx]
//!
//! dinp[b, u, v, g·I + i] (= | +=) Σ_{o in g, ky, kx} dout[b, (u + p − ky)/s, (v + q − kx)/s, o] · weight[o, i, ky, kx]
//! dweight[o, i, ky, kx] += Σ_{b, y, x} dout[b, y, x, o] · inp[b, y·s − p + ky, x·s − q + kx, g·I + i]
//! ```
//!
//! `s` is the stride, `p` and `q` are the zeros above and to the left, `g` is the group of `o`, `I` its number of input channels. Weights are in PyTorch's
//! order `[O, I, k, k]`; pixels outside the image are zero.

use super::depthwise::Padding;
use super::{Float, check_len};

/// Shape of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Height of `inp`.
    pub height: usize,
    /// Width of `inp`.
    pub width: usize,
    /// Channels of `inp`, all groups together.
    pub in_channels: usize,
    /// Channels of `out`, all groups together.
    pub out_channels: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Zeros around the image.
    pub padding: Padding,
    /// Groups, which divide both channel counts.
    pub groups: usize,
}

impl Dims {
    /// Height of `out`: windows that fit the padded image. Panics where none does.
    pub fn out_height(self) -> usize {
        self.windows(self.height)
    }

    /// Width of `out`.
    pub fn out_width(self) -> usize {
        self.windows(self.width)
    }

    #[track_caller]
    fn windows(self, size: usize) -> usize {
        self.padding.windows(size, self.kernel, self.stride)
    }

    /// Zeros above the image, and to its left.
    pub fn before(self) -> [usize; 2] {
        [self.height, self.width].map(|size| self.padding.before(size, self.kernel, self.stride))
    }

    /// Pixels of `inp`, all images together.
    pub fn in_pixels(self) -> usize {
        self.batch * self.height * self.width
    }

    /// Pixels of `out`, all images together.
    pub fn out_pixels(self) -> usize {
        self.batch * self.out_height() * self.out_width()
    }

    /// Elements of `inp`.
    pub fn in_len(self) -> usize {
        self.in_pixels() * self.in_channels
    }

    /// Elements of `out`.
    pub fn out_len(self) -> usize {
        self.out_pixels() * self.out_channels
    }

    /// Elements of `weight`.
    pub fn weight_len(self) -> usize {
        self.out_channels * (self.in_channels / self.groups) * self.kernel * self.kernel
    }
}

/// Calls `each(out, inp, weight)` with the indices of every product of the sum.
fn products(dims: Dims, mut each: impl FnMut(usize, usize, usize)) {
    let Dims { batch, height, width, in_channels, out_channels, kernel, stride, groups, .. } = dims;
    let [above, left] = dims.before();
    assert!(in_channels % groups == 0 && out_channels % groups == 0, "conv2d: {groups} groups of {dims:?}");
    let (per_group_in, per_group_out) = (in_channels / groups, out_channels / groups);
    for b in 0..batch {
        for y in 0..dims.out_height() {
            for x in 0..dims.out_width() {
                for o in 0..out_channels {
                    for i in 0..per_group_in {
                        for ky in 0..kernel {
                            for kx in 0..kernel {
                                let (u, v) = (y * stride + ky, x * stride + kx);
                                if u < above || u >= height + above || v < left || v >= width + left {
                                    continue;
                                }
                                let channel = o / per_group_out * per_group_in + i;
                                each(
                                    ((b * dims.out_height() + y) * dims.out_width() + x) * out_channels + o,
                                    ((b * height + u - above) * width + v - left) * in_channels + channel,
                                    ((o * per_group_in + i) * kernel + ky) * kernel + kx,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Assigns `out [B, H', W', O]`; `inp [B, H, W, C]`, `weight [O, C/groups, k, k]`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], weight: &[T], dims: Dims) {
    check_len("conv2d::forward", "out", out.len(), dims.out_len());
    check_len("conv2d::forward", "inp", inp.len(), dims.in_len());
    check_len("conv2d::forward", "weight", weight.len(), dims.weight_len());
    out.fill(T::ZERO);
    products(dims, |o, i, w| out[o] += inp[i] * weight[w]);
}

/// `dinp [B, H, W, C]` is assigned, or added to with `accumulate`; `dout [B, H', W', O]`, `weight [O, C/groups, k, k]`.
pub fn backward_input<T: Float>(dinp: &mut [T], dout: &[T], weight: &[T], dims: Dims, accumulate: bool) {
    check_len("conv2d::backward_input", "dinp", dinp.len(), dims.in_len());
    check_len("conv2d::backward_input", "dout", dout.len(), dims.out_len());
    check_len("conv2d::backward_input", "weight", weight.len(), dims.weight_len());
    if !accumulate {
        dinp.fill(T::ZERO);
    }
    products(dims, |o, i, w| dinp[i] += dout[o] * weight[w]);
}

/// `dweight [O, C/groups, k, k]` is added to; `dout [B, H', W', O]`, `inp [B, H, W, C]`.
pub fn backward_weight<T: Float>(dweight: &mut [T], dout: &[T], inp: &[T], dims: Dims) {
    check_len("conv2d::backward_weight", "dweight", dweight.len(), dims.weight_len());
    check_len("conv2d::backward_weight", "dout", dout.len(), dims.out_len());
    check_len("conv2d::backward_weight", "inp", inp.len(), dims.in_len());
    products(dims, |o, i, w| dweight[w] += dout[o] * inp[i]);
}

/// Assigns `out [B, H·W, pitch]` from the first `channels` of `inp [B, planes, H·W]`: the layout that the other functions take. Channels
/// from there to `pitch` are zero.
pub fn to_nhwc<T: Float>(
    out: &mut [T],
    inp: &[T],
    batch: usize,
    [planes, channels]: [usize; 2],
    pixels: usize,
    pitch: usize,
) {
    check_len("conv2d::to_nhwc", "out", out.len(), batch * pixels * pitch);
    check_len("conv2d::to_nhwc", "inp", inp.len(), batch * planes * pixels);
    out.fill(T::ZERO);
    for b in 0..batch {
        for c in 0..channels {
            for i in 0..pixels {
                out[(b * pixels + i) * pitch + c] = inp[(b * planes + c) * pixels + i];
            }
        }
    }
}
