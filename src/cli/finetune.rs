//! `tpgm finetune`

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::checkpoint::{Checkpoint, DeltaSize, LowRank, delta_path, write_adapters, write_delta};
use crate::cli::console::{self, note};
use crate::cli::corrupted::{copied_from, model_tables};
use crate::cli::progress::Progress;
use crate::cli::table::{percent, table};
use crate::cli::{RunArgs, print, print_json, scores};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ranks::launch;
use crate::train::evaluate::Figure;
use crate::train::labels::AtThresholds;
use crate::train::place::Place;
use crate::train::preview::write_grid;
use crate::train::records::Weights;
use crate::train::run_dir;
use crate::train::{Evaluation, FileSettings, Flags, Start, Summary, TestResult, TrainConfig, train_on};

/// Flags of `finetune`.
#[derive(Args, Debug)]
pub(super) struct FinetuneArgs {
    #[command(flatten)]
    train: Flags,
    /// The run directory to write
    #[arg(long, value_name = "DIR", required_unless_present_any = ["resume", "augment_preview"])]
    out: Option<PathBuf>,
    /// A TOML file with the same names as these flags, which win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Go on with the run in this directory (or in --out), with its own settings; the length, the memory and how often it
    /// evaluates and saves may be given anew
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "")]
    resume: Option<OsString>,
    /// With --resume, go on although images or the model have changed since the run began
    #[arg(long)]
    accept_changes: bool,
    /// Do not evaluate the pre-trained model on the test sets
    #[arg(long)]
    no_baseline: bool,
    /// Also write best.delta.safetensors and last.delta.safetensors: only the tensors that differ from --model's, and with
    /// --lora-rank the adapters in place of whole weights, for `tpgm apply`
    #[arg(long)]
    delta: bool,
    /// Also write event files for TensorBoard, in the run directory's folder tensorboard: figures, radii, augmented images and
    /// histograms of drift. A run that has them goes on with them when it is resumed
    #[arg(long)]
    tensorboard: bool,
    /// Write a PNG with a grid of training images as the model would get them, with their labels, and train nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "resume", "delta", "trace", "tensorboard"])]
    augment_preview: Option<PathBuf>,
    /// Time every kernel of one training step before the run, and print the table
    #[arg(long)]
    trace: bool,
    #[command(flatten)]
    run: RunArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// Trains with progress on stderr, and writes the run's page.
pub(super) fn train_and_report(
    gpu: &Gpu,
    config: &TrainConfig,
    out: &Path,
    start: Start,
    prefix: &str,
) -> Result<Summary> {
    let summary = train_with_progress((gpu, &Place::default()), config, out, start, prefix)?;
    write_page(out)?;
    Ok(summary)
}

fn train_with_progress(
    (gpu, place): (&Gpu, &Place),
    config: &TrainConfig,
    out: &Path,
    start: Start,
    prefix: &str,
) -> Result<Summary> {
    let mut progress = Progress::new(prefix);
    train_on(gpu, place, config, out, start, &mut |event| progress.show(event))
}

fn write_page(out: &Path) -> Result<()> {
    crate::report::write(&[out.to_path_buf()], &out.join("report.html"))
}

/// A mean over test sets: its title, and groups of their names. The mean of a group counts once, since sets that share
/// their geometry say the same thing twice.
pub(super) type Mean<'a> = (&'a str, Vec<Vec<&'a str>>);

/// How many times as many images as the smallest the largest class of a test set has for it to count as unequal.
const UNEQUAL: usize = 2;

/// Whether accuracy by class says something else than accuracy.
fn has_unequal_classes(results: &[&TestResult]) -> bool {
    let unequal = |r: &&TestResult| {
        let there = || r.evaluation.per_class.iter().map(|class| class.0).filter(|n| *n > 0);
        there().max() >= there().min().map(|least| UNEQUAL * least)
    };
    results.iter().any(unequal)
}

/// One row per model, one column per test set, then one per mean: of top-1 accuracy, and where a test set has classes of unequal size of
/// balanced accuracy and macro F1. Of images with any number of labels: of mAP, and at the model's own thresholds of F1 and exact matches.
pub(super) fn result_table(rows: &[(String, Vec<&TestResult>)], means: &[Mean]) -> String {
    let Some((_, first)) = rows.first() else { return String::new() };
    let mut tables = vec![accuracy_table(rows, means)];
    let at = |e: &Evaluation| e.labels.as_ref().map(|labels| labels.at_own.unwrap_or(labels.at_half));
    if first.iter().any(|r| r.evaluation.labels.is_some()) {
        let tell =
            |title, of: fn(AtThresholds) -> f64| figure_table(rows, means, title, move |e| at(e).map_or(f64::NAN, of));
        tables.push(tell("micro F1 % at own thresholds", |at| at.micro_f1));
        tables.push(tell("macro F1 % at own thresholds", |at| at.macro_f1));
        tables.push(tell("exact % at own thresholds", |at| at.exact));
        return tables.join("\n");
    }
    if has_unequal_classes(first) {
        tables.push(figure_table(rows, means, "balanced %", |e| e.balanced));
        tables.push(figure_table(rows, means, "macro F1 %", |e| e.macro_f1));
    }
    tables.join("\n")
}

/// The first of them alone.
pub(super) fn accuracy_table(rows: &[(String, Vec<&TestResult>)], means: &[Mean]) -> String {
    let figure = rows.iter().flat_map(|(_, results)| results).next().map_or(Figure::Top1, |r| r.evaluation.figure());
    figure_table(rows, means, &format!("{} %", figure.name()), Evaluation::main)
}

fn figure_table(
    rows: &[(String, Vec<&TestResult>)],
    means: &[Mean],
    title: &str,
    of: impl Fn(&Evaluation) -> f64,
) -> String {
    let mut header = vec![title];
    // Corrupted copies are many: they have a table of their own.
    header.extend(rows[0].1.iter().filter(|r| r.corruption.is_none()).map(|r| r.name.as_str()));
    header.extend(means.iter().map(|(title, _)| *title));
    let cells = rows.iter().map(|(name, results)| {
        let value = |set: &str| results.iter().find(|r| r.name == set).map_or(f64::NAN, |r| of(&r.evaluation));
        let average = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let mut row = vec![name.clone()];
        row.extend(results.iter().filter(|r| r.corruption.is_none()).map(|r| percent(of(&r.evaluation))));
        row.extend(means.iter().map(|(_, groups)| {
            let group = |sets: &Vec<&str>| average(sets.iter().map(|set| value(set)).collect());
            percent(average(groups.iter().map(group).collect()))
        }));
        row
    });
    table(&header, &cells.collect::<Vec<_>>())
}

/// Writes the delta of the model at `path`, with its `adapters` alone where it has some, and says on stderr how large it is.
pub(super) fn write_delta_beside(path: &Path, base: &Checkpoint, adapters: Option<&LowRank>) -> Result<()> {
    let (out, whole) = (delta_path(path), Checkpoint::open(path)?);
    let DeltaSize { changed, adapted, of, bytes } = match adapters {
        Some(adapters) => write_adapters(&out, base, &whole, adapters)?,
        None => write_delta(&out, base, &whole)?,
    };
    let alone = if adapted > 0 { format!(", {adapted} of them as adapters") } else { String::new() };
    note!("{}: {changed} of {of} tensors differ{alone}, {bytes} bytes", out.display());
    Ok(())
}

/// The names of the out-of-distribution sets; the corrupted copies of one set are one group.
fn ood_groups(results: &[&TestResult]) -> Vec<Vec<String>> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for r in results.iter().filter(|r| r.id == Some(false)) {
        // A name with a + is no other set's.
        let group = match r.corruption {
            Some(_) => format!("+{}", copied_from(r)),
            None => r.name.clone(),
        };
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, names)) => names.push(r.name.clone()),
            None => groups.push((group, vec![r.name.clone()])),
        }
    }
    groups.into_iter().map(|(_, names)| names).collect()
}

impl FinetuneArgs {
    /// The run directory.
    fn dir(&self) -> Result<PathBuf> {
        let named = self.resume.as_ref().filter(|run| !run.is_empty()).map(PathBuf::from);
        match (named, &self.out) {
            (Some(run), Some(out)) if run != *out => Err(Error::Usage(format!(
                "--resume {} and --out {} are two directories: give one",
                run.display(),
                out.display()
            ))),
            (Some(dir), _) => Ok(dir),
            (None, Some(dir)) => Ok(dir.clone()),
            (None, None) => Err(Error::Usage("--resume needs the directory of the run".into())),
        }
    }

    /// The file of settings: a run that is resumed has its own.
    fn file(&self, dir: &Path) -> Result<Option<FileSettings>> {
        let own = dir.join("config.toml");
        let own = (self.resume.is_some() && own.exists()).then_some(own);
        match (&self.config, own) {
            (Some(file), _) => FileSettings::read(file).map(Some),
            (None, own) => own.map(|file| FileSettings::of_run(&file)).transpose(),
        }
    }
}

/// Writes the grid of training images, and says so.
fn preview(args: FinetuneArgs, file: &Path) -> Result<()> {
    let settings = args.config.as_deref().map(FileSettings::read).transpose()?;
    if let Some(note) = settings.as_ref().and_then(|settings| settings.note.as_ref()) {
        note!("{note}");
    }
    let config = args.train.resolve(settings.as_ref())?;
    let gpu = args.run.open(config.memory.precision())?;
    let mut progress = Progress::new("");
    write_grid(&gpu, &config, file, &mut |event| progress.show(event))?;
    drop(progress);
    match args.json {
        true => print_json(&json!({ "augment_preview": file })),
        false => print(&format!("{}\n", file.display())),
    }
}

pub(super) fn run(mut args: FinetuneArgs) -> Result<()> {
    let ranks = launch::start()?;
    args.run = args.run.of_rank(ranks.as_deref());
    let place = Place::among(ranks);
    if !place.writes() {
        console::be_quiet();
    }
    if let Some(file) = args.augment_preview.clone() {
        return if place.writes() { preview(args, &file) } else { Ok(()) };
    }
    let out = args.dir()?;
    if args.resume.is_some() {
        run_dir::check(&out, true)?;
    } else if args.accept_changes {
        return Err(Error::Usage("--accept-changes goes with --resume".into()));
    }
    let file = args.file(&out)?;
    if let Some(note) = file.as_ref().and_then(|file| file.note.as_ref()) {
        note!("{note}");
    }
    let config = args.train.resolve(file.as_ref())?;
    let gpu = place.agree(match args.resume.is_some() {
        true => args.run.open_again(&out, config.memory.precision()),
        false => args.run.open(config.memory.precision()),
    })?;
    if args.trace && place.writes() {
        crate::cli::trace::run(&gpu, &config)?;
    }
    let start = Start {
        resume: args.resume.is_some(),
        baseline: !args.no_baseline,
        best: true,
        tune: args.run.tunes(),
        accept_changes: args.accept_changes,
        stoppable: true,
        tensorboard: args.tensorboard,
        delta: args.delta,
    };
    let summary = train_with_progress((&gpu, &place), &config, &out, start, "")?;
    if !place.writes() {
        return Ok(());
    }
    write_page(&out)?;
    if summary.delta {
        let base = Checkpoint::open(&config.model)?;
        for (name, adapters) in ["best.safetensors", "last.safetensors"].into_iter().zip(&summary.adapters) {
            if config.method.lora.lora_rank.is_some() && adapters.is_none() {
                note!("the adapters alone do not make {name}: its delta has whole weights");
            }
            write_delta_beside(&out.join(name), &base, adapters.as_ref())?;
        }
    }
    if args.json {
        let test = |r: &TestResult| {
            let mut row = scores::json_of(&r.name, &r.evaluation);
            row["model"] = json!(r.model);
            r.describe(&mut row);
            row
        };
        return print_json(&json!({
            "out": out,
            "steps": summary.steps,
            "seconds": summary.seconds,
            "tests": summary.tests.iter().map(test).collect::<Vec<_>>(),
        }));
    }
    let models = [Weights::Pretrained, Weights::Last, Weights::Best];
    let rows: Vec<(String, Vec<&TestResult>)> = models
        .iter()
        .map(|m| (m.to_string(), summary.tests.iter().filter(|r| r.model == *m).collect::<Vec<_>>()))
        .filter(|(_, results)| !results.is_empty())
        .collect();
    let sets = rows.first().map_or(Vec::new(), |(_, results)| ood_groups(results));
    let groups: Vec<Vec<&str>> = sets.iter().map(|group| group.iter().map(String::as_str).collect()).collect();
    let means: Vec<Mean> = if groups.is_empty() { Vec::new() } else { vec![("OOD mean", groups)] };
    print(&result_table(&rows, &means))?;
    print(&model_tables(&rows))?;
    let best = out.join("best.safetensors");
    note!("next: tpgm report {}", out.display());
    note!("next: tpgm eval --model {} --data NAME=FOLDER", best.display());
    note!("next: tpgm predict --model {} --data IMAGES", best.display());
    print(&format!("{} steps in {:.0} s; {}\n", summary.steps, summary.seconds, out.join("report.html").display()))
}
