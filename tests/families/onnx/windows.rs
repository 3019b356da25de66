//! Operators over windows of images, or of rows.

use super::{Given, Tensor, places};

/// What a window reads along each axis: for every output place, the input's places and the tap.
struct Windows {
    size: Vec<usize>,
    out: Vec<usize>,
    kernel: Vec<usize>,
    strides: Vec<usize>,
    before: Vec<usize>,
}

impl Windows {
    fn new(x: &Tensor, given: &Given) -> Windows {
        let size = x.shape[2..].to_vec();
        let kernel = given.ints("kernel_shape", &[]);
        let rank = size.len();
        assert_eq!(kernel.len(), rank);
        let strides = given.ints("strides", &vec![1; rank]);
        let pads = given.ints("pads", &vec![0; 2 * rank]);
        let out = (0..rank).map(|i| (size[i] + pads[i] + pads[rank + i] - kernel[i]) / strides[i] + 1).collect();
        Windows { size, out, kernel, strides, before: pads[..rank].to_vec() }
    }

    /// For an output place, each tap and where it reads, if that is inside the image.
    fn taps(&self, out: &[usize]) -> Vec<Option<usize>> {
        let inside = |tap: Vec<usize>| {
            (0..tap.len()).try_fold(0, |at, i| {
                let place = (out[i] * self.strides[i] + tap[i]).checked_sub(self.before[i])?;
                (place < self.size[i]).then_some(at * self.size[i] + place)
            })
        };
        places(&self.kernel).map(inside).collect()
    }
}

pub(super) fn run(op: &str, inputs: &[&Tensor], given: &Given) -> Tensor {
    let x = inputs[0];
    match op {
        "Conv" => conv(inputs, given),
        "Pad" => pad(x, &inputs[1].ints(), given.find("mode").and_then(|mode| mode.s.as_deref()) == Some(b"reflect")),
        _ => pool(op == "MaxPool", x, &Windows::new(x, given)),
    }
}

fn conv(inputs: &[&Tensor], given: &Given) -> Tensor {
    let (x, weight, bias) = (inputs[0], inputs[1], inputs.get(2));
    let windows = Windows::new(x, given);
    assert_eq!(windows.kernel, weight.shape[2..]);
    let (batch, outputs, inner) = (x.shape[0], weight.shape[0], weight.shape[1]);
    let groups = given.int("group", 1) as usize;
    assert_eq!(inner * groups, x.shape[1]);
    let plane: usize = windows.size.iter().product();
    let count: usize = windows.kernel.iter().product();
    let taps: Vec<Vec<Option<usize>>> = places(&windows.out).map(|out| windows.taps(&out)).collect();
    let mut values = Vec::new();
    for b in 0..batch {
        for o in 0..outputs {
            let first = o / (outputs / groups) * inner;
            for taps in &taps {
                let mut sum = bias.map_or(0.0, |bias| bias.values[o]);
                for i in 0..inner {
                    let image = &x.values[(b * x.shape[1] + first + i) * plane..][..plane];
                    let row = &weight.values[(o * inner + i) * count..][..count];
                    sum += taps.iter().zip(row).map(|(at, w)| at.map_or(0.0, |at| image[at] * w)).sum::<f64>();
                }
                values.push(sum);
            }
        }
    }
    Tensor::new([vec![batch, outputs], windows.out].concat(), values)
}

/// Pixels outside the image are not counted.
fn pool(largest: bool, x: &Tensor, windows: &Windows) -> Tensor {
    let plane: usize = windows.size.iter().product();
    let taps: Vec<Vec<Option<usize>>> = places(&windows.out).map(|out| windows.taps(&out)).collect();
    let mut values = Vec::new();
    for image in x.values.chunks(plane) {
        for taps in &taps {
            let inside: Vec<f64> = taps.iter().flatten().map(|at| image[*at]).collect();
            values.push(match largest {
                true => inside.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                false => inside.iter().sum::<f64>() / inside.len() as f64,
            });
        }
    }
    Tensor::new([x.shape[..2].to_vec(), windows.out.clone()].concat(), values)
}

fn pad(x: &Tensor, pads: &[i64], reflect: bool) -> Tensor {
    let rank = x.shape.len();
    let pads: Vec<usize> = pads.iter().map(|n| *n as usize).collect();
    let shape: Vec<usize> = (0..rank).map(|i| x.shape[i] + pads[i] + pads[rank + i]).collect();
    let strides = x.strides();
    let values = places(&shape).map(|place| {
        let at = (0..rank).try_fold(0, |at, i| {
            let (place, last) = (place[i] as i64 - pads[i] as i64, x.shape[i] as i64 - 1);
            let mirrored = if place < 0 {
                -place
            } else if place > last {
                2 * last - place
            } else {
                place
            };
            (reflect || mirrored == place).then_some(at + mirrored as usize * strides[i])
        });
        at.map_or(0.0, |at| x.values[at])
    });
    let values = values.collect();
    Tensor::new(shape, values)
}
