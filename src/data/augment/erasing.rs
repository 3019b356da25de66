//! A rectangle of the image taken away: torchvision's `RandomErasing` with its default ranges.

use rand::Rng;

/// The least and the greatest share of the image's area.
const SCALE: [f64; 2] = [0.02, 0.33];
/// The least and the greatest height by width, drawn uniformly in the logarithm.
const RATIO: [f64; 2] = [0.3, 3.3];

/// A rectangle in an image of `side` × `side` pixels: `[left, top, width, height]`; none if ten draws fit none.
pub fn rectangle(side: usize, rng: &mut impl Rng) -> Option<[usize; 4]> {
    let [log_min, log_max] = RATIO.map(f64::ln);
    for _ in 0..10 {
        let area = (side * side) as f64 * rng.random_range(SCALE[0]..=SCALE[1]);
        let ratio = rng.random_range(log_min..=log_max).exp();
        let height = (area * ratio).sqrt().round_ties_even() as usize;
        let width = (area / ratio).sqrt().round_ties_even() as usize;
        if height < side && width < side {
            let top = rng.random_range(0..=side - height);
            let left = rng.random_range(0..=side - width);
            return Some([left, top, width, height]);
        }
    }
    None
}

/// Sets a rectangle of `image` `[3, side, side]` to 0, the mean that was subtracted, with the given `probability`.
pub(super) fn erase(image: &mut [f32], side: usize, probability: f64, rng: &mut impl Rng) {
    if probability == 0.0 || !rng.random_bool(probability) {
        return;
    }
    let Some([left, top, width, height]) = rectangle(side, rng) else { return };
    for plane in image.chunks_exact_mut(side * side) {
        plane.chunks_exact_mut(side).skip(top).take(height).for_each(|row| row[left..left + width].fill(0.0));
    }
}
