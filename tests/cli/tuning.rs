//! Kernels chosen by measuring: once for an adapter, kept on disk, and never in the way of a run.

use std::fs;
use std::path::PathBuf;

use crate::{Space, TRAIN, read, with};

/// `line` as users run it, with a cache of its own; what it said on stderr.
#[track_caller]
fn tuned(space: &Space, line: &str) -> String {
    let mut command = space.command(line);
    command.env_remove("TPGM_NO_TUNE").env("TPGM_CACHE_DIR", space.path("cache"));
    let (code, _, err) = read(command.output().unwrap());
    assert_eq!(code, Some(0), "tpgm {line}\n{err}");
    err
}

/// The one file of choices in the cache.
#[track_caller]
fn choices(space: &Space) -> PathBuf {
    let files = fs::read_dir(space.path("cache")).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> = files.filter(|path| path.to_string_lossy().ends_with(".tuning.json")).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn kernels_are_measured_once() {
    let space = Space::new();
    let first = tuned(&space, &with(TRAIN, "--out first"));
    assert!(first.contains("measured the kernels for"), "{first}");
    let text = fs::read_to_string(choices(&space)).unwrap();
    assert!(text.contains("matmul::backward_weight, ") && text.contains("\"split\""), "{text}");
    let again = tuned(&space, &with(TRAIN, "--out again"));
    assert!(!again.contains("measured"), "{again}");
    // The choices are in the run's folder, and the same choices make the same bits.
    assert!(space.text("first/tuning.json").contains("matmul::forward, "));
    for file in ["tuning.json", "metrics.jsonl", "radii.csv", "last.safetensors"] {
        assert_eq!(space.bytes(&format!("first/{file}")), space.bytes(&format!("again/{file}")), "{file}");
    }
}

#[test]
fn without_tuning_nothing_is_measured_read_or_kept() {
    let space = Space::new();
    tuned(&space, &with(TRAIN, "--out first"));
    let before = fs::read(choices(&space)).unwrap();
    let err = tuned(&space, &with(TRAIN, "--no-tune --out plain"));
    assert!(!err.contains("measured"), "{err}");
    assert_eq!(space.text("plain/tuning.json").trim(), "{}");
    assert_eq!(fs::read(choices(&space)).unwrap(), before);
}

#[test]
fn a_corrupt_cache_is_named_and_measured_anew() {
    let space = Space::new();
    tuned(&space, &with(TRAIN, "--out first"));
    let path = choices(&space);
    let good = fs::read(&path).unwrap();
    for (i, bad) in [&good[..good.len() / 2], b"", b"{\"adapter\": 3}"].into_iter().enumerate() {
        fs::write(&path, bad).unwrap();
        let err = tuned(&space, &with(TRAIN, &format!("--out run{i}")));
        assert!(err.contains("warning: ") && err.contains(".tuning.json") && err.contains("measured anew"), "{err}");
        assert!(err.contains("measured the kernels for"), "{err}");
        assert!(serde_json::from_slice::<serde_json::Value>(&fs::read(&path).unwrap()).is_ok());
    }
    // A choice that no kernel can follow is no choice: the default runs.
    let text = String::from_utf8(good).unwrap().replace("\"split\": 1", "\"split\": 77777");
    fs::write(&path, text).unwrap();
    tuned(&space, &with(TRAIN, "--out absurd"));
    // Nor do broken pipelines do any harm.
    for entry in fs::read_dir(space.path("cache")).unwrap() {
        fs::write(entry.unwrap().path(), [7; 100]).unwrap();
    }
    tuned(&space, &with(TRAIN, "--out broken"));
}

#[test]
fn a_resumed_run_goes_by_its_own_choices() {
    let space = Space::new();
    tuned(&space, &with(TRAIN, "--no-tune --steps 3 --eval-every 1 --out run"));
    let plain = space.bytes("run/tuning.json");
    tuned(&space, &with(TRAIN, "--steps 3 --eval-every 1 --out run --resume"));
    assert_eq!(space.bytes("run/tuning.json"), plain);
}

#[test]
fn on_another_adapter_a_resumed_run_compares_its_choices_first() {
    let space = Space::new();
    let train = with(TRAIN, "--steps 4 --eval-every 1 --out run");
    tuned(&space, &train);
    let (tuning, adapter) = (space.text("run/tuning.json"), space.text("run/adapter.json"));
    let resume = format!("{train} --resume");
    assert!(!tuned(&space, &resume).contains("compared"));
    // The same adapter under another driver, as far as the run knows; a choice that is no candidate here; and an old run, whose
    // file says nothing of a driver.
    let other = adapter.replace("\"identity\": \"", "\"identity\": \"Older ");
    assert_ne!(other, adapter);
    let old = format!(
        "{{{}}}",
        adapter[adapter.find("\"adapter\"").unwrap()..].split("},").next().unwrap().to_string() + "}"
    );
    for text in [other, old] {
        space.write("run/adapter.json", text);
        let err = tuned(&space, &resume);
        assert!(err.contains("another adapter, driver or version") && err.contains("were compared"), "{err}");
        assert!(!err.contains("is not used on this adapter"), "{err}");
        assert_eq!(space.text("run/adapter.json"), adapter);
        // Choices that are right stay.
        let [before, after] = [tuning.clone(), space.text("run/tuning.json")]
            .map(|text| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).unwrap());
        assert!(
            !after.is_empty() && after.iter().all(|(class, variant)| before.get(class) == Some(variant)),
            "{after:?}"
        );
        assert!(!tuned(&space, &resume).contains("compared"));
    }
    space.write("run/adapter.json", "{}");
    space.write("run/tuning.json", tuning.replace("\"split\": 1", "\"split\": 77777"));
    assert!(tuned(&space, &format!("{resume} --adapter 0")).contains("were compared"));
}
