//! Where ops record: [`Recorder`], and the checks that they share.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::gpu::buffer::{ALIGN, Element, align};
use crate::gpu::program::{self, Params, Program};
use crate::gpu::shaders::{Shader, by_subgroups};
use crate::gpu::tiles::{Tile, Variant};
use crate::gpu::{Gpu, Kernel, View};
use crate::ops::grid::{CPU_LANES, CPU_PER_LANE, PER_LANE, ROWS_PER_CHUNK, WG};
use crate::ops::product::Product;
use crate::shapes::Segment;

/// Floating-point operations of a dispatch, at most. Drivers kill what keeps a GPU busy for seconds: at 40 GFLOP/s, which is
/// slow for an integrated one, this is half a second.
pub const MAX_FLOPS: u64 = 20_000_000_000;

/// Where ops record: the device, the program being written, and a scratch buffer that they share.
#[derive(Debug)]
pub struct Recorder<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// The steps that were recorded so far.
    pub program: Program,
    /// Whether to record the kernel variants meant for CPU adapters, or those for GPUs. [`Recorder::new`] follows the
    /// adapter; the kernel suite runs both everywhere.
    pub for_cpu: bool,
    /// Reduce by subgroup operations instead of through workgroup memory; the adapter must have subgroups.
    pub subgroups: bool,
    /// Read and write words of 64 bits where a kernel for CPU adapters can ([`fours`](crate::ops::words::fours)); the adapter must have them.
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
pub(super) struct Len {
    pub(super) len: u32,
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

    /// The variant for `product`: the one that was measured to be fastest, else the default.
    pub(super) fn variant(&mut self, product: Product) -> Variant {
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
    pub(super) fn reduce_lanes(&self) -> usize {
        if self.for_cpu { CPU_LANES } else { WG }
    }

    /// How an elementwise kernel over `len` elements, each a vector of `width`, is spread: its overrides and its grid.
    ///
    /// Neighbouring lanes take neighbouring elements everywhere. On a CPU adapter a workgroup is one vector register wide,
    /// so that it walks through memory in one go: a wider one is run eight lanes after eight lanes, each with the whole
    /// stride of the workgroup from one of its elements to the next, and two to five times slower.
    pub(super) fn spread(&self, len: usize, width: usize) -> ([(&'static str, f64); 2], [u32; 3]) {
        let (lanes, elements) = if self.for_cpu { (CPU_LANES, CPU_PER_LANE) } else { (WG, PER_LANE) };
        let per_lane = elements / width;
        ([("WG", lanes as f64), ("PER_LANE", per_lane as f64)], program::fold(len.div_ceil(lanes * per_lane)))
    }

    /// Records an entry over `len` elements as [`Recorder::spread`] has it; `params` are made from how many elements of `width` that is.
    pub(super) fn push_spread<P: Params>(
        &mut self,
        (shader, entry, own, tail): (&'static Shader, &str, &[(&str, f64)], &str),
        views: &[(&str, &View)],
        len: usize,
        width: usize,
        params: impl FnOnce(u32) -> P,
    ) -> Result<()> {
        let len = len / width;
        let (constants, grid) = self.spread(len, width);
        let kernel = self.kernel_with(shader, entry, &[&constants, own].concat(), tail)?;
        self.push(&kernel, views, &params(len as u32), grid);
        Ok(())
    }

    /// The same over each of these segments, by vectors of four: `arenas` are cut to it, `whole` are bound as they are.
    pub(super) fn push_segments<P: Params>(
        &mut self,
        (shader, entry, own): (&'static Shader, &str, &[(&str, f64)]),
        arenas: &[(&str, &View)],
        whole: &[(&str, &View)],
        segments: &[Segment],
        params: impl Fn(u32) -> P,
    ) -> Result<()> {
        for Segment { offset, len, .. } in segments {
            let padded = len.is_multiple_of(4);
            assert!(padded, "{}: a segment of {len} elements, tensors of an arena are padded", shader.name);
            let cut: Vec<(&str, View)> =
                arenas.iter().map(|(name, arena)| (*name, arena.slice(*offset, *len))).collect();
            let views: Vec<(&str, &View)> = cut.iter().map(|(name, view)| (*name, view)).collect();
            self.push_spread((shader, entry, own, ""), &[&views, whole].concat(), *len, 4, &params)?;
        }
        Ok(())
    }

    pub(super) fn kernel(
        &self,
        shader: &'static Shader,
        entry: &str,
        constants: &[(&str, f64)],
    ) -> Result<Arc<Kernel>> {
        self.kernel_with(shader, entry, constants, "")
    }

    /// As [`Gpu::kernel`], of a shader that may reduce: by subgroups where that is the way here.
    pub(super) fn kernel_with(
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

    pub(super) fn push(&mut self, kernel: &Arc<Kernel>, views: &[(&str, &View)], params: &impl Params, grid: [u32; 3]) {
        match &mut self.touched {
            Some(touched) => touched.push(views.iter().map(|(_, view)| view.buffer.id).collect()),
            None => self.program.push(self.gpu, kernel, views, params, grid),
        }
    }

    /// Records that what `own` holds on every rank is written to `all`, by rank, before the step that is recorded next.
    pub(super) fn gather(&mut self, own: &View, all: &View) {
        match &mut self.touched {
            Some(touched) => touched.push(vec![own.buffer.id, all.buffer.id]),
            None => self.program.gather(own, all),
        }
    }

    /// Notes the work of the dispatch that was recorded last.
    pub(super) fn work(&mut self, flops: u64) {
        if let Some(step) = self.program.steps.last_mut() {
            step.flops = flops;
        }
    }

    /// Cuts `count` rows of `flops` each into runs of at most [`Recorder::max_flops`]. Tensors with these strides per row, of
    /// words or of halves, can be cut there: a view starts at a multiple of 4·[`ALIGN`] bytes.
    pub(super) fn parts(&self, count: usize, flops: u64, element: Element, strides: &[usize]) -> Vec<Range<usize>> {
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
    pub(super) fn scratch<const N: usize>(&self, op: &str, len: usize) -> [View; N] {
        let needed = (N - 1) * align(len) + len;
        assert!(self.scratch.len >= needed, "{op}: scratch of {} elements, {needed} needed", self.scratch.len);
        std::array::from_fn(|i| self.scratch.slice(i * align(len), len))
    }
}

/// Rows `part` of a view with `stride` elements per row.
pub(super) fn rows(view: &View, part: &Range<usize>, stride: usize) -> View {
    view.slice(part.start * stride, part.len() * stride)
}

/// Asserts a view's length: a wrong one is a bug of the model's.
#[track_caller]
pub(super) fn check(op: &str, name: &str, view: &View, len: usize) {
    assert_eq!(view.len, len, "{op}: {name} has {} elements, the dims give {len}", view.len);
}

/// An override constant that is on or off.
pub(super) fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}
