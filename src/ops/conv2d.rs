//! Host wrapper of `shaders/conv2d.wgsl` and its other algorithms, `shaders/conv2d_*.wgsl`: 2-D convolutions without a bias, over NHWC
//! images, with weights in PyTorch's order `[O, I, k, k]`.
//!
//! Channel counts that are no multiple of 4 may be stored padded to one, with zeros: a view's length tells. RGB images
//! from [`to_nhwc`] are best stored so, since unpadded they, and groups whose channels do not come in fours, take a slow path.
//!
//! Images, their gradients and the weight may be f16, all of them; sums and the weight's gradient are f32 whatever they are.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::gpu::buffer::{Element, align};
use crate::gpu::program::fold;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::tiles::{Cooperative, Tile};
use crate::gpu::{Kernel, View};
use crate::ops::conv_classes::Class;
use crate::ops::conv_grouped;
use crate::ops::elem::{FORMATS, stored};
use crate::ops::product::{Pass, Product};
use crate::ops::variants::{FLAG, LANES, Needs, Variants};
use crate::ops::words::fours;
use crate::ops::{Recorder, WG, check, column_sum, flag, matmul, rows};

pub use crate::cpu::conv2d::Dims;
pub use crate::cpu::depthwise::Padding;

static SHADER: Shader = shader!("conv2d", TILE, PIXELS, STORE_PIXELS, FOLD);
static COOPERATIVE: Shader = shader!("conv2d_cooperative", MATRICES, PIXELS, STORE_PIXELS);
static DIRECT: Shader = shader!("conv2d_direct", PIXELS, LANES);
static SUBGROUP: Shader = shader!("conv2d_subgroup", PIXELS, LANES, QUADS, STORE_PIXELS);

/// Pixels that a lane of the slow path adds up for the weight's gradient.
const CHUNK: usize = 512;
/// Pixels that the kernels for the weight's gradient take at a time.
const STEP: usize = 16;

/// What the vector kernels are told: `Params` of `shaders/lib/pixels.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    batch: u32,
    rows: [u32; 2],
    src: [u32; 2],
    src_c4: u32,
    dst: [u32; 2],
    dst_c4: u32,
    /// Of the kernel, those that take part: how many, and the first.
    taps: [u8; 2],
    first: [u8; 2],
    kernel: u8,
    stride: u8,
    step: u16,
    off: [i16; 2],
    into: [u16; 2],
    chunk: u32,
}

/// What the other kernels are told: `Shape` of `shaders/conv2d.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Shape {
    batch: u32,
    rows: [u32; 2],
    src: [u32; 2],
    stride: u32,
    off: [i32; 2],
    kernel: u32,
    chunk: u32,
    out_channels: u32,
    in_channels: u32,
    groups: u32,
    in_pitch: u32,
    out_pitch: u32,
}

/// A convolution and how its images are stored.
#[derive(Clone, Copy)]
struct Layout {
    dims: Dims,
    in_pitch: usize,
    out_pitch: usize,
    /// What the images hold.
    element: Element,
}

/// Channels of a stored pixel: as many as there are, or padded to a multiple of 4.
#[track_caller]
fn pitch(op: &str, name: &str, view: &View, pixels: usize, channels: usize) -> usize {
    let padded = channels.next_multiple_of(4);
    if view.len == pixels * padded {
        return padded;
    }
    check(op, name, view, pixels * channels);
    channels
}

#[track_caller]
fn layout(op: &str, [in_name, out_name]: [&str; 2], inp: &View, out: &View, weight: &View, dims: Dims) -> Layout {
    assert!(
        dims.in_channels.is_multiple_of(dims.groups) && dims.out_channels.is_multiple_of(dims.groups),
        "{op}: {dims:?}"
    );
    check(op, "weight", weight, dims.weight_len());
    assert_eq!(inp.element, out.element, "{op}: {in_name} and {out_name} of one kind");
    let in_pitch = pitch(op, in_name, inp, dims.in_pixels(), dims.in_channels);
    let out_pitch = pitch(op, out_name, out, dims.out_pixels(), dims.out_channels);
    Layout { dims, in_pitch, out_pitch, element: inp.element }
}

impl Layout {
    /// Whether the kernels that use vectors of four channels apply.
    fn fast(self) -> bool {
        self.dims.groups == 1 && self.in_pitch.is_multiple_of(4) && self.out_pitch.is_multiple_of(4)
    }

    /// Whether the kernels for groups of several fours of channels apply.
    fn grouped(self) -> bool {
        let Dims { in_channels, out_channels, groups, .. } = self.dims;
        groups > 1 && (in_channels / groups).is_multiple_of(4) && (out_channels / groups).is_multiple_of(4)
    }

    /// Whether this is a linear layer over pixels.
    fn pointwise(self) -> bool {
        let Dims { kernel, stride, groups, in_channels, out_channels, .. } = self.dims;
        let plain = (self.in_pitch, self.out_pitch) == (in_channels, out_channels);
        (kernel, stride, groups) == (1, 1, 1) && self.dims.before() == [0; 2] && plain
    }

    /// Elements of packed weights.
    fn packed_len(self) -> usize {
        if self.dims.groups > 1 {
            return self.dims.weight_len();
        }
        self.dims.kernel * self.dims.kernel * self.in_pitch * self.out_pitch
    }

    /// What the vector kernels need; rows are out's pixels and inp is gathered, as in the forward pass.
    fn params(self) -> Params {
        let Dims { batch, height, width, kernel, stride, .. } = self.dims;
        let rows = [self.dims.out_height() as u32, self.dims.out_width() as u32];
        let (kernel, before) = (small(kernel), self.dims.before().map(|zeros| -i16::from(small(zeros))));
        Params {
            batch: batch as u32,
            rows,
            src: [height as u32, width as u32],
            src_c4: (self.in_pitch / 4) as u32,
            dst: rows,
            dst_c4: (self.out_pitch / 4) as u32,
            taps: [kernel; 2],
            first: [0; 2],
            kernel,
            stride: small(stride),
            step: 1,
            off: before,
            into: [0; 2],
            chunk: 0,
        }
    }

    /// What the others need.
    fn shape(self) -> Shape {
        let Dims { batch, height, width, in_channels, out_channels, kernel, stride, groups, .. } = self.dims;
        Shape {
            batch: batch as u32,
            rows: [self.dims.out_height() as u32, self.dims.out_width() as u32],
            src: [height as u32, width as u32],
            stride: stride as u32,
            off: self.dims.before().map(|zeros| -(zeros as i32)),
            kernel: kernel as u32,
            chunk: 0,
            out_channels: out_channels as u32,
            in_channels: (in_channels / groups) as u32,
            groups: groups as u32,
            in_pitch: self.in_pitch as u32,
            out_pitch: self.out_pitch as u32,
        }
    }

    /// As the tuner sees it, with channels as they are stored.
    fn product(self, pass: Pass) -> Product {
        let dims = Dims { in_channels: self.in_pitch, out_channels: self.out_pitch, ..self.dims };
        Product::Conv2d { pass, dims, element: self.element }
    }
}

/// A kernel's side, stride or padding, as the shaders take it.
#[track_caller]
fn small(n: usize) -> u8 {
    u8::try_from(n).unwrap_or_else(|_| panic!("conv2d: kernel, stride and padding are below 256, not {n}"))
}

fn tail(tile: Tile, element: Element) -> String {
    format!("const TILE = {}u;\n{}", tile.side(), stored(element))
}

fn cooperative_tail(matrices: Cooperative) -> String {
    stored(Element::Half) + &matrices.text()
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    let tiled = [Tile::Tiled, Tile::TiledLarge].into_iter().flat_map(|tile| FORMATS.map(|element| tail(tile, element)));
    let direct = FORMATS.into_iter().flat_map(|element| [false, true].map(|wide| fours(element, element, wide)));
    let matrices = Cooperative::KNOWN.map(cooperative_tail);
    let with_flag = |shader| Variants::of(shader).with("ACCUMULATE", FLAG);
    vec![
        with_flag(&SHADER).append(tiled).with("TRANSPOSED", FLAG).with_in(&["pack", "unpack"], "WG", LANES),
        with_flag(&COOPERATIVE).append(matrices).needing(Needs::Matrices),
        with_flag(&DIRECT).append(direct).with("COLS", &[16.0, 32.0]).needing(Needs::WideSubgroups),
        with_flag(&SUBGROUP).append(FORMATS.map(stored)).needing(Needs::Subgroups),
        conv_grouped::variants(),
    ]
}

/// A kernel of `conv2d.wgsl`, whose tiles have this side.
fn kernel(r: &Recorder, entry: &str, constants: &[(&str, f64)], tile: Tile, element: Element) -> Result<Arc<Kernel>> {
    r.kernel_with(&SHADER, entry, constants, &tail(tile, element))
}

/// The kernel of one of the three products in this tile, `cols` wide, and the constants that any of them gets.
fn product_kernel(
    r: &Recorder,
    entry: &str,
    own: &[(&str, f64)],
    variant: (Tile, usize),
    element: Element,
) -> Result<Arc<Kernel>> {
    let (tile, cols) = variant;
    if let Some(matrices) = matrices(r, tile) {
        r.kernel_with(&COOPERATIVE, entry, own, &cooperative_tail(matrices))
    } else if tile.is_direct() {
        let constants = [own, &[("COLS", cols as f64)]].concat();
        r.kernel_with(&DIRECT, entry, &constants, &fours(element, element, r.wide_words))
    } else if tile == Tile::Subgroup {
        r.kernel_with(&SUBGROUP, entry, own, &stored(element))
    } else {
        kernel(r, entry, own, tile, element)
    }
}

/// The matrix units, if that is what a tile is computed by.
fn matrices(r: &Recorder, tile: Tile) -> Option<Cooperative> {
    r.gpu.offered_cooperative().filter(|_| tile == Tile::Cooperative)
}

/// Rows and columns of out that a workgroup has.
fn tile_size(r: &Recorder, product: Product, tile: Tile) -> [usize; 2] {
    matrices(r, tile).map_or(product.tile_size(tile), Cooperative::tile)
}

/// Elements of scratch that the three passes over `dims` need.
pub fn scratch_len(dims: Dims) -> usize {
    let padded = [dims.in_channels, dims.out_channels].map(|c| c.next_multiple_of(4));
    // f16 takes no more.
    let layout = Layout { dims, in_pitch: padded[0], out_pitch: padded[1], element: Element::Word };
    if layout.pointwise() {
        return matmul::scratch_len(dims.out_pixels(), dims.out_channels, dims.in_channels);
    }
    let simple = dims.out_pixels().div_ceil(CHUNK) * dims.weight_len();
    let split = layout.product(Pass::BackwardWeight).largest_split();
    let packed = if dims.groups == 1 { layout.packed_len() * split } else { 0 };
    // Only images are padded to four channels: other odd numbers of them take the kernel that reads single ones.
    let fours = dims.out_channels.is_multiple_of(4) && (dims.in_channels.is_multiple_of(4) || dims.in_channels == 3);
    align(if dims.groups == 1 && fours { packed } else { packed.max(simple) })
}

/// Runs of images that one dispatch takes: see [`Recorder::parts`].
fn image_parts(r: &Recorder, inp: &View, out: &View, dims: Dims) -> Vec<(Range<usize>, Dims)> {
    let batch = dims.batch;
    let parts = r.parts(batch, flops(dims) / batch as u64, inp.element, &[inp.len / batch, out.len / batch]);
    parts.into_iter().map(|part| (part.clone(), Dims { batch: part.len(), ..dims })).collect()
}

/// Floating-point operations of one pass.
fn flops(dims: Dims) -> u64 {
    2 * (dims.out_pixels() * dims.weight_len()) as u64
}

/// Packed weights in scratch, for the forward pass or `transposed` for the gradient of `inp`.
fn pack(r: &mut Recorder, weight: &View, layout: Layout, transposed: bool) -> Result<View> {
    let [words] = r.scratch("conv2d", layout.element.words(layout.packed_len()));
    let packed = words.holding(layout.element, layout.packed_len());
    if layout.grouped() {
        let (kernel, lanes) = conv_grouped::kernel(r, "pack", &[("TRANSPOSED", transposed)], layout.element)?;
        let params = Params { chunk: layout.dims.groups as u32, ..layout.params() };
        let grid = [(packed.len / 4).div_ceil(lanes) as u32, 1, 1];
        r.push(&kernel, &[("weight", weight), ("packed_weight", &packed)], &params, grid);
        return Ok(packed);
    }
    let lanes = r.reduce_lanes();
    let constants = [("TRANSPOSED", flag(transposed)), ("WG", lanes as f64)];
    let kernel = kernel(r, "pack", &constants, Tile::Tiled, layout.element)?;
    let (across, down) =
        if transposed { (layout.in_pitch / 4, layout.out_pitch) } else { (layout.in_pitch, layout.out_pitch / 4) };
    let grid = [across.div_ceil(lanes) as u32, down as u32, 1];
    r.push(&kernel, &[("weight", weight), ("packed_weight", &packed)], &layout.shape(), grid);
    Ok(packed)
}

/// The dispatch that `forward` and every class of `backward_input` share.
fn gather(
    r: &mut Recorder,
    layout: Layout,
    pass: Pass,
    entry: &str,
    dst: &View,
    src: &View,
    packed: &View,
    params: &Params,
    accumulate: bool,
) -> Result<()> {
    let channels = params.dst_c4 as usize * 4;
    if layout.grouped() {
        let flags = [("ACCUMULATE", accumulate), ("ALONG", r.for_cpu)];
        let flags = if pass == Pass::Forward { &flags[1..] } else { &flags };
        let (kernel, lanes) = conv_grouped::kernel(r, entry, flags, src.element)?;
        let params = Params { chunk: layout.dims.groups as u32, ..*params };
        let across = params.dst_c4 as usize * (params.rows[1] as usize).div_ceil(conv_grouped::PIXELS);
        let grid = [across.div_ceil(lanes) as u32, params.rows[0], params.batch];
        r.push(&kernel, &[("dst", dst), ("src", src), ("packed", packed)], &params, grid);
        let taps = params.taps.map(usize::from).iter().product::<usize>() * params.src_c4 as usize * 4;
        r.work(
            2 * (params.batch * params.rows[0] * params.rows[1]) as u64 * (taps * channels / layout.dims.groups) as u64,
        );
        return Ok(());
    }
    let product = layout.product(pass);
    let tile = r.variant(product).tile;
    let [rows, cols] = tile_size(r, product, tile);
    let kernel = product_kernel(r, entry, &[("ACCUMULATE", flag(accumulate))], (tile, cols), src.element)?;
    let pixels = (params.batch * params.rows[0] * params.rows[1]) as usize;
    let grid = [channels.div_ceil(cols) as u32, pixels.div_ceil(rows) as u32, 1];
    r.push(&kernel, &[("dst", dst), ("src", src), ("packed", packed)], params, grid);
    let taps = params.taps.map(usize::from).iter().product::<usize>() * params.src_c4 as usize * 4;
    r.work(2 * (pixels * taps * channels) as u64);
    Ok(())
}

/// `out = ` the convolution of `inp`: `out` `[B, H', W', O]`, `inp` `[B, H, W, C]`, `weight` `[O, C/groups, k, k]`.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, weight: &View, dims: Dims) -> Result<()> {
    let (in_image, out_image) = (inp.len / dims.batch, out.len / dims.batch);
    for (part, dims) in image_parts(r, inp, out, dims) {
        forward_part(r, &rows(out, &part, out_image), &rows(inp, &part, in_image), weight, dims)?;
    }
    Ok(())
}

fn forward_part(r: &mut Recorder, out: &View, inp: &View, weight: &View, dims: Dims) -> Result<()> {
    let layout = layout("conv2d", ["inp", "out"], inp, out, weight, dims);
    assert_eq!(weight.element, layout.element, "conv2d: weight and images of one kind");
    if layout.pointwise() {
        return matmul::forward(r, out, inp, weight, None, dims.out_pixels(), dims.out_channels, dims.in_channels);
    }
    if layout.fast() || layout.grouped() {
        let packed = pack(r, weight, layout, false)?;
        return gather(r, layout, Pass::Forward, "forward", out, inp, &packed, &layout.params(), false);
    }
    let kernel = kernel(r, "forward_any", &[], Tile::Tiled, layout.element)?;
    let views = [("out", out), ("inp", inp), ("filters", weight)];
    r.push(&kernel, &views, &layout.shape(), fold(out.len.div_ceil(WG)));
    Ok(())
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
    let (in_image, out_image) = (dinp.len / dims.batch, dout.len / dims.batch);
    for (part, dims) in image_parts(r, dinp, dout, dims) {
        let (dinp, dout) = (rows(dinp, &part, in_image), rows(dout, &part, out_image));
        backward_input_part(r, &dinp, &dout, weight, dims, accumulate)?;
    }
    Ok(())
}

fn backward_input_part(
    r: &mut Recorder,
    dinp: &View,
    dout: &View,
    weight: &View,
    dims: Dims,
    accumulate: bool,
) -> Result<()> {
    let layout = layout("conv2d::backward_input", ["dinp", "dout"], dinp, dout, weight, dims);
    assert_eq!(weight.element, layout.element, "conv2d::backward_input: weight and images of one kind");
    if layout.pointwise() {
        let op = if accumulate { matmul::backward_input_added } else { matmul::backward_input };
        return op(r, dinp, dout, weight, dims.out_pixels(), dims.out_channels, dims.in_channels);
    }
    if !layout.fast() && !layout.grouped() {
        let kernel = kernel(r, "backward_input_any", &[("ACCUMULATE", flag(accumulate))], Tile::Tiled, layout.element)?;
        let views = [("dinp", dinp), ("dout", dout), ("filters", weight)];
        r.push(&kernel, &views, &layout.shape(), fold(dinp.len.div_ceil(WG)));
        return Ok(());
    }
    let packed = pack(r, weight, layout, true)?;
    let Dims { height, width, kernel, stride, .. } = dims;
    let class = |rest: usize, size: usize| {
        let Class { pixels, first, taps } = Class::of(dims, rest, size);
        let before = dims.padding.before(size, kernel, stride);
        let off = i16::try_from((rest + before) / stride).expect("a padding is below 256");
        (pixels as u32, small(first), small(taps), off)
    };
    for (rest_y, rest_x) in (0..stride).flat_map(|y| (0..stride).map(move |x| (y, x))) {
        let (rows_h, first_y, taps_y, off_y) = class(rest_y, height);
        let (rows_w, first_x, taps_x, off_x) = class(rest_x, width);
        if rows_h == 0 || rows_w == 0 || (accumulate && (taps_y == 0 || taps_x == 0)) {
            continue;
        }
        let params = Params {
            rows: [rows_h, rows_w],
            src: [dims.out_height() as u32, dims.out_width() as u32],
            src_c4: (layout.out_pitch / 4) as u32,
            dst: [height as u32, width as u32],
            dst_c4: (layout.in_pitch / 4) as u32,
            taps: [taps_y, taps_x],
            first: [first_y, first_x],
            stride: 1,
            step: stride as u16,
            off: [off_y, off_x],
            into: [rest_y as u16, rest_x as u16],
            ..layout.params()
        };
        gather(r, layout, Pass::BackwardInput, "backward_input", dinp, dout, &packed, &params, accumulate)?;
    }
    Ok(())
}

/// Gradient of the weight: `dweight += `. Shapes as in [`forward`].
pub fn backward_weight(r: &mut Recorder, dweight: &View, dout: &View, inp: &View, dims: Dims) -> Result<()> {
    let (in_image, out_image) = (inp.len / dims.batch, dout.len / dims.batch);
    for (part, dims) in image_parts(r, inp, dout, dims) {
        backward_weight_part(r, dweight, &rows(dout, &part, out_image), &rows(inp, &part, in_image), dims)?;
    }
    Ok(())
}

fn backward_weight_part(r: &mut Recorder, dweight: &View, dout: &View, inp: &View, dims: Dims) -> Result<()> {
    let layout = layout("conv2d::backward_weight", ["inp", "dout"], inp, dout, dweight, dims);
    let pixels = dims.out_pixels();
    if layout.pointwise() {
        return matmul::backward_weight(r, dweight, dout, inp, pixels, dims.out_channels, dims.in_channels);
    }
    if !layout.fast() {
        let chunks = pixels.div_ceil(CHUNK);
        let [partial] = r.scratch("conv2d::backward_weight", chunks * dweight.len);
        if layout.grouped() {
            let (kernel, lanes) = conv_grouped::kernel(r, "backward_weight", &[], layout.element)?;
            let params = Params {
                chunk: CHUNK as u32,
                into: [u16::try_from(dims.groups).expect("fewer groups than 65,536"), 0],
                ..layout.params()
            };
            let grid = [(dweight.len / 16).div_ceil(lanes) as u32, chunks as u32, 1];
            r.push(&kernel, &[("partial", &partial), ("dout", dout), ("src", inp)], &params, grid);
            r.work(flops(dims));
            return column_sum::add_rows(r, dweight, &partial, chunks, dweight.len);
        }
        let kernel = kernel(r, "backward_weight_any", &[], Tile::Tiled, layout.element)?;
        let params = Shape { chunk: CHUNK as u32, ..layout.shape() };
        let views = [("dweight", &partial), ("gradient", dout), ("inp", inp)];
        r.push(&kernel, &views, &params, [dweight.len.div_ceil(WG) as u32, chunks as u32, 1]);
        return column_sum::add_rows(r, dweight, &partial, chunks, dweight.len);
    }
    let product = layout.product(Pass::BackwardWeight);
    let variant = r.variant(product);
    let [rows, cols] = tile_size(r, product, variant.tile);
    let chunk = pixels.div_ceil(variant.split).next_multiple_of(STEP);
    let chunks = pixels.div_ceil(chunk);
    let [partial] = r.scratch("conv2d::backward_weight", chunks * layout.packed_len());
    let params = Params { chunk: chunk as u32, ..layout.params() };
    let tall = layout.packed_len() / layout.out_pitch;
    let grid = [tall.div_ceil(rows) as u32, layout.out_pitch.div_ceil(cols) as u32, chunks as u32];
    let kernel = product_kernel(r, "backward_weight", &[], (variant.tile, cols), layout.element)?;
    let dout_name = if variant.tile.is_direct() { "dout" } else { "dout4" };
    r.push(&kernel, &[("partial", &partial), (dout_name, dout), ("src", inp)], &params, grid);
    r.work(flops(dims));

    let lanes = r.reduce_lanes();
    let kernel = self::kernel(r, "unpack", &[("WG", lanes as f64)], Tile::Tiled, layout.element)?;
    let params = Shape { batch: chunks as u32, ..layout.shape() };
    let grid = [dims.in_channels.div_ceil(lanes) as u32, (layout.out_pitch / 4) as u32, 1];
    r.push(&kernel, &[("dweight", dweight), ("chunks_of_dweight", &partial)], &params, grid);
    Ok(())
}

/// `out` `[batch, pixels, pitch] = ` the images `inp` `[batch, channels, pixels]`, with channels last, as f32 or f16; `out`'s
/// length says whether its pitch is `channels` or that padded with zeros to a multiple of 4.
pub fn to_nhwc(
    r: &mut Recorder,
    out: &View,
    inp: &View,
    batch: usize,
    [planes, channels]: [usize; 2],
    pixels: usize,
) -> Result<()> {
    check("conv2d::to_nhwc", "inp", inp, batch * planes * pixels);
    assert!(channels <= planes, "conv2d::to_nhwc: {channels} channels of {planes}");
    let params = Shape {
        batch: batch as u32,
        src: [pixels as u32, planes as u32],
        in_channels: channels as u32,
        out_pitch: pitch("conv2d::to_nhwc", "out", out, batch * pixels, channels) as u32,
        ..Shape::default()
    };
    let kernel = kernel(r, "to_nhwc", &[], Tile::Tiled, out.element)?;
    r.push(&kernel, &[("out", out), ("images", inp)], &params, fold((batch * pixels).div_ceil(WG)));
    Ok(())
}
