//! The look at every image before any work: what it finds, what it keeps on disk, and what it tells.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tpgm::data::{Check, ClassMap, Dataset, Fold, Looks, Summary, decode, hold_out, split_off};

use super::{assert_error, image_file, looked_at, tree};

fn open(path: &Path) -> Dataset {
    Dataset::open(path, None).unwrap()
}

fn summary(dataset: &Dataset, looks: &Looks) -> Summary {
    let classes = ClassMap::of_ids(dataset).unwrap();
    let whole = looks.whole(dataset);
    Summary::new("train", &classes.label(&whole).unwrap(), &classes.names(), looks, &looks.broken(dataset))
}

#[test]
fn every_broken_image_is_named_at_once_or_left_out() {
    let png = fs::read(image_file("rgb8.png")).unwrap();
    let dir =
        tree(&[("a/1.png", "rgb8.png"), ("a/2.png", "rgba8.png"), ("b/1.png", "grey8.png"), ("b/5.png", "no image")]);
    for (name, bytes) in [("a/3.png", &png[..40]), ("a/4.png", b""), ("b/2.png", &png[..png.len() - 30])] {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let dataset = open(dir.path());
    let looks = looked_at(&[&dataset]);
    let parts = ["a/3.png", "a/4.png", "empty", "b/2.png", "b/5.png", "4 images can't be read"];
    assert_error(looks.refuse_broken(&[&dataset]), &parts);
    let names = |d: &Dataset| d.items.iter().map(|i| i.path.file_name().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&looks.whole(&dataset)), ["1.png", "2.png", "1.png"]);
    assert_eq!(looks.broken(&dataset).len(), 4);
    let said = summary(&dataset, &looks).lines();
    assert_eq!(said[0].1, "train: 3 images of 2 classes, from 1 (b) to 2 (a); 13 x 11 pixels");
    assert!(said[1].0 && said[1].1.contains("4 images that can't be read are left out: ") && said[1].1.contains("…"));
    // However many there are, the error is a line that can be read.
    for i in 0..500 {
        fs::write(dir.path().join(format!("a/{}{i}.png", "x".repeat(200))), "no image").unwrap();
    }
    let dataset = open(dir.path());
    let error = looked_at(&[&dataset]).refuse_broken(&[&dataset]).unwrap_err().to_string();
    assert!(error.contains("504 images") && error.len() < 8_000, "{} characters", error.len());
}

#[test]
fn twins_and_two_labels_are_told() {
    let dir = tree(&[
        ("a/1.png", "rgb8.png"),
        ("a/2.png", "rgb8.png"),
        ("a/3.png", "grey16.png"),
        ("b/1.png", "landscape.png"),
        ("b/2.png", "rgb8.png"),
    ]);
    // The same pixels in another file are the same image.
    decode(image_file("landscape.png")).unwrap().save(dir.path().join("a/4.webp")).unwrap();
    let dataset = open(dir.path());
    let found = summary(&dataset, &looked_at(&[&dataset]));
    assert_eq!((found.images, found.twice, found.two_labels, found.sixteen_bit), (6, 1, 2, 1));
    let pairs: Vec<_> = found.two_labels_examples.iter().map(|(a, b)| (a.clone(), b.clone())).collect();
    let at = |name: &str| dir.path().join(name);
    assert_eq!(pairs, [(at("b/1.png"), at("a/4.webp")), (at("b/2.png"), at("a/1.png"))]);
    assert_eq!((found.smallest, found.largest, found.median_side), ([13, 11], [61, 43], 11));
    let lines = found.lines();
    assert!(lines.iter().any(|(warning, line)| *warning && line.contains("2 images are there with two labels")));
    assert!(lines.iter().any(|(_, line)| line.contains("1 images have 16 bits per value: the upper 8 are used")));
    assert!(found.hint(22).unwrap().contains("at most 11 pixels") && found.hint(21).is_none());
    let text = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), found);
}

#[test]
fn what_was_found_is_kept_until_the_file_changes() {
    let dir = tree(&[("a/1.png", "rgb8.png"), ("a/2.png", "no image"), ("b/1.png", "landscape.png")]);
    let cache = tempfile::tempdir().unwrap();
    let check = Check { cache: Some(cache.path().into()), keep_after: Duration::ZERO };
    let look = || {
        let mut new = 0;
        let looks = check.run(&[&open(dir.path())], &mut |_, of| new = of);
        (looks, new)
    };
    // Files that have just changed may change again within the same tick.
    let (first, new) = look();
    assert_eq!(new, 3);
    assert_eq!(look().1, 3);
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(look().1, 3);
    let (again, new) = look();
    assert_eq!((new, &again), (0, &first), "nothing is looked at twice, and broken images stay broken");
    // A part of the same images is known as well.
    let mut part = open(dir.path());
    part.items.remove(1);
    let mut calls = 0;
    check.run(&[&part], &mut |_, _| calls += 1);
    assert_eq!(calls, 0);
    // Another content under the old size and time is seen, where the system has a time that nobody sets back.
    let path = dir.path().join("b/1.png");
    let (mut bytes, modified) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
    let last = bytes.len() - 20;
    bytes[last] ^= 0xff;
    fs::write(&path, bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let (changed, new) = look();
    if cfg!(unix) {
        assert_eq!((new, changed.broken(&open(dir.path())).len()), (1, 2));
    }
    // A damaged file of findings costs time, nothing else.
    for entry in fs::read_dir(cache.path()).unwrap() {
        fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    assert_eq!(look(), (changed, 3));
}

#[test]
fn a_share_is_set_apart_by_class_and_seed() {
    let names = ["rgb8", "rgba8", "grey8", "landscape", "portrait", "tiny", "palette8", "grey4", "interlaced", "rgb16"];
    let mut files: Vec<(String, String)> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        files.push((format!("a/{i}.png"), format!("{name}.png")));
        // Each image of b is there twice.
        files.push((format!("b/{i}.png"), format!("{name}.png")));
        files.push((format!("b/{i}-again.png"), format!("{name}.png")));
    }
    files.push(("c/only.png".into(), "one_pixel.png".into()));
    files.push(("d/1.png".into(), "grey1.png".into()));
    files.push(("d/2.png".into(), "grey2.png".into()));
    let dir = tree(&files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>());
    let dataset = open(dir.path());
    let looks = looked_at(&[&dataset]);
    let count = |d: &Dataset| (0..4).map(|c| d.items.iter().filter(|i| i.label == c).count()).collect::<Vec<_>>();
    let (train, val) = split_off(&dataset, &looks, 0.2, 0);
    assert_eq!((count(&train), count(&val)), (vec![8, 16, 1, 1], vec![2, 4, 0, 1]));
    let mut all: Vec<_> = train.items.iter().chain(&val.items).cloned().collect();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    let mut want = dataset.items.clone();
    want.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(all, want, "every image is on one side");
    for item in val.items.iter().filter(|item| item.label == 1) {
        let name = item.path.to_str().unwrap();
        let twin =
            if name.contains("-again") { name.replace("-again", "") } else { name.replace(".png", "-again.png") };
        assert!(val.items.iter().any(|other| other.path == Path::new(&twin)), "{name} and its twin are apart");
    }
    assert_eq!(split_off(&dataset, &looks, 0.2, 0), (train, val.clone()), "the seed decides");
    assert!((1..5).any(|seed| split_off(&dataset, &looks, 0.2, seed).1 != val), "another seed, other images");
    assert_eq!(count(&split_off(&dataset, &looks, 0.999, 0).0), [1, 2, 1, 1], "an image of each class stays");

    // Folds: each image is held out once, but the only one of its class.
    let folds: Vec<(Dataset, Dataset)> =
        (1..=3).map(|index| hold_out(&dataset, &looks, Fold { index, of: 3 }, 0)).collect();
    let mut held: Vec<_> = folds.iter().flat_map(|(_, held)| held.items.clone()).collect();
    held.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(held, want.iter().filter(|item| item.label != 2).cloned().collect::<Vec<_>>());
    for (rest, held) in &folds {
        assert_eq!(rest.items.len() + held.items.len(), want.len());
        let counts = count(held);
        assert!((3..=4).contains(&counts[0]) && [6, 8].contains(&counts[1]) && counts[3] <= 1, "{counts:?}");
        assert!(rest.items.iter().all(|item| !held.items.contains(item)));
        let twins = held.items.iter().filter(|item| item.label == 1 && item.path.to_str().unwrap().contains("-again"));
        assert_eq!(2 * twins.count(), counts[1], "an image and its twin are apart");
    }
    assert_ne!(hold_out(&dataset, &looks, Fold { index: 1, of: 3 }, 1), folds[0], "another seed, other images");
    for wrong in ["0/3", "4/3", "1/1", "2", "a/b", "1/-2"] {
        assert!(wrong.parse::<Fold>().is_err(), "{wrong}");
    }
}
