//! Changed colours, as Pillow's `ImageEnhance` and `ImageOps` change them.

use crate::data::decode::RgbImage;
use crate::data::preprocess::luma;

/// From `image` to `other` and beyond: a `factor` of 1 is the image, 0 the other one. In f32 and truncated, as Pillow does.
fn away_from(other: impl Fn(usize, usize) -> u8, image: &mut RgbImage, factor: f64) {
    let factor = factor as f32;
    for (at, pixel) in image.pixels_mut().enumerate() {
        for (channel, value) in pixel.0.iter_mut().enumerate() {
            let (from, to) = (other(at, channel), *value);
            // A cast clips to 0..=255.
            *value = (f32::from(from) + factor * f32::from(i16::from(to) - i16::from(from))) as u8;
        }
    }
}

/// The luma of each pixel.
fn grey(image: &RgbImage) -> Vec<u8> {
    image.pixels().map(|pixel| luma(pixel.0)).collect()
}

/// Towards black.
pub(super) fn brightness(image: &mut RgbImage, factor: f64) {
    away_from(|_, _| 0, image, factor);
}

/// Towards its mean grey.
pub(super) fn contrast(image: &mut RgbImage, factor: f64) {
    let grey = grey(image);
    let sum: u64 = grey.iter().map(|value| u64::from(*value)).sum();
    let mean = (sum as f64 / grey.len() as f64 + 0.5) as u8;
    away_from(|_, _| mean, image, factor);
}

/// Towards grey.
pub(super) fn saturation(image: &mut RgbImage, factor: f64) {
    let grey = grey(image);
    away_from(|at, _| grey[at], image, factor);
}

/// Towards a smoothed image.
pub(super) fn sharpness(image: &mut RgbImage, factor: f64) {
    let smooth = smooth(image);
    away_from(|at, channel| smooth[3 * at + channel], image, factor);
}

/// A mean of 3 × 3 pixels, of which the middle one counts five times; the outermost pixels stay.
fn smooth(image: &RgbImage) -> Vec<u8> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let (pixels, mut out) = (image.as_raw(), image.as_raw().clone());
    let [one, middle] = [1f32 / 13.0, 5f32 / 13.0];
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            for channel in 0..3 {
                let value = |dx: usize, dy: usize| f32::from(pixels[3 * ((y + dy - 1) * width + x + dx - 1) + channel]);
                let row = |dy: usize, own: f32| value(0, dy) * one + value(1, dy) * own + value(2, dy) * one;
                out[3 * (y * width + x) + channel] = (0.5 + row(2, one) + row(1, middle) + row(0, one)) as u8;
            }
        }
    }
    out
}

/// Each value by a table of its channel.
fn map(image: &mut RgbImage, tables: &[[u8; 256]; 3]) {
    for pixel in image.pixels_mut() {
        for (value, table) in pixel.0.iter_mut().zip(tables) {
            *value = table[usize::from(*value)];
        }
    }
}

/// The upper `bits` of each value.
pub(super) fn posterize(image: &mut RgbImage, bits: u32) {
    let mask = !(0xffu32 >> bits) as u8;
    map(image, &[std::array::from_fn(|value| value as u8 & mask); 3]);
}

/// Values from `threshold` on inverted.
pub(super) fn solarize(image: &mut RgbImage, threshold: f64) {
    let table = std::array::from_fn(|value| if (value as f64) < threshold { value as u8 } else { 255 - value as u8 });
    map(image, &[table; 3]);
}

/// How many pixels of each channel have each value.
fn histograms(image: &RgbImage) -> [[u64; 256]; 3] {
    let mut counts = [[0; 256]; 3];
    for pixel in image.pixels() {
        pixel.0.iter().zip(&mut counts).for_each(|(value, counts)| counts[usize::from(*value)] += 1);
    }
    counts
}

const SAME: [u8; 256] = {
    let mut table = [0; 256];
    let mut value = 0;
    while value < 256 {
        table[value] = value as u8;
        value += 1;
    }
    table
};

/// Each channel stretched to the whole range.
pub(super) fn autocontrast(image: &mut RgbImage) {
    let table = |counts: [u64; 256]| {
        let least = counts.iter().position(|n| *n > 0).unwrap_or(0);
        let most = counts.iter().rposition(|n| *n > 0).unwrap_or(0);
        if most <= least {
            return SAME;
        }
        let scale = 255.0 / (most - least) as f64;
        let offset = -(least as f64) * scale;
        std::array::from_fn(|value| (value as f64 * scale + offset) as u8)
    };
    map(image, &histograms(image).map(table));
}

/// Each channel spread so that all values are about as frequent.
pub(super) fn equalize(image: &mut RgbImage) {
    let table = |counts: [u64; 256]| {
        let last = counts.iter().rfind(|n| **n > 0).copied().unwrap_or(0);
        let step = (counts.iter().sum::<u64>() - last) / 255;
        if step == 0 {
            return SAME;
        }
        let mut below = step / 2;
        counts.map(|count| {
            let value = below / step;
            below += count;
            value.min(255) as u8
        })
    };
    map(image, &histograms(image).map(table));
}

/// Every hue turned by `by`, of which 1 is a whole circle, in 8-bit HSV.
pub(super) fn hue(image: &mut RgbImage, by: f64) {
    let by = ((by * 255.0) as i32).rem_euclid(256) as u8;
    for pixel in image.pixels_mut() {
        let [h, s, v] = to_hsv(pixel.0);
        pixel.0 = to_rgb([h.wrapping_add(by), s, v]);
    }
}

/// Pillow's `convert("HSV")`.
fn to_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    if most == least {
        return [0, 0, most];
    }
    let range = f32::from(most - least);
    let [from_r, from_g, from_b] = [r, g, b].map(|value| f32::from(most - value) / range);
    let sixths = if r == most {
        from_b - from_g
    } else if g == most {
        (2.0 + f64::from(from_r) - f64::from(from_b)) as f32
    } else {
        (4.0 + f64::from(from_g) - f64::from(from_r)) as f32
    };
    let hue = ((f64::from(sixths) / 6.0 + 1.0) % 1.0) as f32;
    let part = |share: f32| (f64::from(share) * 255.0) as u8;
    [part(hue), part(range / f32::from(most)), most]
}

/// Pillow's `convert("RGB")` of HSV.
fn to_rgb([h, s, v]: [u8; 3]) -> [u8; 3] {
    if s == 0 {
        return [v; 3];
    }
    let sixths = f64::from(h) * 6.0 / 255.0;
    let (sector, within) = (sixths.floor(), (sixths - sixths.floor()) as f32);
    let (share, value) = (f64::from((f64::from(s) / 255.0) as f32), f64::from(v));
    let level = |less: f64| (value * (1.0 - less)).round() as u8;
    let (p, q, t) = (level(share), level(share * f64::from(within)), level(share * (1.0 - f64::from(within))));
    match sector as u8 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}
