// SGD as torch.optim.SGD computes it (dampening 0), over the whole parameter arena at once.
//
//   g = grad_scale · dw + weight_decay · w
//   m = first step ? g : momentum · m + g
//   w −= lr · (NESTEROV ? g + momentum · m : m)          plain: w −= lr · g          lr = step.lr · rate
//
//   w, m, dw [len]     vectors of four: an arena's segments are whole 256 bytes. Its padding is zero and stays so
//
//   entry     grid                         writes
//   forward   fold(⌈len/(WG·PER_LANE)⌉)    w −= , m =
//   plain     fold(⌈len/(WG·PER_LANE)⌉)    w −=          without momentum, and without its buffer

struct Params { len: u32, momentum: f32, weight_decay: f32, rate: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 4u;
override NESTEROV: bool = false;

@group(0) @binding(0) var<storage, read_write> w: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> m: array<vec4f>;
@group(0) @binding(2) var<storage, read> dw: array<vec4f>;
@group(0) @binding(3) var<storage, read> step: Step;
@group(0) @binding(4) var<storage, read> health: Health;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    if health.bad_step != 0u { return; }
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) {
        let g = health.grad_scale * dw[i] + p.weight_decay * w[i];
        let buffer = select(p.momentum * m[i] + g, g, step.first != 0u);
        m[i] = buffer;
        w[i] -= step.lr * p.rate * select(buffer, g + p.momentum * buffer, NESTEROV);
    }
}

@compute @workgroup_size(WG)
fn plain(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    if health.bad_step != 0u { return; }
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) {
        w[i] -= step.lr * p.rate * (health.grad_scale * dw[i] + p.weight_decay * w[i]);
    }
}
