// Batch norm over rows (one row per pixel, one column per channel; Ioffe & Szegedy 2015), and its backward. A shortcut may be
// added behind it, and an activation may follow.
//
//   x̂ = (inp − mean) · rstd,   out = f(x̂ · weight + bias + shortcut),   rstd = 1 / √(var + eps), var biased
//
//   inp, shortcut, out, dout, dinp   [rows, cols]      weight, bias, mean, rstd, running_*, dweight, dbias   [cols]
//   partials   [2, P, cols]: each chunk's mean and sum of squared deviations; in backward, sums of g and of g · x̂
//   told       [3·cols + 1] or in backward [2·cols + 1]: what a rank tells the others; its last value counts the rank's rows
//   all        the same of P ranks
//
//   entry              grid                             writes
//   statistics         [⌈cols/lanes⌉, chunks, 1]        partials =
//   finish_statistics  fold(cols)                       mean =, rstd =, saved for backward; running_mean, running_var moved
//   own_statistics     fold(cols)                       told =           row 0, mean and sum of squares of this rank's rows
//   shared_statistics  fold(⌈cols/WG⌉)                  as finish_statistics, of the rows of all ranks
//   running_statistics fold(⌈cols/WG⌉)                  mean =, rstd =   from the running ones
//   forward            [⌈cols/lanes⌉, chunks, 1]        out =
//   backward_partials  [⌈cols/lanes⌉, chunks, 1]        partials =       g = dout where out > 0 (all of it without RELU)
//   backward_partials_curved  the same                  partials =       g = dout · f'(x̂ · weight + bias), f as ACT says
//   backward_params    fold(cols)                       dweight +=, dbias +=; this batch's own sums go to row 0 of partials
//   backward_own       fold(cols)                       dweight +=, dbias +=, told =   this rank's own sums
//   backward_shared    fold(⌈cols/WG⌉)                  told =           all ranks' sums, times the share of this rank's rows
//   backward_input     [⌈cols/lanes⌉, chunks, 1]        dinp =
//   backward_input_curved     the same                  dinp =
//
//   dinp = rstd · weight · (g − Σ g / rows − x̂ · Σ(g · x̂) / rows)     TRAIN: through the statistics; else rstd · weight · g
//
// `mean` is relative to row 0 of inp in TRAIN. A batch's mean rounded to f32 would be off by more than 1e-3 deviations for a
// channel around 1e3 with a deviation of 1e-2; its distance from one of its own values, which is never more than √rows
// deviations, is not.
//
// The host appends `alias elem = vec4f;`, or f32 where channels are no multiple of 4; `cols` counts these. `alias loaded` and
// `alias stored` are what the matrices hold (src/ops/words.rs), and `alias single` is one element of them; statistics and sums are
// f32. Lanes stand side by side along the columns, and in several rows where there are fewer columns than lanes. No atomics: the
// same bits every time.

struct Params { rows: u32, cols: u32, chunk: u32, partials: u32, eps: f32, momentum: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override TRAIN: bool = true;
override RELU: bool = false;
override ACT: u32 = 0u; // f: itself, ReLU, ReLU6, SiLU, hard swish
override SHORTCUT: bool = false; // binding 5 may be anything readable when off

@group(0) @binding(0) var<storage, read> inp: array<loaded>;
@group(0) @binding(1) var<storage, read_write> partials: array<elem>;

// Rows that are added up around one of their own before their sum joins the others.
const BLOCK = 64u;

@compute @workgroup_size(WG)
fn statistics(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    let zero = elem();
    let origin = from_loaded(inp[s.col]);
    var mean = zero;
    var squares = zero;
    var count = 0.0;
    for (var start = group.y * p.chunk + s.sub; start < end; start += BLOCK * s.step) {
        // Around one of the block's own values nothing cancels, even where the channel is far from zero.
        let own = from_loaded(inp[start * p.cols + s.col]);
        var sum = zero;
        var sum_squares = zero;
        var n = 0.0;
        for (var row = start; row < min(start + BLOCK * s.step, end); row += s.step) {
            let d = from_loaded(inp[row * p.cols + s.col]) - own;
            sum += d;
            sum_squares += d * d;
            n += 1.0;
        }
        // Chan, Golub & LeVeque 1979
        let delta = own - origin + sum / n - mean;
        mean += delta * (n / (count + n));
        squares += max(sum_squares - sum * sum / n, zero) + delta * delta * (count * n / (count + n));
        count += n;
    }
    let i = (group.y * s.step + s.sub) * p.cols + s.col;
    partials[i] = mean;
    partials[p.partials * p.cols + i] = squares;
}

// ---- one workgroup per channel: p.cols counts single channels.

@group(0) @binding(0) var<storage, read> first_row: array<single>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(4) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(5) var<storage, read_write> running_var: array<f32>;

// Rows behind partial result i, when each chunk has `subs` of them.
fn rows_of(i: u32, subs: u32) -> f32 {
    let rows = min(p.chunk, p.rows - i / subs * p.chunk);
    return f32((rows + subs - 1u - i % subs) / subs);
}

// Mean, relative to row 0, and sum of squared deviations of channel c.
fn moments(c: u32, lane: u32) -> vec2f {
    let subs = p.partials / ((p.rows + p.chunk - 1u) / p.chunk);
    var sum = 0.0;
    for (var i = lane; i < p.partials; i += WG) { sum += rows_of(i, subs) * sums[i * p.cols + c]; }
    let mu = reduce_sum(sum, lane) / f32(p.rows);

    var squares = 0.0;
    for (var i = lane; i < p.partials; i += WG) {
        let d = sums[i * p.cols + c] - mu;
        squares += sums[(p.partials + i) * p.cols + c] + rows_of(i, subs) * d * d;
    }
    return vec2f(mu, reduce_sum(squares, lane));
}

@compute @workgroup_size(WG)
fn finish_statistics(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let c = fold_index(group, groups);
    if c >= p.cols { return; }
    let own = moments(c, lane);
    if lane > 0u { return; }
    let mu = own.x;
    let total = own.y;
    mean[c] = mu;
    rstd[c] = 1.0 / sqrt(total / f32(p.rows) + p.eps);
    running_mean[c] = (1.0 - p.momentum) * running_mean[c] + p.momentum * (f32(first_row[c]) + mu);
    running_var[c] = (1.0 - p.momentum) * running_var[c] + p.momentum * (total / (f32(p.rows) - 1.0));
}

@group(0) @binding(4) var<storage, read_write> told: array<f32>;

@compute @workgroup_size(WG)
fn own_statistics(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let c = fold_index(group, groups);
    if c >= p.cols { return; }
    let own = moments(c, lane);
    if lane > 0u { return; }
    told[c] = f32(first_row[c]);
    told[p.cols + c] = own.x;
    told[2u * p.cols + c] = own.y;
    if c == 0u { told[3u * p.cols] = f32(p.rows); }
}

@group(0) @binding(1) var<storage, read_write> all: array<f32>;

// Rank by rank, around row 0 of the first: running statistics then have the same bits on every rank.
@compute @workgroup_size(WG)
fn shared_statistics(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let c = fold_index(group, groups) * WG + lane;
    if c >= p.cols { return; }
    let origin = all[c];
    var mu = 0.0;
    var total = 0.0;
    var count = 0.0;
    for (var rank = 0u; rank < p.partials; rank++) {
        let at = rank * (3u * p.cols + 1u);
        let n = all[at + 3u * p.cols];
        let delta = all[at + c] - origin + all[at + p.cols + c] - mu;
        mu += delta * (n / (count + n));
        total += all[at + 2u * p.cols + c] + delta * delta * (count * n / (count + n));
        count += n;
    }
    mean[c] = origin - f32(first_row[c]) + mu;
    rstd[c] = 1.0 / sqrt(total / count + p.eps);
    running_mean[c] = (1.0 - p.momentum) * running_mean[c] + p.momentum * (origin + mu);
    running_var[c] = (1.0 - p.momentum) * running_var[c] + p.momentum * (total / (count - 1.0));
}

@group(0) @binding(0) var<storage, read> saved_running_mean: array<f32>;
@group(0) @binding(1) var<storage, read> saved_running_var: array<f32>;

@compute @workgroup_size(WG)
fn running_statistics(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let c = fold_index(group, groups) * WG + lane;
    if c >= p.cols { return; }
    mean[c] = saved_running_mean[c];
    rstd[c] = 1.0 / sqrt(saved_running_var[c] + p.eps);
}

@group(0) @binding(2) var<storage, read_write> dweight: array<f32>;
@group(0) @binding(3) var<storage, read_write> dbias: array<f32>;

// Sums of g and of g · x̂ of channel c.
fn gradient_sums(c: u32, lane: u32) -> vec2f {
    var db = 0.0;
    var dw = 0.0;
    for (var i = lane; i < p.partials; i += WG) {
        db += sums[i * p.cols + c];
        dw += sums[(p.partials + i) * p.cols + c];
    }
    db = reduce_sum(db, lane);
    return vec2f(db, reduce_sum(dw, lane));
}

@compute @workgroup_size(WG)
fn backward_params(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let c = fold_index(group, groups);
    if c >= p.cols { return; }
    let own = gradient_sums(c, lane);
    if lane > 0u { return; }
    dbias[c] += own.x;
    dweight[c] += own.y;
    sums[c] = own.x;
    sums[p.partials * p.cols + c] = own.y;
}

@compute @workgroup_size(WG)
fn backward_own(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let c = fold_index(group, groups);
    if c >= p.cols { return; }
    let own = gradient_sums(c, lane);
    if lane > 0u { return; }
    dbias[c] += own.x;
    dweight[c] += own.y;
    told[c] = own.x;
    told[p.cols + c] = own.y;
    if c == 0u { told[2u * p.cols] = f32(p.rows); }
}

// What follows divides by this rank's rows.
@compute @workgroup_size(WG)
fn backward_shared(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let c = fold_index(group, groups) * WG + lane;
    if c >= p.cols { return; }
    var db = 0.0;
    var dw = 0.0;
    var count = 0.0;
    for (var rank = 0u; rank < p.partials; rank++) {
        let at = rank * (2u * p.cols + 1u);
        db += all[at + c];
        dw += all[at + p.cols + c];
        count += all[at + 2u * p.cols];
    }
    let share = f32(p.rows) / count;
    told[c] = db * share;
    told[p.cols + c] = dw * share;
}

// ---- elementwise, one lane per column.

@group(0) @binding(1) var<storage, read> saved_mean: array<elem>;
@group(0) @binding(2) var<storage, read> saved_rstd: array<elem>;
@group(0) @binding(3) var<storage, read> weight: array<elem>;
@group(0) @binding(4) var<storage, read> bias: array<elem>;
@group(0) @binding(5) var<storage, read> shortcut: array<loaded>;
@group(0) @binding(6) var<storage, read_write> out: array<stored>;

fn behind(x: elem) -> elem {
    if ACT == 1u { return max(x, elem()); }
    if ACT == 2u { return clamp(x, elem(), elem(6.0)); }
    if ACT == 3u { return x / (1.0 + exp(-x)); }
    if ACT == 4u { return x * clamp(x + 3.0, elem(), elem(6.0)) / 6.0; }
    return x;
}

fn origin_of(col: u32) -> elem {
    if TRAIN { return from_loaded(inp[col]); }
    return elem();
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    let origin = origin_of(s.col);
    let mu = saved_mean[s.col];
    let scale = saved_rstd[s.col] * weight[s.col];
    let b = bias[s.col];
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let i = row * p.cols + s.col;
        var y = (from_loaded(inp[i]) - origin - mu) * scale + b;
        if SHORTCUT { y += from_loaded(shortcut[i]); }
        out[i] = to_stored(behind(y));
    }
}

@group(0) @binding(4) var<storage, read> dout: array<loaded>;
@group(0) @binding(5) var<storage, read> saved_out: array<loaded>; // may be anything readable without RELU

// Zeros of elem alone: beside those of stored, which may be another name of the same type, naga would write the function for
// them twice in HLSL.
fn gradient(i: u32) -> elem {
    if RELU { return select(elem(), from_loaded(dout[i]), from_loaded(saved_out[i]) > elem()); }
    return from_loaded(dout[i]);
}

@group(0) @binding(6) var<storage, read_write> dpartials: array<elem>;

@compute @workgroup_size(WG)
fn backward_partials(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    let origin = origin_of(s.col);
    let mu = saved_mean[s.col];
    var db = elem();
    var dw = elem();
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let i = row * p.cols + s.col;
        let g = gradient(i);
        db += g;
        dw += g * (from_loaded(inp[i]) - origin - mu);
    }
    let i = (group.y * s.step + s.sub) * p.cols + s.col;
    dpartials[i] = db;
    dpartials[p.partials * p.cols + i] = dw * saved_rstd[s.col];
}

@group(0) @binding(6) var<storage, read> totals: array<elem>;
@group(0) @binding(7) var<storage, read_write> dinp: array<stored>;

@compute @workgroup_size(WG)
fn backward_input(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    let origin = origin_of(s.col);
    let mu = saved_mean[s.col];
    let r = saved_rstd[s.col];
    let scale = r * weight[s.col];
    let mean_g = totals[s.col] / f32(p.rows);
    let mean_gx = totals[p.partials * p.cols + s.col] / f32(p.rows) * r;
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let i = row * p.cols + s.col;
        var g = gradient(i);
        if TRAIN { g -= mean_g + (from_loaded(inp[i]) - origin - mu) * mean_gx; }
        dinp[i] = to_stored(scale * g);
    }
}

// ---- the same behind an activation, whose slope is computed from the norm's result: that is not saved.

@group(0) @binding(5) var<storage, read> own_bias: array<elem>;

fn slope(x: elem) -> elem {
    if ACT == 2u { return select(elem(), elem(1.0), (x > elem()) & (x < elem(6.0))); }
    if ACT == 3u {
        let gate = 1.0 / (1.0 + exp(-x));
        return gate * (1.0 + x * (1.0 - gate));
    }
    // 2x + 3 is exact where it cancels, x/3 + 1/2 is not.
    let bent = select((2.0 * x + 3.0) / 6.0, elem(1.0), x >= elem(3.0));
    return select(bent, elem(), x <= elem(-3.0));
}

@compute @workgroup_size(WG)
fn backward_partials_curved(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    let origin = origin_of(s.col);
    let mu = saved_mean[s.col];
    let scale = saved_rstd[s.col] * weight[s.col];
    let b = own_bias[s.col];
    var db = elem();
    var dw = elem();
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let i = row * p.cols + s.col;
        let x = from_loaded(inp[i]) - origin - mu;
        let g = from_loaded(dout[i]) * slope(x * scale + b);
        db += g;
        dw += g * x;
    }
    let i = (group.y * s.step + s.sub) * p.cols + s.col;
    dpartials[i] = db;
    dpartials[p.partials * p.cols + i] = dw * saved_rstd[s.col];
}

@compute @workgroup_size(WG)
fn backward_input_curved(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    let origin = origin_of(s.col);
    let mu = saved_mean[s.col];
    let r = saved_rstd[s.col];
    let scale = r * weight[s.col];
    let b = own_bias[s.col];
    let mean_g = totals[s.col] / f32(p.rows);
    let mean_gx = totals[p.partials * p.cols + s.col] / f32(p.rows) * r;
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let i = row * p.cols + s.col;
        let x = from_loaded(inp[i]) - origin - mu;
        var g = from_loaded(dout[i]) * slope(x * scale + b);
        if TRAIN { g -= mean_g + x * mean_gx; }
        dinp[i] = to_stored(scale * g);
    }
}
