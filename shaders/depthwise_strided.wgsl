// Depth-wise 2-D convolution of stride 2 with a kernel of 3, 5 or 7; the formulas are in depthwise.wgsl.
//
// A lane owns a channel (or four) of a stripe 4 pixels of out wide, or 8 of dinp, and walks down it. Row 2m of the padded images meets
// the even rows of the kernel, and row 2m + 1 the odd ones, for rows m, m − 1, ... of out.
//
//   entry             grid                                writes
//   forward           [⌈C·stripes/WG⌉, row chunks, B]     dst =
//   backward_input    the same                            dst =, or += with ACCUMULATE; src is dout, rows count pairs of dinp's
//   backward_weight   [⌈C·stripes/WG⌉, image chunks, 1]   partial =   [image chunks · stripes, k·k, C], for depthwise.wgsl's finish
//
// The host appends what it appends to depthwise.wgsl.

// Four pixels of out over a line of inp.
fn over_two(sum: Four, w: Taps, l: Line) -> Four {
    return Four(dot_taps(sum.a, w, l.x0.a, l.x0.b, l.x0.c, l.x0.d, l.x1.a, l.x1.b, l.x1.c),
                dot_taps(sum.b, w, l.x0.c, l.x0.d, l.x1.a, l.x1.b, l.x1.c, l.x1.d, l.x2.a),
                dot_taps(sum.c, w, l.x1.a, l.x1.b, l.x1.c, l.x1.d, l.x2.a, l.x2.b, l.x2.c),
                dot_taps(sum.d, w, l.x1.c, l.x1.d, l.x2.a, l.x2.b, l.x2.c, l.x2.d, l.x3.a));
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let at = place(group.x * WG + lane);
    if outside(at) { return; }
    let col = at.col;
    let x = at.stripe * 4u;
    let image = group.z;
    let w0 = taps(col, 0u, false);
    let w1 = taps(col, 1u, false);
    let w2 = taps(col, 2u, false);
    let w3 = taps(col, 3u, false);
    let w4 = taps(col, 4u, false);
    let w5 = taps(col, 5u, false);
    let w6 = taps(col, 6u, false);
    var first = elem();
    if BIAS { first = bias[col]; }
    let start = Four(first, first, first, first);
    // Rows m − 1, m − 2 and m − 3 of out.
    var s1 = start;
    var s2 = start;
    var s3 = start;
    let begin = i32(group.y * p.rows);
    let end = min(begin + i32(p.rows), i32(p.dst_h));
    let left = i32(2u * x) - p.before_x;
    for (var y = begin - i32(K / 2u); y < end; y++) {
        let row = 2 * (y + i32(K / 2u)) - p.before_y;
        let even = line_of(image, row, left, col, K + 6u);
        var done = s3;
        if K == 7u {
            done = over_two(s3, w6, even);
            s3 = over_two(s2, w4, even);
        }
        if K == 5u { done = over_two(s2, w4, even); }
        if K > 3u { s2 = over_two(s1, w2, even); }
        if K == 3u { done = over_two(s1, w2, even); }
        s1 = over_two(start, w0, even);
        let odd = line_of(image, row + 1, left, col, K + 6u);
        s1 = over_two(s1, w1, odd);
        if K > 3u { s2 = over_two(s2, w3, odd); }
        if K > 5u { s3 = over_two(s3, w5, odd); }
        if y >= begin { write_four((image * p.dst_h + u32(y)) * p.dst_w, x, col, done); }
    }
}

// Pixels n − 4 to n + 3 of a row of dout: what pixels 2n to 2n + 7 of dinp, as padded, need.
struct Pair { x: Four, y: Four }

fn pair_of(image: u32, y: i32, n: i32, col: u32) -> Pair {
    if u32(y) >= p.src_h { return Pair(); }
    let line = (image * p.src_h + u32(y)) * p.src_w;
    return Pair(four(line, n - 4, col), four(line, n, col));
}

// A pixel of dinp from those of dout, the latest first.
fn even_at(sum: elem, w: Taps, a: elem, b: elem, c: elem, d: elem) -> elem {
    let three = fma(b, w.c, fma(a, w.a, sum));
    if K == 3u { return three; }
    let five = fma(c, w.e, three);
    if K == 5u { return five; }
    return fma(d, w.g, five);
}

fn odd_at(sum: elem, w: Taps, a: elem, b: elem, c: elem) -> elem {
    let three = fma(a, w.b, sum);
    if K == 3u { return three; }
    let five = fma(b, w.d, three);
    if K == 5u { return five; }
    return fma(c, w.f, five);
}

fn spread(sum: Stripe, w: Taps, d: Pair) -> Stripe {
    let low = Four(even_at(sum.low.a, w, d.y.a, d.x.d, d.x.c, d.x.b), odd_at(sum.low.b, w, d.y.a, d.x.d, d.x.c),
                   even_at(sum.low.c, w, d.y.b, d.y.a, d.x.d, d.x.c), odd_at(sum.low.d, w, d.y.b, d.y.a, d.x.d));
    let high = Four(even_at(sum.high.a, w, d.y.c, d.y.b, d.y.a, d.x.d), odd_at(sum.high.b, w, d.y.c, d.y.b, d.y.a),
                    even_at(sum.high.c, w, d.y.d, d.y.c, d.y.b, d.y.a), odd_at(sum.high.d, w, d.y.d, d.y.c, d.y.b));
    return Stripe(low, high);
}

fn write_stripe(image: u32, y: i32, x: i32, col: u32, sum: Stripe) {
    if u32(y) >= p.dst_h { return; }
    let line = (image * p.dst_h + u32(y)) * p.dst_w;
    write_four(line, u32(x), col, sum.low);
    write_four(line, u32(x + 4), col, sum.high);
}

@compute @workgroup_size(WG)
fn backward_input(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let at = place(group.x * WG + lane);
    if outside(at) { return; }
    let col = at.col;
    let image = group.z;
    let w0 = taps(col, 0u, false);
    let w1 = taps(col, 1u, false);
    let w2 = taps(col, 2u, false);
    let w3 = taps(col, 3u, false);
    let w4 = taps(col, 4u, false);
    let w5 = taps(col, 5u, false);
    let w6 = taps(col, 6u, false);
    let n = p.before_x / 2 + i32(at.stripe * 4u);
    let x = 2 * n - p.before_x;
    let begin = p.before_y / 2 + i32(group.y * p.rows);
    let end = min(begin + i32(p.rows), (p.before_y + i32(p.dst_h) + 1) / 2);
    // Rows m − 1, m − 2 and m − 3 of dout.
    var d1 = Pair();
    var d2 = Pair();
    var d3 = Pair();
    for (var m = begin - i32(K / 2u); m < end; m++) {
        let d0 = pair_of(image, m, n, col);
        if m >= begin {
            var even = spread(spread(Stripe(), w0, d0), w2, d1);
            var odd = spread(Stripe(), w1, d0);
            if K > 3u {
                even = spread(even, w4, d2);
                odd = spread(odd, w3, d1);
            }
            if K > 5u {
                even = spread(even, w6, d3);
                odd = spread(odd, w5, d2);
            }
            write_stripe(image, 2 * m - p.before_y, x, col, even);
            write_stripe(image, 2 * m + 1 - p.before_y, x, col, odd);
        }
        d3 = d2;
        d2 = d1;
        d1 = d0;
    }
}

// Each tap's share of four pixels of dout over a line of inp.
fn shares_two(before: Taps, g: Four, l: Line) -> Taps {
    var t = before;
    t.a = dot_four(t.a, g, l.x0.a, l.x0.c, l.x1.a, l.x1.c);
    t.b = dot_four(t.b, g, l.x0.b, l.x0.d, l.x1.b, l.x1.d);
    t.c = dot_four(t.c, g, l.x0.c, l.x1.a, l.x1.c, l.x2.a);
    if K > 3u {
        t.d = dot_four(t.d, g, l.x0.d, l.x1.b, l.x1.d, l.x2.b);
        t.e = dot_four(t.e, g, l.x1.a, l.x1.c, l.x2.a, l.x2.c);
    }
    if K > 5u {
        t.f = dot_four(t.f, g, l.x1.b, l.x1.d, l.x2.b, l.x2.d);
        t.g = dot_four(t.g, g, l.x1.c, l.x2.a, l.x2.c, l.x3.a);
    }
    return t;
}

@compute @workgroup_size(WG)
fn backward_weight(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let at = place(group.x * WG + lane);
    if outside(at) { return; }
    let col = at.col;
    let x = at.stripe * 4u;
    let left = i32(2u * x) - p.before_x;
    var t0 = Taps();
    var t1 = Taps();
    var t2 = Taps();
    var t3 = Taps();
    var t4 = Taps();
    var t5 = Taps();
    var t6 = Taps();
    for (var image = group.y * p.rows; image < min((group.y + 1u) * p.rows, p.batch); image++) {
        // Rows m − 1, m − 2 and m − 3 of dout.
        var g1 = Four();
        var g2 = Four();
        var g3 = Four();
        for (var m = 0; m < i32(p.dst_h + K / 2u); m++) {
            var g0 = Four();
            if u32(m) < p.dst_h { g0 = gradients((image * p.dst_h + u32(m)) * p.dst_w, x, col); }
            let even = line_of(image, 2 * m - p.before_y, left, col, K + 6u);
            let odd = line_of(image, 2 * m + 1 - p.before_y, left, col, K + 6u);
            t0 = shares_two(t0, g0, even);
            t1 = shares_two(t1, g0, odd);
            t2 = shares_two(t2, g1, even);
            if K > 3u {
                t3 = shares_two(t3, g1, odd);
                t4 = shares_two(t4, g2, even);
            }
            if K > 5u {
                t5 = shares_two(t5, g2, odd);
                t6 = shares_two(t6, g3, even);
            }
            g3 = g2;
            g2 = g1;
            g1 = g0;
        }
    }
    write_rows((group.y * p.stripes + at.stripe) * K * K * p.cols + col, t0, t1, t2, t3, t4, t5, t6);
}
