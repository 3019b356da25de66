//! `tpgm init`

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use crate::checkpoint::{Recognised, Weight, fresh_model, fresh_resnet, fresh_statistics, fresh_vit, write_model};
use crate::cli::print;
use crate::data::{CropMode, Dataset, Interpolation, Preprocess};
use crate::error::{Error, Result};
use crate::flag::word;
use crate::model::Network;
use crate::model::resnet_config::{Block, BlockConfig, Downsample, Pooling, ResNetConfig, Stem};
use crate::model::{Pool, VitConfig};
use crate::shapes::Activation;
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
}

/// The kinds of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Arch {
    Vit,
    Resnet,
}

pub(super) fn run(args: InitArgs) -> Result<()> {
    let classes = Dataset::open(&args.classes_of, None)?.classes;
    let (recognised, weights, kind) = match args.arch {
        Arch::Vit => vit(&args, &classes)?,
        Arch::Resnet => resnet(&args, &classes)?,
    };
    write_model(&args.out, &recognised, &weights)?;
    let count: usize = recognised.config.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
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
    };
    let preprocess = args.model.preprocess(&default)?;
    let heads = args.model.heads.unwrap_or((args.dim / 64).max(1));
    if args.depth == 0 || args.dim == 0 || args.patch_size == 0 || heads == 0 {
        return Err(Error::Usage("--depth, --dim, --patch-size and --heads must be greater than 0".into()));
    }
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
        parts: Default::default(),
    };
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
    let fits = |width: &usize| *width > 0 && width.is_multiple_of(expansion);
    if args.depths.contains(&0) || !widths.iter().all(fits) {
        return Err(Error::Usage(format!(
            "--depths and --widths must be greater than 0, and --widths multiples of {expansion} with this --block"
        )));
    }
    let stage = |(stage, (&depth, &out)): (usize, (&usize, &usize))| {
        let entering = if stage == 0 { widths[0] / expansion } else { widths[stage - 1] };
        let block = |i: usize| BlockConfig {
            inner: out / expansion,
            out,
            stride: if stage > 0 && i == 0 { 2 } else { 1 },
            downsample: i == 0 && (stage > 0 || entering != out),
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
        groups: 1,
        eps: 1e-5,
        momentum: 0.1,
        classes: classes.len(),
        head_bias: true,
        normalize: false,
    };
    if config.image_size < config.stride() {
        let (size, stride) = (config.image_size, config.stride());
        return Err(Error::Usage(format!("--image-size {size} is smaller than the network's stride of {stride}")));
    }
    let mut weights = fresh_resnet(&config, args.seed);
    weights.extend(fresh_statistics(&config));
    Ok((fresh_model(config, &preprocess, classes), weights, "ResNet"))
}
