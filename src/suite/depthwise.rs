//! Depth-wise convolutions: the kernels that walk down stripes, and those for any stride and kernel; in f32 and f16.

use super::formats::{formats, prefix, rounded, stored_eps};
use super::harness::{Case, Launch, Random, sum_tolerance, wide};
use super::{Plan, Stem, Suite, stem};
use crate::cpu;
use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::ops;
use crate::ops::depthwise::{Dims, Padding};

pub(super) const STEMS: &[Stem] =
    &[stem("depthwise", depthwise, &["depthwise::forward", "depthwise::backward_input", "depthwise::backward_weight"])];

/// Batch, height, width, channels, kernel, stride, padding, or 9 for TensorFlow's "same": images narrower and lower than a window,
/// at and past stripes of 4 and 8 pixels, more rows than one walk has, channels below and past a workgroup's.
const SHAPES: [[usize; 7]; 26] = [
    [1, 1, 1, 4, 7, 1, 3],
    [2, 7, 9, 40, 7, 1, 3],
    [1, 37, 8, 12, 7, 1, 3],
    [2, 5, 17, 3, 7, 1, 3],
    [3, 8, 7, 65, 7, 1, 3],
    [1, 20, 33, 8, 7, 1, 0],
    [2, 7, 9, 36, 3, 1, 1],
    [1, 19, 16, 5, 3, 1, 1],
    [1, 4, 4, 68, 3, 1, 2],
    [2, 9, 10, 20, 5, 1, 2],
    [1, 6, 7, 7, 5, 1, 2],
    [1, 11, 9, 8, 5, 1, 9],
    [2, 9, 10, 16, 3, 2, 1],
    [1, 8, 7, 6, 3, 2, 9],
    [2, 11, 12, 12, 5, 2, 2],
    [1, 10, 13, 33, 5, 2, 9],
    [1, 9, 9, 8, 7, 2, 3],
    [2, 6, 5, 4, 1, 1, 0],
    [1, 12, 7, 20, 4, 3, 1],
    [70, 3, 3, 4, 3, 1, 1],
    [1, 1, 1, 4, 3, 2, 1],
    [1, 75, 17, 12, 3, 2, 1],
    [2, 7, 19, 36, 3, 2, 2],
    [1, 71, 9, 5, 5, 2, 2],
    [2, 14, 16, 68, 5, 2, 0],
    [70, 7, 8, 8, 7, 2, 9],
];

/// A shape and its place in the list, how it is launched, whether there is a bias, and the format.
#[derive(Clone, Copy)]
struct Convolution {
    i: usize,
    dims: Dims,
    launch: Launch,
    element: Element,
}

impl Convolution {
    /// What a quick run takes it for: each way to read and write, walked and not, and each kernel.
    fn shows(&self) -> Vec<String> {
        let Convolution { dims, launch, element, .. } = *self;
        let width = if launch.for_cpu && dims.channels.is_multiple_of(4) { "fours" } else { "ones" };
        let way = match (dims.stride, dims.kernel) {
            (1, 3 | 5 | 7) => "walked",
            (2, 3 | 5 | 7) => "walked by two",
            _ => "any",
        };
        let kernel = format!("{way}, kernel {}", dims.kernel);
        vec![kernel, format!("{way}, {}, {width}, {}, {}", launch.tile(), launch.word(), prefix(element))]
    }
}

fn depthwise(p: &mut Plan) -> Result<()> {
    let mut cases = Vec::new();
    for (i, [batch, height, width, channels, kernel, stride, padding]) in SHAPES.into_iter().enumerate() {
        let padding = if padding == 9 { Padding::Same } else { Padding::Even(padding) };
        let dims = Dims { batch, height, width, channels, kernel, stride, padding };
        for launch in Launch::both(p.gpu) {
            cases.extend(formats(p.gpu).iter().map(|&element| Convolution { i, dims, launch, element }));
        }
    }
    for convolution in p.thin(cases, Convolution::shows) {
        p.add(move |s| case(s, convolution));
    }
    Ok(())
}

fn case(s: &mut Suite, Convolution { i, dims, launch, element }: Convolution) -> Result<()> {
    let mut random = Random::new(1200 + i as u64);
    let [inp, dout] = [dims.in_len(), dims.out_len()].map(|len| rounded(random.vec(len), element));
    let (weight, bias) = (random.vec(dims.weight_len()), random.vec(dims.channels));
    let (inp64, weight64, dout64, bias64) = (wide(&inp), wide(&weight), wide(&dout), wide(&bias));
    let Dims { batch, height, width, channels, kernel, stride, padding } = dims;
    let name = format!(
        "{}{batch}×{height}×{width}×{channels}, kernel {kernel}, stride {stride}, padding {padding:?}, {}",
        prefix(element),
        launch.suffix()
    );
    let mut c = Case::new(s.gpu, name, ops::depthwise::scratch_len(dims))?;
    let [inp_view, dout_view] = [c.input_as("inp", element, &inp)?, c.input_as("dout", element, &dout)?];
    let [weight_view, bias_view] = [c.input("weight", &weight)?, c.input("bias", &bias)?];
    let eps = stored_eps(element);
    // Sums over a window, and over all pixels.
    let window = eps + sum_tolerance(kernel * kernel, 4.0);

    for bias in [None, Some(&bias_view)] {
        let mut want = vec![0.0; dims.out_len()];
        cpu::depthwise::forward(&mut want, &inp64, &weight64, bias.map(|_| bias64.as_slice()), dims);
        let out = c.output_as("out", element, want.len())?;
        c.run(launch, |r| ops::depthwise::forward(r, &out, &inp_view, &weight_view, bias, dims))?;
        c.expect("depthwise::forward", &out, &want, window);
    }
    for accumulate in [false, true] {
        let before = rounded(random.vec(dims.in_len()), element);
        let mut want = if accumulate { wide(&before) } else { vec![0.0; dims.in_len()] };
        cpu::depthwise::backward_input(&mut want, &dout64, &weight64, dims, accumulate);
        let dinp = match accumulate {
            true => c.input_as("dinp", element, &before)?,
            false => c.output_as("dinp", element, want.len())?,
        };
        c.run(launch, |r| ops::depthwise::backward_input(r, &dinp, &dout_view, &weight_view, dims, accumulate))?;
        // Pixels that few windows see have small gradients: the mean, to which errors are relative, is that much smaller.
        c.expect("depthwise::backward_input", &dinp, &want, eps + stride as f64 * window);
    }
    let before = random.vec(dims.weight_len());
    let dweight = c.input("dweight", &before)?;
    let mut want = wide(&before);
    cpu::depthwise::backward_weight(&mut want, &dout64, &inp64, dims);
    c.run(launch, |r| ops::depthwise::backward_weight(r, &dweight, &dout_view, &inp_view, dims))?;
    c.expect("depthwise::backward_weight", &dweight, &want, sum_tolerance(dims.out_len() / channels, 4.0));
    s.finish(c)
}
