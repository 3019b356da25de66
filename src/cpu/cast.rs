//! Rounding to 16-bit floats, to the nearest and to even.

use half::f16;

/// The value of the f16 nearest to `x`; infinite past 65,520.
pub fn to_f16(x: f64) -> f64 {
    f16::from_f64(x).to_f64()
}

/// `out = inp`, each as the nearest f16.
pub fn forward(out: &mut [f64], inp: &[f64]) {
    out.iter_mut().zip(inp).for_each(|(out, inp)| *out = to_f16(*inp));
}
