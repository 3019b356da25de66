//! `tpgm project`

use std::path::PathBuf;

use clap::Args;

use crate::checkpoint::Checkpoint;
use crate::cli::finetune::write_delta_beside;
use crate::cli::progress::Progress;
use crate::cli::{RunArgs, print};
use crate::cpu::mars::Norm;
use crate::error::{Error, Result};
use crate::train::fit::MicroBatch;
use crate::train::model_args::{ModelArgs, word};
use crate::train::project::{ProjectConfig, beside, project};

/// Flags of `project`.
#[derive(Args, Debug)]
pub(super) struct ProjectArgs {
    /// The model that the fine-tuning began with
    #[arg(long, value_name = "A")]
    pretrained: PathBuf,
    /// The fine-tuned model
    #[arg(long, value_name = "B")]
    finetuned: PathBuf,
    /// Validation images: what the radii are learned on
    #[arg(long, value_name = "PATH")]
    val: PathBuf,
    /// The file to write; C.radii.csv and C.metrics.jsonl come beside it. Without the ending .safetensors, where B has
    /// shards, a folder for the same shards
    #[arg(long, value_name = "C")]
    out: PathBuf,
    /// Also write C.delta.safetensors: only the tensors that differ from A's, for `tpgm apply`
    #[arg(long)]
    delta: bool,
    /// Folder that the paths of a list file or CSV are relative to
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Which folder is which output of the model: `folder name` a line, or imagenet_class_index.json
    #[arg(long, value_name = "FILE")]
    class_map: Option<PathBuf>,
    /// How drift is measured: mars or l2
    #[arg(long, default_value = "l2", value_parser = word::<Norm>)]
    norm: Norm,
    /// Outer iterations
    #[arg(long, value_name = "N", default_value_t = 200)]
    max_iters: usize,
    /// Adam's learning rate on the radii
    #[arg(long, default_value_t = 1e-2)]
    radius_lr: f32,
    /// Images of a radius batch
    #[arg(long, value_name = "N", default_value_t = 64)]
    radius_batch_size: usize,
    /// Images that pass through the adapter at once, or `auto` for as many as fit its memory [default: the radius batch]
    #[arg(long, value_name = "N|auto")]
    micro_batch: Option<MicroBatch>,
    /// Memory that the run may take on the adapter, in MiB [default: what is there]
    #[arg(long, value_name = "MIB")]
    memory_limit: Option<u64>,
    /// Keep only what enters each block and compute the rest once more in the backward pass: less memory, the same results
    #[arg(long)]
    recompute: bool,
    /// Tensors that have no radius, by name; * and ? stand for any characters [default: whatever has no pre-trained
    /// counterpart]
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    exclude: Option<Vec<String>>,
    /// Batches in sorted order
    #[arg(long)]
    no_shuffle: bool,
    /// Decides the batches
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    model_args: ModelArgs,
    #[command(flatten)]
    run: RunArgs,
}

pub(super) fn run(args: ProjectArgs) -> Result<()> {
    if args.max_iters == 0 || args.radius_batch_size == 0 || !args.radius_lr.is_normal() || args.radius_lr < 0.0 {
        return Err(Error::Usage("--max-iters, --radius-batch-size and --radius-lr must be greater than 0".into()));
    }
    if args.micro_batch == Some(MicroBatch::Images(0)) || args.memory_limit == Some(0) {
        return Err(Error::Usage("--micro-batch and --memory-limit must be greater than 0".into()));
    }
    let base = args.delta.then(|| Checkpoint::open(&args.pretrained)).transpose()?;
    let config = ProjectConfig {
        pretrained: args.pretrained,
        finetuned: args.finetuned,
        val: args.val,
        root: args.root,
        class_map: args.class_map,
        // "C/" is C, beside which the logs stand.
        out: args.out.components().collect(),
        model_args: args.model_args,
        norm: args.norm,
        max_iters: args.max_iters,
        radius_lr: args.radius_lr,
        radius_batch_size: args.radius_batch_size,
        micro_batch: args.micro_batch.unwrap_or(MicroBatch::Images(args.radius_batch_size)),
        memory_limit: args.memory_limit,
        recompute: args.recompute,
        exclude: args.exclude,
        no_shuffle: args.no_shuffle,
        seed: args.seed,
        tune: args.run.tunes(),
    };
    let gpu = args.run.open()?;
    let mut progress = Progress::new("");
    project(&gpu, &config, &mut |event| progress.show(event))?;
    drop(progress);
    if let Some(base) = &base {
        write_delta_beside(&config.out, base)?;
    }
    let radii = beside(&config.out, ".radii.csv");
    print(&format!("{}, radii in {}\n", config.out.display(), radii.display()))
}
