//! Models that stay with the library that they come from: its `config.json`, with new classes and preprocessing.

use serde_json::{Value, json};

use super::{Described, Library, Tensors, inputs, label_maps, labels, timm, transformers};
use crate::train::source::Source;

/// # Errors
/// Why the library can't load it by this configuration.
pub(super) fn describe(library: Library, source: &Source, base: &Value) -> Result<Described, String> {
    let recognised = &source.recognised;
    if recognised.config.normalize() || recognised.head_file.is_some() {
        return Err("its head is not one of the library's".into());
    }
    let own = |name: &str| source.checkpoint.tensor(name).is_some();
    if !recognised.names.iter().all(|(_, name)| own(name)) {
        return Err("its head stands beside the model's tensors, where the library has none".into());
    }
    match library {
        Library::Transformers => of_transformers(source, base.clone()),
        Library::Timm => of_timm(source, base.clone()),
        Library::Torchvision => unreachable!("it has no configuration"),
    }
}

fn of_transformers(source: &Source, mut root: Value) -> Result<Described, String> {
    let class = root.pointer("/architectures/0").and_then(Value::as_str).unwrap_or_default().to_string();
    if root.get("model_type").is_none() || !class.contains("ForImageClassification") {
        return Err("its config.json names none of transformers' classifiers".into());
    }
    let input = &source.recognised.preprocess;
    let (processor, remark) = inputs::transformers(input)?;
    let (id2label, label2id) = label_maps(&labels(source));
    root["id2label"] = id2label;
    root["label2id"] = label2id;
    // Older files have it beside the names.
    if let Some(entries) = root.as_object_mut() {
        entries.remove("num_labels");
    }
    for place in ["/image_size", "/vision_config/image_size"] {
        if let Some(size) = root.pointer_mut(place) {
            *size = json!(input.image_size);
        }
    }
    Ok(Described {
        tensors: Tensors::Kept(Vec::new()),
        files: vec![("config.json", root), ("preprocessor_config.json", processor)],
        architecture: class,
        python: transformers::python(),
        remarks: remark.into_iter().collect(),
    })
}

fn of_timm(source: &Source, mut root: Value) -> Result<Described, String> {
    let Some(architecture) = root.get("architecture").and_then(Value::as_str).map(String::from) else {
        return Err("its config.json names none of timm's architectures".into());
    };
    let recognised = &source.recognised;
    if recognised.config.vit().is_some_and(|c| c.parts.projection.is_some()) {
        return Err("timm takes its projection for the head".into());
    }
    let classes = recognised.config.classes();
    let (input, remark) = inputs::timm(&recognised.preprocess, classes)?;
    // timm's heads have a bias.
    let zeros =
        (!recognised.config.head_bias()).then(|| (recognised.head_names[1].clone(), vec![classes], vec![0.0; classes]));
    root["num_classes"] = json!(classes);
    root["label_names"] = json!(labels(source));
    let kept = root.get("pretrained_cfg").cloned().unwrap_or_else(|| json!({}));
    root["pretrained_cfg"] = kept;
    for (key, value) in input.as_object().into_iter().flatten() {
        root["pretrained_cfg"][key] = value.clone();
    }
    if root.pointer("/model_args/num_classes").is_some() {
        root["model_args"]["num_classes"] = json!(classes);
    }
    if recognised.config.vit().is_some() {
        if root.get("model_args").is_none() {
            root["model_args"] = json!({});
        }
        root["model_args"]["img_size"] = json!(recognised.preprocess.image_size);
    }
    Ok(Described {
        tensors: Tensors::Kept(zeros.into_iter().collect()),
        files: vec![("config.json", root)],
        architecture,
        python: timm::python(),
        remarks: remark.into_iter().collect(),
    })
}
