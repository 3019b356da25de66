//! transformers' `config.json` (what the model is) and, beside it, its processor's (how its input is made).

use serde_json::{Map, Value, json};

use super::Note;
use super::file::Checkpoint;
use super::json::quote;
use super::known::Keys;
use super::processor_config::ProcessorConfig;
use super::task::{CONFIG_THRESHOLDS, PROBLEM_TYPE};
use crate::data::preprocess::Preprocess;
use crate::error::{Error, Result};
use crate::shapes::Activation;

/// What every configuration of transformers may have besides, without effect on an image tower.
const COMMON: Keys = Keys {
    followed: &["id2label", "model_type", CONFIG_THRESHOLDS, "vision_config"],
    idle: &[
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_commit_hash",
        "_name_or_path",
        "_num_labels",
        "add_cross_attention",
        "architectures",
        "attn_implementation",
        "bad_words_ids",
        "begin_suppress_tokens",
        "bos_token_id",
        "chunk_size_feed_forward",
        "cross_attention_hidden_size",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "dtype",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "eos_token_id",
        "experts_implementation",
        "exponential_decay_length_penalty",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "gradient_checkpointing",
        "initializer_factor",
        "initializer_range",
        "is_decoder",
        "is_encoder_decoder",
        "label2id",
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_labels",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "pad_token_id",
        "prefix",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict",
        "return_dict_in_generate",
        "sep_token_id",
        "suppress_tokens",
        "task_specific_params",
        "temperature",
        "tf_legacy_loss",
        "tie_encoder_decoder",
        "tie_word_embeddings",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "typical_p",
        "use_bfloat16",
        "use_cache",
    ],
    // A regression's outputs are numbers, not classes.
    only: &[
        (PROBLEM_TYPE, &["\"single_label_classification\"", "\"multi_label_classification\""]),
        ("pruned_heads", &["{}"]),
    ],
};

/// What a model of texts and images has around its image tower.
const WHOLE: Keys = Keys {
    followed: &["projection_dim", "vision_config_dict"],
    idle: &["logit_scale_init_value", "text_config", "text_config_dict"],
    only: &[],
};

/// What a family computes of transformers': its models' types, their keys, and what their classes take if nothing is written.
pub(super) struct Model {
    pub(super) types: &'static [&'static str],
    pub(super) keys: Keys,
    pub(super) heads: u32,
    pub(super) activation: &'static str,
    pub(super) eps: f64,
}

impl Model {
    /// The defaults under their keys.
    pub(super) fn usual(&self) -> Value {
        json!({"num_attention_heads": self.heads, "hidden_act": self.activation, "layer_norm_eps": self.eps})
    }
}

/// Where the image tower's entries stand in a whole model's, the first that has one: of an older form, and of the present one.
const TOWERS: [&str; 2] = ["vision_config_dict", "vision_config"];

/// A view of both files; without one, all methods say "not there".
pub(super) struct TransformersConfig<'a> {
    checkpoint: &'a Checkpoint,
    root: &'a Value,
    usual: Value,
    processor: Option<ProcessorConfig>,
}

impl<'a> TransformersConfig<'a> {
    /// Beside `checkpoint`, of a class that has `usual` for missing entries: transformers leaves out of a tower's
    /// configuration what equals its class's default.
    pub(super) fn of(checkpoint: &'a Checkpoint, usual: Value) -> Result<Self> {
        let root = checkpoint.config().unwrap_or(&Value::Null);
        // Beside a file of another name it may belong to something else, as config.json may.
        let processor = checkpoint.config_path().map(ProcessorConfig::beside).transpose()?.flatten();
        Ok(Self { checkpoint, root, usual, processor })
    }

    fn error(&self, what: impl Into<String>) -> Error {
        Error::checkpoint(self.checkpoint.config_path().unwrap_or(self.checkpoint.path()), what)
    }

    /// Whether there is a `config.json`.
    pub(super) fn written(&self) -> bool {
        self.root.is_object()
    }

    /// An entry about the image tower that is not null.
    pub(super) fn entry(&self, key: &str) -> Option<&Value> {
        let usual = || self.usual.get(key).filter(|_| self.root.is_object());
        let known = |tower: &'a Value| tower.get(key).filter(|v| !v.is_null());
        let towers = TOWERS.iter().filter_map(|name| self.root.get(name).filter(|v| v.is_object()));
        let mut towers = towers.peekable();
        match towers.peek() {
            Some(_) => towers.find_map(known).or_else(usual),
            None => known(self.root).or_else(usual),
        }
    }

    /// Checks that the tensors are of what the configuration says under `key`, or by default.
    ///
    /// # Errors
    /// Where it is written that they are not: the message names the key and its value.
    pub(super) fn agree(&self, key: &str, usual: bool, found: bool) -> Result<()> {
        if !self.written() {
            return Ok(());
        }
        let wrong = |value: &str| self.error(format!("{key} is {value}, which is not what the tensors are of"));
        match self.entry(key).map(|value| (value, value.as_bool())) {
            None if usual != found => Err(wrong(&format!("not given, and {usual} by default"))),
            Some((value, told)) if told != Some(found) => Err(wrong(&quote(&value.to_string()))),
            _ => Ok(()),
        }
    }

    /// The same of a layer scale, which a model has if its first value, under `key`, is above 0.
    pub(super) fn agree_scale(&self, key: &str, found: bool) -> Result<()> {
        match self.entry(key).map(|value| (value, value.as_f64().is_some_and(|value| value > 0.0))) {
            Some((value, told)) if told != found => {
                Err(self.error(format!("{key} is {}, which is not what the tensors are of", quote(&value.to_string()))))
            }
            _ => Ok(()),
        }
    }

    /// A finite number above 0.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.entry(key) else { return Ok(None) };
        let wrong = || self.error(format!("{key} is {}, expected a number above 0", quote(&value.to_string())));
        value.as_f64().filter(|number| number.is_finite() && *number > 0.0).map(Some).ok_or_else(wrong)
    }

    /// An error where gated MLPs have another activation than SiLU.
    pub(super) fn check_gate(&self) -> Result<()> {
        match self.entry("hidden_act").filter(|value| !matches!(value.as_str(), Some("silu" | "swish"))) {
            Some(act) => {
                Err(self
                    .error(format!("hidden_act is {}, gated MLPs are supported with silu", quote(&act.to_string()))))
            }
            None => Ok(()),
        }
    }

    /// Blocks, and where that is written.
    pub(super) fn depth(&self) -> Option<(u64, &'static str)> {
        Some((self.entry("num_hidden_layers")?.as_u64()?, "num_hidden_layers"))
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
        Ok(self.number("layer_norm_eps")?.map(|eps| eps as f32))
    }

    /// Height and width of the input, in `image_size` a number or a pair.
    pub(super) fn input_size(&self) -> Option<[u64; 2]> {
        match self.entry("image_size")? {
            Value::Array(pair) => Some([pair.first()?.as_u64()?, pair.get(1)?.as_u64()?]),
            size => size.as_u64().map(|size| [size; 2]),
        }
    }

    /// Checks that the tower is of one of `types` (none: of any), and that every key is understood.
    ///
    /// # Errors
    /// Names the first key that is not, and its value.
    pub(super) fn check(&self, types: &[&str], keys: &Keys) -> Result<()> {
        let Some(root) = self.root.as_object() else { return Ok(()) };
        let towers: Vec<_> = TOWERS.iter().filter_map(|name| Some((*name, root.get(*name)?.as_object()?))).collect();
        for entries in towers.iter().map(|(_, entries)| *entries).chain([root]) {
            let own_type = entries.get("model_type").and_then(Value::as_str);
            if let Some(other) = own_type.filter(|own| !types.contains(own)) {
                let types = types.join(", ");
                return Err(self.error(format!("model_type is {}: not supported here, only {types}", quote(other))));
            }
        }
        let fault_in = |place: &str, entries: &Map<String, Value>, keys: &Keys| {
            entries.iter().find_map(|(key, value)| match COMMON.lists(key) {
                true => COMMON.fault(place, key, value),
                false => keys.fault(place, key, value),
            })
        };
        let in_towers = towers.iter().find_map(|(name, entries)| fault_in(&format!("{name}."), entries, keys));
        let fault = in_towers.or_else(|| fault_in("", root, if towers.is_empty() { keys } else { &WHOLE }));
        match fault {
            Some(fault) => Err(self.error(fault)),
            None => self.processor.as_ref().map_or(Ok(()), ProcessorConfig::check),
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

    /// The input; missing entries are as in `usual`.
    pub(super) fn preprocess(&self, usual: Preprocess, notes: &mut Vec<Note>) -> Result<Option<Preprocess>> {
        let grey = self.entry("num_channels").and_then(Value::as_u64) == Some(1);
        let usual = Preprocess { grey, ..usual };
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
