// Matrix product of f16 operands by cooperative matrices, the matrix units of GPUs: sums in f32. What matmul.wgsl computes,
// with its three layouts, its epilogues and its names.
//
//   forward_vec4           out[m,n] = Σₖ a[m,k] · b[n,k] + bias[n]
//   backward_input_vec4    out[m,n] = Σₖ a[m,k] · b[k,n]
//   backward_weight_vec4   out[m,n] = Σₖ a[k,m] · b[k,n]
//
//   out [m, n], bias [n]; all row-major and contiguous. `=`, or `+=` with ACCUMULATE. Needs of m, n and k what matmul.wgsl's
//   vec4 entries need.
//
//   grid [⌈n/SIDE⌉, ⌈m/SIDE⌉, ⌈k/chunk⌉], SIDE = 4·CM; workgroups along z share a sum as in matmul.wgsl. Nothing is saved.
//
// The host appends `alias operand = f16;`, `alias result = f32;` or f16, `const CM = 16u;` or 8u (the side of a cooperative
// matrix), `const LANES = …u;` (four subgroups), and `alias mat_a = coop_mat16x16<f16, A>;`, mat_b for B and mat_c, of f32, for
// C; and an epilogue. Needs wgpu's EXPERIMENTAL_COOPERATIVE_MATRIX and SHADER_F16, and subgroups of one size.
//
// Each of four subgroups has 2 × 2 matrices of out. Operands pass through workgroup memory, where tiles that cross an edge are
// filled up with zeros: a matrix is loaded whole, and must not read past a buffer's end.

struct Params { m: u32, n: u32, k: u32, chunk: u32 }
var<immediate> p: Params;

override HAS_BIAS: bool = false; // forward only; binding 2 may be anything readable when off
override ACCUMULATE: bool = false;

@group(0) @binding(0) var<storage, read> a4: array<vec4<operand>>;
@group(0) @binding(1) var<storage, read> b4: array<vec4<operand>>;
@group(0) @binding(2) var<storage, read> bias4: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> out4: array<vec4<result>>;

const SIDE = 4u * CM;
const DEPTH = 32u; // k of a tile
const AREA = CM * CM;

var<workgroup> a_tile: array<operand, SIDE * DEPTH>; // [SIDE, DEPTH]
var<workgroup> b_tile: array<operand, DEPTH * SIDE>; // [DEPTH, SIDE]
var<workgroup> sums: array<f32, 4u * AREA>;          // a matrix for each subgroup

// The tile's rows from `m`, its k from `k` up to `end`. `along`: a's rows run along k.
fn stage_a(m: u32, k: u32, end: u32, thread: u32, along: bool) {
    for (var i = thread; i < SIDE * DEPTH / 4u; i += LANES) {
        var x = vec4<operand>();
        if along {
            let row = i / (DEPTH / 4u);
            let step = i % (DEPTH / 4u) * 4u;
            if m + row < p.m && k + step < end { x = a4[((m + row) * p.k + k + step) / 4u]; }
            let at = row * DEPTH + step;
            a_tile[at] = x.x;
            a_tile[at + 1u] = x.y;
            a_tile[at + 2u] = x.z;
            a_tile[at + 3u] = x.w;
        } else {
            let step = i / (SIDE / 4u);
            let row = i % (SIDE / 4u) * 4u;
            if m + row < p.m && k + step < end { x = a4[((k + step) * p.m + m + row) / 4u]; }
            let at = row * DEPTH + step;
            a_tile[at] = x.x;
            a_tile[at + DEPTH] = x.y;
            a_tile[at + 2u * DEPTH] = x.z;
            a_tile[at + 3u * DEPTH] = x.w;
        }
    }
}

fn stage_b(n: u32, k: u32, end: u32, thread: u32, along: bool) {
    for (var i = thread; i < SIDE * DEPTH / 4u; i += LANES) {
        var x = vec4<operand>();
        if along {
            let col = i / (DEPTH / 4u);
            let step = i % (DEPTH / 4u) * 4u;
            if n + col < p.n && k + step < end { x = b4[((n + col) * p.k + k + step) / 4u]; }
            let at = step * SIDE + col;
            b_tile[at] = x.x;
            b_tile[at + SIDE] = x.y;
            b_tile[at + 2u * SIDE] = x.z;
            b_tile[at + 3u * SIDE] = x.w;
        } else {
            let step = i / (SIDE / 4u);
            let col = i % (SIDE / 4u) * 4u;
            if n + col < p.n && k + step < end { x = b4[((k + step) * p.n + n + col) / 4u]; }
            let at = step * SIDE + col;
            b_tile[at] = x.x;
            b_tile[at + 1u] = x.y;
            b_tile[at + 2u] = x.z;
            b_tile[at + 3u] = x.w;
        }
    }
}

// Writes what the four subgroups left in `sums`: matrix (down, right) of each one's 2 × 2.
fn write(copy: u32, m: u32, n: u32, down: u32, right: u32, thread: u32) {
    for (var i = thread; i < AREA; i += LANES) {
        let subgroup = i / (AREA / 4u);
        let within = i % (AREA / 4u) * 4u;
        let y = m + (subgroup / 2u * 2u + down) * CM + within / CM;
        let x = n + (subgroup % 2u * 2u + right) * CM + within % CM;
        if y < p.m && x < p.n {
            let at = subgroup * AREA + within;
            let sum = vec4f(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]);
            let j = (copy * p.m * p.n + y * p.n + x) / 4u;
            var added = vec4f();
            if HAS_BIAS { added = bias4[x / 4u]; }
            if ACCUMULATE { added += vec4f(out4[j]); }
            out4[j] = vec4<result>(epilogue(sum + added, j, x / 4u));
        }
    }
}

// The flags are literals, so what they rule out folds away.
fn run(group: vec3u, subgroup: u32, thread: u32, a_along: bool, b_along: bool) {
    let m = group.y * SIDE;
    let n = group.x * SIDE;
    let row = subgroup / 2u * 2u * CM;
    let col = subgroup % 2u * 2u * CM;
    let own = subgroup * AREA;
    for (var i = thread; i < 4u * AREA; i += LANES) { sums[i] = 0.0; }
    workgroupBarrier();
    var s00 = coopLoadT<mat_c>(&sums[own], CM);
    var s01 = coopLoadT<mat_c>(&sums[own], CM);
    var s10 = coopLoadT<mat_c>(&sums[own], CM);
    var s11 = coopLoadT<mat_c>(&sums[own], CM);
    let end = min((group.z + 1u) * p.chunk, p.k);
    for (var k = group.z * p.chunk; k < end; k += DEPTH) {
        workgroupBarrier(); // the last tile has been read by everyone
        stage_a(m, k, end, thread, a_along);
        stage_b(n, k, end, thread, b_along);
        workgroupBarrier();
        for (var step = 0u; step < DEPTH; step += CM) {
            let a0 = coopLoadT<mat_a>(&a_tile[row * DEPTH + step], DEPTH);
            let a1 = coopLoadT<mat_a>(&a_tile[(row + CM) * DEPTH + step], DEPTH);
            let b0 = coopLoadT<mat_b>(&b_tile[step * SIDE + col], SIDE);
            let b1 = coopLoadT<mat_b>(&b_tile[step * SIDE + col + CM], SIDE);
            s00 = coopMultiplyAdd(a0, b0, s00);
            s01 = coopMultiplyAdd(a0, b1, s01);
            s10 = coopMultiplyAdd(a1, b0, s10);
            s11 = coopMultiplyAdd(a1, b1, s11);
        }
    }
    coopStoreT(s00, &sums[own], CM);
    workgroupBarrier();
    write(group.z, m, n, 0u, 0u, thread);
    workgroupBarrier();
    coopStoreT(s01, &sums[own], CM);
    workgroupBarrier();
    write(group.z, m, n, 0u, 1u, thread);
    workgroupBarrier();
    coopStoreT(s10, &sums[own], CM);
    workgroupBarrier();
    write(group.z, m, n, 1u, 0u, thread);
    workgroupBarrier();
    coopStoreT(s11, &sums[own], CM);
    workgroupBarrier();
    write(group.z, m, n, 1u, 1u, thread);
}

@compute @workgroup_size(LANES)
fn forward_vec4(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32, @builtin(local_invocation_index) thread: u32) {
    run(group, subgroup, thread, true, true);
}

@compute @workgroup_size(LANES)
fn backward_input_vec4(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32, @builtin(local_invocation_index) thread: u32) {
    run(group, subgroup, thread, true, false);
}

@compute @workgroup_size(LANES)
fn backward_weight_vec4(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32, @builtin(local_invocation_index) thread: u32) {
    run(group, subgroup, thread, false, false);
}
