// A run of tokens to one feature vector, and its backward.
//
//   out[b, column..][..D] = 1/n · Σ_t inp[b, first + t]      over t < n = count tokens: the class token, or all patches
//
//   inp, dinp [B, T, D]      out, dout [B, STRIDE], of which the columns outside of column..column + D are left alone
//
//   entry      grid                            writes
//   forward    fold(⌈B·D/WG⌉)                  out =
//   backward   fold(⌈B·T·D/(WG·PER_LANE)⌉)     dinp =   every token, zero where the pooling does not look; += with ACCUMULATE
//
// The host appends `alias elem = vec4f;` where all columns come in fours, else f32; `dim`, `stride` and `column` count these.
// `alias stored` is what inp and dinp hold, elem or the f16 of that, and `alias pooled` what out and dout do. Sums are f32.

struct Params { batch: u32, tokens: u32, dim: u32, first: u32, count: u32, stride: u32, column: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;
override ACCUMULATE: bool = false;

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read_write> out: array<pooled>;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = fold_index(group, groups) * WG + lane;
    if i >= p.batch * p.dim { return; }
    let start = ((i / p.dim) * p.tokens + p.first) * p.dim + i % p.dim;
    var sum = elem();
    for (var t = 0u; t < p.count; t++) { sum += elem(inp[start + t * p.dim]); }
    out[(i / p.dim) * p.stride + p.column + i % p.dim] = pooled(sum / f32(p.count));
}

@group(0) @binding(0) var<storage, read> dout: array<pooled>;
@group(0) @binding(1) var<storage, read_write> dinp: array<stored>;

@compute @workgroup_size(WG)
fn backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let start = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = start; i < min(start + WG * PER_LANE, p.batch * p.tokens * p.dim); i += WG) {
        let row = i / p.dim;
        let image = row / p.tokens;
        let t = row - image * p.tokens;
        var own = elem();
        if t >= p.first && t < p.first + p.count {
            own = elem(dout[image * p.stride + p.column + i - row * p.dim]) / f32(p.count);
        }
        if ACCUMULATE { own += elem(dinp[i]); }
        dinp[i] = stored(own);
    }
}
