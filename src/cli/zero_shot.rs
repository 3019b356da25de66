//! `tpgm zero-shot`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::checkpoint::{Checkpoint, TextOverrides};
use crate::cli::console::note;
use crate::cli::progress::Count;
use crate::cli::{RunArgs, print, print_json};
use crate::data::{ClassMap, Dataset};
use crate::error::Result;
use crate::flag::word;
use crate::model::Precision;
use crate::shapes::Activation;
use crate::text::names_of;
use crate::train::zero_shot::{TextHead, Told};
use crate::train::zero_shot_args::PromptArgs;

/// Flags of `zero-shot`.
#[derive(Args, Debug)]
pub(super) struct ZeroShotArgs {
    /// A model with a text tower (CLIP, SigLIP): a .safetensors file, a folder with model.safetensors or its shards, or
    /// hf://OWNER/NAME
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// A file with one class name per line
    #[arg(long, value_name = "FILE", required_unless_present = "classes_of", conflicts_with = "classes_of")]
    classes: Option<PathBuf>,
    /// Images whose classes are meant: one folder per class, a list file or a CSV
    #[arg(long, value_name = "PATH")]
    classes_of: Option<PathBuf>,
    #[command(flatten)]
    prompts: PromptArgs,
    /// The text tower's activation, where the file can't say: gelu, gelu_tanh or quick_gelu
    #[arg(long, value_parser = word::<Activation>)]
    activation: Option<Activation>,
    /// The text tower's attention heads, where the file can't say
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// The safetensors file to write, for --head: weight [classes, features], the unit mean of each class times the model's scale
    #[arg(long, value_name = "HEAD")]
    out: PathBuf,
    #[command(flatten)]
    run: RunArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: ZeroShotArgs) -> Result<()> {
    let prompts = args.prompts.prompts()?;
    let names = match (&args.classes, &args.classes_of) {
        (Some(file), _) => names_of(file)?,
        (None, Some(path)) => ClassMap::of_ids(&Dataset::open(path, None)?)?.names(),
        (None, None) => unreachable!("clap asks for one of them"),
    };
    let checkpoint = Checkpoint::open(&args.model)?;
    let overrides = TextOverrides { heads: args.heads, activation: args.activation };
    let gpu = args.run.open(Precision::F32)?;
    let head = build(&mut |tell| TextHead::new(&gpu, &checkpoint, &overrides, &prompts, &names, tell))?;
    head.write(&args.out)?;
    let (classes, templates) = (head.classes.len(), prompts.templates.count());
    if args.json {
        return print_json(&json!({
            "out": args.out, "classes": head.classes, "templates": templates, "features": head.features, "bias": head.bias,
        }));
    }
    let out = args.out.display();
    print(&format!("{out}: {} features of each of {classes} classes, from {templates} sentences each\n", head.features))
}

/// Hears what the making of a head tells.
type Hear<'a> = &'a mut dyn FnMut(Told);

/// Builds a head with notes and progress on stderr.
pub(super) fn build<T>(make: &mut dyn FnMut(Hear) -> Result<T>) -> Result<T> {
    let mut count = Count::new("texts");
    make(&mut |told| match told {
        Told::Note(what) => count.beside(|| note!("{what}")),
        Told::Done(done, of) => count.show(done, of, "embedded"),
    })
}
