//! Every method but TPGM against PyTorch's trajectory (`fixtures/generate_methods.py`).

use super::{arena, batches, model, number, optimizer, settings};
use crate::common::{Fixture, gpu, relative};
use tpgm::method::{
    Ema, Ftp, FtpSettings, Learner, Stage, bitfit, fixed_radius, l2_sp, linear_probe, llrd, lp_ft, partial, spd, wise,
};
use tpgm::model::ModelConfig;
use tpgm::shapes::Norm;

/// Of the losses, each relative to itself.
const LOSSES: f32 = 1e-4;
/// Of a tensor's drift, relative to its largest: it is a difference of numbers ten to a hundred times as large.
const DRIFT: f32 = 2e-3;
/// Of a radius, relative to at least one Adam step.
const RADII: f32 = 1e-3;

/// Trains as the fixture's run `prefix` did, and holds losses and weights against it.
fn follow(prefix: &str) {
    let golden = Fixture::open("vit_small_methods");
    let hyper = golden.json(prefix);
    let data = batches(&Fixture::open("vit_small_train"), "train");
    let (model, start) = model("vit_small");
    let config: ModelConfig = model.config.clone();
    let layout = model.layout().clone();
    let settings = settings(optimizer(&hyper), data[0].1.len());
    let mut learner = Learner::new(gpu(), model, &start, settings).unwrap();
    let excluded: Vec<bool> = layout.params.iter().map(|p| p.name.starts_with("head.")).collect();
    let losses = golden.f32(&format!("{prefix}.losses"));
    let value = |key: &str| number(&hyper, key);

    let whole = Stage::whole(&layout, &settings);
    let method = prefix.strip_suffix("-adamw").unwrap_or(prefix);
    let split = (method == "lp-ft").then(|| lp_ft::LpFt { steps: losses.len() as u64, share: value("probe_share") });
    let stage = match method {
        "linear-probe" => linear_probe::stage(whole.clone(), &config, &layout),
        "lp-ft" => linear_probe::stage(whole.clone(), &config, &layout),
        "bitfit" => bitfit::stage(whole.clone(), &config, &layout),
        "partial" => partial::stage(whole.clone(), value("freeze_blocks") as usize, &config, &layout),
        "llrd" | "llrd-sgd" => llrd::stage(whole.clone(), value("layer_decay"), &config, &layout),
        "l2-sp" => l2_sp::stage(whole.clone(), &excluded),
        "spd" => spd::stage(whole.clone()),
        _ => whole.clone(),
    };
    learner.begin(stage, 0).unwrap();
    let mut ftp = None;
    match method {
        "l2-sp" => {
            let lambda = value("anchor_decay") as f32;
            learner.surround(l2_sp::around(&learner, &start.w, &excluded, lambda).unwrap());
        }
        "fixed-radius" | "fixed-radius-l2" => {
            let norm: Norm = serde_json::from_value(hyper["norm"].clone()).unwrap();
            let radius = value("radius") as f32;
            learner.surround(fixed_radius::around(&learner, &start.w, &excluded, norm, radius).unwrap());
        }
        "spd" => {
            let lambda = value("weight_decay") as f32;
            learner.surround(spd::around(&learner, &start.w, &excluded, lambda).unwrap());
        }
        "ftp" | "ftp-adam" => {
            let settings = FtpSettings { radius_lr: value("radius_lr") as f32, k: value("ftp_k") as f32 };
            let (own, around) = Ftp::new(&learner, &start.w, &excluded, settings).unwrap();
            learner.surround(around);
            ftp = Some(own);
        }
        _ => {}
    }
    let ema = (method == "ema").then(|| Ema::new(&learner, &start, value("ema_decay")).unwrap());

    for step in 0..losses.len() {
        if let Some(split) = split {
            let (since, stage) = split.stage(step as u64, whole.clone(), &config, &layout);
            if since == step as u64 {
                learner.begin(stage, since).unwrap();
            }
        }
        let probing = split.is_some_and(|split| (step as u64) < split.probe_steps());
        let (images, labels) = &data[step % data.len()];
        learner.step(images, labels, if probing { value("probe_lr") } else { value("lr") }).unwrap();
        if let Some(ftp) = &mut ftp {
            ftp.note_step(&learner);
        }
        if let Some(ema) = &ema {
            ema.update(&mut learner).unwrap();
        }
    }

    let got: Vec<f32> = learner.records(true).unwrap().iter().map(|r| r.loss).collect();
    for (step, (got, want)) in got.iter().zip(&losses).enumerate() {
        assert!((got - want).abs() < LOSSES * want.abs(), "{prefix} step {step}: loss {got} for {want}");
    }
    assert_eq!(got.len(), losses.len());

    if let Some(ftp) = &mut ftp {
        let names: Vec<String> = serde_json::from_value(golden.json(&format!("{prefix}.tensors"))).unwrap();
        let held: Vec<&str> = ftp.projected.iter().map(|t| layout.params[*t].name.as_str()).collect();
        assert_eq!(held, names);
        let radii = golden.f32(&format!("{prefix}.radii"));
        let records = ftp.records(&learner, true).unwrap();
        assert_eq!(records.len() * names.len(), radii.len());
        for ((step, got), want) in records.iter().zip(radii.chunks(names.len())) {
            for ((got, want), name) in got.iter().zip(want).zip(&names) {
                let off = (got.radius - want).abs();
                assert!(off < RADII * want.abs().max(1e-2), "{prefix} step {step}, {name}: {} for {want}", got.radius);
            }
        }
    }

    let after = match &ema {
        Some(ema) => ema.snapshot(&learner).unwrap().w,
        None if method == "wise" => {
            wise::interpolate(&start.w, &arena(&learner, &learner.w), value("wise_alpha") as f32)
        }
        None => arena(&learner, &learner.w),
    };
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
    a_fixed_mars_radius_matches_pytorch "fixed-radius";
    a_fixed_l2_radius_matches_pytorch "fixed-radius-l2";
    ftp_with_sgd_matches_pytorch "ftp";
    ftp_with_adam_matches_pytorch "ftp-adam";
    spd_matches_pytorch "spd";
    ema_matches_pytorch "ema";
    wise_matches_pytorch "wise";
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
