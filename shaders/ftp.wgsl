// Fast trainable projection (Tian et al., NeurIPS 2023, "FTP"): radii that are learned from the training gradient itself, without
// a pass of their own. With w' the weights after the optimiser's update and before their projection, c_t = w' − w0 of step t:
//
//   n_r = Σ_c |c_t| + 1e-8     gamma = 1e-8 at step 1; from step 2 on, before the optimiser's update,
//   ∂gamma = Σ_r ⟨dw_r, c_{t−1,r}⟩ / n_{t−1,r}, times k where positive;   one Adam step of rate lr on gamma, corrected by t
//   after the update: gamma ← clamp(gamma, 1e-8, max_r n_r),   w ← w0 + min(gamma / n_r, 1) · c_t
//
//   chunks, rows, tensors, partials, norms, radii, log   as in mars.wgsl; `norms` without the 1e-8
//   w_prev    an arena: w' of the last step
//   sums      the partial sums of mars::dots over ⟨dw, w_prev − w0⟩ (learn), of mars::distances over |w − w0| (clip)
//
//   entry    grid            writes
//   learn    fold(T)         radii: gamma, m, v, t = ;   log[state.slot] =   (no Adam step where ∂gamma is not finite)
//   clip     fold(T)         norms = , radii: max norm = , gamma =
//   apply    fold(chunks)    w_prev = w' ,  w =         tensors that are excluded stay as they are

struct Params { base: u32, first: u32, count: u32, tensors: u32, lr: f32, k: f32 }
var<immediate> p: Params;

override WG: u32 = 32u;
override SHARED: bool = true; // as in mars.wgsl
override SCALED: bool = false; // dw is multiplied by loss_scale[0]; the binding may be anything readable when off

@group(0) @binding(0) var<storage, read> tensors: array<Tensor>;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> sums: array<f32>;
@group(0) @binding(3) var<storage, read> row_norms: array<f32>;
@group(0) @binding(4) var<storage, read_write> radii: array<Radius>;
@group(0) @binding(5) var<storage, read_write> log: array<Entry>;
@group(0) @binding(6) var<storage, read> state: Step;
@group(0) @binding(7) var<storage, read> loss_scale: array<f32>;

@compute @workgroup_size(WG)
fn learn(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = fold_index(group, groups);
    if t >= p.tensors { return; }
    let tensor = tensors[t];
    if tensor.excluded != 0u { return; }
    let started = state.step > 1u;
    let gamma = radii[t].gamma;
    var gradient = 0.0;
    var live = 0.0;
    if tensor.count == 1u {
        let n = row_norms[tensor.first] + 1e-8;
        gradient = row_total(rows[tensor.first], lane, WG) / n;
        live = select(0.0, 1.0, lane == 0u && gamma < n);
    } else {
        for (var r = tensor.first + lane; r < tensor.first + tensor.count; r += WG) {
            let n = row_norms[r] + 1e-8;
            gradient += row_total(rows[r], 0u, 1u) / n;
            live += select(0.0, 1.0, gamma < n);
        }
    }
    gradient = reduce_sum(gradient, lane);
    live = reduce_sum(live, lane);
    if lane != 0u { return; }
    let entry = state.slot * p.tensors + t;
    if !started {
        radii[t] = Radius(UNMOVED, 0.0, 0.0, state.step, 0.0, 1u);
        log[entry] = Entry(UNMOVED, 0.0, 0u, 0.0);
        return;
    }
    if SCALED { gradient /= loss_scale[0]; }
    if gradient > 0.0 { gradient *= p.k; }
    log[entry] = Entry(gamma, radii[t].max_norm, u32(live), gradient);
    // By its bits: a compiler may assume that no value is NaN or infinite.
    let finite = (bitcast<u32>(gradient) & 0x7f800000u) != 0x7f800000u;
    if !finite { return; }

    radii[t] = radius_step(radii[t], gradient, state.step, p.lr);
    log[entry].gamma = radii[t].gamma;
}

@group(0) @binding(3) var<storage, read_write> norms: array<f32>;

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
    if tensor.count == 1u {
        largest = reduce_sum(row_total(rows[tensor.first], lane, WG), lane);
        if lane == 0u { norms[tensor.first] = largest; }
    } else {
        for (var r = tensor.first + lane; r < tensor.first + tensor.count; r += WG) {
            let n = row_total(rows[r], 0u, 1u);
            norms[r] = n;
            largest = max(largest, n);
        }
        largest = reduce_max(largest, lane);
    }
    if lane != 0u { return; }
    radii[t].max_norm = largest;
    radii[t].gamma = clamp(radii[t].gamma, UNMOVED, largest + 1e-8);
}

@group(0) @binding(0) var<storage, read> chunks: array<Chunk>;
@group(0) @binding(1) var<storage, read_write> w: array<stored>;
@group(0) @binding(2) var<storage, read> w0: array<stored>;
@group(0) @binding(4) var<storage, read> settled: array<Radius>; // radii, as clip left them
@group(0) @binding(5) var<storage, read> kinds: array<Tensor>;
@group(0) @binding(6) var<storage, read_write> w_prev: array<stored>;

fn apply_elem(i: u32, ratio: f32) {
    let unprojected = w[i];
    let w0_i = unpack(w0[i]);
    w_prev[i] = unprojected;
    w[i] = pack(w0_i + ratio * (unpack(unprojected) - w0_i));
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
    if kinds[chunk.tensor].excluded != 0u { return; }
    let start = chunk.start - p.base;
    let ratio = min(settled[chunk.tensor].gamma / (row_norms[chunk.row] + 1e-8), 1.0);
    for (var i = start + lane; i < start + chunk.len; i += WG) { apply_elem(i, ratio); }
}
