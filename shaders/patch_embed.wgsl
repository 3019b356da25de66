// Images to tokens (Dosovitskiy et al. 2021, eq. 1). The convolution whose stride is its kernel is a matmul over unfolded
// patches; this file unfolds, and puts class token and positions around the matmul's result.
//
//   patches[b·N + n, (ch·P + y)·P + x] = images[b, ch, (n / G)·P + y, (n mod G)·P + x]        N = G·G patches
//   tokens[b, t] = content + position,   the prefix first: C = 1 or 0 class tokens, then R registers
//     content    t < C: cls,   t < C + R: reg[t − C],   else embedded[b·N + t − C − R]
//     position   pos has a row for the class token (CP = 1) or none, for the registers (RP = 1) or none, and for each patch;
//                none at all if patch_pos is 0
//
//   images [B, 3, S, S], of which the first `channels` are read   patches [B·N, channels·P·P]   embedded, dembedded [B·N, D]   tokens, dtokens [B, C+R+N, D]
//   pos, dpos [CP·C+RP·R+N, D]    cls [C, D]    reg [R, D]    dprefix [count, D], the gradient of `count` tokens from `first`
//
//   entry               grid                             writes
//   unfold              fold(⌈B·N·channels·P·P/(WG·PER_LANE)⌉)  patches =
//   assemble            fold(⌈B·(C+R+N)·D/(WG·PER_LANE)⌉)  tokens =
//   backward_embedded   fold(⌈B·N·D/(WG·PER_LANE)⌉)      dembedded =
//   backward_pos        fold(⌈rows of pos·D/WG⌉)         dpos +=      Σ over the batch
//   backward_prefix     fold(⌈count·D/WG⌉)               dprefix +=   Σ over the batch
//
// The host appends `alias stored = f32;` or f16: what patches and dembedded hold, which the matmul reads.
//
// Pixels have no gradient: the first layer's input gradient is never computed.

struct Params {
    batch: u32, size: u32, patch_size: u32, dim: u32,
    cls_tokens: u32, registers: u32, cls_pos: u32, reg_pos: u32,
    first: u32, count: u32, patch_pos: u32, channels: u32,
}
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;

@group(0) @binding(0) var<storage, read> images: array<f32>;
@group(0) @binding(1) var<storage, read_write> patches: array<stored>;

fn patch_count() -> u32 {
    let grid = p.size / p.patch_size;
    return grid * grid;
}

@compute @workgroup_size(WG)
fn unfold(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let grid = p.size / p.patch_size;
    let cols = p.channels * p.patch_size * p.patch_size;
    let total = p.batch * patch_count() * cols;
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, total); i += WG) {
        let row = i / cols;
        let col = i % cols;
        let n = row % patch_count();
        let b = row / patch_count();
        let channel = col / (p.patch_size * p.patch_size);
        let y = (n / grid) * p.patch_size + (col / p.patch_size) % p.patch_size;
        let x = (n % grid) * p.patch_size + col % p.patch_size;
        patches[i] = stored(images[((b * 3u + channel) * p.size + y) * p.size + x]);
    }
}

fn prefix() -> u32 { return p.cls_tokens + p.registers; }

// Rows of `pos` that are not patches'.
fn prefix_pos() -> u32 { return p.cls_pos * p.cls_tokens + p.reg_pos * p.registers; }

@group(0) @binding(0) var<storage, read> embedded: array<f32>;
@group(0) @binding(1) var<storage, read> pos: array<f32>;
@group(0) @binding(2) var<storage, read> cls: array<f32>;
@group(0) @binding(3) var<storage, read> reg: array<f32>;
@group(0) @binding(4) var<storage, read_write> tokens: array<f32>;

@compute @workgroup_size(WG)
fn assemble(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let length = patch_count() + prefix();
    let total = p.batch * length * p.dim;
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, total); i += WG) {
        let d = i % p.dim;
        let t = (i / p.dim) % length;
        let b = i / (p.dim * length);
        var token: f32;
        if t < p.cls_tokens {
            token = cls[d];
            if p.cls_pos == 1u { token += pos[d]; }
        } else if t < prefix() {
            token = reg[(t - p.cls_tokens) * p.dim + d];
            if p.reg_pos == 1u { token += pos[(t - p.cls_tokens + p.cls_pos * p.cls_tokens) * p.dim + d]; }
        } else {
            let n = t - prefix();
            token = embedded[(b * patch_count() + n) * p.dim + d];
            if p.patch_pos == 1u { token += pos[(n + prefix_pos()) * p.dim + d]; }
        }
        tokens[i] = token;
    }
}

@group(0) @binding(0) var<storage, read> dtokens: array<f32>;
@group(0) @binding(1) var<storage, read_write> dembedded: array<stored>;

@compute @workgroup_size(WG)
fn backward_embedded(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let per_image = patch_count() * p.dim;
    let length = patch_count() + prefix();
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.batch * per_image); i += WG) {
        let b = i / per_image;
        dembedded[i] = stored(dtokens[(b * length + prefix()) * p.dim + i % per_image]);
    }
}

@group(0) @binding(1) var<storage, read_write> dpos: array<f32>;
@group(0) @binding(1) var<storage, read_write> dprefix: array<f32>;

// Σ_b dtokens[b, t, d].
fn batch_sum(t: u32, d: u32) -> f32 {
    let stride = (patch_count() + prefix()) * p.dim;
    var sum = 0.0;
    for (var b = 0u; b < p.batch; b++) { sum += dtokens[b * stride + t * p.dim + d]; }
    return sum;
}

@compute @workgroup_size(WG)
fn backward_pos(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = fold_index(group, groups) * WG + lane;
    if i >= (patch_count() + prefix_pos()) * p.dim { return; }
    let row = i / p.dim;
    // Rows stand in the tokens' order; those of the prefix that have no row are left out.
    var t = row + prefix() - prefix_pos();
    if row < p.cls_pos * p.cls_tokens {
        t = 0u;
    } else if row < prefix_pos() {
        t = row - p.cls_pos * p.cls_tokens + p.cls_tokens;
    }
    dpos[i] += batch_sum(t, i % p.dim);
}

@compute @workgroup_size(WG)
fn backward_prefix(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = fold_index(group, groups) * WG + lane;
    if i >= p.count * p.dim { return; }
    dprefix[i] += batch_sum(p.first + i / p.dim, i % p.dim);
}
