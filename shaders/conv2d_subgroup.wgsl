// 2-D convolution (NHWC, no bias) as an implicit matrix product, for GPUs with subgroups: no workgroup memory, no barrier
// (lib/quads.wgsl). Equations, tensors, packed weights and classes of pixels are explained in conv2d.wgsl.
//
//   entry             grid                                        writes
//   forward           [⌈dst channels/SIDE⌉, ⌈rows/SIDE⌉, 1]       dst =
//   backward_input    the same, for each class                    dst =, or += with ACCUMULATE
//   backward_weight   [⌈k·k·C/SIDE⌉, ⌈O/SIDE⌉, chunks]            partial =   [chunks, k·k, C, O]
//
//   SIDE is 64. C and O are multiples of 4. Nothing is saved for backward.
//   The host appends `alias stored = f32;` or f16: what src, packed, dst and dout hold. Sums and partial are f32.
//   Needs subgroups (wgpu: Features::SUBGROUP), of any size.

override ACCUMULATE: bool = false;

@group(0) @binding(0) var<storage, read> src: array<vec4<stored>>;
@group(0) @binding(1) var<storage, read> packed: array<vec4<stored>>;
@group(0) @binding(2) var<storage, read_write> dst: array<vec4<stored>>;

// Where two source pixels are; one outside its image is zero.
struct Source { at: vec2u, inside: vec2<bool> }

fn source(image: vec2u, y: vec2i, x: vec2i, wanted: bool) -> Source {
    // A negative coordinate is a large one without its sign.
    let inside = vec2<bool>(wanted) & (vec2u(y) < vec2u(p.src_h)) & (vec2u(x) < vec2u(p.src_w));
    return Source(select(vec2u(0u), ((image * p.src_h + vec2u(y)) * p.src_w + vec2u(x)) * p.src_c4, inside), inside);
}
fn load(at: u32, inside: bool) -> vec4f { return select(vec4f(), vec4f(src[at]), inside); }

// ---- forward and backward_input: rows are pixels, of which a lane brings two; k runs over taps and the source's channels.

fn load_packed(at: u32) -> mat4x4f {
    return mat4x4f(vec4f(packed[at]), vec4f(packed[at + p.dst_c4]),
                   vec4f(packed[at + 2u * p.dst_c4]), vec4f(packed[at + 3u * p.dst_c4]));
}

fn gathered(group: vec3u, thread: u32, direction: i32) {
    let own = place_in(group.xy, thread);
    let row = min(own.m + own.lane + vec2u(0u, 4u), vec2u(p.batch * p.rows_h * p.rows_w - 1u));
    let image = row / (p.rows_h * p.rows_w);
    let y = vec2i(row / p.rows_w % p.rows_h * stride()) + off_y();
    let x = vec2i(row % p.rows_w * stride()) + off_x();
    let col = min(own.n / 4u + vec2u(0u, 4u), vec2u(p.dst_c4 - 1u));
    var sums = Sums();
    for (var ty = 0u; ty < taps_y(); ty++) {
        for (var tx = 0u; tx < taps_x(); tx++) {
            let s = source(image, y + direction * i32(ty), x + direction * i32(tx), true);
            let tap = (first_y() + ty * tap_step()) * kernel() + first_x() + tx * tap_step();
            var w = tap * p.src_c4 * 4u * p.dst_c4 + col;
            for (var c4 = 0u; c4 < p.src_c4; c4++) {
                let low = of_quad(load(s.at.x + c4, s.inside.x));
                let high = of_quad(load(s.at.y + c4, s.inside.y));
                sums = multiply(sums, low, high, load_packed(w.x), load_packed(w.y));
                w += 4u * p.dst_c4;
            }
        }
    }
    let into = own.n / 4u;
    store(sums.low, own.m, into);
    store(sums.high, own.m + 4u, into);
    store(sums.low_right, own.m, into + 4u);
    store(sums.high_right, own.m + 4u, into + 4u);
}

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    gathered(group, thread, 1);
}

@compute @workgroup_size(THREADS)
fn backward_input(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    gathered(group, thread, -1);
}

// ---- backward_weight: rows are taps and, within a tap, input channels; k runs over the pixels of out. A lane brings two
// quads of channels at its own pixel.

@group(0) @binding(1) var<storage, read> dout4: array<vec4<stored>>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec4f>;

// The pixel after (image, y, x); without branches, so that a quad stays together.
fn after(at: vec3u) -> vec3u {
    let x_end = at.z + 1u == p.rows_w;
    let y = at.y + select(0u, 1u, x_end);
    let y_end = y == p.rows_h;
    return vec3u(at.x + select(0u, 1u, y_end), select(y, 0u, y_end), select(at.z + 1u, 0u, x_end));
}

fn load_dout(at: vec4u) -> mat4x4f {
    return mat4x4f(vec4f(dout4[at.x]), vec4f(dout4[at.y]), vec4f(dout4[at.z]), vec4f(dout4[at.w]));
}

@compute @workgroup_size(THREADS)
fn backward_weight(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let pixels = p.batch * p.rows_h * p.rows_w;
    let end = min((group.z + 1u) * p.chunk, pixels);
    let own = place_in(group.yx, thread);
    let quads = kernel() * kernel() * p.src_c4;
    let row = min(own.m / 4u + vec2u(0u, 1u), vec2u(quads - 1u));
    let c4 = row % p.src_c4;
    let off_y = vec2i(row / p.src_c4 / kernel()) + off_y();
    let off_x = vec2i(row / p.src_c4 % kernel()) + off_x();
    let col = min(own.n / 4u + vec2u(0u, 4u), vec2u(p.dst_c4 - 1u));

    let start = group.z * p.chunk + own.lane;
    var at = vec3u(start / (p.rows_h * p.rows_w), start / p.rows_w % p.rows_h, start % p.rows_w);
    var sums = Sums();
    for (var k = group.z * p.chunk; k < end; k += 4u) {
        let s = source(vec2u(at.x), i32(at.y * stride()) + off_y, i32(at.z * stride()) + off_x, k + own.lane < end);
        let low = transpose(of_quad(load(s.at.x + c4.x, s.inside.x)));
        let high = transpose(of_quad(load(s.at.y + c4.y, s.inside.y)));
        let i = min(k + STEPS, vec4u(pixels - 1u)) * p.dst_c4;
        sums = multiply(sums, low, high, load_dout(i + col.x), load_dout(i + col.y));
        at = after(after(after(after(at))));
    }
    let into = own.n / 4u;
    let copy = group.z * quads * 4u;
    store_partial(sums.low, copy, own.m, into);
    store_partial(sums.high, copy, own.m + 4u, into);
    store_partial(sums.low_right, copy, own.m, into + 4u);
    store_partial(sums.high_right, copy, own.m + 4u, into + 4u);
}
