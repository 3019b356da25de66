// Some neighbouring columns of a matrix, its backward, and columns put beside each other.
//
//   out[r, c] = inp[r, first + c]                                    for the `count` columns from `first` on
//   dinp[r, first + c] = dout[r, c], zero in the other columns
//
//   inp, dinp [rows, pitch]      out, dout [rows, count]
//
//   entry      grid                                         writes
//   forward    fold(⌈rows·count/(WG·PER_LANE)⌉)             out =
//   backward   fold(⌈rows·pitch/(WG·PER_LANE)⌉)             dinp =, or += with ACCUMULATE
//   place      fold(⌈rows·count/(WG·PER_LANE)⌉)             dinp = in these columns alone: the forward pass of columns side by side
//
// Nothing is saved for backward. The host appends `alias elem = vec4f;`, or f32 if one of the numbers is no multiple of 4, and counts in
// these; `alias stored` is what the tensors hold, elem or the f16 of that.

struct Params { rows: u32, pitch: u32, first: u32, count: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;
override ACCUMULATE: bool = false;

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read_write> out: array<stored>;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.rows * p.count); i += WG) { out[i] = inp[whole(i)]; }
}

// Where element `i` of the columns is in the whole matrix.
fn whole(i: u32) -> u32 { return i / p.count * p.pitch + p.first + i % p.count; }

@group(0) @binding(0) var<storage, read> dout: array<stored>;
@group(0) @binding(1) var<storage, read_write> dinp: array<stored>;

@compute @workgroup_size(WG)
fn backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.rows * p.pitch); i += WG) {
        // Before the first column it is a large number.
        let c = i % p.pitch - p.first;
        var sum = elem();
        if ACCUMULATE { sum = elem(dinp[i]); }
        if c < p.count { sum += elem(dout[i / p.pitch * p.count + c]); }
        dinp[i] = stored(sum);
    }
}

@compute @workgroup_size(WG)
fn place(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.rows * p.count); i += WG) { dinp[whole(i)] = dout[i]; }
}
