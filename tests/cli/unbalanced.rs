//! Classes with unequal numbers of images: the note, weights, sampling, figures and the choice of the best.

use std::fs;

use serde_json::Value;

use crate::{Space, TRAIN, with};

/// 24 images of blue, 8 of green and 2 of red to train on.
fn unequal() -> Space {
    let space = Space::new();
    for i in 6..24 {
        space.image(&format!("train/blue/{i}.png"), "blue");
    }
    for i in 6..8 {
        space.image(&format!("train/green/{i}.png"), "green");
    }
    for i in 2..6 {
        fs::remove_file(space.path(&format!("train/red/{i}.png"))).unwrap();
    }
    space
}

#[test]
fn unequal_classes_are_told_of_once_nothing_is_done_about_them() {
    let space = unequal();
    let said = |flags: &str, out: &str| space.run(&with(TRAIN, &format!("--steps 1 {flags} --out {out}"))).1;
    let note = "\"blue\" has 24 images, \"red\" has 2";
    let err = said("", "a");
    assert!(err.contains(note) && err.contains("--class-weights balanced"), "{err}");
    for (i, flags) in ["--class-weights balanced", "--sampler balanced"].into_iter().enumerate() {
        assert!(!said(flags, &format!("b{i}")).contains(note));
    }
}

/// Weights by the number of images are those of a file with the same numbers, and none are those of a file of ones.
#[test]
fn weights_may_come_from_a_file() {
    let space = unequal();
    // 34 images of three classes.
    let weights = [("blue", 34.0 / 72.0), ("green", 34.0 / 24.0), ("red", 34.0 / 6.0)];
    let text: String = weights.iter().map(|(class, weight)| format!("{class} {}\n", *weight as f32)).collect();
    space.write("weights.txt", text);
    space.write("ones.txt", "red 1\n\nblue 1.0\n  green\t1\n");
    let train = with(TRAIN, "--epochs 1 --lr 0.05");
    space.ok(&format!("{train} --class-weights balanced --out balanced"));
    space.ok(&format!("{train} --class-weights weights.txt --out file"));
    let last = |run: &str| space.bytes(&format!("{run}/last.safetensors"));
    assert!(last("balanced") == last("file"));
    space.ok(&format!("{train} --class-weights ones.txt --out ones"));
    space.ok(&format!("{train} --out plain"));
    let [ones, plain, balanced] = ["ones", "plain", "balanced"]
        .map(|run| space.tensors(&format!("{run}/last.safetensors"))["head.weight"].1.clone());
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart(&ones, &plain) < 1e-5 && apart(&balanced, &plain) > 1e-3, "{}", apart(&ones, &plain));
    assert!(space.text("file/config.toml").contains("class-weights = \"weights.txt\""));

    // The file is one of a run's inputs.
    space.write("weights.txt", "blue 1\ngreen 1\nred 2\n");
    space.fails(1, "finetune --resume file", &["class weights", "have changed"]);
}

#[test]
fn a_file_of_weights_that_is_wrong_is_named_with_its_line() {
    let space = Space::new();
    for (text, parts) in [
        ("blue 1\ngreen 1\n", &["no weight for the class \"red\""][..]),
        ("blue 1\nrouge 1\n", &["line 2", "\"rouge\" is none of the classes"]),
        ("blue 1\nblue 2\n", &["line 2", "\"blue\" has a weight already"]),
        ("blue\n", &["line 1", "\"blue\" is no class with its weight"]),
        ("blue -1\n", &["line 1", "\"blue\" is no number of at least 0"]),
        ("blue NaN\n", &["line 1", "no number of at least 0"]),
        ("blue 0\ngreen 0\nred 0\n", &["all weights are 0"]),
        ("", &["no weight for the class \"blue\""]),
    ] {
        space.write("w.txt", text);
        space.fails(1, &with(TRAIN, "--class-weights w.txt --out run"), &[&["w.txt"], parts].concat());
    }
    space.fails(1, &with(TRAIN, "--class-weights nowhere.txt --out run"), &["nowhere.txt", "class weights"]);
    space.fails(2, &with(TRAIN, "--sampler balanced --no-shuffle --out run"), &["--sampler", "--no-shuffle"]);
}

#[test]
fn balanced_figures_follow_from_the_confusion() {
    let space = unequal();
    let eval = "eval --model m.safetensors --data t=train --per-class --confusion c.csv";
    let row = &space.json(eval)[0];
    let counts = |key: &str| {
        let classes = row["per_class"].as_array().unwrap();
        classes.iter().map(|class| class[key].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let (images, right) = (counts("images"), counts("right"));
    let recalls: f64 = images.iter().zip(&right).map(|(n, right)| right / n).sum();
    assert!((row["balanced"].as_f64().unwrap() - recalls / 3.0).abs() < 1e-12, "{row}");
    let mut predicted = [0.0; 3];
    for pair in row["confusion"].as_array().unwrap() {
        let class = ["blue", "green", "red"].iter().position(|c| pair["predicted"] == **c).unwrap();
        predicted[class] += pair["images"].as_f64().unwrap();
    }
    let f1: f64 = (0..3).map(|c| 2.0 * right[c] / (images[c] + predicted[c])).sum();
    assert!((row["macro_f1"].as_f64().unwrap() - f1 / 3.0).abs() < 1e-12, "{row}");
    let table = space.ok(eval);
    assert!(table.lines().next().unwrap().contains("balanced %  macro F1 %"), "{table}");
}

/// The same evaluations, another best: each figure chooses the step at which it was best.
#[test]
fn the_best_is_chosen_by_the_figure_that_was_named() {
    let space = unequal();
    let train = with(TRAIN, "--epochs 6 --lr 0.05 --val train --method vanilla --test t=train");
    let best = |by: &str| {
        let run = format!("by-{by}");
        let out = space.ok(&format!("{train} --best-by {by} --out {run}"));
        // Unequal test sets have their balanced figures beside the plain ones.
        assert!(out.contains("top-1 %") && out.contains("balanced %") && out.contains("macro F1 %"), "{out}");
        let lines = space.lines(&format!("{run}/metrics.jsonl"));
        let evals: Vec<&Value> = lines.iter().filter(|l| l["eval"] == "val" && l["final"] != true).collect();
        let figure = |line: &Value| {
            let of = |key: &str| line[key].as_f64().unwrap();
            match by {
                "loss" => (-of("loss"), -of("loss")),
                key => (of(key), -of("loss")),
            }
        };
        let want = evals.iter().copied().reduce(|best, next| if figure(next) > figure(best) { next } else { best });
        let want = want.unwrap();
        let got = &space.json(&format!("eval --model {run}/best.safetensors --data t=train"))[0];
        for key in ["top1", "balanced", "macro_f1", "loss"] {
            assert!(
                (got[key].as_f64().unwrap() - want[key].as_f64().unwrap()).abs() < 1e-5,
                "{by}: {key}, {got}, {want}"
            );
        }
    };
    ["top1", "balanced", "loss"].into_iter().for_each(best);
}
