//! GELU (Hendrycks & Gimpel 2016) and its two approximations, elementwise.
//!
//! ```text
//! gelu        out = x·Φ(x)                   Φ(x) = (1 + erf(x/√2)) / 2
//!             dinp = dout · (Φ(x) + x·φ(x))   φ(x) = exp(−x²/2) / √(2π)
//! gelu_tanh   out = x·(1 + t)/2              t = tanh(√(2/π)·(x + 0.044715·x³))
//!             dinp = dout · ((1 + t)/2 + x/2·(1 − t²)·√(2/π)·(1 + 3·0.044715·x²))
//! quick_gelu  out = x·s                      s = σ(1.702·x)
//!             dinp = dout · (s + 1.702·x·s·(1 − s))
//! ```

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use super::{Float, check_len};
use crate::shapes::Activation;

const SQRT_2_OVER_PI: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
const CUBIC: f64 = 0.044715;
const QUICK: f64 = 1.702;

/// Assigns `out`, of the same length as `inp`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], kind: Activation) {
    check_len("gelu::forward", "out", out.len(), inp.len());
    for i in 0..inp.len() {
        let x = inp[i];
        out[i] = match kind {
            Activation::Gelu => x * normal_cdf(x),
            Activation::GeluTanh => x * (T::ONE + tanh_term(x)) / T::from_f64(2.0),
            Activation::QuickGelu => x * sigmoid(T::from_f64(QUICK) * x),
            Activation::SwiGlu | Activation::GeGlu => unreachable!("gelu: gated activations are a stem of their own"),
        };
    }
}

/// Assigns `dinp`; `dout` and `inp` (forward's input) have its length.
pub fn backward<T: Float>(dinp: &mut [T], dout: &[T], inp: &[T], kind: Activation) {
    check_len("gelu::backward", "dinp", dinp.len(), inp.len());
    check_len("gelu::backward", "dout", dout.len(), inp.len());
    let (half, quick) = (T::from_f64(0.5), T::from_f64(QUICK));
    for i in 0..inp.len() {
        let x = inp[i];
        let slope = match kind {
            Activation::Gelu => {
                let density = T::from_f64(0.5 * SQRT_2_OVER_PI) * (-half * x * x).exp();
                normal_cdf(x) + x * density
            }
            Activation::GeluTanh => {
                let t = tanh_term(x);
                let inner = T::from_f64(SQRT_2_OVER_PI) * (T::ONE + T::from_f64(3.0 * CUBIC) * x * x);
                half * (T::ONE + t) + half * x * (T::ONE - t * t) * inner
            }
            Activation::QuickGelu => {
                let s = sigmoid(quick * x);
                s + quick * x * s * (T::ONE - s)
            }
            Activation::SwiGlu | Activation::GeGlu => unreachable!("gelu: gated activations are a stem of their own"),
        };
        dinp[i] = dout[i] * slope;
    }
}

fn normal_cdf<T: Float>(x: T) -> T {
    T::from_f64(0.5) * (T::ONE + (x * T::from_f64(FRAC_1_SQRT_2)).erf())
}

fn tanh_term<T: Float>(x: T) -> T {
    (T::from_f64(SQRT_2_OVER_PI) * (x + T::from_f64(CUBIC) * x * x * x)).tanh()
}

fn sigmoid<T: Float>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::forward;
    use crate::shapes::Activation::{Gelu, GeluTanh, QuickGelu};

    // x = torch.tensor([-3.0, -0.7, 0.1, 2.5], dtype=torch.float64)
    // print(F.gelu(x), F.gelu(x, approximate="tanh"), x * torch.sigmoid(1.702 * x))
    #[test]
    fn agrees_with_pytorch() {
        let want = [
            [-0.00404969409489031, -0.1693745565561511, 0.053982783727702904, 2.4844758366855597],
            [-0.0036373920817729943, -0.16942986529488321, 0.053982751045435165, 2.484915733910001],
            [-0.01807130970778597, -0.16310604827684988, 0.054244758083618186, 2.46501383495143],
        ];
        for (kind, want) in [Gelu, GeluTanh, QuickGelu].into_iter().zip(want) {
            let mut out = [f64::NAN; 4];
            forward(&mut out, &[-3.0, -0.7, 0.1, 2.5], kind);
            for (got, want) in out.iter().zip(want) {
                assert!((got - want).abs() <= 2e-15, "{kind:?}: {got} should be {want}");
            }
        }
    }
}
