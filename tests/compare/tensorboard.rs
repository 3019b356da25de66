//! Event files for TensorBoard of all runs of a comparison.

use std::collections::BTreeMap;
use std::fs;

use prost::Message;
use serde_json::Value;
use tpgm::tfevents::Event;

use crate::Space;

const METHODS: &str = "[[method]]\nname = \"vanilla\"\ngrid.lr = [0.0001, 0.05]\n[[method]]\nname = \"post\"\nmethod = \"tpgm\"\nschedule = \"post\"\nmax-iters = 2\n";

/// The folders of all runs in `out`.
fn runs(space: &Space, out: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![out.to_string()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(space.path(&folder)).unwrap().map(|entry| entry.unwrap()) {
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.ends_with("/metrics.jsonl") {
                found.push(folder.clone());
            }
        }
    }
    found.sort();
    found
}

/// What TensorBoard shows of a run: figures by tag and step, of which none is there twice.
fn shown(space: &Space, run: &str) -> BTreeMap<(String, i64), f32> {
    let folder = space.path(&format!("{run}/tensorboard"));
    let mut files: Vec<_> =
        fs::read_dir(&folder).unwrap_or_else(|e| panic!("{run}: {e}")).map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut figures = BTreeMap::new();
    for bytes in files.iter().map(|file| fs::read(file).unwrap()) {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let event = Event::decode(&rest[12..12 + length]).unwrap();
            rest = &rest[16 + length..];
            if event.session_log.is_some() {
                figures.retain(|(_, step), _| *step < event.step);
            }
            for value in event.summary.into_iter().flat_map(|summary| summary.value) {
                let Some(figure) = value.simple_value else { continue };
                assert!(
                    figures.insert((value.tag.clone(), event.step), figure).is_none(),
                    "{run}: {} twice",
                    value.tag
                );
            }
        }
    }
    figures
}

/// Every run's figures are those of its records.
#[track_caller]
fn assert_as_recorded(space: &Space, out: &str) {
    let all = runs(space, out);
    assert_eq!(all.len(), 5, "{all:?}");
    for run in all {
        let shown = shown(space, &run);
        let text = space.text(&format!("{run}/metrics.jsonl"));
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let loss = |line: &Value| Some((line["step"].as_i64()? + 1, line.get("train_loss")?.as_f64()? as f32));
        let losses: Vec<(i64, f32)> = lines.iter().filter_map(loss).collect();
        let own = shown.iter().filter(|((tag, _), _)| tag == "train/loss").map(|((_, step), loss)| (*step, *loss));
        assert_eq!(own.collect::<Vec<_>>(), losses, "{run}");
        assert_eq!(losses.len(), 6, "{run}");
        assert!(shown.contains_key(&("near/last/top1".into(), 6)), "{run}: {:?}", shown.keys());
        // Radii that are learned after the last step come after it.
        let radii: Vec<i64> = shown.keys().filter(|(tag, _)| tag == "radii/mean").map(|(_, step)| *step).collect();
        assert_eq!(radii, if run.contains("post") { vec![7, 8] } else { Vec::new() }, "{run}");
    }
}

fn csv(space: &Space, out: &str) -> String {
    space.text(&format!("{out}/results.csv")).replace(&format!("{out}/"), "")
}

#[test]
fn runs_have_event_files_and_resumed_comparisons_go_on_with_them() {
    let space = Space::new(METHODS);
    space.ok("compare c.toml --out parts --tensorboard --part 1/2");
    assert!(runs(&space, "parts").len() < 5);
    // Told once for a comparison, not for each process.
    let (code, _, err) = space.run("compare c.toml --out parts");
    assert!(code == 0 && err.contains("runs here have event files for TensorBoard: all get them"), "{err}");
    assert_as_recorded(&space, "parts");

    // A run that was stopped at its end.
    let run = "parts/colours/vanilla/lr-0.05/seed-3";
    let files = || fs::read_dir(space.path(&format!("{run}/tensorboard"))).unwrap().count();
    assert_eq!(files(), 1);
    let metrics = space.text(&format!("{run}/metrics.jsonl"));
    let torn: Vec<&str> = metrics.lines().filter(|line| !line.contains("\"final\"")).collect();
    space.write(&format!("{run}/metrics.jsonl"), &format!("{}\n", torn.join("\n")));
    fs::remove_file(space.path(&format!("{run}/run.json"))).unwrap();
    space.ok("compare c.toml --out parts");
    assert_eq!(files(), 2);
    assert_as_recorded(&space, "parts");

    // One that was whole before gets those of its records, and nothing else changes.
    space.ok("compare c.toml --out plain");
    assert!(runs(&space, "plain").iter().all(|run| !space.path(&format!("{run}/tensorboard")).exists()));
    let (code, _, err) = space.run("compare c.toml --out plain --tensorboard");
    assert!(code == 0 && err.matches("was there already").count() == 5, "{err}");
    assert_as_recorded(&space, "plain");
    assert_eq!(csv(&space, "plain"), csv(&space, "parts"));

    space.ok("compare c.toml --out both --tensorboard --adapters 0,0");
    assert_as_recorded(&space, "both");
}
