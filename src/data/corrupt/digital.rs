//! What cameras, screens and files do: contrast, colour, distortion, resolution, compression.

use rand::Rng;

use super::Canvas;
use super::canvas::{Border, Taps};
use crate::data::decode::RgbImage;
use crate::data::jpeg;

/// 0.4 down to 0.05 of each value's distance from its channel's mean.
pub(super) fn contrast(mut image: Canvas, level: usize) -> Canvas {
    let keep = [0.4, 0.3, 0.2, 0.1, 0.05][level];
    let count = (image.width * image.height) as f64;
    for channel in 0..image.channels {
        let values = || image.data.iter().skip(channel).step_by(image.channels);
        let mean = (values().map(|v| f64::from(*v)).sum::<f64>() / count) as f32;
        let step = image.channels;
        image.data.iter_mut().skip(channel).step_by(step).for_each(|v| *v = (*v - mean) * keep + mean);
    }
    image
}

/// HSV's saturation times a factor plus a constant, at the same hue and value: less colour (severities 1 and 2), then more.
pub(super) fn saturate(mut image: Canvas, level: usize) -> Canvas {
    let (factor, add) = [(0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2f32)][level];
    for pixel in image.pixels() {
        let value = pixel.iter().copied().fold(0.0, f32::max);
        let chroma = value - pixel.iter().copied().fold(1.0, f32::min);
        if chroma > 0.0 {
            let saturation = chroma / value;
            let ratio = (saturation * factor + add).clamp(0.0, 1.0) / saturation;
            pixel.iter_mut().for_each(|v| *v = value - (value - *v) * ratio);
        } else {
            // Grey has hue 0, which is red's: what the definition makes of it.
            let grey = value * (1.0 - add);
            pixel.copy_from_slice(&[value, grey, grey]);
        }
    }
    image
}

/// An affine map of three points moved at random, then every pixel taken from a place that a smooth random field moves.
pub(super) fn elastic(image: &Canvas, level: usize, rng: &mut impl Rng) -> Canvas {
    // Strength, smoothness and shift of the points, over 244: ImageNet-C's own constant, for 224 pixels.
    let (alpha, sigma, shift) =
        [(2.0, 0.7, 0.1), (2.0, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)][level];
    let unit = 244.0 * image.scale();
    let (alpha, sigma, shift) = (alpha * unit, sigma * unit, shift * unit);
    let (width, height) = (image.width, image.height);

    let center = [(width / 2) as f64, (height / 2) as f64];
    let arm = (width.min(height) / 3) as f64;
    let fixed = [[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]].map(|[x, y]| [center[0] + x * arm, center[1] + y * arm]);
    let moved = fixed.map(|point| point.map(|v: f64| v + rng.random_range(-shift..=shift)));
    let back = affine(moved, fixed);
    let image = match back {
        Some([[a, b, c], [d, e, f]]) => image.warped(Border::Reflect101, |x, y| {
            let (x, y) = (x as f64, y as f64);
            (a * x + b * y + c, d * x + e * y + f)
        }),
        None => image.clone(),
    };

    let mut field = || {
        let noise = (0..width * height).map(|_| rng.random_range(-1.0..=1.0)).collect();
        Canvas::new(width, height, 1, noise).gaussian(sigma, 3.0, Border::Reflect)
    };
    let (dx, dy) = (field(), field());
    image.warped(Border::Reflect, |x, y| {
        let at = y * width + x;
        (x as f64 + alpha * f64::from(dx.data[at]), y as f64 + alpha * f64::from(dy.data[at]))
    })
}

/// The affine map that takes three points to three others, as two rows; none where the points are on one line, which
/// happens to images of a few pixels.
fn affine(from: [[f64; 2]; 3], to: [[f64; 2]; 3]) -> Option<[[f64; 3]; 2]> {
    let [[x0, y0], [x1, y1], [x2, y2]] = from;
    let det = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0);
    if det.abs() < 1e-9 {
        return None;
    }
    Some([0, 1].map(|axis| {
        let [v0, v1, v2] = to.map(|point| point[axis]);
        let a = ((v1 - v0) * (y2 - y0) - (v2 - v0) * (y1 - y0)) / det;
        let b = ((v2 - v0) * (x1 - x0) - (v1 - v0) * (x2 - x0)) / det;
        [a, b, v0 - a * x0 - b * y0]
    }))
}

/// Down to 0.6 to 0.25 of the size by the box filter, and back by the nearest pixel.
pub(super) fn pixelate(image: &Canvas, level: usize) -> Canvas {
    let share = [0.6, 0.5, 0.4, 0.3, 0.25][level];
    let small = |side: usize| ((side as f64 * share) as usize).max(1);
    let (w, h) = (small(image.width), small(image.height));
    let tiles = image.filtered(&Taps::area(image.width, w), &Taps::area(image.height, h)).quantised();
    tiles.filtered(&Taps::area(w, image.width), &Taps::area(h, image.height))
}

/// Saved as a JPEG of quality 25 down to 7 (of the IJG's scale, chroma at half the size) and opened again.
pub(super) fn jpeg(image: &RgbImage, level: usize) -> RgbImage {
    let quality = [25, 18, 15, 10, 7][level];
    let file = jpeg::encode(image, quality).expect("jpeg: writing to memory");
    jpeg::decode(&file).expect("jpeg: the bytes that were just written").0
}
