// Multi-head self-attention (Vaswani et al. 2017, eq. 1), fused forward and backward: the N × N probabilities are never
// stored, the backward computes them again from `lse` (Dao et al. 2022, algorithms 1 and 4).
//
//   s_ij = q_i · k_j / √HD,   lse_i = ln Σ_j exp(s_ij),   P_ij = exp(s_ij − lse_i),   out_i = Σ_j P_ij v_j
//   delta_i = dout_i · out_i,   dS_ij = P_ij (dout_i · v_j − delta_i)
//   dq_i = Σ_j dS_ij k_j / √HD,   dk_j = Σ_i dS_ij q_i / √HD,   dv_j = Σ_i P_ij dout_i
//
//   qkv, dqkv [B, N, 3·H·HD]: q of all heads, then k, then v, as timm lays them out
//   out, dout [B, N, H·HD]       lse, delta [B, H, N], saved for backward
//
//   entry            grid                writes
//   forward          [⌈N/WG⌉, B·H, 1]    out = , lse =           a lane a query
//   backward_query   [⌈N/WG⌉, B·H, 1]    dqkv's q part = , delta =   a lane a query
//   backward_key     [⌈N/WG⌉, B·H, 1]    dqkv's k and v parts =      a lane a key; runs after backward_query
//
// The host appends `const HD = …u;` (the head's width), `const HD4 = …u;` (⌈HD/4⌉) and `alias stored = f32;` or f16: what qkv,
// out and their gradients hold; sums, lse and delta are f32. A lane keeps its own query (or key)
// in registers and walks over all the others, whose addresses are the same for every lane of the workgroup: one load
// serves them all, on a GPU from the cache and on a CPU adapter as a broadcast. Neither barriers nor workgroup memory.

struct Params { tokens: u32, heads: u32, scale: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;

alias Head = array<vec4f, HD4>;

@group(0) @binding(0) var<storage, read> qkv: array<stored>;
@group(0) @binding(1) var<storage, read_write> out: array<stored>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;

// First element of token `t` of image `b` in a tensor of `parts` · H·HD columns, at head `h` of part `part`.
fn head_start(b: u32, t: u32, h: u32, parts: u32, part: u32) -> u32 {
    return ((b * p.tokens + t) * parts + part) * p.heads * HD + h * HD;
}

// Elements 4·i to 4·i+3 of the head at `start`; zero past the head's end. The condition is known when compiling.
fn load_qkv(start: u32, i: u32) -> vec4f {
    let at = start + 4u * i;
    if HD % 4u == 0u || 4u * i + 4u <= HD { return vec4f(vec4<stored>(qkv[at], qkv[at + 1u], qkv[at + 2u], qkv[at + 3u])); }
    var v = vec4f(f32(qkv[at]), 0.0, 0.0, 0.0);
    if 4u * i + 1u < HD { v.y = f32(qkv[at + 1u]); }
    if 4u * i + 2u < HD { v.z = f32(qkv[at + 2u]); }
    return v;
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let b = group.y / p.heads;
    let h = group.y % p.heads;
    let query = group.x * WG + lane;
    // Lanes past the end work on the last query and write nothing, so that no control flow diverges before the loop.
    let row = min(query, p.tokens - 1u);

    var q: Head;
    var sum: Head;
    let q_start = head_start(b, row, h, 3u, 0u);
    for (var i = 0u; i < HD4; i++) {
        q[i] = load_qkv(q_start, i) * p.scale;
        sum[i] = vec4f(0.0);
    }
    var peak = -3.0e38;
    var total = 0.0;
    // Four keys at a time: the running maximum moves once for them, which spares three of four rescalings.
    for (var j = 0u; j < p.tokens; j += 4u) {
        var start: vec4u;
        var s = vec4f(0.0);
        for (var u = 0u; u < 4u; u++) { start[u] = head_start(b, min(j + u, p.tokens - 1u), h, 3u, 1u); }
        for (var i = 0u; i < HD4; i++) {
            s.x += dot(q[i], load_qkv(start.x, i));
            s.y += dot(q[i], load_qkv(start.y, i));
            s.z += dot(q[i], load_qkv(start.z, i));
            s.w += dot(q[i], load_qkv(start.w, i));
        }
        s = select(vec4f(-3.0e38), s, vec4u(j) + vec4u(0u, 1u, 2u, 3u) < vec4u(p.tokens));
        let higher = max(peak, max(max(s.x, s.y), max(s.z, s.w)));
        let shrink = exp(peak - higher);
        let e = exp(s - higher);
        total = total * shrink + e.x + e.y + e.z + e.w;
        peak = higher;
        let v_start = start + p.heads * HD;
        for (var i = 0u; i < HD4; i++) {
            sum[i] = sum[i] * shrink + e.x * load_qkv(v_start.x, i) + e.y * load_qkv(v_start.y, i)
                + e.z * load_qkv(v_start.z, i) + e.w * load_qkv(v_start.w, i);
        }
    }

    if query >= p.tokens { return; }
    let out_start = head_start(b, query, h, 1u, 0u);
    for (var i = 0u; i < HD4; i++) {
        for (var c = 0u; c < 4u; c++) {
            if 4u * i + c < HD { out[out_start + 4u * i + c] = stored(sum[i][c] / total); }
        }
    }
    lse[(b * p.heads + h) * p.tokens + query] = peak + log(total);
}

@group(0) @binding(1) var<storage, read> attended: array<stored>; // what forward wrote to `out`
@group(0) @binding(2) var<storage, read> saved_lse: array<f32>;
@group(0) @binding(3) var<storage, read> dout: array<stored>;
@group(0) @binding(4) var<storage, read_write> dqkv: array<stored>;
@group(0) @binding(5) var<storage, read_write> delta: array<f32>;

fn load_dout(start: u32, i: u32) -> vec4f {
    let at = start + 4u * i;
    if HD % 4u == 0u || 4u * i + 4u <= HD { return vec4f(vec4<stored>(dout[at], dout[at + 1u], dout[at + 2u], dout[at + 3u])); }
    var v = vec4f(f32(dout[at]), 0.0, 0.0, 0.0);
    if 4u * i + 1u < HD { v.y = f32(dout[at + 1u]); }
    if 4u * i + 2u < HD { v.z = f32(dout[at + 2u]); }
    return v;
}

@compute @workgroup_size(WG)
fn backward_query(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let b = group.y / p.heads;
    let h = group.y % p.heads;
    let query = group.x * WG + lane;
    let row = min(query, p.tokens - 1u);

    var q: Head;
    var g: Head;
    var dq: Head;
    let q_start = head_start(b, row, h, 3u, 0u);
    let g_start = head_start(b, row, h, 1u, 0u);
    for (var i = 0u; i < HD4; i++) {
        q[i] = load_qkv(q_start, i) * p.scale;
        g[i] = load_dout(g_start, i);
        dq[i] = vec4f(0.0);
    }
    var dot_out = 0.0;
    for (var c = 0u; c < HD; c++) { dot_out += f32(dout[g_start + c]) * f32(attended[g_start + c]); }
    let l = saved_lse[(b * p.heads + h) * p.tokens + row];

    for (var j = 0u; j < p.tokens; j++) {
        let k_start = head_start(b, j, h, 3u, 1u);
        let v_start = k_start + p.heads * HD;
        var s = vec4f(0.0);
        var dp = vec4f(0.0);
        for (var i = 0u; i < HD4; i++) {
            s += q[i] * load_qkv(k_start, i);
            dp += g[i] * load_qkv(v_start, i);
        }
        let prob = exp(s.x + s.y + s.z + s.w - l);
        let ds = prob * (dp.x + dp.y + dp.z + dp.w - dot_out) * p.scale;
        for (var i = 0u; i < HD4; i++) { dq[i] += ds * load_qkv(k_start, i); }
    }

    if query >= p.tokens { return; }
    for (var i = 0u; i < HD4; i++) {
        for (var c = 0u; c < 4u; c++) {
            if 4u * i + c < HD { dqkv[q_start + 4u * i + c] = stored(dq[i][c]); }
        }
    }
    delta[(b * p.heads + h) * p.tokens + query] = dot_out;
}

@group(0) @binding(5) var<storage, read> saved_delta: array<f32>;

@compute @workgroup_size(WG)
fn backward_key(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let b = group.y / p.heads;
    let h = group.y % p.heads;
    let key = group.x * WG + lane;
    let row = min(key, p.tokens - 1u);

    var k: Head;
    var v: Head;
    var dk: Head;
    var dv: Head;
    let k_start = head_start(b, row, h, 3u, 1u);
    let v_start = k_start + p.heads * HD;
    for (var i = 0u; i < HD4; i++) {
        k[i] = load_qkv(k_start, i) * p.scale;
        v[i] = load_qkv(v_start, i);
        dk[i] = vec4f(0.0);
        dv[i] = vec4f(0.0);
    }
    let stats = (b * p.heads + h) * p.tokens;
    for (var j = 0u; j < p.tokens; j++) {
        let q_start = head_start(b, j, h, 3u, 0u);
        let g_start = head_start(b, j, h, 1u, 0u);
        var s = vec4f(0.0);
        var dp = vec4f(0.0);
        for (var i = 0u; i < HD4; i++) {
            s += k[i] * load_qkv(q_start, i);
            dp += v[i] * load_dout(g_start, i);
        }
        let prob = exp(s.x + s.y + s.z + s.w - saved_lse[stats + j]);
        let ds = prob * (dp.x + dp.y + dp.z + dp.w - saved_delta[stats + j]) * p.scale;
        for (var i = 0u; i < HD4; i++) {
            dv[i] += prob * load_dout(g_start, i);
            dk[i] += ds * load_qkv(q_start, i);
        }
    }

    if key >= p.tokens { return; }
    for (var i = 0u; i < HD4; i++) {
        for (var c = 0u; c < 4u; c++) {
            if 4u * i + c < HD {
                dqkv[k_start + 4u * i + c] = stored(dk[i][c]);
                dqkv[v_start + 4u * i + c] = stored(dv[i][c]);
            }
        }
    }
}
