// GELU (Hendrycks & Gimpel 2016) in three forms, and its backward.
//
//   KIND 0  erf     out = x · Φ(x)
//   KIND 1  tanh    out = x/2 · (1 + tanh u) = x · σ(2u),   u = √(2/π) · (x + 0.044715 x³)
//   KIND 2  quick   out = x · σ(1.702 x)
//
//   inp, out, dout, dinp   [len]
//
//   entry      grid                          writes
//   forward    fold(⌈len/(WG·PER_LANE)⌉)     out =
//   backward   fold(⌈len/(WG·PER_LANE)⌉)     dinp =
//
// Several elements a lane, since a workgroup costs a CPU adapter about 0.3 µs.

struct Params { len: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;
override KIND: u32 = 0u;

@group(0) @binding(0) var<storage, read> inp: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

const SQRT_2_OVER_PI = 0.7978845608028654;
const QUICK = 1.702;

// erfc for z ≥ 0 within 1.2e-7 of its value, relative: a Chebyshev fit of ln(erfc(z)·exp(z²)/t) in t = 1/(1 + z/2).
// Relative, because Φ(x) far to the left is all tail.
fn erfc_positive(z: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.5 * z);
    let series = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806
        + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
    return t * exp(series - z * z);
}

// Φ(x), the standard normal distribution function.
fn normal_cdf(x: f32) -> f32 {
    // Beyond 12 the tail is below f32's range; the clamp keeps z² finite.
    let tail = 0.5 * erfc_positive(min(abs(x), 12.0) * 0.7071067811865476);
    return select(tail, 1.0 - tail, x > 0.0);
}

// By exp of a clamped argument: some drivers' own tanh overflows to NaN, and 1 + tanh u cancels far to the left.
fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(-clamp(x, -80.0, 80.0)));
}

fn value(x: f32) -> f32 {
    if KIND == 0u { return x * normal_cdf(x); }
    if KIND == 1u { return x * sigmoid(2.0 * SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)); }
    return x * sigmoid(QUICK * x);
}

fn derivative(x: f32) -> f32 {
    if KIND == 0u { return normal_cdf(x) + x * 0.3989422804014327 * exp(-0.5 * min(x * x, 170.0)); }
    if KIND == 1u {
        let s = sigmoid(2.0 * SQRT_2_OVER_PI * (x + 0.044715 * x * x * x));
        return s + 2.0 * x * s * (1.0 - s) * SQRT_2_OVER_PI * (1.0 + 0.134145 * x * x);
    }
    let s = sigmoid(QUICK * x);
    return s + QUICK * x * s * (1.0 - s);
}

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) { out[i] = value(inp[i]); }
}

@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read_write> dinp: array<f32>;

@compute @workgroup_size(WG)
fn backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) { dinp[i] = dout[i] * derivative(inp[i]); }
}
