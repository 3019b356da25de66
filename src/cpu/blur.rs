//! Each channel of an NHWC image under a fixed symmetric filter of 3 × 3 taps: the blur before a stride (Zhang 2019), and the mean of
//! windows that count the zeros around the image.
//!
//! ```text
//! out[b, y, x, c] = Σ_{i, j} f_i f_j inp[b, y·s + i − 1, x·s + j − 1, c]      f = (side, 1 − 2·side, side)
//! ```
//!
//! Outside the image are zeros, or the pixel as far inside of the edge (PyTorch's `reflect`).

use super::{Float, check_len};

/// The taps, and the pixels outside the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// 1/4, 1/2, 1/4, reflected: timm's `BlurPool2d`.
    Reflected,
    /// The same among zeros: its `BlurPool2d(pad_mode='constant')`.
    Zeros,
    /// A third each among zeros: PyTorch's `AvgPool2d(3, padding=1)`.
    Mean,
}

impl Filter {
    /// The tap on either side; the one in the middle is 1 − 2·side.
    pub fn side(self) -> f64 {
        match self {
            Filter::Reflected | Filter::Zeros => 0.25,
            Filter::Mean => 1.0 / 3.0,
        }
    }

    /// Whether pixels outside are those inside.
    pub fn reflects(self) -> bool {
        self == Filter::Reflected
    }
}

/// Shape of a filtered image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Height of `inp`; two or more if the filter reflects.
    pub height: usize,
    /// Width of `inp`; two or more if the filter reflects.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// The filter.
    pub filter: Filter,
}

impl Dims {
    /// Height of `out`. Panics if there is nothing to reflect.
    pub fn out_height(self) -> usize {
        self.windows(self.height)
    }

    /// Width of `out`. Panics if there is nothing to reflect.
    pub fn out_width(self) -> usize {
        self.windows(self.width)
    }

    fn windows(self, size: usize) -> usize {
        assert!(size > 1 || !self.filter.reflects(), "a side of {size} pixels has none to reflect: {self:?}");
        size.div_ceil(self.stride)
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
    check_len("blur::forward", "out", out.len(), dims.out_len());
    check_len("blur::forward", "inp", inp.len(), dims.in_len());
    out.fill(T::ZERO);
    each_pair(dims, |o, i, weight| out[o] += inp[i] * T::from_f64(weight));
}

/// Assigns all of `dinp [B, H, W, C]`; `dout [B, H', W', C]`.
pub fn backward<T: Float>(dinp: &mut [T], dout: &[T], dims: Dims) {
    check_len("blur::backward", "dinp", dinp.len(), dims.in_len());
    check_len("blur::backward", "dout", dout.len(), dims.out_len());
    dinp.fill(T::ZERO);
    each_pair(dims, |o, i, weight| dinp[i] += dout[o] * T::from_f64(weight));
}

/// Calls `each` with the index of an output element, that of an input element that it reads, and the product of the two taps.
fn each_pair(dims: Dims, mut each: impl FnMut(usize, usize, f64)) {
    let Dims { batch, height, width, channels, stride, filter } = dims;
    let taps = [filter.side(), 1.0 - 2.0 * filter.side(), filter.side()];
    // What the window `at` reads along a side of `size` pixels.
    let read = |at: usize, size: usize| {
        (0..3).filter_map(move |i| {
            let source = match (at * stride + i).checked_sub(1) {
                Some(inside) if inside < size => inside,
                _ if !filter.reflects() => return None,
                None => 1,
                Some(_) => size - 2,
            };
            Some((source, taps[i]))
        })
    };
    for b in 0..batch {
        for y in 0..dims.out_height() {
            for x in 0..dims.out_width() {
                for (u, down) in read(y, height) {
                    for (v, across) in read(x, width) {
                        for c in 0..channels {
                            let o = ((b * dims.out_height() + y) * dims.out_width() + x) * channels + c;
                            each(o, ((b * height + u) * width + v) * channels + c, down * across);
                        }
                    }
                }
            }
        }
    }
}
