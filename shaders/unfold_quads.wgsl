// The windows of 2 × 2 pixels, with as many pixels from one to the next, none of which is outside: unfold.wgsl has the formulas. A
// channel's window is one vector of out.
//
//   inp, dinp [B, H, W, C]      out, dout [B, ⌊H/2⌋, ⌊W/2⌋, 4·C]      C a multiple of 4
//
//   entry      grid                            writes
//   forward    [⌈C/4·⌊W/2⌋/WG⌉, ⌊H/2⌋, B]      out =
//   backward   [⌈C/4·⌈W/2⌉/WG⌉, ⌈H/2⌉, B]      dinp =, or += with ACCUMULATE
//
// A lane owns a window's pixels of four channels. The host appends `loaded4` and `stored4` (src/ops/words.rs): the types that
// are read and written.

struct Params {
    height: u32, width: u32,
    out_height: u32, out_width: u32,
    cols: u32, // fours of channels
}
var<immediate> p: Params;

override WG: u32 = 64u;
override ACCUMULATE: bool = false;

// Where a lane's window lies.
struct Place { x: u32, col: u32 }

fn place(own: u32) -> Place {
    let x = own / p.cols;
    return Place(x, own - x * p.cols);
}

fn pixel_of(image: u32, y: u32, x: u32, col: u32) -> u32 { return ((image * p.height + y) * p.width + x) * p.cols + col; }

fn window_of(image: u32, y: u32, at: Place) -> u32 {
    return (((image * p.out_height + y) * p.out_width + at.x) * p.cols + at.col) * 4u;
}

@group(0) @binding(0) var<storage, read> inp: array<loaded4>;
@group(0) @binding(1) var<storage, read_write> out: array<stored4>;

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let at = place(group.x * WG + lane);
    if at.x >= p.out_width { return; }
    let first = pixel_of(group.z, 2u * group.y, 2u * at.x, at.col);
    let below = first + p.width * p.cols;
    // Rows are pixels of the window, columns channels.
    let window = transpose(mat4x4f(from_loaded(inp[first]), from_loaded(inp[first + p.cols]),
                                   from_loaded(inp[below]), from_loaded(inp[below + p.cols])));
    let to = window_of(group.z, group.y, at);
    out[to] = to_stored(window[0]);
    out[to + 1u] = to_stored(window[1]);
    out[to + 2u] = to_stored(window[2]);
    out[to + 3u] = to_stored(window[3]);
}

@group(0) @binding(0) var<storage, read> dout: array<loaded4>;
@group(0) @binding(1) var<storage, read_write> dinp: array<stored4>;

fn write(i: u32, gradient: vec4f) {
    var before = vec4f();
    if ACCUMULATE { before = from_stored(dinp[i]); }
    dinp[i] = to_stored(before + gradient);
}

@compute @workgroup_size(WG)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let at = place(group.x * WG + lane);
    let x = 2u * at.x;
    let y = 2u * group.y;
    if x >= p.width { return; }
    // A last row or column of an odd number is in no window.
    var pixels = mat4x4f();
    if at.x < p.out_width && group.y < p.out_height {
        let first = window_of(group.z, group.y, at);
        pixels = transpose(mat4x4f(from_loaded(dout[first]), from_loaded(dout[first + 1u]),
                                   from_loaded(dout[first + 2u]), from_loaded(dout[first + 3u])));
    }
    let first = pixel_of(group.z, y, x, at.col);
    let below = first + p.width * p.cols;
    write(first, pixels[0]);
    if x + 1u < p.width { write(first + p.cols, pixels[1]); }
    if y + 1u >= p.height { return; }
    write(below, pixels[2]);
    if x + 1u < p.width { write(below + p.cols, pixels[3]); }
}
