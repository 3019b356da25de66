//! Only what changed, and the whole again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tpgm::checkpoint::{
    Adapted, Checkpoint, Delta, Dtype, LowRank, Overrides, apply_delta, delta_path, describe_delta, recognise, save,
    write_adapters, write_delta,
};

use crate::{Model, assert_error, tiny};

#[test]
fn base_and_delta_are_the_whole_again() {
    let mut model = Model::vit(&tiny());
    model.add("text.ids", Dtype::I64, &[2], vec![7; 16]);
    model.add("text.nan", Dtype::F16, &[1], vec![1, 0x7e]);
    let (dir, base) = model.open(None);
    let base = base.unwrap();
    let at = |name: &str| dir.path().join(name);
    // One bit, a zero's sign, another shape, and a tensor that is new; one is saved as it was.
    let mut bias = base.read_f32("norm.bias").unwrap();
    bias[63] = f32::from_bits(bias[63].to_bits() ^ 1);
    let negative = vec![-0.0; 64];
    let same = base.read_f32("norm.weight").unwrap();
    let replaced = BTreeMap::from([
        ("norm.bias".to_string(), (vec![64], bias)),
        ("blocks.0.norm1.bias".to_string(), (vec![64], negative)),
        ("norm.weight".to_string(), (vec![64], same)),
        ("head.bias".to_string(), (vec![5], vec![0.5; 5])),
        ("new".to_string(), (vec![1], vec![2.0])),
    ]);
    assert_eq!(base.read_f32("blocks.0.norm1.bias").unwrap()[0].to_bits(), 0, "the sign is what differs");
    let extra = BTreeMap::from([("tpgm.eps".to_string(), "1e-6".to_string())]);
    save(at("whole.safetensors"), &base, &replaced, &extra).unwrap();
    let whole = Checkpoint::open(at("whole.safetensors")).unwrap();

    let path = delta_path(whole.path());
    assert_eq!(path, at("whole.delta.safetensors"));
    let size = write_delta(&path, &base, &whole).unwrap();
    assert_eq!((size.changed, size.of, size.bytes), (4, model.tensors.len() + 1, 4 * (64 + 64 + 5 + 1)));
    let delta = Checkpoint::open(&path).unwrap();
    let held: Vec<&str> = delta.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(held, ["blocks.0.norm1.bias", "head.bias", "new", "norm.bias"]);
    let about = Delta::of(&delta).unwrap().unwrap();
    let sum = &about.base_sha256["model.safetensors"];
    assert_eq!(base.sha256().unwrap(), about.base_sha256);
    assert_eq!(*sum, sha256(&at("model.safetensors")));
    let text = describe_delta(&delta).unwrap().unwrap().to_string();
    for part in
        [sum.as_str(), "holds         4 tensors of F32, 536 bytes", "changed       blocks.0.norm1.bias, head.bias, new"]
    {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
    assert_eq!(describe_delta(&whole).unwrap(), None);

    apply_delta(at("again.safetensors"), &base, &delta).unwrap();
    assert!(fs::read(at("again.safetensors")).unwrap() == fs::read(at("whole.safetensors")).unwrap());

    // By its content, not its name.
    fs::rename(at("model.safetensors"), at("other.safetensors")).unwrap();
    let renamed = Checkpoint::open(at("other.safetensors")).unwrap();
    apply_delta(at("third.safetensors"), &renamed, &delta).unwrap();

    assert_error(recognise(&delta, &Overrides::default()), &["whole.delta.safetensors: a delta", "tpgm apply --model"]);
    assert_error(apply_delta(at("x"), &base, &whole), &["whole.safetensors: not a delta"]);
    assert_error(apply_delta(at("x"), &delta, &delta), &["whole.delta.safetensors: a delta"]);
    assert_error(apply_delta(at("x"), &whole, &delta), &["belongs to another base: model.safetensors", &sum[..12]]);
    assert!(!at("x").exists());
}

/// By the tool that users have.
fn sha256(path: &Path) -> String {
    let tool: &[&str] = if cfg!(target_os = "macos") { &["shasum", "-a", "256"] } else { &["sha256sum"] };
    let run = std::process::Command::new(tool[0]).args(&tool[1..]).arg(path).output().unwrap();
    let line = String::from_utf8(run.stdout).unwrap();
    // A path with backslashes, as Windows has them, is marked by one in front of the sum.
    line.split(' ').next().unwrap().trim_start_matches('\\').to_string()
}

#[test]
fn a_delta_of_nothing_and_of_another_models_tensors() {
    let model = Model::vit(&tiny());
    let (dir, base) = model.open(None);
    let base = base.unwrap();
    let path = dir.path().join("none.delta.safetensors");
    assert_eq!(write_delta(&path, &base, &base).unwrap().changed, 0);
    let out = dir.path().join("out.safetensors");
    apply_delta(&out, &base, &Checkpoint::open(&path).unwrap()).unwrap();
    assert!(fs::read(&out).unwrap() == model.bytes());

    // What the base alone has is not in the whole; a type that differs is a difference.
    let mut other = Model::default();
    other.add("cls_token", Dtype::F16, &[1, 1, 64], vec![0; 128]);
    other.tensors.insert("norm.bias".into(), model.tensors["norm.bias"].clone());
    other.metadata.insert("a".into(), "b".into());
    let (_other_dir, whole) = other.open(None);
    let size = write_delta(&path, &base, &whole.unwrap()).unwrap();
    assert_eq!((size.changed, size.of), (1, 2));
    let delta = Checkpoint::open(&path).unwrap();
    assert_eq!(Delta::of(&delta).unwrap().unwrap().removed.len(), model.tensors.len() - 2);
    apply_delta(&out, &base, &delta).unwrap();
    assert!(fs::read(&out).unwrap() == other.bytes());
}

#[test]
fn adapters_stand_for_the_weights_that_they_change() {
    let mut model = Model::vit(&tiny());
    model.add("half.weight", Dtype::F16, &[2, 3], [0x3c00u16; 6].iter().flat_map(|h| h.to_le_bytes()).collect());
    let (dir, base) = model.open(None);
    let base = base.unwrap();
    let at = |name: &str| dir.path().join(name);
    // Small numbers, whose products and sums are exact: 1 + 6/2 · B·A.
    let (a, b) = (vec![1.0, -2.0, 0.5, 0.0, 4.0, 0.25], vec![0.5, 1.0, -1.0, 2.0]);
    let whole = vec![2.5, 10.0, 2.5, -2.0, 31.0, 1.0];
    let half = |low: &[f32], head: f32| {
        BTreeMap::from([
            ("half.weight".to_string(), (vec![2, 3], low.to_vec())),
            ("head.bias".to_string(), (vec![5], vec![head; 5])),
        ])
    };
    save(at("whole.safetensors"), &base, &half(&whole, 0.5), &BTreeMap::new()).unwrap();
    let whole = Checkpoint::open(at("whole.safetensors")).unwrap();
    let of = vec![Adapted { target: "half.weight".into(), a, b }];
    let mut adapters = LowRank { rank: 2, alpha: 6.0, of };
    let path = delta_path(whole.path());
    let size = write_adapters(&path, &base, &whole, &adapters).unwrap();
    assert_eq!((size.changed, size.adapted, size.bytes), (2, 1, 4 * (6 + 4 + 5)));
    let delta = Checkpoint::open(&path).unwrap();
    let about = Delta::of(&delta).unwrap().unwrap().adapters.unwrap();
    assert_eq!((about.rank, about.alpha, about.targets.len()), (2, 6.0, 1));
    let size = apply_delta(at("again.safetensors"), &base, &delta).unwrap();
    assert_eq!((size.changed, size.adapted, size.of), (2, 1, model.tensors.len()));
    assert!(fs::read(at("again.safetensors")).unwrap() == fs::read(at("whole.safetensors")).unwrap());
    assert_error(recognise(&delta, &Overrides::default()), &["whole.delta.safetensors: a delta", "tpgm apply --model"]);

    // What does not go with the weight, and what the weight's type can't hold.
    adapters.of[0].b.truncate(2);
    write_adapters(&path, &base, &whole, &adapters).unwrap();
    let error = apply_delta(at("x"), &base, &Checkpoint::open(&path).unwrap());
    assert_error(
        error,
        &["half.lora_A.weight and half.lora_B.weight should be [2, 3] and [2, 2], to go with half.weight"],
    );
    adapters.of[0].b = vec![1e6; 4];
    write_adapters(&path, &base, &whole, &adapters).unwrap();
    let error = apply_delta(at("x"), &base, &Checkpoint::open(&path).unwrap());
    assert_error(error, &["tensor half.weight has values too large for F16 with its adapter"]);
    adapters.of[0].target = "nothing".into();
    assert_error(write_adapters(&path, &base, &whole, &adapters), &["tensor nothing is not of the shape"]);
    assert!(!at("x").exists());
}

#[test]
fn a_delta_that_lies_is_an_error() {
    for text in ["", "{}", "[]", "{\"base_sha256\": 3, \"removed\": []}", &format!("\"{}", "x".repeat(10_000))] {
        let mut model = Model::default();
        model.metadata.insert("tpgm.delta".into(), text.into());
        let (_dir, checkpoint) = model.open(None);
        let error = assert_error(Delta::of(&checkpoint.unwrap()), &["metadata tpgm.delta: "]);
        assert!(error.to_string().len() < 500);
    }
}
