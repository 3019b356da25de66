//! The binary as its users meet it: exit codes, files, one clear line for whatever goes wrong.
//!
//! Every test works in a folder of its own, on images that it makes itself and a model that `tpgm init` makes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{Rgb, RgbImage};
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

mod common;

#[path = "cli/advice.rs"]
mod advice;
#[path = "cli/archives.rs"]
mod archives;
#[path = "cli/augment.rs"]
mod augment;
#[path = "cli/bad_data.rs"]
mod bad_data;
#[path = "cli/bad_models.rs"]
mod bad_models;
#[path = "cli/bad_runs.rs"]
mod bad_runs;
#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/best.rs"]
mod best;
#[path = "cli/check.rs"]
mod check;
#[path = "cli/classes.rs"]
mod classes;
#[path = "cli/completions.rs"]
mod completions;
#[path = "cli/corrupt.rs"]
mod corrupt;
#[path = "cli/export.rs"]
mod export;
#[path = "cli/families.rs"]
mod families;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/finetune.rs"]
mod finetune;
#[path = "cli/foreign_labels.rs"]
mod foreign_labels;
#[path = "cli/half.rs"]
mod half;
#[path = "cli/images.rs"]
mod images;
#[path = "cli/labels.rs"]
mod labels;
#[path = "cli/lora.rs"]
mod lora;
#[path = "cli/lr_find.rs"]
mod lr_find;
#[path = "cli/methods.rs"]
mod methods;
#[path = "cli/page.rs"]
mod page;
#[path = "cli/parquet.rs"]
mod parquet;
#[cfg(unix)]
#[path = "cli/peers.rs"]
mod peers;
#[path = "cli/predict.rs"]
mod predict;
#[path = "cli/probe.rs"]
mod probe;
#[path = "cli/project.rs"]
mod project;
#[cfg(feature = "mpi")]
#[path = "cli/ranks.rs"]
mod ranks;
#[path = "cli/resnet.rs"]
mod resnet;
#[path = "cli/resume.rs"]
mod resume;
#[cfg(unix)]
#[path = "cli/stopped.rs"]
mod stopped;
#[path = "cli/streams.rs"]
mod streams;
#[path = "cli/tables.rs"]
mod tables;
#[path = "cli/tensorboard.rs"]
mod tensorboard;
#[path = "cli/tuning.rs"]
mod tuning;
#[path = "cli/types.rs"]
mod types;
#[path = "cli/unbalanced.rs"]
mod unbalanced;
#[path = "cli/zero_shot.rs"]
mod zero_shot;

/// Classes, and the colours that their images have.
const CLASSES: [(&str, [u8; 3]); 3] = [("blue", [40, 60, 200]), ("green", [50, 190, 60]), ("red", [200, 50, 40])];

/// 18 training images in batches of 6.
const TRAIN: &str = "finetune --model m.safetensors --train train --val val --epochs 2 --batch-size 6 --augment none";

/// A folder for one test: the working directory of everything it runs.
struct Space {
    dir: TempDir,
}

impl Space {
    fn empty() -> Space {
        Space { dir: tempfile::tempdir().unwrap() }
    }

    /// With `train`, `val` and `test` images of three classes, 6, 4 and 4 each, and the model `m.safetensors`.
    fn new() -> Space {
        let space = Space::empty();
        for (split, each) in [("train", 6), ("val", 4), ("test", 4)] {
            for (class, _) in CLASSES {
                for i in 0..each {
                    space.image(&format!("{split}/{class}/{i}.png"), class);
                }
            }
        }
        space.ok(
            "init --out m.safetensors --classes-of train --image-size 16 --patch-size 8 --dim 16 --depth 1 --heads 2",
        );
        space
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A noisy 16 × 16 image in the colour of `class`; the noise comes from its name.
    fn image(&self, name: &str, class: &str) {
        let seed = name.bytes().fold(7, |h: u64, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        let mut random = common::Random::new(seed);
        let (_, colour) = CLASSES.iter().find(|(c, _)| *c == class).unwrap();
        let image = RgbImage::from_fn(16, 16, |_, _| Rgb(colour.map(|v| v.saturating_add((random.bits() % 40) as u8))));
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        image.save(self.path(name)).unwrap();
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8(self.bytes(name)).unwrap()
    }

    /// The lines of a `.jsonl` file.
    fn lines(&self, name: &str) -> Vec<Value> {
        self.text(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The rows of a CSV, without its header.
    fn rows(&self, name: &str) -> Vec<Vec<String>> {
        let text = self.text(name);
        text.lines().skip(1).map(|line| line.split(',').map(String::from).collect()).collect()
    }

    fn tensors(&self, name: &str) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        let bytes = self.bytes(name);
        let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let values = |data: &[u8]| data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        file.iter()
            .map(|(tensor, view)| {
                assert_eq!(view.dtype(), safetensors::Dtype::F32, "{name}: {tensor}");
                (tensor.to_string(), (view.shape().to_vec(), values(view.data())))
            })
            .collect()
    }

    /// Every file below the folder with its bytes; folders have none.
    fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![self.dir.path().to_path_buf()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                let bytes = if path.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
                found.insert(path, bytes);
            }
        }
        found
    }

    /// `tpgm` with the words of `line`, ready to run here; on `TPGM_TEST_ADAPTER` where that is set.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tpgm"));
        command.current_dir(self.dir.path()).args(words(line));
        for name in ["WGPU_BACKEND", "WGPU_ADAPTER_NAME", "TPGM_LOG", "RUST_BACKTRACE"] {
            command.env_remove(name);
        }
        // The same kernels whatever was measured before, and nothing left in the user's cache.
        command.env("TPGM_NO_TUNE", "1").env("TPGM_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"));
        command
    }

    /// Runs to a good end; the texts on stdout and on stderr.
    #[track_caller]
    fn run(&self, line: &str) -> (String, String) {
        let (code, out, err) = read(self.command(line).output().unwrap());
        assert_eq!(code, Some(0), "tpgm {line}\n{err}");
        assert!(!err.contains("error") && !err.contains("panicked"), "tpgm {line}\n{err}");
        (out, err)
    }

    /// Runs to a good end; stdout.
    #[track_caller]
    fn ok(&self, line: &str) -> String {
        self.run(line).0
    }

    #[track_caller]
    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{line} --json"))).unwrap()
    }

    /// Runs to exit code `code` and an error line with all of `parts`, and leaves everything as it was.
    #[track_caller]
    fn fails(&self, code: i32, line: &str, parts: &[&str]) -> String {
        let before = self.snapshot();
        let error = fails(self.command(line), code, parts);
        let after = self.snapshot();
        let changed: Vec<_> = after.iter().filter(|(path, bytes)| before.get(*path) != Some(*bytes)).collect();
        assert!(
            changed.is_empty(),
            "tpgm {line}: left or changed {:?}",
            changed.iter().map(|c| c.0).collect::<Vec<_>>()
        );
        assert_eq!(after.len(), before.len(), "tpgm {line}: removed files");
        error
    }

    /// As [`Space::fails`], of a run that had begun: its folder stays, without half-written files.
    #[track_caller]
    fn fails_midway(&self, line: &str, parts: &[&str]) -> String {
        let error = fails(self.command(line), 1, parts);
        self.no_stray_files();
        error
    }

    #[track_caller]
    fn no_stray_files(&self) {
        let hidden = |path: &Path| path.file_name().unwrap().to_string_lossy().starts_with('.');
        let stray: Vec<PathBuf> = self.snapshot().into_keys().filter(|path| hidden(path)).collect();
        assert!(stray.is_empty(), "left behind: {stray:?}");
    }
}

/// `line` with `flags`, which take the place of those that it has already.
fn with(line: &str, flags: &str) -> String {
    let given: Vec<&str> = flags.split_whitespace().filter(|word| word.starts_with("--")).collect();
    let is_replaced = |flag| given.contains(&flag) || (flag == "--epochs" && given.contains(&"--steps"));
    let (mut words, mut keep) = (Vec::new(), true);
    for word in line.split_whitespace() {
        keep = if word.starts_with("--") { !is_replaced(word) } else { keep };
        if keep {
            words.push(word);
        }
    }
    words.push(flags);
    words.join(" ")
}

fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = line.split_whitespace().map(String::from).collect();
    let on_adapter = ["bench", "predict", "eval", "export", "finetune", "project"].contains(&words[0].as_str())
        || line.contains("--verify");
    if let (true, Ok(adapter)) = (on_adapter && !line.contains("--adapter"), std::env::var("TPGM_TEST_ADAPTER")) {
        words.extend(["--adapter".into(), adapter]);
    }
    words
}

fn read(output: Output) -> (Option<i32>, String, String) {
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    // Paths as the tests write them.
    let err = if cfg!(windows) { err.replace('\\', "/") } else { err };
    (output.status.code(), out, err)
}

/// Runs `command` to exit code `code` and one error line, the last, that has all of `parts`; nothing on stdout.
#[track_caller]
fn fails(mut command: Command, code: i32, parts: &[&str]) -> String {
    let (got, out, err) = read(command.output().unwrap());
    assert_eq!(got, Some(code), "{command:?}\n{out}\n{err}");
    let last = err.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: "), "{command:?}\n{err}");
    assert_eq!(err.matches("error").count(), last.matches("error").count(), "{command:?}: more than one error\n{err}");
    assert!(!err.contains("panicked") && !err.contains("backtrace"), "{command:?}\n{err}");
    for part in parts {
        assert!(last.contains(part), "{command:?}\n{last}\nlacks {part:?}");
    }
    assert_eq!(out, "", "{command:?}");
    last.to_string()
}

#[test]
fn devices_are_listed_with_the_one_that_a_run_takes() {
    let space = Space::empty();
    let text = space.ok("devices");
    assert!(text.starts_with("0: ") && text.contains("limits") && text.contains("a run takes"), "{text}");
    let list = space.json("devices");
    let list = list.as_array().unwrap();
    assert_eq!(list.iter().filter(|a| a["taken"] == true).count(), 1);
    for (i, adapter) in list.iter().enumerate() {
        assert_eq!(adapter["index"], i);
        assert!(text.contains(adapter["name"].as_str().unwrap()), "{text}");
        assert!(adapter["max_buffer_size"].as_u64().unwrap() > 0);
    }
}

#[test]
fn inspect_tells_what_a_model_is() {
    let space = Space::new();
    let text = space.ok("inspect m.safetensors");
    for part in ["timm ViT", "1 blocks, width 16", "2 of 8 dimensions", "16 x 16, patches of 8", "blue, green, red"] {
        assert!(text.contains(part), "{text}\nlacks {part:?}");
    }
    let json = space.json("inspect m.safetensors");
    let count: usize = space.tensors("m.safetensors").values().map(|(_, values)| values.len()).sum();
    assert_eq!((&json["config"]["heads"], &json["parameters"]), (&Value::from(2), &Value::from(count)));
    assert_eq!(json["classes"], serde_json::json!(["blue", "green", "red"]));
}

#[test]
fn inspect_asks_for_the_heads_that_a_file_can_not_tell() {
    let space = Space::empty();
    fs::copy(common::fixture_path("vit_small"), space.path("vit.safetensors")).unwrap();
    space.fails(1, "inspect vit.safetensors", &["vit.safetensors", "--heads"]);
    let json = space.json("inspect vit.safetensors --heads 3");
    assert_eq!((&json["config"]["heads"], &json["config"]["image_size"]), (&Value::from(3), &Value::from(20)));
    space.fails(2, "inspect vit.safetensors --heads 5", &["--heads: 5 heads", "width 36"]);
}

#[test]
fn init_draws_the_same_weights_for_the_same_seed() {
    let space = Space::new();
    let init = "init --classes-of train --image-size 16 --patch-size 8 --dim 16 --depth 1 --heads 2";
    space.ok(&format!("{init} --out again.safetensors"));
    space.ok(&format!("{init} --out other.safetensors --seed 1"));
    assert_eq!(space.bytes("again.safetensors"), space.bytes("m.safetensors"));
    assert_ne!(space.bytes("other.safetensors"), space.bytes("m.safetensors"));

    space.fails(2, "init --out x --classes-of train --image-size 16 --patch-size 8 --dim 15 --heads 2", &["--heads"]);
    space.fails(2, "init --out x --classes-of train --image-size 16 --patch-size 5", &["--image-size", "--patch-size"]);
    space.fails(1, "init --out x --classes-of nowhere", &["nowhere", "no such file or folder"]);
}
