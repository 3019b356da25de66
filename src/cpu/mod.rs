//! The reference of every op: naive loops, generic over `f32` and `f64`, no cleverness.
//!
//! A stem here shares its name with a shader and its host wrapper. In `f64` these loops are what the GPU kernels are
//! held against, and they themselves are held against finite differences (`tests/gradcheck.rs`).
//!
//! - Tensors are row-major slices; arguments come as outputs, inputs, dims; `d` marks a gradient of the loss.
//! - Where a tensor can have several uses in one pass, or a parameter several micro-batches, its gradient adds
//!   (`+=`); everything else is assigned (`=`). Each function says which.
//! - What the data decides is `T`; settings (epsilon, learning rate, ...) are `f64` and are rounded to `T` where they
//!   meet the data, as PyTorch treats Python's floats.
//! - A wrong length is a bug of the caller: an assert which names the op and the tensor.

// Index loops over several tensors at once read like the equations above them.
#![allow(clippy::needless_range_loop)]

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

macro_rules! modules {
    ($($stem:ident $({ $($reason:tt)* })?;)*) => {
        $(
            #[allow(missing_docs)] // each file has its own
            pub mod $stem;
        )*
    };
}
for_each_stem!(modules);

/// A real number of either precision.
pub trait Float:
    Copy
    + Debug
    + Default
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + Send
    + Sync
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Rounds to this precision.
    fn from_f64(x: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// e to the power `self`.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Sine.
    fn sin(self) -> Self;
    /// Cosine.
    fn cos(self) -> Self;
    /// Error function, `2/√π · ∫₀ˣ exp(−t²) dt`, within 1e-15 in `f64`.
    fn erf(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// The larger of two; a NaN loses to a number.
    fn max(self, other: Self) -> Self;
    /// The smaller of two; a NaN loses to a number.
    fn min(self, other: Self) -> Self;
}

macro_rules! impl_float {
    ($t:ty) => {
        impl Float for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn exp(self) -> Self {
                <$t>::exp(self)
            }
            fn ln(self) -> Self {
                <$t>::ln(self)
            }
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            fn tanh(self) -> Self {
                <$t>::tanh(self)
            }
            fn sin(self) -> Self {
                <$t>::sin(self)
            }
            fn cos(self) -> Self {
                <$t>::cos(self)
            }
            fn erf(self) -> Self {
                erf(f64::from(self)) as $t
            }
            fn abs(self) -> Self {
                <$t>::abs(self)
            }
            fn max(self, other: Self) -> Self {
                <$t>::max(self, other)
            }
            fn min(self, other: Self) -> Self {
                <$t>::min(self, other)
            }
        }
    };
}

impl_float!(f32);
impl_float!(f64);

/// The error function (Abramowitz & Stegun 7.1.6 and 7.1.14).
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    let y = if a < 2.0 {
        // 2/√π · exp(−a²) · Σ_n 2ⁿ a^(2n+1) / (1·3·…·(2n+1)): every term is positive, so nothing cancels.
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term > sum * 1e-18 {
            n += 1.0;
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
        }
        std::f64::consts::FRAC_2_SQRT_PI * (-a * a).exp() * sum
    } else {
        // √π · exp(a²) · erfc(a) = 1/(a + (1/2)/(a + (2/2)/(a + (3/2)/(a + ...)))): 60 levels reach 1e-17 at a = 2.
        let fraction = (1..=60).rev().fold(a, |tail, k| a + 0.5 * f64::from(k) / tail);
        1.0 - 0.5 * std::f64::consts::FRAC_2_SQRT_PI * (-a * a).exp() / fraction
    };
    y.copysign(x)
}

/// Asserts that a tensor of an op has the number of elements that the op's dims ask for.
#[track_caller]
fn check_len(op: &str, tensor: &str, got: usize, want: usize) {
    assert_eq!(got, want, "{op}: `{tensor}` has {got} elements, its dims ask for {want}");
}

#[cfg(test)]
mod tests {
    use super::Float;

    /// `mpmath.erf` at 30 digits, rounded. Both branches, both sides of their border, both tails.
    const KNOWN: [(f64, f64); 14] = [
        (1e-12, 1.1283791670955126e-12),
        (0.001, 0.0011283787909692365),
        (0.1, 0.1124629160182849),
        (0.25, 0.27632639016823696),
        (0.5, 0.5204998778130465),
        (1.0, 0.8427007929497149),
        (1.5, 0.9661051464753108),
        (1.9375, 0.9938568063952132),
        (1.9999, 0.9953201979070294),
        (2.0, 0.9953222650189527),
        (2.5, 0.999593047982555),
        (3.0, 0.9999779095030014),
        (4.5, 0.9999999998033839),
        (7.0, 1.0),
    ];

    #[test]
    fn erf_agrees_with_known_values() {
        for (x, want) in KNOWN {
            assert!((Float::erf(x) - want).abs() <= 1e-15, "erf({x}) = {}, want {want}", Float::erf(x));
            assert!((Float::erf(-x) + want).abs() <= 1e-15, "erf(−{x})");
            // Small arguments must keep their relative accuracy too: gelu's slope at 0 comes from there.
            assert!((Float::erf(x) - want).abs() <= 1e-15 * want, "erf({x}), relative");
        }
        assert_eq!(Float::erf(0.0_f64), 0.0);
        assert_eq!(Float::erf(f64::INFINITY), 1.0);
        assert_eq!(Float::erf(f64::NEG_INFINITY), -1.0);
        assert!(Float::erf(f64::NAN).is_nan());
        assert_eq!(Float::erf(0.5_f32), 0.520_499_9_f32);
    }
}
