//! Fused attention, forward and both halves of its backward.

use super::Suite;
use super::harness::{Case, Launch, Random, narrow, sum_tolerance, wide};
use crate::cpu;
use crate::error::Result;
use crate::ops::{self, attention::Dims};

pub(super) fn attention(s: &mut Suite) -> Result<()> {
    // Batch, tokens, heads, width of a head. Widths that are no multiple of four take the guarded loads.
    let shapes = [
        (1, 1, 1, 4),
        (2, 3, 2, 5),
        (2, 65, 3, 12),
        (1, 63, 1, 32),
        (1, 197, 2, 10),
        (1, 65, 2, 64),
        (3, 64, 1, 1),
        (1, 66, 1, 3),
        (2, 7, 2, 8),
        (1, 8, 1, 8),
        (1, 9, 3, 4),
    ];
    let natural = Launch::natural(s.gpu);
    for (batch, tokens, heads, head_dim) in shapes {
        // At 6 a few keys take all of the probability, and scores reach ±50: exponentials that overflow if not shifted.
        for scale in [1.0, 6.0] {
            for launch in [natural, Launch { for_cpu: !natural.for_cpu, ..natural }] {
                case(s, launch, Dims { batch, tokens, heads, head_dim }, scale)?;
            }
        }
    }
    Ok(())
}

fn case(s: &mut Suite, launch: Launch, dims: Dims, scale: f32) -> Result<()> {
    let Dims { batch, tokens, heads, head_dim } = dims;
    let (dim, stats) = (heads * head_dim, batch * heads * tokens);
    let mut random = Random::new((tokens * dim) as u64);
    let mut qkv = random.vec(batch * tokens * 3 * dim);
    // Queries and keys alone: large values would only scale the result.
    for row in qkv.chunks_mut(3 * dim) {
        row[..2 * dim].iter_mut().for_each(|x| *x *= scale);
    }
    let dout = random.vec(batch * tokens * dim);
    let (qkv64, dout64) = (wide(&qkv), wide(&dout));
    let (mut want, mut want_lse) = (vec![0.0; batch * tokens * dim], vec![0.0; stats]);
    cpu::attention::forward(&mut want, &mut want_lse, &qkv64, batch, tokens, heads, head_dim);
    // Backward starts from the same rounded values as the reference.
    let (out32, lse32) = (narrow(&want), narrow(&want_lse));
    let mut want_grad = vec![0.0; qkv.len()];
    let (out64, lse64) = (wide(&out32), wide(&lse32));
    cpu::attention::backward(&mut want_grad, &dout64, &out64, &qkv64, &lse64, batch, tokens, heads, head_dim);
    let mut want_delta = vec![0.0; stats];
    for (i, delta) in want_delta.iter_mut().enumerate() {
        let (image, head, token) = (i / (heads * tokens), i / tokens % heads, i % tokens);
        let start = (image * tokens + token) * dim + head * head_dim;
        *delta = (start..start + head_dim).map(|j| dout64[j] * out64[j]).sum();
    }

    let name = format!("{batch}×{tokens}, {heads} heads of {head_dim}, scale {scale}, {}", launch.suffix());
    let mut c = Case::new(s.gpu, name, 0)?;
    let [qkv, dout] = [c.input("qkv", &qkv)?, c.input("dout", &dout)?];
    let [out, lse] = [c.output("out", want.len())?, c.output("lse", stats)?];
    let [saved_out, saved_lse] = [c.input("saved out", &out32)?, c.input("saved lse", &lse32)?];
    let [dqkv, delta] = [c.output("dqkv", want_grad.len())?, c.output("delta", stats)?];
    c.run(launch, |r| {
        ops::attention::forward(r, &out, &lse, &qkv, dims)?;
        ops::attention::backward(r, &dqkv, &delta, &dout, &saved_out, &qkv, &saved_lse, dims)
    })?;

    // Sums over keys (or queries) and over the head's width. A score is off by as many units of itself as its sum has
    // roundings, and exp turns that absolute error into a relative one: hence the factor of the largest score.
    let sharp = 1.0 + want_lse.iter().fold(0.0, |a: f64, l| a.max(l.abs()));
    let tolerance = sum_tolerance(tokens + head_dim, 8.0) * sharp;
    c.expect("attention::forward", &out, &want, tolerance);
    c.expect("attention::forward", &lse, &want_lse, sum_tolerance(tokens + head_dim, 8.0));
    let parts = |offset: usize, len: usize| -> Vec<_> {
        (0..batch * tokens).map(|row| row * 3 * dim + offset..row * 3 * dim + offset + len).collect()
    };
    c.expect_at("attention::backward_query", &dqkv, &parts(0, dim), &want_grad, 2.0 * tolerance);
    c.expect("attention::backward_query", &delta, &want_delta, sum_tolerance(head_dim, 4.0));
    c.expect_at("attention::backward_key", &dqkv, &parts(dim, dim), &want_grad, 2.0 * tolerance);
    c.expect_at("attention::backward_key", &dqkv, &parts(2 * dim, dim), &want_grad, 2.0 * tolerance);
    s.finish(c)
}
