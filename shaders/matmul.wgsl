// Matrix product for GPUs: tiles of out, 64 × 64 or 128 × 128, both operands staged through workgroup memory 16 k at a time
// (lib/tile.wgsl).
// CPU adapters, where barriers are what costs, take matmul_direct.wgsl.
//
//   forward           out[m,n] = Σₖ a[m,k] · b[n,k] + bias[n]     inp · weightᵀ + bias
//   backward_input    out[m,n] = Σₖ a[m,k] · b[k,n]               dout · weight
//   backward_weight   out[m,n] = Σₖ a[k,m] · b[k,n]               doutᵀ · inp
//
//   out [m, n], bias [n]; all row-major and contiguous. `=`, or `+=` with ACCUMULATE. The vec4 entries
//   hand the sum on to the epilogue that the host appends, one of lib/epilogue_*.wgsl, and write what it makes of it.
//   The host appends how four of them lie in storage (`loaded4`, `stored4`; src/ops/words.rs), and
//   `alias operand = f32;` and `alias result = f32;`, what a and b, and what out holds; or f16. Sums
//   and the bias are f32 whatever they are.
//
//   entry                                 needs
//   forward_vec4, backward_input_vec4     k and n multiples of 4, every binding 16-byte aligned
//   backward_weight_vec4                  m and n multiples of 4, every binding 16-byte aligned
//   forward, backward_input, backward_weight     nothing: any m, n, k ≥ 1
//
//   grid [⌈n/TILE⌉, ⌈m/TILE⌉, ⌈k/chunk⌉], each at most 65,535. Workgroups along z share a sum: group z adds up `chunk` of its
//   terms, and writes out's z-th copy. One chunk is the whole sum. Nothing is saved for backward.

struct Params { m: u32, n: u32, k: u32, chunk: u32 }
var<immediate> p: Params;

override HAS_BIAS: bool = false; // forward only; binding 2 may be anything readable when off
override ACCUMULATE: bool = false;

@group(0) @binding(0) var<storage, read> a: array<operand>;
@group(0) @binding(1) var<storage, read> b: array<operand>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<result>;

@group(0) @binding(0) var<storage, read> a4: array<loaded4>;
@group(0) @binding(1) var<storage, read> b4: array<loaded4>;
@group(0) @binding(2) var<storage, read> bias4: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> out4: array<stored4>;

// 4 rows or columns of an operand × 4 k, which one thread brings to the tile: the first half of the threads a's, the others b's.
// `k` and `quad` are its place in the tile, both counted in fours.
struct Block { is_b: bool, k: u32, quad: u32 }

// Neighbouring threads take neighbouring addresses: along k, or across the rows.
fn block_of(thread: u32, a_along: bool, b_along: bool) -> Block {
    let is_b = thread >= TILE;
    let i = thread % TILE;
    if select(a_along, b_along, is_b) { return Block(is_b, i % 4u, i / 4u); }
    return Block(is_b, i / QUADS, i % QUADS);
}

// ---- vec4 loads. Rows past the edge repeat the last one, and are not stored; k past the edge are zero.

fn load(is_b: bool, i: vec4u) -> mat4x4f {
    if is_b { return mat4x4f(from_loaded(b4[i.x]), from_loaded(b4[i.y]), from_loaded(b4[i.z]), from_loaded(b4[i.w])); }
    return mat4x4f(from_loaded(a4[i.x]), from_loaded(a4[i.y]), from_loaded(a4[i.z]), from_loaded(a4[i.w]));
}

// `row` is the tile's first of the operand's `rows`, `k` the tile's first, `end` past the last of the group's.
fn fetch4(block: Block, row: u32, rows: u32, k: u32, end: u32, along: bool) -> mat4x4f {
    let first = k + block.k * 4u;
    if along {
        if first >= end { return mat4x4f(); }
        return transpose(load(block.is_b, min(row + block.quad * 4u + STEPS, vec4u(rows - 1u)) * (p.k / 4u) + first / 4u));
    }
    let quad = min(row + block.quad * 4u, rows - 4u) / 4u;
    return without_tail(load(block.is_b, min(first + STEPS, vec4u(p.k - 1u)) * (rows / 4u) + quad), first, end);
}

fn without_tail(x: mat4x4f, k: u32, end: u32) -> mat4x4f {
    let none = vec4f();
    return mat4x4f(select(none, x[0], k < end), select(none, x[1], k + 1u < end),
                   select(none, x[2], k + 2u < end), select(none, x[3], k + 3u < end));
}

// The flags are literals, so what they rule out folds away.
fn run_vec4(group: vec3u, thread: u32, a_along: bool, b_along: bool) {
    let m = group.y * TILE;
    let n = group.x * TILE;
    let block = block_of(thread, a_along, b_along);
    let row = select(m, n, block.is_b);
    let rows = select(p.m, p.n, block.is_b);
    let along = select(a_along, b_along, block.is_b);

    var sums = Sums();
    // The next tile is on its way from memory while this one is multiplied.
    let end = min((group.z + 1u) * p.chunk, p.k);
    var next = fetch4(block, row, rows, group.z * p.chunk, end, along);
    for (var k = group.z * p.chunk; k < end; k += TILE_K) {
        workgroupBarrier(); // the last tile has been read by everyone
        stage(block.is_b, block.k, block.quad, next);
        workgroupBarrier();
        next = fetch4(block, row, rows, k + TILE_K, end, along);
        sums = multiply(sums, thread);
    }
    let y = m + first_row(thread);
    let x = n + first_col(thread);
    store4_quad(sums.low, group.z, y, x);
    store4_quad(sums.high, group.z, y + TILE / 2u, x);
    if TILE == 128u {
        store4_quad(sums.low_right, group.z, y, x + 64u);
        store4_quad(sums.high_right, group.z, y + TILE / 2u, x + 64u);
    }
}

@compute @workgroup_size(THREADS)
fn forward_vec4(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    run_vec4(group, thread, true, true);
}

@compute @workgroup_size(THREADS)
fn backward_input_vec4(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    run_vec4(group, thread, true, false);
}

@compute @workgroup_size(THREADS)
fn backward_weight_vec4(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    run_vec4(group, thread, false, false);
}

// ---- any size, scalar loads: element (row, k) of an operand is at row · stride.x + k · stride.y.

fn gather(is_b: bool, i: vec4u) -> vec4f {
    if is_b { return vec4f(vec4(b[i.x], b[i.y], b[i.z], b[i.w])); }
    return vec4f(vec4(a[i.x], a[i.y], a[i.z], a[i.w]));
}

fn fetch(block: Block, row: u32, rows: u32, k: u32, end: u32, stride: vec2u) -> mat4x4f {
    let start = min(row + block.quad * 4u + STEPS, vec4u(rows - 1u)) * stride.x;
    let first = k + block.k * 4u;
    let step = min(first + STEPS, vec4u(p.k - 1u)) * stride.y;
    return without_tail(mat4x4f(gather(block.is_b, start + step.x), gather(block.is_b, start + step.y),
                                gather(block.is_b, start + step.z), gather(block.is_b, start + step.w)), first, end);
}

fn run(group: vec3u, thread: u32, a_stride: vec2u, b_stride: vec2u) {
    let m = group.y * TILE;
    let n = group.x * TILE;
    let block = block_of(thread, a_stride.y == 1u, b_stride.y == 1u);
    let row = select(m, n, block.is_b);
    let rows = select(p.m, p.n, block.is_b);
    let stride = select(a_stride, b_stride, block.is_b);

    var sums = Sums();
    let end = min((group.z + 1u) * p.chunk, p.k);
    var next = fetch(block, row, rows, group.z * p.chunk, end, stride);
    for (var k = group.z * p.chunk; k < end; k += TILE_K) {
        workgroupBarrier(); // as in run_vec4
        stage(block.is_b, block.k, block.quad, next);
        workgroupBarrier();
        next = fetch(block, row, rows, k + TILE_K, end, stride);
        sums = multiply(sums, thread);
    }
    let y = m + first_row(thread);
    let x = n + first_col(thread);
    store_quad(sums.low, group.z, y, x);
    store_quad(sums.high, group.z, y + TILE / 2u, x);
    if TILE == 128u {
        store_quad(sums.low_right, group.z, y, x + 64u);
        store_quad(sums.high_right, group.z, y + TILE / 2u, x + 64u);
    }
}

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    run(group, thread, vec2u(p.k, 1u), vec2u(p.k, 1u));
}

@compute @workgroup_size(THREADS)
fn backward_input(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    run(group, thread, vec2u(p.k, 1u), vec2u(1u, p.n));
}

@compute @workgroup_size(THREADS)
fn backward_weight(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    run(group, thread, vec2u(1u, p.m), vec2u(1u, p.n));
}
