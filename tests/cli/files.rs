//! What a model's files may be: shards, deltas, other programs' formats, and what `inspect` tells of them.

use std::collections::BTreeMap;
use std::fs;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

use crate::{Space, TRAIN, common, with};

/// The tensors of a file: type, shape, bytes.
fn raw(bytes: &[u8]) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    file.iter().map(|(name, t)| (name.into(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect()
}

fn write_raw<'a>(
    space: &Space,
    name: &str,
    tensors: impl Iterator<Item = (&'a String, &'a (Dtype, Vec<usize>, Vec<u8>))>,
    metadata: &[(&str, &str)],
) {
    let views = tensors.map(|(n, (dtype, shape, data))| (n, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    let metadata = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    space.write(name, serialize(views, Some(metadata)).unwrap());
}

fn metadata(bytes: &[u8]) -> BTreeMap<String, String> {
    SafeTensors::read_metadata(bytes).unwrap().1.metadata().clone().unwrap_or_default().into_iter().collect()
}

/// `m.safetensors` as the folder `sharded`: two shards and their index. Weights are F16, and a text tower stands beside.
fn sharded() -> Space {
    let space = Space::new();
    let mut tensors = raw(&space.bytes("m.safetensors"));
    for (dtype, _, data) in tensors.values_mut() {
        let half = |b: &[u8]| half::f16::from_f32(f32::from_le_bytes(b.try_into().unwrap())).to_le_bytes();
        (*dtype, *data) = (Dtype::F16, data.chunks_exact(4).flat_map(half).collect());
    }
    tensors.insert("text.ids".into(), (Dtype::I64, vec![2], vec![7; 16]));
    tensors.insert("text.embed".into(), (Dtype::BF16, vec![2], vec![0xc0, 0x7f, 1, 2]));
    let own = metadata(&space.bytes("m.safetensors"));
    let own: Vec<(&str, &str)> = own.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let mut weight_map = BTreeMap::new();
    for (i, file) in SHARDS.iter().enumerate() {
        let here: Vec<_> = tensors.iter().enumerate().filter(|(at, _)| at % 2 == i).map(|(_, t)| t).collect();
        weight_map.extend(here.iter().map(|(name, _)| (name.to_string(), *file)));
        let other = [("second", "shard")];
        write_raw(&space, &format!("sharded/{file}"), here.into_iter(), if i == 0 { &own } else { &other });
    }
    let index = json!({"metadata": {"total_size": 0}, "weight_map": weight_map});
    space.write(&format!("sharded/{INDEX}"), index.to_string());
    space
}

const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
const INDEX: &str = "model.safetensors.index.json";

#[test]
fn shards_through_every_command() {
    let space = sharded();
    let text = space.ok("inspect sharded");
    for part in ["sharded/model.safetensors.index.json, 2 shards", "of F16", "text.embed, text.ids (carried along"] {
        assert!(text.contains(part), "{text}\nlacks {part:?}");
    }
    space.ok(&with(TRAIN, "--model sharded --lr 0.05 --delta --out run"));
    // One file, in the source's types, with the other tower's tensors and every shard's metadata.
    let whole = space.bytes("run/best.safetensors");
    let (saved, meta) = (raw(&whole), metadata(&whole));
    assert_eq!(meta["second"], "shard");
    assert!(saved.iter().all(|(name, t)| name.starts_with("text.") || t.0 == Dtype::F16));
    assert_eq!(saved["text.ids"], (Dtype::I64, vec![2], vec![7; 16]));
    assert_eq!(saved["text.embed"], (Dtype::BF16, vec![2], vec![0xc0, 0x7f, 1, 2]));
    space.ok("eval --model run/best.safetensors --data t=test");

    let project = "project --pretrained sharded --finetuned run/last.safetensors --val val --max-iters 2";
    space.ok(&format!("{project} --out c.safetensors --delta"));
    // A sharded checkpoint that is projected, as shards: the same files again.
    let project = "project --pretrained sharded --finetuned sharded --val val --max-iters 2";
    space.ok(&format!("{project} --out out/"));
    assert_eq!(space.bytes(&format!("out/{INDEX}")), space.bytes(&format!("sharded/{INDEX}")));
    for file in SHARDS {
        assert_eq!(raw(&space.bytes(&format!("out/{file}"))), raw(&space.bytes(&format!("sharded/{file}"))));
    }
    assert_eq!(metadata(&space.bytes(&format!("out/{}", SHARDS[1]))), [("second".into(), "shard".into())].into());
    assert_eq!(space.lines("out.metrics.jsonl").len(), 2);

    // The delta on its base, as one file and as shards.
    for (delta, whole) in [("run/best.delta", "run/best"), ("run/last.delta", "run/last"), ("c.delta", "c")] {
        let said = space.ok(&format!("apply --model sharded --delta {delta}.safetensors --out again.safetensors"));
        assert!(said.contains("again.safetensors: ") && said.contains("the others the base's"), "{said}");
        assert!(space.bytes("again.safetensors") == space.bytes(&format!("{whole}.safetensors")), "{whole}");
        assert!(!raw(&space.bytes(&format!("{delta}.safetensors"))).contains_key("text.ids"));
    }
    space.ok("apply --model sharded --delta run/best.delta.safetensors --out again");
    let mut tensors = BTreeMap::new();
    for file in SHARDS {
        tensors.extend(raw(&space.bytes(&format!("again/{file}"))));
    }
    assert_eq!(tensors, saved);
    assert_eq!(
        space.json("eval --model again --data t=test"),
        space.json("eval --model run/best.safetensors --data t=test")
    );

    space.fails(1, &format!("inspect sharded/{}", SHARDS[0]), &[SHARDS[0], "one shard of several", "give the folder"]);
    fs::remove_file(space.path("sharded").join(SHARDS[1])).unwrap();
    for line in ["inspect sharded", "predict --model sharded --data test", &with(TRAIN, "--model sharded --out x")] {
        space.fails(1, line, &[INDEX, &format!("its shard {} is missing", SHARDS[1])]);
    }
}

#[test]
fn a_delta_holds_what_changed_and_belongs_to_its_base() {
    let space = Space::new();
    let (_, said) = space.run(&with(TRAIN, "--delta --exclude * --lr 0.05 --out run"));
    let count = space.tensors("m.safetensors").len();
    assert!(said.contains(&format!("run/best.delta.safetensors: {count} of {count} tensors differ")), "{said}");
    space.ok("apply --model m.safetensors --delta run/best.delta.safetensors --out again.safetensors");
    assert_eq!(space.bytes("again.safetensors"), space.bytes("run/best.safetensors"));

    // A run that was begun so goes on so, without the flag.
    let before = space.bytes("run/last.delta.safetensors");
    std::fs::remove_file(space.path("run/last.delta.safetensors")).unwrap();
    space.ok("finetune --resume run");
    assert!(space.bytes("run/last.delta.safetensors") == before);

    let text = space.ok("inspect run/best.delta.safetensors");
    for part in ["only what differs from its base, m.safetensors", "SHA-256", "tpgm apply --model m.safetensors"] {
        assert!(text.contains(part), "{text}\nlacks {part:?}");
    }
    let about = space.json("inspect run/best.delta.safetensors");
    assert_eq!(about["changed"].as_array().unwrap().len(), count);
    assert_eq!(about["delta"]["base_sha256"]["m.safetensors"].as_str().unwrap().len(), 64);

    space.fails(1, "predict --model run/best.delta.safetensors --data test", &["a delta", "tpgm apply --model m.saf"]);
    let apply = "apply --out x.safetensors --delta run/best.delta.safetensors --model";
    space.fails(1, &format!("{apply} run/last.safetensors"), &["belongs to another base: m.safetensors"]);
    space.fails(1, "apply --model m.safetensors --delta m.safetensors --out x.safetensors", &["not a delta"]);
    space.fails(1, &format!("{apply} nowhere"), &["nowhere: cannot read"]);
}

#[test]
fn other_formats_are_told_and_never_opened() {
    let space = Space::new();
    // A pickle that would make a file, were it executed.
    let pickle = b"\x80\x02cposix\nsystem\nq\x00X\x0b\x00\x00\x00touch owned\x85R.";
    for (name, bytes, kind) in [
        ("a.pt", &pickle[..], "a pickle"),
        ("a.pth.tar", b"PK\x03\x04\0\0\x08\x08\0\0", "a zip archive, as torch.save"),
        ("a.h5", b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 checkpoint"),
        ("a.gguf", b"GGUF\x03\0\0\0\0\0", "a GGUF model"),
        ("a.onnx", b"\x08\x08\x12\x07pytorch", "an ONNX model"),
        ("a.ckpt", b"whatever else", "a .ckpt file"),
    ] {
        space.write(name, bytes);
        let parts = [name, "not a safetensors file", kind, "never opened", "docs/from-pytorch.md"];
        space.fails(1, &format!("inspect {name}"), &parts);
        space.fails(1, &format!("predict --model {name} --data test"), &parts);
        space.fails(1, &with(TRAIN, &format!("--model {name} --out run")), &parts);
    }
    space.write("folder/pytorch_model.bin", pickle);
    space.fails(1, "inspect folder", &["convert pytorch_model.bin", "docs/from-pytorch.md"]);
    assert!(!space.path("owned").exists());
}

#[test]
fn inspect_tells_where_each_fact_comes_from() {
    let space = Space::new();
    let text = space.ok("inspect m.safetensors");
    for line in [
        "heads         2 of 8 dimensions (metadata tpgm.heads)",
        "activation    gelu, layer norm eps 1e-6; activation (metadata tpgm.activation), eps (metadata tpgm.eps)",
        "pooling       cls, after norm (metadata tpgm.pool)",
    ] {
        assert!(text.lines().any(|l| l == line), "{text}\nlacks {line:?}");
    }
    assert!(text.lines().count() < 25, "one screen:\n{text}");
    let sources =
        space.json("inspect m.safetensors --heads 4 --crop-pct 0.8 --activation quick_gelu")["sources"].clone();
    assert_eq!(sources["heads"], "--heads");
    assert_eq!(sources["activation"], "--activation");
    assert_eq!(sources["preprocess"], "flags, metadata tpgm.preprocess");
    assert_eq!(sources["eps"], "metadata tpgm.eps");

    // Without a word of ours: from config.json, or assumed.
    let tensors = raw(&space.bytes("m.safetensors"));
    write_raw(&space, "bare/model.safetensors", tensors.iter(), &[]);
    space.fails(1, "inspect bare", &["--heads"]);
    let sources = space.json("inspect bare --heads 2")["sources"].clone();
    assert_eq!(
        sources,
        json!({"heads": "--heads", "activation": "assumed", "eps": "every timm ViT's", "pool": "tensor names",
               "preprocess": "assumed"})
    );
    let config = r#"{"model_args": {"num_heads": 2, "act_layer": "gelu_tanh"}, "pretrained_cfg": {"mean": [0, 0, 0]}}"#;
    space.write("bare/config.json", config);
    let sources = space.json("inspect bare")["sources"].clone();
    assert_eq!(sources["heads"], "config.json, model_args.num_heads");
    assert_eq!((&sources["activation"], &sources["preprocess"]), (&json!("config.json"), &json!("config.json")));
}

/// `images` and `logits` of a golden fixture, as `inspect --verify` takes them.
fn golden(space: &Space, name: &str, images: (&str, &str), logits: (&str, &str), shift: f32) {
    let (from, to) = (common::Fixture::open(images.0), common::Fixture::open(logits.0));
    let mut values = to.f32(logits.1);
    let last = values.len() - 1;
    values[last] += shift;
    let (mut shape, want) = (from.shape(images.1), to.shape(logits.1));
    let (all, size) = (from.f32(images.1), shape[1..].iter().product::<usize>());
    let rows = if to.has("batches") { to.u32("batches")[..want[0]].to_vec() } else { (0..want[0] as u32).collect() };
    let pixels: Vec<f32> = rows.iter().flat_map(|&row| &all[row as usize * size..][..size]).copied().collect();
    shape[0] = want[0];
    let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let tensors = BTreeMap::from([
        ("images".to_string(), (Dtype::F32, shape, bytes(&pixels))),
        ("logits".to_string(), (Dtype::F32, want, bytes(&values))),
    ]);
    write_raw(space, name, tensors.iter(), &[]);
}

#[test]
fn inspect_verifies_logits_against_a_golden_file() {
    let space = Space::empty();
    for (model, images, logits, flags) in [
        ("vit_small", ("vit_small_golden", "images"), "logits", "--heads 3"),
        ("vit_quick", ("vit_quick_golden", "images"), "logits", "--heads 4 --activation quick_gelu"),
        ("resnet_d", ("resnet_images", "images"), "eval.logits", ""),
        ("clip_resnet", ("clip_resnet_images", "images"), "eval.logits", "--heads 4"),
    ] {
        fs::copy(common::fixture_path(model), space.path("model.safetensors")).unwrap();
        let logits = (&*format!("{model}_golden"), logits);
        golden(&space, "golden.safetensors", images, logits, 0.0);
        let line = format!("inspect model.safetensors {flags} --verify golden.safetensors");
        let text = space.ok(&line);
        assert!(text.contains("\nverify        pass: logits of "), "{text}");
        let verify = space.json(&line)["verify"].clone();
        assert_eq!(verify["passed"], true);
        let (absolute, relative) = (verify["absolute"].as_f64().unwrap(), verify["relative"].as_f64().unwrap());
        assert!(relative < 1e-4 && absolute < 1e-2, "{model}: {verify}");
        assert_eq!(verify["tolerance"], json!(1e-3f32));
        let (_, count) = (verify["at"].clone(), verify["images"].as_u64().unwrap());

        // The last logit off by a half: seen, and where.
        golden(&space, "golden.safetensors", images, logits, 0.5);
        let output = space.command(&format!("{line} --json")).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{model}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("error: model.safetensors: its logits differ from golden.safetensors's"), "{said}");
        let verify = serde_json::from_slice::<Value>(&output.stdout).unwrap()["verify"].clone();
        assert_eq!(verify["passed"], false);
        assert!((verify["absolute"].as_f64().unwrap() - 0.5).abs() < 1e-2, "{verify}");
        assert_eq!(verify["at"][0], count - 1);
        let output = space.command(&line).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stdout).unwrap().contains("\nverify        FAIL: logits of "));
        space.ok(&format!("{line} --tolerance 10"));
    }
    // The wrong activation is what this is for.
    fs::copy(common::fixture_path("vit_quick"), space.path("model.safetensors")).unwrap();
    golden(&space, "golden.safetensors", ("vit_quick_golden", "images"), ("vit_quick_golden", "logits"), 0.0);
    let line = "inspect model.safetensors --heads 4 --activation gelu --verify golden.safetensors";
    assert_eq!(space.command(line).output().unwrap().status.code(), Some(1));

    fs::copy(common::fixture_path("vit_small"), space.path("small.safetensors")).unwrap();
    let small = "inspect small.safetensors --heads 3 --verify golden.safetensors";
    space.fails(1, small, &["golden.safetensors", "has 3 logits per image, the model 7"]);
    space.fails(
        1,
        "inspect model.safetensors --verify small.safetensors",
        &["small.safetensors: tensor images is missing"],
    );
    space.fails(1, "inspect model.safetensors --verify none.safetensors", &["none.safetensors: cannot read"]);
    let alone = space.command("inspect model.safetensors --tolerance 1").output().unwrap();
    assert_eq!(alone.status.code(), Some(2));
    space.fails(2, &format!("{line} --tolerance nan"), &["--tolerance"]);
}

/// A folder with the splits is enough, as tools for detection write it; a flag typed beside it wins.
#[test]
fn a_folder_with_splits_is_enough() {
    let space = Space::new();
    let train = "finetune --model m.safetensors --steps 2 --batch-size 6 --augment none";
    for split in ["train", "val", "test"] {
        fs::create_dir_all(space.path("root")).unwrap();
        fs::rename(space.path(split), space.path(&format!("root/{split}"))).unwrap();
    }
    let out = space.ok(&format!("{train} --data root --out run"));
    assert!(out.starts_with("top-1 %") && out.lines().next().unwrap().ends_with("test"), "{out}");
    let paths = "--train root/train --val root/val --test test=root/test";
    space.ok(&format!("{train} {paths} --out typed"));
    assert!(space.bytes("run/last.safetensors") == space.bytes("typed/last.safetensors"));
    space.ok("finetune --resume run");

    fs::rename(space.path("root/val"), space.path("root/valid")).unwrap();
    space.ok(&format!("{train} --data root --out valid"));
    assert!(space.bytes("run/last.safetensors") == space.bytes("valid/last.safetensors"));
    // Without one, a share of the training images is set apart; and another test set may be typed.
    fs::rename(space.path("root/valid"), space.path("other")).unwrap();
    let (out, said) = space.run(&format!("{train} --data root --test o=other --out apart"));
    assert!(said.contains("set apart") && out.lines().next().unwrap().ends_with("  o"), "{out}{said}");
}

#[test]
fn splits_are_not_taken_for_classes() {
    let space = Space::new();
    for split in ["train", "val"] {
        fs::create_dir_all(space.path("root")).unwrap();
        fs::rename(space.path(split), space.path(&format!("root/{split}"))).unwrap();
    }
    let parts = ["root", "named as splits", "root/train", "finetune --data"];
    space.fails(1, "finetune --model m.safetensors --train root --out run", &parts);
    space.fails(1, "eval --model m.safetensors --data t=root", &parts);
    space.fails(
        2,
        "finetune --model m.safetensors --data root/train --out run",
        &["root/train", "no folder train", "--train"],
    );
    space.fails(2, "finetune --model m.safetensors --out run", &["--train is missing", "--data"]);
}
