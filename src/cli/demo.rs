//! `tpgm demo`

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::console::note;
use crate::cli::finetune::{Mean, accuracy_table, train_and_report};
use crate::cli::{RunArgs, print, print_json, scores};
use crate::error::{Error, Result};
use crate::model::Precision;
use crate::train::memory_args::PrecisionArgs;
use crate::train::records::Weights;
use crate::train::{Flags, Start, TestResult};

/// Flags of `demo`.
#[derive(Args, Debug)]
pub(super) struct DemoArgs {
    /// Folder for the two runs and the page about them
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
    /// The pre-trained model that is fine-tuned
    #[arg(long, value_enum, default_value_t = DemoModel::Vit)]
    model: DemoModel,
    /// Folder with the demo's images and weights [default: assets, here or beside the program's source]
    #[arg(long, value_name = "DIR")]
    assets: Option<PathBuf>,
    /// Passes over the training images
    #[arg(long, value_name = "N", default_value_t = EPOCHS)]
    epochs: u64,
    /// Decides everything that is random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    run: RunArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// The models in assets/.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DemoModel {
    /// A ViT of 474 thousand parameters
    Vit,
    /// A ResNet of 249 thousand parameters
    Resnet,
}

impl DemoModel {
    fn weights(self) -> &'static str {
        match self {
            DemoModel::Vit => "vit-emoji.safetensors",
            DemoModel::Resnet => "resnet-emoji.safetensors",
        }
    }
}

/// Enough for plain fine-tuning to settle, and short enough for two cores without a GPU.
const EPOCHS: u64 = 8;

/// Test sets: name, folder, in-distribution or not.
const TESTS: [(&str, &str); 6] = [
    ("google", "google/test"),
    ("twitter", "twitter/test"),
    ("fluent-flat", "fluent/flat/test"),
    ("fluent-hc", "fluent/hc/test"),
    ("openmoji", "openmoji/color/test"),
    ("openmoji-black", "openmoji/black/test"),
];

/// The other styles: those of the pre-training, and those never seen. Each family of drawings counts once.
fn means() -> Vec<Mean<'static>> {
    vec![
        ("seen", vec![vec!["twitter"], vec!["fluent-flat", "fluent-hc"]]),
        ("unseen", vec![vec!["openmoji", "openmoji-black"]]),
    ]
}

fn find_assets(wanted: Option<PathBuf>, weights: &str) -> Result<PathBuf> {
    let beside_source = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let candidates = wanted.map_or(vec![PathBuf::from("assets"), beside_source], |dir| vec![dir]);
    candidates.iter().find(|dir| dir.join(weights).is_file()).cloned().ok_or_else(|| {
        Error::data(
            &candidates[0],
            format!("there is no {weights} here: give the repository's assets folder (--assets)"),
        )
    })
}

pub(super) fn run(args: DemoArgs) -> Result<()> {
    let weights = args.model.weights();
    let assets = find_assets(args.assets, weights)?;
    let gpu = args.run.open(args.precision.precision)?;
    note!("on {} ({:?})", gpu.info.name, gpu.info.backend);
    let runs = [("fine-tuning", "vanilla"), ("TPGM", "tpgm")];
    let mut rows: Vec<(String, Vec<TestResult>)> = Vec::new();
    let mut dirs = Vec::new();
    for (i, (title, name)) in runs.into_iter().enumerate() {
        let mut words: Vec<OsString> = vec!["--model".into(), assets.join(weights).into()];
        for (flag, dir) in [("--train", "google/train"), ("--val", "google/val")] {
            words.extend([flag.into(), assets.join(dir).into()]);
        }
        words.push("--test".into());
        words.extend(TESTS.map(|(name, dir)| format!("{name}={}", assets.join(dir).display()).into()));
        let precision = if args.precision.precision == Precision::F16 { "f16" } else { "f32" };
        let (epochs, seed) = (args.epochs, args.seed);
        let others = format!(
            "--id {} --epochs {epochs} --seed {seed} --method {name} --precision {precision} --augment flip --batch-size 64 \
             --drop-last --eval-every 2",
            TESTS[0].0
        );
        words.extend(others.split(' ').map(OsString::from));
        let config = Flags::parse(words)?.resolve(None)?;
        let dir = args.out.join(name);
        // A demo is run to be seen again: its own folders are replaced.
        if dir.join("metrics.jsonl").exists() {
            std::fs::remove_dir_all(&dir).map_err(|e| Error::io(&dir, "cannot replace this folder", e))?;
        }
        // The last weights of both runs are held against each other: the same steps, and nothing chosen.
        let start = Start { resume: false, baseline: i == 0, best: false, tune: args.run.tunes(), ..Start::default() };
        let summary = train_and_report(&gpu, &config, &dir, start, &format!("{title}: "))?;
        let of = |model: Weights| summary.tests.iter().filter(|r| r.model == model).cloned().collect::<Vec<_>>();
        if i == 0 {
            rows.push(("pre-trained".into(), of(Weights::Pretrained)));
        }
        rows.push((title.into(), of(Weights::Last)));
        dirs.push(dir);
    }
    let page = args.out.join("report.html");
    crate::report::write(&dirs, &page)?;
    let rows: Vec<(String, Vec<&TestResult>)> = rows.iter().map(|(n, r)| (n.clone(), r.iter().collect())).collect();
    if args.json {
        let results = |(model, results): &(String, Vec<&TestResult>)| json!({"model": model, "tests": results.iter().map(|r| scores::json_of(&r.name, &r.evaluation)).collect::<Vec<_>>()});
        let models: Vec<_> = rows.iter().map(results).collect();
        return print_json(&json!({"models": models, "report": page}));
    }
    let images = rows[0].1.first().map_or(0, |r| r.evaluation.images);
    print(&format!(
        "\n{}\nfine-tuned on google's training images (ID); seen and unseen are means over the other styles (OOD), by \
         whether the\npre-trained model had met the style. {images} test images per style: a standard error near 3 \
         points.\n{}\n",
        accuracy_table(&rows, &means()),
        page.display()
    ))
}
