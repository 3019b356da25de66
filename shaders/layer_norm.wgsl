// Layer norm over the last dimension (Ba et al. 2016, eq. 4), and its backward.
//
//   x̂ = (inp − mean) · rstd,   out = x̂ · weight + bias,   rstd = 1 / √(var + eps), var biased
//
//   inp, out, dout, dinp   [rows, cols]        mean, rstd   [rows], saved by forward for backward
//   weight, bias           [cols]              dweight, dbias   [chunks, cols], partial sums
//
//   entry            grid                     writes
//   forward          fold(⌈rows/WG⌉)          out = , mean = , rstd =
//   backward_input   fold(⌈rows/WG⌉)          dinp +=   (the residual stream has other gradients to add; = without ACCUMULATE)
//   backward_params  [⌈cols/WG⌉, chunks, 1]   dweight = , dbias =   sums of `chunk` rows; column_sum adds them up
//   forward_rows, backward_input_rows         the same with one workgroup per row, fold(rows): for GPUs
//
// One lane per row suits CPU adapters: no barrier, and the two passes over a row hit the cache. A GPU wants a workgroup
// per row, so that neighbouring lanes read neighbouring addresses.
//
// The host appends `alias elem = vec4f;`, or f32 where columns are no multiple of 4, with their number WIDTH and `total`, the
// sum of an elem's parts; `cols` counts elems. `alias stored` is what out and dout hold, `alias taken` what inp and dinp hold:
// elem or the f16 of that. The residual stream is f32, inner values of a block are f16 in half precision. All sums are f32.

struct Params { rows: u32, cols: u32, eps: f32, chunk: u32 }
var<immediate> p: Params;

override ACCUMULATE: bool = true;
override WG: u32 = 64u; // a power of two; 64 is one wave on AMD, two on NVIDIA

fn width() -> f32 { return f32(p.cols * WIDTH); }

@group(0) @binding(0) var<storage, read> inp: array<taken>;
@group(0) @binding(1) var<storage, read> weight: array<elem>;
@group(0) @binding(2) var<storage, read> bias: array<elem>;
@group(0) @binding(3) var<storage, read_write> out: array<stored>;
@group(0) @binding(4) var<storage, read_write> mean: array<f32>;
@group(0) @binding(5) var<storage, read_write> rstd: array<f32>;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = fold_index(group, groups) * WG + lane;
    if row >= p.rows { return; }
    let start = row * p.cols;

    var sum = elem();
    for (var c = 0u; c < p.cols; c++) { sum += elem(inp[start + c]); }
    let mu = total(sum) / width();

    // A second pass over the row, not E[x²] − E[x]²: that cancels for rows far from zero.
    var squares = elem();
    for (var c = 0u; c < p.cols; c++) { let d = elem(inp[start + c]) - mu; squares += d * d; }
    let r = 1.0 / sqrt(total(squares) / width() + p.eps);

    for (var c = 0u; c < p.cols; c++) {
        out[start + c] = stored((elem(inp[start + c]) - mu) * r * weight[c] + bias[c]);
    }
    mean[row] = mu;
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

    var sum = elem();
    for (var c = lane; c < p.cols; c += WG) { sum += elem(inp[start + c]); }
    let mu = reduce_sum(total(sum), lane) / width();

    var squares = elem();
    for (var c = lane; c < p.cols; c += WG) { let d = elem(inp[start + c]) - mu; squares += d * d; }
    let r = 1.0 / sqrt(reduce_sum(total(squares), lane) / width() + p.eps);

    for (var c = lane; c < p.cols; c += WG) {
        out[start + c] = stored((elem(inp[start + c]) - mu) * r * weight[c] + bias[c]);
    }
    if lane == 0u { mean[row] = mu; rstd[row] = r; }
}

@group(0) @binding(2) var<storage, read> dout: array<stored>;
@group(0) @binding(3) var<storage, read> saved_mean: array<f32>;
@group(0) @binding(4) var<storage, read> saved_rstd: array<f32>;
@group(0) @binding(5) var<storage, read_write> dinp: array<taken>;

// dinp += rstd · (g − mean(g) − x̂ · mean(g · x̂)),   g = dout · weight
@compute @workgroup_size(WG)
fn backward_input(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = fold_index(group, groups) * WG + lane;
    if row >= p.rows { return; }
    let start = row * p.cols;
    let mu = saved_mean[row];
    let r = saved_rstd[row];

    var sum_g = elem();
    var sum_gx = elem();
    for (var c = 0u; c < p.cols; c++) {
        let g = elem(dout[start + c]) * weight[c];
        sum_g += g;
        sum_gx += g * (elem(inp[start + c]) - mu) * r;
    }
    let mean_g = total(sum_g) / width();
    let mean_gx = total(sum_gx) / width();

    for (var c = 0u; c < p.cols; c++) {
        let x_hat = (elem(inp[start + c]) - mu) * r;
        let before = select(elem(), elem(dinp[start + c]), ACCUMULATE);
        dinp[start + c] = taken(before + r * (elem(dout[start + c]) * weight[c] - mean_g - x_hat * mean_gx));
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
    let mu = saved_mean[row];
    let r = saved_rstd[row];

    var sum_g = elem();
    var sum_gx = elem();
    for (var c = lane; c < p.cols; c += WG) {
        let g = elem(dout[start + c]) * weight[c];
        sum_g += g;
        sum_gx += g * (elem(inp[start + c]) - mu) * r;
    }
    let mean_g = reduce_sum(total(sum_g), lane) / width();
    let mean_gx = reduce_sum(total(sum_gx), lane) / width();

    for (var c = lane; c < p.cols; c += WG) {
        let x_hat = (elem(inp[start + c]) - mu) * r;
        let before = select(elem(), elem(dinp[start + c]), ACCUMULATE);
        dinp[start + c] = taken(before + r * (elem(dout[start + c]) * weight[c] - mean_g - x_hat * mean_gx));
    }
}

@group(0) @binding(5) var<storage, read_write> dweight: array<elem>;
@group(0) @binding(6) var<storage, read_write> dbias: array<elem>;

@compute @workgroup_size(WG)
fn backward_params(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
    let c = id.x;
    if c >= p.cols { return; }
    let first = group.y * p.chunk;
    var dw = elem();
    var db = elem();
    for (var row = first; row < min(first + p.chunk, p.rows); row++) {
        let g = elem(dout[row * p.cols + c]);
        dw += g * (elem(inp[row * p.cols + c]) - saved_mean[row]) * saved_rstd[row];
        db += g;
    }
    dweight[group.y * p.cols + c] = dw;
    dbias[group.y * p.cols + c] = db;
}
