//! What a configuration says, and tensors tell otherwise, is refused by its name: the library that wrote it would resize the weights,
//! or leave some out.

use serde_json::json;
use tpgm::checkpoint::Checkpoint;
use tpgm::checkpoint::{Overrides, recognise};

use super::Family;
use super::keys::{changed, refuse};
use super::told::assert_error;

#[test]
fn numbers_and_choices_that_tensors_tell() {
    for (name, path, value) in [
        ("timm_vit", "model_args.depth", json!(1)),
        ("timm_vit", "model_args.embed_dim", json!(64)),
        ("timm_vit", "model_args.patch_size", json!(8)),
        ("timm_vit", "model_args.patch_size", json!([4, 8])),
        ("timm_vit", "model_args.img_size", json!(32)),
        ("timm_vit", "model_args.img_size", json!([16, 32])),
        ("timm_vit", "model_args.img_size", json!("16")),
        ("timm_vit", "model_args.num_classes", json!(9)),
        ("timm_vit", "model_args.num_classes", json!(0)),
        ("timm_seresnet", "model_args.num_classes", json!(9)),
        ("timm_efficientnet", "num_classes", json!(9)),
        ("timm_vit", "model_args.in_chans", json!(1)),
        ("timm_vit", "model_args.reg_tokens", json!(2)),
        ("timm_dinov3", "model_args.num_reg_tokens", json!(3)),
        ("timm_vitamin", "model_args.mlp_layer", json!("Mlp")),
        ("timm_vitamin", "model_args.pos_embed", json!("none")),
        ("hf_vit", "image_size", json!(32)),
        ("hf_dinov2", "image_size", json!(32)),
        ("open_clip_gelu", "model_cfg.vision_cfg.image_size", json!(32)),
        ("hf_vit", "hidden_size", json!(32)),
        ("hf_vit", "num_channels", json!(1)),
        ("hf_vit", "patch_size", json!(8)),
        ("hf_beit", "layer_scale_init_value", json!(0)),
        ("hf_beit_memory", "layer_scale_init_value", json!(0.1)),
        ("hf_dinov3", "num_register_tokens", json!(9)),
        ("hf_convnext", "layer_scale_init_value", json!(0)),
        ("open_clip_gelu", "model_cfg.vision_cfg.width", json!(64)),
        ("open_clip_gelu", "model_cfg.vision_cfg.patch_size", json!(8)),
        ("open_clip_gelu", "model_cfg.vision_cfg.layers", json!(3)),
        ("open_clip_gelu", "model_cfg.quick_gelu", json!("yes")),
        ("open_clip_gelu", "model_cfg.vision_cfg.final_ln_after_pool", json!(1)),
        ("open_clip_coca", "model_cfg.vision_cfg.attentional_pool", json!(false)),
        ("open_clip_coca", "model_cfg.vision_cfg.attentional_pool", json!("parallel")),
        ("open_clip_coca", "model_cfg.vision_cfg.attn_pooler_heads", json!(8.5)),
        ("open_clip_coca", "model_cfg.vision_cfg.attn_pooler_heads", json!(-2)),
    ] {
        refuse(|path, value| changed(name, path, value), "", &[(path, value)]);
    }
    let names = json!({"0": "cat", "1": "dog"});
    for (name, value) in [("hf_vit", json!({})), ("hf_vit", names.clone()), ("hf_resnet", names)] {
        let said = changed(name, "id2label", &value);
        assert_error(said, &["config.json: the length of id2label is", "but the file's head has"]);
    }
    for (name, size) in [("timm_seresnet", json!([3, 36, 72])), ("timm_convnext", json!([3, 40, 64]))] {
        assert_error(
            changed(name, "pretrained_cfg.input_size", &size),
            &["config.json gives images of", "only squares"],
        );
    }
    // Entries that are left out have OpenCLIP's own values.
    let usual = changed("open_clip_gelu", "model_cfg.vision_cfg.image_size", &json!(null));
    assert_error(usual, &["for images of 16 pixels", "image_size of open_clip_config.json is 224"]);
    let eps = changed("open_clip_coca", "model_cfg.vision_cfg.norm_kwargs", &json!({"eps": 0.01}));
    assert_error(eps, &["attn_pool.query", "an eps of 1e-2: only 1e-5 is supported"]);
    let three = changed("open_clip_coca", "model_cfg.vision_cfg.attn_pooler_heads", &json!(3));
    assert_error(three, &["attn_pool.query", "64 columns", "3 heads"]);
    let mean = changed("open_clip_coca", "model_cfg.vision_cfg.pool_type", &json!("avg"));
    assert_error(mean, &["attn_pool.query", "must be cls"]);
}

/// Pairs of a head's elements turn, those of rows apart from those of columns.
#[test]
fn heads_that_rotary_positions_do_not_fit() {
    for (name, path, heads, head_dim) in [
        ("timm_eva02", "model_args.num_heads", 4, 9),
        ("timm_eva02", "model_args.num_heads", 6, 6),
        ("timm_eva02", "model_args.num_heads", 12, 3),
        ("timm_eva02", "model_args.num_heads", 36, 1),
        ("hf_dinov3", "num_attention_heads", 32, 2),
        ("hf_dinov3", "num_attention_heads", 64, 1),
    ] {
        let family = Family::new(name);
        let what = format!("{heads} heads have {head_dim} dimensions each: rotary positions need a multiple of 4");
        assert_error(changed(name, path, &json!(heads)), &[&what]);
        let told = Overrides { heads: Some(heads), ..family.overrides() };
        assert_error(recognise(&Checkpoint::open(family.dir.path()).unwrap(), &told), &[&what]);
    }
    // As many heads as columns are fine without.
    for heads in [1, 12, 36] {
        assert_eq!(
            changed("timm_vit", "model_args.num_heads", &json!(heads)).unwrap().config.vit().unwrap().heads,
            heads
        );
    }
}

/// timm builds a ViT for its `img_size`, or for an `input_size` that is fixed, and resizes the positions to that.
#[test]
fn image_sizes_of_a_vision_transformer() {
    let family = Family::new("timm_vit");
    let read = |model_args: serde_json::Value, pretrained: serde_json::Value, told: Option<usize>| {
        let mut config = family.golden.json("config");
        for (key, entries) in [("model_args", model_args), ("pretrained_cfg", pretrained)] {
            entries.as_object().unwrap().iter().for_each(|(name, value)| config[key][name] = value.clone());
        }
        std::fs::write(family.path("config.json"), config.to_string()).unwrap();
        let overrides = Overrides { image_size: told, ..Overrides::default() };
        recognise(&Checkpoint::open(family.dir.path()).unwrap(), &overrides)
    };
    // The images follow the model, whatever else is written.
    let own = read(json!({"img_size": [16, 16]}), json!({"input_size": [3, 96, 96]}), None).unwrap();
    assert_eq!((own.config.image_size(), own.preprocess.image_size), (16, 16));
    let fixed = json!({"input_size": [3, 96, 96], "fixed_input_size": true});
    assert_error(read(json!({"img_size": null}), fixed.clone(), None), &["input_size of config.json", "is 96"]);
    let usual = json!({"input_size": [3, 16, 16], "fixed_input_size": false});
    let error = read(json!({"img_size": null}), usual, None);
    assert_error(error, &["img_size of architecture vit_tiny_patch16_224 is 224", "images of 16 pixels"]);
    // A size that is asked for is used.
    for size in [16, 32] {
        let told = read(json!({"img_size": 48}), fixed.clone(), Some(size)).unwrap();
        assert_eq!((told.config.image_size(), told.resize.is_some()), (size, size != 16));
    }
}
