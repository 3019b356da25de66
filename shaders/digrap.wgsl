// Directional gradient projection (Huang et al., ICLR 2025, "DiGraP", algorithm 1): of a gradient dw that leads a tensor away from the
// anchor w0, a share omega of the part along the way from it is taken out. With d_t = w − w0 at step t:
//
//   proj_t = ⟨dw_t, d_t⟩ / ‖d_t‖² · d_t       dw ← dw_t − omega · proj_t  where ⟨dw_t, d_t⟩ < 0
//   omega = 0 at step 1; from step 2 on ∂omega = cos(dw_t, proj_{t−1}), 0 if one of them is; one Adam step of rate lr on omega,
//   corrected by t, and omega ← clamp(omega, 0, 1)
//
//   chunks, rows, tensors, radii   as in mars.wgsl with L2: one row per tensor; gamma is omega
//   w_prev   an arena: w of the last step whose gradient was finite
//   sums     [4, chunks], [4, chunks, WG] without SHARED: ⟨dw, w_prev − w0⟩, Σ dw², ⟨dw, w − w0⟩, Σ (w − w0)² of a chunk
//   pulls    [T]   before: ‖d‖ of that step with the sign of ⟨dw, d⟩; share: omega · ⟨dw, d⟩ / ‖d‖² of a conflict, else 0;
//                  live: whether the gradient at hand is finite
//
//   entry     grid            writes
//   measure   fold(chunks)    sums =
//   learn     fold(T)         radii: omega, m, v, t = ;   pulls =      nothing but live = 0 where the gradient is not finite
//   apply     fold(chunks)    dw −= ,  w_prev = w                      tensors that are excluded or not live stay as they are
//
// A loss scale on dw cancels out of the cosine, and stays in what dw becomes.

struct Params { base: u32, first: u32, count: u32, tensors: u32, chunks: u32, lr: f32 }
var<immediate> p: Params;

override WG: u32 = 32u;
override SHARED: bool = true; // as in mars.wgsl

struct Pull { before: f32, share: f32, live: u32 }

@group(0) @binding(0) var<storage, read> chunks: array<Chunk>;
@group(0) @binding(1) var<storage, read> w: array<stored>;
@group(0) @binding(2) var<storage, read> w0: array<stored>;
@group(0) @binding(3) var<storage, read> w_prev: array<stored>;
@group(0) @binding(4) var<storage, read> dw: array<stored>;
@group(0) @binding(5) var<storage, read_write> measured: array<f32>;

fn write_part(part: u32, chunk: u32, sum: f32, lane: u32) {
    let place = part * p.chunks + chunk;
    if SHARED {
        let whole = reduce_sum(sum, lane);
        if lane == 0u { measured[place] = whole; }
    } else {
        measured[place * WG + lane] = sum;
    }
}

@compute @workgroup_size(WG)
fn measure(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = fold_index(group, groups);
    if index >= p.count { return; }
    let chunk = chunks[p.first + index];
    let start = chunk.start - p.base;
    var along_prev = elem();
    var squares = elem();
    var along = elem();
    var distance = elem();
    for (var i = start + lane; i < start + chunk.len; i += WG) {
        let anchor = unpack(w0[i]);
        let g = unpack(dw[i]);
        let d = unpack(w[i]) - anchor;
        along_prev += product(g, unpack(w_prev[i]) - anchor);
        squares += product(g, g);
        along += product(g, d);
        distance += product(d, d);
    }
    write_part(0u, p.first + index, total(along_prev), lane);
    write_part(1u, p.first + index, total(squares), lane);
    write_part(2u, p.first + index, total(along), lane);
    write_part(3u, p.first + index, total(distance), lane);
}

@group(0) @binding(0) var<storage, read> tensors: array<Tensor>;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> sums: array<f32>;
@group(0) @binding(3) var<storage, read_write> radii: array<Radius>;
@group(0) @binding(4) var<storage, read_write> pulls: array<Pull>;
@group(0) @binding(5) var<storage, read> state: Step;

fn tensor_total(part: u32, row: Row, lane: u32) -> f32 {
    return reduce_sum(row_total(Row(part * p.chunks + row.first, row.count), lane, WG), lane);
}

@compute @workgroup_size(WG)
fn learn(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = fold_index(group, groups);
    if t >= p.tensors || tensors[t].excluded != 0u { return; }
    let row = rows[tensors[t].first];
    let along_prev = tensor_total(0u, row, lane);
    let squares = tensor_total(1u, row, lane);
    let along = tensor_total(2u, row, lane);
    let distance = tensor_total(3u, row, lane);
    if lane != 0u { return; }
    // By its bits: a compiler may assume that no value is NaN or infinite.
    let finite = (bitcast<u32>(squares) & 0x7f800000u) != 0x7f800000u;
    pulls[t].live = u32(finite);
    if !finite { return; }
    var omega = Radius(0.0, 0.0, 0.0, state.step, 0.0, 1u);
    if state.step > 1u {
        let before = pulls[t].before;
        let norms = sqrt(squares) * before;
        var cosine = 0.0;
        if norms != 0.0 { cosine = along_prev / norms; }
        omega = radius_step(radii[t], cosine, state.step, p.lr);
        omega.gamma = clamp(omega.gamma, 0.0, 1.0);
    }
    radii[t] = omega;
    pulls[t].before = select(1.0, -1.0, along < 0.0) * select(sqrt(distance), 0.0, along == 0.0);
    var share = 0.0;
    if along < 0.0 && distance > 0.0 { share = omega.gamma * (along / distance); }
    pulls[t].share = share;
}

@group(0) @binding(3) var<storage, read_write> w_last: array<stored>;
@group(0) @binding(4) var<storage, read_write> dw_inout: array<stored>;
@group(0) @binding(5) var<storage, read> settled: array<Pull>;
@group(0) @binding(6) var<storage, read> kinds: array<Tensor>;

@compute @workgroup_size(WG)
fn apply(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = fold_index(group, groups);
    if index >= p.count { return; }
    let chunk = chunks[p.first + index];
    let pull = settled[chunk.tensor];
    if kinds[chunk.tensor].excluded != 0u || pull.live == 0u { return; }
    let start = chunk.start - p.base;
    for (var i = start + lane; i < start + chunk.len; i += WG) { apply_elem(i, pull.share); }
}

fn apply_elem(i: u32, share: f32) {
    let place = w[i];
    w_last[i] = place;
    if share != 0.0 { dw_inout[i] = pack(unpack(dw_inout[i]) - share * (unpack(place) - unpack(w0[i]))); }
}
