// AdamW (Loshchilov & Hutter 2019, algorithm 2) as torch.optim.AdamW computes it, over the whole parameter arena at once.
//
//   w ← w · (1 − lr · weight_decay),   g = grad_scale · dw
//   m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
//   w ← w − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + eps)          lr = step.lr · rate
//
//   w, m, v, dw [len]     vectors of four: an arena's segments are whole 256 bytes. The bias corrections of step t come
//                         from the host, which has f64
//
//   entry     grid                         writes
//   forward   fold(⌈len/(WG·PER_LANE)⌉)    w −= , m = , v =

struct Params {
    len: u32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32, one_minus_beta1: f32, one_minus_beta2: f32, rate: f32
}
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 4u;

@group(0) @binding(0) var<storage, read_write> w: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> m: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> v: array<vec4f>;
@group(0) @binding(3) var<storage, read> dw: array<vec4f>;
@group(0) @binding(4) var<storage, read> step: Step;
@group(0) @binding(5) var<storage, read> health: Health;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    if health.bad_step != 0u { return; }
    let lr = step.lr * p.rate;
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) {
        let g = health.grad_scale * dw[i];
        let m_new = p.beta1 * m[i] + p.one_minus_beta1 * g;
        let v_new = p.beta2 * v[i] + p.one_minus_beta2 * g * g;
        m[i] = m_new;
        v[i] = v_new;
        let decayed = w[i] * (1.0 - lr * p.weight_decay);
        w[i] = decayed - lr / step.bias_correction1 * m_new / (sqrt(v_new) / step.bias_correction2_sqrt + p.eps);
    }
}
