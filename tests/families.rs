//! Every family of checkpoints against the library it comes from (`fixtures/generate_families.py` and its neighbours): logits, one training step
//! in every gradient, and the saved file. The files saved here go to `target/tmp/families`, where
//! `fixtures/verify_home.py` loads them back into those libraries.

mod common;

#[path = "families/contradictions.rs"]
mod contradictions;
#[path = "families/convnets.rs"]
mod convnets;
#[path = "families/dropped.rs"]
mod dropped;
#[path = "families/exported.rs"]
mod exported;
#[path = "families/features.rs"]
mod features;
#[path = "families/gated.rs"]
mod gated;
#[path = "families/keys.rs"]
mod keys;
#[path = "families/matrix.rs"]
mod matrix;
#[path = "families/onnx/mod.rs"]
mod onnx;
#[path = "families/projected.rs"]
mod projected;
#[path = "families/resized.rs"]
mod resized;
#[path = "families/stems.rs"]
mod stems;
#[path = "families/told.rs"]
mod told;
#[path = "families/vits.rs"]
mod vits;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Fixture, gpu, relative};
use safetensors::tensor::Dtype;
use tpgm::checkpoint::{Overrides, write_safetensors};
use tpgm::method::{BatchNorm, Learner, Optimizer, Settings, Snapshot};
use tpgm::ops::sgd::Sgd;
use tpgm::train::evaluate::{Classifier, Predictor};
use tpgm::train::source::Source;

const LOGITS: f32 = 1e-4;
const GRADIENTS: f32 = 1e-3;
/// A gradient that is zero but for rounding, as a share of the largest of the weight's beside it.
const NOISE: f32 = 1e-5;

/// A family's fixture in a folder of its own, as its library leaves it there.
struct Family {
    golden: Fixture,
    dir: tempfile::TempDir,
}

impl Family {
    fn new(name: &str) -> Family {
        let golden = Fixture::open(&format!("families/{name}_golden"));
        let dir = tempfile::tempdir().unwrap();
        fs::copy(common::fixture_path(&format!("families/{name}")), dir.path().join("model.safetensors")).unwrap();
        if !golden.json("config").is_null() {
            fs::write(dir.path().join("config.json"), golden.json("config").to_string()).unwrap();
        }
        let family = Family { golden, dir };
        if family.golden.has("head") {
            let head = [("text".to_string(), family.golden.shape("head"), family.golden.f32("head"))];
            let head = head.each_ref().map(|(n, s, v)| (n.clone(), s.clone(), v.as_slice()));
            write_safetensors(family.path("head.safetensors"), &head, &BTreeMap::new()).unwrap();
        }
        family
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What has to be said besides the configuration: the head, if there is none in the file.
    fn overrides(&self) -> Overrides {
        let head = self.golden.has("head").then(|| self.path("head.safetensors"));
        // Those of other sizes than most have it in no configuration, or in one that is not theirs.
        let image_size = Some(self.golden.shape("images")[2]).filter(|size| *size != 16);
        let normalize = self.golden.json("normalize").as_bool().filter(|n| *n);
        Overrides { head, normalize, image_size, ..Overrides::default() }
    }

    fn open(&self) -> Source {
        Source::open(self.dir.path(), &self.overrides()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn step(&self, learner: &mut Learner) {
        let lr = self.golden.json("lr").as_f64().unwrap();
        learner.step(&self.golden.f32("images"), &self.golden.u32("labels"), lr).unwrap();
    }
}

fn settings(source: &Source) -> Settings {
    let plain = Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
    Settings {
        optimizer: Optimizer::Sgd(plain),
        clip_norm: 0.0,
        smoothing: 0.0,
        micro_batch: 4,
        batch_norm: if source.stats.is_empty() { BatchNorm::Train } else { BatchNorm::Frozen },
        recompute: false,
        half: None,
    }
}

fn learner(source: &Source) -> Learner<'static> {
    Learner::new(gpu(), source.model(), &source.snapshot(), settings(source)).unwrap()
}

/// Where a family is saved for the library that it comes from.
fn home(name: &str) -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("families").join(name);
    fs::create_dir_all(&home).unwrap();
    home
}

fn write_logits(home: &Path, shape: &[usize], images: &[f32], logits: &[f32]) {
    let tensors =
        [("images".to_string(), shape.to_vec(), images), ("logits".to_string(), vec![4, logits.len() / 4], logits)];
    write_safetensors(home.join("logits.safetensors"), &tensors, &BTreeMap::new()).unwrap();
}

fn predict(source: &Source, values: &Snapshot, images: &[f32]) -> Vec<f32> {
    Predictor::new(gpu(), source.model(), values, 4).unwrap().logits(images, 4).unwrap()
}

/// The elements that the goldens have of a tensor.
fn sampled(values: &[f32]) -> Vec<f32> {
    match values.len() {
        ..=256 => values.to_vec(),
        n => (0..256).map(|i| values[7919 * i % n]).collect(),
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |m, v| m.max(v.abs()))
}

/// Logits of the checkpoint as its library leaves it.
fn logits(name: &str) {
    let family = Family::new(name);
    let source = family.open();
    let logits = predict(&source, &source.snapshot(), &family.golden.f32("images"));
    let error = relative(&logits, &family.golden.f32("logits"));
    println!("{name}: logits {error:.1e}; {:?}", source.recognised.notes);
    assert!(error < LOGITS, "{name}: {error:e}");
}

/// Loss, every gradient, and every tensor after one step.
fn training_step(name: &str) {
    let family = Family::new(name);
    let source = family.open();
    let mut learner = learner(&source);
    family.step(&mut learner);
    let error = relative(&[learner.records(true).unwrap()[0].loss], &family.golden.f32("loss"));
    assert!(error < LOGITS, "{name}: loss {error:e}");
    let in_file: BTreeMap<_, _> = source.recognised.names.iter().cloned().collect();
    let (dw, w) = (gpu().read(&learner.dw).unwrap(), gpu().read(&learner.w).unwrap());
    let layout = learner.model.layout();
    let mut worst = [(0.0f32, String::new()), (0.0, String::new())];
    for ((param, gradient), (_, after)) in layout.unpack(&dw).zip(layout.unpack(&w)) {
        let key = &in_file[&param.name];
        let (gradient, want) = (sampled(gradient), family.golden.f32(&format!("grad.{key}")));
        if param.name.ends_with("attn.k.bias") {
            // Softmax ignores a bias of all keys.
            let noise =
                largest(&gradient) / largest(&family.golden.f32(&format!("grad.{}", key.replace("bias", "weight"))));
            assert!(noise < NOISE, "{key}: {noise:e}");
            continue;
        }
        let want_after = family.golden.f32(&format!("after.{key}"));
        let errors = [relative(&gradient, &want), relative(&sampled(after), &want_after)];
        for (worst, error) in worst.iter_mut().zip(errors) {
            if error >= worst.0 {
                *worst = (error, key.clone());
            }
        }
    }
    println!("{name}: gradient {:.1e} ({}), after the step {:.1e}", worst[0].0, worst[0].1, worst[1].0);
    for (error, key) in &worst {
        assert!(*error < GRADIENTS, "{name}: {key}: {error:e}");
    }
    let count = family.golden.tensors().names().iter().filter(|key| key.starts_with("grad.")).count();
    assert_eq!(count, layout.params.len(), "every tensor that the library trains");
    let logits = learner.logits(&family.golden.f32("images"), 4).unwrap();
    let error = relative(&logits, &family.golden.f32("after.logits"));
    assert!(error < GRADIENTS, "{name}: logits after the step: {error:e}");
}

/// The saved file: the source's names, shapes and types, the rest byte for byte; and it opens again without a flag.
fn saved(name: &str) {
    let family = Family::new(name);
    let source = family.open();
    let mut learner = learner(&source);
    family.step(&mut learner);
    let home = home(name);
    if family.path("config.json").exists() {
        fs::copy(family.path("config.json"), home.join("config.json")).unwrap();
    }
    let path = home.join("model.safetensors");
    source.save(&path, &learner.snapshot().unwrap()).unwrap();

    let (before, after) = (fs::read(family.path("model.safetensors")).unwrap(), fs::read(&path).unwrap());
    let [before, after] = [&before, &after].map(|bytes| safetensors::SafeTensors::deserialize(bytes).unwrap());
    let names = |file: &safetensors::SafeTensors| file.names().iter().map(|n| n.to_string()).collect::<Vec<_>>();
    let mut expected = names(&before);
    if family.golden.has("head") {
        expected.push(source.recognised.head_names[0].clone());
    }
    let mut found = names(&after);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    let trained: Vec<&String> = source.recognised.names.iter().map(|(_, in_file)| in_file).collect();
    let mut dtype = Dtype::F32;
    for (key, tensor) in before.tensors() {
        let own = after.tensor(&key).unwrap();
        assert_eq!((own.dtype(), own.shape()), (tensor.dtype(), tensor.shape()), "{key}");
        assert!(trained.contains(&&key) || own.data() == tensor.data(), "{key} was to be carried along");
        if tensor.dtype() != Dtype::I64 {
            dtype = tensor.dtype();
        }
    }

    // Rounding to 11 or 8 bits of every weight; f32 comes back as it was.
    let tolerance = match dtype {
        Dtype::F16 => 3e-2,
        Dtype::BF16 => 2e-1,
        _ => 1e-6,
    };
    let overrides = Overrides { image_size: family.overrides().image_size, ..Overrides::default() };
    let again = Source::open(&home, &overrides).unwrap();
    assert_eq!(again.recognised.config, source.recognised.config);
    assert_eq!(again.recognised.family, source.recognised.family);
    let images = family.golden.f32("images");
    let logits = predict(&again, &again.snapshot(), &images);
    let error = relative(&logits, &learner.logits(&images, 4).unwrap());
    assert!(error < tolerance, "{name}: {error:e}");
    write_logits(&home, &family.golden.shape("images"), &images, &logits);
    println!("{name}: saved as {dtype:?}, logits {error:.1e}");
}

macro_rules! families {
    ($($name:ident)*) => {
        $(
            mod $name {
                #[test]
                fn logits() {
                    super::logits(stringify!($name));
                }

                #[test]
                fn training_step() {
                    super::training_step(stringify!($name));
                }

                #[test]
                fn saved() {
                    super::saved(stringify!($name));
                }
            }
        )*

        /// All fixtures.
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        #[test]
        fn every_fixture_has_its_tests() {
            for file in fs::read_dir(common::fixture_path("families").with_extension("")).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                let name = name.trim_end_matches(".safetensors").trim_end_matches("_golden");
                assert!(NAMES.contains(&name), "{name}");
            }
        }
    };
}

/// The fixtures of the other generators, whose logits and gradients `golden.rs` and `golden_resnet.rs` hold: a step, saved
/// under the source's names for `verify_home.py`.
#[test]
fn saved_resnets_and_vit() {
    for (name, images, size, heads) in [
        ("vit_small", "vit_small_golden", None, Some(3)),
        ("resnet_basic", "resnet_images", Some(36), None),
        ("resnet_d", "resnet_images", Some(36), None),
        ("clip_resnet", "clip_resnet_images", Some(64), Some(4)),
    ] {
        let overrides = Overrides { image_size: size, heads, ..Overrides::default() };
        let source = Source::open(&common::fixture_path(name), &overrides).unwrap();
        let images = Fixture::open(images);
        let (pixels, shape) = (images.f32("images"), images.shape("images"));
        let (pixels, labels) = (&pixels[..4 * shape[1..].iter().product::<usize>()], &images.u32("labels")[..4]);
        let mut learner = learner(&source);
        learner.step(pixels, labels, 0.01).unwrap();
        let home = home(name);
        let path = home.join("model.safetensors");
        source.save(&path, &learner.snapshot().unwrap()).unwrap();
        let again = Source::open(&path, &overrides).unwrap();
        assert_eq!(again.recognised.names, source.recognised.names);
        let logits = predict(&again, &again.snapshot(), pixels);
        assert_eq!(logits, learner.logits(pixels, 4).unwrap(), "{name}");
        write_logits(&home, &[4, shape[1], shape[2], shape[3]], pixels, &logits);
    }
}

/// MoCo-v3: torchvision's names in a wrapper, beside a momentum encoder that is carried along.
#[test]
fn saved_moco() {
    let bytes = fs::read(common::fixture_path("resnet_bottleneck")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let encoder: Vec<_> = file.tensors().into_iter().filter(|(key, _)| !key.starts_with("fc.")).collect();
    let under = |prefix: &str| {
        encoder.iter().map(|(key, view)| (format!("module.{prefix}.{key}"), view.clone())).collect::<Vec<_>>()
    };
    let both = [under("base_encoder"), under("momentum_encoder")].concat();
    let dir = tempfile::tempdir().unwrap();
    let metadata = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    fs::write(dir.path().join("moco.safetensors"), safetensors::serialize(both, Some(metadata)).unwrap()).unwrap();
    let head = Fixture::open("resnet_bottleneck");
    let (weight, bias) = (head.f32("fc.weight"), head.f32("fc.bias"));
    let tensors = [
        ("weight".to_string(), head.shape("fc.weight"), weight.as_slice()),
        ("bias".to_string(), vec![5], bias.as_slice()),
    ];
    write_safetensors(dir.path().join("head.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    let overrides =
        Overrides { image_size: Some(36), head: Some(dir.path().join("head.safetensors")), ..Overrides::default() };
    let source = Source::open(&dir.path().join("moco.safetensors"), &overrides).unwrap();
    let images = Fixture::open("resnet_images");
    let (pixels, shape) = (images.f32("images"), images.shape("images"));
    let (pixels, labels) = (&pixels[..4 * shape[1..].iter().product::<usize>()], &images.u32("labels")[..4]);
    let own = Source::open(
        &common::fixture_path("resnet_bottleneck"),
        &Overrides { image_size: Some(36), ..Overrides::default() },
    )
    .unwrap();
    assert_eq!(predict(&source, &source.snapshot(), pixels), predict(&own, &own.snapshot(), pixels));
    let mut learner = learner(&source);
    learner.step(pixels, labels, 0.01).unwrap();
    let home = home("moco");
    source.save(&home.join("model.safetensors"), &learner.snapshot().unwrap()).unwrap();
    let saved = fs::read(home.join("model.safetensors")).unwrap();
    let saved = safetensors::SafeTensors::deserialize(&saved).unwrap();
    for (key, view) in under("momentum_encoder") {
        assert_eq!(saved.tensor(&key).unwrap().data(), view.data(), "{key}");
    }
    assert_eq!(saved.names().len(), 2 * encoder.len() + 2);
    assert!(saved.tensor("module.base_encoder.fc.weight").is_ok());
    let logits = learner.logits(pixels, 4).unwrap();
    write_logits(&home, &[4, shape[1], shape[2], shape[3]], pixels, &logits);
}

families! {
    timm_vit timm_vit_bf16 timm_dino timm_mae deit_distilled deit3 timm_dinov2_reg4 timm_clip timm_siglip hf_vit hf_dinov2
    hf_dinov2_reg open_clip open_clip_gelu hf_clip hf_siglip hf_resnet timm_dinov2_giant hf_dinov2_giant
    torchvision_vit hf_vit_memory hf_deit hf_deit_teacher hf_msn hf_ijepa hf_dinov2_classifier hf_dinov2_reg_memory
    hf_clip_classifier hf_siglip_classifier open_clip_mean open_clip_timm timm_leftover hf_vit_narrow
    timm_eva02 timm_eva02_clip timm_eva_post timm_dinov3 timm_rope timm_rope_mixed timm_pe timm_beit timm_beit3 timm_aimv2
    timm_post_norm timm_parallel timm_reg_gap timm_radio timm_mobileclip timm_vitamin timm_vitamin_xl open_clip_coca
    hf_beit hf_beit_memory hf_data2vec hf_dinov3 hf_dinov3_memory hf_dinov3_convnext hf_dinov3_convnext_memory hf_msn_memory
    hf_dinov2_memory
    timm_convnext timm_convnext_f16 timm_convnext_first timm_convnextv2 open_clip_convnext open_clip_convnext_mlp
    hf_convnext hf_convnextv2 tv_convnext timm_seresnet timm_ecaresnet timm_resnetaa timm_seresnextaa timm_resnetrs
    timm_senet timm_regnet tv_regnet timm_efficientnet timm_mobilenetv2 timm_mobilenetv3
    grey_vit grey_resnet grey_convnext grey_mobilenet hf_grey_vit timm_bit timm_resnetv2 timm_resnetv2_basic
    timm_mobilenetv4 timm_mobilenetv4_aa tv_efficientnet tv_efficientnet_v2 tv_mobilenetv2 tv_mobilenetv3 tv_mnasnet
    tv_vgg tv_vgg_bn timm_vgg timm_legacy_seresnet timm_legacy_seresnet_basic timm_legacy_senet
    timm_resnet_silu timm_hybrid timm_hybrid_stem
    timm_siglip_narrow hf_siglip_narrow open_clip_coca_narrow
    timm_resnet_gn timm_resnetblur timm_resnetblur_basic timm_mobilenetv4_blur timm_mixnet timm_mixnet_same
    timm_efficientnet_odd timm_resnetv2_odd timm_resnest timm_resnest_four timm_resnest_one timm_edgetpu
}
