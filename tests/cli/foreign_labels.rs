//! Models for any number of labels that transformers has saved (`fixtures/generate_multi_label.py`), in every command that reads a
//! model, against what transformers answers.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{Space, common};

const MODELS: [&str; 2] = ["vit", "clip"];

/// The fixture's folder: models, images and labels.
fn foreign() -> Space {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let space = Space::empty();
    copy(&common::fixture_path("multi_label").with_extension(""), space.dir.path());
    space
}

fn close(got: &Value, want: &Value, bound: f64) {
    let (a, b) = (got.as_f64().unwrap(), want.as_f64().unwrap());
    assert!((a - b).abs() < bound, "{got} {want}");
}

/// `config.json` with one entry changed, or without it.
fn changed(space: &Space, name: &str, key: &str, value: Value) {
    let path = format!("{name}/config.json");
    let mut config: Value = serde_json::from_str(&space.text(&path)).unwrap();
    if value.is_null() {
        config.as_object_mut().unwrap().remove(key);
    } else {
        config[key] = value;
    }
    space.write(&path, config.to_string());
}

#[test]
fn answers_and_figures_are_those_of_transformers() {
    let space = foreign();
    for name in MODELS {
        let expected: Value = serde_json::from_str(&space.text(&format!("{name}.json"))).unwrap();
        let line = format!("predict --model {name} --data images");
        let mut given = 0;
        let images = space.json(&line);
        for image in images.as_array().unwrap() {
            let scores = expected["scores"][image["path"].as_str().unwrap()].as_object().unwrap();
            let labels = image["labels"].as_array().unwrap();
            assert_eq!(labels.len(), scores.values().filter(|p| p.as_f64() >= Some(0.5)).count(), "{name}: {image}");
            for label in labels {
                close(&label["probability"], &scores[label["class"].as_str().unwrap()], 1e-5);
                given += 1;
            }
        }
        assert!(images.as_array().unwrap().len() == 16 && given > 20, "{given}");
        let (_, err) = space.run(&line);
        assert!(err.contains("from a probability of 0.5 on") && err.contains("problem_type"), "{err}");

        let row = &space.json(&format!("eval --model {name} --data t=labels.csv"))[0];
        for key in ["loss", "map", "micro_f1", "macro_f1", "exact"] {
            close(&row[key], &expected[key], 1e-5);
        }
        assert!(row.get("top1").is_none(), "{row}");
        let said = space.ok(&format!("inspect {name}"));
        assert!(said.contains("any number of labels") && said.contains("(problem_type)"), "{said}");
        space.fails(2, &format!("{line} --top 2"), &["--top"]);
    }
    space
        .write("one.csv", "path,label\nimages/00.png,left\nimages/01.png,dark\nimages/02.png,red\nimages/03.png,top\n");
    space.fails(1, "eval --model vit --data t=one.csv", &["any number of labels", "have one each"]);
}

#[test]
fn other_commands_take_them_for_what_they_are() {
    let space = foreign();
    let train =
        "finetune --train labels.csv --val labels.csv --epochs 2 --batch-size 8 --augment none --method vanilla";
    // The head stays, and its pre-trained figures are those of `eval`.
    space.ok(&format!("{train} --model vit --test t=labels.csv --out run"));
    let lines = space.lines("run/metrics.jsonl");
    let first = lines.iter().find(|line| line["model"] == "pretrained" && line["eval"] == "t").unwrap();
    let expected: Value = serde_json::from_str(&space.text("vit.json")).unwrap();
    close(&first["map"], &expected["map"], 1e-5);
    let (out, _) = space
        .run("wise --pretrained vit --finetuned run/last.safetensors --sweep 3 --val labels.csv --out w.safetensors");
    assert!(out.contains("mAP %"), "{out}");
    space.ok(
        "project --pretrained vit --finetuned run/last.safetensors --val labels.csv --max-iters 2 --out p.safetensors",
    );
    let out = space.ok("soup --models vit run/last.safetensors --kind greedy --val labels.csv --out s.safetensors");
    assert!(out.contains("mAP %"), "{out}");
    for model in ["w", "p", "s"] {
        assert!(space.ok(&format!("inspect {model}.safetensors")).contains("(metadata tpgm.task)"), "{model}");
    }
    space.ok("export --model vit --format onnx --out m.onnx");
    assert!(space.bytes("m.onnx").windows(11).any(|bytes| bytes == b"multi-label"));
    // An exported model is read again as what it is, thresholds too.
    for (format, model) in [("hf", "run"), ("timm", "run"), ("hf", "vit")] {
        let out = format!("{format}-of-{model}");
        space.ok(&format!("export --model {model} --format {format} --out {out}"));
        let again = space.json(&format!("eval --model {out} --data t=labels.csv"))[0].clone();
        let weights = if model == "run" { "run/best.safetensors" } else { model };
        let row = space.json(&format!("eval --model {weights} --data t=labels.csv"))[0].clone();
        let at_own = |row: &Value| row["at_own"]["macro_f1"].clone();
        close(&again["map"], &row["map"], 1e-9);
        close(&at_own(&again), &at_own(&row), 1e-9);
    }
    assert!(!space.run("inspect hf-of-run").1.contains("0.5 on"));
}

/// With other classes it gets another head, and the model says so wherever it is put.
#[test]
fn a_new_head_for_classes_forgets_the_labels() {
    let space = foreign();
    space.write(
        "one.csv",
        "path,label\nimages/00.png,day\nimages/01.png,day\nimages/02.png,night\nimages/03.png,night\n",
    );
    let line = "finetune --model vit --train one.csv --val one.csv --steps 2 --augment none --method vanilla --out run";
    let (_, err) = space.run(line);
    assert!(!err.contains("0.5 on"), "{err}");
    space.ok("export --model run --format hf --out hf");
    let config: Value = serde_json::from_str(&space.text("hf/config.json")).unwrap();
    assert!(config.get("thresholds").is_none() && config["problem_type"] != "multi_label_classification", "{config}");
    // Beside the configuration that it came from, too.
    fs::copy(space.path("run/best.safetensors"), space.path("vit/model.safetensors")).unwrap();
    changed(&space, "vit", "id2label", json!({"0": "day", "1": "night"}));
    let row = &space.json("eval --model vit --data t=one.csv")[0];
    assert!(row["top1"].is_f64(), "{row}");
    let (_, err) = space.run("embed --model clip --data images --out e.safetensors");
    assert!(!err.contains("0.5 on"), "{err}");
}

#[test]
fn what_a_configuration_says_of_its_outputs_is_checked() {
    let space = foreign();
    let eval = "eval --model vit --data t=labels.csv";
    changed(&space, "vit", "thresholds", json!([0.5, 0.9, 0.5, 0.5]));
    let row = space.json(&format!("{eval} --per-class"))[0].clone();
    let of =
        |label: &str| row["per_class"].as_array().unwrap().iter().find(|own| own["class"] == label).unwrap().clone();
    assert_eq!((&of("dark")["threshold"], &of("dark")["given"]), (&json!(0.9f32), &json!(0)), "{row}");
    for (thresholds, parts) in [
        (json!([0.5, 0.5]), ["config.json", "thresholds", "each of 4 outputs"]),
        (json!([0.5, 1.5, 0.5, 0.5]), ["config.json", "thresholds", "from 0 to 1"]),
        (json!({"dark": 0.5}), ["config.json", "thresholds", "can't be understood"]),
    ] {
        changed(&space, "vit", "thresholds", thresholds);
        space.fails(1, eval, &parts);
    }
    changed(&space, "vit", "thresholds", json!([0.5, 0.5, 0.5, 0.5]));
    changed(&space, "vit", "problem_type", json!("single_label_classification"));
    space.fails(1, eval, &["config.json", "problem_type", "thresholds", "one is wrong"]);
    changed(&space, "vit", "thresholds", Value::Null);
    space.fails(1, eval, &["this model gives an image one class"]);
    let answer = space.json("predict --model vit --data images/00.png");
    assert_eq!(answer[0]["top"].as_array().unwrap().len(), 1, "a softmax");
    changed(&space, "vit", "problem_type", json!("regression"));
    space.fails(1, "predict --model vit --data images", &["config.json", "problem_type", "regression"]);
}
