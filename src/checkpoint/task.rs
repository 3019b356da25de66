//! What a model's outputs are: one class for an image, or any number of labels, each from a probability of its own on. Our own files say
//! it in their metadata, folders of transformers in their `config.json`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Recognised;
use super::file::Checkpoint;
use super::json::quote;
use super::metadata::{entry, json};
use crate::error::{Error, Result};

const TASK: &str = "tpgm.task";
const MULTI_LABEL: &str = "multi-label";
const SINGLE_LABEL: &str = "single-label";
const THRESHOLDS: &str = "tpgm.thresholds";

/// transformers' key, and its value of a model that gives any number of labels.
pub const PROBLEM_TYPE: &str = "problem_type";
/// See there.
pub const MULTI_LABEL_PROBLEM: &str = "multi_label_classification";
/// That of a model that gives one class.
pub const SINGLE_LABEL_PROBLEM: &str = "single_label_classification";
/// What we write beside it, and into timm's `config.json`, which has no such key.
pub const CONFIG_THRESHOLDS: &str = "thresholds";

/// What an image is given where no file tells.
const HALF: f32 = 0.5;
const ASSUMED: &str = "each label is given from a probability of 0.5 on: config.json says that an image may have any number of labels \
                       (problem_type), and tells no thresholds";

/// Where a file says that its model gives any number of labels.
enum Place {
    Metadata,
    Config,
}

/// What the file says, and where; none where it says nothing, and `Some(None)` of a model that gives one class.
fn said(checkpoint: &Checkpoint) -> Result<Option<Option<Place>>> {
    match checkpoint.metadata().get(TASK).map(String::as_str) {
        Some(SINGLE_LABEL) => return Ok(Some(None)),
        Some(MULTI_LABEL) => return Ok(Some(Some(Place::Metadata))),
        Some(other) => {
            return Err(
                checkpoint.error(format!("metadata {TASK} = {other:?}: it must be {MULTI_LABEL} or {SINGLE_LABEL}"))
            );
        }
        None => {}
    }
    let told = |key: &str| checkpoint.config().and_then(|config| config.get(key)).filter(|value| !value.is_null());
    match (told(PROBLEM_TYPE).and_then(Value::as_str), told(CONFIG_THRESHOLDS)) {
        (Some(MULTI_LABEL_PROBLEM), _) | (None, Some(_)) => Ok(Some(Some(Place::Config))),
        (Some(other), Some(_)) => {
            let what = format!(
                "{PROBLEM_TYPE} is {}, and there are {CONFIG_THRESHOLDS} of labels: one is wrong",
                quote(other)
            );
            Err(in_config(checkpoint, what))
        }
        (Some(_), None) => Ok(Some(None)),
        (None, None) => Ok(None),
    }
}

fn in_config(checkpoint: &Checkpoint, what: String) -> Error {
    Error::checkpoint(checkpoint.config_path().unwrap_or(checkpoint.path()), what)
}

/// Reads it into `recognised`: of a multi-label model, from which probability on each of its outputs is given, which is a half where
/// the file tells none.
///
/// # Errors
/// If their number is not that of the outputs, or one is no probability.
pub(super) fn read(checkpoint: &Checkpoint, recognised: &mut Recognised) -> Result<()> {
    let outputs = recognised.config.classes();
    let Some(Some(place)) = said(checkpoint)? else { return Ok(()) };
    if outputs == 0 {
        return Ok(());
    }
    let (told, source) = match place {
        Place::Metadata => (entry(checkpoint, THRESHOLDS)?, format!("metadata {TASK}")),
        Place::Config => {
            let value = checkpoint.config().and_then(|config| config.get(CONFIG_THRESHOLDS)).filter(|v| !v.is_null());
            let read = |value: &Value| {
                let wrong = |e| in_config(checkpoint, format!("{CONFIG_THRESHOLDS} can't be understood: {e}"));
                serde_json::from_value::<Vec<f32>>(value.clone()).map_err(wrong)
            };
            let told = value.map(read).transpose()?;
            let key = if told.is_some() { CONFIG_THRESHOLDS } else { PROBLEM_TYPE };
            if told.is_none() {
                recognised.notes.push(ASSUMED.into());
            }
            (told, key.to_string())
        }
    };
    let thresholds = told.unwrap_or_else(|| vec![HALF; outputs]);
    if thresholds.len() != outputs || !thresholds.iter().all(|t| (0.0..=1.0).contains(t)) {
        let what = format!("must have a number from 0 to 1 for each of {outputs} outputs");
        return Err(match place {
            Place::Metadata => checkpoint.error(format!("metadata {THRESHOLDS}: it {what}")),
            Place::Config => in_config(checkpoint, format!("{CONFIG_THRESHOLDS}: it {what}")),
        });
    }
    recognised.thresholds = Some(thresholds);
    recognised.sources.insert("answers", source);
    Ok(())
}

/// Leaves out the task that was read, since the head that it is about is gone.
pub fn forget_task(recognised: &mut Recognised) {
    recognised.thresholds = None;
    recognised.sources.remove("answers");
    recognised.notes.retain(|note| note.what != ASSUMED);
}

/// The entries that say whether a model gives any number of labels, from these `thresholds` on, or one class, in the place of what
/// the file `source` or its configuration says that it came from.
pub fn task_metadata(source: &Checkpoint, thresholds: Option<&[f32]>) -> BTreeMap<String, String> {
    match thresholds {
        Some(thresholds) => BTreeMap::from([(TASK.into(), MULTI_LABEL.into()), (THRESHOLDS.into(), json(&thresholds))]),
        None if matches!(said(source), Ok(None)) => BTreeMap::new(),
        None => BTreeMap::from([(TASK.into(), SINGLE_LABEL.into())]),
    }
}
