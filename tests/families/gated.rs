//! Gated MLPs (SwiGLU): known by their shapes, whatever else is said, under three libraries' names.

use std::fs;

use safetensors::SafeTensors;
use safetensors::tensor::serialize;
use serde_json::Value;
use tpgm::checkpoint::{Checkpoint, Overrides, Recognised, fresh_vit, recognise, write_model};
use tpgm::error::Result;
use tpgm::method::{Learner, LossScaling, Settings};
use tpgm::model::ModelConfig;
use tpgm::model::config::{Positions, VitConfig};
use tpgm::shapes::Activation;
use tpgm::train::source::Source;

use super::common::{gpu, relative};
use super::told::{assert_error, assert_usage};
use super::{Family, predict, sampled};

fn read(family: &Family, overrides: &Overrides) -> Result<Recognised> {
    recognise(&Checkpoint::open(family.dir.path())?, overrides)
}

/// The fixture with its tensors renamed.
fn renamed(family: &Family, rename: impl Fn(&str) -> String) {
    let bytes = fs::read(family.path("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<_> = file.tensors().into_iter().map(|(key, view)| (rename(&key), view)).collect();
    fs::write(family.path("model.safetensors"), serialize(tensors, None).unwrap()).unwrap();
}

fn configured(family: &Family, change: impl Fn(&mut Value)) {
    let mut config = family.golden.json("config");
    change(&mut config);
    fs::write(family.path("config.json"), config.to_string()).unwrap();
}

#[test]
fn shapes_tell_a_gate_and_nothing_contradicts_them() {
    for (name, heads, mlp_dim) in [("timm_dinov2_giant", 3, 72), ("hf_dinov2_giant", 4, 48)] {
        let family = Family::new(name);
        let bare = Overrides { heads: Some(heads), ..family.overrides() };
        for with_config in [true, false] {
            if !with_config {
                fs::remove_file(family.path("config.json")).unwrap();
            }
            let recognised = read(&family, &bare).unwrap();
            let config = recognised.config.vit().unwrap();
            assert_eq!((config.activation, config.mlp_dim), (Activation::SwiGlu, mlp_dim), "{name}");
            assert_eq!(recognised.sources["activation"], "tensor shapes");
            assert!(!recognised.notes.iter().any(|note| note.what.contains("activation")), "{:?}", recognised.notes);
        }
        let gelu = Overrides { activation: Some(Activation::Gelu), ..bare.clone() };
        assert_usage(read(&family, &gelu), &["--activation: ", "the activation is swiglu"]);
        read(&family, &Overrides { activation: Some(Activation::SwiGlu), ..bare }).unwrap();
    }
    let family = Family::new("timm_dinov2_giant");
    configured(&family, |config| config["model_args"]["act_layer"] = "gelu".into());
    assert_error(read(&family, &family.overrides()), &["act_layer", "gelu", "gated MLPs"]);
    configured(&family, |config| config["model_args"]["act_layer"] = "silu".into());
    read(&family, &family.overrides()).unwrap();

    // Without a gate nobody can ask for one.
    let plain = Family::new("timm_dino");
    let asked = Overrides { activation: Some(Activation::SwiGlu), ..plain.overrides() };
    assert_usage(read(&plain, &asked), &["--activation: ", "mlp.fc1"]);
    let plain = Family::new("hf_dinov2");
    configured(&plain, |config| config["use_swiglu_ffn"] = true.into());
    assert_error(read(&plain, &plain.overrides()), &["use_swiglu_ffn", "weights_in"]);
}

/// The giant as its authors released it, and with registers: these have no positions, the class token has one.
#[test]
fn dinov2s_own_names_are_read_and_kept() {
    let family = Family::new("timm_dinov2_giant");
    let own = family.open();
    let name = |key: &str| key.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3.");
    renamed(&family, name);
    let read = family.open();
    assert_eq!((&read.recognised.config, &read.weights), (&own.recognised.config, &own.weights));
    let in_file: Vec<&String> = read.recognised.names.iter().map(|(_, in_file)| in_file).collect();
    assert!(in_file.contains(&&"blocks.1.mlp.w12.weight".to_string()), "{in_file:?}");
    let path = family.path("saved.safetensors");
    read.save(&path, &read.snapshot()).unwrap();
    assert_eq!(Source::open(&path, &Overrides::default()).unwrap().weights, read.weights);

    // One tensor under both names.
    renamed(&family, |key| if key == "norm.bias" { "blocks.0.mlp.fc1.bias".into() } else { key.into() });
    assert_error(Source::open(family.dir.path(), &family.overrides()), &["tensor blocks.0.mlp.fc1.bias"]);

    let family = Family::new("timm_dinov2_reg4");
    renamed(&family, |key| key.replace("reg_token", "register_tokens"));
    let parts = family.open().recognised.config.vit().unwrap().parts.clone();
    assert_eq!((parts.registers, parts.positions), (4, Positions::Patches));
}

#[test]
fn a_gated_model_is_made_recomputed_and_trained_in_f16() {
    let family = Family::new("timm_dinov2_giant");
    let source = family.open();
    let images = family.golden.f32("images");
    let gradients = [false, true].map(|recompute| {
        let settings = Settings { recompute, ..super::settings(&source) };
        let mut learner = Learner::new(gpu(), source.model(), &source.snapshot(), settings).unwrap();
        family.step(&mut learner);
        gpu().read::<f32>(&learner.dw).unwrap()
    });
    assert_eq!(gradients[0], gradients[1]);

    // A saved model, read by its own metadata, and a fresh one.
    let ModelConfig::Vit(config) = source.recognised.config.clone() else { panic!() };
    let fresh = fresh_vit(&VitConfig { classes: 3, ..config }, 0);
    assert_eq!(fresh.iter().find(|(name, ..)| name == "blocks.0.mlp.fc1.weight").unwrap().1, [144, 36]);
    let path = family.path("saved.safetensors");
    write_model(&path, &source.recognised, &source.weights).unwrap();
    let again = Source::open(&path, &Overrides::default()).unwrap();
    assert_eq!(again.recognised.config, source.recognised.config);
    assert_eq!(predict(&again, &again.snapshot(), &images), predict(&source, &source.snapshot(), &images));

    let half = Settings { half: Some(LossScaling::default()), ..super::settings(&source) };
    let made = Learner::new(gpu(), source.model(), &source.snapshot(), half);
    if gpu().check_f16().is_err() {
        assert_error(made, &["SHADER_F16"]);
        return;
    }
    let mut learner = made.unwrap();
    family.step(&mut learner);
    // As in tests/half.rs: some twenty roundings to 11 bits lie between the pixels and a gradient.
    let error = relative(&[learner.records(true).unwrap()[0].loss], &family.golden.f32("loss"));
    assert!(error < 3e-3, "loss {error:e}");
    let after = gpu().read::<f32>(&learner.w).unwrap();
    for ((param, after), (_, in_file)) in learner.model.layout().unpack(&after).zip(&source.recognised.names) {
        let error = relative(&sampled(after), &family.golden.f32(&format!("after.{in_file}")));
        assert!(error < 6e-3, "{}: {error:e}", param.name);
    }
}
