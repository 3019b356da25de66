//! What configurations say of a text tower: OpenCLIP's `text_cfg` and transformers' `text_config`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::file::Checkpoint;
use super::json::{parse, quote, read_bytes};
use super::known::Keys;
use super::open_clip_config::OpenClipConfig;
use super::text::{End, TokenizerKind};
use crate::error::{Error, Result};
use crate::model::text::TextPool;
use crate::shapes::Activation;
use crate::text::Clean;

/// `text_cfg` of OpenCLIP's own text towers. The last norm acts on each token alone, so that it may stand before the pooling.
const OPEN_CLIP: Keys = Keys {
    followed: &[
        "act_kwargs",
        "context_length",
        "eos_id",
        "heads",
        "hf_tokenizer_name",
        "layers",
        "ls_init_value",
        "mlp_ratio",
        "no_causal_mask",
        "norm_kwargs",
        "pool_type",
        "proj_bias",
        "tokenizer_kwargs",
        "vocab_size",
        "width",
    ],
    idle: &["final_ln_after_pool", "hf_model_pretrained", "hf_pooler_type", "hf_proj_type", "output_tokens", "pad_id"],
    only: &[
        ("block_type", &["\"default\""]),
        ("embed_cls", &["false"]),
        ("hf_model_name", &["\"\""]),
        ("proj_type", &["\"linear\"", "\"none\""]),
        ("qk_norm", &["false"]),
        ("scale_attn", &["false"]),
        ("scale_attn_inner", &["false"]),
        ("scale_fc", &["false"]),
        ("scale_heads", &["false"]),
        ("scaled_cosine_attn", &["false"]),
        ("tokenizer_mode", &["\"\""]),
    ],
};

/// What a configuration says; each may be absent.
#[derive(Default)]
pub(super) struct TextFacts {
    pub(super) heads: Option<usize>,
    pub(super) activation: Option<Activation>,
    pub(super) eps: Option<f32>,
    pub(super) causal: Option<bool>,
    pub(super) pool: Option<TextPool>,
    pub(super) end: Option<End>,
    pub(super) tokenizer: Option<TokenizerKind>,
}

/// An object of a configuration, with the file that it is of.
struct Object<'a> {
    path: PathBuf,
    name: &'static str,
    value: &'a Value,
}

impl Object<'_> {
    fn entry(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    fn error(&self, key: &str, what: &str) -> Error {
        let value = self.entry(key).map_or("null".into(), ToString::to_string);
        Error::checkpoint(&self.path, format!("{}.{key} is {}{what}", self.name, quote(&value)))
    }

    /// The value of `key`, or `usual`.
    fn or<T>(&self, key: &str, usual: T, read: impl Fn(&Value) -> Option<T>, what: &str) -> Result<T> {
        self.entry(key).map_or(Ok(usual), |value| read(value).ok_or_else(|| self.error(key, what)))
    }

    fn whole(&self, key: &str, usual: u64) -> Result<u64> {
        self.or(key, usual, Value::as_u64, ", expected a whole number")
    }

    fn flag(&self, key: &str) -> Result<bool> {
        self.or(key, false, Value::as_bool, ", expected true or false")
    }

    fn eps(&self, key: &str, value: Option<&Value>, usual: f32) -> Result<f32> {
        let Some(value) = value else { return Ok(usual) };
        let eps = value.as_f64().filter(|eps| *eps > 0.0 && eps.is_finite());
        eps.map(|eps| eps as f32).ok_or_else(|| self.error(key, ", expected a number above 0"))
    }
}

impl TextFacts {
    /// Of the configuration beside `checkpoint`, if there is one, of an OpenCLIP model.
    pub(super) fn open_clip(checkpoint: &Checkpoint) -> Result<Option<TextFacts>> {
        let Some(config) = OpenClipConfig::of(checkpoint)? else { return Ok(None) };
        let nothing = json!({});
        let text = Object { path: config.path().into(), name: "text_cfg", value: config.text().unwrap_or(&nothing) };
        let entries = text.value.as_object().ok_or_else(|| Error::checkpoint(&text.path, "text_cfg is no object"))?;
        if let Some(fault) = OPEN_CLIP.fault_in("text_cfg.", entries) {
            return Err(Error::checkpoint(&text.path, fault));
        }
        let argument = |key: &str, inner: &str| match text.entry(key) {
            None => Ok(None),
            Some(value) => match value.as_object().filter(|entries| entries.keys().all(|own| own == inner)) {
                Some(entries) => Ok(entries.get(inner)),
                None => Err(text.error(key, ": not supported yet")),
            },
        };
        let approximate = argument("act_kwargs", "approximate")?.map(|value| value.as_str().unwrap_or_default());
        let activation = match (config.quick_gelu()?, approximate) {
            (true, None) => Activation::QuickGelu,
            (false, None | Some("none")) => Activation::Gelu,
            (false, Some("tanh")) => Activation::GeluTanh,
            _ => return Err(text.error("act_kwargs", ": not supported")),
        };
        let pool = match text.entry("pool_type").map(|value| value.as_str().unwrap_or_default()) {
            None | Some("argmax") => (TextPool::End, End::Highest),
            Some("eos") => (TextPool::End, End::Token(text.whole("eos_id", 2)? as u32)),
            Some("first") => (TextPool::First, End::Highest),
            Some("last") => (TextPool::Last, End::Highest),
            Some(_) => return Err(text.error("pool_type", ": not supported, only argmax, eos, first and last")),
        };
        let kwargs = text.entry("tokenizer_kwargs");
        let said = kwargs.and_then(|kwargs| kwargs.get("clean")).map(|value| value.as_str().unwrap_or_default());
        let clean = |usual: Clean| match said {
            None => Ok(usual),
            Some(name) => Clean::open_clip(name).ok_or_else(|| text.error("tokenizer_kwargs", ": not supported yet")),
        };
        let own = text.entry("hf_tokenizer_name").and_then(Value::as_str).is_none_or(str::is_empty);
        let tokenizer = match own {
            true => TokenizerKind::OpenAi(clean(Clean::Lower)?),
            false => file_kind(checkpoint, clean(Clean::Whitespace)?, None)?,
        };
        Ok(Some(TextFacts {
            heads: Some(text.whole("heads", 8)? as usize),
            activation: Some(activation),
            eps: Some(text.eps("norm_kwargs", argument("norm_kwargs", "eps")?, 1e-5)?),
            causal: Some(!text.flag("no_causal_mask")?),
            pool: Some(pool.0),
            end: Some(pool.1),
            tokenizer: Some(tokenizer),
        }))
    }

    /// The same of a model of transformers, with its class's defaults for missing entries: CLIP's or SigLIP's.
    pub(super) fn transformers(checkpoint: &Checkpoint, siglip: bool) -> Result<TextFacts> {
        let (heads, act, eps) = if siglip { (12, "gelu_pytorch_tanh", 1e-6) } else { (8, "quick_gelu", 1e-5) };
        let root = checkpoint.config();
        let inner = |key: &str| root?.get(key)?.as_object();
        // As transformers merges them: what the dict says wins.
        let own = match (inner("text_config"), inner("text_config_dict")) {
            (None, None) => root.cloned().unwrap_or_else(|| json!({})),
            (config, dict) => {
                let entries = config.into_iter().chain(dict).flatten();
                Value::Object(entries.map(|(key, value)| (key.clone(), value.clone())).collect())
            }
        };
        let path = checkpoint.config_path().unwrap_or(checkpoint.path()).to_path_buf();
        let config = Object { path, name: "text_config", value: &own };
        let activation = match config.entry("hidden_act").map_or(act, |value| value.as_str().unwrap_or_default()) {
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_pytorch_tanh" | "gelu_new" | "gelu_python_tanh" => Activation::GeluTanh,
            "quick_gelu" => Activation::QuickGelu,
            _ => return Err(config.error("hidden_act", ": not supported, only gelu, gelu_pytorch_tanh, quick_gelu")),
        };
        // Configurations before transformers 4.31 name another token, and mean the highest.
        let end = match config.whole("eos_token_id", 49_407)? {
            2 => End::Highest,
            token => End::Token(token as u32),
        };
        let clean = if siglip { siglip_cleaning(checkpoint)? } else { Clean::Nothing };
        let pad = config.whole("pad_token_id", 1)? as u32;
        Ok(TextFacts {
            heads: Some(config.whole("num_attention_heads", heads)? as usize),
            activation: Some(activation),
            eps: Some(config.eps("layer_norm_eps", config.entry("layer_norm_eps"), eps)?),
            causal: Some(!siglip),
            pool: Some(if siglip { TextPool::Last } else { TextPool::End }),
            end: Some(end),
            tokenizer: Some(file_kind(checkpoint, clean, Some(pad))?),
        })
    }
}

/// `tokenizer_config.json` beside a checkpoint.
fn tokenizer_config(checkpoint: &Checkpoint) -> Result<Option<(PathBuf, Value)>> {
    let path = checkpoint.path().with_file_name("tokenizer_config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let value = parse(&path, &read_bytes(&path)?)?;
    Ok(Some((path, value)))
}

/// A tokenizer's file, with what the one beside it says of padding.
fn file_kind(checkpoint: &Checkpoint, clean: Clean, pad_id: Option<u32>) -> Result<TokenizerKind> {
    let config = tokenizer_config(checkpoint)?;
    let said = |key: &str| config.as_ref().and_then(|(_, value)| value.get(key));
    // A token is its text, or an object with it.
    let pad = said("pad_token").and_then(|pad| pad.as_str().or_else(|| pad.get("content")?.as_str()));
    let left = said("padding_side").and_then(Value::as_str) == Some("left");
    Ok(TokenizerKind::File { clean, pad: pad.map(String::from), pad_id, left })
}

/// SigLIP's tokenizer takes punctuation away and SigLIP 2's, Gemma's, does not; which it is, its class tells.
fn siglip_cleaning(checkpoint: &Checkpoint) -> Result<Clean> {
    let config = tokenizer_config(checkpoint)?;
    let class = config.as_ref().and_then(|(_, value)| value.get("tokenizer_class")).and_then(Value::as_str);
    Ok(match class {
        Some(class) if class.starts_with("Gemma") || class.starts_with("Siglip2") => Clean::LowerCase,
        _ => Clean::Siglip,
    })
}
