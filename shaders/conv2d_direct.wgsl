// 2-D convolution (NHWC, no bias) as an implicit matrix product, for CPU adapters (Mesa's lavapipe): no workgroup memory,
// no barrier; one register tile per workgroup of eight lanes. GPUs take conv2d.wgsl, where equations, tensors, packed
// weights and classes of pixels are explained.
//
//   entry             grid                                            writes
//   forward           [⌈dst channels/COLS⌉, ⌈rows/64⌉, 1]             dst =
//   backward_input    the same, for each class                        dst =, or += with ACCUMULATE
//   backward_weight   [⌈k·k·C/64⌉, ⌈O/COLS⌉, chunks]                  partial =   [chunks, k·k, C, O]
//
//   COLS is 32, or 16 where more would be wasted. C and O are multiples of 4. Nothing is saved for backward.
//   The host appends how four values of src, packed and dout (`loaded4`) and of dst (`stored4`) lie in storage, f32 or f16
//   (src/ops/words.rs). Sums and partial are f32.
//   Needs subgroups of at least 8 invocations (wgpu: Features::SUBGROUP, subgroup_min_size ≥ 8).
//
// As in matmul_direct.wgsl a load is a scalar loop over the lanes, as dear as 50 multiply-adds. Here a lane owns eight
// pixels (or, for the weight's gradient, eight pairs of tap and channel) and loads them; what all pixels need, 4 k of COLS
// columns, the lanes load together and broadcast: 12 loads for 1,024 multiply-adds with 32 columns, 10 for 512 with 16.

override COLS: u32 = 32u;
override ACCUMULATE: bool = false;

@group(0) @binding(0) var<storage, read> src: array<loaded4>;
@group(0) @binding(1) var<storage, read> packed: array<loaded4>;
@group(0) @binding(2) var<storage, read_write> dst: array<stored4>;

// What four of a lane's eight have become: matrix column j of q₀…q₇ is the j-th of them, its vector four columns.
struct Four {
    q0: mat4x4f, q1: mat4x4f, q2: mat4x4f, q3: mat4x4f,
    q4: mat4x4f, q5: mat4x4f, q6: mat4x4f, q7: mat4x4f,
}

fn from_lanes0_4(x: vec4f, y: vec4f) -> mat4x4f {
    return mat4x4f(subgroupBroadcast(x, 0u), subgroupBroadcast(x, 4u), subgroupBroadcast(y, 0u), subgroupBroadcast(y, 4u));
}
fn from_lanes1_5(x: vec4f, y: vec4f) -> mat4x4f {
    return mat4x4f(subgroupBroadcast(x, 1u), subgroupBroadcast(x, 5u), subgroupBroadcast(y, 1u), subgroupBroadcast(y, 5u));
}
fn from_lanes2_6(x: vec4f, y: vec4f) -> mat4x4f {
    return mat4x4f(subgroupBroadcast(x, 2u), subgroupBroadcast(x, 6u), subgroupBroadcast(y, 2u), subgroupBroadcast(y, 6u));
}
fn from_lanes3_7(x: vec4f, y: vec4f) -> mat4x4f {
    return mat4x4f(subgroupBroadcast(x, 3u), subgroupBroadcast(x, 7u), subgroupBroadcast(y, 3u), subgroupBroadcast(y, 7u));
}

// 4 k of COLS columns, spread over the lanes: with 32 columns lane l has column quad l, and k in the order of the matrix;
// with 16, lane l has quad l mod 4 of k = l / 4 in the first vector, and of 2 + l / 4 in the second.
fn multiply(low: ptr<function, Four>, high: ptr<function, Four>, w: mat4x4f, x_low: mat4x4f, x_high: mat4x4f) {
    if COLS == 16u {
        let w0 = from_lanes0_4(w[0], w[1]);
        (*low).q0 = multiply_add((*low).q0, w0, x_low);
        (*high).q0 = multiply_add((*high).q0, w0, x_high);
        let w1 = from_lanes1_5(w[0], w[1]);
        (*low).q1 = multiply_add((*low).q1, w1, x_low);
        (*high).q1 = multiply_add((*high).q1, w1, x_high);
        let w2 = from_lanes2_6(w[0], w[1]);
        (*low).q2 = multiply_add((*low).q2, w2, x_low);
        (*high).q2 = multiply_add((*high).q2, w2, x_high);
        let w3 = from_lanes3_7(w[0], w[1]);
        (*low).q3 = multiply_add((*low).q3, w3, x_low);
        (*high).q3 = multiply_add((*high).q3, w3, x_high);
        return;
    }
    let w0 = from_lane0(w);
    (*low).q0 = multiply_add((*low).q0, w0, x_low);
    (*high).q0 = multiply_add((*high).q0, w0, x_high);
    let w1 = from_lane1(w);
    (*low).q1 = multiply_add((*low).q1, w1, x_low);
    (*high).q1 = multiply_add((*high).q1, w1, x_high);
    let w2 = from_lane2(w);
    (*low).q2 = multiply_add((*low).q2, w2, x_low);
    (*high).q2 = multiply_add((*high).q2, w2, x_high);
    let w3 = from_lane3(w);
    (*low).q3 = multiply_add((*low).q3, w3, x_low);
    (*high).q3 = multiply_add((*high).q3, w3, x_high);
    let w4 = from_lane4(w);
    (*low).q4 = multiply_add((*low).q4, w4, x_low);
    (*high).q4 = multiply_add((*high).q4, w4, x_high);
    let w5 = from_lane5(w);
    (*low).q5 = multiply_add((*low).q5, w5, x_low);
    (*high).q5 = multiply_add((*high).q5, w5, x_high);
    let w6 = from_lane6(w);
    (*low).q6 = multiply_add((*low).q6, w6, x_low);
    (*high).q6 = multiply_add((*high).q6, w6, x_high);
    let w7 = from_lane7(w);
    (*low).q7 = multiply_add((*low).q7, w7, x_low);
    (*high).q7 = multiply_add((*high).q7, w7, x_high);
}

// A lane's share of 4 k of the columns from quad `col`, out of rows of `dst_c4` quads: the index of the first, and the step.
fn share(col: u32, lane: u32) -> vec2u {
    if COLS == 16u { return vec2u(lane / 4u * p.dst_c4 + min(col + lane % 4u, p.dst_c4 - 1u), 2u * p.dst_c4); }
    return vec2u(min(col + lane, p.dst_c4 - 1u), p.dst_c4);
}

// Four source pixels; where a pixel is outside its image, zero.
struct Source { at: vec4u, inside: vec4<bool> }

// `at` is where pixels (y, x) of their images are, if they are.
fn source(at: vec4i, y: vec4i, x: vec4i) -> Source {
    // A negative coordinate is a large one without its sign.
    let inside = (vec4u(y) < vec4u(p.src_h)) & (vec4u(x) < vec4u(p.src_w));
    return Source(select(vec4u(0u), vec4u(at), inside), inside);
}

// Rows past the last one are in images past the last one: they are taken from the last image, and come to nothing.
fn index(image: vec4u, y: vec4i, x: vec4i) -> vec4i {
    let line = vec4i(min(image, vec4u(p.batch - 1u)) * p.src_h) + y;
    return (line * i32(p.src_w) + x) * i32(p.src_c4);
}

fn load(s: Source, c4: u32) -> mat4x4f {
    let none = vec4f();
    return mat4x4f(select(none, from_loaded(src[s.at.x + c4]), s.inside.x), select(none, from_loaded(src[s.at.y + c4]), s.inside.y),
                   select(none, from_loaded(src[s.at.z + c4]), s.inside.z), select(none, from_loaded(src[s.at.w + c4]), s.inside.w));
}

// The pixel after (image, y, x). Dividing anew would cost more: integer division is a scalar loop, too.
fn after(at: vec3u) -> vec3u {
    let x_end = at.z + 1u == p.rows_w;
    let y = at.y + select(0u, 1u, x_end);
    let y_end = y == p.rows_h;
    return vec3u(at.x + select(0u, 1u, y_end), select(y, 0u, y_end), select(at.z + 1u, 0u, x_end));
}

fn place(row: u32) -> vec3u {
    let line = row / p.rows_w;
    let image = line / p.rows_h;
    return vec3u(image, line - image * p.rows_h, row - line * p.rows_w);
}

// ---- forward and backward_input: a lane's own are eight pixels in a row.

struct Pixels { y: vec4i, x: vec4i, from_at: vec4i, to: vec4u }

fn pixels(a: vec3u) -> Pixels {
    let b = after(a);
    let c = after(b);
    let d = after(c);
    let image = vec4u(a.x, b.x, c.x, d.x);
    let j = vec4u(a.y, b.y, c.y, d.y);
    let i = vec4u(a.z, b.z, c.z, d.z);
    let y = vec4i(j * stride()) + off_y();
    let x = vec4i(i * stride()) + off_x();
    let to = ((image * p.dst_h + j * tap_step() + dst_y()) * p.dst_w + i * tap_step() + dst_x()) * p.dst_c4;
    return Pixels(y, x, index(image, y, x), to);
}

fn gathered(group_id: vec3u, count: vec3u, lane: u32, direction: i32) {
    let group = place_in_bands(group_id, count);
    let col = group.x * (COLS / 4u);
    let row = group.y * 64u + lane * 8u;
    let first = place(row);
    let low_pixels = pixels(first);
    let high_pixels = pixels(after(after(after(after(first)))));
    let w_share = share(col, lane);
    var low = Four();
    var high = Four();
    for (var ty = 0u; ty < taps_y(); ty++) {
        for (var tx = 0u; tx < taps_x(); tx++) {
            let move_y = direction * i32(ty);
            let move_x = direction * i32(tx);
            let move_at = (move_y * i32(p.src_w) + move_x) * i32(p.src_c4);
            let s_low = source(low_pixels.from_at + move_at, low_pixels.y + move_y, low_pixels.x + move_x);
            let s_high = source(high_pixels.from_at + move_at, high_pixels.y + move_y, high_pixels.x + move_x);
            let tap = (first_y() + ty * tap_step()) * kernel() + first_x() + tx * tap_step();
            var w = tap * p.src_c4 * 4u * p.dst_c4 + w_share.x;
            for (var c4 = 0u; c4 < p.src_c4; c4++) {
                let x_low = load(s_low, c4);
                let x_high = load(s_high, c4);
                multiply(&low, &high, load_packed(w, w_share.y), x_low, x_high);
                w += 4u * p.dst_c4;
            }
        }
    }
    let rows = p.batch * p.rows_h * p.rows_w;
    store(low, low_pixels.to, row, rows, col);
    store(high, high_pixels.to, row + 4u, rows, col);
}

fn load_packed(at: u32, step: u32) -> mat4x4f {
    if COLS == 16u { return mat4x4f(from_loaded(packed[at]), from_loaded(packed[at + step]), vec4f(), vec4f()); }
    return mat4x4f(from_loaded(packed[at]), from_loaded(packed[at + step]), from_loaded(packed[at + 2u * step]), from_loaded(packed[at + 3u * step]));
}

fn store(own: Four, to: vec4u, row: u32, rows: u32, col: u32) {
    store_quad(own.q0, to, row, rows, col);
    store_quad(own.q1, to, row, rows, col + 1u);
    store_quad(own.q2, to, row, rows, col + 2u);
    store_quad(own.q3, to, row, rows, col + 3u);
    if COLS == 16u { return; }
    store_quad(own.q4, to, row, rows, col + 4u);
    store_quad(own.q5, to, row, rows, col + 5u);
    store_quad(own.q6, to, row, rows, col + 6u);
    store_quad(own.q7, to, row, rows, col + 7u);
}
fn store_quad(quad: mat4x4f, to: vec4u, row: u32, rows: u32, col: u32) {
    if col >= p.dst_c4 { return; }
    if row < rows { store_one(quad[0], to.x + col); }
    if row + 1u < rows { store_one(quad[1], to.y + col); }
    if row + 2u < rows { store_one(quad[2], to.z + col); }
    if row + 3u < rows { store_one(quad[3], to.w + col); }
}
fn store_one(sum: vec4f, i: u32) {
    var before = vec4f();
    if ACCUMULATE { before = from_stored(dst[i]); }
    dst[i] = to_stored(before + sum);
}

@compute @workgroup_size(8)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
    gathered(group, count, lane, 1);
}

@compute @workgroup_size(8)
fn backward_input(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
    gathered(group, count, lane, -1);
}

// ---- backward_weight: a lane's own are two quads of channels, each of one tap; k runs over the pixels of out.

@group(0) @binding(1) var<storage, read> dout: array<loaded4>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec4f>;

// A quad of input channels under one tap.
struct Own { y: i32, x: i32, at: i32 }

fn own(quad: u32, quads: u32) -> Own {
    let i = min(quad, quads - 1u);
    let tap = i / p.src_c4;
    let ky = tap / kernel();
    let y = i32(ky) + off_y();
    let x = i32(tap - ky * kernel()) + off_x();
    return Own(y, x, (y * i32(p.src_w) + x) * i32(p.src_c4) + i32(i - tap * p.src_c4));
}

fn load_dout(row: u32, end: u32, col: u32, lane: u32) -> mat4x4f {
    let quad = min(col + lane % (COLS / 4u), p.dst_c4 - 1u);
    if COLS == 16u {
        let k = min(row + lane / 4u + vec2u(0u, 2u), vec2u(end - 1u)) * p.dst_c4 + quad;
        return mat4x4f(from_loaded(dout[k.x]), from_loaded(dout[k.y]), vec4f(), vec4f());
    }
    let k = min(row + STEPS, vec4u(end - 1u)) * p.dst_c4 + quad;
    return mat4x4f(from_loaded(dout[k.x]), from_loaded(dout[k.y]), from_loaded(dout[k.z]), from_loaded(dout[k.w]));
}

@compute @workgroup_size(8)
fn backward_weight(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let quads = kernel() * kernel() * p.src_c4;
    let quad = group.x * 16u + lane;
    let a = own(quad, quads);
    let b = own(quad + 8u, quads);
    let col = group.y * (COLS / 4u);
    let end = min((group.z + 1u) * p.chunk, p.batch * p.rows_h * p.rows_w);
    var at = place(group.z * p.chunk);
    var low = Four();
    var high = Four();
    for (var row = group.z * p.chunk; row < end; row += 4u) {
        let at1 = after(at);
        let at2 = after(at1);
        let at3 = after(at2);
        let y = vec4i(vec4u(at.y, at1.y, at2.y, at3.y) * stride());
        let x = vec4i(vec4u(at.z, at1.z, at2.z, at3.z) * stride());
        let from_at = index(vec4u(at.x, at1.x, at2.x, at3.x), y, x);
        // Pixels past the chunk's end count for nothing: they are moved out of the image.
        let counted = y + select(vec4i(0), vec4i(-0x10000000), row + STEPS >= vec4u(end));
        let x_low = transpose(load(source(from_at + a.at, counted + a.y, x + a.x), 0u));
        let x_high = transpose(load(source(from_at + b.at, counted + b.y, x + b.x), 0u));
        multiply(&low, &high, load_dout(row, end, col, lane), x_low, x_high);
        at = after(at3);
    }
    let start = (group.z * quads + quad) * 4u * p.dst_c4 + col;
    if quad < quads { store_partial(low, start, col); }
    if quad + 8u < quads { store_partial(high, start + 32u * p.dst_c4, col); }
}

fn store_partial(own: Four, i: u32, col: u32) {
    store_partial_quad(own.q0, i, col);
    store_partial_quad(own.q1, i + 1u, col + 1u);
    store_partial_quad(own.q2, i + 2u, col + 2u);
    store_partial_quad(own.q3, i + 3u, col + 3u);
    if COLS == 16u { return; }
    store_partial_quad(own.q4, i + 4u, col + 4u);
    store_partial_quad(own.q5, i + 5u, col + 5u);
    store_partial_quad(own.q6, i + 6u, col + 6u);
    store_partial_quad(own.q7, i + 7u, col + 7u);
}
fn store_partial_quad(quad: mat4x4f, i: u32, col: u32) {
    if col >= p.dst_c4 { return; }
    partial[i] = quad[0];
    partial[i + p.dst_c4] = quad[1];
    partial[i + 2u * p.dst_c4] = quad[2];
    partial[i + 3u * p.dst_c4] = quad[3];
}
