//! The hot kernels: those in which steps spend their time, each in the variant that GPUs run by default. They are the rows of
//! the table in docs/compilers.md.

use std::collections::BTreeSet;
use std::error::Error;

use crate::variants::ShaderVariant;

/// A row for each of `entries`: the first variant whose appended text has all of `tail` and whose constants are these.
struct Hot {
    shader: &'static str,
    entries: &'static [&'static str],
    /// The text behind `shader::entry` in the row's name.
    name: &'static str,
    tail: &'static [&'static str],
    constants: &'static [(&'static str, f64)],
}

const FORWARD4: &[&str] = &["forward_vec4"];
const PRODUCTS4: &[&str] = &["forward_vec4", "backward_input_vec4", "backward_weight_vec4"];
const CONVOLUTIONS: &[&str] = &["forward", "backward_input", "backward_weight"];
const ATTENTION: &[&str] = &["forward", "backward_query", "backward_key"];
const LANES: &[(&str, f64)] = &[("WG", 64.0)];
const NORM32: &[&str] = &["elem = vec4f", "loaded4 = vec4<f32>", "ONE_SUBGROUP = false"];
const NORM16: &[&str] = &["elem = vec4f", "loaded4 = vec4<f16>", "ONE_SUBGROUP = false"];
const TRAINED: &[(&str, f64)] = &[("WG", 64.0), ("TRAIN", 1.0)];
const PRODUCT: &[(&str, f64)] = &[("ACCUMULATE", 0.0), ("HAS_BIAS", 1.0)];

const fn hot(
    shader: &'static str,
    entries: &'static [&'static str],
    name: &'static str,
    tail: &'static [&'static str],
    constants: &'static [(&'static str, f64)],
) -> Hot {
    Hot { shader, entries, name, tail, constants }
}

/// In the order of the table.
const HOT: &[Hot] = &[
    hot("matmul", PRODUCTS4, "64 f32", &["operand = f32", "TILE = 64u"], PRODUCT),
    hot("matmul", FORWARD4, "64 f16", &["operand = f16", "result = f16", "TILE = 64u"], PRODUCT),
    hot("matmul", &["forward"], "64 f32", &["operand = f32", "TILE = 64u"], PRODUCT),
    hot("matmul", PRODUCTS4, "128 f32", &["operand = f32", "TILE = 128u"], PRODUCT),
    hot("matmul", FORWARD4, "128 f16", &["operand = f16", "result = f16", "TILE = 128u"], PRODUCT),
    hot("matmul_subgroup", PRODUCTS4, "f32", &["operand = f32"], PRODUCT),
    hot("matmul_subgroup", FORWARD4, "f16", &["operand = f16", "result = f16"], PRODUCT),
    hot("matmul_cooperative", PRODUCTS4, "16×16×16", &["CM = 16u", "result = f16"], PRODUCT),
    hot("matmul_cooperative", FORWARD4, "8×16×16", &["CM = 8u", "CN = 16u", "result = f16"], PRODUCT),
    hot("matmul_cooperative", FORWARD4, "8×8×16", &["CM = 8u", "CN = 8u", "CK = 16u", "result = f16"], PRODUCT),
    hot("conv2d", CONVOLUTIONS, "64 f32", &["stored = f32", "TILE = 64u"], &[]),
    hot("conv2d", &["forward"], "64 f16", &["stored = f16", "TILE = 64u"], &[]),
    hot("conv2d", CONVOLUTIONS, "128 f32", &["stored = f32", "TILE = 128u"], &[]),
    hot("conv2d", &["forward"], "128 f16", &["stored = f16", "TILE = 128u"], &[]),
    hot("conv2d_subgroup", CONVOLUTIONS, "f32", &["stored = f32"], &[]),
    hot("conv2d_cooperative", CONVOLUTIONS, "16×16×16", &["CM = 16u"], &[]),
    hot("conv2d_cooperative", &["forward"], "8×16×16", &["CM = 8u", "CN = 16u"], &[]),
    hot("attention", ATTENTION, "64 f32", &["HD = 64u", "vec4<f32>"], &[]),
    hot("attention", ATTENTION, "80 f32", &["HD = 80u", "vec4<f32>"], &[]),
    hot("attention", ATTENTION, "96 f32", &["HD = 96u", "vec4<f32>"], &[]),
    hot("attention", ATTENTION, "128 f32", &["HD = 128u", "vec4<f32>"], &[]),
    hot("attention", ATTENTION, "64 f16", &["HD = 64u", "vec4<f16>"], &[]),
    hot("attention", ATTENTION, "80 f16", &["HD = 80u", "vec4<f16>"], &[]),
    hot("attention", ATTENTION, "96 f16", &["HD = 96u", "vec4<f16>"], &[]),
    hot("attention", ATTENTION, "128 f16", &["HD = 128u", "vec4<f16>"], &[]),
    hot("attention_cooperative", ATTENTION, "64 16×16×16", &["HD = 64u", "CM = 16u"], &[]),
    hot("attention_cooperative", ATTENTION, "80 16×16×16", &["HD = 80u", "CM = 16u"], &[]),
    hot("attention_cooperative", ATTENTION, "128 16×16×16", &["HD = 128u", "CM = 16u"], &[]),
    hot("attention_cooperative", ATTENTION, "64 8×16×16", &["HD = 64u", "CM = 8u", "CN = 16u"], &[]),
    hot("attention_cooperative", ATTENTION, "64 8×8×16", &["HD = 64u", "CM = 8u", "CN = 8u", "CK = 16u"], &[]),
    hot(
        "attention_pool",
        &["forward", "backward_query", "backward_key"],
        "f32",
        &["stored = f32", "ONE_SUBGROUP = false"],
        LANES,
    ),
    hot(
        "layer_norm",
        &["forward", "backward_input", "backward_params"],
        "f32",
        &["elem = vec4f", "stored = vec4f", "ONE_SUBGROUP = false"],
        &[],
    ),
    hot(
        "layer_norm",
        &["forward", "backward_input"],
        "f16",
        &["elem = vec4f", "stored = vec4<f16>", "ONE_SUBGROUP = false"],
        &[],
    ),
    hot("batch_norm", &["statistics"], "f32", NORM32, TRAINED),
    hot("batch_norm", &["forward"], "f32", NORM32, &[("WG", 64.0), ("TRAIN", 1.0), ("ACT", 1.0), ("SHORTCUT", 1.0)]),
    hot("batch_norm", &["backward_partials"], "f32", NORM32, &[("WG", 64.0), ("TRAIN", 1.0), ("RELU", 1.0)]),
    hot("batch_norm", &["backward_params"], "f32", NORM32, TRAINED),
    hot("batch_norm", &["backward_input"], "f32", NORM32, &[("WG", 64.0), ("TRAIN", 1.0), ("RELU", 1.0)]),
    hot("batch_norm", &["forward"], "f16", NORM16, &[("WG", 64.0), ("TRAIN", 1.0), ("ACT", 1.0), ("SHORTCUT", 1.0)]),
    hot(
        "batch_norm",
        &["backward_partials", "backward_input"],
        "f16",
        NORM16,
        &[("WG", 64.0), ("TRAIN", 1.0), ("RELU", 1.0)],
    ),
    hot(
        "batch_norm",
        &["forward"],
        "SiLU f32",
        NORM32,
        &[("WG", 64.0), ("TRAIN", 1.0), ("ACT", 3.0), ("SHORTCUT", 0.0)],
    ),
    hot(
        "batch_norm",
        &["backward_partials_curved", "backward_input_curved"],
        "SiLU f32",
        NORM32,
        &[("WG", 64.0), ("TRAIN", 1.0), ("ACT", 3.0)],
    ),
    hot("gelu", &["forward", "backward"], "f32", &["KIND = 0u", "elem = vec4f"], LANES),
    hot("swiglu", &["forward", "backward"], "f32", &["elem = vec4f", "stored = vec4f"], LANES),
    hot("rope", &["forward"], "f32", &["elem = vec4f"], &[("ROTATE", 1.0), ("BIASED", 0.0), ("HALVES", 0.0)]),
    hot(
        "rms_norm",
        &["forward", "backward_input", "backward_params"],
        "f32",
        &["elem = vec4f", "stored = vec4f", "ONE_SUBGROUP = false"],
        &[],
    ),
    hot(
        "depthwise",
        &["forward", "backward_input", "backward_weight"],
        "7 f32",
        &["elem = f32", "loaded = f32"],
        &[("WG", 64.0), ("K", 7.0)],
    ),
    hot("depthwise", &["forward"], "7 f16", &["elem = f32", "loaded = f16"], &[("WG", 64.0), ("K", 7.0)]),
    hot("depthwise", &["forward"], "3 f32", &["elem = f32", "loaded = f32"], &[("WG", 64.0), ("K", 3.0)]),
    hot(
        "depthwise",
        &["forward_any", "backward_input_any", "backward_weight_any"],
        "f32",
        &["elem = f32", "loaded = f32"],
        LANES,
    ),
    hot("depthwise_strided", CONVOLUTIONS, "3 f32", &["elem = f32", "loaded = f32"], &[("WG", 64.0), ("K", 3.0)]),
    hot("depthwise_strided", &["forward"], "5 f32", &["elem = f32", "loaded = f32"], &[("WG", 64.0), ("K", 5.0)]),
    hot("conv2d_grouped", CONVOLUTIONS, "f32", &["f32"], LANES),
    hot("unfold", &["forward", "backward"], "f32", &[], LANES),
    hot("unfold_quads", &["forward", "backward"], "f32", &["loaded4 = vec4<f32>", "stored4 = vec4<f32>"], LANES),
    hot(
        "grn",
        &["squares", "forward", "products", "backward_input"],
        "f32",
        &["elem = vec4f", "stored = vec4f"],
        LANES,
    ),
    hot("gate", &["forward", "backward"], "f32", &["elem = vec4f", "loaded4 = vec4<f32>"], LANES),
    hot("silu", &["forward", "backward_input"], "f32", &["elem = vec4f", "stored = vec4f"], LANES),
    hot("hard_swish", &["forward", "backward_input"], "f32", &["elem = vec4f", "stored = vec4f"], LANES),
    hot("residual", &["forward_scaled", "backward_input"], "f32", &["elem = vec4f"], LANES),
    hot("column_sum", &["partial", "forward"], "f32", &["elem = vec4f", "stored = vec4f"], &[]),
    hot("relu", &["forward", "backward"], "f32", &["elem = vec4f", "stored = vec4f"], LANES),
    hot("max_pool", &["forward", "backward"], "f32", &["elem = vec4f", "stored = vec4f"], LANES),
    hot("cross_entropy", &["forward"], "f32", &["ONE_SUBGROUP = false"], LANES),
    hot("binary_cross_entropy", &["forward"], "f32", &["ONE_SUBGROUP = false"], LANES),
    hot("distill", &["features", "logits"], "f32", &["ONE_SUBGROUP = false"], LANES),
    hot("dropout", &["values", "images"], "f32", &["elem = vec4f", "stored = vec4f"], LANES),
    hot("adamw", &["forward"], "f32", &[], LANES),
    hot("sgd", &["forward"], "f32", &[], LANES),
    hot("norm_clip", &["squares", "clip"], "f32", &["ONE_SUBGROUP = false"], LANES),
    hot("sam", &["climb"], "f32", &["ONE_SUBGROUP = false"], LANES),
    hot("mars", &["distances", "project", "dots", "step"], "f32", &["vec4", "ONE_SUBGROUP = false"], LANES),
    hot("ftp", &["learn", "apply"], "f32", &["vec4", "ONE_SUBGROUP = false"], LANES),
    hot("digrap", &["measure", "learn", "apply"], "f32", &["vec4", "ONE_SUBGROUP = false"], LANES),
    hot("spd", &["settle", "apply"], "f32", &["vec4", "ONE_SUBGROUP = false"], LANES),
];

/// Whether a row shows the kernel of this name, `shader::entry`.
pub(crate) fn has(kernel: &str) -> bool {
    HOT.iter().any(|hot| hot.entries.iter().any(|entry| kernel == format!("{}::{entry}", hot.shader)))
}

/// Which rows have found their variant.
#[derive(Default)]
pub(crate) struct Rows {
    found: BTreeSet<String>,
}

impl Rows {
    /// The rows that show `variant`: those that it is the first to match.
    pub(crate) fn of(&mut self, variant: &ShaderVariant) -> Vec<String> {
        let matches = |hot: &&Hot| {
            hot.shader == variant.shader().name
                && hot.entries.contains(&variant.entry)
                && hot.tail.iter().all(|text| variant.tail.contains(text))
                && hot.constants.iter().all(|(name, value)| variant.constants.get(*name) == Some(value))
        };
        let names = HOT.iter().filter(matches).map(|hot| hot.row(variant.entry));
        names.filter(|name| self.found.insert(name.clone())).collect()
    }

    /// Errors if a row has found no variant: the list of variants has changed and this one has not.
    pub(crate) fn check(&self) -> Result<(), Box<dyn Error>> {
        let all = HOT.iter().flat_map(|hot| hot.entries.iter().map(|entry| hot.row(entry)));
        let missing: Vec<String> = all.filter(|name| !self.found.contains(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!("no variant matches {}: adapt tools/dump_shaders/hot.rs", missing.join(", ")).into())
    }
}

impl Hot {
    fn row(&self, entry: &str) -> String {
        format!("{}::{entry} {}", self.shader, self.name)
    }
}
