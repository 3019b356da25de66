// Sigmoid and binary cross-entropy in one, for images that may have any number of the classes, as PyTorch's
// BCEWithLogitsLoss(pos_weight) with its mean over samples and classes. With a target y of 0 to 1 and a weight w of positives:
//
//   loss_b = 1/C · Σ_c [w_c·y·ln(1 + exp(−x)) + (1 − y)·ln(1 + exp(x))]
//   dlogits_bc = ((1 − y)·σ(x) − w_c·y·σ(−x)) · grad_scale / C
//
//   logits, dlogits, targets [B, C]   positive [C], the weights   loss [B]
//
//   entry     grid         writes
//   forward   [B, 1, 1]    loss = , dlogits =      one workgroup per sample; grad_scale is 1 / samples of the whole step
//   forward_scaled            the same with dlogits multiplied by loss_scale[0], which loss_scale.wgsl keeps
//
// The losses go to the ring by `record` of cross_entropy.wgsl.

struct Params { classes: u32, grad_scale: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<f32>;
@group(0) @binding(2) var<storage, read> positive: array<f32>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;
@group(0) @binding(4) var<storage, read_write> dlogits: array<f32>;

// ln(1 + e) for e from 0 to 1. The logarithm of a number near 1 would lose the digits of a small e; with s = e/(2 + e) it is
// 2·artanh(s) = 2s·(1 + s²/3 + s⁴/5 + …), and s² ≤ 1/9.
fn ln_1p(e: f32) -> f32 {
    let s = e / (2.0 + e);
    let z = s * s;
    var sum = 1.0 / 17.0;
    sum = sum * z + 1.0 / 15.0;
    sum = sum * z + 1.0 / 13.0;
    sum = sum * z + 1.0 / 11.0;
    sum = sum * z + 1.0 / 9.0;
    sum = sum * z + 1.0 / 7.0;
    sum = sum * z + 1.0 / 5.0;
    sum = sum * z + 1.0 / 3.0;
    return 2.0 * s * (sum * z + 1.0);
}

fn run(sample: u32, lane: u32, grad_scale: f32) {
    let start = sample * p.classes;
    let share = 1.0 / f32(p.classes);
    var total = 0.0;
    for (var c = lane; c < p.classes; c += WG) {
        let x = logits[start + c];
        let y = targets[start + c];
        let own = positive[c] * y;
        let e = exp(-abs(x));
        let tail = ln_1p(e);
        total += own * (max(-x, 0.0) + tail) + (1.0 - y) * (max(x, 0.0) + tail);
        let near = 1.0 / (1.0 + e);
        let far = e * near;
        let sigma = select(far, near, x >= 0.0);
        let other = select(near, far, x >= 0.0);
        dlogits[start + c] = ((1.0 - y) * sigma - own * other) * share * grad_scale;
    }
    total = reduce_sum(total, lane);
    if lane == 0u { loss[sample] = total * share; }
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    run(group.x, lane, p.grad_scale);
}

@group(0) @binding(5) var<storage, read> loss_scale: array<f32>;

@compute @workgroup_size(WG)
fn forward_scaled(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    run(group.x, lane, p.grad_scale * loss_scale[0]);
}
