// 2-D convolution (NHWC, no bias) as an implicit matrix product, for GPUs: tiles of out, 64 × 64 or 128 × 128, both operands
// staged through workgroup memory 16 k at a time (lib/tile.wgsl). CPU adapters, where barriers are what costs, take conv2d_direct.wgsl.
//
//   out[b, y, x, o]     = Σ_{ky, kx, c} inp[b, y·s − p + ky, x·s − p + kx, c] · weight[o, c, ky, kx]
//   dinp[b, u, v, c]    = Σ_{ky, kx, o} dout[b, (u + p − ky)/s, (v + p − kx)/s, o] · weight[o, c, ky, kx]
//   dweight[o,c,ky,kx] += Σ_{b, y, x}   dout[b, y, x, o] · inp[b, y·s − p + ky, x·s − p + kx, c]
//
//   inp, dinp [B, H, W, C]   out, dout [B, H', W', O]   weight, dweight [O, I, k, k], PyTorch's order, I = C / groups
//
// The fast entries take one group, C and O multiples of 4, and packed weights: [k·k, C, O], or [k·k, O, C] TRANSPOSED.
// Pixels with stride s see only every s-th tap, so backward_input runs once for each of the s² classes of pixels
// (u mod s, v mod s) over that class's taps alone: no product with a zero that the stride put there.
//
//   entry                grid                                        writes
//   forward              [⌈dst channels/TILE⌉, ⌈rows/TILE⌉, 1]       dst =
//   backward_input       the same, for each class                    dst =, or += with ACCUMULATE
//   backward_weight      [⌈k·k·C/TILE⌉, ⌈O/TILE⌉, chunks]            partial =   [chunks, k·k, C, O], `chunk` pixels each
//   pack                 [⌈C/WG⌉, O/4, 1], TRANSPOSED [⌈C/4/WG⌉, O, 1]   packed =    channels past weight's are zero
//   unpack               [⌈C/WG⌉, O/4, 1]                            dweight +=  the sum of the chunks, in order
//   to_nhwc              fold(⌈B·H·W/WG⌉)                            out [B, H, W, pitch] =   the first C of images [B, planes, H, W], then zeros
//
// Any channels and groups, one lane per element, slow:
//
//   forward_any          fold(⌈len/WG⌉)                              out =
//   backward_input_any   fold(⌈len/WG⌉)                              dinp =, or += with ACCUMULATE
//   backward_weight_any  [⌈len/WG⌉, chunks, 1]                       dweight =   [chunks, O, I, k, k]; column_sum ends it
//
// Nothing is saved for backward. The host appends `alias stored = f32;` or f16: what images, their gradients, weights and packed
// weights hold. Sums, dweight and partial are f32, and so are to_nhwc's images.

// What the other entries are told: of one group in_channels, and how many channels a stored pixel of inp and out has.
struct Shape {
    batch: u32,
    rows_h: u32, rows_w: u32,
    src_h: u32, src_w: u32,
    stride: u32, off_y: i32, off_x: i32,
    kernel: u32,
    chunk: u32,
    out_channels: u32, in_channels: u32, groups: u32,
    in_pitch: u32, out_pitch: u32,
}
var<immediate> q: Shape;

override ACCUMULATE: bool = false;
override TRANSPOSED: bool = false;
override WG: u32 = 64u;

@group(0) @binding(0) var<storage, read> src: array<vec4<stored>>;
@group(0) @binding(1) var<storage, read> packed: array<vec4<stored>>;
@group(0) @binding(2) var<storage, read_write> dst: array<vec4<stored>>;

// Four source pixels, which are at `at` if they are inside their images; zero where they are not.
fn load(at: vec4i, inside: vec4<bool>) -> mat4x4f {
    let none = vec4f();
    let i = select(vec4u(0u), vec4u(at), inside);
    return mat4x4f(select(none, vec4f(src[i.x]), inside.x), select(none, vec4f(src[i.y]), inside.y),
                   select(none, vec4f(src[i.z]), inside.z), select(none, vec4f(src[i.w]), inside.w));
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

fn gathered(group: vec3u, thread: u32, direction: i32) {
    let rows = p.batch * p.rows_h * p.rows_w;
    let is_b = thread >= TILE;
    // Neighbouring threads take neighbouring addresses: pixels along their channels, weights along theirs.
    let k4 = select(thread % 4u, (thread - TILE) / QUADS, is_b);
    let quad = select(thread / 4u, thread % QUADS, is_b);
    let row = min(group.y * TILE + quad * 4u + STEPS, vec4u(rows - 1u));
    let y = vec4i(row / p.rows_w % p.rows_h * stride()) + off_y();
    let x = vec4i(row % p.rows_w * stride()) + off_x();
    let line = vec4i(row / (p.rows_h * p.rows_w) * p.src_h) + y;
    let start = (line * i32(p.src_w) + x) * i32(p.src_c4); // where they are under the first tap
    let col = min(group.x * QUADS + quad, p.dst_c4 - 1u);

    var tap = settle(Tap(0u, 0u, k4));
    var sums = Sums();
    var next = fetch(is_b, tap, start, y, x, col, direction);
    for (var k = 0u; k < taps_y() * taps_x() * p.src_c4; k += 4u) {
        workgroupBarrier(); // the last tile has been read by everyone
        stage(is_b, k4, quad, next);
        workgroupBarrier();
        // The next tile is on its way from memory while this one is multiplied.
        tap = settle(Tap(tap.y, tap.x, tap.c4 + 4u));
        next = fetch(is_b, tap, start, y, x, col, direction);
        sums = multiply(sums, thread);
    }
    let first = group.y * TILE + first_row(thread);
    let into = group.x * QUADS + first_col(thread) / 4u;
    store(sums.low, first, into);
    store(sums.high, first + TILE / 2u, into);
    if TILE == 128u {
        store(sums.low_right, first, into + 16u);
        store(sums.high_right, first + TILE / 2u, into + 16u);
    }
}

fn fetch(is_b: bool, tap: Tap, start: vec4i, y: vec4i, x: vec4i, col: u32, direction: i32) -> mat4x4f {
    if tap.y >= taps_y() || tap.x >= taps_x() { return mat4x4f(); } // past the last k
    if is_b {
        let at = (first_y() + tap.y * tap_step()) * kernel() + first_x() + tap.x * tap_step();
        let w = (at * p.src_c4 + tap.c4) * 4u * p.dst_c4 + col;
        return mat4x4f(vec4f(packed[w]), vec4f(packed[w + p.dst_c4]),
                       vec4f(packed[w + 2u * p.dst_c4]), vec4f(packed[w + 3u * p.dst_c4]));
    }
    let move_y = direction * i32(tap.y);
    let move_x = direction * i32(tap.x);
    let at = start + (move_y * i32(p.src_w) + move_x) * i32(p.src_c4) + i32(tap.c4);
    return transpose(load(at, is_inside(y + move_y, x + move_x)));
}

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    gathered(group, thread, 1);
}

@compute @workgroup_size(THREADS)
fn backward_input(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    gathered(group, thread, -1);
}

// ---- backward_weight: rows are taps and, within a tap, input channels; k runs over the pixels of out.

@group(0) @binding(1) var<storage, read> dout4: array<vec4<stored>>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec4f>;

// The pixel after (image, y, x), of images of `rows` pixels.
fn after(at: vec3u, rows: vec2u) -> vec3u {
    let x_end = at.z + 1u == rows.y;
    let y = at.y + select(0u, 1u, x_end);
    let y_end = y == rows.x;
    return vec3u(at.x + select(0u, 1u, y_end), select(y, 0u, y_end), select(at.z + 1u, 0u, x_end));
}

@compute @workgroup_size(THREADS)
fn backward_weight(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let rows = vec2u(p.rows_h, p.rows_w);
    let pixels = p.batch * rows.x * rows.y;
    let end = min((group.z + 1u) * p.chunk, pixels);
    let is_b = thread >= TILE;
    let k4 = thread % TILE / QUADS;
    let quad = thread % QUADS;
    let quads = kernel() * kernel() * p.src_c4;
    let row = min(group.x * QUADS + quad, quads - 1u);
    let col = min(group.y * QUADS + quad, p.dst_c4 - 1u);
    let tap = row / p.src_c4;
    let off = vec2i(i32(tap / kernel()) + off_y(), i32(tap % kernel()) + off_x());

    var k = group.z * p.chunk + k4 * 4u;
    var at = vec3u(k / (rows.x * rows.y), k / rows.y % rows.x, k % rows.y);
    var sums = Sums();
    for (var first = group.z * p.chunk; first < end; first += TILE_K) {
        var next: mat4x4f;
        if is_b {
            let i = min(k + STEPS, vec4u(pixels - 1u)) * p.dst_c4 + col;
            next = mat4x4f(vec4f(dout4[i.x]), vec4f(dout4[i.y]), vec4f(dout4[i.z]), vec4f(dout4[i.w]));
        } else {
            let b = after(at, rows);
            let c = after(b, rows);
            let d = after(c, rows);
            let y = vec4i(vec4u(at.y, b.y, c.y, d.y) * stride()) + off.x;
            let x = vec4i(vec4u(at.z, b.z, c.z, d.z) * stride()) + off.y;
            let line = vec4i(vec4u(at.x, b.x, c.x, d.x) * p.src_h) + y;
            let from_at = (line * i32(p.src_w) + x) * i32(p.src_c4) + i32(row % p.src_c4);
            next = load(from_at, is_inside(y, x) & (k + STEPS < vec4u(end)));
        }
        workgroupBarrier(); // the last tile has been read by everyone
        stage(is_b, k4, quad, next);
        workgroupBarrier();
        k += TILE_K;
        at.z += TILE_K;
        while at.z >= rows.y {
            at.z -= rows.y;
            at.y += 1u;
            if at.y == rows.x { at.y = 0u; at.x += 1u; }
        }
        sums = multiply(sums, thread);
    }
    let first = group.x * TILE + first_row(thread);
    let into = group.y * QUADS + first_col(thread) / 4u;
    let start = group.z * quads * 4u;
    store_partial(sums.low, start, first, into);
    store_partial(sums.high, start, first + TILE / 2u, into);
    if TILE == 128u {
        store_partial(sums.low_right, start, first, into + 16u);
        store_partial(sums.high_right, start, first + TILE / 2u, into + 16u);
    }
}

// ---- between PyTorch's weights and packed ones. A lane has one input channel and four output channels, or when TRANSPOSED
// the other way round, and walks the taps: lanes stand along the input channels, as the weights do.

@group(0) @binding(0) var<storage, read> weight: array<stored>;
@group(0) @binding(2) var<storage, read_write> packed_weight: array<vec4<stored>>;

// Weight (o, i) at tap t; zero where stored channels are more than there are.
fn weight_at(o: u32, i: u32, t: u32) -> stored {
    let exists = o < q.out_channels && i < q.in_channels;
    return select(stored(), weight[select(0u, (o * q.in_channels + i) * q.kernel * q.kernel + t, exists)], exists);
}

@compute @workgroup_size(WG)
fn pack(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
    let taps = q.kernel * q.kernel;
    if TRANSPOSED {
        let i = id.x * 4u;
        if i >= q.in_pitch { return; }
        for (var t = 0u; t < taps; t++) {
            packed_weight[(t * q.out_pitch + group.y) * (q.in_pitch / 4u) + id.x] = vec4<stored>(
                weight_at(group.y, i, t), weight_at(group.y, i + 1u, t),
                weight_at(group.y, i + 2u, t), weight_at(group.y, i + 3u, t));
        }
    } else {
        let o = group.y * 4u;
        if id.x >= q.in_pitch { return; }
        for (var t = 0u; t < taps; t++) {
            packed_weight[(t * q.in_pitch + id.x) * (q.out_pitch / 4u) + group.y] = vec4<stored>(
                weight_at(o, id.x, t), weight_at(o + 1u, id.x, t),
                weight_at(o + 2u, id.x, t), weight_at(o + 3u, id.x, t));
        }
    }
}

@group(0) @binding(0) var<storage, read> chunks_of_dweight: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> dweight: array<f32>;

@compute @workgroup_size(WG)
fn unpack(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
    if id.x >= q.in_channels { return; }
    let taps = q.kernel * q.kernel;
    let o = group.y * 4u;
    let step = q.in_channels * taps;
    for (var t = 0u; t < taps; t++) {
        var sum = vec4f();
        for (var z = 0u; z < q.batch; z++) { // `batch` chunks
            sum += chunks_of_dweight[((z * taps + t) * q.in_pitch + id.x) * (q.out_pitch / 4u) + group.y];
        }
        let i = (o * q.in_channels + id.x) * taps + t;
        dweight[i] += sum.x;
        if o + 1u < q.out_channels { dweight[i + step] += sum.y; }
        if o + 2u < q.out_channels { dweight[i + 2u * step] += sum.z; }
        if o + 3u < q.out_channels { dweight[i + 3u * step] += sum.w; }
    }
}

@group(0) @binding(0) var<storage, read> images: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<stored>;

@compute @workgroup_size(WG)
fn to_nhwc(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let pixel = fold_index(group, groups) * WG + lane;
    let pixels = q.src_h;
    if pixel >= q.batch * pixels { return; }
    let planes = q.src_w;
    let start = pixel / pixels * planes * pixels + pixel % pixels;
    for (var c = 0u; c < q.out_pitch; c++) {
        let exists = c < q.in_channels;
        out[pixel * q.out_pitch + c] = stored(select(0.0, images[select(0u, start + c * pixels, exists)], exists));
    }
}

// ---- any channels and groups.

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read> filters: array<stored>;

@compute @workgroup_size(WG)
fn forward_any(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = fold_index(group, groups) * WG + lane;
    if i >= q.batch * q.rows_h * q.rows_w * q.out_pitch { return; }
    let o = i % q.out_pitch;
    let row = i / q.out_pitch;
    if o >= q.out_channels { out[i] = stored(); return; }
    let channel = o / (q.out_channels / q.groups) * q.in_channels;
    var sum = 0.0;
    for (var ky = 0u; ky < q.kernel; ky++) {
        let y = i32(row / q.rows_w % q.rows_h * q.stride + ky) + q.off_y;
        if y < 0 || y >= i32(q.src_h) { continue; }
        for (var kx = 0u; kx < q.kernel; kx++) {
            let x = i32(row % q.rows_w * q.stride + kx) + q.off_x;
            if x < 0 || x >= i32(q.src_w) { continue; }
            let at = ((row / (q.rows_h * q.rows_w) * q.src_h + u32(y)) * q.src_w + u32(x)) * q.in_pitch + channel;
            for (var c = 0u; c < q.in_channels; c++) {
                sum += f32(inp[at + c]) * f32(filters[((o * q.in_channels + c) * q.kernel + ky) * q.kernel + kx]);
            }
        }
    }
    out[i] = stored(sum);
}

@group(0) @binding(0) var<storage, read> dout: array<stored>;
@group(0) @binding(2) var<storage, read_write> dinp: array<stored>;

@compute @workgroup_size(WG)
fn backward_input_any(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = fold_index(group, groups) * WG + lane;
    if i >= q.batch * q.src_h * q.src_w * q.in_pitch { return; }
    let channel = i % q.in_pitch;
    let pixel = i / q.in_pitch;
    var sum = 0.0;
    if channel < q.in_channels * q.groups {
        let c = channel % q.in_channels;
        let outs = q.out_channels / q.groups;
        let first = channel / q.in_channels * outs;
        for (var ky = 0u; ky < q.kernel; ky++) {
            let y = i32(pixel / q.src_w % q.src_h) - q.off_y - i32(ky);
            if y < 0 || y % i32(q.stride) != 0 || y / i32(q.stride) >= i32(q.rows_h) { continue; }
            for (var kx = 0u; kx < q.kernel; kx++) {
                let x = i32(pixel % q.src_w) - q.off_x - i32(kx);
                if x < 0 || x % i32(q.stride) != 0 || x / i32(q.stride) >= i32(q.rows_w) { continue; }
                let row = (pixel / (q.src_h * q.src_w) * q.rows_h + u32(y) / q.stride) * q.rows_w + u32(x) / q.stride;
                for (var o = first; o < first + outs; o++) {
                    let weight_of_tap = filters[((o * q.in_channels + c) * q.kernel + ky) * q.kernel + kx];
                    sum += f32(dout[row * q.out_pitch + o]) * f32(weight_of_tap);
                }
            }
        }
    }
    var before = 0.0;
    if ACCUMULATE { before = f32(dinp[i]); }
    dinp[i] = stored(before + sum);
}

@group(0) @binding(1) var<storage, read> gradient: array<stored>;

@compute @workgroup_size(WG)
fn backward_weight_any(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
    let taps = q.kernel * q.kernel;
    let len = q.out_channels * q.in_channels * taps;
    if id.x >= len { return; }
    let o = id.x / taps / q.in_channels;
    let channel = o / (q.out_channels / q.groups) * q.in_channels + id.x / taps % q.in_channels;
    let first = group.y * q.chunk;
    var at = vec3u(first / (q.rows_h * q.rows_w), first / q.rows_w % q.rows_h, first % q.rows_w);
    var sum = 0.0;
    for (var row = first; row < min(first + q.chunk, q.batch * q.rows_h * q.rows_w); row++) {
        let y = i32(at.y * q.stride + id.x % taps / q.kernel) + q.off_y;
        let x = i32(at.z * q.stride + id.x % q.kernel) + q.off_x;
        if y >= 0 && y < i32(q.src_h) && x >= 0 && x < i32(q.src_w) {
            let i = ((at.x * q.src_h + u32(y)) * q.src_w + u32(x)) * q.in_pitch + channel;
            sum += f32(gradient[row * q.out_pitch + o]) * f32(inp[i]);
        }
        at = after(at, vec2u(q.rows_h, q.rows_w));
    }
    dweight[group.y * len + id.x] = sum;
}
