//! A CLIP image tower of transformers' with a zero-shot head, through every command.

use std::collections::BTreeMap;
use std::fs;

use tpgm::checkpoint::write_safetensors;

use crate::common::{Fixture, fixture_path};
use crate::{Space, TRAIN, with};

const CLIP: &str = "--head zero.safetensors --normalize-features";

/// With the tower as `clip/`, and `zero.safetensors`, a head of three classes for its 24 features.
fn space() -> Space {
    let space = Space::new();
    let golden = Fixture::open("families/hf_clip_golden");
    fs::create_dir(space.path("clip")).unwrap();
    fs::copy(fixture_path("families/hf_clip"), space.path("clip/model.safetensors")).unwrap();
    fs::write(space.path("clip/config.json"), golden.json("config").to_string()).unwrap();
    let weight = golden.f32("head");
    let head = [("text_features".to_string(), vec![3, 24], &weight[..3 * 24])];
    let classes = BTreeMap::from([("classes".to_string(), r#"["blue", "green", "red"]"#.to_string())]);
    write_safetensors(space.path("zero.safetensors"), &head, &classes).unwrap();
    space
}

#[test]
fn a_network_without_residual_blocks_has_no_path_to_drop() {
    let space = Space::new();
    fs::create_dir(space.path("vgg")).unwrap();
    fs::copy(fixture_path("families/timm_vgg"), space.path("vgg/model.safetensors")).unwrap();
    fs::write(space.path("vgg/config.json"), Fixture::open("families/timm_vgg_golden").json("config").to_string())
        .unwrap();
    let line = with(TRAIN, "--model vgg --image-size 28 --drop-path 0.1 --out run");
    space.fails(2, &line, &["--drop-path", "residual blocks", "VGG"]);
}

#[test]
fn a_clip_tower_is_inspected_evaluated_fine_tuned_and_projected() {
    let space = space();
    let text = space.ok(&format!("inspect clip {CLIP}"));
    for part in
        ["transformers CLIP vision", "q, k and v apart", "projected to 24, at unit length", "3 classes, no bias"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let zero = space.json(&format!("eval --model clip {CLIP} --data id=test"));
    assert!(zero[0]["loss"].as_f64().unwrap().is_finite());

    space.ok(&with(TRAIN, &format!("--model clip {CLIP} --epochs 1 --lr 0.01 --out run")));
    let radii = space.rows("run/radii.csv");
    for part in ["q", "k", "v"] {
        let name = format!("blocks.0.attn.{part}.weight");
        assert!(radii.iter().any(|row| row[1] == name && row[5] == "64"), "{name} has no radius of its own");
    }
    assert!(radii.iter().any(|row| row[1] == "head.weight"), "a zero-shot head has its counterpart");
    let (before, after) = (space.tensors("clip/model.safetensors"), space.tensors("run/last.safetensors"));
    let mut expected: Vec<&String> = before.keys().collect();
    let head = "head.weight".to_string();
    expected.push(&head);
    expected.sort();
    assert_eq!(after.keys().collect::<Vec<_>>(), expected);
    let config = space.text("run/config.toml");
    assert!(config.contains("head = \"zero.safetensors\"") && config.contains("normalize-features = true"), "{config}");

    let tuned = space.json("eval --model run/last.safetensors --data id=test");
    assert!(tuned[0]["loss"].as_f64().unwrap() < zero[0]["loss"].as_f64().unwrap());
    space.ok(&format!(
        "project --pretrained clip --finetuned run/last.safetensors {CLIP} --val val --max-iters 2 --out c.safetensors"
    ));
    assert_ne!(space.tensors("c.safetensors")["visual_projection.weight"], before["visual_projection.weight"]);
}

#[test]
fn a_new_head_on_unit_features_has_no_bias_and_no_radius() {
    let space = space();
    space.ok(&with(TRAIN, "--model clip --normalize-features --epochs 1 --out run"));
    assert!(!space.rows("run/radii.csv").iter().any(|row| row[1] == "head.weight"));
    let after = space.tensors("run/last.safetensors");
    assert!(after.contains_key("head.weight") && !after.contains_key("head.bias"));
}
