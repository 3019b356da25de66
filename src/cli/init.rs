//! `tpgm init`

use std::path::PathBuf;

use clap::Args;

use crate::checkpoint::{fresh_model, fresh_vit, write_model};
use crate::cli::print;
use crate::data::{CropMode, Dataset, Interpolation, Preprocess};
use crate::error::{Error, Result};
use crate::model::{Activation, Pool, VitConfig};
use crate::train::config::{ModelArgs, word};

/// Flags of `init`.
#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Images whose classes become the model's outputs
    #[arg(long, value_name = "PATH")]
    classes_of: PathBuf,
    /// Height and width of a patch, in pixels
    #[arg(long, default_value_t = 16)]
    patch_size: usize,
    /// Width of the residual stream
    #[arg(long, default_value_t = 192)]
    dim: usize,
    /// Blocks
    #[arg(long, default_value_t = 12)]
    depth: usize,
    /// Width of an MLP's hidden layer [default: 4 times --dim]
    #[arg(long)]
    mlp_dim: Option<usize>,
    /// Decides the weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    model: ModelArgs,
}

pub(super) fn run(args: InitArgs) -> Result<()> {
    let classes = Dataset::open(&args.classes_of, None)?.classes;
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
    };
    let recognised = fresh_model(&config, &preprocess, &classes);
    write_model(&args.out, &recognised, &fresh_vit(&config, args.seed))?;
    let count: usize = recognised.config.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    print(&format!("{}: a ViT of {count} random parameters for {} classes\n", args.out.display(), classes.len()))
}
