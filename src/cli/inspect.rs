//! `tpgm inspect`

use std::path::PathBuf;

use clap::Args;

use crate::checkpoint::{Checkpoint, describe, recognise};
use crate::cli::{print, print_json};
use crate::error::Result;
use crate::train::config::ModelArgs;

/// Flags of `inspect`.
#[derive(Args, Debug)]
pub(super) struct InspectArgs {
    /// A .safetensors file, or a folder with model.safetensors
    model: PathBuf,
    #[command(flatten)]
    model_args: ModelArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: InspectArgs) -> Result<()> {
    let checkpoint = Checkpoint::open(&args.model)?;
    let mut recognised = recognise(&checkpoint, &args.model_args.overrides())?;
    recognised.preprocess = args.model_args.preprocess(&recognised.preprocess)?;
    let description = describe(&checkpoint, &recognised);
    if args.json { print_json(&description) } else { print(&description.to_string()) }
}
