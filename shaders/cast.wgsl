// Values in another format: the weights and the gradients that f16 products read.
//
//   out = inp, rounded to the nearest (a driver may truncate); what f16 can't hold becomes infinite
//
//   inp f32 [len]   out f16 [len]
//
//   entry     grid                         writes
//   forward   fold(⌈len/(WG·PER_LANE)⌉)    out =
//
// The host appends `alias inp_t = f32;` and `alias out_t = f16;`, or vec4<f32> and vec4<f16>; len counts those.

struct Params { len: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;

@group(0) @binding(0) var<storage, read> inp: array<inp_t>;
@group(0) @binding(1) var<storage, read_write> out: array<out_t>;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) { out[i] = out_t(inp[i]); }
}
