//! `tpgm inspect`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::checkpoint::{Checkpoint, Description, OVERRIDE, describe, describe_delta, recognise};
use crate::cli::{RunArgs, print, print_json};
use crate::error::{Error, Result};
use crate::model::Precision;
use crate::train::help;
use crate::train::model_args::ModelArgs;
use crate::train::source::Source;
use crate::train::verify::{Golden, Verification, verify};

/// Flags of `inspect`.
#[derive(Args, Debug)]
pub(super) struct InspectArgs {
    /// A .safetensors file, a folder with model.safetensors or its shards, or hf://OWNER/NAME
    model: PathBuf,
    /// Compare with what another library computed: a safetensors file with images [N,3,S,S], preprocessed, and logits
    /// [N,C]
    #[arg(long, value_name = "GOLDEN")]
    verify: Option<PathBuf>,
    /// The largest difference of two logits that passes, over the largest of --verify's logits
    #[arg(long, value_name = "SHARE", default_value_t = 1e-3, requires = "verify")]
    tolerance: f32,
    #[command(flatten)]
    model_args: ModelArgs,
    #[command(flatten)]
    run: RunArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: InspectArgs) -> Result<()> {
    if !(args.tolerance >= 0.0 && args.tolerance.is_finite()) {
        return Err(Error::Usage("--tolerance must be at least 0".into()));
    }
    let checkpoint = Checkpoint::open(&args.model)?;
    if let Some(delta) = describe_delta(&checkpoint)? {
        if args.verify.is_some() {
            // The error of whoever wants a model.
            recognise(&checkpoint, &args.model_args.overrides())?;
        }
        let apply = help::apply_command(&delta.delta.base(), &delta.path);
        return if args.json { print_json(&delta) } else { print(&format!("{delta}use           {apply}\n")) };
    }
    let golden = args.verify.as_deref().map(Golden::open).transpose()?;
    let mut overrides = args.model_args.overrides();
    overrides.image_size = overrides.image_size.or(golden.as_ref().map(|g| g.image_size));
    let mut recognised = recognise(&checkpoint, &overrides)?;
    recognised.preprocess = args.model_args.preprocess(&recognised.preprocess)?;
    if let (None, Some(place)) = (args.model_args.image_size, recognised.sources.get_mut("image_size"))
        && place == OVERRIDE
    {
        *place = "the golden file's".into();
    }
    if args.model_args.changes_preprocess() {
        let place = recognised.sources.entry("preprocess").or_default();
        *place = format!("flags, {place}");
    }
    let mut description = describe(&checkpoint, &recognised);
    for (fact, place) in &mut description.sources {
        if place == OVERRIDE {
            *place = format!("--{}", fact.replace('_', "-"));
        }
    }
    description.notes = recognised.notes.iter().map(help::note).collect();
    let Some((golden, path)) = golden.zip(args.verify) else { return show(&description, None, args.json) };
    let source = Source::open(&args.model, &overrides)?;
    let gpu = args.run.open(Precision::F32)?;
    let verification = verify(&gpu, &source, &golden, &path, args.tolerance)?;
    show(&description, Some(&verification), args.json)?;
    if verification.passed {
        return Ok(());
    }
    Err(checkpoint.error(format!(
        "its logits differ from {}'s by {:.1e} of the largest, above --tolerance {:.1e}",
        path.display(),
        verification.relative,
        args.tolerance
    )))
}

fn show(description: &Description, verification: Option<&Verification>, as_json: bool) -> Result<()> {
    if as_json {
        let mut value = json!(description);
        if let Some(verification) = verification {
            value["verify"] = json!(verification);
        }
        return print_json(&value);
    }
    let mut text = description.to_string();
    if let Some(v) = verification {
        let (verdict, sign) = if v.passed { ("pass", "within") } else { ("FAIL", "above") };
        text += &format!(
            "verify        {verdict}: logits of {} images on {} differ by {:.1e}, relative {:.1e}, {sign} {:.1e}; most at \
             image {} class {}\n",
            v.images, v.adapter, v.absolute, v.relative, v.tolerance, v.at[0], v.at[1]
        );
    }
    print(&text)
}
