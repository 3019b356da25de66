//! Test-time augmentation: a model's answer to several views of an image.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::flag::word;
use crate::train::evaluate::Classifier;
use crate::train::place::Place;

/// Which views of each image are asked about, in tests and predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tta {
    /// The image.
    #[default]
    None,
    /// The image and its horizontal mirror: the answer is the mean of both logits, as timm's `train.py` reduces them.
    Flip,
}

impl Tta {
    /// Its word, if there is more than one view: what results have.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Tta::None => None,
            Tta::Flip => Some("flip"),
        }
    }

    /// `model`, which reads images `width` pixels wide, asked about these views of each image.
    pub fn of(self, model: &mut dyn Classifier, width: usize) -> Viewed<'_> {
        Viewed { model, tta: self, width }
    }
}

/// Its flag.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TtaArgs {
    /// Views of an image that the model answers to in tests and predictions: none (the image) or flip (the image and its
    /// horizontal mirror, with the mean of both logits; twice the time)
    #[arg(long, value_name = "VIEWS", default_value = "none", value_parser = word::<Tta>)]
    pub tta: Tta,
}

/// A classifier that answers to several views of an image.
pub struct Viewed<'a> {
    model: &'a mut dyn Classifier,
    tta: Tta,
    width: usize,
}

impl Classifier for Viewed<'_> {
    fn place(&self) -> Place {
        self.model.place()
    }

    fn capacity(&self) -> usize {
        self.model.capacity()
    }

    fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        let mut logits = self.model.logits(images, batch)?;
        if self.tta == Tta::Flip {
            let mirrored: Vec<f32> = images.chunks(self.width).flat_map(|row| row.iter().rev()).copied().collect();
            let other = self.model.logits(&mirrored, batch)?;
            logits.iter_mut().zip(other).for_each(|(own, other)| *own = (*own + other) / 2.0);
        }
        Ok(logits)
    }
}
