// What a model should keep of another, its teacher: features by their mean square distance, or logits by the divergence of softmax at a
// temperature (Hinton et al. 2015; Li & Hoiem 2016), each `weight` times.
//
//   features   loss_b += weight · mean_c (s − t)²                dfeatures = 2·weight/cols · (s − t) · grad_scale
//   logits     loss_b += weight · T² · Σ_c q·(log q − log p)     dlogits += weight · T · (p − q) · grad_scale
//              p = softmax(s/T), q = softmax(t/T)
//
//   student s, teacher t, gradient [B, cols]     loss [B]
//
//   entry             grid         writes
//   features          [B, 1, 1]    loss += , gradient =      one workgroup per sample; grad_scale is 1 / samples of the whole step
//   logits            [B, 1, 1]    loss += , gradient +=
//   features_scaled, logits_scaled                           with the gradient multiplied by loss_scale[0], which loss_scale.wgsl keeps

struct Params { cols: u32, weight: f32, temperature: f32, grad_scale: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;

@group(0) @binding(0) var<storage, read> student: array<f32>;
@group(0) @binding(1) var<storage, read> teacher: array<f32>;
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(4) var<storage, read> loss_scale: array<f32>;

fn of_features(sample: u32, lane: u32, grad_scale: f32) {
    let start = sample * p.cols;
    let share = p.weight / f32(p.cols);
    var sum = 0.0;
    for (var c = lane; c < p.cols; c += WG) {
        let off = student[start + c] - teacher[start + c];
        sum += off * off;
        gradient[start + c] = 2.0 * share * off * grad_scale;
    }
    sum = reduce_sum(sum, lane);
    if lane == 0u { loss[sample] += share * sum; }
}

fn of_logits(sample: u32, lane: u32, grad_scale: f32) {
    let start = sample * p.cols;
    let cold = 1.0 / p.temperature;
    var own = -3.4e38;
    var other = -3.4e38;
    for (var c = lane; c < p.cols; c += WG) {
        own = max(own, student[start + c]);
        other = max(other, teacher[start + c]);
    }
    own = reduce_max(own, lane);
    other = reduce_max(other, lane);
    var own_total = 0.0;
    var other_total = 0.0;
    for (var c = lane; c < p.cols; c += WG) {
        own_total += exp((student[start + c] - own) * cold);
        other_total += exp((teacher[start + c] - other) * cold);
    }
    own_total = reduce_sum(own_total, lane);
    other_total = reduce_sum(other_total, lane);
    let own_log = log(own_total);
    let other_log = log(other_total);
    var sum = 0.0;
    for (var c = lane; c < p.cols; c += WG) {
        let log_p = (student[start + c] - own) * cold - own_log;
        let log_q = (teacher[start + c] - other) * cold - other_log;
        let q = exp(log_q);
        sum += q * (log_q - log_p);
        gradient[start + c] += p.weight * p.temperature * (exp(log_p) - q) * grad_scale;
    }
    sum = reduce_sum(sum, lane);
    if lane == 0u { loss[sample] += p.weight * p.temperature * p.temperature * sum; }
}

@compute @workgroup_size(WG)
fn features(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    of_features(group.x, lane, p.grad_scale);
}

@compute @workgroup_size(WG)
fn features_scaled(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    of_features(group.x, lane, p.grad_scale * loss_scale[0]);
}

@compute @workgroup_size(WG)
fn logits(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    of_logits(group.x, lane, p.grad_scale);
}

@compute @workgroup_size(WG)
fn logits_scaled(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    of_logits(group.x, lane, p.grad_scale * loss_scale[0]);
}
