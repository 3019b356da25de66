//! Memory is as planned, and stays flat over ten thousand steps. A binary of its own: the process's size is measured.

mod common;

use std::sync::Mutex;

use common::{Fixture, Random, gpu};
use tpgm::gpu::Gpu;
use tpgm::method::{
    Active, Anchor, BatchNorm, Learner, METHODS, Memory, MethodArgs, Optimizer, Settings, Snapshot, Tpgm, TpgmSettings,
};
use tpgm::model::{Drops, Model, VitConfig};
use tpgm::ops::adamw::AdamW;
use tpgm::ops::distill::On;
use tpgm::ops::sgd::Sgd;
use tpgm::shapes::Norm;

/// The tests run one after another: what one allocates would count as the other's growth.
static ALONE: Mutex<()> = Mutex::new(());

/// Resident memory of this process in bytes; on a CPU adapter the device's memory is part of it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this test reads Linux's /proc");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
#[cfg(target_os = "linux")]
fn memory_is_flat_over_ten_thousand_steps() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
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
        batch_norm: BatchNorm::Train,
        recompute: false,
        half: None,
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
    // Buffers, programs and the allocator's pools settle: 3 MiB come once, between 300 and 1,000 steps, and then 4 KiB in
    // 9,000.
    steps(1000);
    let growth = [3000; 3].map(|count| {
        let before = resident();
        steps(count);
        resident().saturating_sub(before)
    });
    // A leak of a bind group, a staging buffer or a batch per step would be megabytes in each third; a pool that grows does so once, which on
    // a busy machine may be late (4 MiB were seen).
    let least = growth.iter().min().expect("three thirds");
    assert!(*least < (2 << 20) / 3, "{growth:?} bytes more in each 3,000 steps of 9,000");
}

/// Buffers of a run that was planned for `model`, allocated on a device of its own, trained and evaluated.
fn assert_planned(name: &str, model: &Model, start: &Snapshot, settings: Settings) -> Memory {
    let gpu = Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), true).unwrap();
    let memory = Memory::plan(&gpu, model, &settings, Tpgm::bytes(model.layout(), Norm::Mars)).unwrap();
    assert_eq!(gpu.allocated(), 0, "{name}: a plan leaves nothing behind");
    let mut learner = Learner::new(&gpu, model.clone(), start, settings).unwrap();
    let tpgm_settings = TpgmSettings { norm: Norm::Mars, radius_lr: 1e-2, max_iters: 1, proj_freq: 1 };
    let excluded = vec![false; model.layout().params.len()];
    let mut tpgm = Tpgm::new(&learner, &start.w, &excluded, tpgm_settings).unwrap();
    let (size, classes) = (model.image_size(), model.classes() as u32);
    let images = Random::new(1).vec(8 * 3 * size * size);
    let labels: Vec<u32> = (0..8).map(|i| i % classes).collect();
    for _ in 0..3 {
        learner.step(&images, &labels, 1e-3).unwrap();
        tpgm.outer(&mut learner, &images, &labels).unwrap();
        tpgm.apply(&mut learner).unwrap();
    }
    learner.logits(&images[..3 * size * size], 1).unwrap();
    learner.records(true).unwrap();
    let (planned, taken) = (memory.buffers() as f64, gpu.allocated() as f64);
    println!("{name}: {memory}; {taken} of {planned} bytes");
    assert!((taken / planned - 1.0).abs() < 0.05, "{name}: {taken} bytes taken, {planned} planned");
    memory
}

#[test]
fn a_run_takes_what_was_planned() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let plain = Settings {
        optimizer: Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.0 }),
        clip_norm: 1.0,
        smoothing: 0.0,
        micro_batch: 8,
        batch_norm: BatchNorm::Train,
        recompute: false,
        half: None,
    };
    let adamw = Optimizer::AdamW(AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05 });
    for name in ["vit_small", "resnet_bottleneck"] {
        let (model, start) = common::open(name);
        let whole = assert_planned(name, &model, &start, plain);
        let half = assert_planned(name, &model, &start, Settings { micro_batch: 4, optimizer: adamw, ..plain });
        let again = assert_planned(name, &model, &start, Settings { recompute: true, ..plain });
        let dropping = model.clone().dropping(Drops { path: 0.3, head: 0.1 });
        assert_planned(&format!("{name}, dropping"), &dropping, &start, plain);
        let distilling = model.clone().distilling(Some(On::Features));
        assert_planned(&format!("{name}, distilling"), &distilling, &start, plain);
        assert!(half.activations < whole.activations && again.activations < whole.activations, "{name}");
        assert_eq!(half.optimizer, 2 * whole.optimizer);
    }
}

/// Every method: one that is added is held as well.
#[test]
fn each_method_takes_what_it_planned() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let optimizer = Optimizer::AdamW(AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05 });
    let settings = Settings {
        optimizer,
        clip_norm: 0.0,
        smoothing: 0.0,
        micro_batch: 2,
        batch_norm: BatchNorm::Frozen,
        recompute: false,
        half: None,
    };
    let mut kept = 0;
    for name in ["vit_small", "resnet_bottleneck"] {
        let (model, start) = common::open(name);
        for method in METHODS {
            // What a flag of its own asks for, a run of it always has.
            let flags = match method.name() {
                "fixed-radius" => "--radius 1",
                "ema" => "--ema-decay 0.9",
                "sam" => "--sam-rho 0.05",
                "wise" => "--wise-alpha 0.5",
                "lines" => "--lines-alpha 0.5",
                _ => "",
            };
            for norm in ["mars", "l2"] {
                let line = format!("--method {} --norm {norm} {flags}", method.name());
                let args = MethodArgs::parse(line.split_whitespace()).unwrap();
                args.validate(&settings).unwrap();
                let gpu = Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), true).unwrap();
                let mut learner = Learner::new(&gpu, model.clone(), &start, settings).unwrap();
                let excluded = vec![false; model.layout().params.len()];
                let before = gpu.allocated();
                let anchor = Anchor { values: &start, excluded: &excluded, new_head: false };
                let active = Active::start(&args, &mut learner, &anchor).unwrap();
                let (taken, planned) = (gpu.allocated() - before, args.bytes(&model));
                println!("{name} {line}: {taken} of {planned} bytes");
                // A table's length in chunks of rows is planned to the nearest chunk.
                assert!(
                    taken <= planned && planned - taken <= planned / 50,
                    "{name} {line}: {taken} of {planned} bytes"
                );
                kept += usize::from(taken > 0);
                drop(active);
            }
        }
    }
    assert_eq!(kept, 4 * 9, "l2-sp, distill, sam, fixed-radius, tpgm, ftp, spd, digrap and ema keep something");
}
