// ReLU6 and its backward: negative values become zero, those above six become six (Sandler et al. 2018, MobileNetV2).
//
//   out = min(max(inp, 0), 6),   dinp = dout where 0 < inp < 6, else 0
//
//   inp, out, dout, dinp   [len]
//
//   entry            grid                          writes
//   forward          fold(⌈len/(WG·PER_LANE)⌉)     out =
//   backward_input   fold(⌈len/(WG·PER_LANE)⌉)     dinp =
//
// `inp` is saved for backward. The host appends `alias elem = vec4f;`, or f32 where the length is no multiple of 4; `len`
// counts these. `alias stored` is what all of these tensors hold, elem or the f16 of that.

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
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) {
        let x = elem(inp[i]);
        out[i] = stored(clamp(x, elem(0.0), elem(6.0)));
    }
}

@group(0) @binding(1) var<storage, read> dout: array<stored>;
@group(0) @binding(2) var<storage, read_write> dinp: array<stored>;

@compute @workgroup_size(WG)
fn backward_input(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) {
        let x = elem(inp[i]);
        let above = select(elem(0.0), elem(dout[i]), x > elem(0.0));
        dinp[i] = stored(select(elem(0.0), above, x < elem(6.0)));
    }
}
