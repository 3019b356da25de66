//! The operations over the channels of images, in mid-graph as all others.

use tpgm::cpu::depthwise::{self, Padding};
use tpgm::cpu::{blur, eca, gate, grn, group_norm, relu6, silu, slice, split_attention, standardize, unfold};

use super::*;

#[test]
fn depthwise_convolutions_of_every_kind() {
    // Batch, height, width, channels, kernel, stride.
    for ([batch, height, width, channels, kernel, stride], padding) in [
        ([2, 4, 5, 2, 3, 1], Padding::Even(1)),
        ([1, 5, 3, 2, 5, 1], Padding::Even(2)),
        ([1, 4, 3, 1, 7, 1], Padding::Even(3)),
        ([1, 5, 6, 2, 3, 2], Padding::Even(1)),
        ([1, 6, 5, 2, 5, 2], Padding::Same),
        ([1, 5, 5, 1, 3, 1], Padding::Even(0)),
    ] {
        let dims = depthwise::Dims { batch, height, width, channels, kernel, stride, padding };
        check_op(
            &format!("{dims:?}"),
            &[dims.in_len(), dims.weight_len(), channels],
            |x| assigned(dims.out_len(), |out| depthwise::forward(out, &x[0], &x[1], Some(&x[2]), dims)),
            |x, dout| {
                let dinp = assigned(dims.in_len(), |d| depthwise::backward_input(d, dout, &x[1], dims, false));
                let again = added(dims.in_len(), |d| depthwise::backward_input(d, dout, &x[1], dims, true));
                assert!(dinp.iter().zip(&again).all(|(a, b)| (a - b).abs() <= 1e-12), "assigned and added differ");
                let dweight = added(dims.weight_len(), |d| depthwise::backward_weight(d, dout, &x[0], dims));
                let rows = dims.out_len() / channels;
                vec![dinp, dweight, added(channels, |d| column_sum::column_sum(d, dout, rows, channels))]
            },
        );
    }
}

#[test]
fn windows_that_touch_overlap_and_leave_pixels_out() {
    for [batch, height, width, channels, kernel, stride, padding] in
        [[2, 4, 6, 2, 2, 2, 0], [1, 5, 5, 3, 2, 2, 0], [1, 5, 4, 2, 3, 2, 1], [1, 5, 7, 1, 2, 3, 0]]
    {
        let dims = unfold::Dims { batch, height, width, channels, kernel, stride, padding: Padding::Even(padding) };
        check_op(
            &format!("{dims:?}"),
            &[dims.in_len()],
            |x| assigned(dims.out_len(), |out| unfold::forward(out, &x[0], dims)),
            |_, dout| {
                let dinp = assigned(dims.in_len(), |d| unfold::backward(d, dout, dims, false));
                let again = added(dims.in_len(), |d| unfold::backward(d, dout, dims, true));
                assert!(dinp.iter().zip(&again).all(|(a, b)| (a - b).abs() <= 1e-12), "assigned and added differ");
                vec![dinp]
            },
        );
    }
}

#[test]
fn blurred_images() {
    use blur::Filter::{Mean, Reflected, Zeros};
    // Batch, height, width, channels, stride.
    for ([batch, height, width, channels, stride], filter) in [
        ([2, 5, 4, 2, 2], Reflected),
        ([1, 2, 3, 1, 2], Reflected),
        ([1, 4, 7, 1, 3], Reflected),
        ([1, 3, 4, 2, 1], Reflected),
        ([1, 6, 5, 2, 2], Zeros),
        ([2, 1, 5, 1, 2], Mean),
    ] {
        let dims = blur::Dims { batch, height, width, channels, stride, filter };
        check_op(
            &format!("{dims:?}"),
            &[dims.in_len()],
            |x| assigned(dims.out_len(), |out| blur::forward(out, &x[0], dims)),
            |_, dout| vec![assigned(dims.in_len(), |d| blur::backward(d, dout, dims))],
        );
    }
}

#[test]
fn splits_of_every_kind() {
    // Images, pixels, channels, splits, groups.
    for [batch, pixels, channels, radix, groups] in [[2, 3, 4, 2, 1], [1, 4, 4, 3, 2], [2, 2, 3, 1, 3], [1, 5, 6, 2, 3]]
    {
        let dims = split_attention::Dims { batch, pixels, channels, radix, groups };
        let run = |x: &[Vec<f64>]| {
            let mut prob = vec![f64::NAN; dims.weights_len()];
            let out = assigned(dims.len(), |out| split_attention::forward(out, &mut prob, &x[0], &x[1], dims));
            (out, prob)
        };
        check_op(
            &format!("{dims:?}"),
            &[dims.in_len(), dims.weights_len()],
            |x| run(x).0,
            |x, dout| {
                let prob = run(x).1;
                let mut dlogits = vec![f64::NAN; dims.weights_len()];
                let dinp =
                    assigned(dims.in_len(), |d| split_attention::backward(d, &mut dlogits, dout, &x[0], &prob, dims));
                vec![dinp, dlogits]
            },
        );
    }
}

#[test]
fn columns_alone_and_beside_others() {
    let of = |first, count| slice::Dims { rows: 3, pitch: 7, first, count };
    for dims in [of(0, 7), of(2, 3), of(6, 1)] {
        check_op(
            &format!("{dims:?}"),
            &[dims.len()],
            |x| assigned(dims.part_len(), |out| slice::forward(out, &x[0], dims)),
            |_, dout| {
                let dinp = assigned(dims.len(), |d| slice::backward(d, dout, dims, false));
                let again = added(dims.len(), |d| slice::backward(d, dout, dims, true));
                assert!(dinp.iter().zip(&again).all(|(a, b)| (a - b).abs() <= 1e-12), "assigned and added differ");
                vec![dinp]
            },
        );
    }
    let parts = [of(0, 4), of(4, 3)];
    check_op(
        "two side by side",
        &parts.map(slice::Dims::part_len),
        |x| assigned(21, |out| parts.iter().zip(x).for_each(|(dims, part)| slice::place(out, part, *dims))),
        |_, dout| parts.map(|dims| assigned(dims.part_len(), |d| slice::forward(d, dout, dims))).to_vec(),
    );
}

#[test]
fn responses_through_their_norms() {
    let (batch, rows, cols) = (2, 5, 3);
    let run = |x: &[Vec<f64>]| {
        let (mut norm, mut inverse) = (vec![f64::NAN; batch * cols], vec![f64::NAN; batch]);
        let out = assigned(batch * rows * cols, |out| {
            grn::forward(out, &mut norm, &mut inverse, &x[0], &x[1], &x[2], 1e-2, batch, rows, cols);
        });
        (out, norm, inverse)
    };
    check_op(
        "grn",
        &[batch * rows * cols, cols, cols],
        |x| run(x).0,
        |x, dout| {
            let (_, norm, inverse) = run(x);
            let (mut dinp, mut dbias) = (vec![], vec![]);
            let dweight = added(cols, |dw| {
                dbias = added(cols, |db| {
                    dinp = assigned(batch * rows * cols, |d| {
                        grn::backward(d, dw, db, dout, &x[0], &x[1], &norm, &inverse, batch, rows, cols);
                    });
                });
            });
            vec![dinp, dweight, dbias]
        },
    );
}

#[test]
fn gates_with_and_without_a_relu() {
    let (batch, rows, cols) = (2, 4, 3);
    let len = batch * rows * cols;
    for (relu, kind) in [(false, gate::Kind::Sigmoid), (true, gate::Kind::Sigmoid), (false, gate::Kind::HardSigmoid)] {
        // Away from the ReLU's kink: far on one side of it or on the other.
        let shortcut: Vec<f64> = (0..len).map(|i| if i % 3 == 0 { -9.0 } else { 9.0 }).collect();
        let run = |x: &[Vec<f64>]| {
            assigned(len, |out| gate::forward(out, &x[0], &x[1], Some(&shortcut), relu, kind, batch, rows, cols))
        };
        check_op(&format!("gate {kind:?}, relu {relu}"), &[len, batch * cols], run, |x, dout| {
            let out = run(x);
            let mut dscale = vec![];
            let dinp = assigned(len, |d| {
                dscale = assigned(batch * cols, |ds| {
                    let out = relu.then_some(out.as_slice());
                    gate::backward(d, ds, dout, out, &x[0], &x[1], kind, batch, rows, cols);
                });
            });
            vec![dinp, dscale]
        });
    }
}

#[test]
fn convolutions_along_channels() {
    for (batch, channels, kernel) in [(2, 7, 3), (1, 4, 5), (2, 2, 7)] {
        check_op(
            &format!("eca of {channels} channels, kernel {kernel}"),
            &[batch * channels, kernel],
            |x| assigned(batch * channels, |out| eca::forward(out, &x[0], &x[1], batch, channels)),
            |x, dout| {
                vec![
                    assigned(batch * channels, |d| eca::backward_input(d, dout, &x[1], batch, channels)),
                    added(kernel, |d| eca::backward_weight(d, dout, &x[0], batch, channels)),
                ]
            },
        );
    }
}

#[test]
fn activations_within_their_corners_and_beyond() {
    let wide = |x: &[f64]| -> Vec<f64> { x.iter().map(|v| 4.0 * v).collect() };
    check_op(
        "silu",
        &[33],
        |x| assigned(33, |out| silu::forward(out, &wide(&x[0]))),
        |x, dout| vec![wide(&assigned(33, |d| silu::backward_input(d, dout, &wide(&x[0]))))],
    );
    check_op(
        "relu6",
        &[33],
        |x| {
            let x = wide(&x[0]);
            assert!(x.iter().all(|v| v.abs() > 2e-2 && (v - 6.0).abs() > 2e-2), "too near a corner: {x:?}");
            assert!(x.iter().any(|v| *v < 0.0) && x.iter().any(|v| *v > 6.0));
            assigned(33, |out| relu6::forward(out, &x))
        },
        |x, dout| vec![wide(&assigned(33, |d| relu6::backward_input(d, dout, &wide(&x[0]))))],
    );
}

#[test]
fn groups_of_channels_through_their_statistics() {
    for (shape @ [batch, rows, cols, _], relu) in
        [([2, 3, 4, 2], false), ([1, 5, 6, 6], false), ([2, 4, 3, 1], false), ([2, 3, 4, 2], true)]
    {
        let len = batch * rows * cols;
        let run = |x: &[Vec<f64>]| {
            let [mut mean, mut rstd] = [0; 2].map(|_| vec![f64::NAN; batch * cols]);
            // Away from the ReLU's kink: far on one side of it or on the other.
            let bias: Vec<f64> = (0..cols).map(|c| x[2][c] + if c % 2 == 0 { -20.0 } else { 20.0 }).collect();
            let out = assigned(len, |out| {
                group_norm::forward(out, &mut mean, &mut rstd, &x[0], &x[1], &bias, relu, shape, 1e-2);
            });
            (out, mean, rstd)
        };
        check_op(
            &format!("group norm {shape:?}, relu {relu}"),
            &[len, cols, cols],
            |x| run(x).0,
            |x, dout| {
                let (out, mean, rstd) = run(x);
                let (mut dinp, mut dbias) = (vec![], vec![]);
                let dweight = added(cols, |dw| {
                    dbias = added(cols, |db| {
                        dinp = assigned(len, |d| {
                            let out = relu.then_some(out.as_slice());
                            group_norm::backward(d, dw, db, dout, out, &x[0], &x[1], &mean, &rstd, shape);
                        });
                    });
                });
                vec![dinp, dweight, dbias]
            },
        );
    }
}

#[test]
fn standardised_weights() {
    for (rows, cols) in [(3, 5), (1, 7), (4, 2)] {
        check_op(
            &format!("standardise {rows} rows of {cols}"),
            &[rows * cols],
            |x| assigned(rows * cols, |out| standardize::forward(out, &x[0], rows, cols, 1e-2)),
            |x, dout| vec![added(rows * cols, |d| standardize::backward(d, dout, &x[0], rows, cols, 1e-2))],
        );
    }
}
