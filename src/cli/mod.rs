//! The command line: one file per subcommand. Results go to stdout, everything said on the way to stderr.

mod apply;
mod bench;
mod check;
mod compare;
mod completions;
pub mod console;
mod corrupt;
mod corrupted;
mod demo;
mod devices;
mod embed;
mod eval;
mod export;
mod finetune;
mod images;
mod init;
mod inspect;
mod labels;
mod lr_find;
mod predict;
mod progress;
mod project;
mod report;
mod scores;
mod soup;
mod sparkline;
mod table;
mod trace;
mod wise;
mod workers;
mod zero_shot;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::cli::console::{note, warning};
use crate::data::{Dataset, Summary};
use crate::error::{Error, Result, escaped};
use crate::gpu::Gpu;
use crate::gpu::adapters::why_cpu;
use crate::gpu::cache::cache_dir;
use crate::gpu::tiles::Tile;
use crate::model::Precision;
use crate::ops::self_check;
use crate::ranks::{Ranks, launch};
use crate::train::adapter;
use crate::train::data_args::{Checked, DataArgs};
use crate::version::VERSION;

/// Robust fine-tuning of vision models on any GPU
#[derive(Debug, Parser)]
#[command(name = "tpgm", version = VERSION, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Warnings and errors alone on stderr: no progress, no notes
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the adapters, and which one a run would take and why
    Devices(devices::DevicesArgs),
    /// Hold every kernel against its reference on this adapter: what to run first on a new GPU
    Check(check::CheckArgs),
    /// Measure training steps, inference and kernels on this adapter, against what it can do
    Bench(bench::BenchArgs),
    /// Tell what a checkpoint holds and how it would be run
    Inspect(Box<inspect::InspectArgs>),
    /// Write a model with random weights, to pre-train from nothing
    Init(init::InitArgs),
    /// Predict the classes of images
    Predict(predict::PredictArgs),
    /// Write the features that a model has of images
    Embed(embed::EmbedArgs),
    /// Write a head that a model's text tower makes of class names
    ZeroShot(zero_shot::ZeroShotArgs),
    /// Accuracy, loss and calibration on data sets
    Eval(eval::EvalArgs),
    /// Write corrupted copies of a data set, or a page of all corruptions of one image
    Corrupt(corrupt::CorruptArgs),
    /// Fine-tune a model, held near the pre-trained one by radii learned on validation data
    Finetune(Box<finetune::FinetuneArgs>),
    /// Try rising learning rates for a few steps, and suggest one
    LrFind(Box<lr_find::LrFindArgs>),
    /// Learn radii for a checkpoint that was fine-tuned elsewhere, and project it
    Project(project::ProjectArgs),
    /// Interpolate between a pre-trained and a fine-tuned model (WiSE-FT), or scale by layer (LiNeS)
    Wise(Box<wise::WiseArgs>),
    /// Average models that were fine-tuned from the same weights
    Soup(Box<soup::SoupArgs>),
    /// Run methods with seeds and grids on data sets, as a file says, and compare them on one page
    Compare(compare::CompareArgs),
    /// Put a delta and its base together to the whole model
    Apply(apply::ApplyArgs),
    /// Write a model for other programs: an ONNX file, or a folder that transformers, timm or torchvision load
    Export(Box<export::ExportArgs>),
    /// Write one HTML page about one run or several
    Report(report::ReportArgs),
    /// Print a script that completes commands and flags in your shell
    Completions(completions::CompletionsArgs),
    /// Write man pages of all commands
    Man(completions::ManArgs),
    /// Fine-tune on the images that come with this program, plainly and with TPGM, and compare
    Demo(demo::DemoArgs),
}

impl Command {
    /// Its name, if one process does all of it, and several would write the same files.
    fn for_one(&self) -> Option<&'static str> {
        match self {
            Command::Finetune(_) | Command::Compare(_) => None,
            // Those that look at a machine, and write nothing.
            Command::Devices(_) | Command::Check(_) | Command::Bench(_) | Command::Inspect(_) => None,
            Command::Completions(_) | Command::Man(_) => None,
            Command::Init(_) => Some("init"),
            Command::Predict(_) => Some("predict"),
            Command::Embed(_) => Some("embed"),
            Command::ZeroShot(_) => Some("zero-shot"),
            Command::Eval(_) => Some("eval"),
            Command::Corrupt(_) => Some("corrupt"),
            Command::LrFind(_) => Some("lr-find"),
            Command::Project(_) => Some("project"),
            Command::Wise(_) => Some("wise"),
            Command::Soup(_) => Some("soup"),
            Command::Apply(_) => Some("apply"),
            Command::Export(_) => Some("export"),
            Command::Report(_) => Some("report"),
            Command::Demo(_) => Some("demo"),
        }
    }
}

/// Which adapter to run on.
#[derive(Args, Clone, Debug, Default)]
pub struct AdapterArgs {
    /// Adapter: its number in `tpgm devices`, or a part of its name; for several processes on a machine that train together, a list
    /// of numbers, as in 0,1
    #[arg(long, value_name = "ADAPTER")]
    adapter: Option<String>,
}

impl AdapterArgs {
    /// Whether the user named one.
    fn is_chosen(&self) -> bool {
        self.adapter.is_some() || std::env::var_os("WGPU_ADAPTER_NAME").is_some()
    }
}

/// Which adapter to run on, and whether by the kernels that are fastest there.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    #[command(flatten)]
    adapter: AdapterArgs,
    /// Take the default kernels: neither measure which are fastest on this adapter, nor use earlier measurements
    #[arg(long)]
    no_tune: bool,
    /// In f16, never use the adapter's matrix units (cooperative matrices), which are used where they compute the right thing
    #[arg(long)]
    no_cooperative: bool,
    /// Which of the adapters that are alike is taken: of several processes on one machine, each has its own.
    #[arg(skip)]
    nth: usize,
}

impl RunArgs {
    /// The same on another adapter.
    fn on(mut self, adapter: &str) -> RunArgs {
        self.adapter.adapter = Some(adapter.into());
        self
    }

    /// Those of one of several ranks: of the adapters that are alike, or of a list of numbers as in `--adapter 0,1`, its own.
    fn of_rank(mut self, ranks: Option<&dyn Ranks>) -> RunArgs {
        let Some(ranks) = ranks else { return self };
        self.nth = ranks.local_rank();
        let numbers = self.adapter.adapter.iter().flat_map(|adapter| adapter.split(','));
        let numbers: Vec<&str> = numbers.map(str::trim).collect();
        if numbers.len() > 1 && numbers.iter().all(|number| number.parse::<usize>().is_ok()) {
            self.adapter.adapter = Some(numbers[self.nth % numbers.len()].to_string());
        }
        self
    }

    /// Opens it, with shaders as fast as they go, for activations in this format.
    fn open(&self, precision: Precision) -> Result<OpenGpu> {
        let gpu = Gpu::open_nth(self.adapter.adapter.as_deref(), self.nth, false)?;
        if !self.adapter.is_chosen()
            && let Some(why) = why_cpu(&gpu.info)
        {
            note!("{why}");
        }
        Ok(self.prepare(gpu, precision))
    }

    /// As [`RunArgs::open`], for the run in `dir` to go on: the adapter that it was on, where no other is asked for.
    fn open_again(&self, dir: &Path, precision: Precision) -> Result<OpenGpu> {
        match if self.adapter.is_chosen() { None } else { adapter::read(dir)? } {
            Some(name) => Ok(self.prepare(Gpu::open_named(&name, self.nth, false)?, precision)),
            None => self.open(precision),
        }
    }

    /// Loads the pipelines and kernel choices kept for this adapter, and allows the kernels that are right on it.
    fn prepare(&self, gpu: Gpu, precision: Precision) -> OpenGpu {
        let cache = cache_dir();
        if let Some(dir) = &cache {
            gpu.load_pipelines(dir).unwrap_or_else(|e| tracing::warn!("{e}: every kernel is compiled"));
            if self.tunes() {
                gpu.load_choices(dir).unwrap_or_else(|e| warning!("{e}: ignored, kernels are measured anew"));
            }
        }
        if self.tunes() {
            self.allow(&gpu, cache.as_deref(), precision);
        }
        OpenGpu { gpu, cache }
    }

    /// Lets the tuner choose the less common ways to compute a product, where they are right.
    fn allow(&self, gpu: &Gpu, cache: Option<&Path>, precision: Precision) {
        let known = [Tile::Subgroup, Tile::Cooperative].map(|tile| gpu.found_right(tile));
        // On a CPU adapter they are no candidates.
        if !gpu.is_cpu() {
            self_check::allow_subgroups(gpu);
        }
        if precision == Precision::F16 && self.may_cooperate() {
            self_check::allow_cooperative(gpu);
        }
        if known != [Tile::Subgroup, Tile::Cooperative].map(|tile| gpu.found_right(tile))
            && let Some(Err(e)) = cache.map(|dir| gpu.save_choices(dir))
        {
            tracing::warn!("{e}: the next run compares them anew");
        }
    }

    /// Whether f16 products may use cooperative matrices; the environment's `TPGM_NO_COOPERATIVE` turns them off as well.
    fn may_cooperate(&self) -> bool {
        !self.no_cooperative && std::env::var_os("TPGM_NO_COOPERATIVE").is_none()
    }

    /// Whether kernels are chosen by measuring; the environment's `TPGM_NO_TUNE` turns it off as well as the flag.
    fn tunes(&self) -> bool {
        !self.no_tune && std::env::var_os("TPGM_NO_TUNE").is_none()
    }
}

/// A device whose pipelines are kept for the next run when this one ends, however it ends.
#[derive(Debug)]
struct OpenGpu {
    gpu: Gpu,
    cache: Option<PathBuf>,
}

impl std::ops::Deref for OpenGpu {
    type Target = Gpu;

    fn deref(&self) -> &Gpu {
        &self.gpu
    }
}

impl Drop for OpenGpu {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.cache.as_ref().map(|dir| self.gpu.save_pipelines(dir)) {
            tracing::warn!("{e}: pipelines are not kept");
        }
    }
}

/// Whether all arguments are text, which JSON, reports and config.toml hold paths as.
///
/// # Errors
/// [`Error::Usage`] naming the first that is none.
pub fn readable(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    match arguments.find(|argument| argument.to_str().is_none()) {
        None => Ok(()),
        Some(argument) => {
            let shown = argument.to_string_lossy();
            Err(Error::Usage(format!("the argument {shown:?} is not UTF-8: rename the file or folder")))
        }
    }
}

/// Runs a subcommand; the exit code is not 0 where it finished with a bad result. `demo` has the files of `tpgm demo`, by their paths.
pub fn run(cli: Cli, demo: &[(&str, &[u8])]) -> Result<ExitCode> {
    if cli.quiet {
        console::be_quiet();
    }
    crate::checkpoint::watch_fetches(progress::fetching);
    cli.command.for_one().map_or(Ok(()), launch::refuse)?;
    match cli.command {
        Command::Devices(args) => devices::run(args),
        Command::Check(args) => return check::run(args),
        Command::Bench(args) => return bench::run(args),
        Command::Inspect(args) => inspect::run(*args),
        Command::Init(args) => init::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Embed(args) => embed::run(args),
        Command::ZeroShot(args) => zero_shot::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Corrupt(args) => corrupt::run(args),
        Command::Finetune(args) => finetune::run(*args),
        Command::LrFind(args) => lr_find::run(*args),
        Command::Project(args) => project::run(args),
        Command::Wise(args) => wise::run(*args),
        Command::Soup(args) => soup::run(*args),
        Command::Compare(args) => return compare::run(args),
        Command::Apply(args) => apply::run(args),
        Command::Export(args) => export::run(*args),
        Command::Report(args) => report::run(args),
        Command::Completions(args) => completions::completions(args),
        Command::Man(args) => completions::man(args),
        Command::Demo(args) => demo::run(args, demo),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Prints to stdout, without what a terminal obeys; a closed pipe (`| head`) ends the output, not the program with a panic.
fn print(text: &str) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let text = text.split('\n').map(escaped).collect::<Vec<_>>().join("\n");
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("stdout", "cannot write", e)),
        _ => Ok(()),
    }
}

/// Looks at all images of `sets`, with progress.
///
/// # Errors
/// As [`DataArgs::check`].
fn look_at(sets: &mut [Dataset], files: &DataArgs) -> Result<Checked> {
    let mut count = progress::Count::new("images");
    files.check(sets, &mut |done, of| count.show(done, of, "looked at"))
}

/// Tells what a look at the images of `sets` found, whose labels are places in `classes`, or that have none.
fn say_summaries<'a>(sets: impl Iterator<Item = (&'a str, &'a Dataset)>, classes: &[String], checked: &Checked) {
    for ((name, set), broken) in sets.zip(&checked.broken) {
        for (is_warning, line) in Summary::new(name, set, classes, &checked.looks, broken).lines() {
            if is_warning { warning!("{line}") } else { note!("{line}") }
        }
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("plain values always serialise");
    print(&(text + "\n"))
}
