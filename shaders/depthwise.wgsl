// Depth-wise 2-D convolution over NHWC images: each channel with a kernel of its own.
//
//   out[b, y, x, c]     = bias[c] + Σ_{ky, kx} inp[b, y·s − p + ky, x·s − q + kx, c] · weight[c, ky, kx]
//   dinp[b, u, v, c]    = Σ_{ky, kx} dout[b, (u + p − ky)/s, (v + q − kx)/s, c] · weight[c, ky, kx]
//   dweight[c, ky, kx] += Σ_{b, y, x} dout[b, y, x, c] · inp[b, y·s − p + ky, x·s − q + kx, c]
//
//   inp, dinp [B, H, W, C]   out, dout [B, H', W', C]   weight, dweight [C, 1, k, k], bias [C]   (p, q): pixels before the first
//
// Stride 1 and a kernel of 3, 5 or 7: a lane owns a channel (or four) of a stripe 4·FOURS pixels wide, and walks down it. Each
// pixel is read once per stripe and serves every row of the kernel from registers.
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
// channel's window but not four's; `cols` counts elems. `alias loaded` and `alias stored` are what images hold (src/ops/words.rs).
// Weights, partial results and sums are f32.

struct Params {
    batch: u32,
    src_h: u32, src_w: u32,
    dst_h: u32, dst_w: u32,
    cols: u32,
    before_y: i32, before_x: i32,
    rows: u32,    // rows, or images of backward_weight, that a lane walks down
    stripes: u32,
    kernel: u32, stride: u32,
}
var<immediate> p: Params;

override WG: u32 = 64u;
override K: u32 = 7u;
override ACCUMULATE: bool = false;
override BIAS: bool = false; // binding 2 may be anything readable when off

@group(0) @binding(0) var<storage, read> src: array<loaded>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<elem>;
@group(0) @binding(3) var<storage, read_write> dst: array<stored>;

// A row of the kernel; of one with fewer columns the first ones.
struct Taps { a: elem, b: elem, c: elem, d: elem, e: elem, f: elem, g: elem }

// A stripe's pixels in one row of dst, and those of src under them.
struct Four { a: elem, b: elem, c: elem, d: elem }
struct Stripe { low: Four, high: Four }
struct Line { x0: Four, x1: Four, x2: Four, x3: Four }

// The tap `t` of an elem's channels.
fn tap(col: u32, t: u32) -> elem {
    let at = col * WIDTH * p.kernel * p.kernel + t;
    if WIDTH == 1u { return elem(weight[at]); }
    let step = p.kernel * p.kernel;
    return elem_of(weight[at], weight[at + step], weight[at + 2u * step], weight[at + 3u * step]);
}

fn taps(col: u32, row: u32, turned: bool) -> Taps {
    if row >= K { return Taps(); }
    // Column j of row r is tap r·K + j; turned round by half it is K·K − 1 less that.
    let first = select(row * K, K * K - 1u - row * K, turned);
    let step = select(1u, 0xffffffffu, turned);
    var t = Taps(tap(col, first), tap(col, first + step), tap(col, first + 2u * step), elem(), elem(), elem(), elem());
    if K > 3u { t.d = tap(col, first + 3u * step); t.e = tap(col, first + 4u * step); }
    if K > 5u { t.f = tap(col, first + 5u * step); t.g = tap(col, first + 6u * step); }
    return t;
}

fn dot_taps(sum: elem, w: Taps, a: elem, b: elem, c: elem, d: elem, e: elem, f: elem, g: elem) -> elem {
    let three = fma(c, w.c, fma(b, w.b, fma(a, w.a, sum)));
    if K == 3u { return three; }
    let five = fma(e, w.e, fma(d, w.d, three));
    if K == 5u { return five; }
    return fma(g, w.g, fma(f, w.f, five));
}

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

// A pixel that may be outside; `line` is where its row begins.
fn pixel(line: u32, x: i32, col: u32) -> elem {
    let inside = u32(x) < p.src_w;
    return select(elem(), from_loaded(src[select(0u, (line + u32(x)) * p.cols + col, inside)]), inside);
}

fn four(line: u32, x: i32, col: u32) -> Four {
    return Four(pixel(line, x, col), pixel(line, x + 1, col), pixel(line, x + 2, col), pixel(line, x + 3, col));
}

// Row `y` of src from pixel `x` on, as far as a stripe's windows reach.
fn line_of(image: u32, y: i32, x: i32, col: u32) -> Line {
    if u32(y) >= p.src_h { return Line(); }
    let line = (image * p.src_h + u32(y)) * p.src_w;
    var found = Line(four(line, x, col), four(line, x + 4, col), Four(), Four());
    if FOURS == 1u {
        if K > 5u { found.x2.a = pixel(line, x + 8, col); found.x2.b = pixel(line, x + 9, col); }
        return found;
    }
    found.x2.a = pixel(line, x + 8, col);
    found.x2.b = pixel(line, x + 9, col);
    if K > 3u { found.x2.c = pixel(line, x + 10, col); found.x2.d = pixel(line, x + 11, col); }
    if K > 5u { found.x3.a = pixel(line, x + 12, col); found.x3.b = pixel(line, x + 13, col); }
    return found;
}

fn write(i: u32, sum: elem) {
    var before = elem();
    if ACCUMULATE { before = from_stored(dst[i]); }
    dst[i] = to_stored(before + sum);
}

fn write_four(line: u32, x: u32, col: u32, sum: Four) {
    let i = (line + x) * p.cols + col;
    if x < p.dst_w { write(i, sum.a); }
    if x + 1u < p.dst_w { write(i + p.cols, sum.b); }
    if x + 2u < p.dst_w { write(i + 2u * p.cols, sum.c); }
    if x + 3u < p.dst_w { write(i + 3u * p.cols, sum.d); }
}

fn walk(group: vec3u, lane: u32, turned: bool) {
    let own = group.x * WG + lane;
    let stripe = own / p.cols;
    if stripe >= p.stripes { return; }
    let col = own - stripe * p.cols;
    let x = stripe * 4u * FOURS;
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
        let line = line_of(image, y + i32(K) - 1 - p.before_y, i32(x) - p.before_x, col);
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

// ---- backward_weight: src is inp; a lane has all taps of its channels.

@group(0) @binding(1) var<storage, read> dout: array<loaded>;
@group(0) @binding(3) var<storage, read_write> partial: array<elem>;

fn dot_four(sum: elem, g: Four, a: elem, b: elem, c: elem, d: elem) -> elem {
    return fma(g.d, d, fma(g.c, c, fma(g.b, b, fma(g.a, a, sum))));
}

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

fn gradient(line: u32, x: u32, col: u32) -> elem {
    let inside = x < p.dst_w;
    return select(elem(), from_loaded(dout[select(0u, (line + x) * p.cols + col, inside)]), inside);
}

fn gradients(line: u32, x: u32, col: u32) -> Four {
    return Four(gradient(line, x, col), gradient(line, x + 1u, col), gradient(line, x + 2u, col), gradient(line, x + 3u, col));
}

fn stripe_of(image: u32, y: i32, x: u32, col: u32) -> Stripe {
    if u32(y) >= p.dst_h { return Stripe(); }
    let line = (image * p.dst_h + u32(y)) * p.dst_w;
    var high = Four();
    if FOURS > 1u { high = gradients(line, x + 4u, col); }
    return Stripe(gradients(line, x, col), high);
}

fn write_taps(first: u32, t: Taps) {
    partial[first] = t.a;
    partial[first + p.cols] = t.b;
    partial[first + 2u * p.cols] = t.c;
    if K > 3u {
        partial[first + 3u * p.cols] = t.d;
        partial[first + 4u * p.cols] = t.e;
    }
    if K > 5u {
        partial[first + 5u * p.cols] = t.f;
        partial[first + 6u * p.cols] = t.g;
    }
}

@compute @workgroup_size(WG)
fn backward_weight(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let own = group.x * WG + lane;
    let stripe = own / p.cols;
    if stripe >= p.stripes { return; }
    let col = own - stripe * p.cols;
    let x = stripe * 4u * FOURS;
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
            let line = line_of(image, y - p.before_y, i32(x) - p.before_x, col);
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
    let step = K * p.cols;
    let first = (group.y * p.stripes + stripe) * K * step + col;
    write_taps(first, t0);
    write_taps(first + step, t1);
    write_taps(first + 2u * step, t2);
    if K > 3u {
        write_taps(first + 3u * step, t3);
        write_taps(first + 4u * step, t4);
    }
    if K > 5u {
        write_taps(first + 5u * step, t5);
        write_taps(first + 6u * step, t6);
    }
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
