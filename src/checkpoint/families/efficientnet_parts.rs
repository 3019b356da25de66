//! What timm's configuration and the tensors of an EfficientNet or a MobileNet tell of it.

use serde_json::Value;

use super::tensors::Tensors;
use crate::checkpoint::facts::Facts;
use crate::checkpoint::known::Keys;
use crate::checkpoint::timm_config::TimmConfig;
use crate::error::Result;
use crate::model::efficientnet_config::{AntiAlias, EfficientNetConfig, Mixed, MobileBlock, MobileHead, MobileKind};
use crate::ops::gate::Kind;
use crate::shapes::Pointwise;

/// The arguments of a block. The tensors tell widths and kernels.
const BLOCK: Keys = Keys {
    followed: &[
        "act_layer",
        "block_type",
        "dw_kernel_size",
        "dw_kernel_size_mid",
        "dw_kernel_size_start",
        "exp_kernel_size",
        "exp_ratio",
        "force_in_chs",
        "group_size",
        "kernel_size",
        "n",
        "noskip",
        "out_chs",
        "pw_act",
        "pw_kernel_size",
        "se_ratio",
        "skip",
        "stride",
    ],
    idle: &[],
    only: &[("dw_kernel_size_end", &["0"]), ("num_experts", &["0"]), ("s2d", &["0", "false"])],
};

/// The model, but for image size and head; nothing where no architecture is named.
pub(super) fn config(tensors: &Tensors, facts: &Facts) -> Result<Option<EfficientNetConfig>> {
    let (Facts::Timm(timm) | Facts::Trunk(_, timm)) = facts else { return Ok(None) };
    let Some((blocks, place)) = timm.value("block_args") else { return Ok(None) };
    let wrong = |what: &str| timm.error(format!("{place}: block_args: {what}"));
    let rows: Option<Vec<&Vec<Value>>> = blocks.as_array().and_then(|rows| rows.iter().map(Value::as_array).collect());
    let rows = rows.ok_or_else(|| wrong("expected a list of lists of blocks"))?;
    let activation = pointwise(timm, timm.value("act_layer"), Pointwise::Relu)?;
    let [width, channels, kernel, _] = tensors.dims::<4>("conv_stem.weight", "[width, channels, kernel, kernel]")?;
    let (mut stages, mut entering) = (Vec::new(), width);
    for (stage, row) in rows.into_iter().enumerate() {
        let mut own = Vec::new();
        for args in row {
            let Some(entries) = args.as_object() else { return Err(wrong("expected objects")) };
            let fault = BLOCK.fault_in(&format!("{place}: block_args."), entries);
            if let Some(fault) = fault {
                return Err(timm.error(fault));
            }
            for _ in 0..entries.get("n").and_then(Value::as_u64).unwrap_or(1) {
                let block = block(tensors, timm, args, (stage, own.len(), entering), activation)?;
                entering = block.out;
                own.push(block);
            }
        }
        stages.push(own);
    }
    let (gate, squeeze_activation) = squeeze(timm)?;
    let tail = match tensors.by_name.get("conv_head.weight").map(|info| info.shape.first().copied().unwrap_or(0)) {
        None => MobileHead::Mean,
        Some(width) if tensors.has("bn2.weight") => MobileHead::Conv { width },
        Some(width) => {
            let (bias, norm) = (tensors.has("conv_head.bias"), tensors.has("norm_head.weight"));
            MobileHead::Linear { width, bias, norm, flat: false }
        }
    };
    Ok(Some(EfficientNetConfig {
        image_size: 0,
        stem: [width, kernel],
        stages,
        tail,
        activation,
        gate,
        squeeze_activation,
        same: timm.value("pad_type").is_some_and(|(value, _)| value == "same"),
        anti_alias: match timm.word("aa_layer").as_deref() {
            None => AntiAlias::None,
            Some("blur" | "blurpool") => AntiAlias::Blur,
            Some("blurpc") => AntiAlias::BlurAmongZeros,
            Some(_) => AntiAlias::Average,
        },
        eps: eps(timm)?,
        momentum: 0.1,
        classes: 0,
        head_bias: false,
        normalize: false,
        grey: channels == 1,
    }))
}

fn block(
    tensors: &Tensors,
    timm: &TimmConfig,
    args: &Value,
    (stage, i, entering): (usize, usize, usize),
    usual: Pointwise,
) -> Result<MobileBlock> {
    let part = |part: &str| format!("blocks.{stage}.{i}.{part}");
    let name = |own: &str| part(own) + ".weight";
    let (mut mixed, mut group_size) = (Mixed::default(), 0);
    let shape = |part: &str| tensors.dims::<4>(&name(part), "four dimensions");
    let flag = |key: &str| args.get(key).and_then(Value::as_bool).unwrap_or(false);
    let written = args.get("block_type").and_then(Value::as_str).unwrap_or("");
    let optional = |part: &str| if tensors.has(&name(part)) { shape(part).map(|shape| shape[2]) } else { Ok(0) };
    let start = optional("dw_start.conv")?;
    let (kind, middle, out, kernel) = match written {
        "cn" => (MobileKind::Conv, shape("conv")?[0], shape("conv")?[0], shape("conv")?[2]),
        "ds" | "dsa" => (MobileKind::Separable, entering, shape("conv_pw")?[0], shape("conv_dw")?[2]),
        "ir" => {
            let [widen, depthwise, narrow] = [
                several(tensors, &part("conv_pw"))?,
                several(tensors, &part("conv_dw"))?,
                several(tensors, &part("conv_pwl"))?,
            ];
            mixed = mixture(&widen, &depthwise, &narrow).ok_or_else(|| {
                timm.error(format!("blocks.{stage}.{i} is mixed of more kernels than six: not supported yet"))
            })?;
            let rows = |shapes: &[[usize; 4]]| shapes.iter().map(|shape| shape[0]).sum();
            (MobileKind::Inverted, rows(&widen), rows(&narrow), depthwise[0][2])
        }
        "er" => {
            let [middle, inputs, kernel, _] = shape("conv_exp")?;
            if inputs == 0 || !entering.is_multiple_of(inputs) {
                let what = format!("has {inputs} inputs of each group, which do not divide {entering} channels");
                return Err(tensors.error(tensors.get(&name("conv_exp"))?, what));
            }
            group_size = if inputs == entering { 0 } else { inputs };
            (MobileKind::Fused, middle, shape("conv_pwl")?[0], kernel)
        }
        "uir" => {
            let kernel = optional("dw_mid.conv")?;
            (MobileKind::Universal, shape("pw_exp.conv")?[0], shape("pw_proj.conv")?[0], kernel)
        }
        other => return Err(timm.error(format!("block_type {other} of block_args: not supported yet"))),
    };
    if let Some(even) = mixed.kernels.into_iter().chain([kernel, start]).find(|kernel| *kernel > 0 && kernel % 2 == 0) {
        return Err(timm.error(format!("a kernel of {even} pixels in blocks.{stage}.{i}: only odd ones are supported")));
    }
    // Later blocks of a stage have none, whatever is written.
    let stride = if i == 0 { args.get("stride").and_then(Value::as_u64).unwrap_or(1) as usize } else { 1 };
    let squeezed = tensors.has(&name("se.conv_reduce"));
    let asked = args.get("se_ratio").and_then(Value::as_f64).is_some_and(|ratio| ratio > 0.0);
    if squeezed != asked && written != "cn" {
        return Err(timm.error(format!("se_ratio of block_args contradicts the tensors of blocks.{stage}.{i}")));
    }
    let same_size = entering == out && stride == 1;
    let skip = same_size && if kind == MobileKind::Conv { flag("skip") } else { !flag("noskip") };
    let act = args.get("act_layer").filter(|v| !v.is_null()).map(|v| (v.clone(), "block_args".to_string()));
    Ok(MobileBlock {
        kind,
        middle,
        out,
        kernel,
        group_size,
        mixed,
        start,
        stride,
        squeeze: if squeezed { shape("se.conv_reduce")?[0] } else { 0 },
        activation: pointwise(timm, act, usual)?,
        twice_active: kind == MobileKind::Separable && flag("pw_act"),
        skip,
    })
}

/// The shapes of the convolution `name`, or of those that take its place.
fn several(tensors: &Tensors, name: &str) -> Result<Vec<[usize; 4]>> {
    let own = |i: usize| format!("{name}.{i}.weight");
    match (0..).take_while(|i| tensors.has(&own(*i))).count() {
        0 => Ok(vec![tensors.dims(&format!("{name}.weight"), "four dimensions")?]),
        parts => (0..parts).map(|i| tensors.dims(&own(i), "four dimensions")).collect(),
    }
}

/// What an inverted block's convolutions are cut into; none if there is no room for it.
fn mixture(widen: &[[usize; 4]], depthwise: &[[usize; 4]], narrow: &[[usize; 4]]) -> Option<Mixed> {
    let count = |shapes: &[[usize; 4]]| if shapes.len() > 1 { shapes.len() } else { 0 };
    let mut mixed = Mixed { widen: count(widen), narrow: count(narrow), ..Mixed::default() };
    if depthwise.len() > 1 {
        mixed.kernels.get_mut(..depthwise.len())?.iter_mut().zip(depthwise).for_each(|(to, shape)| *to = shape[2]);
    }
    Some(mixed)
}

fn pointwise(timm: &TimmConfig, said: Option<(Value, String)>, usual: Pointwise) -> Result<Pointwise> {
    let Some((value, place)) = said else { return Ok(usual) };
    match value.as_str().unwrap_or("").to_ascii_lowercase().replace('_', "").as_str() {
        "relu" => Ok(Pointwise::Relu),
        "relu6" => Ok(Pointwise::Relu6),
        "silu" | "swish" => Ok(Pointwise::Silu),
        "hardswish" => Ok(Pointwise::HardSwish),
        _ => Err(timm.error(format!("act_layer is {value} ({place}), supported: relu, relu6, silu, hard_swish"))),
    }
}

/// The gate of `se_layer`, and its activation if it is not the block's.
fn squeeze(timm: &TimmConfig) -> Result<(Kind, Option<Pointwise>)> {
    let Some((value, place)) = timm.value("se_layer") else { return Ok((Kind::Sigmoid, None)) };
    let text = value.as_str().unwrap_or("");
    let wrong = || timm.error(format!("se_layer is {value} ({place}): not supported yet"));
    let inside = text.strip_prefix("SqueezeExcite").ok_or_else(wrong)?;
    let inside = inside.strip_prefix('(').map_or(Some(inside), |rest| rest.strip_suffix(')')).ok_or_else(wrong)?;
    // How widths are rounded the tensors tell; it stands last.
    let args = inside.split("rd_round_fn=").next().unwrap_or("");
    let (mut gate, mut activation) = (Kind::Sigmoid, None);
    for arg in args.split(", ").filter(|arg| !arg.is_empty()) {
        match arg {
            "gate_layer=sigmoid" => gate = Kind::Sigmoid,
            "gate_layer=hard_sigmoid" => gate = Kind::HardSigmoid,
            "force_act_layer=ReLU" => activation = Some(Pointwise::Relu),
            _ => return Err(wrong()),
        }
    }
    Ok((gate, activation))
}

/// Batch norm's epsilon.
fn eps(timm: &TimmConfig) -> Result<f32> {
    let Some((value, place)) = timm.value("norm_layer") else { return Ok(1e-5) };
    let text = value.as_str().unwrap_or("").to_ascii_lowercase();
    let eps = match text.strip_prefix("batchnorm2d").or(text.strip_prefix("batchnorm")) {
        Some("") => Some(1e-5),
        Some(args) => args.strip_prefix("(eps=").and_then(|rest| rest.strip_suffix(')')?.parse().ok()),
        None => None,
    };
    eps.ok_or_else(|| timm.error(format!("norm_layer is {value} ({place}): not supported yet")))
}
