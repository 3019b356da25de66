//! timm's other vision transformers: recomputed, in f16, by our own names and metadata alone, and at other image sizes.

use std::collections::BTreeMap;
use std::fs;

use tpgm::checkpoint::{Overrides, replace_head, write_model};
use tpgm::method::{Learner, LossScaling, Settings};
use tpgm::train::source::Source;

use super::common::{Fixture, gpu, relative};
use super::told::{assert_error, assert_usage};
use super::{Family, LOGITS, predict, sampled};

const VITS: [&str; 18] = [
    "timm_eva02",
    "timm_eva02_clip",
    "timm_eva_post",
    "timm_dinov3",
    "timm_rope",
    "timm_rope_mixed",
    "timm_pe",
    "timm_beit",
    "timm_beit3",
    "timm_aimv2",
    "timm_post_norm",
    "timm_parallel",
    "timm_reg_gap",
    "timm_radio",
    "timm_mobileclip",
    "timm_vitamin",
    "timm_vitamin_xl",
    "open_clip_coca",
];

#[test]
fn recomputed_they_have_the_same_bits() {
    for name in VITS {
        let family = Family::new(name);
        let source = family.open();
        let gradients = [false, true].map(|recompute| {
            let settings = Settings { recompute, ..super::settings(&source) };
            let mut learner = Learner::new(gpu(), source.model(), &source.snapshot(), settings).unwrap();
            family.step(&mut learner);
            gpu().read::<f32>(&learner.dw).unwrap()
        });
        assert!(gradients[0] == gradients[1], "{name}");
    }
}

#[test]
fn our_own_names_and_metadata_tell_all_of_them() {
    for name in VITS {
        let family = Family::new(name);
        let source = family.open();
        let images = family.golden.f32("images");
        let path = family.path("own/model.safetensors");
        fs::create_dir(path.parent().unwrap()).unwrap();
        let all = [source.weights.as_slice(), &source.stats].concat();
        write_model(&path, &source.recognised, &all).unwrap();
        let again = Source::open(&path, &Overrides::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(again.recognised.config, source.recognised.config, "{name}");
        let logits = [&again, &source].map(|source| predict(source, &source.snapshot(), &images));
        assert!(logits[0] == logits[1], "{name}");
    }
}

#[test]
fn they_train_in_f16() {
    for name in VITS {
        let family = Family::new(name);
        let source = family.open();
        let half = Settings { half: Some(LossScaling::default()), ..super::settings(&source) };
        let made = Learner::new(gpu(), source.model(), &source.snapshot(), half);
        if gpu().check_f16().is_err() {
            assert_error(made, &["SHADER_F16"]);
            continue;
        }
        if name == "timm_eva02_clip" {
            assert_usage(made, &["f16 needs widths that are multiples of 4", "46"]);
            continue;
        }
        let mut learner = made.unwrap();
        let before = gpu().read::<f32>(&learner.w).unwrap();
        // A step whose gradients f16 can't hold is left out, and the next one has half of its scale.
        let mut after = before.clone();
        for _ in 0..8 {
            if after == before {
                family.step(&mut learner);
                after = gpu().read::<f32>(&learner.w).unwrap();
            }
        }
        // As in tests/half.rs: some twenty roundings to 11 bits lie between the pixels and a gradient.
        let error = relative(&[learner.records(true).unwrap()[0].loss], &family.golden.f32("loss"));
        assert!(error < 5e-3, "{name}: loss {error:e}");
        let in_file: BTreeMap<_, _> = source.recognised.names.iter().cloned().collect();
        for (param, after) in learner.model.layout().unpack(&after) {
            let error = relative(&sampled(after), &family.golden.f32(&format!("after.{}", in_file[&param.name])));
            assert!(error < 1e-3, "{name}: {}: {error:e}", param.name);
        }
    }
}

/// Rotary positions are computed for the grid; tables of relative positions are resized as each library does.
#[test]
fn positions_of_all_kinds_follow_the_image_size() {
    for (golden, names) in [
        ("vits_resized", &["timm_eva02", "timm_dinov3", "timm_rope_mixed", "timm_pe", "timm_beit"][..]),
        ("transformers_resized", &["hf_beit", "hf_data2vec"]),
    ] {
        let golden = Fixture::open(golden);
        for name in names {
            let family = Family::new(name);
            let overrides = Overrides { image_size: Some(24), ..Overrides::default() };
            let source = Source::open(family.dir.path(), &overrides).unwrap();
            let images = golden.f32(&format!("{name}.images"));
            let logits = predict(&source, &source.snapshot(), &images);
            let error = relative(&logits, &golden.f32(&format!("{name}.logits")));
            println!("{name}: {error:.1e}");
            assert!(error < LOGITS, "{name}: {error:e}");

            // Saved at the new size it opens so.
            let path = family.path("saved.safetensors");
            source.save(&path, &source.snapshot()).unwrap();
            let again = Source::open(&path, &Overrides::default()).unwrap();
            assert_eq!(again.recognised.config, source.recognised.config, "{name}");
            assert!(again.recognised.resize.is_none(), "{name}");
            assert!(predict(&again, &again.snapshot(), &images) == logits, "{name}");
        }
    }
}

#[test]
fn features_of_a_distilled_deit_are_the_mean_of_both_tokens() {
    let family = Family::new("deit_distilled");
    let source = family.open().without_head();
    let features = predict(&source, &source.snapshot(), &family.golden.f32("images"));
    let error = relative(&features, &family.golden.f32("pre_logits"));
    assert!(error < LOGITS, "{error:e}");
}

#[test]
fn both_heads_of_a_distilled_deit_are_new_for_other_classes() {
    for (name, heads) in
        [("deit_distilled", ["head", "head_dist"]), ("hf_deit_teacher", ["cls_classifier", "distillation_classifier"])]
    {
        let Source { mut recognised, mut weights, .. } = Family::new(name).open();
        replace_head(&mut recognised, &mut weights, &["a", "b", "c"].map(String::from), 1);
        let in_file: Vec<&String> = recognised.names.iter().map(|(_, in_file)| in_file).collect();
        for head in heads {
            for what in ["weight", "bias"] {
                let times = in_file.iter().filter(|own| own.ends_with(&format!("{head}.{what}"))).count();
                assert_eq!(times, 1, "{name}: {head}.{what} among {in_file:?}");
            }
        }
    }
}

/// Without a configuration nothing tells which angles a model has, and whether it has any.
#[test]
fn what_no_tensor_tells_is_asked_for() {
    for (name, tensor) in [
        ("timm_eva02", "q_bias"),
        ("timm_eva02_clip", "q_proj"),
        ("timm_rope_mixed", "rope.freqs"),
        ("timm_aimv2", "norm1.weight"),
    ] {
        let family = Family::new(name);
        fs::remove_file(family.path("config.json")).unwrap();
        let heads = Overrides { heads: Some(4), ..Overrides::default() };
        assert_error(Source::open(family.dir.path(), &heads), &[tensor, "config.json"]);
    }
}
