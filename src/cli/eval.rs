//! `tpgm eval`

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::cli::console::note;
use crate::cli::corrupted::{Copies, json_rows, severity_table};
use crate::cli::progress::Count;
use crate::cli::table::{percent, table};
use crate::cli::zero_shot::build;
use crate::cli::{RunArgs, labels, look_at, print, print_json, say_summaries, scores};
use crate::data::loader::CACHE_BYTES;
use crate::data::{Dataset, ImageCache, corrupt};
use crate::error::{Error, Result};
use crate::train::corrupted::copy_name;
use crate::train::data_args::{EvalDataArgs, named_paths};
use crate::train::evaluate::{Classifier, Evaluation, Fitted, Predictor, Sound, Watched, evaluate_to_fit, features};
use crate::train::help;
use crate::train::knn::{ByNeighbours, Neighbours};
use crate::train::memory_args::PrecisionArgs;
use crate::train::model_args::ModelArgs;
use crate::train::source::Source;
use crate::train::subset::{self, classes_with_images, evaluate_among};
use crate::train::tta::{Tta, TtaArgs};
use crate::train::zero_shot_args::ZeroShotArgs;

/// Flags of `eval`.
#[derive(Args, Debug)]
pub(super) struct EvalArgs {
    /// A .safetensors file, a folder with model.safetensors or its shards, or hf://OWNER/NAME
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// A labelled data set, NAME=PATH; may be given several times
    #[arg(long, value_name = "NAME=PATH", num_args = 1.., required = true)]
    data: Vec<String>,
    /// Corrupted copies of every data set as well: KIND, KIND:SEVERITY or KIND:A..B, or all
    #[arg(long, value_name = "KIND[:SEVERITY]", num_args = 1..)]
    corrupt: Vec<String>,
    /// Decides what is random in --corrupt
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    corrupt_seed: u64,
    /// Answer by the votes of the K nearest of --train's images instead of the model's head (20 is usual): what its features tell
    /// without any training
    #[arg(long, value_name = "K", requires = "train")]
    knn: Option<usize>,
    /// With --knn: the labelled images that vote
    #[arg(long, value_name = "PATH", requires = "knn")]
    train: Option<PathBuf>,
    /// On each data set, let the model answer only with classes that the set has images of (ImageNet-A, -R)
    #[arg(long)]
    subset: bool,
    /// Accuracy by class as well
    #[arg(long)]
    per_class: bool,
    /// Write the confusion matrices to this CSV: data, class, predicted, images
    #[arg(long, value_name = "FILE")]
    confusion: Option<PathBuf>,
    /// Fit a temperature on this labelled data set, and give loss and calibration error of the others at it as well
    #[arg(long, value_name = "NAME=PATH")]
    calibrate: Option<String>,
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
}

pub(super) fn run(args: EvalArgs) -> Result<()> {
    args.images.validate()?;
    let corruptions = corrupt::parse(&args.corrupt, args.corrupt_seed)?;
    if args.knn == Some(0) {
        return Err(Error::Usage("--knn must be greater than 0".into()));
    }
    args.zero_shot.validate(&args.model_args)?;
    if args.knn.is_some() && args.zero_shot.on() {
        return Err(Error::Usage("--knn and --zero-shot are two ways to answer: give one".into()));
    }
    if args.knn.is_some() && args.views.tta != Tta::None {
        return Err(Error::Usage("--tta averages the logits of a head, which --knn has none of: give one".into()));
    }
    let mut source = Source::open(&args.model, &args.zero_shot.overrides(&args.model_args))?;
    match args.knn {
        Some(_) => source = source.without_head(),
        None if args.zero_shot.on() => {}
        None => drop(source.classes()?),
    }
    let files = &args.images.files;
    let preprocess = args.model_args.preprocess(&source.recognised.preprocess)?;
    // The last set is the one to fit on, if there is one.
    let data: Vec<String> = args.data.iter().chain(&args.calibrate).cloned().collect();
    let named = named_paths(&data)?;
    let voters = args.train.as_deref().map(|path| ("train", path));
    let named: Vec<(&str, &Path)> = named.into_iter().chain(voters).collect();
    let copy = |name: &str| named.iter().any(|(of, _)| corruptions.iter().any(|c| copy_name(of, *c) == name));
    if let Some((name, _)) = named.iter().find(|(name, _)| copy(name)) {
        return Err(Error::Usage(format!(
            "--data {name}=...: this is the name of a corrupted copy of another set: take another"
        )));
    }
    let mut opened = named.iter().map(|(_, path)| files.open(path)).collect::<Result<Vec<Dataset>>>()?;
    let checked = look_at(&mut opened, files)?;
    let file = files.map()?;
    let precision = args.precision.precision;
    let gpu = args.run.open(precision)?;
    if args.zero_shot.on() {
        // Other sets may have fewer classes.
        let most = opened.iter().rev().max_by_key(|set| set.classes.len()).expect("clap asks for one");
        let classes = source.voted_classes(most, &opened, file.as_ref())?.names();
        build(&mut |tell| args.zero_shot.apply(&gpu, &mut source, &args.model_args, &classes, tell))?;
    }
    let map = match args.knn {
        Some(_) => source.voted_classes(opened.last().expect("clap wants it"), &opened, file.as_ref())?,
        None => source.class_map(file.as_ref(), &opened.iter().collect::<Vec<_>>())?,
    };
    let multi_label = source.recognised.thresholds.is_some();
    for (flag, given) in [("--subset", args.subset), ("--confusion", args.confusion.is_some())] {
        if multi_label && given {
            let what = "is of models that give one class: this one gives any number of labels";
            return Err(Error::Usage(format!("{flag} {what}")));
        }
    }
    source.recognised.notes.iter().for_each(|n| note!("{}", help::note(n)));
    note!("{map}");
    let classes = map.names();
    let pairs = named.iter().zip(&opened);
    let mut sets: Vec<(&str, Dataset)> =
        pairs.map(|((name, _), images)| Ok((*name, map.label(images)?))).collect::<Result<_>>()?;
    say_summaries(sets.iter().map(|(name, set)| (*name, set)), &classes, &checked);
    let voters = args.knn.and_then(|_| sets.pop());
    let to_fit = args.calibrate.as_ref().and_then(|_| sets.pop());
    to_fit.iter().for_each(|to_fit| scores::warn_of_leaks(to_fit, &sets, &checked.looks));
    let most = sets.iter().map(|(_, images)| images.items.len()).max().unwrap_or(1);
    let batch = args.images.batch_size.min(most);
    let mut predictor = Predictor::new_in(&gpu, source.model(), &source.snapshot(), batch, precision)?;
    let mut count = Count::new("images");
    let neighbours = match (args.knn, &voters) {
        (Some(k), Some((name, images))) => {
            scores::warn_of_leaks(&(*name, images.clone()), &sets, &checked.looks);
            let mut tell = |done, of| count.show(done, of, &format!("features of {name}"));
            let mut sound = Sound::new(&mut predictor, images);
            let mut watched = Watched::new(&mut sound, images, &mut tell);
            let features = features(&mut watched, images, &preprocess)?;
            let labels = images.items.iter().map(|item| item.label).collect();
            Some(Neighbours::new(features, labels, source.recognised.config.width(), classes.len(), k))
        }
        _ => None,
    };
    let mut by_votes;
    let model: &mut dyn Classifier = match &neighbours {
        Some(neighbours) => {
            by_votes = ByNeighbours { tower: &mut predictor, neighbours };
            &mut by_votes
        }
        None => &mut predictor,
    };
    let mut viewed = args.views.tta.of(model, preprocess.image_size);
    let model: &mut dyn Classifier = &mut viewed;
    let temperature = match to_fit {
        Some((name, images)) => {
            let mut sound = Sound::new(model, &images);
            let cache = ImageCache::new(images.clone(), 0);
            let mut tell = |done, of| count.show(done, of, &format!("evaluated on {name}"));
            let mut watched = Watched::new(&mut sound, &images, &mut tell);
            let (_, logits) = evaluate_to_fit(&mut watched, &cache, &preprocess, classes.len())?;
            Some((name, scores::temperature(&logits, name)?))
        }
        None => None,
    };
    let chosen =
        Fitted { temperature: temperature.map(|(_, t)| t.value), thresholds: source.recognised.thresholds.as_deref() };
    let mut results: Vec<(&str, Evaluation)> = Vec::new();
    let mut corrupted: Vec<Copies> = Vec::new();
    for (name, dataset) in &sets {
        if let Some(note) = subset::note(name, dataset, &map, args.subset) {
            count.beside(|| note!("{note}"));
        }
        // Decoded images are kept for the copies.
        let images = ImageCache::new(dataset.clone(), if corruptions.is_empty() { 0 } else { CACHE_BYTES });
        let mut among = |images: &_| {
            let mut sound = Sound::new(model, dataset);
            let mut tell = |done, of| count.show(done, of, &format!("evaluated on {name}"));
            let mut watched = Watched::new(&mut sound, dataset, &mut tell);
            evaluate_among(&mut watched, images, &preprocess, classes.len(), args.subset, chosen)
        };
        results.push((name, among(&images)?));
        corrupted.push(corruptions.iter().map(|c| Ok((*c, among(&images.corrupted(*c))?))).collect::<Result<_>>()?);
    }
    drop(count);
    if let Some(path) = &args.confusion {
        scores::write_confusion(path, &classes, &results)?;
    }
    if args.json {
        let row = |(name, e): &(&str, Evaluation)| {
            let mut row = scores::json_of(name, e);
            if let Some(views) = args.views.tta.name() {
                row["tta"] = json!(views);
            }
            if args.per_class {
                row["per_class"] = scores::json_by_class(&classes, e);
            }
            if args.confusion.is_some() {
                row["confusion"] = scores::json_of_confusion(&classes, e);
            }
            row
        };
        let mut rows: Vec<Value> = results.iter().map(row).collect();
        for (i, ((name, dataset), copies)) in sets.iter().zip(&corrupted).enumerate() {
            let subset = args.subset.then(|| classes_with_images(dataset));
            if let Some(classes) = subset {
                rows[i]["subset"] = json!(classes);
            }
            rows.extend(json_rows(name, copies, subset, args.views.tta));
        }
        return print_json(&rows);
    }
    print(&scores::table_of(&results))?;
    if let Some((name, t)) = temperature {
        print(&format!("temperature T = {:.4}, fitted on {name}\n", t.value))?;
    }
    if args.subset {
        for (name, dataset) in &sets {
            let (has, of) = (classes_with_images(dataset), classes.len());
            print(&format!("{name}: answers among its {has} of {of} classes (--subset)\n"))?;
        }
    }
    if args.views.tta == Tta::Flip {
        print("the logits are the mean of those of each image and its horizontal mirror (--tta flip)\n")?;
    }
    if !corruptions.is_empty() {
        for ((name, clean), copies) in results.iter().zip(&corrupted) {
            print(&severity_table(name, clean, copies))?;
        }
    }
    if args.per_class && multi_label {
        return print(&labels::tables(&classes, &results));
    }
    if args.per_class {
        let mut header = vec!["class"];
        header.extend(results.iter().map(|(name, _)| *name));
        let cell = |(n, right): (usize, usize)| if n == 0 { "-".into() } else { percent(right as f64 / n as f64) };
        let row = |(i, class): (usize, &String)| {
            let mut row = vec![class.clone()];
            row.extend(results.iter().map(|(_, e)| cell(e.per_class[i])));
            row
        };
        let rows: Vec<Vec<String>> = classes.iter().enumerate().map(row).collect();
        print(&format!("\n{}", table(&header, &rows)))?;
    }
    Ok(())
}
