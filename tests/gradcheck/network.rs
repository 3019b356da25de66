//! A whole vision transformer of one block, through every stem: its gradient in every parameter, and the gradients of
//! its radii, against finite differences.

use tpgm::cpu::cross_entropy;

use super::*;

const BATCH: usize = 2;
const SIZE: (usize, usize) = (4, 6);
const PATCH: usize = 2;
const PATCHES: usize = 6;
const TOKENS: usize = 7;
const ROWS: usize = BATCH * TOKENS;
const PIXELS: usize = 3 * PATCH * PATCH;
const HEADS: usize = 2;
const HEAD_DIM: usize = 3;
const D: usize = HEADS * HEAD_DIM;
const MLP: usize = 10;
const CLASSES: usize = 3;
const LABELS: [u32; BATCH] = [2, 0];
const EPS: f64 = 1e-3;
const SMOOTHING: f64 = 0.1;
const PREFIX: tpgm::shapes::Prefix =
    tpgm::shapes::Prefix { class_token: true, registers: 0, class_position: true, register_positions: false };

/// Every parameter with timm's name and shape; [`run`] takes them in this order.
const PARAMETERS: [(&str, &[usize]); 22] = [
    ("cls_token", &[1, 1, D]),
    ("pos_embed", &[1, TOKENS, D]),
    ("patch_embed.proj.weight", &[D, 3, PATCH, PATCH]),
    ("patch_embed.proj.bias", &[D]),
    ("norm1.weight", &[D]),
    ("norm1.bias", &[D]),
    ("attn.qkv.weight", &[3 * D, D]),
    ("attn.qkv.bias", &[3 * D]),
    ("attn.proj.weight", &[D, D]),
    ("attn.proj.bias", &[D]),
    ("ls1.gamma", &[D]),
    ("norm2.weight", &[D]),
    ("norm2.bias", &[D]),
    ("mlp.fc1.weight", &[MLP, D]),
    ("mlp.fc1.bias", &[MLP]),
    ("mlp.fc2.weight", &[D, MLP]),
    ("mlp.fc2.bias", &[D]),
    ("ls2.gamma", &[D]),
    ("norm.weight", &[D]),
    ("norm.bias", &[D]),
    ("head.weight", &[CLASSES, D]),
    ("head.bias", &[CLASSES]),
];

type Params = [Vec<f64>; 22];

fn parameters(noise: &mut Noise) -> Params {
    std::array::from_fn(|i| {
        // Norms' weights and layer scales (index 4, 10, ...) around 1, so that no branch is switched off.
        let centre = if [4, 10, 11, 17, 18].contains(&i) { 1.0 } else { 0.0 };
        noise.vec(PARAMETERS[i].1.iter().product()).iter().map(|v| centre + 0.7 * v).collect()
    })
}

fn linear(inp: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let n = bias.len();
    let (m, k) = (inp.len() * n / weight.len(), weight.len() / n);
    assigned(m * n, |out| matmul(out, inp, weight, Some(bias), m, n, k, false, true, false, 1))
}

/// Returns `dinp`, adds to `dweight` and `dbias`.
fn linear_backward(dweight: &mut [f64], dbias: &mut [f64], dout: &[f64], inp: &[f64], weight: &[f64]) -> Vec<f64> {
    let n = dbias.len();
    let (m, k) = (dout.len() / n, weight.len() / n);
    matmul(dweight, dout, inp, None, n, k, m, true, false, true, 1);
    column_sum::column_sum(dbias, dout, m, n);
    assigned(m * k, |dinp| matmul(dinp, dout, weight, None, m, k, n, false, false, false, 1))
}

/// A layer norm's output, and what its backward needs.
struct Normed {
    out: Vec<f64>,
    mean: Vec<f64>,
    rstd: Vec<f64>,
}

fn normed(inp: &[f64], weight: &[f64], bias: &[f64]) -> Normed {
    let (mut mean, mut rstd) = (vec![f64::NAN; ROWS], vec![f64::NAN; ROWS]);
    let out = assigned(ROWS * D, |out| {
        layer_norm::forward(out, &mut mean, &mut rstd, inp, weight, bias, ROWS, D, EPS);
    });
    Normed { out, mean, rstd }
}

/// Adds to `dinp`, `dweight` and `dbias`.
fn normed_backward(
    dinp: &mut [f64],
    dweight: &mut [f64],
    dbias: &mut [f64],
    dout: &[f64],
    inp: &[f64],
    weight: &[f64],
    saved: &Normed,
) {
    layer_norm::backward_input(dinp, dout, inp, weight, &saved.mean, &saved.rstd, ROWS, D);
    layer_norm::backward_params(dweight, dbias, dout, inp, &saved.mean, &saved.rstd, ROWS, D);
}

/// The mean loss over the batch, and its gradient in every parameter.
fn run(params: &Params, images: &[f64]) -> (f64, Params) {
    let [cls, pos, patch_w, patch_b, n1_w, n1_b, qkv_w, qkv_b, proj_w, proj_b, ls1, rest @ ..] = params;
    let [n2_w, n2_b, fc1_w, fc1_b, fc2_w, fc2_b, ls2, n_w, n_b, head_w, head_b] = rest;

    let (height, width) = SIZE;
    let cols = assigned(BATCH * PATCHES * PIXELS, |cols| {
        patch_embed::unfold(cols, images, BATCH, 3, [height, width], PATCH);
    });
    let patches = linear(&cols, patch_w, patch_b);
    let x0 = assigned(ROWS * D, |out| patch_embed::assemble(out, &patches, pos, cls, &[], PREFIX, BATCH, PATCHES, D));

    let norm1 = normed(&x0, n1_w, n1_b);
    let qkv = linear(&norm1.out, qkv_w, qkv_b);
    let mut lse = vec![f64::NAN; BATCH * HEADS * TOKENS];
    let mixed = assigned(ROWS * D, |out| attention::forward(out, &mut lse, &qkv, BATCH, TOKENS, HEADS, HEAD_DIM));
    let proj = linear(&mixed, proj_w, proj_b);
    let x1 = assigned(ROWS * D, |out| residual::forward(out, &x0, &proj, Some(ls1), ROWS, D));

    let norm2 = normed(&x1, n2_w, n2_b);
    let hidden = linear(&norm2.out, fc1_w, fc1_b);
    let active = assigned(ROWS * MLP, |out| gelu::forward(out, &hidden, Activation::Gelu));
    let mlp = linear(&active, fc2_w, fc2_b);
    let x2 = assigned(ROWS * D, |out| residual::forward(out, &x1, &mlp, Some(ls2), ROWS, D));

    let norm = normed(&x2, n_w, n_b);
    let pooled = assigned(BATCH * D, |out| pool::forward(out, &norm.out, 1..TOKENS, BATCH, TOKENS, D));
    let logits = linear(&pooled, head_w, head_b);
    let (mut losses, mut dlogits) = (vec![f64::NAN; BATCH], vec![f64::NAN; BATCH * CLASSES]);
    let grad_scale = 1.0 / BATCH as f64;
    cross_entropy::forward(&mut losses, &mut dlogits, &logits, &LABELS, BATCH, CLASSES, SMOOTHING, grad_scale);
    let loss = losses.iter().sum::<f64>() * grad_scale;

    let mut grads: Params = std::array::from_fn(|i| vec![0.0; params[i].len()]);
    let [dcls, dpos, dpatch_w, dpatch_b, dn1_w, dn1_b, dqkv_w, dqkv_b, dproj_w, dproj_b, dls1, rest @ ..] = &mut grads;
    let [dn2_w, dn2_b, dfc1_w, dfc1_b, dfc2_w, dfc2_b, dls2, dn_w, dn_b, dhead_w, dhead_b] = rest;

    let dpooled = linear_backward(dhead_w, dhead_b, &dlogits, &pooled, head_w);
    let mut dnorm = vec![0.0; ROWS * D];
    pool::backward(&mut dnorm, &dpooled, 1..TOKENS, BATCH, TOKENS, D);
    // The gradient of the residual stream: every branch below adds its share.
    let mut dx = vec![0.0; ROWS * D];
    normed_backward(&mut dx, dn_w, dn_b, &dnorm, &x2, n_w, &norm);

    residual::backward_params(dls2, &dx, &mlp, ROWS, D);
    let dmlp = assigned(ROWS * D, |d| residual::backward_input(d, &dx, Some(ls2), ROWS, D));
    let dactive = linear_backward(dfc2_w, dfc2_b, &dmlp, &active, fc2_w);
    let dhidden = assigned(ROWS * MLP, |d| gelu::backward(d, &dactive, &hidden, Activation::Gelu));
    let dnorm2 = linear_backward(dfc1_w, dfc1_b, &dhidden, &norm2.out, fc1_w);
    normed_backward(&mut dx, dn2_w, dn2_b, &dnorm2, &x1, n2_w, &norm2);

    residual::backward_params(dls1, &dx, &proj, ROWS, D);
    let dproj = assigned(ROWS * D, |d| residual::backward_input(d, &dx, Some(ls1), ROWS, D));
    let dmixed = linear_backward(dproj_w, dproj_b, &dproj, &mixed, proj_w);
    let dqkv = assigned(qkv.len(), |d| {
        attention::backward(d, &dmixed, &mixed, &qkv, &lse, BATCH, TOKENS, HEADS, HEAD_DIM);
    });
    let dnorm1 = linear_backward(dqkv_w, dqkv_b, &dqkv, &norm1.out, qkv_w);
    normed_backward(&mut dx, dn1_w, dn1_b, &dnorm1, &x0, n1_w, &norm1);

    let dpatches = assigned(patches.len(), |d| {
        patch_embed::assemble_backward(d, dpos, dcls, &mut [], &dx, PREFIX, BATCH, PATCHES, D);
    });
    linear_backward(dpatch_w, dpatch_b, &dpatches, &cols, patch_w);
    (loss, grads)
}

fn assert_close(name: &str, grad: f64, numeric: f64, largest: f64) {
    assert!((grad - numeric).abs() <= TOLERANCE * largest, "{name}: backward {grad}, differences {numeric}");
}

#[test]
fn whole_network_in_every_parameter() {
    let mut noise = Noise(21);
    let params = parameters(&mut noise);
    let images = noise.vec(BATCH * 3 * SIZE.0 * SIZE.1);
    let (_, grads) = run(&params, &images);
    for (i, (name, _)) in PARAMETERS.iter().enumerate() {
        let largest = grads[i].iter().fold(0.0, |a: f64, g| a.max(g.abs()));
        assert!(largest > 1e-4, "{name}: a gradient of {largest} shows nothing");
        for j in 0..grads[i].len() {
            let numeric = derivative(|h| {
                let mut moved = params.clone();
                moved[i][j] += h;
                run(&moved, &images).0
            });
            assert_close(&format!("{name}[{j}]"), grads[i][j], numeric, largest);
        }
    }
}

#[test]
fn whole_network_in_every_radius() {
    for norm in [Norm::Mars, Norm::L2] {
        let mut noise = Noise(33);
        let w0 = parameters(&mut noise);
        let w: Params = std::array::from_fn(|i| w0[i].iter().map(|v| v + 0.3 * noise.next()).collect());
        let images = noise.vec(BATCH * 3 * SIZE.0 * SIZE.1);
        let rows: [usize; 22] = std::array::from_fn(|i| norm.rows(PARAMETERS[i].1));
        let n: Params = std::array::from_fn(|i| {
            assigned(rows[i], |n| norms(n, &w[i], &w0[i], rows[i], w[i].len() / rows[i], norm))
        });
        // In the widest gap between two of a tensor's norms; six tenths of the norm where it has only one row.
        let gamma: [f64; 22] = std::array::from_fn(|i| {
            let mut sorted = n[i].clone();
            sorted.sort_by(f64::total_cmp);
            let gap = sorted.windows(2).max_by(|a, b| (a[1] - a[0]).total_cmp(&(b[1] - b[0])));
            gap.map_or(0.6 * sorted[0], |gap| (gap[0] + gap[1]) / 2.0)
        });
        let projected = |gamma: &[f64; 22]| -> Params {
            std::array::from_fn(|i| {
                let cols = w[i].len() / rows[i];
                assigned(w[i].len(), |out| project(out, &w[i], &w0[i], gamma[i], &n[i], rows[i], cols))
            })
        };
        let (_, g) = run(&projected(&gamma), &images);
        for (i, (name, _)) in PARAMETERS.iter().enumerate() {
            assert!(n[i].iter().all(|n| (n - gamma[i]).abs() > 0.004), "{name}: too near a kink");
            let cols = w[i].len() / rows[i];
            let (dgamma, active) = radius_backward(&g[i], &w[i], &w0[i], gamma[i], &n[i], rows[i], cols);
            assert_eq!(active, n[i].iter().filter(|&&n| n > gamma[i]).count(), "{name}, {norm:?}");
            assert!(dgamma.abs() > 1e-6, "{name}, {norm:?}: a gradient of {dgamma} shows nothing");
            let numeric = derivative(|h| {
                let mut moved = gamma;
                moved[i] += h;
                run(&projected(&moved), &images).0
            });
            assert_close(&format!("radius of {name}, {norm:?}"), dgamma, numeric, dgamma.abs());
        }
    }
}
