// One token of each text, by its place: where CLIP reads a text's features, at its end; and the backward.
//
//   out[b] = inp[b, at[b]]
//   dinp[b, t] = dout[b] if t = at[b], else 0
//
//   inp, dinp [B, T, D]      at [B] u32, each below T      out, dout [B, D]
//
//   entry            grid                            writes
//   forward          fold(⌈B·D/WG⌉)                  out =
//   backward_input   fold(⌈B·T·D/(WG·PER_LANE)⌉)     dinp =   every token; += with ACCUMULATE

struct Params { batch: u32, tokens: u32, dim: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;
override ACCUMULATE: bool = false;

@group(0) @binding(0) var<storage, read> at: array<u32>;
@group(0) @binding(1) var<storage, read> inp: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = fold_index(group, groups) * WG + lane;
    if i >= p.batch * p.dim { return; }
    let b = i / p.dim;
    out[i] = inp[(b * p.tokens + at[b]) * p.dim + i % p.dim];
}

@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read_write> dinp: array<f32>;

@compute @workgroup_size(WG)
fn backward_input(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let start = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = start; i < min(start + WG * PER_LANE, p.batch * p.tokens * p.dim); i += WG) {
        let b = i / (p.tokens * p.dim);
        var own = select(0.0, dout[b * p.dim + i % p.dim], i / p.dim % p.tokens == at[b]);
        if ACCUMULATE { own += dinp[i]; }
        dinp[i] = own;
    }
}
