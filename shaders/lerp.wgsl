// Linear interpolation in place: one step of an exponential moving average of the weights (Polyak & Juditsky 1992).
//
//   out += share · (inp − out)
//
//   out, inp [len]     vectors of four: an arena's segments are whole 256 bytes
//
//   entry     grid                         writes
//   forward   fold(⌈len/(WG·PER_LANE)⌉)    out +=

struct Params { len: u32, share: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 4u;

@group(0) @binding(0) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(1) var<storage, read> inp: array<vec4f>;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) { out[i] += p.share * (inp[i] - out[i]); }
}
