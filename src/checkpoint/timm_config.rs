//! timm's `config.json`: `architecture`, `model_args` (what differs from the architecture's defaults) and
//! `pretrained_cfg` (how the input is made). Older files have the latter's entries at the top.

use serde_json::Value;

use super::Note;
use super::file::Checkpoint;
use crate::data::preprocess::{CropMode, Preprocess};
use crate::data::resize::Interpolation;
use crate::error::{Error, Result};
use crate::model::config::Pool;
use crate::shapes::Activation;

/// Heads by a part of the architecture's name, the first that is found. A width in `model_args` does not change them.
const HEADS: [(&str, usize); 23] = [
    ("test_vit3", 3),
    ("test_vit4", 3),
    ("test_vit", 2),
    ("_base_patch16_gap_", 16),
    ("_giant_patch14_dinov2", 24),
    ("_plus_", 14),
    ("_tiny_", 3),
    ("_xsmall_", 4),
    ("wee_", 4),
    ("little_", 5),
    ("_small", 6),
    ("_medium_", 8),
    ("_betwixt_", 10),
    ("_base", 12),
    ("_so150m2_", 13),
    ("_so150m_", 14),
    ("_large", 16),
    ("_so400m_", 16),
    ("_huge_", 16),
    ("_giantopt_", 16),
    ("_giant_", 16),
    ("_gigantic_", 16),
    ("_intern300m_", 16),
];

/// Widths that timm's models have with 16 heads only: so400m, huge, giant, gigantic.
const WIDTHS_OF_16_HEADS: [usize; 4] = [1152, 1280, 1408, 1664];

/// Architectures that have GELU in its tanh form without saying so in `model_args`.
const TANH: [&str; 4] = [
    "vit_base_patch32_siglip_gap_256",
    "vit_large_patch16_siglip_gap_512",
    "vit_giantopt_patch16_siglip_gap_",
    "vit_so400m_patch16_siglip_gap_",
];

/// A view of the file; all methods say "not there" where there is no file.
pub(super) struct TimmConfig<'a> {
    checkpoint: &'a Checkpoint,
    root: &'a Value,
}

impl<'a> TimmConfig<'a> {
    pub(super) fn of(checkpoint: &'a Checkpoint) -> Self {
        Self { checkpoint, root: checkpoint.config().unwrap_or(&Value::Null) }
    }

    /// An error about `config.json`.
    fn error(&self, what: impl Into<String>) -> Error {
        Error::checkpoint(self.checkpoint.config_path().unwrap_or(self.checkpoint.path()), what)
    }

    /// An entry of `model_args` that is not null.
    fn arg(&self, key: &str) -> Option<&'a Value> {
        self.root.get("model_args")?.get(key).filter(|v| !v.is_null())
    }

    /// An entry of `pretrained_cfg`, or of the top in older files.
    fn input(&self, key: &str) -> Option<&'a Value> {
        self.root.get("pretrained_cfg").and_then(|c| c.get(key)).or_else(|| self.root.get(key)).filter(|v| !v.is_null())
    }

    /// The architecture's name without the tag; "" without one.
    pub(super) fn architecture(&self) -> &'a str {
        let name = self.input("architecture").and_then(Value::as_str).unwrap_or("");
        name.split('.').next().unwrap_or(name)
    }

    /// What makes the same tensors another computation.
    pub(super) fn check_blocks(&self) -> Result<()> {
        let odd = match self.arg("block_fn").and_then(Value::as_str) {
            Some(block) if block != "Block" => Some(format!("block_fn {block}")),
            _ if self.architecture().contains("_rpn_") => Some(format!("architecture {}", self.architecture())),
            _ => None,
        };
        match odd {
            Some(odd) => Err(self.error(format!("{odd} is not supported yet, only pre-norm blocks are"))),
            None => Ok(()),
        }
    }

    /// Heads, and where that is written.
    pub(super) fn heads(&self) -> Result<Option<(usize, String)>> {
        if let Some(value) = self.arg("num_heads") {
            return match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(heads) => Ok(Some((heads, "model_args.num_heads".into()))),
                None => Err(self.error(format!("model_args.num_heads is {value}, expected a whole number"))),
            };
        }
        let name = self.architecture();
        if !["vit_", "deit", "flexivit_", "eva_", "test_vit"].iter().any(|start| name.starts_with(start)) {
            return Ok(None);
        }
        let known = HEADS.iter().find(|(part, _)| name.contains(part));
        Ok(known.map(|&(_, heads)| (heads, format!("architecture {name}"))))
    }

    /// The activation, where it is written or is not the usual one.
    pub(super) fn activation(&self) -> Result<Option<Activation>> {
        if let Some(value) = self.arg("act_layer") {
            return match value.as_str() {
                Some("gelu") => Ok(Some(Activation::Gelu)),
                Some("gelu_tanh") => Ok(Some(Activation::GeluTanh)),
                Some("quick_gelu") => Ok(Some(Activation::QuickGelu)),
                _ => {
                    Err(self.error(format!("model_args.act_layer is {value}, supported: gelu, gelu_tanh, quick_gelu")))
                }
            };
        }
        let name = self.architecture();
        Ok(match name {
            _ if name.contains("quickgelu") => Some(Activation::QuickGelu),
            _ if TANH.iter().any(|t| name.starts_with(t)) => Some(Activation::GeluTanh),
            "" => None,
            _ => Some(Activation::Gelu),
        })
    }

    /// An error where gated MLPs have another activation than SiLU.
    pub(super) fn check_gate(&self) -> Result<()> {
        match self.arg("act_layer").filter(|act| !["silu", "swish"].iter().any(|silu| **act == *silu)) {
            Some(act) => Err(self.error(format!("model_args.act_layer is {act}, gated MLPs are supported with silu"))),
            None => Ok(()),
        }
    }

    /// The pooling, where it is written.
    pub(super) fn pool(&self) -> Result<Option<Pool>> {
        match self.arg("global_pool").or_else(|| self.input("global_pool")).and_then(Value::as_str) {
            Some("token") => Ok(Some(Pool::Cls)),
            Some("avg") => Ok(Some(Pool::Mean)),
            Some("map") => Ok(Some(Pool::Attention)),
            None | Some("") => Ok(None),
            Some(other) => {
                Err(self.error(format!("global_pool {other} is not supported yet, only token, avg and map are")))
            }
        }
    }

    /// The input, where anything is written about it; what is not is as in `usual`.
    pub(super) fn preprocess(&self, usual: Preprocess, notes: &mut Vec<Note>) -> Result<Option<Preprocess>> {
        let keys = ["mean", "std", "interpolation", "crop_pct", "crop_mode"];
        if keys.iter().all(|key| self.input(key).is_none()) {
            return Ok(None);
        }
        let mut out = usual;
        let missing: Vec<&str> = keys[..4].iter().copied().filter(|key| self.input(key).is_none()).collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            notes.push(format!("config.json does not give {missing}: the family's usual one was assumed").into());
        }
        if let Some(mean) = self.triple("mean")? {
            out.mean = mean;
        }
        if let Some(std) = self.triple("std")? {
            out.std = std;
        }
        if let Some(value) = self.input("crop_pct") {
            let wrong = || self.error(format!("crop_pct is {value}, expected a number"));
            out.crop_pct = value.as_f64().ok_or_else(wrong)?;
        }
        match self.input("crop_mode").and_then(Value::as_str) {
            None | Some("center") => {}
            Some("squash") => out.crop_mode = CropMode::Squash,
            Some("border") => out.crop_mode = CropMode::Border,
            Some(other) => {
                notes.push(format!("crop_mode {other} of config.json is not supported: center is used").into());
            }
        }
        match self.input("interpolation").and_then(Value::as_str) {
            None => {}
            Some("bicubic") => out.interpolation = Interpolation::Bicubic,
            Some("bilinear") => out.interpolation = Interpolation::Bilinear,
            Some("lanczos") => out.interpolation = Interpolation::Lanczos,
            Some(other) => {
                let what =
                    format!("interpolation {other} of config.json is not supported: the family's usual one is used");
                notes.push(what.into());
            }
        }
        out.validate().map_err(|e| self.error(e.to_string()))?;
        Ok(Some(out))
    }

    /// Height and width of the input that the file was written for, `[C, H, W]` in `input_size`.
    pub(super) fn input_size(&self) -> Option<[u64; 2]> {
        let size = self.input("input_size")?.as_array()?;
        Some([size.get(1)?.as_u64()?, size.get(2)?.as_u64()?])
    }

    /// Class names, where the file has one for each of `classes` outputs.
    pub(super) fn classes(&self, classes: usize) -> Option<Vec<String>> {
        let list = ["label_names", "id2label"].iter().find_map(|key| self.input(key))?;
        let name = |v: &Value| v.as_str().map(str::to_string);
        let names: Vec<String> = match list {
            Value::Array(names) => names.iter().map(name).collect::<Option<_>>()?,
            Value::Object(by_id) => {
                (0..by_id.len()).map(|i| name(by_id.get(&i.to_string())?)).collect::<Option<_>>()?
            }
            _ => return None,
        };
        (names.len() == classes).then_some(names)
    }

    fn triple(&self, key: &str) -> Result<Option<[f32; 3]>> {
        let Some(value) = self.input(key) else { return Ok(None) };
        let numbers: Option<Vec<f32>> =
            value.as_array().and_then(|list| list.iter().map(|v| v.as_f64().map(|x| x as f32)).collect());
        match numbers.and_then(|n| <[f32; 3]>::try_from(n).ok()) {
            Some(numbers) => Ok(Some(numbers)),
            None => Err(self.error(format!("{key} is {value}, expected three numbers"))),
        }
    }
}

/// timm's convention of 64 dimensions per head, and its exceptions among the large models.
pub(super) fn usual_heads(dim: usize) -> Option<usize> {
    if WIDTHS_OF_16_HEADS.contains(&dim) { Some(16) } else { dim.is_multiple_of(64).then_some(dim / 64) }
}

/// What timm's ViTs are trained on where nothing says otherwise.
pub(super) fn timm_vit_preprocess(image_size: usize) -> Preprocess {
    Preprocess {
        image_size,
        crop_pct: 0.9,
        crop_mode: CropMode::Center,
        interpolation: Interpolation::Bicubic,
        mean: [0.5; 3],
        std: [0.5; 3],
    }
}
