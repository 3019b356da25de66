//! Weather: fog, snow, light.

use rand::Rng;
use rand_distr::{Distribution, Normal};

use super::Canvas;
use super::blur::trail;

/// `(v + c·fog)·max/(max + c)`, with a plasma fractal for fog and the image's brightest value for `max`.
pub(super) fn fog(mut image: Canvas, level: usize, rng: &mut impl Rng) -> Canvas {
    let (strength, decay) = [(1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)][level];
    let side = image.width.max(image.height).next_power_of_two();
    let plasma = plasma(side, decay, rng);
    let brightest = image.data.iter().copied().fold(0.0, f32::max);
    let keep = brightest / (brightest + strength);
    let width = image.width;
    for (i, pixel) in image.pixels().enumerate() {
        let fog = strength * plasma[i / width * side + i % width];
        pixel.iter_mut().for_each(|v| *v = (*v + fog) * keep);
    }
    image
}

/// A plasma fractal by the diamond-square rule on a torus, `[side, side]` of 0 to 1: each finer point is the mean of its
/// four neighbours plus a uniform number, whose range shrinks by `decay`² a level.
fn plasma(side: usize, decay: f32, rng: &mut impl Rng) -> Vec<f32> {
    let mut map = vec![0f32; side * side];
    let (mut step, mut range) = (side, 1.0f32);
    while step >= 2 {
        let half = step / 2;
        let at = |x: usize, y: usize| (y % side) * side + x % side;
        let mut set = |map: &mut Vec<f32>, to: usize, from: [usize; 4]| {
            let mean = from.iter().map(|i| map[*i]).sum::<f32>() / 4.0;
            map[to] = mean + range * rng.random_range(-1.0..=1.0);
        };
        for y in (0..side).step_by(step) {
            for x in (0..side).step_by(step) {
                let corners = [at(x, y), at(x + step, y), at(x, y + step), at(x + step, y + step)];
                set(&mut map, at(x + half, y + half), corners);
            }
        }
        for y in (0..side).step_by(step) {
            for x in (0..side).step_by(step) {
                let center = at(x + half, y + half);
                let above = at(x + half, y + side - half);
                let left = at(x + side - half, y + half);
                set(&mut map, at(x + half, y), [at(x, y), at(x + step, y), above, center]);
                set(&mut map, at(x, y + half), [at(x, y), at(x, y + step), left, center]);
            }
        }
        (step, range) = (half, range / (decay * decay));
    }
    let least = map.iter().copied().fold(f32::INFINITY, f32::min);
    let most = map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // A map of one point is flat.
    let span = (most - least).max(f32::MIN_POSITIVE);
    map.iter().map(|v| (v - least) / span).collect()
}

/// The image whitened, with flakes before it: the brightest of enlarged normal noise, drawn out in the direction of their
/// fall, and once more turned around.
pub(super) fn snow(mut image: Canvas, level: usize, rng: &mut impl Rng) -> Canvas {
    let (mean, deviation, flake, threshold, radius, sigma, keep) = [
        (0.1, 0.3, 3.0, 0.5, 10.0, 4.0, 0.8),
        (0.2, 0.3, 2.0, 0.5, 12.0, 4.0, 0.7),
        (0.55, 0.3, 4.0, 0.9, 12.0, 8.0, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12.0, 8.0, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12.0, 12.0, 0.55),
    ][level];
    let normal: Normal<f32> = Normal::new(mean, deviation).expect("a deviation above 0");
    let count = image.width * image.height;
    let noise = Canvas::new(image.width, image.height, 1, (0..count).map(|_| normal.sample(rng)).collect());
    let mut flakes = noise.zoomed((flake * image.scale()).max(1.0));
    flakes.data.iter_mut().filter(|v| **v < threshold).for_each(|v| *v = 0.0);
    let flakes = trail(&flakes.quantised(), radius, sigma, rng.random_range(-135.0..=-45.0));
    let snow = flakes.data.iter().zip(flakes.data.iter().rev()).map(|(a, b)| a + b);
    for (pixel, snow) in image.pixels().zip(snow) {
        let grey = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
        for v in pixel {
            *v = keep * *v + (1.0 - keep) * v.max(grey * 1.5 + 0.5) + snow;
        }
    }
    image
}

/// Adds 0.1 to 0.5 to HSV's value, at the same hue and saturation.
pub(super) fn brightness(mut image: Canvas, level: usize) -> Canvas {
    let add = [0.1, 0.2, 0.3, 0.4, 0.5][level];
    for pixel in image.pixels() {
        let value = pixel.iter().copied().fold(0.0, f32::max);
        let brighter = (value + add).min(1.0);
        // At one hue and saturation all channels are in proportion to the value; black has neither, and turns grey.
        pixel.iter_mut().for_each(|v| *v = if value > 0.0 { *v * (brighter / value) } else { brighter });
    }
    image
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn plasma_is_smooth_where_it_decays_fast() {
        // The mean step between neighbours against the spread of the whole.
        let roughness = |decay| {
            let map = plasma(64, decay, &mut ChaCha8Rng::seed_from_u64(1));
            assert!(map.contains(&0.0) && map.contains(&1.0), "the whole range");
            let steps: f32 = map.chunks(64).flat_map(|row| row.windows(2)).map(|w| (w[0] - w[1]).abs()).sum();
            steps / (64.0 * 63.0)
        };
        let [smooth, rough] = [roughness(2.0), roughness(1.4)];
        assert!(smooth < 0.03 && rough > 1.3 * smooth, "{smooth} {rough}");
        assert_eq!(plasma(1, 2.0, &mut ChaCha8Rng::seed_from_u64(1)), [0.0]);
    }
}
