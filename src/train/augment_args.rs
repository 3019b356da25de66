//! Flags about the augmentation of training images.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::data::augment::policy::MAGNITUDES;
use crate::data::{Augment, ColorJitter, Mix, Policy, Transforms};
use crate::error::{Error, Result};
use crate::flag::{in_range, positive};

/// Augmentations of training images, and of them alone.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AugmentArgs {
    /// How training images are changed: none, or any of crop (random resized crop) and flip (left to right, half of the time); in
    /// a file, a list
    #[arg(long, value_name = "WORD,WORD", default_value = "crop,flip")]
    pub augment: Augment,
    /// Never flip, whatever --augment says: for digits, text, or classes that differ by left and right
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", default_value_t = false,
        action = clap::ArgAction::Set)]
    pub no_flip: bool,
    /// Turn training images by a random angle of at most so many degrees to either side
    #[arg(long, value_name = "DEGREES", default_value_t = 0.0)]
    pub rotation: f64,
    /// Change brightness, contrast and saturation of training images at random by at most this share (such as 0.4), or by three
    /// numbers, or four with the hue (at most 0.5); in a file, a number or a list
    #[arg(long, value_name = "N|B,C,S,H", default_value = "0")]
    pub color_jitter: ColorJitter,
    /// RandAugment: random operations of one magnitude, from 0 to 30 [9 if no number is given]
    #[arg(long, num_args = 0..=1, default_missing_value = "9", value_name = "MAGNITUDE")]
    pub rand_augment: Option<usize>,
    /// Operations of --rand-augment on each image
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub rand_augment_ops: usize,
    /// TrivialAugment: one random operation of random magnitude on each image
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", default_value_t = false,
        action = clap::ArgAction::Set)]
    pub trivial_augment: bool,
    /// Share of the training images of which a random rectangle is erased
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub random_erasing: f64,
    /// Mixup: blend the images of a batch in pairs, and their labels; shares come from Beta(ALPHA, ALPHA). 0 for not at all
    #[arg(long, value_name = "ALPHA", default_value_t = 0.0)]
    pub mixup: f64,
    /// CutMix: paste a rectangle of another image of the batch, and mix labels by area. 0 for not at all
    #[arg(long, value_name = "ALPHA", default_value_t = 0.0)]
    pub cutmix: f64,
    /// Share of the batches that --mixup and --cutmix mix
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub mixup_prob: f64,
    /// With both --mixup and --cutmix: the share of the mixed batches that CutMix mixes
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub mixup_switch_prob: f64,
}

impl AugmentArgs {
    /// The transforms of training images and batches.
    pub fn transforms(&self) -> Transforms {
        let ops = self.rand_augment_ops;
        let rand = self.rand_augment.map(|magnitude| Policy::Rand { ops, magnitude });
        let (prob, switch_prob) = (self.mixup_prob, self.mixup_switch_prob);
        Transforms {
            words: Augment { flip: self.augment.flip && !self.no_flip, ..self.augment },
            rotation: self.rotation,
            jitter: self.color_jitter,
            policy: rand.or(self.trivial_augment.then_some(Policy::Trivial)),
            erasing: self.random_erasing,
            mix: Mix { mixup: self.mixup, cutmix: self.cutmix, prob, switch_prob },
        }
    }

    /// A sentence with the flags that have an effect.
    pub fn note(&self) -> String {
        let Transforms { words, policy, mix, .. } = self.transforms();
        let mut parts = Vec::new();
        parts.extend((words != Augment::NONE).then(|| format!("{words} (--augment)")));
        parts.extend((self.rotation > 0.0).then(|| format!("--rotation {}", self.rotation)));
        parts.extend((self.color_jitter != ColorJitter::NONE).then(|| format!("--color-jitter {}", self.color_jitter)));
        parts.extend(policy.map(|policy| match policy {
            Policy::Rand { ops, magnitude } => format!("--rand-augment {magnitude} ({ops} operations)"),
            Policy::Trivial => "--trivial-augment".into(),
        }));
        parts.extend((self.random_erasing > 0.0).then(|| format!("--random-erasing {}", self.random_erasing)));
        for (flag, alpha) in [("mixup", mix.mixup), ("cutmix", mix.cutmix)] {
            parts.extend((mix.is_on() && alpha > 0.0).then(|| format!("--{flag} {alpha}")));
        }
        match parts.is_empty() {
            true => "training images are not augmented".into(),
            false => format!("training images are augmented by {}", parts.join(", ")),
        }
    }

    /// # Errors
    /// [`Error::Usage`] naming the value that is out of range, or two that exclude each other.
    pub(super) fn validate(&self) -> Result<()> {
        let share = |flag, value: f64| in_range(flag, value, |s| (0.0..=1.0).contains(&s), "0 to 1");
        in_range("rotation", self.rotation, |d| (0.0..=180.0).contains(&d), "0 to 180")?;
        let most = MAGNITUDES - 1;
        in_range("rand-augment", self.rand_augment, |m: usize| m <= most, &format!("0 to {most}"))?;
        positive("rand-augment-ops", self.rand_augment_ops > 0)?;
        share("random-erasing", self.random_erasing)?;
        for (flag, alpha) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            in_range(flag, alpha, |a| a == 0.0 || (1e-3..=1e3).contains(&a), "0, or 0.001 to 1000")?;
        }
        share("mixup-prob", self.mixup_prob)?;
        share("mixup-switch-prob", self.mixup_switch_prob)?;
        if self.rand_augment.is_some() && self.trivial_augment {
            return Err(Error::Usage("--rand-augment and --trivial-augment are two policies: give one of them".into()));
        }
        if self.no_flip && self.augment == Augment::FLIP {
            return Err(Error::Usage("--no-flip leaves nothing of --augment flip: give one of them".into()));
        }
        Ok(())
    }
}
