// GELU (Hendrycks & Gimpel 2016) in three forms, and its backward.
//
//   KIND 0  erf     out = x · Φ(x)
//   KIND 1  tanh    out = x/2 · (1 + tanh u) = x · σ(2u),   u = √(2/π) · (x + 0.044715 x³)
//   KIND 2  quick   out = x · σ(1.702 x)
//
//   inp, out, dout, dinp   [len]
//
//   entry      grid                          writes
//   forward    fold(⌈len/(WG·PER_LANE)⌉)     out =
//   backward   fold(⌈len/(WG·PER_LANE)⌉)     dinp =
//
// The host appends `const KIND = …u;` and `alias elem = vec4f;` or f32; len counts those. `alias stored` is what all of these
// tensors hold, elem or the f16 of that. Several per lane, since a workgroup
// costs a CPU adapter about 0.3 µs. Behind or before a matrix product the epilogues of lib/epilogue_gelu*.wgsl do the same
// without a pass of their own.

struct Params { len: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read_write> out: array<stored>;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) { out[i] = stored(gelu(elem(inp[i]))); }
}

@group(0) @binding(1) var<storage, read> dout: array<stored>;
@group(0) @binding(2) var<storage, read_write> dinp: array<stored>;

@compute @workgroup_size(WG)
fn backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) { dinp[i] = stored(elem(dout[i]) * gelu_derivative(elem(inp[i]))); }
}
