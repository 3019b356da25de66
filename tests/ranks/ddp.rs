//! Two ranks against PyTorch's DistributedDataParallel on two processes, which means gradients instead of adding parts of them up.

use std::sync::Arc;

use tpgm::gpu::Gpu;
use tpgm::method::{BatchNorm, Learner, Optimizer, Saved, Settings, Snapshot};
use tpgm::model::Model;
use tpgm::ops::sgd::Sgd;
use tpgm::ranks::Ranks;

use crate::common::threads::on_ranks;
use crate::common::{Fixture, relative, resnet};
use crate::{ADAMW, STEPS, vit_small};

/// As tests/fixtures/generate_ddp.py says.
const BATCH: usize = 6;
const SGD: Optimizer = Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: true, weight_decay: 5e-4 });

/// What `case` of ddp.safetensors is of, and images and labels of its steps.
struct Case {
    name: &'static str,
    model: Model,
    start: Snapshot,
    optimizer: Optimizer,
    lr: f64,
    batch_norm: BatchNorm,
    images: Vec<f32>,
    labels: Vec<u32>,
}

fn vit(name: &'static str, optimizer: Optimizer, lr: f64) -> Case {
    let ((model, start), data) = (vit_small(), Fixture::open("vit_small_train"));
    let (images, labels) = (data.f32("train_images"), data.u32("train_labels"));
    Case { name, model, start, optimizer, lr, batch_norm: BatchNorm::Train, images, labels }
}

fn net(name: &'static str, batch_norm: BatchNorm) -> Case {
    let (resnet::Net { model, start, .. }, data) = (resnet::open("resnet_basic"), Fixture::open("resnet_images"));
    let (images, labels) = (data.f32("images"), data.u32("labels"));
    Case { name, model, start, optimizer: SGD, lr: 0.01, batch_norm, images, labels }
}

/// Weights, running statistics and losses of ten steps on the rank `ranks`.
fn steps(case: &Case, ranks: Arc<dyn Ranks>) -> (Snapshot, Vec<f32>) {
    let gpu = Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), true).unwrap();
    let (optimizer, batch_norm) = (case.optimizer, case.batch_norm);
    let settings = Settings {
        optimizer,
        clip_norm: 0.0,
        smoothing: 0.0,
        micro_batch: BATCH,
        batch_norm,
        recompute: false,
        half: None,
    };
    let model = case.model.clone().across(if case.name == "resnet_sync" { ranks.size() } else { 1 });
    let mut learner = Learner::new(&gpu, model, &case.start, settings).unwrap();
    learner.join(ranks);
    let (count, pixels) = (case.labels.len(), case.images.len() / case.labels.len());
    for step in 0..STEPS {
        let rows: Vec<usize> = (BATCH * step..BATCH * (step + 1)).map(|row| row % count).collect();
        let labels: Vec<u32> = rows.iter().map(|row| case.labels[*row]).collect();
        let own = &rows[learner.part(BATCH)];
        let images: Vec<f32> =
            own.iter().flat_map(|row| &case.images[row * pixels..(row + 1) * pixels]).copied().collect();
        learner.step(&images, &labels, case.lr).unwrap();
    }
    let losses = learner.records(true).unwrap().iter().map(|record| record.loss).collect();
    let mut saved = Saved::default();
    learner.save(&mut saved).unwrap();
    (learner.own(&saved), losses)
}

fn agrees(case: &Case) {
    let golden = Fixture::open("ddp");
    let name = case.name;
    for (rank, (came, losses)) in on_ranks(2, |thread| steps(case, Arc::new(thread))).iter().enumerate() {
        let off = relative(losses, &golden.f32(&format!("{name}.losses")));
        assert!(off < 1e-5, "{name}: losses of rank {rank} {off:e}");
        for (param, values) in case.model.layout().unpack(&came.w) {
            let off = relative(values, &golden.f32(&format!("{name}.w.{}", param.name)));
            assert!(off < 1e-5, "{name}: {} of rank {rank} {off:e}", param.name);
        }
        for (buffer, values) in case.model.buffers().unpack(&came.stats) {
            let off = relative(values, &golden.f32(&format!("{name}.stats.{}", buffer.name)));
            assert!(off < 1e-5, "{name}: {} of rank {rank} {off:e}", buffer.name);
        }
    }
}

#[test]
fn vits() {
    agrees(&vit("vit_sgd", SGD, 0.01));
    agrees(&vit("vit_adamw", Optimizer::AdamW(ADAMW), 1e-3));
}

#[test]
fn resnets() {
    agrees(&net("resnet_frozen", BatchNorm::Frozen));
    agrees(&net("resnet_sync", BatchNorm::Train));
}
