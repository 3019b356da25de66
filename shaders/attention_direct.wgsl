// Multi-head self-attention for CPU adapters (Mesa's lavapipe): what attention.wgsl computes, with its equations, tensors
// and names, by another way to load. GPUs, and heads whose width is no multiple of 4, take attention.wgsl.
//
//   entry            grid               writes
//   forward          [⌈N/8⌉, B·H, 1]    out = , lse =           a lane a query
//   backward_query   [⌈N/8⌉, B·H, 1]    dqkv's q part = , delta =   a lane a query
//   backward_key     [⌈N/8⌉, B·H, 1]    dqkv's k and v parts =      a lane a key; runs after backward_query
//
// The host appends `const HD4 = …u;` (a quarter of the head's width), and how four values lie in storage, f32 or f16
// (`loaded4`, `stored4`; src/ops/words.rs).
// Needs subgroups of at least 8 invocations.
//
// On these drivers any load inside a loop costs a scalar loop over the lanes, even one whose address they share. So each
// lane loads the row of one of the next eight keys (or queries), and broadcasts hand the rows round: an eighth of the
// loads. Against attention.wgsl on lavapipe, 64 images of 65 tokens, 4 heads of 32: forward 10 times, backward 7 times faster.

struct Params { tokens: u32, heads: u32, scale: f32 }
var<immediate> p: Params;

alias Head = array<vec4f, HD4>;
// A value for each of eight keys or queries.
struct Eight { low: vec4f, high: vec4f }

@group(0) @binding(0) var<storage, read> qkv: array<loaded4>;
@group(0) @binding(1) var<storage, read_write> out: array<stored4>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;

// First vector of token `t` of image `b` in a tensor of `parts` · H·HD columns, at head `h` of part `part`.
fn head_start(b: u32, t: u32, h: u32, parts: u32, part: u32) -> u32 {
    return (((b * p.tokens + t) * parts + part) * p.heads + h) * HD4;
}

// The products of `x` with the eight lanes' `y`. The lane of a broadcast must be a constant expression.
fn dots(x: vec4f, y: vec4f) -> Eight {
    return Eight(
        vec4f(dot(x, subgroupBroadcast(y, 0u)), dot(x, subgroupBroadcast(y, 1u)),
            dot(x, subgroupBroadcast(y, 2u)), dot(x, subgroupBroadcast(y, 3u))),
        vec4f(dot(x, subgroupBroadcast(y, 4u)), dot(x, subgroupBroadcast(y, 5u)),
            dot(x, subgroupBroadcast(y, 6u)), dot(x, subgroupBroadcast(y, 7u))),
    );
}

// Σ over the eight lanes of their `y`, weighted.
fn weighted(weight: Eight, y: vec4f) -> vec4f {
    return weight.low.x * subgroupBroadcast(y, 0u) + weight.low.y * subgroupBroadcast(y, 1u)
        + weight.low.z * subgroupBroadcast(y, 2u) + weight.low.w * subgroupBroadcast(y, 3u)
        + weight.high.x * subgroupBroadcast(y, 4u) + weight.high.y * subgroupBroadcast(y, 5u)
        + weight.high.z * subgroupBroadcast(y, 6u) + weight.high.w * subgroupBroadcast(y, 7u);
}

// The eight lanes' scalars.
fn gathered(y: f32) -> Eight {
    return Eight(
        vec4f(subgroupBroadcast(y, 0u), subgroupBroadcast(y, 1u), subgroupBroadcast(y, 2u), subgroupBroadcast(y, 3u)),
        vec4f(subgroupBroadcast(y, 4u), subgroupBroadcast(y, 5u), subgroupBroadcast(y, 6u), subgroupBroadcast(y, 7u)),
    );
}

fn sum_up(x: Eight) -> f32 { return dot(x.low + x.high, vec4f(1.0)); }

// Eight values, `other` in the place of those past the sequence's end.
fn inside(x: Eight, first: u32, other: f32) -> Eight {
    let low = vec4u(first) + vec4u(0u, 1u, 2u, 3u) < vec4u(p.tokens);
    let high = vec4u(first) + vec4u(4u, 5u, 6u, 7u) < vec4u(p.tokens);
    return Eight(select(vec4f(other), x.low, low), select(vec4f(other), x.high, high));
}

@compute @workgroup_size(8)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let b = group.y / p.heads;
    let h = group.y % p.heads;
    let query = group.x * 8u + lane;
    // Lanes past the end work on the last query and write nothing: every lane must take part in the broadcasts.
    let row = min(query, p.tokens - 1u);

    var q: Head;
    var sum: Head;
    let q_start = head_start(b, row, h, 3u, 0u);
    for (var i = 0u; i < HD4; i++) {
        q[i] = from_loaded(qkv[q_start + i]) * p.scale;
        sum[i] = vec4f(0.0);
    }
    var peak = -3.0e38;
    var total = 0.0;
    for (var j = 0u; j < p.tokens; j += 8u) {
        let own = min(j + lane, p.tokens - 1u);
        let k_start = head_start(b, own, h, 3u, 1u);
        let v_start = head_start(b, own, h, 3u, 2u);
        var s = Eight(vec4f(0.0), vec4f(0.0));
        for (var i = 0u; i < HD4; i++) {
            let part = dots(q[i], from_loaded(qkv[k_start + i]));
            s.low += part.low;
            s.high += part.high;
        }
        s = inside(s, j, -3.0e38);
        let highest = max(s.low, s.high);
        let higher = max(peak, max(max(highest.x, highest.y), max(highest.z, highest.w)));
        let shrink = exp(peak - higher);
        let e = Eight(exp(s.low - higher), exp(s.high - higher));
        total = total * shrink + sum_up(e);
        peak = higher;
        for (var i = 0u; i < HD4; i++) { sum[i] = sum[i] * shrink + weighted(e, from_loaded(qkv[v_start + i])); }
    }

    if query >= p.tokens { return; }
    let out_start = head_start(b, query, h, 1u, 0u);
    for (var i = 0u; i < HD4; i++) { out[out_start + i] = to_stored(sum[i] / total); }
    lse[(b * p.heads + h) * p.tokens + query] = peak + log(total);
}

@group(0) @binding(1) var<storage, read> attended: array<loaded4>; // what forward wrote to `out`
@group(0) @binding(2) var<storage, read> saved_lse: array<f32>;
@group(0) @binding(3) var<storage, read> dout: array<loaded4>;
@group(0) @binding(4) var<storage, read_write> dqkv: array<stored4>;
@group(0) @binding(5) var<storage, read_write> delta: array<f32>;

@compute @workgroup_size(8)
fn backward_query(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let b = group.y / p.heads;
    let h = group.y % p.heads;
    let query = group.x * 8u + lane;
    let row = min(query, p.tokens - 1u);

    var q: Head;
    var g: Head;
    var dq: Head;
    let q_start = head_start(b, row, h, 3u, 0u);
    let g_start = head_start(b, row, h, 1u, 0u);
    var dot_out = 0.0;
    for (var i = 0u; i < HD4; i++) {
        q[i] = from_loaded(qkv[q_start + i]) * p.scale;
        g[i] = from_loaded(dout[g_start + i]);
        dq[i] = vec4f(0.0);
        dot_out += dot(g[i], from_loaded(attended[g_start + i]));
    }
    let l = saved_lse[(b * p.heads + h) * p.tokens + row];

    for (var j = 0u; j < p.tokens; j += 8u) {
        let own = min(j + lane, p.tokens - 1u);
        let k_start = head_start(b, own, h, 3u, 1u);
        let v_start = head_start(b, own, h, 3u, 2u);
        var k: Head;
        var s = Eight(vec4f(0.0), vec4f(0.0));
        var dp = Eight(vec4f(0.0), vec4f(0.0));
        for (var i = 0u; i < HD4; i++) {
            k[i] = from_loaded(qkv[k_start + i]);
            let score = dots(q[i], k[i]);
            s.low += score.low;
            s.high += score.high;
            let part = dots(g[i], from_loaded(qkv[v_start + i]));
            dp.low += part.low;
            dp.high += part.high;
        }
        s = inside(s, j, -3.0e38);
        let ds = Eight(exp(s.low - l) * (dp.low - dot_out) * p.scale, exp(s.high - l) * (dp.high - dot_out) * p.scale);
        for (var i = 0u; i < HD4; i++) { dq[i] += weighted(ds, k[i]); }
    }

    if query >= p.tokens { return; }
    for (var i = 0u; i < HD4; i++) { dqkv[q_start + i] = to_stored(dq[i]); }
    delta[(b * p.heads + h) * p.tokens + query] = dot_out;
}

@group(0) @binding(5) var<storage, read> saved_delta: array<f32>;

@compute @workgroup_size(8)
fn backward_key(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let b = group.y / p.heads;
    let h = group.y % p.heads;
    let key = group.x * 8u + lane;
    let row = min(key, p.tokens - 1u);

    var k: Head;
    var v: Head;
    var dk: Head;
    var dv: Head;
    let k_start = head_start(b, row, h, 3u, 1u);
    let v_start = head_start(b, row, h, 3u, 2u);
    for (var i = 0u; i < HD4; i++) {
        k[i] = from_loaded(qkv[k_start + i]) * p.scale;
        v[i] = from_loaded(qkv[v_start + i]);
        dk[i] = vec4f(0.0);
        dv[i] = vec4f(0.0);
    }
    let stats = (b * p.heads + h) * p.tokens;
    for (var j = 0u; j < p.tokens; j += 8u) {
        let own = min(j + lane, p.tokens - 1u);
        let q_start = head_start(b, own, h, 3u, 0u);
        let g_start = head_start(b, own, h, 1u, 0u);
        let l = gathered(saved_lse[stats + own]);
        let dot_out = gathered(saved_delta[stats + own]);
        var q: Head;
        var g: Head;
        var s = Eight(vec4f(0.0), vec4f(0.0));
        var dp = Eight(vec4f(0.0), vec4f(0.0));
        for (var i = 0u; i < HD4; i++) {
            q[i] = from_loaded(qkv[q_start + i]);
            g[i] = from_loaded(dout[g_start + i]);
            let score = dots(k[i], q[i]);
            s.low += score.low;
            s.high += score.high;
            let part = dots(v[i], g[i]);
            dp.low += part.low;
            dp.high += part.high;
        }
        s = inside(s, j, -3.0e38);
        let prob = Eight(exp(s.low - l.low), exp(s.high - l.high));
        let ds = Eight(
            prob.low * (dp.low - dot_out.low) * p.scale,
            prob.high * (dp.high - dot_out.high) * p.scale,
        );
        for (var i = 0u; i < HD4; i++) {
            dv[i] += weighted(prob, g[i]);
            dk[i] += weighted(ds, q[i]);
        }
    }

    if key >= p.tokens { return; }
    for (var i = 0u; i < HD4; i++) {
        dqkv[k_start + i] = to_stored(dk[i]);
        dqkv[v_start + i] = to_stored(dv[i]);
    }
}
