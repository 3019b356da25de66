// 2-D convolution (NHWC, no bias) in groups whose channels come in fours, of inp and of out; equations and tensors are in
// conv2d.wgsl. A group is too narrow for that file's tiles: here a lane owns four channels of eight pixels in a row.
//
//   entry             grid                                     writes
//   pack              [⌈O·C/groups·k·k/(4·WG)⌉, 1, 1]          packed =   [O/4, k, k, C/4/groups, 4, 4], of a vector four of O's channels;
//                                                              TRANSPOSED: O and C change places
//   forward           [⌈dst channels/4 · stripes/WG⌉, rows_h, B]   dst =
//   backward_input    the same                                 dst =, or += with ACCUMULATE; src is dout
//   backward_weight   [⌈O·C/groups·k·k/(16·WG)⌉, chunks, 1]    partial =   [chunks, O, C/groups, k, k]; column_sum ends it
//
// The host appends what four channels are read and written as (src/ops/words.rs) and `alias stored`, one channel of them.
// `p.chunk` is how many groups there are, in backward_weight `dst_y()`; it needs no place in dst.

override WG: u32 = 64u;
override ACCUMULATE: bool = false;
override TRANSPOSED: bool = false;
override ALONG: bool = false; // neighbouring lanes take neighbouring stripes of pixels, not channels: on a CPU adapter

@group(0) @binding(0) var<storage, read> weight: array<stored>;
@group(0) @binding(1) var<storage, read_write> packed_weight: array<stored4>;

@compute @workgroup_size(WG)
fn pack(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group.x * WG + lane;
    let groups = p.chunk;
    let taps = kernel() * kernel();
    // Of a group.
    let ins = p.src_c4 * 4u / groups;
    let outs = p.dst_c4 * 4u / groups;
    // The channels that are summed over, and those that vectors hold.
    let depth = select(ins, outs, TRANSPOSED);
    let width = select(outs, ins, TRANSPOSED);
    if i >= groups * width / 4u * taps * depth { return; }
    let k = i % depth;
    let t = i / depth % taps;
    let first = i / (depth * taps) * 4u;
    let own = first % width;
    let o = first / width * outs + select(own, k, TRANSPOSED);
    let at = (o * ins + select(k, own, TRANSPOSED)) * taps + t;
    let step = select(ins, 1u, TRANSPOSED) * taps;
    packed_weight[i] = to_stored(vec4f(f32(weight[at]), f32(weight[at + step]), f32(weight[at + 2u * step]),
                                       f32(weight[at + 3u * step])));
}

@group(0) @binding(0) var<storage, read> src: array<loaded4>;
@group(0) @binding(1) var<storage, read> packed: array<loaded4>;
@group(0) @binding(2) var<storage, read_write> dst: array<stored4>;

// A pixel that may be outside; `line` is where its row begins.
fn pixel(line: u32, x: i32, c4: u32) -> vec4f {
    let inside = u32(x) < p.src_w;
    return select(vec4f(), from_loaded(src[select(0u, (line + u32(x)) * p.src_c4 + c4, inside)]), inside);
}

fn times(sum: vec4f, w: mat4x4f, x: vec4f) -> vec4f {
    return fma(w[3], vec4f(x.w), fma(w[2], vec4f(x.z), fma(w[1], vec4f(x.y), fma(w[0], vec4f(x.x), sum))));
}

fn write(line: u32, x: u32, quad: u32, sum: vec4f) {
    if x >= p.rows_w { return; }
    let i = (line + x * tap_step() + dst_x()) * p.dst_c4 + quad;
    var before = vec4f();
    if ACCUMULATE { before = from_stored(dst[i]); }
    dst[i] = to_stored(before + sum);
}

fn gathered(group: vec3u, lane: u32, direction: i32) {
    let own = group.x * WG + lane;
    let stripes = (p.rows_w + 7u) / 8u;
    let side = select(p.dst_c4, stripes, ALONG);
    let far = own / side;
    let near = own - far * side;
    let quad = select(near, far, ALONG);
    let first = select(far, near, ALONG) * 8u;
    if quad >= p.dst_c4 || first >= p.rows_w { return; }
    let depth = p.src_c4 / p.chunk;
    let c = quad / (p.dst_c4 / p.chunk) * depth;
    let step = i32(stride());
    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();
    var s4 = vec4f();
    var s5 = vec4f();
    var s6 = vec4f();
    var s7 = vec4f();
    for (var ty = 0u; ty < taps_y(); ty++) {
        let y = i32(group.y * stride()) + off_y() + direction * i32(ty);
        if u32(y) >= p.src_h { continue; }
        let line = (group.z * p.src_h + u32(y)) * p.src_w;
        for (var tx = 0u; tx < taps_x(); tx++) {
            let x = i32(first * stride()) + off_x() + direction * i32(tx);
            let tap = (first_y() + ty * tap_step()) * kernel() + first_x() + tx * tap_step();
            var at = (quad * kernel() * kernel() + tap) * depth * 4u;
            for (var c4 = c; c4 < c + depth; c4++) {
                let w = mat4x4f(from_loaded(packed[at]), from_loaded(packed[at + 1u]), from_loaded(packed[at + 2u]),
                                from_loaded(packed[at + 3u]));
                at += 4u;
                s0 = times(s0, w, pixel(line, x, c4));
                s1 = times(s1, w, pixel(line, x + step, c4));
                s2 = times(s2, w, pixel(line, x + 2 * step, c4));
                s3 = times(s3, w, pixel(line, x + 3 * step, c4));
                s4 = times(s4, w, pixel(line, x + 4 * step, c4));
                s5 = times(s5, w, pixel(line, x + 5 * step, c4));
                s6 = times(s6, w, pixel(line, x + 6 * step, c4));
                s7 = times(s7, w, pixel(line, x + 7 * step, c4));
            }
        }
    }
    let line = (group.z * p.dst_h + group.y * tap_step() + dst_y()) * p.dst_w;
    write(line, first, quad, s0);
    write(line, first + 1u, quad, s1);
    write(line, first + 2u, quad, s2);
    write(line, first + 3u, quad, s3);
    write(line, first + 4u, quad, s4);
    write(line, first + 5u, quad, s5);
    write(line, first + 6u, quad, s6);
    write(line, first + 7u, quad, s7);
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) { gathered(group, lane, 1); }

@compute @workgroup_size(WG)
fn backward_input(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    gathered(group, lane, -1);
}

// ---- backward_weight: a lane has a tap between four channels of inp and four of out.

@group(0) @binding(1) var<storage, read> dout: array<loaded4>;
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;

fn write_column(first: u32, step: u32, sum: vec4f) {
    partial[first] = sum.x;
    partial[first + step] = sum.y;
    partial[first + 2u * step] = sum.z;
    partial[first + 3u * step] = sum.w;
}

@compute @workgroup_size(WG)
fn backward_weight(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let own = group.x * WG + lane;
    let groups = dst_y();
    let taps = kernel() * kernel();
    let depth = p.src_c4 / groups;
    if own >= p.dst_c4 * depth * taps { return; }
    // Neighbouring lanes share a tap, and with it the pixels outside.
    let quad = own % p.dst_c4;
    let c4 = own / p.dst_c4 % depth;
    let tap = own / (p.dst_c4 * depth);
    let ky = i32(tap / kernel()) + off_y();
    let kx = i32(tap % kernel()) + off_x();
    let c = quad / (p.dst_c4 / groups) * depth + c4;
    let begin = group.y * p.chunk;
    let end = min(begin + p.chunk, p.batch * p.rows_h * p.rows_w);
    var image = begin / (p.rows_h * p.rows_w);
    var y = begin / p.rows_w % p.rows_h;
    var x = begin % p.rows_w;
    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();
    for (var row = begin; row < end; row++) {
        let v = i32(y * stride()) + ky;
        if u32(v) < p.src_h {
            let i = pixel((image * p.src_h + u32(v)) * p.src_w, i32(x * stride()) + kx, c);
            let g = from_loaded(dout[row * p.dst_c4 + quad]);
            s0 = fma(g, vec4f(i.x), s0);
            s1 = fma(g, vec4f(i.y), s1);
            s2 = fma(g, vec4f(i.z), s2);
            s3 = fma(g, vec4f(i.w), s3);
        }
        x += 1u;
        if x == p.rows_w { x = 0u; y += 1u; }
        if y == p.rows_h { y = 0u; image += 1u; }
    }
    let step = depth * 4u * taps;
    let first = (group.y * p.dst_c4 * 4u + quad * 4u) * step + c4 * 4u * taps + tap;
    write_column(first, step, s0);
    write_column(first + taps, step, s1);
    write_column(first + 2u * taps, step, s2);
    write_column(first + 3u * taps, step, s3);
}
