// The end of a matrix product, by vectors and by single elements: what matmul.wgsl, matmul_direct.wgsl and matmul_subgroup.wgsl
// share. Column i of `quad` is row m + i of out's copy, its vector columns n…n + 3; values past an edge are not stored.

fn store4_quad(quad: mat4x4f, copy: u32, m: u32, n: u32) {
    if n >= p.n { return; }
    store4_row(quad[0], copy, m, n);
    store4_row(quad[1], copy, m + 1u, n);
    store4_row(quad[2], copy, m + 2u, n);
    store4_row(quad[3], copy, m + 3u, n);
}
fn store4_row(sum: vec4f, copy: u32, m: u32, n: u32) {
    if m >= p.m { return; }
    let i = (copy * p.m * p.n + m * p.n + n) / 4u;
    var added = vec4f();
    if HAS_BIAS { added = bias4[n / 4u]; }
    if ACCUMULATE { added += from_stored(out4[i]); }
    out4[i] = to_stored(epilogue(sum + added, i, n / 4u));
}

fn store_quad(quad: mat4x4f, copy: u32, m: u32, n: u32) {
    store_row(quad[0], copy, m, n);
    store_row(quad[1], copy, m + 1u, n);
    store_row(quad[2], copy, m + 2u, n);
    store_row(quad[3], copy, m + 3u, n);
}
fn store_row(sum: vec4f, copy: u32, m: u32, n: u32) {
    if m >= p.m || n >= p.n { return; }
    let col = min(n + STEPS, vec4u(p.n - 1u));
    let i = copy * p.m * p.n + m * p.n + col;
    var added = vec4f();
    if HAS_BIAS { added = vec4f(bias[col.x], bias[col.y], bias[col.z], bias[col.w]); }
    if ACCUMULATE { added += vec4f(vec4(out[i.x], out[i.y], out[i.z], out[i.w])); }
    let value = vec4<result>(sum + added);
    out[i.x] = value.x;
    if n + 1u < p.n { out[i.y] = value.y; }
    if n + 2u < p.n { out[i.z] = value.z; }
    if n + 3u < p.n { out[i.w] = value.w; }
}
