//! What our own files say about themselves in `__metadata__`: all that a tensor's shape can't.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Recognised;
use super::file::Checkpoint;
use crate::data::preprocess::Preprocess;
use crate::error::Result;
use crate::model::ModelConfig;
use crate::model::config::{Block, LastNorm, Pool, Positions, VitParts};
use crate::model::resnet_config::{Pooling, ResNetConfig};
use crate::shapes::Activation;

const HEADS: &str = "tpgm.heads";
const ACTIVATION: &str = "tpgm.activation";
const EPS: &str = "tpgm.eps";
const POOL: &str = "tpgm.pool";
const FC_NORM: &str = "tpgm.fc_norm";
const PARTS: &str = "tpgm.parts";
const NORMALIZE: &str = "tpgm.normalize";
/// All of a network whose tensors tell little.
const CONFIG: &str = "tpgm.config";
const ANTI_ALIAS: &str = "tpgm.anti_alias";
const PREPROCESS: &str = "tpgm.preprocess";
const CLASSES: &str = "tpgm.classes";

/// The `tpgm.*` entries of a file; each may be absent.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) heads: Option<usize>,
    pub(super) activation: Option<Activation>,
    pub(super) eps: Option<f32>,
    pub(super) pool: Option<Pool>,
    /// Whether a norm after the mean took the place of the one that is still in the file.
    pub(super) fc_norm: bool,
    /// The parts of a vision transformer that its tensors don't tell.
    pub(super) parts: Option<VitParts>,
    pub(super) normalize: Option<bool>,
    /// Whether a ResNet's strides are anti-aliased.
    pub(super) anti_alias: Option<bool>,
    /// All of a network whose tensors tell little.
    pub(super) config: Option<ModelConfig>,
    pub(super) preprocess: Option<Preprocess>,
    pub(super) classes: Option<Vec<String>>,
}

/// Reads the entries that are there.
pub(super) fn read(checkpoint: &Checkpoint) -> Result<Own> {
    let own = Own {
        heads: entry(checkpoint, HEADS)?,
        activation: word(checkpoint, ACTIVATION)?,
        eps: entry(checkpoint, EPS)?,
        pool: word(checkpoint, POOL)?,
        fc_norm: entry(checkpoint, FC_NORM)?.unwrap_or(false),
        parts: entry(checkpoint, PARTS)?,
        normalize: entry(checkpoint, NORMALIZE)?,
        anti_alias: entry(checkpoint, ANTI_ALIAS)?,
        config: entry(checkpoint, CONFIG)?,
        preprocess: entry(checkpoint, PREPROCESS)?,
        classes: entry(checkpoint, CLASSES)?,
    };
    if own.eps.is_some_and(|eps| !(eps.is_finite() && eps > 0.0)) {
        return Err(checkpoint.error(format!("metadata {EPS}: it must be above 0")));
    }
    if let Some(preprocess) = &own.preprocess {
        preprocess.validate().map_err(|e| checkpoint.error(format!("metadata {PREPROCESS}: {e}")))?;
    }
    Ok(own)
}

/// The `tpgm.*` entries for saving a model: heads, activation, eps, pooling, preprocessing (JSON) and, where they are
/// known, class names (a JSON list).
pub fn tpgm_metadata(recognised: &Recognised) -> BTreeMap<String, String> {
    let mut entries = match &recognised.config {
        ModelConfig::Vit(config) => BTreeMap::from([
            (HEADS.into(), config.heads.to_string()),
            (ACTIVATION.into(), json(&config.activation).replace('"', "")),
            (EPS.into(), json(&config.eps)),
            (POOL.into(), json(&config.pool).replace('"', "")),
        ]),
        ModelConfig::ResNet(config) => BTreeMap::from([(EPS.into(), json(&config.eps))]),
        ModelConfig::EfficientNet(_) | ModelConfig::ResNetV2(_) | ModelConfig::Vgg(_) => {
            BTreeMap::from([(CONFIG.into(), json(&recognised.config))])
        }
        ModelConfig::ConvNext(config) => BTreeMap::from([
            (ACTIVATION.into(), json(&config.activation).replace('"', "")),
            (EPS.into(), json(&config.eps)),
        ]),
    };
    if let ModelConfig::ResNet(ResNetConfig { pooling: Pooling::Attention { heads, .. }, .. }) = &recognised.config {
        entries.insert(HEADS.into(), heads.to_string());
    }
    if recognised.config.vit().is_some_and(|config| config.fc_norm) {
        entries.insert(FC_NORM.into(), "true".into());
    }
    if let Some(config) = recognised.config.vit().filter(|config| untold(&config.parts)) {
        entries.insert(PARTS.into(), json(&config.parts));
    }
    if matches!(&recognised.config, ModelConfig::ResNet(config) if config.untold()) {
        entries.insert(CONFIG.into(), json(&recognised.config));
    }
    if matches!(&recognised.config, ModelConfig::ResNet(config) if config.anti_alias) {
        entries.insert(ANTI_ALIAS.into(), "true".into());
    }
    if recognised.config.normalize() {
        entries.insert(NORMALIZE.into(), "true".into());
    }
    entries.insert(PREPROCESS.into(), json(&recognised.preprocess));
    if let Some(classes) = &recognised.classes {
        entries.insert(CLASSES.into(), json(classes));
    }
    entries
}

/// Whether a model has parts that no tensor tells.
fn untold(parts: &VitParts) -> bool {
    let heads = parts.pooler.is_some() || parts.attention_pool.is_some_and(|pool| pool.heads.is_some());
    let positions = parts.rope.is_some() || parts.positions == Positions::Absent;
    let norms = parts.rms_norm || parts.last_norm != LastNorm::One;
    heads || norms || positions || parts.keyless_bias || parts.block != Block::PreNorm || parts.pool_prefix
}

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structs of numbers and strings always serialise")
}

pub(super) fn entry<T: DeserializeOwned>(checkpoint: &Checkpoint, key: &str) -> Result<Option<T>> {
    let parse = |text: &String| {
        serde_json::from_str(text).map_err(|e| checkpoint.error(format!("metadata {key} = {text:?}: {e}")))
    };
    checkpoint.metadata().get(key).map(parse).transpose()
}

/// An entry whose value is a bare word.
fn word<T: DeserializeOwned>(checkpoint: &Checkpoint, key: &str) -> Result<Option<T>> {
    let parse = |text: &String| {
        let quoted = serde_json::Value::from(text.as_str());
        serde_json::from_value(quoted).map_err(|e| checkpoint.error(format!("metadata {key}: {e}")))
    };
    checkpoint.metadata().get(key).map(parse).transpose()
}
