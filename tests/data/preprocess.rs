//! From the configuration that a library writes to the pixels that it makes (`fixtures/generate_preprocess.py`): timm,
//! transformers, OpenCLIP and torchvision on photographs of odd sizes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use serde::Deserialize;
use tpgm::checkpoint::{Checkpoint, Overrides, Recognised, recognise};
use tpgm::data::{CropMode, Interpolation, Preprocess, RgbImage, decode};

use super::fixtures;

#[derive(Deserialize)]
struct Case {
    /// The fixture that the configuration is put beside.
    model: String,
    image_size: Option<usize>,
    crop_pct: Option<f64>,
    images: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    file: String,
    samples: Vec<f32>,
}

/// The model's configuration, which stands in the metadata of its golden file.
fn model_config(model: &str) -> Option<String> {
    let bytes = fs::read(fixtures().join(format!("{model}_golden.safetensors"))).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    metadata.metadata().as_ref()?.get("config").cloned()
}

/// The preprocessing that follows from the files of `folder` beside the case's model.
fn recognised(case: &Case, folder: &Path) -> Preprocess {
    let home = tempfile::tempdir().unwrap();
    fs::copy(fixtures().join(format!("{}.safetensors", case.model)), home.path().join("model.safetensors")).unwrap();
    let configs = ["config.json", "preprocessor_config.json", "open_clip_config.json"];
    let own: Vec<&str> = configs.into_iter().filter(|name| folder.join(name).is_file()).collect();
    for name in &own {
        fs::copy(folder.join(name), home.path().join(name)).unwrap();
    }
    if own == ["preprocessor_config.json"] {
        fs::write(home.path().join("config.json"), model_config(&case.model).unwrap()).unwrap();
    }
    let overrides = Overrides { image_size: case.image_size, ..Overrides::default() };
    let recognised = recognise(&Checkpoint::open(home.path()).unwrap(), &overrides).unwrap();
    let doubts: Vec<_> = recognised.notes.iter().filter(|note| note.what.contains("processor_config.json")).collect();
    assert!(doubts.is_empty(), "{doubts:?}");
    let own = recognised.preprocess;
    Preprocess { crop_pct: case.crop_pct.unwrap_or(own.crop_pct), ..own }
}

fn differences<'a>(a: &'a RgbImage, b: &'a RgbImage) -> impl Iterator<Item = u8> + 'a {
    a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b))
}

/// The levels of 255 before normalisation, which is undone.
fn levels(preprocess: &Preprocess, image: &RgbImage) -> RgbImage {
    let (mean, std, size) = (preprocess.mean, preprocess.std, preprocess.image_size);
    let planes = preprocess.apply(image);
    RgbImage::from_fn(size as u32, size as u32, |x, y| {
        image::Rgb(std::array::from_fn(|c| {
            let value = planes[(c * size + y as usize) * size + x as usize];
            (255.0 * (value * std[c] + mean[c])).round() as u8
        }))
    })
}

#[test]
fn every_librarys_configuration_gives_its_pixels() {
    let root = fixtures().join("preprocess");
    let cases: BTreeMap<String, Case> = serde_json::from_slice(&fs::read(root.join("cases.json")).unwrap()).unwrap();
    let mut compared = 0;
    for (name, case) in &cases {
        let preprocess = recognised(case, &root.join(name));
        for (golden, expected) in &case.images {
            let what = format!("{name}/{golden} by {preprocess:?}");
            let image = decode(root.join("images").join(&expected.file)).unwrap();
            let (ours, theirs) = (levels(&preprocess, &image), decode(root.join(name).join(golden)).unwrap());
            assert_eq!(ours.dimensions(), theirs.dimensions(), "{what}");
            // transformers' weights have 16 bits, ours and Pillow's have 32.
            let allowed = u8::from(name.starts_with("hf_"));
            let worst = differences(&ours, &theirs).max().unwrap();
            assert!(worst <= allowed, "{what}: {worst} levels off");

            let planes = preprocess.apply(&image);
            let pixels = preprocess.image_size.pow(2);
            for (i, theirs) in expected.samples.iter().enumerate() {
                let at = 7919 * i % planes.len();
                let level = 1.0 / 255.0 / preprocess.std[at / pixels];
                let error = (planes[at] - theirs).abs();
                // The float's own rounding beside the levels that were allowed above.
                assert!(error <= f32::from(allowed) * level + 1e-5, "{what} at {at}: {} and {theirs}", planes[at]);
            }
            compared += 1;
        }
    }
    assert_eq!((cases.len(), compared), (25, 41));
}

#[test]
fn jpegs_of_every_kind_decode_as_in_pillow() {
    let root = fixtures().join("preprocess");
    let mut count = 0;
    for golden in fs::read_dir(root.join("decoded")).unwrap() {
        let golden = golden.unwrap().path();
        let name = golden.file_stem().unwrap();
        let (ours, theirs) = (decode(root.join("images").join(name)).unwrap(), decode(&golden).unwrap());
        assert_eq!(ours.dimensions(), theirs.dimensions(), "{name:?}");
        let worst = differences(&ours, &theirs).max().unwrap();
        assert_eq!(worst, 0, "{name:?}: {worst} levels off");
        count += 1;
    }
    assert_eq!(count, 16);
}

#[test]
fn damaged_jpegs_are_images_or_errors_of_one_line() {
    let root = fixtures().join("preprocess/images");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.jpg");
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut decoded, mut refused) = (0, 0);
    for name in ["color_420.jpg", "progressive_420.jpg", "cmyk.jpg", "low_420.jpg", "grey.jpg", "color_440.jpg"] {
        let whole = fs::read(root.join(name)).unwrap();
        for _ in 0..500 {
            let mut bytes = whole.clone();
            for _ in 0..=random(6) {
                let at = random(bytes.len());
                bytes[at] = [0xFF, 0, random(256) as u8][random(3)];
            }
            if random(8) == 0 {
                bytes.truncate(random(bytes.len()));
            }
            fs::write(&path, bytes).unwrap();
            match decode(&path) {
                Ok(_) => decoded += 1,
                Err(error) => {
                    super::one_line(&error);
                    refused += 1;
                }
            }
        }
    }
    assert!(decoded > 100 && refused > 1000, "{decoded} decoded, {refused} refused");
}

/// hf_clip's fixture with this processor.
fn read_processor(file: &str, processor: &str) -> tpgm::error::Result<Recognised> {
    let home = tempfile::tempdir().unwrap();
    fs::copy(fixtures().join("families/hf_clip.safetensors"), home.path().join("model.safetensors")).unwrap();
    fs::write(home.path().join("config.json"), model_config("families/hf_clip").unwrap()).unwrap();
    fs::write(home.path().join("preprocessor_config.json"), r#"{"size": 8, "resample": 2}"#).unwrap();
    fs::write(home.path().join(file), processor).unwrap();
    recognise(&Checkpoint::open(home.path()).unwrap(), &Overrides::default())
}

/// The preprocessing, and the notes about it.
fn with_processor(file: &str, processor: &str) -> (Preprocess, String) {
    let recognised = read_processor(file, processor).unwrap();
    let notes: Vec<&str> = recognised.notes.iter().map(|note| note.what.as_str()).collect();
    (recognised.preprocess, notes.join("\n"))
}

#[test]
fn processors_of_every_age_are_understood() {
    use CropMode::{CenterFloor, SquashFloor};
    for (class, rest, size, mode, share) in [
        (
            "CLIPFeatureExtractor",
            r#""size": 48, "crop_size": 40, "do_center_crop": true"#,
            40,
            CenterFloor,
            40.0 / 48.0,
        ),
        (
            "CLIPImageProcessor",
            r#""size": {"shortest_edge": 48}, "crop_size": {"height": 40, "width": 40}"#,
            40,
            CenterFloor,
            40.0 / 48.0,
        ),
        (
            "DeiTFeatureExtractor",
            r#""size": 48, "crop_size": 40, "do_center_crop": true"#,
            40,
            SquashFloor,
            40.0 / 48.0,
        ),
        ("ViTFeatureExtractor", r#""size": 40"#, 40, SquashFloor, 1.0),
        ("ViTImageProcessorFast", r#""size": [40, 40], "crop_size": null"#, 40, SquashFloor, 1.0),
        ("ConvNextFeatureExtractor", r#""size": 40"#, 40, CenterFloor, 0.875),
        ("ConvNextImageProcessor", r#""size": {"shortest_edge": 40}, "crop_pct": 0.95"#, 40, CenterFloor, 0.95),
        ("ConvNextImageProcessor", r#""size": {"shortest_edge": 384}, "crop_pct": 0.95"#, 384, SquashFloor, 1.0),
    ] {
        let processor = format!(r#"{{"feature_extractor_type": "{class}", "resample": 3, {rest}}}"#);
        let (own, _) = with_processor("preprocessor_config.json", &processor);
        assert_eq!((own.image_size, own.crop_mode, own.crop_pct), (size, mode, share), "{processor}");
        let nested = format!(r#"{{"processor_class": "CLIPProcessor", "image_processor": {processor}}}"#);
        assert_eq!(with_processor("processor_config.json", &nested).0, own, "{nested}");
    }
    // Without an image processor it says nothing.
    let (own, _) = with_processor("processor_config.json", r#"{"processor_class": "CLIPProcessor"}"#);
    assert_eq!((own.image_size, own.interpolation), (8, Interpolation::Bilinear));

    let statistics = |rest: &str| {
        let text = format!(r#"{{"size": 8, "image_mean": [51, 102, 153], "image_std": [51, 51, 51], {rest}}}"#);
        let (own, _) = with_processor("preprocessor_config.json", &text);
        (own.mean, own.std)
    };
    assert_eq!(statistics(r#""do_rescale": false"#), ([0.2, 0.4, 0.6], [0.2; 3]));
    assert_eq!(statistics(r#""rescale_factor": 0.00392156862745098"#), ([51.0, 102.0, 153.0], [51.0; 3]));
    assert_eq!(statistics(r#""do_normalize": false"#), ([0.0; 3], [1.0; 3]));

    let (_, notes) = with_processor("preprocessor_config.json", r#"{"size": 8}"#);
    assert!(notes.contains("does not give image_mean, image_std, resample"), "{notes}");
    // A class that is named takes its own values for entries that are left out.
    let usual = |class: &str, rest: &str| {
        let text = format!(r#"{{"image_processor_type": "{class}"{rest}}}"#);
        let (own, notes) = with_processor("preprocessor_config.json", &text);
        assert!(!notes.contains("does not give"), "{class}: {notes}");
        (own.crop_mode, own.crop_pct, own.interpolation, own.mean[0])
    };
    let size = r#", "size": {"height": 8, "width": 8}"#;
    assert_eq!(usual("ViTImageProcessor", size), (SquashFloor, 1.0, Interpolation::Bilinear, 0.5));
    assert_eq!(usual("SiglipImageProcessorFast", size), (SquashFloor, 1.0, Interpolation::Bicubic, 0.5));
    assert_eq!(usual("DINOv3ViTImageProcessorFast", size), (SquashFloor, 1.0, Interpolation::Bilinear, 0.485));
    // Only ConvNeXt's reads `crop_pct`, and BEiT's crops only if it is told to.
    let share = r#", "size": {"height": 8, "width": 8}, "crop_pct": 0.5"#;
    assert_eq!(usual("ViTImageProcessor", share), (SquashFloor, 1.0, Interpolation::Bilinear, 0.5));
    let crop = r#", "size": {"height": 12, "width": 12}, "crop_size": {"height": 8, "width": 8}"#;
    assert_eq!(usual("BeitImageProcessor", crop), (SquashFloor, 1.0, Interpolation::Bicubic, 0.5));
    assert_eq!(usual("DeiTImageProcessor", crop).1, 8.0 / 12.0);

    for (processor, said) in [
        (r#"{"size": 8, "do_resize": false}"#, "do_resize is false: not supported yet, only true"),
        (r#"{"size": {"shortest_edge": 8}}"#, "size is shortest_edge 8: without a centre crop"),
        (
            r#"{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 8}, "do_center_crop": false}"#,
            "size is shortest_edge 8: without a centre crop",
        ),
        (
            r#"{"image_processor_type": "LevitImageProcessor", "size": 8}"#,
            "image_processor_type is LevitImageProcessor",
        ),
        (r#"{"image_processor_type": "Siglip2ImageProcessor", "size": 8}"#, "Siglip2ImageProcessor: not supported yet"),
    ] {
        let error = read_processor("preprocessor_config.json", processor).unwrap_err().to_string();
        assert!(error.contains("preprocessor_config.json") && error.contains(said), "{processor}: {error}");
    }
}
