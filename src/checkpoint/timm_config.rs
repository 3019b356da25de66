//! timm's `config.json`: `architecture`, `model_args` (what differs from the architecture's defaults) and
//! `pretrained_cfg` (how the input is made, `timm_input.rs`). Older files have the latter's entries at the top.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::file::Checkpoint;
use super::json::quote;
use super::known::{Keys, same};
use super::timm_table::{self, Architecture, RELEASE};
use crate::error::{Error, Result};
use crate::model::config::Pool;
use crate::shapes::Activation;

/// A class of timm's that a family computes.
pub(super) struct Class {
    /// Its name in Python.
    pub(super) name: &'static str,
    /// Its arguments. Their defaults are computed whatever stands here.
    pub(super) keys: Keys,
}

/// Widths that timm's models have with 16 heads only: so400m, huge, giant, gigantic.
const WIDTHS_OF_16_HEADS: [usize; 4] = [1152, 1280, 1408, 1664];

/// A view of the file; all methods say "not there" if there is no file.
pub(super) struct TimmConfig {
    path: PathBuf,
    pub(super) root: Value,
    /// What stands before a key of `model_args` in messages.
    place: &'static str,
    /// The architecture's name without the tag; "" without one.
    name: String,
    built: Option<Architecture>,
}

impl TimmConfig {
    pub(super) fn of(checkpoint: &Checkpoint) -> Self {
        let root = checkpoint.config().cloned().unwrap_or(Value::Null);
        Self::new(checkpoint.config_path().unwrap_or(checkpoint.path()).into(), root, "model_args.")
    }

    /// A configuration in timm's form that stands in another one, which is the file at `path`.
    pub(super) fn new(path: PathBuf, root: Value, place: &'static str) -> Self {
        let mut config = Self { path, root, place, name: String::new(), built: None };
        let name = config.input("architecture").and_then(Value::as_str).unwrap_or("");
        config.name = name.split('.').next().unwrap_or(name).to_string();
        config.built = timm_table::architecture(&config.name);
        config
    }

    /// An error about the file.
    pub(super) fn error(&self, what: impl Into<String>) -> Error {
        Error::checkpoint(&self.path, what)
    }

    /// An entry of `model_args` that is not null.
    fn arg(&self, key: &str) -> Option<&Value> {
        self.root.get("model_args")?.get(key).filter(|v| !v.is_null())
    }

    /// An entry of `pretrained_cfg`, or of the top in older files.
    pub(super) fn input(&self, key: &str) -> Option<&Value> {
        self.root.get("pretrained_cfg").and_then(|c| c.get(key)).or_else(|| self.root.get(key)).filter(|v| !v.is_null())
    }

    /// The class that the architecture builds; none if nothing names one.
    ///
    /// # Errors
    /// Where the architecture is none of timm's.
    pub(super) fn class(&self) -> Result<Option<&str>> {
        match &self.built {
            Some(built) => Ok(Some(&built.class)),
            None if self.name.is_empty() => Ok(None),
            None => Err(self.error(format!(
                "architecture {} is none of timm {RELEASE}'s, so what it computes can't be told; without the \
                 configuration beside the file, flags say what the tensors do not",
                quote(&self.name)
            ))),
        }
    }

    /// An error for an architecture that none of `classes` computes.
    pub(super) fn other(&self, class: &str) -> Error {
        self.error(format!("architecture {} is timm's {class}: not supported yet", self.name))
    }

    /// Checks that the model is one of `classes`, with arguments that it computes. Without an architecture it is the first of
    /// them.
    ///
    /// # Errors
    /// Where it is not: the message names the argument and its value.
    pub(super) fn check(&self, classes: &[Class]) -> Result<()> {
        let name = self.class()?;
        let Some(class) = classes.iter().find(|class| name.is_none_or(|name| name == class.name)) else {
            return match name {
                Some(name) if !classes.is_empty() => Err(self.other(name)),
                _ => Ok(()),
            };
        };
        let defaults = timm_table::defaults(class.name).unwrap_or_default();
        let written = match self.root.get("model_args") {
            None | Some(Value::Null) => &Map::new(),
            Some(Value::Object(written)) => written,
            Some(other) => {
                return Err(self.error(format!("model_args is {}, expected an object", quote(&other.to_string()))));
            }
        };
        let fault = |place: &str, key: &str, value: &Value| match defaults.get(key) {
            // timm leaves out keys that are null.
            _ if value.is_null() => None,
            Some(usual) if same(usual, value) => None,
            Some(_) if !class.keys.lists(key) => {
                Some(format!("{place}{key} is {}: not supported yet", quote(&value.to_string())))
            }
            _ => class.keys.fault(place, key, value),
        };
        if let Some(fault) = written.iter().find_map(|(key, value)| fault(self.place, key, value)) {
            return Err(self.error(fault));
        }
        let built = self.built.iter().flat_map(|built| &built.args).filter(|(key, _)| self.arg(key).is_none());
        match built.into_iter().find_map(|(key, value)| fault("", key, value)) {
            Some(fault) => Err(self.error(format!("architecture {}: {fault}", self.name))),
            None => Ok(()),
        }
    }

    /// An argument of the model: from `model_args`, the architecture, or the class's default; and where it is written. Null is
    /// no value.
    pub(super) fn value(&self, key: &str) -> Option<(Value, String)> {
        if let Some(value) = self.arg(key) {
            return Some((value.clone(), format!("{}{key}", self.place)));
        }
        let built = self.built.as_ref()?;
        let usual = || timm_table::defaults(&built.class)?.remove(key);
        let value = built.args.get(key).cloned().or_else(usual).filter(|v| !v.is_null())?;
        Some((value, format!("architecture {}", self.name)))
    }

    /// Whether it names an architecture of timm's.
    pub(super) fn is_built(&self) -> bool {
        self.built.is_some()
    }

    /// Whether the architecture is of this class.
    pub(super) fn is_class(&self, class: &str) -> bool {
        self.built.as_ref().is_some_and(|built| built.class == class)
    }

    /// An argument that is true, false or not there.
    pub(super) fn choice(&self, key: &str) -> Result<Option<bool>> {
        let Some((value, place)) = self.value(key) else { return Ok(None) };
        let wrong = || self.error(format!("{key} is {} ({place}), expected true or false", quote(&value.to_string())));
        value.as_bool().map(Some).ok_or_else(wrong)
    }

    /// The same; false if it is not there.
    pub(super) fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.choice(key)?.unwrap_or(false))
    }

    /// An argument that is a string.
    pub(super) fn word(&self, key: &str) -> Option<String> {
        self.value(key)?.0.as_str().map(str::to_string)
    }

    /// An argument that is a finite number.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some((value, place)) = self.value(key) else { return Ok(None) };
        let wrong = || self.error(format!("{key} is {} ({place}), expected a number", quote(&value.to_string())));
        value.as_f64().map(Some).ok_or_else(wrong)
    }

    /// Whether norms are root mean square norms.
    pub(super) fn rms_norm(&self) -> bool {
        self.word("norm_layer").is_some_and(|name| name.to_ascii_lowercase().starts_with("rmsnorm"))
    }

    /// Whether blurs take the place of strides.
    pub(super) fn blurs(&self) -> bool {
        self.word("aa_layer").is_some_and(|name| name.to_ascii_lowercase().starts_with("blur"))
    }

    /// An entry of `model_args`, and its place.
    pub(super) fn written(&self, key: &str) -> Option<(Value, String)> {
        Some((self.arg(key)?.clone(), format!("{}{key}", self.place)))
    }

    /// Blocks, where `model_args` has them: what an architecture has by itself its own files fit.
    pub(super) fn depth(&self) -> Result<Option<(u64, &'static str)>> {
        let Some(value) = self.arg("depth") else { return Ok(None) };
        let wrong =
            || self.error(format!("model_args.depth is {}, expected a whole number", quote(&value.to_string())));
        value.as_u64().map(|depth| Some((depth, "model_args.depth"))).ok_or_else(wrong)
    }

    /// Heads, and where that is written.
    pub(super) fn heads(&self) -> Result<Option<(usize, String)>> {
        let Some((value, place)) = self.value("num_heads") else { return Ok(None) };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(heads) => Ok(Some((heads, place))),
            None => Err(self.error(format!("{place} is {}, expected a whole number", quote(&value.to_string())))),
        }
    }

    /// The activation, where it is written or follows from the architecture.
    pub(super) fn activation(&self) -> Result<Option<Activation>> {
        let Some((value, place)) = self.value("act_layer") else {
            return Ok(self.built.is_some().then_some(Activation::Gelu));
        };
        match value.as_str() {
            Some("gelu" | "GELU") => Ok(Some(Activation::Gelu)),
            Some("gelu_tanh") => Ok(Some(Activation::GeluTanh)),
            Some("quick_gelu") => Ok(Some(Activation::QuickGelu)),
            _ => {
                let value = quote(&value.to_string());
                Err(self.error(format!("act_layer is {value} ({place}), supported: gelu, gelu_tanh, quick_gelu")))
            }
        }
    }

    /// An error where gated MLPs have another activation than SiLU.
    pub(super) fn check_gate(&self) -> Result<()> {
        let silu = ["silu", "swish", "SiLU"];
        match self.value("act_layer").filter(|(act, _)| !silu.iter().any(|silu| *act == *silu)) {
            Some((act, place)) => {
                let act = quote(&act.to_string());
                Err(self.error(format!("act_layer is {act} ({place}), gated MLPs are supported with silu")))
            }
            None => Ok(()),
        }
    }

    /// The norms' epsilon: timm's own layers have 1e-6.
    pub(super) fn eps(&self) -> Result<Option<f32>> {
        let Some((value, place)) = self.value("norm_layer") else { return Ok(self.built.is_some().then_some(1e-6)) };
        let name = value.as_str().unwrap_or("");
        let lower = name.to_ascii_lowercase();
        let eps = match lower.strip_prefix("layernorm").or_else(|| lower.strip_prefix("rmsnorm")) {
            Some("") => Some(1e-6),
            Some(args) => args.strip_prefix("(eps=").and_then(|rest| rest.strip_suffix(')')?.parse().ok()),
            None => None,
        };
        let wrong = || self.error(format!("norm_layer is {} ({place}): not supported yet", quote(&value.to_string())));
        eps.map(Some).ok_or_else(wrong)
    }

    /// The pooling, where it is written.
    pub(super) fn pool(&self) -> Result<Option<Pool>> {
        // At the top stands the pooling of the model that was saved, which may have been changed since it was built.
        let (value, place) = match (self.arg("global_pool"), self.input("global_pool")) {
            (Some(arg), Some(top)) if arg != top => {
                let [arg, top] = [arg, top].map(|v| quote(&v.to_string()));
                return Err(
                    self.error(format!("global_pool is {top}, {}global_pool is {arg}: keep one of them", self.place))
                );
            }
            (None, Some(top)) => (top.clone(), String::from("global_pool")),
            _ => match self.value("global_pool") {
                Some(known) => known,
                None => return Ok(None),
            },
        };
        match value.as_str() {
            Some("token") => Ok(Some(Pool::Cls)),
            Some("avg") => Ok(Some(Pool::Mean)),
            Some("map") => Ok(Some(Pool::Attention)),
            _ => {
                let value = quote(&value.to_string());
                Err(self.error(format!("global_pool is {value} ({place}): not supported yet, only token, avg and map")))
            }
        }
    }

    /// Class names, where the file has one for each of `classes` outputs.
    pub(super) fn classes(&self, classes: usize) -> Option<Vec<String>> {
        let list = ["label_names", "labels", "id2label"].iter().find_map(|key| self.input(key))?;
        let name = |v: &Value| v.as_str().map(str::to_string);
        let names: Vec<String> = match list {
            Value::Array(names) => names.iter().map(name).collect::<Option<_>>()?,
            Value::Object(by_id) => {
                (0..by_id.len()).map(|i| name(by_id.get(&i.to_string())?)).collect::<Option<_>>()?
            }
            _ => return None,
        };
        // Names that transformers gives to outputs without one.
        let numbered = names.iter().enumerate().all(|(i, name)| *name == format!("LABEL_{i}"));
        (names.len() == classes && !numbered).then_some(names)
    }
}

/// timm's convention of 64 dimensions per head, and its exceptions among the large models.
pub(super) fn usual_heads(dim: usize) -> Option<usize> {
    if WIDTHS_OF_16_HEADS.contains(&dim) { Some(16) } else { dim.is_multiple_of(64).then_some(dim / 64) }
}
