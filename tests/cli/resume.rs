//! `--resume`: a run that was stopped ends as one that was not.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::{Space, with};

const TRAIN: &str = "finetune --model m.safetensors --train train --val val --test t=test --epochs 30 --batch-size 6 \
                     --augment crop --lr 0.02";
const FILES: [&str; 7] = [
    "metrics.jsonl",
    "evaluations.jsonl",
    "radii.csv",
    "drift.csv",
    "last.safetensors",
    "best.safetensors",
    "state.safetensors",
];

/// Runs `line` and kills it as soon as there is a state to resume from and `file` has more than `lines` lines.
fn run_and_kill(space: &Space, line: &str, file: &str, lines: usize) {
    let mut child = space.command(line).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let count = || fs::read_to_string(space.path(file)).map_or(0, |text| text.lines().count());
    while !space.path("stopped/state.safetensors").exists() || count() <= lines {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended before it could be stopped");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!space.path("stopped/drift.csv").exists(), "the run had come to its end");
}

#[track_caller]
fn assert_ends_as(space: &Space, whole: &str) {
    for file in FILES {
        let (a, b) = (space.bytes(&format!("{whole}/{file}")), space.bytes(&format!("stopped/{file}")));
        assert!(a == b, "{file} differs after resuming");
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
        space.fails(1, &other, &["stopped/state.safetensors", "other settings", "--config"]);
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

#[test]
fn there_must_be_a_state_to_resume_from() {
    let space = Space::new();
    space.fails(1, &format!("{TRAIN} --out nowhere --resume"), &["nowhere", "no state.safetensors"]);
    space.ok(&with(TRAIN, "--steps 1 --out run"));
    let whole = space.bytes("run/state.safetensors");
    space.write("run/state.safetensors", &whole[..whole.len() / 2]);
    let error = space.fails(1, "finetune --config run/config.toml --out run --resume", &["run/state.safetensors"]);
    assert!(error.contains("truncated"), "{error}");
}
