//! Checkpoints that are broken or not ours: one line that names the file and the tensor.

use std::collections::BTreeMap;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};

use crate::{Space, TRAIN, with};

/// A tensor's type, shape and bytes.
type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// `m.safetensors` with its tensors changed by `change`, written as `bad.safetensors`.
fn changed(change: impl Fn(&mut BTreeMap<String, Tensor>)) -> Space {
    let space = Space::new();
    let bytes = space.bytes("m.safetensors");
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: BTreeMap<String, Tensor> =
        file.iter().map(|(name, t)| (name.into(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect();
    change(&mut tensors);
    let views =
        tensors.iter().map(|(n, (dtype, shape, data))| (n, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    space.write("bad.safetensors", serialize(views, header.metadata().clone()).unwrap());
    space
}

/// Every command that reads a model says the same and leaves nothing behind.
#[track_caller]
fn assert_refused(space: &Space, parts: &[&str]) {
    let parts = [&["bad.safetensors"], parts].concat();
    let train = with(TRAIN, "--model bad.safetensors");
    for line in ["predict --model bad.safetensors --data test --logits l.safetensors", &format!("{train} --out run")] {
        space.fails(1, line, &parts);
    }
}

#[test]
fn truncated() {
    let space = Space::new();
    let bytes = space.bytes("m.safetensors");
    space.write("bad.safetensors", &bytes[..bytes.len() - 1000]);
    assert_refused(&space, &["truncated", "download it again"]);
    space.fails(1, "inspect bad.safetensors", &["truncated"]);
    space.write("bad.safetensors", &bytes[..100]);
    assert_refused(&space, &["truncated"]);
    space.write("bad.safetensors", "");
    assert_refused(&space, &["empty"]);
}

#[test]
fn not_safetensors() {
    let space = Space::new();
    space.write("bad.safetensors", "just a text that somebody renamed");
    assert_refused(&space, &["not a safetensors file"]);
    space.write("bad.safetensors", b"PK\x03\x04 and so on, as torch.save writes it");
    assert_refused(&space, &["not a safetensors file", "never opened", "docs/from-pytorch.md"]);
    space.fails(1, "inspect bad.safetensors", &["convert it as docs/from-pytorch.md shows"]);
}

#[test]
fn a_tensor_of_another_shape() {
    let space = changed(|tensors| {
        tensors.insert("blocks.0.mlp.fc2.bias".into(), (Dtype::F32, vec![17], vec![0; 68]));
    });
    assert_refused(&space, &["tensor blocks.0.mlp.fc2.bias", "[17]", "[16]"]);
}

#[test]
fn a_tensor_of_integers() {
    let space = changed(|tensors| {
        tensors.insert("norm.bias".into(), (Dtype::I32, vec![16], vec![0; 64]));
    });
    assert_refused(&space, &["tensor norm.bias", "I32", "F32"]);
}

#[test]
fn a_tensor_that_is_missing() {
    let space = changed(|tensors| drop(tensors.remove("blocks.0.attn.proj.weight")));
    assert_refused(&space, &["tensor blocks.0.attn.proj.weight is missing"]);
}

#[test]
fn a_weight_that_is_not_a_number() {
    let space =
        changed(|tensors| tensors.get_mut("head.bias").unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    assert_refused(&space, &["tensor head.bias", "NaN", "element 0"]);
}

#[test]
fn an_architecture_that_is_not_known() {
    let space =
        changed(|tensors| *tensors = BTreeMap::from([("conv1.weight".into(), (Dtype::F32, vec![1], vec![0; 4]))]));
    assert_refused(&space, &["unknown architecture", "conv1.weight", "timm ViT"]);
}

#[test]
fn a_model_without_a_head_can_be_fine_tuned_but_not_asked() {
    let space = changed(|tensors| tensors.retain(|name, _| !name.starts_with("head.")));
    let parts = ["bad.safetensors", "no head", "tpgm finetune"];
    space.fails(1, "predict --model bad.safetensors --data test", &parts);
    space.fails(1, "eval --model bad.safetensors --data t=test", &parts);
    let train = with(TRAIN, "--model bad.safetensors");
    let (_, notes) = space.run(&format!("{train} --test t=test --out run"));
    assert!(notes.contains("no head: a new one for 3 classes"), "{notes}");
    assert!(!notes.contains("pretrained on"), "a random head has no baseline: {notes}");
    space.ok("predict --model run/last.safetensors --data test");
}

#[test]
fn a_missing_file_or_folder_without_a_model() {
    let space = Space::new();
    space.fails(1, "inspect nowhere.safetensors", &["nowhere.safetensors", "cannot read"]);
    for name in ["vit_small_patch16_224", "timm/vit_small_patch16_224"] {
        let parts = ["no such file or folder", "the Hugging Face hub, give hf://timm/vit_small_patch16_224"];
        for line in [
            format!("inspect {name}"),
            format!("predict --model {name} --data test"),
            with(TRAIN, &format!("--model {name}")),
        ] {
            let line = if line.starts_with("finetune") { format!("{line} --out run") } else { line };
            space.fails(1, &line, &parts);
        }
    }
    space.fails(1, "inspect train", &["train", "no model.safetensors in this folder"]);
    space.fails(1, "inspect .", &["no model.safetensors", "m.safetensors"]);
    space.fails(2, "eval --model m.safetensors --image-size 20 --data t=test", &["--image-size", "patch size 8"]);
}
