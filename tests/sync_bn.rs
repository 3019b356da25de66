//! Batch norm whose statistics are those of several ranks: parts of a batch on n ranks give what the whole batch gives on one.

mod common;

use std::ops::Range;

use common::threads::on_ranks;
use common::{Random, gpu, open, relative};
use tpgm::gpu::Program;
use tpgm::method::Snapshot;
use tpgm::model::{Mode, Model, Phase, Precision};
use tpgm::ops::Recorder;
use tpgm::ops::cross_entropy;
use tpgm::ranks::{Ranks, part};

const IMAGES: usize = 5;

/// Logits, gradient and running statistics of a pass over these images of a batch.
fn pass(
    model: &Model,
    start: &Snapshot,
    images: Range<usize>,
    ranks: Option<&dyn Ranks>,
    mode: Mode,
    precision: Precision,
    phase: Phase,
) -> [Vec<f32>; 3] {
    let gpu = gpu();
    let (batch, classes) = (images.len(), model.classes());
    let acts = model.plan(gpu, batch, mode, precision).unwrap().allocate(gpu).unwrap();
    let (w, stats) = start.upload(gpu, model).unwrap();
    let dw = model.layout().arena(gpu, "gradient").unwrap();
    let per_image = acts.images(1).len;
    let all = Random::new(3).vec(IMAGES * per_image);
    gpu.write(&acts.images(batch), &all[images.start * per_image..images.end * per_image]);
    gpu.write(&acts.labels(batch), &images.map(|i| (i % classes) as u32).collect::<Vec<_>>());
    let dims = cross_entropy::Dims { batch, classes, smoothing: 0.1, grad_scale: 1.0 / IMAGES as f32 };
    let scratch = acts.scratch();
    let mut r = Recorder::new(gpu, &scratch);
    acts.cast_weights(&mut r, &w).unwrap();
    let recording = acts.forward(model, &mut r, batch, &w, &stats, phase).unwrap();
    let (loss, dlogits, logits) = (acts.loss(batch), acts.dlogits(batch), acts.logits(batch));
    cross_entropy::forward(&mut r, &loss, &dlogits, &logits, &acts.labels(batch), dims).unwrap();
    recording.backward(&mut r, &dlogits, &dw, &|_| true).unwrap();
    assert_eq!(r.program.exchanges(), ranks.is_some() && phase == Phase::Train, "{phase:?}");
    match ranks {
        Some(ranks) => Program::run_with(gpu, ranks, &[&dw], &[&r.program]).unwrap(),
        None => Program::run(gpu, &[&dw], &[&r.program]).unwrap(),
    };
    [&logits, &dw, &stats].map(|view| gpu.read(view).unwrap())
}

/// The same of all images on `size` ranks: logits in the order of images, the sum of the gradients, and the statistics of each.
fn parts(
    model: &Model,
    start: &Snapshot,
    size: usize,
    mode: Mode,
    precision: Precision,
) -> (Vec<f32>, Vec<f32>, Vec<Vec<f32>>) {
    let model = model.clone().across(size);
    let all = on_ranks(size, |ranks| {
        let own = part(IMAGES, ranks.rank(), size);
        pass(&model, start, own, Some(&ranks), mode, precision, Phase::Train)
    });
    let logits = all.iter().flat_map(|[logits, ..]| logits.clone()).collect();
    let mut sum = vec![0.0; all[0][1].len()];
    all.iter().for_each(|[_, dw, _]| sum.iter_mut().zip(dw).for_each(|(sum, own)| *sum += own));
    (logits, sum, all.into_iter().map(|[.., stats]| stats).collect())
}

fn compare(name: &str, model: &Model, start: &Snapshot, size: usize, mode: Mode, precision: Precision, most: [f32; 3]) {
    let [logits, gradient, stats] = pass(model, start, 0..IMAGES, None, mode, precision, Phase::Train);
    let (got_logits, got_gradient, got_stats) = parts(model, start, size, mode, precision);
    let errors = [relative(&got_logits, &logits), relative(&got_gradient, &gradient), relative(&got_stats[0], &stats)];
    println!("{name}, {size} ranks, {mode:?}, {precision:?}: {errors:?}");
    assert!(got_stats.iter().all(|own| *own == got_stats[0]), "{name}: statistics differ between ranks");
    assert!(stats != start.stats, "{name}: statistics stayed");
    for (error, most) in errors.into_iter().zip(most) {
        assert!(error <= most, "{name}, {size} ranks, {mode:?}, {precision:?}: {errors:?}");
    }
}

#[test]
fn parts_of_a_batch_on_several_ranks_give_what_the_whole_gives_on_one() {
    for name in ["resnet_basic", "resnet_bottleneck", "resnet_d"] {
        let (model, start) = open(name);
        for (size, mode) in [(2, Mode::Train), (3, Mode::Recompute)] {
            compare(name, &model, &start, size, mode, Precision::F32, [1e-5, 1e-5, 1e-5]);
        }
    }
}

/// Without shared statistics the parts give something else: what the comparison would not see is nothing.
#[test]
fn statistics_of_its_own_part_alone_give_something_else() {
    let (model, start) = open("resnet_basic");
    let [whole, ..] = pass(&model, &start, 0..IMAGES, None, Mode::Train, Precision::F32, Phase::Train);
    let [own, ..] = pass(&model, &start, 0..3, None, Mode::Train, Precision::F32, Phase::Train);
    assert!(relative(&own, &whole[..own.len()]) > 1e-2);
}

#[test]
fn nothing_is_exchanged_where_running_statistics_normalise() {
    let (model, start) = open("resnet_basic");
    let model = model.across(2);
    for phase in [Phase::Frozen, Phase::Eval] {
        pass(&model, &start, 0..2, None, Mode::Train, Precision::F32, phase);
    }
}

/// In f16 as well, as far as its rounding allows.
#[test]
fn activations_may_be_f16() {
    let (model, start) = open("resnet_bottleneck");
    if gpu().check_f16().is_err() {
        assert!(model.plan(gpu(), 2, Mode::Train, Precision::F16).is_err(), "f16 on an adapter without it");
        return;
    }
    compare("resnet_bottleneck", &model, &start, 2, Mode::Train, Precision::F16, [5e-3, 1e-2, 5e-4]);
}

#[test]
#[should_panic(expected = "a program for several ranks, run on one")]
fn a_program_that_exchanges_is_not_run_alone() {
    let (model, start) = open("resnet_basic");
    let model = model.across(2);
    let acts = model.plan(gpu(), 2, Mode::Train, Precision::F32).unwrap().allocate(gpu()).unwrap();
    let (w, stats) = start.upload(gpu(), &model).unwrap();
    let scratch = acts.scratch();
    let mut r = Recorder::new(gpu(), &scratch);
    acts.forward(&model, &mut r, 2, &w, &stats, Phase::Train).unwrap();
    Program::run(gpu(), &[], &[&r.program]).unwrap();
}
