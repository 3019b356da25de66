// The windows of an NHWC image, a row each (PyTorch's nn.Unfold), and its backward. A convolution is a linear layer over them.
//
//   out[b, y, x, c·k² + ky·k + kx] = inp[b, y·s − p + ky, x·s − q + kx, c], zero outside the image
//   dinp[b, u, v, c] = Σ_{ky, kx} dout[b, (u + p − ky)/s, (v + q − kx)/s, c·k² + ky·k + kx]
//
//   inp, dinp [B, H, W, pitch], of which C channels count      out, dout [B, H', W', C·k²]
//   (p, q): zeros above and to the left
//
//   entry      grid                       writes
//   forward    [⌈C·W'/WG⌉, H', B]         out =
//   backward   [⌈C·W/WG⌉, H, B]           dinp =, or += with ACCUMULATE; pitch is C
//
// Nothing is saved for backward. The host appends `alias stored = f32;` or f16, what inp and dinp hold, and `alias unfolded`, what
// out and dout do.

struct Params {
    height: u32, width: u32,
    out_height: u32, out_width: u32,
    channels: u32, pitch: u32,
    kernel: u32, stride: u32, above: u32, left: u32,
}
var<immediate> p: Params;

override WG: u32 = 64u;
override ACCUMULATE: bool = false;

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read_write> out: array<unfolded>;

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let own = group.x * WG + lane;
    let x = own / p.channels;
    if x >= p.out_width { return; }
    let c = own - x * p.channels;
    var to = (((group.z * p.out_height + group.y) * p.out_width + x) * p.channels + c) * p.kernel * p.kernel;
    for (var ky = 0u; ky < p.kernel; ky++) {
        // A negative coordinate is a large one without its sign.
        let u = group.y * p.stride + ky - p.above;
        for (var kx = 0u; kx < p.kernel; kx++) {
            let v = x * p.stride + kx - p.left;
            let inside = u < p.height && v < p.width;
            let i = select(0u, ((group.z * p.height + u) * p.width + v) * p.pitch + c, inside);
            out[to] = unfolded(select(0.0, f32(inp[i]), inside));
            to += 1u;
        }
    }
}

@group(0) @binding(0) var<storage, read> dout: array<unfolded>;
@group(0) @binding(1) var<storage, read_write> dinp: array<stored>;

@compute @workgroup_size(WG)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let own = group.x * WG + lane;
    let v = own / p.channels;
    if v >= p.width { return; }
    let c = own - v * p.channels;
    var sum = 0.0;
    for (var ky = 0u; ky < p.kernel; ky++) {
        let from_y = group.y + p.above - ky;
        let y = from_y / p.stride;
        if y * p.stride != from_y || y >= p.out_height { continue; }
        for (var kx = 0u; kx < p.kernel; kx++) {
            let from_x = v + p.left - kx;
            let x = from_x / p.stride;
            if x * p.stride != from_x || x >= p.out_width { continue; }
            let row = (group.z * p.out_height + y) * p.out_width + x;
            sum += f32(dout[((row * p.channels + c) * p.kernel + ky) * p.kernel + kx]);
        }
    }
    let i = ((group.z * p.height + group.y) * p.width + v) * p.channels + c;
    var before = 0.0;
    if ACCUMULATE { before = f32(dinp[i]); }
    dinp[i] = stored(before + sum);
}
