//! The mean of every window, channel by channel, over NHWC images. Padding is not counted.
//!
//! ```text
//! out[b, y, x, c] = mean of inp[b, u, v, c] over the window's pixels u, v that lie in the image
//!
//! dinp[b, u, v, c] = Σ dout / (pixels of the window) over the windows that hold u, v
//! ```
//!
//! With `ceil_mode` windows may reach over the lower and right edges, and count only what lies inside (PyTorch's
//! `count_include_pad=False`); a last window that starts outside is left out.

use super::{Float, check_len};

/// Shape of an average pooling.
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
    /// Pixels before the first one that the first window reaches, less than `kernel`.
    pub padding: usize,
    /// Whether the last windows may be partly outside; without padding.
    pub ceil_mode: bool,
}

impl Dims {
    /// Height of `out`. Panics where no window fits, unless in `ceil_mode`.
    pub fn out_height(self) -> usize {
        self.windows(self.height)
    }

    /// Width of `out`.
    pub fn out_width(self) -> usize {
        self.windows(self.width)
    }

    fn windows(self, size: usize) -> usize {
        if !self.ceil_mode {
            let size = size + 2 * self.padding;
            assert!(size >= self.kernel, "an image of {size} pixels is smaller than a window: {self:?}");
            return (size - self.kernel) / self.stride + 1;
        }
        assert_eq!(self.padding, 0, "windows over the edge have no padding: {self:?}");
        let windows = size.saturating_sub(self.kernel).div_ceil(self.stride) + 1;
        if (windows - 1) * self.stride >= size { windows - 1 } else { windows }
    }

    /// Elements of `inp`.
    pub fn in_len(self) -> usize {
        self.batch * self.height * self.width * self.channels
    }

    /// Elements of `out`.
    pub fn out_len(self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.channels
    }
}

/// Assigns `out [B, H', W', C]`; `inp [B, H, W, C]`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], dims: Dims) {
    check_len("avg_pool::forward", "out", out.len(), dims.out_len());
    check_len("avg_pool::forward", "inp", inp.len(), dims.in_len());
    out.fill(T::ZERO);
    each_pair(dims, |o, i, count| out[o] += inp[i] / T::from_f64(count as f64));
}

/// Assigns all of `dinp [B, H, W, C]`; `dout [B, H', W', C]`.
pub fn backward<T: Float>(dinp: &mut [T], dout: &[T], dims: Dims) {
    check_len("avg_pool::backward", "dinp", dinp.len(), dims.in_len());
    check_len("avg_pool::backward", "dout", dout.len(), dims.out_len());
    dinp.fill(T::ZERO);
    each_pair(dims, |o, i, count| dinp[i] += dout[o] / T::from_f64(count as f64));
}

/// Calls `each` with the index of an output element, that of an input element of its window, and the window's size.
fn each_pair(dims: Dims, mut each: impl FnMut(usize, usize, usize)) {
    let Dims { batch, height, width, channels, kernel, stride, padding, .. } = dims;
    // The window `at` along a side of `size` pixels.
    let inside =
        |at: usize, size: usize| (at * stride).saturating_sub(padding)..(at * stride + kernel - padding).min(size);
    for b in 0..batch {
        for y in 0..dims.out_height() {
            for x in 0..dims.out_width() {
                let (down, across) = (inside(y, height), inside(x, width));
                let count = down.len() * across.len();
                for u in down {
                    for v in across.clone() {
                        for c in 0..channels {
                            let o = ((b * dims.out_height() + y) * dims.out_width() + x) * channels + c;
                            each(o, ((b * height + u) * width + v) * channels + c, count);
                        }
                    }
                }
            }
        }
    }
}
