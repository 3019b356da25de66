//! ResNets in f16, by the same rules as ViTs: convolutions, batch norm, pools and CLIP's attention pool.

use super::common::resnet::{NAMES, Net, batches, open};
use super::common::{Fixture, gpu, relative, with_every_tile};
use super::{has_f16, settings, starting};
use tpgm::gpu::Gpu;
use tpgm::method::{BatchNorm, Learner, LossScaling, Memory, Optimizer, Settings, Tpgm, TpgmSettings};
use tpgm::model::{Model, Precision};
use tpgm::ops::sgd::Sgd;
use tpgm::shapes::Norm;
use tpgm::shapes::Param;
use tpgm::train::evaluate::{Classifier, Predictor};

/// An f16 is off by up to 2⁻¹¹ of itself. Some forty of them lie between the pixels and a logit of these models.
const LOGITS: f32 = 1e-2;
const STATISTICS: f32 = 2e-3;
const SCALE: f32 = 256.0;

/// How far PyTorch's own f16 (`torch.autocast("cpu", torch.float16)`, 2.15) is from the goldens, in eval and in train mode: the
/// worst tensor's gradient and all of them, by their L2 norms. A ReLU and a max pool let the other of two near values through
/// when f16 moves them, which in models this small is a percent of the gradient and more; ours may be twice as far
/// off: which values these are depends on the order of the sums.
const AUTOCAST: [(&str, [[f32; 2]; 2]); 5] = [
    ("resnet_basic", [[0.055, 0.0164], [0.056, 0.0351]]),
    ("resnet_bottleneck", [[0.150, 0.0369], [0.243, 0.123]]),
    ("resnext", [[0.0740, 0.0141], [0.350, 0.0827]]),
    ("resnet_d", [[0.127, 0.0338], [0.409, 0.135]]),
    ("clip_resnet", [[0.190, 0.0117], [0.303, 0.102]]),
];

const PLAIN: Optimizer = Optimizer::Sgd(Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 });

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// ‖got − want‖ and ‖want‖.
fn distance(got: &[f32], want: &[f32]) -> [f64; 2] {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let apart: f64 = got.iter().zip(want).map(|(g, w)| square(g - w)).sum();
    [apart.sqrt(), want.iter().map(|w| square(*w)).sum::<f64>().sqrt()]
}

/// The worst running statistic against `golden["train.running_once." + name]`, relative to its tensor's largest.
fn worst_statistic(net: &Net, stats: &[f32], golden: &Fixture) -> f32 {
    let tensors = net.model.buffers().unpack(stats);
    let error = |(param, values): (&Param, &[f32])| {
        relative(values, &golden.f32(&format!("train.running_once.{}", net.names[&param.name])))
    };
    tensors.map(error).fold(0.0, f32::max)
}

/// The worst tensor's gradient and all of them, against `golden[mode + ".grad." + name]`.
fn gradient_errors(net: &Net, dw: &[f32], golden: &Fixture, mode: &str) -> [f32; 2] {
    let (mut worst, mut squares) = (0.0, [0.0; 2]);
    for (param, values) in net.model.layout().unpack(dw) {
        let key = format!("{mode}.grad.{}", net.names[&param.name]);
        // Softmax ignores a bias of all keys: the rest is rounding, beside the weight's gradient.
        if let Some(stem) = key.strip_suffix("k_proj.bias") {
            let noise = largest(values) / largest(&golden.f32(&format!("{stem}k_proj.weight")));
            assert!(noise < 1e-2, "{key}: {noise:e}");
            continue;
        }
        let [apart, size] = distance(values, &golden.f32(&key));
        worst = f64::max(worst, apart / size);
        squares = [squares[0] + apart * apart, squares[1] + size * size];
    }
    [worst as f32, (squares[0] / squares[1]).sqrt() as f32]
}

/// Logits, loss, statistics and gradients of one batch in both modes of batch norm.
fn one_batch(gpu: &Gpu, name: &str) {
    let golden = Fixture::open(&format!("{name}_golden"));
    let (images, labels) = batches(&golden, "batches").remove(0);
    let net = open(name);
    let Net { model, start, .. } = &net;
    let [eval, train] = AUTOCAST.iter().find(|(of, _)| *of == name).unwrap().1;
    for (mode, batch_norm, recompute) in
        [("eval", BatchNorm::Frozen, false), ("train", BatchNorm::Train, false), ("train", BatchNorm::Train, true)]
    {
        let settings = Settings { batch_norm, recompute, ..settings(PLAIN, labels.len(), starting(SCALE)) };
        let mut learner = Learner::new(gpu, model.clone(), start, settings).unwrap();
        if batch_norm == BatchNorm::Frozen {
            let logits = learner.logits(&images, labels.len()).unwrap();
            let error = relative(&logits, &golden.f32("eval.logits"));
            println!("{name} eval logits {error:.1e}");
            assert!(error < LOGITS, "{name} eval logits: {error:e}");
            assert!(error > 1e-6, "{name}: f16 that loses nothing is no f16");
            let capacity = labels.len();
            let mut predictor = Predictor::new_in(gpu, model.clone(), start, capacity, Precision::F16).unwrap();
            assert!(predictor.logits(&images, capacity).unwrap() == logits, "{name}: a predictor differs");
        }
        learner.step(&images, &labels, 0.0).unwrap();
        let record = learner.records(true).unwrap()[0];
        assert_eq!(record.scale, Some((SCALE, false)));
        let loss = relative(&[record.loss], &golden.f32(&format!("{mode}.loss")));
        if batch_norm == BatchNorm::Train {
            let error = relative(&learner.last_logits(labels.len()).unwrap(), &golden.f32("train.logits"));
            let stats: Vec<f32> = gpu.read(&learner.stats).unwrap();
            let running = worst_statistic(&net, &stats, &golden);
            println!("{name} train logits {error:.1e}, running statistics {running:.1e}");
            assert!(error < LOGITS, "{name} train logits: {error:e}");
            assert!(running < STATISTICS, "{name} running statistics: {running:e}");
        }
        let dw: Vec<f32> = gpu.read(&learner.dw).unwrap();
        let dw: Vec<f32> = dw.iter().map(|g| g / SCALE).collect();
        let errors = gradient_errors(&net, &dw, &golden, mode);
        let torch = if mode == "eval" { eval } else { train };
        println!("{name} {mode} loss {loss:.1e}, gradients {errors:?}, PyTorch's {torch:?}, recompute {recompute}");
        assert!(loss < LOGITS, "{name} {mode} loss: {loss:e}");
        let close = errors.iter().zip(torch).all(|(error, torch)| *error < 2.0 * torch);
        assert!(close, "{name} {mode} gradients: {errors:?}, PyTorch's autocast {torch:?}");
    }
}

#[test]
fn logits_and_gradients_are_within_f16_of_pytorch() {
    if has_f16() {
        NAMES.iter().for_each(|name| one_batch(gpu(), name));
    }
}

#[test]
fn every_variant_of_the_products_is_within_f16_of_pytorch() {
    if has_f16() {
        with_every_tile(|gpu| ["resnet_bottleneck", "clip_resnet"].iter().for_each(|name| one_batch(gpu, name)));
    }
}

/// Ten steps of SGD, of which none is skipped.
#[test]
fn losses_of_ten_steps_are_those_of_pytorch() {
    if !has_f16() {
        return;
    }
    // What PyTorch's own f16 autocast comes to with these batches, the worst of six starts 3e-7 apart: after three steps, and
    // after ten, when the later ones have grown what the first rounded.
    for (name, torch) in [("resnet_basic", [1.1e-3, 7.2e-3]), ("clip_resnet", [1.8e-2, 2.1e-2])] {
        let golden = Fixture::open(&format!("{name}_train"));
        let hyper = golden.json("sgd");
        let number = |key: &str| hyper[key].as_f64().unwrap();
        let (momentum, weight_decay) = (number("momentum") as f32, number("weight_decay") as f32);
        let sgd = Sgd { momentum, nesterov: hyper["nesterov"].as_bool().unwrap(), weight_decay };
        let data = batches(&golden, "train_batches");
        let Net { model, start, .. } = open(name);
        let settings = settings(Optimizer::Sgd(sgd), data[0].1.len(), starting(SCALE));
        let mut learner = Learner::new(gpu(), model, &start, settings).unwrap();
        let losses = golden.f32("sgd.losses");
        for step in 0..losses.len() {
            let (images, labels) = &data[step % data.len()];
            learner.step(images, labels, number("lr")).unwrap();
        }
        let records = learner.records(true).unwrap();
        assert!(records.iter().all(|r| r.scale == Some((SCALE, false))), "{name}: {records:?}");
        let got: Vec<f32> = records.iter().map(|r| r.loss).collect();
        let [first, all] = [3, losses.len()].map(|n| relative(&got[..n], &losses[..n]));
        println!("{name}: losses {first:.1e} after three steps, {all:.1e} after ten");
        let close = first < 2.0 * torch[0] && all < 2.0 * torch[1];
        assert!(close, "{name}: losses {got:?}, PyTorch {losses:?}, its autocast's errors {torch:?}");
    }
}

#[test]
fn a_step_that_overflows_moves_statistics_and_no_weight() {
    if !has_f16() {
        return;
    }
    let golden = Fixture::open("resnet_basic_golden");
    let (images, labels) = batches(&golden, "batches").remove(0);
    let net = open("resnet_basic");
    let Net { model, start, .. } = &net;
    let settings = settings(super::SGD, labels.len(), starting(16_777_216.0));
    let mut learner = Learner::new(gpu(), model.clone(), start, settings).unwrap();
    learner.step(&images, &labels, 1e-2).unwrap();
    let record = learner.records(true).unwrap()[0];
    assert_eq!(record.scale, Some((16_777_216.0, true)), "{record:?}");
    assert!(!record.is_bad());
    let w: Vec<f32> = gpu().read(&learner.w).unwrap();
    assert!(w == start.w, "weights changed");
    // As in PyTorch, whose GradScaler skips the optimiser's step and nothing else.
    let stats: Vec<f32> = gpu().read(&learner.stats).unwrap();
    let running = worst_statistic(&net, &stats, &golden);
    assert!(running < STATISTICS, "{running:e}");
}

/// The gradients of the radii, from a pass over the copy of the projected weights.
#[test]
fn radii_are_led_where_f32_leads_them() {
    if !has_f16() {
        return;
    }
    for name in ["resnet_basic", "clip_resnet"] {
        let Net { model, start, .. } = open(name);
        let data = batches(&Fixture::open(&format!("{name}_golden")), "batches");
        let excluded = vec![false; model.layout().params.len()];
        let gradients = |half: Option<LossScaling>| {
            let settings = Settings { batch_norm: BatchNorm::Frozen, ..settings(PLAIN, data[0].1.len(), half) };
            let mut learner = Learner::new(gpu(), model.clone(), &start, settings).unwrap();
            let tpgm_settings = TpgmSettings { norm: Norm::Mars, radius_lr: 1e-2, max_iters: 1, proj_freq: 1 };
            let mut tpgm = Tpgm::new(&learner, &start.w, &excluded, tpgm_settings).unwrap();
            for (images, labels) in &data {
                learner.step(images, labels, 1e-2).unwrap();
                tpgm.outer(&mut learner, images, labels).unwrap();
                tpgm.apply(&mut learner).unwrap();
            }
            let records = tpgm.records(&learner, true).unwrap();
            // The first comes before there are radii to lead.
            records[1].radii.iter().map(|r| r.gradient).collect::<Vec<f32>>()
        };
        let (single, half) = (gradients(None), gradients(starting(SCALE)));
        let [apart, size] = distance(&half, &single);
        println!("{name}: radius gradients are {:.3} apart", apart / size);
        assert!(size > 0.0 && apart > 0.0 && apart < 0.05 * size, "{name}: {single:?} {half:?}");
    }
}

#[test]
fn the_plan_is_smaller_and_kept_to() {
    if !has_f16() {
        return;
    }
    let wanted = std::env::var("TPGM_TEST_ADAPTER").ok();
    // A device of its own, whose buffers nobody else makes.
    let gpu = Gpu::open(wanted.as_deref(), true).unwrap();
    for name in ["resnet_bottleneck", "clip_resnet"] {
        let Net { model, start, .. } = open(name);
        let plan = |half: Option<LossScaling>| {
            let settings = settings(super::SGD, 16, half);
            let memory = Memory::plan(&gpu, &model, &settings, 0).unwrap();
            let before = gpu.allocated();
            let learner = Learner::new(&gpu, model.clone(), &start, settings).unwrap();
            // A buffer that only bind groups hold is planned, and not counted.
            let held = memory.buffers() - (gpu.allocated() - before);
            assert!(held <= 256, "{name}: {held} bytes of the plan were not allocated, half: {half:?}");
            drop(learner);
            memory
        };
        let (single, half) = (plan(None), plan(Some(LossScaling::default())));
        let share = half.activations as f64 / single.activations as f64;
        println!("{name}: activations in f16: {share:.2} of f32");
        assert!((0.45..0.75).contains(&share), "{name}: {share}");
        assert!(half.weights > single.weights && half.gradient == single.gradient);
    }
}

#[test]
fn a_resnet_50_takes_half_the_activations() {
    if has_f16() {
        let model = Model::new(super::common::resnet_50());
        for (batch, normal) in [(1, true), (8, false)] {
            let settings = Settings { recompute: !normal, ..settings(PLAIN, batch, Some(LossScaling::default())) };
            let memory = Memory::plan(gpu(), &model, &settings, 0).unwrap();
            let single = Memory::plan(gpu(), &model, &Settings { half: None, ..settings }, 0).unwrap();
            println!("{memory}; in f32 {single}");
            assert!(memory.activations < single.activations * 6 / 10, "{memory} {single}");
        }
    }
}
