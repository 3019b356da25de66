//! transformers' `config.json` (what the model is) and `preprocessor_config.json` (how its input is made).

use std::fs;

use serde_json::Value;

use super::file::Checkpoint;
use crate::data::preprocess::{CropMode, Preprocess};
use crate::data::resize::Interpolation;
use crate::error::{Error, Result};
use crate::model::config::Activation;

/// A view of both files; all methods say "not there" where there is none.
pub(super) struct TransformersConfig<'a> {
    checkpoint: &'a Checkpoint,
    root: &'a Value,
    preprocessor: Value,
}

impl<'a> TransformersConfig<'a> {
    pub(super) fn of(checkpoint: &'a Checkpoint) -> Result<Self> {
        let root = checkpoint.config().unwrap_or(&Value::Null);
        let mut preprocessor = Value::Null;
        // Beside a file of another name it may belong to something else, as config.json may.
        let path = checkpoint.config_path().map(|path| path.with_file_name("preprocessor_config.json"));
        if let Some(path) = path.filter(|path| path.is_file()) {
            let text = fs::read(&path).map_err(|e| Error::io(&path, "cannot read", e))?;
            preprocessor =
                serde_json::from_slice(&text).map_err(|e| Error::checkpoint(&path, format!("not valid JSON: {e}")))?;
        }
        Ok(Self { checkpoint, root, preprocessor })
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

    /// An entry of `preprocessor_config.json` that is not null.
    fn input(&self, key: &str) -> Option<&Value> {
        self.preprocessor.get(key).filter(|v| !v.is_null())
    }

    /// The pixels that `preprocessor_config.json` makes of an image.
    pub(super) fn crop_size(&self) -> Option<usize> {
        let cropped = self.input("do_center_crop").and_then(Value::as_bool).unwrap_or(true);
        let key = if cropped && self.input("crop_size").is_some() { "crop_size" } else { "size" };
        let value = self.input(key)?;
        let side = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        side(value).or_else(|| ["height", "shortest_edge"].iter().find_map(|k| side(value.get(*k)?)))
    }

    /// The input; what is not written is as in `usual`.
    pub(super) fn preprocess(&self, usual: Preprocess, notes: &mut Vec<String>) -> Result<Option<Preprocess>> {
        if self.preprocessor.is_null() {
            return Ok(None);
        }
        let path = self.checkpoint.path().with_file_name("preprocessor_config.json");
        let wrong = |what: String| Error::checkpoint(&path, what);
        let triple = |key: &str, usual: [f32; 3]| match self.input(key) {
            None => Ok(usual),
            Some(value) => {
                let list = value.as_array().map(|l| l.iter().filter_map(|v| v.as_f64().map(|x| x as f32)).collect());
                let three = list.and_then(|list: Vec<f32>| <[f32; 3]>::try_from(list).ok());
                three.ok_or_else(|| wrong(format!("{key} is {value}, expected three numbers")))
            }
        };
        let mut out =
            Preprocess { mean: triple("image_mean", usual.mean)?, std: triple("image_std", usual.std)?, ..usual };
        match self.input("resample").and_then(Value::as_u64) {
            None => {}
            Some(1) => out.interpolation = Interpolation::Lanczos,
            Some(2) => out.interpolation = Interpolation::Bilinear,
            Some(3) => out.interpolation = Interpolation::Bicubic,
            Some(other) => notes.push(format!("resample {other} is not supported: the family's usual one is used")),
        }
        let size = self.input("size");
        let number = |value: Option<&Value>| value.and_then(Value::as_f64).filter(|n| *n > 0.0);
        let shortest = number(size).or_else(|| number(size.and_then(|s| s.get("shortest_edge"))));
        let crop = self.input("crop_size").map(|c| number(Some(c)).or_else(|| number(c.get("height"))));
        let crops = self.input("do_center_crop").and_then(Value::as_bool).unwrap_or(crop.is_some());
        if let Some(share) = number(self.input("crop_pct")) {
            (out.crop_mode, out.crop_pct) = (CropMode::Center, share as f32);
        } else if let (true, Some(resized), Some(Some(kept))) = (crops, shortest, crop) {
            (out.crop_mode, out.crop_pct) = (CropMode::Center, (kept / resized) as f32);
        } else if let Some(height) = number(size.and_then(|s| s.get("height"))).or(number(size)) {
            let kept = crop.flatten().filter(|_| crops).unwrap_or(height);
            (out.crop_mode, out.crop_pct) = (CropMode::Squash, (kept / height) as f32);
        }
        out.validate().map_err(|e| wrong(e.to_string()))?;
        Ok(Some(out))
    }

    /// Class names, where there is one for each of `outputs`; `LABEL_3` is no name.
    pub(super) fn classes(&self, outputs: usize) -> Option<Vec<String>> {
        let by_id = self.root.get("id2label")?.as_object()?;
        let name = |i: usize| by_id.get(&i.to_string())?.as_str().map(str::to_string);
        let names: Vec<String> = (0..by_id.len()).map(name).collect::<Option<_>>()?;
        let numbered = names.iter().enumerate().all(|(i, name)| *name == format!("LABEL_{i}"));
        (names.len() == outputs && !numbered).then_some(names)
    }
}
