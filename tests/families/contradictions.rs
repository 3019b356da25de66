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
        ("timm_vit", "model_args.in_chans", json!(1)),
        ("timm_vit", "model_args.reg_tokens", json!(2)),
        ("timm_dinov3", "model_args.num_reg_tokens", json!(3)),
        ("timm_vitamin", "model_args.mlp_layer", json!("Mlp")),
        ("timm_vitamin", "model_args.pos_embed", json!("none")),
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
