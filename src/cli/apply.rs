//! `tpgm apply`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::checkpoint::{Checkpoint, DeltaSize, apply_delta};
use crate::cli::{print, print_json};
use crate::error::Result;

/// Flags of `apply`.
#[derive(Args, Debug)]
pub(super) struct ApplyArgs {
    /// The base, unchanged: the model that the delta was made from
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// What --delta of finetune or project wrote
    #[arg(long, value_name = "FILE")]
    delta: PathBuf,
    /// The whole model: a .safetensors file; or, where the base has shards, a folder for the same shards
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: ApplyArgs) -> Result<()> {
    let (base, delta) = (Checkpoint::open(&args.model)?, Checkpoint::open(&args.delta)?);
    let size = apply_delta(&args.out, &base, &delta)?;
    let DeltaSize { changed, adapted, of, .. } = size;
    if args.json {
        return print_json(&json!({"out": args.out, "changed": changed, "adapted": adapted, "tensors": of}));
    }
    let merged = if adapted > 0 { format!(" ({adapted} by adapters)") } else { String::new() };
    print(&format!(
        "{}: {changed} of {of} tensors are the delta's{merged}, the others the base's\n",
        args.out.display()
    ))
}
