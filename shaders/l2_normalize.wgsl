// Rows at unit length, and its backward: what CLIP's heads compare.
//
//   out = inp · scale,   scale = 1 / max(‖inp‖, 1e-12)           dinp = (dout − out · ⟨out, dout⟩) · scale
//
//   inp, out, dout, dinp [rows, cols]      scale [rows], saved by forward
//
//   entry      grid           writes
//   forward    fold(rows)     out = , scale =      one workgroup per row
//   backward   fold(rows)     dinp =               one workgroup per row
//
// A row of zeros stays zero, as in PyTorch's `normalize`.

struct Params { rows: u32, cols: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;

@group(0) @binding(0) var<storage, read> inp: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<storage, read_write> scale: array<f32>;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = fold_index(group, groups);
    if row >= p.rows { return; }
    let start = row * p.cols;
    // Relative to the largest element, so that no square overflows.
    var largest = 0.0;
    for (var c = lane; c < p.cols; c += WG) { largest = max(largest, abs(inp[start + c])); }
    let peak = max(reduce_max(largest, lane), 1.0e-30);
    var sum = 0.0;
    for (var c = lane; c < p.cols; c += WG) {
        let x = inp[start + c] / peak;
        sum += x * x;
    }
    let own = 1.0 / max(peak * sqrt(reduce_sum(sum, lane)), 1.0e-12);
    for (var c = lane; c < p.cols; c += WG) { out[start + c] = inp[start + c] * own; }
    if lane == 0u { scale[row] = own; }
}

@group(0) @binding(0) var<storage, read> dout: array<f32>;
@group(0) @binding(1) var<storage, read> saved_out: array<f32>;
@group(0) @binding(2) var<storage, read> saved_scale: array<f32>;
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
    var sum = 0.0;
    for (var c = lane; c < p.cols; c += WG) { sum += saved_out[start + c] * dout[start + c]; }
    let along = reduce_sum(sum, lane);
    for (var c = lane; c < p.cols; c += WG) {
        dinp[start + c] = (dout[start + c] - saved_out[start + c] * along) * saved_scale[row];
    }
}
