//! Checkpoints in several files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;
use tpgm::checkpoint::{
    Checkpoint, Dtype, Overrides, describe, recognise, replace_head, replacements, save, tpgm_metadata, weights,
};

use crate::{Model, assert_error, tiny};

const INDEX: &str = "model.safetensors.index.json";
const FILES: [&str; 3] =
    ["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"];

/// The model's tensors in turn over three files, with metadata of their own each.
fn shards(model: &Model) -> [Model; 3] {
    let mut shards: [Model; 3] = Default::default();
    for (i, (name, tensor)) in model.tensors.iter().enumerate() {
        shards[i % 3].tensors.insert(name.clone(), tensor.clone());
    }
    for (i, shard) in shards.iter_mut().enumerate() {
        // One entry per file: the library that writes them has no fixed order.
        shard.metadata.insert(if i == 0 { "format".into() } else { format!("own{i}") }, format!("pt{i}"));
    }
    shards
}

/// Written as the hub's libraries do.
fn write(dir: &Path, shards: &[Model; 3]) {
    let (mut weight_map, mut total) = (BTreeMap::new(), 0);
    for (file, shard) in FILES.iter().zip(shards) {
        fs::write(dir.join(file), shard.bytes()).unwrap();
        weight_map.extend(shard.tensors.keys().map(|name| (name.clone(), file.to_string())));
        total += shard.tensors.values().map(|(_, _, bytes)| bytes.len()).sum::<usize>();
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    fs::write(dir.join(INDEX), serde_json::to_string_pretty(&index).unwrap() + "\n").unwrap();
}

fn sharded(model: &Model) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &shards(model));
    let path = dir.path().to_path_buf();
    (dir, path)
}

/// Every file of a folder with its bytes.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entry = |e: std::io::Result<fs::DirEntry>| {
        let e = e.unwrap();
        (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())
    };
    fs::read_dir(dir).unwrap().map(entry).collect()
}

#[test]
fn shards_are_read_as_one_checkpoint() {
    let model = Model::vit(&tiny());
    let (_whole_dir, whole) = model.open(None);
    let whole = whole.unwrap();
    let (_dir, path) = sharded(&model);
    fs::write(path.join("config.json"), r#"{"model_args":{"num_heads":4}}"#).unwrap();
    for path in [path.clone(), path.join(INDEX)] {
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.tensors().len(), whole.tensors().len());
        assert_eq!(checkpoint.files().len(), 3);
        assert_eq!(checkpoint.data_len(), whole.data_len());
        for name in model.tensors.keys() {
            assert_eq!(checkpoint.read_f32(name).unwrap(), whole.read_f32(name).unwrap(), "{name}");
        }
        assert_eq!(checkpoint.metadata().len(), 3);
        let recognised = recognise(&checkpoint, &Overrides::default()).unwrap();
        assert_eq!(recognised.config.vit().unwrap().heads, 4, "config.json is read");
        let text = describe(&checkpoint, &recognised).to_string();
        assert!(text.contains("model.safetensors.index.json, 3 shards\n"), "{text}");
    }
    let one = path.join(FILES[1]);
    assert_error(Checkpoint::open(one), &[FILES[1], "one shard of several; give the folder", INDEX]);
    // A whole file beside them wins, as it does for the libraries that write both.
    fs::write(path.join("model.safetensors"), model.bytes()).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap().files(), [path.join("model.safetensors")]);
}

#[test]
fn shards_are_saved_as_the_same_shards() {
    let mut model = Model::vit(&tiny());
    model.add("text.ids", Dtype::I64, &[2], vec![7; 16]);
    model.add("text.half", Dtype::F16, &[3], vec![1, 0x7e, 2, 0x7e, 3, 0x3c]);
    let (dir, path) = sharded(&model);
    let source = Checkpoint::open(&path).unwrap();
    let before = files(&path);

    let out = tempfile::tempdir().unwrap();
    let same = out.path().join("same");
    save(&same, &source, &BTreeMap::new(), &BTreeMap::new()).unwrap();
    assert_eq!(files(&same), before, "nothing new: every byte as it was");

    let replaced = BTreeMap::from([("norm.bias".to_string(), (vec![64], vec![0.5; 64]))]);
    let extra = BTreeMap::from([("tpgm.eps".to_string(), "1e-6".to_string())]);
    let changed = out.path().join("changed");
    save(&changed, &source, &replaced, &extra).unwrap();
    let after = files(&changed);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert_eq!(after[INDEX], before[INDEX]);
    let read = Checkpoint::open(&changed).unwrap();
    assert_eq!(read.read_f32("norm.bias").unwrap(), [0.5; 64]);
    assert_eq!(read.metadata()["tpgm.eps"], "1e-6");
    for (i, (file, shard)) in FILES.iter().zip(shards(&model)).enumerate() {
        let by_library = safetensors::SafeTensors::deserialize(&after[*file]).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&after[*file]).unwrap();
        let mut metadata = header.metadata().clone().unwrap();
        assert_eq!(metadata.remove("tpgm.eps").is_some(), i == 0, "our own entries are in the first shard");
        assert_eq!(metadata, shard.metadata, "{file}");
        assert_eq!(by_library.len(), shard.tensors.len());
        for (name, (dtype, _, bytes)) in &shard.tensors {
            let view = by_library.tensor(name).unwrap();
            assert_eq!((view.dtype(), view.data() == bytes), (*dtype, name != "norm.bias"), "{name}");
        }
    }

    // Over the source itself, and as one file.
    save(&path, &source, &replaced, &extra).unwrap();
    assert_eq!(files(&path), after);
    let one = out.path().join("one.safetensors");
    save(&one, &Checkpoint::open(dir.path()).unwrap(), &BTreeMap::new(), &BTreeMap::new()).unwrap();
    let one = Checkpoint::open(&one).unwrap();
    assert_eq!((one.metadata(), one.tensors().len()), (read.metadata(), model.tensors.len()));
    for name in model.tensors.keys().filter(|name| !name.starts_with("text.")) {
        assert_eq!(one.read_f32(name).unwrap(), read.read_f32(name).unwrap(), "{name}");
    }
}

#[test]
fn a_new_head_goes_into_the_last_shard_and_the_index() {
    let mut model = Model::vit(&tiny());
    model.tensors.retain(|name, _| !name.starts_with("head."));
    let (_dir, path) = sharded(&model);
    let source = Checkpoint::open(&path).unwrap();
    let mut recognised = recognise(&source, &Overrides::default()).unwrap();
    let mut values = weights(&source, &recognised).unwrap();
    replace_head(&mut recognised, &mut values, &["a".to_string(), "b".to_string()], 0);
    let out = tempfile::tempdir().unwrap();
    save(out.path(), &source, &replacements(&recognised, &values), &tpgm_metadata(&recognised)).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&files(out.path())[INDEX]).unwrap();
    assert_eq!(index["weight_map"]["head.weight"], FILES[2]);
    assert_eq!(index["weight_map"].as_object().unwrap().len(), source.tensors().len() + 2);
    assert_eq!(index["metadata"]["total_size"], source.data_len() + 4 * (2 * 64 + 2));
    let saved = Checkpoint::open(out.path()).unwrap();
    let again = recognise(&saved, &Overrides::default()).unwrap();
    assert_eq!((again.config, again.classes), (recognised.config, recognised.classes));
}

#[test]
fn what_can_not_be_saved_leaves_no_shard() {
    let (_dir, path) = sharded(&Model::vit(&tiny()));
    let source = Checkpoint::open(&path).unwrap();
    let out = tempfile::tempdir().unwrap();
    let bad = BTreeMap::from([("norm.bias".to_string(), (vec![64], vec![f32::NAN; 64]))]);
    assert_error(save(out.path().join("new"), &source, &bad, &BTreeMap::new()), &["norm.bias has NaN"]);
    assert!(files(out.path()).is_empty());
    let before = files(&path);
    assert_error(save(&path, &source, &bad, &BTreeMap::new()), &["norm.bias has NaN"]);
    assert_eq!(files(&path), before);
    let none = BTreeMap::new();
    assert_error(save(out.path().join("a/b"), &source, &BTreeMap::new(), &none), &["a/b: cannot create this folder"]);
    fs::write(out.path().join("model.safetensors"), "").unwrap();
    assert_error(save(out.path(), &source, &BTreeMap::new(), &none), &["holds a model.safetensors", "another folder"]);
}

#[test]
fn a_broken_set_of_shards_is_told() {
    let model = Model::vit(&tiny());
    let (_dir, path) = sharded(&model);
    let index = fs::read_to_string(path.join(INDEX)).unwrap();
    let with_index = |text: String, parts: &[&str]| {
        fs::write(path.join(INDEX), text).unwrap();
        assert_error(Checkpoint::open(&path), &[&[INDEX], parts].concat());
    };
    let edited = |edit: fn(&mut serde_json::Map<String, serde_json::Value>)| {
        let mut value: serde_json::Value = serde_json::from_str(&index).unwrap();
        edit(value["weight_map"].as_object_mut().unwrap());
        value.to_string()
    };
    with_index("not JSON".into(), &["not valid JSON"]);
    with_index(String::new(), &["not valid JSON"]);
    with_index("[{\"a\": \"b\"}]".into(), &["not valid JSON: an index begins with {"]);
    with_index("{}".into(), &["missing field `weight_map`"]);
    with_index(r#"{"weight_map": {}}"#.into(), &["names no file"]);
    with_index(r#"{"weight_map": {"a": 3}}"#.into(), &["can't be understood", "expected a string"]);
    with_index(r#"{"weight_map": {"a": "x", "a": "y"}}"#.into(), &["weight_map has a twice"]);
    let nested = format!("{{\"weight_map\": {}", "[".repeat(10_000));
    with_index(nested, &["index.json: "]);
    let many: BTreeMap<_, _> = (0..1001).map(|i| (i.to_string(), i.to_string())).collect();
    with_index(json!({ "weight_map": many }).to_string(), &["names 1001 files"]);
    for outside in ["../m.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "a\\b", "C:x", "a\nb"] {
        with_index(json!({"weight_map": {"norm.bias": outside}}).to_string(), &["the index's own folder"]);
    }
    with_index(
        edited(|map| drop(map.insert("ghost".into(), FILES[0].into()))),
        &["tensor ghost is in no shard; it should be in model-00001"],
    );
    with_index(
        edited(|map| drop(map.insert("cls_token".into(), FILES[1].into()))),
        &["tensor cls_token should be in model-00002-of-00003.safetensors, but is in model-00001-of"],
    );
    with_index(
        edited(|map| drop(map.insert("x".into(), "model-00004-of-00003.safetensors".into()))),
        &["its shard model-00004-of-00003.safetensors is missing; download it again"],
    );
    // One that it forgets is read: the file has it.
    fs::write(path.join(INDEX), edited(|map| drop(map.remove("cls_token")))).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap().tensors().len(), model.tensors.len());

    fs::write(path.join(INDEX), &index).unwrap();
    let whole = fs::read(path.join(FILES[1])).unwrap();
    fs::write(path.join(FILES[1]), &whole[..whole.len() - 4]).unwrap();
    assert_error(Checkpoint::open(&path), &[FILES[1], "truncated"]);
    let mut twice = shards(&model);
    let double = twice[0].tensors.iter().next().map(|(name, t)| (name.clone(), t.clone())).unwrap();
    twice[1].tensors.insert(double.0.clone(), double.1);
    fs::write(path.join(FILES[1]), twice[1].bytes()).unwrap();
    assert_error(Checkpoint::open(&path), &[&format!("tensor {} is in two shards", double.0), FILES[0], FILES[1]]);
    fs::remove_file(path.join(FILES[1])).unwrap();
    assert_error(Checkpoint::open(&path), &["its shard model-00002-of-00003.safetensors is missing"]);
}
