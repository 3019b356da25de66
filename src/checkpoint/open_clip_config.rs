//! OpenCLIP's `open_clip_config.json`: `model_cfg` (what the towers are) and `preprocess_cfg`.

use std::fs;

use serde_json::Value;

use super::file::Checkpoint;
use crate::data::preprocess::{CropMode, Preprocess};
use crate::data::resize::Interpolation;
use crate::error::{Error, Result};
use crate::shapes::Activation;

/// The file's content.
pub(super) struct OpenClipConfig {
    path: std::path::PathBuf,
    root: Value,
}

impl OpenClipConfig {
    /// That of a checkpoint: `config.json` where it has a `model_cfg`, else `open_clip_config.json` beside a file that goes
    /// with it by its name.
    pub(super) fn of(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        if let (Some(root), Some(path)) = (checkpoint.config(), checkpoint.config_path())
            && root.get("model_cfg").is_some()
        {
            return Ok(Some(Self { path: path.into(), root: root.clone() }));
        }
        let path = checkpoint.path().with_file_name("open_clip_config.json");
        let names = ["open_clip_model.safetensors", "model.safetensors"];
        let own = checkpoint.path().file_name().is_some_and(|name| names.iter().any(|n| name == *n));
        if !own || !path.is_file() {
            return Ok(None);
        }
        let text = fs::read(&path).map_err(|e| Error::io(&path, "cannot read", e))?;
        match serde_json::from_slice(&text) {
            Ok(root) => Ok(Some(Self { path, root })),
            Err(e) => Err(Error::checkpoint(path, format!("not valid JSON: {e}"))),
        }
    }

    fn vision(&self, key: &str) -> Option<&Value> {
        self.root.get("model_cfg")?.get("vision_cfg")?.get(key).filter(|v| !v.is_null())
    }

    /// Heads, and where that follows from. A list of `layers` is that of a ResNet, which is 32 times as wide in the end.
    pub(super) fn heads(&self) -> Option<(usize, String)> {
        let number = |key: &str| self.vision(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let (width, head_width) = (number("width")?, number("head_width").unwrap_or(64));
        let times = if self.vision("layers").is_some_and(Value::is_array) { 32 } else { 1 };
        let what = if times == 1 { "vision_cfg.width / head_width" } else { "32 vision_cfg.width / head_width" };
        let width = width.checked_mul(times)?;
        (head_width > 0).then(|| (width / head_width, what.into()))
    }

    /// QuickGELU where that is said; OpenCLIP's own models have GELU with erf.
    pub(super) fn activation(&self) -> Option<Activation> {
        let model = self.root.get("model_cfg")?;
        let quick = model.get("quick_gelu").and_then(Value::as_bool).unwrap_or(false);
        Some(if quick { Activation::QuickGelu } else { Activation::Gelu })
    }

    /// The input; what is not written is as in `usual`.
    pub(super) fn preprocess(&self, usual: Preprocess) -> Result<Option<Preprocess>> {
        let Some(written) = self.root.get("preprocess_cfg") else { return Ok(None) };
        let wrong = |what: String| Error::checkpoint(&self.path, what);
        let triple = |key: &str, usual: [f32; 3]| match written.get(key).filter(|v| !v.is_null()) {
            None => Ok(usual),
            Some(value) => {
                let list = value.as_array().map(|l| l.iter().filter_map(|v| v.as_f64().map(|x| x as f32)).collect());
                let three = list.and_then(|list: Vec<f32>| <[f32; 3]>::try_from(list).ok());
                three.ok_or_else(|| wrong(format!("{key} is {value}, expected three numbers")))
            }
        };
        let mut out = Preprocess { mean: triple("mean", usual.mean)?, std: triple("std", usual.std)?, ..usual };
        match written.get("interpolation").and_then(Value::as_str) {
            Some("bilinear") => out.interpolation = Interpolation::Bilinear,
            Some("bicubic") => out.interpolation = Interpolation::Bicubic,
            _ => {}
        }
        match written.get("resize_mode").and_then(Value::as_str) {
            Some("squash") => out.crop_mode = CropMode::Squash,
            Some("longest") => out.crop_mode = CropMode::Longest,
            None | Some("shortest") => {}
            Some(other) => {
                return Err(wrong(format!("resize_mode {other} is unknown: it is shortest, longest or squash")));
            }
        }
        out.validate().map_err(|e| wrong(e.to_string()))?;
        Ok(Some(out))
    }
}
