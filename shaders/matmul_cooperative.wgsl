// Matrix product of f16 operands by cooperative matrices (lib/matrices.wgsl): sums in f32. What matmul.wgsl computes, with its
// three layouts, its epilogues and its names.
//
//   forward_vec4           out[m,n] = Σₖ a[m,k] · b[n,k] + bias[n]
//   backward_input_vec4    out[m,n] = Σₖ a[m,k] · b[k,n]
//   backward_weight_vec4   out[m,n] = Σₖ a[k,m] · b[k,n]
//
//   out [m, n], bias [n]; all row-major and contiguous. `=`, or `+=` with ACCUMULATE. Needs of m, n and k what matmul.wgsl's
//   vec4 entries need.
//
//   grid [⌈n/COLS⌉, ⌈m/ROWS⌉, ⌈k/chunk⌉]; workgroups along z share a sum as in matmul.wgsl. Nothing is saved.
//
// The host appends `alias operand = f16;`, `alias result = f32;` or f16, what lib/matrices.wgsl needs, and an epilogue. Needs
// wgpu's EXPERIMENTAL_COOPERATIVE_MATRIX, SHADER_F16 and SUBGROUP.

struct Params { m: u32, n: u32, k: u32, chunk: u32 }
var<immediate> p: Params;

override HAS_BIAS: bool = false; // forward only; binding 2 may be anything readable when off
override ACCUMULATE: bool = false;

@group(0) @binding(0) var<storage, read> a4: array<vec4<operand>>;
@group(0) @binding(1) var<storage, read> b4: array<vec4<operand>>;
@group(0) @binding(2) var<storage, read> bias4: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> out4: array<vec4<result>>;

fn load_a(i: vec4u) -> Four { return Four(a4[i.x], a4[i.y], a4[i.z], a4[i.w]); }
fn load_b(i: vec4u) -> Four { return Four(b4[i.x], b4[i.y], b4[i.z], b4[i.w]); }

fn along_k(f: Four, along: bool) -> Four {
    if along { return f; }
    return turned(f);
}

// Where four rows from `row` on of an operand are at `k`, or where four k are of four rows. Rows past the edge repeat the last
// one, and are not stored; k past the edge are to be left out.
fn place(row: u32, rows: u32, k: u32, along: bool) -> vec4u {
    let steps = vec4u(0u, 1u, 2u, 3u);
    if along { return min(row + steps, vec4u(rows - 1u)) * (p.k / 4u) + min(k, p.k - 4u) / 4u; }
    return min(k + steps, vec4u(p.k - 1u)) * (rows / 4u) + min(row, rows - 4u) / 4u;
}

// Writes what subgroups have left, from row m and column n on.
fn put(lane: u32, m: u32, n: u32, copy: u32) {
    for (var j = lane; j < LEFT; j += LANES) {
        let at = left_at(j);
        let y = m + at.x;
        let x = n + at.y;
        if y < p.m && x < p.n {
            let i = (copy * p.m * p.n + y * p.n + x) / 4u;
            var added = vec4f();
            if HAS_BIAS { added = bias4[x / 4u]; }
            if ACCUMULATE { added += vec4f(out4[i]); }
            out4[i] = vec4<result>(epilogue(left(j) + added, i, x / 4u));
        }
    }
}

// The flags are literals, so what they rule out folds away.
fn run(group: vec3u, subgroup: u32, subgroups: u32, lane: u32, a_along: bool, b_along: bool) {
    let m = group.y * ROWS;
    let n = group.x * COLS;
    let start = group.z * p.chunk;
    let end = min(start + p.chunk, p.k);
    let whole = (end - start) / DEPTH;
    let a_step = select(DEPTH * (p.m / 4u), DEPTH / 4u, a_along);
    let b_step = select(DEPTH * (p.n / 4u), DEPTH / 4u, b_along);

    // Where a lane's part of the next tile is, and that part, which is on its way from memory while this one is multiplied.
    var a_at: array<vec4u, A_FOURS>;
    var b_at: array<vec4u, B_FOURS>;
    var a_next: array<Four, A_FOURS>;
    var b_next: array<Four, B_FOURS>;
    for (var i = 0u; i < A_FOURS; i++) {
        let own = lane + i * LANES;
        a_at[i] = place(m + row_of(own), p.m, start + k_of(own), a_along);
        a_next[i] = load_a(a_at[i]);
    }
    for (var i = 0u; i < B_FOURS; i++) {
        let own = lane + i * LANES;
        b_at[i] = place(n + row_of(own), p.n, start + k_of(own), b_along);
        b_next[i] = load_b(b_at[i]);
    }
    clear(lane, subgroups);
    let twice = has_second();
    for (var tiles = whole; tiles > 0u; tiles--) {
        workgroupBarrier(); // the last tile has been read by everyone
        for (var i = 0u; i < A_FOURS; i++) { stage_a(lane + i * LANES, along_k(a_next[i], a_along)); }
        for (var i = 0u; i < B_FOURS; i++) { stage_b(lane + i * LANES, along_k(b_next[i], b_along)); }
        workgroupBarrier();
        for (var i = 0u; i < A_FOURS; i++) {
            a_at[i] += select(0u, a_step, tiles > 1u); // after the last one it comes once more
            a_next[i] = load_a(a_at[i]);
        }
        for (var i = 0u; i < B_FOURS; i++) {
            b_at[i] += select(0u, b_step, tiles > 1u);
            b_next[i] = load_b(b_at[i]);
        }
        multiply_first(subgroup);
        if twice { multiply_second(subgroup, subgroups); }
    }
    // Of the last tile, values past the end are zero.
    let last = start + whole * DEPTH;
    if last < end {
        workgroupBarrier();
        for (var i = 0u; i < A_FOURS; i++) {
            let own = lane + i * LANES;
            let k = last + k_of(own);
            let f = load_a(place(m + row_of(own), p.m, k, a_along));
            stage_a(own, without_tail(along_k(f, a_along), k, end));
        }
        for (var i = 0u; i < B_FOURS; i++) {
            let own = lane + i * LANES;
            let k = last + k_of(own);
            let f = load_b(place(n + row_of(own), p.n, k, b_along));
            stage_b(own, without_tail(along_k(f, b_along), k, end));
        }
        workgroupBarrier();
        multiply_first(subgroup);
        if twice { multiply_second(subgroup, subgroups); }
    }
    leave00(subgroup, subgroups, twice);
    put(lane, m, n, group.z);
    leave01(subgroup, subgroups, twice);
    put(lane, m, n + CN, group.z);
    leave10(subgroup, subgroups, twice);
    put(lane, m + CM, n, group.z);
    leave11(subgroup, subgroups, twice);
    put(lane, m + CM, n + CN, group.z);
}

@compute @workgroup_size(LANES)
fn forward_vec4(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32, @builtin(local_invocation_index) lane: u32) {
    run(group, subgroup, subgroups, lane, true, true);
}

@compute @workgroup_size(LANES)
fn backward_input_vec4(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32, @builtin(local_invocation_index) lane: u32) {
    run(group, subgroup, subgroups, lane, true, false);
}

@compute @workgroup_size(LANES)
fn backward_weight_vec4(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32, @builtin(local_invocation_index) lane: u32) {
    run(group, subgroup, subgroups, lane, false, false);
}
