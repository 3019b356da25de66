// Global gradient norm, clipping scale (PyTorch's clip_grad_norm_), and the guard that keeps the last good weights.
//
//   norm = √Σ dw²,   grad_scale = max_norm > 0 ? min(1, max_norm / (norm + 1e-6)) : 1
//
//   dw [len], vectors of four   partials [⌈len/CHUNK⌉]   ring [slots, 4]: training loss, gradient norm, radius loss, unused
//   health: grad_scale, and the first step (counted from 1) whose loss or gradient was not finite, 0 while there is none
//
//   entry     grid                writes
//   squares   fold(⌈len/CHUNK⌉)   partials[first + group] =
//   clip      [1, 1, 1]           health = , ring[step.slot][1] =
//
// Optimisers do nothing once `bad_step` is set: the weights stay as they were before the first bad step, although the
// host learns of it only when it next reads the ring.

struct Params { len: u32, first: u32, max_norm: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;
const CHUNK = 4096u; // vectors of four

@group(0) @binding(0) var<storage, read> dw: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> partials: array<f32>;

@compute @workgroup_size(WG)
fn squares(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunk = fold_index(group, groups);
    let start = chunk * CHUNK;
    var squares = vec4f();
    for (var i = start + lane; i < min(start + CHUNK, p.len); i += WG) { squares += dw[i] * dw[i]; }
    let sum = reduce_sum(squares.x + squares.y + (squares.z + squares.w), lane);
    if lane == 0u && start < p.len { partials[p.first + chunk] = sum; }
}

@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read> step: Step;
@group(0) @binding(2) var<storage, read_write> ring: array<f32>;
@group(0) @binding(3) var<storage, read_write> health: Health;

// By its bits: a compiler may assume that no value is NaN or infinite.
fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}

@compute @workgroup_size(WG)
fn clip(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < p.len; i += WG) { sum += sums[i]; }
    sum = reduce_sum(sum, lane);
    if lane != 0u { return; }
    let norm = sqrt(sum);
    ring[4u * step.slot + 1u] = norm;
    health.grad_scale = select(1.0, min(1.0, p.max_norm / (norm + 1e-6)), p.max_norm > 0.0);
    if health.bad_step == 0u && !(is_finite(norm) && is_finite(ring[4u * step.slot])) { health.bad_step = step.step; }
}
