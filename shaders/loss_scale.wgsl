// Dynamic loss scaling (Micikevicius et al. 2018, §3.2): the loss's gradient is multiplied by a power of two, so that f16
// gradients don't underflow, and what comes out is divided by it. Where it overflows, the step is skipped and the scale halved;
// after `interval` good steps in a row it is doubled.
//
//   ring [slots, 4]: training loss, gradient norm, radius loss, loss scale (negative: the step was skipped)
//   health, step   as norm_clip.wgsl and the optimisers know them       log [slots, T], as mars.wgsl writes it
//
//   entry     grid        writes
//   settle    [1, 1, 1]   after norm_clip::clip, which saw scaled gradients: ring[step.slot][1] and [3] = , health = , step's bias
//                         corrections = , scale =
//   observe   [1, 1, 1]   after mars::step: scale =      halved where a radius gradient of log[state.slot] is not finite
//
// A step whose gradient overflows is skipped by setting `bad_step` for this one step: optimisers do nothing then. A loss that
// is not finite, or a gradient at a scale of 1 (what f16 holds is the gradient itself), is no matter of scale and stays bad.
// Adam's bias corrections count the steps that were taken, so they are kept here: 1 − β^(t+1) = β·(1 − β^t) + (1 − β).

struct Params {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    max_norm: f32,
    interval: u32,
    tensors: u32,
}
var<immediate> p: Params;

override WG: u32 = 64u;

// The largest scale: gradients that would bear more are close to zero.
const MOST = 16777216.0;

struct Scale {
    value: f32,
    good: u32,        // steps since the scale changed
    skipping: u32,    // 1 while `bad_step` stands for an overflow
    correction1: f32, // 1 − β₁ᵗ after t steps that were taken
    correction2: f32, // 1 − β₂ᵗ
}
struct Entry { gamma: f32, max_norm: f32, live: u32, gradient: f32 }

@group(0) @binding(0) var<storage, read_write> scale: Scale;
@group(0) @binding(1) var<storage, read_write> ring: array<f32>;
@group(0) @binding(2) var<storage, read_write> health: Health;
@group(0) @binding(3) var<storage, read_write> step: Step;

// By its bits: a compiler may assume that no value is NaN or infinite.
fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}

fn halve() {
    scale.value = max(scale.value * 0.5, 1.0);
    scale.good = 0u;
}

@compute @workgroup_size(1)
fn settle() {
    let slot = 4u * step.slot;
    let used = scale.value;
    let scaled = ring[slot + 1u];
    if scale.skipping != 0u {
        // The last step's overflow; clip leaves a bad step alone.
        scale.skipping = 0u;
        health.bad_step = select(step.step, 0u, is_finite(ring[slot]) && is_finite(scaled));
    }
    ring[slot + 3u] = used;
    if !is_finite(scaled) {
        if health.bad_step == step.step && is_finite(ring[slot]) && used > 1.0 {
            scale.skipping = 1u;
            ring[slot + 3u] = -used;
            halve();
        }
        return;
    }
    let norm = scaled / used;
    ring[slot + 1u] = norm;
    health.grad_scale = select(1.0, min(1.0, p.max_norm / (norm + 1e-6)), p.max_norm > 0.0) / used;
    if health.bad_step != 0u { return; }
    scale.correction1 = p.beta1 * scale.correction1 + p.one_minus_beta1;
    scale.correction2 = p.beta2 * scale.correction2 + p.one_minus_beta2;
    step.bias_correction1 = scale.correction1;
    step.bias_correction2_sqrt = sqrt(scale.correction2);
    scale.good += 1u;
    if scale.good >= p.interval {
        scale.value = min(scale.value * 2.0, MOST);
        scale.good = 0u;
    }
}

@group(0) @binding(1) var<storage, read> log: array<Entry>;
@group(0) @binding(2) var<storage, read> state: Step;

@compute @workgroup_size(WG)
fn observe(@builtin(local_invocation_index) lane: u32) {
    var bad = 0.0;
    for (var t = lane; t < p.tensors; t += WG) {
        if !is_finite(log[state.slot * p.tensors + t].gradient) { bad = 1.0; }
    }
    bad = reduce_max(bad, lane);
    if lane != 0u { return; }
    if bad > 0.0 { halve(); }
}
