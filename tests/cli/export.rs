//! `export`: files for other programs. Their contents are held against the families' logits in tests/families/exported.rs.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::{Value, json};
use tpgm::checkpoint::write_safetensors;
use tpgm::export::onnx::proto::Model;

use crate::{Space, TRAIN};

/// With a run of three steps and radii.
fn fine_tuned() -> Space {
    let space = Space::new();
    space.ok(&format!("{TRAIN} --test held=test --lr 0.05 --out run"));
    space
}

#[test]
fn a_run_becomes_an_onnx_file() {
    let space = fine_tuned();
    let text = space.ok("export --model run --format onnx --out m.onnx");
    assert!(text.starts_with("m.onnx: ONNX opset 18, ") && text.contains("weights f32"), "{text}");
    let model = Model::decode(space.bytes("m.onnx").as_slice()).unwrap();
    let entry = |key: &str| {
        let entry = model.metadata_props.iter().find(|entry| entry.key.as_deref() == Some(key));
        entry.and_then(|entry| entry.value.clone()).unwrap_or_default()
    };
    assert_eq!(entry("classes"), r#"["blue","green","red"]"#);

    // The same file twice, and over the old one.
    let before = space.bytes("m.onnx");
    space.ok("export --model run/best.safetensors --format onnx --out m.onnx");
    assert_eq!(space.bytes("m.onnx"), before);

    let json =
        space.json("export --model run --format onnx --out small.onnx --weights int8 --test held=test other=val");
    assert!(json["bytes"].as_u64().unwrap() < before.len() as u64);
    let [held, other] = [0, 1].map(|i| &json["test"][i]);
    assert_eq!((&held["name"], &held["images"], &other["name"]), (&json!("held"), &json!(12), &json!("other")));
    let evaluated = space.json("eval --model run/best.safetensors --data held=test");
    assert_eq!(held["top1"], evaluated[0]["top1"]);
    let table = space.ok("export --model run --format onnx --out small.onnx --weights int8 --test held=test");
    assert!(table.contains("int8 %") && table.contains("points"), "{table}");

    space.ok("export --model run --format onnx --out whole.onnx --with-preprocessing");
    let model = Model::decode(space.bytes("whole.onnx").as_slice()).unwrap();
    let graph = model.graph.unwrap();
    assert_eq!(graph.input[0].name.as_deref(), Some("pixels"));
    assert!(graph.node.iter().any(|node| node.op_type.as_deref() == Some("Resize")));
}

#[test]
fn a_run_becomes_a_folder_with_a_card() {
    let space = fine_tuned();
    let text = space.ok("export --model run --format hf --out flowers");
    assert!(text.contains("flowers: ViTForImageClassification of transformers"), "{text}");
    let config: Value = serde_json::from_str(&space.text("flowers/config.json")).unwrap();
    assert_eq!(config["id2label"], json!({"0": "blue", "1": "green", "2": "red"}));
    assert_eq!(config["label2id"], json!({"blue": 0, "green": 1, "red": 2}));
    assert_eq!((&config["hidden_size"], &config["image_size"]), (&json!(16), &json!(16)));
    let processor: Value = serde_json::from_str(&space.text("flowers/preprocessor_config.json")).unwrap();
    assert_eq!(processor["image_mean"], json!([0.5, 0.5, 0.5]));
    assert_eq!(space.text("flowers/training.toml"), space.text("run/config.toml"));
    let card = space.text("flowers/README.md");
    for part in [
        "---\npipeline_tag: image-classification\nlibrary_name: transformers",
        "model-index:\n- name: \"flowers\"",
        "| held | 12 | ",
        "blue, green, red",
        "AutoModelForImageClassification.from_pretrained(\"flowers\")",
        "From m.safetensors, 6 steps",
        "![Radii by tensor](radii.svg)",
    ] {
        assert!(card.contains(part), "{card}\nlacks {part:?}");
    }
    let lines = space.lines("run/metrics.jsonl");
    let last = lines.iter().rev().find(|line| line["eval"] == "held" && line["final"] == true).unwrap();
    let percent = format!("| {:.1} % |", 100.0 * last["top1"].as_f64().unwrap());
    assert!(card.contains(&percent), "{card}\nlacks {percent}");
    let figure = space.text("flowers/radii.svg");
    assert!(figure.starts_with("<svg ") && figure.contains("blocks.0.attn.qkv.weight"), "{figure}");

    // Both libraries' folders are read again, with the same answers.
    space.ok("export --model run --format timm --out timm");
    for model in ["flowers", "timm", "run/best.safetensors"] {
        space.ok(&format!("predict --model {model} --data test --logits {model}.logits"));
    }
    let logits = |name: &str| space.tensors(name)["logits"].1.clone();
    let want = logits("run/best.safetensors.logits");
    for model in ["flowers.logits", "timm.logits"] {
        assert!(logits(model).iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-5), "{model}");
    }
}

#[test]
fn what_cannot_be_exported_is_told_in_one_line() {
    let space = Space::new();
    let onnx = "export --format onnx --out m.onnx --model";
    space.fails(1, &format!("{onnx} nowhere"), &["nowhere"]);
    space.fails(1, "export --format onnx --out no/m.onnx --model m.safetensors", &["no/m.onnx", "cannot write"]);
    let tensors: Vec<_> =
        space.tensors("m.safetensors").into_iter().filter(|(name, _)| !name.starts_with("head.")).collect();
    let tensors: Vec<_> =
        tensors.iter().map(|(name, (shape, v))| (name.clone(), shape.clone(), v.as_slice())).collect();
    write_safetensors(space.path("features.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    space.fails(
        1,
        &format!("{onnx} features.safetensors --heads 2"),
        &["features.safetensors", "no head", "tpgm finetune"],
    );
    space.write("young/config.toml", "");
    space.fails(1, &format!("{onnx} young"), &["young", "no best.safetensors yet"]);
    let lanczos = "--with-preprocessing --interpolation lanczos";
    space.fails(2, &format!("{onnx} m.safetensors {lanczos}"), &["--with-preprocessing", "Lanczos", "leave it out"]);
    let filled = "--with-preprocessing --crop-mode border";
    space.fails(2, &format!("{onnx} m.safetensors {filled}"), &["--with-preprocessing", "filled up at their edges"]);

    let folder = "export --format timm --out folder --model m.safetensors";
    for flag in ["--weights int8", "--with-preprocessing", "--test held=test"] {
        let (name, _) = flag.split_once(' ').unwrap_or((flag, ""));
        space.fails(2, &format!("{folder} {flag}"), &[name, "--format onnx"]);
    }
    space.fails(1, &format!("{folder} --crop-mode longest"), &["not written for timm", "fill images up"]);
    space.fails(1, &folder.replace("timm", "torchvision"), &["not written for torchvision", "ResNet"]);
    space.write("full/note.txt", "mine");
    space.fails(2, &folder.replace("--out folder", "--out full"), &["full", "give another --out"]);
    space.ok(folder);
    space.fails(2, folder, &["folder is there already"]);
}
