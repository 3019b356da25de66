//! Host wrapper of `shaders/depthwise.wgsl` and `depthwise_strided.wgsl`: depth-wise 2-D convolutions over NHWC images, with weights in PyTorch's order
//! `[C, 1, k, k]`.
//!
//! Images and their gradients may be f16, all of them; weights, biases and their gradients are f32 whatever they are.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::buffer::{Element, align};
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{Kernel, View};
use crate::ops::elem::Elem;
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::words::{all_elems, elems};
use crate::ops::{CPU_LANES, Recorder, WG, check, column_sum, flag, scratch_len as column_scratch};

pub use crate::cpu::depthwise::{Dims, Padding};

static SHADER: Shader = shader!("depthwise", STRIPES);
static STRIDED: Shader = shader!("depthwise_strided", STRIPES);

/// Kernels whose window fits a lane's registers.
const WALKED: &[f64] = &[3.0, 5.0, 7.0];
/// Rows that a lane on a GPU walks down: each walk reads `k − 1` rows more.
const GPU_ROWS: usize = 16;
/// Workgroups that a CPU adapter is given if there are enough rows.
const CPU_GROUPS: usize = 8;
/// Partial sums of the weight's gradient that are left for the last stage, at most, for each stripe.
const MAX_CHUNKS: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    batch: u32,
    src: [u32; 2],
    dst: [u32; 2],
    cols: u32,
    before: [i32; 2],
    rows: u32,
    stripes: u32,
    kernel: u32,
    stride: u32,
}

/// How lanes share a convolution: one channel each, or four.
#[derive(Clone, Copy)]
struct Split {
    dims: Dims,
    elem: Elem,
    lanes: usize,
    for_cpu: bool,
}

/// Fours of pixels of a stripe where the stride is 1, at most: `MOST_FOURS` of the shader.
fn most_fours(elem: Elem) -> usize {
    if elem.width == 4 { 2 } else { 1 }
}

/// Fours of pixels of a stripe for a kernel of this size: `FOURS` of the shader. The code for a window of 7 × 7 over eight pixels is
/// larger than a core's instruction cache.
fn fours_of(elem: Elem, kernel: usize) -> usize {
    if kernel == 7 { 1 } else { most_fours(elem) }
}

fn tail(elem: Elem, element: Element, wide: bool) -> String {
    let of = if elem.width == 4 { "vec4f(a, b, c, d)" } else { "a" };
    format!(
        "{}const WIDTH = {}u;\nconst MOST_FOURS = {}u;\n\
         fn elem_of(a: f32, b: f32, c: f32, d: f32) -> elem {{ return {of}; }}\n",
        elems(elem, element, wide),
        elem.width,
        most_fours(elem)
    )
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    let formats = all_elems().into_iter().map(|(elem, element, wide)| tail(elem, element, wide));
    let walks = &["forward", "backward_input", "backward_weight"];
    let biased = &["forward", "forward_any"];
    let added = &["backward_input", "backward_input_any"];
    let of = |shader| Variants::of(shader).append(formats.clone()).with("WG", LANES).with_in(walks, "K", WALKED);
    let of = |shader| of(shader).with_in(biased, "BIAS", FLAG).with_in(added, "ACCUMULATE", FLAG);
    vec![of(&SHADER), of(&STRIDED)]
}

/// Whether the kernels that walk down stripes apply.
fn walks(dims: Dims) -> bool {
    dims.stride <= 2 && WALKED.contains(&(dims.kernel as f64))
}

/// Where these dims have the entry for `pass`, and its name.
fn entry(pass: &str, dims: Dims) -> (&'static Shader, String) {
    match (walks(dims), dims.stride) {
        (true, 1) => (&SHADER, pass.to_string()),
        (true, _) => (&STRIDED, pass.to_string()),
        _ => (&SHADER, format!("{pass}_any")),
    }
}

/// Pairs of `size` pixels behind `before` zeros, of which each has an even and an odd one.
fn pairs(size: usize, before: usize) -> usize {
    (before + size).div_ceil(2) - before / 2
}

impl Split {
    fn new(r: &Recorder, dims: Dims, element: Element) -> Split {
        // A GPU's registers hold the window of one channel.
        let cols = if r.for_cpu { dims.channels } else { 1 };
        Split { dims, elem: Elem::of(cols, element), lanes: r.reduce_lanes(), for_cpu: r.for_cpu }
    }

    fn cols(self) -> usize {
        self.dims.channels / self.elem.width
    }

    /// Stripes of `width` pixels of `out`, or of `dinp` where the stride is 1.
    fn stripes(self, width: usize) -> usize {
        width.div_ceil(if self.dims.stride == 1 { 4 * fours_of(self.elem, self.dims.kernel) } else { 4 })
    }

    /// Workgroups for the columns of `across` pixels or stripes, or taps.
    fn groups(self, across: usize) -> u32 {
        (self.cols() * across).div_ceil(self.lanes) as u32
    }

    /// Rows that a lane walks down of `height`.
    fn rows(self, height: usize, groups: usize) -> usize {
        let chunks = if self.for_cpu { CPU_GROUPS.div_ceil(groups) } else { height.div_ceil(GPU_ROWS) };
        // Short walks read more rows than they write.
        height.div_ceil(chunks).max(self.dims.kernel).min(height)
    }

    /// Images that a lane takes for the weight's gradient.
    fn images(self) -> usize {
        self.dims.batch.div_ceil(MAX_CHUNKS)
    }

    /// The same of rows of `out`, where lanes have one tap.
    fn image_rows(self) -> usize {
        (self.dims.batch * self.dims.out_height()).div_ceil(MAX_CHUNKS)
    }

    /// Partial sums of the weight's gradient.
    fn partials(self) -> usize {
        if walks(self.dims) {
            self.dims.batch.div_ceil(self.images()) * self.stripes(self.dims.out_width())
        } else {
            (self.dims.batch * self.dims.out_height()).div_ceil(self.image_rows())
        }
    }

    fn params(self) -> Params {
        let Dims { batch, height, width, kernel, stride, .. } = self.dims;
        let out = [self.dims.out_height() as u32, self.dims.out_width() as u32];
        Params {
            batch: batch as u32,
            src: [height as u32, width as u32],
            dst: out,
            cols: self.cols() as u32,
            before: self.dims.before().map(|n| n as i32),
            rows: 0,
            stripes: 0,
            kernel: kernel as u32,
            stride: stride as u32,
        }
    }

    fn kernel(
        self,
        r: &Recorder,
        (shader, entry): (&'static Shader, String),
        own: &[(&str, f64)],
        element: Element,
    ) -> Result<Arc<Kernel>> {
        let constants = [&[("WG", self.lanes as f64)], own].concat();
        let wide = self.elem.width == 4 && r.wide_words;
        r.kernel_with(shader, &entry, &constants, &tail(self.elem, element, wide))
    }

    /// The dispatch of `pass` that writes all of `dst`, whose pixels lie in `rows` and `across`, or pairs of them: by walks if that
    /// applies, else by pixels.
    fn gather(
        self,
        r: &mut Recorder,
        pass: &str,
        own: (&str, bool),
        views: &[(&str, &View)],
        params: Params,
        [height, width]: [usize; 2],
    ) -> Result<()> {
        let element = views[0].1.element;
        let (entry, flags, batch) = (entry(pass, self.dims), (own.0, flag(own.1)), self.dims.batch);
        if walks(self.dims) {
            let stripes = self.stripes(width);
            let groups = self.groups(stripes);
            let rows = self.rows(height, groups as usize * batch);
            let kernel = self.kernel(r, entry, &[flags, ("K", self.dims.kernel as f64)], element)?;
            let params = Params { rows: rows as u32, stripes: stripes as u32, ..params };
            r.push(&kernel, views, &params, [groups, height.div_ceil(rows) as u32, batch as u32]);
        } else {
            let kernel = self.kernel(r, entry, &[flags], element)?;
            r.push(&kernel, views, &params, [self.groups(width), height as u32, batch as u32]);
        }
        self.note_work(r);
        Ok(())
    }

    fn note_work(self, r: &mut Recorder) {
        r.work(2 * (self.dims.out_len() * self.dims.kernel * self.dims.kernel) as u64);
    }
}

/// Elements of scratch that the three passes over `dims` need, and the bias's gradient.
pub fn scratch_len(dims: Dims) -> usize {
    let splits = [(CPU_LANES, 4, true), (WG, 1, false), (CPU_LANES, 1, true)].map(|(lanes, cols, for_cpu)| {
        let elem = Elem::of(cols, Element::Word);
        Split { dims, elem, lanes, for_cpu }.partials()
    });
    let partials = splits.into_iter().max().unwrap_or(0) * dims.weight_len();
    align(partials).max(column_scratch(dims.out_len() / dims.channels, dims.channels))
}

#[track_caller]
fn check_images(op: &str, inp: (&str, &View), out: (&str, &View), weight: &View, dims: Dims) {
    check(op, inp.0, inp.1, dims.in_len());
    check(op, out.0, out.1, dims.out_len());
    check(op, "weight", weight, dims.weight_len());
    assert_eq!(inp.1.element, out.1.element, "{op}: {} and {} of one kind", inp.0, out.0);
}

/// `out = ` each channel of `inp` convolved with its own kernel, plus `bias`: `out` `[B, H', W', C]`, `inp` `[B, H, W, C]`, both
/// f32 or both f16; `weight` `[C, 1, k, k]` and `bias` `[C]`, f32.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, weight: &View, bias: Option<&View>, dims: Dims) -> Result<()> {
    let op = "depthwise";
    check_images(op, ("inp", inp), ("out", out), weight, dims);
    if let Some(bias) = bias {
        check(op, "bias", bias, dims.channels);
    }
    let split = Split::new(r, dims, inp.element);
    let views = [("dst", out), ("src", inp), ("weight", weight), ("bias", bias.unwrap_or(weight))];
    let out = [dims.out_height(), dims.out_width()];
    split.gather(r, "forward", ("BIAS", bias.is_some()), &views, split.params(), out)
}

/// Gradient of the input: `dinp = `, or `+= ` with `accumulate`. Shapes as in [`forward`].
pub fn backward_input(
    r: &mut Recorder,
    dinp: &View,
    dout: &View,
    weight: &View,
    dims: Dims,
    accumulate: bool,
) -> Result<()> {
    check_images("depthwise::backward_input", ("dinp", dinp), ("dout", dout), weight, dims);
    let split = Split::new(r, dims, dinp.element);
    let forward = split.params();
    let mut params = Params { src: forward.dst, dst: forward.src, ..forward };
    let views = [("dst", dinp), ("src", dout), ("weight", weight), ("bias", weight)];
    // Walks forward and back share what may read a bias.
    let views = &views[..if walks(dims) && dims.stride == 1 { 4 } else { 3 }];
    let mut size = [dims.height, dims.width];
    if walks(dims) && dims.stride == 1 {
        // The kernel turned round reaches as far on the other side.
        params.before = forward.before.map(|before| dims.kernel as i32 - 1 - before);
    } else if walks(dims) {
        let [above, left] = dims.before();
        size = [pairs(dims.height, above), pairs(dims.width, left)];
    }
    split.gather(r, "backward_input", ("ACCUMULATE", accumulate), views, params, size)
}

/// Gradient of the weight: `dweight += `. Shapes as in [`forward`].
pub fn backward_weight(r: &mut Recorder, dweight: &View, dout: &View, inp: &View, dims: Dims) -> Result<()> {
    let op = "depthwise::backward_weight";
    check_images(op, ("inp", inp), ("dout", dout), dweight, dims);
    let split = Split::new(r, dims, inp.element);
    let (partials, taps) = (split.partials(), dims.kernel * dims.kernel);
    let [partial] = r.scratch(op, partials * dims.weight_len());
    let views = [("src", inp), ("dout", dout), ("partial", &partial)];
    let params = split.params();
    let entry = entry("backward_weight", dims);
    if walks(dims) {
        let stripes = split.stripes(dims.out_width());
        let params = Params { rows: split.images() as u32, stripes: stripes as u32, ..params };
        let kernel = split.kernel(r, entry, &[("K", dims.kernel as f64)], inp.element)?;
        r.push(&kernel, &views, &params, [split.groups(stripes), (partials / stripes) as u32, 1]);
    } else {
        let params = Params { rows: split.image_rows() as u32, ..params };
        let kernel = split.kernel(r, entry, &[], inp.element)?;
        r.push(&kernel, &views, &params, [split.groups(taps), partials as u32, 1]);
    }
    split.note_work(r);
    let params = Params { batch: partials as u32, cols: dims.channels as u32, ..params };
    let kernel = split.kernel(r, (&SHADER, "finish".to_string()), &[], inp.element)?;
    let grid = [(dims.channels * taps).div_ceil(split.lanes) as u32, 1, 1];
    r.push(&kernel, &[("parts", &partial), ("dweight", dweight)], &params, grid);
    Ok(())
}

/// Gradient of the bias: `dbias += ` the sum of `dout` over all pixels.
pub fn backward_bias(r: &mut Recorder, dbias: &View, dout: &View, dims: Dims) -> Result<()> {
    column_sum::forward(r, dbias, dout, dims.out_len() / dims.channels, dims.channels)
}
