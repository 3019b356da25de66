//! Stems of one channel: what becomes of a stem for another number of channels.

use tpgm::checkpoint::Overrides;
use tpgm::train::source::Source;

use super::common::relative;
use super::{Family, predict};

/// Images whose three planes are the first one.
fn grey(images: &[f32], size: usize) -> Vec<f32> {
    images.chunks_exact(3 * size * size).flat_map(|image| image[..size * size].repeat(3)).collect()
}

fn with(family: &Family, channels: usize) -> Source {
    let overrides = Overrides { in_channels: Some(channels), ..family.overrides() };
    Source::open(family.dir.path(), &overrides).unwrap_or_else(|e| panic!("{e}"))
}

/// The same network over the same pixels: a sum of three weights once, or each of them.
const SAME: f32 = 1e-5;

#[test]
fn a_stem_for_three_channels_is_summed_for_one() {
    for name in [
        "timm_vit",
        "hf_vit_memory",
        "timm_mobileclip",
        "timm_vitamin",
        "timm_seresnet",
        "timm_regnet",
        "timm_convnext",
        "timm_efficientnet",
    ] {
        let family = Family::new(name);
        let (plain, one) = (family.open(), with(&family, 1));
        let size = family.golden.shape("images")[2];
        let images = grey(&family.golden.f32("images"), size);
        let stem = one.recognised.config.stem();
        let weight = |source: &Source| source.weights.iter().find(|w| w.0 == stem).unwrap().clone();
        let ((_, of_three, three), (_, of_one, sums)) = (weight(&plain), weight(&one));
        assert_eq!((of_three[1], of_one[1]), (3, 1), "{name}");
        let pixels = of_one[2] * of_one[3];
        for (kernel, sum) in three.chunks_exact(3 * pixels).zip(sums.chunks_exact(pixels)) {
            for i in 0..pixels {
                assert_eq!(kernel[i] + kernel[pixels + i] + kernel[2 * pixels + i], sum[i], "{name}");
            }
        }
        let want = predict(&plain, &plain.snapshot(), &images);
        // All but the first plane is noise to it.
        let got = predict(&one, &one.snapshot(), &family.golden.f32("images"));
        let error = relative(&got, &want);
        assert!(error < SAME, "{name}: {error:e}");
        assert!(one.recognised.preprocess.grey && !plain.recognised.preprocess.grey, "{name}");
        assert!(one.recognised.notes.iter().any(|note| note.what.contains("summed for one")), "{name}");
    }
}

#[test]
fn a_stem_for_one_channel_is_repeated_for_three() {
    for name in ["grey_vit", "grey_resnet", "grey_convnext", "grey_mobilenet"] {
        let family = Family::new(name);
        let (plain, three) = (family.open(), with(&family, 3));
        let size = family.golden.shape("images")[2];
        let want = predict(&plain, &plain.snapshot(), &family.golden.f32("images"));
        let got = predict(&three, &three.snapshot(), &grey(&family.golden.f32("images"), size));
        let error = relative(&got, &want);
        assert!(error < SAME, "{name}: {error:e}");
        assert!(!three.recognised.preprocess.grey && plain.recognised.preprocess.grey, "{name}");
    }
}

#[test]
fn a_changed_stem_is_saved_as_it_is() {
    let family = Family::new("timm_seresnet");
    let one = with(&family, 1);
    let path = family.path("grey.safetensors");
    one.save(&path, &one.snapshot()).unwrap();
    let again = Source::open(&path, &Overrides { image_size: family.overrides().image_size, ..Overrides::default() });
    let again = again.unwrap_or_else(|e| panic!("{e}"));
    assert!(again.recognised.config.grey() && again.recognised.stem.is_none());
    assert_eq!(again.recognised.preprocess, one.recognised.preprocess);
    assert_eq!(again.weights, one.weights);
}

#[test]
fn other_numbers_of_channels_are_refused() {
    let family = Family::new("timm_vit");
    for channels in [0, 2, 4] {
        let overrides = Overrides { in_channels: Some(channels), ..family.overrides() };
        let error = Source::open(family.dir.path(), &overrides).unwrap_err();
        let want = format!("{channels} channels: a model reads 1 (grey) or 3 (red, green and blue)");
        assert_eq!((error.to_string(), error.exit_code()), (want, 2));
    }
}

/// One number for one channel, as timm writes it; with three, their average.
#[test]
fn a_grey_image_has_one_mean() {
    let grey = Family::new("grey_convnext").open().recognised.preprocess;
    assert_eq!((grey.mean, grey.std), ([0.5; 3], [0.25; 3]));
    let family = Family::new("hf_grey_vit");
    assert!(family.open().recognised.preprocess.grey);
    let mut config = Family::new("timm_convnext").golden.json("config");
    config["pretrained_cfg"]["mean"] = serde_json::json!([0.485, 0.456, 0.406]);
    let family = Family::new("timm_convnext");
    std::fs::write(family.path("config.json"), config.to_string()).unwrap();
    let one = with(&family, 1).recognised;
    assert_eq!((one.preprocess.mean, one.preprocess.std), ([0.449; 3], [0.5; 3]));
    assert!(one.notes.iter().any(|note| note.what.contains("average")), "{:?}", one.notes);
}
