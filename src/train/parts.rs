//! A run's method made of its configuration: what is trained when, what happens around each step, and what that takes.

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::method::{
    Ema, Ftp, FtpSettings, Learner, Memory, Settings, Snapshot, Stage, Tpgm, TpgmSettings, bitfit, fixed_radius, l2_sp,
    linear_probe, llrd, lp_ft, partial, spd,
};
use crate::model::{Model, ModelConfig};
use crate::train::config::TrainConfig;
use crate::train::method_args::{Method, MethodArgs};

/// What a method keeps on the device beside the learner.
#[derive(Debug, Default)]
pub struct Parts {
    /// Radii learned on validation data.
    pub tpgm: Option<Tpgm>,
    /// Radii learned on training data.
    pub ftp: Option<Ftp>,
    /// The averages that are evaluated and saved.
    pub ema: Option<Ema>,
}

impl Parts {
    /// What `config` asks for, around the weights of `start`; `excluded` tensors have no anchor.
    pub fn new(
        learner: &mut Learner,
        start: &Snapshot,
        excluded: &[bool],
        config: &MethodArgs,
        decay: f32,
    ) -> Result<Parts> {
        let mut parts = Parts::default();
        let anchor = &start.w;
        let around = match config.name {
            Method::Tpgm => {
                let settings = TpgmSettings {
                    norm: config.norm,
                    radius_lr: config.radius_lr,
                    max_iters: config.max_iters,
                    proj_freq: config.proj_freq,
                };
                parts.tpgm = Some(Tpgm::new(learner, anchor, excluded, settings)?);
                None
            }
            Method::Ftp => {
                let settings = FtpSettings { radius_lr: config.radius_lr, k: config.ftp_k };
                let (ftp, around) = Ftp::new(learner, anchor, excluded, settings)?;
                parts.ftp = Some(ftp);
                Some(around)
            }
            Method::FixedRadius => {
                let radius = config.radius.expect("checked with the other values");
                Some(fixed_radius::around(learner, anchor, excluded, config.norm, radius)?)
            }
            Method::L2Sp => Some(l2_sp::around(learner, anchor, excluded, config.anchor_decay)?),
            Method::Spd => Some(spd::around(learner, anchor, excluded, decay)?),
            Method::Vanilla
            | Method::LinearProbe
            | Method::LpFt
            | Method::Bitfit
            | Method::Partial
            | Method::Llrd
            | Method::Ema
            | Method::Wise => None,
        };
        if let Some(around) = around {
            learner.surround(around);
        }
        parts.ema = config.ema_decay.map(|decay| Ema::new(learner, start, decay)).transpose()?;
        Ok(parts)
    }

    /// Outer iterations run.
    pub fn iterations(&self) -> u64 {
        self.tpgm.as_ref().map_or(0, |t| t.iterations)
    }

    /// Layout indices and rows of the tensors that have a learned radius.
    pub fn radii(&self) -> Vec<(usize, usize)> {
        let of = |projected: &[usize], rows: &[usize]| projected.iter().map(|t| (*t, rows[*t])).collect();
        match (&self.tpgm, &self.ftp) {
            (Some(tpgm), _) => of(&tpgm.projected, &tpgm.mars.rows),
            (_, Some(ftp)) => of(&ftp.projected, ftp.rows()),
            (None, None) => Vec::new(),
        }
    }
}

/// The plan of a run's memory with everything that `config` keeps on the device.
pub fn plan(gpu: &Gpu, model: &Model, settings: &Settings, config: &MethodArgs) -> Result<Memory> {
    let norm = (config.name == Method::Tpgm).then_some(config.norm);
    let memory = Memory::plan(gpu, model, settings, norm)?;
    let layout = model.layout();
    let own = match config.name {
        Method::Ftp => 2 * memory.gradient + Ftp::tables(layout),
        Method::FixedRadius => memory.gradient + fixed_radius::tables(layout, config.norm),
        Method::L2Sp => memory.gradient,
        Method::Spd => memory.gradient + spd::tables(layout),
        _ => 0,
    };
    let average = if config.ema_decay.is_some() { Ema::bytes(model) } else { 0 };
    Ok(Memory { projection: memory.projection + own + average, ..memory })
}

/// What is trained at each step of a run.
#[derive(Clone, Debug)]
pub struct Stages {
    whole: Stage,
    lp_ft: Option<lp_ft::LpFt>,
    model: ModelConfig,
}

impl Stages {
    /// The stages of `config` over `steps` steps; `excluded` tensors have no anchor.
    ///
    /// Errors where there are no blocks to freeze, or no second step.
    pub fn new(
        learner: &Learner,
        settings: &Settings,
        model: &ModelConfig,
        excluded: &[bool],
        config: &MethodArgs,
        steps: u64,
    ) -> Result<Stages> {
        let layout = learner.model.layout();
        let whole = Stage::whole(layout, settings);
        let whole = match config.name {
            Method::LinearProbe => linear_probe::stage(whole, model, layout),
            Method::Bitfit => bitfit::stage(whole, model, layout),
            Method::Partial => {
                let blocks = model.blocks();
                let frozen = config.freeze_blocks.unwrap_or(blocks / 2);
                if frozen > blocks {
                    return Err(Error::Usage(format!("--freeze-blocks {frozen}: this model has {blocks} blocks")));
                }
                partial::stage(whole, frozen, model, layout)
            }
            Method::Llrd => llrd::stage(whole, config.layer_decay, model, layout),
            Method::L2Sp => l2_sp::stage(whole, excluded),
            Method::Spd => spd::stage(whole),
            Method::Vanilla
            | Method::LpFt
            | Method::FixedRadius
            | Method::Tpgm
            | Method::Ftp
            | Method::Ema
            | Method::Wise => whole,
        };
        let lp_ft = (config.name == Method::LpFt).then_some(lp_ft::LpFt { steps, share: config.probe_share });
        if lp_ft.is_some() && steps < 2 {
            return Err(Error::Usage("--method lp-ft needs two steps: one for the head, one for everything".into()));
        }
        Ok(Stages { whole, lp_ft, model: model.clone() })
    }

    /// The steps before the stage of step `step`, and the stage.
    pub fn at(&self, step: u64, learner: &Learner) -> (u64, Stage) {
        match self.lp_ft {
            Some(lp_ft) => lp_ft.stage(step, self.whole.clone(), &self.model, learner.model.layout()),
            None => (0, self.whole.clone()),
        }
    }

    /// Steps of the probe, where there is one.
    pub fn probe_steps(&self) -> Option<u64> {
        self.lp_ft.map(lp_ft::LpFt::probe_steps)
    }
}

/// Notes about what `config` makes of the settings, for whoever started the run.
pub fn notes(config: &TrainConfig, stages: &Stages) -> Vec<String> {
    let probe = stages.probe_steps().map(|steps| format!("the first {steps} steps train the head alone"));
    let ema = config.method.ema_decay.map(|decay| {
        format!(
            "what is evaluated and saved is the moving average of the weights, over about {:.0} steps",
            1.0 / (1.0 - decay)
        )
    });
    probe.into_iter().chain(ema).collect()
}
