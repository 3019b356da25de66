//! PyTorch's values for single operations (`fixtures/ops.py`) against the kernels and against the f64 references.
//!
//! A golden is an f64 result rounded to f32: a reference must be within [`ROUNDED`] of it, a kernel within that and its
//! own tolerance.

use tpgm::cpu;
use tpgm::error::Result;
use tpgm::gpu::buffer::align;
use tpgm::shapes::Norm;

use tpgm::ops::adamw::AdamW;
use tpgm::ops::mars::{LOG_WORDS, Mars, RADIUS_WORDS};
use tpgm::ops::sgd::Sgd;
use tpgm::ops::step_state::{STATE_WORDS, StepState};
use tpgm::ops::{self, Recorder};
use tpgm::shapes::Activation;
use tpgm::shapes::{ParamLayout, Segment};
use tpgm::suite::harness::{Case, EPS, Launch, error, wide};

use super::{assert_passed, common, unchecked};
use common::Fixture;

/// Inputs and goldens are f32, rounded once; a reference that starts from another rounded golden (a saved mean) inherits it.
const ROUNDED: f64 = EPS;

fn ops_fixture() -> Fixture {
    Fixture::open("ops")
}

#[track_caller]
pub(super) fn assert_reference(key: &str, got: &[f64], golden: &[f32]) {
    let error = error(got, &wide(golden));
    assert!(error <= ROUNDED, "the reference of {key} is off by {error:e}");
}

/// Runs `body` in a case on both devices and in both sets of variants; all of its expectations must hold.
pub(super) fn on_devices(
    name: &str,
    body: impl Fn(&mut Case, &mut dyn FnMut(&mut Case, Op<'_>) -> Result<()>) -> Result<()>,
) {
    for gpu in [common::gpu(), unchecked()] {
        for launch in &Launch::all(gpu)[..2] {
            let mut case = Case::new(gpu, format!("{name}, {}", launch.suffix()), 1 << 16).unwrap();
            body(&mut case, &mut |case, op| case.run(*launch, op)).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_passed(name, &case.finish().unwrap_or_else(|e| panic!("{name}: {e}")));
        }
    }
}

pub(super) type Op<'a> = &'a dyn Fn(&mut Recorder) -> Result<()>;

#[test]
fn layer_norm_agrees_with_pytorch() {
    let fixture = ops_fixture();
    for name in ["small", "odd", "wide", "offset"] {
        let get = |key: &str| fixture.f32(&format!("layer_norm.{name}.{key}"));
        let [inp, weight, bias, dout] = ["inp", "weight", "bias", "dout"].map(get);
        let [out, mean, rstd, dinp, dweight, dbias] = ["out", "mean", "rstd", "dinp", "dweight", "dbias"].map(get);
        let (rows, cols) = (mean.len(), weight.len());
        let (inp64, weight64, dout64) = (wide(&inp), wide(&weight), wide(&dout));

        let (mut got, mut mean64, mut rstd64) = (vec![0.0; inp.len()], vec![0.0; rows], vec![0.0; rows]);
        cpu::layer_norm::forward(&mut got, &mut mean64, &mut rstd64, &inp64, &weight64, &wide(&bias), rows, cols, 1e-6);
        assert_reference(name, &got, &out);
        assert_reference(name, &mean64, &mean);
        assert_reference(name, &rstd64, &rstd);
        let (mut got, mut got_weight, mut got_bias) = (vec![0.0; inp.len()], vec![0.0; cols], vec![0.0; cols]);
        cpu::layer_norm::backward_input(&mut got, &dout64, &inp64, &weight64, &mean64, &rstd64, rows, cols);
        cpu::layer_norm::backward_params(&mut got_weight, &mut got_bias, &dout64, &inp64, &mean64, &rstd64, rows, cols);
        assert_reference(name, &got, &dinp);
        assert_reference(name, &got_weight, &dweight);
        assert_reference(name, &got_bias, &dbias);

        // `offset` has a mean of 30 and a deviation of 0.1: the mean's rounding shifts a row by 300 units.
        let tolerance = EPS * if name == "offset" { 1500.0 } else { 40.0 };
        let dims = ops::layer_norm::Dims { rows, cols, eps: 1e-6 };
        on_devices(name, |c, run| {
            let [x, w, b, g] =
                [c.input("inp", &inp)?, c.input("weight", &weight)?, c.input("bias", &bias)?, c.input("dout", &dout)?];
            let [y, mu, r] = [c.output("out", out.len())?, c.output("mean", rows)?, c.output("rstd", rows)?];
            let dx = c.output("dinp", dinp.len())?;
            let [dw, db] = [c.input("dweight", &vec![0.0; cols])?, c.input("dbias", &vec![0.0; cols])?];
            run(c, &|p| {
                ops::layer_norm::forward(p, &y, &mu, &r, &x, &w, &b, dims)?;
                ops::layer_norm::backward_input(p, &dx, &g, &x, &w, &mu, &r, dims, false)?;
                ops::layer_norm::backward_params(p, &dw, &db, &g, &x, &mu, &r, dims)
            })?;
            c.expect("layer_norm::forward", &y, &wide(&out), tolerance);
            c.expect("layer_norm::forward", &mu, &wide(&mean), 40.0 * EPS);
            c.expect("layer_norm::forward", &r, &wide(&rstd), tolerance);
            c.expect("layer_norm::backward_input", &dx, &wide(&dinp), tolerance);
            c.expect("layer_norm::backward_params", &dw, &wide(&dweight), tolerance);
            c.expect("layer_norm::backward_params", &db, &wide(&dbias), tolerance);
            Ok(())
        });
    }
}

#[test]
fn attention_agrees_with_pytorch() {
    let fixture = ops_fixture();
    for name in ["small", "long", "sharp"] {
        let get = |key: &str| fixture.f32(&format!("attention.{name}.{key}"));
        let [qkv, dout, out, dqkv] = ["qkv", "dout", "out", "dqkv"].map(get);
        let shape = fixture.shape(&format!("attention.{name}.out"));
        let heads = fixture.u32(&format!("attention.{name}.heads"))[0] as usize;
        let (batch, tokens, head_dim) = (shape[0], shape[1], shape[2] / heads);
        let dims = ops::attention::Dims { batch, tokens, heads, head_dim };
        let stats = batch * heads * tokens;

        let (mut got, mut lse) = (vec![0.0; out.len()], vec![0.0; stats]);
        cpu::attention::forward(&mut got, &mut lse, &wide(&qkv), batch, tokens, heads, head_dim);
        assert_reference(name, &got, &out);
        let (mut grad, out64) = (vec![0.0; dqkv.len()], got);
        cpu::attention::backward(&mut grad, &wide(&dout), &out64, &wide(&qkv), &lse, batch, tokens, heads, head_dim);
        assert_reference(name, &grad, &dqkv);

        // Sharp scores reach ±150, and exp turns their absolute rounding errors into relative ones.
        let tolerance = EPS * if name == "sharp" { 2000.0 } else { 100.0 };
        on_devices(name, |c, run| {
            let [qkv, g] = [c.input("qkv", &qkv)?, c.input("dout", &dout)?];
            let [y, lse, delta] = [c.output("out", out.len())?, c.output("lse", stats)?, c.output("delta", stats)?];
            let d = c.output("dqkv", dqkv.len())?;
            run(c, &|p| {
                ops::attention::forward(p, &y, &lse, &qkv, ops::attention::Scores::Plain, dims)?;
                ops::attention::backward(p, &d, &delta, &g, &y, &qkv, &lse, ops::attention::Scores::Plain, dims)
            })?;
            c.expect("attention::forward", &y, &wide(&out), tolerance);
            c.expect("attention::backward", &d, &wide(&dqkv), tolerance);
            // Between the two: the sharp test above holds them against the reference on their own.
            c.expect_bits("attention::forward", &lse, &[], &[]);
            c.expect_bits("attention::backward", &delta, &[], &[]);
            Ok(())
        });
    }
}

#[test]
fn gelu_agrees_with_pytorch() {
    let fixture = ops_fixture();
    let kinds = [("erf", Activation::Gelu), ("tanh", Activation::GeluTanh), ("quick", Activation::QuickGelu)];
    for (name, kind) in kinds {
        let get = |key: &str| fixture.f32(&format!("gelu.{name}.{key}"));
        let [inp, dout, out, dinp] = ["inp", "dout", "out", "dinp"].map(get);
        let (mut got, mut grad) = (vec![0.0; inp.len()], vec![0.0; inp.len()]);
        cpu::gelu::forward(&mut got, &wide(&inp), kind);
        cpu::gelu::backward(&mut grad, &wide(&dout), &wide(&inp), kind);
        assert_reference(name, &got, &out);
        assert_reference(name, &grad, &dinp);
        on_devices(name, |c, run| {
            let [x, g] = [c.input("inp", &inp)?, c.input("dout", &dout)?];
            let [y, d] = [c.output("out", inp.len())?, c.output("dinp", inp.len())?];
            run(c, &|p| {
                ops::gelu::forward(p, &y, &x, kind)?;
                ops::gelu::backward(p, &d, &g, &x, kind)
            })?;
            // The suite's tolerances for the same kernels.
            c.expect("gelu::forward", &y, &wide(&out), 16.0 * EPS);
            c.expect("gelu::backward", &d, &wide(&dinp), 128.0 * EPS);
            Ok(())
        });
    }
}

#[test]
fn hard_swish_agrees_with_pytorch() {
    let fixture = ops_fixture();
    let get = |key: &str| fixture.f32(&format!("hard_swish.{key}"));
    let [inp, dout, out, dinp] = ["inp", "dout", "out", "dinp"].map(get);
    let (mut got, mut grad) = (vec![0.0; inp.len()], vec![0.0; inp.len()]);
    cpu::hard_swish::forward(&mut got, &wide(&inp));
    cpu::hard_swish::backward_input(&mut grad, &wide(&dout), &wide(&inp));
    assert_reference("hard_swish", &got, &out);
    assert_reference("hard_swish", &grad, &dinp);
    on_devices("hard_swish", |c, run| {
        let [x, g] = [c.input("inp", &inp)?, c.input("dout", &dout)?];
        let [y, d] = [c.output("out", inp.len())?, c.output("dinp", inp.len())?];
        run(c, &|p| {
            ops::hard_swish::forward(p, &y, &x)?;
            ops::hard_swish::backward_input(p, &d, &g, &x)
        })?;
        // The suite's tolerances for the same kernels.
        c.expect("hard_swish::forward", &y, &wide(&out), 4.0 * EPS);
        c.expect("hard_swish::backward_input", &d, &wide(&dinp), 4.0 * EPS);
        Ok(())
    });
}

#[test]
fn swiglu_agrees_with_pytorch() {
    let fixture = ops_fixture();
    let get = |key: &str| fixture.f32(&format!("swiglu.{key}"));
    let [inp, dout, out, dinp] = ["inp", "dout", "out", "dinp"].map(get);
    let shape = fixture.shape("swiglu.out");
    let (rows, cols) = (shape[0], shape[1]);
    let (mut got, mut grad) = (vec![0.0; out.len()], vec![0.0; inp.len()]);
    cpu::swiglu::forward(&mut got, &wide(&inp), rows, cols);
    cpu::swiglu::backward(&mut grad, &wide(&dout), &wide(&inp), rows, cols);
    assert_reference("swiglu", &got, &out);
    assert_reference("swiglu", &grad, &dinp);
    on_devices("swiglu", |c, run| {
        let [x, g] = [c.input("inp", &inp)?, c.input("dout", &dout)?];
        let [y, d] = [c.output("out", out.len())?, c.output("dinp", inp.len())?];
        run(c, &|p| {
            ops::swiglu::forward(p, &y, &x, rows, cols)?;
            ops::swiglu::backward(p, &d, &g, &x, rows, cols)
        })?;
        // The suite's tolerances for the same kernels.
        c.expect("swiglu::forward", &y, &wide(&out), 20.0 * EPS);
        c.expect("swiglu::backward", &d, &wide(&dinp), 40.0 * EPS);
        Ok(())
    });
}

#[test]
fn cross_entropy_agrees_with_pytorch() {
    let fixture = ops_fixture();
    for name in ["plain", "smooth", "large", "wide"] {
        let get = |key: &str| fixture.f32(&format!("cross_entropy.{name}.{key}"));
        let [logits, smoothing, mean, losses, dlogits] =
            ["logits", "smoothing", "loss", "row_losses", "dlogits"].map(get);
        let labels = fixture.u32(&format!("cross_entropy.{name}.labels"));
        let (batch, smoothing) = (labels.len(), smoothing[0]);
        let classes = logits.len() / batch;
        let (mut loss, mut grad) = (vec![0.0; batch], vec![0.0; logits.len()]);
        // 0.1 in f32 is not PyTorch's 0.1: off by 1.5e-8, a quarter of a unit.
        let (smoothing64, scale64) = (f64::from(smoothing), 1.0 / batch as f64);
        cpu::cross_entropy::forward(
            &mut loss,
            &mut grad,
            &wide(&logits),
            &labels,
            batch,
            classes,
            smoothing64,
            scale64,
        );
        assert_reference(name, &loss, &losses);
        assert_reference(name, &grad, &dlogits);
        assert_reference(name, &[loss.iter().sum::<f64>() / batch as f64], &mean);

        let grad_scale = 1.0 / batch as f32;
        let dims = ops::cross_entropy::Dims { batch, classes, smoothing, grad_scale };
        on_devices(name, |c, run| {
            let [x, y] = [c.input("logits", &logits)?, c.words("labels", &labels)?];
            let [l, d] = [c.output("loss", batch)?, c.output("dlogits", logits.len())?];
            let [ring, step] = [c.input("ring", &[0.0; 4])?, c.words("step", &[0; 7])?];
            run(c, &|p| {
                ops::cross_entropy::forward(p, &l, &d, &x, &y, dims)?;
                ops::cross_entropy::record(p, &ring, &l, &step, ops::cross_entropy::Channel::Train, dims)
            })?;
            // As in the suite: sums over at most 197 classes.
            c.expect("cross_entropy::forward", &l, &wide(&losses), 32.0 * EPS);
            c.expect("cross_entropy::forward", &d, &wide(&dlogits), 32.0 * EPS + EPS * classes as f64);
            c.expect_at("cross_entropy::record", &ring, &[0..1], &[f64::from(mean[0]), 0.0, 0.0, 0.0], 32.0 * EPS);
            Ok(())
        });
    }
}

#[test]
fn binary_cross_entropy_agrees_with_pytorch() {
    let fixture = Fixture::open("labels");
    for name in ["plain", "weighted", "soft", "large"] {
        let get = |key: &str| fixture.f32(&format!("loss.{name}.{key}"));
        let [logits, targets, positive] = ["logits", "targets", "positive"].map(get);
        let [mean, losses, dlogits] = ["loss", "row_losses", "dlogits"].map(get);
        let (batch, classes) = (losses.len(), positive.len());
        let (mut loss, mut grad) = (vec![0.0; batch], vec![0.0; logits.len()]);
        let both = (&wide(&targets)[..], &wide(&positive)[..]);
        let scale = 1.0 / batch as f64;
        cpu::binary_cross_entropy::forward(&mut loss, &mut grad, &wide(&logits), both, batch, classes, scale);
        assert_reference(name, &loss, &losses);
        assert_reference(name, &grad, &dlogits);
        assert_reference(name, &[loss.iter().sum::<f64>() / batch as f64], &mean);

        let dims = ops::binary_cross_entropy::Dims { batch, classes, grad_scale: 1.0 / batch as f32 };
        on_devices(name, |c, run| {
            let [x, y, w] =
                [c.input("logits", &logits)?, c.input("targets", &targets)?, c.input("positive", &positive)?];
            let [l, d] = [c.output("loss", batch)?, c.output("dlogits", logits.len())?];
            run(c, &|p| ops::binary_cross_entropy::forward(p, &l, &d, &x, (&y, &w), None, dims))?;
            // As in the suite: a sum over at most 65 classes.
            c.expect("binary_cross_entropy::forward", &l, &wide(&losses), 32.0 * EPS);
            c.expect("binary_cross_entropy::forward", &d, &wide(&dlogits), 24.0 * EPS);
            Ok(())
        });
    }
}

#[test]
fn patch_embedding_agrees_with_pytorch() {
    let fixture = ops_fixture();
    for (name, patch) in [("p4", 4), ("p5", 5)] {
        let get = |key: &str| fixture.f32(&format!("patch_embed.{name}.{key}"));
        let [inp, weight, bias, dout, out, dweight, dbias] =
            ["inp", "weight", "bias", "dout", "out", "dweight", "dbias"].map(get);
        let shape = fixture.shape(&format!("patch_embed.{name}.inp"));
        let prefix = Default::default();
        let dims =
            ops::patch_embed::Dims { batch: shape[0], size: shape[2], channels: 3, patch, dim: bias.len(), prefix };
        let (m, n, k) = (dims.batch * dims.patches(), dims.dim, dims.patch_len());

        let (mut cols, mut got) = (vec![0.0; m * k], vec![0.0; m * n]);
        cpu::patch_embed::unfold(&mut cols, &wide(&inp), dims.batch, 3, [dims.size; 2], patch);
        let bias64 = wide(&bias);
        cpu::matmul::matmul(&mut got, &cols, &wide(&weight), Some(&bias64), m, n, k, false, true, false, 1);
        assert_reference(name, &got, &out);
        let mut grad = vec![0.0; n * k];
        cpu::matmul::matmul(&mut grad, &wide(&dout), &cols, None, n, k, m, true, false, false, 1);
        assert_reference(name, &grad, &dweight);

        on_devices(name, |c, run| {
            let [x, w, b, g] =
                [c.input("inp", &inp)?, c.input("weight", &weight)?, c.input("bias", &bias)?, c.input("dout", &dout)?];
            let [patches, y] = [c.output("patches", m * k)?, c.output("out", m * n)?];
            let [dw, db] = [c.input("dweight", &vec![0.0; n * k])?, c.input("dbias", &vec![0.0; n])?];
            run(c, &|p| {
                ops::patch_embed::unfold(p, &patches, &x, dims)?;
                ops::matmul::forward(p, &y, &patches, &w, Some(&b), m, n, k)?;
                ops::matmul::backward_weight(p, &dw, &g, &patches, m, n, k)?;
                ops::column_sum::forward(p, &db, &g, m, n)
            })?;
            // Sums over 75 pixels or 18 patches.
            c.expect("patch_embed::unfold", &patches, &cols, 0.0);
            c.expect("matmul::forward", &y, &wide(&out), 20.0 * EPS);
            c.expect("matmul::backward_weight", &dw, &wide(&dweight), 20.0 * EPS);
            c.expect("column_sum::forward", &db, &wide(&dbias), 20.0 * EPS);
            Ok(())
        });
    }
}

/// What `step` binds: learning rate, both corrections, step, slot, whether it is the first, micro-batch.
fn step_words(lr: f64, corrections: (f64, f64), t: u32) -> [u32; STATE_WORDS] {
    let [lr, bias_correction1, bias_correction2_sqrt] = [lr, corrections.0, corrections.1].map(|x| x as f32);
    let first = u32::from(t == 1);
    StepState { lr, bias_correction1, bias_correction2_sqrt, step: t, first, ..StepState::default() }.words()
}

#[test]
fn optimizers_agree_with_pytorch() {
    let fixture = ops_fixture();
    for name in ["adamw.vector", "sgd.vector", "sgd.plain", "sgd.heavy_ball"] {
        let get = |key: &str| fixture.f32(&format!("{name}.{key}"));
        let [w0, grads, after] = ["w0", "grads", "w"].map(get);
        let hyper = fixture.json(name);
        let number = |key: &str| hyper[key].as_f64().unwrap_or_else(|| panic!("{name}: no {key}"));
        let (lr, weight_decay, len) = (number("lr"), number("weight_decay"), w0.len());
        let steps = grads.len() / len;
        let adam = name.starts_with("adamw");
        let (beta1, beta2) =
            if adam { (hyper["betas"][0].as_f64().unwrap(), hyper["betas"][1].as_f64().unwrap()) } else { (0.0, 0.0) };
        let (momentum, nesterov) =
            if adam { (0.0, false) } else { (number("momentum"), hyper["nesterov"].as_bool().unwrap()) };
        let eps = if adam { number("eps") } else { 0.0 };

        let (mut w, mut m, mut v) = (wide(&w0), vec![0.0; len], vec![0.0; len]);
        for t in 1..=steps {
            let dw = wide(&grads[(t - 1) * len..t * len]);
            if adam {
                cpu::adamw::step(&mut w, &mut m, &mut v, &dw, lr, beta1, beta2, eps, weight_decay, t as u32, 1.0);
            } else {
                cpu::sgd::step(&mut w, &mut m, &dw, lr, momentum, nesterov, weight_decay, t == 1, 1.0);
            }
            assert_reference(name, &w, &after[(t - 1) * len..t * len]);
        }

        // As in an arena, whose tensors are padded.
        let padded = |values: &[f32]| [values, &vec![0.0; align(len) - len]].concat();
        let segments = [Segment { offset: 0, len: align(len) }];
        on_devices(name, |c, run| {
            let zero = vec![0.0; align(len)];
            let [w, m, v] = [c.input("w", &padded(&w0))?, c.input("m", &zero)?, c.input("v", &zero)?];
            let health = c.words("health", &[1f32.to_bits(), 0])?;
            for t in 1..=steps {
                let dw = c.input("dw", &padded(&grads[(t - 1) * len..t * len]))?;
                let corrections = (1.0 - beta1.powi(t as i32), (1.0 - beta2.powi(t as i32)).sqrt());
                let step = c.words("step", &step_words(lr, corrections, t as u32))?;
                let adamw = AdamW { beta1, beta2, eps: eps as f32, weight_decay: weight_decay as f32 };
                let sgd = Sgd { momentum: momentum as f32, nesterov, weight_decay: weight_decay as f32 };
                let buffer = (momentum != 0.0).then_some(&m);
                run(c, &|p| match adam {
                    true => ops::adamw::step(p, &w, &m, &v, &dw, &step, &health, &segments, adamw),
                    false => ops::sgd::step(p, &w, buffer, &dw, &step, &health, &segments, sgd),
                })?;
            }
            // Five steps of a few roundings each; settings are f32 on the device.
            let kernel = if adam { "adamw::forward" } else { "sgd::forward" };
            c.expect(kernel, &w, &wide(&padded(&after[(steps - 1) * len..])), 20.0 * EPS);
            for state in [&m, &v] {
                c.expect_bits(kernel, state, &[], &[]);
            }
            Ok(())
        });
    }
}

/// Cases of `pins.safetensors`, each under both norms.
const PINS: [&str; 14] = [
    "linear",
    "vector",
    "conv",
    "positions",
    "column",
    "wide",
    "tiny_gamma",
    "negative_gamma",
    "dead_exact",
    "dead_over",
    "alive_over",
    "unmoved",
    "barely",
    "still_row",
];

#[test]
fn projections_agree_with_pytorch() {
    let fixture = Fixture::open("pins");
    for name in PINS {
        for (norm, tag) in [(Norm::Mars, "mars"), (Norm::L2, "l2")] {
            pin(&fixture, name, norm, tag);
        }
    }
}

fn pin(fixture: &Fixture, name: &str, norm: Norm, tag: &str) {
    let title = format!("{name}, {tag}");
    let get = |key: &str| fixture.f32(&format!("{name}.{tag}.{key}"));
    let [w0, w, g] = ["w0", "w", "g"].map(|key| fixture.f32(&format!("{name}.{key}")));
    let [gamma, bounded, norms, projected, dgamma, initial] =
        ["gamma", "gamma_bounded", "norms", "projected", "dgamma", "gamma_init"].map(get);
    let active: u32 = fixture.u32(&format!("{name}.{tag}.active")).iter().sum();
    let shape = fixture.shape(&format!("{name}.w"));
    let rows = norm.rows(&shape);
    let cols = w.len() / rows;
    let moved = norms.iter().any(|n| *n >= 1e-8);

    // A sum of at most 591 products that may cancel: its error is relative to the sum of their sizes.
    let size: f32 = (0..w.len()).map(|i| (g[i] * (w[i] - w0[i])).abs() / (norms[i / cols] + 1e-8)).sum();
    let slack = if dgamma[0] == 0.0 { 0.0 } else { 8.0 * f32::EPSILON * (1.0 + size / dgamma[0].abs()) };

    // The reference, in f32 where activity is a matter of rounding, in f64 for the sums.
    let mut n64 = vec![0.0; rows];
    cpu::mars::norms(&mut n64, &wide(&w), &wide(&w0), rows, cols, norm);
    assert_reference(&title, &n64, &norms);
    assert_reference(&title, &[cpu::mars::initial_radius(&n64)], &initial);
    let clipped = cpu::mars::clip_radius(gamma[0], &norms);
    assert_eq!(clipped.unwrap_or(gamma[0]), bounded[0], "{title}: bounds");
    assert_eq!(clipped.is_some(), moved, "{title}: moved");
    if moved {
        let (got, live) = cpu::mars::radius_backward(&g, &w, &w0, bounded[0], &norms, rows, cols);
        assert_eq!(live as u32, active, "{title}: active rows");
        assert!((got - dgamma[0]).abs() <= slack * dgamma[0].abs(), "{title}: {got}, not {}", dgamma[0]);
        let mut out = vec![0.0; w.len()];
        cpu::mars::project(&mut out, &wide(&w), &wide(&w0), f64::from(bounded[0]), &wide(&norms), rows, cols);
        assert_reference(&title, &out, &projected);
    }

    let layout = ParamLayout::new(&[(name.to_string(), shape)]);
    let pad = |values: &[f32]| layout.pack([values].into_iter());
    on_devices(&title, |c, run| {
        let [w, w0, g] = [c.input("w", &pad(&w))?, c.input("w0", &pad(&w0))?, c.input("g", &pad(&g))?];
        let [out, log] = [c.input("w_proj", &pad(&vec![0.5; projected.len()]))?, c.input("log", &[0.0; LOG_WORDS])?];
        let state = c.words("state", &[0; 7])?;
        let mars = Mars::new(c.gpu(), &layout, norm, &[false])?;
        let started = Mars::new(c.gpu(), &layout, norm, &[false])?;
        c.gpu().write(&mars.radii, &[gamma[0].to_bits(), 0, 0, 0, 0, 1]);
        for radii in [&mars.radii, &started.radii] {
            c.adopt("radii", radii)?;
        }
        run(c, &|p| {
            mars.clip(p, &w, &w0, false)?;
            mars.project(p, &out, &w, &w0)?;
            // At rate 0 gamma stays what the bounds made of it.
            mars.step(p, &log, &state, &g, &w, &w0, 0.0)?;
            started.clip(p, &w, &w0, true)
        })?;
        let len = layout.params[0].len;
        c.expect_at("mars::project", &out, std::slice::from_ref(&(0..len)), &wide(&projected), 8.0 * EPS);
        let words = |values: [(usize, f64); 1], len: usize| {
            let mut want = vec![0.0; len];
            values.iter().for_each(|(i, v)| want[*i] = *v);
            want
        };
        // Norms are sums of at most 591 terms, all positive.
        let tolerance = 50.0 * EPS;
        let largest = norms.iter().fold(0.0f32, |a, n| a.max(*n));
        // An unmoved tensor's drift, 1e-10 squared, is below what some adapters keep of an f32 under a root.
        let slack = tolerance + f64::from(slack);
        for (word, value, tolerance) in [(0, bounded[0], tolerance), (1, largest, tolerance), (3, dgamma[0], slack)] {
            if moved || word == 0 {
                c.expect_at(
                    "mars::step",
                    &log,
                    &[word..word + 1],
                    &words([(word, f64::from(value))], LOG_WORDS),
                    tolerance,
                );
            }
        }
        c.expect_bits("mars::step", &log, &[2..3], &[0, 0, active, 0]);
        let first = if moved { initial[0].clamp(1e-8, largest) } else { 0.0 };
        c.expect_at("mars::clip", &started.radii, &[0..1], &words([(0, f64::from(first))], RADIUS_WORDS), tolerance);
        c.expect_bits("mars::clip", &started.radii, &[5..6], &[0, 0, 0, 0, 0, u32::from(moved)]);
        c.expect_bits("mars::step", &mars.radii, &[3..4], &[0, 0, 0, u32::from(moved)]);
        Ok(())
    });
}
