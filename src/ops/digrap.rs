//! Host wrapper of `shaders/digrap.wgsl`: takes out of the gradient a learned share of what leads away from the anchor.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::buffer::align;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{Gpu, Kernel, View, program::fold};
use crate::ops::elem::{ROW_WIDTHS, row_elem};
use crate::ops::mars::{Mars, RADIUS_WORDS};
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::{Recorder, check, flag};
use crate::shapes::Norm;
use crate::shapes::ParamLayout;

static SHADER: Shader = shader!("digrap", REDUCE, FOLD, STEP, ROWS);

/// Words of a tensor in [`Digrap::pulls`].
pub const PULL_WORDS: usize = 3;
/// Sums over a chunk.
const SUMS: usize = 4;

/// The tables of [`Mars`] with one row per tensor, whose radii are the shares omega.
#[derive(Debug)]
pub struct Digrap {
    /// The tables, and the state of the shares.
    pub mars: Mars,
    /// What each tensor keeps of the last step: with `mars.radii` what a run must save to resume.
    pub pulls: View,
    sums: View,
}

#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    base: u32,
    first: u32,
    count: u32,
    tensors: u32,
    chunks: u32,
    lr: f32,
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    let all = Variants::of(&SHADER).append(ROW_WIDTHS.map(row_elem));
    vec![all.with("WG", LANES).with("SHARED", FLAG)]
}

impl Digrap {
    /// Tables for `layout`, whose tensors with `excluded` set keep their gradient.
    pub fn new(gpu: &Gpu, layout: &ParamLayout, excluded: &[bool]) -> Result<Digrap> {
        Digrap::with_tables(gpu, Mars::new(gpu, layout, Norm::L2, excluded)?)
    }

    /// As [`Digrap::new`], over the tables of `mars`, whose norm is L2.
    pub fn with_tables(gpu: &Gpu, mars: Mars) -> Result<Digrap> {
        let pulls = gpu.buffer("gradient projection", mars.tensors * PULL_WORDS)?;
        let sums = gpu.buffer("gradient projection partial sums", SUMS * mars.partials.len)?;
        Ok(Digrap { pulls, sums, mars })
    }

    /// Bytes of the buffers that [`Digrap::new`] allocates.
    pub fn bytes(layout: &ParamLayout) -> u64 {
        let small = align(layout.params.len() * PULL_WORDS) + align(SUMS * Mars::partials_len(layout, Norm::L2));
        Mars::bytes(layout, Norm::L2) + small as u64 * 4
    }

    /// The share omega of each tensor of the layout, as the last step had it; 0 of those that have none. Waits.
    ///
    /// # Errors
    /// Where the device is lost.
    pub fn shares(&self, gpu: &Gpu) -> Result<Vec<f32>> {
        let words: Vec<u32> = gpu.read(&self.mars.radii)?;
        Ok(words.chunks(RADIUS_WORDS).map(|radius| f32::from_bits(radius[0])).collect())
    }

    fn kernel(&self, r: &Recorder, entry: &str, width: usize) -> Result<Arc<Kernel>> {
        let constants = [("WG", r.reduce_lanes() as f64), ("SHARED", flag(!r.for_cpu))];
        r.kernel_with(&SHADER, entry, &constants, &row_elem(width))
    }

    fn params(&self) -> Params {
        Params { tensors: self.mars.tensors as u32, chunks: self.mars.chunks() as u32, ..Params::default() }
    }

    /// One Adam step of rate `lr` on the shares, and `dw` without them; `w_prev = w`. `w_prev` are the weights of the last step whose
    /// gradient was finite, `w0` before the first. `dw` may be multiplied by a loss scale.
    pub fn step(
        &self,
        r: &mut Recorder,
        state: &View,
        dw: &View,
        (w, w_prev, w0): (&View, &View, &View),
        lr: f32,
    ) -> Result<()> {
        let mars = &self.mars;
        check("digrap", "w_prev", w_prev, w.len);
        check("digrap", "dw", dw, w.len);
        let arenas = [("w", w), ("w0", w0), ("w_prev", w_prev), ("dw", dw)];
        let whole = [("chunks", &mars.chunk_table), ("measured", &self.sums)];
        self.each(r, "measure", &arenas, &whole)?;
        let kernel = self.kernel(r, "learn", 4)?;
        let views = [
            ("tensors", &mars.tensor_table),
            ("rows", &mars.row_table),
            ("sums", &self.sums),
            ("radii", &mars.radii),
            ("pulls", &self.pulls),
            ("state", state),
        ];
        r.push(&kernel, &views, &Params { lr, ..self.params() }, fold(mars.tensors));
        let arenas = [("w", w), ("w0", w0), ("w_last", w_prev), ("dw_inout", dw)];
        let whole = [("chunks", &mars.chunk_table), ("settled", &self.pulls), ("kinds", &mars.tensor_table)];
        self.each(r, "apply", &arenas, &whole)
    }

    fn each(&self, r: &mut Recorder, entry: &str, arenas: &[(&str, &View)], whole: &[(&str, &View)]) -> Result<()> {
        self.mars.each(r, arenas, |r, cut, [base, first, count], width, grid| {
            let kernel = self.kernel(r, entry, width)?;
            r.push(&kernel, &[cut, whole].concat(), &Params { base, first, count, ..self.params() }, grid);
            Ok(())
        })
    }
}
