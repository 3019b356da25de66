//! Augmentation and batches: the draws, the order, and that threads end.

use std::fs;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tpgm::data::{
    Augment, Batch, Dataset, EvalBatches, ImageCache, Loader, LoaderConfig, Preprocess, RandomResizedCrop, Rest,
    Sampler, Transforms, decode, eval_batches, item_rng,
};
use tpgm::error::Result;

use super::{assert_error, image_file, preprocess, tree};

#[test]
fn augmentation_depends_on_seed_epoch_and_index_alone() {
    let image = decode(image_file("landscape.png")).unwrap();
    let apply = |augment: Augment, (seed, epoch, index)| {
        Transforms::from(augment).apply(&image, &preprocess(8), &mut item_rng(seed, epoch, index))
    };
    let plain = preprocess(8).apply(&image);
    assert_eq!(apply(Augment::NONE, (1, 2, 3)), plain);
    assert_eq!(apply(Augment::CROP_FLIP, (1, 2, 3)), apply(Augment::CROP_FLIP, (1, 2, 3)));
    for other in [(9, 2, 3), (1, 9, 3), (1, 2, 9)] {
        assert_ne!(apply(Augment::CROP_FLIP, (1, 2, 3)), apply(Augment::CROP_FLIP, other), "{other:?}");
    }
    let mirrored: Vec<f32> = plain.chunks(8).flat_map(|row| row.iter().rev().copied()).collect();
    let flipped = (0..400).map(|index| apply(Augment::FLIP, (0, 0, index)));
    let count = flipped
        .map(|pixels| {
            assert!(pixels == plain || pixels == mirrored);
            usize::from(pixels == mirrored)
        })
        .sum::<usize>();
    // Four standard deviations of a fair coin.
    assert!((160..=240).contains(&count), "{count} of 400 were mirrored");
}

#[test]
fn random_crops_stay_inside_and_in_range() {
    let crop = RandomResizedCrop::default();
    let (mut least, mut greatest) = (1.0f64, 0.0f64);
    for index in 0..2000 {
        let [left, top, width, height] = crop.sample(300, 200, &mut item_rng(0, 0, index));
        assert!(left + width <= 300 && top + height <= 200 && width > 0 && height > 0);
        let (area, ratio) = (f64::from(width * height) / 60_000.0, f64::from(width) / f64::from(height));
        // Whole pixels move either by about a percent.
        assert!((0.34..=1.01).contains(&area) && (0.74..=1.35).contains(&ratio), "{area} {ratio}");
        (least, greatest) = (least.min(area), greatest.max(area));
    }
    assert!(least < 0.38 && greatest > 0.85, "{least} to {greatest} is not the whole range");
    // No crop of an allowed shape has a third of these areas: the largest one from the centre.
    assert_eq!(crop.sample(1000, 10, &mut item_rng(0, 0, 0)), [493, 0, 13, 10]);
    assert_eq!(crop.sample(10, 1000, &mut item_rng(0, 0, 0)), [0, 493, 10, 13]);
    assert_eq!(crop.sample(1, 1, &mut item_rng(0, 0, 0)), [0, 0, 1, 1]);
}

/// Seven images in two classes.
pub(super) fn seven() -> (TempDir, Dataset) {
    let names = ["grey8.png", "rgb8.png", "rgba8.png", "landscape.png", "portrait.png", "tiny.png", "grey.jpg"];
    let files: Vec<String> = (0..7).map(|i| format!("{}/{i}.png", if i < 4 { "a" } else { "b" })).collect();
    let dir = tree(&files.iter().map(String::as_str).zip(names).collect::<Vec<_>>());
    let dataset = Dataset::open(dir.path(), None).unwrap();
    (dir, dataset)
}

fn config(batch_size: usize) -> LoaderConfig {
    LoaderConfig { batch_size, ..LoaderConfig::default() }
}

fn take(dataset: &Dataset, config: LoaderConfig, count: usize) -> Vec<Batch> {
    let mut loader = Loader::new(dataset, &preprocess(8), config).unwrap();
    (0..count).map(|_| loader.next().unwrap()).collect()
}

#[test]
fn unshuffled_batches_run_in_order_and_start_again() {
    let (_dir, dataset) = seven();
    let batches = take(&dataset, config(3), 5);
    let indices: Vec<&[usize]> = batches.iter().map(|batch| &batch.indices[..]).collect();
    assert_eq!(indices, [&[0, 1, 2][..], &[3, 4, 5], &[6], &[0, 1, 2], &[3, 4, 5]]);
    assert_eq!(batches[1].labels, [0, 1, 1]);
    assert_eq!((batches[2].len(), batches[2].images.len()), (1, 3 * 8 * 8));
    let image = decode(&dataset.items[4].path).unwrap();
    assert_eq!(batches[1].images[192..384], preprocess(8).apply(&image));

    let dropped = take(&dataset, LoaderConfig { rest: Rest::Dropped, ..config(3) }, 3);
    assert_eq!(dropped[2].indices, [0, 1, 2]);
    // The image that is left over joins the batch before it; more than one do not, nor does the only batch.
    let joined = take(&dataset, LoaderConfig { rest: Rest::Joined, ..config(3) }, 4);
    let indices: Vec<&[usize]> = joined.iter().map(|batch| &batch.indices[..]).collect();
    assert_eq!(indices, [&[0, 1, 2][..], &[3, 4, 5, 6], &[0, 1, 2], &[3, 4, 5, 6]]);
    let sizes = |size, batches| {
        let config = LoaderConfig { rest: Rest::Joined, ..config(size) };
        take(&dataset, config, batches).iter().map(|batch| batch.len()).collect::<Vec<_>>()
    };
    assert_eq!(
        (sizes(5, 3), sizes(1, 8), sizes(7, 2), sizes(6, 2)),
        (vec![5, 2, 5], vec![1; 8], vec![7; 2], vec![7; 2])
    );
    let resumed = LoaderConfig { rest: Rest::Joined, start_batch: 3, ..config(3) };
    assert_eq!(take(&dataset, resumed, 1)[0].indices, [3, 4, 5, 6]);
    let mut loader = Loader::new(&dataset, &preprocess(8), config(100)).unwrap();
    assert_eq!((loader.batches_per_epoch(), loader.next().unwrap().len()), (1, 7));

    let evaluated: Vec<Batch> = eval_batches(&dataset, &preprocess(8), 3).unwrap().map(Result::unwrap).collect();
    assert_eq!(evaluated, batches[..3]);
}

#[test]
fn shuffled_batches_are_a_new_permutation_each_epoch() {
    let (_dir, dataset) = seven();
    let shuffled = |seed| LoaderConfig { shuffle: true, seed, augment: Augment::CROP_FLIP.into(), ..config(3) };
    let batches = take(&dataset, shuffled(5), 30);
    let epochs: Vec<Vec<usize>> =
        batches.chunks(3).map(|epoch| epoch.iter().flat_map(|batch| batch.indices.clone()).collect()).collect();
    for epoch in &epochs {
        let mut sorted = epoch.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6]);
    }
    assert!(epochs.windows(2).all(|pair| pair[0] != pair[1]), "the order must change: {epochs:?}");
    assert_ne!(take(&dataset, shuffled(6), 3), batches[..3]);

    // Neither how far ahead they are made nor which images are cached may show.
    let minimal = LoaderConfig { prefetch: 1, cache_bytes: 2_000, ..shuffled(5) };
    assert_eq!(take(&dataset, minimal, 30), batches);
    // Nor may a stop: each start goes on as if there had been none.
    for start in [1, 2, 3, 7, 29] {
        let resumed = take(&dataset, LoaderConfig { start_batch: start, ..shuffled(5) }, 30 - start as usize);
        assert_eq!(resumed, batches[start as usize..], "from batch {start}");
    }
}

#[test]
fn resuming_decodes_nothing_that_is_skipped_and_the_cache_keeps_the_rest() {
    let (dir, dataset) = seven();
    fs::write(dir.path().join("a/0.png"), "broken").unwrap();
    let resumed = take(&dataset, LoaderConfig { start_batch: 1, prefetch: 1, ..config(3) }, 2);
    assert_eq!(resumed[0].indices, [3, 4, 5]);

    // An image that was decoded once is there without its file; one over the budget is not.
    let cache = ImageCache::new(dataset.clone(), 20_000);
    let image = cache.get(3).unwrap();
    cache.get(1).unwrap();
    fs::remove_file(&dataset.items[3].path).unwrap();
    assert!(Arc::ptr_eq(&cache.get(3).unwrap(), &image));
    let none = ImageCache::new(dataset.clone(), 0);
    none.get(4).unwrap();
    fs::remove_file(&dataset.items[4].path).unwrap();
    assert!(none.get(4).is_err());
}

#[test]
fn a_broken_image_is_an_error_of_its_batch() {
    let (dir, dataset) = seven();
    for file in ["a/3.png", "b/5.png"] {
        fs::write(dir.path().join(file), "broken").unwrap();
    }
    let mut loader = Loader::new(&dataset, &preprocess(8), config(3)).unwrap();
    assert_eq!(loader.next().unwrap().indices, [0, 1, 2]);
    assert_error(loader.next(), &["3.png", "not an image that is read"]);
    assert_eq!(loader.next().unwrap().indices, [6]);
    let evaluated: Vec<bool> = eval_batches(&dataset, &preprocess(8), 3).unwrap().map(|b| b.is_ok()).collect();
    assert_eq!(evaluated, [true, false, true]);
}

#[test]
fn wrong_configurations_are_usage_errors() {
    let (_dir, dataset) = seven();
    let start = |preprocess: &Preprocess, config| Loader::new(&dataset, preprocess, config).map(|_| ());
    assert_error(start(&preprocess(8), config(0)), &["batch size 0"]);
    assert_error(start(&preprocess(8), LoaderConfig { rest: Rest::Dropped, ..config(8) }), &["7 images"]);
    assert_error(start(&preprocess(0), config(1)), &["image size 0"]);
    assert_error(eval_batches(&dataset, &preprocess(8), 0).map(|_| ()), &["batch size 0"]);
}

#[test]
fn dropping_a_loader_ends_its_thread() {
    let (_dir, dataset) = seven();
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        for taken in [0, 1, 5] {
            let mut loader = Loader::new(&dataset, &preprocess(64), config(2)).unwrap();
            let cache = ImageCache::new(dataset.clone(), 0);
            let eval = EvalBatches::new(cache.clone(), &preprocess(64), 1).unwrap();
            for _ in 0..taken {
                loader.next().unwrap();
            }
            drop(loader);
            drop(eval);
            // The thread held the cache; after the drop nobody but us does.
            assert_eq!(Arc::strong_count(&cache), 1);
        }
        done.send(()).unwrap();
    });
    finished.recv_timeout(Duration::from_secs(60)).expect("dropping a loader must not hang");
}

/// Five images of one class and two of the other: three or four of each per epoch, augmented anew where one comes again, and the same
/// wherever a run goes on.
#[test]
fn a_balanced_epoch_has_as_many_of_each_class() {
    let names = ["grey8.png", "rgb8.png", "rgba8.png", "landscape.png", "portrait.png", "tiny.png", "grey.jpg"];
    let files: Vec<String> = (0..7).map(|i| format!("{}/{i}.png", if i < 5 { "a" } else { "b" })).collect();
    let dir = tree(&files.iter().map(String::as_str).zip(names).collect::<Vec<_>>());
    let dataset = Dataset::open(dir.path(), None).unwrap();
    let balanced = |augment| LoaderConfig { shuffle: true, sampler: Sampler::Balanced, seed: 4, augment, ..config(3) };
    let batches = take(&dataset, balanced(Augment::CROP_FLIP.into()), 30);
    let mut seen = [0; 7];
    for epoch in batches.chunks(3) {
        let of = |label| epoch.iter().flat_map(|batch| &batch.labels).filter(|own| **own == label).count();
        assert!([(3, 4), (4, 3)].contains(&(of(0), of(1))), "{} and {}", of(0), of(1));
        let images: Vec<(usize, &[f32])> =
            epoch.iter().flat_map(|batch| batch.indices.iter().copied().zip(batch.images.chunks(3 * 8 * 8))).collect();
        for (i, (index, image)) in images.iter().enumerate() {
            seen[*index] += 1;
            // The picture of one colour looks the same however it is cut.
            let again = images[..i].iter().find(|(other, _)| other == index && *index != 5);
            assert!(again.is_none_or(|(_, other)| other != image), "image {index} came twice in one epoch, the same");
        }
    }
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
    for start in [1, 3, 7, 29] {
        let resumed = LoaderConfig { start_batch: start, ..balanced(Augment::CROP_FLIP.into()) };
        assert_eq!(take(&dataset, resumed, 30 - start as usize), batches[start as usize..], "from batch {start}");
    }
}
