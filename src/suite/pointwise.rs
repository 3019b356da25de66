//! Elementwise kernels, and those that move tokens around.

use super::formats::{formats, rounded, stored_eps};
use super::harness::{Case, EPS, Launch, Random, sum_tolerance, wide};
use super::{Plan, Suite};
use crate::cpu;
use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::ops;
use crate::shapes::Activation;
use crate::shapes::Prefix;

/// Natural, and with a folded grid: these kernels have one variant.
fn launches(p: &Plan) -> [Launch; 2] {
    let natural = Launch::natural(p.gpu);
    [natural, Launch { fold: true, ..natural }]
}

fn folded(launch: Launch) -> &'static str {
    if launch.fold { ", folded" } else { "" }
}

pub(super) fn gelu(p: &mut Plan) -> Result<()> {
    use Activation::{Gelu, GeluTanh, QuickGelu};
    for launch in Launch::all(p.gpu) {
        for activation in [Gelu, GeluTanh, QuickGelu] {
            for (_, len) in p.pick(&[1, 3, 63, 65, 197, 768, 5000], &[4, 6]) {
                let mut random = Random::new(len as u64);
                // Half of them where the curve bends, half out to ±30, where naive forms overflow.
                let spread = |(i, x): (usize, f32)| if i.is_multiple_of(2) { 3.0 * x } else { 30.0 * x };
                let inp: Vec<f32> = random.vec(len).into_iter().enumerate().map(spread).collect();
                let name = format!("{activation:?}, len {len}, {}", launch.suffix());
                // Four operations around Φ, of which the fit is within 1.2e-7, or around an exponential, which may be
                // off by 3 + 2·|argument| units in the last place: up to 4 where the result is not tiny.
                p.add(move |s| gelu_case(s, launch, name, activation, inp, 16.0 * EPS));
            }
        }
        // The left tail on its own, where no large element covers its errors: Φ(x) is exp of an argument around −10,
        // off by 3 + 2·10 units and as much again from rounding it. Not for tanh, whose 1 + tanh(u) cancels there by
        // its definition, in PyTorch too.
        for activation in [Gelu, QuickGelu] {
            let inp: Vec<f32> = Random::new(7).vec(197).into_iter().map(|x| -4.5 + 1.5 * x).collect();
            let name = format!("{activation:?}, −6..−3, {}", launch.suffix());
            p.add(move |s| gelu_case(s, launch, name, activation, inp, 64.0 * EPS));
        }
    }
    Ok(())
}

fn gelu_case(
    s: &mut Suite,
    launch: Launch,
    name: String,
    activation: Activation,
    inp: Vec<f32>,
    tolerance: f64,
) -> Result<()> {
    let len = inp.len();
    let dout = Random::new(1 + len as u64).vec(len);
    let (mut want, mut want_grad) = (vec![0.0; len], vec![0.0; len]);
    cpu::gelu::forward(&mut want, &wide(&inp), activation);
    cpu::gelu::backward(&mut want_grad, &wide(&dout), &wide(&inp), activation);
    let mut c = Case::new(s.gpu, name, 0)?;
    let [inp, dout] = [c.input("inp", &inp)?, c.input("dout", &dout)?];
    let [out, dinp] = [c.output("out", len)?, c.output("dinp", len)?];
    c.run(launch, |r| {
        ops::gelu::forward(r, &out, &inp, activation)?;
        ops::gelu::backward(r, &dinp, &dout, &inp, activation)
    })?;
    c.expect("gelu::forward", &out, &want, tolerance);
    // The slope has twice as many operations; tanh's has 1 − t², which cancels next to a factor of up to 10.
    let factor = if activation == Activation::GeluTanh { 8.0 } else { 2.0 };
    c.expect("gelu::backward", &dinp, &want_grad, factor * tolerance);
    s.finish(c)
}

pub(super) fn swiglu(p: &mut Plan) -> Result<()> {
    for launch in Launch::all(p.gpu) {
        let shapes = [(1, 1), (1, 4), (3, 65), (65, 64), (197, 3), (63, 36), (2, 768), (7, 1028)];
        for (_, (rows, cols)) in p.pick(&shapes, &[2, 5]) {
            p.add(move |s| {
                let mut random = Random::new((rows * cols) as u64);
                // Half of them where the gate bends, half out to ±30.
                let spread = |(i, x): (usize, f32)| if i.is_multiple_of(2) { 3.0 * x } else { 30.0 * x };
                let inp: Vec<f32> = random.vec(2 * rows * cols).into_iter().enumerate().map(spread).collect();
                let dout = random.vec(rows * cols);
                let (mut want, mut want_grad) = (vec![0.0; rows * cols], vec![0.0; 2 * rows * cols]);
                cpu::swiglu::forward(&mut want, &wide(&inp), rows, cols);
                cpu::swiglu::backward(&mut want_grad, &wide(&dout), &wide(&inp), rows, cols);
                let mut c = Case::new(s.gpu, format!("rows {rows}, cols {cols}, {}", launch.suffix()), 0)?;
                let [inp, dout] = [c.input("inp", &inp)?, c.input("dout", &dout)?];
                let [out, dinp] = [c.output("out", want.len())?, c.output("dinp", want_grad.len())?];
                c.run(launch, |r| {
                    ops::swiglu::forward(r, &out, &inp, rows, cols)?;
                    ops::swiglu::backward(r, &dinp, &dout, &inp, rows, cols)
                })?;
                // As QuickGELU: four operations around an exponential, and one more product; twice as many for the slope.
                c.expect("swiglu::forward", &out, &want, 20.0 * EPS);
                c.expect("swiglu::backward", &dinp, &want_grad, 40.0 * EPS);
                s.finish(c)
            });
        }
    }
    Ok(())
}

pub(super) fn residual(p: &mut Plan) -> Result<()> {
    for launch in Launch::all(p.gpu) {
        let shapes = [
            (1, 1),
            (3, 65),
            (63, 3),
            (65, 197),
            (197, 63),
            (2, 768),
            (300, 3),
            (5, 4),
            (33, 28),
            (41, 260),
            (7, 1),
            (1030, 8),
            (97, 5),
        ];
        for (_, (rows, cols)) in p.pick(&shapes, &[3, 9]) {
            p.add(move |s| {
                let mut random = Random::new((rows * cols) as u64);
                let n = rows * cols;
                let (inp, branch, dout, gamma) = (random.vec(n), random.vec(n), random.vec(n), random.vec(cols));
                let (inp64, branch64, dout64, gamma64) = (wide(&inp), wide(&branch), wide(&dout), wide(&gamma));
                let name = format!("rows {rows}, cols {cols}, {}", launch.suffix());
                let mut c = Case::new(s.gpu, name, ops::scratch_len(rows, cols))?;
                let [inp, branch] = [c.input("inp", &inp)?, c.input("branch", &branch)?];
                let [dout, gamma] = [c.input("dout", &dout)?, c.input("gamma", &gamma)?];

                // An addition and a product: each rounds once.
                let kernels = [("residual::forward", None), ("residual::forward_scaled", Some(&gamma))];
                for (kernel, gamma) in kernels {
                    let out = c.output("out", n)?;
                    let mut want = vec![0.0; n];
                    let gamma64 = gamma.map(|_| gamma64.as_slice());
                    cpu::residual::forward(&mut want, &inp64, &branch64, gamma64, rows, cols);
                    c.run(launch, |r| ops::residual::forward(r, &out, &inp, &branch, gamma, rows, cols))?;
                    c.expect(kernel, &out, &want, 2.0 * EPS);
                }

                let dbranch = c.output("dbranch", n)?;
                let mut want = vec![0.0; n];
                cpu::residual::backward_input(&mut want, &dout64, Some(&gamma64), rows, cols);
                c.run(launch, |r| ops::residual::backward_input(r, &dbranch, &dout, &gamma, rows, cols))?;
                c.expect("residual::backward_input", &dbranch, &want, EPS);

                let before = random.vec(cols);
                let dgamma = c.input("dgamma", &before)?;
                let mut want = wide(&before);
                cpu::residual::backward_params(&mut want, &dout64, &branch64, rows, cols);
                c.run(launch, |r| ops::residual::backward_params(r, &dgamma, &dout, &branch, rows, cols))?;
                // A sum over rows of products.
                c.expect("residual::backward_params", &dgamma, &want, sum_tolerance(rows, 4.0));
                s.finish(c)
            });
        }
    }
    Ok(())
}

/// What tokens and what they are pooled to hold: both f32, or tokens in f16, and features in either.
fn pool_formats(p: &Plan) -> &'static [[Element; 2]] {
    let all: &[[Element; 2]] =
        &[[Element::Word, Element::Word], [Element::Half, Element::Word], [Element::Half, Element::Half]];
    if formats(p.gpu).contains(&Element::Half) { all } else { &all[..1] }
}

pub(super) fn pool(p: &mut Plan) -> Result<()> {
    let formats = pool_formats(p);
    for (launch, &[tokens_in, pooled]) in launches(p).into_iter().flat_map(|l| formats.iter().map(move |f| (l, f))) {
        let shapes = [(1, 2, 1), (3, 5, 65), (2, 197, 63), (65, 3, 3), (2, 4, 768), (1, 65, 197)];
        for (_, (batch, tokens, dim)) in p.pick(&shapes, &[1]) {
            for (_, (first, count)) in p.pick(&[(0, 1), (1, tokens - 1), (0, tokens), (1, 1)], &[1]) {
                p.add(move |s| {
                    let mut random = Random::new((batch * tokens * dim) as u64);
                    let dims = ops::pool::Dims { batch, tokens, dim, first, count };
                    let inp = rounded(random.vec(batch * tokens * dim), tokens_in);
                    let dout = rounded(random.vec(batch * dim), pooled);
                    let before = rounded(random.vec(batch * tokens * dim), tokens_in);
                    let run = first..first + count;
                    let (mut want, mut want_grad) = (vec![0.0; batch * dim], vec![0.0; batch * tokens * dim]);
                    cpu::pool::forward(&mut want, &wide(&inp), run.clone(), batch, tokens, dim);
                    cpu::pool::backward(&mut want_grad, &wide(&dout), run.clone(), batch, tokens, dim);
                    let mut want_added = wide(&before);
                    cpu::pool::backward(&mut want_added, &wide(&dout), run.clone(), batch, tokens, dim);
                    let kinds = [tokens_in, pooled].map(Element::scalar).join(" to ");
                    let name = format!("{kinds}, tokens {run:?}, {batch}×{tokens}×{dim}{}", folded(launch));
                    let mut c = Case::new(s.gpu, name, 0)?;
                    let [inp, added] = [c.input_as("inp", tokens_in, &inp)?, c.input_as("before", tokens_in, &before)?];
                    let dout = c.input_as("dout", pooled, &dout)?;
                    let out = c.output_as("out", pooled, want.len())?;
                    let dinp = c.output_as("dinp", tokens_in, want_grad.len())?;
                    let (eps, eps_pooled) = (stored_eps(tokens_in), stored_eps(pooled));
                    c.run(launch, |r| {
                        ops::pool::forward(r, &out, &inp, dims)?;
                        ops::pool::backward(r, &dinp, &dout, dims, false)?;
                        ops::pool::backward(r, &added, &dout, dims, true)
                    })?;
                    // A mean over tokens; backward is one division, good to 2.5 units in the last place, and a sum.
                    c.expect("pool::forward", &out, &want, eps_pooled + sum_tolerance(tokens, 4.0));
                    c.expect("pool::backward", &dinp, &want_grad, eps + 3.0 * EPS);
                    c.expect("pool::backward", &added, &want_added, eps + 4.0 * EPS);
                    s.finish(c)
                });
            }
        }
    }
    Ok(())
}

pub(super) fn patch_embed(p: &mut Plan) -> Result<()> {
    for launch in launches(p) {
        let shapes = [(1, 1, 1, 1), (2, 12, 4, 65), (3, 15, 5, 63), (1, 42, 3, 3), (2, 28, 14, 197)];
        for (_, (batch, size, patch, dim)) in p.pick(&shapes, &[1, 2]) {
            for (_, (class_token, registers, class_position, register_positions)) in p.pick(&PREFIXES, &[4]) {
                let prefix = Prefix { class_token, registers, class_position, register_positions };
                let dims = ops::patch_embed::Dims { batch, size, patch, dim, prefix };
                p.add(move |s| patch_embed_case(s, launch, dims));
            }
        }
    }
    Ok(())
}

/// What stands before the patches: nothing, a class token with its position, one without, a distillation token, registers.
const PREFIXES: [(bool, usize, bool, bool); 6] = [
    (false, 0, false, false),
    (true, 0, true, false),
    (true, 0, false, false),
    (true, 1, true, true),
    (true, 4, true, false),
    (true, 2, false, false),
];

fn patch_embed_case(s: &mut Suite, launch: Launch, dims: ops::patch_embed::Dims) -> Result<()> {
    let ops::patch_embed::Dims { batch, size, patch, dim, prefix } = dims;
    let (count, tokens, positions) = (dims.patches(), dims.tokens(), dims.positions());
    let (cls_len, reg_len) = (usize::from(prefix.class_token) * dim, prefix.registers * dim);
    let mut random = Random::new((size * dim) as u64);
    let (images, embedded) = (random.vec(batch * 3 * size * size), random.vec(batch * count * dim));
    let (pos, dtokens) = (random.vec(positions * dim), random.vec(batch * tokens * dim));
    let [cls, before_cls] = [0; 2].map(|_| random.vec(cls_len));
    let [reg, before_reg] = [0; 2].map(|_| random.vec(reg_len));
    let before_pos = random.vec(positions * dim);

    let mut want_patches = vec![0.0; batch * count * dims.patch_len()];
    cpu::patch_embed::unfold(&mut want_patches, &wide(&images), batch, size, size, patch);
    let mut want_tokens = vec![0.0; batch * tokens * dim];
    let (pos64, cls64, reg64) = (wide(&pos), wide(&cls), wide(&reg));
    cpu::patch_embed::assemble(&mut want_tokens, &wide(&embedded), &pos64, &cls64, &reg64, prefix, batch, count, dim);
    let (mut want_embedded, mut want_pos) = (vec![0.0; batch * count * dim], wide(&before_pos));
    let (mut want_cls, mut want_reg) = (wide(&before_cls), wide(&before_reg));
    cpu::patch_embed::assemble_backward(
        &mut want_embedded,
        &mut want_pos,
        &mut want_cls,
        &mut want_reg,
        &wide(&dtokens),
        prefix,
        batch,
        count,
        dim,
    );

    let name = format!("{batch} of {size} px, patch {patch}, dim {dim}, {prefix:?}{}", folded(launch));
    let mut c = Case::new(s.gpu, name, 0)?;
    let [images, embedded] = [c.input("images", &images)?, c.input("embedded", &embedded)?];
    let [pos, dtokens] = [c.input("pos", &pos)?, c.input("dtokens", &dtokens)?];
    let mut given = |name: &str, values: &[f32]| match values {
        [] => Ok(None),
        values => c.input(name, values).map(Some),
    };
    let [cls, dcls] = [given("cls", &cls)?, given("dcls", &before_cls)?];
    let [reg, dreg] = [given("reg", &reg)?, given("dreg", &before_reg)?];
    let [patches, out] = [c.output("patches", want_patches.len())?, c.output("tokens", want_tokens.len())?];
    let dembedded = c.output("dembedded", want_embedded.len())?;
    let dpos = c.input("dpos", &before_pos)?;
    c.run(launch, |r| {
        ops::patch_embed::unfold(r, &patches, &images, dims)?;
        ops::patch_embed::assemble(r, &out, &embedded, &pos, cls.as_ref(), reg.as_ref(), dims)?;
        ops::patch_embed::backward(r, &dembedded, &dpos, dcls.as_ref(), dreg.as_ref(), &dtokens, dims)
    })?;
    // Copies are exact; a position is one addition; its gradient is a sum over the batch.
    c.expect("patch_embed::unfold", &patches, &want_patches, 0.0);
    c.expect("patch_embed::assemble", &out, &want_tokens, EPS);
    c.expect("patch_embed::backward_embedded", &dembedded, &want_embedded, 0.0);
    c.expect("patch_embed::backward_pos", &dpos, &want_pos, sum_tolerance(batch, 2.0));
    if let Some(dcls) = dcls {
        c.expect("patch_embed::backward_prefix", &dcls, &want_cls, sum_tolerance(batch, 2.0));
    }
    if let Some(dreg) = dreg {
        c.expect("patch_embed::backward_prefix", &dreg, &want_reg, sum_tolerance(batch, 2.0));
    }
    s.finish(c)
}
