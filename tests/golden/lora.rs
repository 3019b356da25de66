//! Low-rank adapters against PyTorch's trajectory (`fixtures/generate_lora.py`).

use super::{batches, model, number, optimizer, settings};
use crate::common::{Fixture, relative};
use tpgm::gpu::Gpu;
use tpgm::method::{Active, Anchor, BatchNorm, Learner, Method, MethodArgs, Settings, Snapshot, Stage, Trained};
use tpgm::model::Adapters;

/// Of the losses, each relative to itself.
const LOSSES: f32 = 1e-4;
/// Of a tensor's drift, relative to its largest element.
const DRIFT: f32 = 2e-3;

fn follow(prefix: &str, flags: &str) {
    let golden = Fixture::open("vit_small_lora");
    let hyper = golden.json(prefix);
    let data = batches(&Fixture::open("vit_small_train"), "train");
    let (model, start) = model("vit_small");
    let names: Vec<String> = serde_json::from_value(golden.json("targets")).unwrap();
    let targets: Vec<usize> = names.iter().map(|name| model.layout().index(&format!("{name}.weight"))).collect();
    let (rank, alpha) = (number(&hyper, "rank") as usize, number(&hyper, "alpha") as f32);
    let base = model.layout().len;
    let model = model.adapted(rank, alpha / rank as f32, &targets);
    let (layout, config) = (model.layout().clone(), model.config.clone());
    assert!(layout.params[..targets.len()].iter().all(|param| !Adapters::is_part(&param.name)));
    let mut first = start.w.clone();
    first.resize(layout.len, 0.0);
    for param in layout.params.iter().filter(|param| param.name.ends_with("lora_A.weight")) {
        let values = golden.f32(&format!("{prefix}.first.{}", param.name));
        first[param.offset..param.offset + param.len].copy_from_slice(&values);
    }
    let start = Snapshot { w: first, ..start };
    let settings = Settings { batch_norm: BatchNorm::Frozen, ..settings(optimizer(&hyper), data[0].1.len()) };
    let args = MethodArgs::parse(format!("--method vanilla --lora-rank {rank} {flags}").split_whitespace()).unwrap();
    args.validate(&settings).unwrap();
    let excluded = vec![false; layout.params.len()];
    let losses = golden.f32(&format!("{prefix}.losses"));
    let of = Trained {
        config: &config,
        layout: &layout,
        excluded: &excluded,
        norms: &[],
        steps: losses.len() as u64,
        begun: None,
    };
    let stages = args.stages(Stage::whole(&layout, &settings), &of).unwrap();
    // Of its own, since other tests allocate meanwhile.
    let gpu = Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), true).unwrap();
    let mut learner = Learner::new(&gpu, model, &start, settings).unwrap();
    let before = gpu.allocated();
    let mut active =
        Active::start(&args, &mut learner, &Anchor { values: &start, excluded: &excluded, new_head: false }).unwrap();
    assert_eq!(gpu.allocated() - before, args.bytes(&learner.model), "as planned");
    learner.begin(stages[0].clone()).unwrap();
    for step in 0..losses.len() {
        let (images, labels) = &data[step % data.len()];
        learner.step(images, labels, number(&hyper, "lr")).unwrap();
        tpgm::method::Held::after_step(&mut active, &mut learner, &mut || panic!("no validation images")).unwrap();
    }
    let got: Vec<f32> = learner.records(true).unwrap().iter().map(|record| record.loss).collect();
    for (step, (got, want)) in got.iter().zip(&losses).enumerate() {
        assert!((got - want).abs() < LOSSES * want.abs(), "{prefix} step {step}: loss {got} for {want}");
    }
    assert_eq!(got.len(), losses.len());
    let after = learner.snapshot().unwrap().w;
    let mut compared = 0;
    for ((param, got), (_, first)) in layout.unpack(&after).zip(layout.unpack(&start.w)) {
        let key = format!("{prefix}.w.{}", param.name);
        if !golden.has(&key) {
            assert!(got == first, "{prefix}: {} has moved", param.name);
            continue;
        }
        let drift = |w: &[f32]| w.iter().zip(first).map(|(w, w0)| w - w0).collect::<Vec<f32>>();
        let error = relative(&drift(got), &drift(&golden.f32(&key)));
        assert!(error < DRIFT, "{key}: drift off by {error:e}");
        compared += 1;
    }
    assert_eq!(compared, 3 * names.len() + 2, "weights, A and B of each, and the head");
    assert!(layout.len > base);
    let lora: &dyn Method = tpgm::method::named("lora").unwrap();
    assert!(lora.joins(&args));
}

#[test]
fn adapters_with_sgd_match_pytorch() {
    follow("sgd", "--lora-alpha 8");
}

#[test]
fn adapters_with_adamw_match_pytorch() {
    follow("adamw", "");
}

/// A is uniform within ±1/√inputs, B zero, and the rest as it was.
#[test]
fn adapters_begin_as_in_peft() {
    let (model, start) = model("vit_small");
    let (base, count) = (model.layout().len, start.w.len());
    let model = model.adapted(16, 1.0, &[4, 6]);
    let adapters = model.adapters().unwrap().clone();
    let begin = |seed| adapters.begin(model.layout(), start.w.clone(), seed);
    let (w, layout) = (begin(3), model.layout());
    assert_eq!((&w[..base], count), (&start.w[..], base));
    assert!(w == begin(3) && w != begin(4));
    for adapter in &adapters.of {
        let of = |tensor: usize| layout.unpack(&w).nth(tensor).unwrap().1.to_vec();
        let (a, b, bound) = (of(adapter.a), of(adapter.b), (adapter.inputs as f32).sqrt().recip());
        assert!(b.iter().all(|value| *value == 0.0) && a.iter().all(|value| value.abs() <= bound));
        let n = a.len() as f32;
        let (mean, square) = (a.iter().sum::<f32>() / n, a.iter().map(|value| value * value).sum::<f32>() / n);
        // Of a uniform distribution: bound²/3. Five standard deviations.
        assert!(mean.abs() < 5.0 * bound / (3.0 * n).sqrt(), "{mean}");
        assert!((square / (bound * bound / 3.0) - 1.0).abs() < 5.0 * (0.8 / n).sqrt(), "{square}");
    }
}
