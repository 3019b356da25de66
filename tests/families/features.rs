//! Steps on features that were computed before are the steps on images, bit for bit, in every family and wherever its layers are cut.

use tpgm::gpu::buffer::ALIGN;
use tpgm::method::Stage;
use tpgm::model::place::Place;

use super::*;

/// A stage that trains the tensors for which `trained` holds, by their places.
fn stage(source: &Source, settings: &Settings, trained: &dyn Fn(usize, &str) -> bool) -> Stage {
    let model = source.model();
    let names = model.layout().params.iter().map(|p| p.name.as_str()).enumerate();
    let rates = names.map(|(i, name)| if trained(i, name) { 1.0 } else { 0.0 }).collect();
    Stage { rates, batch_norm: BatchNorm::Frozen, ..Stage::whole(model.layout(), settings) }
}

/// Weights and logits after two steps on images, and on features of them; the words of a cut where there is one.
fn both(family: &Family, recompute: bool, trained: &dyn Fn(usize, &str) -> bool) -> Option<usize> {
    let source = family.open();
    let settings = Settings { recompute, micro_batch: 3, ..settings(&source) };
    let begun = || {
        let mut learner = Learner::new(gpu(), source.model(), &source.snapshot(), settings).unwrap();
        learner.begin(stage(&source, &settings, trained)).unwrap();
        learner
    };
    let (images, labels) = (family.golden.f32("images"), family.golden.u32("labels"));
    let count = labels.len();
    let mut plain = begun();
    let cut = begun().cut()?;
    let mut behind = begun();
    let each = images.len() / count;
    let features: Vec<f32> =
        images.chunks(3 * each).flat_map(|part| behind.features(part, part.len() / each, &cut).unwrap()).collect();
    assert_eq!(features.len(), count * cut.words());
    behind.begin_at(Some(cut.clone()));
    for _ in 0..2 {
        plain.step(&images, &labels, 0.01).unwrap();
        behind.step(&features, &labels, 0.01).unwrap();
    }
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let weights = bits(plain.snapshot().unwrap().w);
    assert_ne!(weights, bits(source.snapshot().w), "nothing was trained");
    assert_eq!(weights, bits(behind.snapshot().unwrap().w), "other weights");
    let logits = bits(plain.logits(&images[..3 * each], 3).unwrap());
    assert_eq!(logits, bits(behind.logits(&features[..3 * cut.words()], 3).unwrap()), "other logits");
    // From the images again.
    behind.begin_at(None);
    assert_eq!(logits, bits(behind.logits(&images[..3 * each], 3).unwrap()));
    Some(cut.words())
}

#[test]
fn steps_on_features_are_the_steps_on_images() {
    let folder = common::fixture_path("families");
    let folder = folder.parent().unwrap();
    let mut names: Vec<String> = fs::read_dir(folder.join("families"))
        .unwrap()
        .filter_map(|e| Some(e.unwrap().file_name().to_str()?.strip_suffix("_golden.safetensors")?.to_string()))
        .collect();
    names.sort();
    assert!(names.len() > 30, "{names:?}");
    let mut cuts = 0;
    for name in &names {
        let family = Family::new(name);
        let source = family.open();
        let (config, tensors) = (&source.recognised.config, source.model().layout().params.len());
        println!("{name}");
        // The head reads features of its own width, or two of them.
        let words =
            both(&family, false, &|_, tensor| config.place(tensor) == Place::Head).expect("a cut below the head");
        assert!(words <= 2 * config.width(), "{name}: {words} words for {} features", config.width());
        for recompute in [false, true] {
            // Where a block of memory begins: what lies in one is trained alike.
            for from in [tensors / 3, 2 * tensors / 3] {
                let begins = |i: &usize| source.model().layout().params[*i].offset.is_multiple_of(ALIGN);
                let from = (from..tensors).find(begins).expect("the head begins one");
                cuts += usize::from(both(&family, recompute, &|i, _| i >= from).is_some());
            }
        }
        assert_eq!(both(&family, false, &|_, _| true), None, "{name}: all layers are trained");
    }
    assert!(cuts > names.len(), "{cuts} cuts of {} networks", names.len());
}
