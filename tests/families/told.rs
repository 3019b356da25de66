//! Facts that are asked for, refused, or stated in a note.

use std::fs;

use tpgm::checkpoint::{Checkpoint, Overrides, Recognised, recognise, write_safetensors};
use tpgm::data::resize::Interpolation;
use tpgm::data::{Dataset, LeftOut};
use tpgm::error::{Error, Result};
use tpgm::model::config::{Pool, Positions};
use tpgm::shapes::Activation;
use tpgm::train::help::told;
use tpgm::train::source::Source;

use super::common::{self, Fixture, gpu};
use super::{Family, LOGITS, Learner, predict, relative};

/// A data set of these classes, without images.
fn labelled(classes: &[&str]) -> Dataset {
    Dataset {
        name: "train".into(),
        classes: classes.iter().map(|c| c.to_string()).collect(),
        items: Vec::new(),
        sets: None,
        left_out: LeftOut::default(),
    }
}

/// Recognised without its configuration.
fn bare(name: &str, overrides: &Overrides) -> Result<Recognised> {
    let family = Family::new(name);
    recognise(&Checkpoint::open(family.path("model.safetensors"))?, overrides).and_then(|_| {
        fs::remove_file(family.path("config.json")).unwrap();
        recognise(&Checkpoint::open(family.path("model.safetensors"))?, overrides)
    })
}

pub(super) fn assert_error<T: std::fmt::Debug>(result: Result<T>, parts: &[&str]) {
    let error = result.unwrap_err();
    let (facts, told) = (error.to_string(), told(&error));
    assert!(parts.iter().all(|part| told.contains(part)) && !told.contains('\n'), "{told}");
    assert!(!facts.contains("--"), "a flag among the facts: {facts}");
}

/// As [`assert_error`], of a value that the caller set.
pub(super) fn assert_usage<T: std::fmt::Debug>(result: Result<T, Error>, parts: &[&str]) {
    assert!(matches!(&result, Err(error) if matches!(error.facts(), Error::Usage(_))), "{result:?}");
    assert_error(result, parts);
}

#[test]
fn an_activation_that_can_not_be_known_is_asked_for() {
    let heads = Overrides { heads: Some(4), ..Overrides::default() };
    for name in ["open_clip", "timm_clip", "hf_clip", "timm_siglip"] {
        let heads = Overrides { heads: Some(if name == "timm_clip" { 3 } else { 4 }), ..heads.clone() };
        assert_error(bare(name, &heads), &["activation can't be told", "--activation quick_gelu"]);
        let told = Overrides { activation: Some(Activation::QuickGelu), ..heads };
        let config = bare(name, &told).unwrap().config;
        assert_eq!(config.vit().unwrap().activation, Activation::QuickGelu);
    }
    for (name, usual) in [("hf_vit", Activation::Gelu), ("hf_siglip", Activation::GeluTanh)] {
        let recognised = bare(name, &heads).unwrap();
        assert_eq!(recognised.config.vit().unwrap().activation, usual);
        for what in ["activation assumed", "eps assumed"] {
            assert!(recognised.notes.iter().any(|n| n.what.contains(what)), "{:?}", recognised.notes);
        }
    }
}

/// OpenAI's archives have three numbers besides, and QuickGELU without exception. One number less, and it is asked for again.
#[test]
fn openais_own_files_are_known() {
    const NUMBERS: [&str; 3] = ["input_resolution", "context_length", "vocab_size"];
    let heads = Overrides { heads: Some(4), ..Overrides::default() };
    for (wrapper, count) in [("", 3), ("module.", 3), ("", 2)] {
        let family = Family::new("open_clip");
        fs::remove_file(family.path("config.json")).unwrap();
        let bytes = fs::read(family.path("model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let number = 16i64.to_le_bytes();
        let number = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![], &number).unwrap();
        let own = tensors.tensors().into_iter().map(|(key, view)| (format!("{wrapper}{key}"), view));
        let added = NUMBERS.iter().take(count).map(|name| (format!("{wrapper}{name}"), number.clone()));
        fs::write(family.path("model.safetensors"), safetensors::serialize(own.chain(added), None).unwrap()).unwrap();
        let read = |overrides: &Overrides| recognise(&Checkpoint::open(family.dir.path()).unwrap(), overrides);
        if count < 3 {
            assert_error(read(&heads), &["activation can't be told"]);
            continue;
        }
        let recognised = read(&heads).unwrap();
        assert_eq!(recognised.config.vit().unwrap().activation, Activation::QuickGelu);
        assert!(recognised.sources["activation"].contains("OpenAI's own file"), "{:?}", recognised.sources);
        assert!(NUMBERS.iter().all(|name| recognised.ignored.contains(&format!("{wrapper}{name}"))));
        // Flags win, as they do everywhere.
        let gelu = read(&Overrides { activation: Some(Activation::Gelu), ..heads.clone() }).unwrap();
        assert_eq!(gelu.config.vit().unwrap().activation, Activation::Gelu);
    }
}

/// torchvision has no configuration: the name of its own file tells how images are made.
#[test]
fn torchvisions_own_files_are_known_by_their_names() {
    let family = Family::new("torchvision_vit");
    let named = |name: &str| {
        fs::copy(family.path("model.safetensors"), family.path(name)).unwrap();
        recognise(&Checkpoint::open(family.path(name)).unwrap(), &Overrides::default()).unwrap()
    };
    let own = named("vit_b_16_swag-9ac1b537.safetensors");
    assert_eq!((own.preprocess.crop_pct, own.preprocess.interpolation), (1.0, Interpolation::Bicubic));
    assert!(own.notes.iter().all(|n| !n.what.contains("preprocessing assumed")), "{:?}", own.notes);
    let other = named("vit.safetensors");
    assert_eq!((other.preprocess.crop_pct, other.preprocess.interpolation), (0.875, Interpolation::Bilinear));
    assert!(other.notes.iter().any(|n| n.what.contains("preprocessing assumed")), "{:?}", other.notes);
    let resnet = |name: &str| {
        let path = family.path(name);
        fs::copy(common::fixture_path("resnet_basic"), &path).unwrap();
        recognise(&Checkpoint::open(&path).unwrap(), &Overrides::default()).unwrap().preprocess.crop_pct
    };
    assert_eq!(resnet("resnet50-11ad3fa6.safetensors"), 224.0 / 232.0);
    assert_eq!(resnet("resnet50-0676ba61.safetensors"), 0.875);
    fs::write(family.path("densenet121-a639ec97.safetensors"), fs::read(common::fixture_path("pins")).unwrap())
        .unwrap();
    let error = Checkpoint::open(family.path("densenet121-a639ec97.safetensors"))
        .and_then(|file| recognise(&file, &Overrides::default()));
    assert_error(error, &["torchvision's densenet121", "not supported yet"]);

    // The published files have an earlier release's names for the two layers of an MLP.
    let bytes = fs::read(family.path("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let earlier = |key: &str| key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2.");
    let tensors: Vec<_> = file.tensors().into_iter().map(|(key, view)| (earlier(&key), view)).collect();
    fs::write(family.path("earlier.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    let read = Source::open(&family.path("earlier.safetensors"), &Overrides::default()).unwrap();
    assert_eq!(read.weights, family.open().weights);
}

#[test]
fn configurations_tell_heads_activation_and_eps() {
    for (name, heads, activation, eps) in [
        ("hf_vit", 4, Activation::Gelu, 1e-12),
        ("hf_clip", 4, Activation::QuickGelu, 1e-5),
        ("hf_siglip", 4, Activation::GeluTanh, 1e-6),
        ("open_clip", 4, Activation::QuickGelu, 1e-5),
        ("open_clip_gelu", 4, Activation::Gelu, 1e-5),
        ("timm_clip", 3, Activation::QuickGelu, 1e-5),
        ("timm_siglip", 4, Activation::Gelu, 1e-6),
    ] {
        let family = Family::new(name);
        let recognised = recognise(&Checkpoint::open(family.dir.path()).unwrap(), &Overrides::default()).unwrap();
        let config = recognised.config.vit().unwrap();
        assert_eq!((config.heads, config.activation, config.eps), (heads, activation, eps), "{name}");
    }
}

#[test]
fn prefix_tokens_and_their_positions_follow_from_the_shapes() {
    for (name, registers, distilled, positions) in [
        ("deit_distilled", 0, true, Positions::All),
        ("deit3", 0, false, Positions::Patches),
        ("timm_dinov2_reg4", 4, false, Positions::Patches),
        ("hf_dinov2_reg", 3, false, Positions::Class),
    ] {
        let config = Family::new(name).open().recognised.config;
        let parts = &config.vit().unwrap().parts;
        assert_eq!((parts.registers, parts.distilled, parts.positions), (registers, distilled, positions), "{name}");
    }
}

#[test]
fn wrappers_come_off_and_go_back_on() {
    for (name, from, to) in [
        ("hf_vit", "", "module."),
        ("hf_vit", "vit.", ""),
        ("hf_clip", "", "_orig_mod.model."),
        ("hf_siglip", "", "vision_model."),
        ("hf_dinov2", "", "dinov2."),
        ("open_clip", "", "module."),
        ("hf_resnet", "", "module."),
        ("timm_dinov2_reg4", "", "visual.trunk."),
    ] {
        let family = Family::new(name);
        let own = family.open();
        let bytes = fs::read(family.path("model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let renamed = |key: &str| match key.strip_prefix(from) {
            Some(rest) => format!("{to}{rest}"),
            None => key.to_string(),
        };
        let tensors: Vec<_> = tensors.tensors().into_iter().map(|(key, view)| (renamed(&key), view)).collect();
        let wrapped = safetensors::serialize(tensors, None).unwrap();
        fs::write(family.path("model.safetensors"), wrapped).unwrap();
        let read = family.open();
        assert_eq!(read.recognised.config, own.recognised.config, "{name} as {to}");
        assert_eq!(read.weights, own.weights, "{name} as {to}");
        let in_file = |source: &Source| source.recognised.names.iter().map(|n| n.1.clone()).collect::<Vec<_>>();
        let head = own.recognised.head_file.is_some();
        for (was, is) in in_file(&own).iter().zip(in_file(&read)).take(own.weights.len() - usize::from(head)) {
            assert_eq!(renamed(was), is, "{name}");
        }
    }
}

#[test]
fn families_by_name() {
    let family = Family::new("hf_clip");
    let checkpoint = Checkpoint::open(family.dir.path()).unwrap();
    let read = |slug: &str| recognise(&checkpoint, &Overrides { family: Some(slug.into()), ..Overrides::default() });
    assert_eq!(read("hf-clip").unwrap().family, "transformers CLIP vision");
    assert_error(read("timm-vit"), &["--family: ", "is no timm-vit: "]);
    assert_usage(read("hfclip"), &["--family: hfclip is no family: there are ", "hf-siglip"]);
    let names = read("hf-clip").unwrap().names;
    let in_file = |name: &str| &names.iter().find(|(own, _)| own == name).unwrap().1;
    assert_eq!(in_file("blocks.0.attn.q.weight"), "vision_model.encoder.layers.0.self_attn.q_proj.weight");
    assert_eq!(in_file("proj.weight"), "visual_projection.weight");
}

#[test]
fn timm_clip_has_its_projection_for_a_head_unless_another_reads_it() {
    let family = Family::new("timm_clip");
    let own = Source::open(family.dir.path(), &Overrides::default()).unwrap();
    assert_eq!((own.recognised.config.classes(), own.recognised.config.width()), (24, 36));
    let logits = predict(&own, &own.snapshot(), &family.golden.f32("images"));
    assert!(relative(&logits, &family.golden.f32("own")) < LOGITS);
    let behind = family.open();
    assert_eq!((behind.recognised.config.classes(), behind.recognised.config.width()), (5, 24));
    assert_eq!(behind.recognised.head_names[0], "classifier.weight");
}

#[test]
fn a_head_from_another_file_is_checked_and_told() {
    let family = Family::new("hf_dinov2");
    let open = || recognise(&Checkpoint::open(family.dir.path()).unwrap(), &family.overrides());
    let recognised = open().unwrap();
    assert!(recognised.initialised.is_empty());
    assert!(
        recognised.notes.iter().any(|n| n.what.contains("head for 5 classes") && n.what.contains("head.safetensors"))
    );
    let mut source = family.open();
    let classes = source.fit_classes(&labelled(&["a", "b", "c", "d", "e"]), None, 0).unwrap();
    assert_eq!(classes.len(), 5);
    assert!(source.recognised.initialised.is_empty(), "a head that fits stays");
    assert_error(
        family.open().fit_classes(&labelled(&["a", "b"]), None, 0),
        &["head.safetensors", "other classes (5)", "(2)"],
    );

    let write = |tensors: &[(&str, Vec<usize>)]| {
        let values = vec![0.5f32; 5 * 64];
        let of = |(name, shape): &(&str, Vec<usize>)| {
            (name.to_string(), shape.clone(), &values[..shape.iter().product::<usize>()])
        };
        let tensors: Vec<_> = tensors.iter().map(of).collect();
        write_safetensors(family.path("head.safetensors"), &tensors, &Default::default()).unwrap();
    };
    write(&[("w", vec![5, 32])]);
    assert_error(open(), &["head.safetensors", "[5, 32]", "64 long"]);
    for wrong in [vec![("w", vec![5, 8, 8])], vec![("w", vec![5, 64]), ("v", vec![5, 64])], vec![("b", vec![5])]] {
        write(&wrong);
        assert_error(open(), &["head.safetensors", "is no head"]);
    }
    write(&[("w", vec![5, 64]), ("b", vec![5])]);
    assert_eq!(open().unwrap().names.last().unwrap().0, "head.bias");
}

#[test]
fn a_new_head_is_told_and_has_no_bias_on_normalised_features() {
    for (name, normalize, expected) in [
        ("deit_distilled", None, &["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"][..]),
        ("open_clip", Some(true), &["head.weight"]),
        ("open_clip", None, &["head.weight", "head.bias"]),
        ("timm_clip", Some(true), &["head.weight"]),
        ("timm_clip", None, &["head.weight", "head.bias"]),
        ("hf_resnet", Some(true), &["fc.weight", "fc.bias"]),
    ] {
        let family = Family::new(name);
        let image_size = family.overrides().image_size;
        let overrides = Overrides { normalize, image_size, ..Overrides::default() };
        let mut source = Source::open(family.dir.path(), &overrides).unwrap();
        source.fit_classes(&labelled(&["a", "b", "c"]), None, 0).unwrap();
        assert_eq!(source.recognised.initialised, expected, "{name}");
        assert!(source.recognised.notes.iter().any(|n| n.what.contains("a new one for 3 classes")), "{name}");
        let logits = predict(&source, &source.snapshot(), &family.golden.f32("images"));
        assert!(logits.len() == 12 && logits.iter().all(|l| l.is_finite()));
        let path = family.path("saved.safetensors");
        source.save(&path, &source.snapshot()).unwrap();
        fs::rename(&path, family.path("model.safetensors")).unwrap();
        let again = Source::open(family.dir.path(), &Overrides { image_size, ..Overrides::default() }).unwrap();
        assert_eq!(again.recognised.config, source.recognised.config, "{name}");
        assert_eq!(predict(&again, &again.snapshot(), &family.golden.f32("images")), logits, "{name}");
    }
}

#[test]
fn positions_are_resized_as_the_library_does() {
    for name in ["timm_vit", "hf_dinov2"] {
        let family = Family::new(name);
        let size = family.golden.json("resized_size").as_u64().unwrap() as usize;
        let overrides = Overrides { image_size: Some(size), ..family.overrides() };
        let source = Source::open(family.dir.path(), &overrides).unwrap();
        assert!(source.recognised.notes.iter().any(|n| n.what.contains("positions resized from 4 x 4")));
        let pos = |source: &Source| source.weights.iter().find(|(name, ..)| name == "pos_embed").unwrap().clone();
        let (_, shape, values) = pos(&source);
        assert_eq!(shape, [1, 37, values.len() / 37]);
        let error = relative(&values, &family.golden.f32("resized.pos"));
        assert!(error < 1e-5, "{name}: {error:e}");
        let images = family.golden.f32("resized.images");
        let error = relative(&predict(&source, &source.snapshot(), &images), &family.golden.f32("resized.logits"));
        assert!(error < LOGITS, "{name}: {error:e}");
        // It is saved at its new size, and opens so.
        let path = family.path("saved.safetensors");
        source.save(&path, &source.snapshot()).unwrap();
        let again = Source::open(&path, &Overrides::default()).unwrap();
        assert_eq!(again.recognised.config.image_size(), size);
        assert_eq!(pos(&again), pos(&source));
    }
    let family = Family::new("timm_vit");
    let smaller = Source::open(family.dir.path(), &Overrides { image_size: Some(12), ..Overrides::default() }).unwrap();
    let pos = &smaller.weights.iter().find(|(name, ..)| name == "pos_embed").unwrap().2;
    assert!(relative(pos, &family.golden.f32("smaller.pos")) < 1e-5);
    let huge = Source::open(family.dir.path(), &Overrides { image_size: Some(1 << 20), ..Overrides::default() });
    assert_usage(huge, &["--image-size: ", "more than 16384"]);
    let odd = Source::open(family.dir.path(), &Overrides { image_size: Some(18), ..Overrides::default() });
    assert_usage(odd, &["--image-size: ", "patch size 4"]);
}

#[test]
fn every_family_of_vision_transformers_takes_another_image_size() {
    for name in ["deit_distilled", "deit3", "timm_dinov2_reg4", "timm_siglip", "hf_clip", "hf_siglip", "open_clip"] {
        let family = Family::new(name);
        let overrides = Overrides { image_size: Some(20), ..family.overrides() };
        let source = Source::open(family.dir.path(), &overrides).unwrap();
        let images = vec![0.3; 4 * 3 * 20 * 20];
        assert!(predict(&source, &source.snapshot(), &images).iter().all(|l| l.is_finite()), "{name}");
    }
}

#[test]
fn preprocessing_comes_from_the_processor() {
    let family = Family::new("hf_dinov2");
    let processor = r#"{"do_center_crop": true, "crop_size": {"height": 12, "width": 12}, "size": {"shortest_edge": 16},
        "resample": 3, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}"#;
    fs::write(family.path("preprocessor_config.json"), processor).unwrap();
    let recognised = recognise(&Checkpoint::open(family.dir.path()).unwrap(), &family.overrides()).unwrap();
    let p = recognised.preprocess;
    assert_eq!((p.image_size, p.crop_pct, p.mean, p.std), (12, 0.75, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]));
    assert!(recognised.notes.iter().any(|n| n.what.contains("to 3 x 3 (12 pixels)")), "{:?}", recognised.notes);
    fs::write(family.path("preprocessor_config.json"), r#"{"image_mean": [1]}"#).unwrap();
    let bad = recognise(&Checkpoint::open(family.dir.path()).unwrap(), &family.overrides());
    assert_error(bad, &["preprocessor_config.json", "image_mean", "three numbers"]);
}

#[test]
fn what_computes_something_else_is_refused_by_name() {
    let changed = |name: &str, key: &str, value: serde_json::Value| {
        let family = Family::new(name);
        let mut config = family.golden.json("config");
        config[key] = value;
        fs::write(family.path("config.json"), config.to_string()).unwrap();
        recognise(&Checkpoint::open(family.dir.path()).unwrap(), &Overrides::default())
    };
    assert_error(changed("hf_resnet", "downsample_in_bottleneck", true.into()), &["downsample_in_bottleneck"]);
    assert_error(changed("hf_resnet", "hidden_act", "gelu".into()), &["hidden_act"]);
    assert_error(changed("hf_vit", "hidden_act", "swish".into()), &["hidden_act", "swish"]);
    assert_error(changed("hf_vit", "layer_norm_eps", (-1).into()), &["layer_norm_eps"]);
    let mean = Overrides { pool: Some(Pool::Mean), ..Overrides::default() };
    let distilled = Family::new("deit_distilled");
    assert_error(recognise(&Checkpoint::open(distilled.dir.path()).unwrap(), &mean), &["two heads", "cls"]);
    let siglip = Family::new("hf_siglip");
    let told = recognise(&Checkpoint::open(siglip.dir.path()).unwrap(), &mean);
    assert_usage(told, &["--pool: ", "an attention pool, and no other"]);
}

#[test]
fn mae_gets_a_new_norm_after_the_mean_on_request() {
    let family = Family::new("timm_dino");
    let asked = Overrides { pool: Some(Pool::Mean), fc_norm: true, ..family.overrides() };
    let source = Source::open(family.dir.path(), &asked).unwrap();
    assert_eq!(source.recognised.initialised, ["fc_norm.weight", "fc_norm.bias"]);
    assert!(source.recognised.ignored.contains(&"norm.weight".to_string()));
    assert!(source.recognised.notes.iter().any(|n| n.what.contains("a new fc_norm")));
    let norm = &source.weights.iter().find(|(name, ..)| name == "fc_norm.weight").unwrap().2;
    assert_eq!(*norm, [1.0; 36]);
    let images = family.golden.f32("images");
    let logits = predict(&source, &source.snapshot(), &images);
    let path = family.path("saved.safetensors");
    source.save(&path, &source.snapshot()).unwrap();
    let again = Source::open(&path, &Overrides::default()).unwrap();
    assert_eq!(again.recognised.config, source.recognised.config);
    assert_eq!(predict(&again, &again.snapshot(), &images), logits);
    let alone = Overrides { fc_norm: true, ..family.overrides() };
    assert_usage(Source::open(family.dir.path(), &alone).map(|_| ()), &["mean pooling", "--pool mean", "--fc-norm"]);
}

#[test]
fn a_resnet_of_clip_takes_a_zero_shot_head_on_unit_features() {
    let golden = Fixture::open("clip_resnet_golden");
    let (features, weight) = (golden.f32("eval.features"), Family::new("open_clip").golden.f32("head"));
    let weight = &weight[..5 * 12];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("head.safetensors");
    write_safetensors(&path, &[("text".to_string(), vec![5, 12], weight)], &Default::default()).unwrap();
    let overrides = Overrides { heads: Some(4), head: Some(path), normalize: Some(true), ..Overrides::default() };
    let source = Source::open(&common::fixture_path("clip_resnet"), &overrides).unwrap();
    let images = Fixture::open("clip_resnet_images");
    let one = images.f32("images").len() / images.u32("labels").len();
    let rows = golden.u32("batches");
    let pixels: Vec<f32> =
        rows[..4].iter().flat_map(|i| images.f32("images")[*i as usize * one..][..one].to_vec()).collect();
    let want: Vec<f32> = features[..4 * 12]
        .chunks(12)
        .flat_map(|f| {
            let norm = f.iter().map(|v| v * v).sum::<f32>().sqrt();
            weight.chunks(12).map(|w| f.iter().zip(w).map(|(f, w)| f * w).sum::<f32>() / norm).collect::<Vec<_>>()
        })
        .collect();
    let error = relative(&predict(&source, &source.snapshot(), &pixels), &want);
    assert!(error < LOGITS, "{error:e}");
}

#[test]
fn recomputing_gives_the_same_gradients_in_every_family() {
    for name in ["deit_distilled", "timm_dinov2_reg4", "open_clip", "hf_siglip", "timm_siglip"] {
        let family = Family::new(name);
        let source = family.open();
        let gradients = [false, true].map(|recompute| {
            let settings = tpgm::method::Settings { recompute, ..super::settings(&source) };
            let mut learner = Learner::new(gpu(), source.model(), &source.snapshot(), settings).unwrap();
            family.step(&mut learner);
            gpu().read::<f32>(&learner.dw).unwrap()
        });
        assert!(gradients[0] == gradients[1], "{name}");
    }
}

#[test]
fn a_whole_clip_of_transformers_has_its_tower_under_vision_config() {
    let family = Family::new("hf_clip");
    let tower = family.golden.json("config");
    let whole =
        serde_json::json!({"model_type": "clip", "vision_config": tower, "text_config": {"hidden_act": "gelu"}});
    fs::write(family.path("config.json"), whole.to_string()).unwrap();
    let config = family.open().recognised.config;
    let vit = config.vit().unwrap();
    assert_eq!((vit.activation, vit.heads), (Activation::QuickGelu, 4));
}
