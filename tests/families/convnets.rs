//! Convolutional networks with activations recomputed, and in f16.

use tpgm::method::{Learner, LossScaling, Settings};

use super::common::{Random, gpu, relative};
use super::{Family, settings};

const NETS: [&str; 34] = [
    "timm_convnext",
    "timm_convnext_first",
    "timm_convnextv2",
    "open_clip_convnext_mlp",
    "tv_convnext",
    "timm_seresnet",
    "timm_ecaresnet",
    "timm_resnetaa",
    "timm_seresnextaa",
    "timm_resnetrs",
    "timm_regnet",
    "timm_efficientnet",
    "timm_mobilenetv2",
    "timm_mobilenetv3",
    "timm_mobilenetv4",
    "timm_bit",
    "timm_resnetv2",
    "timm_resnetv2_basic",
    "timm_legacy_seresnet",
    "timm_legacy_senet",
    "timm_resnet_silu",
    "timm_resnet_gn",
    "timm_resnetblur",
    "timm_resnetblur_basic",
    "timm_mobilenetv4_blur",
    "timm_mixnet",
    "timm_resnest",
    "timm_resnest_four",
    "timm_efficientnet_odd",
    "timm_resnetv2_odd",
    "timm_hybrid",
    "timm_hybrid_stem",
    "timm_vgg",
    "tv_efficientnet_v2",
];

/// Loss and weights after a step with these settings.
fn after_a_step(family: &Family, settings: Settings) -> (f32, Vec<f32>) {
    let source = family.open();
    let mut learner = Learner::new(gpu(), source.model(), &source.snapshot(), settings).unwrap();
    family.step(&mut learner);
    (learner.records(true).unwrap()[0].loss, gpu().read(&learner.w).unwrap())
}

/// How far a step in f32 ends from `wide`, the move of the weights as they are, where each weight is changed by up to the half of
/// f16's last place.
fn apart_when_shaken(family: &Family, settings: Settings, seed: u64, wide: &[f32]) -> Vec<f32> {
    let source = family.open();
    let (mut values, mut random) = (source.snapshot(), Random::new(seed));
    values.w.iter_mut().for_each(|w| *w *= 1.0 + random.value() * 2f32.powi(-11));
    let mut learner = Learner::new(gpu(), source.model(), &values, settings).unwrap();
    family.step(&mut learner);
    let after: Vec<f32> = gpu().read(&learner.w).unwrap();
    after.iter().zip(&values.w).zip(wide).map(|((after, before), wide)| after - before - wide).collect()
}

#[test]
fn recomputed_activations_give_the_same_bits() {
    for name in NETS {
        let family = Family::new(name);
        let plain = settings(&family.open());
        let kept = after_a_step(&family, plain);
        let again = after_a_step(&family, Settings { recompute: true, ..plain });
        assert_eq!(kept.0.to_bits(), again.0.to_bits(), "{name}");
        assert!(kept.1.iter().zip(&again.1).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}: other weights");
    }
}

#[test]
fn a_step_in_f16_is_near_the_one_in_f32() {
    for name in NETS {
        let family = Family::new(name);
        let source = family.open();
        let plain = settings(&source);
        let half = Settings { half: Some(LossScaling { start: 256.0, ..LossScaling::default() }), ..plain };
        if gpu().check_f16().is_err() {
            assert!(Learner::new(gpu(), source.model(), &source.snapshot(), half).is_err(), "{name}: f16 without f16");
            continue;
        }
        let [(loss, wide), (half_loss, narrow)] = [plain, half].map(|settings| after_a_step(&family, settings));
        let before = source.snapshot().w;
        let moved = |after: &[f32]| after.iter().zip(&before).map(|(a, b)| a - b).collect::<Vec<f32>>();
        let (narrow, wide) = (moved(&narrow), moved(&wide));
        let size = |values: &[f32]| values.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let apart: Vec<f32> = narrow.iter().zip(&wide).map(|(a, b)| a - b).collect();
        let (error, step) = (relative(&[half_loss], &[loss]), size(&apart) / size(&wide));
        println!("{name}: loss {error:.1e}, step {step:.1e}");
        // Ten bits of each value. Where a ReLU's input lies near zero, so small a change of the weights moves a step in f32 as far.
        let shaken = (0..8).map(|seed| size(&apart_when_shaken(&family, plain, seed, &wide)) / size(&wide));
        let shaken = shaken.fold(0.0, f64::max);
        println!("{name}: with weights rounded to f16's precision, a step in f32 is {shaken:.1e} apart");
        let most = f64::max(0.01, 1.5 * shaken);
        assert!(error < 1e-2 && step < most, "{name}: loss {error:e}, step {step:e} of {most:e}");
    }
}
