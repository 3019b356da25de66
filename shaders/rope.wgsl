// What stands between the product of query, key and value and their attention: biases of query and value alone, and rotary
// positions (Su et al. 2021, eq. 34), which turn each pair of a head's elements by an angle of the token's position.
//
//   x = inp + bias              query_bias in q's part, value_bias in v's, nothing in k's; inp without BIASED
//   out_i = c_i · x_i + sign · s_i · x_j      in q and k of the tokens from `prefix` on; j is the other of i's pair
//   out_i = x_i                               elsewhere, and everywhere without ROTATE
//     pairs: (2n, 2n+1), or (n, n + HD/2) with HALVES
//     table: c_i = cos θ, s_i = −sin θ for the first of a pair and sin θ for the second
//   The reverse is the rotation by −θ: the same with sign −1, of the gradient, without BIASED.
//
//   Learned angles (Heo et al. 2024, "mixed"), pairs (2n, 2n+1):   θ = x_t · freqs[0, block] + y_t · freqs[1, block]
//   dθ = Σ_{b, q and k} dout_{2n+1} · out_{2n} − dout_{2n} · out_{2n+1}
//   dfreqs[0, block] = Σ_t x_t · dθ,   dfreqs[1, block] = Σ_t y_t · dθ
//
//   inp, out, dout [B, N, 3·H·HD], as attention.wgsl has qkv      query_bias, value_bias [H·HD]
//   table [H or 1, N − prefix, 2, HD]: c, then s                  freqs, dfreqs [2, blocks, H, HD/2]
//   dangles [N − prefix, H, HD/2]                                 dquery, dvalue [chunks, H·HD], partial sums
//
//   entry             grid                                      writes
//   forward           fold(⌈B·N·3·H·HD/(WG·PER_LANE)⌉)          out =
//   backward_bias     [⌈2·H·HD/WG⌉, chunks, 1]                  dquery = , dvalue =   sums of `chunk` rows; column_sum adds them up
//   angles            fold(⌈H·(N − prefix)·HD/2/WG⌉)            table =
//   backward_angles   fold(⌈(N − prefix)·H·HD/2/WG⌉)            dangles =
//   backward_freqs    fold(⌈H·HD/WG⌉)                           dfreqs +=             of one block
//
// The host appends `alias elem = vec4f;`, or f32 where a quad of a head would hold elements of more pairs than its own;
// `stored`, what inp and out hold; WIDTH, the elements of an elem, and `neighbour`, the others of its pairs if they are side
// by side. `head_dim` counts elems in forward and backward_bias, single elements elsewhere.

struct Params {
    rows: u32, tokens: u32, prefix: u32, heads: u32, head_dim: u32, len: u32, chunk: u32,
    table_heads: u32, // 1 if each head has angles of its own
    sign: f32,
    block: u32, blocks: u32, grid: u32, transposed: u32,
}
var<immediate> p: Params;

override ROTATE: bool = true;
override BIASED: bool = false;
override HALVES: bool = false;
override WG: u32 = 64u;
override PER_LANE: u32 = 16u;

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read> table: array<elem>;
@group(0) @binding(2) var<storage, read> query_bias: array<elem>;
@group(0) @binding(3) var<storage, read> value_bias: array<elem>;
@group(0) @binding(4) var<storage, read_write> out: array<stored>;

// Element `at`, in this column of its row.
fn biased(at: u32, column: u32) -> elem {
    let dim = p.heads * p.head_dim;
    let x = elem(inp[at]);
    if BIASED && column < dim { return x + query_bias[column]; }
    if BIASED && column >= 2u * dim { return x + value_bias[column - 2u * dim]; }
    return x;
}

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let dim = p.heads * p.head_dim;
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) {
        let column = i % (3u * dim);
        let token = i / (3u * dim) % p.tokens;
        var x = biased(i, column);
        if ROTATE && column < 2u * dim && token >= p.prefix {
            let d = column % p.head_dim;
            let head = column / p.head_dim % p.heads;
            let at = (head * p.table_heads * (p.tokens - p.prefix) + token - p.prefix) * 2u * p.head_dim + d;
            var other: elem;
            if HALVES {
                let half = p.head_dim / 2u;
                let j = select(column + half, column - half, d >= half);
                other = biased(i - column + j, j);
            } else {
                other = neighbour(i, column, x);
            }
            x = x * table[at] + p.sign * other * table[at + p.head_dim];
        }
        out[i] = stored(x);
    }
}

@group(0) @binding(0) var<storage, read> dinp: array<stored>;
@group(0) @binding(1) var<storage, read_write> dquery: array<elem>;
@group(0) @binding(2) var<storage, read_write> dvalue: array<elem>;

@compute @workgroup_size(WG)
fn backward_bias(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
    let dim = p.heads * p.head_dim;
    if id.x >= 2u * dim { return; }
    let column = select(id.x, id.x + dim, id.x >= dim);
    let first = group.y * p.chunk;
    var sum = elem();
    for (var row = first; row < min(first + p.chunk, p.rows); row++) { sum += elem(dinp[row * 3u * dim + column]); }
    if id.x < dim { dquery[group.y * dim + id.x] = sum; } else { dvalue[group.y * dim + id.x - dim] = sum; }
}

@group(0) @binding(0) var<storage, read> freqs: array<f32>;
@group(0) @binding(1) var<storage, read_write> angle_table: array<f32>;

// The place of token `t` of the grid, in the order of freqs.
fn place(t: u32) -> vec2f {
    let row_column = vec2f(f32(t / p.grid), f32(t % p.grid));
    return select(row_column, row_column.yx, p.transposed == 1u);
}

// Sine and cosine. WGSL leaves it to the adapter how far off its own are: up to 2⁻¹¹. The rest of the angle beside
// multiples of π/2, in three steps so that nothing cancels, then polynomials for less than π/4 (Moshier's in Cephes).
fn sine_cosine(angle: f32) -> vec2f {
    let turns = round(angle * 0.63661977);
    let r = ((angle - turns * 1.5703125) - turns * 4.837512969970703125e-4) - turns * 7.549789948768648e-8;
    let r2 = r * r;
    let sine = r + r * r2 * (-1.6666654611e-1 + r2 * (8.3321608736e-3 + r2 * -1.9515295891e-4));
    let cosine = 1.0 - 0.5 * r2 + r2 * r2 * (4.166664568298827e-2 + r2 * (-1.388731625493765e-3 + r2 * 2.443315711809948e-5));
    switch i32(turns) & 3 {
        case 0: { return vec2f(sine, cosine); }
        case 1: { return vec2f(cosine, -sine); }
        case 2: { return vec2f(-sine, -cosine); }
        default: { return vec2f(-cosine, sine); }
    }
}

@compute @workgroup_size(WG)
fn angles(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let pairs = p.head_dim / 2u;
    let places = p.tokens - p.prefix;
    let i = fold_index(group, groups) * WG + lane;
    if i >= p.heads * places * pairs { return; }
    let head = i / (places * pairs);
    let t = i / pairs % places;
    let n = i % pairs;
    let j = (p.block * p.heads + head) * pairs + n;
    let at = place(t);
    let turn = sine_cosine(at.x * freqs[j] + at.y * freqs[j + p.blocks * p.heads * pairs]);
    let start = (head * places + t) * 2u * p.head_dim + 2u * n;
    angle_table[start] = turn.y;
    angle_table[start + 1u] = turn.y;
    angle_table[start + p.head_dim] = -turn.x;
    angle_table[start + p.head_dim + 1u] = turn.x;
}

@group(0) @binding(0) var<storage, read> dout: array<held>;
@group(0) @binding(1) var<storage, read> saved_out: array<held>;
@group(0) @binding(2) var<storage, read_write> dangles: array<f32>;

@compute @workgroup_size(WG)
fn backward_angles(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let dim = p.heads * p.head_dim;
    let i = fold_index(group, groups) * WG + lane;
    let t = i / (dim / 2u);
    if t >= p.tokens - p.prefix { return; }
    var sum = 0.0;
    for (var b = 0u; b < p.rows / p.tokens; b++) {
        for (var part = 0u; part < 2u; part++) {
            let j = ((b * p.tokens + t + p.prefix) * 3u + part) * dim + 2u * (i % (dim / 2u));
            sum += f32(dout[j + 1u]) * f32(saved_out[j]) - f32(dout[j]) * f32(saved_out[j + 1u]);
        }
    }
    dangles[i] = sum;
}

@group(0) @binding(0) var<storage, read> saved_dangles: array<f32>;
@group(0) @binding(1) var<storage, read_write> dfreqs: array<f32>;

@compute @workgroup_size(WG)
fn backward_freqs(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let pairs = p.heads * p.head_dim / 2u;
    let i = fold_index(group, groups) * WG + lane;
    if i >= 2u * pairs { return; }
    let axis = i / pairs;
    var sum = 0.0;
    for (var t = 0u; t < p.tokens - p.prefix; t++) {
        let at = place(t);
        sum += select(at.x, at.y, axis == 1u) * saved_dangles[t * pairs + i % pairs];
    }
    dfreqs[(axis * p.blocks + p.block) * pairs + i % pairs] += sum;
}
