//! Every key of a configuration is understood, or refused by its name, its value and its file; and no tensor of a tower is left
//! out.

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;
use tpgm::checkpoint::{Checkpoint, Overrides, Recognised, recognise};
use tpgm::data::preprocess::CropMode;
use tpgm::error::Result;
use tpgm::model::config::Pool;
use tpgm::shapes::Activation;

use super::common::{fixture_path, relative};
use super::told::assert_error;
use super::{Family, LOGITS, predict};

/// The configuration with one value changed, at a path of keys.
pub(super) fn with(mut config: Value, path: &str, value: &Value) -> Value {
    let mut at = &mut config;
    for key in path.split('.') {
        at = &mut at[key];
    }
    *at = value.clone();
    config
}

/// A fixture of another generator, with a configuration.
fn beside(name: &str, config: &Value) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(fixture_path(name), dir.path().join("model.safetensors")).unwrap();
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

fn read(dir: &Path) -> Result<Recognised> {
    recognise(&Checkpoint::open(dir)?, &Overrides::default())
}

pub(super) fn changed(name: &str, path: &str, value: &Value) -> Result<Recognised> {
    let family = Family::new(name);
    fs::write(family.path("config.json"), with(family.golden.json("config"), path, value).to_string()).unwrap();
    read(family.dir.path())
}

/// Each value is refused with a message that has the file, the key and the value.
pub(super) fn refuse(read: impl Fn(&str, &Value) -> Result<Recognised>, file: &str, cases: &[(&str, Value)]) {
    for (path, value) in cases {
        let key = path.rsplit('.').next().unwrap();
        let shown = value.as_str().map_or(value.to_string(), str::to_string);
        assert_error(read(path, value), &[file, key, &shown]);
    }
}

#[test]
fn timm_arguments_of_a_vision_transformer() {
    let read = |path: &str, value: &Value| changed("timm_vit", path, value);
    refuse(
        read,
        "config.json",
        &[
            ("model_args.qk_norm", json!(true)),
            ("model_args.scale_attn_norm", json!(true)),
            ("model_args.scale_mlp_norm", json!(true)),
            ("model_args.proj_bias", json!(false)),
            ("model_args.pos_embed", json!("none")),
            ("model_args.final_norm", json!(false)),
            ("model_args.embed_layer", json!("HybridEmbed")),
            ("model_args.embed_norm_layer", json!("rmsnorm")),
            ("model_args.norm_layer", json!("rmsnorm")),
            ("model_args.act_layer", json!("silu")),
            ("model_args.block_fn", json!("ParallelScalingBlock")),
            ("model_args.mlp_layer", json!("SwiGLU")),
            ("model_args.attn_layer", json!("diff")),
            ("model_args.global_pool", json!("max")),
            ("model_args.global_pool", json!("")),
            ("model_args.num_heads", json!(-1)),
            ("model_args.somebodys_own", json!(3)),
            ("model_args.somebodys_own", json!(false)),
            ("model_args", json!("none")),
            ("global_pool", json!("avgmax")),
            ("pretrained_cfg.crop_mode", json!("random")),
            ("pretrained_cfg.interpolation", json!("nearest")),
            ("pretrained_cfg.label_offset", json!(1)),
            ("pretrained_cfg.channel_order", json!("BGR")),
            ("pretrained_cfg.mean", json!([0.5])),
        ],
    );
    // What says the same as nothing, and what training alone knows.
    for (path, value) in [
        ("model_args.qk_norm", json!(false)),
        ("model_args.block_fn", json!("Block")),
        ("model_args.block_fn", json!(null)),
        ("model_args.proj_bias", json!(true)),
        ("model_args.somebodys_own", json!(null)),
        ("model_args.drop_path_rate", json!(0.3)),
        ("model_args.weight_init", json!("moco")),
        ("model_args.norm_layer", json!("layernorm")),
        ("pretrained_cfg.label_offset", json!(0)),
        ("pretrained_cfg.license", json!("mit")),
        ("model_card", json!("timm reads no such key")),
    ] {
        let plain = Family::new("timm_vit").open().recognised;
        assert_eq!(read(path, &value).unwrap().config, plain.config, "{path} = {value}");
    }
    let gelu = read("model_args.act_layer", &json!("gelu_tanh")).unwrap();
    assert_eq!(gelu.config.vit().unwrap().activation, Activation::GeluTanh);
    let all = read("model_args.pool_include_prefix", &json!(true)).unwrap();
    assert!(all.config.vit().unwrap().parts.pool_prefix);
    let saved_as = read("global_pool", &json!("avg")).unwrap();
    assert_eq!(saved_as.config.vit().unwrap().pool, Pool::Mean);
}

#[test]
fn timm_architectures_say_what_leaves_no_tensor() {
    for (architecture, parts) in [
        ("vit_base_patch16_rope_reg1_gap_256", &["use_abs_pos_emb is false"][..]),
        ("eva02_tiny_patch14_224", &["qkv_bias is true"]),
        ("beit_base_patch16_224", &["use_rel_pos_bias is true"]),
        ("samvit_base_patch16.sa1b", &["samvit_base_patch16 is timm's VisionTransformerSAM"]),
        ("vit_relpos_small_patch16_224", &["timm's VisionTransformerRelPos"]),
        ("vit_small_r26_s32_224", &["embed_layer is \"HybridEmbed", "not what the tensors are of"]),
        ("vit_base_patch16_xp_224", &["qk_norm is true"]),
        ("vit_small_patch16_of_my_own", &["none of timm 1.0.31's"]),
    ] {
        let own = changed("timm_vit", "architecture", &json!(architecture));
        assert_error(own, &[&["config.json: architecture "], parts].concat());
    }
    let read = |architecture: &str| {
        let mut config = json!({"architecture": architecture, "pretrained_cfg": {}});
        config["model_args"] = json!({"img_size": 16});
        let family = Family::new("timm_vit");
        fs::write(family.path("config.json"), config.to_string()).unwrap();
        read(family.dir.path()).map(|r| r.config.vit().unwrap().heads)
    };
    // By the whole name: the same part of it stands for 16 heads and for 24.
    assert_error(read("vit_giant_patch14_reg4_dinov2"), &["24 heads (architecture vit_giant_patch14_reg4_dinov2)"]);
    assert_error(read("vit_giant_patch14_224"), &["16 heads (architecture vit_giant_patch14_224)"]);
    assert_eq!(read("vit_tiny_patch16_224").unwrap(), 3);
    assert_eq!(read("vit_base_patch16_224").unwrap(), 12);
}

#[test]
fn timm_clip_has_the_architectures_eps_and_siglip_its_crop() {
    let eps = |name: &str, path: &str, value: Value| changed(name, path, &value).unwrap().config.vit().unwrap().eps;
    assert_eq!(eps("timm_clip", "architecture", json!("vit_base_patch32_clip_quickgelu_224")), 1e-5);
    assert_eq!(eps("timm_vit", "architecture", json!("vit_tiny_patch16_224")), 1e-6);
    for (mode, expected) in [("center", CropMode::Center), ("squash", CropMode::Squash), ("border", CropMode::Border)] {
        let siglip = changed("timm_siglip", "pretrained_cfg.crop_mode", &json!(mode)).unwrap();
        assert_eq!(siglip.preprocess.crop_mode, expected);
    }
    // Not written: as timm has it, which is not what the models were trained with.
    let siglip = Family::new("timm_siglip").open().recognised;
    assert_eq!(siglip.preprocess.crop_mode, CropMode::Center);
}

#[test]
fn timm_arguments_of_a_resnet() {
    let config = json!({"architecture": "resnet18", "model_args": {}, "pretrained_cfg": {"input_size": [3, 36, 36]}});
    let read = |path: &str, value: &Value| read(beside("resnet_basic", &with(config.clone(), path, value)).path());
    refuse(
        read,
        "config.json",
        &[
            ("model_args.act_layer", json!("leaky_relu")),
            ("model_args.output_stride", json!(8)),
            ("model_args.aa_layer", json!("blurpool")),
            ("model_args.block_args", json!({"attn_layer": "se"})),
            ("model_args.norm_layer", json!("groupnorm")),
            ("model_args.replace_stem_pool", json!(true)),
            ("model_args.down_kernel_size", json!(3)),
            ("model_args.block_reduce_first", json!(2)),
            ("model_args.global_pool", json!("max")),
            ("model_args.drop_everything", json!(1)),
            ("pretrained_cfg.crop_mode", json!("tile")),
        ],
    );
    for architecture in ["seresnet50", "ecaresnet50d", "resnet50_gn", "skresnet18"] {
        assert_error(read("architecture", &json!(architecture)), &[&format!("architecture {architecture}: ")]);
    }
    for (architecture, class) in [("resnetv2_50", "ResNetV2"), ("regnety_032", "RegNet")] {
        assert_error(
            read("architecture", &json!(architecture)),
            &[&format!("architecture {architecture} is timm's {class}")],
        );
    }
    for (path, value) in [
        ("model_args.act_layer", json!("relu")),
        ("model_args.act_layer", json!("silu")),
        ("model_args.output_stride", json!(32)),
        ("model_args.block_args", json!({})),
        ("model_args.zero_init_last", json!(false)),
        ("model_args.aa_layer", json!(null)),
        ("architecture", json!("tv_resnet34")),
    ] {
        read(path, &value).unwrap_or_else(|e| panic!("{path} = {value}: {e}"));
    }
}

#[test]
fn open_clips_configuration() {
    let read = |path: &str, value: &Value| changed("open_clip_gelu", path, value);
    refuse(
        read,
        "config.json",
        &[
            ("model_cfg.vision_cfg.norm_kwargs", json!({"elementwise_affine": false})),
            ("model_cfg.vision_cfg.norm_kwargs", json!({"eps": 1e-6, "bias": false})),
            ("model_cfg.vision_cfg.act_kwargs", json!({"inplace": true})),
            ("model_cfg.vision_cfg.act_kwargs", json!(["tanh"])),
            ("model_cfg.vision_cfg.attentional_pool", json!(true)),
            ("model_cfg.vision_cfg.pool_type", json!("none")),
            ("model_cfg.vision_cfg.qk_norm", json!(true)),
            ("model_cfg.vision_cfg.scale_heads", json!(true)),
            ("model_cfg.vision_cfg.block_type", json!("custom")),
            ("model_cfg.vision_cfg.pos_embed_type", json!("rope")),
            ("model_cfg.vision_cfg.somebodys_own", json!(1)),
            ("model_cfg.vision_cfg", json!([1])),
            ("model_cfg.somebodys_own", json!(1)),
            ("preprocess_cfg.fill_color", json!(127)),
            ("preprocess_cfg.mode", json!("L")),
            ("preprocess_cfg.resize_mode", json!("stretch")),
            ("preprocess_cfg.interpolation", json!("nearest")),
            ("preprocess_cfg.somebodys_own", json!(1)),
        ],
    );
    let vit = |path: &str, value: Value| read(path, &value).unwrap().config.vit().unwrap().clone();
    assert_eq!(vit("model_cfg.vision_cfg.norm_kwargs", json!({"eps": 1e-6})).eps, 1e-6);
    assert_eq!(vit("model_cfg.vision_cfg.patch_dropout", json!(0.5)).eps, 1e-5);
    let tanh = json!({"approximate": "tanh"});
    assert_eq!(vit("model_cfg.vision_cfg.act_kwargs", tanh.clone()).activation, Activation::GeluTanh);
    assert_eq!(vit("model_cfg.vision_cfg.pool_type", json!("avg")).pool, Pool::Mean);
    // QuickGELU takes no arguments.
    assert_error(changed("open_clip", "model_cfg.vision_cfg.act_kwargs", &tanh), &["act_kwargs", "tanh"]);
    let timm = changed("open_clip", "model_cfg.vision_cfg.timm_model_name", &json!("vit_base_patch16_224"));
    assert_error(timm, &["OpenCLIP's own tensors", "timm_model_name"]);
}

#[test]
fn transformers_configurations() {
    for (name, path, value) in [
        ("hf_vit", "hidden_act", json!("relu")),
        ("hf_vit", "rope_theta", json!(10000.0)),
        ("hf_vit", "model_type", json!("beitx")),
        ("hf_vit", "qkv_bias", json!(false)),
        ("hf_vit", "num_hidden_layers", json!(1)),
        ("hf_beit", "use_mean_pooling", json!(false)),
        ("hf_beit", "use_relative_position_bias", json!(false)),
        ("hf_beit", "use_shared_relative_position_bias", json!(true)),
        ("hf_beit", "use_absolute_position_embeddings", json!(true)),
        ("hf_beit", "num_hidden_layers", json!(2)),
        ("hf_beit", "somebodys_own", json!(1)),
        ("hf_dinov3", "query_bias", json!(false)),
        ("hf_dinov3", "key_bias", json!(true)),
        ("hf_dinov3", "value_bias", json!(false)),
        ("hf_dinov3", "proj_bias", json!(false)),
        ("hf_dinov3", "mlp_bias", json!(false)),
        ("hf_dinov3", "use_gated_mlp", json!(true)),
        ("hf_dinov3", "rope_theta", json!(0)),
        ("hf_dinov3", "rope_parameters", json!({"rope_type": "yarn"})),
        ("hf_dinov3", "hidden_act", json!("relu")),
        ("hf_dinov3_memory", "hidden_act", json!("gelu")),
        ("hf_dinov3_convnext", "model_type", json!("convnext")),
        ("hf_vit", "quantization_config", json!({"bits": 4})),
        ("hf_vit", "auto_map", json!({"AutoModel": "x.Y"})),
        ("hf_vit", "pruned_heads", json!({"1": [0]})),
        ("hf_vit", "use_mean_pooling", json!(true)),
        ("hf_dinov2", "model_type", json!("dinov3_vit")),
        ("hf_dinov2", "interpolate_antialias", json!(true)),
        ("hf_clip", "model_type", json!("clipseg")),
        ("hf_clip", "attention_scale", json!(2)),
        ("hf_siglip", "vision_use_head", json!(false)),
        ("hf_resnet", "downsample_in_bottleneck", json!(true)),
        ("hf_resnet", "downsample_in_first_stage", json!(true)),
        ("hf_resnet", "hidden_act", json!("gelu")),
        ("hf_resnet", "groups", json!(32)),
    ] {
        refuse(|path, value| changed(name, path, value), "config.json", &[(path, value)]);
    }
    for (name, path, value) in [
        ("hf_vit", "pruned_heads", json!({})),
        ("hf_vit", "quantization_config", json!(null)),
        ("hf_vit", "hidden_dropout_prob", json!(0.1)),
        ("hf_vit", "torch_dtype", json!("float16")),
        ("hf_dinov2", "out_features", json!(["stage1"])),
        ("hf_resnet", "downsample_in_first_stage", json!(false)),
    ] {
        let family = Family::new(name);
        fs::write(family.path("config.json"), with(family.golden.json("config"), path, &value).to_string()).unwrap();
        recognise(&Checkpoint::open(family.dir.path()).unwrap(), &family.overrides()).unwrap();
    }
    let whole = |config: Value| {
        let family = Family::new("hf_clip");
        fs::write(family.path("config.json"), config.to_string()).unwrap();
        recognise(&Checkpoint::open(family.dir.path()).unwrap(), &family.overrides())
    };
    let tower = Family::new("hf_clip").golden.json("config");
    whole(json!({"model_type": "clip", "vision_config": tower, "text_config": {"odd": 1}})).unwrap();
    // An older form, whose entries win; and missing entries have the class's defaults.
    let older = json!({"model_type": "clip", "vision_config": tower, "vision_config_dict": {"hidden_act": "gelu"}});
    assert_eq!(whole(older).unwrap().config.vit().unwrap().activation, Activation::Gelu);
    let mut less = tower.clone();
    less.as_object_mut().unwrap().retain(|key, _| key != "hidden_act" && key != "layer_norm_eps");
    let usual = whole(json!({"model_type": "clip", "vision_config": less})).unwrap().config;
    let usual = usual.vit().unwrap();
    assert_eq!((usual.activation, usual.eps), (Activation::QuickGelu, 1e-5));
    let odd = whole(json!({"model_type": "clip", "vision_config": with(tower.clone(), "odd", &json!(1))}));
    assert_error(odd, &["config.json", "vision_config.odd is 1"]);
    assert_error(whole(json!({"model_type": "clip", "vision_config": tower, "odd": 2})), &["config.json: odd is 2"]);
}

#[test]
fn processors_of_transformers() {
    let read = |path: &str, value: &Value| {
        let family = Family::new("hf_vit");
        fs::write(family.path("preprocessor_config.json"), with(json!({"size": 16}), path, value).to_string()).unwrap();
        read(family.dir.path())
    };
    refuse(
        read,
        "preprocessor_config.json",
        &[
            ("do_pad", json!(true)),
            ("do_flip_channel_order", json!(true)),
            ("offset", json!(true)),
            ("resample", json!(0)),
            ("size", json!({"longest_edge": 16})),
            ("size", json!({"height": 16, "width": 12})),
            ("do_thumbnail", json!(true)),
        ],
    );
    for (path, value) in [("do_pad", json!(false)), ("do_convert_rgb", json!(true)), ("do_thumbnail", json!(null))] {
        read(path, &value).unwrap();
    }
}

/// The file with one tensor more.
fn with_tensor(file: &Path, name: &str) -> Vec<u8> {
    let bytes = fs::read(file).unwrap();
    let own = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = [0; 16];
    let added = TensorView::new(Dtype::F32, vec![4], &values).unwrap();
    let tensors = own.tensors().into_iter().chain([(name.to_string(), added)]);
    safetensors::serialize(tensors, None).unwrap()
}

#[test]
fn no_tensor_of_a_tower_is_left_out() {
    for (name, extra) in [
        ("timm_vit", "blocks.0.norm3.weight"),
        ("timm_vit", "norm_post.weight"),
        ("timm_vit", "post_norm.weight"),
        ("timm_vit", "patch_embed.proj2.weight"),
        ("timm_vit", "stem.conv.weight"),
        ("timm_vit", "pos_embed_window"),
        ("timm_vit", "adapter.weight"),
        ("timm_vit", "lora_A.weight"),
        ("timm_vit", "prompt"),
        ("timm_vit", "rope.freqs"),
        ("timm_vit", "register_tokens"),
        ("hf_vit", "vit.encoder.layer.1.lambda"),
        ("hf_vit", "vit.layernorm2.weight"),
        ("hf_vit", "vit.embeddings.norm.weight"),
        ("hf_dinov2", "encoder.layer.0.attention.q_norm.weight"),
        ("hf_clip", "vision_model.encoder.layers.0.rope"),
        ("hf_siglip", "patch_norm.weight"),
        ("open_clip", "visual.ln_post2.weight"),
        ("open_clip", "visual.transformer.resblocks.0.ln_3.weight"),
        ("hf_resnet", "resnet.embedder.norm2.weight"),
        ("hf_resnet", "resnet.encoder.stages.0.layers.0.attention.weight"),
    ] {
        let family = Family::new(name);
        fs::write(family.path("model.safetensors"), with_tensor(&family.path("model.safetensors"), extra)).unwrap();
        for config in [true, false] {
            if !config {
                fs::remove_file(family.path("config.json")).unwrap();
            }
            let heads = if name.starts_with("timm") { 3 } else { 4 };
            let activation = (name == "open_clip" || name == "hf_clip").then_some(Activation::QuickGelu);
            let heads = (name != "hf_resnet").then_some(heads);
            let told = Overrides { heads, activation, ..family.overrides() };
            let read = recognise(&Checkpoint::open(family.dir.path()).unwrap(), &told);
            assert_error(read, &[&format!("tensor {extra} ")]);
        }
    }
    for extra in
        ["layer1.0.se.fc1.weight", "layer2.0.downsample.3.weight", "norm.weight", "stem.weight", "maxpool.weight"]
    {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        fs::write(&path, with_tensor(&fixture_path("resnet_basic"), extra)).unwrap();
        assert_error(read(&path), &[&format!("tensor {extra} ")]);
        // The same within a wrapper.
        let bytes = fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let wrapped = file.tensors().into_iter().map(|(key, view)| (format!("module.{key}"), view));
        fs::write(&path, safetensors::serialize(wrapped, None).unwrap()).unwrap();
        assert_error(read(&path), &[&format!("tensor module.{extra} ")]);
    }
}

/// A ResNet in OpenCLIP, with the projection that its family does not have.
#[test]
fn a_projection_behind_a_tower_is_not_left_out() {
    let bytes = fs::read(fixture_path("resnet_basic")).unwrap();
    let own = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = [0; 16];
    let added = TensorView::new(Dtype::F32, vec![4], &values).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let write = |added: &[(&str, TensorView)]| {
        let tower = own.tensors().into_iter().map(|(key, view)| (format!("visual.trunk.{key}"), view));
        let all = tower.chain(added.iter().map(|(name, view)| (name.to_string(), view.clone())));
        fs::write(dir.path().join("x.safetensors"), safetensors::serialize(all, None).unwrap()).unwrap();
        read(&dir.path().join("x.safetensors"))
    };
    write(&[("text.head.weight", added.clone())]).unwrap();
    let beside = write(&[("visual.head.proj.weight", added)]);
    assert_error(beside, &["tensor visual.head.proj.weight", "behind the tower", "not supported yet"]);
}

/// The head of a tower of timm's is OpenCLIP's projection where a head for its features is given.
#[test]
fn a_head_behind_a_tower_of_open_clips_reads_its_projection() {
    let family = Family::new("open_clip_timm");
    let with_own = family.open().recognised.config;
    assert_eq!(with_own.vit().unwrap().parts.projection.unwrap().features, 24);
    let bytes = fs::read(family.path("model.safetensors")).unwrap();
    let own = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let renamed = |key: String| key.replace("visual.head.proj.weight", "visual.trunk.head.weight");
    let tensors: Vec<_> = own.tensors().into_iter().map(|(key, view)| (renamed(key), view)).collect();
    fs::write(family.path("model.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    let config = with(family.golden.json("config"), "model_cfg.vision_cfg.timm_proj", &json!(""));
    fs::write(family.path("config.json"), with(config, "model_cfg.vision_cfg.timm_pool", &json!("avg")).to_string())
        .unwrap();
    let read = family.open();
    assert_eq!(read.recognised.config.vit().unwrap().parts.projection.unwrap().features, 24);
    let logits = predict(&read, &read.snapshot(), &family.golden.f32("images"));
    let error = relative(&logits, &family.golden.f32("logits"));
    assert!(error < LOGITS, "{error:e}");
}

#[test]
fn a_bare_file_says_what_it_assumed() {
    let family = Family::new("timm_vit");
    let heads = Overrides { heads: Some(3), ..Overrides::default() };
    let said = |file: &Path, overrides: &Overrides| {
        let recognised = recognise(&Checkpoint::open(file).unwrap(), overrides).unwrap();
        recognised.notes.iter().any(|note| note.what.contains("no configuration names its architecture"))
    };
    assert!(!said(family.dir.path(), &Overrides::default()));
    fs::remove_file(family.path("config.json")).unwrap();
    assert!(said(family.dir.path(), &heads));
    assert!(said(&fixture_path("resnet_basic"), &Overrides::default()));
}
