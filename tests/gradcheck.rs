//! Every backward of the CPU reference, in f64, against finite differences.
//!
//! Each op stands in mid-graph: something smooth before every input, something smooth and a random upstream gradient
//! after its output, so that a backward which drops or misplaces the upstream gradient can't pass.
//!
//! The difference is the five-point one, `f' ≈ (8(f(h) − f(−h)) − (f(2h) − f(−2h))) / 12h`. With h = 1e-3 its
//! truncation error is h⁴ f⁽⁵⁾ / 30 ≈ 3e-14 · f⁽⁵⁾, and rounding adds about 1e-16 · |f| / h = 1e-13 · |f|. Seen, as a
//! share of the largest element: up to 1e-11 for one op, up to 7e-11 through the whole network. [`TOLERANCE`] is ten
//! times that; a fault in a backward is far above it.

use tpgm::cpu::mars::{clip_radius, initial_radius, norms, project, radius_backward};
use tpgm::cpu::{attention, average, column_sum, gelu, hard_swish, l2_normalize, l2_sp, layer_norm, matmul::matmul};
use tpgm::cpu::{patch_embed, pool, residual};
use tpgm::shapes::Activation;
use tpgm::shapes::Norm;
use tpgm::shapes::norm::rows_of;

#[path = "gradcheck/channels.rs"]
mod channels;
#[path = "gradcheck/distill.rs"]
mod distill;
#[path = "gradcheck/dropout.rs"]
mod dropout;
#[path = "gradcheck/gate.rs"]
mod gate;
#[path = "gradcheck/loss.rs"]
mod loss;
#[path = "gradcheck/network.rs"]
mod network;
#[path = "gradcheck/resnet.rs"]
mod resnet;
#[path = "gradcheck/rotary.rs"]
mod rotary;
#[path = "gradcheck/text.rs"]
mod text;

/// Largest error of a gradient, as a share of the largest element of that gradient.
const TOLERANCE: f64 = 1e-9;

/// A tiny deterministic generator (a linear congruential one, top bits): uniform in [−1, 1).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    fn vec(&mut self, len: usize) -> Vec<f64> {
        (0..len).map(|_| self.next()).collect()
    }
}

/// The derivative of `f` at 0 by the five-point difference.
fn derivative(f: impl Fn(f64) -> f64) -> f64 {
    let h = 1e-3;
    (8.0 * (f(h) - f(-h)) - (f(2.0 * h) - f(-2.0 * h))) / (12.0 * h)
}

/// Holds `grad` against the differences of `loss` in every element of `x`.
fn assert_gradient(name: &str, grad: &[f64], x: &[f64], loss: impl Fn(&[f64]) -> f64) {
    assert_eq!(grad.len(), x.len(), "{name}: one gradient per element");
    let largest = grad.iter().fold(0.0, |a: f64, g| a.max(g.abs()));
    assert!(largest > 1e-4, "{name}: a gradient of {largest} shows nothing");
    for i in 0..x.len() {
        let numeric = derivative(|h| {
            let mut moved = x.to_vec();
            moved[i] += h;
            loss(&moved)
        });
        let error = (grad[i] - numeric).abs();
        assert!(error <= TOLERANCE * largest, "{name}[{i}]: backward {}, differences {numeric}", grad[i]);
    }
}

/// What a backward assigns, over a buffer full of NaN: an element left out shows.
fn assigned(len: usize, write: impl FnOnce(&mut [f64])) -> Vec<f64> {
    let mut buffer = vec![f64::NAN; len];
    write(&mut buffer);
    buffer
}

/// What a backward adds to a buffer which holds something already: an assignment shows.
fn added(len: usize, add: impl FnOnce(&mut [f64])) -> Vec<f64> {
    let before = Noise(99).vec(len);
    let mut buffer = before.clone();
    add(&mut buffer);
    buffer.iter().zip(&before).map(|(after, before)| after - before).collect()
}

/// Checks one op in `loss(x) = Σ_i up_i · after(forward(before(x)))_i`, in every element of all its inputs.
///
/// `backward` gets the op's inputs and the gradient of its output, and returns the gradients of the inputs.
fn check_op(
    name: &str,
    lens: &[usize],
    forward: impl Fn(&[Vec<f64>]) -> Vec<f64>,
    backward: impl Fn(&[Vec<f64>], &[f64]) -> Vec<Vec<f64>>,
) {
    let mut noise = Noise(7);
    let x: Vec<Vec<f64>> = lens.iter().map(|&len| noise.vec(len).iter().map(|v| 1.5 * v).collect()).collect();
    let before = |x: &[Vec<f64>]| -> Vec<Vec<f64>> {
        x.iter().map(|x| x.iter().map(|v| v + 0.5 * (v + 1.0).sin()).collect()).collect()
    };
    let u = before(&x);
    let y = forward(&u);
    assert!(y.iter().all(|v| v.is_finite()), "{name}: forward left something out");
    let up = noise.vec(y.len());
    let loss =
        |x: &[Vec<f64>]| -> f64 { forward(&before(x)).iter().zip(&up).map(|(v, up)| up * (v + 0.5 * v.sin())).sum() };

    let dy: Vec<f64> = y.iter().zip(&up).map(|(v, up)| up * (1.0 + 0.5 * v.cos())).collect();
    let du = backward(&u, &dy);
    assert_eq!(du.len(), x.len(), "{name}: one gradient per input");
    for i in 0..x.len() {
        let dx: Vec<f64> = du[i].iter().zip(&x[i]).map(|(d, v)| d * (1.0 + 0.5 * (v + 1.0).cos())).collect();
        assert_gradient(&format!("{name}: input {i}"), &dx, &x[i], |moved| {
            let mut all = x.clone();
            all[i] = moved.to_vec();
            loss(&all)
        });
    }
}

#[test]
fn linear_layer() {
    // matmul is its own backward, once without and twice with a transposed side; column_sum is the bias's.
    let (m, n, k) = (5, 3, 7);
    check_op(
        "linear",
        &[m * k, n * k, n],
        |x| assigned(m * n, |out| matmul(out, &x[0], &x[1], Some(&x[2]), m, n, k, false, true, false, 1)),
        |x, dout| {
            vec![
                assigned(m * k, |d| matmul(d, dout, &x[1], None, m, k, n, false, false, false, 1)),
                added(n * k, |d| matmul(d, dout, &x[0], None, n, k, m, true, false, true, 1)),
                added(n, |d| column_sum::column_sum(d, dout, m, n)),
            ]
        },
    );
}

#[test]
fn batched_matmul_with_both_sides_transposed() {
    // out = aᵀ bᵀ, so da = (dout b)ᵀ = bᵀ doutᵀ and db = (a dout)ᵀ = doutᵀ aᵀ
    let (m, n, k, batch) = (3, 5, 4, 2);
    check_op(
        "matmul",
        &[batch * k * m, batch * n * k],
        |x| assigned(batch * m * n, |out| matmul(out, &x[0], &x[1], None, m, n, k, true, true, false, batch)),
        |x, dout| {
            vec![
                assigned(batch * k * m, |d| matmul(d, &x[1], dout, None, k, m, n, true, true, false, batch)),
                assigned(batch * n * k, |d| matmul(d, dout, &x[0], None, n, k, m, true, true, false, batch)),
            ]
        },
    );
}

#[test]
fn layer_norm_over_odd_rows() {
    let (rows, cols, eps) = (3, 7, 1e-2);
    let run = |x: &[Vec<f64>]| {
        let (mut mean, mut rstd) = (vec![f64::NAN; rows], vec![f64::NAN; rows]);
        let out = assigned(rows * cols, |out| {
            layer_norm::forward(out, &mut mean, &mut rstd, &x[0], &x[1], &x[2], rows, cols, eps);
        });
        (out, mean, rstd)
    };
    check_op(
        "layer_norm",
        &[rows * cols, cols, cols],
        |x| run(x).0,
        |x, dout| {
            let (_, mean, rstd) = run(x);
            let dinp = added(rows * cols, |d| {
                layer_norm::backward_input(d, dout, &x[0], &x[1], &mean, &rstd, rows, cols);
            });
            let mut dbias = vec![];
            let dweight = added(cols, |dw| {
                dbias = added(cols, |db| layer_norm::backward_params(dw, db, dout, &x[0], &mean, &rstd, rows, cols));
            });
            vec![dinp, dweight, dbias]
        },
    );
}

#[test]
fn gelu_of_every_kind() {
    for kind in [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu] {
        check_op(
            &format!("{kind:?}"),
            &[33],
            |x| assigned(33, |out| gelu::forward(out, &x[0], kind)),
            |x, dout| vec![assigned(33, |d| gelu::backward(d, dout, &x[0], kind))],
        );
    }
}

#[test]
fn hard_swish_within_its_corners_and_beyond() {
    // Out to where it is flat, and where it is the identity.
    let wide = |x: &[f64]| -> Vec<f64> { x.iter().map(|v| 4.0 * v).collect() };
    check_op(
        "hard_swish",
        &[33],
        |x| {
            let x = wide(&x[0]);
            assert!(x.iter().all(|v| (v.abs() - 3.0).abs() > 2e-2), "too near a corner: {x:?}");
            assert!(x.iter().any(|v| *v < -3.0) && x.iter().any(|v| *v > 3.0) && x.iter().any(|v| v.abs() < 3.0));
            assigned(33, |out| hard_swish::forward(out, &x))
        },
        |x, dout| vec![wide(&assigned(33, |d| hard_swish::backward_input(d, dout, &wide(&x[0]))))],
    );
    assert_eq!(assigned(2, |d| hard_swish::backward_input(d, &[2.0; 2], &[-3.0, 3.0])), [0.0, 2.0]);
}

#[test]
fn attention_over_odd_tokens() {
    for (batch, tokens, heads, head_dim) in [(2, 5, 3, 2), (1, 1, 1, 3), (1, 3, 1, 5)] {
        let dim = heads * head_dim;
        let run = |qkv: &[f64]| {
            let mut lse = vec![f64::NAN; batch * heads * tokens];
            let out = assigned(batch * tokens * dim, |out| {
                attention::forward(out, &mut lse, qkv, batch, tokens, heads, head_dim);
            });
            (out, lse)
        };
        check_op(
            &format!("attention with {tokens} tokens"),
            &[batch * tokens * 3 * dim],
            |x| run(&x[0]).0,
            |x, dout| {
                let (out, lse) = run(&x[0]);
                vec![assigned(x[0].len(), |d| {
                    attention::backward(d, dout, &out, &x[0], &lse, batch, tokens, heads, head_dim);
                })]
            },
        );
    }
}

#[test]
fn attention_behind_masks() {
    let (batch, tokens, heads, head_dim) = (3, 5, 2, 3);
    let dim = heads * head_dim;
    let lengths = [5, 1, 3];
    for (causal, padded) in [(true, false), (false, true), (true, true)] {
        let scores = attention::Scores { causal, lengths: padded.then_some(&lengths[..]), ..Default::default() };
        let run = |qkv: &[f64]| {
            let mut lse = vec![f64::NAN; batch * heads * tokens];
            let out = assigned(batch * tokens * dim, |out| {
                attention::forward_scored(out, &mut lse, qkv, scores, batch, tokens, heads, head_dim);
            });
            (out, lse)
        };
        check_op(
            &format!("attention, causal {causal}, padded {padded}"),
            &[batch * tokens * 3 * dim],
            |x| run(&x[0]).0,
            |x, dout| {
                let (out, lse) = run(&x[0]);
                vec![assigned(x[0].len(), |d| {
                    attention::backward_scored(
                        d,
                        &mut [],
                        dout,
                        &out,
                        &x[0],
                        &lse,
                        scores,
                        batch,
                        tokens,
                        heads,
                        head_dim,
                    );
                })]
            },
        );
        // The first query sees the first key alone, whose value it takes.
        let qkv: Vec<f64> = (0..batch * tokens * 3 * dim).map(|i| (i as f64).sin()).collect();
        let out = run(&qkv).0;
        if causal {
            assert_eq!(out[..dim], qkv[2 * dim..3 * dim]);
        }
        // The one key of the second sequence is all that its queries see.
        if padded {
            let (first, value) = (tokens * dim, tokens * 3 * dim + 2 * dim);
            assert!(out[first..2 * first].chunks(dim).all(|row| row == &qkv[value..value + dim]), "{out:?}");
        }
    }
}

#[test]
fn residual_with_and_without_layer_scale() {
    let (rows, cols) = (5, 3);
    check_op(
        "residual",
        &[rows * cols, rows * cols],
        |x| assigned(rows * cols, |out| residual::forward(out, &x[0], &x[1], None, rows, cols)),
        |_, dout| {
            let dbranch = assigned(rows * cols, |d| residual::backward_input(d, dout, None, rows, cols));
            vec![dout.to_vec(), dbranch]
        },
    );
    check_op(
        "residual with layer scale",
        &[rows * cols, rows * cols, cols],
        |x| assigned(rows * cols, |out| residual::forward(out, &x[0], &x[1], Some(&x[2]), rows, cols)),
        |x, dout| {
            let dbranch = assigned(rows * cols, |d| residual::backward_input(d, dout, Some(&x[2]), rows, cols));
            let dgamma = added(cols, |d| residual::backward_params(d, dout, &x[1], rows, cols));
            vec![dout.to_vec(), dbranch, dgamma]
        },
    );
}

#[test]
fn patch_embed_assembles_with_every_prefix() {
    let (batch, patches, dim) = (3, 5, 3);
    let kinds = [
        (false, 0, false, false),
        (true, 0, true, false),
        (true, 0, false, false),
        (true, 1, true, true),
        (true, 2, true, false),
        (true, 2, false, false),
    ];
    for (class_token, registers, class_position, register_positions) in kinds {
        let prefix = tpgm::shapes::Prefix { class_token, registers, class_position, register_positions };
        let len = batch * (patches + prefix.tokens()) * dim;
        let mut lens = vec![batch * patches * dim, (patches + prefix.positions()) * dim];
        lens.extend([usize::from(class_token) * dim, registers * dim].into_iter().filter(|len| *len > 0));
        let reg = |x: &[Vec<f64>]| x.get(3).cloned().unwrap_or_default();
        let cls = |x: &[Vec<f64>]| x.get(2).cloned().unwrap_or_default();
        check_op(
            &format!("{prefix:?}"),
            &lens,
            |x| {
                let (cls, reg) = (cls(x), reg(x));
                assigned(len, |o| patch_embed::assemble(o, &x[0], &x[1], &cls, &reg, prefix, batch, patches, dim))
            },
            |x, dout| {
                let (mut dpos, mut dcls, mut dreg) = (vec![], vec![], vec![]);
                let dpatches = assigned(x[0].len(), |dx| {
                    dpos = added(x[1].len(), |dp| {
                        dcls = added(cls(x).len(), |dc| {
                            dreg = added(reg(x).len(), |dr| {
                                patch_embed::assemble_backward(dx, dp, dc, dr, dout, prefix, batch, patches, dim);
                            });
                        });
                    });
                });
                [dpatches, dpos, dcls, dreg].into_iter().filter(|d| !d.is_empty()).collect()
            },
        );
    }
}

#[test]
fn pool_of_every_run() {
    let (batch, tokens, dim) = (2, 5, 3);
    for run in [0..1, 1..2, 1..5, 0..5] {
        check_op(
            &format!("tokens {run:?}"),
            &[batch * tokens * dim],
            |x| assigned(batch * dim, |out| pool::forward(out, &x[0], run.clone(), batch, tokens, dim)),
            |_, dout| {
                let len = batch * tokens * dim;
                vec![added(len, |d| pool::backward(d, dout, run.clone(), batch, tokens, dim))]
            },
        );
    }
}

#[test]
fn rows_at_unit_length() {
    let (rows, cols) = (3, 5);
    let run = |x: &[f64]| {
        let mut scale = vec![f64::NAN; rows];
        (assigned(rows * cols, |out| l2_normalize::forward(out, &mut scale, x, rows, cols)), scale)
    };
    check_op(
        "l2_normalize",
        &[rows * cols],
        |x| run(&x[0]).0,
        |x, dout| {
            let (out, scale) = run(&x[0]);
            vec![assigned(rows * cols, |d| l2_normalize::backward(d, dout, &out, &scale, rows, cols))]
        },
    );
}

#[test]
fn mean_of_two() {
    check_op(
        "average",
        &[7, 7],
        |x| assigned(7, |out| average::forward(out, &x[0], &x[1])),
        |_, dout| {
            let half = assigned(7, |d| average::backward(d, dout));
            vec![half.clone(), half]
        },
    );
}

#[test]
fn pull_back_to_the_anchor() {
    let (w, w0, lambda, scale) = (Noise(5).vec(7), Noise(6).vec(7), 0.3, 1.5);
    let dw = added(7, |dw| l2_sp::backward(dw, &w, &w0, lambda, scale));
    assert_gradient("l2_sp", &dw, &w, |w| scale * l2_sp::forward(w, &w0, lambda));
}

/// A drift of five rows whose norms are far apart, so that a radius can stand well inside a gap.
fn drifted(noise: &mut Noise, rows: usize, cols: usize) -> (Vec<f64>, Vec<f64>) {
    let w0 = noise.vec(rows * cols);
    let w = (0..rows * cols).map(|i| w0[i] + (0.2 + 0.4 * (i / cols) as f64) * noise.next()).collect();
    (w, w0)
}

#[test]
fn radius_gradient_with_rows_inside_and_outside_the_ball() {
    for norm in [Norm::Mars, Norm::L2] {
        let rows = norm.rows(&[5, 7]);
        let cols = 35 / rows;
        let mut noise = Noise(11);
        let (w, w0) = drifted(&mut noise, rows, cols);
        let up = noise.vec(35);
        let n = assigned(rows, |n| norms(n, &w, &w0, rows, cols, norm));
        let mut sorted = n.clone();
        sorted.sort_by(f64::total_cmp);
        // Half-way between two norms, far from any kink; for the one row of L2 well inside its norm.
        let (gamma, outside) = if rows > 1 { ((sorted[1] + sorted[2]) / 2.0, rows - 2) } else { (0.6 * n[0], 1) };
        assert!(n.iter().all(|n| (n - gamma).abs() > 0.01), "{norm:?}: too near a kink: {n:?}, {gamma}");

        let at = |gamma: f64| assigned(35, |out| project(out, &w, &w0, gamma, &n, rows, cols));
        let loss = |out: &[f64]| -> f64 { out.iter().zip(&up).map(|(x, up)| up * (2.0 * x).sin()).sum() };
        let g: Vec<f64> = at(gamma).iter().zip(&up).map(|(x, up)| 2.0 * up * (2.0 * x).cos()).collect();
        let (dgamma, active) = radius_backward(&g, &w, &w0, gamma, &n, rows, cols);
        assert_eq!(active, outside, "{norm:?}");
        assert_gradient(&format!("radius, {norm:?}"), &[dgamma], &[gamma], |gamma| loss(&at(gamma[0])));

        let beyond = 1.01 * sorted[rows - 1];
        assert_eq!(radius_backward(&g, &w, &w0, beyond, &n, rows, cols), (0.0, 0), "{norm:?}: a dead radius");
        assert_eq!(derivative(|h| loss(&at(beyond + h))), 0.0, "{norm:?}: nothing moves with a dead radius");
    }
}

#[test]
fn projecting_twice_is_projecting_once() {
    for norm in [Norm::Mars, Norm::L2] {
        let rows = norm.rows(&[5, 7]);
        let cols = 35 / rows;
        let (w, w0) = drifted(&mut Noise(5), rows, cols);
        let n = assigned(rows, |n| norms(n, &w, &w0, rows, cols, norm));
        let gamma = n.iter().sum::<f64>() / rows as f64 * 0.7;
        let once = assigned(35, |out| project(out, &w, &w0, gamma, &n, rows, cols));
        let n_once = assigned(rows, |n| norms(n, &once, &w0, rows, cols, norm));
        let twice = assigned(35, |out| project(out, &once, &w0, gamma, &n_once, rows, cols));
        for i in 0..35 {
            // A row on the sphere meets the ratio γ/(γ + 1e-8) once more; one inside stays up to rounding.
            let bound = 1e-8 / gamma * (once[i] - w0[i]).abs() + 1e-15;
            assert!((twice[i] - once[i]).abs() <= bound, "{norm:?}: {} then {}", once[i], twice[i]);
        }
        for r in 0..rows {
            let want = n[r].min(gamma);
            assert!((n_once[r] - want).abs() <= 1e-8 + 1e-14, "{norm:?}: row {r} ends {} out", n_once[r]);
        }
    }
}

#[test]
fn a_radius_at_the_largest_norm_is_dead_in_f32() {
    // Exactly: γ + 1e-8 rounds to γ from γ = 0.25 on, where half a unit in the last place passes 1e-8. Below, the sum
    // is one or more units larger than γ and the ratio is short of 1, so that the row still counts.
    for (gamma, active) in [(0.05_f32, 1), (0.17, 1), (0.249, 1), (0.25, 0), (0.3, 0), (1.0, 0), (40.0, 0)] {
        assert_eq!(gamma / (gamma + 1e-8) == 1.0, active == 0, "{gamma}");
        let (w, w0, g) = ([gamma, 0.0], [0.0; 2], [1.0, 1.0]);
        let mut n = [f32::NAN];
        norms(&mut n, &w, &w0, 1, 2, Norm::Mars);
        let clipped = clip_radius(100.0, &n).expect("it has moved");
        assert_eq!(clipped, gamma, "clipped to the largest norm");
        assert_eq!(radius_backward(&g, &w, &w0, clipped, &n, 1, 2).1, active, "{gamma}");
        assert_eq!(radius_backward(&g, &w, &w0, 0.99 * clipped, &n, 1, 2).1, 1, "alive again inside");
    }
}

#[test]
fn rows_are_slices_along_dimension_0() {
    assert_eq!(rows_of(&[192]), 1, "a bias or a norm's weight");
    assert_eq!(rows_of(&[]), 1, "a scalar");
    assert_eq!(rows_of(&[1, 1, 192]), 1, "cls_token");
    assert_eq!(rows_of(&[1, 197, 192]), 1, "timm's pos_embed");
    assert_eq!(rows_of(&[197, 192]), 197, "OpenAI-CLIP's positional_embedding");
    assert_eq!(rows_of(&[64, 3, 7, 7]), 64, "a convolution's kernel");
    assert_eq!(rows_of(&[576, 192]), 576, "a fused qkv.weight");
    assert_eq!(Norm::L2.rows(&[576, 192]), 1, "L2 sees one row");
    // A 1-D tensor's norm is the sum over all of it.
    let n = assigned(1, |n| norms(n, &[1.0, -2.0, 4.0], &[0.5, 0.0, 0.0], 1, 3, Norm::Mars));
    assert_eq!(n, [6.5]);
    let n = assigned(1, |n| norms(n, &[3.0, -4.0], &[0.0, 0.0], 1, 2, Norm::L2));
    assert_eq!(n, [5.0]);
}

#[test]
fn radius_bounds_and_start() {
    let n = [0.5, 2.0, 0.25];
    assert_eq!(initial_radius(&n), 0.125);
    assert_eq!(clip_radius(3.0, &n), Some(2.0));
    assert_eq!(clip_radius(-1.0, &n), Some(1e-8));
    assert_eq!(clip_radius(0.7, &n), Some(0.7));
    assert_eq!(clip_radius(0.7, &[9e-9, 0.0]), None, "it has not moved");
}
