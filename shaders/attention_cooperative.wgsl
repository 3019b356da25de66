// Multi-head self-attention of f16 tensors by cooperative matrices, the matrix units of GPUs. Equations, tensors and the values
// saved for backward are explained in attention.wgsl; scores, sums, lse and delta are f32. P and dS pass through f16, since the
// units multiply nothing else.
//
//   entry            grid                           writes
//   forward          [⌈N/ROWS⌉, B·H, 1]             out = , lse =                rows are queries
//   backward_query   [⌈N/ROWS⌉, B·H, 1]             dqkv's q part = , delta =    rows are queries
//   backward_key     [⌈N/ROWS⌉, B·H, SLICES]        dqkv's k and v parts =       rows are keys; after backward_query
//
// HD is a multiple of 4, and at most 128. The host appends (src/ops/attention.rs) `const HD = …u;`, ROWS and COLS, rows of a
// workgroup and the columns that it takes at a time, multiples of 16; TILES, how many tensors its rows come from; SUMS, columns of
// its results; `inside` and `inside_keys`, which columns count for a row of the workgroup, queries or keys: those up to the end,
// which a mask does not hide (lib/mask.wgsl); and what matrices need (src/gpu/tune.rs): their shape CM, CN and CK, their types mat_a, mat_b and mat_c, and LANES.
// Needs wgpu's EXPERIMENTAL_COOPERATIVE_MATRIX, SHADER_F16 and SUBGROUP, and 32 KiB of workgroup memory.
//
// WGSL reads no element of a matrix, so scores pass through workgroup memory on their way to the weights, and results stay there,
// where forward scales them as the maximum grows. Hence a subgroup keeps no matrix from one product to the next: subgroups of any
// size, and any number of them, share the matrices of each product out. A subgroup to which none is left computes the last one
// once more, since matrices ask for uniform control flow, and its result is dropped.

struct Params { tokens: u32, heads: u32, scale: f32, quads: u32, batch: u32, grid: u32, added: u32 } // from quads on for others
var<immediate> p: Params;

// A head in slices of at most 64 elements, which matrices divide.
const SLICES = (HD + 63u) / 64u;
const SLICE = (HD + 16u * SLICES - 1u) / (16u * SLICES) * 16u;
const QUADS = HD / 4u;

// Rows begin at multiples of 16 bytes, and neighbours on different banks.
const ROW_PITCH = SLICES * SLICE + 8u;
const COL_PITCH = SLICE + 8u;
const WEIGHT_PITCH = COLS + 8u;
const SCORE_PITCH = COLS + 4u;
const SUM_PITCH = SUMS + 4u;

// The rows, [TILES, ROWS, head]; one slice of the columns, [COLS, SLICE]; the weights, [ROWS, COLS].
var<workgroup> halves: array<f16, TILES * ROWS * ROW_PITCH + COLS * COL_PITCH + ROWS * WEIGHT_PITCH>;
const COL_TILE = TILES * ROWS * ROW_PITCH;
const WEIGHTS = COL_TILE + COLS * COL_PITCH;
// Products of rows and columns, [ROWS, COLS], zero where they were taken; the results, [ROWS, SUMS]; a matrix that is dropped.
var<workgroup> floats: array<f32, ROWS * SCORE_PITCH + ROWS * SUM_PITCH + CM * CN>;
const RESULTS = ROWS * SCORE_PITCH;
const DROPPED = RESULTS + ROWS * SUM_PITCH;
var<workgroup> reduced: array<f32, LANES>;
var<workgroup> stats: array<vec2f, COLS>; // lse and delta of columns that are queries
var<workgroup> subgroup_count: u32;

// Lanes that share a row between products, every so manyth of its columns each, and vectors of four columns of a lane.
const SHARE = LANES / ROWS;
const FOURS = COLS / SHARE / 4u;

@group(0) @binding(0) var<storage, read> qkv: array<vec4<f16>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f16>>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;

// Image, head, and the workgroup's first row.
struct Place { b: u32, h: u32, row: u32 }

fn place_of(group: vec3u) -> Place { return Place(group.y / p.heads, group.y % p.heads, group.x * ROWS); }

// Quad `i` of the head of token `t` in a tensor of `parts` · H·HD columns, at part `part`.
fn quad_at(at: Place, t: u32, parts: u32, part: u32, i: u32) -> u32 {
    return (((at.b * p.tokens + t) * parts + part) * p.heads + at.h) * QUADS + i;
}

fn stat(at: Place, t: u32) -> u32 { return (at.b * p.heads + at.h) * p.tokens + t; }
// Tokens past the end repeat the last one; their weights are zero, their rows not stored.
fn last(t: u32) -> u32 { return min(t, p.tokens - 1u); }

// The same number, as one that compilers do not know: it keeps them from unrolling loops, by which Intel's spill.
fn unknown(n: u32) -> u32 { return min(n, p.quads << 16u); }

fn put(j: u32, x: vec4<f16>) {
    halves[j] = x.x;
    halves[j + 1u] = x.y;
    halves[j + 2u] = x.z;
    halves[j + 3u] = x.w;
}

// Zero past the head's end.
fn load_qkv(at: Place, part: u32, t: u32, i: u32) -> vec4<f16> {
    return select(vec4<f16>(), qkv[quad_at(at, last(t), 3u, part, min(i, QUADS - 1u))], i < QUADS);
}

const ROW_QUADS = SLICES * SLICE / 4u;
const COL_QUADS = SLICE / 4u;

// Stages `tokens` tokens from `t` on of part `part`, `quads` quads of the head from `first` on, at `to`. Four loads are on their
// way at once.
fn stage_qkv(at: Place, to: u32, pitch: u32, part: u32, t: u32, tokens: u32, first: u32, quads: u32, lane: u32) {
    for (var u = lane; u < unknown(tokens * quads); u += 4u * LANES) {
        let x = u + LANES * vec4u(0u, 1u, 2u, 3u);
        let i = first + x % quads;
        let row = t + x / quads;
        let a = load_qkv(at, part, row.x, i.x);
        let b = load_qkv(at, part, row.y, i.y);
        let c = load_qkv(at, part, row.z, i.z);
        let d = load_qkv(at, part, row.w, i.w);
        let j = to + x / quads * pitch + x % quads * 4u;
        put(j.x, a);
        if x.y < tokens * quads { put(j.y, b); }
        if x.z < tokens * quads { put(j.z, c); }
        if x.w < tokens * quads { put(j.w, d); }
    }
}
// Part `part` of the workgroup's rows as tile `tile`.
fn stage_rows_qkv(at: Place, tile: u32, part: u32, lane: u32) {
    stage_qkv(at, tile * ROWS * ROW_PITCH, ROW_PITCH, part, at.row, ROWS, 0u, ROW_QUADS, lane);
}
// Slice `slice` of part `part` of the tokens from `col` on.
fn stage_cols_qkv(at: Place, part: u32, col: u32, slice: u32, lane: u32) {
    stage_qkv(at, COL_TILE, COL_PITCH, part, col, COLS, slice * COL_QUADS, COL_QUADS, lane);
}

fn start(lane: u32, subgroups: u32) {
    for (var i = lane; i < unknown(DROPPED); i += LANES) { floats[i] = 0.0; }
    if lane == 0u { subgroup_count = subgroups; }
}

// Adds slice `slice` of the rows of `tile` times the staged columns to the scores. `subgroups` is subgroup_count, of which compilers
// know that it is the same for everyone.
fn add_scores(tile: u32, slice: u32, subgroup: u32, subgroups: u32) {
    const ACROSS = COLS / CN;
    const JOBS = ROWS / CM * ACROSS;
    for (var first = 0u; first < JOBS; first += subgroups) {
        let job = min(first + subgroup, JOBS - 1u);
        let own = first + subgroup < JOBS;
        let a = (tile * ROWS + job / ACROSS * CM) * ROW_PITCH + slice * SLICE;
        let b = COL_TILE + job % ACROSS * CN * COL_PITCH;
        let at = job / ACROSS * CM * SCORE_PITCH + job % ACROSS * CN;
        var sum = coopLoadT<mat_c>(&floats[at], SCORE_PITCH);
        for (var k = 0u; k < unknown(SLICE); k += CK) {
            let rows = coopLoadT<mat_a>(&halves[a + k], ROW_PITCH);
            let cols = coopLoad<mat_b>(&halves[b + k], COL_PITCH);
            sum = coopMultiplyAdd(rows, cols, sum);
        }
        let to = select(DROPPED, at, own);
        let pitch = select(CN, SCORE_PITCH, own);
        coopStoreT(sum, &floats[to], pitch);
    }
}

// Adds the weights times the staged columns to the results, from column `result` on.
fn add_weighted(result: u32, subgroup: u32, subgroups: u32) {
    const ACROSS = SLICE / CN;
    const JOBS = ROWS / CM * ACROSS;
    for (var first = 0u; first < JOBS; first += subgroups) {
        let job = min(first + subgroup, JOBS - 1u);
        let own = first + subgroup < JOBS;
        let a = WEIGHTS + job / ACROSS * CM * WEIGHT_PITCH;
        let b = COL_TILE + job % ACROSS * CN;
        let at = RESULTS + job / ACROSS * CM * SUM_PITCH + result + job % ACROSS * CN;
        var sum = coopLoadT<mat_c>(&floats[at], SUM_PITCH);
        for (var k = 0u; k < unknown(COLS); k += CK) {
            let weights = coopLoadT<mat_a>(&halves[a + k], WEIGHT_PITCH);
            let values = coopLoadT<mat_b>(&halves[b + k * COL_PITCH], COL_PITCH);
            sum = coopMultiplyAdd(weights, values, sum);
        }
        let to = select(DROPPED, at, own);
        let pitch = select(CN, SUM_PITCH, own);
        coopStoreT(sum, &floats[to], pitch);
    }
}

// What a lane has of its row: columns `first`, `first` + SHARE and so on.
fn scores_at(lane: u32, i: u32) -> vec4f {
    let j = lane / SHARE * SCORE_PITCH + lane % SHARE + 4u * SHARE * i;
    return vec4f(floats[j], floats[j + SHARE], floats[j + 2u * SHARE], floats[j + 3u * SHARE]);
}
// The same, and leaves zeros for the next product.
fn take_scores(lane: u32, i: u32) -> vec4f {
    let s = scores_at(lane, i);
    let j = lane / SHARE * SCORE_PITCH + lane % SHARE + 4u * SHARE * i;
    floats[j] = 0.0;
    floats[j + SHARE] = 0.0;
    floats[j + 2u * SHARE] = 0.0;
    floats[j + 3u * SHARE] = 0.0;
    return s;
}
fn put_weights(lane: u32, i: u32, x: vec4f) {
    let j = WEIGHTS + lane / SHARE * WEIGHT_PITCH + lane % SHARE + 4u * SHARE * i;
    halves[j] = f16(x.x);
    halves[j + SHARE] = f16(x.y);
    halves[j + 2u * SHARE] = f16(x.z);
    halves[j + 3u * SHARE] = f16(x.w);
}
fn columns(lane: u32, i: u32) -> vec4u { return lane % SHARE + SHARE * (4u * i + vec4u(0u, 1u, 2u, 3u)); }

fn row_maximum(lane: u32, own: f32) -> f32 {
    if SHARE == 1u { return own; }
    reduced[lane] = own;
    workgroupBarrier();
    var x = own;
    for (var i = 0u; i < SHARE; i++) { x = max(x, reduced[lane / SHARE * SHARE + i]); }
    return x;
}
fn row_sum(lane: u32, own: f32) -> f32 {
    if SHARE == 1u { return own; }
    reduced[lane] = own;
    workgroupBarrier();
    var x = 0.0;
    for (var i = 0u; i < SHARE; i++) { x += reduced[lane / SHARE * SHARE + i]; }
    return x;
}

// Quad `i` of a row's results, from column `result` on.
fn result_at(row: u32, result: u32, i: u32) -> vec4f {
    let j = RESULTS + row * SUM_PITCH + result + 4u * i;
    return vec4f(floats[j], floats[j + 1u], floats[j + 2u], floats[j + 3u]);
}

@compute @workgroup_size(LANES)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) num_subgroups: u32, @builtin(local_invocation_index) lane: u32) {
    let at = place_of(group);
    let row = lane / SHARE;
    start(lane, num_subgroups);
    stage_rows_qkv(at, 0u, 0u, lane);
    let subgroups = workgroupUniformLoad(&subgroup_count);
    var peak = -3.0e38;
    var total = 0.0; // of the lane's own columns
    for (var col = 0u; col < p.tokens; col += COLS) {
        for (var slice = 0u; slice < SLICES; slice++) {
            workgroupBarrier(); // the values staged before have been read by everyone
            stage_cols_qkv(at, 1u, col, slice, lane);
            workgroupBarrier();
            add_scores(0u, slice, subgroup, subgroups);
        }
        workgroupBarrier();
        stage_cols_qkv(at, 2u, col, 0u, lane); // on its way while weights are computed
        var higher = peak;
        for (var i = 0u; i < FOURS; i++) {
            let s = select(vec4f(-3.0e38), scores_at(lane, i) * p.scale, inside(at, row, col + columns(lane, i)));
            higher = max(higher, max(max(s.x, s.y), max(s.z, s.w)));
        }
        higher = row_maximum(lane, higher);
        let shrink = exp(peak - higher);
        peak = higher;
        total *= shrink;
        for (var i = 0u; i < FOURS; i++) {
            let seen = inside(at, row, col + columns(lane, i));
            let weights = select(vec4f(), exp(take_scores(lane, i) * p.scale - peak), seen);
            total += weights.x + weights.y + (weights.z + weights.w);
            put_weights(lane, i, weights);
        }
        for (var i = lane % SHARE; i < unknown(SUMS); i += SHARE) { floats[RESULTS + row * SUM_PITCH + i] *= shrink; }
        for (var slice = 0u; slice < SLICES; slice++) {
            if slice > 0u {
                workgroupBarrier(); // the last slice has been read by everyone
                stage_cols_qkv(at, 2u, col, slice, lane);
            }
            workgroupBarrier();
            add_weighted(slice * SLICE, subgroup, subgroups);
        }
    }
    workgroupBarrier();
    total = row_sum(lane, total);
    let token = at.row + row;
    if token >= p.tokens { return; }
    for (var i = lane % SHARE; i < p.quads; i += SHARE) {
        out[quad_at(at, token, 1u, 0u, i)] = vec4<f16>(result_at(row, 0u, i) / total);
    }
    if lane % SHARE == 0u { lse[stat(at, token)] = peak + log(total); }
}

@group(0) @binding(1) var<storage, read> attended: array<vec4<f16>>; // what forward wrote to `out`
@group(0) @binding(2) var<storage, read> saved_lse: array<f32>;
@group(0) @binding(3) var<storage, read> dout: array<vec4<f16>>;
@group(0) @binding(4) var<storage, read_write> dqkv: array<vec4<f16>>;
@group(0) @binding(5) var<storage, read_write> delta: array<f32>;

// As for qkv; WGSL has no functions over bindings.
fn load_dout(at: Place, t: u32, i: u32) -> vec4<f16> {
    return select(vec4<f16>(), dout[quad_at(at, last(t), 1u, 0u, min(i, QUADS - 1u))], i < QUADS);
}
fn stage_dout(at: Place, to: u32, pitch: u32, t: u32, tokens: u32, first: u32, quads: u32, lane: u32) {
    for (var u = lane; u < unknown(tokens * quads); u += 4u * LANES) {
        let x = u + LANES * vec4u(0u, 1u, 2u, 3u);
        let i = first + x % quads;
        let row = t + x / quads;
        let a = load_dout(at, row.x, i.x);
        let b = load_dout(at, row.y, i.y);
        let c = load_dout(at, row.z, i.z);
        let d = load_dout(at, row.w, i.w);
        let j = to + x / quads * pitch + x % quads * 4u;
        put(j.x, a);
        if x.y < tokens * quads { put(j.y, b); }
        if x.z < tokens * quads { put(j.z, c); }
        if x.w < tokens * quads { put(j.w, d); }
    }
}
fn stage_rows_dout(at: Place, tile: u32, lane: u32) {
    stage_dout(at, tile * ROWS * ROW_PITCH, ROW_PITCH, at.row, ROWS, 0u, ROW_QUADS, lane);
}
fn stage_cols_dout(at: Place, col: u32, slice: u32, lane: u32) {
    stage_dout(at, COL_TILE, COL_PITCH, col, COLS, slice * COL_QUADS, COL_QUADS, lane);
}

// The row's results from column `result` on, which are the gradient of `count` quads from quad `first` on of part `part`.
fn store_dqkv(at: Place, part: u32, result: u32, first: u32, count: u32, lane: u32) {
    let token = at.row + lane / SHARE;
    if token >= p.tokens { return; }
    for (var i = lane % SHARE; i < unknown(count); i += SHARE) {
        if first + i < QUADS {
            dqkv[quad_at(at, token, 3u, part, first + i)] = vec4<f16>(result_at(lane / SHARE, result, i));
        }
    }
}

@compute @workgroup_size(LANES)
fn backward_query(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) num_subgroups: u32, @builtin(local_invocation_index) lane: u32) {
    let at = place_of(group);
    let token = last(at.row + lane / SHARE);
    start(lane, num_subgroups);
    stage_rows_qkv(at, 0u, 0u, lane);
    stage_rows_dout(at, 1u, lane);
    var dots = 0.0;
    for (var i = lane % SHARE; i < p.quads; i += SHARE) {
        let j = quad_at(at, token, 1u, 0u, i);
        dots += dot(vec4f(dout[j]), vec4f(attended[j]));
    }
    dots = row_sum(lane, dots);
    let row_lse = saved_lse[stat(at, token)];
    let subgroups = workgroupUniformLoad(&subgroup_count);
    for (var col = 0u; col < p.tokens; col += COLS) {
        for (var slice = 0u; slice < SLICES; slice++) {
            workgroupBarrier(); // as in forward
            stage_cols_qkv(at, 2u, col, slice, lane);
            workgroupBarrier();
            add_scores(1u, slice, subgroup, subgroups);
        }
        workgroupBarrier();
        var gradients: array<vec4f, FOURS>;
        for (var i = 0u; i < FOURS; i++) { gradients[i] = take_scores(lane, i) - dots; }
        for (var slice = 0u; slice < SLICES; slice++) {
            workgroupBarrier();
            stage_cols_qkv(at, 1u, col, slice, lane);
            workgroupBarrier();
            add_scores(0u, slice, subgroup, subgroups);
        }
        workgroupBarrier();
        for (var i = 0u; i < FOURS; i++) {
            let seen = inside(at, lane / SHARE, col + columns(lane, i));
            let weights = exp(take_scores(lane, i) * p.scale - row_lse);
            put_weights(lane, i, select(vec4f(), weights * gradients[i] * p.scale, seen));
        }
        // The last slice of the keys is still there.
        for (var back = 0u; back < SLICES; back++) {
            let slice = SLICES - 1u - back;
            if back > 0u {
                workgroupBarrier();
                stage_cols_qkv(at, 1u, col, slice, lane);
            }
            workgroupBarrier();
            add_weighted(slice * SLICE, subgroup, subgroups);
        }
    }
    workgroupBarrier();
    store_dqkv(at, 0u, 0u, 0u, p.quads, lane);
    if lane % SHARE == 0u && at.row + lane / SHARE < p.tokens { delta[stat(at, token)] = dots; }
}

@group(0) @binding(5) var<storage, read> saved_delta: array<f32>;

@compute @workgroup_size(LANES)
fn backward_key(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) num_subgroups: u32, @builtin(local_invocation_index) lane: u32) {
    let at = place_of(group);
    start(lane, num_subgroups);
    stage_rows_qkv(at, 0u, 1u, lane);
    stage_rows_qkv(at, 1u, 2u, lane);
    let subgroups = workgroupUniformLoad(&subgroup_count);
    for (var col = 0u; col < p.tokens; col += COLS) {
        for (var slice = 0u; slice < SLICES; slice++) {
            workgroupBarrier(); // as in forward
            stage_cols_qkv(at, 0u, col, slice, lane);
            if slice == 0u {
                for (var i = lane; i < COLS; i += LANES) {
                    let j = stat(at, last(col + i));
                    stats[i] = vec2f(saved_lse[j], saved_delta[j]);
                }
            }
            workgroupBarrier();
            add_scores(0u, slice, subgroup, subgroups);
        }
        workgroupBarrier();
        var weights: array<vec4f, FOURS>;
        for (var i = 0u; i < FOURS; i++) {
            let c = columns(lane, i);
            let l = vec4f(stats[c.x].x, stats[c.y].x, stats[c.z].x, stats[c.w].x);
            weights[i] = select(vec4f(), exp(take_scores(lane, i) * p.scale - l), inside_keys(at, lane / SHARE, col + c));
            put_weights(lane, i, weights[i]);
        }
        // The workgroup's own slice comes last, so that it is there for the results.
        for (var next = 1u; next <= SLICES; next++) {
            workgroupBarrier();
            let slice = (group.z + next) % SLICES;
            stage_cols_dout(at, col, slice, lane);
            workgroupBarrier();
            add_scores(1u, slice, subgroup, subgroups);
        }
        add_weighted(SLICE, subgroup, subgroups); // dv
        workgroupBarrier();
        stage_cols_qkv(at, 0u, col, group.z, lane);
        for (var i = 0u; i < FOURS; i++) {
            let c = columns(lane, i);
            let d = vec4f(stats[c.x].y, stats[c.y].y, stats[c.z].y, stats[c.w].y);
            put_weights(lane, i, weights[i] * (take_scores(lane, i) - d) * p.scale);
        }
        workgroupBarrier();
        add_weighted(0u, subgroup, subgroups); // dk
    }
    workgroupBarrier();
    store_dqkv(at, 1u, 0u, group.z * COL_QUADS, COL_QUADS, lane);
    store_dqkv(at, 2u, SLICE, group.z * COL_QUADS, COL_QUADS, lane);
}
