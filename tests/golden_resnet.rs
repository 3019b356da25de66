//! ResNets against PyTorch (`fixtures/generate_resnet.py`, which implements the method on its own): logits, every
//! gradient and the running statistics in both modes of batch norm, training losses, and radii.

mod common;

use std::collections::BTreeMap;

use common::resnet::{NAMES, Net, batches, open};
use common::{Fixture, gpu, relative, with_every_tile};
use tpgm::gpu::{Gpu, View};
use tpgm::method::{
    Active, Anchor, BatchNorm, Learner, MethodArgs, Optimizer, Settings, Stage, Tpgm, TpgmSettings, Trained,
};
use tpgm::ops::sgd::Sgd;
use tpgm::shapes::Norm;
use tpgm::shapes::ParamLayout;
use tpgm::train::evaluate::{Classifier, Predictor};

const LOGITS: f32 = 1e-4;
const GRADIENTS: f32 = 1e-3;
const LOSSES: f32 = 1e-3;
const RADII: f32 = 1e-3;
const STATISTICS: f32 = 1e-4;

/// A gradient that is zero but for rounding, as a share of the largest element of the weight's beside it.
const NOISE: f32 = 1e-5;

fn sgd(json: &serde_json::Value) -> Optimizer {
    let number = |key: &str| json[key].as_f64().unwrap() as f32;
    let (momentum, weight_decay) = (number("momentum"), number("weight_decay"));
    Optimizer::Sgd(Sgd { momentum, nesterov: json["nesterov"].as_bool().unwrap(), weight_decay })
}

fn settings(optimizer: Optimizer, batch: usize, batch_norm: BatchNorm) -> Settings {
    Settings { optimizer, clip_norm: 0.0, smoothing: 0.0, micro_batch: batch, batch_norm, recompute: false, half: None }
}

/// Every tensor of `got` (an image in `layout`) against `golden[prefix + name]`; returns the worst error.
fn assert_tensors(
    names: &BTreeMap<String, String>,
    layout: &ParamLayout,
    got: &[f32],
    golden: &Fixture,
    prefix: &str,
    tolerance: f32,
) -> f32 {
    let mut worst: (f32, String) = (0.0, String::new());
    let largest = |values: &[f32]| values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (param, values) in layout.unpack(got) {
        let key = format!("{prefix}{}", names[&param.name]);
        // Softmax ignores a bias of all keys.
        if prefix.contains("grad") && key.ends_with("k_proj.bias") {
            let noise = largest(values) / largest(&golden.f32(&key.replace("bias", "weight")));
            assert!(noise < NOISE, "{key}: {noise:e}");
            continue;
        }
        let error = relative(values, &golden.f32(&key));
        if error >= worst.0 {
            worst = (error, key);
        }
    }
    assert!(worst.0 < tolerance, "{}: {:e}", worst.1, worst.0);
    worst.0
}

fn read(learner: &Learner, view: &View) -> Vec<f32> {
    learner.gpu.read(view).unwrap()
}

/// Logits, loss, gradients of one batch with batch norm frozen (which is eval mode) and in train mode.
fn one_batch(gpu: &Gpu, name: &str) {
    let golden = Fixture::open(&format!("{name}_golden"));
    let (images, labels) = batches(&golden, "batches").remove(0);
    let Net { model, start, names } = open(name);
    let plain = Optimizer::Sgd(Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 });
    for (mode, batch_norm) in [("eval", BatchNorm::Frozen), ("train", BatchNorm::Train)] {
        let settings = settings(plain, labels.len(), batch_norm);
        let mut learner = Learner::new(gpu, model.clone(), &start, settings).unwrap();
        if batch_norm == BatchNorm::Frozen {
            let logits = learner.logits(&images, labels.len()).unwrap();
            let error = relative(&logits, &golden.f32("eval.logits"));
            assert!(error < LOGITS, "{name} eval logits: {error:e}");
            let mut predictor = Predictor::new(gpu, model.clone(), &start, labels.len()).unwrap();
            let shared = relative(&predictor.logits(&images, labels.len()).unwrap(), &golden.f32("eval.logits"));
            assert!(shared < LOGITS, "{name} eval logits with shared activations: {shared:e}");
            println!("{name} eval logits {error:.1e}, predictor {shared:.1e}");
        }
        learner.step(&images, &labels, 0.0).unwrap();
        if batch_norm == BatchNorm::Train {
            let error = relative(&learner.last_logits(labels.len()).unwrap(), &golden.f32("train.logits"));
            assert!(error < LOGITS, "{name} train logits: {error:e}");
            let once = "train.running_once.";
            let worst =
                assert_tensors(&names, model.buffers(), &read(&learner, &learner.stats), &golden, once, STATISTICS);
            println!("{name} train logits {error:.1e}, running statistics {worst:.1e}");
        } else {
            assert!(read(&learner, &learner.stats) == start.stats, "frozen statistics moved");
        }
        let loss = learner.records(true).unwrap()[0].loss;
        let error = relative(&[loss], &golden.f32(&format!("{mode}.loss")));
        assert!(error < LOGITS, "{name} {mode} loss: {error:e}");
        let dw = read(&learner, &learner.dw);
        let worst = assert_tensors(&names, model.layout(), &dw, &golden, &format!("{mode}.grad."), GRADIENTS);
        println!("{name} {mode} loss {error:.1e}, gradients {worst:.1e}");
    }
}

/// Three SGD steps in train mode: losses and running statistics.
fn three_steps(name: &str) {
    let golden = Fixture::open(&format!("{name}_golden"));
    let hyper = golden.json("sgd");
    let Net { model, start, names } = open(name);
    let data = batches(&golden, "batches");
    let settings = settings(sgd(&hyper), data[0].1.len(), BatchNorm::Train);
    let mut learner = Learner::new(gpu(), model.clone(), &start, settings).unwrap();
    for (images, labels) in &data {
        learner.step(images, labels, hyper["lr"].as_f64().unwrap()).unwrap();
    }
    let losses: Vec<f32> = learner.records(true).unwrap().iter().map(|r| r.loss).collect();
    let error = relative(&losses, &golden.f32("train.losses"));
    assert!(error < LOSSES, "{name} losses {losses:?}: {error:e}");
    let stats = read(&learner, &learner.stats);
    let worst = assert_tensors(&names, model.buffers(), &stats, &golden, "train.running.", STATISTICS);
    println!("{name} three steps: losses {error:.1e}, running statistics {worst:.1e}");
    assert_eq!(learner.batches, 3);
}

#[test]
fn one_batch_matches_pytorch_in_both_modes() {
    NAMES.iter().for_each(|name| one_batch(gpu(), name));
}

#[test]
fn every_variant_of_the_products_matches_pytorch() {
    with_every_tile(|gpu| ["resnet_basic", "clip_resnet"].iter().for_each(|name| one_batch(gpu, name)));
}

#[test]
fn running_statistics_after_three_steps_match_pytorch() {
    NAMES.iter().for_each(|name| three_steps(name));
}

/// Ten steps; of a run `prefix` called `affine`, with `--freeze-bn`.
fn trajectory(name: &str, prefix: &str, batch_norm: BatchNorm) {
    follow(name, &format!("{name}_train"), prefix, batch_norm);
}

/// The steps of run `prefix` in `fixture`; sharpness-aware ones if it says how far.
fn follow(name: &str, fixture: &str, prefix: &str, batch_norm: BatchNorm) {
    let golden = Fixture::open(fixture);
    let hyper = golden.json(prefix);
    let Net { model, start, names } = open(name);
    let data = batches(&golden, "train_batches");
    let settings = settings(sgd(&hyper), data[0].1.len(), batch_norm);
    let mut learner = Learner::new(gpu(), model.clone(), &start, settings).unwrap();
    let losses = golden.f32(&format!("{prefix}.losses"));
    let norms = model.norms();
    if prefix == "affine" {
        let args = MethodArgs::parse(["--method", "vanilla", "--freeze-bn"]).unwrap();
        args.validate(&settings).unwrap();
        let (layout, excluded) = (model.layout(), vec![false; model.layout().params.len()]);
        let of = Trained {
            config: &model.config,
            layout,
            excluded: &excluded,
            norms,
            steps: losses.len() as u64,
            begun: None,
        };
        learner.begin(args.stages(Stage::whole(layout, &settings), &of).unwrap().remove(0)).unwrap();
    }
    if let Some(rho) = hyper.get("sam_rho") {
        let args = MethodArgs::parse(["--method", "sam", "--sam-rho", &rho.to_string()]).unwrap();
        let anchor = Anchor { values: &start, excluded: &vec![false; model.layout().params.len()], new_head: false };
        Active::start(&args, &mut learner, &anchor).unwrap();
    }
    for step in 0..losses.len() {
        let (images, labels) = &data[step % data.len()];
        learner.step(images, labels, hyper["lr"].as_f64().unwrap()).unwrap();
    }
    let got: Vec<f32> = learner.records(true).unwrap().iter().map(|r| r.loss).collect();
    let error = got.iter().zip(&losses).map(|(got, want)| (got - want).abs() / want).fold(0.0, f32::max);
    assert!(got.len() == losses.len() && error < LOSSES, "{prefix} losses {got:?}, PyTorch {losses:?}");
    let w = read(&learner, &learner.w);
    let weights = assert_tensors(&names, model.layout(), &w, &golden, &format!("{prefix}.w."), 1e-3);
    if prefix == "affine" {
        let of = |arena: &[f32], tensor: usize| model.layout().unpack(arena).nth(tensor).unwrap().1.to_vec();
        assert!(norms.len() > 4 && norms.iter().all(|tensor| of(&w, *tensor) == of(&start.w, *tensor)), "a norm moved");
    }
    let stats = read(&learner, &learner.stats);
    if batch_norm == BatchNorm::Train {
        let prefix = format!("{prefix}.running.");
        assert_tensors(&names, model.buffers(), &stats, &golden, &prefix, 1e-3);
    } else {
        assert!(stats == start.stats && learner.batches == 0, "frozen statistics moved");
    }
    println!("{name} {prefix}: losses {error:.1e}, weights {weights:.1e}");
}

#[test]
fn ten_sgd_steps_match_pytorch() {
    trajectory("resnet_basic", "sgd", BatchNorm::Train);
    trajectory("clip_resnet", "sgd", BatchNorm::Train);
}

/// Running statistics follow the first pass of each step.
#[test]
fn sharpness_aware_steps_match_pytorch() {
    follow("resnet_basic", "resnet_sam", "sam", BatchNorm::Train);
}

#[test]
fn ten_steps_with_frozen_statistics_match_pytorch() {
    trajectory("resnet_basic", "frozen", BatchNorm::Frozen);
}

#[test]
fn ten_steps_with_frozen_norms_match_pytorch() {
    trajectory("resnet_basic", "affine", BatchNorm::Frozen);
}

/// TPGM with a projection every step: losses, radii and what they come from, weights and running statistics.
fn radii(name: &str) {
    let golden = Fixture::open(&format!("{name}_train"));
    let hyper = golden.json("tpgm");
    let (train, val) = (batches(&golden, "train_batches"), batches(&golden, "val_batches"));
    let Net { model, start, names: in_file } = open(name);
    let names: Vec<String> = serde_json::from_value(golden.json("tpgm.tensors")).unwrap();
    let excluded: Vec<bool> = model.layout().params.iter().map(|p| !names.contains(&in_file[&p.name])).collect();
    assert!(excluded.iter().filter(|e| **e).count() <= 3, "the head, and a bias that has no gradient");
    let batch_norm = if hyper["bn"] == "frozen" { BatchNorm::Frozen } else { BatchNorm::Train };
    let settings = settings(sgd(&hyper), train[0].1.len(), batch_norm);
    let mut learner = Learner::new(gpu(), model.clone(), &start, settings).unwrap();
    let norm: Norm = serde_json::from_value(hyper["norm"].clone()).unwrap();
    let radius_lr = hyper["radius_lr"].as_f64().unwrap() as f32;
    let tpgm_settings = TpgmSettings { norm, radius_lr, max_iters: 1, proj_freq: 1 };
    let mut tpgm = Tpgm::new(&learner, &start.w, &excluded, tpgm_settings).unwrap();
    let projected: Vec<String> =
        tpgm.projected.iter().map(|t| in_file[&model.layout().params[*t].name].clone()).collect();
    assert_eq!(projected, names);

    let train_loss = golden.f32("tpgm.train_loss");
    for step in 0..train_loss.len() {
        let (images, labels) = &train[step % train.len()];
        learner.step(images, labels, hyper["lr"].as_f64().unwrap()).unwrap();
        let (images, labels) = &val[step % val.len()];
        tpgm.outer(&mut learner, images, labels).unwrap();
        tpgm.apply(&mut learner).unwrap();
    }
    let got: Vec<f32> = learner.records(true).unwrap().iter().map(|r| r.loss).collect();
    let train_error = relative(&got, &train_loss);
    assert!(train_error < LOSSES, "{name} train losses {got:?}, PyTorch {train_loss:?}");
    let records = tpgm.records(&learner, true).unwrap();
    let got: Vec<f32> = records.iter().map(|r| r.loss).collect();
    let radius_loss = golden.f32("tpgm.radius_loss");
    let radius_error = relative(&got, &radius_loss);
    assert!(radius_error < LOSSES, "{name} radius losses {got:?}, PyTorch {radius_loss:?}");

    let n = names.len();
    let rows = |key: &str| golden.f32(&format!("tpgm.{key}"));
    let (radii, max_norm, gradient) = (rows("radii"), rows("max_norm"), rows("radius_grad"));
    let active = golden.u32("tpgm.active_rows");
    assert_eq!(records.len() * n, radii.len());
    let mut worst = [0.0f32; 3];
    for (i, record) in records.iter().enumerate() {
        for (t, got) in record.radii.iter().enumerate() {
            let (at, name) = (i * n + t, &names[t]);
            let largest = (0..records.len()).fold(0.0f32, |m, i| m.max(gradient[i * n + t].abs()));
            // Radii cross zero: relative to at least one Adam step, 1e-2; gradients vanish: to the tensor's largest.
            let errors = [
                (got.radius - radii[at]).abs() / radii[at].abs().max(1e-2),
                (got.max_norm - max_norm[at]).abs() / max_norm[at],
                (got.gradient - gradient[at]).abs() / largest.max(f32::MIN_POSITIVE),
            ];
            assert!(errors.iter().all(|e| *e < RADII), "iteration {i}, {name}: radius, norm, gradient {errors:?}");
            worst = std::array::from_fn(|k| worst[k].max(errors[k]));
            assert_eq!(got.active_rows, active[at], "iteration {i}, {name}: active rows");
        }
    }
    let weights = assert_tensors(&in_file, model.layout(), &read(&learner, &learner.w), &golden, "tpgm.w.", 1e-3);
    let stats = read(&learner, &learner.stats);
    let running = assert_tensors(&in_file, model.buffers(), &stats, &golden, "tpgm.running.", 1e-3);
    println!(
        "{name}: losses {train_error:.1e} and {radius_error:.1e}, radius, norm, gradient {worst:?}, weights \
         {weights:.1e}, running statistics {running:.1e}"
    );
}

#[test]
fn radii_of_basic_blocks_match_pytorch() {
    radii("resnet_basic");
}

#[test]
fn radii_of_bottlenecks_match_pytorch() {
    radii("resnet_bottleneck");
}

#[test]
fn radii_of_clip_match_pytorch() {
    radii("clip_resnet");
}
