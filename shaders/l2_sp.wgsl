// The gradient of L2-SP's penalty (Li, Grandvalet & Davoine, ICML 2018, eq. 3): lambda/2 · ‖w − w0‖², a pull back to the anchor.
//
//   dw += scale · lambda · (w − w0)        scale: 1, or the loss scale that dw is multiplied by
//
//   w, w0, dw [len]     vectors of four: an arena's segments are whole 256 bytes, and w − w0 of their padding is zero
//
//   entry      grid                         writes
//   backward   fold(⌈len/(WG·PER_LANE)⌉)    dw +=

struct Params { len: u32, lambda: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 4u;
override SCALED: bool = false; // loss_scale may be anything readable when off

@group(0) @binding(0) var<storage, read> w: array<vec4f>;
@group(0) @binding(1) var<storage, read> w0: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> dw: array<vec4f>;
@group(0) @binding(3) var<storage, read> loss_scale: array<f32>;

@compute @workgroup_size(WG)
fn backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    var pull = p.lambda;
    if SCALED { pull *= loss_scale[0]; }
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) { dw[i] += pull * (w[i] - w0[i]); }
}
