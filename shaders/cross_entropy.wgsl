// Softmax and cross-entropy in one, with PyTorch's label smoothing ε.
//
//   target_c = (1 − ε)·[c = label] + ε/C,   loss_b = lse_b − Σ_c target_c · logits_bc,   dlogits = (softmax − target) · grad_scale
//
//   logits, dlogits, targets [B, C]   labels [B]   loss [B]   ring [slots, 4]
//
//   entry     grid         writes
//   forward   [B, 1, 1]    loss = , dlogits =      one workgroup per sample; grad_scale is 1 / samples of the whole step
//   forward_scaled            the same with dlogits multiplied by loss_scale[0], which loss_scale.wgsl keeps
//   forward_targets           with targets of any sum T_b in place of labels and smoothing:
//                             loss_b = T_b·lse_b − Σ_c target_bc·logits_bc, dlogits = (T_b·softmax − target) · grad_scale
//   forward_targets_scaled    the two together
//   record    [1, 1, 1]    ring[step.slot][channel] (+)= grad_scale · Σ_b loss_b      += from the second micro-batch on

struct Params { batch: u32, classes: u32, smoothing: f32, grad_scale: f32, channel: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;
@group(0) @binding(3) var<storage, read_write> dlogits: array<f32>;

fn largest(start: u32, lane: u32) -> f32 {
    var peak = -3.4e38;
    for (var c = lane; c < p.classes; c += WG) { peak = max(peak, logits[start + c]); }
    return reduce_max(peak, lane);
}

fn run(sample: u32, lane: u32, grad_scale: f32) {
    let start = sample * p.classes;
    let peak = largest(start, lane);
    var total = 0.0;
    var linear = 0.0;
    for (var c = lane; c < p.classes; c += WG) {
        let shifted = logits[start + c] - peak;
        total += exp(shifted);
        linear += shifted;
    }
    total = reduce_sum(total, lane);
    linear = reduce_sum(linear, lane);

    let label = labels[sample];
    let share = p.smoothing / f32(p.classes);
    for (var c = lane; c < p.classes; c += WG) {
        let soft = exp(logits[start + c] - peak) / total;
        dlogits[start + c] = (soft - share - select(0.0, 1.0 - p.smoothing, c == label)) * grad_scale;
    }
    // Everything is shifted by the peak, which cancels, since the targets sum to one.
    if lane == 0u {
        loss[sample] = log(total) - (1.0 - p.smoothing) * (logits[start + label] - peak) - share * linear;
    }
}

@group(0) @binding(1) var<storage, read> targets: array<f32>;

fn run_targets(sample: u32, lane: u32, grad_scale: f32) {
    let start = sample * p.classes;
    let peak = largest(start, lane);
    var total = 0.0;
    var mass = 0.0;
    var linear = 0.0;
    for (var c = lane; c < p.classes; c += WG) {
        let shifted = logits[start + c] - peak;
        let own = targets[start + c];
        total += exp(shifted);
        mass += own;
        linear += own * shifted;
    }
    total = reduce_sum(total, lane);
    mass = reduce_sum(mass, lane);
    linear = reduce_sum(linear, lane);
    for (var c = lane; c < p.classes; c += WG) {
        let soft = exp(logits[start + c] - peak) / total;
        dlogits[start + c] = (mass * soft - targets[start + c]) * grad_scale;
    }
    // The shift by the peak is in both terms, mass times.
    if lane == 0u { loss[sample] = mass * log(total) - linear; }
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    run(group.x, lane, p.grad_scale);
}

@group(0) @binding(4) var<storage, read> loss_scale: array<f32>;

@compute @workgroup_size(WG)
fn forward_scaled(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    run(group.x, lane, p.grad_scale * loss_scale[0]);
}

@compute @workgroup_size(WG)
fn forward_targets(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    run_targets(group.x, lane, p.grad_scale);
}

@compute @workgroup_size(WG)
fn forward_targets_scaled(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    run_targets(group.x, lane, p.grad_scale * loss_scale[0]);
}

@group(0) @binding(0) var<storage, read> losses: array<f32>;
@group(0) @binding(1) var<storage, read> step: Step;
@group(0) @binding(2) var<storage, read_write> ring: array<f32>;

@compute @workgroup_size(WG)
fn record(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var b = lane; b < p.batch; b += WG) { sum += losses[b]; }
    sum = reduce_sum(sum, lane);
    if lane == 0u {
        let at = 4u * step.slot + p.channel;
        ring[at] = select(ring[at], 0.0, step.micro == 0u) + sum * p.grad_scale;
    }
}
