// Projection onto per-tensor balls around the anchor, and the gradient of their radii (Tian et al. 2023, "TPGM", eq. 4
// to 8): MARS rows, or the whole tensor as one L2 row.
//
//   n_r = Σ_c |w − w0|   (MARS)      n = √Σ (w − w0)²   (L2)      ratio_r = clamp(gamma / (n_r + 1e-8), 0, 1)
//   w_proj = w0 + ratio_r · (w − w0)
//   ∂L/∂gamma = Σ_r [0 < gamma/(n_r + 1e-8) < 1] · ⟨dw_r, w_r − w0_r⟩ / (n_r + 1e-8),   dw at w_proj
//
//   w, w0, w_proj, dw   an arena, or a segment of one that starts at element `base`
//   chunks    [chunks]    start (element of the arena), length, row, tensor: at most CHUNK elements of one row
//   rows      [rows]      first chunk, number of chunks
//   tensors   [T]         first row, number of rows, excluded (1: has no radius and is never projected)
//   partials  [chunks], [chunks, WG] without SHARED     norms [rows]
//   radii     [T]         gamma, Adam's m and v, its step count t, max_r n_r, started (0 before the first update)
//   log       [slots, T]  gamma after its Adam step, max_r n_r, active rows, ∂L/∂gamma
//
//   entry        grid             writes
//   distances    fold(chunks)     partials =    Σ |w − w0| or Σ (w − w0)² of a chunk
//   clip         fold(T)          norms = , radii: max norm; gamma ← min_r n_r / 2 at its first update, then
//                                 gamma ← clamp(gamma, 1e-8, max_r n_r); with HELD gamma stays
//   project      fold(chunks)     w_proj =
//   apply        fold(chunks)     w =           the same in place
//   dots         fold(chunks)     partials =    ⟨dw, w − w0⟩ of a chunk
//   step         fold(T)          radii: one Adam step on gamma (none where ∂L/∂gamma is not finite); log[state.slot] =
//
// Where rows are a multiple of 4, or of 8 on some adapters, a lane takes as many values at once: an elem (lib/elem.wgsl), which
// `base`, starts and lengths count. Tensors start at multiples of 64, so every row starts with an elem, and the padding behind
// a tensor stays out. Tensors of other rows come as f32, in dispatches of their own.
//
// A tensor whose max_r n_r is under 1e-8 has not moved: its gamma and its weights are left as they are. Sums go over
// chunks and then over rows in a fixed order: no atomics, the same bits every time. That a ratio lies in (0, 1) is asked as
// 0 < gamma < n + 1e-8, which is the same in IEEE arithmetic; a GPU's own division may miss 1 by an ulp and wake dead rows.

struct Params { base: u32, first: u32, count: u32, start: u32, tensors: u32, lr: f32 }
var<immediate> p: Params;

override WG: u32 = 32u;
override L2: bool = false;
override SHARED: bool = true; // a workgroup adds its lanes' sums up; else each lane writes its own, without a barrier
override HELD: bool = false; // radii are given: clip writes norms alone
override SCALED: bool = false; // dw is multiplied by loss_scale[0]; binding 7 of step may be anything readable when off
// step in two halves, between which the gradients of several ranks are added up in the log:
override LEARN: bool = true; // else radii stay as they are: the log alone is written
override GIVEN: bool = false; // the log has ∂L/∂gamma and the active rows already

@group(0) @binding(0) var<storage, read> chunks: array<Chunk>;
@group(0) @binding(1) var<storage, read> w: array<stored>;
@group(0) @binding(2) var<storage, read> w0: array<stored>;
@group(0) @binding(3) var<storage, read_write> partials: array<f32>;

fn write_partial(chunk: u32, sum: f32, lane: u32) {
    if SHARED {
        let whole = reduce_sum(sum, lane);
        if lane == 0u { partials[chunk] = whole; }
    } else {
        partials[chunk * WG + lane] = sum;
    }
}

fn distance(i: u32) -> elem {
    let d = unpack(w[i]) - unpack(w0[i]);
    if L2 { return product(d, d); }
    return magnitude(d);
}

@compute @workgroup_size(WG)
fn distances(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = fold_index(group, groups);
    if index >= p.count { return; }
    let chunk = chunks[p.first + index];
    let start = chunk.start - p.base;
    var sum = elem();
    for (var i = start + lane; i < start + chunk.len; i += WG) { sum += distance(i); }
    write_partial(p.first + index, total(sum), lane);
}

@group(0) @binding(0) var<storage, read> tensors: array<Tensor>;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> sums: array<f32>;
@group(0) @binding(3) var<storage, read_write> norms: array<f32>;
@group(0) @binding(4) var<storage, read_write> radii: array<Radius>;

fn root(n: f32) -> f32 {
    if L2 { return sqrt(n); }
    return n;
}

@compute @workgroup_size(WG)
fn clip(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = fold_index(group, groups);
    if t >= p.tensors { return; }
    let tensor = tensors[t];
    if tensor.excluded != 0u { return; }
    var largest = 0.0;
    var smallest = 3.4e38;
    if tensor.count == 1u {
        let n = root(reduce_sum(row_total(rows[tensor.first], lane, WG), lane));
        norms[tensor.first] = n;
        largest = n;
        smallest = n;
    } else {
        for (var r = tensor.first + lane; r < tensor.first + tensor.count; r += WG) {
            let n = root(row_total(rows[r], 0u, 1u));
            norms[r] = n;
            largest = max(largest, n);
            smallest = min(smallest, n);
        }
    }
    largest = reduce_max(largest, lane);
    smallest = -reduce_max(-smallest, lane);
    if lane != 0u { return; }
    radii[t].max_norm = largest;
    if HELD || largest < UNMOVED { return; }
    var gamma = radii[t].gamma;
    if p.start != 0u && radii[t].started == 0u {
        gamma = smallest / 2.0;
        radii[t].started = 1u;
    }
    radii[t].gamma = clamp(gamma, UNMOVED, largest);
}

@group(0) @binding(3) var<storage, read> row_norms: array<f32>;
@group(0) @binding(4) var<storage, read> settled: array<Radius>; // radii, as clip left them
@group(0) @binding(5) var<storage, read> kinds: array<Tensor>;
@group(0) @binding(6) var<storage, read_write> w_proj: array<stored>;

// How much of its drift a row keeps, or −1 where the tensor stays as it is: excluded, not moved, or no radius yet.
fn keep(chunk: Chunk) -> f32 {
    let radius = settled[chunk.tensor];
    if kinds[chunk.tensor].excluded != 0u || radius.max_norm < UNMOVED || radius.started == 0u { return -1.0; }
    let n = row_norms[chunk.row] + 1e-8;
    if radius.gamma >= n { return 1.0; }
    return max(radius.gamma / n, 0.0);
}

fn project_elem(i: u32, ratio: f32) {
    let w_i = w[i];
    let w0_i = unpack(w0[i]);
    w_proj[i] = select(pack(w0_i + ratio * (unpack(w_i) - w0_i)), w_i, ratio < 0.0);
}

@compute @workgroup_size(WG)
fn project(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = fold_index(group, groups);
    if index >= p.count { return; }
    let chunk = chunks[p.first + index];
    let start = chunk.start - p.base;
    let ratio = keep(chunk);
    for (var i = start + lane; i < start + chunk.len; i += WG) { project_elem(i, ratio); }
}

@group(0) @binding(6) var<storage, read_write> w_inout: array<stored>;

fn apply_elem(i: u32, ratio: f32) {
    let w0_i = unpack(w0[i]);
    w_inout[i] = pack(w0_i + ratio * (unpack(w_inout[i]) - w0_i));
}

@compute @workgroup_size(WG)
fn apply(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = fold_index(group, groups);
    if index >= p.count { return; }
    let chunk = chunks[p.first + index];
    let start = chunk.start - p.base;
    let ratio = keep(chunk);
    if ratio < 0.0 { return; }
    for (var i = start + lane; i < start + chunk.len; i += WG) { apply_elem(i, ratio); }
}

@group(0) @binding(4) var<storage, read> dw: array<stored>;

fn dot_elem(i: u32) -> elem { return product(unpack(dw[i]), unpack(w[i]) - unpack(w0[i])); }

@compute @workgroup_size(WG)
fn dots(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = fold_index(group, groups);
    if index >= p.count { return; }
    let chunk = chunks[p.first + index];
    let start = chunk.start - p.base;
    var sum = elem();
    for (var i = start + lane; i < start + chunk.len; i += WG) { sum += dot_elem(i); }
    write_partial(p.first + index, total(sum), lane);
}

@group(0) @binding(5) var<storage, read_write> log: array<Entry>;
@group(0) @binding(6) var<storage, read> state: Step;
@group(0) @binding(7) var<storage, read> loss_scale: array<f32>;

@compute @workgroup_size(WG)
fn step(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = fold_index(group, groups);
    if t >= p.tensors { return; }
    let tensor = tensors[t];
    if tensor.excluded != 0u { return; }
    let gamma = radii[t].gamma;
    let entry = state.slot * p.tensors + t;
    var gradient = 0.0;
    var live = 0.0;
    if GIVEN {
        gradient = log[entry].gradient;
        if lane != 0u { return; }
    } else {
        if tensor.count == 1u {
            let n = row_norms[tensor.first] + 1e-8;
            if gamma > 0.0 && gamma < n {
                gradient = row_total(rows[tensor.first], lane, WG) / n;
                live = select(0.0, 1.0, lane == 0u);
            }
        } else {
            for (var r = tensor.first + lane; r < tensor.first + tensor.count; r += WG) {
                let n = row_norms[r] + 1e-8;
                if gamma > 0.0 && gamma < n {
                    gradient += row_total(rows[r], 0u, 1u) / n;
                    live += 1.0;
                }
            }
        }
        gradient = reduce_sum(gradient, lane);
        if SCALED { gradient /= loss_scale[0]; }
        live = reduce_sum(live, lane);
        if lane != 0u { return; }
        log[entry] = Entry(gamma, radii[t].max_norm, u32(live), gradient);
    }
    if !LEARN { return; }
    // By its bits: a compiler may assume that no value is NaN or infinite.
    let finite = (bitcast<u32>(gradient) & 0x7f800000u) != 0x7f800000u;
    if radii[t].max_norm < UNMOVED || !finite { return; }

    radii[t] = radius_step(radii[t], gradient, radii[t].t + 1u, p.lr);
    log[entry].gamma = radii[t].gamma;
}
