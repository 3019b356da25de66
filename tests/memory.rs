//! Memory stays flat over thousands of steps. A binary of its own: the process's size is what is measured.

mod common;

use common::{Fixture, Random, gpu};
use tpgm::cpu::mars::Norm;
use tpgm::method::{BatchNorm, Learner, Optimizer, Settings, Snapshot, Tpgm, TpgmSettings};
use tpgm::model::{Model, VitConfig};
use tpgm::ops::sgd::Sgd;

/// Resident memory of this process in bytes; on a CPU adapter the device's memory is part of it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this test reads Linux's /proc");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
#[cfg(target_os = "linux")]
fn memory_is_flat_over_two_thousand_steps() {
    let config: VitConfig = serde_json::from_value(Fixture::open("vit_quick_golden").json("config")).unwrap();
    let (size, classes) = (config.image_size, config.classes as u32);
    let model = Model::new(config);
    let weights = model.layout().pack(
        model
            .layout()
            .params
            .iter()
            .map(|p| Fixture::open("vit_quick").f32(&p.name))
            .collect::<Vec<_>>()
            .iter()
            .map(Vec::as_slice),
    );
    let optimizer = Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.0 });
    let settings = Settings {
        optimizer,
        clip_norm: 1.0,
        smoothing: 0.0,
        micro_batch: 2,
        radius_batch: 4,
        batch_norm: BatchNorm::Train,
    };
    let mut learner = Learner::new(gpu(), model, &Snapshot::of_weights(weights.clone()), settings).unwrap();
    let tpgm_settings = TpgmSettings { norm: Norm::Mars, radius_lr: 1e-2, max_iters: 1, proj_freq: 1 };
    let excluded = vec![false; learner.model.layout().params.len()];
    let mut tpgm = Tpgm::new(&learner, &weights, &excluded, tpgm_settings).unwrap();
    let mut random = Random::new(1);
    let images = random.vec(4 * 3 * size * size);
    let labels: Vec<u32> = (0..4).map(|i| i % classes).collect();
    let mut steps = |count: usize| {
        let mut losses = 0;
        for _ in 0..count {
            learner.step(&images, &labels, 1e-3).unwrap();
            tpgm.outer(&mut learner, &images, &labels).unwrap();
            tpgm.apply(&mut learner).unwrap();
            losses += learner.records(false).unwrap().len() + tpgm.records(&learner, false).unwrap().len();
        }
        losses += learner.records(true).unwrap().len() + tpgm.records(&learner, true).unwrap().len();
        assert_eq!(losses, 2 * count, "every loss is read back, once");
    };
    steps(300); // buffers, programs and the allocator's pools settle
    let before = resident();
    steps(2000);
    let growth = resident().saturating_sub(before);
    // A leak of a bind group, a staging buffer or a batch a step would be megabytes; pools may still round up a little.
    assert!(growth < 2 << 20, "{growth} bytes more after 2,000 steps");
}
