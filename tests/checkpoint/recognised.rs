//! Which model a file holds: timm's ViT in all its forms, and clear words about everything else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tpgm::checkpoint::{
    Checkpoint, Dtype, Overrides, Weight, describe, fresh_model, fresh_vit, new_head, recognise, replace_head,
    replacements, save, tpgm_metadata, weights, write_model, write_safetensors,
};
use tpgm::data::preprocess::{CropMode, Preprocess};
use tpgm::data::resize::Interpolation;
use tpgm::error::Error;
use tpgm::model::ModelConfig;
use tpgm::model::Network;
use tpgm::model::config::{Block, Pool, VitConfig};
use tpgm::shapes::Activation;

use crate::{Model, assert_error, preprocess, tiny};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn names(classes: &[&str]) -> Vec<String> {
    classes.iter().map(|c| c.to_string()).collect()
}

fn with_heads(heads: usize) -> Overrides {
    Overrides { heads: Some(heads), ..Overrides::default() }
}

#[test]
fn a_bare_timm_vit_is_recognised_and_every_assumption_said() {
    let recognised = Model::vit(&tiny()).recognise(None, &Overrides::default()).unwrap();
    assert_eq!(recognised.family, "timm ViT");
    assert_eq!(recognised.config, ModelConfig::from(tiny()));
    let canonical: Vec<String> = tiny().parameters().into_iter().map(|(name, _)| name).collect();
    assert_eq!(recognised.names, canonical.iter().map(|n| (n.clone(), n.clone())).collect::<Vec<_>>());
    let default = Preprocess {
        image_size: 8,
        crop_pct: 0.9,
        crop_mode: CropMode::Center,
        interpolation: Interpolation::Bicubic,
        mean: [0.5; 3],
        std: [0.5; 3],
        grey: false,
    };
    assert_eq!(recognised.preprocess, default);
    assert_eq!(recognised.classes, None);
    assert!(recognised.ignored.is_empty() && recognised.initialised.is_empty());
    for what in ["heads assumed: 1", "activation assumed: GELU", "preprocessing assumed"] {
        assert!(recognised.notes.iter().any(|note| note.what.starts_with(what)), "{what}: {:?}", recognised.notes);
    }
}

#[test]
fn every_form_of_the_vit_is_read_from_its_tensors() {
    let forms = [
        VitConfig { class_token: false, pool: Pool::Mean, ..tiny() },
        VitConfig { fc_norm: true, pool: Pool::Mean, layer_scale: true, ..tiny() },
        VitConfig { qkv_bias: false, patch_bias: false, head_bias: false, ..tiny() },
        VitConfig { classes: 0, head_bias: false, depth: 11, image_size: 15, patch_size: 5, ..tiny() },
        VitConfig { dim: 192, heads: 3, mlp_dim: 7, patch_size: 2, ..tiny() },
        VitConfig { dim: 1280, heads: 16, depth: 1, ..tiny() },
    ];
    for config in forms {
        assert_eq!(
            Model::vit(&config).recognise(None, &Overrides::default()).unwrap().config,
            ModelConfig::from(config)
        );
    }
}

#[test]
fn the_golden_models_are_recognised() {
    for name in ["vit_small", "vit_mean", "vit_quick"] {
        let golden = Checkpoint::open(fixture(&format!("{name}_golden.safetensors"))).unwrap();
        let expected: VitConfig = serde_json::from_str(&golden.metadata()["config"]).unwrap();
        let checkpoint = Checkpoint::open(fixture(&format!("{name}.safetensors"))).unwrap();
        assert_error(
            recognise(&checkpoint, &Overrides::default()),
            &["no multiple of 64", "say how many with --heads"],
        );
        let (heads, activation) = (Some(expected.heads), Some(expected.activation));
        let overrides = Overrides { heads, activation, ..Overrides::default() };
        let recognised = recognise(&checkpoint, &overrides).unwrap();
        assert_eq!(recognised.config, ModelConfig::from(expected.clone()), "{name}");
        assert_eq!(weights(&checkpoint, &recognised).unwrap().len(), expected.parameters().len());
    }
}

#[test]
fn wrapper_prefixes_are_seen_through_and_kept() {
    for prefix in ["module.", "model.", "_orig_mod.", "timm_model.", "module._orig_mod."] {
        let mut model = Model::vit(&tiny()).renamed(|name| format!("{prefix}{name}"));
        model.add("epoch", Dtype::I64, &[], vec![0; 8]);
        let (dir, checkpoint) = model.open(None);
        let checkpoint = checkpoint.unwrap();
        let recognised = recognise(&checkpoint, &Overrides::default()).unwrap();
        assert_eq!(recognised.config, ModelConfig::from(tiny()));
        assert_eq!(recognised.ignored, ["epoch"]);
        assert_eq!(recognised.names[0], ("cls_token".into(), format!("{prefix}cls_token")));
        assert_eq!(weights(&checkpoint, &recognised).unwrap(), fresh_vit(&tiny(), 1));

        let changed: Vec<Weight> = fresh_vit(&tiny(), 2);
        let out = dir.path().join("out.safetensors");
        save(&out, &checkpoint, &replacements(&recognised, &changed), &tpgm_metadata(&recognised)).unwrap();
        let saved = Checkpoint::open(&out).unwrap();
        assert_eq!(saved.tensors(), checkpoint.tensors(), "same names, shapes and types");
        let recognised = recognise(&saved, &Overrides::default()).unwrap();
        assert_eq!(weights(&saved, &recognised).unwrap(), changed);
    }
    let mut two = Model::vit(&tiny()).renamed(|name| format!("module.{name}"));
    two.tensors.extend(Model::vit(&tiny()).tensors);
    assert_error(two.recognise(None, &Overrides::default()), &["holds 2 models", "\"module.\""]);
}

#[test]
fn heads_come_from_the_flag_then_our_metadata_then_the_config() {
    let mut model = Model::vit(&VitConfig { dim: 192, ..tiny() });
    let heads = |model: &Model, config: Option<&str>, overrides| {
        model.recognise(config, &overrides).map(|recognised| recognised.config.vit().unwrap().heads)
    };
    let none = Overrides::default;
    let args = r#"{"architecture": "vit_tiny_patch16_224", "model_args": {"img_size": 8, "num_heads": 12}}"#;
    assert_eq!(heads(&model, Some(args), none()).unwrap(), 12);
    for (architecture, expected) in [
        ("vit_tiny_patch16_224.augreg_in21k", 3),
        ("deit_small_patch16_224", 6),
        ("vit_base_patch16_224", 12),
        ("vit_large_patch14_dinov2", 16),
        ("vit_huge_patch14_224", 16),
        ("vit_base_patch16_gap_224", 16),
        ("vit_medium_patch16_gap_240", 8),
        ("test_vit2", 2),
        ("vit_tiny_patch16_224_in21k", 3),
    ] {
        let config = serde_json::json!({ "architecture": architecture, "model_args": {"img_size": 8} }).to_string();
        assert_eq!(heads(&model, Some(&config), none()).unwrap(), expected, "{architecture}");
    }
    for other in ["somebody's own", "vit_x.y"] {
        let config = serde_json::json!({ "architecture": other, "model_args": {"img_size": 8} }).to_string();
        let own = other.split('.').next().unwrap();
        assert_error(
            heads(&model, Some(&config), none()),
            &[&format!("config.json: architecture {own} is none of timm")],
        );
    }
    let giant = r#"{"architecture": "vit_betwixt_patch16_gap_256", "model_args": {"img_size": 8}}"#;
    assert_error(heads(&model, Some(giant), none()), &["10 heads (architecture vit_betwixt", "--heads"]);
    let text = r#"{"model_args": {"num_heads": "12"}}"#;
    assert_error(heads(&model, Some(text), none()), &["config.json: model_args.num_heads is \"12\""]);

    model.metadata.insert("tpgm.heads".into(), "4".into());
    assert_eq!(heads(&model, Some(args), none()).unwrap(), 4);
    assert_eq!(heads(&model, Some(args), with_heads(6)).unwrap(), 6);
    for heads_flag in [0, 5] {
        let parts = ["--heads: ", "heads do not divide the model's width 192"];
        let error = assert_error(heads(&model, None, with_heads(heads_flag)), &parts);
        assert_eq!(error.exit_code(), 2);
    }
    model.metadata.insert("tpgm.heads".into(), "5".into());
    assert_error(heads(&model, None, none()), &["5 heads (metadata tpgm.heads) do not divide the width 192"]);
    model.metadata.insert("tpgm.heads".into(), "four".into());
    assert_error(heads(&model, None, none()), &["metadata tpgm.heads = \"four\""]);
    assert_error(
        heads(&Model::vit(&VitConfig { dim: 36, ..tiny() }), None, none()),
        &["width 36", "say how many with --heads"],
    );
}

#[test]
fn timms_config_gives_preprocessing_pooling_activation_and_classes() {
    let model = Model::vit(&tiny());
    let config = r#"{"architecture": "vit_tiny_patch16_224", "global_pool": "avg", "label_names": ["ant", "bee", "cat"],
        "model_args": {"act_layer": "gelu_tanh", "img_size": 8, "num_heads": 2},
        "pretrained_cfg": {"input_size": [3, 8, 8], "interpolation": "bilinear", "crop_pct": 0.95,
            "crop_mode": "squash", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}"#;
    let recognised = model.recognise(Some(config), &Overrides::default()).unwrap();
    let (crop_mode, interpolation) = (CropMode::Squash, Interpolation::Bilinear);
    assert_eq!(recognised.preprocess, Preprocess { crop_pct: 0.95, crop_mode, interpolation, ..preprocess() });
    let expected = VitConfig { pool: Pool::Mean, activation: Activation::GeluTanh, heads: 2, ..tiny() };
    assert_eq!(recognised.config, ModelConfig::from(expected));
    assert_eq!(recognised.classes, Some(names(&["ant", "bee", "cat"])));
    assert_eq!(recognised.notes, []);
    let (pool, activation) = (Some(Pool::Cls), Some(Activation::QuickGelu));
    let overrides = Overrides { pool, activation, ..with_heads(4) };
    let overridden = model.recognise(Some(config), &overrides).unwrap().config;
    assert_eq!(overridden, ModelConfig::from(VitConfig { activation: Activation::QuickGelu, heads: 4, ..tiny() }));

    // An older layout, and one that leaves things out.
    let flat = r#"{"architecture": "vit_tiny_patch16_224", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 1.0,
        "interpolation": "bicubic", "id2label": {"0": "ant", "2": "cat", "1": "bee"}, "model_args": {"img_size": 8, "num_heads": 1}}"#;
    let recognised = model.recognise(Some(flat), &Overrides::default()).unwrap();
    assert_eq!((recognised.preprocess.mean, recognised.preprocess.crop_pct), ([0.1, 0.2, 0.3], 1.0));
    assert_eq!(recognised.classes, Some(names(&["ant", "bee", "cat"])));
    let odd = r#"{"pretrained_cfg": {"mean": [0, 0, 0], "crop_mode": "border", "input_size": [3, 12, 12]}}"#;
    let recognised = model.recognise(Some(odd), &Overrides::default()).unwrap();
    let p = &recognised.preprocess;
    assert_eq!((p.mean, p.std, p.crop_pct, p.crop_mode), ([0.0; 3], [0.229, 0.224, 0.225], 0.875, CropMode::Border));
    let notes = recognised.notes;
    let timm = "std [0.229, 0.224, 0.225], interpolation bicubic, crop_pct 0.875";
    for what in [timm, "config.json says 12 pixels"] {
        assert!(notes.iter().any(|note| note.what.contains(what)), "{what}: {notes:?}");
    }

    for (config, parts) in [
        (r#"{"mean": [0.5]}"#, &["mean is [0.5], expected three numbers"][..]),
        (r#"{"std": [0, 1, 1]}"#, &["std [0.0, 1.0, 1.0]", "above 0"]),
        (r#"{"crop_pct": "0.9"}"#, &["crop_pct is \"0.9\""]),
        (r#"{"crop_pct": 0}"#, &["crop pct 0", "above 0"]),
        (r#"{"global_pool": "avgmax"}"#, &["global_pool is \"avgmax\"", "only token, avg and map"]),
        (r#"{"model_args": {"act_layer": "silu"}}"#, &["act_layer is \"silu\""]),
        (
            r#"{"model_args": {"block_fn": "ParallelScalingBlock"}}"#,
            &["model_args.block_fn is \"ParallelScalingBlock\", which is not what the tensors are of"],
        ),
        (r#"{"model_args": {"scale_mlp_norm": true}}"#, &["model_args.scale_mlp_norm is true"]),
    ] {
        assert_error(model.recognise(Some(config), &Overrides::default()), &[parts, &["config.json: "]].concat());
    }
    let behind = model.recognise(Some(r#"{"model_args": {"block_fn": "ResPostBlock"}}"#), &Overrides::default());
    assert_eq!(behind.unwrap().config.vit().unwrap().parts.block, Block::PostNorm);
    let wide = r#"{"input_size": [3, 8, 16]}"#;
    assert_error(
        model.recognise(Some(wide), &Overrides::default()),
        &["config.json gives images of 8 x 16", "only squares"],
    );
    // Of 9 pixels the last in each row and column are in no patch.
    let rest = model.recognise(Some(r#"{"input_size": [3, 9, 9]}"#), &Overrides::default()).unwrap();
    assert_eq!(rest.config, ModelConfig::from(VitConfig { image_size: 9, ..tiny() }));
}

#[test]
fn what_we_save_is_understood_without_a_word() {
    let classes = names(&["a \"b\"", "c", "é"]);
    let config = VitConfig {
        dim: 36,
        heads: 3,
        eps: 1e-5,
        activation: Activation::QuickGelu,
        pool: Pool::Mean,
        layer_scale: true,
        ..tiny()
    };
    let model = fresh_model(config.clone(), &preprocess(), &classes);
    let weights_in = fresh_vit(&config, 3);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    write_model(&path, &model, &weights_in).unwrap();
    // A config of the model that it came from loses against what we wrote.
    fs::write(dir.path().join("config.json"), r#"{"mean": [0, 0, 0], "label_names": ["x", "y", "z"]}"#).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let read = recognise(&checkpoint, &Overrides::default()).unwrap();
    assert_eq!(read.config, ModelConfig::from(config));
    assert_eq!(read.preprocess, preprocess());
    assert_eq!(read.classes, Some(classes));
    assert_eq!(read.notes, []);
    assert_eq!(checkpoint.metadata()["format"], "pt");
    assert_eq!(weights(&checkpoint, &read).unwrap(), weights_in);
    assert_eq!(tpgm_metadata(&read), tpgm_metadata(&model));

    let mut bad = Model::vit(&tiny());
    for (key, value, what) in [
        ("tpgm.activation", "relu", "metadata tpgm.activation"),
        ("tpgm.pool", "max", "metadata tpgm.pool"),
        ("tpgm.eps", "0.0", "metadata tpgm.eps: it must be above 0"),
        ("tpgm.classes", "a,b", "metadata tpgm.classes"),
        ("tpgm.preprocess", "{}", "metadata tpgm.preprocess"),
    ] {
        bad.metadata = [(key.to_string(), value.to_string())].into();
        assert_error(bad.recognise(None, &Overrides::default()), &[what, "model.safetensors"]);
    }
    bad.metadata = [("tpgm.classes".to_string(), r#"["one"]"#.to_string())].into();
    let recognised = bad.recognise(None, &Overrides::default()).unwrap();
    assert_eq!(recognised.classes, None);
    assert!(recognised.notes.iter().any(|n| n.what.contains("has 1 of them for 3 outputs")), "{:?}", recognised.notes);
    let not_finite: Vec<Weight> = vec![("x".into(), vec![1], vec![f32::NAN])];
    assert_error(write_model(&path, &model, &not_finite), &["not written: tensor x has NaN"]);
}

#[test]
fn each_tensor_is_required_in_its_shape_and_type() {
    let config = VitConfig { layer_scale: true, ..tiny() };
    let model = Model::vit(&config);
    let recognise = |model: &Model| model.recognise(None, &Overrides::default());
    for (name, shape) in config.parameters() {
        let mut changed = model.clone();
        changed.tensors.remove(&name);
        match name.as_str() {
            "patch_embed.proj.bias" => assert!(!recognise(&changed).unwrap().config.vit().unwrap().patch_bias),
            "head.bias" => assert!(!recognise(&changed).unwrap().config.vit().unwrap().head_bias),
            // Then there are five positions for patches.
            "cls_token" => drop(assert_error(recognise(&changed), &["pos_embed", "no square grid"])),
            _ => drop(assert_error(recognise(&changed), &[&format!("tensor {name} is missing")])),
        }

        let mut changed = model.clone();
        changed.add_f32(&name, &[&shape[..], &[1]].concat());
        assert_error(recognise(&changed), &[&format!("tensor {name} has shape"), "expected ["]);
        changed.add_f32(&name, &shape.iter().map(|&d| if d == 64 { 65 } else { d }).collect::<Vec<_>>());
        if shape.contains(&64) && name != "patch_embed.proj.weight" {
            assert_error(recognise(&changed), &[&format!("tensor {name} has shape"), &format!("expected {shape:?}")]);
        }
        changed.add_f32(&name, &shape.iter().map(|_| 0).collect::<Vec<_>>());
        assert_error(recognise(&changed), &[&format!("tensor {name} has shape [0"), "expected"]);

        let mut changed = model.clone();
        changed.add(&name, Dtype::I32, &shape, vec![0; 4 * shape.iter().product::<usize>()]);
        assert_error(recognise(&changed), &[&format!("tensor {name} is I32"), "F32, F16, BF16 or F64"]);
    }
}

#[test]
fn geometry_that_we_cannot_run_is_told() {
    let recognise = |model: &Model| model.recognise(None, &Overrides::default());
    let changed = |name: &str, shape: &[usize]| {
        let mut model = Model::vit(&tiny());
        model.add_f32(name, shape);
        model
    };
    for (name, shape, parts) in [
        ("pos_embed", &[1, 7, 64][..], &["6 positions for patches, no square grid"][..]),
        ("patch_embed.proj.weight", &[64, 2, 4, 4], &["[64, 2, 4, 4]", "one or three channels"]),
        ("patch_embed.proj.weight", &[64, 3, 4, 2], &["[64, 3, 4, 2]", "square patches"]),
        ("blocks.18446744073709551615.norm1.weight", &[64], &["blocks.2.norm1.weight is missing"]),
        ("blocks.3.norm1.weight", &[64], &["blocks.2.norm1.weight is missing"]),
        ("blocks.01.norm1.weight", &[64], &["tensor blocks.01.norm1.weight belongs to a part"]),
        ("head.mlp.weight", &[64], &["tensor head.mlp.weight belongs to a part"]),
        ("fc_norm.weight", &[64], &["fc_norm.weight stands beside norm.weight"]),
    ] {
        assert_error(recognise(&changed(name, shape)), parts);
    }
    let mut headless = Model::vit(&tiny());
    headless.tensors.remove("head.weight");
    assert_error(recognise(&headless), &["tensor head.weight is missing"]);
    let larger = Overrides { image_size: Some(16), ..Overrides::default() };
    let resized = Model::vit(&tiny()).recognise(None, &larger).unwrap();
    assert_eq!(resized.config, ModelConfig::from(VitConfig { image_size: 16, ..tiny() }));
    assert!(resized.notes.iter().any(|n| n.what.contains("from 2 x 2 (8 pixels) to 4 x 4 (16 pixels)")));
    let same = Overrides { image_size: Some(8), ..Overrides::default() };
    assert_eq!(Model::vit(&tiny()).recognise(None, &same).unwrap().config, ModelConfig::from(tiny()));
    let no_class_token = Model::vit(&VitConfig { class_token: false, ..tiny() });
    let cls = Overrides { pool: Some(Pool::Cls), ..Overrides::default() };
    assert_error(no_class_token.recognise(None, &cls), &["no tensor cls_token"]);
}

#[test]
fn parts_that_change_the_result_are_refused_and_others_ignored() {
    for (name, what) in [
        ("blocks.0.attn.q_norm.weight", "query-key normalisation"),
        ("blocks.1.attn.k_norm.weight", "query-key normalisation"),
        ("blocks.0.mlp.w12.weight", "belongs to a part that a timm ViT does not have"),
    ] {
        let mut model = Model::vit(&tiny());
        model.add_f32(name, &[64]);
        let error = model.recognise(None, &Overrides::default());
        assert_error(error, &[&format!("tensor {name}"), what, "not supported yet"]);
    }
    for (name, shape, missing) in [
        ("dist_token", &[1, 1, 64][..], "head_dist.weight"),
        ("norm_pre.weight", &[64], "activation can't be told"),
        ("attn_pool.latent", &[1, 1, 64], "attn_pool.mlp.fc1.weight is missing"),
        ("reg_token", &[64], "tensor reg_token has shape [64]"),
        ("blocks.0.mlp.fc1_g.weight", &[64], "tensor blocks.0.mlp.fc1_g.weight has shape [64]"),
        (
            "blocks.0.attn.q_bias",
            &[64],
            "tensor blocks.0.attn.q_bias is of a model whose rotary positions can't be told",
        ),
        ("patch_embed.norm.weight", &[64], "tensor patch_embed.norm.bias is missing"),
    ] {
        let mut model = Model::vit(&tiny());
        model.add_f32(name, shape);
        assert_error(model.recognise(None, &Overrides::default()), &[missing]);
    }
    let mut model = Model::vit(&tiny());
    for name in ["pre_logits.fc.weight", "head_dist.weight", "mask_token", "decoder_blocks.0.norm1.weight"] {
        model.add_f32(name, &[2]);
    }
    let recognised = model.recognise(None, &Overrides::default()).unwrap();
    let ignored = ["decoder_blocks.0.norm1.weight", "head_dist.weight", "mask_token", "pre_logits.fc.weight"];
    assert_eq!(recognised.ignored, ignored);
    assert!(recognised.notes.iter().any(|note| note.what.starts_with("pre_logits is left out")));
}

#[test]
fn another_architecture_is_named_by_its_keys() {
    let hf = [
        "vit.embeddings.cls_token",
        "vit.embeddings.patch_embeddings.projection.weight",
        "vit.encoder.layer.0.attention.attention.query.weight",
        "vit.encoder.layer.1.attention.attention.query.weight",
        "classifier.weight",
    ];
    let open_ai = ["visual.conv1.weight", "visual.transformer.resblocks.0.ln_1.weight", "visual.proj"];
    let resnet = ["conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "fc.weight"];
    let swin = ["patch_embed.proj.weight", "layers.0.blocks.0.norm1.weight", "layers.0.blocks.0.attn.qkv.weight"];
    for keys in [&hf[..], &open_ai, &resnet, &swin] {
        let mut model = Model::default();
        keys.iter().for_each(|key| model.add_f32(key, &[1]));
        let tensors = format!("unknown architecture: its {} tensors", keys.len());
        let key = keys[keys.len() - 1].replace(".0.", ".N.");
        let parts = [&tensors, &key, "supported: timm ViT, transformers ViT", "names alike: ", "model.safetensors"];
        assert_error(model.recognise(None, &Overrides::default()), &parts);
    }
    let dir = tempfile::tempdir().unwrap();
    let none: [(String, Vec<usize>, &[f32]); 0] = [];
    write_safetensors(dir.path().join("x"), &none, &BTreeMap::new()).unwrap();
    let empty = Checkpoint::open(dir.path().join("x")).unwrap();
    assert_error(recognise(&empty, &Overrides::default()), &["holds no tensors"]);
}

#[test]
fn a_new_head_is_told_and_saved_under_the_files_names() {
    for (old, says) in [(3, "head has 3 outputs"), (0, "has no head")] {
        let source = VitConfig { classes: old, head_bias: old > 0, ..tiny() };
        let (dir, checkpoint) = Model::vit(&source).renamed(|name| format!("module.{name}")).open(None);
        let checkpoint = checkpoint.unwrap();
        let mut recognised = recognise(&checkpoint, &Overrides::default()).unwrap();
        let mut model = weights(&checkpoint, &recognised).unwrap();
        let classes = names(&["a", "b", "c", "d", "e"]);
        replace_head(&mut recognised, &mut model, &classes, 9);

        assert_eq!(recognised.config, ModelConfig::from(VitConfig { classes: 5, ..tiny() }));
        assert_eq!(recognised.initialised, ["head.weight", "head.bias"]);
        assert!(recognised.notes.last().unwrap().what.contains(says), "{:?}", recognised.notes);
        assert_eq!(model[model.len() - 2..], new_head("head", 5, 64, 9));
        let shapes: Vec<_> = model.iter().map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
        assert_eq!(shapes, recognised.config.parameters());
        let text = describe(&checkpoint, &recognised).to_string();
        assert!(text.contains("initialised   head.weight, head.bias"), "{text}");

        let out = dir.path().join("out.safetensors");
        save(&out, &checkpoint, &replacements(&recognised, &model), &tpgm_metadata(&recognised)).unwrap();
        let saved = Checkpoint::open(&out).unwrap();
        assert_eq!(saved.tensor("module.head.weight").unwrap().shape, [5, 64]);
        let again = recognise(&saved, &Overrides::default()).unwrap();
        assert_eq!((again.config, again.classes), (recognised.config, Some(classes)));
        assert_eq!(again.initialised, [""; 0]);
    }
}

#[test]
fn fresh_weights_follow_timms_initialisation() {
    let config = VitConfig { layer_scale: true, ..tiny() };
    let model = fresh_vit(&config, 7);
    let shapes: Vec<_> = model.iter().map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
    assert_eq!(shapes, config.parameters());
    assert_eq!(model, fresh_vit(&config, 7));
    let by_name: BTreeMap<&str, &[f32]> = model.iter().map(|(n, _, v)| (n.as_str(), &v[..])).collect();
    let other = fresh_vit(&config, 8);
    // A root mean square of n normal values lies within 5/√(2n) of its own with all likelihood.
    for (i, (name, shape, values)) in model.iter().enumerate() {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let n = values.len() as f64;
        let rms = (values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n).sqrt();
        let expected = match name.as_str() {
            "cls_token" => 1e-6,
            "patch_embed.proj.weight" | "patch_embed.proj.bias" => {
                let bound = 1.0 / 48f32.sqrt();
                assert!(values.iter().all(|v| v.abs() <= bound));
                f64::from(bound) / 3f64.sqrt()
            }
            _ if shape.len() > 1 => 0.02,
            _ if name.ends_with("gamma") => 1e-5,
            _ => f64::from(u8::from(name.ends_with("weight"))),
        };
        assert!((rms - expected).abs() <= expected * 5.0 / (2.0 * n).sqrt(), "{name}: {rms}, expected {expected}");
        let random = shape.len() > 1 || name == "patch_embed.proj.bias";
        assert_eq!(*values != other[i].2, random, "{name} and the seed");
    }
    assert_ne!(by_name["blocks.0.mlp.fc1.weight"], by_name["blocks.1.mlp.fc1.weight"]);
    let deeper = fresh_vit(&VitConfig { depth: 3, ..config.clone() }, 7);
    assert_eq!(deeper.last(), model.last(), "a tensor does not depend on what stands before it");
    let start = fresh_model(config.clone(), &preprocess(), &names(&["a", "b"]));
    assert_eq!((start.config.classes(), start.initialised.len()), (2, config.parameters().len()));
}

#[test]
fn the_description_fits_a_screen() {
    let mut model = Model::vit(&tiny());
    (0..40).for_each(|i| model.add_f32(&format!("decoder.{i}"), &[1]));
    let config = r#"{"architecture": "vit_tiny_patch16_224", "label_names": ["ant", "bee", "cat"],
        "model_args": {"img_size": 8, "num_heads": 4}}"#;
    let (dir, checkpoint) = model.open(Some(config));
    let checkpoint = checkpoint.unwrap();
    let description = describe(&checkpoint, &recognise(&checkpoint, &Overrides::default()).unwrap());
    let text = description.to_string();
    for line in [
        &format!("file          {}", dir.path().join("model.safetensors").display()),
        &format!("config        {}", dir.path().join("config.json").display()),
        "family        timm ViT",
        "architecture  2 blocks, width 64, MLP 8",
        "heads         4 of 16 dimensions",
        "parameters    39,827 in 32 tensors of F32",
        "input         8 x 8, patches of 4: 2 x 2 and a class token, 5 tokens",
        "preprocessing bicubic, crop 0.9 (center), mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5]",
        "activation    gelu, layer norm eps 1e-6",
        "pooling       cls, after norm",
        "head          3 classes",
        "classes       ant, bee, cat",
        "initialised   nothing",
        "ignored       decoder.0, decoder.1, decoder.10, decoder.11, decoder.12, decoder.13 and 34 more",
        "note          preprocessing assumed",
    ] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line:?} is not in:\n{text}");
    }
    assert!(text.lines().count() < 24);
    let json = serde_json::to_value(&description).unwrap();
    assert_eq!(json["config"]["heads"], 4);
    assert_eq!(json["ignored"].as_array().unwrap().len(), 40);
    assert_eq!(json["dtypes"]["F32"], 32);
}

#[test]
fn an_unreadable_weight_is_found_when_loading() {
    let mut model = Model::vit(&tiny());
    let (.., bytes) = model.tensors.get_mut("blocks.1.mlp.fc2.bias").unwrap();
    bytes[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    let checkpoint = model.open(None).1.unwrap();
    let recognised = recognise(&checkpoint, &Overrides::default()).unwrap();
    let error = assert_error(weights(&checkpoint, &recognised), &["blocks.1.mlp.fc2.bias has NaN at element 1"]);
    assert!(matches!(error, Error::Checkpoint { .. }));
}
