//! Host wrapper of `shaders/mars.wgsl`: the row tables of a parameter arena, and the steps of a projection.

use crate::cpu::mars::Norm;
use crate::error::Result;
use crate::gpu::{Gpu, View, buffer::align, program::fold, shaders};
use crate::model::params::{Param, ParamLayout, Segment};
use crate::ops::{Recorder, check};

/// Elements of a row that one workgroup takes: enough to be worth its start, few enough to fill a GPU.
const CHUNK: usize = 1024;

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
    segments: Vec<(Segment, u32, u32)>,
    chunk_table: View,
    row_table: View,
    tensor_table: View,
    partials: View,
    norms: View,
    /// State of the radii, [`RADIUS_WORDS`] words a tensor: what a run must save to resume.
    pub radii: View,
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

impl Mars {
    /// Tables for `layout`, whose tensors with `excluded` set have no radius. Radii start unset.
    pub fn new(gpu: &Gpu, layout: &ParamLayout, norm: Norm, excluded: &[bool]) -> Result<Mars> {
        let segments = layout.segments(gpu.limits.max_storage_buffer_binding_size)?;
        Mars::with_segments(gpu, layout, &segments, norm, excluded)
    }

    /// As [`Mars::new`], over an arena that is bound in these segments, each of whole tensors.
    pub fn with_segments(
        gpu: &Gpu,
        layout: &ParamLayout,
        segments: &[Segment],
        norm: Norm,
        excluded: &[bool],
    ) -> Result<Mars> {
        assert_eq!(excluded.len(), layout.params.len(), "mars: one flag a tensor");
        let (mut chunks, mut rows, mut tensors): (Vec<u32>, Vec<u32>, Vec<u32>) = Default::default();
        // A segment holds whole tensors, so its chunks are a run of the table.
        let mut segments: Vec<(Segment, u32, u32)> = segments.iter().map(|s| (*s, 0, 0)).collect();
        let mut counts = Vec::new();
        for (t, param) in layout.params.iter().enumerate() {
            let count = norm.rows(&param.shape);
            let cols = param.len / count;
            counts.push(count);
            tensors.extend([rows.len() as u32 / 2, count as u32, u32::from(excluded[t])]);
            let first_chunk = chunks.len() as u32 / 4;
            for row in 0..count {
                rows.extend([chunks.len() as u32 / 4, cols.div_ceil(CHUNK) as u32]);
                for start in (0..cols).step_by(CHUNK) {
                    let len = CHUNK.min(cols - start);
                    let at = param.offset + row * cols + start;
                    chunks.extend([at as u32, len as u32, rows.len() as u32 / 2 - 1, t as u32]);
                }
            }
            let home = segments
                .iter_mut()
                .find(|(s, _, _)| (s.offset..s.offset + s.len).contains(&param.offset))
                .expect("every tensor lies in a segment");
            if home.2 == 0 {
                home.1 = first_chunk;
            }
            home.2 += chunks.len() as u32 / 4 - first_chunk;
        }
        Ok(Mars {
            norm,
            tensors: layout.params.len(),
            rows: counts,
            segments,
            partials: gpu.buffer("projection partial sums", chunks.len() / 4)?,
            norms: gpu.buffer("row norms", rows.len() / 2)?,
            radii: gpu.buffer("radii", layout.params.len() * RADIUS_WORDS)?,
            chunk_table: gpu.upload("projection chunk table", &chunks)?,
            row_table: gpu.upload("projection row table", &rows)?,
            tensor_table: gpu.upload("projection tensor table", &tensors)?,
        })
    }

    /// Bytes of the buffers that [`Mars::new`] allocates.
    pub fn bytes(layout: &ParamLayout, norm: Norm) -> u64 {
        let rows = |p: &Param| norm.rows(&p.shape);
        let chunks: usize = layout.params.iter().map(|p| rows(p) * (p.len / rows(p)).div_ceil(CHUNK)).sum();
        let (rows, tensors) = (layout.params.iter().map(rows).sum::<usize>(), layout.params.len());
        let lens = [chunks, 4 * chunks, rows, 2 * rows, RADIUS_WORDS * tensors, 3 * tensors];
        lens.iter().map(|len| align(*len) as u64 * 4).sum()
    }

    fn params(&self) -> Params {
        Params { tensors: self.tensors as u32, ..Params::default() }
    }

    /// Records `entry` once a segment; `arenas` are cut to it, `whole` are bound as they are.
    fn each_segment(
        &self,
        r: &mut Recorder,
        entry: &str,
        arenas: &[(&str, &View)],
        whole: &[(&str, &View)],
    ) -> Result<()> {
        let constants = [("WG", r.reduce_lanes() as f64), ("L2", f64::from(u8::from(self.norm == Norm::L2)))];
        let kernel = r.kernel(&shaders::MARS, entry, &constants)?;
        for (segment, first, count) in &self.segments {
            let cut: Vec<(&str, View)> =
                arenas.iter().map(|(name, arena)| (*name, arena.slice(segment.offset, segment.len))).collect();
            let mut views: Vec<(&str, &View)> = cut.iter().map(|(name, view)| (*name, view)).collect();
            views.extend(whole);
            let params = Params { base: segment.offset as u32, first: *first, count: *count, ..self.params() };
            r.push(&kernel, &views, &params, fold(*count as usize));
        }
        Ok(())
    }

    /// Row norms of the drift `w − w0`, and every radius clamped to its bounds. With `start` a radius that has none yet
    /// gets its first value; without, it stays unset (a tensor without a radius is not projected).
    pub fn clip(&self, r: &mut Recorder, w: &View, w0: &View, start: bool) -> Result<()> {
        let tables = [("chunks", &self.chunk_table), ("partials", &self.partials)];
        self.each_segment(r, "distances", &[("w", w), ("w0", w0)], &tables)?;
        let constants = [("WG", r.reduce_lanes() as f64), ("L2", f64::from(u8::from(self.norm == Norm::L2)))];
        let kernel = r.kernel(&shaders::MARS, "clip", &constants)?;
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
        self.each_segment(r, "project", &[("w_proj", w_proj), ("w", w), ("w0", w0)], &self.settled())
    }

    /// `w = ` its own projection.
    pub fn apply(&self, r: &mut Recorder, w: &View, w0: &View) -> Result<()> {
        self.each_segment(r, "apply", &[("w_inout", w), ("w0", w0)], &self.settled())
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
    /// radii. `log` (`[slots, tensors, LOG_WORDS]`) gets an entry a tensor at `state.slot`.
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
        assert!(log.len.is_multiple_of(self.tensors * LOG_WORDS), "mars::step: log of {} words", log.len);
        check("mars::step", "radii", &self.radii, self.tensors * RADIUS_WORDS);
        let tables = [("chunks", &self.chunk_table), ("partials", &self.partials)];
        self.each_segment(r, "dots", &[("w", w), ("w0", w0), ("dw", dw)], &tables)?;
        let flag = |flag: bool| f64::from(u8::from(flag));
        let constants =
            [("WG", r.reduce_lanes() as f64), ("L2", flag(self.norm == Norm::L2)), ("SCALED", flag(scale.is_some()))];
        let kernel = r.kernel(&shaders::MARS, "step", &constants)?;
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
