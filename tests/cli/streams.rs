//! Stdout and stderr: the contents of each, what `--quiet` leaves, and what happens when one is closed or full.

use std::fs::OpenOptions;
use std::process::Stdio;

use crate::{Space, read, with};

const TRAIN: &str = "finetune --model m.safetensors --train train --val val --test t=test --epochs 20 --batch-size 6";

/// The subcommands that `tpgm --help` lists.
fn commands(space: &Space) -> Vec<String> {
    let help = space.ok("--help");
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_whitespace().next()).filter(|word| *word != "help").map(String::from).collect()
}

#[test]
fn every_command_has_json_and_quiet() {
    let space = Space::empty();
    let commands = commands(&space);
    assert!(commands.len() >= 16, "{commands:?}");
    for command in commands {
        let help = space.ok(&format!("{command} --help"));
        for flag in ["--json", "--quiet"] {
            assert!(help.contains(flag), "{command} has no {flag}");
        }
    }
}

#[test]
fn json_is_one_document() {
    let space = Space::new();
    let init = "init --classes-of train --image-size 16 --patch-size 8 --dim 16 --depth 1 --heads 2";
    assert_eq!(space.json(&format!("{init} --out other.safetensors --seed 1"))["classes"][1], "green");
    let models = "--pretrained m.safetensors --finetuned other.safetensors --out w.safetensors";
    assert_eq!(space.json(&format!("wise {models} --alpha 0.25"))["alpha"], 0.25);
    assert_eq!(space.json(&format!("wise {models} --sweep 3 --val val"))["tried"].as_array().unwrap().len(), 3);
    let soup = space.json("soup --models m.safetensors other.safetensors --out s.safetensors");
    assert_eq!((&soup["kind"], soup["kept"].as_array().unwrap().len()), (&"uniform".into(), 2));
    space.ok(&with(TRAIN, "--epochs 1 --out run"));
    assert_eq!(space.json("report run")["out"], "run/report.html");
}

#[test]
fn quiet_leaves_warnings_and_errors() {
    let space = Space::new();
    let (out, err) = space.run(&with(TRAIN, "--quiet --out run"));
    assert!(out.contains("top-1") && err.lines().all(|line| line.starts_with("warning: ")), "{err}");
    // The last note is the next command.
    let (_, err) = space.run(&with(TRAIN, "--out loud"));
    let next = err.lines().last().unwrap().strip_prefix("next: tpgm ").unwrap().replace("IMAGES", "test");
    assert!(space.ok(&next).contains("blue"), "{next}");
    space.fails(1, "--quiet inspect nowhere.safetensors", &["nowhere.safetensors"]);
    assert_eq!(space.run("eval --quiet --model m.safetensors --data t=test").1, "");
}

/// `2>&1 | head`, and a log on a full disk.
#[test]
fn work_goes_on_without_stderr() {
    let space = Space::new();
    space.ok(&format!("{TRAIN} --out whole"));
    for line in [format!("{TRAIN} --out run"), "predict --model m.safetensors --data test".into(), "devices".into()] {
        let mut child = space.command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stderr.take());
        let (code, out, _) = read(child.wait_with_output().unwrap());
        assert!(code == Some(0) && !out.is_empty(), "{line}: {code:?}");
    }
    assert!(space.bytes("run/last.safetensors") == space.bytes("whole/last.safetensors"));
    let mut child = space.command("inspect nowhere.safetensors").stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    if cfg!(target_os = "linux") {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let status = space.command(&format!("{TRAIN} --out full")).stdout(Stdio::null()).stderr(full).status().unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

#[test]
fn sizes_of_a_new_model_are_bounded() {
    let space = Space::new();
    let vit = "init --out x.safetensors --classes-of train --image-size 16 --patch-size 8 --dim 16 --heads 2";
    let resnet = "init --arch resnet --out x.safetensors --classes-of train --image-size 32";
    for (line, flag) in [
        (format!("{vit} --depth 1000000000"), "--depth 1000000000: it must be 1 to 1000"),
        (format!("{vit} --depth 0"), "--depth 0"),
        (format!("{vit} --mlp-dim 0"), "--mlp-dim 0"),
        (with(vit, "--dim 0"), "--dim 0"),
        (with(vit, "--dim 18446744073709551615"), "--dim 18446744073709551615"),
        (with(vit, "--heads 0"), "--heads 0"),
        (with(vit, "--patch-size 0"), "--patch-size 0"),
        (with(vit, "--image-size 1000000"), "--image-size 1000000"),
        (with(vit, "--dim 65536 --heads 1 --depth 1000"), "parameters"),
        (format!("{resnet} --depths 2 1000000000"), "--depths 1000000000"),
        (format!("{resnet} --depths 2 0 --widths 8 8"), "--depths 0"),
        (format!("{resnet} --depths 1 1 --widths 8 4000000000"), "--widths 4000000000"),
        (format!("{resnet} --depths 900 900 --widths 65536 65536"), "parameters"),
    ] {
        space.fails(2, &line, &[flag]);
    }
}

#[test]
fn a_line_without_an_end_is_not_quoted_whole() {
    let space = Space::new();
    let long = "x".repeat(1_000_000);
    let files = [
        ("value.toml", format!("lr = \"{long}\"\n")),
        ("key.toml", format!("{long} = 3\n")),
        ("word.toml", format!("method = \"{long}\"\n")),
        ("list.toml", format!("augment = [\"{long}\"]\n")),
        ("time.toml", format!("save-every = \"{long}\"\n")),
        ("no.toml", format!("{long}\n")),
        ("list.txt", format!("{long}\n")),
        ("labels.csv", format!("path,label\n{long}\n")),
        ("map.txt", format!("{long}\n{long}\n")),
        ("compare.toml", format!("seeds = [\"{long}\"]\n")),
    ];
    for (file, text) in files {
        space.write(file, text);
        let train = "finetune --model m.safetensors --train train --out o";
        let line = match file.rsplit_once('.').unwrap() {
            ("compare", _) => format!("compare {file} --dry-run"),
            ("map", _) => format!("{train} --class-map {file}"),
            (_, "toml") => format!("{train} --config {file}"),
            _ => format!("eval --model m.safetensors --data a={file}"),
        };
        let output = space.command(&line).output().unwrap();
        let (code, error) = (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(matches!(code, Some(1 | 2)), "{line}: {code:?}");
        assert!(error.len() < 1500 && error.contains("error: "), "{line}: {} bytes: {:.300}", error.len(), error);
    }
}
