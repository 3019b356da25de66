//! `--precision f16` of every command that runs a model.

use crate::common::gpu;
use crate::{Space, TRAIN, with};

/// With a ViT as `vit.safetensors` and a ResNet with average pools and a bottleneck as `resnet.safetensors`; none where the
/// adapter has no f16, which it then says in one line.
fn space() -> Option<Space> {
    let space = Space::new();
    if gpu().check_f16().is_err() {
        space.fails(1, "predict --model m.safetensors --data test --precision f16", &["SHADER_F16", "--precision f32"]);
        return None;
    }
    std::fs::rename(space.path("m.safetensors"), space.path("vit.safetensors")).unwrap();
    space.ok(
        "init --arch resnet --block bottleneck --depths 1 1 --widths 16 24 --classes-of train --seed 3 --image-size 16 \
              --out resnet.safetensors",
    );
    Some(space)
}

fn logits(space: &Space, model: &str, precision: &str) -> Vec<f32> {
    let file = format!("{model}-{precision}.logits.safetensors");
    let line = format!("predict --model {model}.safetensors --data test --precision {precision} --logits {file}");
    space.ok(&line);
    space.tensors(&file)["logits"].1.clone()
}

#[test]
fn predictions_and_figures_are_those_of_f32_within_what_f16_holds() {
    let Some(space) = space() else { return };
    for model in ["vit", "resnet"] {
        let (single, half) = (logits(&space, model, "f32"), logits(&space, model, "f16"));
        let error = crate::common::relative(&half, &single);
        assert!(error > 0.0 && error < 1e-2, "{model}: {error:e}");
        let loss = |precision: &str| {
            let line = format!("eval --model {model}.safetensors --data id=test --precision {precision}");
            space.json(&line)[0]["loss"].as_f64().unwrap()
        };
        let (single, half) = (loss("f32"), loss("f16"));
        assert!(single != half && (single - half).abs() < 1e-2 * single, "{model}: {single} {half}");
    }
}

#[test]
fn a_resnet_is_fine_tuned_and_projected_in_f16() {
    let Some(space) = space() else { return };
    let flags = "--model resnet.safetensors --lr 0.02 --test id=test --precision f16 --loss-scale 1024 --out run";
    space.ok(&with(TRAIN, flags));
    let steps = space.lines("run/metrics.jsonl");
    assert!(steps.iter().filter(|l| l.get("train_loss").is_some()).all(|l| l["loss_scale"] == 1024.0), "{steps:?}");
    let (before, after) = (space.tensors("resnet.safetensors"), space.tensors("run/last.safetensors"));
    for name in ["bn1.running_mean", "conv1.weight", "layer2.0.downsample.0.weight", "fc.weight"] {
        assert_ne!(before[name], after[name], "{name}");
    }
    let project = "project --pretrained resnet.safetensors --finetuned run/last.safetensors --val val --max-iters 12";
    let radii = |precision: &str| -> Vec<f64> {
        space.ok(&format!("{project} --precision {precision} --out {precision}.safetensors"));
        let rows = space.rows(&format!("{precision}.safetensors.radii.csv"));
        rows.iter().map(|row| row[2].parse().unwrap()).collect()
    };
    let (single, half) = (radii("f32"), radii("f16"));
    let off = single.iter().zip(&half).filter(|(a, b)| (*a - *b).abs() > 0.1 * a.abs().max(1e-2)).count();
    assert!(single != half && off * 10 <= single.len(), "{off} of {} radii differ", single.len());
    assert_ne!(space.tensors("f16.safetensors")["conv1.weight"], after["conv1.weight"]);
}

#[test]
fn a_benchmark_says_in_which_precision_it_measured() {
    let Some(space) = space() else { return };
    let rows = space.json("bench vit32_infer resnet20_infer kernel_relu --seconds 0 --warmup 0 --precision f16");
    let word = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_string();
    let of: Vec<_> = rows.as_array().unwrap().iter().map(|r| [word(r, "workload"), word(r, "precision")]).collect();
    // Kernels alone are measured in f32.
    assert_eq!(of, [["vit32_infer", "f16"], ["resnet20_infer", "f16"], ["kernel_relu", "f32"]]);
}
