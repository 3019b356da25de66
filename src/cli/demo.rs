//! `tpgm demo`

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::cli::console::note;
use crate::cli::finetune::{Mean, accuracy_table, train_and_report};
use crate::cli::{RunArgs, print, print_json, scores};
use crate::error::{Error, Result};
use crate::gpu::cache::cache_dir;
use crate::model::Precision;
use crate::train::lock::Lock;
use crate::train::memory_args::PrecisionArgs;
use crate::train::records::Weights;
use crate::train::{Flags, Start, TestResult, TrainConfig};

/// Flags of `demo`.
#[derive(Args, Debug)]
pub(super) struct DemoArgs {
    /// Folder for the two runs and the page about them
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
    /// The pre-trained model that is fine-tuned
    #[arg(long, value_enum, default_value_t = DemoModel::Vit)]
    model: DemoModel,
    /// Folder with the demo's images and weights [default: assets here, else those that the program brings, unpacked into its
    /// cache folder]
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

/// The folder with the demo's images and `weights`: the one that is `wanted`; else `assets`, here; else one in the user's cache, into which
/// the `files` that the program brings are written the first time.
fn find_assets(wanted: Option<PathBuf>, weights: &str, files: &[(&str, &[u8])]) -> Result<PathBuf> {
    let here = wanted.clone().unwrap_or_else(|| PathBuf::from("assets"));
    if here.join(weights).is_file() {
        return Ok(here);
    }
    if wanted.is_some() || files.is_empty() {
        let what = format!("there is no {weights} here: give the repository's assets folder (--assets)");
        return Err(Error::data(&here, what));
    }
    let cache = cache_dir().ok_or_else(|| {
        Error::Usage("there is no cache folder to unpack the demo's images into: name one in TPGM_CACHE_DIR".into())
    })?;
    unpack(&cache, files)
}

/// Writes `files` into a folder in `cache` that is named after what they hold, unless it is there.
fn unpack(cache: &Path, files: &[(&str, &[u8])]) -> Result<PathBuf> {
    let mut digest = Sha256::new();
    for (name, bytes) in files {
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name);
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    }
    let id: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let folder = cache.join(format!("demo-{id}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    note!("unpacking {} images and weights into {}", files.len(), folder.display());
    // Whole or not at all, also with two demos at once.
    let beside = cache.join(format!(".demo-{id}-{}.tmp", std::process::id()));
    let cannot = |path: &Path, e| Error::io(path, "cannot write", e);
    for (name, bytes) in files {
        let path = beside.join(name);
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(|e| cannot(&path, e))?;
        std::fs::write(&path, bytes).map_err(|e| cannot(&path, e))?;
    }
    match std::fs::rename(&beside, &folder) {
        Err(e) if !folder.is_dir() => Err(cannot(&folder, e)),
        renamed => {
            if renamed.is_err() {
                let _ = std::fs::remove_dir_all(&beside);
            }
            Ok(folder)
        }
    }
}

pub(super) fn run(args: DemoArgs, files: &[(&str, &[u8])]) -> Result<()> {
    let weights = args.model.weights();
    let assets = find_assets(args.assets, weights, files)?;
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
            if !is_of_demo(&dir, &config) {
                let what = format!(
                    "--out {}: {} holds another run: give a folder of the demo's own",
                    args.out.display(),
                    dir.display()
                );
                return Err(Error::Usage(what));
            }
            // Nor while it is being written.
            drop(Lock::take(&dir)?);
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
    // Without the head that the assets come with there is nothing to test before.
    rows.retain(|(_, results)| !results.is_empty());
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

/// Whether the run in `dir` is an earlier one of the demo's: of the same method, with test sets of the same names.
fn is_of_demo(dir: &Path, config: &TrainConfig) -> bool {
    let facts = |text: &str| -> Option<(toml::Value, Vec<String>)> {
        let table: toml::Table = toml::from_str(text).ok()?;
        let name = |set: &toml::Value| Some(set.as_str()?.split('=').next()?.to_string());
        let sets = table.get("test")?.as_array()?.iter().map(name).collect::<Option<_>>()?;
        Some((table.get("method")?.clone(), sets))
    };
    let text = std::fs::read_to_string(dir.join("config.toml")).unwrap_or_default();
    facts(&text).is_some_and(|own| Some(own) == facts(&config.to_toml()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_unpacked_once_and_whole() {
        let cache = tempfile::tempdir().unwrap();
        let files: [(&str, &[u8]); 2] = [("google/train/cat/1.png", b"one"), ("w.safetensors", b"two")];
        let folder = find_assets(None, "w.safetensors", &[]).map_err(|e| e.to_string());
        assert!(folder.unwrap_err().contains("--assets"));
        let folder = unpack(cache.path(), &files).unwrap();
        assert_eq!(std::fs::read(folder.join("google/train/cat/1.png")).unwrap(), b"one");
        std::fs::write(folder.join("mark"), "").unwrap();
        assert!(unpack(cache.path(), &files).unwrap() == folder && folder.join("mark").exists());
        let other: [(&str, &[u8]); 2] = [("google/train/cat/1.png", b"onet"), ("w.safetensors", b"wo")];
        assert_ne!(unpack(cache.path(), &other).unwrap(), folder);
        let left = std::fs::read_dir(cache.path()).unwrap().count();
        assert_eq!(left, 2, "nothing half-written");
    }
}
