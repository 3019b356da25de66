//! PyTorch's and timm's values for the operations over the channels of images (`fixtures/generate_channels.py`) against the kernels
//! and the f64 references.

use std::collections::BTreeMap;

use tpgm::cpu;
use tpgm::ops::depthwise::Padding;
use tpgm::ops::{self, blur, conv2d, depthwise, eca, gate, grn, group_norm, max_pool, standardize, unfold};
use tpgm::suite::harness::{EPS, sum_tolerance, wide};

use super::common::Fixture;
use super::goldens::{assert_reference, on_devices};

/// A case of `channels.safetensors`: its tensors and its numbers.
struct Golden {
    name: String,
    fixture: Fixture,
    numbers: BTreeMap<String, i64>,
}

/// The cases of an operation.
fn cases(op: &str) -> Vec<Golden> {
    let all = Fixture::open("channels").json("cases");
    let all = all.as_object().unwrap();
    let number = |v: &serde_json::Value| v.as_i64().unwrap_or_else(|| i64::from(v.as_bool().unwrap()));
    let found: Vec<Golden> = all
        .iter()
        .filter(|(name, _)| name.starts_with(&format!("{op}.")))
        .map(|(name, values)| Golden {
            name: name.clone(),
            fixture: Fixture::open("channels"),
            numbers: values.as_object().unwrap().iter().map(|(k, v)| (k.clone(), number(v))).collect(),
        })
        .collect();
    assert!(found.len() > 2, "cases of {op}");
    found
}

impl Golden {
    fn sizes<const N: usize>(&self, keys: [&str; N]) -> [usize; N] {
        keys.map(|key| self.numbers[key] as usize)
    }

    fn get(&self, key: &str) -> Vec<f32> {
        self.fixture.f32(&format!("{}.{key}", self.name))
    }
}

const IMAGE: [&str; 4] = ["batch", "height", "width", "channels"];

#[test]
fn depthwise_convolutions_agree_with_pytorch() {
    for golden in cases("depthwise") {
        let [batch, height, width, channels] = golden.sizes(IMAGE);
        let [kernel, stride] = golden.sizes(["kernel", "stride"]);
        let padding = match golden.numbers["padding"] {
            -1 => Padding::Same,
            padding => Padding::Even(padding as usize),
        };
        let dims = depthwise::Dims { batch, height, width, channels, kernel, stride, padding };
        let [inp, weight, bias, dout] = ["inp", "weight", "bias", "dout"].map(|k| golden.get(k));
        let [out, dinp, dweight, dbias] = ["out", "dinp", "dweight", "dbias"].map(|k| golden.get(k));
        let (inp64, weight64, bias64, dout64) = (wide(&inp), wide(&weight), wide(&bias), wide(&dout));
        let (mut got, mut got_inp, mut got_weight) =
            (vec![0.0; out.len()], vec![0.0; inp.len()], vec![0.0; weight.len()]);
        cpu::depthwise::forward(&mut got, &inp64, &weight64, Some(&bias64), dims);
        cpu::depthwise::backward_input(&mut got_inp, &dout64, &weight64, dims, false);
        cpu::depthwise::backward_weight(&mut got_weight, &dout64, &inp64, dims);
        assert_reference(&golden.name, &got, &out);
        assert_reference(&golden.name, &got_inp, &dinp);
        assert_reference(&golden.name, &got_weight, &dweight);

        on_devices(&golden.name, |c, run| {
            let [x, w, b, g] =
                [c.input("inp", &inp)?, c.input("weight", &weight)?, c.input("bias", &bias)?, c.input("dout", &dout)?];
            let [y, dx] = [c.output("out", out.len())?, c.output("dinp", inp.len())?];
            let [dw, db] = [c.input("dweight", &vec![0.0; weight.len()])?, c.input("dbias", &vec![0.0; channels])?];
            run(c, &|p| {
                depthwise::forward(p, &y, &x, &w, Some(&b), dims)?;
                depthwise::backward_input(p, &dx, &g, &w, dims, false)?;
                depthwise::backward_weight(p, &dw, &g, &x, dims)?;
                depthwise::backward_bias(p, &db, &g, dims)
            })?;
            // As in the suite.
            let window = sum_tolerance(kernel * kernel, 5.0);
            let pixels = sum_tolerance(dims.out_len() / channels, 5.0);
            c.expect("depthwise::forward", &y, &wide(&out), window);
            c.expect("depthwise::backward_input", &dx, &wide(&dinp), stride as f64 * window);
            c.expect("depthwise::backward_weight", &dw, &wide(&dweight), pixels);
            c.expect("column_sum::forward", &db, &wide(&dbias), pixels);
            Ok(())
        });
    }
}

#[test]
fn blurs_agree_with_timm() {
    for golden in cases("blur") {
        let [batch, height, width, channels] = golden.sizes(IMAGE);
        let [stride, kind] = golden.sizes(["stride", "kind"]);
        let filter = [blur::Filter::Reflected, blur::Filter::Zeros, blur::Filter::Mean][kind];
        let dims = blur::Dims { batch, height, width, channels, stride, filter };
        let [inp, dout, out, dinp] = ["inp", "dout", "out", "dinp"].map(|k| golden.get(k));
        let (mut got, mut got_inp) = (vec![0.0; out.len()], vec![0.0; inp.len()]);
        cpu::blur::forward(&mut got, &wide(&inp), dims);
        cpu::blur::backward(&mut got_inp, &wide(&dout), dims);
        assert_reference(&golden.name, &got, &out);
        assert_reference(&golden.name, &got_inp, &dinp);
        on_devices(&golden.name, |c, run| {
            let [x, g] = [c.input("inp", &inp)?, c.input("dout", &dout)?];
            let [y, dx] = [c.output("out", out.len())?, c.output("dinp", inp.len())?];
            run(c, &|p| {
                blur::forward(p, &y, &x, dims)?;
                blur::backward(p, &dx, &g, dims)
            })?;
            // As in the suite.
            c.expect("blur::forward", &y, &wide(&out), sum_tolerance(9, 5.0));
            c.expect("blur::backward", &dx, &wide(&dinp), sum_tolerance(9, 5.0));
            Ok(())
        });
    }
}

#[test]
fn windows_agree_with_pytorch() {
    for golden in cases("unfold") {
        let [batch, height, width, channels] = golden.sizes(IMAGE);
        let [kernel, stride, padding] = golden.sizes(["kernel", "stride", "padding"]);
        let dims = unfold::Dims { batch, height, width, channels, kernel, stride, padding: Padding::Even(padding) };
        let [inp, dout, out, dinp] = ["inp", "dout", "out", "dinp"].map(|k| golden.get(k));
        let (mut got, mut got_inp) = (vec![0.0; out.len()], vec![0.0; inp.len()]);
        cpu::unfold::forward(&mut got, &wide(&inp), dims);
        cpu::unfold::backward(&mut got_inp, &wide(&dout), dims, false);
        assert_reference(&golden.name, &got, &out);
        assert_reference(&golden.name, &got_inp, &dinp);
        on_devices(&golden.name, |c, run| {
            let [x, g] = [c.input("inp", &inp)?, c.input("dout", &dout)?];
            let [y, dx] = [c.output("out", out.len())?, c.output("dinp", inp.len())?];
            run(c, &|p| {
                unfold::forward(p, &y, &x, dims)?;
                unfold::backward(p, &dx, &g, dims, false)
            })?;
            c.expect("unfold::forward", &y, &wide(&out), 0.0);
            c.expect("unfold::backward", &dx, &wide(&dinp), sum_tolerance(4, 3.0));
            Ok(())
        });
    }
}

#[test]
fn responses_agree_with_timm() {
    for golden in cases("grn") {
        let [batch, height, width, cols] = golden.sizes(IMAGE);
        let (rows, eps) = (height * width, 1e-6);
        let [inp, weight, bias, dout] = ["inp", "weight", "bias", "dout"].map(|k| golden.get(k));
        let [out, dinp, dweight, dbias] = ["out", "dinp", "dweight", "dbias"].map(|k| golden.get(k));
        let (inp64, weight64) = (wide(&inp), wide(&weight));
        let (mut got, mut norm, mut inverse) = (vec![0.0; out.len()], vec![0.0; batch * cols], vec![0.0; batch]);
        cpu::grn::forward(&mut got, &mut norm, &mut inverse, &inp64, &weight64, &wide(&bias), 1e-6, batch, rows, cols);
        assert_reference(&golden.name, &got, &out);
        let [mut got_weight, mut got_bias] = [0; 2].map(|_| vec![0.0; cols]);
        cpu::grn::backward(
            &mut got,
            &mut got_weight,
            &mut got_bias,
            &wide(&dout),
            &inp64,
            &weight64,
            &norm,
            &inverse,
            batch,
            rows,
            cols,
        );
        assert_reference(&golden.name, &got, &dinp);
        assert_reference(&golden.name, &got_weight, &dweight);
        assert_reference(&golden.name, &got_bias, &dbias);
        let dims = grn::Dims { batch, rows, cols };
        on_devices(&golden.name, |c, run| {
            let [x, w, b, g] =
                [c.input("inp", &inp)?, c.input("weight", &weight)?, c.input("bias", &bias)?, c.input("dout", &dout)?];
            let [y, dx] = [c.output("out", out.len())?, c.output("dinp", inp.len())?];
            let [n, i] = [c.output("norm", batch * cols)?, c.output("inverse", batch)?];
            let [dw, db] = [c.input("dweight", &vec![0.0; cols])?, c.input("dbias", &vec![0.0; cols])?];
            let [first, second, third] = [0; 3].map(|_| c.output("room", batch * cols));
            let room = [first?, second?, third?];
            run(c, &|p| {
                grn::forward(p, &y, &n, &i, &x, &w, &b, eps, dims)?;
                grn::backward(p, &dx, &dw, &db, room.each_ref(), &g, &x, &w, &n, &i, dims)
            })?;
            // As in the suite.
            let sums = sum_tolerance(rows, 9.0) + sum_tolerance(cols, 8.0);
            c.expect("grn::forward", &y, &wide(&out), sums);
            c.expect("grn::backward", &dx, &wide(&dinp), 2.0 * sums);
            c.expect("grn::backward", &dw, &wide(&dweight), 3.0 * sums);
            c.expect("grn::backward", &db, &wide(&dbias), sum_tolerance(batch * rows, 5.0));
            for between in [&n, &i, &room[0], &room[1], &room[2]] {
                c.expect_bits("grn::backward", between, &[], &[]);
            }
            Ok(())
        });
    }
}

#[test]
fn gates_agree_with_pytorch() {
    for golden in cases("gate") {
        let [batch, height, width, cols] = golden.sizes(IMAGE);
        let dims = gate::Dims { batch, rows: height * width, cols };
        let kind = if golden.numbers["hard"] == 1 { gate::Kind::HardSigmoid } else { gate::Kind::Sigmoid };
        let [inp, scale, shortcut, dout] = ["inp", "scale", "shortcut", "dout"].map(|k| golden.get(k));
        let [out, dinp, dscale] = ["out", "dinp", "dscale"].map(|k| golden.get(k));
        let (inp64, scale64, shortcut64) = (wide(&inp), wide(&scale), wide(&shortcut));
        let mut got = vec![0.0; out.len()];
        cpu::gate::forward(&mut got, &inp64, &scale64, Some(&shortcut64), true, kind, batch, dims.rows, cols);
        assert_reference(&golden.name, &got, &out);
        let (mut got_inp, mut got_scale) = (vec![0.0; inp.len()], vec![0.0; scale.len()]);
        let (dout64, saved) = (wide(&dout), got);
        cpu::gate::backward(
            &mut got_inp,
            &mut got_scale,
            &dout64,
            Some(&saved),
            &inp64,
            &scale64,
            kind,
            batch,
            dims.rows,
            cols,
        );
        assert_reference(&golden.name, &got_inp, &dinp);
        assert_reference(&golden.name, &got_scale, &dscale);
        on_devices(&golden.name, |c, run| {
            let [x, s, add, g] = [
                c.input("inp", &inp)?,
                c.input("scale", &scale)?,
                c.input("shortcut", &shortcut)?,
                c.input("dout", &dout)?,
            ];
            let [y, dx, ds] =
                [c.output("out", out.len())?, c.output("dinp", inp.len())?, c.output("dscale", scale.len())?];
            run(c, &|p| {
                gate::forward(p, &y, &x, &s, Some(&add), true, kind, dims)?;
                gate::backward(p, &dx, &ds, &g, Some(&y), &x, &s, kind, dims)
            })?;
            // As in the suite.
            c.expect("gate::forward", &y, &wide(&out), 25.0 * EPS);
            c.expect("gate::backward", &dx, &wide(&dinp), 25.0 * EPS);
            c.expect("gate::backward", &ds, &wide(&dscale), 25.0 * EPS + sum_tolerance(dims.rows, 8.0));
            Ok(())
        });
    }
}

#[test]
fn convolutions_along_channels_agree_with_pytorch() {
    for golden in cases("eca") {
        let [batch, channels, kernel] = golden.sizes(["batch", "channels", "kernel"]);
        let [inp, weight, dout] = ["inp", "weight", "dout"].map(|k| golden.get(k));
        let [out, dinp, dweight] = ["out", "dinp", "dweight"].map(|k| golden.get(k));
        let (inp64, weight64, dout64) = (wide(&inp), wide(&weight), wide(&dout));
        let (mut got, mut got_inp, mut got_weight) = (vec![0.0; out.len()], vec![0.0; inp.len()], vec![0.0; kernel]);
        cpu::eca::forward(&mut got, &inp64, &weight64, batch, channels);
        cpu::eca::backward_input(&mut got_inp, &dout64, &weight64, batch, channels);
        cpu::eca::backward_weight(&mut got_weight, &dout64, &inp64, batch, channels);
        assert_reference(&golden.name, &got, &out);
        assert_reference(&golden.name, &got_inp, &dinp);
        assert_reference(&golden.name, &got_weight, &dweight);
        let dims = eca::Dims { batch, channels, kernel };
        on_devices(&golden.name, |c, run| {
            let [x, w, g] = [c.input("inp", &inp)?, c.input("weight", &weight)?, c.input("dout", &dout)?];
            let [y, dx] = [c.output("out", out.len())?, c.output("dinp", inp.len())?];
            let dw = c.input("dweight", &vec![0.0; kernel])?;
            run(c, &|p| {
                ops::eca::forward(p, &y, &x, &w, dims)?;
                ops::eca::backward_input(p, &dx, &g, &w, dims)?;
                ops::eca::backward_weight(p, &dw, &g, &x, dims)
            })?;
            c.expect("eca::forward", &y, &wide(&out), sum_tolerance(kernel, 3.0));
            c.expect("eca::backward_input", &dx, &wide(&dinp), sum_tolerance(kernel, 3.0));
            c.expect("eca::backward_weight", &dw, &wide(&dweight), sum_tolerance(batch * channels, 5.0));
            Ok(())
        });
    }
}

#[test]
fn activations_agree_with_pytorch() {
    type Passes = (fn(&mut [f64], &[f64]), fn(&mut [f64], &[f64], &[f64]));
    let references: [(&str, Passes); 2] = [
        ("silu", (cpu::silu::forward, cpu::silu::backward_input)),
        ("relu6", (cpu::relu6::forward, cpu::relu6::backward_input)),
    ];
    for (op, (forward, backward)) in references {
        for golden in cases(op) {
            let [inp, dout, out, dinp] = ["inp", "dout", "out", "dinp"].map(|k| golden.get(k));
            let (mut got, mut grad) = (vec![0.0; inp.len()], vec![0.0; inp.len()]);
            forward(&mut got, &wide(&inp));
            backward(&mut grad, &wide(&dout), &wide(&inp));
            assert_reference(&golden.name, &got, &out);
            assert_reference(&golden.name, &grad, &dinp);
            on_devices(&golden.name, |c, run| {
                let [x, g] = [c.input("inp", &inp)?, c.input("dout", &dout)?];
                let [y, dx] = [c.output("out", inp.len())?, c.output("dinp", inp.len())?];
                run(c, &|p| {
                    if op == "silu" {
                        ops::silu::forward(p, &y, &x)?;
                        return ops::silu::backward_input(p, &dx, &g, &x);
                    }
                    ops::relu6::forward(p, &y, &x)?;
                    ops::relu6::backward_input(p, &dx, &g, &x)
                })?;
                // The suite's tolerances for the same kernels.
                let [forward, backward] = if op == "silu" {
                    ["silu::forward", "silu::backward_input"]
                } else {
                    ["relu6::forward", "relu6::backward_input"]
                };
                c.expect(forward, &y, &wide(&out), 17.0 * EPS);
                c.expect(backward, &dx, &wide(&dinp), 33.0 * EPS);
                Ok(())
            });
        }
    }
}

#[test]
fn group_norms_agree_with_pytorch() {
    for golden in cases("group_norm") {
        let [batch, height, width, channels, groups] = golden.sizes(["batch", "height", "width", "channels", "groups"]);
        let shape = [batch, height * width, channels, groups];
        let dims = group_norm::Dims { batch, rows: height * width, cols: channels, groups, eps: 1e-3 };
        let [inp, weight, bias, dout] = ["inp", "weight", "bias", "dout"].map(|k| golden.get(k));
        let [out, dinp, dweight, dbias] = ["out", "dinp", "dweight", "dbias"].map(|k| golden.get(k));
        let (inp64, weight64) = (wide(&inp), wide(&weight));
        let [mut got, mut got_inp] = [0; 2].map(|_| vec![0.0; inp.len()]);
        let [mut mean, mut rstd] = [0; 2].map(|_| vec![0.0; batch * channels]);
        let [mut got_weight, mut got_bias] = [0; 2].map(|_| vec![0.0; channels]);
        cpu::group_norm::forward(
            &mut got,
            &mut mean,
            &mut rstd,
            &inp64,
            &weight64,
            &wide(&bias),
            true,
            shape,
            f64::from(dims.eps),
        );
        cpu::group_norm::backward(
            &mut got_inp,
            &mut got_weight,
            &mut got_bias,
            &wide(&dout),
            Some(&got),
            &inp64,
            &weight64,
            &mean,
            &rstd,
            shape,
        );
        for (got, want) in [(&got, &out), (&got_inp, &dinp), (&got_weight, &dweight), (&got_bias, &dbias)] {
            assert_reference(&golden.name, got, want);
        }

        on_devices(&golden.name, |c, run| {
            let [x, w, b, g] =
                [c.input("inp", &inp)?, c.input("weight", &weight)?, c.input("bias", &bias)?, c.input("dout", &dout)?];
            let [y, dx] = [c.output("out", out.len())?, c.output("dinp", inp.len())?];
            let [mu, r] = [c.output("mean", mean.len())?, c.output("rstd", rstd.len())?];
            let zeros = vec![0.0; channels];
            let [dw, db] = [c.input("dweight", &zeros)?, c.input("dbias", &zeros)?];
            let [slope, first, second] = [2, 1, 1].map(|times| c.output("room", times * mean.len()));
            let room = [slope?, first?, second?];
            run(c, &|p| {
                group_norm::forward(p, &y, &mu, &r, &x, &w, &b, true, dims)?;
                group_norm::backward(p, &dx, &dw, &db, room.each_ref(), &g, Some(&y), &x, &w, &mu, &r, dims)
            })?;
            // As in the suite.
            let sums = sum_tolerance(height * width * channels / groups, 8.0);
            c.expect("group_norm::forward", &y, &wide(&out), 2.0 * sums);
            c.expect("group_norm::backward", &dx, &wide(&dinp), 4.0 * sums);
            c.expect("group_norm::backward", &dw, &wide(&dweight), 4.0 * sums);
            c.expect("group_norm::backward", &db, &wide(&dbias), sums);
            c.expect("group_norm::forward", &mu, &mean, sums);
            c.expect("group_norm::forward", &r, &rstd, 2.0 * sums);
            room.iter().for_each(|view| c.expect_bits("group_norm::backward", view, &[], &[]));
            Ok(())
        });
    }
}

#[test]
fn standardised_weights_agree_with_timm() {
    for golden in cases("standardize") {
        let [rows, inputs, kernel] = golden.sizes(["rows", "inputs", "kernel"]);
        let cols = inputs * kernel * kernel;
        let dims = standardize::Dims { rows, cols, eps: 1e-4 };
        let [inp, dout, out, dinp] = ["inp", "dout", "out", "dinp"].map(|k| golden.get(k));
        let [mut got, mut got_inp] = [0; 2].map(|_| vec![0.0; inp.len()]);
        cpu::standardize::forward(&mut got, &wide(&inp), rows, cols, f64::from(dims.eps));
        cpu::standardize::backward(&mut got_inp, &wide(&dout), &wide(&inp), rows, cols, f64::from(dims.eps));
        assert_reference(&golden.name, &got, &out);
        assert_reference(&golden.name, &got_inp, &dinp);

        on_devices(&golden.name, |c, run| {
            let [x, g] = [c.input("inp", &inp)?, c.input("dout", &dout)?];
            let (y, dx) = (c.output("out", out.len())?, c.input("dinp", &vec![0.0; inp.len()])?);
            run(c, &|p| {
                standardize::forward(p, &y, &x, dims)?;
                standardize::backward(p, &dx, &g, &x, dims)
            })?;
            // As in the suite.
            c.expect("standardize::forward", &y, &wide(&out), 2.0 * sum_tolerance(cols, 8.0));
            c.expect("standardize::backward", &dx, &wide(&dinp), 4.0 * sum_tolerance(cols, 8.0));
            Ok(())
        });
    }
}

#[test]
fn convolutions_padded_as_tensorflow_agree_with_timm() {
    for golden in cases("conv_same") {
        let [batch, height, width, in_channels] = golden.sizes(IMAGE);
        let [out_channels, kernel, stride] = golden.sizes(["outputs", "kernel", "stride"]);
        let (padding, groups) = (Padding::Same, 1);
        let dims = conv2d::Dims { batch, height, width, in_channels, out_channels, kernel, stride, padding, groups };
        let [inp, weight, dout] = ["inp", "weight", "dout"].map(|k| golden.get(k));
        let [out, dinp, dweight] = ["out", "dinp", "dweight"].map(|k| golden.get(k));
        let (inp64, weight64, dout64) = (wide(&inp), wide(&weight), wide(&dout));
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
            let (y, dx) = (c.output("out", out.len())?, c.output("dinp", inp.len())?);
            let dw = c.input("dweight", &vec![0.0; weight.len()])?;
            run(c, &|p| {
                conv2d::forward(p, &y, &x, &w, dims)?;
                conv2d::backward_input(p, &dx, &g, &w, dims, false)?;
                conv2d::backward_weight(p, &dw, &g, &x, dims)
            })?;
            // As in the suite: sums over windows, over output channels, over pixels.
            let window = sum_tolerance(kernel * kernel * in_channels, 5.0);
            c.expect("conv2d::forward", &y, &wide(&out), window);
            c.expect(
                "conv2d::backward_input",
                &dx,
                &wide(&dinp),
                stride as f64 * sum_tolerance(kernel * kernel * out_channels, 5.0),
            );
            c.expect("conv2d::backward_weight", &dw, &wide(&dweight), sum_tolerance(dims.out_pixels(), 5.0));
            Ok(())
        });
    }
}

#[test]
fn max_pools_padded_otherwise_agree_with_timm() {
    for golden in cases("max_pool") {
        let [batch, height, width, channels] = golden.sizes(IMAGE);
        let same = golden.numbers["same"] == 1;
        let padding = if same { Padding::Same } else { Padding::Even(1) };
        let dims = max_pool::Dims { batch, height, width, channels, kernel: 3, stride: 2, padding, zeros: !same };
        let [inp, dout, out, dinp] = ["inp", "dout", "out", "dinp"].map(|k| golden.get(k));
        let (mut got, mut tap, mut got_inp) = (vec![0.0; out.len()], vec![0; out.len()], vec![0.0; inp.len()]);
        cpu::max_pool::forward(&mut got, &mut tap, &wide(&inp), dims);
        cpu::max_pool::backward(&mut got_inp, &wide(&dout), &tap, dims);
        assert_reference(&golden.name, &got, &out);
        assert_reference(&golden.name, &got_inp, &dinp);

        on_devices(&golden.name, |c, run| {
            let [x, g] = [c.input("inp", &inp)?, c.input("dout", &dout)?];
            let [y, taps, dx] =
                [c.output("out", out.len())?, c.output("tap", out.len())?, c.output("dinp", inp.len())?];
            run(c, &|p| {
                max_pool::forward(p, &y, &taps, &x, dims)?;
                max_pool::backward(p, &dx, &g, &taps, dims)
            })?;
            c.expect("max_pool::forward", &y, &wide(&out), 0.0);
            c.expect_bits("max_pool::forward", &taps, &[0..tap.len()], &tap);
            c.expect("max_pool::backward", &dx, &wide(&dinp), sum_tolerance(9, 2.0));
            Ok(())
        });
    }
}
