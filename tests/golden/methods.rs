//! Every method but TPGM against PyTorch's trajectory (`fixtures/generate_methods.py`).

use super::{batches, model, number, optimizer, settings};
use crate::common::{Fixture, gpu, relative, resnet_50};
use tpgm::checkpoint::Values;
use tpgm::method::{
    Active, Anchor, BatchNorm, Between, Held, Learner, METHODS, MethodArgs, Saved, Settings, Snapshot, Stage, Trained,
};
use tpgm::model::{Model, ModelConfig};
use tpgm::ops::mars::RADIUS_WORDS;

/// Keys of a run in the fixture that are no flags of a method.
const OF_THE_OPTIMIZER: [&str; 6] = ["lr", "momentum", "nesterov", "weight_decay", "betas", "eps"];

/// Of the losses, each relative to itself.
const LOSSES: f32 = 1e-4;
/// Of a tensor's drift, relative to its largest: it is a difference of numbers ten to a hundred times as large.
const DRIFT: f32 = 2e-3;
/// Of a radius, relative to at least one Adam step.
const RADII: f32 = 1e-3;
/// Of a share, a hundredth of an Adam step: it is a sum of quotients of cosines' moments.
const OMEGAS: f32 = 1e-3;

/// Trains as the fixture's run `prefix` did, and holds losses and weights against it.
fn follow(prefix: &str) {
    follow_in(prefix, usize::MAX);
}

/// As [`follow`], with at most so many images at once.
fn follow_in(prefix: &str, micro_batch: usize) {
    let golden = Fixture::open("vit_small_methods");
    let hyper = golden.json(prefix);
    let data = batches(&Fixture::open("vit_small_train"), "train");
    let (model, start) = model("vit_small");
    let config: ModelConfig = model.config.clone();
    let layout = model.layout().clone();
    let settings = settings(optimizer(&hyper), data[0].1.len().min(micro_batch));
    // WiSE and LiNeS see the head as well, and logits can be compared with those of a head that is not new.
    let keeps_head = ["wise", "lines", "distill-logits"].contains(&prefix);
    let excluded: Vec<bool> = layout.params.iter().map(|p| p.name.starts_with("head.") && !keeps_head).collect();
    let losses = golden.f32(&format!("{prefix}.losses"));
    let value = |key: &str| number(&hyper, key);

    // Its flags are those of the run in the fixture.
    let hyper = hyper.as_object().unwrap();
    let of_the_method = hyper.iter().filter(|(key, _)| !OF_THE_OPTIMIZER.contains(&key.as_str()));
    let flags = of_the_method.flat_map(|(key, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), String::from);
        [format!("--{}", key.replace('_', "-")), value]
    });
    let method = METHODS.iter().map(|m| m.name()).filter(|name| prefix.starts_with(name)).max_by_key(|name| name.len());
    let method = ["--method".to_string(), method.unwrap().to_string()];
    let args = MethodArgs::parse(method.into_iter().chain(flags)).unwrap();
    let model = model.distilling(args.distills());
    let mut learner = Learner::new(gpu(), model, &start, settings).unwrap();
    args.validate(&Settings { batch_norm: BatchNorm::Frozen, ..settings }).unwrap();
    let steps = losses.len() as u64;
    let of = Trained { config: &config, layout: &layout, excluded: &excluded, norms: &[], steps, begun: None };
    let stages = args.stages(Stage::whole(&layout, &settings), &of).unwrap();
    let anchor = Anchor { values: &start, excluded: &excluded, new_head: false };
    let mut active = Active::start(&args, &mut learner, &anchor).unwrap();

    for step in 0..losses.len() {
        if let Some(stage) = stages.iter().find(|stage| stage.since == step as u64) {
            learner.begin(stage.clone()).unwrap();
        }
        let stage = stages.iter().rfind(|stage| stage.since <= step as u64).unwrap();
        let (images, labels) = &data[step % data.len()];
        learner.step(images, labels, stage.lr.unwrap_or_else(|| value("lr"))).unwrap();
        active.after_step(&mut learner, &mut || panic!("no method but TPGM learns on validation images")).unwrap();
    }

    let got: Vec<f32> = learner.records(true).unwrap().iter().map(|r| r.loss).collect();
    for (step, (got, want)) in got.iter().zip(&losses).enumerate() {
        assert!((got - want).abs() < LOSSES * want.abs(), "{prefix} step {step}: loss {got} for {want}");
    }
    assert_eq!(got.len(), losses.len());

    let learned = active.learned(&learner, true).unwrap();
    if !learned.is_empty() {
        let names: Vec<String> = serde_json::from_value(golden.json(&format!("{prefix}.tensors"))).unwrap();
        let held: Vec<&str> = active.radii().iter().map(|(t, _)| layout.params[*t].name.as_str()).collect();
        assert_eq!(held, names);
        let radii = golden.f32(&format!("{prefix}.radii"));
        assert_eq!(learned.len() * names.len(), radii.len());
        for (got, want) in learned.iter().zip(radii.chunks(names.len())) {
            for ((radius, want), name) in got.radii.iter().zip(want).zip(&names) {
                let (radius, off) = (radius.radius, (radius.radius - want).abs());
                assert!(off < RADII * want.abs().max(1e-2), "{prefix} {:?}, {name}: {radius} for {want}", got.at);
            }
        }
    }
    assert_eq!(golden.has(&format!("{prefix}.radii")), !learned.is_empty(), "{prefix}");

    let mut saved = Saved::default();
    learner.save(&mut saved).unwrap();
    active.save(&learner, &mut saved).unwrap();
    if golden.has(&format!("{prefix}.omegas")) {
        let names: Vec<String> = serde_json::from_value(golden.json(&format!("{prefix}.tensors"))).unwrap();
        let shares = saved.values().find(|(name, ..)| *name == "shares");
        let Some((.., Values::U32(shares))) = shares else { panic!("{prefix}: no shares are saved") };
        for (name, want) in names.iter().zip(golden.f32(&format!("{prefix}.omegas"))) {
            let tensor = layout.params.iter().position(|param| param.name == *name).unwrap();
            let omega = f32::from_bits(shares[tensor * RADIUS_WORDS]);
            let off = (omega - want).abs();
            assert!(off < OMEGAS, "{prefix} {name}: omega {omega} for {want}");
        }
    }
    let values = active.evaluated(&saved, learner.batches).unwrap_or_else(|| learner.own(&saved));
    let after = active.finish(values, &anchor, &learner.model, &mut |_, _| panic!("alpha is given")).unwrap().values.w;
    let moved: Vec<String> = serde_json::from_value(golden.json(&format!("{prefix}.moved"))).unwrap();
    let mut compared = 0;
    for ((param, got), (_, first)) in layout.unpack(&after).zip(layout.unpack(&start.w)) {
        let name = &param.name;
        if !moved.contains(name) {
            assert!(got.iter().zip(first).all(|(a, b)| a.to_bits() == b.to_bits()), "{prefix}: {name} has moved");
        }
        let key = format!("{prefix}.w.{name}");
        if golden.has(&key) && moved.contains(name) {
            let drift = |w: &[f32]| w.iter().zip(first).map(|(w, w0)| w - w0).collect::<Vec<f32>>();
            let error = relative(&drift(got), &drift(&golden.f32(&key)));
            assert!(error < DRIFT, "{key}: drift off by {error:e}");
            compared += 1;
        }
    }
    assert!(compared >= 2, "{prefix}: only {compared} tensors were compared");
}

macro_rules! methods {
    ($($test:ident $prefix:literal;)*) => {
        $(
            #[test]
            fn $test() {
                follow($prefix);
            }
        )*
        const FOLLOWED: &[&str] = &[$($prefix),*];
    };
}

methods! {
    linear_probing_matches_pytorch "linear-probe";
    lp_ft_matches_pytorch "lp-ft";
    lp_ft_with_adamw_matches_pytorch "lp-ft-adamw";
    bitfit_matches_pytorch "bitfit";
    partial_fine_tuning_matches_pytorch "partial";
    llrd_matches_pytorch "llrd";
    llrd_with_sgd_matches_pytorch "llrd-sgd";
    l2_sp_matches_pytorch "l2-sp";
    l2_sp_with_rates_by_layer_matches_pytorch "l2-sp-layers";
    distillation_of_features_matches_pytorch "distill";
    distillation_of_logits_matches_pytorch "distill-logits";
    a_fixed_mars_radius_matches_pytorch "fixed-radius";
    a_fixed_l2_radius_matches_pytorch "fixed-radius-l2";
    ftp_with_sgd_matches_pytorch "ftp";
    ftp_with_adam_matches_pytorch "ftp-adam";
    ftp_with_rates_by_layer_matches_pytorch "ftp-layers";
    spd_matches_pytorch "spd";
    spd_with_rates_by_layer_matches_pytorch "spd-layers";
    digrap_with_sgd_matches_pytorch "digrap";
    digrap_with_adam_matches_pytorch "digrap-adam";
    digrap_with_rates_by_layer_matches_pytorch "digrap-layers";
    sam_with_sgd_matches_pytorch "sam";
    sam_with_adamw_matches_pytorch "sam-adamw";
    ema_matches_pytorch "ema";
    ema_with_rates_by_layer_matches_pytorch "ema-layers";
    wise_matches_pytorch "wise";
    lines_matches_pytorch "lines";
}

/// The slope is that of the whole batch, and so is the gradient up it.
#[test]
fn sharpness_aware_steps_in_parts_match_pytorch() {
    follow_in("sam", 3);
}

#[test]
fn every_run_of_the_fixture_is_followed() {
    let golden = Fixture::open("vit_small_methods");
    let tensors = golden.tensors();
    let mut runs: Vec<&str> = tensors.names().into_iter().filter_map(|name| name.strip_suffix(".losses")).collect();
    let mut followed = FOLLOWED.to_vec();
    runs.sort_unstable();
    followed.sort_unstable();
    assert_eq!(runs, followed);
}

/// `λ = α + (1 − α)·(l − 1)/(L − 1)` in each of ResNet-50's sixteen blocks, by torchvision's names and the numbers of blocks in a stage.
#[test]
fn lines_scales_block_by_block() {
    let model = Model::new(resnet_50());
    let filled =
        |value| Snapshot { w: vec![value; model.layout().len], stats: vec![value; model.buffers().len], batches: 0 };
    let (start, tuned, alpha) = (filled(0.0), filled(1.0), 0.25f32);
    let at = Between::Lines.snapshot(&model, &start, &tuned, alpha);
    let lambda = |name: &str| {
        let (block, head) = (name.strip_prefix("layer"), name.starts_with("fc."));
        let share = block.map_or(f64::from(u8::from(head)), |name| {
            let mut parts = name.split('.').map(|part| part.parse::<usize>().unwrap_or(0));
            let (stage, block) = (parts.next().unwrap(), parts.next().unwrap());
            ([0, 3, 7, 13][stage - 1] + block) as f64 / 15.0
        });
        (0.25 + 0.75 * share) as f32
    };
    let mut seen = Vec::new();
    for (layout, values) in [(model.layout(), &at.w), (model.buffers(), &at.stats)] {
        for (param, values) in layout.unpack(values) {
            assert!(
                values.iter().all(|v| *v == lambda(&param.name)),
                "{}: {} for {}",
                param.name,
                values[0],
                lambda(&param.name)
            );
            seen.push(values[0].to_bits());
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 16, "a scale for each block; stem and head have those of the first and the last");
    assert!(Between::Lines.snapshot(&model, &start, &tuned, 1.0) == tuned);
    let wise = Between::Wise.snapshot(&model, &start, &tuned, alpha);
    assert!(layout_values(&model, &wise).all(|v| v == alpha));
}

fn layout_values<'a>(model: &'a Model, values: &'a Snapshot) -> impl Iterator<Item = f32> + 'a {
    let unpacked = [(model.layout(), &values.w), (model.buffers(), &values.stats)];
    unpacked
        .into_iter()
        .flat_map(|(layout, values)| layout.unpack(values))
        .flat_map(|(_, values)| values.iter().copied())
}
