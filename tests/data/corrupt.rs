//! Corruptions: the deterministic ones against `fixtures/generate_corruptions.py`, the noises by their moments, and what all
//! of them promise.

use image::Rgb;
use safetensors::SafeTensors;
use tpgm::data::corrupt::{Corruption, CorruptionKind, SEVERITIES, motion_blur, parse};
use tpgm::data::{EvalBatches, ImageCache, RgbImage, decode, eval_batches};

use super::loader::seven;
use super::{fixtures, preprocess};

/// The source at 224 and at 64 pixels, and every expected tensor by name.
fn goldens() -> (Vec<RgbImage>, Vec<(String, Vec<u8>)>) {
    let file = std::fs::read(fixtures().join("corrupt_expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let small = RgbImage::from_raw(64, 64, tensors.tensor("64/source").unwrap().data().to_vec()).unwrap();
    let sources = vec![decode(fixtures().join("corrupt_source.png")).unwrap(), small];
    (sources, tensors.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect())
}

fn new(kind: CorruptionKind, severity: u8) -> Corruption {
    Corruption::new(kind, severity, 0).unwrap()
}

fn kind_of(name: &str) -> CorruptionKind {
    parse(&[name.into()], 0).unwrap()[0].kind
}

#[test]
fn deterministic_corruptions_are_those_of_their_definitions() {
    let (sources, expected) = goldens();
    let mut count = 0;
    for (name, expected) in &expected {
        let [size, kind, severity] = name.split('/').collect::<Vec<_>>()[..] else { continue };
        let (Ok(size), Ok(severity)) = (size.parse::<u32>(), severity.parse::<u8>()) else { continue };
        let source = sources.iter().find(|image| image.width() == size).unwrap();
        let image = match kind.split_once('@') {
            Some((_, degrees)) => motion_blur(source, severity, degrees.parse().unwrap()).unwrap(),
            None => new(kind_of(kind), severity).apply(source),
        };
        let step = size / 16;
        let actual: Vec<u8> = (0..16 * 16).flat_map(|i| image.get_pixel(i % 16 * step, i / 16 * step).0).collect();
        let differences: Vec<u8> = actual.iter().zip(expected).map(|(a, e)| a.abs_diff(*e)).collect();
        let worst = differences.iter().max().unwrap();
        assert!(*worst <= 1, "{name}: {worst} levels off");
        count += 1;
    }
    assert_eq!(count, 2 * 5 * 10);
}

#[test]
fn noises_have_the_moments_of_their_definitions() {
    let grey = RgbImage::from_pixel(224, 224, Rgb([100; 3]));
    let (_, expected) = goldens();
    let mut count = 0;
    for (name, bytes) in &expected {
        let Some((kind, severity)) = name.strip_prefix("moments/").and_then(|rest| rest.split_once('/')) else {
            continue;
        };
        let want: Vec<f64> = bytes.chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect();
        let image = new(kind_of(kind), severity.parse().unwrap()).apply(&grey);
        let values: Vec<f64> = image.as_raw().iter().map(|v| f64::from(*v) / 255.0).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        // Five standard errors of 150,528 draws of deviation 0.38, and half a level of rounding.
        for (got, want) in [mean, deviation].iter().zip(&want) {
            assert!((got - want).abs() < 0.005 + 0.002, "{name}: {got}, expected {want}");
        }
        // Pixels and channels are drawn one by one: neighbours do not go together.
        let pairs = values.windows(2).map(|w| (w[0] - mean) * (w[1] - mean)).sum::<f64>() / values.len() as f64;
        assert!(pairs.abs() < 0.015 * deviation * deviation, "{name}: neighbours correlate, {pairs}");
        count += 1;
    }
    assert_eq!(count, 4 * 5);
}

fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let squares = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    (squares.sum::<f64>() / a.as_raw().len() as f64).sqrt()
}

#[test]
fn a_corruption_depends_on_the_image_the_kind_and_the_seed_alone() {
    let (sources, _) = goldens();
    let random = [
        CorruptionKind::GaussianNoise,
        CorruptionKind::ShotNoise,
        CorruptionKind::ImpulseNoise,
        CorruptionKind::SpeckleNoise,
        CorruptionKind::GlassBlur,
        CorruptionKind::MotionBlur,
        CorruptionKind::Fog,
        CorruptionKind::Snow,
        CorruptionKind::ElasticTransform,
    ];
    let source = &sources[1];
    for kind in CorruptionKind::ALL {
        let [one, again, other] = [0, 0, 1].map(|seed| Corruption::new(kind, 3, seed).unwrap().apply(source));
        assert_eq!(one, again, "{kind:?}");
        assert_eq!(one != other, random.contains(&kind), "{kind:?} and its seed");
    }
}

#[test]
fn severities_grow() {
    let (sources, _) = goldens();
    for kind in CorruptionKind::ALL {
        let far: Vec<f64> = SEVERITIES.map(|s| difference(&sources[0], &new(kind, s).apply(&sources[0]))).collect();
        assert!(far.iter().all(|d| *d > 1.0), "{kind:?} changes next to nothing: {far:?}");
        // Elastic severities are of two sorts, and saturation goes down before it goes up.
        if ![CorruptionKind::ElasticTransform, CorruptionKind::Saturate].contains(&kind) {
            assert!(far[4] > far[0], "{kind:?}: {far:?}");
        }
    }
}

#[test]
fn any_size_and_shape_is_taken() {
    for (width, height) in [(1, 1), (2, 3), (17, 9), (8, 33)] {
        let image = RgbImage::from_fn(width, height, |x, y| Rgb([(x * 9) as u8, (y * 7) as u8, 40]));
        for corruption in parse(&["all".into()], 0).unwrap() {
            assert_eq!(corruption.apply(&image).dimensions(), (width, height), "{corruption}");
        }
    }
    let black = RgbImage::new(16, 16);
    for corruption in parse(&["all:5".into()], 0).unwrap() {
        corruption.apply(&black);
    }
}

#[test]
fn batches_are_corrupted_the_same_whatever_their_size() {
    let (_dir, dataset) = seven();
    let clean = ImageCache::new(dataset.clone(), 1 << 20);
    let corrupted = clean.corrupted(new(CorruptionKind::GaussianNoise, 5));
    let pixels = |images: &std::sync::Arc<ImageCache>, batch| -> Vec<f32> {
        EvalBatches::new(images.clone(), &preprocess(8), batch).unwrap().flat_map(|b| b.unwrap().images).collect()
    };
    let one = pixels(&corrupted, 1);
    assert_eq!(one, pixels(&corrupted, 3));
    assert_ne!(one, pixels(&clean, 3));
    let untouched: Vec<f32> =
        eval_batches(&dataset, &preprocess(8), 7).unwrap().flat_map(|b| b.unwrap().images).collect();
    assert_eq!(pixels(&clean, 3), untouched, "the decoded images are shared and stay as they are");
}
