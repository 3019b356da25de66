//! The fourth link of the chain of trust: small models against PyTorch and timm (`fixtures/generate.py`, which
//! implements the method on its own): logits, every gradient, training losses, and radii after several outer steps.

mod common;
#[path = "golden/labels.rs"]
mod labels;
#[path = "golden/lora.rs"]
mod lora;
#[path = "golden/methods.rs"]
mod methods;
#[path = "golden/soups.rs"]
mod soups;

use common::{Fixture, gpu, relative, with_every_tile};
use tpgm::gpu::{Gpu, View};
use tpgm::method::{BatchNorm, Learner, Optimizer, Settings, Snapshot, Tpgm, TpgmSettings};
use tpgm::model::{Model, VitConfig};
use tpgm::ops::adamw::AdamW;
use tpgm::shapes::Norm;

use tpgm::ops::sgd::Sgd;
use tpgm::train::evaluate::{Classifier, Predictor};
use tpgm::train::tta::Tta;

const LOGITS: f32 = 1e-4;
const GRADIENTS: f32 = 1e-3;
const LOSSES: f32 = 1e-3;
const RADII: f32 = 1e-3;

const PLAIN: Sgd = Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };

fn settings(optimizer: Optimizer, batch: usize) -> Settings {
    Settings {
        optimizer,
        clip_norm: 0.0,
        smoothing: 0.0,
        micro_batch: batch,
        batch_norm: BatchNorm::Train,
        recompute: false,
        half: None,
    }
}

fn model(name: &str) -> (Model, Snapshot) {
    let config: VitConfig = serde_json::from_value(Fixture::open(&format!("{name}_golden")).json("config")).unwrap();
    let model = Model::new(config);
    let weights = Fixture::open(name);
    let tensors: Vec<Vec<f32>> = model.layout().params.iter().map(|p| weights.f32(&p.name)).collect();
    let packed = model.layout().pack(tensors.iter().map(Vec::as_slice));
    (model, Snapshot::of_weights(packed))
}

fn arena(learner: &Learner, view: &View) -> Vec<f32> {
    learner.gpu.read(view).unwrap()
}

/// Every tensor of `got` (an arena image) against `golden[prefix + name]`.
fn assert_tensors(learner: &Learner, got: &[f32], golden: &Fixture, prefix: &str, tolerance: f32) {
    let mut compared = 0;
    for (param, values) in learner.model.layout().unpack(got) {
        let key = format!("{prefix}{}", param.name);
        if golden.has(&key) {
            let error = relative(values, &golden.f32(&key));
            assert!(error < tolerance, "{key}: {error:e}");
            compared += 1;
        }
    }
    assert!(compared > 10, "{prefix}: only {compared} tensors were compared");
}

fn logits_and_gradients(gpu: &Gpu, name: &str) {
    let golden = Fixture::open(&format!("{name}_golden"));
    let (model, weights) = model(name);
    let classes = model.classes();
    let (images, labels) = (golden.f32("images"), golden.u32("labels"));
    for (smoothing, loss, prefix) in [(0.0, "loss", "grad."), (0.1, "loss_smooth", "grad_smooth.")] {
        let settings = Settings { smoothing, ..settings(Optimizer::Sgd(PLAIN), labels.len()) };
        let mut learner = Learner::new(gpu, model.clone(), &weights, settings).unwrap();
        let logits = learner.logits(&images, labels.len()).unwrap();
        assert_eq!(logits.len(), labels.len() * classes);
        let error = relative(&logits, &golden.f32("logits"));
        assert!(error < LOGITS, "{name} logits: {error:e}");

        learner.step(&images, &labels, 0.0).unwrap();
        let record = learner.records(true).unwrap()[0];
        let error = relative(&[record.loss], &golden.f32(loss));
        assert!(error < LOGITS, "{name} {loss}: {error:e}");

        let dw = arena(&learner, &learner.dw);
        if smoothing > 0.0 {
            let head = learner.model.layout().index("head.weight");
            let (_, values) = learner.model.layout().unpack(&dw).nth(head).unwrap();
            let error = relative(values, &golden.f32("grad_smooth.head.weight"));
            assert!(error < GRADIENTS, "{name} {prefix}: {error:e}");
        } else {
            assert_tensors(&learner, &dw, &golden, prefix, GRADIENTS);
            let norm = dw.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt() as f32;
            assert!((record.grad_norm - norm).abs() < 1e-5 * norm, "{} {norm}", record.grad_norm);
        }
    }
}

#[test]
fn vit_small_matches_timm() {
    logits_and_gradients(gpu(), "vit_small");
}

#[test]
fn vit_with_mean_pooling_layer_scale_and_tanh_gelu_matches_timm() {
    logits_and_gradients(gpu(), "vit_mean");
}

#[test]
fn vit_without_class_token_and_with_quick_gelu_matches_timm() {
    logits_and_gradients(gpu(), "vit_quick");
}

#[test]
fn every_variant_of_the_products_matches_timm() {
    with_every_tile(|gpu| logits_and_gradients(gpu, "vit_mean"));
}

/// Batches `[K, B, …]` of a fixture, cut apart.
fn batches(fixture: &Fixture, split: &str) -> Vec<(Vec<f32>, Vec<u32>)> {
    let (images, labels) = (fixture.f32(&format!("{split}_images")), fixture.u32(&format!("{split}_labels")));
    let shape = fixture.shape(&format!("{split}_labels"));
    let images: Vec<Vec<f32>> = images.chunks(images.len() / shape[0]).map(<[f32]>::to_vec).collect();
    images.into_iter().zip(labels.chunks(shape[1]).map(<[u32]>::to_vec)).collect()
}

fn number(json: &serde_json::Value, key: &str) -> f64 {
    json[key].as_f64().unwrap_or_else(|| panic!("{key} in {json}"))
}

fn optimizer(hyper: &serde_json::Value) -> Optimizer {
    let weight_decay = number(hyper, "weight_decay") as f32;
    if hyper.get("betas").is_some() {
        let beta = |i: usize| hyper["betas"][i].as_f64().unwrap();
        Optimizer::AdamW(AdamW { beta1: beta(0), beta2: beta(1), eps: number(hyper, "eps") as f32, weight_decay })
    } else {
        let nesterov = hyper["nesterov"].as_bool().unwrap();
        Optimizer::Sgd(Sgd { momentum: number(hyper, "momentum") as f32, nesterov, weight_decay })
    }
}

fn trajectory(prefix: &str) {
    let golden = Fixture::open("vit_small_train");
    let hyper = golden.json(prefix);
    let data = batches(&golden, "train");
    let batch = data[0].1.len();
    let micro = hyper.get("micro").map_or(1, |m| m.as_u64().unwrap() as usize);
    let clip_norm = hyper.get("max_norm").map_or(0.0, |m| m.as_f64().unwrap() as f32);
    let (model, weights) = model("vit_small");
    let settings = Settings { clip_norm, micro_batch: batch / micro, ..settings(optimizer(&hyper), batch) };
    let mut learner = Learner::new(gpu(), model, &weights, settings).unwrap();
    let losses = golden.f32(&format!("{prefix}.losses"));
    for step in 0..losses.len() {
        let (images, labels) = &data[step % data.len()];
        learner.step(images, labels, number(&hyper, "lr")).unwrap();
    }
    let records = learner.records(true).unwrap();
    let got: Vec<f32> = records.iter().map(|r| r.loss).collect();
    for (step, (got, want)) in got.iter().zip(&losses).enumerate() {
        assert!((got - want).abs() < LOSSES * want.abs(), "{prefix} step {step}: {got} for {want}");
    }
    assert_eq!(got.len(), losses.len());
    if prefix == "clip" {
        let norms: Vec<f32> = records.iter().map(|r| r.grad_norm).collect();
        let error = relative(&norms, &golden.f32("clip.norms"));
        assert!(error < LOSSES, "{error:e}");
    }
    if golden.has(&format!("{prefix}.w.cls_token")) {
        let w = arena(&learner, &learner.w);
        assert_tensors(&learner, &w, &golden, &format!("{prefix}.w."), 1e-4);
    }
}

#[test]
fn ten_sgd_steps_match_pytorch() {
    trajectory("sgd");
}

#[test]
fn ten_sgd_steps_without_momentum_match_pytorch() {
    trajectory("sgd_plain");
}

#[test]
fn ten_adamw_steps_match_pytorch() {
    trajectory("adamw");
}

#[test]
fn ten_clipped_steps_match_pytorch() {
    trajectory("clip");
}

#[test]
fn five_accumulated_steps_match_pytorch() {
    trajectory("accum");
}

/// A TPGM run of the fixture: losses, radii, norms, radius gradients, active rows, and the final weights.
fn tpgm_run(prefix: &str) {
    let golden = Fixture::open("vit_small_tpgm");
    let hyper = golden.json(prefix);
    let (train, val) = (batches(&Fixture::open("vit_small_train"), "train"), batches(&golden, "val"));
    let (model, weights) = model("vit_small");
    let text = |key: &str| hyper[key].as_str().unwrap().to_string();
    let count = |key: &str| hyper.get(key).map_or(1, |v| v.as_u64().unwrap() as usize);
    let head_excluded = hyper["exclude_head"].as_bool().unwrap();
    let excluded: Vec<bool> =
        model.layout().params.iter().map(|p| head_excluded && p.name.starts_with("head.")).collect();
    let names: Vec<String> = serde_json::from_value(golden.json(&format!("{prefix}.tensors"))).unwrap();

    let batch = train[0].1.len();
    let mut learner = Learner::new(gpu(), model, &weights, settings(optimizer(&hyper), batch)).unwrap();
    let norm: Norm = serde_json::from_value(hyper["norm"].clone()).unwrap();
    let radius_lr = number(&hyper, "radius_lr") as f32;
    let tpgm_settings = TpgmSettings { norm, radius_lr, max_iters: count("max_iters"), proj_freq: count("proj_freq") };
    let mut tpgm = Tpgm::new(&learner, &weights.w, &excluded, tpgm_settings).unwrap();
    let projected: Vec<String> =
        tpgm.projected.iter().map(|t| learner.model.layout().params[*t].name.clone()).collect();
    assert_eq!(projected, names);

    let mut outer_count = 0;
    let mut outer = |tpgm: &mut Tpgm, learner: &mut Learner| {
        let (images, labels) = &val[outer_count % val.len()];
        outer_count += 1;
        tpgm.outer(learner, images, labels).unwrap();
    };
    let every_step = text("schedule") == "every-step";
    for step in 0..count("steps") {
        let (images, labels) = &train[step % train.len()];
        learner.step(images, labels, number(&hyper, "lr")).unwrap();
        if every_step {
            if tpgm.is_due(step as u64) {
                for _ in 0..tpgm.max_iters() {
                    outer(&mut tpgm, &mut learner);
                }
            }
            tpgm.apply(&mut learner).unwrap();
        }
    }
    if !every_step {
        let fine = arena(&learner, &learner.w);
        assert_tensors(&learner, &fine, &golden, &format!("{prefix}.fine."), 1e-4);
        for _ in 0..tpgm.max_iters() {
            outer(&mut tpgm, &mut learner);
        }
        tpgm.apply(&mut learner).unwrap();
    }

    let train_loss = golden.f32(&format!("{prefix}.train_loss"));
    let got: Vec<f32> = learner.records(true).unwrap().iter().map(|r| r.loss).collect();
    assert!(relative(&got, &train_loss) < LOSSES, "{prefix} train losses {got:?}, PyTorch {train_loss:?}");

    let records = tpgm.records(&learner, true).unwrap();
    let radius_loss = golden.f32(&format!("{prefix}.radius_loss"));
    let got: Vec<f32> = records.iter().map(|r| r.loss).collect();
    assert!(relative(&got, &radius_loss) < LOSSES, "{prefix} radius losses {got:?}, PyTorch {radius_loss:?}");

    let n = names.len();
    let rows = |key: &str| golden.f32(&format!("{prefix}.{key}"));
    let (radii, max_norm, gradient) = (rows("radii"), rows("max_norm"), rows("radius_grad"));
    let active = golden.u32(&format!("{prefix}.active_rows"));
    let largest: Vec<f32> =
        (0..n).map(|t| (0..records.len()).fold(0.0f32, |m, i| m.max(gradient[i * n + t].abs()))).collect();
    for (i, record) in records.iter().enumerate() {
        assert_eq!(record.radii.len(), n);
        for (t, got) in record.radii.iter().enumerate() {
            let (at, name) = (i * n + t, &names[t]);
            // Radii cross zero: relative to at least one Adam step, 1e-2; gradients vanish: to the tensor's largest.
            let scale = radii[at].abs().max(1e-2);
            let off = (got.radius - radii[at]).abs();
            assert!(off < RADII * scale, "{prefix} iteration {i}, {name}: radius {} for {}", got.radius, radii[at]);
            let off = (got.max_norm - max_norm[at]).abs();
            assert!(off < RADII * max_norm[at], "{prefix} iteration {i}, {name}: norm {}", got.max_norm);
            let off = (got.gradient - gradient[at]).abs();
            assert!(off <= GRADIENTS * largest[t], "{prefix} iteration {i}, {name}: gradient {}", got.gradient);
            assert_eq!(got.active_rows, active[at], "{prefix} iteration {i}, {name}: active rows");
        }
    }
    assert_eq!(records.len() * n, radii.len());
    let w = arena(&learner, &learner.w);
    assert_tensors(&learner, &w, &golden, &format!("{prefix}.w."), 1e-3);
}

#[test]
fn mars_radii_match_pytorch() {
    tpgm_run("mars");
}

#[test]
fn l2_radii_match_pytorch() {
    tpgm_run("l2");
}

#[test]
fn radii_with_proj_freq_and_max_iters_match_pytorch() {
    tpgm_run("freq");
}

#[test]
fn post_hoc_radii_match_pytorch() {
    tpgm_run("post");
}

#[test]
fn logits_of_mirrored_images_match_pytorch() {
    let golden = Fixture::open("vit_small_golden");
    let (model, start) = model("vit_small");
    let (width, images) = (model.image_size(), golden.f32("images"));
    let batch = golden.u32("labels").len();
    let mut predictor = Predictor::new(gpu(), model, &start, batch).unwrap();
    let both = Fixture::open("tta").f32("logits");
    for (tta, want) in [(Tta::None, golden.f32("logits")), (Tta::Flip, both)] {
        let logits = tta.of(&mut predictor, width).logits(&images, batch).unwrap();
        let error = relative(&logits, &want);
        assert!(error < LOGITS, "{tta:?}: {error:e}");
    }
}
