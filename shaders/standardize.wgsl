// Weight standardisation (Qiao et al. 2019), and its backward: each row of a weight with a mean of 0 and a variance of 1.
//
//   out = (inp − mean) · rstd,   rstd = 1 / √(var + eps), var biased
//
//   inp, out, dout, dinp   [rows, cols]: a row is an output channel's weights
//
//   entry      grid                   writes
//   forward    fold(rows)             out =
//   clear      fold(⌈rows·cols/WG⌉)   dout =   zeros, to which the convolution adds the gradient of out
//   backward   fold(rows)             dinp += rstd · (dout − mean(dout) − out · mean(dout · out))
//
// One workgroup per row. Nothing is saved for backward: weights are small beside images, so a row's statistics are computed again.
// The host appends `alias stored = f32;` or f16: what out holds, which a convolution reads. All else is f32.

struct Params { rows: u32, cols: u32, eps: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;

@group(0) @binding(0) var<storage, read> inp: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<stored>;

// The row's mean and 1 / √(var + eps).
fn statistics(start: u32, lane: u32) -> vec2f {
    var sum = 0.0;
    for (var c = lane; c < p.cols; c += WG) { sum += inp[start + c]; }
    let mean = reduce_sum(sum, lane) / f32(p.cols);
    // A second pass over the row, not E[x²] − E[x]²: that cancels for rows far from zero.
    var squares = 0.0;
    for (var c = lane; c < p.cols; c += WG) { let d = inp[start + c] - mean; squares += d * d; }
    return vec2f(mean, 1.0 / sqrt(reduce_sum(squares, lane) / f32(p.cols) + p.eps));
}

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = fold_index(group, groups);
    if row >= p.rows { return; }
    let start = row * p.cols;
    let s = statistics(start, lane);
    for (var c = lane; c < p.cols; c += WG) { out[start + c] = stored((inp[start + c] - s.x) * s.y); }
}

@group(0) @binding(2) var<storage, read_write> cleared: array<f32>;

@compute @workgroup_size(WG)
fn clear(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = fold_index(group, groups) * WG + lane;
    if i < p.rows * p.cols { cleared[i] = 0.0; }
}

@group(0) @binding(2) var<storage, read> dout: array<f32>;
@group(0) @binding(3) var<storage, read_write> dinp: array<f32>;

@compute @workgroup_size(WG)
fn backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = fold_index(group, groups);
    if row >= p.rows { return; }
    let start = row * p.cols;
    let s = statistics(start, lane);
    var sum = 0.0;
    var both = 0.0;
    for (var c = lane; c < p.cols; c += WG) {
        let g = dout[start + c];
        sum += g;
        both += g * (inp[start + c] - s.x) * s.y;
    }
    let through_mean = reduce_sum(sum, lane) / f32(p.cols);
    let through_var = reduce_sum(both, lane) / f32(p.cols);
    for (var c = lane; c < p.cols; c += WG) {
        dinp[start + c] += s.y * (dout[start + c] - through_mean - (inp[start + c] - s.x) * s.y * through_var);
    }
}
