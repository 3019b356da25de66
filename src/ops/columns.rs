//! How lanes share the rows of each image: side by side along the channels, and down in chunks of rows.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::buffer::{Element, align};
use crate::gpu::shaders::Shader;
use crate::gpu::{Kernel, View};
use crate::ops::elem::Elem;
use crate::ops::words::elems;
use crate::ops::{CPU_LANES, Recorder, WG};

/// Partial results of a column of an image that are left for the last stage, at most, for each row of lanes.
const MAX_CHUNKS: usize = 64;
/// Rows that a lane takes at least.
const LANE_ROWS: usize = 64;

/// Shape of images as rows: one row per pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Rows of an image: its pixels.
    pub rows: usize,
    /// Columns: channels.
    pub cols: usize,
}

impl Dims {
    /// Elements.
    pub fn len(self) -> usize {
        self.batch * self.rows * self.cols
    }

    /// Whether there are no elements.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// What the shaders are told: `Params` of `gate.wgsl` and `grn.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    batch: u32,
    rows: u32,
    cols: u32,
    chunk: u32,
    partials: u32,
    eps: f32,
}

/// How `lanes` of a workgroup share images.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub(super) dims: Dims,
    pub(super) elem: Elem,
    pub(super) lanes: usize,
    /// What images hold, for shaders that read them as `loaded` and write them as `stored` (src/ops/words.rs).
    words: Option<Element>,
    /// Lanes side by side, and rows of them.
    across: usize,
    subs: usize,
}

impl Columns {
    pub(super) fn new(r: &Recorder, dims: Dims, element: Element) -> Columns {
        Columns::of(dims, element, r.reduce_lanes())
    }

    /// The same for a shader that reads images as `loaded` and writes them as `stored`.
    pub(super) fn in_words(r: &Recorder, dims: Dims, element: Element) -> Columns {
        Columns { words: Some(element), ..Columns::new(r, dims, element) }
    }

    fn of(dims: Dims, element: Element, lanes: usize) -> Columns {
        let elem = Elem::of(dims.cols, element);
        let across = lanes.min(dims.cols / elem.width);
        Columns { dims, elem, lanes, words: None, across, subs: lanes / across }
    }

    /// Rows of a workgroup.
    fn chunk(self) -> usize {
        self.dims.rows.div_ceil(MAX_CHUNKS).max(LANE_ROWS * self.subs)
    }

    /// Partial results of a column of an image.
    fn partials(self) -> usize {
        self.dims.rows.div_ceil(self.chunk()) * self.subs
    }

    /// Elements of all partial results.
    pub(super) fn partial_len(self) -> usize {
        self.dims.batch * self.partials() * self.dims.cols
    }

    /// With columns counted in elems of `width`.
    pub(super) fn params(self, width: usize, eps: f32) -> Params {
        Params {
            batch: self.dims.batch as u32,
            rows: self.dims.rows as u32,
            cols: (self.dims.cols / width) as u32,
            chunk: self.chunk() as u32,
            partials: self.partials() as u32,
            eps,
        }
    }

    pub(super) fn kernel(
        self,
        r: &Recorder,
        shader: &'static Shader,
        entry: &str,
        own: &[(&str, f64)],
    ) -> Result<Arc<Kernel>> {
        let wide = self.elem.width == 4 && r.for_cpu && r.wide_words;
        let tail = self.words.map_or_else(|| self.elem.tail(), |element| elems(self.elem, element, wide));
        r.kernel_with(shader, entry, &[&[("WG", self.lanes as f64)], own].concat(), &tail)
    }

    /// Runs an entry whose lanes walk down columns.
    pub(super) fn walk(
        self,
        r: &mut Recorder,
        (shader, entry, own): (&'static Shader, &str, &[(&str, f64)]),
        views: &[(&str, &View)],
    ) -> Result<()> {
        let kernel = self.kernel(r, shader, entry, own)?;
        let across = (self.dims.cols / self.elem.width).div_ceil(self.across);
        let grid = [across as u32, self.dims.rows.div_ceil(self.chunk()) as u32, self.dims.batch as u32];
        r.push(&kernel, views, &self.params(self.elem.width, 0.0), grid);
        Ok(())
    }
}

/// Elements of scratch for `arrays` partial results of every column of every image.
pub(super) fn scratch_len(dims: Dims, arrays: usize) -> usize {
    let lens = [CPU_LANES, WG].map(|lanes| arrays * Columns::of(dims, Element::Word, lanes).partial_len());
    align(lens[0].max(lens[1]))
}
