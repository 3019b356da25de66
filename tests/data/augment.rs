//! Augmentation against torchvision and timm (`fixtures/generate_augment.py`), and the draws.

use std::collections::HashSet;

use safetensors::SafeTensors;
use tpgm::data::augment::erasing::rectangle;
use tpgm::data::augment::mix::{Mixing, patch};
use tpgm::data::augment::policy::{MAGNITUDES, Op};
use tpgm::data::{
    Augment, Batch, ColorJitter, Loader, LoaderConfig, Mix, Mixed, Policy, Preprocess, RgbImage, Transforms, item_rng,
};

use super::loader::seven;
use super::{fixtures, preprocess};

/// Every expected tensor, by name, as bytes.
fn goldens() -> Vec<(String, Vec<u8>)> {
    let file = std::fs::read(fixtures().join("augment_expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    tensors.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

fn floats(goldens: &[(String, Vec<u8>)], name: &str) -> Vec<f32> {
    let bytes = &goldens.iter().find(|golden| golden.0 == name).unwrap_or_else(|| panic!("{name}")).1;
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn source(goldens: &[(String, Vec<u8>)]) -> RgbImage {
    let bytes = &goldens.iter().find(|golden| golden.0 == "source").unwrap().1;
    RgbImage::from_raw(40, 40, bytes.clone()).unwrap()
}

fn op(name: &str) -> Op {
    Op::ALL.into_iter().find(|op| format!("{op:?}") == name).unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn operations_are_those_of_torchvision() {
    let goldens = goldens();
    let source = source(&goldens);
    let (mut count, mut changed) = (0, HashSet::new());
    for (name, expected) in &goldens {
        let Some((kind, magnitude)) = name.strip_prefix("op/").and_then(|rest| rest.split_once('/')) else { continue };
        let got = op(kind).apply(source.clone(), magnitude.parse().unwrap());
        let off = got.as_raw().iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(got.as_raw().len() == expected.len() && off == 0, "{name}: {off} levels off");
        if got != source {
            changed.insert(kind.to_string());
        }
        count += 1;
    }
    // All but the one that does nothing have done something.
    assert_eq!((count, changed.len()), (34, 13));
}

#[test]
fn magnitudes_are_those_of_torchvision() {
    let goldens = goldens();
    let mut count = 0;
    for (policy, name) in [(Policy::Rand { ops: 2, magnitude: 9 }, "rand"), (Policy::Trivial, "trivial")] {
        for op in Op::ALL {
            let want = floats(&goldens, &format!("table/{name}/{op:?}"));
            let steps = if want.len() == 1 { 1 } else { MAGNITUDES };
            assert_eq!(want.len(), steps);
            for (bin, want) in want.into_iter().enumerate() {
                let (got, want) = (policy.magnitude(op, bin, 224), f64::from(want));
                assert!((got - want).abs() <= 1e-6 * want.abs().max(1.0), "{name} {op:?} {bin}: {got}, {want}");
                // Magnitudes that are cut to whole numbers are cut to the same ones.
                let whole = matches!(op, Op::TranslateX | Op::TranslateY | Op::Posterize);
                assert!(!whole || got.trunc() == want.trunc(), "{name} {op:?} {bin}: {got}, {want}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 2 * (11 * 31 + 3));
}

/// The transforms of one image, without any resizing, at the source's size.
fn whole() -> Preprocess {
    Preprocess { image_size: 40, crop_pct: 1.0, ..preprocess(40) }
}

/// Whole circles of hue and half turns have known draws: only one image can come out.
#[test]
fn hue_and_rotation_are_those_of_torchvision() {
    let goldens = goldens();
    let source = source(&goldens);
    let plain = Transforms::default().apply(&source, &whole(), &mut item_rng(0, 0, 0));
    let of = |transforms: Transforms, index| transforms.apply(&source, &whole(), &mut item_rng(0, 0, index));
    let golden = |name: &str| {
        let bytes = &goldens.iter().find(|golden| golden.0 == name).unwrap().1;
        Transforms::default().apply(
            &RgbImage::from_raw(40, 40, bytes.clone()).unwrap(),
            &whole(),
            &mut item_rng(0, 0, 0),
        )
    };
    // All hues that may come are near enough to be one of the 256 that 8 bits have.
    let jitter = |hue| Transforms { jitter: ColorJitter { hue, ..ColorJitter::NONE }, ..Transforms::default() };
    assert_eq!(of(jitter(0.0), 0), plain);
    let hues: Vec<Vec<f32>> = (0..3000).map(|index| of(jitter(0.5), index)).collect();
    for by in ["0.5", "-0.5", "0.1", "-0.023"] {
        let want = golden(&format!("hue/{by}"));
        assert!(hues.contains(&want), "no image has its hue turned by {by}");
    }
    let bits = |image: &Vec<f32>| image.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert!(hues.iter().map(bits).collect::<HashSet<_>>().len() > 200);
    // A rotation by no more than a millionth of a degree moves nothing; 180 is a bound of what may be drawn.
    let rotation = |rotation| Transforms { rotation, ..Transforms::default() };
    assert_eq!(golden("rotate/0.0"), plain);
    for (name, degrees) in [("rotate/33.3", 33.3), ("rotate/-180.0", -180.0)] {
        let bytes = &goldens.iter().find(|golden| golden.0 == name).unwrap().1;
        assert_eq!(Op::Rotate.apply(source.clone(), degrees).as_raw(), bytes, "{name}");
    }
    let turned: Vec<Vec<f32>> = (0..40).map(|index| of(rotation(90.0), index)).collect();
    assert!(turned.iter().all(|image| *image != plain));
    assert!(of(rotation(1e-9), 3).iter().zip(&plain).filter(|(a, b)| (*a - *b).abs() > 0.01).count() == 0);
}

/// Black outside, and both directions as often.
#[test]
fn policies_draw_all_operations_and_both_signs() {
    let grey = RgbImage::from_fn(16, 16, |x, y| image::Rgb([(8 * x + 5 * y) as u8 + 20, 90, 200 - 9 * x as u8]));
    let whole = || Preprocess { image_size: 16, ..whole() };
    for policy in [Policy::Trivial, Policy::Rand { ops: 1, magnitude: 30 }] {
        let transforms = Transforms { policy: Some(policy), ..Transforms::default() };
        let of = |index| transforms.apply(&grey, &whole(), &mut item_rng(5, 1, index));
        // One in 868 of TrivialAugment's has a given operation, the greatest magnitude and a given sign.
        let bits = |image: Vec<f32>| image.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let got: HashSet<Vec<u32>> = (0..9000).map(of).map(bits).collect();
        let normal = |image: RgbImage| Transforms::default().apply(&image, &whole(), &mut item_rng(0, 0, 0));
        for op in Op::ALL {
            for sign in if op.is_signed() { &[1.0, -1.0][..] } else { &[1.0] } {
                let want = bits(normal(op.apply(grey.clone(), sign * policy.magnitude(op, 30, 16))));
                assert!(got.contains(&want), "{policy:?}: {op:?}, {sign}");
            }
        }
    }
    // Two operations one after another are more than one.
    let images = |ops| {
        let transforms = Transforms { policy: Some(Policy::Rand { ops, magnitude: 9 }), ..Transforms::default() };
        let of = |index| transforms.apply(&grey, &whole(), &mut item_rng(5, 1, index));
        (0..400)
            .map(of)
            .map(|image| image.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
            .collect::<HashSet<_>>()
            .len()
    };
    assert!(images(1) <= 23 && images(2) > 60, "{} and {}", images(1), images(2));
}

#[test]
fn a_rectangle_is_erased_as_often_as_asked_and_within_its_ranges() {
    let (mut least, mut greatest) = (1.0f64, 0.0f64);
    for index in 0..2000 {
        let [left, top, width, height] = rectangle(100, &mut item_rng(0, 0, index)).unwrap();
        assert!(left + width <= 100 && top + height <= 100);
        let (area, ratio) = ((width * height) as f64 / 1e4, height as f64 / width as f64);
        assert!((0.018..=0.34).contains(&area) && (0.27..=3.6).contains(&ratio), "{area} {ratio}");
        (least, greatest) = (least.min(area), greatest.max(area));
    }
    assert!(least < 0.03 && greatest > 0.31, "{least} to {greatest}");
    // An image of one pixel has no room for more than nothing.
    assert!((0..50).all(|index| rectangle(1, &mut item_rng(0, 0, index)).is_none_or(|[.., w, h]| w * h == 0)));
    let image = RgbImage::from_pixel(40, 40, image::Rgb([255; 3]));
    let erased = |probability: f64, index| {
        let transforms = Transforms { erasing: probability, ..Transforms::default() };
        let values = transforms.apply(&image, &whole(), &mut item_rng(2, 0, index));
        let zeros: Vec<usize> = values.chunks(1600).map(|plane| plane.iter().filter(|v| **v == 0.0).count()).collect();
        assert!(zeros.iter().all(|n| *n == zeros[0]) && values.iter().all(|v| [0.0, 1.0].contains(v)));
        zeros[0] > 0
    };
    assert!((0..50).all(|index| erased(1.0, index)) && !(0..50).any(|index| erased(0.0, index)));
    let quarter = (0..400).filter(|index| erased(0.25, *index)).count();
    // Four standard deviations.
    assert!((65..=135).contains(&quarter), "{quarter} of 400");
}

/// Factors and the order are drawn: a greyscale has no saturation to change, and a factor of at most 0.1 leaves values within a tenth.
#[test]
fn jitter_stays_within_its_factors() {
    let grey = RgbImage::from_fn(40, 40, |x, _| image::Rgb([(x * 5) as u8; 3]));
    let of = |jitter, index| {
        let transforms = Transforms { jitter, ..Transforms::default() };
        transforms.apply(&grey, &whole(), &mut item_rng(1, 1, index))
    };
    let plain = of(ColorJitter::NONE, 0);
    let saturation: ColorJitter = ColorJitter { saturation: 0.9, ..ColorJitter::NONE };
    assert!((0..20).all(|index| of(saturation, index) == plain));
    let brightness = ColorJitter { brightness: 0.1, ..ColorJitter::NONE };
    let level = |v: f32| (f64::from(v) * 0.5 + 0.5) * 255.0;
    let (mut least, mut greatest) = (2.0f64, 0.0f64);
    for index in 0..500 {
        let factor = level(of(brightness, index)[39]) / level(plain[39]);
        (least, greatest) = (least.min(factor), greatest.max(factor));
    }
    assert!((0.89..0.91).contains(&least) && (1.09..=1.11).contains(&greatest), "{least} to {greatest}");
    let all: ColorJitter = "0.4,0.4,0.4,0.1".parse().unwrap();
    let images = (0..200).map(|index| of(all, index).iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    assert!(images.collect::<HashSet<_>>().len() > 150);
}

#[test]
fn batches_are_mixed_as_timm_mixes_them() {
    let goldens = goldens();
    let (images, labels) = (floats(&goldens, "mix/images"), [2, 0, 1, 3, 2]);
    for (name, mixing) in [("blend", Mixing::Blend(0.3)), ("paste", Mixing::Paste([3, 0, 11, 6]))] {
        let mut got = images.clone();
        let Mixed { labels: others, own } = mixing.apply(&mut got, &labels, 16);
        let want = floats(&goldens, &format!("mix/{name}"));
        assert!(got.len() == want.len() && got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
        // timm's targets, with a smoothing of 0.1.
        let share = |label: u32, class: u32| if label == class { 0.925 } else { 0.025 };
        let targets = labels
            .iter()
            .zip(&others)
            .flat_map(|(a, b)| (0..4).map(move |class| own * share(*a, class) + (1.0 - own) * share(*b, class)));
        for (got, want) in targets.zip(floats(&goldens, &format!("mix/{name}_targets"))) {
            assert!((got - f64::from(want)).abs() < 1e-6, "{name}: {got}, {want}");
        }
    }
    let mut boxes = 0;
    for (name, _) in goldens.iter().filter(|(name, _)| name.starts_with("box/")) {
        let numbers: Vec<f64> = name.split('/').skip(1).map(|part| part.parse().unwrap()).collect();
        let got = patch(16, numbers[0], [numbers[1] as usize, numbers[2] as usize]);
        assert_eq!(got.map(|side| side as f32).to_vec(), floats(&goldens, name), "{name}");
        boxes += 1;
    }
    assert_eq!(boxes, 4);
}

#[test]
fn shares_come_from_a_beta_distribution() {
    let draws = |mix: Mix| (0..4000).map(move |index| mix.draw(16, &mut item_rng(3, 0, index)));
    for alpha in [0.2, 1.0, 4.0] {
        let shares: Vec<f64> = draws(Mix { mixup: alpha, ..Mix::default() })
            .map(|mixing| match mixing {
                Some(Mixing::Blend(own)) => own,
                other => panic!("{other:?}"),
            })
            .collect();
        let mean = shares.iter().sum::<f64>() / 4000.0;
        let variance = shares.iter().map(|own| (own - mean).powi(2)).sum::<f64>() / 4000.0;
        let want = 1.0 / (4.0 * (2.0 * alpha + 1.0));
        assert!(
            (mean - 0.5).abs() < 0.03 && (variance / want - 1.0).abs() < 0.1,
            "{alpha}: {mean}, {variance}, {want}"
        );
    }
    let both = Mix { mixup: 0.2, cutmix: 1.0, prob: 0.5, switch_prob: 0.25 };
    let counts = draws(both).fold([0; 3], |mut counts, mixing| {
        counts[match mixing {
            None => 0,
            Some(Mixing::Blend(_)) => 1,
            Some(Mixing::Paste(_)) => 2,
        }] += 1;
        counts
    });
    assert!(
        counts.iter().zip([2000, 1500, 500]).all(|(got, want): (&i32, i32)| (got - want).abs() < 160),
        "{counts:?}"
    );
    assert!(draws(Mix { mixup: 1.0, prob: 0.0, ..Mix::default() }).all(|mixing| mixing.is_none()));
    assert!(draws(Mix::default()).all(|mixing| mixing.is_none()));
}

/// With all transforms on, a batch is what one thread makes of its images in turn, wherever a run goes on and whatever is made ahead.
#[test]
fn batches_follow_from_seed_epoch_and_place_alone() {
    let (_dir, dataset) = seven();
    let augment = Transforms {
        rotation: 20.0,
        jitter: "0.4,0.4,0.4,0.1".parse().unwrap(),
        policy: Some(Policy::Rand { ops: 2, magnitude: 9 }),
        erasing: 0.5,
        mix: Mix { mixup: 0.2, cutmix: 1.0, ..Mix::default() },
        ..Augment::CROP_FLIP.into()
    };
    let config = LoaderConfig { batch_size: 3, shuffle: true, seed: 5, augment, ..LoaderConfig::default() };
    let take = |config: LoaderConfig, count: usize| {
        let mut loader = Loader::new(&dataset, &preprocess(8), config).unwrap();
        (0..count).map(|_| loader.next().unwrap()).collect::<Vec<_>>()
    };
    let batches = take(config.clone(), 30);
    for start in [1, 2, 3, 7, 29] {
        let minimal = LoaderConfig { start_batch: start, prefetch: 1, cache_bytes: 0, ..config.clone() };
        assert_eq!(take(minimal, 30 - start as usize), batches[start as usize..], "from batch {start}");
    }
    // The same images unmixed, each made by itself; mixing moves both of a pair, and every batch has its own draw.
    let plain = take(LoaderConfig { augment: Transforms { mix: Mix::default(), ..augment }, ..config.clone() }, 30);
    let mut shares = HashSet::new();
    for (place, (batch, plain)) in batches.iter().zip(&plain).enumerate() {
        let epoch = (place / 3) as u64;
        for (image, index) in plain.images.chunks(192).zip(&plain.indices) {
            let source = tpgm::data::decode(&dataset.items[*index].path).unwrap();
            assert_eq!(image, augment.apply(&source, &preprocess(8), &mut item_rng(5, epoch, *index)));
        }
        let mixed = batch.mixed.as_ref().expect("every batch is mixed");
        assert_eq!(mixed.labels, batch.labels.iter().rev().copied().collect::<Vec<_>>());
        assert!(plain.mixed.is_none() && plain.labels == batch.labels);
        let (own, rest) = (mixed.own as f32, (1.0 - mixed.own) as f32);
        let (first, last) = (&plain.images[..192], &plain.images[plain.images.len() - 192..]);
        if batch.len() == 3 && !batch.images[..192].iter().zip(first).any(|(a, b)| a == b) {
            // A blend leaves no value as it was, a paste most.
            let blend = first.iter().zip(last).map(|(a, b)| own * a + rest * b);
            assert!(blend.zip(&batch.images).all(|(a, b)| (a - b).abs() < 1e-6), "batch {place}");
        }
        shares.insert(mixed.own.to_bits());
    }
    assert!(shares.len() > 20, "{} shares", shares.len());
    let other = take(LoaderConfig { seed: 6, ..config }, 3);
    assert!(other.iter().zip(&batches).all(|(a, b)| a.images != b.images));
}

/// Parts of a batch are what the whole batch has, in the order of ranks, whether its images are mixed across ranks or not; all ranks know
/// all labels.
#[test]
fn ranks_share_a_batch() {
    let (_dir, dataset) = seven();
    let mix = Mix { mixup: 0.2, cutmix: 1.0, prob: 0.5, ..Mix::default() };
    let augment = Transforms { mix, ..Augment::CROP_FLIP.into() };
    let config = LoaderConfig { batch_size: 4, shuffle: true, seed: 5, augment, ..LoaderConfig::default() };
    let take = |config: LoaderConfig| {
        let mut loader = Loader::new(&dataset, &preprocess(8), config).unwrap();
        (0..10).map(|_| loader.next().unwrap()).collect::<Vec<_>>()
    };
    let whole = take(config.clone());
    assert!(whole.iter().any(|batch| batch.mixed.is_some()) && whole.iter().any(|batch| batch.mixed.is_none()));
    // With five ranks, one has no image.
    for size in [2, 3, 5] {
        let parts: Vec<_> = (0..size).map(|rank| take(LoaderConfig { rank: (rank, size), ..config.clone() })).collect();
        for (place, whole) in whole.iter().enumerate() {
            let images: Vec<f32> = parts.iter().flat_map(|part| part[place].images.clone()).collect();
            assert!(images == whole.images, "{size} ranks, batch {place}");
            for part in &parts {
                let Batch { labels, indices, mixed, .. } = &part[place];
                assert_eq!((labels, indices, mixed), (&whole.labels, &whole.indices, &whole.mixed));
            }
        }
    }
}
