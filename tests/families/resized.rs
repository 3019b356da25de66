//! The attention pool of CLIP's ResNets at other image sizes, against timm's, which resizes its positions at every call.

use std::fs;

use tpgm::checkpoint::Overrides;
use tpgm::model::ModelConfig;
use tpgm::model::resnet_config::Pooling;
use tpgm::train::evaluate::{Classifier, Predictor};
use tpgm::train::source::Source;

use super::common::{Fixture, fixture_path, gpu, relative};
use super::told::{assert_error, assert_usage};
use super::{LOGITS, learner};

fn open(size: Option<usize>) -> Source {
    let overrides = Overrides { heads: Some(4), image_size: size, ..Overrides::default() };
    Source::open(&fixture_path("clip_resnet"), &overrides).unwrap()
}

fn positions(source: &Source) -> (Vec<usize>, Vec<f32>) {
    let found = source.weights.iter().find(|(name, ..)| name == "attnpool.positional_embedding").unwrap();
    (found.1.clone(), found.2.clone())
}

/// The first two images of the fixture, repeated and cut to `size` pixels.
fn images(size: usize) -> Vec<f32> {
    let all = Fixture::open("clip_resnet_images").f32("images");
    let at = |row: usize, x: usize| all[row * 64 + x % 64];
    (0..2 * 3 * size).flat_map(|row| (0..size).map(move |x| at(row / size * 64 + row % size % 64, x))).collect()
}

#[test]
fn positions_of_an_attention_pool_are_resized_as_timm_does() {
    let golden = Fixture::open("clip_resnet_resized");
    let predict = |source: &Source, size: usize| {
        let predictor = Predictor::new(gpu(), source.model(), &source.snapshot(), 2);
        predictor.unwrap().logits(&images(size), 2).unwrap()
    };
    for (size, grid) in [(32, 1), (96, 3)] {
        let source = open(Some(size));
        let (shape, values) = positions(&source);
        assert_eq!(shape, [1 + grid * grid, 40]);
        let error = relative(&values, &golden.f32(&format!("{size}.positions")));
        assert!(error < 1e-5, "{size}: {error:e}");
        assert_eq!(values[..40], positions(&open(None)).1[..40], "the mean's own position");
        let note = format!("positions resized from 2 x 2 (64 pixels) to {grid} x {grid} ({size} pixels)");
        assert!(source.recognised.notes.contains(&note.into()), "{:?}", source.recognised.notes);
        let logits = predict(&source, size);
        let error = relative(&logits, &golden.f32(&format!("{size}.logits")));
        assert!(error < LOGITS, "{size}: {error:e}");

        // Trained and saved at its new size, it opens so, without a flag.
        let mut learner = learner(&source);
        learner.step(&images(size), &[0, 1], 0.01).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("saved.safetensors");
        source.save(&path, &learner.snapshot().unwrap()).unwrap();
        let again = Source::open(&path, &Overrides::default()).unwrap();
        assert_eq!(again.recognised.config, source.recognised.config);
        assert_ne!(positions(&again), positions(&source));
        assert!(again.recognised.resize.is_none());
        assert_eq!(predict(&again, size), learner.logits(&images(size), 2).unwrap());
    }
    // A size for which the network leaves the same grid needs nothing.
    assert!(open(Some(79)).recognised.resize.is_none());
    let huge = Overrides { heads: Some(4), image_size: Some(1 << 20), ..Overrides::default() };
    let huge = Source::open(&fixture_path("clip_resnet"), &huge);
    assert_usage(huge, &["--image-size: ", "more than 16384"]);
}

#[test]
fn openclips_configuration_tells_the_heads_and_the_input() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(fixture_path("clip_resnet"), dir.path().join("model.safetensors")).unwrap();
    let config = r#"{"model_cfg": {"vision_cfg": {"layers": [1, 2, 1, 1], "width": 5, "head_width": 40, "image_size": 64}},
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear"}}"#;
    fs::write(dir.path().join("open_clip_config.json"), config).unwrap();
    let recognised = Source::open(dir.path(), &Overrides::default()).unwrap().recognised;
    let pooling = Pooling::Attention { heads: 4, features: 12 };
    assert!(matches!(&recognised.config, ModelConfig::ResNet(config) if config.pooling == pooling));
    assert_eq!(recognised.preprocess.mean, [0.1, 0.2, 0.3]);
    assert!(recognised.notes.iter().all(|note| !note.what.contains("assumed")), "{:?}", recognised.notes);
}

#[test]
fn a_configuration_for_another_size_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(fixture_path("clip_resnet"), dir.path().join("model.safetensors")).unwrap();
    fs::write(dir.path().join("config.json"), r#"{"pretrained_cfg": {"input_size": [3, 96, 96]}}"#).unwrap();
    let read = |image_size| Source::open(dir.path(), &Overrides { heads: Some(4), image_size, ..Overrides::default() });
    assert_error(read(None), &["config.json says 96 pixels", "positions are for 64", "--image-size"]);
    assert_eq!(read(Some(64)).unwrap().recognised.config.image_size(), 64);
}
