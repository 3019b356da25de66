//! `tpgm init`

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::checkpoint::{Recognised, Weight, fresh_model, fresh_resnet, fresh_statistics, fresh_vit, write_model};
use crate::cli::console::note;
use crate::cli::{print, print_json};
use crate::data::{ClassMap, CropMode, Dataset, Interpolation, Preprocess};
use crate::error::{Error, Result};
use crate::flag::word;
use crate::model::Network;
use crate::model::resnet_config::{Block, BlockConfig, Downsample, Pooling, ResNetConfig, Stem};
use crate::model::{Pool, VitConfig, VitParts};
use crate::shapes::{Activation, Pointwise};
use crate::train::model_args::ModelArgs;

/// Flags of `init`.
#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Images whose classes become the model's outputs
    #[arg(long, value_name = "PATH")]
    classes_of: PathBuf,
    /// vit or resnet
    #[arg(long, default_value = "vit", value_parser = word::<Arch>)]
    arch: Arch,
    /// A ViT's patches: their height and width, in pixels
    #[arg(long, default_value_t = 16)]
    patch_size: usize,
    /// Width of a ViT's residual stream
    #[arg(long, default_value_t = 192)]
    dim: usize,
    /// Blocks of a ViT
    #[arg(long, default_value_t = 12)]
    depth: usize,
    /// Width of a ViT's hidden layers [default: 4 times --dim]
    #[arg(long)]
    mlp_dim: Option<usize>,
    /// Blocks of a ResNet: basic or bottleneck
    #[arg(long, default_value = "basic", value_parser = word::<Block>)]
    block: Block,
    /// Blocks of each stage of a ResNet
    #[arg(long, value_name = "N", num_args = 1.., default_values_t = [2, 2, 2, 2])]
    depths: Vec<usize>,
    /// Channels that leave each stage of a ResNet [default: 64 128 256 512, or four times that with bottlenecks]
    #[arg(long, value_name = "N", num_args = 1..)]
    widths: Option<Vec<usize>>,
    /// Decides the weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    model: ModelArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// The kinds of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Arch {
    Vit,
    Resnet,
}

/// A size above these is a slip of the hand, and would fill the memory before it fails.
const MOST_BLOCKS: usize = 1000;
const MOST_WIDTH: usize = 1 << 16;
const MOST_PIXELS: usize = 1 << 14;
const MOST_PARAMETERS: u128 = 1 << 31;

impl InitArgs {
    /// # Errors
    /// [`Error::Usage`] naming a size that is 0 or too large.
    fn check_sizes(&self) -> Result<()> {
        let one = |flag, value: Option<usize>, most| value.into_iter().map(move |value| (flag, value, most)).collect();
        let all = |flag, values: &[usize], most| values.iter().map(|value| (flag, *value, most)).collect::<Vec<_>>();
        let sizes: [Vec<(&str, usize, usize)>; 8] = [
            one("depth", Some(self.depth), MOST_BLOCKS),
            one("dim", Some(self.dim), MOST_WIDTH),
            one("mlp-dim", self.mlp_dim, 4 * MOST_WIDTH),
            one("heads", self.model.heads, MOST_WIDTH),
            one("patch-size", Some(self.patch_size), MOST_PIXELS),
            one("image-size", self.model.image_size, MOST_PIXELS),
            all("depths", &self.depths, MOST_BLOCKS),
            all("widths", self.widths.as_deref().unwrap_or_default(), MOST_WIDTH),
        ];
        match sizes.concat().into_iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            Some((flag, value, most)) => Err(Error::Usage(format!("--{flag} {value}: it must be 1 to {most}"))),
            None => Ok(()),
        }
    }
}

/// # Errors
/// [`Error::Usage`] for a network of more parameters than one file should have.
fn check_parameters(network: &impl Network) -> Result<()> {
    let of = |shape: &[usize]| shape.iter().map(|n| *n as u128).product::<u128>();
    let count: u128 = network.parameters().iter().map(|(_, shape)| of(shape)).sum();
    match count > MOST_PARAMETERS {
        true => Err(Error::Usage(format!("a network of {count} parameters: at most {MOST_PARAMETERS} can be made"))),
        false => Ok(()),
    }
}

pub(super) fn run(args: InitArgs) -> Result<()> {
    args.check_sizes()?;
    let classes = ClassMap::of_ids(&Dataset::open(&args.classes_of, None)?)?;
    note!("{classes}");
    let classes = classes.names();
    let (recognised, weights, kind) = match args.arch {
        Arch::Vit => vit(&args, &classes)?,
        Arch::Resnet => resnet(&args, &classes)?,
    };
    write_model(&args.out, &recognised, &weights)?;
    let count: usize = recognised.config.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    if args.json {
        return print_json(&json!({"out": args.out, "parameters": count, "classes": classes}));
    }
    print(&format!("{}: a {kind} of {count} random parameters for {} classes\n", args.out.display(), classes.len()))
}

fn vit(args: &InitArgs, classes: &[String]) -> Result<(Recognised, Vec<Weight>, &'static str)> {
    let default = Preprocess {
        image_size: 224,
        crop_pct: 0.9,
        crop_mode: CropMode::Center,
        interpolation: Interpolation::Bicubic,
        mean: [0.5; 3],
        std: [0.5; 3],
        grey: args.model.grey()?.unwrap_or(false),
    };
    let preprocess = args.model.preprocess(&default)?;
    let heads = args.model.heads.unwrap_or((args.dim / 64).max(1));
    if !args.dim.is_multiple_of(heads) {
        return Err(Error::Usage(format!("--dim {} is no multiple of the {heads} heads: give --heads", args.dim)));
    }
    if !preprocess.image_size.is_multiple_of(args.patch_size) {
        let (image, patch) = (preprocess.image_size, args.patch_size);
        return Err(Error::Usage(format!("--image-size {image} is no multiple of --patch-size {patch}")));
    }
    let pool = args.model.pool.map_or_else(|| word("cls"), Ok).map_err(Error::Usage)?;
    let config = VitConfig {
        image_size: preprocess.image_size,
        patch_size: args.patch_size,
        dim: args.dim,
        depth: args.depth,
        heads,
        mlp_dim: args.mlp_dim.unwrap_or(4 * args.dim),
        classes: classes.len(),
        eps: 1e-6,
        activation: args.model.activation.unwrap_or(Activation::Gelu),
        pool,
        class_token: true,
        layer_scale: false,
        fc_norm: pool == Pool::Mean,
        qkv_bias: true,
        patch_bias: true,
        head_bias: true,
        parts: VitParts { grey: preprocess.grey, ..VitParts::default() },
    };
    check_parameters(&config)?;
    let weights = fresh_vit(&config, args.seed);
    Ok((fresh_model(config, &preprocess, classes), weights, "ViT"))
}

fn resnet(args: &InitArgs, classes: &[String]) -> Result<(Recognised, Vec<Weight>, &'static str)> {
    let default = Preprocess {
        image_size: 224,
        crop_pct: 0.875,
        crop_mode: CropMode::Center,
        interpolation: Interpolation::Bilinear,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        grey: args.model.grey()?.unwrap_or(false),
    };
    let preprocess = args.model.preprocess(&default)?;
    let expansion = if args.block == Block::Bottleneck { 4 } else { 1 };
    let usual = [64, 128, 256, 512, 1024].map(|width| width * expansion);
    let stages = args.depths.len();
    let widths = match &args.widths {
        Some(widths) => widths.as_slice(),
        None => usual.get(..stages).ok_or_else(|| Error::Usage(format!("--depths {stages} stages: give --widths")))?,
    };
    if stages < 2 || widths.len() != stages {
        let count = widths.len();
        return Err(Error::Usage(format!(
            "--depths has {stages} stages and --widths {count}: give two or more of both"
        )));
    }
    if let Some(width) = widths.iter().find(|width| !width.is_multiple_of(expansion)) {
        return Err(Error::Usage(format!("--widths {width}: with this --block, it must be a multiple of {expansion}")));
    }
    let stage = |(stage, (&depth, &out)): (usize, (&usize, &usize))| {
        let entering = if stage == 0 { widths[0] / expansion } else { widths[stage - 1] };
        let block = |i: usize| BlockConfig {
            inner: out / expansion,
            out,
            stride: if stage > 0 && i == 0 { 2 } else { 1 },
            downsample: i == 0 && (stage > 0 || entering != out),
            ..BlockConfig::default()
        };
        (0..depth).map(block).collect()
    };
    let config = ResNetConfig {
        image_size: preprocess.image_size,
        block: args.block,
        stem: Stem::Conv,
        stem_widths: vec![widths[0] / expansion],
        stages: args.depths.iter().zip(widths).enumerate().map(stage).collect(),
        downsample: Downsample::Conv,
        pooling: Pooling::Mean,
        anti_alias: false,
        blur: false,
        attention_inside: false,
        stem_pool_conv: false,
        stride_first: false,
        ceil_pool: false,
        active_gate: false,
        norm_groups: None,
        activation: Pointwise::Relu,
        groups: 1,
        eps: 1e-5,
        momentum: 0.1,
        classes: classes.len(),
        head_bias: true,
        normalize: false,
        grey: preprocess.grey,
    };
    if config.image_size < config.stride() {
        let (size, stride) = (config.image_size, config.stride());
        return Err(Error::Usage(format!("--image-size {size} is smaller than the network's stride of {stride}")));
    }
    check_parameters(&config)?;
    let mut weights = fresh_resnet(&config, args.seed);
    weights.extend(fresh_statistics(&config));
    Ok((fresh_model(config, &preprocess, classes), weights, "ResNet"))
}
