//! The windows of an image whose channels lie together (NHWC), a row each: PyTorch's `nn.Unfold`. A convolution is a linear layer
//! over them.
//!
//! ```text
//! out[b, y, x, c·k² + ky·k + kx] = inp[b, y·s − p + ky, x·s − p + kx, c], zero outside the image
//! dinp[b, u, v, c] (= | +=) Σ_{ky, kx} dout[b, (u + p − ky)/s, (v + p − kx)/s, c·k² + ky·k + kx]
//! ```

use super::depthwise::Padding;
use super::{Float, check_len};

/// Shape of an unfolding.
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
    /// Height and width of a window.
    pub kernel: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Zeros around the image.
    pub padding: Padding,
}

impl Dims {
    /// Height of `out`. Panics if no window fits.
    pub fn out_height(self) -> usize {
        self.windows(self.height)
    }

    /// Width of `out`. Panics if no window fits.
    pub fn out_width(self) -> usize {
        self.windows(self.width)
    }

    fn windows(self, size: usize) -> usize {
        self.padding.windows(size, self.kernel, self.stride)
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
        self.batch * self.out_height() * self.out_width() * self.channels * self.kernel * self.kernel
    }
}

/// Calls `each` with the index of an element of `out` and that of `inp`, if it is inside.
fn elements(dims: Dims, mut each: impl FnMut(usize, Option<usize>)) {
    let Dims { batch, height, width, channels, kernel, stride, .. } = dims;
    let [above, left] = dims.before();
    let mut to = 0;
    for b in 0..batch {
        for y in 0..dims.out_height() {
            for x in 0..dims.out_width() {
                for c in 0..channels {
                    for ky in 0..kernel {
                        for kx in 0..kernel {
                            let (u, v) = (y * stride + ky, x * stride + kx);
                            let inside = u >= above && u < height + above && v >= left && v < width + left;
                            each(to, inside.then(|| ((b * height + u - above) * width + v - left) * channels + c));
                            to += 1;
                        }
                    }
                }
            }
        }
    }
}

/// Assigns `out [B, H', W', C·k²]`; `inp [B, H, W, C]`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], dims: Dims) {
    check_len("unfold::forward", "out", out.len(), dims.out_len());
    check_len("unfold::forward", "inp", inp.len(), dims.in_len());
    elements(dims, |to, from| out[to] = from.map_or(T::ZERO, |i| inp[i]));
}

/// `dinp [B, H, W, C]` is assigned, or added to with `accumulate`; `dout [B, H', W', C·k²]`.
pub fn backward<T: Float>(dinp: &mut [T], dout: &[T], dims: Dims, accumulate: bool) {
    check_len("unfold::backward", "dinp", dinp.len(), dims.in_len());
    check_len("unfold::backward", "dout", dout.len(), dims.out_len());
    if !accumulate {
        dinp.fill(T::ZERO);
    }
    elements(dims, |to, from| {
        if let Some(i) = from {
            dinp[i] += dout[to];
        }
    });
}
