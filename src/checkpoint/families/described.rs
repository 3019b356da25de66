//! Networks of convolutions whose tensors tell their widths alone: what they share in being read, once their configuration is known.

use std::collections::{BTreeMap, BTreeSet};

use super::inputs::Normalisation;
use super::tensors::{ASSUMED, Tensors, class_names, first, misfit, of_tower, preprocessing_assumed};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::metadata::Own;
use crate::checkpoint::zero_shot::ZeroShot;
use crate::checkpoint::{OVERRIDE, Overrides, Recognised};
use crate::data::preprocess::{CropMode, Preprocess};
use crate::data::resize::Interpolation;
use crate::error::{Error, Help, Result, Setting};
use crate::model::config::Pool;
use crate::model::{ModelConfig, Network};

/// Where they were trained, unless their files say otherwise.
const IMAGE_SIZE: usize = 224;

/// A file of such a network, and what stands beside it.
pub(super) struct Described<'a> {
    pub(super) tensors: &'a Tensors<'a>,
    pub(super) overrides: &'a Overrides,
    pub(super) facts: Facts<'a>,
    pub(super) own: Own,
    /// The family's name.
    pub(super) family: &'static str,
    /// One of the family, in messages.
    pub(super) what: &'static str,
    /// The name of the head in the file.
    pub(super) head: String,
    /// Crop and filter, mean and std, where no file says them.
    pub(super) usual: (f64, Interpolation, Normalisation),
}

impl Described<'_> {
    /// The checkpoint understood: `config`, which `source` tells, but for image size and head.
    ///
    /// # Errors
    /// Where the tensors are others than those of the configuration, or an override does not fit.
    pub(super) fn recognised(self, config: ModelConfig, source: &str) -> Result<Recognised> {
        self.sized(config, source, |_| Ok(()))
    }

    /// The same of a network that takes images of some sizes alone: `takes` says what is wrong with one.
    pub(super) fn sized(
        self,
        mut config: ModelConfig,
        source: &str,
        takes: impl Fn(usize) -> Result<(), String>,
    ) -> Result<Recognised> {
        let Described { tensors, overrides, facts, own, family, what, head: head_in_file, usual } = self;
        let checkpoint = tensors.checkpoint;
        for (given, setting, why) in [
            (overrides.heads.is_some(), Setting::Heads, "which has no attention heads"),
            (overrides.activation.is_some(), Setting::Activation, "whose activations its configuration tells"),
            (overrides.pool.is_some(), Setting::Pool, "which always takes the mean"),
        ] {
            if given {
                return Err(misfit(setting, format!("this model is {what}, {why}")));
            }
        }
        if facts.pool()?.is_some_and(|pool| pool != Pool::Mean) {
            return Err(
                checkpoint.error(format!("{} gives another pooling than the mean: not supported", facts.file()))
            );
        }
        let (mut notes, mut sources) = (Vec::new(), BTreeMap::new());
        sources.insert("eps", source.into());
        let head = config.head();
        let (weight, bias) = (format!("{head}.weight"), format!("{head}.bias"));
        let classes = match tensors.by_name.get(&weight) {
            Some(info) => info.shape.first().copied().unwrap_or(0),
            None => 0,
        };
        config.set_head(classes, tensors.has(&bias));
        let written = facts.square_input(checkpoint)?;
        let said = [
            (overrides.image_size, OVERRIDE),
            (own.preprocess.as_ref().map(|p| p.image_size), "metadata tpgm.preprocess"),
            (written, facts.file()),
        ];
        let image_size = first(said, &mut sources, "image_size").unwrap_or_else(|| {
            sources.insert("image_size", ASSUMED.into());
            IMAGE_SIZE
        });
        config.set_image_size(image_size);
        if image_size < config.stride() {
            let stride = config.stride();
            let what = format!("images of {image_size} pixels are smaller than the network's stride of {stride}");
            let error = if overrides.image_size.is_some() { Error::Usage(what) } else { checkpoint.error(what) };
            return Err(error.with_help(Help::ImagesTooSmall { at_least: stride }));
        }
        if let Err(what) = takes(image_size) {
            return Err(if overrides.image_size.is_some() { Error::Usage(what) } else { checkpoint.error(what) });
        }
        let mut names = tensors.names_of(config.parameters())?;
        let buffers = tensors.names_of(config.buffers())?;
        let (counters, ignored) = leftover(tensors, &config, what, &names, &buffers)?;
        let (crop_pct, interpolation, (mean, std)) = usual;
        let crop_mode = CropMode::Center;
        let usual = Preprocess { image_size, crop_pct, crop_mode, interpolation, mean, std, grey: false };
        let preprocess = match (own.preprocess, facts.preprocess(usual.clone(), &mut notes)?) {
            (Some(own), _) => {
                sources.insert("preprocess", "metadata tpgm.preprocess".into());
                Preprocess { image_size, ..own }
            }
            (None, Some(written)) => {
                sources.insert("preprocess", facts.preprocess_file().into());
                written
            }
            (None, None) => {
                sources.insert("preprocess", ASSUMED.into());
                let whole = format!("mean {:?}, std {:?}, crop {}", usual.mean, usual.std, usual.crop_pct);
                notes.push(preprocessing_assumed(&whole));
                usual
            }
        };
        let mut class_list = class_names(own.classes, &facts, classes, &mut notes);
        config.set_normalize(overrides.normalize.or(own.normalize).unwrap_or(false));
        let head_names = ["weight", "bias"].map(|what| format!("{head_in_file}.{what}"));
        let mut head_file = None;
        if let Some(path) = &overrides.head {
            let zero_shot = ZeroShot::open(path)?;
            zero_shot.check(config.width())?;
            let own = [weight, bias];
            names.retain(|(name, _)| !own.contains(name));
            // A bias that the file has stays, as zeros: its library expects one.
            let with_bias = zero_shot.bias.is_some() || (classes > 0 && tensors.has(&own[1]));
            config.set_head(zero_shot.classes, with_bias);
            names.extend(own.into_iter().zip(head_names.clone()).take(1 + usize::from(with_bias)));
            notes.push(zero_shot.note());
            class_list = zero_shot.names.clone();
            head_file = Some(zero_shot);
        }
        Ok(Recognised {
            family,
            config,
            preprocess,
            names,
            buffers,
            counters,
            head_names,
            initialised: Vec::new(),
            ignored,
            notes,
            sources,
            classes: class_list,
            thresholds: None,
            resize: None,
            stem: None,
            head_file,
        })
    }
}

/// What timm's configuration tells, else what we have saved ourselves, and which of them it is.
///
/// # Errors
/// Where there is neither.
pub(super) fn told_or_saved(
    tensors: &Tensors,
    told: Option<ModelConfig>,
    saved: Option<ModelConfig>,
    what: &str,
) -> Result<(ModelConfig, &'static str)> {
    match (told, saved) {
        (Some(told), _) => Ok((told, "config.json")),
        (None, Some(saved)) => Ok((saved, "metadata tpgm.config")),
        (None, None) => Err(tensors.checkpoint.error(format!(
            "{what}'s strides and activations stand in no tensor: timm's config.json, which names the architecture, must \
             stand beside it"
        ))),
    }
}

/// The counters and the tensors that are left over; an error where one would change what the model computes.
fn leftover(
    tensors: &Tensors,
    config: &ModelConfig,
    what: &str,
    names: &[(String, String)],
    buffers: &[(String, String)],
) -> Result<(Vec<String>, Vec<String>)> {
    let mut counters = Vec::new();
    for (name, _) in config.buffers() {
        let Some(norm) = name.strip_suffix(".running_mean") else { continue };
        let counter = tensors.by_name.get(format!("{norm}.num_batches_tracked").as_str());
        counters.extend(counter.map(|info| info.name.clone()));
    }
    let named = names.iter().chain(buffers).map(|(_, in_file)| in_file.as_str());
    let used: BTreeSet<&str> = named.chain(counters.iter().map(String::as_str)).collect();
    let head = format!("{}.", config.head());
    let all = tensors.by_name.iter().map(|(name, info)| (name.as_str(), *info));
    for (name, info) in all.chain(tensors.unnamed.iter().map(|(name, info)| (*name, *info))) {
        let inside = of_tower(name) || name.starts_with("features.") || name.starts_with(&head);
        if inside && !used.contains(info.name.as_str()) {
            return Err(tensors.error(info, format!("belongs to a part that {what} does not have: not supported yet")));
        }
    }
    let ignored = tensors.unused(&used);
    Ok((counters, ignored))
}
