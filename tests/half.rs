//! f16 activations: against PyTorch's f32 values, against the same steps in f32, and f16's own parts: a loss scale that moves,
//! steps that are skipped, and a plan of half the size.

mod common;
#[path = "half/resnet.rs"]
mod resnet;

use common::{Fixture, Random, gpu, relative};
use tpgm::checkpoint::Checkpoint;
use tpgm::data::Batch;
use tpgm::gpu::Gpu;
use tpgm::method::{
    Active, Anchor, BatchNorm, Held, Learner, LossScaling, Memory, MethodArgs, Optimizer, Settings, Snapshot,
};
use tpgm::model::{Drops, Model, VitConfig};
use tpgm::ops::adamw::AdamW;
use tpgm::ops::distill::On;
use tpgm::ops::sgd::Sgd;
use tpgm::train::state::{self, Identity, Progress};

/// An f16 is off by 2⁻¹² of itself on average, and up to 2⁻¹¹. Some ten of them lie between the pixels and a logit of these
/// models, and as many again between the loss and a gradient, of which each is a sum of many.
const LOGITS: f32 = 3e-3;
const GRADIENTS: f32 = 6e-3;

const ADAMW: Optimizer = Optimizer::AdamW(AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05 });
const SGD: Optimizer = Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: true, weight_decay: 5e-4 });

/// Whether the adapter has f16. One that has none says so in one line when a run asks for it, which is tested there.
fn has_f16() -> bool {
    if gpu().check_f16().is_ok() {
        return true;
    }
    let (model, weights) = model("vit_small");
    let settings = settings(SGD, 2, Some(LossScaling::default()));
    let error = Learner::new(gpu(), model, &weights, settings).unwrap_err().to_string();
    assert!(error.contains("SHADER_F16") && !error.contains('\n'), "{error}");
    false
}

fn model(name: &str) -> (Model, Snapshot) {
    let config: VitConfig = serde_json::from_value(Fixture::open(&format!("{name}_golden")).json("config")).unwrap();
    let model = Model::new(config);
    let weights = Fixture::open(name);
    let tensors: Vec<Vec<f32>> = model.layout().params.iter().map(|p| weights.f32(&p.name)).collect();
    let packed = model.layout().pack(tensors.iter().map(Vec::as_slice));
    (model, Snapshot::of_weights(packed))
}

fn settings(optimizer: Optimizer, batch: usize, half: Option<LossScaling>) -> Settings {
    Settings {
        optimizer,
        clip_norm: 0.0,
        smoothing: 0.0,
        micro_batch: batch,
        batch_norm: BatchNorm::Train,
        recompute: false,
        half,
    }
}

fn starting(start: f32) -> Option<LossScaling> {
    Some(LossScaling { start, ..LossScaling::default() })
}

fn learner(optimizer: Optimizer, batch: usize, half: Option<LossScaling>) -> Learner<'static> {
    let (model, weights) = model("vit_small");
    Learner::new(gpu(), model, &weights, settings(optimizer, batch, half)).unwrap()
}

/// Has `flags` act around the steps of `learner`.
fn with_method(learner: &mut Learner, flags: &str) -> Active {
    let (model, weights) = model("vit_small");
    let args = MethodArgs::parse(flags.split_whitespace()).unwrap();
    let excluded: Vec<bool> = model.layout().params.iter().map(|p| p.name.starts_with("head.")).collect();
    Active::start(&args, learner, &Anchor { values: &weights, excluded: &excluded, new_head: false }).unwrap()
}

fn batch(seed: u64, size: usize) -> (Vec<f32>, Vec<u32>) {
    let mut random = Random::new(seed);
    let images = random.vec(size * 3 * 20 * 20);
    (images, (0..size as u32).map(|i| (i * 5 + seed as u32) % 7).collect())
}

fn weights(learner: &Learner) -> Vec<u32> {
    learner.gpu.read(&learner.w).unwrap()
}

#[test]
fn logits_and_gradients_are_within_f16_of_timm() {
    if !has_f16() {
        return;
    }
    for name in ["vit_small", "vit_mean", "vit_quick"] {
        let golden = Fixture::open(&format!("{name}_golden"));
        let (images, labels) = (golden.f32("images"), golden.u32("labels"));
        for recompute in [false, true] {
            let (model, weights) = model(name);
            let plain = Optimizer::Sgd(Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 });
            let settings = Settings { recompute, ..settings(plain, labels.len(), starting(1024.0)) };
            let mut learner = Learner::new(gpu(), model, &weights, settings).unwrap();
            let logits = learner.logits(&images, labels.len()).unwrap();
            let error = relative(&logits, &golden.f32("logits"));
            println!("{name}: logits {error:e}");
            assert!(error < LOGITS, "{name} logits: {error:e}");
            assert!(error > 1e-6, "{name}: f16 that loses nothing is no f16");

            learner.step(&images, &labels, 0.0).unwrap();
            let record = learner.records(true).unwrap()[0];
            assert_eq!(record.scale, Some((1024.0, false)));
            let error = relative(&[record.loss], &golden.f32("loss"));
            assert!(error < LOGITS, "{name} loss: {error:e}");
            let dw: Vec<f32> = learner.gpu.read(&learner.dw).unwrap();
            let dw: Vec<f32> = dw.iter().map(|g| g / 1024.0).collect();
            let mut worst = (0.0, String::new());
            for (param, values) in learner.model.layout().unpack(&dw) {
                let error = relative(values, &golden.f32(&format!("grad.{}", param.name)));
                assert!(error < GRADIENTS, "{name} {}: {error:e}", param.name);
                worst = if error > worst.0 { (error, param.name.clone()) } else { worst };
            }
            println!("{name}: gradients {:e} in {}", worst.0, worst.1);
            // The reported norm is that of the gradient itself.
            let norm = dw.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt() as f32;
            assert!((record.grad_norm - norm).abs() < 1e-5 * norm, "{} {norm}", record.grad_norm);
        }
    }
}

#[test]
fn a_step_that_overflows_is_skipped_and_the_next_ones_are_as_if_it_had_not_been() {
    if !has_f16() {
        return;
    }
    const START: f32 = 16_777_216.0;
    let plain = "--method vanilla";
    for (optimizer, flags) in [(SGD, plain), (ADAMW, plain), (ADAMW, "--method sam --sam-rho 0.1")] {
        let mut tried = learner(optimizer, 4, starting(START));
        let _active = with_method(&mut tried, flags);
        let before = weights(&tried);
        let (images, labels) = batch(3, 4);
        tried.step(&images, &labels, 1e-3).unwrap();
        let first = tried.records(true).unwrap()[0];
        assert_eq!(first.scale, Some((START, true)), "{first:?}");
        assert!(first.loss.is_finite() && !first.is_bad(), "{first:?}");
        assert!(before == weights(&tried), "{optimizer:?}: weights changed");
        let moments: Vec<f32> = tried.gpu.read(&tried.moments[0]).unwrap();
        assert!(moments.iter().all(|m| *m == 0.0), "{optimizer:?}: moments changed");

        let mut scale = START / 2.0;
        for step in 1.. {
            assert!(step < 12, "{optimizer:?}: the scale never came down");
            tried.step(&images, &labels, 1e-3).unwrap();
            let record = tried.records(true).unwrap()[0];
            assert_eq!((record.step, record.scale.map(|s| s.0)), (step, Some(scale)));
            if record.scale == Some((scale, false)) {
                break;
            }
            assert!(before == weights(&tried), "{optimizer:?}: weights changed");
            scale /= 2.0;
        }
        tried.step(&images, &labels, 1e-3).unwrap();
        // The same two steps at a scale that fits from the start: Adam's bias corrections count only these, too.
        let mut fitting = learner(optimizer, 4, starting(scale));
        let _active = with_method(&mut fitting, flags);
        for _ in 0..2 {
            fitting.step(&images, &labels, 1e-3).unwrap();
        }
        assert!(weights(&fitting) == weights(&tried), "{optimizer:?}: skipped steps left a trace");
        assert!(weights(&fitting) != before);
    }
}

#[test]
fn the_scale_doubles_after_enough_good_steps() {
    if !has_f16() {
        return;
    }
    let scaling = LossScaling { start: 64.0, interval: 3 };
    let mut learner = learner(SGD, 2, Some(scaling));
    let (images, labels) = batch(5, 2);
    for _ in 0..7 {
        learner.step(&images, &labels, 1e-3).unwrap();
    }
    let scales: Vec<f32> = learner.records(true).unwrap().iter().map(|r| r.scale.unwrap().0).collect();
    assert_eq!(scales, [64.0, 64.0, 64.0, 128.0, 128.0, 128.0, 256.0]);
}

#[test]
fn a_loss_that_is_not_finite_is_bad_whatever_the_scale() {
    if !has_f16() {
        return;
    }
    let mut learner = learner(ADAMW, 4, Some(LossScaling::default()));
    let (mut images, labels) = batch(3, 4);
    images[7] = f32::NAN;
    let before = weights(&learner);
    learner.step(&images, &labels, 1e-3).unwrap();
    images[7] = 0.0;
    learner.step(&images, &labels, 1e-3).unwrap();
    assert!(learner.records(true).unwrap()[0].is_bad());
    assert!(before == weights(&learner), "weights changed after a bad step");
}

#[test]
fn a_batch_is_learned_by_heart_as_in_f32() {
    if !has_f16() {
        return;
    }
    let run = |half| {
        let mut learner = learner(ADAMW, 8, half);
        let (images, labels) = batch(1, 8);
        for _ in 0..60 {
            learner.step(&images, &labels, 2e-3).unwrap();
        }
        let losses: Vec<f32> = learner.records(true).unwrap().iter().map(|r| r.loss).collect();
        losses
    };
    let (single, half) = (run(None), run(starting(1024.0)));
    println!("f32 {:?}, f16 {:?}", &single[50..], &half[50..]);
    assert!(single[0] > 1.0 && half[59] < 0.02, "f16: loss {} to {}", half[0], half[59]);
    // Ten steps on, before rounding has had time to lead elsewhere.
    assert!(relative(&half[..10], &single[..10]) < 2e-2, "{:?} {:?}", &half[..10], &single[..10]);
}

/// The teacher's weights take turns with the model's own in the copy that products read.
#[test]
fn a_teacher_is_the_same_in_f16() {
    if !has_f16() {
        return;
    }
    for on in [On::Features, On::Logits] {
        let run = |half, weight| {
            let (model, start) = model("vit_small");
            let model = model.distilling(Some(on));
            let mut learner = Learner::new(gpu(), model, &start, settings(SGD, 8, half)).unwrap();
            learner.attend(&start, weight, 2.0).unwrap();
            let (images, labels) = batch(1, 8);
            (0..8).for_each(|_| learner.step(&images, &labels, 1e-2).unwrap());
            learner.records(true).unwrap().iter().map(|r| r.loss).collect::<Vec<f32>>()
        };
        let (single, half, alone) = (run(None, 2.0), run(starting(1024.0), 2.0), run(None, 0.0));
        println!("{on:?}: f32 {single:?}, f16 {half:?}, without {alone:?}");
        assert!(relative(&half, &single) < 1e-2 && relative(&alone, &single) > 2e-2, "{on:?}");
    }
}

/// The way up the slope, and the part taken out of a gradient, are the same whatever the loss is multiplied by.
#[test]
fn sharpness_aware_and_projected_steps_are_those_of_f32() {
    if !has_f16() {
        return;
    }
    for flags in ["--method sam --sam-rho 0.2", "--method digrap --digrap-lr 0.5"] {
        let drift = |half: Option<LossScaling>, flags: &str| {
            let mut learner = learner(SGD, 4, half);
            let start: Vec<f32> = learner.gpu.read(&learner.w).unwrap();
            let _active = with_method(&mut learner, flags);
            for step in 0..6 {
                let (images, labels) = batch(step % 2, 4);
                learner.step(&images, &labels, 1e-2).unwrap();
            }
            assert!(
                learner
                    .records(true)
                    .unwrap()
                    .iter()
                    .all(|r| !r.is_bad() && r.scale.is_none_or(|(_, skipped)| !skipped))
            );
            let w: Vec<f32> = learner.gpu.read(&learner.w).unwrap();
            w.iter().zip(start).map(|(w, w0)| w - w0).collect::<Vec<f32>>()
        };
        let (whole, half) = (drift(None, flags), drift(starting(1024.0), flags));
        let (error, effect) = (relative(&half, &whole), relative(&drift(None, "--method vanilla"), &whole));
        println!("{flags}: off by {error:.1e}, the method's effect {effect:.1e}");
        assert!(error < 5e-2 && effect > 2.0 * error, "{flags}: off by {error:e}, the method's effect {effect:e}");
    }
}

#[test]
fn what_f32_drops_is_dropped_in_f16() {
    if !has_f16() {
        return;
    }
    let run = |half, seed: u64| {
        let (model, start) = model("vit_small");
        let model = model.dropping(Drops { path: 0.5, head: 0.4 });
        let mut learner = Learner::new(gpu(), model, &start, settings(SGD, 8, half)).unwrap();
        learner.randomize(seed);
        let (images, labels) = batch(1, 8);
        (0..8).for_each(|_| learner.step(&images, &labels, 0.0).unwrap());
        learner.records(true).unwrap().iter().map(|r| r.loss).collect::<Vec<f32>>()
    };
    let (single, half, other) = (run(None, 3), run(starting(1024.0), 3), run(None, 4));
    println!("f32 {single:?}, f16 {half:?}, another seed {other:?}");
    // Each step has masks of its own.
    assert!(
        relative(&half, &single) < 5e-3 && relative(&other, &single) > 5e-2 && (single[0] - single[1]).abs() > 1e-2
    );
}

/// Steps of TPGM from `from`, whose state is at `path` where it is not 0; saves the state after `until` steps. Returns weights and
/// radii.
fn run(path: &std::path::Path, half: Option<LossScaling>, from: u64, until: u64) -> (Vec<u32>, Vec<u32>) {
    let mut learner = learner(ADAMW, 6, half);
    let values = learner.snapshot().unwrap();
    let excluded: Vec<bool> = learner.model.layout().params.iter().map(|p| p.name.starts_with("head.")).collect();
    let anchor = Anchor { values: &values, excluded: &excluded, new_head: false };
    let mut active = Active::start(&MethodArgs::default(), &mut learner, &anchor).unwrap();
    if from > 0 {
        state::restore(path, &mut learner, &mut active).unwrap();
    }
    for step in from..until {
        let (images, labels) = batch(step, 6);
        learner.step(&images, &labels, 1e-3).unwrap();
        let (images, labels) = batch(100 + step, 6);
        let mut next = || Ok(Batch { images: images.clone(), labels: labels.clone(), ..Batch::default() });
        active.after_step(&mut learner, &mut next).unwrap();
    }
    let progress = Progress { steps: until, taken: until, best: None, best_steps: 0 };
    let saved = state::capture(&learner, &active).unwrap();
    state::write(path, &saved, &learner, (progress, &[]), &Identity { setup: "setup".into(), ..Identity::default() })
        .unwrap();
    (weights(&learner), Checkpoint::open(path).unwrap().read_u32("radii").unwrap())
}

#[test]
fn a_resumed_run_is_the_same_run_and_radii_are_those_of_f32() {
    if !has_f16() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    // High enough for the first steps to be skipped: the state of the scale counts.
    let half = Some(LossScaling { start: 4_194_304.0, interval: 4 });
    let whole = run(&path, half, 0, 8);
    assert!(whole == run(&path, half, 0, 8), "two equal runs differ");
    run(&path, half, 0, 3);
    assert!(whole == run(&path, half, 3, 8), "a resumed run differs");

    // Over a few steps, none of them skipped: Adam's step on a radius has the gradient's sign, so f16 must get it right.
    let radii = |words: Vec<u32>| words.chunks(6).map(|r| f32::from_bits(r[0])).collect::<Vec<f32>>();
    let (single, half) = (run(&path, None, 0, 4), run(&path, starting(256.0), 0, 4));
    let (single, half) = (radii(single.1), radii(half.1));
    let off = single.iter().zip(&half).filter(|(a, b)| (*a - *b).abs() > 0.05 * a.abs()).count();
    println!("{off} of {} radii are off by more than 5 %", single.len());
    assert!(single.iter().any(|g| *g > 0.0) && off * 10 <= single.len(), "{single:?} {half:?}");
}

#[test]
fn the_plan_is_smaller_and_kept_to() {
    if !has_f16() {
        return;
    }
    let wanted = std::env::var("TPGM_TEST_ADAPTER").ok();
    // A device of its own, whose buffers nobody else makes.
    let gpu = Gpu::open(wanted.as_deref(), true).unwrap();
    let (model, weights) = model("vit_small");
    let planned = [None, Some(LossScaling::default())].map(|half| {
        let settings = settings(ADAMW, 16, half);
        let memory = Memory::plan(&gpu, &model, &settings, 0).unwrap();
        let before = gpu.allocated();
        let learner = Learner::new(&gpu, model.clone(), &weights, settings).unwrap();
        // A buffer that only bind groups hold is planned, and not counted.
        let held = memory.buffers() - (gpu.allocated() - before);
        assert!(held <= 256, "{held} bytes of the plan were not allocated, half: {half:?}");
        drop(learner);
        memory
    });
    let [single, half] = planned;
    let share = half.activations as f64 / single.activations as f64;
    println!("activations in f16: {share:.2} of f32");
    assert!((0.5..0.75).contains(&share), "{share}");
    assert!(half.weights > single.weights && half.gradient == single.gradient && half.optimizer == single.optimizer);
}
