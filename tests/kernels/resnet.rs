//! PyTorch's values for the operations of a ResNet (`fixtures/generate_conv.py`) against the kernels and the f64 references.

use std::collections::BTreeMap;

use tpgm::cpu;
use tpgm::ops::batch_norm::{Behind, Mode, Stats};
use tpgm::ops::conv2d::Padding;
use tpgm::ops::{self, avg_pool, conv2d, max_pool};
use tpgm::suite::harness::{EPS, sum_tolerance, wide};

use super::common::Fixture;
use super::goldens::{assert_reference, on_devices};

/// A case of `conv.safetensors`: its tensors and its numbers.
struct Golden {
    name: String,
    fixture: Fixture,
    numbers: BTreeMap<String, f64>,
}

/// The cases of an operation.
fn cases(op: &str) -> Vec<Golden> {
    let all = Fixture::open("conv").json("cases");
    let all = all.as_object().unwrap();
    let number = |v: &serde_json::Value| v.as_f64().unwrap_or_else(|| f64::from(u8::from(v.as_bool().unwrap())));
    let found: Vec<Golden> = all
        .iter()
        .filter(|(name, _)| name.starts_with(op))
        .map(|(name, values)| Golden {
            name: name.clone(),
            fixture: Fixture::open("conv"),
            numbers: values.as_object().unwrap().iter().map(|(k, v)| (k.clone(), number(v))).collect(),
        })
        .collect();
    assert!(found.len() > 2, "cases of {op}");
    found
}

impl Golden {
    fn size(&self, key: &str) -> usize {
        self.numbers[key] as usize
    }

    fn get(&self, key: &str) -> Vec<f32> {
        self.fixture.f32(&format!("{}.{key}", self.name))
    }

    /// Images with their channels last; a leading dimension of steps stays.
    fn images(&self, key: &str) -> Vec<f32> {
        let shape = self.fixture.shape(&format!("{}.{key}", self.name));
        let [pixels, channels] = [shape[shape.len() - 2] * shape[shape.len() - 1], shape[shape.len() - 3]];
        let values = self.get(key);
        let image = |x: &[f32]| (0..x.len()).map(|i| x[i % channels * pixels + i / channels]).collect::<Vec<f32>>();
        values.chunks_exact(pixels * channels).flat_map(image).collect()
    }
}

#[test]
fn convolutions_agree_with_pytorch() {
    for golden in cases("conv2d") {
        let [batch, height, width, in_channels, out_channels, kernel, stride, padding, groups] =
            ["batch", "height", "width", "in", "out", "kernel", "stride", "padding", "groups"].map(|k| golden.size(k));
        let dims = conv2d::Dims {
            batch,
            height,
            width,
            in_channels,
            out_channels,
            kernel,
            stride,
            padding: Padding::Even(padding),
            groups,
        };
        let [inp, dout, out, dinp] = ["inp", "dout", "out", "dinp"].map(|k| golden.images(k));
        let [weight, dweight] = ["weight", "dweight"].map(|k| golden.get(k));
        let (inp64, dout64, weight64) = (wide(&inp), wide(&dout), wide(&weight));

        let (mut got, mut got_inp, mut got_weight) =
            (vec![0.0; out.len()], vec![0.0; inp.len()], vec![0.0; weight.len()]);
        cpu::conv2d::forward(&mut got, &inp64, &weight64, dims);
        cpu::conv2d::backward_input(&mut got_inp, &dout64, &weight64, dims, false);
        cpu::conv2d::backward_weight(&mut got_weight, &dout64, &inp64, dims);
        assert_reference(&golden.name, &got, &out);
        assert_reference(&golden.name, &got_inp, &dinp);
        assert_reference(&golden.name, &got_weight, &dweight);

        on_devices(&golden.name, |c, run| {
            let [x, w, g] = [c.input("inp", &inp)?, c.input("weight", &weight)?, c.input("dout", &dout)?];
            let [y, dx] = [c.output("out", out.len())?, c.output("dinp", inp.len())?];
            let dw = c.input("dweight", &vec![0.0; weight.len()])?;
            run(c, &|p| {
                conv2d::forward(p, &y, &x, &w, dims)?;
                conv2d::backward_input(p, &dx, &g, &w, dims, false)?;
                conv2d::backward_weight(p, &dw, &g, &x, dims)
            })?;
            // As in the suite.
            let taps = kernel * kernel;
            c.expect("conv2d::forward", &y, &wide(&out), sum_tolerance(taps * in_channels / groups, 5.0));
            c.expect("conv2d::backward_input", &dx, &wide(&dinp), sum_tolerance(taps * out_channels / groups, 5.0));
            c.expect("conv2d::backward_weight", &dw, &wide(&dweight), sum_tolerance(dims.out_pixels(), 5.0));
            Ok(())
        });
    }
}

#[test]
fn batch_norm_agrees_with_pytorch_over_three_steps_and_in_eval_mode() {
    for golden in cases("batch_norm") {
        let [batch, height, width, cols] = ["batch", "height", "width", "channels"].map(|k| golden.size(k));
        let rows = batch * height * width;
        let [inp, dout, out, dinp] = ["inp", "dout", "out", "dinp"].map(|k| golden.images(k));
        let [eval_out, eval_dinp] = ["eval_out", "eval_dinp"].map(|k| golden.images(k));
        let [weight, bias, running_mean, running_var] =
            ["weight", "bias", "running_mean", "running_var"].map(|k| golden.get(k));
        let [dweight, dbias, running_means, running_vars] =
            ["dweight", "dbias", "running_means", "running_vars"].map(|k| golden.get(k));
        let [eval_dweight, eval_dbias] = ["eval_dweight", "eval_dbias"].map(|k| golden.get(k));
        let (weight64, bias64) = (wide(&weight), wide(&bias));
        let (mut mean64, mut var64) = (wide(&running_mean), wide(&running_var));
        let matrix = |all: &[f32], step: usize| all[step * rows * cols..][..rows * cols].to_vec();
        let row = |all: &[f32], step: usize| all[step * cols..][..cols].to_vec();

        // Three training steps, then one look in eval mode at the first step's batch.
        for step in 0..4 {
            let train = step < 3;
            let (x, g) =
                if train { (matrix(&inp, step), matrix(&dout, step)) } else { (matrix(&inp, 0), matrix(&dout, 0)) };
            let [want, want_inp] =
                if train { [matrix(&out, step), matrix(&dinp, step)] } else { [eval_out.clone(), eval_dinp.clone()] };
            let [want_weight, want_bias] = if train {
                [row(&dweight, step), row(&dbias, step)]
            } else {
                [eval_dweight.clone(), eval_dbias.clone()]
            };
            let at = step.min(2);
            let [want_mean, want_var] = [row(&running_means, at), row(&running_vars, at)];
            let (x64, g64) = (wide(&x), wide(&g));
            let [before_mean, before_var] = if step == 0 {
                [running_mean.clone(), running_var.clone()]
            } else {
                [&running_means, &running_vars].map(|a| row(a, step - 1))
            };

            let (mut mean, mut var) = (mean64.clone(), var64.clone());
            if train {
                cpu::batch_norm::statistics(&mut mean, &mut var, &x64, rows, cols);
                cpu::batch_norm::update_running(&mut mean64, &mut var64, &mean, &var, rows, 0.1);
                assert_reference(&golden.name, &mean64, &want_mean);
                assert_reference(&golden.name, &var64, &want_var);
            }
            let (mut got, mut rstd) = (vec![0.0; rows * cols], vec![0.0; cols]);
            let (mut got_inp, mut got_weight, mut got_bias) =
                (vec![0.0; rows * cols], vec![0.0; cols], vec![0.0; cols]);
            cpu::batch_norm::normalise(
                &mut got, &mut rstd, &x64, &mean, &var, &weight64, &bias64, None, false, rows, cols, 1e-5,
            );
            cpu::batch_norm::backward(
                &mut got_inp,
                &mut got_weight,
                &mut got_bias,
                &g64,
                &x64,
                &weight64,
                &mean,
                &rstd,
                train,
                rows,
                cols,
            );
            assert_reference(&golden.name, &got, &want);
            assert_reference(&golden.name, &got_inp, &want_inp);
            assert_reference(&golden.name, &got_weight, &want_weight);
            assert_reference(&golden.name, &got_bias, &want_bias);

            // In eval mode the running mean's rounding in f32, 3e-5, is a hundredth of what `far` deviates by with eps.
            let tolerance = if !train && golden.name.ends_with("far") { 2e-2 } else { sum_tolerance(rows, 24.0) };
            let mode = if train { Mode::Train } else { Mode::Eval };
            let dims = ops::batch_norm::Dims { rows, cols, eps: 1e-5, momentum: 0.1 };
            on_devices(&golden.name, |c, run| {
                let [x, g] = [c.input("inp", &x)?, c.input("dout", &g)?];
                let [w, b] = [c.input("weight", &weight)?, c.input("bias", &bias)?];
                let [y, dx] = [c.output("out", rows * cols)?, c.output("dinp", rows * cols)?];
                let [mean, rstd] = [c.output("mean", cols)?, c.output("rstd", cols)?];
                let [running_mean, running_var] =
                    [c.input("running_mean", &before_mean)?, c.input("running_var", &before_var)?];
                let [dw, db] = [c.input("dweight", &vec![0.0; cols])?, c.input("dbias", &vec![0.0; cols])?];
                run(c, &|p| {
                    let stats =
                        Stats { mean: &mean, rstd: &rstd, running_mean: &running_mean, running_var: &running_var };
                    ops::batch_norm::forward(p, &y, stats, &x, &w, &b, None, None, mode, dims)?;
                    ops::batch_norm::backward(p, &dx, &dw, &db, &g, Behind::Nothing, &x, &w, &mean, &rstd, mode, dims)
                })?;
                c.expect("batch_norm::forward", &y, &wide(&want), tolerance);
                c.expect("batch_norm::backward", &dx, &wide(&want_inp), tolerance);
                c.expect("batch_norm::backward", &dw, &wide(&want_weight), tolerance);
                c.expect("batch_norm::backward", &db, &wide(&want_bias), sum_tolerance(rows, 24.0));
                c.expect("batch_norm::running", &running_mean, &wide(&want_mean), 4.0 * EPS);
                c.expect("batch_norm::running", &running_var, &wide(&want_var), sum_tolerance(rows, 8.0));
                // Saved between the two; the suite has them on their own.
                c.expect_bits("batch_norm::forward", &mean, &[], &[]);
                c.expect_bits("batch_norm::forward", &rstd, &[], &[]);
                Ok(())
            });
        }
    }
}

#[test]
fn max_pooling_agrees_with_pytorch() {
    for golden in cases("max_pool") {
        let [batch, height, width, channels, kernel, stride, padding] =
            ["batch", "height", "width", "channels", "kernel", "stride", "padding"].map(|k| golden.size(k));
        let dims = max_pool::Dims {
            batch,
            height,
            width,
            channels,
            kernel,
            stride,
            padding: Padding::Even(padding),
            zeros: false,
        };
        let [inp, dout, out, dinp] = ["inp", "dout", "out", "dinp"].map(|k| golden.images(k));
        let (mut got, mut tap, mut grad) = (vec![0.0; out.len()], vec![0; out.len()], vec![0.0; inp.len()]);
        cpu::max_pool::forward(&mut got, &mut tap, &wide(&inp), dims);
        cpu::max_pool::backward(&mut grad, &wide(&dout), &tap, dims);
        assert_reference(&golden.name, &got, &out);
        assert_reference(&golden.name, &grad, &dinp);
        on_devices(&golden.name, |c, run| {
            let [x, g] = [c.input("inp", &inp)?, c.input("dout", &dout)?];
            let [y, t, d] = [c.output("out", out.len())?, c.output("tap", out.len())?, c.output("dinp", inp.len())?];
            run(c, &|p| {
                max_pool::forward(p, &y, &t, &x, dims)?;
                max_pool::backward(p, &d, &g, &t, dims)
            })?;
            c.expect("max_pool::forward", &y, &wide(&out), 0.0);
            c.expect_bits("max_pool::forward", &t, &[0..tap.len()], &tap);
            c.expect("max_pool::backward", &d, &wide(&dinp), 8.0 * EPS);
            Ok(())
        });
    }
}

#[test]
fn average_pooling_agrees_with_pytorch() {
    for golden in cases("avg_pool") {
        let [batch, height, width, channels, kernel, stride, ceil_mode] =
            ["batch", "height", "width", "channels", "kernel", "stride", "ceil_mode"].map(|k| golden.size(k));
        let dims =
            avg_pool::Dims { batch, height, width, channels, kernel, stride, padding: 0, ceil_mode: ceil_mode == 1 };
        let [inp, dout, out, dinp] = ["inp", "dout", "out", "dinp"].map(|k| golden.images(k));
        let (mut got, mut grad) = (vec![0.0; out.len()], vec![0.0; inp.len()]);
        cpu::avg_pool::forward(&mut got, &wide(&inp), dims);
        cpu::avg_pool::backward(&mut grad, &wide(&dout), dims);
        assert_reference(&golden.name, &got, &out);
        assert_reference(&golden.name, &grad, &dinp);
        on_devices(&golden.name, |c, run| {
            let [x, g] = [c.input("inp", &inp)?, c.input("dout", &dout)?];
            let [y, d] = [c.output("out", out.len())?, c.output("dinp", inp.len())?];
            run(c, &|p| {
                avg_pool::forward(p, &y, &x, dims)?;
                avg_pool::backward(p, &d, &g, dims)
            })?;
            // Sums over at most nine pixels.
            c.expect("avg_pool::forward", &y, &wide(&out), 10.0 * EPS);
            c.expect("avg_pool::backward", &d, &wide(&dinp), 10.0 * EPS);
            Ok(())
        });
    }
}
