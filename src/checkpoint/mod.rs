//! Safetensors in and out: from a file that somebody has to a model that we can run, and back under the same names.
//!
//! In reading order:
//!
//! 1. [`Checkpoint`]: a file, or the shards of one, opened and checked; its tensors, `__metadata__` and `config.json`. A name on the
//!    Hugging Face hub (`hf://OWNER/NAME`) is a file in its cache, fetched first if it is not there.
//! 2. [`recognise`]: which model it is. Each family has a file in `families/` that maps its names to ours (timm's) and
//!    finds out what the tensors alone don't tell: heads, activation, preprocessing. What had to be assumed is in
//!    [`Recognised::notes`], never kept silent.
//! 3. [`weights`]: the tensors as f32 in the model's order; [`replace_head`] and [`fresh_vit`] initialise what no
//!    file holds.
//! 4. [`save`]: the source's file again with other values; [`write_safetensors`] and [`atomic_write`] for the rest.
//! 5. [`write_delta`], [`write_adapters`] and [`apply_delta`]: only what differs from a checkpoint that everybody has.
//! 6. [`describe`]: all that on one screen, for `tpgm inspect`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::data::preprocess::Preprocess;
use crate::error::{Result, Setting};
use crate::model::ModelConfig;
use crate::model::Network;
use crate::model::config::Pool;
use crate::shapes::Activation;

mod delta;
mod facts;
mod families;
mod file;
mod foreign;
pub mod fresh;
mod header;
mod hub;
mod hub_fetch;
mod hub_model;
pub mod inspect;
mod json;
mod known;
mod low_rank;
mod metadata;
mod open_clip_config;
mod positions;
mod processor_config;
mod save;
mod shards;
mod stem;
mod task;
pub mod text;
mod text_config;
mod timm_config;
mod timm_input;
mod timm_table;
mod torchvision_table;
mod transformers_config;
mod write;
mod zero_shot;

pub use crate::atomic::atomic_write;
pub use delta::{Delta, DeltaSize, apply_delta, delta_path, write_adapters, write_delta};
pub use families::Layout;
pub use file::Checkpoint;
pub use fresh::{
    fresh_convnext, fresh_efficientnet, fresh_model, fresh_resnet, fresh_statistics, fresh_vit, new_head, replace_head,
    set_head,
};
pub use header::TensorInfo;
pub use hub_model::{Fetching, watch_fetches};
pub use inspect::{DeltaDescription, Description, describe, describe_delta};
pub use low_rank::{Adapted, AdaptersOf, LowRank};
pub use metadata::tpgm_metadata;
pub use positions::Resize;
pub use safetensors::tensor::Dtype;
pub use save::{save, save_counted, write_model};
pub use stem::StemChange;
pub use task::{
    CONFIG_THRESHOLDS, MULTI_LABEL_PROBLEM, PROBLEM_TYPE, SINGLE_LABEL_PROBLEM, forget_task, task_metadata,
};
pub use text::{TextOverrides, TextTower};
pub use torchvision_table::architecture as torchvision_architecture;
pub use write::{Values, write_safetensors};
pub use zero_shot::ZeroShot;

/// A weight: canonical name, shape, values in row-major order.
pub type Weight = (String, Vec<usize>, Vec<f32>);

/// What the user says about a checkpoint; each wins over what its files say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// Attention heads.
    pub heads: Option<usize>,
    /// The MLP's activation.
    pub activation: Option<Activation>,
    /// Height and width of the input, in pixels.
    pub image_size: Option<usize>,
    /// Pooling before the head.
    pub pool: Option<Pool>,
    /// The family, by its short name, where a file could be taken for several or for none.
    pub family: Option<String>,
    /// Whether a new norm after the mean takes the place of the one behind the blocks, as MAE is fine-tuned.
    pub fc_norm: bool,
    /// Whether features are scaled to unit length before the head.
    pub normalize: Option<bool>,
    /// A file with a head to use instead of the checkpoint's.
    pub head: Option<PathBuf>,
    /// Channels that the model reads of an image: 1 or 3.
    pub in_channels: Option<usize>,
}

/// What [`Recognised::sources`] says of a fact that [`Overrides`] tell.
pub const OVERRIDE: &str = "override";

/// An assumption or an omission, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The sentence, without a full stop.
    pub what: String,
    /// The settings that change it, where some do.
    pub settings: &'static [Setting],
}

impl<T: Into<String>> From<T> for Note {
    fn from(what: T) -> Self {
        Self { what: what.into(), settings: &[] }
    }
}

/// A checkpoint understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Recognised {
    /// The family's name, such as "timm ViT".
    pub family: &'static str,
    /// What to build.
    pub config: ModelConfig,
    /// The input it was trained for.
    pub preprocess: Preprocess,
    /// The name in the file of each of [`ModelConfig::parameters`], in that order: (canonical, in the file).
    pub names: Vec<(String, String)>,
    /// The name in the file of each of [`ModelConfig::buffers`], in that order: (canonical, in the file).
    pub buffers: Vec<(String, String)>,
    /// The file's counters of training batches (`num_batches_tracked`).
    pub counters: Vec<String>,
    /// The names in the file that a head's weight and bias have, whether there is one or not.
    pub head_names: [String; 2],
    /// Canonical names of the parameters that are not the checkpoint's but newly initialised.
    pub initialised: Vec<String>,
    /// Tensors of the file that the model does not use; they are carried along when saving.
    pub ignored: Vec<String>,
    /// Assumptions and omissions.
    pub notes: Vec<Note>,
    /// Where each fact comes from that the weights' shapes don't tell, by the fact: "heads" from "metadata tpgm.heads",
    /// [`OVERRIDE`], or "assumed".
    pub sources: BTreeMap<&'static str, String>,
    /// Class names by output, where the file has them.
    pub classes: Option<Vec<String>>,
    /// Of a model that gives an image any number of labels, the probability from which on each is given, by output; none of one that
    /// gives one class.
    pub thresholds: Option<Vec<f32>>,
    /// What becomes of the positions, where the model's images are of another size than the file's.
    pub resize: Option<Resize>,
    /// What becomes of the stem, where the model reads another number of channels than the file's.
    pub stem: Option<StemChange>,
    /// The file that the head comes from, where that is another one.
    pub head_file: Option<ZeroShot>,
}

/// Finds out which model a checkpoint holds and checks every tensor's name, shape and type.
///
/// # Errors
/// Where no family fits (with the names seen and the families supported), a tensor is missing or has the wrong shape or
/// type, a part is not supported, or heads can't be told. An override that contradicts the weights is
/// [`crate::error::Error::Usage`].
pub fn recognise(checkpoint: &Checkpoint, overrides: &Overrides) -> Result<Recognised> {
    delta::refuse(checkpoint)?;
    let mut recognised = families::recognise(checkpoint, overrides)?;
    if recognised.head_file.is_none() {
        task::read(checkpoint, &mut recognised)?;
    }
    Ok(recognised)
}

/// The weights in the order of [`ModelConfig::parameters`].
///
/// # Errors
/// Where the file can't be read or a value is NaN or infinite.
///
/// # Panics
/// Where the model has newly initialised parameters other than a norm: no file holds those.
pub fn weights(checkpoint: &Checkpoint, recognised: &Recognised) -> Result<Vec<Weight>> {
    let new_norm = |name: &String| name.starts_with("fc_norm.");
    assert!(recognised.initialised.iter().all(new_norm), "weights: {:?} are in no file", recognised.initialised);
    let config = &recognised.config;
    let (parameters, mut names) = (config.parameters(), recognised.names.as_slice());
    let mut own = parameters.as_slice();
    let mut heads = Vec::new();
    if let Some(head) = &recognised.head_file {
        let at = own.iter().position(|(name, _)| config.is_head(name)).unwrap_or(own.len());
        for (name, shape) in &own[at..] {
            heads.push((name.clone(), shape.clone(), head.read(name.ends_with(".bias"))?));
        }
        (own, names) = (&own[..at], &names[..at]);
    }
    let mut weights = read_all(checkpoint, own.to_vec(), names, &recognised.initialised)?;
    if let Some(resize) = &recognised.resize {
        for (name, _, values) in &mut weights {
            if let Some(resized) = resize.apply(name, values) {
                *values = resized;
            }
        }
    }
    if let Some(stem) = &recognised.stem {
        for (_, shape, values) in weights.iter_mut().filter(|(name, ..)| *name == stem.name) {
            *values = stem.apply(values, shape);
        }
    }
    weights.append(&mut heads);
    Ok(weights)
}

/// The text tower of a checkpoint.
///
/// # Errors
/// [`crate::error::Error::Checkpoint`] where it has none, or one that is not supported, incomplete or of unknown activation.
pub fn text_tower(checkpoint: &Checkpoint, overrides: &TextOverrides) -> Result<TextTower> {
    families::text::read(checkpoint, overrides)
}

/// The weights of a text tower, in the order of its parameters.
///
/// # Errors
/// As [`weights`].
pub fn text_weights(checkpoint: &Checkpoint, tower: &TextTower) -> Result<Vec<Weight>> {
    read_all(checkpoint, tower.config.parameters(), &tower.names, &[])
}

/// The running statistics in the order of [`ModelConfig::buffers`].
///
/// # Errors
/// As [`weights`], and where a variance is negative.
pub fn statistics(checkpoint: &Checkpoint, recognised: &Recognised) -> Result<Vec<Weight>> {
    let statistics = read_all(checkpoint, recognised.config.buffers(), &recognised.buffers, &[])?;
    for ((name, _, values), (_, in_file)) in statistics.iter().zip(&recognised.buffers) {
        if let Some(i) = values.iter().position(|v| *v < 0.0 && name.ends_with("running_var")) {
            let what = format!("tensor {in_file} has a variance of {} at element {i}: it is damaged", values[i]);
            return Err(checkpoint.error(what));
        }
    }
    Ok(statistics)
}

fn read_all(
    checkpoint: &Checkpoint,
    tensors: Vec<(String, Vec<usize>)>,
    names: &[(String, String)],
    new: &[String],
) -> Result<Vec<Weight>> {
    assert_eq!(tensors.len(), names.len(), "weights: names must follow the parameters");
    let read = |((name, shape), (canonical, in_file)): ((String, Vec<usize>), &(String, String))| {
        assert_eq!(name, *canonical, "weights: names must follow the parameters");
        if new.contains(&name) {
            let value = if name.ends_with(".weight") { 1.0 } else { 0.0 };
            let values = vec![value; shape.iter().product()];
            return Ok((name, shape, values));
        }
        Ok((name, shape, checkpoint.read_f32(in_file)?))
    };
    tensors.into_iter().zip(names).map(read).collect()
}

/// Weights and running statistics by canonical name as [`save`] wants them: by their names in the file.
///
/// # Panics
/// Where a name is none of the model's.
pub fn replacements(recognised: &Recognised, weights: &[Weight]) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let names = recognised.names.iter().chain(&recognised.buffers);
    let in_file: BTreeMap<&str, &str> = names.map(|(c, f)| (c.as_str(), f.as_str())).collect();
    let rename = |(name, shape, values): &Weight| {
        let name = in_file.get(name.as_str()).unwrap_or_else(|| panic!("replacements: no parameter {name}"));
        (name.to_string(), (shape.clone(), values.clone()))
    };
    weights.iter().map(rename).collect()
}
