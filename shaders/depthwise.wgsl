// Depth-wise 2-D convolution over NHWC images: each channel with a kernel of its own.
//
//   out[b, y, x, c]     = bias[c] + Σ_{ky, kx} inp[b, y·s − p + ky, x·s − q + kx, c] · weight[c, ky, kx]
//   dinp[b, u, v, c]    = Σ_{ky, kx} dout[b, (u + p − ky)/s, (v + q − kx)/s, c] · weight[c, ky, kx]
//   dweight[c, ky, kx] += Σ_{b, y, x} dout[b, y, x, c] · inp[b, y·s − p + ky, x·s − q + kx, c]
//
//   inp, dinp [B, H, W, C]   out, dout [B, H', W', C]   weight, dweight [C, 1, k, k], bias [C]   (p, q): pixels before the first
//
// Stride 1 and a kernel of 3, 5 or 7: a lane owns a channel (or four) of a stripe 4·FOURS pixels wide, and walks down it. Each
// pixel is read once per stripe and serves every row of the kernel from registers. (The same for stride 2 is in depthwise_strided.wgsl,
// what both share in lib/stripes.wgsl.)
//
//   entry                grid                                  writes
//   forward              [⌈C·stripes/WG⌉, row chunks, B]       dst =
//   backward_input       the same                              dst =, or += with ACCUMULATE; src is dout, the kernel is turned round
//   backward_weight      [⌈C·stripes/WG⌉, image chunks, 1]     partial =   [image chunks · stripes, k·k, C]
//
// Any stride and kernel, one lane per channel (or four) of a pixel:
//
//   forward_any          [⌈C·W'/WG⌉, H', B]                    dst =
//   backward_input_any   [⌈C·W/WG⌉, H, B]                      dst =, or += with ACCUMULATE
//   backward_weight_any  [⌈C·k·k/WG⌉, chunks, 1]               partial =   [chunks, k·k, C], `rows` rows of out each
//
//   finish               [⌈C·k·k/WG⌉, 1, 1]                    dweight +=  the sum of the `batch` partial results, in order
//
// The host appends `alias elem = vec4f;`, or f32 where channels are no multiple of 4 and for GPUs, whose registers hold one
// channel's window but not four's, and whose lanes want neighbouring channels; `cols` counts elems. `alias loaded` and `alias
// stored` are what images hold (src/ops/words.rs). Weights, partial results and sums are f32.

// Four pixels of dst over ten of src.
fn over(sum: Four, w: Taps, x: Four, y: Four, z: Four) -> Four {
    return Four(dot_taps(sum.a, w, x.a, x.b, x.c, x.d, y.a, y.b, y.c),
                dot_taps(sum.b, w, x.b, x.c, x.d, y.a, y.b, y.c, y.d),
                dot_taps(sum.c, w, x.c, x.d, y.a, y.b, y.c, y.d, z.a),
                dot_taps(sum.d, w, x.d, y.a, y.b, y.c, y.d, z.a, z.b));
}

fn added(sum: Stripe, w: Taps, x: Line) -> Stripe {
    var high = sum.high;
    if FOURS > 1u { high = over(high, w, x.x1, x.x2, x.x3); }
    return Stripe(over(sum.low, w, x.x0, x.x1, x.x2), high);
}

fn walk(group: vec3u, lane: u32, turned: bool) {
    let at = place(group.x * WG + lane);
    if outside(at) { return; }
    let col = at.col;
    let x = at.stripe * 4u * FOURS;
    let image = group.z;
    let w0 = taps(col, 0u, turned);
    let w1 = taps(col, 1u, turned);
    let w2 = taps(col, 2u, turned);
    let w3 = taps(col, 3u, turned);
    let w4 = taps(col, 4u, turned);
    let w5 = taps(col, 5u, turned);
    let w6 = taps(col, 6u, turned);
    var first = elem();
    if BIAS { first = bias[col]; }
    let all = Four(first, first, first, first);
    let start = Stripe(all, all);
    // Rows of dst that have seen the first row of their kernel, the first two, ...
    var s1 = start;
    var s2 = start;
    var s3 = start;
    var s4 = start;
    var s5 = start;
    var s6 = start;
    let begin = i32(group.y * p.rows);
    let end = min(begin + i32(p.rows), i32(p.dst_h));
    for (var y = begin - i32(K) + 1; y < end; y++) {
        let line = line_of(image, y + i32(K) - 1 - p.before_y, i32(x) - p.before_x, col, 4u * FOURS + K - 1u);
        var done = s6;
        if K == 7u {
            done = added(s6, w6, line);
            s6 = added(s5, w5, line);
            s5 = added(s4, w4, line);
        }
        if K == 5u { done = added(s4, w4, line); }
        if K > 3u {
            s4 = added(s3, w3, line);
            s3 = added(s2, w2, line);
        }
        if K == 3u { done = added(s2, w2, line); }
        s2 = added(s1, w1, line);
        s1 = added(start, w0, line);
        if y < begin { continue; }
        let to = (image * p.dst_h + u32(y)) * p.dst_w;
        write_four(to, x, col, done.low);
        if FOURS > 1u { write_four(to, x + 4u, col, done.high); }
    }
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) { walk(group, lane, false); }

@compute @workgroup_size(WG)
fn backward_input(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) { walk(group, lane, true); }

// ---- backward_weight

// Each tap's share of four pixels of dout over ten of inp.
fn shares(before: Taps, g: Four, x: Four, y: Four, z: Four) -> Taps {
    var t = before;
    t.a = dot_four(t.a, g, x.a, x.b, x.c, x.d);
    t.b = dot_four(t.b, g, x.b, x.c, x.d, y.a);
    t.c = dot_four(t.c, g, x.c, x.d, y.a, y.b);
    if K > 3u {
        t.d = dot_four(t.d, g, x.d, y.a, y.b, y.c);
        t.e = dot_four(t.e, g, y.a, y.b, y.c, y.d);
    }
    if K > 5u {
        t.f = dot_four(t.f, g, y.b, y.c, y.d, z.a);
        t.g = dot_four(t.g, g, y.c, y.d, z.a, z.b);
    }
    return t;
}

fn row_of_taps(before: Taps, g: Stripe, x: Line) -> Taps {
    let low = shares(before, g.low, x.x0, x.x1, x.x2);
    if FOURS == 1u { return low; }
    return shares(low, g.high, x.x1, x.x2, x.x3);
}

fn stripe_of(image: u32, y: i32, x: u32, col: u32) -> Stripe {
    if u32(y) >= p.dst_h { return Stripe(); }
    let line = (image * p.dst_h + u32(y)) * p.dst_w;
    var high = Four();
    if FOURS > 1u { high = gradients(line, x + 4u, col); }
    return Stripe(gradients(line, x, col), high);
}

@compute @workgroup_size(WG)
fn backward_weight(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let at = place(group.x * WG + lane);
    if outside(at) { return; }
    let col = at.col;
    let x = at.stripe * 4u * FOURS;
    var t0 = Taps();
    var t1 = Taps();
    var t2 = Taps();
    var t3 = Taps();
    var t4 = Taps();
    var t5 = Taps();
    var t6 = Taps();
    for (var image = group.y * p.rows; image < min((group.y + 1u) * p.rows, p.batch); image++) {
        // The rows of dout whose windows hold this row of inp, the latest first.
        var g1 = Stripe();
        var g2 = Stripe();
        var g3 = Stripe();
        var g4 = Stripe();
        var g5 = Stripe();
        var g6 = Stripe();
        for (var y = 0; y < i32(p.dst_h + K) - 1; y++) {
            let g0 = stripe_of(image, y, x, col);
            let line = line_of(image, y - p.before_y, i32(x) - p.before_x, col, 4u * FOURS + K - 1u);
            t0 = row_of_taps(t0, g0, line);
            t1 = row_of_taps(t1, g1, line);
            t2 = row_of_taps(t2, g2, line);
            if K > 3u {
                t3 = row_of_taps(t3, g3, line);
                t4 = row_of_taps(t4, g4, line);
            }
            if K > 5u {
                t5 = row_of_taps(t5, g5, line);
                t6 = row_of_taps(t6, g6, line);
            }
            g6 = g5;
            g5 = g4;
            g4 = g3;
            g3 = g2;
            g2 = g1;
            g1 = g0;
        }
    }
    write_rows((group.y * p.stripes + at.stripe) * K * K * p.cols + col, t0, t1, t2, t3, t4, t5, t6);
}

@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(3) var<storage, read_write> dweight: array<f32>;

// `cols` counts single channels here.
@compute @workgroup_size(WG)
fn finish(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let taps = p.kernel * p.kernel;
    let i = group.x * WG + lane;
    if i >= taps * p.cols { return; }
    var sum = 0.0;
    for (var part = 0u; part < p.batch; part++) { sum += parts[part * taps * p.cols + i]; }
    dweight[i % p.cols * taps + i / p.cols] += sum;
}

// ---- any stride and kernel.

@compute @workgroup_size(WG)
fn forward_any(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let own = group.x * WG + lane;
    let x = own / p.cols;
    if x >= p.dst_w { return; }
    let col = own - x * p.cols;
    var sum = elem();
    if BIAS { sum = bias[col]; }
    for (var ky = 0u; ky < p.kernel; ky++) {
        let y = i32(group.y * p.stride + ky) - p.before_y;
        if u32(y) >= p.src_h { continue; }
        let line = (group.z * p.src_h + u32(y)) * p.src_w;
        for (var kx = 0u; kx < p.kernel; kx++) {
            sum = fma(pixel(line, i32(x * p.stride + kx) - p.before_x, col), tap(col, ky * p.kernel + kx), sum);
        }
    }
    dst[((group.z * p.dst_h + group.y) * p.dst_w + x) * p.cols + col] = to_stored(sum);
}

@compute @workgroup_size(WG)
fn backward_input_any(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let own = group.x * WG + lane;
    let x = own / p.cols;
    if x >= p.dst_w { return; }
    let col = own - x * p.cols;
    var sum = elem();
    for (var ky = 0u; ky < p.kernel; ky++) {
        let y = i32(group.y) + p.before_y - i32(ky);
        if y < 0 || u32(y) % p.stride != 0u || u32(y) / p.stride >= p.src_h { continue; }
        let line = (group.z * p.src_h + u32(y) / p.stride) * p.src_w;
        for (var kx = 0u; kx < p.kernel; kx++) {
            let to = i32(x) + p.before_x - i32(kx);
            if to < 0 || u32(to) % p.stride != 0u { continue; }
            sum = fma(pixel(line, to / i32(p.stride), col), tap(col, ky * p.kernel + kx), sum);
        }
    }
    write(((group.z * p.dst_h + group.y) * p.dst_w + x) * p.cols + col, sum);
}

@compute @workgroup_size(WG)
fn backward_weight_any(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let own = group.x * WG + lane;
    let t = own / p.cols;
    if t >= p.kernel * p.kernel { return; }
    let col = own - t * p.cols;
    let ky = t / p.kernel;
    let kx = t - ky * p.kernel;
    var sum = elem();
    for (var row = group.y * p.rows; row < min((group.y + 1u) * p.rows, p.batch * p.dst_h); row++) {
        let image = row / p.dst_h;
        let y = i32((row - image * p.dst_h) * p.stride + ky) - p.before_y;
        if u32(y) >= p.src_h { continue; }
        let line = (image * p.src_h + u32(y)) * p.src_w;
        for (var x = 0u; x < p.dst_w; x++) {
            sum = fma(pixel(line, i32(x * p.stride + kx) - p.before_x, col), gradient(row * p.dst_w, x, col), sum);
        }
    }
    partial[(group.y * p.kernel * p.kernel + t) * p.cols + col] = sum;
}
