// Multi-head self-attention (Vaswani et al. 2017, eq. 1), fused forward and backward: the N × N probabilities are never
// stored, the backward computes them again from `lse` (Dao et al. 2022, algorithms 1 and 4).
//
//   s_ij = q_i · k_j / √HD,   lse_i = ln Σ_j exp(s_ij),   P_ij = exp(s_ij − lse_i),   out_i = Σ_j P_ij v_j
//   delta_i = dout_i · out_i,   dS_ij = P_ij (dout_i · v_j − delta_i)
//   dq_i = Σ_j dS_ij k_j / √HD,   dk_j = Σ_i dS_ij q_i / √HD,   dv_j = Σ_i P_ij dout_i
//
//   qkv, dqkv [B, N, 3·H·HD]: q of all heads, then k, then v, as timm lays them out
//   out, dout [B, N, H·HD]       lse, delta [B, H, N], saved for backward
//
//   entry            grid                            writes
//   forward          [⌈N/32⌉, B·H, ⌈HD/256⌉]         out = , lse =                rows are queries
//   backward_query   [⌈N/32⌉, B·H, ⌈HD/128⌉]         dqkv's q part = , delta =    rows are queries
//   backward_key     [⌈N/32⌉, B·H, ⌈HD/64⌉]          dqkv's k and v parts =       rows are keys; after backward_query
//   backward_scores  [⌈N/32⌉, H, ⌈N/64⌉]             dscores = (+= if `added`)    Σ_b dS; rows are queries; after backward_query
//   backward_table   [⌈T·H/128⌉, 1, 1]               drelative +=                 T = (2G − 1)² + 3, lib/relative.wgsl
//
// The host appends `const HD = …u;` (the head's width) and what the bindings hold: `alias word`, f32 or f16, a vector of four if
// HD is a multiple of 4; `const WIDTH`, its elements; `whole` and `packed` between a word and a vector. Sums, lse and delta
// are f32. And it appends `scored` and `scored_keys`, which make scores of products: times `scale`, and with a learned bias for
// each offset if there is one (lib/relative.wgsl), which is added to s_ij, or hidden by a mask (lib/mask.wgsl). dscores [H, N, N]   drelative [T, H]
//
// A workgroup has 32 rows and walks over the columns 64 at a time: keys for a row of queries, queries for a row of keys.
// Products of both go through workgroup memory as in lib/tile.wgsl: 4 × 4 scores for each thread, then 4 rows and 4 columns
// of the result per chunk. What a thread holds does not depend on HD but for the results, so nothing spills: one query per
// lane, with its whole head in registers, spilled on every GPU from HD = 64 on.

// quads: of a head, HD4. As a number that compilers do not know it keeps them from unrolling loops over products: Intel's then
// has too many loads on their way, and spills.
struct Params { tokens: u32, heads: u32, scale: f32, quads: u32, batch: u32, grid: u32, added: u32 }
var<immediate> p: Params;

const THREADS = 128u;
const ROWS = 32u;
const COLS = 64u;
const HD4 = (HD + 3u) / 4u;
const STEPS = vec4u(0u, 1u, 2u, 3u);
// How many times 64 columns of the head a workgroup computes, which for keys is once: more would not fit into the registers
// of Intel's GPUs.
const CHUNKS = (HD + 63u) / 64u;
const FORWARD_CHUNKS = min(CHUNKS, 4u);
const QUERY_CHUNKS = min(CHUNKS, 2u);

// A product's operands, 32 of the head's columns at a time: [32, 8 quads of rows], then [32, 16 quads of columns]. In the
// same place afterwards: the weights [64 columns, 8 quads of rows], then what they weigh, [32, 16 quads of the head].
var<workgroup> tile: array<vec4f, 1024>;
const ROW_TILE = 0u;
const COL_TILE = 256u;
const REDUCED = 768u; // a vector for each thread
const VALUES = 512u;

@group(0) @binding(0) var<storage, read> qkv: array<word>;
@group(0) @binding(1) var<storage, read_write> out: array<word>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;

// What a thread works on: image, head, the first row of its workgroup, its quads of rows and of columns, and the first quad
// of the head that its workgroup computes.
struct Place { b: u32, h: u32, row: u32, y: u32, x: u32, first: u32 }

fn place_of(group: vec3u, thread: u32, chunks: u32) -> Place {
    return Place(group.y / p.heads, group.y % p.heads, group.x * ROWS, thread / 16u, thread % 16u, group.z * chunks * 16u);
}

// First element of token `t` in a tensor of `parts` · H·HD columns, at the head of part `part`.
fn head_start(at: Place, t: u32, parts: u32, part: u32) -> u32 {
    return ((at.b * p.tokens + t) * parts + part) * p.heads * HD + at.h * HD;
}

fn stat(at: Place, t: u32) -> u32 { return (at.b * p.heads + at.h) * p.tokens + t; }
fn last(t: u32) -> u32 { return min(t, p.tokens - 1u); }

// Elements 4·i to 4·i+3 of the head at `start`; zero past the head's end.
fn load_qkv(start: u32, i: u32) -> vec4f {
    if WIDTH == 4u { return select(vec4f(), whole(qkv[start / 4u + min(i, HD4 - 1u)]), HD % 64u == 0u || i < HD4); }
    let j = start + min(4u * i + STEPS, vec4u(HD - 1u));
    let v = vec4f(whole(qkv[j.x]).x, whole(qkv[j.y]).x, whole(qkv[j.z]).x, whole(qkv[j.w]).x);
    return select(vec4f(), v, 4u * i + STEPS < vec4u(HD));
}

// Four tokens from `t` at quad `i` of the head: column c is element 4·i + c, its vector the tokens. Tokens past the end
// repeat the last one; their scores are masked, their rows not stored.
fn block_qkv(at: Place, part: u32, t: u32, i: u32) -> mat4x4f {
    return transpose(mat4x4f(
        load_qkv(head_start(at, last(t), 3u, part), i), load_qkv(head_start(at, last(t + 1u), 3u, part), i),
        load_qkv(head_start(at, last(t + 2u), 3u, part), i), load_qkv(head_start(at, last(t + 3u), 3u, part), i)));
}

// The exclusive or spreads eight blocks along the head over all banks.
fn stage(start: u32, quads: u32, quad: u32, i: u32, block: mat4x4f) {
    let j = start + 4u * i * quads + (quad ^ i);
    tile[j] = block[0];
    tile[j + quads] = block[1];
    tile[j + 2u * quads] = block[2];
    tile[j + 3u * quads] = block[3];
}

fn outer(rows: vec4f, cols: vec4f) -> mat4x4f {
    return mat4x4f(cols * rows.x, cols * rows.y, cols * rows.z, cols * rows.w);
}

// Adds the product over the staged quads of the head. Column r of a matrix is a row, its vector four columns.
fn multiply(before: mat4x4f, at: Place, quads: u32) -> mat4x4f {
    var s = before;
    for (var i = 0u; i < quads; i++) {
        let r = ROW_TILE + 32u * i + (at.y ^ i);
        let c = COL_TILE + 64u * i + (at.x ^ i);
        s += outer(tile[r], tile[c]);
        s += outer(tile[r + 8u], tile[c + 16u]);
        s += outer(tile[r + 16u], tile[c + 32u]);
        s += outer(tile[r + 24u], tile[c + 48u]);
    }
    return s;
}

// The products of the workgroup's rows, in `row_part` of qkv, with 64 tokens from `col` on, in `col_part`. Rows are staged
// after columns: with both on their way at once, Intel's compiler spilled in backward.
fn scores(at: Place, row_part: u32, col_part: u32, col: u32, thread: u32) -> mat4x4f {
    var s = mat4x4f();
    let i = thread % 8u;
    for (var d = 0u; d < p.quads; d += 8u) {
        workgroupBarrier(); // the last tile has been read by everyone
        for (var u = thread; u < 192u; u += THREADS) {
            let is_row = u >= THREADS;
            let quad = u % THREADS / 8u;
            let block = block_qkv(at, select(col_part, row_part, is_row), select(col, at.row, is_row) + quad * 4u, d + i);
            stage(select(COL_TILE, ROW_TILE, is_row), select(16u, 8u, is_row), quad, i, block);
        }
        workgroupBarrier();
        s = multiply(s, at, min(8u, p.quads - d));
    }
    return s;
}

// `x` with zeros in columns past the end, which begin at `col` + 4·x.
fn inside(x: mat4x4f, col: u32, at: Place) -> mat4x4f {
    let cols = vec4u(col + at.x * 4u) + STEPS < vec4u(p.tokens);
    let none = vec4f();
    return mat4x4f(select(none, x[0], cols), select(none, x[1], cols), select(none, x[2], cols), select(none, x[3], cols));
}

// Leaves a thread's 4 × 4 weights for everyone, by columns. The tile must be free.
fn put_weights(at: Place, weights: mat4x4f) {
    let by_col = transpose(weights);
    let j = 32u * at.x + (at.y ^ (at.x % 8u));
    tile[j] = by_col[0];
    tile[j + 8u] = by_col[1];
    tile[j + 16u] = by_col[2];
    tile[j + 24u] = by_col[3];
}

// Results: column r of a matrix is a row, its vector four columns of the head; a matrix for each chunk of 64.
struct Sums { a: mat4x4f, b: mat4x4f, c: mat4x4f, d: mat4x4f }

// Adds the weights of 32 columns, from `first` of the workgroup's 64 on, times the staged values. `columns` are left.
fn weigh(before: mat4x4f, at: Place, first: u32, columns: u32) -> mat4x4f {
    var sum = before;
    let quads = min(8u, (columns + 3u) / 4u);
    for (var i = 0u; i < quads; i++) {
        let w = 8u * first + 32u * i + (at.y ^ i);
        let v = VALUES + 64u * i + at.x;
        sum += outer(tile[w], tile[v]);
        sum += outer(tile[w + 8u], tile[v + 16u]);
        sum += outer(tile[w + 16u], tile[v + 32u]);
        sum += outer(tile[w + 24u], tile[v + 48u]);
    }
    return sum;
}

// Adds the weights times 64 columns of the head, the `chunk`th, of `part` of the 64 tokens from `col` on.
fn add_chunk(before: mat4x4f, at: Place, part: u32, col: u32, chunk: u32, thread: u32) -> mat4x4f {
    var sum = before;
    let columns = min(COLS, p.tokens - col);
    for (var first = 0u; first < columns; first += 32u) {
        workgroupBarrier(); // the weights are there, the last values have been read
        for (var u = 0u; u < 4u; u++) {
            let token = last(col + first + at.y + u * 8u);
            tile[VALUES + thread + u * THREADS] = load_qkv(head_start(at, token, 3u, part), at.first + chunk * 16u + at.x);
        }
        workgroupBarrier();
        sum = weigh(sum, at, first, columns - first);
    }
    return sum;
}

// The same of all chunks. `chunks` is a literal, so what it rules out folds away.
fn add_chunks(before: Sums, at: Place, chunks: u32, part: u32, col: u32, thread: u32) -> Sums {
    var sums = before;
    sums.a = add_chunk(sums.a, at, part, col, 0u, thread);
    if chunks > 1u { sums.b = add_chunk(sums.b, at, part, col, 1u, thread); }
    if chunks > 2u { sums.c = add_chunk(sums.c, at, part, col, 2u, thread); }
    if chunks > 3u { sums.d = add_chunk(sums.d, at, part, col, 3u, thread); }
    return sums;
}

fn times(x: mat4x4f, rows: vec4f) -> mat4x4f { return mat4x4f(x[0] * rows.x, x[1] * rows.y, x[2] * rows.z, x[3] * rows.w); }

fn row_sum(x: mat4x4f) -> vec4f {
    let t = transpose(x);
    return t[0] + t[1] + (t[2] + t[3]);
}

fn store_out(at: Place, row: u32, chunk: u32, x: vec4f) {
    let i = at.first + chunk * 16u + at.x;
    let token = at.row + at.y * 4u + row;
    if token >= p.tokens || i >= HD4 { return; }
    let j = head_start(at, token, 1u, 0u) + 4u * i;
    out[j / WIDTH] = packed(x);
    if WIDTH == 1u {
        if 4u * i + 1u < HD { out[j + 1u] = packed(x.yyyy); }
        if 4u * i + 2u < HD { out[j + 2u] = packed(x.zzzz); }
        if 4u * i + 3u < HD { out[j + 3u] = packed(x.wwww); }
    }
}

fn store_rows_out(at: Place, chunk: u32, x: mat4x4f) {
    store_out(at, 0u, chunk, x[0]);
    store_out(at, 1u, chunk, x[1]);
    store_out(at, 2u, chunk, x[2]);
    store_out(at, 3u, chunk, x[3]);
}

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let at = place_of(group, thread, FORWARD_CHUNKS);
    var sums = Sums();
    var peak = vec4f(-3.0e38);
    var total = vec4f(); // of the thread's own columns
    for (var col = 0u; col < p.tokens; col += COLS) {
        var s = scores(at, 0u, 1u, col, thread);
        s = scored(s, at, col);
        let cols = vec4u(col + at.x * 4u) + STEPS < vec4u(p.tokens);
        let lowest = vec4f(-3.0e38);
        s = mat4x4f(select(lowest, s[0], cols), select(lowest, s[1], cols), select(lowest, s[2], cols), select(lowest, s[3], cols));
        let t = transpose(s);
        tile[REDUCED + thread] = max(max(t[0], t[1]), max(t[2], t[3]));
        workgroupBarrier();
        var higher = peak;
        for (var i = 0u; i < 16u; i++) { higher = max(higher, tile[REDUCED + at.y * 16u + i]); }
        let shrink = exp(peak - higher);
        peak = higher;
        s = mat4x4f(exp(s[0] - peak.x), exp(s[1] - peak.y), exp(s[2] - peak.z), exp(s[3] - peak.w));
        total = total * shrink + row_sum(s);
        put_weights(at, s);
        sums.a = times(sums.a, shrink);
        if FORWARD_CHUNKS > 1u { sums.b = times(sums.b, shrink); }
        if FORWARD_CHUNKS > 2u { sums.c = times(sums.c, shrink); }
        if FORWARD_CHUNKS > 3u { sums.d = times(sums.d, shrink); }
        sums = add_chunks(sums, at, FORWARD_CHUNKS, 2u, col, thread);
    }
    workgroupBarrier();
    tile[thread] = total;
    workgroupBarrier();
    total = vec4f();
    for (var i = 0u; i < 16u; i++) { total += tile[at.y * 16u + i]; }
    let share = 1.0 / total;
    store_rows_out(at, 0u, times(sums.a, share));
    if FORWARD_CHUNKS > 1u { store_rows_out(at, 1u, times(sums.b, share)); }
    if FORWARD_CHUNKS > 2u { store_rows_out(at, 2u, times(sums.c, share)); }
    if FORWARD_CHUNKS > 3u { store_rows_out(at, 3u, times(sums.d, share)); }
    if group.z == 0u && at.x < 4u && at.row + at.y * 4u + at.x < p.tokens {
        lse[stat(at, at.row + at.y * 4u + at.x)] = (peak + log(total))[at.x];
    }
}

@group(0) @binding(1) var<storage, read> attended: array<word>; // what forward wrote to `out`
@group(0) @binding(2) var<storage, read> saved_lse: array<f32>;
@group(0) @binding(3) var<storage, read> dout: array<word>;
@group(0) @binding(4) var<storage, read_write> dqkv: array<word>;
@group(0) @binding(5) var<storage, read_write> delta: array<f32>;

// As load_qkv; WGSL has no functions over bindings.
fn load_dout(start: u32, i: u32) -> vec4f {
    if WIDTH == 4u { return select(vec4f(), whole(dout[start / 4u + min(i, HD4 - 1u)]), HD % 64u == 0u || i < HD4); }
    let j = start + min(4u * i + STEPS, vec4u(HD - 1u));
    let v = vec4f(whole(dout[j.x]).x, whole(dout[j.y]).x, whole(dout[j.z]).x, whole(dout[j.w]).x);
    return select(vec4f(), v, 4u * i + STEPS < vec4u(HD));
}

fn load_attended(start: u32, i: u32) -> vec4f {
    if WIDTH == 4u { return whole(attended[start / 4u + i]); }
    let j = start + min(4u * i + STEPS, vec4u(HD - 1u));
    return vec4f(whole(attended[j.x]).x, whole(attended[j.y]).x, whole(attended[j.z]).x, whole(attended[j.w]).x);
}

fn block_dout(at: Place, t: u32, i: u32) -> mat4x4f {
    return transpose(mat4x4f(
        load_dout(head_start(at, last(t), 1u, 0u), i), load_dout(head_start(at, last(t + 1u), 1u, 0u), i),
        load_dout(head_start(at, last(t + 2u), 1u, 0u), i), load_dout(head_start(at, last(t + 3u), 1u, 0u), i)));
}

// dout · v of the workgroup's queries and 64 keys, or with `keys` of its keys and 64 queries.
fn gradients(at: Place, keys: bool, col: u32, thread: u32) -> mat4x4f {
    var s = mat4x4f();
    let quad = thread / 8u;
    let i = thread % 8u;
    for (var d = 0u; d < p.quads; d += 8u) {
        workgroupBarrier(); // as in scores
        if keys {
            stage(COL_TILE, 16u, quad, i, block_dout(at, col + quad * 4u, d + i));
            if thread < 64u { stage(ROW_TILE, 8u, quad, i, block_qkv(at, 2u, at.row + quad * 4u, d + i)); }
        } else {
            stage(COL_TILE, 16u, quad, i, block_qkv(at, 2u, col + quad * 4u, d + i));
            if thread < 64u { stage(ROW_TILE, 8u, quad, i, block_dout(at, at.row + quad * 4u, d + i)); }
        }
        workgroupBarrier();
        s = multiply(s, at, min(8u, p.quads - d));
    }
    return s;
}

fn store_dqkv(at: Place, part: u32, row: u32, chunk: u32, x: vec4f) {
    let i = at.first + chunk * 16u + at.x;
    let token = at.row + at.y * 4u + row;
    if token >= p.tokens || i >= HD4 { return; }
    let j = head_start(at, token, 3u, part) + 4u * i;
    dqkv[j / WIDTH] = packed(x);
    if WIDTH == 1u {
        if 4u * i + 1u < HD { dqkv[j + 1u] = packed(x.yyyy); }
        if 4u * i + 2u < HD { dqkv[j + 2u] = packed(x.zzzz); }
        if 4u * i + 3u < HD { dqkv[j + 3u] = packed(x.wwww); }
    }
}

fn store_rows_dqkv(at: Place, part: u32, chunk: u32, x: mat4x4f) {
    store_dqkv(at, part, 0u, chunk, x[0]);
    store_dqkv(at, part, 1u, chunk, x[1]);
    store_dqkv(at, part, 2u, chunk, x[2]);
    store_dqkv(at, part, 3u, chunk, x[3]);
}

@compute @workgroup_size(THREADS)
fn backward_query(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let at = place_of(group, thread, QUERY_CHUNKS);
    // dout · out: four threads per query have every fourth quad of the head.
    let token = last(at.row + thread / 4u);
    let start = head_start(at, token, 1u, 0u);
    var part = 0.0;
    for (var i = thread % 4u; i < HD4; i += 4u) {
        part += dot(load_dout(start, i), load_attended(start, i));
    }
    tile[thread] = vec4f(part);
    workgroupBarrier();
    var dots: vec4f;
    var l: vec4f;
    for (var r = 0u; r < 4u; r++) {
        let j = at.y * 16u + r * 4u;
        dots[r] = tile[j].x + tile[j + 1u].x + (tile[j + 2u].x + tile[j + 3u].x);
        l[r] = saved_lse[stat(at, last(at.row + at.y * 4u + r))];
    }

    var dq = Sums();
    for (var col = 0u; col < p.tokens; col += COLS) {
        var s = scores(at, 0u, 1u, col, thread);
        s = scored(s, at, col);
        let dp = gradients(at, false, col, thread);
        let ds = mat4x4f(
            exp(s[0] - l.x) * (dp[0] - dots.x), exp(s[1] - l.y) * (dp[1] - dots.y),
            exp(s[2] - l.z) * (dp[2] - dots.z), exp(s[3] - l.w) * (dp[3] - dots.w));
        workgroupBarrier(); // the last operands have been read
        put_weights(at, inside(ds * p.scale, col, at));
        dq = add_chunks(dq, at, QUERY_CHUNKS, 1u, col, thread);
    }
    store_rows_dqkv(at, 0u, 0u, dq.a);
    if QUERY_CHUNKS > 1u { store_rows_dqkv(at, 0u, 1u, dq.b); }
    if group.z == 0u && at.x < 4u && at.row + at.y * 4u + at.x < p.tokens {
        delta[stat(at, at.row + at.y * 4u + at.x)] = dots[at.x];
    }
}

@group(0) @binding(5) var<storage, read> saved_delta: array<f32>;

fn add_dout(before: mat4x4f, at: Place, col: u32, thread: u32) -> mat4x4f {
    var sum = before;
    let columns = min(COLS, p.tokens - col);
    for (var first = 0u; first < columns; first += 32u) {
        workgroupBarrier(); // as in add_chunk
        for (var u = 0u; u < 4u; u++) {
            let token = last(col + first + at.y + u * 8u);
            tile[VALUES + thread + u * THREADS] = load_dout(head_start(at, token, 1u, 0u), at.first + at.x);
        }
        workgroupBarrier();
        sum = weigh(sum, at, first, columns - first);
    }
    return sum;
}

// Four queries' values of a statistic, from `t` on.
fn four_lse(at: Place, t: u32) -> vec4f {
    return vec4f(saved_lse[stat(at, last(t))], saved_lse[stat(at, last(t + 1u))],
        saved_lse[stat(at, last(t + 2u))], saved_lse[stat(at, last(t + 3u))]);
}
fn four_delta(at: Place, t: u32) -> vec4f {
    return vec4f(saved_delta[stat(at, last(t))], saved_delta[stat(at, last(t + 1u))],
        saved_delta[stat(at, last(t + 2u))], saved_delta[stat(at, last(t + 3u))]);
}

@compute @workgroup_size(THREADS)
fn backward_key(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let at = place_of(group, thread, 1u);
    var dk = mat4x4f();
    var dv = mat4x4f();
    for (var col = 0u; col < p.tokens; col += COLS) {
        var s = scores(at, 1u, 0u, col, thread);
        s = scored_keys(s, at, col);
        let l = four_lse(at, col + at.x * 4u);
        s = inside(mat4x4f(exp(s[0] - l), exp(s[1] - l), exp(s[2] - l), exp(s[3] - l)), col, at);
        var ds = gradients(at, true, col, thread);
        workgroupBarrier(); // the last operands have been read
        put_weights(at, s);
        dv = add_dout(dv, at, col, thread);
        let d = four_delta(at, col + at.x * 4u);
        ds = mat4x4f(s[0] * (ds[0] - d), s[1] * (ds[1] - d), s[2] * (ds[2] - d), s[3] * (ds[3] - d));
        workgroupBarrier(); // the last weights have been read
        put_weights(at, ds * p.scale);
        dk = add_chunk(dk, at, 0u, col, 0u, thread);
    }
    store_rows_dqkv(at, 1u, 0u, dk);
    store_rows_dqkv(at, 2u, 0u, dv);
}

@group(0) @binding(4) var<storage, read_write> dscores: array<f32>;

@compute @workgroup_size(THREADS)
fn backward_scores(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    var at = Place(0u, group.y, group.x * ROWS, thread / 16u, thread % 16u, 0u);
    let col = group.z * COLS;
    var sum = mat4x4f();
    // A field of `at` as the counter would count as different in each lane, and the loop has barriers.
    for (var image = 0u; image < p.batch; image++) {
        at.b = image;
        let s = scored(scores(at, 0u, 1u, col, thread), at, col);
        let dp = gradients(at, false, col, thread);
        let first = at.row + at.y * 4u;
        let l = four_lse(at, first);
        let d = four_delta(at, first);
        sum += mat4x4f(
            exp(s[0] - l.x) * (dp[0] - d.x), exp(s[1] - l.y) * (dp[1] - d.y),
            exp(s[2] - l.z) * (dp[2] - d.z), exp(s[3] - l.w) * (dp[3] - d.w));
    }
    for (var r = 0u; r < 4u; r++) {
        let row = at.row + at.y * 4u + r;
        if row >= p.tokens { return; }
        for (var c = 0u; c < 4u; c++) {
            let key = col + at.x * 4u + c;
            if key >= p.tokens { break; }
            let i = (at.h * p.tokens + row) * p.tokens + key;
            dscores[i] = sum[r][c] + select(0.0, dscores[i], p.added == 1u);
        }
    }
}

@group(0) @binding(0) var<storage, read> saved_dscores: array<f32>;
@group(0) @binding(1) var<storage, read_write> drelative: array<f32>;

@compute @workgroup_size(THREADS)
fn backward_table(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let i = group.x * THREADS + thread;
    let side = 2u * p.grid - 1u;
    let index = i / p.heads;
    if index >= side * side + 3u { return; }
    let start = i % p.heads * p.tokens * p.tokens;
    var sum = 0.0;
    if index < side * side {
        // Every query whose key at this offset is inside of the grid.
        let dy = i32(index / side) - i32(p.grid) + 1;
        let dx = i32(index % side) - i32(p.grid) + 1;
        let end = vec2i(i32(p.grid)) + min(vec2i(dy, dx), vec2i(0));
        for (var y = max(dy, 0); y < end.x; y++) {
            for (var x = max(dx, 0); x < end.y; x++) {
                let query = u32(y) * p.grid + u32(x) + 1u;
                let key = u32(y - dy) * p.grid + u32(x - dx) + 1u;
                sum += saved_dscores[start + query * p.tokens + key];
            }
        }
    } else if index == side * side + 2u {
        sum = saved_dscores[start];
    } else {
        let stride = select(p.tokens, 1u, index == side * side);
        for (var t = 1u; t < p.tokens; t++) { sum += saved_dscores[start + t * stride]; }
    }
    drelative[i] += sum;
}
