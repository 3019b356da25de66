// A sequence to one feature vector, and its backward.
//
//   CLS  (MEAN false)   out[b] = inp[b, 0]
//   mean (MEAN true)    out[b] = 1/N · Σ_n inp[b, C + n]       the patch tokens only; C = 1 with a class token
//
//   inp, dinp [B, T, D], T = C + N      out, dout [B, D]
//
//   entry      grid                            writes
//   forward    fold(⌈B·D/WG⌉)                  out =
//   backward   fold(⌈B·T·D/(WG·PER_LANE)⌉)     dinp =   every token; zero where the pooling does not look

struct Params { batch: u32, tokens: u32, dim: u32, cls_tokens: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;
override MEAN: bool = false;

@group(0) @binding(0) var<storage, read> inp: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = fold_index(group, groups) * WG + lane;
    if i >= p.batch * p.dim { return; }
    let start = (i / p.dim) * p.tokens * p.dim + i % p.dim;
    if MEAN {
        var sum = 0.0;
        for (var t = p.cls_tokens; t < p.tokens; t++) { sum += inp[start + t * p.dim]; }
        out[i] = sum / f32(p.tokens - p.cls_tokens);
    } else {
        out[i] = inp[start];
    }
}

@group(0) @binding(0) var<storage, read> dout: array<f32>;
@group(0) @binding(1) var<storage, read_write> dinp: array<f32>;

@compute @workgroup_size(WG)
fn backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.batch * p.tokens * p.dim); i += WG) {
        let t = (i / p.dim) % p.tokens;
        let g = dout[i / (p.dim * p.tokens) * p.dim + i % p.dim];
        if MEAN {
            dinp[i] = select(0.0, g / f32(p.tokens - p.cls_tokens), t >= p.cls_tokens);
        } else {
            dinp[i] = select(0.0, g, t == 0u);
        }
    }
}
