//! `--tensorboard`: what its event files say, also of a run that was resumed. tools/check_tensorboard.py reads the same with the
//! tensorboard package.

use std::collections::BTreeMap;
use std::fs;

use prost::Message;
use serde_json::Value as Json;
use tpgm::tfevents::{Event, Value};

use crate::resume::run_and_kill;
use crate::{Space, TRAIN, read, with};

/// The events of one file; its checksums hold.
fn events(bytes: &[u8]) -> Vec<Event> {
    let sum = |bytes: &[u8]| crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let (mut found, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(12);
        let length = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize;
        assert_eq!(sum(&head[..8]), head[8..], "the length's checksum");
        assert_eq!(sum(&tail[..length]), tail[length..length + 4], "the record's checksum");
        found.push(Event::decode(&tail[..length]).unwrap());
        rest = &tail[length + 4..];
    }
    found
}

/// What TensorBoard shows of a run: by tag, the values by step. A process that begins takes away the values from its step on.
fn board(space: &Space, run: &str) -> BTreeMap<String, Vec<(i64, Value)>> {
    let mut files: Vec<_> =
        fs::read_dir(space.path(&format!("{run}/tensorboard"))).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut shown: BTreeMap<String, Vec<(i64, Value)>> = BTreeMap::new();
    for (nth, file) in files.iter().enumerate() {
        let all = events(&fs::read(file).unwrap());
        assert_eq!(all[0].file_version.as_deref(), Some("brain.Event:2"));
        assert_eq!(all.iter().filter(|e| e.session_log.is_some()).count(), usize::from(nth > 0));
        for event in all {
            if event.session_log.is_some() {
                shown.values_mut().for_each(|values| values.retain(|(step, _)| *step < event.step));
            }
            for value in event.summary.into_iter().flat_map(|summary| summary.value) {
                shown.entry(value.tag.clone()).or_default().push((event.step, value));
            }
        }
    }
    shown
}

fn numbers(board: &BTreeMap<String, Vec<(i64, Value)>>, tag: &str) -> Vec<(i64, f32)> {
    let values = board.get(tag).unwrap_or_else(|| panic!("no {tag} in {:?}", board.keys()));
    values.iter().map(|(step, value)| (*step, value.simple_value.unwrap())).collect()
}

/// The figures of the records, as the board should have them.
fn assert_as_recorded(space: &Space, run: &str) {
    let board = board(space, run);
    let lines = space.lines(&format!("{run}/metrics.jsonl"));
    let of = |wanted: &dyn Fn(&Json) -> bool, key: &str, later: i64| -> Vec<(i64, f32)> {
        let lines = lines.iter().filter(|line| wanted(line));
        lines.map(|line| (line["step"].as_i64().unwrap() + later, line[key].as_f64().unwrap() as f32)).collect()
    };
    let is_step = |line: &Json| line.get("train_loss").is_some();
    assert_eq!(numbers(&board, "train/loss"), of(&is_step, "train_loss", 1));
    assert_eq!(numbers(&board, "train/lr"), of(&is_step, "lr", 1));
    let is_val = |line: &Json| line["eval"] == "val" && line.get("final").is_none();
    assert_eq!(numbers(&board, "val/top1"), of(&is_val, "top1", 0));
    assert_eq!(numbers(&board, "val/loss"), of(&is_val, "loss", 0));
    let is_last = |line: &Json| line["eval"] == "t" && line["model"] == "last";
    // A run that was made longer has the ends of both.
    assert_eq!(numbers(&board, "t/last/top1").last(), of(&is_last, "top1", 0).last());
    let rows = space.rows(&format!("{run}/radii.csv"));
    let mut steps: Vec<i64> = rows.iter().map(|row| row[0].parse::<i64>().unwrap() + 1).collect();
    steps.dedup();
    let radii = |of: fn(&[f64]) -> f64| -> Vec<f32> {
        // Where one is below 0, nothing may move: 0 is in force.
        let in_force = |row: &Vec<String>| row[2].parse::<f64>().unwrap().max(0.0);
        let radii = |step: i64| rows.iter().filter(move |row| row[0] == (step - 1).to_string()).map(in_force);
        steps.iter().map(|step| of(&radii(*step).collect::<Vec<f64>>()) as f32).collect()
    };
    if !rows.is_empty() {
        let mean = numbers(&board, "radii/mean");
        assert_eq!(mean.iter().map(|(step, _)| *step).collect::<Vec<_>>(), steps);
        let expected = radii(|radii| radii.iter().sum::<f64>() / radii.len() as f64);
        assert!(mean.iter().zip(&expected).all(|((_, a), b)| (a - b).abs() <= 1e-6 * b.abs()), "{mean:?} {expected:?}");
        let largest: Vec<f32> = numbers(&board, "radii/largest").into_iter().map(|(_, value)| value).collect();
        assert_eq!(largest, radii(|radii| radii.iter().copied().fold(f64::NEG_INFINITY, f64::max)));
    }
    // A picture at the beginning, and how far the weights have moved at each evaluation: all of them, and as far as drift.csv says.
    let picture = board["augmented"][0].1.image.as_ref().unwrap();
    assert!(picture.encoded_image_string.starts_with(b"\x89PNG") && picture.width > 100 && picture.height > 100);
    let head = &board["drift/final norm and head"];
    let evaluated: Vec<i64> = numbers(&board, "val/top1").into_iter().map(|(step, _)| step).collect();
    assert_eq!(head.iter().map(|(step, _)| *step).collect::<Vec<_>>(), evaluated);
    let drift: f64 = ["norm.weight", "norm.bias", "head.weight", "head.bias"]
        .map(|name| {
            let row = space.rows(&format!("{run}/drift.csv")).into_iter().find(|row| row[1] == name).unwrap();
            row[4].parse::<f64>().unwrap().powi(2)
        })
        .iter()
        .sum();
    let last = head.last().unwrap().1.histo.as_ref().unwrap();
    assert!((last.sum_squares - drift).abs() < 1e-9 * drift, "{} {drift}", last.sum_squares);
    assert_eq!((last.num, last.bucket.iter().sum::<f64>()), (16.0 * 2.0 + 16.0 * 3.0 + 3.0, last.num));
}

#[test]
fn event_files_have_the_figures_of_the_records() {
    let space = Space::new();
    space.ok(&with(TRAIN, "--epochs 3 --test t=test --tensorboard --out run"));
    assert_as_recorded(&space, "run");
    // A run without them has no such folder; one that is made longer goes on with them without being told.
    space.ok(&with(TRAIN, "--epochs 1 --method vanilla --out plain"));
    assert!(!space.path("plain/tensorboard").exists());
    space.ok("finetune --resume run --epochs 4");
    assert_as_recorded(&space, "run");
    assert_eq!(fs::read_dir(space.path("run/tensorboard")).unwrap().count(), 2);
    // A run that had none so far has all of its figures from now on, but for pictures and histograms of the past.
    space.ok("finetune --resume plain --epochs 2 --tensorboard");
    let board = board(&space, "plain");
    assert_eq!(numbers(&board, "train/loss").iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_killed_run_shows_no_step_twice() {
    for method in ["--eval-every 2", "--schedule post --max-iters 40 --eval-every 9"] {
        let space = Space::new();
        let train = with(crate::resume::TRAIN, method);
        let kill = if method.contains("post") { ("stopped/radii.csv", 80) } else { ("stopped/metrics.jsonl", 20) };
        run_and_kill(&space, &format!("{train} --save-every 3 --tensorboard --out stopped"), kill.0, kill.1);
        space.ok("finetune --resume stopped");
        let board = board(&space, "stopped");
        for (tag, values) in &board {
            let steps: Vec<i64> = values.iter().map(|(step, _)| *step).collect();
            assert!(steps.is_sorted_by(|a, b| a < b), "{method} {tag}: {steps:?}");
        }
        assert_eq!(numbers(&board, "train/loss").len(), 90, "{method}: one for each step");
        let radii = if method.contains("post") { 40 } else { 90 };
        assert_eq!(numbers(&board, "radii/mean").len(), radii, "{method}");
    }
}

#[test]
fn it_goes_with_a_run_alone() {
    let space = Space::new();
    for line in [
        with(TRAIN, "--augment-preview p.png --tensorboard"),
        "eval --model m.safetensors --data t=test --tensorboard".into(),
    ] {
        let (code, _, err) = read(space.command(&line).output().unwrap());
        assert!(code == Some(2) && err.lines().next().unwrap().contains("--tensorboard"), "{err}");
    }
}
