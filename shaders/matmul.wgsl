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

// ---- vec4 loads. Rows past the edge repeat the last one, and are not stored.

fn load_a(i: vec4u) -> mat4x4f { return mat4x4f(from_loaded(a4[i.x]), from_loaded(a4[i.y]), from_loaded(a4[i.z]), from_loaded(a4[i.w])); }
fn load_b(i: vec4u) -> mat4x4f { return mat4x4f(from_loaded(b4[i.x]), from_loaded(b4[i.y]), from_loaded(b4[i.z]), from_loaded(b4[i.w])); }

// The flags are literals, so what they rule out folds away.
fn load(is_b: bool, i: vec4u, a_along: bool, b_along: bool) -> mat4x4f {
    if a_along && !b_along {
        if is_b { return load_b(i); }
        return transpose(load_a(i));
    }
    var x: mat4x4f;
    if is_b { x = load_b(i); } else { x = load_a(i); }
    if a_along { return transpose(x); } // behind the branch, where it costs nothing
    return x;
}

fn without_tail(x: mat4x4f, k: u32, end: u32) -> mat4x4f {
    let none = vec4f();
    return mat4x4f(select(none, x[0], k < end), select(none, x[1], k + 1u < end),
                   select(none, x[2], k + 2u < end), select(none, x[3], k + 3u < end));
}

fn run_vec4(group: vec3u, thread: u32, a_along: bool, b_along: bool) {
    let m = group.y * TILE;
    let n = group.x * TILE;
    let block = block_of(thread, a_along, b_along);
    let row = select(m, n, block.is_b) + block.quad * 4u;
    let rows = select(p.m, p.n, block.is_b);
    let along = select(a_along, b_along, block.is_b);

    // Where the block's four vectors are: at(k) for its first k.
    let own_rows = min(row + STEPS, vec4u(rows - 1u)) * (p.k / 4u);
    let own_quad = min(row, rows - 4u) / 4u;
    let start = group.z * p.chunk;
    let end = min(start + p.chunk, p.k);
    let whole = (end - start) / TILE_K;
    var k = start + block.k * 4u;
    var at = select((k + STEPS) * (rows / 4u) + own_quad, own_rows + k / 4u, along);
    let step = select(TILE_K * (rows / 4u), TILE_K / 4u, along);

    var sums = Sums();
    var next: mat4x4f;
    if whole > 0u { next = load(block.is_b, at, a_along, b_along); }
    for (var tiles = whole; tiles > 0u; tiles--) {
        workgroupBarrier(); // the last tile has been read by everyone
        stage(block.is_b, block.k, block.quad, next);
        workgroupBarrier();
        // The next tile is on its way from memory while this one is multiplied; after the last one it comes once more.
        at += select(0u, step, tiles > 1u);
        next = load(block.is_b, at, a_along, b_along);
        sums = multiply(sums, thread);
    }
    // Of the last tile, values past the end are zero.
    k += whole * TILE_K;
    if start + whole * TILE_K < end {
        let last = select(min(k + STEPS, vec4u(p.k - 1u)) * (rows / 4u) + own_quad, own_rows + min(k, p.k - 4u) / 4u, along);
        next = without_tail(load(block.is_b, last, a_along, b_along), k, end);
        workgroupBarrier();
        stage(block.is_b, block.k, block.quad, next);
        workgroupBarrier();
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

fn gathered(is_b: bool, start: vec4u, k: vec4u) -> mat4x4f {
    return mat4x4f(gather(is_b, start + k.x), gather(is_b, start + k.y), gather(is_b, start + k.z), gather(is_b, start + k.w));
}

fn run(group: vec3u, thread: u32, a_stride: vec2u, b_stride: vec2u) {
    let m = group.y * TILE;
    let n = group.x * TILE;
    let block = block_of(thread, a_stride.y == 1u, b_stride.y == 1u);
    let row = select(m, n, block.is_b) + block.quad * 4u;
    let rows = select(p.m, p.n, block.is_b);
    let stride = select(a_stride, b_stride, block.is_b);

    // As in run_vec4.
    let own_rows = min(row + STEPS, vec4u(rows - 1u)) * stride.x;
    let start = group.z * p.chunk;
    let end = min(start + p.chunk, p.k);
    let whole = (end - start) / TILE_K;
    var k = start + block.k * 4u;
    var at = own_rows + k * stride.y;
    let steps = STEPS * stride.y;

    var sums = Sums();
    var next: mat4x4f;
    if whole > 0u { next = gathered(block.is_b, at, steps); }
    for (var tiles = whole; tiles > 0u; tiles--) {
        workgroupBarrier();
        stage(block.is_b, block.k, block.quad, next);
        workgroupBarrier();
        at += select(0u, TILE_K * stride.y, tiles > 1u);
        next = gathered(block.is_b, at, steps);
        sums = multiply(sums, thread);
    }
    k += whole * TILE_K;
    if start + whole * TILE_K < end {
        let last = min(k + STEPS, vec4u(p.k - 1u)) * stride.y;
        next = without_tail(gathered(block.is_b, own_rows, last), k, end);
        workgroupBarrier();
        stage(block.is_b, block.k, block.quad, next);
        workgroupBarrier();
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
