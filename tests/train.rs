//! The fifth link of the chain of trust: training itself. It overfits a batch; the same run gives the same bits; a run
//! that was stopped and resumed is the run that was not; what must not change does not.

mod common;

use common::{Fixture, Random, fixture_path, gpu, relative};
use tpgm::data::{Batch, Mixed};
use tpgm::gpu::Gpu;
use tpgm::method::{
    Active, Anchor, BatchNorm, ClassWeights, Held, Learner, METHODS, MethodArgs, Optimizer, Settings, Snapshot, Tpgm,
    TpgmSettings,
};
use tpgm::model::{Drops, Model, VitConfig};
use tpgm::ops::adamw::AdamW;
use tpgm::ops::distill::On;
use tpgm::ops::sgd::Sgd;
use tpgm::shapes::Norm;
use tpgm::train::Flags;
use tpgm::train::source::Source;
use tpgm::train::state::{self, Identity, Progress};

const ADAMW: Optimizer = Optimizer::AdamW(AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05 });
const SGD: Optimizer = Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: true, weight_decay: 5e-4 });

fn model() -> (Model, Snapshot) {
    let config: VitConfig = serde_json::from_value(Fixture::open("vit_small_golden").json("config")).unwrap();
    let model = Model::new(config);
    let weights = Fixture::open("vit_small");
    let tensors: Vec<Vec<f32>> = model.layout().params.iter().map(|p| weights.f32(&p.name)).collect();
    let packed = model.layout().pack(tensors.iter().map(Vec::as_slice));
    (model, Snapshot::of_weights(packed))
}

fn learner(gpu: &Gpu, optimizer: Optimizer, batch: usize) -> Learner<'_> {
    let (model, weights) = model();
    let settings = Settings {
        optimizer,
        clip_norm: 0.0,
        smoothing: 0.0,
        micro_batch: batch,
        batch_norm: BatchNorm::Train,
        recompute: false,
        half: None,
    };
    Learner::new(gpu, model, &weights, settings).unwrap()
}

/// A batch of noise, the same for the same `seed`.
fn batch(seed: u64, size: usize) -> (Vec<f32>, Vec<u32>) {
    let mut random = Random::new(seed);
    let images = random.vec(size * 3 * 20 * 20);
    (images, (0..size as u32).map(|i| (i * 5 + seed as u32) % 7).collect())
}

fn weights(learner: &Learner) -> Vec<u32> {
    learner.gpu.read(&learner.w).unwrap()
}

fn tpgm(learner: &Learner, norm: Norm, excluded: &dyn Fn(&str) -> bool) -> Tpgm {
    let anchor: Vec<f32> = learner.gpu.read(&learner.w).unwrap();
    let excluded: Vec<bool> = learner.model.layout().params.iter().map(|p| excluded(&p.name)).collect();
    let settings = TpgmSettings { norm, radius_lr: 1e-2, max_iters: 1, proj_freq: 1 };
    Tpgm::new(learner, &anchor, &excluded, settings).unwrap()
}

/// A class of weight 2 is one whose images come twice, in steps and in radius batches, however a batch is cut.
#[test]
fn a_weighted_class_is_one_whose_images_come_twice() {
    let (images, labels) = batch(3, 4);
    let size = images.len() / 4;
    let weights: Vec<f32> = (0..7).map(|class| if class == labels[1] { 2.0 } else { 1.0 }).collect();
    let mut twice = (images.clone(), labels.clone());
    twice.0.extend_from_slice(&images[size..2 * size]);
    twice.1.push(labels[1]);
    // Adam's first steps follow signs, which rounding turns where a gradient is next to nothing.
    let mut plain = learner(gpu(), SGD, 5);
    let mut radii = tpgm(&plain, Norm::Mars, &|_| false);
    for _ in 0..3 {
        plain.step(&twice.0, &twice.1, 1e-2).unwrap();
        radii.outer(&mut plain, &twice.0, &twice.1).unwrap();
    }
    let figures = |learner: &mut Learner, radii: &mut Tpgm| {
        let outer = radii.records(learner, true).unwrap();
        let losses = learner.records(true).unwrap().iter().map(|r| r.loss).collect::<Vec<_>>();
        let radii = outer.last().unwrap().radii.iter().map(|r| r.radius).collect::<Vec<_>>();
        [losses, outer.iter().map(|r| r.loss).collect(), radii]
    };
    let (want, want_figures) = (plain.snapshot().unwrap().w, figures(&mut plain, &mut radii));
    for micro in [4, 3, 1] {
        let mut weighted = learner(gpu(), SGD, micro);
        weighted.weigh(ClassWeights::new(weights.clone())).unwrap();
        let mut radii = tpgm(&weighted, Norm::Mars, &|_| false);
        for _ in 0..3 {
            weighted.step(&images, &labels, 1e-2).unwrap();
            radii.outer(&mut weighted, &images, &labels).unwrap();
        }
        let error = relative(&weighted.snapshot().unwrap().w, &want);
        assert!(error < 1e-5, "{micro} at once: {error}");
        for (got, want) in figures(&mut weighted, &mut radii).iter().zip(&want_figures) {
            let error = relative(got, want);
            assert!(error < 1e-4, "{micro} at once: {error}, {got:?}, {want:?}");
        }
    }
}

/// A mixed batch has the mean, by the shares, of the losses and gradients for its two kinds of labels, with weights of classes and label
/// smoothing as without, however it is cut. Radius batches stay as they are.
#[test]
fn mixed_labels_are_the_mean_of_both() {
    const PLAIN: Optimizer = Optimizer::Sgd(Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 });
    let (images, labels) = batch(5, 5);
    let others: Vec<u32> = labels.iter().rev().copied().collect();
    let weighed = |smoothing: f32, weights: &ClassWeights, micro: usize| {
        let (model, start) = model();
        let batch_norm = BatchNorm::Train;
        let settings = Settings {
            optimizer: PLAIN,
            clip_norm: 0.0,
            smoothing,
            micro_batch: micro,
            batch_norm,
            recompute: false,
            half: None,
        };
        let mut learner = Learner::new(gpu(), model, &start, settings).unwrap();
        learner.weigh(weights.clone()).unwrap();
        learner
    };
    let start = model().1.w;
    let unequal = ClassWeights::new((0..7).map(|class| 0.5 + class as f32).collect());
    for (smoothing, weights) in [(0.0, ClassWeights::equal(7)), (0.1, unequal)] {
        // One step without momentum moves the weights by the gradient.
        let step = |labels: &[u32], mixed: Option<&Mixed>, micro: usize| {
            let mut learner = weighed(smoothing, &weights, micro);
            let mut radii = tpgm(&learner, Norm::Mars, &|_| false);
            learner.step_mixed(&images, labels, mixed, 0.5).unwrap();
            let moved = learner.snapshot().unwrap().w.iter().zip(&start).map(|(w, w0)| w - w0).collect::<Vec<f32>>();
            learner.load(&model().1);
            radii.outer(&mut learner, &images, labels).unwrap();
            let radius = radii.records(&learner, true).unwrap()[0].loss;
            (moved, learner.records(true).unwrap()[0].loss, radius)
        };
        let (one, other) = (step(&labels, None, 5), step(&others, None, 5));
        for own in [1.0, 0.3, 0.0] {
            let mean = |a: f32, b: f32| own as f32 * a + (1.0 - own as f32) * b;
            let want: Vec<f32> = one.0.iter().zip(&other.0).map(|(a, b)| mean(*a, *b)).collect();
            let mixed = Mixed { labels: others.clone(), own };
            for micro in [5, 3, 1] {
                let (moved, loss, radius) = step(&labels, Some(&mixed), micro);
                let error = relative(&moved, &want);
                assert!(error < 1e-4, "{micro} at once, {own}: {error}");
                assert!((loss - mean(one.1, other.1)).abs() < 1e-5 * loss.abs().max(1.0), "{loss}, {own}, {micro}");
                assert!((radius - one.2).abs() < 1e-5, "{radius}, {}", one.2);
            }
        }
        assert!((one.1 - other.1).abs() > 1e-3 && relative(&one.0, &other.0) > 1e-2);
    }
}

#[test]
fn a_batch_is_learned_by_heart() {
    for (optimizer, lr, steps) in [(SGD, 0.02, 60), (ADAMW, 2e-3, 60)] {
        let mut learner = learner(gpu(), optimizer, 8);
        let (images, labels) = batch(1, 8);
        for _ in 0..steps {
            learner.step(&images, &labels, lr).unwrap();
        }
        let records = learner.records(true).unwrap();
        assert_eq!(records.len(), steps);
        assert!(records.iter().enumerate().all(|(i, r)| r.step == i as u64));
        let (first, last) = (records[0].loss, records[steps - 1].loss);
        assert!(first > 1.0 && last < 0.02, "{optimizer:?}: loss {first} to {last}");
        let logits = learner.logits(&images, 8).unwrap();
        for (row, label) in logits.chunks(7).zip(&labels) {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            assert_eq!(best as u32, *label, "{optimizer:?}");
        }
    }
}

#[test]
fn where_steps_are_cut_into_submissions_changes_no_bit() {
    let trained = |most: Option<u64>| {
        let gpu = Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), true).unwrap();
        gpu.force_submissions(most);
        let mut learner = learner(&gpu, ADAMW, 6);
        let mut tpgm = tpgm(&learner, Norm::Mars, &|_| false);
        for seed in 0..4 {
            let (images, labels) = batch(seed, 6);
            learner.step(&images, &labels, 1e-3).unwrap();
            tpgm.outer(&mut learner, &images, &labels).unwrap();
            tpgm.apply(&mut learner).unwrap();
        }
        let losses: Vec<u32> = learner.records(true).unwrap().iter().map(|r| r.loss.to_bits()).collect();
        if most.is_some() && gpu.features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            assert!(gpu.pace().rate().is_some_and(|rate| rate > 0.0 && rate.is_finite()), "{:?}", gpu.pace());
        }
        ((weights(&learner), losses), gpu.submissions())
    };
    let (whole, fewest) = trained(Some(u64::MAX));
    let (singly, most) = trained(Some(0));
    let (some, between) = trained(Some(2_000_000));
    assert!(fewest < between && between < most, "{fewest}, {between}, {most} submissions");
    assert!(whole == singly && whole == some);
    let (natural, submissions) = trained(None);
    assert!(whole == natural);
    assert!(
        !gpu().is_cpu() || submissions == fewest,
        "{submissions} submissions on a CPU adapter, {fewest} are enough"
    );
}

/// Steps `from..until` by the method of `flags`, whose state is at `path` where `from` is not 0; saves the state at the end. Returns the
/// file and the losses.
fn run(flags: &str, path: &std::path::Path, from: u64, until: u64) -> (Vec<u8>, Vec<f32>) {
    let mut learner = learner(gpu(), ADAMW, 6);
    let start = learner.snapshot().unwrap();
    let args = MethodArgs::parse(flags.split_whitespace()).unwrap();
    let excluded: Vec<bool> = learner.model.layout().params.iter().map(|p| p.name.starts_with("head.")).collect();
    let anchor = Anchor { values: &start, excluded: &excluded, new_head: false };
    let mut active = Active::start(&args, &mut learner, &anchor).unwrap();
    let taken = |steps| if args.val_batch().is_some() { steps } else { 0 };
    if from > 0 {
        let progress = state::restore(path, &mut learner, &mut active).unwrap();
        assert_eq!((progress.steps, progress.taken, progress.best), (from, taken(from), Some((0.5, 1.25))));
    }
    for step in from..until {
        let (images, labels) = batch(step, 6);
        learner.step(&images, &labels, 1e-3).unwrap();
        let (images, labels) = batch(100 + step, 6);
        let mut next = || Ok(Batch { images: images.clone(), labels: labels.clone(), ..Batch::default() });
        active.after_step(&mut learner, &mut next).unwrap();
    }
    let progress = Progress { steps: until, taken: active.taken(), best: Some((0.5, 1.25)), best_steps: 2 };
    let saved = state::capture(&learner, &active).unwrap();
    state::write(path, &saved, &learner, (progress, &[]), &Identity { setup: "setup".into(), ..Identity::default() })
        .unwrap();
    let losses = learner.records(true).unwrap().iter().map(|r| r.loss).collect();
    (std::fs::read(path).unwrap(), losses)
}

/// Every method, alone and with an average: one that is added is held as well.
#[test]
fn the_same_run_gives_the_same_bits_and_a_resumed_run_is_the_same_run() {
    for (i, method) in METHODS.iter().enumerate() {
        let average = if i % 2 == 0 { "--ema-decay 0.9" } else { "" };
        let sharp = if method.name() == "sam" { "--sam-rho 0.1" } else { "" };
        let flags = format!("--method {} --radius 0.01 {sharp} {average}", method.name());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.safetensors");
        let whole = run(&flags, &path, 0, 10);
        assert!(whole == run(&flags, &path, 0, 10), "{flags}: two equal runs differ");
        let (_, before) = run(&flags, &path, 0, 4);
        let (state, after) = run(&flags, &path, 4, 10);
        assert!(whole.0 == state, "{flags}: the resumed state differs");
        assert_eq!(whole.1, [before, after].concat(), "{flags}");
        let plain = format!("--method vanilla {average}");
        let other = ["sam", "digrap"].contains(&method.name());
        assert!(!other || whole.0 != run(&plain, &path, 0, 10).0, "{flags}: as plain fine-tuning");
    }
}

#[test]
fn a_state_of_another_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    let learner = learner(gpu(), SGD, 2);
    let config = |lr: &str| {
        let flags = ["--model", "m", "--train", "t", "--val", "v", "--lr", lr];
        Flags::parse(flags).unwrap().resolve(None).unwrap()
    };
    let saved = state::capture(&learner, &Active::default()).unwrap();
    let identity = Identity { setup: config("1").to_toml(), ..Identity::default() };
    state::write(&path, &saved, &learner, (Progress::default(), &[]), &identity).unwrap();
    state::check(&path, &config("1")).unwrap();
    let error = state::check(&path, &config("2")).unwrap_err().to_string();
    assert!(error.contains("other settings (lr was 1.0, is now 2.0)"), "{error}");
}

#[test]
fn a_step_that_is_not_finite_changes_nothing() {
    for optimizer in [SGD, ADAMW] {
        let mut learner = learner(gpu(), optimizer, 4);
        let (mut images, labels) = batch(3, 4);
        learner.step(&images, &labels, 1e-3).unwrap();
        let before = weights(&learner);
        let moments: Vec<u32> = learner.gpu.read(&learner.moments[0]).unwrap();
        images[7] = f32::NAN;
        learner.step(&images, &labels, 1e-3).unwrap();
        // The host hears of it later, and meanwhile goes on with good batches: they change nothing either.
        images[7] = 0.0;
        learner.step(&images, &labels, 1e-3).unwrap();
        let records = learner.records(true).unwrap();
        assert!(records[0].loss.is_finite() && records[0].grad_norm.is_finite());
        assert!(!(records[1].loss.is_finite() && records[1].grad_norm.is_finite()));
        assert!(before == weights(&learner), "{optimizer:?}: weights changed");
        assert!(moments == learner.gpu.read::<u32>(&learner.moments[0]).unwrap(), "{optimizer:?}: moments changed");
    }
}

#[test]
fn weights_that_have_not_moved_keep_their_bits_and_have_no_radius() {
    for norm in [Norm::Mars, Norm::L2] {
        let mut learner = learner(gpu(), SGD, 4);
        let mut tpgm = tpgm(&learner, norm, &|_| false);
        let (images, labels) = batch(4, 4);
        let before = weights(&learner);
        for _ in 0..3 {
            tpgm.outer(&mut learner, &images, &labels).unwrap();
            tpgm.apply(&mut learner).unwrap();
        }
        assert!(before == weights(&learner));
        for record in tpgm.records(&learner, true).unwrap() {
            assert!(record.loss.is_finite());
            assert!(record.radii.iter().all(|r| r.radius == 0.0 && r.max_norm == 0.0 && r.active_rows == 0));
        }
        // Once they move, the first radius is half the smallest row norm, and one Adam step (at most 1e-2) from it.
        learner.step(&images, &labels, 0.05).unwrap();
        tpgm.outer(&mut learner, &images, &labels).unwrap();
        let record = &tpgm.records(&learner, true).unwrap()[0];
        assert!(record.radii.iter().all(|r| r.max_norm > 0.0 && r.radius <= r.max_norm / 2.0 + 1.01e-2));
        // A row of zero drift would start a radius at its lower bound; elsewhere L2's one row is halved exactly.
        if norm == Norm::L2 {
            for r in &record.radii {
                assert!((r.radius - r.max_norm / 2.0).abs() < 1.01e-2, "{r:?}");
                assert_eq!(r.active_rows, 1);
            }
        }
    }
}

#[test]
fn excluded_tensors_are_trained_but_never_projected() {
    let (images, labels) = batch(5, 4);
    let train = |excluded: &dyn Fn(&str) -> bool| {
        let mut learner = learner(gpu(), SGD, 4);
        let mut tpgm = tpgm(&learner, Norm::Mars, excluded);
        learner.step(&images, &labels, 0.05).unwrap();
        let stepped: Vec<f32> = learner.gpu.read(&learner.w).unwrap();
        tpgm.outer(&mut learner, &images, &labels).unwrap();
        tpgm.apply(&mut learner).unwrap();
        let after: Vec<f32> = learner.gpu.read(&learner.w).unwrap();
        let changed = learner.model.layout().unpack(&after).zip(learner.model.layout().unpack(&stepped));
        changed.map(|((p, a), (_, b))| (p.name.clone(), a != b)).collect::<Vec<_>>()
    };
    for (name, changed) in train(&|name| name.starts_with("head.") || name.contains("norm")) {
        let excluded = name.starts_with("head.") || name.contains("norm");
        assert_eq!(changed, !excluded, "{name}");
    }
    assert!(train(&|_| true).iter().all(|(_, changed)| !changed));
}

#[test]
fn projection_keeps_every_row_within_its_radius() {
    let mut learner = learner(gpu(), SGD, 6);
    let anchor: Vec<f32> = learner.gpu.read(&learner.w).unwrap();
    let mut tpgm = tpgm(&learner, Norm::Mars, &|_| false);
    for step in 0..5 {
        let (images, labels) = batch(step, 6);
        learner.step(&images, &labels, 0.03).unwrap();
        tpgm.outer(&mut learner, &images, &labels).unwrap();
        tpgm.apply(&mut learner).unwrap();
    }
    let radii = tpgm.records(&learner, true).unwrap().pop().unwrap().radii;
    let after: Vec<f32> = learner.gpu.read(&learner.w).unwrap();
    let layout = learner.model.layout();
    for (((param, w), (_, w0)), radius) in layout.unpack(&after).zip(layout.unpack(&anchor)).zip(&radii) {
        let cols = param.len / param.rows();
        // A radius below its lower bound counts as 1e-8. The rest is rounding of w itself, not of the drift.
        let bound = radius.radius.max(1e-8) + cols as f32 * 2.0 * f32::EPSILON;
        for (row, (w, w0)) in w.chunks(cols).zip(w0.chunks(cols)).enumerate() {
            let norm: f32 = w.iter().zip(w0).map(|(w, w0)| (w - w0).abs()).sum();
            assert!(norm <= bound * (1.0 + 1e-4), "{} row {row}: {norm} over {bound}", param.name);
        }
    }
}

#[test]
fn a_saved_model_gives_the_same_logits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let overrides = tpgm::checkpoint::Overrides { heads: Some(3), ..Default::default() };
    let source = Source::open(&fixture_path("vit_small"), &overrides).unwrap();
    let mut learner = learner(gpu(), SGD, 4);
    let (images, labels) = batch(6, 4);
    learner.step(&images, &labels, 0.05).unwrap();
    let logits = learner.logits(&images, 4).unwrap();
    source.save(&path, &learner.snapshot().unwrap()).unwrap();

    // Its own metadata says how many heads it has.
    let saved = Source::open(&path, &Default::default()).unwrap();
    let settings = Settings {
        optimizer: SGD,
        clip_norm: 0.0,
        smoothing: 0.0,
        micro_batch: 4,
        batch_norm: BatchNorm::Train,
        recompute: false,
        half: None,
    };
    let mut again = Learner::new(gpu(), saved.model(), &saved.snapshot(), settings).unwrap();
    assert_eq!(logits, again.logits(&images, 4).unwrap());
}

#[test]
fn a_lost_device_is_an_error_and_not_a_panic() {
    let gpu = Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), true).unwrap();
    let mut learner = learner(&gpu, SGD, 2);
    let (images, labels) = batch(7, 2);
    learner.step(&images, &labels, 0.01).unwrap();
    gpu.device.destroy();
    let failed = (0..4).find_map(|_| learner.step(&images, &labels, 0.01).err());
    let error = failed.expect("steps on a lost device succeed").to_string();
    assert!(error.contains(&gpu.info.name) && !error.contains('\n'), "{error}");
}

/// Weights and the last radius after five steps of TPGM, eight images per batch.
fn in_parts(micro_batch: usize, recompute: bool) -> Vec<f32> {
    let (model, weights) = model();
    let settings = Settings {
        optimizer: SGD,
        clip_norm: 1.0,
        smoothing: 0.1,
        micro_batch,
        batch_norm: BatchNorm::Train,
        recompute,
        half: None,
    };
    let excluded = vec![false; model.layout().params.len()];
    let mut learner = Learner::new(gpu(), model, &weights, settings).unwrap();
    let tpgm_settings = TpgmSettings { norm: Norm::Mars, radius_lr: 1e-2, max_iters: 1, proj_freq: 1 };
    let mut tpgm = Tpgm::new(&learner, &weights.w, &excluded, tpgm_settings).unwrap();
    for step in 0..5 {
        let (images, labels) = batch(step, 8);
        learner.step(&images, &labels, 0.01).unwrap();
        let (images, labels) = batch(100 + step, 8);
        tpgm.outer(&mut learner, &images, &labels).unwrap();
        tpgm.apply(&mut learner).unwrap();
    }
    let mut values = learner.snapshot().unwrap().w;
    values.extend(learner.records(true).unwrap().iter().map(|r| r.loss));
    values.extend(tpgm.records(&learner, true).unwrap().iter().map(|r| r.loss));
    values
}

/// Weights and losses after four steps that keep a teacher's outputs.
fn taught_in_parts(on: On, micro_batch: usize, recompute: bool) -> Vec<f32> {
    let (model, weights) = model();
    let settings = Settings {
        optimizer: SGD,
        clip_norm: 1.0,
        smoothing: 0.1,
        micro_batch,
        batch_norm: BatchNorm::Train,
        recompute,
        half: None,
    };
    let model = model.distilling(Some(on)).dropping(Drops { path: 0.3, head: 0.2 });
    let mut learner = Learner::new(gpu(), model, &weights, settings).unwrap();
    learner.attend(&weights, 2.0, 1.5).unwrap();
    for step in 0..4 {
        let (images, labels) = batch(step, 8);
        learner.step(&images, &labels, 0.01).unwrap();
    }
    let mut values = learner.snapshot().unwrap().w;
    values.extend(learner.records(true).unwrap().iter().map(|r| r.loss));
    values
}

#[test]
fn a_teacher_is_asked_the_same_in_parts() {
    for on in [On::Features, On::Logits] {
        let whole = taught_in_parts(on, 8, false);
        let error = relative(&taught_in_parts(on, 3, false), &whole);
        assert!(error < 1e-6, "{on:?}: {error:e}");
        assert!(taught_in_parts(on, 8, true) == whole, "{on:?}: recomputation changes bits");
    }
}

#[test]
fn a_batch_in_parts_trains_as_the_whole() {
    let whole = in_parts(8, false);
    for micro in [4, 3] {
        let error = relative(&in_parts(micro, false), &whole);
        assert!(error < 1e-6, "micro-batches of {micro}: {error:e}");
    }
    assert!(in_parts(8, true) == whole, "recomputation changes bits");
}
