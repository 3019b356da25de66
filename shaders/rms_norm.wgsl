// Root mean square norm over the last dimension (Zhang and Sennrich 2019, eq. 4), and its backward.
//
//   x̂ = inp · rstd,   out = x̂ · weight,   rstd = 1 / √(mean(inp²) + eps)
//
//   inp, out, dout, dinp   [rows, cols]        rstd      [rows], saved by forward for backward
//   weight                 [cols]              dweight   [chunks, cols], partial sums
//
//   entry            grid                     writes
//   forward          fold(⌈rows/WG⌉)          out = , rstd =
//   backward_input   fold(⌈rows/WG⌉)          dinp +=   (the residual stream has other gradients to add; = without ACCUMULATE)
//   backward_params  [⌈cols/WG⌉, chunks, 1]   dweight =   sums of `chunk` rows; column_sum adds them up
//   forward_rows, backward_input_rows         the same with one workgroup per row, fold(rows): for GPUs
//
// Lanes, rows and what the host appends are those of layer_norm.wgsl.

struct Params { rows: u32, cols: u32, eps: f32, chunk: u32 }
var<immediate> p: Params;

override ACCUMULATE: bool = true;
override WG: u32 = 64u; // a power of two; 64 is one wave on AMD, two on NVIDIA

fn width() -> f32 { return f32(p.cols * WIDTH); }

@group(0) @binding(0) var<storage, read> inp: array<taken>;
@group(0) @binding(1) var<storage, read> weight: array<elem>;
@group(0) @binding(2) var<storage, read_write> out: array<stored>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = fold_index(group, groups) * WG + lane;
    if row >= p.rows { return; }
    let start = row * p.cols;

    var squares = elem();
    for (var c = 0u; c < p.cols; c++) { let x = elem(inp[start + c]); squares += x * x; }
    let r = 1.0 / sqrt(total(squares) / width() + p.eps);
    for (var c = 0u; c < p.cols; c++) { out[start + c] = stored(elem(inp[start + c]) * r * weight[c]); }
    rstd[row] = r;
}

@compute @workgroup_size(WG)
fn forward_rows(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = fold_index(group, groups);
    if row >= p.rows { return; }
    let start = row * p.cols;

    var squares = elem();
    for (var c = lane; c < p.cols; c += WG) { let x = elem(inp[start + c]); squares += x * x; }
    let r = 1.0 / sqrt(reduce_sum(total(squares), lane) / width() + p.eps);
    for (var c = lane; c < p.cols; c += WG) { out[start + c] = stored(elem(inp[start + c]) * r * weight[c]); }
    if lane == 0u { rstd[row] = r; }
}

@group(0) @binding(2) var<storage, read> dout: array<stored>;
@group(0) @binding(3) var<storage, read> saved_rstd: array<f32>;
@group(0) @binding(4) var<storage, read_write> dinp: array<taken>;

// dinp += rstd · (g − x̂ · mean(g · x̂)),   g = dout · weight
@compute @workgroup_size(WG)
fn backward_input(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = fold_index(group, groups) * WG + lane;
    if row >= p.rows { return; }
    let start = row * p.cols;
    let r = saved_rstd[row];

    var sum_gx = elem();
    for (var c = 0u; c < p.cols; c++) { sum_gx += elem(dout[start + c]) * weight[c] * elem(inp[start + c]) * r; }
    let mean_gx = total(sum_gx) / width();

    for (var c = 0u; c < p.cols; c++) {
        let x_hat = elem(inp[start + c]) * r;
        let before = select(elem(), elem(dinp[start + c]), ACCUMULATE);
        dinp[start + c] = taken(before + r * (elem(dout[start + c]) * weight[c] - x_hat * mean_gx));
    }
}

@compute @workgroup_size(WG)
fn backward_input_rows(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = fold_index(group, groups);
    if row >= p.rows { return; }
    let start = row * p.cols;
    let r = saved_rstd[row];

    var sum_gx = elem();
    for (var c = lane; c < p.cols; c += WG) { sum_gx += elem(dout[start + c]) * weight[c] * elem(inp[start + c]) * r; }
    let mean_gx = reduce_sum(total(sum_gx), lane) / width();

    for (var c = lane; c < p.cols; c += WG) {
        let x_hat = elem(inp[start + c]) * r;
        let before = select(elem(), elem(dinp[start + c]), ACCUMULATE);
        dinp[start + c] = taken(before + r * (elem(dout[start + c]) * weight[c] - x_hat * mean_gx));
    }
}

@group(0) @binding(4) var<storage, read_write> dweight: array<elem>;

@compute @workgroup_size(WG)
fn backward_params(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
    let c = id.x;
    if c >= p.cols { return; }
    let first = group.y * p.chunk;
    var dw = elem();
    for (var row = first; row < min(first + p.chunk, p.rows); row++) {
        dw += elem(dout[row * p.cols + c]) * elem(inp[row * p.cols + c]) * saved_rstd[row];
    }
    dweight[group.y * p.cols + c] = dw;
}
