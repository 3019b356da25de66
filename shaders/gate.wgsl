// A gate for each channel of each image (Hu et al. 2018, squeeze and excitation), and its backward. A shortcut may be added
// behind it, and a ReLU may follow.
//
//   out = relu(inp · σ(scale) + shortcut)      σ the sigmoid, or with HARD min(max(scale + 3, 0), 6) / 6 (Howard et al. 2019)
//
//   inp, shortcut, out, dout, dinp   [B, rows, cols]      scale, dscale   [B, cols]
//   partial   [B, P, cols]: each chunk's sum of g · inp
//
//   entry      grid                            writes
//   forward    [⌈cols/lanes⌉, chunks, B]       out =
//   backward   [⌈cols/lanes⌉, chunks, B]       dinp = g · σ(scale),  partial =       g = dout where out > 0 (all of it without RELU)
//   finish     fold(⌈B·cols/WG⌉)               dscale = σ'(scale) · Σ partial
//
// The shortcut's gradient is g itself. The host appends `alias elem = vec4f;`, or f32 where channels are no multiple of 4; `cols`
// counts these. `alias loaded` and `alias stored` are what images hold (src/ops/words.rs); scales and sums are f32.

struct Params { batch: u32, rows: u32, cols: u32, chunk: u32, partials: u32, eps: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override RELU: bool = false;
override HARD: bool = false;
override SHORTCUT: bool = false; // binding 2 may be anything readable when off

@group(0) @binding(0) var<storage, read> inp: array<loaded>;
@group(0) @binding(1) var<storage, read> scale: array<elem>;
@group(0) @binding(2) var<storage, read> shortcut: array<loaded>;
@group(0) @binding(3) var<storage, read_write> out: array<stored>;

fn gate_of(x: elem) -> elem {
    if HARD { return clamp(x + 3.0, elem(0.0), elem(6.0)) / 6.0; }
    return 1.0 / (1.0 + exp(-x));
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    let gate = gate_of(scale[group.z * p.cols + s.col]);
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let i = (group.z * p.rows + row) * p.cols + s.col;
        var y = from_loaded(inp[i]) * gate;
        if SHORTCUT { y += from_loaded(shortcut[i]); }
        if RELU { y = max(y, elem()); }
        out[i] = to_stored(y);
    }
}

@group(0) @binding(2) var<storage, read> dout: array<loaded>;
@group(0) @binding(3) var<storage, read> saved_out: array<loaded>; // may be anything readable without RELU
@group(0) @binding(4) var<storage, read_write> dinp: array<stored>;
@group(0) @binding(5) var<storage, read_write> partial: array<elem>;

fn gradient(i: u32) -> elem {
    if RELU { return select(elem(), from_loaded(dout[i]), from_loaded(saved_out[i]) > elem()); }
    return from_loaded(dout[i]);
}

@compute @workgroup_size(WG)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let s = seat(group, lane);
    if s.step == 0u { return; }
    let end = min((group.y + 1u) * p.chunk, p.rows);
    let gate = gate_of(scale[group.z * p.cols + s.col]);
    var sum = elem();
    for (var row = group.y * p.chunk + s.sub; row < end; row += s.step) {
        let i = (group.z * p.rows + row) * p.cols + s.col;
        let g = gradient(i);
        sum += g * from_loaded(inp[i]);
        dinp[i] = to_stored(g * gate);
    }
    partial[(group.z * p.partials + group.y * s.step + s.sub) * p.cols + s.col] = sum;
}

// ---- one lane per channel of an image: p.cols counts single channels.

@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read> saved_scale: array<f32>;
@group(0) @binding(2) var<storage, read_write> dscale: array<f32>;

@compute @workgroup_size(WG)
fn finish(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = fold_index(group, groups) * WG + lane;
    if i >= p.batch * p.cols { return; }
    let first = i / p.cols * p.partials * p.cols + i % p.cols;
    var sum = 0.0;
    for (var part = 0u; part < p.partials; part++) { sum += sums[first + part * p.cols]; }
    let x = saved_scale[i];
    let gate = 1.0 / (1.0 + exp(-x));
    var slope = gate * (1.0 - gate);
    if HARD { slope = select(0.0, 1.0 / 6.0, abs(x) < 3.0); }
    dscale[i] = sum * slope;
}
