// A convolution along the channels of one row per image (Wang et al. 2020, efficient channel attention), and its backward.
//
//   out[b, c] = Σ_j inp[b, c + j − h] · weight[j],   h = (k − 1)/2, zero outside
//   dinp[b, c] = Σ_j dout[b, c − j + h] · weight[j]
//   dweight[j] += Σ_{b, c} dout[b, c] · inp[b, c + j − h]
//
//   inp, out, dout, dinp   [B, C]      weight, dweight   [k]
//
//   entry             grid                  writes
//   forward           fold(⌈B·C/WG⌉)        out =
//   backward_input    fold(⌈B·C/WG⌉)        dinp =
//   backward_weight   fold(k)               dweight +=
//
// Everything is f32: one row per image is little. Nothing is saved for backward but inp.

struct Params { batch: u32, channels: u32, kernel: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;

@group(0) @binding(0) var<storage, read> src: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> dst: array<f32>;

// The channel's window, or the one turned round. A channel before the first is a large number without its sign.
fn window(i: u32, turned: bool) -> f32 {
    let c = i % p.channels;
    let half = p.kernel / 2u;
    var sum = 0.0;
    for (var j = 0u; j < p.kernel; j++) {
        let at = select(c + j - half, c + half - j, turned);
        let inside = at < p.channels;
        sum += select(0.0, src[select(0u, i - c + at, inside)] * weight[j], inside);
    }
    return sum;
}

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = fold_index(group, groups) * WG + lane;
    if i < p.batch * p.channels { dst[i] = window(i, false); }
}

@compute @workgroup_size(WG)
fn backward_input(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = fold_index(group, groups) * WG + lane;
    if i < p.batch * p.channels { dst[i] = window(i, true); }
}

@group(0) @binding(1) var<storage, read> dout: array<f32>;

@compute @workgroup_size(WG)
fn backward_weight(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let j = fold_index(group, groups);
    if j >= p.kernel { return; }
    var sum = 0.0;
    for (var i = lane; i < p.batch * p.channels; i += WG) {
        let c = i % p.channels;
        let at = c + j - p.kernel / 2u;
        let inside = at < p.channels;
        sum += select(0.0, src[select(0u, i - c + at, inside)] * dout[i], inside);
    }
    let total = reduce_sum(sum, lane);
    if lane == 0u { dst[j] += total; }
}
