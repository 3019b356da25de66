// Group norm (Wu & He 2018), and its backward: statistics over the pixels of an image and the channels of a group, which lie side
// by side. A ReLU may follow.
//
//   out = relu(x̂ · weight + bias),   x̂ = (inp − mean) · rstd,   rstd = 1 / √(var + eps), var biased
//
//   inp, out, dout, dinp   [B, rows, cols]      weight, bias   [cols]
//   mean, rstd   [B, cols], those of a group for each of its channels, saved for backward
//   partial   [B, P, cols], in backward [2, B, P, cols]: each chunk's sums
//   slope   [2, B, cols], for each channel its group's means of g · weight · x̂ and of g · weight       shares   [B, cols]
//
//   entry             grid                          writes
//   sums              [⌈cols/lanes⌉, chunks, B]     partial =     Σ inp
//   squares           [⌈cols/lanes⌉, chunks, B]     partial =     Σ (inp − mean)²
//   finish            fold(B·G)                     statistic =   the group's mean of them; with INVERT 1 / √(that + eps)
//   forward           [⌈cols/lanes⌉, chunks, B]     out =
//   products          [⌈cols/lanes⌉, chunks, B]     partial =     Σ g · x̂, then Σ g       g = dout where out > 0 (all without RELU)
//   finish_products   fold(B·G)                     slope =, weight_share =, bias_share =     column_sum adds the last two up
//   backward_input    [⌈cols/lanes⌉, chunks, B]     dinp = rstd · (g · weight − slope₁ − x̂ · slope₀)
//
// The host appends `alias elem = vec4f;`, or f32 where channels are no multiple of 4; `cols` counts these. `alias stored` is what
// images hold, elem or the f16 of that; all else is f32.

struct Params { batch: u32, rows: u32, cols: u32, chunk: u32, partials: u32, eps: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override RELU: bool = false;
override INVERT: bool = false;

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read> saved_mean: array<elem>;
@group(0) @binding(6) var<storage, read_write> partial: array<elem>;

@compute @workgroup_size(WG)
fn sums(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    var sum = elem();
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        sum += elem(inp[(group.z * p.rows + row) * p.cols + s.col]);
    }
    partial[(group.z * p.partials + group.y * s.step + s.sub) * p.cols + s.col] = sum;
}

// A pass of its own, not E[x²] − E[x]²: that cancels for groups far from zero.
@compute @workgroup_size(WG)
fn squares(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    let mu = saved_mean[group.z * p.cols + s.col];
    var sum = elem();
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let d = elem(inp[(group.z * p.rows + row) * p.cols + s.col]) - mu;
        sum += d * d;
    }
    partial[(group.z * p.partials + group.y * s.step + s.sub) * p.cols + s.col] = sum;
}

@group(0) @binding(2) var<storage, read> saved_rstd: array<elem>;
@group(0) @binding(3) var<storage, read> weight: array<elem>;
@group(0) @binding(4) var<storage, read> bias: array<elem>;
@group(0) @binding(5) var<storage, read_write> out: array<stored>;

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    let mu = saved_mean[group.z * p.cols + s.col];
    let times = saved_rstd[group.z * p.cols + s.col] * weight[s.col];
    let plus = bias[s.col];
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let i = (group.z * p.rows + row) * p.cols + s.col;
        var y = (elem(inp[i]) - mu) * times + plus;
        if RELU { y = max(y, elem()); }
        out[i] = stored(y);
    }
}

@group(0) @binding(4) var<storage, read> saved_out: array<stored>; // may be anything readable without RELU
@group(0) @binding(7) var<storage, read> dout: array<stored>;

fn gradient(i: u32) -> elem {
    if RELU { return select(elem(), elem(dout[i]), elem(saved_out[i]) > elem()); }
    return elem(dout[i]);
}

@compute @workgroup_size(WG)
fn products(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    let mu = saved_mean[group.z * p.cols + s.col];
    let r = saved_rstd[group.z * p.cols + s.col];
    var both = elem();
    var sum = elem();
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let i = (group.z * p.rows + row) * p.cols + s.col;
        let g = gradient(i);
        both += g * (elem(inp[i]) - mu) * r;
        sum += g;
    }
    let i = (group.z * p.partials + group.y * s.step + s.sub) * p.cols + s.col;
    partial[i] = both;
    partial[p.batch * p.partials * p.cols + i] = sum;
}

@group(0) @binding(5) var<storage, read> slope_of: array<elem>;
@group(0) @binding(6) var<storage, read_write> dinp: array<stored>;

@compute @workgroup_size(WG)
fn backward_input(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    let c = group.z * p.cols + s.col;
    let mu = saved_mean[c];
    let r = saved_rstd[c];
    let times = weight[s.col];
    let through_var = slope_of[c];
    let through_mean = slope_of[p.batch * p.cols + c];
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let i = (group.z * p.rows + row) * p.cols + s.col;
        dinp[i] = stored(r * (gradient(i) * times - through_mean - (elem(inp[i]) - mu) * r * through_var));
    }
}

// ---- one workgroup per group of an image: q.cols counts single channels, of which a group has `width`.

struct Group { batch: u32, rows: u32, cols: u32, partials: u32, width: u32, eps: f32 }
var<immediate> q: Group;

@group(0) @binding(0) var<storage, read> parts: array<f32>;
@group(0) @binding(1) var<storage, read_write> statistic: array<f32>;

// A channel's sum over the chunks of an image, of the first or the second array.
fn total_of(which: u32, image: u32, c: u32) -> f32 {
    let first = (which * q.batch + image) * q.partials * q.cols + c;
    var sum = 0.0;
    for (var part = 0u; part < q.partials; part++) { sum += parts[first + part * q.cols]; }
    return sum;
}

@compute @workgroup_size(WG)
fn finish(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let place = fold_index(group, groups);
    let per_image = q.cols / q.width;
    if place >= q.batch * per_image { return; }
    let image = place / per_image;
    let first = place % per_image * q.width;
    var sum = 0.0;
    for (var c = lane; c < q.width; c += WG) { sum += total_of(0u, image, first + c); }
    var mean = reduce_sum(sum, lane) / f32(q.rows * q.width);
    if INVERT { mean = 1.0 / sqrt(mean + q.eps); }
    for (var c = lane; c < q.width; c += WG) { statistic[image * q.cols + first + c] = mean; }
}

@group(0) @binding(1) var<storage, read> weight_of: array<f32>;
@group(0) @binding(2) var<storage, read_write> slope: array<f32>;
@group(0) @binding(3) var<storage, read_write> weight_share: array<f32>;
@group(0) @binding(4) var<storage, read_write> bias_share: array<f32>;

@compute @workgroup_size(WG)
fn finish_products(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let place = fold_index(group, groups);
    let per_image = q.cols / q.width;
    if place >= q.batch * per_image { return; }
    let image = place / per_image;
    let first = place % per_image * q.width;
    var products = 0.0;
    var gradients = 0.0;
    for (var c = lane; c < q.width; c += WG) {
        let i = image * q.cols + first + c;
        let both = total_of(0u, image, first + c);
        let sum = total_of(1u, image, first + c);
        weight_share[i] = both;
        bias_share[i] = sum;
        products += both * weight_of[first + c];
        gradients += sum * weight_of[first + c];
    }
    let count = f32(q.rows * q.width);
    let through_var = reduce_sum(products, lane) / count;
    let through_mean = reduce_sum(gradients, lane) / count;
    for (var c = lane; c < q.width; c += WG) {
        let i = image * q.cols + first + c;
        slope[i] = through_var;
        slope[q.batch * q.cols + i] = through_mean;
    }
}
