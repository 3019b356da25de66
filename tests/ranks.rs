//! Training on several ranks: with the parts of a batch, they do what one rank does with the whole.

mod common;
#[path = "ranks/ddp.rs"]
mod ddp;
#[path = "ranks/run.rs"]
mod run;

use std::sync::Arc;

use common::threads::on_ranks;
use common::{Fixture, Random, relative, resnet};
use tpgm::data::Batch;
use tpgm::error::Error;
use tpgm::gpu::Gpu;
use tpgm::method::{
    Active, Anchor, BatchNorm, Held, Learner, LossScaling, MethodArgs, Optimizer, Saved, Settings, Snapshot, Stage,
    Trained,
};
use tpgm::model::{Mode, Model, Precision, VitConfig};
use tpgm::ops::adamw::AdamW;
use tpgm::ops::sgd::Sgd;
use tpgm::ranks::{Ranks, agree, same};

const STEPS: usize = 10;
/// With an eps above rounding: the biases of attention's keys have no gradient but that, and its sign would move them.
const ADAMW: AdamW = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-4, weight_decay: 0.05 };

/// A model, how it is trained, and the images of a batch.
struct Task {
    model: Model,
    start: Snapshot,
    method: &'static str,
    settings: Settings,
    batch: usize,
    /// Images of the last batch, which is smaller, as at the end of an epoch.
    last: usize,
    /// Batch norm takes its statistics over the images of all ranks.
    across: bool,
    /// Elements of the gradient that travel at once.
    segment: usize,
}

/// What a run comes to.
struct Came {
    w: Vec<f32>,
    stats: Vec<f32>,
    losses: Vec<f32>,
    radii: Vec<f32>,
    /// The loss scale of each step in f16, and whether the step was skipped.
    scales: Vec<Option<(f32, bool)>>,
}

fn settings(optimizer: Optimizer, batch_norm: BatchNorm) -> Settings {
    Settings { optimizer, clip_norm: 1.0, smoothing: 0.1, micro_batch: 4, batch_norm, recompute: false, half: None }
}

fn sgd() -> Optimizer {
    Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: false, weight_decay: 1e-4 })
}

fn vit_small() -> (Model, Snapshot) {
    let config: VitConfig = serde_json::from_value(Fixture::open("vit_small_golden").json("config")).unwrap();
    let (model, weights) = (Model::new(config), Fixture::open("vit_small"));
    let tensors: Vec<Vec<f32>> = model.layout().params.iter().map(|p| weights.f32(&p.name)).collect();
    let start = Snapshot::of_weights(model.layout().pack(tensors.iter().map(Vec::as_slice)));
    (model, start)
}

fn vit(method: &'static str, optimizer: Optimizer) -> Task {
    let (model, start) = vit_small();
    let settings = settings(optimizer, BatchNorm::Train);
    Task { model, start, method, settings, batch: 7, last: 1, across: false, segment: 1 << 20 }
}

fn net(method: &'static str, batch_norm: BatchNorm) -> Task {
    let resnet::Net { model, start, .. } = resnet::open("resnet_basic");
    let settings = Settings { micro_batch: 8, ..settings(sgd(), batch_norm) };
    Task { model, start, method, settings, batch: 6, last: 1, across: false, segment: 4096 }
}

/// The images of `step` for this rank, and the labels of the whole batch.
fn batch(model: &Model, step: u64, count: usize, learner: &Learner) -> Batch {
    let mut random = Random::new(100 + step);
    let pixels = 3 * model.image_size() * model.image_size();
    let images = random.vec(count * pixels);
    let labels = (0..count).map(|i| (i as u64 * 7 + step) as u32 % model.classes() as u32).collect();
    let own = learner.part(count);
    Batch { images: images[own.start * pixels..own.end * pixels].to_vec(), labels, ..Batch::default() }
}

/// Ten steps, on these `ranks` if there are any.
fn steps(task: &Task, ranks: Option<Arc<dyn Ranks>>) -> Came {
    let gpu = Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), true).unwrap();
    let args = MethodArgs::parse(task.method.split_whitespace()).unwrap();
    let size = ranks.as_ref().map_or(1, |ranks| ranks.size());
    let model = task.model.clone().across(if task.across { size } else { 1 });
    let mut learner = Learner::new(&gpu, model, &task.start, task.settings).unwrap();
    ranks.into_iter().for_each(|ranks| learner.join_by(ranks, task.segment));
    let layout = task.model.layout();
    let excluded: Vec<bool> =
        layout.params.iter().map(|p| p.name.starts_with("head.") || p.name.starts_with("fc.")).collect();
    let of = Trained {
        config: &task.model.config,
        layout,
        excluded: &excluded,
        norms: &[],
        steps: STEPS as u64,
        begun: None,
    };
    let stages = args.stages(Stage::whole(layout, &task.settings), &of).unwrap();
    let anchor = Anchor { values: &task.start, excluded: &excluded, new_head: false };
    let mut active = Active::start(&args, &mut learner, &anchor).unwrap();
    for step in 0..STEPS as u64 {
        if let Some(stage) = stages.iter().find(|stage| stage.since == step) {
            learner.begin(stage.clone()).unwrap();
        }
        let count = if step + 1 == STEPS as u64 { task.last } else { task.batch };
        let Batch { images, labels, .. } = batch(&task.model, step, count, &learner);
        learner.step(&images, &labels, 1e-3).unwrap();
        let radius_batch = batch(&task.model, 50 + step, count + 1, &learner);
        active.after_step(&mut learner, &mut || Ok(radius_batch.clone())).unwrap();
    }
    let records = learner.records(true).unwrap();
    let losses = records.iter().map(|record| record.loss).collect();
    let scales = records.iter().map(|record| record.scale).collect();
    let learned = active.learned(&learner, true).unwrap();
    let radii = learned.iter().flat_map(|l| l.radii.iter().map(|r| r.radius).chain(l.loss)).collect();
    let mut saved = Saved::default();
    learner.save(&mut saved).unwrap();
    active.save(&learner, &mut saved).unwrap();
    let Snapshot { w, stats, .. } = active.evaluated(&saved, learner.batches).unwrap_or_else(|| learner.own(&saved));
    Came { w, stats, losses, radii, scales }
}

/// Two ranks and three do what one does, and all of them the same to the bit.
fn agrees(task: &Task) {
    let alone = steps(task, None);
    for size in [2, 3] {
        let all = on_ranks(size, |thread| steps(task, Some(Arc::new(thread))));
        for (rank, came) in all.iter().enumerate() {
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
            for (what, own, first) in [
                ("weights", &came.w, &all[0].w),
                ("statistics", &came.stats, &all[0].stats),
                ("losses", &came.losses, &all[0].losses),
                ("radii", &came.radii, &all[0].radii),
            ] {
                assert!(bits(own) == bits(first), "{}: {what} of rank {rank} of {size} are others", task.method);
            }
        }
        let came = &all[0];
        assert!(came.w.iter().all(|value| value.is_finite()) && came.w != task.start.w);
        let (w, losses) = (relative(&came.w, &alone.w), relative(&came.losses, &alone.losses));
        assert!(w < 1e-5 && losses < 1e-5, "{}: {size} ranks: weights {w:e}, losses {losses:e}", task.method);
        assert_eq!((came.losses.len(), came.radii.len()), (STEPS, alone.radii.len()));
        if !alone.radii.is_empty() {
            let radii = relative(&came.radii, &alone.radii);
            assert!(radii < 1e-4, "{}: {size} ranks: radii {radii:e}", task.method);
        }
        if task.across {
            let stats = relative(&came.stats, &alone.stats);
            assert!(stats < 1e-5 && alone.stats != task.start.stats, "{size} ranks: statistics {stats:e}");
        } else {
            assert_eq!(came.stats, alone.stats, "frozen statistics have moved");
        }
    }
}

#[test]
fn plain_fine_tuning() {
    agrees(&vit("--method vanilla", Optimizer::AdamW(ADAMW)));
    agrees(&vit("--method vanilla", sgd()));
}

#[test]
fn tpgm() {
    agrees(&vit("--method tpgm", Optimizer::AdamW(ADAMW)));
    agrees(&net("--method tpgm --norm l2", BatchNorm::Frozen));
}

#[test]
fn methods_around_the_update() {
    for method in [
        "--method ftp",
        "--method spd",
        "--method digrap",
        "--method vanilla --ema-decay 0.9",
        "--method l2-sp",
        "--method l2-sp --sam-rho 0.05",
    ] {
        agrees(&vit(method, Optimizer::AdamW(ADAMW)));
    }
}

#[test]
fn a_part_of_the_layers_in_segments() {
    agrees(&Task { segment: 64, ..vit("--method linear-probe", sgd()) });
    agrees(&Task { segment: 1024, ..vit("--method vanilla --lora-rank 2", sgd()) });
    agrees(&net("--method vanilla", BatchNorm::Frozen));
}

/// Each rank's batch norm has its own rows, so that weights are others than with one rank; but all ranks have the same.
#[test]
fn batch_norm_of_each_rank_keeps_the_mean_of_the_statistics() {
    for method in ["--method vanilla", "--method vanilla --sam-rho 0.05"] {
        let task = net(method, BatchNorm::Train);
        let all = on_ranks(2, |thread| steps(&task, Some(Arc::new(thread))));
        assert_eq!(all[0].w, all[1].w, "{method}");
        assert_eq!(all[0].stats, all[1].stats, "{method}");
        assert_ne!(all[0].stats, task.start.stats, "{method}");
        assert!(all[0].w.iter().chain(&all[0].stats).all(|value| value.is_finite()), "{method}");
    }
}

/// Over all ranks' images, it does what it does with one rank.
#[test]
fn batch_norm_over_all_ranks() {
    let task = || Task { across: true, last: 4, ..net("--method vanilla", BatchNorm::Train) };
    agrees(&task());
    agrees(&Task { method: "--method vanilla --sam-rho 0.05", ..task() });
    agrees(&Task { method: "--method tpgm", ..task() });
}

/// Ranks that would wait for each other for ever say why they don't begin.
#[test]
fn batch_norm_over_all_ranks_needs_an_image_on_each() {
    let task = Task { across: true, ..net("--method vanilla", BatchNorm::Train) };
    let errors = on_ranks(2, |thread| {
        let gpu = Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), true).unwrap();
        let mut learner = Learner::new(&gpu, task.model.clone().across(2), &task.start, task.settings).unwrap();
        learner.join(Arc::new(thread));
        let Batch { images, labels, .. } = batch(&task.model, 0, 1, &learner);
        learner.step(&images, &labels, 1e-3).unwrap_err().to_string()
    });
    for error in errors {
        assert!(error.contains("a batch of 1 images on 2 ranks") && !error.contains('\n'), "{error}");
    }
}

/// In f16, a gradient that overflows on one rank is skipped by all, and the scale of the loss is the same everywhere.
#[test]
fn f16_skips_and_scales_together() {
    let half = LossScaling { start: 16_777_216.0, interval: 3 };
    let mut task = Task { last: 7, ..vit("--method tpgm", sgd()) };
    task.settings.half = Some(half);
    if common::gpu().check_f16().is_err() {
        assert!(
            task.model.plan(common::gpu(), 4, Mode::Train, Precision::F16).is_err(),
            "f16 on an adapter without it"
        );
        return;
    }
    let alone = steps(&task, None);
    let skipped = alone.scales.iter().filter(|scale| scale.unwrap().1).count();
    assert!((1..STEPS - 2).contains(&skipped), "{:?}", alone.scales);
    let all = on_ranks(2, |thread| steps(&task, Some(Arc::new(thread))));
    for came in &all {
        assert_eq!(came.scales, alone.scales);
        assert!(came.w == all[0].w && came.radii == all[0].radii);
        let (w, losses) = (relative(&came.w, &alone.w), relative(&came.losses, &alone.losses));
        assert!(w < 1e-3 && losses < 1e-3, "weights {w:e}, losses {losses:e}");
    }
}

/// All ranks have the error of the lowest that failed, each that failed has its own, and all the same exit code or their own.
#[test]
fn an_error_of_one_rank_is_one_of_all() {
    let told = |failing: &[usize]| {
        on_ranks(3, |thread| {
            let rank = thread.rank();
            let own = if failing.contains(&rank) { Err(Error::Usage(format!("no file {rank}"))) } else { Ok(rank) };
            agree(&thread, own)
                .map_err(|error| (error.to_string(), error.exit_code(), matches!(error, Error::Elsewhere { .. })))
        })
    };
    assert_eq!(told(&[]), [Ok(0), Ok(1), Ok(2)]);
    let own = |rank: usize| Err((format!("no file {rank}"), 2, false));
    let of_1 = || Err(("rank 1: no file 1".to_string(), 2, true));
    assert_eq!(told(&[1]), [of_1(), own(1), of_1()]);
    assert_eq!(told(&[1, 2]), [of_1(), own(1), own(2)]);
}

#[test]
fn ranks_with_something_else_are_named() {
    let told = |of: fn(usize) -> Vec<(&'static str, &'static str)>| {
        let all = on_ranks(3, |thread| {
            same(&thread, &of(thread.rank())).map_err(|error| (error.exit_code(), error.to_string()))
        });
        assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
        all[0].clone()
    };
    assert_eq!(told(|_| vec![("version", "1"), ("model", "ab")]), Ok(()));
    assert_eq!(told(|_| vec![]), Ok(()));
    // The first thing that differs, of the lowest rank that has another.
    let (code, text) = told(|rank| match rank {
        0 => vec![("version", "1"), ("data", "ab"), ("model", "x")],
        1 => vec![("version", "1"), ("data", "ab"), ("model", "y")],
        _ => vec![("version", "1"), ("data", "cd"), ("model", "x")],
    })
    .unwrap_err();
    assert_eq!(
        (code, text.as_str()),
        (2, "rank 2 differs from rank 0 in its data: cd instead of ab; all ranks need the same")
    );
    let missing = told(|rank| if rank == 1 { vec![] } else { vec![("version", "1")] }).unwrap_err().1;
    assert_eq!(missing, "rank 1 differs from rank 0 in its version: nothing instead of 1; all ranks need the same");
    let more = told(|rank| if rank == 1 { vec![("version", "1")] } else { vec![] }).unwrap_err().1;
    assert_eq!(more, "rank 1 differs from rank 0 in its version: 1 instead of nothing; all ranks need the same");
}
