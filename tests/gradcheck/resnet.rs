//! The operations of a ResNet, in mid-graph as all others; where one has a kink, away from it.

use tpgm::cpu::batch_norm::{self, normalise, statistics};
use tpgm::cpu::depthwise::Padding;
use tpgm::cpu::{attention_pool, avg_pool, conv2d, max_pool, relu};

use super::*;

#[test]
fn convolutions_of_every_kind() {
    // Batch, height, width, in, out, kernel, stride, groups.
    let even = Padding::Even;
    for ([batch, height, width, in_channels, out_channels, kernel, stride, groups], padding) in [
        ([2, 3, 4, 2, 3, 3, 1, 1], even(1)),
        ([1, 5, 4, 3, 2, 3, 2, 1], even(1)),
        ([1, 7, 6, 1, 2, 5, 2, 1], even(2)),
        ([2, 4, 3, 2, 2, 1, 2, 1], even(0)),
        ([1, 4, 4, 2, 2, 2, 3, 1], even(1)),
        ([1, 3, 4, 4, 6, 3, 1, 2], even(1)),
        ([1, 4, 3, 3, 3, 2, 1, 3], even(0)),
        ([1, 5, 4, 2, 2, 3, 2, 1], Padding::Same),
    ] {
        let dims = conv2d::Dims { batch, height, width, in_channels, out_channels, kernel, stride, padding, groups };
        check_op(
            &format!("{dims:?}"),
            &[dims.in_len(), dims.weight_len()],
            |x| assigned(dims.out_len(), |out| conv2d::forward(out, &x[0], &x[1], dims)),
            |x, dout| {
                let dinp = assigned(dims.in_len(), |d| conv2d::backward_input(d, dout, &x[1], dims, false));
                let again = added(dims.in_len(), |d| conv2d::backward_input(d, dout, &x[1], dims, true));
                assert!(dinp.iter().zip(&again).all(|(a, b)| (a - b).abs() <= 1e-12), "assigned and added differ");
                vec![dinp, added(dims.weight_len(), |d| conv2d::backward_weight(d, dout, &x[0], dims))]
            },
        );
    }
}

/// Forward in train mode: output, mean, rstd.
fn batch_normed(x: &[Vec<f64>], rows: usize, cols: usize, relu: bool) -> [Vec<f64>; 3] {
    let (mut mean, mut var, mut rstd) = (vec![f64::NAN; cols], vec![f64::NAN; cols], vec![f64::NAN; cols]);
    statistics(&mut mean, &mut var, &x[0], rows, cols);
    let out = assigned(rows * cols, |out| {
        let shortcut = x.get(3).map(Vec::as_slice);
        normalise(out, &mut rstd, &x[0], &mean, &var, &x[1], &x[2], shortcut, relu, rows, cols, 1e-2);
    });
    [out, mean, rstd]
}

fn gradients(
    x: &[Vec<f64>],
    dout: &[f64],
    [mean, rstd]: [&[f64]; 2],
    train: bool,
    rows: usize,
    cols: usize,
) -> Vec<Vec<f64>> {
    let (mut dinp, mut dbias) = (vec![], vec![]);
    let dweight = added(cols, |dw| {
        dbias = added(cols, |db| {
            dinp = assigned(rows * cols, |d| {
                batch_norm::backward(d, dw, db, dout, &x[0], &x[1], mean, rstd, train, rows, cols);
            });
        });
    });
    vec![dinp, dweight, dbias]
}

#[test]
fn batch_norm_through_its_statistics() {
    let (rows, cols) = (7, 3);
    check_op(
        "batch_norm, train",
        &[rows * cols, cols, cols],
        |x| batch_normed(x, rows, cols, false)[0].clone(),
        |x, dout| {
            let [_, mean, rstd] = batch_normed(x, rows, cols, false);
            gradients(x, dout, [&mean, &rstd], true, rows, cols)
        },
    );
}

#[test]
fn batch_norm_as_an_affine_map() {
    let (rows, cols) = (5, 3);
    let (mean, var) = ([0.3, -1.0, 2.0], [0.5, 1.5, 0.1]);
    let run = |x: &[Vec<f64>]| {
        let mut rstd = vec![f64::NAN; cols];
        let out = assigned(rows * cols, |out| {
            normalise(out, &mut rstd, &x[0], &mean, &var, &x[1], &x[2], None, false, rows, cols, 1e-2);
        });
        (out, rstd)
    };
    check_op(
        "batch_norm, eval",
        &[rows * cols, cols, cols],
        |x| run(x).0,
        |x, dout| gradients(x, dout, [&mean, &run(x).1], false, rows, cols),
    );
}

#[test]
fn batch_norm_with_shortcut_and_relu() {
    let (rows, cols) = (7, 3);
    check_op(
        "batch_norm, shortcut, relu",
        &[rows * cols, cols, cols, rows * cols],
        |x| {
            let out = batch_normed(x, rows, cols, true)[0].clone();
            let before = batch_normed(x, rows, cols, false)[0].clone();
            assert!(before.iter().all(|v| v.abs() > 1e-4), "too near the kink");
            assert!(out.contains(&0.0) && out.iter().any(|v| *v > 0.0), "both sides of it");
            out
        },
        |x, dout| {
            let [out, mean, rstd] = batch_normed(x, rows, cols, true);
            let g = assigned(rows * cols, |d| relu::backward(d, dout, &out, false));
            let mut all = gradients(x, &g, [&mean, &rstd], true, rows, cols);
            all.push(added(rows * cols, |d| relu::backward(d, dout, &out, true)));
            all
        },
    );
}

#[test]
fn relu_away_from_zero() {
    check_op(
        "relu",
        &[33],
        |x| {
            assert!(x[0].iter().all(|v| v.abs() > 4e-3), "too near the kink");
            assigned(33, |out| relu::forward(out, &x[0]))
        },
        |x, dout| {
            let out = assigned(33, |out| relu::forward(out, &x[0]));
            vec![assigned(33, |d| relu::backward(d, dout, &out, false))]
        },
    );
}

#[test]
fn relu_at_zero() {
    assert_eq!(assigned(2, |d| relu::backward(d, &[3.0, 5.0], &[0.0, 1e-30], false)), [0.0, 5.0]);
}

#[test]
fn max_pool_of_overlapping_windows() {
    for [height, width, kernel, stride, padding] in [[5, 6, 3, 2, 1], [4, 4, 2, 2, 0], [1, 2, 3, 2, 1], [4, 7, 2, 3, 1]]
    {
        let dims = max_pool::Dims {
            batch: 2,
            height,
            width,
            channels: 2,
            kernel,
            stride,
            padding: Padding::Even(padding),
            zeros: false,
        };
        let first_tap = std::cell::OnceCell::new();
        let run = |x: &[f64]| {
            let mut tap = vec![u32::MAX; dims.out_len()];
            let out = assigned(dims.out_len(), |out| max_pool::forward(out, &mut tap, x, dims));
            assert_eq!(first_tap.get_or_init(|| tap.clone()), &tap, "too near a tie");
            (out, tap)
        };
        check_op(
            &format!("{dims:?}"),
            &[dims.in_len()],
            |x| run(&x[0]).0,
            |x, dout| vec![assigned(dims.in_len(), |d| max_pool::backward(d, dout, &run(&x[0]).1, dims))],
        );
    }
}

#[test]
fn max_pool_of_equal_values_takes_the_first() {
    let dims = max_pool::Dims {
        batch: 1,
        height: 3,
        width: 3,
        channels: 1,
        kernel: 3,
        stride: 2,
        padding: Padding::Even(1),
        zeros: false,
    };
    let (mut out, mut tap) = ([f64::NAN; 4], [u32::MAX; 4]);
    max_pool::forward(&mut out, &mut tap, &[-1.0; 9], dims);
    assert_eq!((out, tap), ([-1.0; 4], [4, 3, 1, 0]), "the first pixel inside the image");
}

#[test]
fn average_pool_of_whole_and_cut_windows() {
    for [height, width, kernel, stride, padding] in [
        [4, 6, 2, 2, 0],
        [5, 3, 2, 2, 0],
        [1, 1, 2, 2, 0],
        [7, 4, 3, 2, 0],
        [4, 5, 1, 3, 0],
        [5, 6, 3, 2, 1],
        [1, 4, 3, 1, 1],
    ] {
        for ceil_mode in [false, true] {
            if (!ceil_mode && height + 2 * padding < kernel) || (ceil_mode && padding > 0) {
                continue;
            }
            let dims = avg_pool::Dims { batch: 2, height, width, channels: 3, kernel, stride, padding, ceil_mode };
            check_op(
                &format!("{dims:?}"),
                &[dims.in_len()],
                |x| assigned(dims.out_len(), |out| avg_pool::forward(out, &x[0], dims)),
                |_, dout| vec![assigned(dims.in_len(), |d| avg_pool::backward(d, dout, dims))],
            );
        }
    }
}

#[test]
fn attention_of_one_query() {
    for [batch, tokens, heads, head_dim] in [[2, 5, 3, 2], [1, 1, 1, 3], [3, 4, 1, 5]] {
        let dims = attention_pool::Dims { batch, tokens, heads, head_dim };
        let run = |x: &[Vec<f64>]| {
            let mut prob = vec![f64::NAN; dims.prob_len()];
            let out = assigned(dims.query_len(), |out| {
                attention_pool::forward(out, &mut prob, &x[0], &x[1], &x[2], dims);
            });
            (out, prob)
        };
        let gradients = |x: &[Vec<f64>], dout: &[f64]| {
            let prob = run(x).1;
            let [mut dq, mut dk, mut dv] = [0, 1, 2].map(|i: usize| vec![f64::NAN; x[i].len()]);
            let mut ds = vec![f64::NAN; prob.len()];
            attention_pool::backward(&mut dq, &mut dk, &mut dv, &mut ds, dout, &x[0], &x[1], &x[2], &prob, dims);
            [dq, dk, dv]
        };
        if tokens > 1 {
            let lens = [dims.query_len(), dims.token_len(), dims.token_len()];
            check_op(&format!("{dims:?}"), &lens, |x| run(x).0, |x, dout| gradients(x, dout).into());
        } else {
            // One token has all of the attention, whatever query and key are.
            let x = [vec![0.3; 3], vec![-0.7; 3], vec![1.0, 2.0, 3.0]];
            assert_eq!(run(&x).0, x[2]);
            assert_eq!(gradients(&x, &[0.5, -1.0, 2.0]), [vec![0.0; 3], vec![0.0; 3], vec![0.5, -1.0, 2.0]]);
        }
    }
}

#[test]
fn attention_with_scores_of_a_million() {
    let dims = attention_pool::Dims { batch: 1, tokens: 2, heads: 1, head_dim: 1 };
    let (mut out, mut prob) = ([f64::NAN], [f64::NAN; 2]);
    attention_pool::forward(&mut out, &mut prob, &[1e3], &[1e3, -1e3], &[3.0, 5.0], dims);
    assert_eq!((out, prob), ([3.0], [1.0, 0.0]));
}

#[test]
fn tokens_of_a_mean_and_pixels_at_their_positions() {
    let dims = attention_pool::Dims { batch: 3, tokens: 5, heads: 2, head_dim: 3 };
    check_op(
        "tokens",
        &[dims.pixel_len(), 5 * 6],
        |x| assigned(dims.token_len(), |tokens| attention_pool::assemble(tokens, &x[0], &x[1], dims)),
        |_, dtokens| {
            let mut dinp = vec![];
            let dpos = added(5 * 6, |dpos| {
                dinp = assigned(dims.pixel_len(), |d| attention_pool::assemble_backward(d, dpos, dtokens, dims));
            });
            vec![dinp, dpos]
        },
    );
}
