//! Weights that no file holds: a new model, or a new head on an old one.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::task::forget_task;
use super::{Recognised, Weight};
use crate::data::preprocess::Preprocess;
use crate::model::Network;
use crate::model::resnet_config::Stem;
use crate::model::{ConvNextConfig, ModelConfig, ResNetConfig, VitConfig};

/// The standard deviation of everything that timm's ViT draws from a normal distribution.
const STD: f64 = 0.02;

/// Initial weights in the order of [`VitConfig::parameters`], as timm draws them by default: position embedding and
/// linear weights truncated normal with std 0.02 (cut at ±2, as timm has it), class token normal with std 1e-6, the
/// patch embedding as PyTorch's convolutions (uniform within ±1/√fan_in, weight and bias), layer scale 1e-5, norms 1,
/// all other biases 0. Each tensor has a stream of its own, so that the same seed gives a tensor the same values
/// whatever stands before it in the model and however deep that is.
pub fn fresh_vit(config: &VitConfig, seed: u64) -> Vec<Weight> {
    let channels = if config.parts.grey { 1 } else { 3 };
    let fan_in = (channels * config.patch_size * config.patch_size) as f64;
    let draw = |(name, shape): (String, Vec<usize>)| {
        let len: usize = shape.iter().product();
        let mut rng = stream(seed, &name);
        let values = match name.as_str() {
            "cls_token" | "dist_token" | "reg_token" => (0..len).map(|_| (1e-6 * normal(&mut rng)) as f32).collect(),
            "pos_embed" => truncated(len, &mut rng),
            "patch_embed.proj.weight" | "patch_embed.proj.bias" => {
                let bound = fan_in.sqrt().recip();
                (0..len).map(|_| (bound * (2.0 * rng.random::<f64>() - 1.0)) as f32).collect()
            }
            _ if name.ends_with(".gamma") => vec![1e-5; len],
            _ if name.ends_with(".bias") || name.ends_with("relative_position_bias_table") => vec![0.0; len],
            _ if shape.len() == 1 => vec![1.0; len],
            _ => truncated(len, &mut rng),
        };
        (name, shape, values)
    };
    config.parameters().into_iter().map(draw).collect()
}

/// Initial weights in the order of [`ResNetConfig::parameters`], as torchvision draws them: convolutions normal with
/// variance 2 / fan_out (He et al. 2015), norms 1 and 0, the head uniform within ±1/√fan_in; an attention pool's matrices
/// normal with variance 1 / width as OpenCLIP's, its biases 0. Each tensor has a stream of its own, as in [`fresh_vit`].
pub fn fresh_resnet(config: &ResNetConfig, seed: u64) -> Vec<Weight> {
    let bound = (config.features() as f64).sqrt().recip();
    let head = format!("{}.", config.head());
    let draw = |(name, shape): (String, Vec<usize>)| {
        let len: usize = shape.iter().product();
        let mut rng = stream(seed, &name);
        let values = match shape.as_slice() {
            [out, _, height, width] => {
                let std = (2.0 / (out * height * width) as f64).sqrt();
                (0..len).map(|_| (std * normal(&mut rng)) as f32).collect()
            }
            _ if name.starts_with(&head) => {
                (0..len).map(|_| (bound * (2.0 * rng.random::<f64>() - 1.0)) as f32).collect()
            }
            [_, width] => {
                let std = (*width as f64).sqrt().recip();
                (0..len).map(|_| (std * normal(&mut rng)) as f32).collect()
            }
            _ if name.ends_with(".bias") => vec![0.0; len],
            _ => vec![1.0; len],
        };
        (name, shape, values)
    };
    config.parameters().into_iter().map(draw).collect()
}

/// Initial weights in the order of [`ConvNextConfig::parameters`], as timm draws them: convolutions and linear weights truncated
/// normal with std 0.02, layer scale 1e-6, norms 1, response normalisation and all biases 0. Each tensor has a stream of its own,
/// as in [`fresh_vit`].
pub fn fresh_convnext(config: &ConvNextConfig, seed: u64) -> Vec<Weight> {
    let draw = |(name, shape): (String, Vec<usize>)| {
        let len: usize = shape.iter().product();
        let values = match name.as_str() {
            _ if name.ends_with(".gamma") => vec![1e-6; len],
            _ if name.ends_with(".bias") || name.contains(".grn.") => vec![0.0; len],
            _ if shape.len() == 1 => vec![1.0; len],
            _ => truncated(len, &mut stream(seed, &name)),
        };
        (name, shape, values)
    };
    config.parameters().into_iter().map(draw).collect()
}

/// Initial weights of an EfficientNet in the order of its parameters, as timm draws them: convolutions normal with variance
/// 2 / fan_out, a depth-wise one's fan_out that of one channel; norms 1, biases 0, the head uniform within ±1/√classes. Each tensor
/// has a stream of its own, as in [`fresh_vit`].
pub fn fresh_efficientnet(config: &impl Network, seed: u64) -> Vec<Weight> {
    let draw = |(name, shape): (String, Vec<usize>)| {
        let len: usize = shape.iter().product();
        let mut rng = stream(seed, &name);
        let values = match shape.as_slice() {
            [out, _, height, width] => {
                let out = if name.ends_with("conv_dw.weight") { 1 } else { *out };
                let std = (2.0 / (out * height * width) as f64).sqrt();
                (0..len).map(|_| (std * normal(&mut rng)) as f32).collect()
            }
            [classes, _] => {
                let bound = (*classes as f64).sqrt().recip();
                (0..len).map(|_| (bound * (2.0 * rng.random::<f64>() - 1.0)) as f32).collect()
            }
            _ if name.ends_with(".bias") => vec![0.0; len],
            _ => vec![1.0; len],
        };
        (name, shape, values)
    };
    config.parameters().into_iter().map(draw).collect()
}

/// Running statistics in the order of [`ResNetConfig::buffers`] before any batch: means 0, variances 1.
pub fn fresh_statistics(config: &impl Network) -> Vec<Weight> {
    let start = |(name, shape): (String, Vec<usize>)| {
        let value = if name.ends_with("running_var") { 1.0 } else { 0.0 };
        let values = vec![value; shape.iter().product()];
        (name, shape, values)
    };
    config.buffers().into_iter().map(start).collect()
}

/// What [`super::recognise`] would say of a model that starts from nothing; its names are timm's or torchvision's, and all
/// of it is newly initialised. The number of `classes` takes the place of the config's.
pub fn fresh_model(config: impl Into<ModelConfig>, preprocess: &Preprocess, classes: &[String]) -> Recognised {
    let mut config: ModelConfig = config.into();
    let family = match &config {
        ModelConfig::Vit(_) => "timm ViT",
        ModelConfig::ResNet(c) if c.stem == Stem::Clip => "CLIP ResNet",
        ModelConfig::ResNet(_) => "ResNet",
        ModelConfig::EfficientNet(_) => "EfficientNet",
        ModelConfig::ConvNext(_) => "ConvNeXt",
        ModelConfig::ResNetV2(_) => "ResNetV2",
        ModelConfig::Vgg(_) => "VGG",
    };
    config.set_head(classes.len(), config.head_bias());
    let of = |tensors: Vec<(String, Vec<usize>)>| tensors.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let (names, buffers) = (of(config.parameters()), of(config.buffers()));
    let twice = |names: &[String]| names.iter().map(|name| (name.clone(), name.clone())).collect();
    Recognised {
        family,
        preprocess: preprocess.clone(),
        names: twice(&names),
        head_names: ["weight", "bias"].map(|what| format!("{}.{what}", config.head())),
        initialised: names,
        ignored: Vec::new(),
        notes: Vec::new(),
        sources: BTreeMap::new(),
        classes: Some(classes.to_vec()),
        thresholds: None,
        buffers: twice(&buffers),
        counters: Vec::new(),
        resize: None,
        stem: None,
        head_file: None,
        config,
    }
}

/// A new head called `head`: weight `[classes, dim]` truncated normal with std 0.02, bias `[classes]` 0, as timm's. On
/// normalised features there is no use for the bias, unless the checkpoint's library expects one.
pub fn new_head(head: &str, classes: usize, dim: usize, seed: u64) -> [Weight; 2] {
    let (weight, bias) = (format!("{head}.weight"), format!("{head}.bias"));
    let values = truncated(classes * dim, &mut stream(seed, &weight));
    [(weight, vec![classes, dim], values), (bias, vec![classes], vec![0.0; classes])]
}

/// Puts a new head for `classes` in the place of the model's, which may have none: `weights` (in the order of
/// the model's parameters), config, names and class names follow, and the notes say so.
pub fn replace_head(recognised: &mut Recognised, weights: &mut Vec<Weight>, classes: &[String], seed: u64) {
    forget_task(recognised);
    let config = &mut recognised.config;
    let mut heads = new_head(config.head(), classes.len(), config.width(), seed).to_vec();
    let mut names_in_file = recognised.head_names.to_vec();
    if config.vit().is_some_and(|c| c.parts.distilled) {
        heads.extend(new_head("head_dist", classes.len(), config.width(), seed));
        // timm's name of the second head, or transformers'.
        let second =
            |name: String| name.replace("head.", "head_dist.").replace("cls_classifier.", "distillation_classifier.");
        names_in_file.extend(recognised.head_names.clone().map(second));
    }
    let had = match config.classes() {
        0 => "the checkpoint has no head".into(),
        n => format!("the checkpoint's head has {n} outputs"),
    };
    recognised.notes.push(format!("{had}: a new one for {} classes is initialised", classes.len()).into());
    config.set_classes(classes.len());
    let shapes: BTreeMap<String, Vec<usize>> = config.parameters().into_iter().collect();
    recognised.head_file = None;
    let is_head = |name: &str| config.is_head(name);
    recognised.classes = Some(classes.to_vec());
    weights.retain(|(name, ..)| !is_head(name));
    recognised.names.retain(|(name, _)| !is_head(name));
    recognised.initialised.retain(|name| !is_head(name));
    for (mut weight, in_file) in heads.into_iter().zip(names_in_file) {
        // A head may be a convolution of one pixel.
        let Some(shape) = shapes.get(&weight.0) else { continue };
        weight.1.clone_from(shape);
        recognised.names.push((weight.0.clone(), in_file.clone()));
        recognised.initialised.push(weight.0.clone());
        weights.push(weight);
    }
}

/// Puts a head of these values in the place of the model's, which may have none: `weight` `[classes, features]`, and `bias` the same for
/// all classes. A bias that the model has stays, as zeros if none is given: its library expects one.
///
/// # Errors
/// Why the model can't take it, one clause.
pub fn set_head(
    recognised: &mut Recognised,
    weights: &mut Vec<Weight>,
    classes: &[String],
    weight: &[f32],
    bias: Option<f32>,
) -> Result<(), String> {
    let config = &mut recognised.config;
    if config.vit().is_some_and(|c| c.parts.distilled) {
        return Err("has two heads (DeiT, distilled): one head can't take their place".into());
    }
    let [weight_name, bias_name] = ["weight", "bias"].map(|what| format!("{}.{what}", config.head()));
    let has_bias = bias.is_some() || weights.iter().any(|(name, ..)| *name == bias_name);
    config.set_head(classes.len(), has_bias);
    weights.retain(|(name, ..)| !config.is_head(name));
    recognised.names.retain(|(name, _)| !config.is_head(name));
    recognised.initialised.retain(|name| !config.is_head(name));
    let mut heads = vec![(weight_name, vec![classes.len(), config.width()], weight.to_vec())];
    heads.extend(has_bias.then(|| (bias_name, vec![classes.len()], vec![bias.unwrap_or(0.0); classes.len()])));
    for (head, in_file) in heads.into_iter().zip(recognised.head_names.clone()) {
        recognised.names.push((head.0.clone(), in_file));
        weights.push(head);
    }
    recognised.head_file = None;
    recognised.classes = Some(classes.to_vec());
    forget_task(recognised);
    recognised.notes.push(format!("the head for {} classes is made from their names", classes.len()).into());
    Ok(())
}

/// The random numbers of one tensor.
fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // FNV-1a: a hash that stays the same with every compiler.
    rng.set_stream(name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)));
    rng
}

/// Box and Muller (1958), the cosine half.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    // 1 − u lies in (0, 1], whose logarithm is finite.
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (TAU * v).cos()
}

fn truncated(len: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let mut draw = || loop {
        let x = STD * normal(rng);
        if x.abs() <= 2.0 {
            return x as f32;
        }
    };
    (0..len).map(|_| draw()).collect()
}
