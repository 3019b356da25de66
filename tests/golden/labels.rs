//! Training on any number of labels against PyTorch's trajectory (`fixtures/generate_labels.py`).

use std::sync::Arc;

use super::{batches, model, number, optimizer, settings};
use crate::common::{Fixture, gpu, relative};
use tpgm::data::LabelSets;
use tpgm::method::{BatchNorm, LabelTargets, Learner, Settings, Stage};

/// Of the losses, each relative to itself, and of a tensor's drift, relative to its largest.
const LOSSES: f32 = 1e-4;
const DRIFT: f32 = 2e-3;

/// Steps with weighted positives and smoothing, over whole batches or in micro-batches.
fn follow(micro: Option<usize>) {
    let golden = Fixture::open("labels");
    let hyper = golden.json("train");
    let data = batches(&Fixture::open("vit_small_train"), "train");
    let (model, start) = model("vit_small");
    let layout = model.layout().clone();
    let (targets, positive) = (golden.u32("train.targets"), golden.f32("train.positive"));
    let (classes, batch) = (positive.len(), data[0].1.len());
    let own = |row: &[u32]| (0..classes as u32).filter(|class| row[*class as usize] == 1).collect();
    let (sets, labels) = LabelSets::of(targets.chunks(classes).map(own));
    let plain = settings(optimizer(&hyper), batch);
    let smoothing = number(&hyper, "smoothing") as f32;
    let settings = Settings { smoothing, micro_batch: micro.unwrap_or(batch), batch_norm: BatchNorm::Frozen, ..plain };
    let mut learner = Learner::new(gpu(), model, &start, settings).unwrap();
    learner.weigh(LabelTargets::new(Arc::new(sets), positive)).unwrap();
    learner.begin(Stage::whole(&layout, &settings)).unwrap();
    let losses = golden.f32("train.losses");
    for step in 0..losses.len() {
        let at = step % data.len();
        learner.step(&data[at].0, &labels[at * batch..(at + 1) * batch], number(&hyper, "lr")).unwrap();
    }
    let got = learner.records(true).unwrap();
    assert_eq!(got.len(), losses.len());
    for (record, want) in got.iter().zip(&losses) {
        let (got, step) = (record.loss, record.step);
        assert!((got - want).abs() < LOSSES * want.abs(), "step {step}: loss {got} for {want}");
    }
    let after = learner.snapshot().unwrap().w;
    let mut compared = 0;
    for ((param, got), (_, first)) in layout.unpack(&after).zip(layout.unpack(&start.w)) {
        let key = format!("train.w.{}", param.name);
        if golden.has(&key) {
            let drift = |w: &[f32]| w.iter().zip(first).map(|(w, w0)| w - w0).collect::<Vec<f32>>();
            let error = relative(&drift(got), &drift(&golden.f32(&key)));
            assert!(error < DRIFT, "{key}: drift off by {error:e}");
            compared += 1;
        }
    }
    assert_eq!(compared, 7);
}

#[test]
fn training_on_labels_matches_pytorch() {
    follow(None);
}

#[test]
fn training_on_labels_in_micro_batches_matches_pytorch() {
    follow(Some(3));
}
