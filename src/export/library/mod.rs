//! Models as folders that other libraries load by themselves: transformers' `from_pretrained`, timm's `create_model('local-dir:…')`, and
//! files with torchvision's names.
//!
//! A network that several libraries have is described from what it is made of, and its tensors take the other library's names and
//! shapes: `transformers`, `timm`, `torchvision`. Any other model stays with the library that it comes from, whose `config.json`
//! is taken over with new classes and preprocessing: `kept`.

mod inputs;
mod kept;
mod tensors;
mod timm;
mod torchvision;
mod transformers;

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::checkpoint::{CONFIG_THRESHOLDS, MULTI_LABEL_PROBLEM, PROBLEM_TYPE, SINGLE_LABEL_PROBLEM, Weight};
use crate::error::{Error, Result};
use crate::train::source::Source;

/// A library that loads the exported folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// Hugging Face transformers.
    Transformers,
    /// timm.
    Timm,
    /// torchvision.
    Torchvision,
}

impl Library {
    /// Its name in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transformers => "transformers",
            Self::Timm => "timm",
            Self::Torchvision => "torchvision",
        }
    }
}

/// The weights of a folder.
#[derive(Debug)]
pub enum Tensors {
    /// Those of the source, under its names and in its types, and others that its library wants.
    Kept(Vec<Weight>),
    /// Others: names, shapes and values, and the counters of batches that batch norms have.
    Named(Vec<Weight>, Vec<String>),
}

/// What a library loads.
#[derive(Debug)]
pub struct Described {
    /// `model.safetensors`.
    pub tensors: Tensors,
    /// Files of JSON beside it, by name.
    pub files: Vec<(&'static str, Value)>,
    /// The library's class or architecture.
    pub architecture: String,
    /// Lines of Python that load the model.
    pub python: String,
    /// What differs from the model as tpgm runs it, a sentence each.
    pub remarks: Vec<String>,
}

/// The model as `library` loads it. `base` is the `config.json` of the checkpoint that it comes from, if there is one, and `pretrained`
/// that checkpoint's path.
///
/// # Errors
/// [`Error::Checkpoint`] where the library has no such network, or nobody says which of its architectures it is.
pub fn describe(library: Library, source: &Source, base: Option<&Value>, pretrained: &Path) -> Result<Described> {
    let described = match library {
        Library::Transformers => transformers::describe(source),
        Library::Timm => timm::describe(source),
        Library::Torchvision => torchvision::describe(source),
    };
    let kept = || match (library, base) {
        (Library::Torchvision, _) => torchvision::kept(source, pretrained),
        (_, Some(base)) => kept::describe(library, source, base),
        (_, None) => Err("no config.json beside it names another".into()),
    };
    // timm has more architectures than are described.
    let first = if library == Library::Timm { kept().or(described) } else { described };
    let mut described =
        first.or_else(|why| kept().map_err(|other| refusal(library, source, &format!("{why}; {other}"))))?;
    match &source.recognised.thresholds {
        Some(thresholds) => of_labels(&mut described, library, thresholds),
        None => of_one_class(&mut described),
    }
    Ok(described)
}

/// Leaves out what the configuration of a model for labels says, where one for classes came of it.
fn of_one_class(described: &mut Described) {
    let configs = described.files.iter_mut().filter(|(name, _)| *name == "config.json");
    for root in configs.filter_map(|(_, root)| root.as_object_mut()) {
        root.remove(CONFIG_THRESHOLDS);
        if root.get(PROBLEM_TYPE).is_some_and(|problem| problem == MULTI_LABEL_PROBLEM) {
            root.insert(PROBLEM_TYPE.into(), json!(SINGLE_LABEL_PROBLEM));
        }
    }
}

/// What libraries are told of a model that gives an image any number of labels.
fn of_labels(described: &mut Described, library: Library, thresholds: &[f32]) {
    for (_, root) in described.files.iter_mut().filter(|(name, _)| *name == "config.json") {
        root[CONFIG_THRESHOLDS] = json!(thresholds);
        if library == Library::Transformers {
            root[PROBLEM_TYPE] = json!(MULTI_LABEL_PROBLEM);
        }
    }
    let listed: Vec<String> = thresholds.iter().map(|threshold| format!("{threshold:.3}")).collect();
    described.remarks.push(format!(
        "An image may have any number of labels: each is given where the sigmoid of its logit is at least its threshold; the \
         thresholds, in the order of the classes, are {}",
        listed.join(", ")
    ));
}

fn refusal(library: Library, source: &Source, why: &str) -> Error {
    let family = source.recognised.family;
    source.checkpoint.error(format!("this {family} is not written for {}: {why}", library.name()))
}

/// The model's class names, or numbers where nobody named them.
pub fn labels(source: &Source) -> Vec<String> {
    let classes = source.recognised.config.classes();
    source.recognised.classes.clone().unwrap_or_else(|| (0..classes).map(|i| format!("LABEL_{i}")).collect())
}

/// transformers' `id2label` and `label2id`. Of two classes of one name, `label2id` has the first.
fn label_maps(labels: &[String]) -> (Value, Value) {
    let by_id: Map<String, Value> = labels.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name))).collect();
    let by_name: Map<String, Value> =
        labels.iter().enumerate().rev().map(|(i, name)| (name.clone(), json!(i))).collect();
    (by_id.into(), by_name.into())
}
