//! Convolutions: both fast variants, the slow one for other channel counts and groups, and the change of layout before; in
//! f32 and f16.

use super::formats::{formats, prefix, rounded, stored_eps};
use super::harness::{Case, Launch, Random, sum_tolerance, wide};
use super::{Plan, Stem, Suite, pairs, stem};
use crate::cpu;
use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::{Element, align};
use crate::ops;
use crate::ops::conv2d::{Dims, Padding};

pub(super) const STEMS: &[Stem] = &[stem(
    "conv2d",
    conv2d,
    &["conv2d::forward", "conv2d::backward_input", "conv2d::backward_weight", "conv2d::to_nhwc"],
)];

/// Batch, height, width, channels in and out, kernel, stride, padding, groups: below, at and past tiles and chunks;
/// strides that leave pixels out, or whole classes of them without a tap.
const SHAPES: [[usize; 9]; 34] = [
    [1, 1, 1, 1, 1, 1, 1, 0, 1],
    [1, 1, 1, 4, 4, 3, 1, 1, 1],
    [2, 5, 7, 3, 5, 3, 1, 1, 1],
    [1, 9, 8, 16, 16, 3, 1, 1, 1],
    [3, 7, 7, 64, 64, 3, 1, 1, 1],
    [2, 8, 9, 64, 68, 3, 2, 1, 1],
    [1, 15, 14, 3, 16, 7, 2, 3, 1],
    [2, 12, 17, 3, 64, 7, 2, 3, 1],
    [2, 10, 7, 63, 65, 3, 1, 1, 1],
    [1, 6, 5, 12, 20, 5, 1, 2, 1],
    [2, 9, 9, 16, 32, 1, 2, 0, 1],
    [2, 9, 8, 16, 48, 1, 2, 1, 1],
    [2, 7, 8, 8, 16, 1, 1, 0, 1],
    [3, 4, 4, 5, 7, 1, 1, 0, 1],
    [1, 11, 4, 4, 48, 2, 2, 0, 1],
    [1, 13, 13, 8, 8, 3, 3, 1, 1],
    [2, 4, 4, 4, 4, 3, 2, 0, 1],
    [2, 3, 5, 8, 4, 2, 4, 0, 1],
    [1, 33, 47, 8, 8, 3, 1, 1, 1],
    [2, 31, 33, 20, 36, 3, 2, 1, 1],
    [1, 7, 7, 100, 36, 3, 1, 1, 1],
    [2, 6, 7, 8, 12, 3, 1, 1, 4],
    [1, 5, 6, 6, 6, 3, 2, 1, 6],
    [1, 24, 25, 6, 4, 3, 1, 1, 2],
    [2, 9, 8, 16, 12, 3, 2, SAME, 1],
    [1, 8, 7, 3, 16, 7, 2, SAME, 1],
    [2, 6, 7, 5, 8, 5, 3, SAME, 1],
    [1, 8, 5, 8, 12, 3, 2, SAME, 4],
    [2, 9, 19, 24, 36, 3, 1, 1, 3],
    [1, 12, 9, 32, 32, 3, 2, 1, 8],
    [2, 7, 17, 16, 8, 1, 1, 0, 2],
    [1, 9, 10, 40, 24, 5, 2, SAME, 2],
    [1, 33, 40, 16, 16, 3, 1, 1, 2],
    [1, 7, 8, 144, 72, 3, 3, 0, 18],
];

/// In place of zeros around an image: as many as TensorFlow's "same" has.
const SAME: usize = 9;

/// Those of a quick run: windows and single pixels, in vectors and not, few channels, groups.
const QUICK: [usize; 9] = [5, 6, 8, 12, 13, 21, 24, 28, 29];

/// Workgroups that share a sum, at most.
const MOST_SPLIT: usize = 3;

/// A shape and where it stands in its list, how it is launched, whether its channels are padded to fours, and its format.
#[derive(Clone, Copy)]
struct Convolution {
    i: usize,
    dims: Dims,
    launch: Launch,
    padded: bool,
    element: Element,
}

impl Convolution {
    /// What a quick run takes it for: its shape, as it is stored, and every two of tile, words and format. Single pixels and
    /// groups take other kernels.
    fn shows(&self) -> Vec<String> {
        let Convolution { i, dims, launch, padded, element } = *self;
        let shape = format!("{i}, padded {padded}, folded {}", launch.fold);
        let stored = padded || (dims.in_channels.is_multiple_of(4) && dims.out_channels.is_multiple_of(4));
        if in_fours(dims) && !launch.fold {
            let width = if launch.for_cpu { "CPU" } else { "GPU" };
            return vec![shape, format!("groups, {width}, {}, {}", launch.word(), prefix(element))];
        }
        if dims.groups > 1 || launch.fold || !stored {
            return vec![shape, format!("slow, {}", prefix(element))];
        }
        if dims.kernel == 1 {
            return vec![shape];
        }
        if launch.is_cooperative() && element == Element::Word {
            return Vec::new();
        }
        pairs(&[&launch.tile(), launch.word(), prefix(element)]).into_iter().chain([shape]).collect()
    }
}

/// Whether each of several groups has fours of channels.
fn in_fours(dims: Dims) -> bool {
    let Dims { in_channels, out_channels, groups, .. } = dims;
    groups > 1 && [in_channels, out_channels].iter().all(|channels| (channels / groups).is_multiple_of(4))
}

fn conv2d(p: &mut Plan) -> Result<()> {
    let (natural, mut cases) = (Launch::natural(p.gpu), Vec::new());
    for (i, [batch, height, width, in_channels, out_channels, kernel, stride, padding, groups]) in
        p.pick(&SHAPES, &QUICK)
    {
        let padding = if padding == SAME { Padding::Same } else { Padding::Even(padding) };
        let dims = Dims { batch, height, width, in_channels, out_channels, kernel, stride, padding, groups };
        let fast = groups == 1;
        let fours = in_channels.is_multiple_of(4) && out_channels.is_multiple_of(4);
        // Linear layers over pixels are matrix products, which in f16 take multiples of 4 alone.
        let linear = (kernel, stride, padding, groups) == (1, 1, Padding::Even(0), 1);
        for &element in formats(p.gpu) {
            let launches = match (fast, in_fours(dims)) {
                (true, _) => Launch::products(p.gpu, 1 + i % MOST_SPLIT),
                (_, true) => Launch::both(p.gpu),
                _ => vec![natural],
            };
            for launch in launches {
                if element == Element::Word || fours || !linear {
                    cases.push(Convolution { i, dims, launch, padded: false, element });
                }
                if !fours {
                    cases.push(Convolution { i, dims, launch, padded: true, element });
                }
            }
            // The slow kernels take folded grids.
            if (groups > 1 && !in_fours(dims)) || (!in_channels.is_multiple_of(4) && kernel > 1) {
                let folded = Launch { fold: true, ..natural };
                cases.push(Convolution { i, dims, launch: folded, padded: false, element });
            }
        }
    }
    for convolution in p.thin(cases, Convolution::shows) {
        p.add(move |s| case(s, convolution));
    }
    for launch in [natural, Launch { fold: true, ..natural }] {
        // Of grey images the first of three planes counts.
        let images = [
            (1, [1, 1_usize], 1),
            (2, [3, 3], 35),
            (2, [3, 1], 35),
            (3, [5, 5], 65),
            (1, [4, 4], 197),
            (2, [64, 64], 9),
        ];
        for (_, (batch, [planes, channels], pixels)) in p.pick(&images, &[3]) {
            let formats = formats(p.gpu);
            let pitches = [channels, channels.next_multiple_of(4)];
            for (pitch, &element) in pitches.into_iter().flat_map(|pitch| formats.iter().map(move |e| (pitch, e))) {
                p.add(move |s| {
                    let inp = Random::new(pixels as u64).vec(batch * planes * pixels);
                    let mut want = vec![0.0; batch * pixels * pitch];
                    cpu::conv2d::to_nhwc(&mut want, &wide(&inp), batch, [planes, channels], pixels, pitch);
                    let name = format!("{}{batch}×{channels} of {planes}×{pixels} to {pitch}", prefix(element));
                    let mut c = Case::new(s.gpu, name, 0)?;
                    let [inp, out] = [c.input("inp", &inp)?, c.output_as("out", element, want.len())?];
                    c.run(launch, |r| ops::conv2d::to_nhwc(r, &out, &inp, batch, [planes, channels], pixels))?;
                    // A copy.
                    c.expect("conv2d::to_nhwc", &out, &want, stored_eps(element));
                    s.finish(c)
                });
            }
        }
    }
    Ok(())
}

/// Pixels of `channels` each, with zeros up to `pitch`.
fn pad<T: Copy + Default>(values: &[T], channels: usize, pitch: usize) -> Vec<T> {
    let pixel = |p: &[T]| p.iter().copied().chain(vec![T::default(); pitch - channels]).collect::<Vec<T>>();
    values.chunks_exact(channels).flat_map(pixel).collect()
}

fn case(s: &mut Suite, Convolution { i, dims, launch, padded, element }: Convolution) -> Result<()> {
    let mut random = Random::new(900 + i as u64);
    let lens = [dims.in_len(), dims.weight_len(), dims.out_len()];
    let [inp, weight, dout] = lens.map(|len| rounded(random.vec(len), element));
    let (inp64, weight64, dout64) = (wide(&inp), wide(&weight), wide(&dout));
    let stored = |channels: usize| if padded { channels.next_multiple_of(4) } else { channels };
    let pad_in = |x: &[f64]| pad(x, dims.in_channels, stored(dims.in_channels));
    let pad_out = |x: &[f64]| pad(x, dims.out_channels, stored(dims.out_channels));
    let Dims { batch, height, width, in_channels, out_channels, kernel, stride, padding, groups } = dims;
    let name = format!(
        "{}{batch}×{height}×{width}×{in_channels} to {out_channels}, kernel {kernel}, stride {stride}, padding {padding:?}, \
         groups {groups}{}, {}",
        prefix(element),
        if padded { ", stored in fours" } else { "" },
        launch.suffix()
    );
    let fours = [in_channels, out_channels].map(|c| c.next_multiple_of(4));
    let partial = align(MOST_SPLIT * kernel * kernel * fours[0] * fours[1]);
    let mut c = Case::new(s.gpu, name, ops::conv2d::scratch_len(dims).max(partial))?;
    let inp_view = c.input_as("inp", element, &pad(&inp, in_channels, stored(in_channels)))?;
    let dout_view = c.input_as("dout", element, &pad(&dout, out_channels, stored(out_channels)))?;
    let weight_view = c.input_as("weight", element, &weight)?;
    let eps = stored_eps(element);

    let mut want = vec![0.0; dims.out_len()];
    cpu::conv2d::forward(&mut want, &inp64, &weight64, dims);
    let want = pad_out(&want);
    let out = c.output_as("out", element, want.len())?;
    c.run(launch, |r| ops::conv2d::forward(r, &out, &inp_view, &weight_view, dims))?;
    // Sums over the window and its channels; for the gradients over outputs, and over all pixels.
    c.expect("conv2d::forward", &out, &want, eps + sum_tolerance(kernel * kernel * in_channels / groups, 4.0));

    for accumulate in [false, true] {
        let before = rounded(random.vec(dims.in_len()), element);
        let mut want = if accumulate { wide(&before) } else { vec![0.0; dims.in_len()] };
        cpu::conv2d::backward_input(&mut want, &dout64, &weight64, dims, accumulate);
        let want = pad_in(&want);
        let dinp: View = if accumulate {
            c.input_as("dinp", element, &pad(&before, in_channels, stored(in_channels)))?
        } else {
            c.output_as("dinp", element, want.len())?
        };
        c.run(launch, |r| ops::conv2d::backward_input(r, &dinp, &dout_view, &weight_view, dims, accumulate))?;
        let depth = kernel * kernel * out_channels / groups;
        // Pixels that no window sees have no gradient: the mean, to which errors are relative, is that much smaller.
        let sparse = if kernel < stride { (stride * stride / kernel / kernel) as f64 } else { 1.0 };
        c.expect("conv2d::backward_input", &dinp, &want, eps + sparse * sum_tolerance(depth, 4.0));
    }

    let before = random.vec(dims.weight_len());
    let dweight = c.input("dweight", &before)?;
    let mut want = wide(&before);
    cpu::conv2d::backward_weight(&mut want, &dout64, &inp64, dims);
    c.run(launch, |r| ops::conv2d::backward_weight(r, &dweight, &dout_view, &inp_view, dims))?;
    c.expect("conv2d::backward_weight", &dweight, &want, sum_tolerance(dims.out_pixels(), 4.0));
    s.finish(c)
}
