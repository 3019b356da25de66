//! Flags for heads from class names.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Overrides, TextOverrides};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::text::{Templates, names_of};
use crate::train::model_args::ModelArgs;
use crate::train::source::Source;
use crate::train::zero_shot::{Prompts, TextHead, Told};

/// The sentences that class names stand in, and what cuts them into tokens.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PromptArgs {
    /// A sentence with {} in the place of the class name; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub template: Vec<String>,
    /// Sentences for class names: simple ("a photo of a {}."), varied (30 of them), or a file with one per line [default: simple]
    #[arg(long, value_name = "simple|varied|FILE", conflicts_with = "template")]
    pub templates: Option<String>,
    /// The tokenizer of the text tower, a tokenizer.json [default: the one beside the model, or OpenAI's vocabulary]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
}

impl PromptArgs {
    /// The sentences and the tokenizer's file.
    ///
    /// # Errors
    /// [`Error::Usage`] for a template without {}, or a set that does not exist.
    pub fn prompts(&self) -> Result<Prompts> {
        let templates = match (&self.templates, self.template.is_empty()) {
            (None, false) => Templates::new(self.template.clone(), "--template"),
            (Some(named), true) => Templates::named(named),
            (None, true) => Templates::named("simple"),
            (Some(_), false) => {
                Err(Error::Usage("--template and --templates are two ways to give sentences: give one".into()))
            }
        }?;
        Ok(Prompts { templates, tokenizer: self.tokenizer.clone() })
    }
}

/// A head from class names in the place of the model's own.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ZeroShotArgs {
    /// Start from a zero-shot head: the model's text tower makes it of the class names. Features are then scaled to unit length
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub zero_shot: Option<bool>,
    /// With --zero-shot: a file with one class name per line, for the classes in their order [default: the classes' own names]
    #[arg(long, value_name = "FILE")]
    pub class_names: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub prompts: PromptArgs,
}

impl ZeroShotArgs {
    /// Whether a head is made.
    pub fn on(&self) -> bool {
        self.zero_shot == Some(true)
    }

    /// # Errors
    /// [`Error::Usage`] for what contradicts it or has no effect without it.
    pub fn validate(&self, model: &ModelArgs) -> Result<()> {
        let usage = |what: &str| Err(Error::Usage(what.into()));
        if !self.on() {
            let PromptArgs { template, templates, tokenizer } = &self.prompts;
            let given = [
                ("--class-names", self.class_names.is_some()),
                ("--template", !template.is_empty()),
                ("--templates", templates.is_some()),
                ("--tokenizer", tokenizer.is_some()),
            ];
            return match given.iter().find(|(_, given)| *given) {
                Some((flag, _)) => usage(&format!("{flag} goes with --zero-shot")),
                None => Ok(()),
            };
        }
        if model.head.is_some() {
            return usage("--zero-shot and --head are two ways to give a head: give one");
        }
        if model.normalize_features == Some(false) {
            return usage("--zero-shot compares directions: it can't go with --normalize-features false");
        }
        self.prompts.prompts().map(|_| ())
    }

    /// What recognising a checkpoint is told.
    pub fn overrides(&self, model: &ModelArgs) -> Overrides {
        let own = model.overrides();
        Overrides { normalize: if self.on() { Some(true) } else { own.normalize }, ..own }
    }

    /// The names of `--class-names`, if they are given.
    ///
    /// # Errors
    /// As [`names_of`].
    pub fn names(&self) -> Result<Option<Vec<String>>> {
        self.class_names.as_deref().map(names_of).transpose()
    }

    /// Gives `source` a head for `classes`, if that is asked for; made from `--class-names`, which are as many, or from their own names.
    ///
    /// # Errors
    /// As [`TextHead::new`] and [`Source::set_head`]; [`Error::Data`] where there are more or fewer names than classes.
    pub fn apply(
        &self,
        gpu: &Gpu,
        source: &mut Source,
        model: &ModelArgs,
        classes: &[String],
        tell: &mut dyn FnMut(Told),
    ) -> Result<()> {
        if !self.on() {
            return Ok(());
        }
        let names = self.names()?.unwrap_or_else(|| classes.to_vec());
        if let Some(path) = self.class_names.as_ref().filter(|_| names.len() != classes.len()) {
            let what = format!("names {} classes, but there are {}: {}", names.len(), classes.len(), some(classes));
            return Err(Error::data(path, what));
        }
        let overrides = TextOverrides { heads: None, activation: model.activation };
        let head = TextHead::new(gpu, &source.checkpoint, &overrides, &self.prompts.prompts()?, &names, tell)?;
        source.set_head(&TextHead { classes: classes.to_vec(), ..head })
    }
}

/// The first of them.
fn some(classes: &[String]) -> String {
    let first: Vec<&str> = classes.iter().take(3).map(String::as_str).collect();
    first.join(", ") + if classes.len() > 3 { ", ..." } else { "" }
}
