//! An image of floats, and what corruptions do to one: separable filters, kernels, sampling between pixels.

use crate::data::decode::RgbImage;

/// What lies beyond an image's edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Border {
    /// The edge pixel: `aaa|abcd|ddd`.
    Nearest,
    /// The image mirrored, the edge pixel twice: `cba|abcd|dcb`.
    Reflect,
    /// The image mirrored around the edge pixel: `dcb|abcd|cba`.
    Reflect101,
}

impl Border {
    /// The pixel of `0..n` that stands at `i`.
    pub(super) fn fold(self, i: i64, n: usize) -> usize {
        let n = n as i64;
        let at = match self {
            Border::Nearest => i.clamp(0, n - 1),
            Border::Reflect => {
                let i = i.rem_euclid(2 * n);
                i.min(2 * n - 1 - i)
            }
            Border::Reflect101 if n == 1 => 0,
            Border::Reflect101 => {
                let i = i.rem_euclid(2 * n - 2);
                i.min(2 * n - 2 - i)
            }
        };
        at as usize
    }
}

/// Rows of pixels of interleaved channels; black is 0, white is 1, and values may lie outside until they are stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
    pub(super) data: Vec<f32>,
}

/// One axis of a separable filter: for each output pixel, the first source pixel and the weights from there on.
pub(super) struct Taps(Vec<(usize, Vec<f32>)>);

impl Taps {
    /// A Gaussian of `sigma` pixels, cut off at `truncate` sigmas, over `n` pixels. The border is folded into the
    /// weights, so that a Gaussian wider than the image costs no more than a dense matrix.
    pub(super) fn gaussian(n: usize, sigma: f64, truncate: f64, border: Border) -> Taps {
        let radius = (truncate * sigma + 0.5) as i64;
        let weights: Vec<f64> = (-radius..=radius).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let taps = (0..n as i64).map(|at| {
            let mut row = vec![0f64; n];
            for (offset, weight) in (-radius..=radius).zip(&weights) {
                row[border.fold(at + offset, n)] += weight / sum;
            }
            trimmed(&row)
        });
        Taps(taps.collect())
    }

    /// The middle of `n` pixels, enlarged `zoom` times by linear interpolation, at `n` pixels again.
    pub(super) fn zoom(n: usize, zoom: f64) -> Taps {
        let kept = ((n as f64 / zoom).ceil() as usize).clamp(1, n);
        let top = (n - kept) / 2;
        let enlarged = (kept as f64 * zoom).round().max(n as f64);
        let trim = ((enlarged as usize) - n) / 2;
        let step = if enlarged > 1.0 { (kept - 1) as f64 / (enlarged - 1.0) } else { 0.0 };
        let taps = (0..n).map(|at| {
            let place = ((at + trim) as f64 * step).min((kept - 1) as f64);
            let share = place.fract() as f32;
            let first = top + place as usize;
            if share == 0.0 { (first, vec![1.0]) } else { (first, vec![1.0 - share, share]) }
        });
        Taps(taps.collect())
    }

    /// `n` pixels to `m` by the box filter: the mean of what a pixel covers, or the nearest where that is less than one.
    pub(super) fn area(n: usize, m: usize) -> Taps {
        let scale = n as f64 / m as f64;
        let stretch = scale.max(1.0);
        let taps = (0..m).map(|at| {
            let center = (at as f64 + 0.5) * scale;
            let first = (center - stretch / 2.0 + 0.5).max(0.0) as usize;
            let end = ((center + stretch / 2.0 + 0.5) as usize).min(n);
            let inside = |i: &usize| {
                let x = (*i as f64 - center + 0.5) / stretch;
                x > -0.5 && x <= 0.5
            };
            let covered: Vec<usize> = (first..end).filter(inside).collect();
            (covered[0], vec![1.0 / covered.len() as f32; covered.len()])
        });
        Taps(taps.collect())
    }
}

/// A row of weights without the zeros at its ends.
fn trimmed(row: &[f64]) -> (usize, Vec<f32>) {
    let first = row.iter().position(|w| *w != 0.0).unwrap_or(0);
    let end = row.iter().rposition(|w| *w != 0.0).map_or(1, |last| last + 1);
    (first, row[first..end].iter().map(|w| *w as f32).collect())
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize, channels: usize, data: Vec<f32>) -> Canvas {
        assert_eq!(data.len(), width * height * channels, "canvas: one value per channel");
        Canvas { width, height, channels, data }
    }

    pub(super) fn of(image: &RgbImage) -> Canvas {
        let data = image.as_raw().iter().map(|v| f32::from(*v) / 255.0).collect();
        Canvas::new(image.width() as usize, image.height() as usize, 3, data)
    }

    /// Clipped, and rounded to the nearest level.
    pub(super) fn to_rgb(&self) -> RgbImage {
        let bytes = self.data.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
        RgbImage::from_raw(self.width as u32, self.height as u32, bytes).expect("three bytes per pixel")
    }

    /// Values as an 8-bit image would keep them.
    pub(super) fn quantised(mut self) -> Canvas {
        self.data.iter_mut().for_each(|v| *v = (v.clamp(0.0, 1.0) * 255.0).round() / 255.0);
        self
    }

    /// The shorter side over ImageNet-C's 224 pixels: what lengths in pixels are multiplied by.
    pub(super) fn scale(&self) -> f64 {
        self.width.min(self.height) as f64 / 224.0
    }

    pub(super) fn pixels(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.data.chunks_exact_mut(self.channels)
    }

    /// `across` filters every row, then `down` every column.
    pub(super) fn filtered(&self, across: &Taps, down: &Taps) -> Canvas {
        let c = self.channels;
        let mut wide: Vec<f32> = Vec::with_capacity(across.0.len() * self.height * c);
        for row in self.data.chunks_exact(self.width * c) {
            for (first, weights) in &across.0 {
                for channel in 0..c {
                    let values = row[first * c + channel..].iter().step_by(c);
                    wide.push(values.zip(weights).map(|(v, w)| v * w).sum());
                }
            }
        }
        let line = across.0.len() * c;
        let mut data = vec![0.0; down.0.len() * line];
        for (out, (first, weights)) in data.chunks_exact_mut(line).zip(&down.0) {
            for (row, weight) in wide.chunks_exact(line).skip(*first).zip(weights) {
                for (out, value) in out.iter_mut().zip(row) {
                    *out += weight * value;
                }
            }
        }
        Canvas::new(across.0.len(), down.0.len(), c, data)
    }

    /// A Gaussian blur in both directions.
    pub(super) fn gaussian(&self, sigma: f64, truncate: f64, border: Border) -> Canvas {
        let taps = |n| Taps::gaussian(n, sigma, truncate, border);
        self.filtered(&taps(self.width), &taps(self.height))
    }

    /// The middle, enlarged.
    pub(super) fn zoomed(&self, zoom: f64) -> Canvas {
        self.filtered(&Taps::zoom(self.width, zoom), &Taps::zoom(self.height, zoom))
    }

    /// The weighted sum of the pixels at `(dx, dy, weight)` from each.
    pub(super) fn gathered(&self, kernel: &[(i64, i64, f32)], border: Border) -> Canvas {
        let reach = |offset: fn(&(i64, i64, f32)) -> i64| kernel.iter().map(|k| offset(k).abs()).max().unwrap_or(0);
        let (rx, ry) = (reach(|k| k.0), reach(|k| k.1));
        let (c, line) = (self.channels, self.width * self.channels);
        let padded_line = (self.width + 2 * rx as usize) * c;
        let mut padded = Vec::with_capacity(padded_line * (self.height + 2 * ry as usize));
        for y in -ry..self.height as i64 + ry {
            let row = &self.data[border.fold(y, self.height) * line..][..line];
            for x in -rx..self.width as i64 + rx {
                padded.extend_from_slice(&row[border.fold(x, self.width) * c..][..c]);
            }
        }
        let mut data = vec![0.0; self.data.len()];
        for (y, out) in data.chunks_exact_mut(line).enumerate() {
            for (dx, dy, weight) in kernel {
                let start = (y as i64 + ry + dy) as usize * padded_line + (rx + dx) as usize * c;
                for (out, value) in out.iter_mut().zip(&padded[start..][..line]) {
                    *out += weight * value;
                }
            }
        }
        Canvas::new(self.width, self.height, c, data)
    }

    /// The image with each pixel `(x, y)` taken from the place `from(x, y)`, interpolated linearly.
    pub(super) fn warped(&self, border: Border, mut from: impl FnMut(usize, usize) -> (f64, f64)) -> Canvas {
        let c = self.channels;
        let mut data = Vec::with_capacity(self.data.len());
        for y in 0..self.height {
            for x in 0..self.width {
                let (fx, fy) = from(x, y);
                let (x0, y0) = (fx.floor(), fy.floor());
                let (sx, sy) = ((fx - x0) as f32, (fy - y0) as f32);
                let at = |dx: i64, dy: i64| {
                    let row = border.fold(y0 as i64 + dy, self.height) * self.width;
                    (row + border.fold(x0 as i64 + dx, self.width)) * c
                };
                let corners = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)];
                for channel in 0..c {
                    let [a, b, d, e] = corners.map(|corner| self.data[corner + channel]);
                    data.push((a * (1.0 - sx) + b * sx) * (1.0 - sy) + (d * (1.0 - sx) + e * sx) * sy);
                }
            }
        }
        Canvas::new(self.width, self.height, c, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_fold_back() {
        let folded = |border: Border, n| (-5..8).map(|i| border.fold(i, n)).collect::<Vec<_>>();
        assert_eq!(folded(Border::Nearest, 3), [0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2]);
        assert_eq!(folded(Border::Reflect, 3), [1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]);
        assert_eq!(folded(Border::Reflect101, 3), [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]);
        for border in [Border::Nearest, Border::Reflect, Border::Reflect101] {
            assert!(folded(border, 1).iter().all(|at| *at == 0), "{border:?}");
        }
    }

    #[test]
    fn the_weights_of_a_filter_sum_to_one() {
        let wide = Taps::gaussian(7, 30.0, 3.0, Border::Reflect);
        for taps in [wide, Taps::gaussian(64, 2.0, 4.0, Border::Nearest), Taps::zoom(33, 1.2), Taps::area(64, 19)] {
            for (_, weights) in taps.0 {
                assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{weights:?}");
            }
        }
    }
}
