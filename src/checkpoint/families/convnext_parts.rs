//! What a ConvNeXt's tensors and configuration tell of it.

use super::resnet_parts::numbered;
use super::tensors::Tensors;
use crate::checkpoint::facts::Facts;
use crate::error::Result;
use crate::model::convnext_config::{ConvNextConfig, ConvNextProjection, ConvNextShapes, ConvNextStage, ConvNextStem};
use crate::shapes::Activation;

/// Layer norm's epsilon and where it is written, if timm's configuration tells.
pub(super) fn described(facts: &Facts) -> Result<Option<(f32, String)>> {
    let (Facts::Timm(config) | Facts::Trunk(_, config)) = facts else { return Ok(None) };
    let Some((value, place)) = config.value("norm_eps") else { return Ok(None) };
    match value.as_f64() {
        Some(eps) if eps > 0.0 => Ok(Some((eps as f32, place))),
        _ => Err(config.error(format!("norm_eps is {value} ({place}), expected a positive number"))),
    }
}

/// The names of what stands behind OpenCLIP's towers, ours and the file's.
const BEHIND: [(&str, &str); 4] = [
    ("proj.weight", "head.proj.weight"),
    ("mlp.fc1.weight", "head.mlp.fc1.weight"),
    ("mlp.fc1.bias", "head.mlp.fc1.bias"),
    ("mlp.fc2.weight", "head.mlp.fc2.weight"),
];

/// Of a tower in OpenCLIP, takes up what stands behind it and the classification head beside it, and returns the prefix of the
/// latter.
pub(super) fn projection(tensors: &mut Tensors, prefix: &str) -> Result<Option<String>> {
    let Some(beside) = prefix.strip_suffix("trunk.") else { return Ok(None) };
    let checkpoint = tensors.checkpoint;
    let of = |name: &str| checkpoint.tensor(&format!("{beside}{name}"));
    for name in ["head.proj.bias", "head.mlp.fc2.bias"] {
        if let Some(info) = of(name) {
            return Err(tensors.error(info, "is a bias of the projection: not supported yet"));
        }
    }
    let found: Vec<_> = BEHIND.iter().filter_map(|(ours, theirs)| Some((*ours, of(theirs)?))).collect();
    if found.is_empty() {
        return Ok(None);
    }
    tensors.by_name.extend(found.into_iter().map(|(ours, info)| (ours.to_string(), info)));
    let root = beside.strip_suffix("visual.").unwrap_or(beside);
    for what in ["weight", "bias"] {
        if let Some(info) = checkpoint.tensor(&format!("{root}head.{what}")) {
            tensors.by_name.insert(format!("classifier.{what}"), info);
        }
    }
    Ok(Some(root.to_string()))
}

/// What the tensors tell: all but the image size and the head.
pub(super) fn config(tensors: &Tensors, eps: f32, head_eps: f32, activation: Activation) -> Result<ConvNextConfig> {
    let convolution = |name: &str| tensors.dims::<4>(name, "four dimensions");
    let [_, channels, patch, _] = convolution("stem.0.weight")?;
    let overlaps = tensors.by_name.get("stem.1.weight").is_some_and(|info| info.shape.len() == 4);
    let stem = match overlaps {
        true => ConvNextStem::Overlap { middle: convolution("stem.0.weight")?[0] },
        false => ConvNextStem::Patch { size: patch },
    };
    let mut stages = Vec::new();
    for stage in 0..=numbered(tensors, "stages.") {
        let name = format!("stages.{stage}.blocks.");
        let depth = numbered(tensors, &name) + 1;
        let [width, _, kernel, _] = convolution(&format!("{name}0.conv_dw.weight"))?;
        let fc1 = tensors.get(&format!("{name}0.mlp.fc1.weight"))?;
        let Some(hidden) = fc1.shape.first().copied().filter(|hidden| *hidden > 0) else {
            return Err(tensors.error(fc1, "has no rows"));
        };
        if kernel % 2 == 0 {
            let info = tensors.get(&format!("{name}0.conv_dw.weight"))?;
            return Err(tensors.error(info, format!("has a kernel of {kernel} pixels: only odd ones are supported")));
        }
        stages.push(ConvNextStage { depth, width, hidden, kernel });
    }
    let dims = |name: &str| tensors.by_name.get(&format!("stages.0.blocks.0.{name}")).map(|info| info.shape.len());
    let any = |ending: &str| tensors.by_name.keys().any(|name| name.starts_with("stages.") && name.ends_with(ending));
    let rows = |name: &str| tensors.dims::<2>(name, "[outputs, inputs]").map(|shape| shape[0]);
    let projection = match (tensors.has("proj.weight"), tensors.has("mlp.fc1.weight")) {
        (true, _) => Some(ConvNextProjection::Linear { features: rows("proj.weight")? }),
        (_, true) => {
            let (hidden, features) = (rows("mlp.fc1.weight")?, rows("mlp.fc2.weight")?);
            Some(ConvNextProjection::Mlp { hidden, features })
        }
        _ => None,
    };
    let hidden = "head.pre_logits.fc.weight";
    Ok(ConvNextConfig {
        image_size: 0,
        stem,
        stages,
        activation,
        eps,
        head_eps,
        layer_scale: any(".gamma"),
        response_norm: any(".mlp.grn.weight"),
        norm_first: tensors.has("norm_pre.weight"),
        head_hidden: if tensors.has(hidden) { rows(hidden)? } else { 0 },
        projection,
        shapes: ConvNextShapes {
            conv_mlp: dims("mlp.fc1.weight") == Some(4),
            flat_scale: dims("gamma") == Some(3),
            flat_response: dims("mlp.grn.weight") == Some(4),
        },
        classes: 0,
        head_bias: false,
        normalize: false,
        grey: channels == 1,
    })
}
