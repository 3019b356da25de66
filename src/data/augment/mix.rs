//! Images mixed with others of their batch, and labels with theirs: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019), as timm's
//! `Mixup` does it for whole batches. An image is mixed with the one as far from the batch's end as it is from its start.

use rand::Rng;
use rand_distr::{Beta, Distribution};

/// How often and how strongly batches are mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// The share of an image is drawn from Beta(α, α); 0 for no mixup.
    pub mixup: f64,
    /// The same for CutMix.
    pub cutmix: f64,
    /// Share of the batches that are mixed.
    pub prob: f64,
    /// With both, the share of them that CutMix mixes.
    pub switch_prob: f64,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix { mixup: 0.0, cutmix: 0.0, prob: 1.0, switch_prob: 0.5 }
    }
}

/// The labels that a mixed batch has beside its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixed {
    /// `[B]`, the label of the image that each was mixed with.
    pub labels: Vec<u32>,
    /// The share of an image's own label; the rest is the other's.
    pub own: f64,
}

/// How a batch is mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mixing {
    /// A weighted mean of two images, of which the own one has this share.
    Blend(f64),
    /// A rectangle of the other image: `[left, top, right, bottom]`, right and bottom excluded.
    Paste([usize; 4]),
}

impl Mix {
    /// Whether any batch is mixed.
    pub fn is_on(&self) -> bool {
        self.prob > 0.0 && (self.mixup > 0.0 || self.cutmix > 0.0)
    }

    /// Draws how a batch of images `side` pixels wide and high is mixed.
    pub fn draw(&self, side: usize, rng: &mut impl Rng) -> Option<Mixing> {
        if !self.is_on() || !rng.random_bool(self.prob) {
            return None;
        }
        let cut = self.cutmix > 0.0 && (self.mixup == 0.0 || rng.random_bool(self.switch_prob));
        let alpha = if cut { self.cutmix } else { self.mixup };
        let own = Beta::new(alpha, alpha).expect("alpha is above 0").sample(rng);
        let center = [(); 2].map(|()| rng.random_range(0..side));
        Some(if cut { Mixing::Paste(patch(side, own, center)) } else { Mixing::Blend(own) })
    }
}

/// The `[left, top, right, bottom]`, right and bottom excluded, of a square of about 1 − `own` of the area about a center `[x, y]`; what of it lies outside of the
/// image is cut off.
pub fn patch(side: usize, own: f64, [x, y]: [usize; 2]) -> [usize; 4] {
    let cut = (side as f64 * (1.0 - own).sqrt()) as usize;
    let (before, after) = (cut / 2, cut.div_ceil(2));
    [x.saturating_sub(before), y.saturating_sub(before), (x + after).min(side), (y + after).min(side)]
}

impl Mixing {
    /// Mixes `images` `[B, 3, side, side]` of the classes `labels`.
    pub fn apply(self, images: &mut [f32], labels: &[u32], side: usize) -> Mixed {
        let per_image = 3 * side * side;
        let count = labels.len();
        let own = match self {
            Mixing::Blend(own) => own,
            Mixing::Paste([left, top, right, bottom]) => {
                1.0 - ((right - left) * (bottom - top)) as f64 / (side * side) as f64
            }
        };
        for first in 0..count / 2 {
            let (head, tail) = images.split_at_mut((count - 1 - first) * per_image);
            let (one, other) = (&mut head[first * per_image..][..per_image], &mut tail[..per_image]);
            match self {
                Mixing::Blend(own) => {
                    let (own, rest) = (own as f32, (1.0 - own) as f32);
                    for (a, b) in one.iter_mut().zip(other) {
                        (*a, *b) = (own * *a + rest * *b, own * *b + rest * *a);
                    }
                }
                Mixing::Paste([left, top, right, bottom]) => {
                    for row in (0..3).flat_map(|plane| (top..bottom).map(move |y| plane * side + y)) {
                        one[row * side..][left..right].swap_with_slice(&mut other[row * side..][left..right]);
                    }
                }
            }
        }
        Mixed { labels: labels.iter().rev().copied().collect(), own }
    }
}
