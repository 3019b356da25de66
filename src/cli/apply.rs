//! `tpgm apply`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::checkpoint::{Checkpoint, apply_delta};
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
    let (changed, of) = (size.changed, size.of);
    if args.json {
        return print_json(&json!({"out": args.out, "changed": changed, "tensors": of}));
    }
    print(&format!("{}: {changed} of {of} tensors are the delta's, the others the base's\n", args.out.display()))
}
