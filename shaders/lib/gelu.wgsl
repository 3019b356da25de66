// GELU and its derivative, as gelu.wgsl defines them. The host appends `const KIND = …u;` and `alias elem = vec4f;` or f32.

const SQRT_2_OVER_PI = 0.7978845608028654;
const QUICK = 1.702;

// erfc for z ≥ 0 within 1.2e-7 of its value, relative: a Chebyshev fit of ln(erfc(z)·exp(z²)/t) in t = 1/(1 + z/2).
// Relative, because Φ(x) far to the left is all tail.
fn erfc_positive(z: elem) -> elem {
    let t = 1.0 / (1.0 + 0.5 * z);
    let series = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806
        + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
    return t * exp(series - z * z);
}

// Φ(x), the standard normal distribution function.
fn normal_cdf(x: elem) -> elem {
    // Beyond 12 the tail is below f32's range; the clamp keeps z² finite.
    let tail = 0.5 * erfc_positive(min(abs(x), elem(12.0)) * 0.7071067811865476);
    return select(tail, 1.0 - tail, x > elem(0.0));
}

// By exp of a clamped argument: some drivers' own tanh overflows to NaN, and 1 + tanh u cancels far to the left.
fn sigmoid(x: elem) -> elem {
    return 1.0 / (1.0 + exp(-clamp(x, elem(-80.0), elem(80.0))));
}

fn gelu(x: elem) -> elem {
    if KIND == 0u { return x * normal_cdf(x); }
    if KIND == 1u { return x * sigmoid(2.0 * SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)); }
    return x * sigmoid(QUICK * x);
}

fn gelu_derivative(x: elem) -> elem {
    if KIND == 0u { return normal_cdf(x) + x * 0.3989422804014327 * exp(-0.5 * min(x * x, elem(170.0))); }
    if KIND == 1u {
        let s = sigmoid(2.0 * SQRT_2_OVER_PI * (x + 0.044715 * x * x * x));
        return s + 2.0 * x * s * (1.0 - s) * SQRT_2_OVER_PI * (1.0 + 0.134145 * x * x);
    }
    let s = sigmoid(QUICK * x);
    return s + QUICK * x * s * (1.0 - s);
}
