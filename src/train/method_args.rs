//! Flags that choose the fine-tuning method and set it.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::method::Schedule;
use crate::shapes::Norm;
use crate::train::model_args::{in_range, positive, word};
use crate::train::optim_args::BATCH_SIZE;

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

/// The method with everything that sets it. Some defaults follow the method and the schedule: see [`super::resolve`].
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MethodArgs {
    /// vanilla, linear-probe, lp-ft, bitfit, partial, llrd, l2-sp, fixed-radius, tpgm, ftp, spd, ema or wise
    #[arg(id = "method", long = "method", value_name = "METHOD", default_value = "tpgm", value_parser = word::<Method>)]
    #[serde(rename = "method")]
    pub name: Method,
    /// When radii are learned: every-step or post
    #[arg(long, default_value = "every-step", value_parser = word::<Schedule>)]
    pub schedule: Schedule,
    /// How tpgm and fixed-radius measure drift: mars or l2; l2 with --schedule post
    #[arg(long, default_value = "mars", value_parser = word::<Norm>)]
    pub norm: Norm,
    /// Steps between two radius updates
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub proj_freq: usize,
    /// Outer iterations of a radius update; 200 with --schedule post
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub max_iters: usize,
    /// Adam's learning rate on the radii of tpgm and ftp
    #[arg(long, default_value_t = 1e-2)]
    pub radius_lr: f32,
    /// Images of a radius batch [default: the batch size]
    #[arg(long, value_name = "N", default_value_t = BATCH_SIZE, hide_default_value = true)]
    pub radius_batch_size: usize,
    /// Tensors that nothing holds near the pre-trained weights, by name; * and ? stand for any characters [default: whatever
    /// has no pre-trained counterpart]
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    pub exclude: Option<Vec<String>>,
    /// The radius of fixed-radius, for every tensor
    #[arg(long)]
    pub radius: Option<f32>,
    /// With ftp, the factor on the gradient of a radius that is about to shrink, 0 to 1
    #[arg(long, value_name = "K", default_value_t = 1.0)]
    pub ftp_k: f32,
    /// Weight of l2-sp's penalty, half the squared distance from the pre-trained weights
    #[arg(long, value_name = "LAMBDA", default_value_t = 0.01)]
    pub anchor_decay: f32,
    /// Factor on the learning rate of llrd from each layer to the one below
    #[arg(long, value_name = "FACTOR", default_value_t = 0.75)]
    pub layer_decay: f64,
    /// Blocks that partial leaves as they are, with the stem [default: half of them]
    #[arg(long, value_name = "N")]
    pub freeze_blocks: Option<usize>,
    /// Share of the steps in which lp-ft trains the head alone
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub probe_share: f64,
    /// Learning rate of these steps [default: --lr]
    #[arg(long, value_name = "LR")]
    pub probe_lr: Option<f64>,
    /// Decay per step of an exponential moving average of the weights, which is then evaluated and saved; with any
    /// method [default: no average; 0.99 with --method ema]
    #[arg(long, value_name = "DECAY")]
    pub ema_decay: Option<f64>,
    /// Finish with weights between the pre-trained (0) and the fine-tuned ones (1): at this place, or with `sweep` at the best
    /// on the images of --select; with any method [default: the fine-tuned ones; sweep with --method wise]
    #[arg(long, value_name = "ALPHA|sweep")]
    pub wise_alpha: Option<WiseAlpha>,
}

impl MethodArgs {
    /// Whether TPGM learns its radii after fine-tuning.
    pub fn is_post(&self) -> bool {
        self.name == Method::Tpgm && self.schedule == Schedule::Post
    }

    /// # Errors
    /// [`Error::Usage`] naming a value that is out of range or missing.
    pub(super) fn validate(&self) -> Result<()> {
        if self.name == Method::FixedRadius && self.radius.is_none() {
            return Err(Error::Usage("--method fixed-radius needs its --radius".into()));
        }
        positive("radius-batch-size", self.radius_batch_size > 0)?;
        positive("proj-freq", self.proj_freq > 0)?;
        positive("max-iters", self.max_iters > 0)?;
        positive("radius-lr", self.radius_lr > 0.0 && self.radius_lr.is_finite())?;
        positive("radius", self.radius.is_none_or(|radius| radius > 0.0 && radius.is_finite()))?;
        positive("probe-lr", self.probe_lr.is_none_or(|lr| lr > 0.0 && lr.is_finite()))?;
        in_range("ftp-k", self.ftp_k, |k| (0.0..=1.0).contains(&k), "0 to 1")?;
        in_range("anchor-decay", self.anchor_decay, |d| d >= 0.0 && d.is_finite(), "at least 0")?;
        in_range("layer-decay", self.layer_decay, |d| d > 0.0 && d <= 1.0, "above 0 and at most 1")?;
        in_range("probe-share", self.probe_share, |s| s > 0.0 && s < 1.0, "between 0 and 1")?;
        in_range("ema-decay", self.ema_decay, |d| (0.0..1.0).contains(&d), "at least 0 and below 1")?;
        if let Some(WiseAlpha::Alpha(alpha)) = self.wise_alpha {
            in_range("wise-alpha", alpha, |a| (0.0..=1.0).contains(&a), "0 to 1, or sweep")?;
        }
        if self.is_post() && self.ema_decay.is_some() {
            return Err(Error::Usage(
                "--ema-decay does not go with --schedule post, which projects the last weights: use every-step".into(),
            ));
        }
        Ok(())
    }
}
