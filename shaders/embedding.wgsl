// Tokens of texts to vectors: rows of a table by their numbers, with the vector of each position; and the table's gradient.
//
//   out[r] = weight[ids[r]] + positions[r mod T]
//   dweight[v] += Σ_r dout[r]   over the r whose ids[r] is v
//
//   ids [B·T] u32, each below V      weight, dweight [V, D]      positions [T, D]      out, dout [B·T, D]
//
//   entry             grid                      writes
//   forward           fold(⌈B·T·D'/WG⌉)         out =
//   backward_params   fold(B·T·⌈D'/WG⌉)         dweight +=   a workgroup has WG columns of one row of ids
//
// The host appends `alias elem = vec4f;`, or f32 where D is no multiple of 4; D' counts these. The positions' gradient is a sum over
// texts, column_sum's.
//
// There are no float atomics: the first row of each number adds up all rows of it, in their order, so that the same texts give the
// same bits. Every workgroup reads all ids for that, which are few beside the vectors: some thousand.

struct Params { rows: u32, tokens: u32, cols: u32 } // cols is D'
var<immediate> p: Params;

override WG: u32 = 64u;

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read> weight: array<elem>;
@group(0) @binding(2) var<storage, read> positions: array<elem>;
@group(0) @binding(3) var<storage, read_write> out: array<elem>;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = fold_index(group, groups) * WG + lane;
    if i >= p.rows * p.cols { return; }
    let row = i / p.cols;
    let col = i % p.cols;
    out[i] = weight[ids[row] * p.cols + col] + positions[row % p.tokens * p.cols + col];
}

@group(0) @binding(1) var<storage, read> dout: array<elem>;
@group(0) @binding(2) var<storage, read_write> dweight: array<elem>;

@compute @workgroup_size(WG)
fn backward_params(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let across = (p.cols + WG - 1u) / WG;
    let index = fold_index(group, groups);
    let first = index / across;
    let col = index % across * WG + lane;
    if first >= p.rows || col >= p.cols { return; }
    let id = ids[first];
    for (var row = 0u; row < first; row++) {
        if ids[row] == id { return; }
    }
    var sum = dweight[id * p.cols + col];
    for (var row = first; row < p.rows; row++) {
        if ids[row] == id { sum += dout[row * p.cols + col]; }
    }
    dweight[id * p.cols + col] = sum;
}
