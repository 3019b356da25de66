// What an adapter can do at best, for `tpgm bench` to hold everything else against: multiply-adds that never leave the
// registers, and a copy that does nothing else.
//
//   multiply_add   x ← a · x + b, 8 · LOOPS times, for x = inp, inp + 1 and inp + 2;   out = the sum of the three
//                  inp, out [lanes, 4]; 8 · LOOPS · 3 · 4 multiply-adds per lane
//   copy           copied = whole         both [len], a multiple of 4
//
//   entry          grid                           writes
//   multiply_add   fold(lanes/WG)                 out =
//   copy           fold(⌈len/(4·WG·PER_LANE)⌉)    copied =
//
// Twelve chains per lane hide a multiply-add's latency and, with a and b, fit the sixteen registers of a CPU's vector
// unit; eight rounds per turn make the loop itself cheap. `len` counts vectors of four, which the host says how to read and
// write (src/ops/words.rs).

struct Params { len: u32, loops: u32, a: f32, b: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;

@group(0) @binding(0) var<storage, read> inp: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4f>;

@compute @workgroup_size(WG)
fn multiply_add(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = fold_index(group, groups) * WG + lane;
    if i >= p.len { return; }
    let a = p.a;
    let b = vec4f(p.b);
    var x = inp[i];
    var y = inp[i] + 1.0;
    var z = inp[i] + 2.0;
    for (var n = 0u; n < p.loops; n += 1u) {
        x = a * x + b; y = a * y + b; z = a * z + b;
        x = a * x + b; y = a * y + b; z = a * z + b;
        x = a * x + b; y = a * y + b; z = a * z + b;
        x = a * x + b; y = a * y + b; z = a * z + b;
        x = a * x + b; y = a * y + b; z = a * z + b;
        x = a * x + b; y = a * y + b; z = a * z + b;
        x = a * x + b; y = a * y + b; z = a * z + b;
        x = a * x + b; y = a * y + b; z = a * z + b;
    }
    out[i] = x + y + z;
}

@group(0) @binding(0) var<storage, read> whole: array<loaded4>;
@group(0) @binding(1) var<storage, read_write> copied: array<stored4>;

@compute @workgroup_size(WG)
fn copy(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) { copied[i] = to_stored(from_loaded(whole[i])); }
}
