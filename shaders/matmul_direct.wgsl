// Matrix product for CPU adapters (Mesa's lavapipe): no workgroup memory, no barrier; one register tile per
// workgroup of eight lanes, straight from storage buffers. GPUs take matmul.wgsl.
//
//   forward           out[m,n] = Σₖ a[m,k] · b[n,k] + bias[n]     inp · weightᵀ + bias
//   backward_input    out[m,n] = Σₖ a[m,k] · b[k,n]               dout · weight
//   backward_weight   out[m,n] = Σₖ a[k,m] · b[k,n]               doutᵀ · inp
//
//   out [m, n], bias [n]; all row-major and contiguous. `=`, or `+=` with ACCUMULATE. The vec4 entries
//   hand the sum on to the epilogue that the host appends, one of lib/epilogue_*.wgsl, and write what it makes of it.
//   The host appends `alias operand = f32;` and `alias result = f32;`, what a and b, and what out holds; or f16. It appends
//   as well how four of them lie in storage (`loaded4`, `stored4`; src/ops/words.rs). Sums and the bias are f32 whatever they are.
//
//   entry                                 needs
//   forward_vec4, backward_input_vec4     k and n multiples of 4, every binding 16-byte aligned
//   backward_weight_vec4                  m and n multiples of 4, every binding 16-byte aligned
//   forward, backward_input, backward_weight     nothing: any m, n, k ≥ 1
//
//   grid [⌈n/32⌉, ⌈m/ROWS⌉, ⌈k/chunk⌉], each at most 65,535; ROWS is 64 or 32. Workgroups along z share a sum: group z adds up
//   `chunk` of its terms, a multiple of 4, and writes out's z-th copy. One chunk is the whole sum. Nothing is saved for backward.
//   Needs subgroups of at least 8 invocations (wgpu: Features::SUBGROUP, subgroup_min_size ≥ 8).
//
// The driver runs one invocation per SIMD lane, and any load inside a loop, even one whose address is the
// same in all lanes, is a scalar loop over them: some 20 ns for a vec4f, as much as 50 multiply-adds, and
// two thirds of that for the same bytes as two words of 64 bits. So each lane loads its own 4 × 4 block of
// both operands, and a broadcast, one shuffle, hands a's blocks round: 12 loads for 1,024 multiply-adds,
// where one without subgroups needs 20 for 256. Accumulators are named, since a loop over an array stays a
// loop once runtime checks are on, and then they live in memory. Eight k per turn halve the misses of a's rows,
// but the loop no longer fits the instruction cache, and came out no faster.

struct Params { m: u32, n: u32, k: u32, chunk: u32 }
var<immediate> p: Params;

override ROWS: u32 = 64u; // 32 wastes less where m is small; 64 was no slower at k = 128, and 10 to 30 % faster at 1024³
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

// 32 rows of the tile; matrix column i of q₀…q₇ is row 4q + i, and its vector this lane's four columns of out.
struct Rows {
    q0: mat4x4f, q1: mat4x4f, q2: mat4x4f, q3: mat4x4f,
    q4: mat4x4f, q5: mat4x4f, q6: mat4x4f, q7: mat4x4f,
}

// rows += a · b over four k. A lane's `am` has the k of row 4·lane + i in column i, `bm` its four n of k in column k.
fn multiply(rows: ptr<function, Rows>, am: mat4x4f, bm: mat4x4f) {
    (*rows).q0 = multiply_add((*rows).q0, bm, from_lane0(am));
    (*rows).q1 = multiply_add((*rows).q1, bm, from_lane1(am));
    (*rows).q2 = multiply_add((*rows).q2, bm, from_lane2(am));
    (*rows).q3 = multiply_add((*rows).q3, bm, from_lane3(am));
    (*rows).q4 = multiply_add((*rows).q4, bm, from_lane4(am));
    (*rows).q5 = multiply_add((*rows).q5, bm, from_lane5(am));
    (*rows).q6 = multiply_add((*rows).q6, bm, from_lane6(am));
    (*rows).q7 = multiply_add((*rows).q7, bm, from_lane7(am));
}

// Lanes 0…3 and 4…7 of a vector which holds four k of one row per lane.
fn first_four(x: vec4f) -> mat4x4f {
    return mat4x4f(subgroupBroadcast(x, 0u), subgroupBroadcast(x, 1u), subgroupBroadcast(x, 2u), subgroupBroadcast(x, 3u));
}
fn last_four(x: vec4f) -> mat4x4f {
    return mat4x4f(subgroupBroadcast(x, 4u), subgroupBroadcast(x, 5u), subgroupBroadcast(x, 6u), subgroupBroadcast(x, 7u));
}

const EIGHTS = vec4u(0u, 8u, 16u, 24u);

// ---- vec4 loads.

fn store4(rows: Rows, copy: u32, m: u32, n: u32) {
    store4_quad(rows.q0, copy, m, n);
    store4_quad(rows.q1, copy, m + 4u, n);
    store4_quad(rows.q2, copy, m + 8u, n);
    store4_quad(rows.q3, copy, m + 12u, n);
    store4_quad(rows.q4, copy, m + 16u, n);
    store4_quad(rows.q5, copy, m + 20u, n);
    store4_quad(rows.q6, copy, m + 24u, n);
    store4_quad(rows.q7, copy, m + 28u, n);
}

// With `b_along` both operands run along k, else b across; a literal, so the branch folds away.
fn rows_of_a(group_id: vec3u, count: vec3u, lane: u32, b_along: bool) {
    let group = vec3u(place_in_bands(group_id, count), group_id.z);
    let end = min((group.z + 1u) * p.chunk, p.k);
    let m = group.y * ROWS;
    let n = group.x * 32u + lane * 4u;
    let k4 = p.k / 4u;
    // Lane l loads row 8i + l for vector i.
    let a_low = min(m + lane + EIGHTS, vec4u(p.m - 1u)) * k4;
    let a_high = min(m + 32u + lane + EIGHTS, vec4u(p.m - 1u)) * k4;
    let b_rows = along(n, p.n);
    let b_col = across(n, p.n);
    var low = Rows();
    var high = Rows();
    for (var k = group.z * p.chunk / 4u; k < end / 4u; k++) {
        var bm: mat4x4f;
        if b_along { bm = transpose(load_b(b_rows + k)); } else { bm = load_b(b_col + (k * 4u + STEPS) * (p.n / 4u)); }
        let low0 = from_loaded(a4[a_low.x + k]);
        low.q0 = multiply_add(low.q0, bm, first_four(low0));
        low.q1 = multiply_add(low.q1, bm, last_four(low0));
        let low1 = from_loaded(a4[a_low.y + k]);
        low.q2 = multiply_add(low.q2, bm, first_four(low1));
        low.q3 = multiply_add(low.q3, bm, last_four(low1));
        let low2 = from_loaded(a4[a_low.z + k]);
        low.q4 = multiply_add(low.q4, bm, first_four(low2));
        low.q5 = multiply_add(low.q5, bm, last_four(low2));
        let low3 = from_loaded(a4[a_low.w + k]);
        low.q6 = multiply_add(low.q6, bm, first_four(low3));
        low.q7 = multiply_add(low.q7, bm, last_four(low3));
        if ROWS > 32u {
            let high0 = from_loaded(a4[a_high.x + k]);
            high.q0 = multiply_add(high.q0, bm, first_four(high0));
            high.q1 = multiply_add(high.q1, bm, last_four(high0));
            let high1 = from_loaded(a4[a_high.y + k]);
            high.q2 = multiply_add(high.q2, bm, first_four(high1));
            high.q3 = multiply_add(high.q3, bm, last_four(high1));
            let high2 = from_loaded(a4[a_high.z + k]);
            high.q4 = multiply_add(high.q4, bm, first_four(high2));
            high.q5 = multiply_add(high.q5, bm, last_four(high2));
            let high3 = from_loaded(a4[a_high.w + k]);
            high.q6 = multiply_add(high.q6, bm, first_four(high3));
            high.q7 = multiply_add(high.q7, bm, last_four(high3));
        }
    }
    store4(low, group.z, m, n);
    if ROWS > 32u { store4(high, group.z, m + 32u, n); }
}

@compute @workgroup_size(8)
fn forward_vec4(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
    rows_of_a(group, count, lane, true);
}

@compute @workgroup_size(8)
fn backward_input_vec4(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
    rows_of_a(group, count, lane, false);
}

@compute @workgroup_size(8)
fn backward_weight_vec4(@builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = vec3u(place_in_bands(group_id, count), group_id.z);
    let end = min((group.z + 1u) * p.chunk, p.k);
    let m = group.y * ROWS;
    let n = group.x * 32u + lane * 4u;
    let a_low = across(m + lane * 4u, p.m);
    let a_high = across(m + 32u + lane * 4u, p.m);
    let b_start = across(n, p.n);
    var low = Rows();
    var high = Rows();
    for (var k = group.z * p.chunk; k < end; k += 4u) {
        let a_step = clamped(k) * (p.m / 4u);
        let bm = without_tail(load_b(b_start + clamped(k) * (p.n / 4u)), k);
        multiply(&low, transpose(load_a(a_low + a_step)), bm);
        if ROWS > 32u { multiply(&high, transpose(load_a(a_high + a_step)), bm); }
    }
    store4(low, group.z, m, n);
    if ROWS > 32u { store4(high, group.z, m + 32u, n); }
}

// ---- any size, scalar loads: element (row, k) of an operand is at row · stride.x + k · stride.y.

fn store(rows: Rows, copy: u32, m: u32, n: u32) {
    store_quad(rows.q0, copy, m, n);
    store_quad(rows.q1, copy, m + 4u, n);
    store_quad(rows.q2, copy, m + 8u, n);
    store_quad(rows.q3, copy, m + 12u, n);
    store_quad(rows.q4, copy, m + 16u, n);
    store_quad(rows.q5, copy, m + 20u, n);
    store_quad(rows.q6, copy, m + 24u, n);
    store_quad(rows.q7, copy, m + 28u, n);
}
fn any_size(group_id: vec3u, count: vec3u, lane: u32, a_stride: vec2u, b_stride: vec2u) {
    let group = vec3u(place_in_bands(group_id, count), group_id.z);
    let end = min((group.z + 1u) * p.chunk, p.k);
    let m = group.y * ROWS;
    let n = group.x * 32u + lane * 4u;
    let a_low = min(m + lane * 4u + STEPS, vec4u(p.m - 1u)) * a_stride.x;
    let a_high = min(m + 32u + lane * 4u + STEPS, vec4u(p.m - 1u)) * a_stride.x;
    let b_start = min(n + STEPS, vec4u(p.n - 1u)) * b_stride.x;
    var low = Rows();
    var high = Rows();
    for (var k = group.z * p.chunk; k < end; k += 4u) {
        let a_step = clamped(k) * a_stride.y;
        let bm = without_tail(transpose(gather_b_rows(b_start, clamped(k) * b_stride.y)), k);
        multiply(&low, gather_a_rows(a_low, a_step), bm);
        if ROWS > 32u { multiply(&high, gather_a_rows(a_high, a_step), bm); }
    }
    store(low, group.z, m, n);
    if ROWS > 32u { store(high, group.z, m + 32u, n); }
}

@compute @workgroup_size(8)
fn forward(@builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
    any_size(group_id, count, lane, vec2u(p.k, 1u), vec2u(p.k, 1u));
}

@compute @workgroup_size(8)
fn backward_input(@builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
    any_size(group_id, count, lane, vec2u(p.k, 1u), vec2u(1u, p.n));
}

@compute @workgroup_size(8)
fn backward_weight(@builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
    any_size(group_id, count, lane, vec2u(1u, p.m), vec2u(1u, p.n));
}
