//! Noise: every value of every channel for itself.

use rand::Rng;
use rand_distr::{Distribution, Normal, Poisson};

use super::Canvas;

/// Adds a normal number of standard deviation 0.08 to 0.38.
pub(super) fn gaussian(mut image: Canvas, level: usize, rng: &mut impl Rng) -> Canvas {
    let normal = normal([0.08, 0.12, 0.18, 0.26, 0.38][level]);
    image.data.iter_mut().for_each(|v| *v += normal.sample(rng));
    image
}

/// Photons counted: a Poisson number of mean `v·c`, over `c`, with 60 down to 3 photons for white.
pub(super) fn shot(mut image: Canvas, level: usize, rng: &mut impl Rng) -> Canvas {
    let white: f32 = [60.0, 25.0, 12.0, 5.0, 3.0][level];
    // One distribution per level of 8 bits: setting one up costs more than a draw. Black counts no photons.
    let levels: Vec<Option<Poisson<f32>>> = (0..=255).map(|v| Poisson::new(v as f32 / 255.0 * white).ok()).collect();
    for v in &mut image.data {
        let counted = levels[(*v * 255.0).round() as usize].map_or(0.0, |poisson| poisson.sample(rng));
        *v = counted / white;
    }
    image
}

/// Salt and pepper: a share of 3 % to 27 % of all values becomes 0 or 1, either as likely.
pub(super) fn impulse(mut image: Canvas, level: usize, rng: &mut impl Rng) -> Canvas {
    let share = [0.03, 0.06, 0.09, 0.17, 0.27][level];
    for v in &mut image.data {
        // Always two draws, so that a greater severity hits all that a smaller one does.
        let (hit, salt): (f64, bool) = (rng.random(), rng.random());
        if hit < share {
            *v = f32::from(u8::from(salt));
        }
    }
    image
}

/// Adds a normal number that is proportional to the value, of standard deviation `0.15·v` to `0.6·v`.
pub(super) fn speckle(mut image: Canvas, level: usize, rng: &mut impl Rng) -> Canvas {
    let normal = normal([0.15, 0.2, 0.35, 0.45, 0.6][level]);
    image.data.iter_mut().for_each(|v| *v += *v * normal.sample(rng));
    image
}

fn normal(deviation: f32) -> Normal<f32> {
    Normal::new(0.0, deviation).expect("a deviation above 0")
}
