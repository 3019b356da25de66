//! OpenCLIP's `open_clip_config.json`: `model_cfg` (what the towers are) and `preprocess_cfg`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::file::Checkpoint;
use super::json::{parse, quote, read_bytes};
use super::known::Keys;
use super::timm_config::TimmConfig;
use crate::data::preprocess::{CropMode, Preprocess};
use crate::data::resize::Interpolation;
use crate::error::{Error, Result};
use crate::model::config::Pool;
use crate::shapes::Activation;

/// Pixels along a side, if nothing is written.
const IMAGE_SIZE: u64 = 224;

/// `model_cfg`. The text tower is read elsewhere ([`super::text_config`]).
const MODEL: Keys = Keys {
    followed: &["quick_gelu", "vision_cfg"],
    idle: &[
        "cast_dtype",
        "custom_text",
        "embed_dim",
        "init_logit_bias",
        "init_logit_scale",
        "multimodal_cfg",
        "nonscalar_logit_scale",
        "output_dict",
        "text_cfg",
    ],
    only: &[],
};

/// `vision_cfg` of OpenCLIP's own towers. `output_tokens` returns more beside the same features.
const TOWER: Keys = Keys {
    followed: &[
        "act_kwargs",
        "attn_pooler_heads",
        "attn_pooler_queries",
        "final_ln_after_pool",
        "head_width",
        "image_size",
        "layers",
        "ls_init_value",
        "mlp_ratio",
        "no_ln_pre",
        "norm_kwargs",
        "patch_size",
        "width",
    ],
    idle: &[
        "output_tokens",
        "patch_dropout",
        "timm_drop",
        "timm_drop_path",
        "timm_model_pretrained",
        "timm_pool",
        "timm_proj",
        "timm_proj_bias",
    ],
    only: &[
        ("attentional_pool", &["false", "true"]),
        ("block_type", &["\"default\""]),
        ("pool_type", &["\"tok\"", "\"avg\""]),
        ("pos_embed_type", &["\"learnable\"", "\"sin_cos_2d\""]),
        ("qk_norm", &["false"]),
        ("scale_attn", &["false"]),
        ("scale_attn_inner", &["false"]),
        ("scale_fc", &["false"]),
        ("scale_heads", &["false"]),
        ("scaled_cosine_attn", &["false"]),
        ("timm_model_name", &["\"\""]),
    ],
};

/// `vision_cfg` where timm has the tower: of OpenCLIP's own keys it reads none but the image size.
const TRUNK: Keys = Keys {
    followed: &["timm_model_name", "timm_pool", "timm_proj", "timm_proj_bias"],
    idle: &[
        "head_width",
        "image_size",
        "layers",
        "mlp_ratio",
        "patch_dropout",
        "patch_size",
        "timm_drop",
        "timm_drop_path",
        "timm_model_pretrained",
        "width",
    ],
    only: &[("output_tokens", &["false"])],
};

/// `preprocess_cfg`. The size is the model's.
const PREPROCESS: Keys = Keys {
    followed: &["interpolation", "mean", "resize_mode", "std"],
    idle: &["size"],
    only: &[("fill_color", &["0"]), ("mode", &["\"RGB\""])],
};

/// As OpenAI and OpenCLIP prepare images.
pub(super) fn clip(image_size: usize) -> Preprocess {
    Preprocess {
        image_size,
        crop_pct: 1.0,
        crop_mode: CropMode::Center,
        interpolation: Interpolation::Bicubic,
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        grey: false,
    }
}

/// The file's content.
pub(super) struct OpenClipConfig {
    path: PathBuf,
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
        let root = parse(&path, &read_bytes(&path)?)?;
        Ok(Some(Self { path, root }))
    }

    pub(super) fn error(&self, what: impl Into<String>) -> Error {
        Error::checkpoint(&self.path, what)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the text tower is.
    pub(super) fn text(&self) -> Option<&Value> {
        self.root.get("model_cfg")?.get("text_cfg").filter(|value| !value.is_null())
    }

    /// Whether both towers have QuickGELU.
    pub(super) fn quick_gelu(&self) -> Result<bool> {
        self.flag(self.root.get("model_cfg").and_then(|m| m.get("quick_gelu")), "quick_gelu")
    }

    fn vision(&self, key: &str) -> Option<&Value> {
        self.root.get("model_cfg")?.get("vision_cfg")?.get(key).filter(|v| !v.is_null())
    }

    /// timm's name of the image tower, if timm has it.
    fn trunk_name(&self) -> Option<&str> {
        self.vision("timm_model_name").and_then(Value::as_str).filter(|name| !name.is_empty())
    }

    /// Checks that every key is understood.
    ///
    /// # Errors
    /// Names the first key that is not, and its value.
    pub(super) fn check(&self) -> Result<()> {
        let tower = if self.trunk_name().is_some() { &TRUNK } else { &TOWER };
        let model = self.root.get("model_cfg");
        let objects = [
            (model, "model_cfg.", &MODEL),
            (model.and_then(|model| model.get("vision_cfg")), "vision_cfg.", tower),
            (self.root.get("preprocess_cfg"), "preprocess_cfg.", &PREPROCESS),
        ];
        for (object, place, keys) in objects {
            let fault = match object {
                None | Some(Value::Null) => None,
                Some(Value::Object(entries)) => keys.fault_in(place, entries),
                Some(other) => Some(format!("{place} is {}, expected an object", quote(&other.to_string()))),
            };
            if let Some(fault) = fault {
                return Err(self.error(fault));
            }
        }
        self.eps()?;
        self.activation().map(|_| ())
    }

    /// The tower as timm's, if it is.
    ///
    /// # Errors
    /// Where OpenCLIP pools or projects what leaves the tower in a way that is not supported.
    pub(super) fn trunk(&self) -> Result<Option<TimmConfig>> {
        let Some(name) = self.trunk_name() else { return Ok(None) };
        let word = |key: &str, usual: &str| {
            self.vision(key).map_or(Ok(usual.into()), |value| {
                let wrong =
                    || self.error(format!("vision_cfg.{key} is {}, expected a word", quote(&value.to_string())));
                value.as_str().map(str::to_string).ok_or_else(wrong)
            })
        };
        // Null is a value of its own there: no projection.
        let written = |key: &str| self.root["model_cfg"]["vision_cfg"].get(key).is_some();
        let pool = word("timm_pool", if written("timm_pool") { "" } else { "avg" })?;
        let proj = word("timm_proj", if written("timm_proj") { "" } else { "linear" })?;
        // Behind a ConvNeXt, whose family has it.
        let mlp = proj == "mlp" && name.starts_with("convnext");
        if !mlp && !["linear", "none", ""].contains(&proj.as_str()) {
            return Err(self.error(format!("vision_cfg.timm_proj is {}: not supported yet", quote(&proj))));
        }
        // With a projection of OpenCLIP's own the tower keeps its pooling unless another is named.
        let args = if pool.is_empty() && (mlp || proj == "linear") { json!({}) } else { json!({"global_pool": pool}) };
        let root = json!({"architecture": name, "model_args": args, "pretrained_cfg": {}});
        Ok(Some(TimmConfig::new(self.path.clone(), root, "vision_cfg.timm_model_name ")))
    }

    /// Height and width of the input; OpenCLIP's own if none is given.
    pub(super) fn input_size(&self) -> Option<[u64; 2]> {
        match self.vision("image_size") {
            None => Some([IMAGE_SIZE; 2]),
            Some(Value::Array(pair)) => Some([pair.first()?.as_u64()?, pair.get(1)?.as_u64()?]),
            Some(size) => size.as_u64().map(|size| [size; 2]),
        }
    }

    /// An entry of `vision_cfg`, and its place. A ResNet's width is another thing.
    pub(super) fn told(&self, key: &str) -> Option<(Value, String)> {
        Some((self.vision(key)?.clone(), format!("vision_cfg.{key}")))
    }

    /// An entry that is true or false; false where it is not given.
    fn flag(&self, entry: Option<&Value>, place: &str) -> Result<bool> {
        let Some(value) = entry.filter(|value| !value.is_null()) else { return Ok(false) };
        let wrong = || self.error(format!("{place} is {}, expected true or false", quote(&value.to_string())));
        value.as_bool().ok_or_else(wrong)
    }

    /// Blocks of a vision transformer.
    pub(super) fn depth(&self) -> Option<(u64, &'static str)> {
        Some((self.vision("layers")?.as_u64()?, "vision_cfg.layers"))
    }

    /// Heads, and where that follows from. A list of `layers` is that of a ResNet, which is 32 times as wide in the end.
    pub(super) fn heads(&self) -> Option<(usize, String)> {
        let number = |key: &str| self.vision(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let (width, head_width) = (number("width").unwrap_or(768), number("head_width").unwrap_or(64));
        let times = if self.vision("layers").is_some_and(Value::is_array) { 32 } else { 1 };
        let what = if times == 1 { "vision_cfg.width / head_width" } else { "32 vision_cfg.width / head_width" };
        let width = width.checked_mul(times)?;
        (head_width > 0).then(|| (width / head_width, what.into()))
    }

    /// An object of arguments with one known key.
    fn argument(&self, key: &str, inner: &str) -> Result<Option<&Value>> {
        let Some(value) = self.vision(key) else { return Ok(None) };
        let wrong = || self.error(format!("vision_cfg.{key} is {}: not supported yet", quote(&value.to_string())));
        let entries = value.as_object().ok_or_else(wrong)?;
        match entries.keys().find(|own| *own != inner) {
            Some(_) => Err(wrong()),
            None => Ok(entries.get(inner)),
        }
    }

    /// Layer norm's epsilon.
    pub(super) fn eps(&self) -> Result<Option<f32>> {
        let Some(value) = self.argument("norm_kwargs", "eps")? else { return Ok(Some(1e-5)) };
        let wrong = || {
            self.error(format!(
                "vision_cfg.norm_kwargs.eps is {}, expected a number above 0",
                quote(&value.to_string())
            ))
        };
        value.as_f64().filter(|eps| *eps > 0.0 && eps.is_finite()).map(|eps| Some(eps as f32)).ok_or_else(wrong)
    }

    /// QuickGELU where that is said; OpenCLIP's own models have GELU with erf.
    pub(super) fn activation(&self) -> Result<Option<Activation>> {
        let quick = self.quick_gelu()?;
        match self.argument("act_kwargs", "approximate")?.map(|value| (value, value.as_str())) {
            None if quick => Ok(Some(Activation::QuickGelu)),
            None | Some((_, Some("none"))) if !quick => Ok(Some(Activation::Gelu)),
            Some((_, Some("tanh"))) if !quick => Ok(Some(Activation::GeluTanh)),
            other => {
                let other = other.map_or(String::new(), |(value, _)| value.to_string());
                Err(self.error(format!("vision_cfg.act_kwargs.approximate is {}: not supported", quote(&other))))
            }
        }
    }

    /// The pooling of OpenCLIP's own vision transformers; its ResNets have one alone.
    pub(super) fn pool(&self) -> Option<Pool> {
        let mean = self.vision("pool_type").and_then(Value::as_str) == Some("avg");
        let transformer = !self.vision("layers").is_some_and(Value::is_array);
        transformer.then_some(if mean { Pool::Mean } else { Pool::Cls })
    }

    /// Whether an attention pool stands behind the blocks: CoCa's.
    pub(super) fn attentional_pool(&self) -> Result<bool> {
        self.flag(self.vision("attentional_pool"), "vision_cfg.attentional_pool")
    }

    /// Its heads.
    pub(super) fn pooler_heads(&self) -> Result<usize> {
        let Some(heads) = self.vision("attn_pooler_heads") else { return Ok(8) };
        let wrong = || {
            let heads = quote(&heads.to_string());
            self.error(format!("vision_cfg.attn_pooler_heads is {heads}, expected a whole number"))
        };
        heads.as_u64().and_then(|heads| usize::try_from(heads).ok()).ok_or_else(wrong)
    }

    /// Whether the last norm stands behind the pooling.
    pub(super) fn norm_after_pool(&self) -> Result<bool> {
        self.flag(self.vision("final_ln_after_pool"), "vision_cfg.final_ln_after_pool")
    }

    /// The input; missing entries are as OpenAI has them.
    pub(super) fn preprocess(&self, image_size: usize) -> Result<Option<Preprocess>> {
        let usual = clip(image_size);
        let written = self.root.get("preprocess_cfg").unwrap_or(&Value::Null);
        let entry = |key: &str| written.get(key).filter(|v| !v.is_null());
        let triple = |key: &str, usual: [f32; 3]| match entry(key) {
            None => Ok(usual),
            Some(value) => {
                let list = value.as_array().map(|l| l.iter().filter_map(|v| v.as_f64().map(|x| x as f32)).collect());
                let three = list.and_then(|list: Vec<f32>| <[f32; 3]>::try_from(list).ok());
                let wrong = || self.error(format!("{key} is {}, expected three numbers", quote(&value.to_string())));
                three.ok_or_else(wrong)
            }
        };
        let mut out = Preprocess { mean: triple("mean", usual.mean)?, std: triple("std", usual.std)?, ..usual };
        let unknown = |key: &str, value: &Value, words: &str| {
            self.error(format!("{key} is {}: not supported, only {words}", quote(&value.to_string())))
        };
        match entry("interpolation").map(|value| (value, value.as_str())) {
            Some((_, Some("bilinear"))) => out.interpolation = Interpolation::Bilinear,
            // OpenCLIP takes `random` in training alone.
            None | Some((_, Some("bicubic" | "random"))) => out.interpolation = Interpolation::Bicubic,
            Some((other, _)) => return Err(unknown("interpolation", other, "bicubic and bilinear")),
        }
        match entry("resize_mode").map(|value| (value, value.as_str())) {
            Some((_, Some("squash"))) => out.crop_mode = CropMode::Squash,
            Some((_, Some("longest"))) => out.crop_mode = CropMode::Longest,
            None | Some((_, Some("shortest"))) => out.crop_mode = CropMode::Center,
            Some((other, _)) => return Err(unknown("resize_mode", other, "shortest, longest and squash")),
        }
        out.validate().map_err(|e| self.error(e.to_string()))?;
        Ok(Some(out))
    }
}
