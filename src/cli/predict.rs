//! `tpgm predict`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::atomic::atomic_write;
use crate::checkpoint::write_safetensors;
use crate::cli::console::note;
use crate::cli::embed;
use crate::cli::images::open;
use crate::cli::progress::Count;
use crate::cli::zero_shot::build;
use crate::cli::{RunArgs, look_at, print, print_json, say_summaries};
use crate::csv_text::csv_text;
use crate::data::{Dataset, Item};
use crate::error::{Error, Result, escaped, shown};
use crate::gpu::Gpu;
use crate::train::data_args::EvalDataArgs;
use crate::train::evaluate::{Classifier, Predictor, Sound, Watched, features};
use crate::train::help;
use crate::train::labels::given;
use crate::train::memory_args::PrecisionArgs;
use crate::train::model_args::ModelArgs;
use crate::train::place::Place;
use crate::train::source::Source;
use crate::train::tta::{Tta, TtaArgs};
use crate::train::zero_shot_args::ZeroShotArgs;

/// Flags of `predict`.
#[derive(Args, Debug)]
pub(super) struct PredictArgs {
    /// A .safetensors file, a folder with model.safetensors or its shards, or hf://OWNER/NAME
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// An image, a folder of images, an archive, a list file or a CSV; a quoted pattern such as "photos/**/*.jpg"; or - for a list of
    /// paths on stdin, one per line
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Write the logits [N,C] to this safetensors file, rows in sorted path order
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Classes to name for each image [default: 1; with a model that gives any number of labels, those above their thresholds, and no
    /// other number can be had]
    #[arg(long, value_name = "K")]
    top: Option<usize>,
    /// Write a CSV to this file, or to stdout if it is -: path, rank, class and probability, one row per image and class named
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the features that the head reads to this safetensors file, as `tpgm embed` does, in the same pass
    #[arg(long, value_name = "FILE")]
    embed: Option<PathBuf>,
    #[command(flatten)]
    views: TtaArgs,
    #[command(flatten)]
    images: EvalDataArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    model_args: ModelArgs,
    #[command(flatten)]
    zero_shot: ZeroShotArgs,
    #[command(flatten)]
    run: RunArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
    /// One JSON object per line on stdout, each as soon as its image is predicted
    #[arg(long, conflicts_with = "json")]
    jsonl: bool,
}

/// Classes by falling probability.
fn ranked(logits: &[f32]) -> Vec<(usize, f64)> {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|l| f64::from(l - peak).exp()).sum();
    let mut order: Vec<(usize, f64)> = logits.iter().map(|l| f64::from(l - peak).exp() / total).enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order
}

/// How the answers for one image are told.
struct Told<'a> {
    classes: &'a [String],
    top: usize,
    /// Of a model for any number of labels: from which probability on each is given.
    thresholds: Option<&'a [f32]>,
}

impl Told<'_> {
    /// The classes that are named, the likeliest first: those above their thresholds, or so many.
    fn answers(&self, logits: &[f32]) -> Vec<(&str, f64)> {
        let answers = match self.thresholds {
            Some(thresholds) => given(logits, thresholds),
            None => ranked(logits).into_iter().take(self.top).collect(),
        };
        answers.into_iter().map(|(class, p)| (self.classes[class].as_str(), p)).collect()
    }

    fn json(&self, item: &Item, logits: &[f32]) -> Value {
        let all = self.answers(logits).into_iter().map(|(class, p)| json!({"class": class, "probability": p}));
        let key = if self.thresholds.is_some() { "labels" } else { "top" };
        json!({"path": item.path, key: all.collect::<Vec<_>>()})
    }

    fn text(&self, item: &Item, logits: &[f32]) -> String {
        let all: Vec<String> =
            self.answers(logits).iter().map(|(class, p)| format!("{class} {:.1} %", 100.0 * p)).collect();
        let all = if all.is_empty() { "no label".into() } else { all.join(", ") };
        format!("{}: {}\n", shown(&item.path), escaped(&all))
    }

    fn csv(&self, item: &Item, logits: &[f32]) -> String {
        let path = item.path.to_string_lossy();
        let answers = self.answers(logits);
        if answers.is_empty() {
            // No label is an answer as well.
            return csv_text([[&*path, "", "", ""]]);
        }
        let answers = answers.into_iter().zip(1..);
        csv_text(answers.map(|((class, p), rank)| (&*path, rank, class, p)))
    }
}

/// A classifier that hands on its answers batch by batch.
struct Each<'a> {
    model: &'a mut dyn Classifier,
    hand_on: &'a mut dyn FnMut(&[f32]) -> Result<()>,
}

impl Classifier for Each<'_> {
    fn place(&self) -> Place {
        self.model.place()
    }

    fn capacity(&self) -> usize {
        self.model.capacity()
    }

    fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        let logits = self.model.logits(images, batch)?;
        (self.hand_on)(&logits)?;
        Ok(logits)
    }
}

impl PredictArgs {
    fn validate(&self) -> Result<()> {
        self.images.validate()?;
        if self.top == Some(0) {
            return Err(Error::Usage("--top must be greater than 0".into()));
        }
        if (self.json || self.jsonl) && self.csv_on_stdout() {
            let flag = if self.json { "--json" } else { "--jsonl" };
            return Err(Error::Usage(format!("--csv - and {flag} both write to stdout: give --csv a file")));
        }
        if self.embed.is_some() && self.views.tta != Tta::None {
            return Err(Error::Usage("--embed writes features of images as they are: leave --tta out".into()));
        }
        self.zero_shot.validate(&self.model_args)
    }

    fn csv_on_stdout(&self) -> bool {
        self.csv.as_ref().is_some_and(|file| file.as_os_str() == "-")
    }

    /// Passes the images through the model; their logits, and their features if they are asked for.
    fn predict(&self, gpu: &Gpu, source: &Source, images: &Dataset, told: &Told) -> Result<(Vec<f32>, Vec<f32>)> {
        let preprocess = self.model_args.preprocess(&source.recognised.preprocess)?;
        let batch = self.images.batch_size.min(images.items.len());
        let mut model = Predictor::new_in(gpu, source.model(), &source.snapshot(), batch, self.precision.precision)?;
        if self.embed.is_some() {
            model.keep_features()?;
        }
        let mut viewed = self.views.tta.of(&mut model, preprocess.image_size);
        let mut sound = Sound::new(&mut viewed, images);
        let mut count = Count::new("images");
        let mut tell = |done, of| count.show(done, of, "predicted");
        let mut watched = Watched::new(&mut sound, images, &mut tell);
        let mut waiting = images.items.iter();
        let mut hand_on = |logits: &[f32]| {
            let rows = logits.chunks(told.classes.len()).zip(&mut waiting);
            match self.jsonl {
                true => print(&rows.map(|(logits, item)| format!("{}\n", told.json(item, logits))).collect::<String>()),
                false => Ok(()),
            }
        };
        let logits = features(&mut Each { model: &mut watched, hand_on: &mut hand_on }, images, &preprocess)?;
        drop(count);
        Ok((logits, model.features()))
    }
}

pub(super) fn run(args: PredictArgs) -> Result<()> {
    args.validate()?;
    let mut source = Source::open(&args.model, &args.zero_shot.overrides(&args.model_args))?;
    if source.recognised.thresholds.is_some() && !args.zero_shot.on() && args.top.is_some() {
        let what = "--top is of models that give one class: this one gives all labels above their thresholds";
        return Err(Error::Usage(what.into()));
    }
    let files = &args.images.files;
    let gpu = args.run.open(args.precision.precision)?;
    if args.zero_shot.on() {
        let map = files.map()?;
        let names = match (args.zero_shot.names()?, &map) {
            (Some(names), None) => names,
            (_, Some(map)) => map.names(),
            (None, None) => {
                return Err(Error::Usage(
                    "--zero-shot needs class names: give --class-names FILE or --class-map FILE".into(),
                ));
            }
        };
        build(&mut |tell| args.zero_shot.apply(&gpu, &mut source, &args.model_args, &names, tell))?;
    }
    let classes = source.class_map(files.map()?.as_ref(), &[])?;
    source.recognised.notes.iter().for_each(|n| note!("{}", help::note(n)));
    note!("{classes}");
    let classes = classes.names();
    let mut sets = [open(&args.data, files)?];
    let checked = look_at(&mut sets, files)?;
    let [mut images] = sets;
    images.items.sort_by(|a, b| a.path.cmp(&b.path));
    say_summaries([("data", &images)].into_iter(), &[], &checked);
    let thresholds = source.recognised.thresholds.clone();
    let told = Told { classes: &classes, top: args.top.unwrap_or(1), thresholds: thresholds.as_deref() };
    let (logits, features) = args.predict(&gpu, &source, &images, &told)?;
    if let Some(path) = &args.logits {
        let shape = vec![images.items.len(), classes.len()];
        write_safetensors(path, &[("logits".to_string(), shape, logits.as_slice())], &BTreeMap::new())?;
    }
    if let Some(path) = &args.embed {
        embed::write(path, &images, &features)?;
    }
    let rows = || images.items.iter().zip(logits.chunks(classes.len()));
    if let Some(path) = &args.csv {
        let text = csv_text([["path", "rank", "class", "probability"]])
            + &rows().map(|(item, logits)| told.csv(item, logits)).collect::<String>();
        if args.csv_on_stdout() {
            return print(&text);
        }
        atomic_write(path, text.as_bytes())?;
    }
    match (args.json, args.jsonl) {
        (true, _) => print_json(&rows().map(|(item, logits)| told.json(item, logits)).collect::<Vec<_>>()),
        (_, true) => Ok(()),
        _ => print(&rows().map(|(item, logits)| told.text(item, logits)).collect::<String>()),
    }
}
