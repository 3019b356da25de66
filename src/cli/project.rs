//! `tpgm project`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::checkpoint::Checkpoint;
use crate::cli::finetune::write_delta_beside;
use crate::cli::progress::Progress;
use crate::cli::{RunArgs, print, print_json};
use crate::error::{Error, Result};
use crate::flag::word;
use crate::method::{MethodArgs, Schedule, tpgm};
use crate::shapes::Norm;
use crate::train::data_args::DataArgs;
use crate::train::memory_args::MemoryArgs;
use crate::train::model_args::ModelArgs;
use crate::train::project::{ProjectConfig, beside, project};
use crate::train::zero_shot_args::ZeroShotArgs;

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
    #[command(flatten)]
    data: DataArgs,
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
    #[command(flatten)]
    memory: MemoryArgs,
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
    zero_shot: ZeroShotArgs,
    #[command(flatten)]
    run: RunArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: ProjectArgs) -> Result<()> {
    if args.max_iters == 0 || args.radius_batch_size == 0 || !args.radius_lr.is_normal() || args.radius_lr < 0.0 {
        return Err(Error::Usage("--max-iters, --radius-batch-size and --radius-lr must be greater than 0".into()));
    }
    args.memory.validate()?;
    args.zero_shot.validate(&args.model_args)?;
    let base = args.delta.then(|| Checkpoint::open(&args.pretrained)).transpose()?;
    let tpgm = tpgm::Flags {
        schedule: Schedule::Post,
        proj_freq: 1,
        max_iters: args.max_iters,
        radius_batch_size: args.radius_batch_size,
    };
    let config = ProjectConfig {
        pretrained: args.pretrained,
        finetuned: args.finetuned,
        val: args.val,
        data: args.data,
        // "C/" is C, beside which the logs stand.
        out: args.out.components().collect(),
        model_args: args.model_args,
        zero_shot: args.zero_shot,
        method: MethodArgs {
            norm: args.norm,
            radius_lr: args.radius_lr,
            exclude: args.exclude,
            tpgm,
            ..MethodArgs::default()
        },
        memory: args.memory,
        no_shuffle: args.no_shuffle,
        seed: args.seed,
        tune: args.run.tunes(),
    };
    let gpu = args.run.open(config.memory.precision())?;
    let mut progress = Progress::new("");
    project(&gpu, &config, &mut |event| progress.show(event))?;
    drop(progress);
    if let Some(base) = &base {
        write_delta_beside(&config.out, base, None)?;
    }
    let radii = beside(&config.out, ".radii.csv");
    if args.json {
        let (out, metrics) = (&config.out, beside(&config.out, ".metrics.jsonl"));
        return print_json(&json!({"out": out, "radii": radii, "metrics": metrics}));
    }
    print(&format!("{}, radii in {}\n", config.out.display(), radii.display()))
}
