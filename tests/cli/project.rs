//! `project` and `report`.

use std::fs;

use crate::{Space, TRAIN, common, with};

const PROJECT: &str = "project --pretrained m.safetensors --finetuned run/last.safetensors --val val --max-iters 20";

fn fine_tuned() -> Space {
    let space = Space::new();
    space.ok(&format!("{TRAIN} --method vanilla --lr 0.05 --out run"));
    space
}

/// The L2 norm of the difference of two tensors.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn project_writes_a_checkpoint_between_the_two_and_its_logs() {
    let space = fine_tuned();
    let text = space.ok(&format!("{PROJECT} --out c.safetensors"));
    assert!(text.contains("c.safetensors"), "{text}");
    let (a, b, c) =
        (space.tensors("m.safetensors"), space.tensors("run/last.safetensors"), space.tensors("c.safetensors"));
    assert_eq!(c.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, (_, c)) in &c {
        let whole = distance(&b[name].1, &a[name].1);
        assert!(distance(c, &a[name].1) <= whole * 1.000001, "{name} lies farther out than it was");
        assert!(distance(c, &b[name].1) <= whole * 1.000001, "{name} lies beyond the pre-trained weights");
    }
    assert_ne!(space.bytes("c.safetensors"), space.bytes("run/last.safetensors"));

    let metrics = space.lines("c.safetensors.metrics.jsonl");
    assert_eq!(metrics.len(), 20);
    for (i, line) in metrics.iter().enumerate() {
        assert_eq!(line["step"], i);
        assert!(line["radius_loss"].as_f64().unwrap().is_finite(), "{line}");
    }
    let radii = space.rows("c.safetensors.radii.csv");
    assert_eq!(radii.len(), 20 * a.len());
    assert!(radii.iter().enumerate().all(|(i, row)| row[0] == (i / a.len()).to_string() && a.contains_key(&row[1])));

    assert!(space.ok("inspect c.safetensors").contains("blue, green, red"));
    space.ok(&format!("{PROJECT} --out again.safetensors"));
    for suffix in ["", ".radii.csv", ".metrics.jsonl"] {
        let (one, two) = (format!("c.safetensors{suffix}"), format!("again.safetensors{suffix}"));
        assert_eq!(space.bytes(&one), space.bytes(&two), "two runs differ in {suffix:?}");
    }
}

#[test]
fn project_leaves_what_is_excluded_as_it_was_fine_tuned() {
    let space = fine_tuned();
    space.ok(&format!("{PROJECT} --exclude head.* norm.weight --out c.safetensors"));
    let (b, c) = (space.tensors("run/last.safetensors"), space.tensors("c.safetensors"));
    let radii = space.rows("c.safetensors.radii.csv");
    for name in ["head.weight", "head.bias", "norm.weight"] {
        assert_eq!(c[name], b[name], "{name}");
        assert!(radii.iter().all(|row| row[1] != name), "{name} has a radius");
    }
    assert_ne!(c["patch_embed.proj.weight"], b["patch_embed.proj.weight"]);
    space.fails(2, &format!("{PROJECT} --exclude haed.* --out x.safetensors"), &["--exclude haed.*", "head.bias"]);
}

#[test]
fn a_head_of_another_size_stays_as_it_was_fine_tuned() {
    let space = Space::new();
    fs::copy(common::fixture_path("vit_small"), space.path("vit.safetensors")).unwrap();
    let (_, notes) = space.run(&with(TRAIN, "--model vit.safetensors --heads 3 --out run"));
    assert!(notes.contains("head has 7 outputs: a new one for 3 classes"), "{notes}");
    let radii = space.rows("run/radii.csv");
    assert!(radii.iter().any(|row| row[1] == "norm.weight") && radii.iter().all(|row| !row[1].starts_with("head.")));

    let (_, notes) = space.run(&with(PROJECT, "--pretrained vit.safetensors --heads 3 --out c.safetensors"));
    assert!(notes.contains("head.weight has no pre-trained counterpart"), "{notes}");
    let (b, c) = (space.tensors("run/last.safetensors"), space.tensors("c.safetensors"));
    assert_eq!((&c["head.weight"], &c["head.bias"]), (&b["head.weight"], &b["head.bias"]));
    assert_eq!(c["head.weight"].0, [3, 36]);
}

#[test]
fn project_refuses_checkpoints_of_two_models() {
    let space = fine_tuned();
    space.ok(
        "init --out wide.safetensors --classes-of train --image-size 16 --patch-size 8 --dim 24 --depth 1 --heads 2",
    );
    let parts = ["wide.safetensors: tensor cls_token", "shape", "the fine-tuning began with"];
    space.fails(1, &with(PROJECT, "--pretrained wide.safetensors --out c.safetensors"), &parts);
    space.fails(2, &with(PROJECT, "--max-iters 0 --out c.safetensors"), &["--max-iters"]);
    space.fails(1, &with(PROJECT, "--val nowhere --out c.safetensors"), &["nowhere", "no such file or folder"]);
    space.fails(1, &format!("{PROJECT} --out m.safetensors/c"), &["m.safetensors/c", "cannot write"]);
}

#[test]
fn report_is_about_one_run_or_several() {
    let space = fine_tuned();
    space.ok(&format!("{TRAIN} --test t=test --out other"));
    fs::remove_file(space.path("run/report.html")).unwrap();
    assert_eq!(space.ok("report run"), "run/report.html\n");
    let one = space.text("run/report.html");
    assert!(one.contains("</html>") && !one.contains("src=\"http") && !one.contains("<script"));
    space.ok("report run other --out both.html");
    let both = space.text("both.html");
    assert!(both.contains("other") && both.len() > one.len());

    space.fails(1, "report nowhere", &["nowhere", "no such folder"]);
    space.fails(1, "report train", &["train", "config.toml", "metrics.jsonl"]);
    space.fails(1, "report run --out both.html/x", &["both.html/x", "cannot write"]);
    let torn = space.text("run/metrics.jsonl").replacen('}', "", 1);
    space.write("run/metrics.jsonl", torn);
    space.fails(1, "report run", &["run/metrics.jsonl", "line 1"]);
}
