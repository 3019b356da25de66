// What depth-wise convolutions that walk down stripes share (depthwise.wgsl, depthwise_strided.wgsl): a row of taps, a row of
// pixels, and how both are read and written.

struct Params {
    batch: u32,
    src_h: u32, src_w: u32,
    dst_h: u32, dst_w: u32,
    cols: u32,
    before_y: i32, before_x: i32,
    rows: u32,    // rows (pairs of rows of dinp where the stride is 2), or images of backward_weight, that a lane walks down
    stripes: u32,
    kernel: u32, stride: u32,
}
var<immediate> p: Params;

override WG: u32 = 64u;
override K: u32 = 7u;
override FOURS: u32 = max(MOST_FOURS - K / 7u, 1u); // fours of pixels of a stripe where the stride is 1
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

// A lane's column and stripe. A CPU's lanes load one after another: each should find the cache line that it waits for apart from
// those of its neighbours, so that they wait at once; the rest of a line serves the next workgroups.
struct Place { col: u32, stripe: u32 }

fn place(own: u32) -> Place {
    if WIDTH == 4u {
        let col = own / p.stripes;
        return Place(col, own - col * p.stripes);
    }
    let stripe = own / p.cols;
    return Place(own - stripe * p.cols, stripe);
}

fn outside(at: Place) -> bool { return at.col >= p.cols || at.stripe >= p.stripes; }

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

// A pixel that may be outside; `line` is where its row begins.
fn pixel(line: u32, x: i32, col: u32) -> elem {
    let inside = u32(x) < p.src_w;
    return select(elem(), from_loaded(src[select(0u, (line + u32(x)) * p.cols + col, inside)]), inside);
}

fn four(line: u32, x: i32, col: u32) -> Four {
    return Four(pixel(line, x, col), pixel(line, x + 1, col), pixel(line, x + 2, col), pixel(line, x + 3, col));
}

// `reach` pixels of row `y` of src from pixel `x` on: what the windows of a stripe cover, 14 at most.
fn line_of(image: u32, y: i32, x: i32, col: u32, reach: u32) -> Line {
    if u32(y) >= p.src_h { return Line(); }
    let line = (image * p.src_h + u32(y)) * p.src_w;
    var found = Line(four(line, x, col), four(line, x + 4, col), Four(), Four());
    if reach > 8u { found.x2.a = pixel(line, x + 8, col); }
    if reach > 9u { found.x2.b = pixel(line, x + 9, col); }
    if reach > 10u { found.x2.c = pixel(line, x + 10, col); }
    if reach > 11u { found.x2.d = pixel(line, x + 11, col); }
    if reach > 12u { found.x3.a = pixel(line, x + 12, col); }
    if reach > 13u { found.x3.b = pixel(line, x + 13, col); }
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

// ---- for backward_weight: src is inp; a lane has all taps of its channels.

@group(0) @binding(1) var<storage, read> dout: array<loaded>;
@group(0) @binding(3) var<storage, read_write> partial: array<elem>;

fn dot_four(sum: elem, g: Four, a: elem, b: elem, c: elem, d: elem) -> elem {
    return fma(g.d, d, fma(g.c, c, fma(g.b, b, fma(g.a, a, sum))));
}

fn gradient(line: u32, x: u32, col: u32) -> elem {
    let inside = x < p.dst_w;
    return select(elem(), from_loaded(dout[select(0u, (line + x) * p.cols + col, inside)]), inside);
}

fn gradients(line: u32, x: u32, col: u32) -> Four {
    return Four(gradient(line, x, col), gradient(line, x + 1u, col), gradient(line, x + 2u, col), gradient(line, x + 3u, col));
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

fn write_rows(first: u32, t0: Taps, t1: Taps, t2: Taps, t3: Taps, t4: Taps, t5: Taps, t6: Taps) {
    let step = K * p.cols;
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
