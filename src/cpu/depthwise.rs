//! Depth-wise 2-D convolution, over images whose channels lie together (NHWC): each channel with a kernel of its own.
//!
//! ```text
//! out[b, y, x, c] = bias[c] + Σ_{ky, kx} inp[b, y·s − p + ky, x·s − q + kx, c] · weight[c, ky, kx]
//!
//! dinp[b, u, v, c] (= | +=) Σ_{ky, kx} dout[b, (u + p − ky)/s, (v + q − kx)/s, c] · weight[c, ky, kx]
//! dweight[c, ky, kx] += Σ_{b, y, x} dout[b, y, x, c] · inp[b, y·s − p + ky, x·s − q + kx, c]
//! ```
//!
//! `s` is the stride, `p` and `q` are the zeros above and to the left. Weights are in PyTorch's order `[C, 1, k, k]`. The bias's
//! gradient is a [`column_sum`](super::column_sum).

use super::{Float, check_len};

/// Zeros around an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// As many on each side.
    Even(usize),
    /// As many as give `⌈size / stride⌉` windows, an odd one below or to the right: TensorFlow's "same".
    Same,
    /// As many below and to the right as the last window reaches over the edge, none above or to the left: PyTorch's `ceil_mode`.
    Over,
}

impl Padding {
    /// Windows of `kernel` pixels along `size`, `stride` apart. Panics if none fits.
    pub fn windows(self, size: usize, kernel: usize, stride: usize) -> usize {
        match self {
            Self::Even(padding) => {
                let padded = size + 2 * padding;
                assert!(padded >= kernel, "an image of {size} pixels, padded by {padding}, under a window of {kernel}");
                (padded - kernel) / stride + 1
            }
            Self::Same => size.div_ceil(stride),
            // The last window begins inside.
            Self::Over => (size.saturating_sub(kernel).div_ceil(stride) + 1).min(size.div_ceil(stride)),
        }
    }

    /// Zeros before the first of `size` pixels.
    pub fn before(self, size: usize, kernel: usize, stride: usize) -> usize {
        match self {
            Self::Even(padding) => padding,
            Self::Over => 0,
            Self::Same => ((size.div_ceil(stride) - 1) * stride + kernel).saturating_sub(size) / 2,
        }
    }
}

/// Shape of a depth-wise convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Height of `inp`.
    pub height: usize,
    /// Width of `inp`.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// Height and width of the kernels.
    pub kernel: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Zeros around the image.
    pub padding: Padding,
}

impl Dims {
    /// Height of `out`. Panics if no window fits.
    pub fn out_height(self) -> usize {
        self.padding.windows(self.height, self.kernel, self.stride)
    }

    /// Width of `out`. Panics if no window fits.
    pub fn out_width(self) -> usize {
        self.padding.windows(self.width, self.kernel, self.stride)
    }

    /// Zeros above an image, and to its left.
    pub fn before(self) -> [usize; 2] {
        [self.height, self.width].map(|size| self.padding.before(size, self.kernel, self.stride))
    }

    /// Elements of `inp`.
    pub fn in_len(self) -> usize {
        self.batch * self.height * self.width * self.channels
    }

    /// Elements of `out`.
    pub fn out_len(self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.channels
    }

    /// Elements of `weight`.
    pub fn weight_len(self) -> usize {
        self.channels * self.kernel * self.kernel
    }
}

/// Calls `each(out, inp, weight)` with the indices of every product of the sum.
fn products(dims: Dims, mut each: impl FnMut(usize, usize, usize)) {
    let Dims { batch, height, width, channels, kernel, stride, .. } = dims;
    let [above, left] = dims.before();
    for b in 0..batch {
        for y in 0..dims.out_height() {
            for x in 0..dims.out_width() {
                for ky in 0..kernel {
                    for kx in 0..kernel {
                        let (u, v) = (y * stride + ky, x * stride + kx);
                        if u < above || u >= height + above || v < left || v >= width + left {
                            continue;
                        }
                        for c in 0..channels {
                            each(
                                ((b * dims.out_height() + y) * dims.out_width() + x) * channels + c,
                                ((b * height + u - above) * width + v - left) * channels + c,
                                (c * kernel + ky) * kernel + kx,
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Assigns `out [B, H', W', C]`; `inp [B, H, W, C]`, `weight [C, 1, k, k]`, `bias [C]`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], weight: &[T], bias: Option<&[T]>, dims: Dims) {
    check_len("depthwise::forward", "out", out.len(), dims.out_len());
    check_len("depthwise::forward", "inp", inp.len(), dims.in_len());
    check_len("depthwise::forward", "weight", weight.len(), dims.weight_len());
    for (i, out) in out.iter_mut().enumerate() {
        *out = bias.map_or(T::ZERO, |bias| bias[i % dims.channels]);
    }
    products(dims, |o, i, w| out[o] += inp[i] * weight[w]);
}

/// `dinp [B, H, W, C]` is assigned, or added to with `accumulate`; `dout [B, H', W', C]`, `weight [C, 1, k, k]`.
pub fn backward_input<T: Float>(dinp: &mut [T], dout: &[T], weight: &[T], dims: Dims, accumulate: bool) {
    check_len("depthwise::backward_input", "dinp", dinp.len(), dims.in_len());
    check_len("depthwise::backward_input", "dout", dout.len(), dims.out_len());
    check_len("depthwise::backward_input", "weight", weight.len(), dims.weight_len());
    if !accumulate {
        dinp.fill(T::ZERO);
    }
    products(dims, |o, i, w| dinp[i] += dout[o] * weight[w]);
}

/// `dweight [C, 1, k, k]` is added to; `dout [B, H', W', C]`, `inp [B, H, W, C]`.
pub fn backward_weight<T: Float>(dweight: &mut [T], dout: &[T], inp: &[T], dims: Dims) {
    check_len("depthwise::backward_weight", "dweight", dweight.len(), dims.weight_len());
    check_len("depthwise::backward_weight", "dout", dout.len(), dims.out_len());
    check_len("depthwise::backward_weight", "inp", inp.len(), dims.in_len());
    products(dims, |o, i, w| dweight[w] += dout[o] * inp[i]);
}
