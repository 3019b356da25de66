//! The first convolution for another number of channels than the file's.

use super::{Note, OVERRIDE, Overrides, Recognised};
use crate::error::{Error, Help, Result, Setting};

/// How the first convolution of a checkpoint becomes that of a model that reads one channel in place of three, or three in place of
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StemChange {
    /// Canonical name of the weight.
    pub name: String,
    /// Whether the model reads one channel.
    pub grey: bool,
}

impl StemChange {
    /// The file's `values` as the weight `[outputs, 1 or 3, height, width]`, as timm's `adapt_input_conv`: the sum of three
    /// channels, or a third of the one for each of three.
    pub(super) fn apply(&self, values: &[f32], shape: &[usize]) -> Vec<f32> {
        let pixels = shape[2] * shape[3];
        if self.grey {
            let sum = |kernels: &[f32]| {
                (0..pixels).map(|i| kernels[i] + kernels[pixels + i] + kernels[2 * pixels + i]).collect::<Vec<f32>>()
            };
            return values.chunks_exact(3 * pixels).flat_map(sum).collect();
        }
        let third = |kernel: &[f32]| kernel.iter().map(|v| v * (1.0 / 3.0)).collect::<Vec<f32>>().repeat(3);
        values.chunks_exact(pixels).flat_map(third).collect()
    }
}

impl Overrides {
    /// Whether the model reads one channel, where that is said.
    ///
    /// # Errors
    /// [`Error::Usage`] for another number than 1 and 3.
    pub fn grey(&self) -> Result<Option<bool>> {
        match self.in_channels {
            None => Ok(None),
            Some(1) => Ok(Some(true)),
            Some(3) => Ok(Some(false)),
            Some(n) => {
                let what = format!("{n} channels: a model reads 1 (grey) or 3 (red, green and blue)");
                Err(Error::Usage(what).with_help(Help::Setting(Setting::InChannels)))
            }
        }
    }
}

/// Makes `recognised` read as many channels as `overrides` ask for, else as many as its stem has.
///
/// # Errors
/// [`Error::Usage`] for another number than 1 and 3.
pub(super) fn follow(recognised: &mut Recognised, overrides: &Overrides) -> Result<()> {
    let Recognised { config, preprocess, notes, sources, stem, .. } = recognised;
    let own = config.grey();
    let grey = overrides.grey()?.unwrap_or(own);
    if grey != own {
        config.set_grey(grey);
        sources.insert("in_channels", OVERRIDE.into());
        let what = match grey {
            true => "the stem's weights for three channels are summed for one",
            false => "the stem's weights for one channel are repeated for three, each a third",
        };
        notes.push(what.into());
        *stem = Some(StemChange { name: config.stem().into(), grey });
    }
    let uneven = |three: [f32; 3]| three != [three[0]; 3];
    if grey && (uneven(preprocess.mean) || uneven(preprocess.std)) {
        let mean = |three: [f32; 3]| [(three.iter().sum::<f32>() / 3.0 * 1e4).round() / 1e4; 3];
        (preprocess.mean, preprocess.std) = (mean(preprocess.mean), mean(preprocess.std));
        let what = format!(
            "its one channel takes the average of three means and deviations: {} and {}",
            preprocess.mean[0], preprocess.std[0]
        );
        notes.push(Note { what, settings: &[Setting::Mean, Setting::Std] });
    }
    preprocess.grey = grey;
    Ok(())
}
