//! The largest value of every window, channel by channel, over NHWC images.
//!
//! ```text
//! out[b, y, x, c] = max_{ky, kx} inp[b, y·s − p + ky, x·s − q + kx, c]      pixels outside the image do not count, or are zero
//!
//! dinp[b, u, v, c] = Σ dout of the windows whose first largest value, row by row, is at u, v
//! ```

use super::depthwise::Padding;
use super::{Float, check_len};

/// Shape of a max pooling.
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
    /// How far windows reach over the edge: at most half a window, so that none is empty.
    pub padding: Padding,
    /// Whether pixels outside count, as zeros.
    pub zeros: bool,
}

impl Dims {
    /// Height of `out`. Panics where no window fits the padded image.
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

    /// How far the first windows reach over the upper and the left edge. Panics where a window would be empty.
    pub fn before(self) -> [usize; 2] {
        if let Padding::Even(padding) = self.padding {
            assert!(2 * padding <= self.kernel, "max_pool: {self:?} leaves windows empty");
        }
        [self.height, self.width].map(|size| self.padding.before(size, self.kernel, self.stride))
    }

    /// Elements of `inp`.
    pub fn in_len(self) -> usize {
        self.batch * self.height * self.width * self.channels
    }

    /// Elements of `out` and of `tap`.
    pub fn out_len(self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.channels
    }
}

/// Assigns `out [B, H', W', C]`, and for backward `tap`, as large: where in its window (`ky · kernel + kx`) the value comes
/// from; `inp [B, H, W, C]`.
pub fn forward<T: Float>(out: &mut [T], tap: &mut [u32], inp: &[T], dims: Dims) {
    check_len("max_pool::forward", "out", out.len(), dims.out_len());
    check_len("max_pool::forward", "tap", tap.len(), dims.out_len());
    check_len("max_pool::forward", "inp", inp.len(), dims.in_len());
    each_window(dims, |o, window| {
        let mut best: Option<(usize, T)> = None;
        for (t, i) in window.iter().enumerate() {
            let value = match i {
                Some(i) => inp[*i],
                None if dims.zeros => T::ZERO,
                None => continue,
            };
            if best.is_none_or(|(_, best)| value > best) {
                best = Some((t, value));
            }
        }
        let (t, value) = best.expect("padding is at most half a window");
        (out[o], tap[o]) = (value, t as u32);
    });
}

/// Assigns all of `dinp [B, H, W, C]`; `dout` and `tap [B, H', W', C]`.
pub fn backward<T: Float>(dinp: &mut [T], dout: &[T], tap: &[u32], dims: Dims) {
    check_len("max_pool::backward", "dinp", dinp.len(), dims.in_len());
    check_len("max_pool::backward", "dout", dout.len(), dims.out_len());
    check_len("max_pool::backward", "tap", tap.len(), dims.out_len());
    dinp.fill(T::ZERO);
    each_window(dims, |o, window| {
        if let Some(i) = window[tap[o] as usize] {
            dinp[i] += dout[o];
        }
    });
}

/// Calls `each` with the index of every output element, and its window: indices of `inp`, row by row, none outside the image.
fn each_window(dims: Dims, mut each: impl FnMut(usize, &[Option<usize>])) {
    let Dims { batch, height, width, channels, kernel, stride, .. } = dims;
    let [above, left] = dims.before();
    for b in 0..batch {
        for y in 0..dims.out_height() {
            for x in 0..dims.out_width() {
                for c in 0..channels {
                    let mut window = Vec::new();
                    for ky in 0..kernel {
                        for kx in 0..kernel {
                            let (u, v) = (y * stride + ky, x * stride + kx);
                            let inside = u >= above && u < height + above && v >= left && v < width + left;
                            let index = || ((b * height + u - above) * width + v - left) * channels + c;
                            window.push(inside.then(index));
                        }
                    }
                    each(((b * dims.out_height() + y) * dims.out_width() + x) * channels + c, &window);
                }
            }
        }
    }
}
