//! Host wrapper of `shaders/spd.wgsl`: what pulls tensors back that a step took further from the anchor.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::buffer::align;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{Gpu, Kernel, View, program::fold};
use crate::ops::elem::{ROW_WIDTHS, row_elem};
use crate::ops::mars::Mars;
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::{Recorder, flag};
use crate::shapes::Norm;
use crate::shapes::ParamLayout;

static SHADER: Shader = shader!("spd", REDUCE, FOLD, ROWS);

/// Words of a tensor's state.
const PULL_WORDS: usize = 3;

/// The tables of [`Mars`] with one row per tensor, and the state of each.
#[derive(Debug)]
pub struct Spd {
    mars: Mars,
    pulls: View,
}

#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    base: u32,
    first: u32,
    count: u32,
    tensors: u32,
    lambda: f32,
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    let all = Variants::of(&SHADER).append(ROW_WIDTHS.map(row_elem));
    vec![all.with("WG", LANES).with("SHARED", FLAG).with("DISTANCE", FLAG)]
}

impl Spd {
    /// Tables for `layout`, whose tensors with `excluded` set are never pulled.
    pub fn new(gpu: &Gpu, layout: &ParamLayout, excluded: &[bool]) -> Result<Spd> {
        Spd::with_tables(gpu, Mars::new(gpu, layout, Norm::L2, excluded)?)
    }

    /// As [`Spd::new`], over the tables of `mars`, whose norm is L2.
    pub fn with_tables(gpu: &Gpu, mars: Mars) -> Result<Spd> {
        Ok(Spd { pulls: gpu.buffer("selective projection", mars.tensors * PULL_WORDS)?, mars })
    }

    /// Bytes of the buffers that [`Spd::new`] allocates.
    pub fn bytes(layout: &ParamLayout) -> u64 {
        Mars::bytes(layout, Norm::L2) + align(layout.params.len() * PULL_WORDS) as u64 * 4
    }

    fn kernel(&self, r: &Recorder, entry: &str, width: usize, distance: bool) -> Result<Arc<Kernel>> {
        let constants = [("WG", r.reduce_lanes() as f64), ("SHARED", flag(!r.for_cpu)), ("DISTANCE", flag(distance))];
        r.kernel_with(&SHADER, entry, &constants, &row_elem(width))
    }

    fn each_tensor(&self, r: &mut Recorder, entry: &str, distance: bool, lambda: f32) -> Result<()> {
        let mars = &self.mars;
        let kernel = self.kernel(r, entry, 4, distance)?;
        let views = [
            ("tensors", &mars.tensor_table),
            ("rows", &mars.row_table),
            ("sums", &mars.partials),
            ("pulls", &self.pulls),
        ];
        let params = Params { tensors: mars.tensors as u32, lambda, ..Params::default() };
        r.push(&kernel, &views, &params, fold(mars.tensors));
        Ok(())
    }

    /// Before the optimiser's update: how far each tensor of `w` is from `w0`, and whether a step against its gradient `dw` leads nearer.
    pub fn note(&self, r: &mut Recorder, dw: &View, w: &View, w0: &View) -> Result<()> {
        self.mars.distances(r, w, w0)?;
        self.each_tensor(r, "note", true, 0.0)?;
        self.mars.dots(r, dw, w, w0)?;
        self.each_tensor(r, "note", false, 0.0)
    }

    /// After it: pulls back what went further away, by `lambda` times the share of its distance that is new.
    pub fn apply(&self, r: &mut Recorder, w: &View, w0: &View, lambda: f32) -> Result<()> {
        let mars = &self.mars;
        mars.distances(r, w, w0)?;
        self.each_tensor(r, "settle", false, lambda)?;
        let whole = [("chunks", &mars.chunk_table), ("settled", &self.pulls), ("kinds", &mars.tensor_table)];
        mars.each(r, &[("w", w), ("w0", w0)], |r, cut, [base, first, count], width, grid| {
            let kernel = self.kernel(r, "apply", width, false)?;
            let params = Params { base, first, count, tensors: mars.tensors as u32, lambda };
            r.push(&kernel, &[cut, &whole].concat(), &params, grid);
            Ok(())
        })
    }
}
