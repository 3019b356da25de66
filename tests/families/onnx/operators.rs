//! Operators but for those over windows.

use tpgm::export::onnx::proto;

use super::{Given, Tensor, axis_of, places, resize, windows};

pub(super) fn run(op: &str, inputs: &[&Tensor], given: &Given) -> Tensor {
    let x = inputs[0];
    match op {
        "Add" => two(inputs, |a, b| a + b),
        "Sub" => two(inputs, |a, b| a - b),
        "Mul" => two(inputs, |a, b| a * b),
        "Div" if x.whole => two(inputs, |a, b| (a / b).trunc()),
        "Div" => two(inputs, |a, b| a / b),
        "Max" => two(inputs, f64::max),
        "Identity" => x.clone(),
        "Cast" => match given.int("to", 0) as i32 {
            proto::INT64 => x.map(f64::trunc).whole(true),
            proto::UINT8 => x.map(|v| v.trunc().clamp(0.0, 255.0)),
            _ => x.clone().whole(false),
        },
        "Floor" => x.map(f64::floor),
        "Round" => x.map(f64::round_ties_even),
        "Sqrt" => x.map(f64::sqrt),
        "Relu" => x.map(|v| v.max(0.0)),
        "Sigmoid" => x.map(|v| 1.0 / (1.0 + (-v).exp())),
        "Tanh" => x.map(f64::tanh),
        "Erf" => x.map(erf),
        "HardSwish" => x.map(|v| v * (v / 6.0 + 0.5).clamp(0.0, 1.0)),
        "HardSigmoid" => {
            let (alpha, beta) = (given.float("alpha", 0.2), given.float("beta", 0.5));
            x.map(|v| (alpha * v + beta).clamp(0.0, 1.0))
        }
        "Clip" => x.map(|v| v.clamp(inputs[1].values[0], inputs[2].values[0])),
        "Shape" => Tensor::new(vec![x.shape.len()], x.shape.iter().map(|n| *n as f64).collect()).whole(true),
        "Reshape" => {
            let mut shape: Vec<i64> = inputs[1].ints();
            shape.iter_mut().enumerate().filter(|(_, n)| **n == 0).for_each(|(i, n)| *n = x.shape[i] as i64);
            let known: i64 = shape.iter().filter(|n| **n > 0).product();
            let shape = shape.iter().map(|n| if *n < 0 { x.values.len() / known as usize } else { *n as usize });
            Tensor::new(shape.collect(), x.values.clone())
        }
        "Transpose" => {
            let (perm, strides) = (given.ints("perm", &[]), x.strides());
            let shape = perm.iter().map(|axis| x.shape[*axis]).collect();
            x.gather(shape, |place| place.iter().zip(&perm).map(|(at, axis)| at * strides[*axis]).sum())
        }
        "Expand" => {
            let shape = broadcast(&x.shape, &inputs[1].ints().iter().map(|n| *n as usize).collect::<Vec<_>>());
            x.gather(shape, |place| place_in(x, place))
        }
        "Concat" => concat(inputs, axis_of(given.int("axis", 0), x.shape.len())),
        "Slice" => {
            let [from, to, axes] = [1, 2, 3].map(|i| inputs[i].ints());
            let (mut shape, mut first) = (x.shape.clone(), vec![0; x.shape.len()]);
            for ((from, to), axis) in from.iter().zip(&to).zip(&axes) {
                let axis = axis_of(*axis, x.shape.len());
                assert!(*from >= 0 && from < to && *to as usize <= x.shape[axis], "{from}..{to} of {:?}", x.shape);
                (first[axis], shape[axis]) = (*from as usize, (to - from) as usize);
            }
            let strides = x.strides();
            x.gather(shape, |place| place.iter().zip(&first).zip(&strides).map(|((p, f), s)| (p + f) * s).sum())
        }
        "Gather" => {
            let axis = axis_of(given.int("axis", 0), x.shape.len());
            let (at, strides) = (inputs[1], x.strides());
            let shape = [&x.shape[..axis], &at.shape, &x.shape[axis + 1..]].concat();
            x.gather(shape, |place| {
                let (before, rest) = place.split_at(axis);
                let (index, after) = rest.split_at(at.shape.len());
                let index = index.iter().zip(at.strides()).map(|(p, s)| p * s).sum::<usize>();
                let chosen = [before, &[at.values[index] as usize], after].concat();
                chosen.iter().zip(&strides).map(|(p, s)| p * s).sum()
            })
        }
        "ReduceMean" | "ReduceSum" | "ReduceL2" => reduce(op, x, &inputs[1].ints(), given.int("keepdims", 1) == 1),
        "ReduceMin" => {
            assert_eq!(x.shape.len(), 1);
            Tensor::new(vec![1], vec![x.values.iter().copied().fold(f64::INFINITY, f64::min)]).whole(x.whole)
        }
        "Resize" => resize::run(x, &inputs[1].ints(), given),
        "Softmax" => softmax(x, axis_of(given.int("axis", -1), x.shape.len())),
        "MatMul" => matmul(x, inputs[1]),
        "LayerNormalization" => {
            assert_eq!(given.int("axis", -1), -1);
            let [weight, bias] = [inputs[1], inputs[2]];
            let rows = x.values.chunks(weight.values.len());
            let values = rows.flat_map(|row| {
                let row = normalised(row, given.float("epsilon", 1e-5));
                row.into_iter().zip(&weight.values).zip(&bias.values).map(|((v, w), b)| v * w + b).collect::<Vec<_>>()
            });
            Tensor::new(x.shape.clone(), values.collect())
        }
        "InstanceNormalization" => {
            let (channels, len) = (x.shape[1], x.shape[2..].iter().product());
            let rows = x.values.chunks(len).enumerate();
            let values = rows.flat_map(|(i, row)| {
                let (w, b) = (inputs[1].values[i % channels], inputs[2].values[i % channels]);
                normalised(row, given.float("epsilon", 1e-5)).into_iter().map(move |v| v * w + b)
            });
            Tensor::new(x.shape.clone(), values.collect())
        }
        "BatchNormalization" => {
            let (channels, len) = (x.shape[1], x.shape[2..].iter().product::<usize>());
            let of = |i: usize, which: usize| inputs[which].values[i / len % channels];
            let eps = given.float("epsilon", 1e-5);
            let norm = |(i, v): (usize, &f64)| (v - of(i, 3)) / (of(i, 4) + eps).sqrt() * of(i, 1) + of(i, 2);
            Tensor::new(x.shape.clone(), x.values.iter().enumerate().map(norm).collect())
        }
        "GlobalAveragePool" => reduce("ReduceMean", x, &[2, 3], true),
        "DequantizeLinear" => {
            let axis = axis_of(given.int("axis", 1), x.shape.len());
            let (scale, stride) = (inputs[1], x.strides()[axis]);
            let values = x.values.iter().enumerate().map(|(i, v)| v * scale.values[i / stride % x.shape[axis]]);
            Tensor::new(x.shape.clone(), values.collect())
        }
        "Conv" | "MaxPool" | "AveragePool" | "Pad" => windows::run(op, inputs, given),
        _ => panic!("the operator {op} is new: give it a meaning here, and say so in docs/export.md"),
    }
}

fn broadcast(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    let side = |i| match (at(a, i), at(b, i)) {
        (1, n) | (n, 1) => n,
        (n, m) => {
            assert_eq!(n, m, "{a:?} beside {b:?}");
            n
        }
    };
    (0..rank).map(side).collect()
}

/// Where a place of a larger shape is in a tensor that is repeated to it.
fn place_in(x: &Tensor, place: &[usize]) -> usize {
    let skip = place.len() - x.shape.len();
    let at = |(axis, stride): (usize, usize)| if x.shape[axis] == 1 { 0 } else { place[skip + axis] * stride };
    x.strides().into_iter().enumerate().map(at).sum()
}

fn two(inputs: &[&Tensor], f: impl Fn(f64, f64) -> f64) -> Tensor {
    let [a, b] = inputs else { panic!("two inputs") };
    let shape = broadcast(&a.shape, &b.shape);
    let values = places(&shape).map(|place| f(a.values[place_in(a, &place)], b.values[place_in(b, &place)]));
    let values = values.collect();
    Tensor::new(shape, values).whole(a.whole && b.whole)
}

fn concat(inputs: &[&Tensor], axis: usize) -> Tensor {
    let mut shape = inputs[0].shape.clone();
    shape[axis] = inputs.iter().map(|x| x.shape[axis]).sum();
    let before: usize = shape[..axis].iter().product();
    let mut values = Vec::new();
    for row in 0..before {
        for x in inputs {
            let len = x.values.len() / before;
            values.extend(&x.values[row * len..][..len]);
        }
    }
    Tensor::new(shape, values).whole(inputs[0].whole)
}

fn reduce(op: &str, x: &Tensor, axes: &[i64], keep: bool) -> Tensor {
    let axes: Vec<usize> = axes.iter().map(|axis| axis_of(*axis, x.shape.len())).collect();
    let kept: Vec<usize> = x.shape.iter().enumerate().map(|(i, n)| if axes.contains(&i) { 1 } else { *n }).collect();
    let mut out = Tensor::new(kept.clone(), vec![0.0; kept.iter().product()]);
    let count = (x.values.len() / out.values.len()) as f64;
    for (place, v) in places(&x.shape).zip(&x.values) {
        let at = place_in(&out, &place);
        out.values[at] += if op == "ReduceL2" { v * v } else { *v };
    }
    let mut out = match op {
        "ReduceMean" => out.map(|v| v / count),
        "ReduceL2" => out.map(f64::sqrt),
        _ => out,
    };
    if !keep {
        out.shape = x.shape.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, n)| *n).collect();
    }
    out
}

fn softmax(x: &Tensor, axis: usize) -> Tensor {
    let e = x.map(f64::exp);
    let sum = reduce("ReduceSum", &e, &[axis as i64], true);
    two(&[&e, &sum], |a, b| a / b)
}

fn matmul(a: &Tensor, b: &Tensor) -> Tensor {
    let (ra, rb) = (a.shape.len(), b.shape.len());
    let (n, k, m) = (a.shape[ra - 2], a.shape[ra - 1], b.shape[rb - 1]);
    assert_eq!(k, b.shape[rb - 2]);
    let outer = broadcast(&a.shape[..ra - 2], &b.shape[..rb - 2]);
    let mut values = Vec::new();
    for place in places(&outer) {
        let from = |x: &Tensor| place_in(x, &[place.as_slice(), &[0, 0]].concat());
        let (from_a, from_b) = (from(a), from(b));
        for i in 0..n {
            for j in 0..m {
                values.push((0..k).map(|l| a.values[from_a + i * k + l] * b.values[from_b + l * m + j]).sum());
            }
        }
    }
    Tensor::new([outer, vec![n, m]].concat(), values)
}

fn normalised(row: &[f64], eps: f64) -> Vec<f64> {
    let count = row.len() as f64;
    let mean = row.iter().sum::<f64>() / count;
    let var = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
    row.iter().map(|v| (v - mean) / (var + eps).sqrt()).collect()
}

/// By its series, and by a continued fraction of erfc where that is slow.
fn erf(x: f64) -> f64 {
    let root = std::f64::consts::PI.sqrt();
    if x.abs() < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..80 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 2.0 / root * sum;
    }
    let z = x.abs();
    let fraction = (1..=60).rev().fold(0.0, |below, n| f64::from(n) / 2.0 / (z + below));
    (1.0 - (-z * z).exp() / root / (z + fraction)).copysign(x)
}

#[test]
fn the_error_function_is_that_of_scipy() {
    // [scipy.special.erf(x) for x in (0.1, -0.7, 2.4, 2.6, 4)]
    let want = [0.1124629160182849, -0.6778011938374184, 0.999311486103355, 0.9997639655834707, 0.9999999845827421];
    for (x, want) in [0.1, -0.7, 2.4, 2.6, 4.0].into_iter().zip(want) {
        assert!((erf(x) - want).abs() < 1e-13, "{x}: {}", erf(x));
    }
}
