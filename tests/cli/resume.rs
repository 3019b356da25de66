//! `--resume`: a run that was stopped ends as one that was not.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use safetensors::SafeTensors;
use tpgm::error::Error;
use tpgm::gpu::Gpu;
use tpgm::train::{Event, Flags, Start, TrainConfig, train};

use crate::{Space, with};

pub(crate) const TRAIN: &str = "finetune --model m.safetensors --train train --val val --test t=test --epochs 30 --batch-size 6 \
                     --augment crop,flip --lr 0.02";
const FILES: [&str; 8] = [
    "metrics.jsonl",
    "evaluations.jsonl",
    "radii.csv",
    "drift.csv",
    "drift_over_time.csv",
    "last.safetensors",
    "best.safetensors",
    "state.safetensors",
];

/// Runs `line` and kills it as soon as there is a state to resume from and `file` has more than `lines` lines.
pub(crate) fn run_and_kill(space: &Space, line: &str, file: &str, lines: usize) {
    let mut child = space.command(line).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let count = || fs::read_to_string(space.path(file)).map_or(0, |text| text.lines().count());
    while !space.path("stopped/state.safetensors").exists() || count() <= lines {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended before it could be stopped");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!space.path("stopped/drift.csv").exists(), "the run had come to its end");
    // Whoever comes next would take it away.
    fs::remove_file(space.path("stopped/lock")).unwrap();
}

#[track_caller]
pub(crate) fn assert_ends_as(space: &Space, whole: &str) {
    let shares = space.path(whole).join("shares.csv").exists().then_some("shares.csv");
    for file in FILES.into_iter().chain(shares) {
        let (a, b) = (space.bytes(&format!("{whole}/{file}")), space.bytes(&format!("stopped/{file}")));
        let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(String::from).collect::<Vec<_>>();
        let (left, right) = (lines(&a), lines(&b));
        let first = (0..left.len().max(right.len())).find(|i| left.get(*i) != right.get(*i));
        let first = first.filter(|_| !file.ends_with(".safetensors")).map(|i| (i, left.get(i), right.get(i)));
        assert!(a == b, "{file} differs after resuming, first in {first:?}");
    }
}

#[test]
fn a_killed_run_goes_on_as_if_it_had_not_been() {
    let methods = [
        "--proj-freq 2 --max-iters 2",
        "--method vanilla --optimizer adamw --lr 1e-3 --eval-every 3",
        "--method ftp --ema-decay 0.9",
        "--method lp-ft --probe-share 0.5 --wise-alpha 0.5 --eval-every 4",
        "--method spd --lr 1e-3",
        "--method digrap --sam-rho 0.05 --lines-alpha 0.5 --micro-batch 5 --eval-every 4",
        // Features of the first stage are kept; those of the second change.
        "--method lp-ft --probe-share 0.5 --augment none --eval-every 2",
        "--method lora --lora-targets *.mlp.*.weight --optimizer adamw --lr 1e-2",
        "--method distill --distill-on logits",
        "--drop-path 0.4 --dropout 0.3 --layer-decay 0.8 --micro-batch 5",
        "--rand-augment --color-jitter 0.4 --rotation 9 --random-erasing 0.5 --mixup 0.2 --cutmix 1",
    ];
    for method in methods {
        let space = Space::new();
        let train = with(TRAIN, method);
        space.ok(&format!("{train} --out whole"));
        run_and_kill(&space, &format!("{train} --out stopped"), "stopped/metrics.jsonl", 0);
        let stopped_at = space.text("stopped/metrics.jsonl").lines().count();
        assert!(stopped_at < space.text("whole/metrics.jsonl").lines().count());

        // Without --resume it is left alone, with other settings refused.
        space.fails(2, &format!("{train} --out stopped"), &["stopped already holds a run", "--resume"]);
        let other = format!("{train} --seed 9 --out stopped --resume");
        space.fails(
            1,
            &other,
            &["stopped/state.safetensors", "other settings (seed was 0, is now 9)", "another --out"],
        );
        space.ok(&format!("{train} --out stopped --resume"));
        assert_ends_as(&space, "whole");
    }
}

#[test]
fn a_run_killed_while_it_learns_its_radii_goes_on_as_well() {
    let space = Space::new();
    let train = with(TRAIN, "--epochs 3 --schedule post --max-iters 400");
    space.ok(&format!("{train} --out whole"));
    run_and_kill(&space, &format!("{train} --out stopped"), "stopped/radii.csv", 1);
    space.ok("finetune --config stopped/config.toml --out stopped --resume");
    assert_ends_as(&space, "whole");
}

#[test]
fn resuming_a_finished_run_changes_nothing() {
    let space = Space::new();
    let short = with(TRAIN, "--epochs 2");
    for (whole, schedule) in [("every", ""), ("post", "--schedule post --max-iters 20")] {
        space.ok(&format!("{short} {schedule} --out {whole}"));
        let before: Vec<Vec<u8>> = FILES.iter().map(|file| space.bytes(&format!("{whole}/{file}"))).collect();
        let json = space.json(&format!("finetune --config {whole}/config.toml --out {whole} --resume"));
        assert_eq!(json["steps"], 6);
        for (file, before) in FILES.iter().zip(before) {
            assert!(space.bytes(&format!("{whole}/{file}")) == before, "{file} of {whole} changed");
        }
    }
}

/// A run folder whose config.toml and state mark no defaults, as earlier versions wrote them.
#[test]
fn a_run_of_an_earlier_version_goes_on() {
    let space = Space::new();
    // That version dropped the rest of an epoch, and had no flag for it.
    space.ok(&with(TRAIN, "--epochs 2 --method llrd --optimizer adamw --drop-last --out run"));
    let unmarked = |text: &str| text.replace(" # default", "").replace("drop-last = true\n", "");
    let state = space.bytes("run/state.safetensors");
    let (_, header) = SafeTensors::read_metadata(&state).unwrap();
    let mut metadata = header.metadata().clone().unwrap();
    assert!(metadata["setup"].contains(" # default\n"));
    metadata.insert("setup".into(), unmarked(&metadata["setup"]));
    let tensors = SafeTensors::deserialize(&state).unwrap();
    space.write("run/state.safetensors", safetensors::serialize(tensors.tensors(), Some(metadata)).unwrap());
    space.write("run/config.toml", unmarked(&space.text("run/config.toml")));
    let last = space.bytes("run/last.safetensors");
    assert!(!space.text("run/config.toml").contains("drop-last"));
    let (_, notes) = space.run("finetune --resume run");
    assert!(notes.contains("run/config.toml marks no defaults"), "{notes}");
    assert!(space.bytes("run/last.safetensors") == last);
    space.ok(&with(TRAIN, "--epochs 2 --method llrd --optimizer adamw --out run --resume"));
    let other = "finetune --config run/config.toml --out run --resume --lr 0.5";
    space.fails(1, other, &["other settings (lr was 0.02, is now 0.5)"]);
}

#[test]
fn there_must_be_a_state_to_resume_from() {
    let space = Space::new();
    space.fails(1, &format!("{TRAIN} --out nowhere --resume"), &["nowhere", "no run to go on with"]);
    space.ok(&with(TRAIN, "--steps 1 --out run"));
    let whole = space.bytes("run/state.safetensors");
    space.write("run/state.safetensors", &whole[..whole.len() / 2]);
    let error = space.fails(1, "finetune --config run/config.toml --out run --resume", &["run/state.safetensors"]);
    assert!(error.contains("truncated"), "{error}");
}

/// The settings of a run of four epochs of three steps, through the library.
fn settings(space: &Space) -> TrainConfig {
    let path = |name: &str| space.path(name).display().to_string();
    let (model, train, val) = (path("m.safetensors"), path("train"), path("val"));
    let flags = ["--model", &model, "--train", &train, "--val", &val, "--epochs", "4", "--batch-size", "6"];
    Flags::parse(flags).unwrap().resolve(None).unwrap()
}

fn open() -> Gpu {
    Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), false).unwrap()
}

#[test]
fn a_lost_device_leaves_a_run_that_goes_on() {
    let space = Space::new();
    let config = settings(&space);
    let start = Start { best: true, ..Start::default() };
    let whole = space.path("whole");
    train(&open(), &config, &whole, start, &mut |_| {}).unwrap();
    for lost_at in [2, 8] {
        let (gpu, out) = (open(), space.path("stopped"));
        let lose = &mut |event| match event {
            Event::Progress { step, .. } if step == lost_at => gpu.device.destroy(),
            _ => {}
        };
        let error = train(&gpu, &config, &out, start, lose).unwrap_err();
        assert!(matches!(error, Error::Lost(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("was lost in the middle of the work") && text.lines().count() == 1, "{text}");
        let command = text.split('`').nth(1).and_then(|command| command.strip_prefix("tpgm "));
        space.ok(command.unwrap_or_else(|| panic!("{text}")));
        assert_ends_as_library(&space);
        fs::remove_dir_all(out).unwrap();
    }
}

#[track_caller]
fn assert_ends_as_library(space: &Space) {
    for file in FILES.into_iter().filter(|file| *file != "evaluations.jsonl") {
        assert!(space.bytes(&format!("whole/{file}")) == space.bytes(&format!("stopped/{file}")), "{file} differs");
    }
}

#[test]
fn a_run_goes_on_on_its_own_adapter_or_says_that_it_is_gone() {
    let space = Space::new();
    let train = "finetune --model m.safetensors --train train --val val --epochs 2 --batch-size 6 --out run";
    space.ok(train);
    let path = "run/adapter.json";
    let text = space.text(path);
    space.ok(&format!("{train} --resume"));
    space.write(path, text.replace("\"name\": \"", "\"name\": \"Another "));
    let gone = ["the run was on Another ", "which is gone", "--adapter"];
    space.fails(1, &format!("{train} --resume"), &gone);
    space.ok(&format!("{train} --resume --adapter 0"));
    assert!(!space.text(path).contains("Another"));
    space.write(path, "{}");
    space.fails(1, &format!("{train} --resume"), &["adapter.json", "--adapter"]);
}
