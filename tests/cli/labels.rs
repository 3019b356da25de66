//! Images with any number of labels, from training to predictions, with every method and in every command.

use std::fs;

use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::methods::FLAGS;
use crate::{Space, common, with};
use tpgm::method::METHODS;

const LABELS: [&str; 3] = ["left", "middle", "right"];
const TRAIN: &str = "finetune --model m.safetensors --train train.csv --val val.csv --epochs 2 --batch-size 8 --augment none \
                     --optimizer adamw --lr 0.01 --lr-schedule constant --warmup-steps 0";

/// Tables of images with up to three bright stripes, each of which is a label, and the model `m.safetensors`.
fn striped() -> Space {
    let space = Space::new();
    let mut random = common::Random::new(11);
    for (split, count) in [("train", 32), ("val", 16), ("test", 16)] {
        let mut csv = String::from("path,labels\n");
        for i in 0..count {
            let own: Vec<usize> = (0..3).filter(|stripe| (i >> stripe) & 1 == 1).collect();
            let image = RgbImage::from_fn(16, 16, |x, _| {
                let level = if own.contains(&(x as usize * 3 / 16)) { 190 } else { 40 };
                Rgb([0; 3].map(|_: u8| level + (random.bits() % 30) as u8))
            });
            fs::create_dir_all(space.path("images")).unwrap();
            let path = format!("images/{split}-{i}.png");
            image.save(space.path(&path)).unwrap();
            let names: Vec<&str> = own.iter().map(|stripe| LABELS[*stripe]).collect();
            csv += &format!("{path},{}\n", names.join(";"));
        }
        space.write(&format!("{split}.csv"), csv);
    }
    space
}

/// What a model says of itself.
fn metadata(space: &Space, name: &str) -> std::collections::HashMap<String, String> {
    let bytes = space.bytes(name);
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    header.metadata().clone().unwrap()
}

fn thresholds(space: &Space, name: &str) -> Vec<f64> {
    let metadata = metadata(space, name);
    assert_eq!(metadata["tpgm.task"], "multi-label", "{name}");
    serde_json::from_str(&metadata["tpgm.thresholds"]).unwrap()
}

#[test]
fn a_run_on_labels_from_training_to_predictions() {
    let space = striped();
    let line = with(TRAIN, "--epochs 12 --method vanilla --test test=test.csv --id test --out run");
    let (out, err) = space.run(&line);
    for what in ["mAP %", "micro F1 %", "macro F1 %", "exact %"] {
        assert!(out.contains(what), "{out}");
    }
    assert!(!out.contains("top-1") && !err.contains("top-1"), "{out}{err}");
    assert!(err.contains("val mAP") && err.contains("images without any"), "{err}");

    let lines = space.lines("run/metrics.jsonl");
    let last = |model: &str| lines.iter().rev().find(|l| l["eval"] == "test" && l["model"] == model).unwrap();
    let end = last("last");
    assert!(end["map"].as_f64().unwrap() > 0.9, "{end}");
    assert!(end.get("top1").is_none() && end.get("balanced").is_none() && end["at_own"]["exact"].is_f64(), "{end}");
    let loss = |line: &Value| line["train_loss"].as_f64();
    let losses: Vec<f64> = lines.iter().filter_map(loss).collect();
    // No label is known at the start: ln 2.
    let end_of = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!((losses[0] - 0.69).abs() < 0.15 && end_of(&losses[40..]) < 0.4, "{losses:?}");

    let own = thresholds(&space, "run/best.safetensors");
    assert!(own.len() == 3 && own.iter().all(|t| *t > 0.0 && *t < 1.0), "{own:?}");
    assert!(space.ok("inspect run/best.safetensors").contains("any number of labels"));
    let eval = "eval --model run/last.safetensors --data t=test.csv";
    let row = &space.json(&format!("{eval} --per-class"))[0];
    assert!((row["map"].as_f64().unwrap() - end["map"].as_f64().unwrap()).abs() < 1e-9, "{row} {end}");
    assert_eq!((&row["at_own"], row.get("top1")), (&end["at_own"], None));
    let saved = thresholds(&space, "run/last.safetensors");
    for (class, threshold) in row["per_class"].as_array().unwrap().iter().zip(&saved) {
        assert_eq!(
            (class["threshold"].as_f64().unwrap() as f32, class["images"].as_u64()),
            (*threshold as f32, Some(8))
        );
    }
    let table = space.ok(&format!("{eval} --per-class --calibrate v=val.csv"));
    assert!(table.contains("micro F1 % at own") && table.contains("AP %") && table.contains("loss at T"), "{table}");
    let corrupted = space.ok(&format!("{eval} --corrupt gaussian_noise:1"));
    assert!(corrupted.contains("t, mAP %") && !corrupted.contains("top-1"), "{corrupted}");

    // Those above their thresholds, by falling probability.
    let predict = "predict --model run/last.safetensors --data test.csv";
    let exact: Vec<Value> = serde_json::from_value(space.json(predict)).unwrap();
    let truth: Vec<(String, Vec<String>)> = space
        .rows("test.csv")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].split(';').filter(|own| !own.is_empty()).map(String::from).collect()))
        .collect();
    let mut right = 0;
    for image in &exact {
        let path = image["path"].as_str().unwrap();
        let (_, own) = truth.iter().find(|(name, _)| path.ends_with(name.as_str())).unwrap();
        let mut given: Vec<&str> = Vec::new();
        let mut before = 1.0;
        for label in image["labels"].as_array().unwrap() {
            let (class, p) = (label["class"].as_str().unwrap(), label["probability"].as_f64().unwrap());
            let at = LABELS.iter().position(|label| *label == class).unwrap();
            assert!(p <= before && p >= saved[at] as f32 as f64, "{image}");
            (before, _) = (p, given.push(class));
        }
        given.sort_unstable();
        right += usize::from(given == *own);
    }
    let share = right as f64 / exact.len() as f64;
    assert!((share - end["at_own"]["exact"].as_f64().unwrap()).abs() < 1e-9, "{share} {end}");
    let text = space.ok(predict);
    assert!(text.lines().any(|line| line.ends_with(": no label")) && text.contains("left "), "{text}");

    let page = space.text("run/report.html");
    for part in ["mAP during training", "Mean average precision (mAP) in %", "Exact %", "Class by class"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("op-1") && !page.contains("op-5") && !page.contains("taken for"), "a figure of one class");

    assert_shown(&space, &page, &exact, &truth);

    // What follows from the seed alone, and goes on as it began.
    space.ok(&with(&line, "--epochs 6 --out half"));
    space.ok("finetune --resume half --epochs 12");
    assert!(space.bytes("half/last.safetensors") == space.bytes("run/last.safetensors"));
}

/// The page shows images with the labels that they have, as `truth` tells, and that `predict` gives them; `predicted` is of the last
/// weights.
fn assert_shown(space: &Space, page: &str, predicted: &[Value], truth: &[(String, Vec<String>)]) {
    for part in [
        "Labels that the model gives",
        "The surest mistakes",
        "The least sure answers",
        "By label",
        "<b>middle</b>: AP ",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let examples: Value = serde_json::from_str(&space.text("run/label_examples.json")).unwrap();
    let model = examples["model"].as_str().unwrap();
    let predicted = match model {
        "last" => predicted.to_vec(),
        _ => serde_json::from_value(space.json(&format!("predict --model run/{model}.safetensors --data test.csv")))
            .unwrap(),
    };
    let of = |path: &Value| {
        let image = predicted.iter().find(|image| image["path"] == *path).unwrap();
        let (_, own) = truth.iter().find(|(name, _)| path.as_str().unwrap().ends_with(name.as_str())).unwrap();
        (image["labels"].as_array().unwrap(), own)
    };
    let wrong = predicted.iter().filter(|image| {
        let (given, own) = of(&image["path"]);
        let mut given: Vec<&str> = given.iter().map(|label| label["class"].as_str().unwrap()).collect();
        given.sort_unstable();
        given != *own
    });
    let set = &examples["sets"][0];
    assert_eq!((set["images"].as_u64(), set["wrong"].as_u64()), (Some(16), Some(wrong.count() as u64)));
    let mut shown = 0;
    let all = [&set["mistakes"], &set["unsure"]].into_iter().chain((0..3).map(|i| &examples["labels"][i]["examples"]));
    for example in all.flat_map(|examples| examples.as_array().unwrap()) {
        let (given, own) = of(&example["path"]);
        for said in example["labels"].as_array().unwrap() {
            let label = said["label"].as_str().unwrap();
            assert_eq!(said["has"], own.iter().any(|name| name == label), "{said}");
            let own = given.iter().find(|own| own["class"] == label);
            assert_eq!(said["given"], own.is_some(), "{said}");
            if let Some(own) = own {
                let gap = said["probability"].as_f64().unwrap() - own["probability"].as_f64().unwrap();
                assert!(gap.abs() < 1e-4, "{said} {own}");
            }
            shown += 1;
        }
    }
    assert!(shown > 20, "{shown}");
    // The same page without the images.
    let held = space.path("held");
    fs::rename(space.path("images"), &held).unwrap();
    space.ok("report run --out again.html");
    assert!(space.text("again.html") == page);
    fs::rename(held, space.path("images")).unwrap();
}

#[test]
fn a_page_of_labels_judges_by_the_thresholds_of_the_model() {
    let space = striped();
    // Without test sets it shows the images that the thresholds were chosen on.
    space.ok(&with(TRAIN, "--epochs 1 --method vanilla --no-baseline --out run"));
    let examples: Value = serde_json::from_str(&space.text("run/label_examples.json")).unwrap();
    assert_eq!((&examples["sets"][0]["set"], &examples["model"]), (&"val".into(), &"last".into()));
    let own = thresholds(&space, "run/last.safetensors");
    let mut seen = 0;
    for label in examples["labels"].as_array().unwrap() {
        let at = LABELS.iter().position(|name| label["label"] == *name).unwrap();
        for said in label["examples"].as_array().unwrap().iter().map(|example| &example["labels"][0]) {
            let p = said["probability"].as_f64().unwrap();
            assert_eq!(
                (&said["label"], said["given"].as_bool().unwrap()),
                (&label["label"], p >= own[at] as f32 as f64)
            );
            seen += usize::from((p >= 0.5) != (p >= own[at] as f32 as f64));
        }
    }
    assert!(seen > 0, "a threshold of a half would give the same labels");
}

#[test]
#[cfg(unix)]
fn hostile_labels_and_paths_stay_text() {
    let space = Space::empty();
    let labels = ["<img src=x onload=alert(1)>", "a\"><script>", "it's & \u{202e}gpj"];
    for split in ["train", "val"] {
        let mut csv = String::from("path,labels\n");
        for i in 0..8 {
            let path = format!("{split}\"><script>{i}.png");
            space.image(&path, ["red", "blue"][i % 2]);
            let own = (0..3).filter(|label| (i >> label) & 1 == 1).map(|label| labels[label]);
            let own = own.collect::<Vec<_>>().join(";").replace('"', "\"\"");
            csv += &format!("\"{}\",\"{own}\"\n", path.replace('"', "\"\""));
        }
        space.write(&format!("{split}.csv"), csv);
    }
    space.ok(
        "init --out m.safetensors --classes-of train.csv --image-size 16 --patch-size 8 --dim 16 --depth 1 --heads 2",
    );
    space.ok("finetune --model m.safetensors --train train.csv --val val.csv --epochs 1 --batch-size 4 --augment none --out run");
    let page = space.text("run/report.html");
    for part in ["<script", "<img src=x", "\u{202e}"] {
        assert!(!page.contains(part), "{part}");
    }
    assert!(page.contains("<b>&lt;img src=x onload=alert(1)&gt;</b>"), "they are there, as text");
    crate::page::assert_self_contained(&page);
}

/// What every method leaves is a model for labels, whose thresholds were fitted.
#[test]
fn every_method_trains_on_labels() {
    let space = striped();
    let flags = |method: &str| FLAGS.iter().find(|(of, _)| *of == method).map_or("", |(_, flags)| *flags);
    for method in METHODS.iter().map(|method| method.name()).chain(["linear-probe logistic"]) {
        let (name, probe) = method.split_once(' ').map_or((method, ""), |(name, how)| (name, how));
        let probe = if probe.is_empty() { String::new() } else { format!("--probe {probe}") };
        let run = format!("{name}{}", probe.len());
        let line = format!("--steps 2 --method {name} {} {probe} --test test=test.csv --out {run}", flags(name));
        let (out, err) = space.run(&with(TRAIN, &line));
        assert!(out.contains("mAP %") && !out.contains("top-1") && !err.contains("top-1"), "{out}{err}");
        assert_eq!(thresholds(&space, &format!("{run}/last.safetensors")).len(), 3);
        let lines = space.lines(&format!("{run}/metrics.jsonl"));
        assert!(lines.iter().all(|l| l.get("train_loss").is_none_or(Value::is_f64)), "{lines:?}");
        if name == "tpgm" {
            assert!(lines.iter().any(|l| l["radius_loss"].is_f64()), "{lines:?}");
        }
    }
    let logistic = space.lines("linear-probe16/metrics.jsonl");
    let reached = logistic.iter().find(|l| l["eval"] == "test").unwrap()["map"].as_f64().unwrap();
    assert!(reached > 0.8, "three stripes are told apart by a linear head: {reached}");
}

#[test]
fn positives_are_weighed_and_labels_are_smoothed_and_mixed() {
    let space = striped();
    let line = with(TRAIN, "--steps 3 --method vanilla");
    // Half of the images have each stripe: as many negatives as positives.
    space.ok(&format!("{line} --out plain"));
    space.ok(&format!("{line} --class-weights balanced --out balanced"));
    space.write("w.txt", "left 3\nmiddle 1\nright 0.5\n");
    space.ok(&format!("{line} --class-weights w.txt --out weighed"));
    let last = |run: &str| space.tensors(&format!("{run}/last.safetensors"))["head.weight"].1.clone();
    assert_eq!(last("plain"), last("balanced"));
    assert_ne!(last("plain"), last("weighed"));
    for flags in ["--label-smoothing 0.1", "--mixup 0.4", "--cutmix 1", "--best-by f1", "--best-by loss"] {
        space.ok(&format!("{line} {flags} --out {}", flags[2..].replace(' ', "-")));
    }
    let preview = space.text("mixup-0.4/augmented.json");
    assert!(preview.contains("left, right"), "{preview}");
}

#[test]
fn models_are_blended_and_projected_with_thresholds_of_their_own() {
    let space = striped();
    let line = with(TRAIN, "--epochs 4 --method vanilla --no-baseline");
    space.ok(&format!("{line} --out a"));
    space.ok(&format!("{line} --seed 1 --out b"));
    let (out, _) = space.run(
        "wise --pretrained m.safetensors --finetuned a/last.safetensors --sweep 3 --val val.csv --out w.safetensors",
    );
    assert!(out.contains("mAP %") && out.contains("micro F1 %") && !out.contains("top-1"), "{out}");
    let out =
        space.ok("soup --models a/last.safetensors b/last.safetensors --kind greedy --val val.csv --out s.safetensors");
    assert!(out.contains("mAP %") && !out.contains("top-1"), "{out}");
    space.ok("project --pretrained m.safetensors --finetuned a/last.safetensors --val val.csv --max-iters 3 --out p.safetensors");
    for model in ["w", "s", "p"] {
        let own = thresholds(&space, &format!("{model}.safetensors"));
        assert!(own.len() == 3 && own.iter().any(|t| *t != 0.5), "{model}: {own:?}");
        // They are those of the images that were given.
        let row = &space.json(&format!("eval --model {model}.safetensors --data v=val.csv"))[0];
        assert!(row["at_own"]["macro_f1"].as_f64() >= row["macro_f1"].as_f64(), "{row}");
    }
    // Without images nobody knows them.
    let line = "wise --pretrained m.safetensors --finetuned a/last.safetensors --alpha 0.5 --out h.safetensors";
    let (_, err) = space.run(line);
    assert!(err.contains("from a probability of 0.5 on"), "{err}");
    assert_eq!(thresholds(&space, "h.safetensors"), [0.5; 3]);
}

#[test]
fn a_comparison_on_labels_is_of_map() {
    let space = striped();
    space.write(
        "c.toml",
        "seeds = [0]\nout = \"c\"\n[common]\nmodel = \"m.safetensors\"\nepochs = 2\nbatch-size = 8\naugment = \"none\"\noptimizer = \
         \"adamw\"\nlr = 0.01\n[[data]]\nname = \"stripes\"\ntrain = \"train.csv\"\nval = \"val.csv\"\ntest = [\"near=test.csv\", \
         \"far=val.csv\"]\nid = [\"near\"]\n[[method]]\nname = \"vanilla\"\ngrid.lr = [0.01, 0.001]\n[[method]]\nname = \"wise\"\nalphas = [0.5, 1]\n\
         [[method]]\nname = \"soup\"\nkind = \"greedy\"\n",
    );
    let (out, _) = space.run("compare c.toml");
    assert!(out.contains("mAP %, mean") && !out.contains("top-1"), "{out}");
    let results: Value = serde_json::from_str(&space.text("c/results.json")).unwrap();
    let entry = &results["data"][0]["entries"][0]["models"][0];
    let set = &entry["sets"][0];
    assert!(set["map"].is_f64() && set["micro_f1"].is_f64() && set.get("top1").is_none(), "{set}");
    assert_eq!(set["map"], entry["id"]);
    let page = space.text("c/report.html");
    assert!(page.contains("mAP") && !page.contains("op-1"), "a figure of one class");
    for part in ["Labels that the models give", "The least sure answers</summary>", "By label</summary>"] {
        assert!(page.contains(part), "{part}");
    }
    crate::page::assert_self_contained(&page);
    // Nothing is made again.
    let before = space.text("c/results.json");
    space.run("compare c.toml");
    assert_eq!(space.text("c/results.json"), before);
}

#[test]
fn what_is_of_one_class_is_refused_with_labels_and_the_other_way_round() {
    let space = striped();
    space.ok(&with(TRAIN, "--steps 1 --method vanilla --no-baseline --out run"));
    let line = with(TRAIN, "--steps 1 --out x");
    for (flags, parts) in [
        ("--sampler balanced", &["--sampler balanced", "any number of labels"][..]),
        ("--best-by top1", &["--best-by top1", "map, f1 or loss"]),
        ("--best-by balanced", &["--best-by balanced"]),
        ("--subset --test t=test.csv", &["--subset"]),
        ("--zero-shot", &["--zero-shot"]),
    ] {
        space.fails(2, &format!("{line} {flags}"), parts);
    }
    space.fails(1, &with(&line, "--val val"), &["the images of val have one class each", "any number of labels"]);
    space.fails(1, &format!("{line} --test t=test"), &["the images of t have one class"]);
    space.fails(2, &with(&line, "--train train --val val --best-by map"), &["--best-by map", "one class each"]);
    space.fails(2, &format!("{line} --label-separator="), &["--label-separator"]);
    let distill = "finetune --model run/last.safetensors --train train.csv --val val.csv --no-baseline --steps 1 --method distill";
    space.ok(&format!("{distill} --out features"));
    space.fails(
        2,
        &format!("{distill} --distill-on logits --out logits"),
        &["--distill-on logits", "any number of labels"],
    );

    let model = "--model run/last.safetensors";
    space.fails(1, &format!("eval {model} --data t=test"), &["any number of labels", "have one each"]);
    space.fails(
        1,
        "eval --model m.safetensors --data t=test.csv",
        &["gives an image one class", "may have any number"],
    );
    space.fails(2, &format!("eval {model} --data t=test.csv --subset"), &["--subset"]);
    space.fails(2, &format!("eval {model} --data t=test.csv --confusion c.csv"), &["--confusion"]);
    space.fails(2, &format!("eval {model} --data t=test.csv --knn 3 --train train.csv"), &["--knn"]);
    space.fails(2, &format!("predict {model} --data images --top 2"), &["--top"]);
    space.fails(1, "corrupt --data test.csv --corrupt fog --out copies", &["test.csv"]);

    // A head for labels is none for classes of the same names.
    space
        .write("one.csv", "path,label\nimages/train-1.png,left\nimages/train-2.png,middle\nimages/train-4.png,right\n");
    let one = "finetune --model run/last.safetensors --train one.csv --val one.csv --steps 1 --out y";
    space.fails(1, one, &["run/last.safetensors", "any number of labels"]);
    // With other classes it gets another head, and says from then on that it gives one class.
    space.ok("finetune --model run/last.safetensors --train train --val val --steps 1 --no-baseline --out single");
    assert_eq!(metadata(&space, "single/last.safetensors")["tpgm.task"], "single-label");
    space.ok("predict --model single/last.safetensors --data test --top 2");
    let soup = "soup --models run/last.safetensors single/last.safetensors --kind uniform --out s.safetensors";
    space.fails(1, soup, &["any number of labels"]);
    space.fails(1, "report run single --out page.html", &["any number of labels"]);
}

#[test]
fn an_exported_model_says_that_it_gives_any_number_of_labels() {
    let space = striped();
    space.ok(&with(TRAIN, "--method vanilla --no-baseline --test t=test.csv --out run"));
    let said = space.ok("export --model run --format onnx --weights int8 --test t=test.csv --out m.onnx");
    assert!(said.contains("mAP %"), "{said}");
    let bytes = fs::read(space.path("m.onnx")).unwrap();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("multi-label") && has("thresholds"));
    space.ok("export --model run --format hf --out hf");
    let config: Value = serde_json::from_str(&space.text("hf/config.json")).unwrap();
    assert_eq!(config["problem_type"], "multi_label_classification");
    assert_eq!(config["thresholds"].as_array().unwrap().len(), 3);
    let card = space.text("hf/README.md");
    assert!(card.contains("| data | images | mAP |") && card.contains("mean_average_precision"), "{card}");
    assert!(card.contains("any number of labels") && card.contains("| t |"), "{card}");
}
