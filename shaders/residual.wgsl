// Residual add with an optional layer scale (Touvron et al. 2021), and its backward.
//
//   out = inp + gamma · branch
//
//   inp, branch, out, dout, dbranch   [rows, cols]     gamma [cols]     dgamma [chunks, cols], partial sums
//
//   entry            grid                              writes
//   forward          fold(⌈rows·cols/(WG·PER_LANE)⌉)   out =
//   forward_scaled   fold(⌈rows·cols/(WG·PER_LANE)⌉)   out =        with gamma
//   backward_input   fold(⌈rows·cols/(WG·PER_LANE)⌉)   dbranch =    gamma · dout (without gamma, dout itself serves)
//   backward_params  [⌈cols/WG⌉, chunks, 1]            dgamma =     Σ of `chunk` rows of dout · branch; column_sum ends it
//
// The gradient of `inp` is `dout` itself: it stays where it is.
//
// The host appends `alias elem = vec4f;`, or f32 where columns (without gamma: elements) are no multiple of 4; `cols` counts
// these. `alias stored` is what inp, branch, out and their gradients hold, elem or the f16 of that; gamma and sums are f32. A lane's column goes on by `turn`: a CPU adapter divides integers one lane at a time.

struct Params { rows: u32, cols: u32, chunk: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read> branch: array<stored>;
@group(0) @binding(2) var<storage, read> gamma: array<elem>;
@group(0) @binding(3) var<storage, read_write> out: array<stored>;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.rows * p.cols); i += WG) {
        out[i] = stored(elem(inp[i]) + elem(branch[i]));
    }
}

@compute @workgroup_size(WG)
fn forward_scaled(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    let turn = WG % p.cols;
    var c = first % p.cols;
    for (var i = first; i < min(first + WG * PER_LANE, p.rows * p.cols); i += WG) {
        out[i] = stored(elem(inp[i]) + gamma[c] * elem(branch[i]));
        c += turn;
        c -= select(0u, p.cols, c >= p.cols);
    }
}

@group(0) @binding(0) var<storage, read> dout: array<stored>;
@group(0) @binding(3) var<storage, read_write> dbranch: array<stored>;
@group(0) @binding(3) var<storage, read_write> dgamma: array<elem>;

@compute @workgroup_size(WG)
fn backward_input(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    let turn = WG % p.cols;
    var c = first % p.cols;
    for (var i = first; i < min(first + WG * PER_LANE, p.rows * p.cols); i += WG) {
        dbranch[i] = stored(gamma[c] * elem(dout[i]));
        c += turn;
        c -= select(0u, p.cols, c >= p.cols);
    }
}

@compute @workgroup_size(WG)
fn backward_params(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
    let c = id.x;
    if c >= p.cols { return; }
    let first = group.y * p.chunk;
    var sum = elem();
    for (var row = first; row < min(first + p.chunk, p.rows); row++) {
        sum += elem(dout[row * p.cols + c]) * elem(branch[row * p.cols + c]);
    }
    dgamma[group.y * p.cols + c] = sum;
}
