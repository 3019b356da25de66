// Each channel of an NHWC image under a fixed symmetric filter of 3 × 3 taps, and its backward: the blur before a stride (Zhang 2019), and
// the mean of windows that count the zeros around the image.
//
//   out[b, y, x, c] = Σ_{i, j} f_i · f_j · inp[b, y·s + i − 1, x·s + j − 1, c]        f = (side, 1 − 2·side, side)
//
//   inp, dinp [B, H, W, C]      out, dout [B, H', W', C], H' = ⌈H/s⌉
//   outside the image: zeros, or with `reflect` the pixel as far inside of the edge
//
//   entry      grid                            writes
//   forward    [⌈cols/lanes⌉, B·H', 1]         out =
//   backward   [⌈cols/lanes⌉, B·H, 1]          dinp =   a pixel looks up the windows that hold it: no atomics
//
// The host appends `alias elem = vec4f;`, or f32 if channels are no multiple of 4; `cols` counts these. `alias stored` is what the
// tensors hold, elem or the f16 of that; sums are f32. Lanes stand side by side along the channels, and in several pixels if there
// are fewer. Nothing is saved for backward.

struct Params { src_h: u32, src_w: u32, dst_h: u32, dst_w: u32, cols: u32, stride: u32, reflect: u32, side: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read_write> out: array<stored>;

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let across = min(WG, p.cols);
    let step = WG / across;
    let c = group.x * across + lane % across;
    if c >= p.cols || lane / across >= step { return; }
    let y = group.y % p.dst_h;
    for (var x = lane / across; x < p.dst_w; x += step) {
        var sum = elem();
        for (var i = 0u; i < 3u; i++) {
            let u = source(y, i, p.src_h);
            if u >= p.src_h { continue; }
            let line = (group.y / p.dst_h * p.src_h + u) * p.src_w;
            for (var j = 0u; j < 3u; j++) {
                let v = source(x, j, p.src_w);
                if v < p.src_w { sum += tap(i) * tap(j) * elem(inp[(line + v) * p.cols + c]); }
            }
        }
        out[(group.y * p.dst_w + x) * p.cols + c] = stored(sum);
    }
}

fn tap(i: u32) -> f32 { return select(p.side, 1.0 - 2.0 * p.side, i == 1u); }

// The coordinate that tap `i` of the window `at` reads, of `size`; `size` or more for a zero.
fn source(at: u32, i: u32, size: u32) -> u32 {
    // One more than the coordinate: none is negative.
    let next = at * p.stride + i;
    if next == 0u { return select(size, 1u, p.reflect != 0u); }
    if next == size + 1u { return select(size, size - 2u, p.reflect != 0u); }
    return next - 1u;
}

@group(0) @binding(0) var<storage, read> dout: array<stored>;
@group(0) @binding(1) var<storage, read_write> dinp: array<stored>;

@compute @workgroup_size(WG)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let across = min(WG, p.cols);
    let step = WG / across;
    let c = group.x * across + lane % across;
    if c >= p.cols || lane / across >= step { return; }
    let u = group.y % p.src_h;
    for (var v = lane / across; v < p.src_w; v += step) {
        var sum = elem();
        for (var y = first(u); y < end(u, p.dst_h); y++) {
            let down = weight(y, u, p.src_h);
            let line = (group.y / p.src_h * p.dst_h + y) * p.dst_w;
            for (var x = first(v); x < end(v, p.dst_w); x++) {
                sum += down * weight(x, v, p.src_w) * elem(dout[(line + x) * p.cols + c]);
            }
        }
        dinp[(group.y * p.src_w + v) * p.cols + c] = stored(sum);
    }
}

// The windows whose middle lies within a pixel of `u`: those that read it by reflection lie there, too.
fn first(u: u32) -> u32 { return (max(u, 1u) - 1u + p.stride - 1u) / p.stride; }

fn end(u: u32, count: u32) -> u32 { return min((u + 1u) / p.stride + 1u, count); }

// What the coordinate `u` counts in the window `at`.
fn weight(at: u32, u: u32, size: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < 3u; i++) { sum += select(0.0, tap(i), source(at, i, size) == u); }
    return sum;
}
