// How a lane loads its part of a product's operands straight from storage: what matmul_direct.wgsl and matmul_subgroup.wgsl
// share. Rows and columns past the edge repeat the last one, and are not stored.

fn load_a(i: vec4u) -> mat4x4f { return mat4x4f(from_loaded(a4[i.x]), from_loaded(a4[i.y]), from_loaded(a4[i.z]), from_loaded(a4[i.w])); }
fn load_b(i: vec4u) -> mat4x4f { return mat4x4f(from_loaded(b4[i.x]), from_loaded(b4[i.y]), from_loaded(b4[i.z]), from_loaded(b4[i.w])); }

// `row` is the first of four rows or columns which the lane loads, of `rows`; the result is an index of vec4f,
// to which the entry adds k/4 (along) or k·rows/4 (across).
fn along(row: u32, rows: u32) -> vec4u { return min(row + STEPS, vec4u(rows - 1u)) * (p.k / 4u); }
fn across(row: u32, rows: u32) -> u32 { return min(row, rows - 4u) / 4u; }

// The last k may be fewer than four: repeat the last, and take it zero times.
fn clamped(k: u32) -> vec4u { return min(k + STEPS, vec4u(p.k - 1u)); }
fn without_tail(bm: mat4x4f, k: u32) -> mat4x4f {
    let none = vec4f();
    return mat4x4f(bm[0], select(none, bm[1], k + 1u < p.k), select(none, bm[2], k + 2u < p.k), select(none, bm[3], k + 3u < p.k));
}

// Any size, scalar loads: an element is at row · stride.x + k · stride.y, and both come multiplied.
fn gather_a(row: u32, k: vec4u) -> vec4f {
    let i = row + k;
    return vec4f(vec4(a[i.x], a[i.y], a[i.z], a[i.w]));
}
fn gather_b(row: u32, k: vec4u) -> vec4f {
    let i = row + k;
    return vec4f(vec4(b[i.x], b[i.y], b[i.z], b[i.w]));
}
fn gather_a_rows(rows: vec4u, k: vec4u) -> mat4x4f {
    return mat4x4f(gather_a(rows.x, k), gather_a(rows.y, k), gather_a(rows.z, k), gather_a(rows.w, k));
}
fn gather_b_rows(rows: vec4u, k: vec4u) -> mat4x4f {
    return mat4x4f(gather_b(rows.x, k), gather_b(rows.y, k), gather_b(rows.z, k), gather_b(rows.w, k));
}
