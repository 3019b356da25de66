// The largest value of every window, channel by channel, over NHWC images, and its backward.
//
//   out[b, y, x, c] = max_{ky, kx} inp[b, y·s − p + ky, x·s − q + kx, c]      pixels outside do not count, or with ZEROS are zero
//
//   inp, dinp [B, H, W, C]      out, dout [B, H', W', C]
//   tap       [B, H', W', C]    ky · k + kx of the window's first largest value, row by row; saved for backward
//
//   entry      grid                            writes
//   forward    [⌈cols/lanes⌉, B·H', 1]         out =, tap =
//   backward   [⌈cols/lanes⌉, B·H, 1]          dinp =   a pixel looks up the windows that hold it: no atomics
//
// The host appends `alias elem = vec4f; alias taps = vec4u;`, or f32 and u32 where channels are no multiple of 4; `cols`
// counts these. `alias stored` is what inp, out, dout and dinp hold, elem or the f16 of that; sums are f32. Lanes stand side by
// side along the channels, and in several pixels where there are fewer.

struct Params { src_h: u32, src_w: u32, dst_h: u32, dst_w: u32, cols: u32, kernel: u32, stride: u32, above: u32, left: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override ZEROS: bool = false;

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read_write> out: array<stored>;
@group(0) @binding(2) var<storage, read_write> tap: array<taps>;

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let across = min(WG, p.cols);
    let step = WG / across;
    let c = group.x * across + lane % across;
    if c >= p.cols || lane / across >= step { return; }
    let top = group.y % p.dst_h * p.stride;
    let from_y = max(p.above, top) - top;
    let to_y = min(p.kernel, p.src_h + p.above - top);
    for (var x = lane / across; x < p.dst_w; x += step) {
        let left = x * p.stride;
        let from_x = max(p.left, left) - left;
        let to_x = min(p.kernel, p.src_w + p.left - left);
        var best = stored();
        var best_tap = taps();
        for (var ky = from_y; ky < to_y; ky++) {
            let line = (group.y / p.dst_h * p.src_h + top + ky - p.above) * p.src_w;
            for (var kx = from_x; kx < to_x; kx++) {
                let value = inp[(line + left + kx - p.left) * p.cols + c];
                if ky == from_y && kx == from_x {
                    best = value;
                    best_tap = taps(ky * p.kernel + kx);
                } else {
                    // Strictly larger: of equal ones the first counts.
                    best_tap = select(best_tap, taps(ky * p.kernel + kx), value > best);
                    best = select(best, value, value > best);
                }
            }
        }
        if ZEROS && (to_y - from_y) * (to_x - from_x) < p.kernel * p.kernel {
            // The first pixel outside, row by row: before the first inside, or where its row or the window goes on behind it.
            var outside = 0u;
            if from_y == 0u && from_x == 0u { outside = select(to_y * p.kernel, to_x, to_x < p.kernel); }
            let wins = (stored() > best) | ((best == stored()) & (taps(outside) < best_tap));
            best_tap = select(best_tap, taps(outside), wins);
            best = select(best, stored(), wins);
        }
        let i = (group.y * p.dst_w + x) * p.cols + c;
        out[i] = best;
        tap[i] = best_tap;
    }
}

@group(0) @binding(0) var<storage, read> dout: array<stored>;
@group(0) @binding(1) var<storage, read> saved_tap: array<taps>;
@group(0) @binding(2) var<storage, read_write> dinp: array<stored>;

@compute @workgroup_size(WG)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let across = min(WG, p.cols);
    let step = WG / across;
    let c = group.x * across + lane % across;
    if c >= p.cols || lane / across >= step { return; }
    let u = group.y % p.src_h + p.above;
    let from_y = first_window(u);
    let to_y = min(quotient(u, p.stride) + 1u, p.dst_h);
    let line = group.y / p.src_h * p.dst_h;
    for (var x = lane / across; x < p.src_w; x += step) {
        let v = x + p.left;
        let from_x = first_window(v);
        let to_x = min(quotient(v, p.stride) + 1u, p.dst_w);
        var sum = elem();
        for (var oy = from_y; oy < to_y; oy++) {
            for (var ox = from_x; ox < to_x; ox++) {
                let i = ((line + oy) * p.dst_w + ox) * p.cols + c;
                let own = (u - oy * p.stride) * p.kernel + v - ox * p.stride;
                sum += select(elem(), elem(dout[i]), saved_tap[i] == taps(own));
            }
        }
        dinp[(group.y * p.src_w + x) * p.cols + c] = stored(sum);
    }
}

// The first window that reaches the padded coordinate `u`.
fn first_window(u: u32) -> u32 {
    if u < p.kernel { return 0u; }
    return quotient(u - p.kernel, p.stride) + 1u;
}

// a / b without an integer division, which a CPU adapter does one lane at a time. Half a unit keeps the quotient of integers
// below 2^20 off the borders between them, whatever the division rounds to.
fn quotient(a: u32, b: u32) -> u32 { return u32((f32(a) + 0.5) / f32(b)); }
