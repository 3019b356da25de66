//! Host wrappers of the shaders, one file a stem: shapes in, steps out. An op checks its tensors' lengths, picks the
//! kernel variant and the grid, and records dispatches; it computes nothing itself.

pub mod adamw;
mod agreement;
pub mod attention;
pub mod attention_pool;
pub mod average;
pub mod avg_pool;
pub mod batch_norm;
pub mod cast;
pub mod column_sum;
pub mod conv2d;
pub mod cross_entropy;
pub mod ftp;
pub mod gelu;
pub mod l2_normalize;
pub mod l2_sp;
pub mod layer_norm;
pub mod lerp;
pub mod loss_scale;
pub mod mars;
pub mod matmul;
pub mod max_pool;
pub mod norm_clip;
pub mod patch_embed;
pub mod peak;
pub mod pool;
pub mod product;
pub mod relu;
pub mod residual;
pub mod self_check;
pub mod sgd;
pub mod spd;
pub mod swiglu;
pub mod trial;
pub mod tune;
pub mod words;

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::gpu::buffer::{ALIGN, Element, align};
use crate::gpu::program::{self, Params, Program};
use crate::gpu::shaders::{self, Shader, by_subgroups};
use crate::gpu::tune::{Tile, Variant};
use crate::gpu::{Gpu, Kernel, View};
use crate::ops::product::Product;

/// Invocations of a workgroup of elementwise kernels.
const WG: usize = 64;
/// Elements that a lane of an elementwise kernel takes.
const PER_LANE: usize = 16;
/// The same on a CPU adapter, where a workgroup is [`CPU_LANES`] wide: long enough to be worth its start.
const CPU_PER_LANE: usize = 512;
/// Lanes of a CPU's vector register.
const CPU_LANES: usize = 8;

/// Rows that one lane adds up in the first stage of a sum over rows.
const ROWS_PER_CHUNK: usize = 64;

/// Floating-point operations of a dispatch, at most. Drivers kill what keeps a GPU busy for seconds: at 40 GFLOP/s, which is
/// slow for an integrated one, this is half a second.
pub const MAX_FLOPS: u64 = 20_000_000_000;

/// Where ops record: the device, the program being written, and a scratch buffer that they share.
#[derive(Debug)]
pub struct Recorder<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// What was recorded so far.
    pub program: Program,
    /// Whether to record the kernel variants meant for CPU adapters, or those for GPUs. [`Recorder::new`] goes by the
    /// adapter; the kernel suite runs both everywhere.
    pub for_cpu: bool,
    /// Reduce by subgroup operations instead of through workgroup memory; the adapter must have subgroups.
    pub subgroups: bool,
    /// Read and write words of 64 bits where a kernel for CPU adapters can ([`words::fours`]); the adapter must have them.
    pub wide_words: bool,
    /// Record every product as this variant, where the adapter can run it; the kernel suite goes through them all.
    pub forced: Option<Variant>,
    /// Products that were recorded by default, since nobody has measured them on this adapter.
    pub untuned: Vec<Product>,
    /// Floating-point operations of a dispatch, at most: [`MAX_FLOPS`], unless a test wants many parts.
    pub max_flops: u64,
    scratch: &'a View,
    /// With placeholders for tensors: the buffers that each dispatch would have touched.
    touched: Option<Vec<Vec<u64>>>,
}

/// What an elementwise kernel needs to know.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Len {
    len: u32,
}

/// Elements of scratch that sums over `rows` rows of `cols` columns need (two results at a time).
pub fn scratch_len(rows: usize, cols: usize) -> usize {
    2 * align(rows.div_ceil(ROWS_PER_CHUNK) * cols)
}

impl<'a> Recorder<'a> {
    /// An empty program that records for `gpu`; `scratch` is at least the largest [`scratch_len`] of its ops.
    pub fn new(gpu: &'a Gpu, scratch: &'a View) -> Self {
        let forced = gpu.forced_variant();
        Recorder {
            gpu,
            program: Program::new(),
            for_cpu: forced.map_or(gpu.is_cpu(), |variant| variant.tile.is_direct()),
            subgroups: forced.map_or(gpu.reduces_by_subgroups(), |Variant { tile, .. }| {
                gpu.has_subgroups() && (tile == Tile::Subgroup || tile.is_direct())
            }),
            wide_words: gpu.has_wide_words(),
            forced,
            untuned: Vec::new(),
            max_flops: MAX_FLOPS,
            scratch,
            touched: None,
        }
    }

    /// The variant for `product`: what was measured to be fastest, else the default.
    fn variant(&mut self, product: Product) -> Variant {
        let default = product.default_variant(self.gpu, self.for_cpu && self.gpu.has_wide_subgroups());
        if let Some(forced) = self.forced {
            let able = self.gpu.runs(forced.tile) && (product.suits_matrices() || forced.tile != Tile::Cooperative);
            return if able { forced } else { default };
        }
        if self.for_cpu == self.gpu.is_cpu() {
            // Choices come from a file: one that this product could not have is ignored.
            let chosen = self.gpu.chosen(&product.class());
            match chosen.filter(|variant| product.candidates(self.gpu).contains(variant)) {
                Some(variant) => return variant,
                None => self.untuned.push(product),
            }
        }
        default
    }

    /// Records nothing but which buffers each dispatch touches: tensors may be placeholders.
    pub fn planning(gpu: &'a Gpu, scratch: &'a View) -> Self {
        Recorder { touched: Some(Vec::new()), ..Recorder::new(gpu, scratch) }
    }

    /// The ids of the buffers that each dispatch touches, of a recorder made by [`Recorder::planning`].
    pub fn touched(&self) -> &[Vec<u64>] {
        self.touched.as_deref().unwrap_or_default()
    }

    /// Invocations of a workgroup whose lanes reduce together: on a CPU adapter a barrier is dear and eight lanes are
    /// one vector register.
    fn reduce_lanes(&self) -> usize {
        if self.for_cpu { CPU_LANES } else { WG }
    }

    /// How an elementwise kernel over `len` elements, each a vector of `width`, is spread: its overrides and its grid.
    ///
    /// Neighbouring lanes take neighbouring elements everywhere. On a CPU adapter a workgroup is one vector register wide,
    /// so that it walks through memory in one go: a wider one is run eight lanes after eight lanes, each with the whole
    /// stride of the workgroup from one of its elements to the next, and two to five times slower.
    fn spread(&self, len: usize, width: usize) -> ([(&'static str, f64); 2], [u32; 3]) {
        let (lanes, elements) = if self.for_cpu { (CPU_LANES, CPU_PER_LANE) } else { (WG, PER_LANE) };
        let per_lane = elements / width;
        ([("WG", lanes as f64), ("PER_LANE", per_lane as f64)], program::fold(len.div_ceil(lanes * per_lane)))
    }

    fn kernel(&self, shader: &'static Shader, entry: &str, constants: &[(&str, f64)]) -> Result<Arc<Kernel>> {
        self.kernel_with(shader, entry, constants, "")
    }

    /// As [`Gpu::kernel`], of a shader that may reduce: by subgroups where that is the way here.
    fn kernel_with(
        &self,
        shader: &'static Shader,
        entry: &str,
        constants: &[(&str, f64)],
        tail: &str,
    ) -> Result<Arc<Kernel>> {
        if !(shader.reduces() && self.subgroups) {
            return self.gpu.kernel(shader, entry, constants, tail);
        }
        let lanes = constants.iter().find(|(name, _)| *name == "WG").map_or(WG, |(_, lanes)| *lanes as usize);
        let one = lanes <= self.gpu.info.subgroup_min_size as usize;
        self.gpu.kernel(shader, entry, constants, &(by_subgroups(one) + tail))
    }

    /// As [`Recorder::kernel`], of a shader that leaves it to the host what its activations hold.
    fn stored_kernel(
        &self,
        shader: &'static Shader,
        entry: &str,
        constants: &[(&str, f64)],
        element: Element,
    ) -> Result<Arc<Kernel>> {
        self.kernel_with(shader, entry, constants, &cast::stored(element))
    }

    fn push(&mut self, kernel: &Arc<Kernel>, views: &[(&str, &View)], params: &impl Params, grid: [u32; 3]) {
        match &mut self.touched {
            Some(touched) => touched.push(views.iter().map(|(_, view)| view.buffer.id).collect()),
            None => self.program.push(self.gpu, kernel, views, params, grid),
        }
    }

    /// Notes the work of the dispatch that was recorded last.
    fn work(&mut self, flops: u64) {
        if let Some(step) = self.program.steps.last_mut() {
            step.flops = flops;
        }
    }

    /// Cuts `count` rows of `flops` each into runs of at most [`Recorder::max_flops`]. Tensors with these strides a row, of
    /// words or of halves, can be cut there: a view starts at a multiple of 4·[`ALIGN`] bytes.
    fn parts(&self, count: usize, flops: u64, element: Element, strides: &[usize]) -> Vec<Range<usize>> {
        // Both are powers of two at most 4·ALIGN, so the largest is a multiple of the others.
        let bytes = 4 * ALIGN;
        let whole = |stride: &usize| bytes >> (stride * element.bytes()).trailing_zeros().min(bytes.trailing_zeros());
        let unit = strides.iter().map(whole).max().unwrap_or(1);
        let short = count as u64 * flops <= self.max_flops;
        let rows = if short { count } else { (self.max_flops / flops) as usize / unit * unit };
        let rows = rows.max(unit);
        (0..count).step_by(rows).map(|start| start..count.min(start + rows)).collect()
    }

    /// `N` scratch ranges of `len` elements.
    fn scratch<const N: usize>(&self, op: &str, len: usize) -> [View; N] {
        let needed = (N - 1) * align(len) + len;
        assert!(self.scratch.len >= needed, "{op}: scratch of {} elements, {needed} needed", self.scratch.len);
        std::array::from_fn(|i| self.scratch.slice(i * align(len), len))
    }
}

/// Rows `part` of a view with `stride` elements a row.
fn rows(view: &View, part: &Range<usize>, stride: usize) -> View {
    view.slice(part.start * stride, part.len() * stride)
}

/// Asserts a view's length: a wrong one is a bug of the model's.
#[track_caller]
fn check(op: &str, name: &str, view: &View, len: usize) {
    assert_eq!(view.len, len, "{op}: {name} has {} elements, the dims give {len}", view.len);
}

/// For shaders that leave the element type to the host: vectors of four where `channels` allows, and what is appended.
fn elem(channels: usize) -> (usize, &'static str) {
    if channels.is_multiple_of(4) { (4, "alias elem = vec4f;\n") } else { (1, "alias elem = f32;\n") }
}

/// As [`elem`], for shaders that add an element's parts up.
fn elem_sum(channels: usize) -> (usize, String) {
    let (width, alias) = elem(channels);
    let total = if width == 4 { "x.x + x.y + (x.z + x.w)" } else { "x" };
    (width, format!("{alias}const WIDTH = {width}u;\nfn total(x: elem) -> f32 {{ return {total}; }}\n"))
}

/// What is appended to shaders over the row tables of `lib/rows.wgsl`: what a lane takes of a row at a time, 1, 4 or 8 values.
pub fn row_elem(width: usize) -> String {
    if width == 8 { shaders::ELEM_8.to_string() + shaders::WORDS } else { elem_sum(width).1 + shaders::ELEM }
}

/// What is appended where activations may be f16: what `width` of their elements are as they are stored.
fn stored(element: Element, width: usize) -> &'static str {
    match (element, width) {
        (Element::Word, _) => "alias stored = elem;\n",
        (Element::Half, 4) => "alias stored = vec4<f16>;\n",
        (Element::Half, _) => "alias stored = f16;\n",
    }
}

/// A grid for `len` elements of an elementwise kernel.
fn elementwise(len: usize) -> [u32; 3] {
    program::fold(len.div_ceil(WG * PER_LANE))
}
