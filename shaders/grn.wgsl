// Global response normalisation (Woo et al. 2023, ConvNeXt V2), and its backward.
//
//   out = inp · (1 + weight · norm · inverse) + bias
//   norm[b, c] = √(Σ_rows inp²),   inverse[b] = 1 / (mean_c norm[b, c] + eps)
//
//   inp, out, dout, dinp   [B, rows, cols]      weight, bias   [cols]
//   norm   [B, cols] and inverse   [B], saved for backward
//   partial   [B, P, cols], in backward [2, B, P, cols]: each chunk's sums       slope, weight_share, bias_share   [B, cols]
//
//   entry             grid                          writes
//   squares           [⌈cols/lanes⌉, chunks, B]     partial =     Σ inp²
//   finish_norms      fold(B)                       norm =, inverse =
//   forward           [⌈cols/lanes⌉, chunks, B]     out =
//   products          [⌈cols/lanes⌉, chunks, B]     partial =     Σ dout · inp, then Σ dout
//   finish_products   fold(B)                       slope =, weight_share =, bias_share =     column_sum adds the last two up
//   backward_input    [⌈cols/lanes⌉, chunks, B]     dinp = dout · (1 + weight · norm · inverse) + inp · slope
//
//   slope = dnorm / norm,   dnorm = r · weight · inverse − inverse² / cols · Σ_c r · weight · norm,   r = Σ_rows dout · inp
//
// A channel of zeros has a slope of zero, as in PyTorch. The host appends `alias elem = vec4f;`, or f32 where channels are no
// multiple of 4; `cols` counts these. `alias stored` is what images hold, elem or the f16 of that; all else is f32.

struct Params { batch: u32, rows: u32, cols: u32, chunk: u32, partials: u32, eps: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read_write> partial: array<elem>;

@compute @workgroup_size(WG)
fn squares(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    var sum = elem();
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let x = elem(inp[(group.z * p.rows + row) * p.cols + s.col]);
        sum += x * x;
    }
    partial[(group.z * p.partials + group.y * s.step + s.sub) * p.cols + s.col] = sum;
}

@group(0) @binding(2) var<storage, read> saved_norm: array<elem>;
@group(0) @binding(3) var<storage, read> saved_inverse: array<f32>;
@group(0) @binding(4) var<storage, read> weight: array<elem>;
@group(0) @binding(5) var<storage, read> bias: array<elem>;
@group(0) @binding(6) var<storage, read_write> out: array<stored>;

fn factor(image: u32, col: u32) -> elem {
    return 1.0 + weight[col] * saved_norm[image * p.cols + col] * saved_inverse[image];
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    let times = factor(group.z, s.col);
    let plus = bias[s.col];
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let i = (group.z * p.rows + row) * p.cols + s.col;
        out[i] = stored(elem(inp[i]) * times + plus);
    }
}

@group(0) @binding(2) var<storage, read> dout: array<stored>;

@compute @workgroup_size(WG)
fn products(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    var both = elem();
    var sum = elem();
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let i = (group.z * p.rows + row) * p.cols + s.col;
        let g = elem(dout[i]);
        both += g * elem(inp[i]);
        sum += g;
    }
    let i = (group.z * p.partials + group.y * s.step + s.sub) * p.cols + s.col;
    partial[i] = both;
    partial[p.batch * p.partials * p.cols + i] = sum;
}

@group(0) @binding(5) var<storage, read> slope_of: array<elem>;
@group(0) @binding(6) var<storage, read> dout_of: array<stored>;
@group(0) @binding(7) var<storage, read_write> dinp: array<stored>;

@compute @workgroup_size(WG)
fn backward_input(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    let times = factor(group.z, s.col);
    let bend = slope_of[group.z * p.cols + s.col];
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let i = (group.z * p.rows + row) * p.cols + s.col;
        dinp[i] = stored(elem(dout_of[i]) * times + elem(inp[i]) * bend);
    }
}

// ---- one workgroup per image: p.cols counts single channels.

@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read_write> norm: array<f32>;
@group(0) @binding(2) var<storage, read_write> inverse: array<f32>;

// A channel's sum over the chunks of an image, of the first or the second array.
fn total_of(which: u32, image: u32, c: u32) -> f32 {
    let first = (which * p.batch + image) * p.partials * p.cols + c;
    var sum = 0.0;
    for (var part = 0u; part < p.partials; part++) { sum += sums[first + part * p.cols]; }
    return sum;
}

@compute @workgroup_size(WG)
fn finish_norms(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let image = fold_index(group, groups);
    if image >= p.batch { return; }
    var sum = 0.0;
    for (var c = lane; c < p.cols; c += WG) {
        let n = sqrt(total_of(0u, image, c));
        norm[image * p.cols + c] = n;
        sum += n;
    }
    let mean = reduce_sum(sum, lane) / f32(p.cols);
    if lane == 0u { inverse[image] = 1.0 / (mean + p.eps); }
}

@group(0) @binding(1) var<storage, read> norm_of: array<f32>;
@group(0) @binding(2) var<storage, read> inverse_of: array<f32>;
@group(0) @binding(3) var<storage, read> weight_of: array<f32>;
@group(0) @binding(4) var<storage, read_write> slope: array<f32>;
@group(0) @binding(5) var<storage, read_write> weight_share: array<f32>;
@group(0) @binding(6) var<storage, read_write> bias_share: array<f32>;

@compute @workgroup_size(WG)
fn finish_products(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let image = fold_index(group, groups);
    if image >= p.batch { return; }
    let r = inverse_of[image];
    var sum = 0.0;
    for (var c = lane; c < p.cols; c += WG) {
        let i = image * p.cols + c;
        let both = total_of(0u, image, c);
        slope[i] = both;
        weight_share[i] = both * norm_of[i] * r;
        bias_share[i] = total_of(1u, image, c);
        sum += both * weight_of[c] * norm_of[i];
    }
    let through_mean = reduce_sum(sum, lane) * r * r / f32(p.cols);
    for (var c = lane; c < p.cols; c += WG) {
        let i = image * p.cols + c;
        let n = norm_of[i];
        slope[i] = select(0.0, (slope[i] * weight_of[c] * r - through_mean) / n, n > 0.0);
    }
}
