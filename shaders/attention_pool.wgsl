// Attention of one query per image over its tokens, and the tokens that CLIP's ResNets make for it (Radford et al.
// 2021, `AttentionPool2d`).
//
//   s_n = ⟨q, k_n⟩ · scale,   prob = softmax(s),   out = Σ_n prob_n · v_n       for every head of every image
//   dv_n = prob_n · dout      ds_n = prob_n · (⟨dout, v_n⟩ − Σ_m prob_m ⟨dout, v_m⟩) · scale
//   dq = Σ_n ds_n · k_n       dk_n = ds_n · q
//
//   tokens[b, 0] = 1/P · Σ_n inp[b, n] + pos[0],   tokens[b, 1 + n] = inp[b, n] + pos[1 + n]
//
//   q, dq, out, dout [B, D]   k, v, dk, dv [B, N, D]   D = H·d, heads side by side   prob, ds [B, H, N], prob saved by forward
//   inp, dinp [B, P, D]       tokens, dtokens [B, N, D], N = 1 + P                   pos [N, D]
//
//   entry               grid                            writes
//   forward             fold(B·H)                       out = , prob =         one workgroup per head
//   backward_query      fold(B·H)                       dq = , ds =            one workgroup per head
//   backward_key        fold(⌈B·N·D/(WG·PER_LANE)⌉)     dk = , dv =            runs after backward_query
//   assemble            fold(⌈B·D/WG⌉)                  tokens =
//   backward_assemble   fold(⌈B·P·D/(WG·PER_LANE)⌉)     dinp =                 (pos's gradient is a sum over the rows of dtokens)
//
// The host appends `alias stored = f32;` or f16: what everything but prob, ds and pos holds. Sums are f32.
//
// With one query there is next to nothing to compute, so k and v are read from memory once each way, and the
// probabilities are kept: 1/d of the keys.

struct Params { batch: u32, tokens: u32, heads: u32, head_dim: u32, scale: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;

@group(0) @binding(0) var<storage, read> q: array<stored>;
@group(0) @binding(1) var<storage, read> k: array<stored>;
@group(0) @binding(2) var<storage, read> v: array<stored>;
@group(0) @binding(3) var<storage, read_write> out: array<stored>;
@group(0) @binding(4) var<storage, read_write> prob: array<f32>;

// Where head `index` of all B·H starts in token `t` of a tensor of `tokens` tokens.
fn head_start(index: u32, t: u32, tokens: u32) -> u32 {
    return ((index / p.heads * tokens + t) * p.heads + index % p.heads) * p.head_dim;
}

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = fold_index(group, groups);
    if index >= p.batch * p.heads { return; }
    let row = index * p.tokens;
    let start = head_start(index, 0u, 1u);

    var highest = -3.0e38;
    for (var n = lane; n < p.tokens; n += WG) {
        let key = head_start(index, n, p.tokens);
        var s = 0.0;
        for (var i = 0u; i < p.head_dim; i++) { s += f32(q[start + i]) * f32(k[key + i]); }
        prob[row + n] = s * p.scale;
        highest = max(highest, s * p.scale);
    }
    // Relative to the highest score, so that the exponentials can't overflow.
    let peak = reduce_max(highest, lane);
    var sum = 0.0;
    for (var n = lane; n < p.tokens; n += WG) {
        let e = exp(prob[row + n] - peak);
        prob[row + n] = e;
        sum += e;
    }
    let total = reduce_sum(sum, lane);
    for (var n = lane; n < p.tokens; n += WG) { prob[row + n] /= total; }
    storageBarrier(); // from one lane per token to one lane per column

    for (var i = lane; i < p.head_dim; i += WG) {
        var mix = 0.0;
        for (var n = 0u; n < p.tokens; n++) { mix += prob[row + n] * f32(v[head_start(index, n, p.tokens) + i]); }
        out[start + i] = stored(mix);
    }
}

@group(0) @binding(3) var<storage, read> dout: array<stored>;
@group(0) @binding(4) var<storage, read> saved_prob: array<f32>;
@group(0) @binding(5) var<storage, read_write> dq: array<stored>;
@group(0) @binding(6) var<storage, read_write> ds: array<f32>;

@compute @workgroup_size(WG)
fn backward_query(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = fold_index(group, groups);
    if index >= p.batch * p.heads { return; }
    let row = index * p.tokens;
    let start = head_start(index, 0u, 1u);

    var sum = 0.0;
    for (var n = lane; n < p.tokens; n += WG) {
        let key = head_start(index, n, p.tokens);
        var dprob = 0.0;
        for (var i = 0u; i < p.head_dim; i++) { dprob += f32(dout[start + i]) * f32(v[key + i]); }
        ds[row + n] = dprob;
        sum += saved_prob[row + n] * dprob;
    }
    let delta = reduce_sum(sum, lane);
    for (var n = lane; n < p.tokens; n += WG) {
        ds[row + n] = saved_prob[row + n] * (ds[row + n] - delta) * p.scale;
    }
    storageBarrier();

    for (var i = lane; i < p.head_dim; i += WG) {
        var mix = 0.0;
        for (var n = 0u; n < p.tokens; n++) { mix += ds[row + n] * f32(k[head_start(index, n, p.tokens) + i]); }
        dq[start + i] = stored(mix);
    }
}

@group(0) @binding(1) var<storage, read> saved_ds: array<f32>;
@group(0) @binding(5) var<storage, read_write> dk: array<stored>;
@group(0) @binding(6) var<storage, read_write> dv: array<stored>;

@compute @workgroup_size(WG)
fn backward_key(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let dim = p.heads * p.head_dim;
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.batch * p.tokens * dim); i += WG) {
        let column = i % dim;
        let n = i / dim % p.tokens;
        let b = i / dim / p.tokens;
        let at = (b * p.heads + column / p.head_dim) * p.tokens + n;
        dk[i] = stored(saved_ds[at] * f32(q[b * dim + column]));
        dv[i] = stored(saved_prob[at] * f32(dout[b * dim + column]));
    }
}

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read> pos: array<f32>;
@group(0) @binding(2) var<storage, read_write> tokens: array<stored>;

@compute @workgroup_size(WG)
fn assemble(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let dim = p.heads * p.head_dim;
    let i = fold_index(group, groups) * WG + lane;
    if i >= p.batch * dim { return; }
    let column = i % dim;
    let pixel = i / dim * (p.tokens - 1u) * dim + column;
    let token = i / dim * p.tokens * dim + column;
    var sum = 0.0;
    for (var n = 1u; n < p.tokens; n++) {
        let x = f32(inp[pixel + (n - 1u) * dim]);
        sum += x;
        tokens[token + n * dim] = stored(x + pos[n * dim + column]);
    }
    tokens[token] = stored(sum / f32(p.tokens - 1u) + pos[column]);
}

@group(0) @binding(0) var<storage, read> dtokens: array<stored>;
@group(0) @binding(1) var<storage, read_write> dinp: array<stored>;

@compute @workgroup_size(WG)
fn backward_assemble(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let dim = p.heads * p.head_dim;
    let pixels = p.tokens - 1u;
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.batch * pixels * dim); i += WG) {
        let b = i / dim / pixels;
        let mean = f32(dtokens[b * p.tokens * dim + i % dim]);
        // Each image before this one has a token more than pixels, and so has this one.
        dinp[i] = stored(f32(dtokens[i + (b + 1u) * dim]) + mean / f32(pixels));
    }
}
