// 2-D convolution (NHWC, no bias) of f16 images as an implicit matrix product by cooperative matrices (lib/matrices.wgsl): sums in
// f32. Equations, tensors, packed weights and classes of pixels are explained in conv2d.wgsl.
//
//   entry             grid                                        writes
//   forward           [⌈dst channels/COLS⌉, ⌈rows/ROWS⌉, 1]       dst =
//   backward_input    the same, for each class                    dst =, or += with ACCUMULATE
//   backward_weight   [⌈k·k·C/ROWS⌉, ⌈O/COLS⌉, chunks]            partial =   [chunks, k·k, C, O]
//
//   C and O are multiples of 4. Nothing is saved for backward.
//   The host appends `alias stored = f16;`, what src, packed, dst and dout hold, and what lib/matrices.wgsl needs; partial is f32.
//   Needs wgpu's EXPERIMENTAL_COOPERATIVE_MATRIX, SHADER_F16 and SUBGROUP.

override ACCUMULATE: bool = false;

@group(0) @binding(0) var<storage, read> src: array<vec4<stored>>;
@group(0) @binding(1) var<storage, read> packed: array<vec4<stored>>;
@group(0) @binding(2) var<storage, read_write> dst: array<vec4<stored>>;

const STEPS = vec4u(0u, 1u, 2u, 3u);

// Four vectors of channels of source pixels; where a pixel is outside its image, zero.
fn load(at: vec4i, inside: vec4<bool>) -> Four {
    let i = select(vec4u(0u), vec4u(at), inside);
    let none = vec4<f16>();
    return Four(select(none, src[i.x], inside.x), select(none, src[i.y], inside.y),
                select(none, src[i.z], inside.z), select(none, src[i.w], inside.w));
}
// A negative coordinate is a large one without its sign.
fn is_inside(y: vec4i, x: vec4i) -> vec4<bool> { return (vec4u(y) < vec4u(p.src_h)) & (vec4u(x) < vec4u(p.src_w)); }

// ---- forward and backward_input: rows are pixels, k runs over taps and, within a tap, the source's channels.

struct Tap { y: u32, x: u32, c4: u32 }

fn settle(before: Tap) -> Tap {
    var tap = before;
    while tap.c4 >= p.src_c4 {
        tap.c4 -= p.src_c4;
        tap.x += 1u;
        if tap.x == taps_x() { tap.x = 0u; tap.y += 1u; }
    }
    return tap;
}

// Four pixels under the first tap: where each is in its image, and its index were it inside.
struct Pixels { y: vec4i, x: vec4i, at: vec4i }

fn pixels(row: u32) -> Pixels {
    let i = min(row + STEPS, vec4u(p.batch * p.rows_h * p.rows_w - 1u));
    let y = vec4i(i / p.rows_w % p.rows_h * stride()) + off_y();
    let x = vec4i(i % p.rows_w * stride()) + off_x();
    let line = vec4i(i / (p.rows_h * p.rows_w) * p.src_h) + y;
    return Pixels(y, x, (line * i32(p.src_w) + x) * i32(p.src_c4));
}

fn load_pixels(own: Pixels, tap: Tap, direction: i32) -> Four {
    let y = direction * i32(tap.y);
    let x = direction * i32(tap.x);
    let exists = vec4<bool>(tap.y < taps_y() && taps_x() > 0u); // or it is past the last k
    let at = own.at + (y * i32(p.src_w) + x) * i32(p.src_c4) + i32(tap.c4);
    return load(at, is_inside(own.y + y, own.x + x) & exists);
}

// Four columns at four k.
fn load_packed(col: u32, tap: Tap) -> Four {
    if tap.y >= taps_y() || taps_x() == 0u { return Four(); }
    let at = (first_y() + tap.y * tap_step()) * kernel() + first_x() + tap.x * tap_step();
    let w = (at * p.src_c4 + tap.c4) * 4u * p.dst_c4 + col;
    return turned(Four(packed[w], packed[w + p.dst_c4], packed[w + 2u * p.dst_c4], packed[w + 3u * p.dst_c4]));
}

fn put(lane: u32, row: u32, col: u32) {
    for (var j = lane; j < LEFT; j += LANES) {
        let at = left_at(j);
        if (col + at.y) / 4u < p.dst_c4 { store_row(left(j), row + at.x, (col + at.y) / 4u); }
    }
}

fn gathered(group: vec3u, subgroup: u32, subgroups: u32, lane: u32, direction: i32) {
    let m = group.y * ROWS;
    let n = group.x * COLS;
    // All that a lane brings to a tile has the same k, since lanes are a multiple of a tile's k.
    var tap = settle(Tap(0u, 0u, k_of(lane) / 4u));
    var own: array<Pixels, A_FOURS>;
    var a_next: array<Four, A_FOURS>;
    var b_next: array<Four, B_FOURS>;
    for (var i = 0u; i < A_FOURS; i++) {
        own[i] = pixels(m + row_of(lane + i * LANES));
        a_next[i] = load_pixels(own[i], tap, direction);
    }
    for (var i = 0u; i < B_FOURS; i++) {
        b_next[i] = load_packed(min((n + row_of(lane + i * LANES)) / 4u, p.dst_c4 - 1u), tap);
    }
    clear(lane, subgroups);
    let twice = has_second();
    for (var k = 0u; k < taps_y() * taps_x() * p.src_c4 * 4u; k += DEPTH) {
        workgroupBarrier(); // the last tile has been read by everyone
        for (var i = 0u; i < A_FOURS; i++) { stage_a(lane + i * LANES, a_next[i]); }
        for (var i = 0u; i < B_FOURS; i++) { stage_b(lane + i * LANES, b_next[i]); }
        workgroupBarrier();
        // The next tile is on its way from memory while this one is multiplied.
        tap = settle(Tap(tap.y, tap.x, tap.c4 + DEPTH / 4u));
        for (var i = 0u; i < A_FOURS; i++) { a_next[i] = load_pixels(own[i], tap, direction); }
        for (var i = 0u; i < B_FOURS; i++) {
            b_next[i] = load_packed(min((n + row_of(lane + i * LANES)) / 4u, p.dst_c4 - 1u), tap);
        }
        multiply_first(subgroup);
        if twice { multiply_second(subgroup, subgroups); }
    }
    leave00(subgroup, subgroups, twice);
    put(lane, m, n);
    leave01(subgroup, subgroups, twice);
    put(lane, m, n + CN);
    leave10(subgroup, subgroups, twice);
    put(lane, m + CM, n);
    leave11(subgroup, subgroups, twice);
    put(lane, m + CM, n + CN);
}

@compute @workgroup_size(LANES)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32, @builtin(local_invocation_index) lane: u32) {
    gathered(group, subgroup, subgroups, lane, 1);
}

@compute @workgroup_size(LANES)
fn backward_input(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32, @builtin(local_invocation_index) lane: u32) {
    gathered(group, subgroup, subgroups, lane, -1);
}

// ---- backward_weight: rows are taps and, within a tap, input channels; k runs over the pixels of out.

@group(0) @binding(1) var<storage, read> dout4: array<vec4<stored>>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec4f>;

// The pixel after (image, y, x).
fn after(at: vec3u) -> vec3u {
    let x_end = at.z + 1u == p.rows_w;
    let y = at.y + select(0u, 1u, x_end);
    let y_end = y == p.rows_h;
    return vec3u(at.x + select(0u, 1u, y_end), select(y, 0u, y_end), select(at.z + 1u, 0u, x_end));
}
fn place(pixel: u32) -> vec3u {
    return vec3u(pixel / (p.rows_h * p.rows_w), pixel / p.rows_w % p.rows_h, pixel % p.rows_w);
}

// Four channels from row `row` on, at the pixels from `k` on, which are at `at`; zeros from `end` on.
fn load_source(row: u32, k: u32, at: vec3u, end: u32) -> Four {
    let quad = min(row / 4u, kernel() * kernel() * p.src_c4 - 1u);
    let tap = quad / p.src_c4;
    let b = after(at);
    let c = after(b);
    let d = after(c);
    let y = vec4i(vec4u(at.y, b.y, c.y, d.y) * stride()) + i32(tap / kernel()) + off_y();
    let x = vec4i(vec4u(at.z, b.z, c.z, d.z) * stride()) + i32(tap % kernel()) + off_x();
    let line = vec4i(vec4u(at.x, b.x, c.x, d.x) * p.src_h) + y;
    let i = (line * i32(p.src_w) + x) * i32(p.src_c4) + i32(quad % p.src_c4);
    return turned(load(i, is_inside(y, x) & (k + STEPS < vec4u(end))));
}
fn load_gradient(col: u32, k: u32, end: u32) -> Four {
    let i = min(k + STEPS, vec4u(end - 1u)) * p.dst_c4 + min(col / 4u, p.dst_c4 - 1u);
    return without_tail(turned(Four(dout4[i.x], dout4[i.y], dout4[i.z], dout4[i.w])), k, end);
}

fn put_partial(lane: u32, row: u32, col: u32, chunk: u32) {
    let rows = kernel() * kernel() * p.src_c4 * 4u;
    for (var j = lane; j < LEFT; j += LANES) {
        let at = left_at(j) + vec2u(row, col);
        if at.x < rows && at.y / 4u < p.dst_c4 { partial[(chunk * rows + at.x) * p.dst_c4 + at.y / 4u] = left(j); }
    }
}

@compute @workgroup_size(LANES)
fn backward_weight(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32, @builtin(local_invocation_index) lane: u32) {
    let m = group.x * ROWS;
    let n = group.y * COLS;
    let start = group.z * p.chunk;
    let end = min(start + p.chunk, p.batch * p.rows_h * p.rows_w);
    // As in gathered.
    var k = start + k_of(lane);
    var at = place(k);
    var a_next: array<Four, A_FOURS>;
    var b_next: array<Four, B_FOURS>;
    for (var i = 0u; i < A_FOURS; i++) { a_next[i] = load_source(m + row_of(lane + i * LANES), k, at, end); }
    for (var i = 0u; i < B_FOURS; i++) { b_next[i] = load_gradient(n + row_of(lane + i * LANES), k, end); }
    clear(lane, subgroups);
    let twice = has_second();
    for (var first = start; first < end; first += DEPTH) {
        workgroupBarrier(); // the last tile has been read by everyone
        for (var i = 0u; i < A_FOURS; i++) { stage_a(lane + i * LANES, a_next[i]); }
        for (var i = 0u; i < B_FOURS; i++) { stage_b(lane + i * LANES, b_next[i]); }
        workgroupBarrier();
        k += DEPTH;
        at.z += DEPTH;
        while at.z >= p.rows_w {
            at.z -= p.rows_w;
            at.y += 1u;
            if at.y == p.rows_h { at.y = 0u; at.x += 1u; }
        }
        for (var i = 0u; i < A_FOURS; i++) { a_next[i] = load_source(m + row_of(lane + i * LANES), k, at, end); }
        for (var i = 0u; i < B_FOURS; i++) { b_next[i] = load_gradient(n + row_of(lane + i * LANES), k, end); }
        multiply_first(subgroup);
        if twice { multiply_second(subgroup, subgroups); }
    }
    leave00(subgroup, subgroups, twice);
    put_partial(lane, m, n, group.z);
    leave01(subgroup, subgroups, twice);
    put_partial(lane, m, n + CN, group.z);
    leave10(subgroup, subgroups, twice);
    put_partial(lane, m + CM, n, group.z);
    leave11(subgroup, subgroups, twice);
    put_partial(lane, m + CM, n + CN, group.z);
}
