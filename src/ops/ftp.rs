//! Host wrapper of `shaders/ftp.wgsl`: radii that are learned from the training gradient.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{Gpu, Kernel, View, program::fold};
use crate::ops::elem::{ROW_WIDTHS, row_elem};
use crate::ops::mars::{LOG_WORDS, Mars};
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::{Recorder, check, flag};
use crate::shapes::Norm;
use crate::shapes::ParamLayout;

static SHADER: Shader = shader!("ftp", REDUCE, FOLD, STEP, ROWS);

/// Row tables and radii: those of [`Mars`] under its own norm, by another rule.
#[derive(Debug)]
pub struct Ftp {
    /// The tables, and the state of the radii.
    pub mars: Mars,
}

#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    base: u32,
    first: u32,
    count: u32,
    tensors: u32,
    lr: f32,
    k: f32,
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    let all = Variants::of(&SHADER).append(ROW_WIDTHS.map(row_elem));
    vec![all.with("WG", LANES).with("SHARED", FLAG).with("SCALED", FLAG)]
}

impl Ftp {
    /// Tables for `layout`, whose tensors with `excluded` set have no radius.
    pub fn new(gpu: &Gpu, layout: &ParamLayout, excluded: &[bool]) -> Result<Ftp> {
        Ok(Ftp { mars: Mars::new(gpu, layout, Norm::Mars, excluded)? })
    }

    fn kernel(&self, r: &Recorder, entry: &str, width: usize, scaled: bool) -> Result<Arc<Kernel>> {
        let constants = [("WG", r.reduce_lanes() as f64), ("SHARED", flag(!r.for_cpu)), ("SCALED", flag(scaled))];
        r.kernel_with(&SHADER, entry, &constants, &row_elem(width))
    }

    fn params(&self) -> Params {
        Params { tensors: self.mars.tensors as u32, ..Params::default() }
    }

    /// One Adam step of rate `lr` on the radii from the training gradient `dw` and `w_prev`, the weights that the last
    /// [`Ftp::apply`] projected; their gradient times `k` where it is positive. At step 1 of `state` the first radii. `log`
    /// (`[slots, tensors, LOG_WORDS]`) gets an entry per tensor. `dw` may be multiplied by the first value of `scale`.
    pub fn learn(
        &self,
        r: &mut Recorder,
        log: &View,
        state: &View,
        dw: &View,
        w_prev: &View,
        w0: &View,
        scale: Option<&View>,
        lr: f32,
        k: f32,
    ) -> Result<()> {
        assert!(log.len.is_multiple_of(self.mars.tensors * LOG_WORDS), "ftp::learn: log of {} words", log.len);
        self.mars.dots(r, dw, w_prev, w0)?;
        let kernel = self.kernel(r, "learn", 4, scale.is_some())?;
        let mars = &self.mars;
        let views = [
            ("tensors", &mars.tensor_table),
            ("rows", &mars.row_table),
            ("sums", &mars.partials),
            ("row_norms", &mars.norms),
            ("radii", &mars.radii),
            ("log", log),
            ("state", state),
            // Never read without a scale.
            ("loss_scale", scale.unwrap_or(&mars.norms)),
        ];
        r.push(&kernel, &views, &Params { lr, k, ..self.params() }, fold(mars.tensors));
        Ok(())
    }

    /// `w_prev = w`, and `w = ` its projection, by radii that are clamped to their bounds first.
    pub fn apply(&self, r: &mut Recorder, w: &View, w_prev: &View, w0: &View) -> Result<()> {
        let mars = &self.mars;
        check("ftp::apply", "w_prev", w_prev, w.len);
        mars.distances(r, w, w0)?;
        let kernel = self.kernel(r, "clip", 4, false)?;
        let views = [
            ("tensors", &mars.tensor_table),
            ("rows", &mars.row_table),
            ("sums", &mars.partials),
            ("norms", &mars.norms),
            ("radii", &mars.radii),
        ];
        r.push(&kernel, &views, &self.params(), fold(mars.tensors));
        let whole = [
            ("chunks", &mars.chunk_table),
            ("row_norms", &mars.norms),
            ("settled", &mars.radii),
            ("kinds", &mars.tensor_table),
        ];
        mars.each(r, &[("w", w), ("w0", w0), ("w_prev", w_prev)], |r, cut, [base, first, count], width, grid| {
            let kernel = self.kernel(r, "apply", width, false)?;
            let params = Params { base, first, count, ..self.params() };
            r.push(&kernel, &[cut, &whole].concat(), &params, grid);
            Ok(())
        })
    }
}
