// Multi-head self-attention for CPU adapters (Mesa's lavapipe): what attention.wgsl computes, with its equations, tensors
// and names, by another way to load. GPUs, and heads whose width is no multiple of 4, take attention.wgsl.
//
//   entry            grid               writes
//   forward          [⌈N/16⌉, B·H, 1]    out = , lse =           a lane two queries
//   backward_query   [⌈N/16⌉, B·H, 1]    dqkv's q part = , delta =   a lane two queries
//   backward_key     [⌈N/16⌉, B·H, 1]    dqkv's k and v parts =      a lane two keys; runs after backward_query
//
// The host appends `const HD4 = …u;` (a quarter of the head's width), and how four values lie in storage, f32 or f16
// (`loaded4`, `stored4`; src/ops/words.rs). And it appends `scored` and `scored_keys`, which add the learned bias of each offset to
// scores (lib/relative.wgsl), hide keys (lib/mask.wgsl), or do nothing.
// Needs subgroups of at least 8 invocations.
//
// On these drivers any load inside a loop costs a scalar loop over the lanes, even one whose address they share. So each
// lane loads the row of one of the next eight keys (or queries), and broadcasts hand the rows round: an eighth of the
// loads. A lane's two queries (or keys, x and y) share loads and broadcasts: with one, forward took 1.4 times as long, backward 1.3.
// Against attention.wgsl on lavapipe, 64 images of 65 tokens, 4 heads of 32: forward 10 times, backward 7 times faster.

struct Params { tokens: u32, heads: u32, scale: f32, quads: u32, batch: u32, grid: u32, added: u32 } // from quads on for others
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

// What a lane has of one query between two blocks of keys.
struct Softmax { peak: f32, total: f32 }

// The scores of eight keys become their weights, exp(s − peak) with the highest score so far, and the sums up to here
// shrink by exp(old peak − peak), which is returned.
fn weigh(state: ptr<function, Softmax>, scores: ptr<function, Eight>) -> f32 {
    let s = *scores;
    let highest = max(s.low, s.high);
    let peak = max((*state).peak, max(max(highest.x, highest.y), max(highest.z, highest.w)));
    let shrink = exp((*state).peak - peak);
    *scores = Eight(exp(s.low - peak), exp(s.high - peak));
    *state = Softmax(peak, (*state).total * shrink + sum_up(*scores));
    return shrink;
}

@compute @workgroup_size(8)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let b = group.y / p.heads;
    let h = group.y % p.heads;
    // Lanes past the end work on the last query and write nothing: every lane must take part in the broadcasts.
    let query = group.x * 16u + lane + vec2u(0u, 8u);
    let row = min(query, vec2u(p.tokens - 1u));

    var qx: Head;
    var qy: Head;
    var sum_x: Head;
    var sum_y: Head;
    let x_start = head_start(b, row.x, h, 3u, 0u);
    let y_start = head_start(b, row.y, h, 3u, 0u);
    for (var i = 0u; i < HD4; i++) {
        qx[i] = from_loaded(qkv[x_start + i]) * p.scale;
        qy[i] = from_loaded(qkv[y_start + i]) * p.scale;
        sum_x[i] = vec4f(0.0);
        sum_y[i] = vec4f(0.0);
    }
    var state_x = Softmax(-3.0e38, 0.0);
    var state_y = Softmax(-3.0e38, 0.0);
    for (var j = 0u; j < p.tokens; j += 8u) {
        let own = min(j + lane, p.tokens - 1u);
        let k_start = head_start(b, own, h, 3u, 1u);
        let v_start = head_start(b, own, h, 3u, 2u);
        var x = Eight(vec4f(0.0), vec4f(0.0));
        var y = Eight(vec4f(0.0), vec4f(0.0));
        for (var i = 0u; i < HD4; i++) {
            let k = from_loaded(qkv[k_start + i]);
            let x_part = dots(qx[i], k);
            x.low += x_part.low;
            x.high += x_part.high;
            let y_part = dots(qy[i], k);
            y.low += y_part.low;
            y.high += y_part.high;
        }
        x = inside(scored(x, row.x, j, b, h), j, -3.0e38);
        y = inside(scored(y, row.y, j, b, h), j, -3.0e38);
        let x_shrink = weigh(&state_x, &x);
        let y_shrink = weigh(&state_y, &y);
        for (var i = 0u; i < HD4; i++) {
            let v = from_loaded(qkv[v_start + i]);
            sum_x[i] = sum_x[i] * x_shrink + weighted(x, v);
            sum_y[i] = sum_y[i] * y_shrink + weighted(y, v);
        }
    }
    write_query(sum_x, state_x, b, h, query.x);
    write_query(sum_y, state_y, b, h, query.y);
}

fn write_query(sum: Head, state: Softmax, b: u32, h: u32, query: u32) {
    if query >= p.tokens { return; }
    let start = head_start(b, query, h, 1u, 0u);
    for (var i = 0u; i < HD4; i++) { out[start + i] = to_stored(sum[i] / state.total); }
    lse[(b * p.heads + h) * p.tokens + query] = state.peak + log(state.total);
}

@group(0) @binding(1) var<storage, read> attended: array<loaded4>; // what forward wrote to `out`
@group(0) @binding(2) var<storage, read> saved_lse: array<f32>;
@group(0) @binding(3) var<storage, read> dout: array<loaded4>;
@group(0) @binding(4) var<storage, read_write> dqkv: array<stored4>;
@group(0) @binding(5) var<storage, read_write> delta: array<f32>;

// dS of a query with eight keys, and of a key with eight queries: their own lse and delta either way.
fn score_gradients(s: Eight, dp: Eight, l: Eight, dot_out: Eight) -> Eight {
    return Eight(exp(s.low - l.low) * (dp.low - dot_out.low) * p.scale, exp(s.high - l.high) * (dp.high - dot_out.high) * p.scale);
}

fn all_eight(x: f32) -> Eight { return Eight(vec4f(x), vec4f(x)); }

fn add(sum: ptr<function, Eight>, x: Eight) {
    (*sum).low += x.low;
    (*sum).high += x.high;
}

@compute @workgroup_size(8)
fn backward_query(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let b = group.y / p.heads;
    let h = group.y % p.heads;
    let query = group.x * 16u + lane + vec2u(0u, 8u);
    let row = min(query, vec2u(p.tokens - 1u));

    var qx: Head;
    var qy: Head;
    var gx: Head;
    var gy: Head;
    var dq_x: Head;
    var dq_y: Head;
    let qx_start = head_start(b, row.x, h, 3u, 0u);
    let qy_start = head_start(b, row.y, h, 3u, 0u);
    let gx_start = head_start(b, row.x, h, 1u, 0u);
    let gy_start = head_start(b, row.y, h, 1u, 0u);
    var dot_out = vec2f(0.0);
    for (var i = 0u; i < HD4; i++) {
        qx[i] = from_loaded(qkv[qx_start + i]) * p.scale;
        qy[i] = from_loaded(qkv[qy_start + i]) * p.scale;
        gx[i] = from_loaded(dout[gx_start + i]);
        gy[i] = from_loaded(dout[gy_start + i]);
        dq_x[i] = vec4f(0.0);
        dq_y[i] = vec4f(0.0);
        dot_out += vec2f(dot(gx[i], from_loaded(attended[gx_start + i])), dot(gy[i], from_loaded(attended[gy_start + i])));
    }
    let stats = (b * p.heads + h) * p.tokens;
    let lx = all_eight(saved_lse[stats + row.x]);
    let ly = all_eight(saved_lse[stats + row.y]);

    for (var j = 0u; j < p.tokens; j += 8u) {
        let own = min(j + lane, p.tokens - 1u);
        let k_start = head_start(b, own, h, 3u, 1u);
        let v_start = head_start(b, own, h, 3u, 2u);
        var k: Head;
        var sx = all_eight(0.0);
        var sy = all_eight(0.0);
        var dp_x = all_eight(0.0);
        var dp_y = all_eight(0.0);
        for (var i = 0u; i < HD4; i++) {
            k[i] = from_loaded(qkv[k_start + i]);
            let v = from_loaded(qkv[v_start + i]);
            add(&sx, dots(qx[i], k[i]));
            add(&sy, dots(qy[i], k[i]));
            add(&dp_x, dots(gx[i], v));
            add(&dp_y, dots(gy[i], v));
        }
        let ds_x = score_gradients(inside(scored(sx, row.x, j, b, h), j, -3.0e38), dp_x, lx, all_eight(dot_out.x));
        let ds_y = score_gradients(inside(scored(sy, row.y, j, b, h), j, -3.0e38), dp_y, ly, all_eight(dot_out.y));
        for (var i = 0u; i < HD4; i++) {
            dq_x[i] += weighted(ds_x, k[i]);
            dq_y[i] += weighted(ds_y, k[i]);
        }
    }
    if query.x < p.tokens {
        for (var i = 0u; i < HD4; i++) { dqkv[qx_start + i] = to_stored(dq_x[i]); }
        delta[stats + query.x] = dot_out.x;
    }
    if query.y < p.tokens {
        for (var i = 0u; i < HD4; i++) { dqkv[qy_start + i] = to_stored(dq_y[i]); }
        delta[stats + query.y] = dot_out.y;
    }
}

@group(0) @binding(5) var<storage, read> saved_delta: array<f32>;

@compute @workgroup_size(8)
fn backward_key(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let b = group.y / p.heads;
    let h = group.y % p.heads;
    let key = group.x * 16u + lane + vec2u(0u, 8u);
    let row = min(key, vec2u(p.tokens - 1u));

    var kx: Head;
    var ky: Head;
    var vx: Head;
    var vy: Head;
    var dk_x: Head;
    var dk_y: Head;
    var dv_x: Head;
    var dv_y: Head;
    let kx_start = head_start(b, row.x, h, 3u, 1u);
    let ky_start = head_start(b, row.y, h, 3u, 1u);
    let vx_start = head_start(b, row.x, h, 3u, 2u);
    let vy_start = head_start(b, row.y, h, 3u, 2u);
    for (var i = 0u; i < HD4; i++) {
        kx[i] = from_loaded(qkv[kx_start + i]) * p.scale;
        ky[i] = from_loaded(qkv[ky_start + i]) * p.scale;
        vx[i] = from_loaded(qkv[vx_start + i]);
        vy[i] = from_loaded(qkv[vy_start + i]);
        dk_x[i] = vec4f(0.0);
        dk_y[i] = vec4f(0.0);
        dv_x[i] = vec4f(0.0);
        dv_y[i] = vec4f(0.0);
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
        var sx = all_eight(0.0);
        var sy = all_eight(0.0);
        var dp_x = all_eight(0.0);
        var dp_y = all_eight(0.0);
        for (var i = 0u; i < HD4; i++) {
            q[i] = from_loaded(qkv[q_start + i]);
            g[i] = from_loaded(dout[g_start + i]);
            add(&sx, dots(kx[i], q[i]));
            add(&sy, dots(ky[i], q[i]));
            add(&dp_x, dots(vx[i], g[i]));
            add(&dp_y, dots(vy[i], g[i]));
        }
        sx = inside(scored_keys(sx, row.x, j, b, h), j, -3.0e38);
        sy = inside(scored_keys(sy, row.y, j, b, h), j, -3.0e38);
        let prob_x = Eight(exp(sx.low - l.low), exp(sx.high - l.high));
        let prob_y = Eight(exp(sy.low - l.low), exp(sy.high - l.high));
        let ds_x = score_gradients(sx, dp_x, l, dot_out);
        let ds_y = score_gradients(sy, dp_y, l, dot_out);
        for (var i = 0u; i < HD4; i++) {
            dv_x[i] += weighted(prob_x, g[i]);
            dv_y[i] += weighted(prob_y, g[i]);
            dk_x[i] += weighted(ds_x, q[i]);
            dk_y[i] += weighted(ds_y, q[i]);
        }
    }
    if key.x < p.tokens {
        for (var i = 0u; i < HD4; i++) {
            dqkv[kx_start + i] = to_stored(dk_x[i]);
            dqkv[vx_start + i] = to_stored(dv_x[i]);
        }
    }
    if key.y < p.tokens {
        for (var i = 0u; i < HD4; i++) {
            dqkv[ky_start + i] = to_stored(dk_y[i]);
            dqkv[vy_start + i] = to_stored(dv_y[i]);
        }
    }
}
