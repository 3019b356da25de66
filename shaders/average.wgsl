// The mean of two tensors, which is how DeiT's two heads answer (Touvron et al. 2021), and its backward.
//
//   out = (a + b) / 2            dinp = dout / 2, the gradient of both
//
//   a, b, out, dout, dinp [len]
//
//   entry      grid                          writes
//   forward    fold(⌈len/(WG·PER_LANE)⌉)     out =
//   backward   fold(⌈len/(WG·PER_LANE)⌉)     dinp =

struct Params { len: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) { out[i] = 0.5 * (a[i] + b[i]); }
}

@group(0) @binding(0) var<storage, read> dout: array<f32>;
@group(0) @binding(1) var<storage, read_write> dinp: array<f32>;

@compute @workgroup_size(WG)
fn backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) { dinp[i] = 0.5 * dout[i]; }
}
