//! What TPGM adds to a training run: a radius update beside a plain step, and its own kernels over many parameters.

use crate::bench::models::{check_losses, net, step};
use crate::bench::peak::{Copy, run};
use crate::bench::timer::timed;
use crate::bench::{Bench, Figures, Work};
use crate::error::Result;
use crate::gpu::View;
use crate::method::{Ftp, FtpSettings, Tpgm, TpgmSettings};
use crate::model::Model;
use crate::ops::Recorder;
use crate::ops::mars::{LOG_WORDS, Mars};
use crate::ops::step_state::STATE_WORDS;
use crate::shapes::Norm;
use crate::suite::harness::Random;

/// A radius update and a plain training step with the same batch, in turn. `ratio` is update over step, repeat by
/// repeat; the projection that the every-step schedule has besides is told apart.
pub fn tpgm_overhead(b: &Bench) -> Result<Figures> {
    let net = net("vit_tiny");
    let settings = net.settings();
    let mut learner = net.learner(b, settings)?;
    let anchor = learner.snapshot()?.w;
    let excluded: Vec<bool> = learner.model.layout().params.iter().map(|p| (net.config)().is_head(&p.name)).collect();
    let settings = TpgmSettings { norm: Norm::Mars, radius_lr: 1e-2, max_iters: 1, proj_freq: 1 };
    let mut tpgm = Tpgm::new(&learner, &anchor, &excluded, settings)?;
    let (images, labels) = net.batch();
    let [update, plain, apply, ratio] = b.budget.spend(|| {
        let plain = timed(|| step(&mut learner, &images, &labels, net.lr))?;
        let update = timed(|| {
            tpgm.outer(&mut learner, &images, &labels)?;
            b.gpu.wait()
        })?;
        let apply = timed(|| {
            tpgm.apply(&mut learner)?;
            b.gpu.wait()
        })?;
        learner.records(false)?;
        tpgm.records(&learner, false)?;
        Ok([update, plain, apply, update / plain])
    })?;
    check_losses(&mut learner, "tpgm_overhead")?;
    Ok(Figures::new(net.shape(), update, net.step_work())
        .in_precision(b.precision)
        .with("ratio", ratio.median())
        .with("plain_step_ms", plain.median())
        .with("apply_ms", apply.median()))
}

/// A training step with FTP and a plain one with the same batch, in turn, by the optimiser that FTP has for a ViT (Adam).
/// `ratio` is the one over the other, repeat by repeat; `own_ms` what FTP's kernels take alone, before these.
pub fn ftp_overhead(b: &Bench) -> Result<Figures> {
    let net = net("vit_tiny");
    let settings = net.settings();
    let (mut plain, mut held) = (net.learner(b, settings)?, net.learner(b, settings)?);
    let anchor = held.snapshot()?.w;
    let excluded: Vec<bool> = held.model.layout().params.iter().map(|p| (net.config)().is_head(&p.name)).collect();
    let (mut ftp, around) = Ftp::new(&held, &anchor, &excluded, FtpSettings { radius_lr: 1e-2, k: 1.0 })?;
    let own = b.budget.time(|| run(b.gpu, &[&around.before, &around.after]))?;
    held.surround(around);
    let (images, labels) = net.batch();
    let [with, without, ratio] = b.budget.spend(|| {
        let without = timed(|| step(&mut plain, &images, &labels, net.lr))?;
        let with = timed(|| step(&mut held, &images, &labels, net.lr))?;
        ftp.note_step(&held);
        plain.records(false)?;
        held.records(false)?;
        ftp.records(&held, false)?;
        Ok([with, without, with / without])
    })?;
    check_losses(&mut held, "ftp_overhead")?;
    Ok(Figures::new(net.shape(), with, net.step_work())
        .with("ratio", ratio.median())
        .with("own_ms", own.median())
        .with("plain_step_ms", without.median()))
}

/// Row norms, projection and radius gradients over the 86 million parameters of a ViT-Base. Bytes: norms read w and w0,
/// the projection reads them and writes a third arena, the radius gradients read w, w0 and dw. `of_copy` is their rate over
/// that of copies of as many bytes in turn with them, by the faster of a kernel and the driver, repeat by repeat.
pub fn mars_vit_base(b: &Bench) -> Result<Figures> {
    let (gpu, model) = (b.gpu, Model::new((net("vit_base").config)()));
    let layout = model.layout();
    let mut random = Random::new(1);
    let mut values = random.vec(layout.len);
    let mut arena = |role: &str, fill: bool| -> Result<View> {
        let view = layout.arena(gpu, role)?;
        if fill {
            // Drifts of every size and either sign.
            values.rotate_left(1);
            gpu.write(&view, &values);
            gpu.wait()?;
        }
        Ok(view)
    };
    let [w, w0, dw] = [arena("weights", true)?, arena("anchor weights", true)?, arena("gradient", true)?];
    let w_proj = arena("projected weights", false)?;
    let mars = Mars::new(gpu, layout, Norm::Mars, &vec![false; layout.params.len()])?;
    let log = gpu.buffer("radius log", mars.tensors * LOG_WORDS)?;
    let state = gpu.buffer("outer state", STATE_WORDS)?;
    let scratch = gpu.buffer("scratch", 1)?;
    let mut r = Recorder::new(gpu, &scratch);
    mars.clip(&mut r, &w, &w0, true)?;
    mars.project(&mut r, &w_proj, &w, &w0)?;
    mars.step(&mut r, &log, &state, &dw, &w, &w0, 1e-2)?;
    let program = r.program;
    let bytes = 8.0 * 4.0 * layout.count() as f64;
    let copy = Copy::new(gpu)?;
    let copies = (bytes / copy.bytes()).round();
    let [times, of_copy] = b.budget.spend(|| {
        let ours = timed(|| run(gpu, &[&program]))?;
        let kernel = timed(|| copy.by_kernel(copies as usize))?;
        let driver = timed(|| copy.by_driver(copies as usize))?;
        let of_copy = (bytes / ours) / (copies * copy.bytes() / kernel.min(driver));
        Ok([ours, of_copy])
    })?;
    let shape = format!("{} tensors, {} parameters", layout.params.len(), layout.count());
    Ok(Figures::new(shape, times, Work::Bytes(bytes)).with("of_copy", of_copy.median()))
}
