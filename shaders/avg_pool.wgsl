// The mean of every window, channel by channel, over NHWC images, and its backward.
//
//   out[b, y, x, c] = mean of inp[b, u, v, c] over the window's pixels u, v that lie in the image
//
//   inp, dinp [B, H, W, C]      out, dout [B, H', W', C]      windows start at multiples of the stride, less the padding
//
//   entry      grid                            writes
//   forward    [⌈cols/lanes⌉, B·H', 1]         out =
//   backward   [⌈cols/lanes⌉, B·H, 1]          dinp =   a pixel looks up the windows that hold it: no atomics
//
// The host appends `alias elem = vec4f;`, or f32 where channels are no multiple of 4; `cols` counts these. `alias stored`
// is what the tensors hold, elem or the f16 of that; sums are f32. Lanes stand side by side along the channels, and in several
// pixels where there are fewer. Nothing is saved for backward.

struct Params { src_h: u32, src_w: u32, dst_h: u32, dst_w: u32, cols: u32, kernel: u32, stride: u32, padding: u32 }
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
    let top = start(group.y % p.dst_h);
    let height = size(group.y % p.dst_h, p.src_h);
    for (var x = lane / across; x < p.dst_w; x += step) {
        let left = start(x);
        let width = size(x, p.src_w);
        var sum = elem();
        for (var u = top; u < top + height; u++) {
            let line = (group.y / p.dst_h * p.src_h + u) * p.src_w;
            for (var v = left; v < left + width; v++) { sum += elem(inp[(line + v) * p.cols + c]); }
        }
        out[(group.y * p.dst_w + x) * p.cols + c] = stored(sum / f32(height * width));
    }
}

// Where the window `at` begins in the image.
fn start(at: u32) -> u32 { return at * p.stride - min(at * p.stride, p.padding); }

// How much of it is inside.
fn size(at: u32, end: u32) -> u32 { return min(at * p.stride + p.kernel - p.padding, end) - start(at); }

@group(0) @binding(0) var<storage, read> dout: array<stored>;
@group(0) @binding(1) var<storage, read_write> dinp: array<stored>;

@compute @workgroup_size(WG)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let across = min(WG, p.cols);
    let step = WG / across;
    let c = group.x * across + lane % across;
    if c >= p.cols || lane / across >= step { return; }
    let u = group.y % p.src_h;
    let to_y = min((u + p.padding) / p.stride + 1u, p.dst_h);
    for (var v = lane / across; v < p.src_w; v += step) {
        let to_x = min((v + p.padding) / p.stride + 1u, p.dst_w);
        var sum = elem();
        for (var oy = first_window(u); oy < to_y; oy++) {
            let height = size(oy, p.src_h);
            for (var ox = first_window(v); ox < to_x; ox++) {
                let i = ((group.y / p.src_h * p.dst_h + oy) * p.dst_w + ox) * p.cols + c;
                sum += elem(dout[i]) / f32(height * size(ox, p.src_w));
            }
        }
        dinp[(group.y * p.src_w + v) * p.cols + c] = stored(sum);
    }
}

// The first window that reaches the coordinate `u`.
fn first_window(u: u32) -> u32 {
    if u + p.padding < p.kernel { return 0u; }
    return (u + p.padding - p.kernel) / p.stride + 1u;
}
