//! What text towers have besides: tokens to vectors, and one token of each text.

use super::harness::{Case, Launch, Random, sum_tolerance, wide};
use super::{Plan, Stem, stem};
use crate::cpu;
use crate::error::Result;
use crate::ops;
use crate::ops::{embedding, pick};

pub(super) const STEMS: &[Stem] = &[
    stem("embedding", embedding, &["embedding::forward", "embedding::backward_params", "column_sum::forward"]),
    stem("pick", pick, &["pick::forward", "pick::backward_input"]),
];

fn embedding(p: &mut Plan) -> Result<()> {
    // Texts, tokens, rows of the table, width: a row alone, rows that occur many times and not at all, both widths of elements.
    let shapes = [(1, 1, 1, 1), (2, 5, 3, 7), (3, 77, 200, 12), (5, 7, 900, 65), (1, 64, 2, 260), (2, 9, 65, 768)];
    let picked = p.pick(&shapes, &[1, 2]);
    let launches = Launch::folded(p.gpu).into_iter();
    for (launch, (i, (batch, tokens, vocabulary, dim))) in launches.flat_map(|l| picked.iter().map(move |s| (l, *s))) {
        p.add(move |s| {
            let dims = embedding::Dims { batch, tokens, vocabulary, dim };
            let mut random = Random::new(300 + i as u64);
            let ids = random.indices(batch * tokens, vocabulary);
            let (weight, positions) = (random.vec(vocabulary * dim), random.vec(tokens * dim));
            let dout = random.vec(ids.len() * dim);
            let (before, before_positions) = (random.vec(weight.len()), random.vec(positions.len()));
            let mut want = vec![0.0; dout.len()];
            cpu::embedding::forward(&mut want, &ids, &wide(&weight), &wide(&positions), tokens, dim);
            let (mut want_weight, mut want_positions) = (wide(&before), wide(&before_positions));
            let grads = (&mut want_weight, &mut want_positions);
            cpu::embedding::backward_params(grads.0, grads.1, &wide(&dout), &ids, tokens, dim);

            let name = format!("{batch}×{tokens} of {vocabulary}, {dim} wide, {}", launch.suffix());
            let mut c = Case::new(s.gpu, name, ops::scratch_len(batch, tokens * dim))?;
            let ids = c.words("ids", &ids)?;
            let [weight, positions] = [c.input("weight", &weight)?, c.input("positions", &positions)?];
            let (dout, out) = (c.input("dout", &dout)?, c.output("out", want.len())?);
            let [dweight, dpositions] = [c.input("dweight", &before)?, c.input("dpositions", &before_positions)?];
            c.run(launch, |r| {
                embedding::forward(r, &out, &ids, &weight, &positions, dims)?;
                embedding::backward_params(r, &dweight, &dout, &ids, dims)?;
                embedding::backward_positions(r, &dpositions, &dout, dims)
            })?;
            // One sum of two; and sums over the tokens of one number, or over texts.
            c.expect("embedding::forward", &out, &want, sum_tolerance(1, 1.0));
            c.expect("embedding::backward_params", &dweight, &want_weight, sum_tolerance(batch * tokens, 4.0));
            c.expect("column_sum::forward", &dpositions, &want_positions, sum_tolerance(batch, 4.0));
            s.finish(c)
        });
    }
    Ok(())
}

fn pick(p: &mut Plan) -> Result<()> {
    let shapes = [(1, 1, 1), (3, 5, 65), (2, 77, 63), (65, 3, 4), (2, 4, 768)];
    let picked = p.pick(&shapes, &[1]);
    let launches = Launch::folded(p.gpu).into_iter();
    for (launch, (i, (batch, tokens, dim))) in launches.flat_map(|l| picked.iter().map(move |s| (l, *s))) {
        p.add(move |s| {
            let dims = pick::Dims { batch, tokens, dim };
            let mut random = Random::new(400 + i as u64);
            let at = random.indices(batch, tokens);
            let (inp, dout) = (random.vec(batch * tokens * dim), random.vec(batch * dim));
            let before = random.vec(inp.len());
            let (mut want, mut want_grad, mut want_added) =
                (vec![0.0; dout.len()], vec![0.0; inp.len()], wide(&before));
            cpu::pick::forward(&mut want, &wide(&inp), &at, tokens, dim);
            cpu::pick::backward_input(&mut want_grad, &wide(&dout), &at, tokens, dim);
            cpu::pick::backward_input(&mut want_added, &wide(&dout), &at, tokens, dim);

            let mut c = Case::new(s.gpu, format!("{batch}×{tokens}×{dim}, {}", launch.suffix()), 0)?;
            let at = c.words("at", &at)?;
            let [inp, dout, added] = [c.input("inp", &inp)?, c.input("dout", &dout)?, c.input("before", &before)?];
            let [out, dinp] = [c.output("out", want.len())?, c.output("dinp", want_grad.len())?];
            c.run(launch, |r| {
                pick::forward(r, &out, &inp, &at, dims)?;
                pick::backward_input(r, &dinp, &dout, &at, dims, false)?;
                pick::backward_input(r, &added, &dout, &at, dims, true)
            })?;
            c.expect("pick::forward", &out, &want, 0.0);
            c.expect("pick::backward_input", &dinp, &want_grad, 0.0);
            c.expect("pick::backward_input", &added, &want_added, sum_tolerance(1, 1.0));
            s.finish(c)
        });
    }
    Ok(())
}
