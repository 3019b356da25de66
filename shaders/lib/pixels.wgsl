// What a dispatch of a convolution is told, in 56 bytes: what conv2d.wgsl, conv2d_direct.wgsl and conv2d_subgroup.wgsl share.
// Numbers below 256 share a word, and so do those below 65,536, the first in the low bits (src/ops/conv2d.rs).

struct Params {
    batch: u32,
    rows_h: u32, rows_w: u32,            // rows are the pixels (image, j, i) of a grid
    src_h: u32, src_w: u32, src_c4: u32, // the tensor that is gathered; channels in fours
    dst_h: u32, dst_w: u32, dst_c4: u32, // the tensor that is written; for backward_weight, the channels of dout
    taps: u32,                           // bytes: taps_y, taps_x, first_y, first_x
    steps: u32,                          // bytes: kernel, stride, step
    off: u32,                            // signed halves: off_y, off_x
    into: u32,                           // halves: dst_y, dst_x
    chunk: u32,                          // pixels that a workgroup of backward_weight adds up
}
var<immediate> p: Params;

// The kernel's rows and columns that take part: first, first + step, ...
fn taps_y() -> u32 { return p.taps & 255u; }
fn taps_x() -> u32 { return (p.taps >> 8u) & 255u; }
fn first_y() -> u32 { return (p.taps >> 16u) & 255u; }
fn first_x() -> u32 { return p.taps >> 24u; }
fn kernel() -> u32 { return p.steps & 255u; }
fn tap_step() -> u32 { return p.steps >> 16u; }

// Tap t of row j reads source row j · stride + off ± t; row j is written to destination row j · tap_step + dst.
fn stride() -> u32 { return (p.steps >> 8u) & 255u; }
fn off_y() -> i32 { return i32(p.off << 16u) >> 16u; }
fn off_x() -> i32 { return i32(p.off) >> 16u; }
fn dst_y() -> u32 { return p.into & 65535u; }
fn dst_x() -> u32 { return p.into >> 16u; }
