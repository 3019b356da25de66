//! Host wrapper of `shaders/mars.wgsl`: the row tables of a parameter arena, and the steps of a projection.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{Gpu, Kernel, View, buffer::Element, buffer::align, program::fold};
use crate::ops::elem::{Elem, ROW_WIDTHS, row_elem};
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::{CPU_LANES, Recorder, check, flag};
use crate::shapes::Norm;
use crate::shapes::{Param, ParamLayout, Segment};

static SHADER: Shader = shader!("mars", REDUCE, FOLD, STEP, ROWS);

/// Elements of a row, vectors of four or single ones, that one workgroup takes: enough to be worth its start, few enough
/// to fill a GPU. Of vectors of eight it takes half as many.
const CHUNK: usize = 1024;
/// Partial sums of a chunk at most: one per lane on a CPU adapter, where a reduction by barriers takes as long as the
/// chunk.
const PARTS: usize = CPU_LANES;

/// Words of a tensor's radius state: gamma, m, v, t, largest norm, started.
pub const RADIUS_WORDS: usize = 6;
/// Words of a tensor's log entry: gamma, largest norm, active rows, gradient.
pub const LOG_WORDS: usize = 4;

/// The row tables, on the device, and the buffers that only the projection uses.
#[derive(Debug)]
pub struct Mars {
    norm: Norm,
    /// Tensors of the layout.
    pub tensors: usize,
    /// Rows of each tensor under this norm.
    pub rows: Vec<usize>,
    runs: Vec<RowGroup>,
    pub(super) chunk_table: View,
    pub(super) row_table: View,
    pub(super) tensor_table: View,
    pub(super) partials: View,
    pub(super) norms: View,
    /// State of the radii, [`RADIUS_WORDS`] words per tensor: what a run must save to resume.
    pub radii: View,
}

/// Chunks of one segment's tensors whose rows are vectors of `width` elements: what one dispatch takes.
#[derive(Clone, Copy, Debug)]
struct RowGroup {
    segment: Segment,
    width: usize,
    first: usize,
    count: usize,
}

/// Vectors of four, or with `wide_words` of eight, if every row of a tensor starts with one.
fn width_of(cols: usize, wide_words: bool) -> usize {
    if wide_words && cols.is_multiple_of(8) { 8 } else { Elem::of(cols, Element::Word).width }
}

/// Elements of this width that a workgroup takes.
fn chunk(width: usize) -> usize {
    CHUNK * 4 / width.max(4)
}

#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    base: u32,
    first: u32,
    count: u32,
    start: u32,
    tensors: u32,
    lr: f32,
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    let flags = ["L2", "SHARED", "HELD", "SCALED"];
    let all = Variants::of(&SHADER).append(ROW_WIDTHS.map(row_elem)).with("WG", LANES);
    let all = flags.into_iter().fold(all, |all, flag| all.with(flag, FLAG));
    vec![["LEARN", "GIVEN"].into_iter().fold(all, |all, flag| all.with_in(&["step"], flag, FLAG))]
}

impl Mars {
    /// Tables for `layout`, whose tensors with `excluded` set have no radius. Radii start unset.
    pub fn new(gpu: &Gpu, layout: &ParamLayout, norm: Norm, excluded: &[bool]) -> Result<Mars> {
        let segments = layout.segments(gpu.limits.max_storage_buffer_binding_size)?;
        Mars::with_segments(gpu, layout, &segments, norm, excluded, gpu.has_wide_words())
    }

    /// As [`Mars::new`], over an arena that is bound in these segments, each of whole tensors; by words of 64 bits or not.
    pub fn with_segments(
        gpu: &Gpu,
        layout: &ParamLayout,
        segments: &[Segment],
        norm: Norm,
        excluded: &[bool],
        wide_words: bool,
    ) -> Result<Mars> {
        assert_eq!(excluded.len(), layout.params.len(), "mars: one flag per tensor");
        let counts: Vec<usize> = layout.params.iter().map(|p| norm.rows(&p.shape)).collect();
        let cols = |t: usize| layout.params[t].len / counts[t];
        let mut tensors: Vec<u32> = Vec::new();
        let mut first_rows = Vec::new();
        let mut row_count = 0;
        for (count, excluded) in counts.iter().zip(excluded) {
            first_rows.push(row_count);
            tensors.extend([row_count as u32, *count as u32, u32::from(*excluded)]);
            row_count += count;
        }
        let (mut chunks, mut rows) = (Vec::new(), vec![0; 2 * row_count]);
        let mut runs = Vec::new();
        for segment in segments {
            let inside = |t: &usize| (segment.offset..segment.offset + segment.len).contains(&layout.params[*t].offset);
            for width in [8, 4, 1] {
                let first = chunks.len() / 4;
                for t in (0..counts.len()).filter(inside).filter(|t| width_of(cols(*t), wide_words) == width) {
                    let cols = cols(t) / width;
                    for row in 0..counts[t] {
                        let index = first_rows[t] + row;
                        rows[2 * index] = chunks.len() as u32 / 4;
                        rows[2 * index + 1] = cols.div_ceil(chunk(width)) as u32;
                        for start in (0..cols).step_by(chunk(width)) {
                            let at = layout.params[t].offset / width + row * cols + start;
                            let len = chunk(width).min(cols - start);
                            chunks.extend([at as u32, len as u32, index as u32, t as u32]);
                        }
                    }
                }
                let count = chunks.len() / 4 - first;
                if count > 0 {
                    runs.push(RowGroup { segment: *segment, width, first, count });
                }
            }
        }
        Ok(Mars {
            norm,
            tensors: layout.params.len(),
            rows: counts,
            runs,
            partials: gpu.buffer("projection partial sums", chunks.len() / 4 * PARTS)?,
            norms: gpu.buffer("row norms", row_count)?,
            radii: gpu.buffer("radii", layout.params.len() * RADIUS_WORDS)?,
            chunk_table: gpu.upload("projection chunk table", &chunks)?,
            row_table: gpu.upload("projection row table", &rows)?,
            tensor_table: gpu.upload("projection tensor table", &tensors)?,
        })
    }

    /// Elements of the partial sums.
    pub(super) fn partials_len(layout: &ParamLayout, norm: Norm) -> usize {
        let chunks_of = |p: &Param| {
            let rows = norm.rows(&p.shape);
            let cols = p.len / rows;
            // As many with vectors of eight: those chunks are half as long.
            rows * (cols / Elem::of(cols, Element::Word).width).div_ceil(CHUNK)
        };
        PARTS * layout.params.iter().map(chunks_of).sum::<usize>()
    }

    /// Chunks, over all segments.
    pub(super) fn chunks(&self) -> usize {
        self.runs.iter().map(|run| run.count).sum()
    }

    /// Bytes of the buffers that [`Mars::new`] allocates.
    pub fn bytes(layout: &ParamLayout, norm: Norm) -> u64 {
        let partials = Mars::partials_len(layout, norm);
        let (rows, tensors) = (layout.params.iter().map(|p| norm.rows(&p.shape)).sum::<usize>(), layout.params.len());
        let lens = [partials, 4 * partials / PARTS, rows, 2 * rows, RADIUS_WORDS * tensors, 3 * tensors];
        lens.iter().map(|len| align(*len) as u64 * 4).sum()
    }

    fn params(&self) -> Params {
        Params { tensors: self.tensors as u32, ..Params::default() }
    }

    fn kernel(&self, r: &Recorder, entry: &str, width: usize, own: &[(&'static str, bool)]) -> Result<Arc<Kernel>> {
        let mut constants =
            vec![("WG", r.reduce_lanes() as f64), ("L2", flag(self.norm == Norm::L2)), ("SHARED", flag(!r.for_cpu))];
        constants.extend(own.iter().map(|(name, on)| (*name, flag(*on))));
        r.kernel_with(&SHADER, entry, &constants, &row_elem(width))
    }

    /// Cuts `arenas` to each segment and width in turn: `record` gets them as views, the kernel's place in the tables
    /// (`base`, `first`, `count`), the width of an element and the grid.
    pub(super) fn each<'v>(
        &self,
        r: &mut Recorder,
        arenas: &[(&'v str, &View)],
        mut record: impl FnMut(&mut Recorder, &[(&'v str, &View)], [u32; 3], usize, [u32; 3]) -> Result<()>,
    ) -> Result<()> {
        for run in &self.runs {
            let Segment { offset, len } = run.segment;
            let cut: Vec<(&str, View)> = arenas.iter().map(|(name, arena)| (*name, arena.slice(offset, len))).collect();
            let views: Vec<(&str, &View)> = cut.iter().map(|(name, view)| (*name, view)).collect();
            let place = [offset / run.width, run.first, run.count].map(|n| n as u32);
            record(r, &views, place, run.width, fold(run.count))?;
        }
        Ok(())
    }

    /// Records `entry` once per segment and width; `arenas` are cut to it, `whole` are bound as they are.
    fn each_run(&self, r: &mut Recorder, entry: &str, arenas: &[(&str, &View)], whole: &[(&str, &View)]) -> Result<()> {
        self.each(r, arenas, |r, cut, [base, first, count], width, grid| {
            let kernel = self.kernel(r, entry, width, &[])?;
            let params = Params { base, first, count, ..self.params() };
            r.push(&kernel, &[cut, whole].concat(), &params, grid);
            Ok(())
        })
    }

    /// The partial sums of the norms of `w − w0`.
    pub(super) fn distances(&self, r: &mut Recorder, w: &View, w0: &View) -> Result<()> {
        let tables = [("chunks", &self.chunk_table), ("partials", &self.partials)];
        self.each_run(r, "distances", &[("w", w), ("w0", w0)], &tables)
    }

    /// The partial sums of ⟨dw, w − w0⟩.
    pub(super) fn dots(&self, r: &mut Recorder, dw: &View, w: &View, w0: &View) -> Result<()> {
        let tables = [("chunks", &self.chunk_table), ("partials", &self.partials)];
        self.each_run(r, "dots", &[("w", w), ("w0", w0), ("dw", dw)], &tables)
    }

    /// Row norms of the drift `w − w0`, and every radius clamped to its bounds. With `start` a radius that has none yet
    /// gets its first value; without, it stays unset (a tensor without a radius is not projected).
    pub fn clip(&self, r: &mut Recorder, w: &View, w0: &View, start: bool) -> Result<()> {
        self.settle(r, w, w0, start, false)
    }

    /// Row norms of the drift alone: radii stay as they are, and have to be there ([`Mars::hold`]).
    pub fn measure(&self, r: &mut Recorder, w: &View, w0: &View) -> Result<()> {
        self.settle(r, w, w0, false, true)
    }

    /// Gives every tensor this radius.
    pub fn hold(&self, gpu: &Gpu, radius: f32) {
        let state = [radius.to_bits(), 0, 0, 0, 0, 1];
        gpu.write(&self.radii, &state.repeat(self.tensors));
    }

    fn settle(&self, r: &mut Recorder, w: &View, w0: &View, start: bool, held: bool) -> Result<()> {
        self.distances(r, w, w0)?;
        let kernel = self.kernel(r, "clip", 4, &[("HELD", held)])?;
        let views = [
            ("tensors", &self.tensor_table),
            ("rows", &self.row_table),
            ("sums", &self.partials),
            ("norms", &self.norms),
            ("radii", &self.radii),
        ];
        let params = Params { start: u32::from(start), ..self.params() };
        r.push(&kernel, &views, &params, fold(self.tensors));
        Ok(())
    }

    /// `w_proj = ` the projection of `w`, by the norms and radii of the last [`Mars::clip`].
    pub fn project(&self, r: &mut Recorder, w_proj: &View, w: &View, w0: &View) -> Result<()> {
        self.each_run(r, "project", &[("w_proj", w_proj), ("w", w), ("w0", w0)], &self.settled())
    }

    /// `w = ` its own projection.
    pub fn apply(&self, r: &mut Recorder, w: &View, w0: &View) -> Result<()> {
        self.each_run(r, "apply", &[("w_inout", w), ("w0", w0)], &self.settled())
    }

    fn settled(&self) -> [(&'static str, &View); 4] {
        [
            ("chunks", &self.chunk_table),
            ("row_norms", &self.norms),
            ("settled", &self.radii),
            ("kinds", &self.tensor_table),
        ]
    }

    /// The radius gradients from `dw`, the gradient at the projected weights, and one Adam step of rate `lr` on the
    /// radii. `log` (`[slots, tensors, LOG_WORDS]`) gets an entry per tensor at `state.slot`.
    pub fn step(
        &self,
        r: &mut Recorder,
        log: &View,
        state: &View,
        dw: &View,
        w: &View,
        w0: &View,
        lr: f32,
    ) -> Result<()> {
        self.step_scaled(r, log, state, dw, w, w0, None, lr)
    }

    /// As [`Mars::step`], with a `dw` that is multiplied by the first value of a [loss scale](crate::ops::loss_scale).
    pub fn step_scaled(
        &self,
        r: &mut Recorder,
        log: &View,
        state: &View,
        dw: &View,
        w: &View,
        w0: &View,
        scale: Option<&View>,
        lr: f32,
    ) -> Result<()> {
        self.dots(r, dw, w, w0)?;
        self.move_radii(r, log, state, scale, &[("SCALED", scale.is_some())], lr)
    }

    /// The first half of [`Mars::step_scaled`]: `log`'s entry at `state.slot` gets the radius gradients. Several ranks add them up before
    /// [`Mars::learn`].
    pub fn gradients(
        &self,
        r: &mut Recorder,
        log: &View,
        state: &View,
        dw: &View,
        w: &View,
        w0: &View,
        scale: Option<&View>,
    ) -> Result<()> {
        self.dots(r, dw, w, w0)?;
        self.move_radii(r, log, state, scale, &[("SCALED", scale.is_some()), ("LEARN", false)], 0.0)
    }

    /// The second half: one Adam step of rate `lr` on the radii, by the gradients in `log`'s entry at `state.slot`.
    pub fn learn(&self, r: &mut Recorder, log: &View, state: &View, lr: f32) -> Result<()> {
        self.move_radii(r, log, state, None, &[("GIVEN", true)], lr)
    }

    fn move_radii(
        &self,
        r: &mut Recorder,
        log: &View,
        state: &View,
        scale: Option<&View>,
        flags: &[(&'static str, bool)],
        lr: f32,
    ) -> Result<()> {
        assert!(log.len.is_multiple_of(self.tensors * LOG_WORDS), "mars::step: log of {} words", log.len);
        check("mars::step", "radii", &self.radii, self.tensors * RADIUS_WORDS);
        let kernel = self.kernel(r, "step", 4, flags)?;
        let views = [
            ("tensors", &self.tensor_table),
            ("rows", &self.row_table),
            ("sums", &self.partials),
            ("row_norms", &self.norms),
            ("radii", &self.radii),
            ("log", log),
            ("state", state),
            // Never read without a scale.
            ("loss_scale", scale.unwrap_or(&self.norms)),
        ];
        let params = Params { lr, ..self.params() };
        r.push(&kernel, &views, &params, fold(self.tensors));
        Ok(())
    }
}
