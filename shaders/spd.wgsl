// Selective projection decay (Tian et al., NeurIPS 2024, "SPD"): a tensor is pulled back to the anchor w0 after a step of the
// optimiser w → w' that took it further away although −dw, dw being the gradient, leads nearer.
//
//   where ⟨dw, w − w0⟩ > 0:   w' −= lambda · r · (w' − w0),   r = clamp((‖w' − w0‖ − ‖w − w0‖) / ‖w' − w0‖, 0, 1)
//
//   chunks, rows, tensors   as in mars.wgsl with L2: one row per tensor       pulls [T]: ‖w − w0‖, ⟨dw, w − w0⟩, lambda · r
//   sums      the partial sums of mars::distances (note with DISTANCE, settle) or of mars::dots (note without)
//
//   entry     grid            writes
//   note      fold(T)         pulls: ‖w − w0‖ =  with DISTANCE, ⟨dw, w − w0⟩ =  without; before the optimiser's update
//   settle    fold(T)         pulls: lambda · r =                                       after it
//   apply     fold(chunks)    w −=

struct Params { base: u32, first: u32, count: u32, tensors: u32, lambda: f32 }
var<immediate> p: Params;

override WG: u32 = 32u;
override SHARED: bool = true; // as in mars.wgsl
override DISTANCE: bool = false;

struct Pull { distance: f32, dot: f32, share: f32 }

@group(0) @binding(0) var<storage, read> tensors: array<Tensor>;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> sums: array<f32>;
@group(0) @binding(3) var<storage, read_write> pulls: array<Pull>;

@compute @workgroup_size(WG)
fn note(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = fold_index(group, groups);
    if t >= p.tensors || tensors[t].excluded != 0u { return; }
    let sum = reduce_sum(row_total(rows[tensors[t].first], lane, WG), lane);
    if lane != 0u { return; }
    if DISTANCE { pulls[t].distance = sqrt(sum); } else { pulls[t].dot = sum; }
}

@compute @workgroup_size(WG)
fn settle(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = fold_index(group, groups);
    if t >= p.tensors || tensors[t].excluded != 0u { return; }
    let distance = sqrt(reduce_sum(row_total(rows[tensors[t].first], lane, WG), lane));
    if lane != 0u { return; }
    var share = 0.0;
    if pulls[t].dot > 0.0 && distance > pulls[t].distance {
        share = p.lambda * clamp((distance - pulls[t].distance) / distance, 0.0, 1.0);
    }
    pulls[t].share = share;
}

@group(0) @binding(0) var<storage, read> chunks: array<Chunk>;
@group(0) @binding(1) var<storage, read_write> w: array<stored>;
@group(0) @binding(2) var<storage, read> w0: array<stored>;
@group(0) @binding(3) var<storage, read> settled: array<Pull>;
@group(0) @binding(4) var<storage, read> kinds: array<Tensor>;

fn apply_elem(i: u32, share: f32) {
    let unpulled = unpack(w[i]);
    w[i] = pack(unpulled - share * (unpulled - unpack(w0[i])));
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
    let share = settled[chunk.tensor].share;
    if kinds[chunk.tensor].excluded != 0u || share == 0.0 { return; }
    let start = chunk.start - p.base;
    for (var i = start + lane; i < start + chunk.len; i += WG) { apply_elem(i, share); }
}
