//! RandAugment (Cubuk et al. 2020) and TrivialAugment (Müller & Hutter 2021), with the operations and magnitudes of torchvision's
//! `RandAugment` and `TrivialAugmentWide`, bilinear, and black outside of a moved image.

use rand::Rng;

use super::{affine, colour};
use crate::data::decode::RgbImage;

/// Magnitudes of an operation, from none to the greatest.
pub const MAGNITUDES: usize = 31;

/// What may be done to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

impl Op {
    /// All of them, each as likely as any other.
    pub const ALL: [Op; 14] = [
        Op::Identity,
        Op::ShearX,
        Op::ShearY,
        Op::TranslateX,
        Op::TranslateY,
        Op::Rotate,
        Op::Brightness,
        Op::Color,
        Op::Contrast,
        Op::Sharpness,
        Op::Posterize,
        Op::Solarize,
        Op::AutoContrast,
        Op::Equalize,
    ];

    /// Whether the magnitude's sign is drawn.
    pub fn is_signed(self) -> bool {
        use Op::*;
        match self {
            ShearX | ShearY | TranslateX | TranslateY | Rotate | Brightness | Color | Contrast | Sharpness => true,
            Identity | Posterize | Solarize | AutoContrast | Equalize => false,
        }
    }

    /// The image after the operation: a slope, pixels, degrees, a factor less 1, bits, or a threshold, by its kind.
    pub fn apply(self, mut image: RgbImage, magnitude: f64) -> RgbImage {
        match self {
            Op::Identity => {}
            Op::ShearX => return affine::shear_x(&image, magnitude),
            Op::ShearY => return affine::shear_y(&image, magnitude),
            Op::TranslateX => return affine::translate(&image, magnitude, 0.0),
            Op::TranslateY => return affine::translate(&image, 0.0, magnitude),
            Op::Rotate => return affine::rotate(&image, magnitude),
            Op::Brightness => colour::brightness(&mut image, 1.0 + magnitude),
            Op::Color => colour::saturation(&mut image, 1.0 + magnitude),
            Op::Contrast => colour::contrast(&mut image, 1.0 + magnitude),
            Op::Sharpness => colour::sharpness(&mut image, 1.0 + magnitude),
            Op::Posterize => colour::posterize(&mut image, magnitude as u32),
            Op::Solarize => colour::solarize(&mut image, magnitude),
            Op::AutoContrast => colour::autocontrast(&mut image),
            Op::Equalize => colour::equalize(&mut image),
        }
        image
    }
}

/// The `bin`-th of [`MAGNITUDES`] values from 0 to `most`, in f32 and fused as `torch.linspace` has them: translations are cut to
/// whole pixels, which shows the last bit.
fn linear(most: f32, bin: usize) -> f64 {
    let step = most / (MAGNITUDES - 1) as f32;
    let from_end = MAGNITUDES - 1 - bin;
    f64::from(if bin < MAGNITUDES / 2 { step * bin as f32 } else { step.mul_add(-(from_end as f32), most) })
}

/// Which operations an image meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// `ops` operations one after another, drawn independently, of one `magnitude` below [`MAGNITUDES`].
    Rand {
        /// How many.
        ops: usize,
        /// How strong.
        magnitude: usize,
    },
    /// One operation of a drawn magnitude.
    Trivial,
}

impl Policy {
    /// The `bin`-th magnitude of `op` for an image `side` pixels wide and high; 0 where it has none.
    pub fn magnitude(self, op: Op, bin: usize, side: usize) -> f64 {
        let wide = self == Policy::Trivial;
        let either = |rand: f64, trivial: f64| linear(if wide { trivial } else { rand } as f32, bin);
        match op {
            Op::Identity | Op::AutoContrast | Op::Equalize => 0.0,
            Op::ShearX | Op::ShearY => either(0.3, 0.99),
            Op::TranslateX | Op::TranslateY => either(150.0 / 331.0 * side as f64, 32.0),
            Op::Rotate => either(30.0, 135.0),
            Op::Brightness | Op::Color | Op::Contrast | Op::Sharpness => either(0.9, 0.99),
            Op::Posterize => {
                8.0 - (bin as f64 / (MAGNITUDES - 1) as f64 * if wide { 6.0 } else { 4.0 }).round_ties_even()
            }
            Op::Solarize => 255.0 - linear(255.0, bin),
        }
    }

    /// The image after the operations that are drawn.
    pub(super) fn apply(self, mut image: RgbImage, rng: &mut impl Rng) -> RgbImage {
        let ops = if let Policy::Rand { ops, .. } = self { ops } else { 1 };
        let side = image.width() as usize;
        for _ in 0..ops {
            let op = Op::ALL[rng.random_range(0..Op::ALL.len())];
            let bin = match self {
                Policy::Rand { magnitude, .. } => magnitude,
                Policy::Trivial => rng.random_range(0..MAGNITUDES),
            };
            let magnitude = self.magnitude(op, bin, side);
            let sign = if op.is_signed() && rng.random_bool(0.5) { -1.0 } else { 1.0 };
            image = op.apply(image, sign * magnitude);
        }
        image
    }
}
