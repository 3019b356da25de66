// Sharpness-aware minimisation (Foret et al., ICLR 2021, "SAM", eq. 2): the weights up the slope, at which the gradient of the step is
// taken.
//
//   climbed = w + rho · dw / (‖dw‖ + 1e-12)      ‖dw‖ over all that is trained; without CLIMBS climbed = w
//
//   w, dw, climbed [len]   vectors of four: an arena's segments are whole 256 bytes
//   sums [len]             the partial sums of norm_clip::squares        factor [1]: rho / (‖dw‖ + 1e-12), 0 where ‖dw‖ is not finite
//
//   entry     grid                         writes
//   measure   [1, 1, 1]                    factor =
//   climb     fold(⌈len/(WG·PER_LANE)⌉)    climbed =
//
// A gradient that is not finite leads nowhere: the second pass, at w itself, finds it again, and the step is left out as any other. A
// gradient that a loss scale has multiplied leads to the same place.

struct Params { len: u32, rho: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 4u;
override CLIMBS: bool = true;

@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read_write> factor: array<f32>;

@compute @workgroup_size(WG)
fn measure(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < p.len; i += WG) { sum += sums[i]; }
    sum = reduce_sum(sum, lane);
    if lane != 0u { return; }
    // By its bits: a compiler may assume that no value is NaN or infinite.
    let finite = (bitcast<u32>(sum) & 0x7f800000u) != 0x7f800000u;
    factor[0] = select(0.0, p.rho / (sqrt(sum) + 1e-12), finite);
}

@group(0) @binding(0) var<storage, read_write> climbed: array<vec4f>;
@group(0) @binding(1) var<storage, read> w: array<vec4f>;
@group(0) @binding(2) var<storage, read> dw: array<vec4f>;
@group(0) @binding(3) var<storage, read> measured: array<f32>;

@compute @workgroup_size(WG)
fn climb(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    let by = measured[0];
    let climbs = CLIMBS && by != 0.0;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) {
        var place = w[i];
        if climbs { place += by * dw[i]; }
        climbed[i] = place;
    }
}
