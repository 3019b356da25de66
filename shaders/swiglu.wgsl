// SwiGLU (Shazeer 2020): one half of a row gates the other; and its backward.
//
//   inp = [a | b],   out = a · σ(a) · b
//   da = dout · b · σ(a) · (1 + a · (1 − σ(a))),   db = dout · a · σ(a)
//
//   inp, dinp   [rows, 2·cols]        out, dout   [rows, cols]
//   gate, value, dgate, dvalue   [rows, cols]: a and b as two tensors
//
//   entry           grid                                 writes
//   forward         fold(⌈rows·cols/(WG·PER_LANE)⌉)      out =
//   backward        fold(⌈rows·cols/(WG·PER_LANE)⌉)      dinp =
//   forward_pair, backward_pair: the same of two tensors; dgate = , dvalue =
//                                With PLAIN out = a · b: the product that makes a has applied the activation
//
// The host appends `alias elem = vec4f;`, or f32 where columns are no multiple of 4; `len` (rows·cols) and `cols` count elems.
// `alias stored` is what the tensors hold, elem or the f16 of that. No epilogue of the product that makes inp: its workgroups
// have neighbouring columns, a and b lie `cols` apart.

struct Params { len: u32, cols: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;
override PLAIN: bool = false;

// By exp of a clamped argument, as in lib/gelu.wgsl.
fn sigmoid(x: elem) -> elem {
    return 1.0 / (1.0 + exp(-clamp(x, elem(-80.0), elem(80.0))));
}

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
        let at = i + i / p.cols * p.cols;
        let a = elem(inp[at]);
        out[i] = stored(a * sigmoid(a) * elem(inp[at + p.cols]));
    }
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
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) {
        let at = i + i / p.cols * p.cols;
        let a = elem(inp[at]);
        let b = elem(inp[at + p.cols]);
        let s = sigmoid(a);
        let d = elem(dout[i]);
        dinp[at] = stored(d * b * s * (1.0 + a * (1.0 - s)));
        dinp[at + p.cols] = stored(d * a * s);
    }
}

@group(0) @binding(0) var<storage, read> gate: array<stored>;
@group(0) @binding(2) var<storage, read> value: array<stored>;

@compute @workgroup_size(WG)
fn forward_pair(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) {
        let a = elem(gate[i]);
        if PLAIN { out[i] = stored(a * elem(value[i])); } else { out[i] = stored(a * sigmoid(a) * elem(value[i])); }
    }
}

@group(0) @binding(3) var<storage, read_write> dgate: array<stored>;
@group(0) @binding(4) var<storage, read_write> dvalue: array<stored>;

@compute @workgroup_size(WG)
fn backward_pair(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) {
        let a = elem(gate[i]);
        let d = elem(dout[i]);
        if PLAIN {
            dgate[i] = stored(d * elem(value[i]));
            dvalue[i] = stored(d * a);
            continue;
        }
        let s = sigmoid(a);
        dgate[i] = stored(d * elem(value[i]) * s * (1.0 + a * (1.0 - s)));
        dvalue[i] = stored(d * a * s);
    }
}
