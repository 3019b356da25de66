//! `best.safetensors`: the weights of the best evaluation, and the figures that a run gives of them.

use std::collections::HashMap;

use half::bf16;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

use crate::{Space, TRAIN, with};

/// The better a run learns its images, the worse it answers to those that choose: its first evaluation is the best.
const MISLED: &str = "--val wrong --test t=test --no-baseline --lr 0.05 --best-by loss --epochs 4";

/// With `wrong`, images that have the labels of other classes.
fn space() -> Space {
    let space = Space::new();
    for (class, label) in [("red", "green"), ("green", "blue"), ("blue", "red")] {
        (0..4).for_each(|i| space.image(&format!("wrong/{label}/{i}.png"), class));
    }
    space
}

/// The row of the test set that `model` of the run gave.
fn tested(space: &Space, run: &str, model: &str) -> Option<Value> {
    space.lines(&format!("{run}/metrics.jsonl")).into_iter().find(|line| line["eval"] == "t" && line["model"] == model)
}

fn loss_of_file(space: &Space, file: &str, flags: &str) -> f64 {
    space.json(&format!("eval --model {file} --data t=test {flags}"))[0]["loss"].as_f64().unwrap()
}

/// The model with the values of another type.
fn in_bf16(space: &Space) {
    let own = space.tensors("m.safetensors");
    let bytes = |values: &[f32]| values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect::<Vec<u8>>();
    let own: Vec<_> = own.into_iter().map(|(name, (shape, values))| (name, shape, bytes(&values))).collect();
    let views =
        own.iter().map(|(name, shape, data)| (name, TensorView::new(Dtype::BF16, shape.clone(), data).unwrap()));
    let metadata = HashMap::from([
        ("num_heads".to_string(), "2".to_string()),
        ("classes".to_string(), json!(["blue", "green", "red"]).to_string()),
    ]);
    space.write("half.safetensors", serialize(views, Some(metadata)).unwrap());
}

/// The head of the model in a file of its own.
fn head_alone(space: &Space) {
    let head = space.tensors("m.safetensors").remove("head.weight").unwrap();
    let bytes: Vec<u8> = head.1.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, head.0, &bytes).unwrap();
    let metadata = HashMap::from([("classes".to_string(), json!(["blue", "green", "red"]).to_string())]);
    space.write("h.safetensors", serialize([("weight", view)], Some(metadata)).unwrap());
}

#[test]
fn the_best_weights_are_tested_as_their_file_has_them_whether_the_run_was_stopped_or_not() {
    let space = space();
    in_bf16(&space);
    head_alone(&space);
    let runs = [
        ("plain", "--method vanilla"),
        ("head", "--method vanilla --head h.safetensors"),
        ("lora", "--method lora --lora-rank 2 --lora-targets *.mlp.*.weight"),
        ("half", "--method vanilla --model half.safetensors --heads 2"),
    ];
    for (run, flags) in runs {
        space.ok(&with(TRAIN, &format!("{MISLED} {flags} --out {run}")));
        let best = tested(&space, run, "best").unwrap_or_else(|| panic!("{run}: the best weights are the last"));
        let file = loss_of_file(&space, &format!("{run}/best.safetensors"), "");
        let loss = best["loss"].as_f64().unwrap();
        assert!((loss - file).abs() <= 1e-6 * file.abs(), "{run}: {loss} in the run, {file} of the file");
        assert_ne!(tested(&space, run, "last").unwrap()["loss"], best["loss"], "{run}");
        // One that goes on after its last step has nothing but the file.
        let before = space.bytes(&format!("{run}/metrics.jsonl"));
        space.ok(&format!("finetune --resume {run}"));
        assert!(space.bytes(&format!("{run}/metrics.jsonl")) == before, "{run}: other figures after resuming");
        assert!(space.path(&format!("{run}/report.html")).is_file());
    }
}

#[test]
fn the_best_weights_of_a_run_that_changes_its_last_ones_are_these() {
    let space = space();
    for flags in ["--wise-alpha 0", "--wise-alpha 0.5", "--lines-alpha 0.5", "--wise-alpha 0.5 --ema-decay 0.5"] {
        space.ok(&with(TRAIN, &format!("{MISLED} --method vanilla {flags} --out run")));
        let [best, last] = ["best", "last"].map(|name| space.tensors(&format!("run/{name}.safetensors")));
        assert!(best == last, "{flags}");
        assert_eq!(tested(&space, "run", "best"), None, "{flags}: tested twice");
        if flags == "--wise-alpha 0" {
            assert!(best == space.tensors("m.safetensors"));
        }
        std::fs::remove_dir_all(space.path("run")).unwrap();
    }
    // The evaluations on the way still tell when the training is done.
    let (_, said) =
        space.run(&with(TRAIN, "--method vanilla --wise-alpha 0.5 --lr 1e-30 --epochs 9 --early-stop 2 --out early"));
    assert!(said.contains("the training ends after 9 of 27 steps"), "{said}");
}
