//! transformers' `config.json` (what the model is) and, beside it, its processor's (how its input is made).

use serde_json::Value;

use super::Note;
use super::file::Checkpoint;
use super::processor_config::ProcessorConfig;
use crate::data::preprocess::Preprocess;
use crate::error::{Error, Result};
use crate::shapes::Activation;

/// A view of both files; without one, all methods say "not there".
pub(super) struct TransformersConfig<'a> {
    checkpoint: &'a Checkpoint,
    root: &'a Value,
    processor: Option<ProcessorConfig>,
}

impl<'a> TransformersConfig<'a> {
    pub(super) fn of(checkpoint: &'a Checkpoint) -> Result<Self> {
        let root = checkpoint.config().unwrap_or(&Value::Null);
        // Beside a file of another name it may belong to something else, as config.json may.
        let processor = checkpoint.config_path().map(ProcessorConfig::beside).transpose()?.flatten();
        Ok(Self { checkpoint, root, processor })
    }

    fn error(&self, what: impl Into<String>) -> Error {
        Error::checkpoint(self.checkpoint.config_path().unwrap_or(self.checkpoint.path()), what)
    }

    /// An entry about the image tower that is not null.
    pub(super) fn entry(&self, key: &str) -> Option<&'a Value> {
        let tower = self.root.get("vision_config").filter(|v| v.is_object()).unwrap_or(self.root);
        tower.get(key).filter(|v| !v.is_null())
    }

    /// Heads, and where that is written.
    pub(super) fn heads(&self) -> Result<Option<(usize, String)>> {
        let Some(value) = self.entry("num_attention_heads") else { return Ok(None) };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(heads) => Ok(Some((heads, "num_attention_heads".into()))),
            None => Err(self.error(format!("num_attention_heads is {value}, expected a whole number"))),
        }
    }

    /// The activation, by transformers' names.
    pub(super) fn activation(&self) -> Result<Option<Activation>> {
        let Some(value) = self.entry("hidden_act") else { return Ok(None) };
        match value.as_str() {
            Some("gelu" | "gelu_python") => Ok(Some(Activation::Gelu)),
            Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_python_tanh") => Ok(Some(Activation::GeluTanh)),
            Some("quick_gelu") => Ok(Some(Activation::QuickGelu)),
            _ => {
                Err(self
                    .error(format!("hidden_act is {value}, supported: gelu, gelu_pytorch_tanh, gelu_new, quick_gelu")))
            }
        }
    }

    /// Layer norm's epsilon.
    pub(super) fn eps(&self) -> Result<Option<f32>> {
        let Some(value) = self.entry("layer_norm_eps") else { return Ok(None) };
        match value.as_f64().filter(|eps| eps.is_finite() && *eps > 0.0) {
            Some(eps) => Ok(Some(eps as f32)),
            None => Err(self.error(format!("layer_norm_eps is {value}, expected a number above 0"))),
        }
    }

    /// Height and width of the input, in `image_size` a number or a pair.
    pub(super) fn input_size(&self) -> Option<[u64; 2]> {
        match self.entry("image_size")? {
            Value::Array(pair) => Some([pair.first()?.as_u64()?, pair.get(1)?.as_u64()?]),
            size => size.as_u64().map(|size| [size; 2]),
        }
    }

    /// An error where a flag that makes the same tensors another computation is set.
    pub(super) fn refuse(&self, flags: &[&str]) -> Result<()> {
        match flags.iter().find(|flag| self.entry(flag).and_then(Value::as_bool) == Some(true)) {
            Some(flag) => Err(self.error(format!("{flag} is set: not supported"))),
            None => Ok(()),
        }
    }

    /// The pixels that the processor makes of an image.
    pub(super) fn crop_size(&self) -> Option<usize> {
        self.processor.as_ref()?.image_size()
    }

    /// The name of the processor's file.
    pub(super) fn preprocess_file(&self) -> &str {
        self.processor.as_ref().map_or("preprocessor_config.json", ProcessorConfig::file)
    }

    /// The input; what is not written is as in `usual`.
    pub(super) fn preprocess(&self, usual: Preprocess, notes: &mut Vec<Note>) -> Result<Option<Preprocess>> {
        self.processor.as_ref().map(|processor| processor.preprocess(usual, notes)).transpose()
    }

    /// Class names, if there is one for each of `outputs`; `LABEL_3` is no name.
    pub(super) fn classes(&self, outputs: usize) -> Option<Vec<String>> {
        let by_id = self.root.get("id2label")?.as_object()?;
        let name = |i: usize| by_id.get(&i.to_string())?.as_str().map(str::to_string);
        let names: Vec<String> = (0..by_id.len()).map(name).collect::<Option<_>>()?;
        let numbered = names.iter().enumerate().all(|(i, name)| *name == format!("LABEL_{i}"));
        (names.len() == outputs && !numbered).then_some(names)
    }
}
