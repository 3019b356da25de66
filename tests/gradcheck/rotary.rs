//! Rotary positions with their biases and learned angles, root mean square norm, gates of two tensors, and attention with a bias for each
//! offset.

use tpgm::cpu::rope::{self, Dims, Learned};
use tpgm::cpu::{attention, rms_norm, swiglu};

use super::{added, assigned, check_op};

const BATCH: usize = 2;
const GRID: usize = 2;

fn dims(halves: bool) -> Dims {
    Dims { batch: BATCH, tokens: GRID * GRID + 1, prefix: 1, heads: 3, head_dim: 6, halves }
}

#[test]
fn rope_turns_pairs_behind_biases() {
    for halves in [false, true] {
        let dims = dims(halves);
        let table = rope::table(1, dims, |_, t, n| 0.7 * t as f64 + 0.3 * n as f64 - 0.4);
        for table in [None, Some(table.as_slice())] {
            check_op(
                "rope",
                &[dims.len(), dims.dim(), dims.dim()],
                |x| assigned(dims.len(), |out| rope::forward(out, &x[0], table, Some([&x[1], &x[2]]), dims)),
                |_, dout| {
                    let dinp = assigned(dims.len(), |d| rope::backward_input(d, dout, table, dims));
                    let mut unused = vec![0.0; dims.dim()];
                    let dquery = added(dims.dim(), |d| rope::backward_bias(d, &mut unused, &dinp, dims));
                    let dvalue = added(dims.dim(), |d| rope::backward_bias(&mut unused, d, &dinp, dims));
                    vec![dinp, dquery, dvalue]
                },
            );
        }
    }
}

#[test]
fn rope_learns_angles() {
    for transposed in [false, true] {
        let (dims, learned) = (dims(false), Learned { block: 1, blocks: 2, grid: GRID, transposed });
        let run = |inp: &[f64], freqs: &[f64]| {
            let table = rope::angles(freqs, learned, dims);
            let out = assigned(dims.len(), |out| rope::forward(out, inp, Some(&table), None, dims));
            (out, table)
        };
        // The other block's frequencies have no gradient, which a difference of zero would hide.
        let all = |own: &[f64]| {
            let (first, second) = own.split_at(own.len() / 2);
            let other = vec![0.3; first.len()];
            [&other, first, &other, second].concat()
        };
        check_op(
            "rope::angles",
            &[dims.len(), dims.dim()],
            |x| run(&x[0], &all(&x[1])).0,
            |x, dout| {
                let (out, table) = run(&x[0], &all(&x[1]));
                let dinp = assigned(dims.len(), |d| rope::backward_input(d, dout, Some(&table), dims));
                let dangles = assigned(dims.angles_len(), |d| rope::backward_angles(d, dout, &out, dims));
                let dfreqs = added(2 * dims.dim(), |d| rope::backward_freqs(d, &dangles, learned, dims));
                let (half, quarter) = (dims.dim(), dims.dim() / 2);
                assert!(dfreqs[..quarter].iter().chain(&dfreqs[half..half + quarter]).all(|d| *d == 0.0));
                vec![dinp, [&dfreqs[quarter..half], &dfreqs[half + quarter..]].concat()]
            },
        );
    }
}

#[test]
fn rms_norm_over_odd_rows() {
    let (rows, cols, eps) = (3, 7, 1e-2);
    let run = |inp: &[f64], weight: &[f64]| {
        let mut rstd = vec![f64::NAN; rows];
        let out = assigned(rows * cols, |out| rms_norm::forward(out, &mut rstd, inp, weight, rows, cols, eps));
        (out, rstd)
    };
    check_op(
        "rms_norm",
        &[rows * cols, cols],
        |x| run(&x[0], &x[1]).0,
        |x, dout| {
            let (_, rstd) = run(&x[0], &x[1]);
            vec![
                added(rows * cols, |d| rms_norm::backward_input(d, dout, &x[0], &x[1], &rstd, rows, cols)),
                added(cols, |d| rms_norm::backward_params(d, dout, &x[0], &rstd, rows, cols)),
            ]
        },
    );
}

#[test]
fn swiglu_of_two_tensors() {
    for by in [swiglu::Gate::Silu, swiglu::Gate::Plain] {
        check_op(
            &format!("swiglu_pair, {by:?}"),
            &[21, 21],
            |x| assigned(21, |out| swiglu::forward_pair(out, &x[0], &x[1], by)),
            |x, dout| {
                let mut dvalue = vec![f64::NAN; 21];
                let dgate = assigned(21, |d| swiglu::backward_pair(d, &mut dvalue, dout, &x[0], &x[1], by));
                vec![dgate, dvalue]
            },
        );
    }
}

#[test]
fn attention_with_a_bias_for_each_offset() {
    let (batch, tokens, heads, head_dim) = (2, 1 + 3 * 3, 2, 3);
    let (dim, offsets) = (heads * head_dim, 5 * 5 + 3);
    let run = |qkv: &[f64], relative: &[f64]| {
        let mut lse = vec![f64::NAN; batch * heads * tokens];
        let out = assigned(batch * tokens * dim, |out| {
            let scores = attention::Scores { relative: Some(relative), ..Default::default() };
            attention::forward_scored(out, &mut lse, qkv, scores, batch, tokens, heads, head_dim);
        });
        (out, lse)
    };
    check_op(
        "relative attention",
        &[batch * tokens * 3 * dim, offsets * heads],
        |x| run(&x[0], &x[1]).0,
        |x, dout| {
            let (out, lse) = run(&x[0], &x[1]);
            let mut drelative = vec![0.0; offsets * heads];
            let dqkv = assigned(x[0].len(), |d| {
                let scores = attention::Scores { relative: Some(x[1].as_slice()), ..Default::default() };
                attention::backward_scored(
                    d,
                    &mut drelative,
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
            });
            vec![dqkv, drelative]
        },
    );
}
