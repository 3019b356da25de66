//! Flags that choose the fine-tuning method and set it, resolved into values.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cpu::mars::Norm;
use crate::error::{Error, Result};
use crate::method::Schedule;
use crate::train::model_args::word;
use crate::train::overlay::overlay;

/// The fine-tuning method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Plain fine-tuning.
    Vanilla,
    /// The head alone.
    LinearProbe,
    /// A linear probe, then everything (Kumar et al. 2022).
    LpFt,
    /// Biases and the head (Ben Zaken et al. 2022).
    Bitfit,
    /// Everything but the stem and the first blocks.
    Partial,
    /// Layer-wise learning-rate decay (Clark et al. 2020).
    Llrd,
    /// A penalty on the distance from the anchor (Li et al. 2018).
    L2Sp,
    /// Projection onto one radius for all tensors.
    FixedRadius,
    /// Trainable projected gradient method (Tian et al. 2023).
    Tpgm,
    /// Fast trainable projection (Tian et al. 2023).
    Ftp,
    /// Selective projection decay (Tian et al. 2024).
    Spd,
    /// The exponential moving average of plain fine-tuning's weights.
    Ema,
    /// Plain fine-tuning, then weights between those and the pre-trained ones (Wortsman et al. 2022).
    Wise,
}

/// Where between the pre-trained and the fine-tuned weights a run's result lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "invalid alpha: a number from 0 to 1, or \"sweep\"")]
pub enum WiseAlpha {
    /// There: 0 is pre-trained, 1 fine-tuned.
    Alpha(f32),
    /// Where the selection images say.
    Swept(Sweep),
}

/// The word `sweep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sweep {
    /// Eleven places are tried.
    Sweep,
}

impl std::str::FromStr for WiseAlpha {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sweep" => Ok(Self::Swept(Sweep::Sweep)),
            _ => text.parse().map(Self::Alpha).map_err(|_| "a number from 0 to 1, or sweep".into()),
        }
    }
}

impl Method {
    /// Its name as flags and files have it.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default()
    }

    /// Whether batch norm keeps its running statistics unless the user says otherwise: what is frozen stays as it was.
    pub fn freezes_batch_norm(self) -> bool {
        matches!(self, Method::LinearProbe | Method::Bitfit | Method::Partial)
    }
}

/// The flags of a method, and their keys in `--config`: each may be absent.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct MethodArgs {
    /// vanilla, linear-probe, lp-ft, bitfit, partial, llrd, l2-sp, fixed-radius, tpgm, ftp, spd, ema or wise [default: tpgm]
    #[arg(long, value_parser = word::<Method>)]
    pub method: Option<Method>,
    /// When radii are learned: every-step or post [default: every-step]
    #[arg(long, value_parser = word::<Schedule>)]
    pub schedule: Option<Schedule>,
    /// How tpgm and fixed-radius measure drift: mars or l2 [default: mars, l2 with --schedule post]
    #[arg(long, value_parser = word::<Norm>)]
    pub norm: Option<Norm>,
    /// Steps between two radius updates [default: 1]
    #[arg(long, value_name = "N")]
    pub proj_freq: Option<usize>,
    /// Outer iterations a radius update [default: 1 with every-step, 200 with post]
    #[arg(long, value_name = "N")]
    pub max_iters: Option<usize>,
    /// Adam's learning rate on the radii of tpgm and ftp [default: 0.01]
    #[arg(long)]
    pub radius_lr: Option<f32>,
    /// Images of a radius batch [default: the batch size]
    #[arg(long, value_name = "N")]
    pub radius_batch_size: Option<usize>,
    /// Tensors that nothing holds near the pre-trained weights, by name; * and ? stand for any characters [default: whatever
    /// has no pre-trained counterpart]
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    pub exclude: Option<Vec<String>>,
    /// The radius of fixed-radius, for every tensor
    #[arg(long)]
    pub radius: Option<f32>,
    /// What ftp multiplies a radius's gradient by where it would make the radius smaller, 0 to 1 [default: 1]
    #[arg(long, value_name = "K")]
    pub ftp_k: Option<f32>,
    /// Weight of l2-sp's penalty, half the squared distance from the pre-trained weights [default: 0.01]
    #[arg(long, value_name = "LAMBDA")]
    pub anchor_decay: Option<f32>,
    /// Factor on the learning rate of llrd from each layer to the one below [default: 0.75]
    #[arg(long, value_name = "FACTOR")]
    pub layer_decay: Option<f64>,
    /// Blocks that partial leaves as they are, with the stem [default: half of them]
    #[arg(long, value_name = "N")]
    pub freeze_blocks: Option<usize>,
    /// Share of the steps in which lp-ft trains the head alone [default: 0.5]
    #[arg(long, value_name = "SHARE")]
    pub probe_share: Option<f64>,
    /// Learning rate of these steps [default: --lr]
    #[arg(long, value_name = "LR")]
    pub probe_lr: Option<f64>,
    /// Decay a step of an exponential moving average of the weights, which is what is then evaluated and saved; with any
    /// method [default: none; 0.99 with --method ema]
    #[arg(long, value_name = "DECAY")]
    pub ema_decay: Option<f64>,
    /// Take weights between the pre-trained (0) and the fine-tuned ones (1) in the end: there, or with sweep where --select's
    /// images say; with any method [default: none; sweep with --method wise]
    #[arg(long, value_name = "ALPHA|sweep")]
    pub wise_alpha: Option<WiseAlpha>,
}

/// A method with everything that sets it, decided.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // one for each flag of MethodArgs, which says what it means
pub struct MethodConfig {
    #[serde(rename = "method")]
    pub name: Method,
    pub schedule: Schedule,
    pub norm: Norm,
    pub proj_freq: usize,
    pub max_iters: usize,
    pub radius_lr: f32,
    pub radius_batch_size: usize,
    pub exclude: Option<Vec<String>>,
    pub radius: Option<f32>,
    pub ftp_k: Option<f32>,
    pub anchor_decay: Option<f32>,
    pub layer_decay: Option<f64>,
    pub freeze_blocks: Option<usize>,
    pub probe_share: Option<f64>,
    pub probe_lr: Option<f64>,
    pub ema_decay: Option<f64>,
    pub wise_alpha: Option<WiseAlpha>,
}

impl MethodArgs {
    /// These values where they are set, else those of `under`; what sets another method than this one stays behind.
    pub(super) fn over(&mut self, mut under: MethodArgs) {
        if self.method.is_some_and(|method| Some(method) != under.method) {
            under = MethodArgs {
                radius: None,
                ftp_k: None,
                anchor_decay: None,
                layer_decay: None,
                freeze_blocks: None,
                probe_share: None,
                probe_lr: None,
                ema_decay: under.ema_decay.filter(|_| under.method != Some(Method::Ema)),
                wise_alpha: under.wise_alpha.filter(|_| under.method != Some(Method::Wise)),
                ..under
            };
        }
        overlay!(self, under; method, schedule, norm, proj_freq, max_iters, radius_lr, radius_batch_size, exclude, radius,
            ftp_k, anchor_decay, layer_decay, freeze_blocks, probe_share, probe_lr, ema_decay, wise_alpha);
    }

    /// Fills in every default. `batch_size` and `lr` are those of training.
    ///
    /// Errors where a flag belongs to another method, or one is missing.
    pub(super) fn resolve(self, batch_size: usize, lr: f64) -> Result<MethodConfig> {
        let name = self.method.unwrap_or(Method::Tpgm);
        let own = [
            (self.radius.is_some(), "radius", Method::FixedRadius),
            (self.ftp_k.is_some(), "ftp-k", Method::Ftp),
            (self.anchor_decay.is_some(), "anchor-decay", Method::L2Sp),
            (self.layer_decay.is_some(), "layer-decay", Method::Llrd),
            (self.freeze_blocks.is_some(), "freeze-blocks", Method::Partial),
            (self.probe_share.is_some(), "probe-share", Method::LpFt),
            (self.probe_lr.is_some(), "probe-lr", Method::LpFt),
        ];
        if let Some((_, flag, method)) = own.iter().find(|(given, _, method)| *given && *method != name) {
            return Err(Error::Usage(format!("--{flag} goes with --method {}, not {}", method.name(), name.name())));
        }
        if name == Method::FixedRadius && self.radius.is_none() {
            return Err(Error::Usage("--method fixed-radius needs its --radius".into()));
        }
        let schedule = self.schedule.unwrap_or(Schedule::EveryStep);
        let post = schedule == Schedule::Post;
        let config = MethodConfig {
            name,
            schedule,
            norm: self.norm.unwrap_or(if post { Norm::L2 } else { Norm::Mars }),
            proj_freq: self.proj_freq.unwrap_or(1),
            max_iters: self.max_iters.unwrap_or(if post { 200 } else { 1 }),
            radius_lr: self.radius_lr.unwrap_or(1e-2),
            radius_batch_size: self.radius_batch_size.unwrap_or(batch_size),
            exclude: self.exclude,
            radius: self.radius,
            ftp_k: (name == Method::Ftp).then(|| self.ftp_k.unwrap_or(1.0)),
            anchor_decay: (name == Method::L2Sp).then(|| self.anchor_decay.unwrap_or(0.01)),
            layer_decay: (name == Method::Llrd).then(|| self.layer_decay.unwrap_or(0.75)),
            freeze_blocks: self.freeze_blocks,
            probe_share: (name == Method::LpFt).then(|| self.probe_share.unwrap_or(0.5)),
            probe_lr: (name == Method::LpFt).then(|| self.probe_lr.unwrap_or(lr)),
            ema_decay: self.ema_decay.or((name == Method::Ema).then_some(0.99)),
            wise_alpha: self.wise_alpha.or((name == Method::Wise).then_some(WiseAlpha::Swept(Sweep::Sweep))),
        };
        Ok(config)
    }
}

impl MethodConfig {
    /// Whether TPGM learns its radii after fine-tuning.
    pub fn is_post(&self) -> bool {
        self.name == Method::Tpgm && self.schedule == Schedule::Post
    }

    pub(super) fn validate(&self) -> Result<()> {
        let positive = |name: &str, ok: bool| {
            if ok { Ok(()) } else { Err(Error::Usage(format!("--{name} must be greater than 0"))) }
        };
        positive("radius-batch-size", self.radius_batch_size > 0)?;
        positive("proj-freq", self.proj_freq > 0)?;
        positive("max-iters", self.max_iters > 0)?;
        positive("radius-lr", self.radius_lr > 0.0 && self.radius_lr.is_finite())?;
        positive("radius", self.radius.is_none_or(|radius| radius > 0.0 && radius.is_finite()))?;
        positive("probe-lr", self.probe_lr.is_none_or(|lr| lr > 0.0 && lr.is_finite()))?;
        let within = |name: &str, value: Option<f64>, ok: fn(f64) -> bool, range: &str| match value {
            Some(value) if !ok(value) => Err(Error::Usage(format!("--{name} {value}: it must be {range}"))),
            _ => Ok(()),
        };
        let wide = |value: Option<f32>| value.map(f64::from);
        within("ftp-k", wide(self.ftp_k), |k| (0.0..=1.0).contains(&k), "0 to 1")?;
        within("anchor-decay", wide(self.anchor_decay), |d| d >= 0.0 && d.is_finite(), "at least 0")?;
        within("layer-decay", self.layer_decay, |d| d > 0.0 && d <= 1.0, "above 0 and at most 1")?;
        within("probe-share", self.probe_share, |s| s > 0.0 && s < 1.0, "between 0 and 1")?;
        within("ema-decay", self.ema_decay, |d| (0.0..1.0).contains(&d), "at least 0 and below 1")?;
        let alpha =
            self.wise_alpha.and_then(|wise| if let WiseAlpha::Alpha(a) = wise { Some(f64::from(a)) } else { None });
        within("wise-alpha", alpha, |a| (0.0..=1.0).contains(&a), "0 to 1, or sweep")?;
        if self.is_post() && self.ema_decay.is_some() {
            return Err(Error::Usage(
                "--ema-decay does not go with --schedule post, which projects the last weights: use every-step".into(),
            ));
        }
        Ok(())
    }
}
