//! The data module against Pillow, torchvision and timm (`fixtures/generate_data.py`), and what it promises about
//! order, errors and threads.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use tempfile::TempDir;
use tpgm::data::{
    Check, ClassMap, CropMode, Dataset, Interpolation, Looks, Preprocess, RgbImage, Same, decode, overlaps, resize,
};
use tpgm::error::{Error, Result};
use tpgm::train::help::told;

#[path = "data/archives.rs"]
mod archives;
#[path = "data/augment.rs"]
mod augment;
#[path = "data/check.rs"]
mod check;
#[path = "data/classes.rs"]
mod classes;
#[path = "data/corrupt.rs"]
mod corrupt;
#[path = "data/formats.rs"]
mod formats;
#[path = "data/preprocess.rs"]
mod from_configuration;
#[path = "data/labels.rs"]
mod labels;
#[path = "data/loader.rs"]
mod loader;
#[path = "data/parquet.rs"]
mod parquet;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn image_file(name: &str) -> PathBuf {
    fixtures().join("data_images").join(name)
}

/// Calls `check(rest of the name, shape, bytes)` for every expected tensor of one kind, and returns how many.
fn for_each_golden(kind: &str, mut check: impl FnMut(&str, &[usize], &[u8])) -> usize {
    let file = fs::read(fixtures().join("data_expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut count = 0;
    for (name, tensor) in tensors.tensors() {
        if let Some(rest) = name.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/')) {
            check(rest, tensor.shape(), tensor.data());
            count += 1;
        }
    }
    count
}

fn max_difference(name: &str, image: &RgbImage, shape: &[usize], expected: &[u8]) -> u8 {
    assert_eq!([image.height() as usize, image.width() as usize, 3], shape, "{name}");
    image.as_raw().iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

fn one_line(error: &Error) -> String {
    let text = told(error);
    assert!(!text.contains('\n'), "an error is one line: {text}");
    text
}

fn assert_error<T>(result: Result<T>, parts: &[&str]) {
    let text = one_line(&result.err().expect("an error is expected"));
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

fn preprocess(image_size: usize) -> Preprocess {
    Preprocess {
        image_size,
        crop_pct: 0.9,
        crop_mode: CropMode::Center,
        interpolation: Interpolation::Bicubic,
        mean: [0.5; 3],
        std: [0.5; 3],
        grey: false,
    }
}

// ---- Pixels

#[test]
fn decodes_every_kind_as_pillow_does() {
    let count = for_each_golden("decode", |name, shape, expected| {
        // Pillow makes grey of 16 bits white: generate_formats.py has the wanted values.
        if ["grey16.png", "grey16_trns.png"].contains(&name) {
            return;
        }
        let image = decode(image_file(name)).unwrap();
        let difference = max_difference(name, &image, shape, expected);
        assert_eq!(difference, 0, "{name}: {difference} levels off");
    });
    assert!(count >= 56, "{count} images");
}

#[test]
fn resizes_as_pillow_does() {
    let count = for_each_golden("resize", |name, shape, expected| {
        let [file, filter, _] = name.split('/').collect::<Vec<_>>()[..] else { panic!("{name}") };
        let image = decode(image_file(file)).unwrap();
        let resized = resize(&image, shape[1] as u32, shape[0] as u32, serde_json::from_value(filter.into()).unwrap());
        let difference = max_difference(name, &resized, shape, expected);
        assert_eq!(difference, 0, "{name}: {difference} levels off");
    });
    assert_eq!(count, 3 * 8);
}

#[test]
fn preprocesses_as_timm_does() {
    let count = for_each_golden("preprocess", |name, shape, expected| {
        let [file, filter, mode, size, crop_pct, stats] = name.split('/').collect::<Vec<_>>()[..] else {
            panic!("{name}")
        };
        let (mean, std) = match stats {
            "half" => ([0.5; 3], [0.5; 3]),
            _ => ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        };
        let preprocess = Preprocess {
            image_size: size.parse().unwrap(),
            crop_pct: crop_pct.parse().unwrap(),
            crop_mode: if mode == "center" { CropMode::Center } else { CropMode::Squash },
            interpolation: serde_json::from_value(filter.into()).unwrap(),
            mean,
            std,
            grey: false,
        };
        let actual = preprocess.apply(&decode(image_file(file)).unwrap());
        assert_eq!(shape, [3, preprocess.image_size, preprocess.image_size], "{name}");
        let expected = expected.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        assert_eq!(actual.len(), shape.iter().product::<usize>(), "{name}");
        for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
            // Far less than one level of 255, more than the float's own rounding.
            assert!((a - e).abs() <= 1e-6, "{name} at {i}: {a}, expected {e}");
        }
    });
    assert_eq!(count, 14);
}

#[test]
fn extreme_shapes_take_no_extreme_memory() {
    // Resized whole, the longer side would have 25 million pixels.
    let line = RgbImage::from_fn(100_000, 1, |x, _| image::Rgb([(x % 251) as u8; 3]));
    let preprocess = Preprocess { image_size: 224, ..preprocess(8) };
    assert_eq!(preprocess.apply(&line).len(), 3 * 224 * 224);
}

#[test]
fn preprocess_reads_and_writes_lower_case_names() {
    let json = serde_json::to_value(preprocess(8)).unwrap();
    assert_eq!((&json["crop_mode"], &json["interpolation"]), (&"center".into(), &"bicubic".into()));
    assert_eq!(serde_json::from_value::<Preprocess>(json).unwrap(), preprocess(8));
    for bad in [
        Preprocess { image_size: 0, ..preprocess(8) },
        Preprocess { crop_pct: 0.0, ..preprocess(8) },
        Preprocess { crop_pct: f64::NAN, ..preprocess(8) },
        Preprocess { crop_pct: 9.0, ..preprocess(8) },
        Preprocess { std: [1.0, 0.0, 1.0], ..preprocess(8) },
    ] {
        assert!(matches!(bad.validate(), Err(Error::Usage(_))), "{bad:?}");
    }
}

#[test]
fn broken_images_are_errors_that_name_the_file() {
    let dir = TempDir::new().unwrap();
    let check = |name: &str, bytes: &[u8], part: &str| {
        fs::write(dir.path().join(name), bytes).unwrap();
        let result = decode(dir.path().join(name));
        assert!(matches!(result, Err(Error::Data { .. })), "{name}: {result:?}");
        assert_error(result, &[name, part]);
    };
    check("empty.png", b"", "empty");
    check("text.jpg", b"this is no image, whatever its name says", "not an image that is read");
    check("image.gif", b"GIF89a\x01\0\x01\0\0\0\0;", "broken image");
    check("image.avif", b"\0\0\0\x20ftypavif\0\0\0\0", "not an image that is read");
    for name in ["rgb8.png", "color_444.jpg", "progressive.jpg", "exif6.jpg", "lossless.webp", "lossy.webp"] {
        let bytes = fs::read(image_file(name)).unwrap();
        for keep in [12, bytes.len() / 4, bytes.len() / 2, bytes.len() - 30] {
            check(name, &bytes[..keep], "");
        }
    }
    let jpeg = fs::read(image_file("color_420.jpg")).unwrap();
    check("no_end.jpg", &jpeg[..jpeg.len() - 2], "truncated");

    // Headers alone: nothing of this size is ever written out. A PNG header's checksum follows its 13 bytes.
    let png = fs::read(image_file("rgb8.png")).unwrap();
    let with_size = |width: u32, height: u32, crc: u32| {
        let mut png = png.clone();
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        png
    };
    check("bomb.png", &with_size(20_000, 20_000, 0x6C12_D16E), "20000×20000 is 400000000 pixels");
    check("zero.png", &with_size(0, 5, 0xE424_7AF6), "broken image");
    assert!(matches!(decode(dir.path().join("nowhere.png")), Err(Error::Io { .. })));
}

// ---- Data sets

/// Writes small images and other files: `path` below a fresh folder, and which image it is a copy of (or text).
fn tree(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match fs::read(image_file(content)) {
            Ok(bytes) => fs::write(path, bytes).unwrap(),
            Err(_) => fs::write(path, content).unwrap(),
        }
    }
    dir
}

fn listed(dataset: &Dataset, root: &Path) -> Vec<(String, u32)> {
    let relative = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
    dataset.items.iter().map(|item| (relative(&item.path), item.label)).collect()
}

fn pairs(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    expected.iter().map(|(path, label)| (path.to_string(), *label)).collect()
}

#[test]
fn class_folders_sort_and_recurse() {
    let dir = tree(&[
        ("dog/b.JPG", "grey.jpg"),
        ("dog/a.png", "rgb8.png"),
        ("cat-big/1.webp", "lossy.webp"),
        ("cat/deep/er/1.jpeg", "grey.jpg"),
        ("cat/2.png", "rgb8.png"),
        ("cat/.hidden.png", "rgb8.png"),
        ("cat/notes.txt", "not an image"),
        (".git/x.png", "rgb8.png"),
        ("README.md", "not a class"),
    ]);
    let dataset = Dataset::open(dir.path(), None).unwrap();
    assert_eq!(dataset.classes, ["cat", "cat-big", "dog"]);
    let expected = pairs(&[
        ("cat/2.png", 0),
        ("cat/deep/er/1.jpeg", 0),
        ("cat-big/1.webp", 1),
        ("dog/a.png", 2),
        ("dog/b.JPG", 2),
    ]);
    assert_eq!(listed(&dataset, dir.path()), expected);
    assert_eq!(dataset.name, dir.path().file_name().unwrap().to_str().unwrap());

    let unlabelled = Dataset::unlabelled(dir.path(), None).unwrap();
    assert!(unlabelled.classes.is_empty());
    let unlabel = |(path, _): (String, u32)| (path, 0);
    assert_eq!(listed(&unlabelled, dir.path()), expected.into_iter().map(unlabel).collect::<Vec<_>>());
    let one = Dataset::unlabelled(dir.path().join("dog/b.JPG"), None).unwrap();
    assert_eq!(listed(&one, dir.path()), pairs(&[("dog/b.JPG", 0)]));
    let flat = Dataset::unlabelled(dir.path().join("dog"), None).unwrap();
    assert_eq!(listed(&flat, dir.path()), pairs(&[("dog/a.png", 0), ("dog/b.JPG", 0)]));
}

#[test]
fn lists_and_csvs_are_read() {
    let dir = tree(&[
        ("img/b c.png", "rgb8.png"),
        ("img/a.png", "rgb8.png"),
        ("img/d.png", "rgb8.png"),
        ("numbers.txt", "\u{feff}# a comment\r\nimg/b c.png  2\r\n\r\n  img/a.png\t0\r\n"),
        ("names.txt", "img/d.png dog\nimg/b c.png cat\nimg/a.png dog"),
        ("sub/rooted.txt", "b c.png 0\na.png 1\n"),
        ("table.csv", "id,label,path\n1, big dog ,img/d.png\n2,cat,\"img/b c.png\"\n"),
    ]);
    let root = dir.path();
    let open = |name: &str| Dataset::open(root.join(name), None).unwrap();

    let numbers = open("numbers.txt");
    assert_eq!((numbers.name.as_str(), &numbers.classes[..]), ("numbers", &["0", "1", "2"].map(String::from)[..]));
    assert_eq!(listed(&numbers, root), pairs(&[("img/a.png", 0), ("img/b c.png", 2)]));

    let names = open("names.txt");
    assert_eq!(names.classes, ["cat", "dog"]);
    assert_eq!(listed(&names, root), pairs(&[("img/a.png", 1), ("img/b c.png", 0), ("img/d.png", 1)]));

    let rooted = Dataset::open(root.join("sub/rooted.txt"), Some(&root.join("img"))).unwrap();
    assert_eq!(listed(&rooted, root), pairs(&[("img/a.png", 1), ("img/b c.png", 0)]));

    let table = open("table.csv");
    assert_eq!(table.classes, ["big dog", "cat"]);
    assert_eq!(listed(&table, root), pairs(&[("img/b c.png", 1), ("img/d.png", 0)]));
    let unlabelled = Dataset::unlabelled(root.join("table.csv"), None).unwrap();
    assert_eq!(listed(&unlabelled, root), pairs(&[("img/b c.png", 0), ("img/d.png", 0)]));
}

/// DomainNet's `clipart_train.txt` and its like: classes by number, of which a part of the list may lack some.
#[test]
fn domainnets_lists_have_345_classes_by_number() {
    let dir = tree(&[
        ("DomainNet/real/dog/real_092_000016.jpg", "rgb8.png"),
        ("DomainNet/real/zigzag/real_345_000001.jpg", "rgb8.png"),
        ("DomainNet/real/aircraft_carrier/real_001_000002.jpg", "rgb8.png"),
        (
            "lists/real_train.txt",
            "real/zigzag/real_345_000001.jpg 344\nreal/dog/real_092_000016.jpg 91\n\
             real/aircraft_carrier/real_001_000002.jpg 0\n",
        ),
        ("lists/real_test.txt", "real/dog/real_092_000016.jpg 91\n"),
    ]);
    let root = dir.path().join("DomainNet");
    let open = |name: &str| Dataset::open(dir.path().join("lists").join(name), Some(&root)).unwrap();
    let train = open("real_train.txt");
    assert_eq!((train.classes.len(), &*train.classes[91], &*train.classes[344]), (345, "91", "344"));
    let labels: Vec<u32> = train.items.iter().map(|item| item.label).collect();
    assert_eq!(labels, [0, 91, 344], "sorted by path");
    assert!(train.items[1].path.ends_with("real/dog/real_092_000016.jpg"));
    let classes = ClassMap::of_ids(&train).unwrap();
    let test = classes.label(&open("real_test.txt")).unwrap();
    assert_eq!((test.classes.len(), test.items[0].label), (345, 91));
}

#[test]
fn bad_data_sets_are_errors_that_say_where() {
    let dir = tree(&[
        ("tree/full/a.png", "rgb8.png"),
        ("tree/hollow/notes.txt", "no image here"),
        ("flat/a.png", "rgb8.png"),
        ("bare/notes.txt", "no image here"),
        ("a.png", "rgb8.png"),
        ("one_word.txt", "# header\n\na.png\n"),
        ("gone.txt", "a.png 0\nimages/gone.png 1\n"),
        ("mixed.txt", "a.png 0\na.png dog\n"),
        ("mixed_names.txt", "a.png dog\na.png 3\n"),
        ("huge.txt", "a.png 0\na.png 4294967296\n"),
        ("large.txt", "a.png 4294967295\n"),
        ("negative.txt", "a.png -1\n"),
        ("fraction.txt", "a.png 1.5\n"),
        ("comments.txt", "# nothing\n\n"),
        ("header.csv", "file,label\na.png,0\n"),
        ("short.csv", "path,label\na.png,0\na.png\n"),
    ]);
    fs::write(dir.path().join("latin1.txt"), b"a.png 0\ncaf\xe9.png 0\n").unwrap();
    let check = |name: &str, parts: &[&str]| {
        let result = Dataset::open(dir.path().join(name), None);
        let data = matches!(&result, Err(error) if matches!(error.facts(), Error::Data { .. }));
        assert!(data, "{name}: {result:?}");
        assert_error(result, &[&[name], parts].concat());
    };
    check("nowhere", &["no such file or folder"]);
    check("tree", &["hollow", "empty class folder"]);
    check("flat", &["no class folders"]);
    check("a.png", &["one image"]);
    check("one_word.txt", &["line 3", "path label"]);
    check("gone.txt", &["line 2", "gone.png", "relative to the list's folder", "--root"]);
    check("mixed.txt", &["line 2", "\"dog\" is not a number"]);
    check("mixed_names.txt", &["line 2", "\"3\" is a number"]);
    check("huge.txt", &["line 2", "4294967296"]);
    check("large.txt", &["line 1", "4294967295"]);
    check("negative.txt", &["line 1", "-1"]);
    check("fraction.txt", &["line 1", "1.5"]);
    check("comments.txt", &["no images"]);
    check("header.csv", &["line 1", "`path` and `label`"]);
    check("short.csv", &["line 3", "missing"]);
    check("latin1.txt", &["line 2", "UTF-8"]);
    assert_error(Dataset::unlabelled(dir.path().join("bare"), None), &["bare", "no images"]);
    assert_error(Dataset::unlabelled(dir.path().join("gone.png"), None), &["gone.png", "no such file"]);
}

/// What a look at the images finds that keeps nothing on disk.
fn looked_at(sets: &[&Dataset]) -> Looks {
    Check::new(None).run(sets, &mut |_, _| {})
}

#[test]
fn shared_images_are_found_by_content() {
    let a = tree(&[("x/1.png", "rgb8.png"), ("x/2.png", "rgba8.png")]);
    let b = tree(&[("x/1.png", "grey8.png"), ("x/other.png", "rgba8.png")]);
    let (train, val) = (Dataset::open(a.path(), None).unwrap(), Dataset::open(b.path(), None).unwrap());
    let looks = looked_at(&[&train, &val]);
    let found = overlaps(&[("train", &train), ("val", &val)], 2, &looks);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].first, ("train".into(), a.path().join("x/2.png")));
    assert_eq!(found[0].second, ("val".into(), b.path().join("x/other.png")));
    assert_eq!(found[0].same, Same::Bytes);
    let thrice = [("a", &train), ("b", &train), ("c", &train)];
    assert_eq!(overlaps(&thrice, 3, &looks).len(), 6);
    assert_eq!(overlaps(&thrice, 1, &looks).len(), 4, "b and c may share what they like");
    fs::remove_file(a.path().join("x/2.png")).unwrap();
    assert_error(looked_at(&[&train, &val]).refuse_broken(&[&train, &val]), &["2.png", "cannot read"]);
}

#[test]
fn shared_images_are_found_in_files_that_were_written_anew() {
    let a = tree(&[("x/1.png", "landscape.png"), ("x/2.jpg", "exif6.jpg"), ("x/3.png", "broken")]);
    let b = tree(&[("x/other.png", "rgb8.png"), ("x/small.png", "tiny.png")]);
    let upright = decode(a.path().join("x/2.jpg")).unwrap();
    upright.save(b.path().join("x/turned.png")).unwrap();
    decode(a.path().join("x/1.png")).unwrap().save(b.path().join("x/again.webp")).unwrap();
    // One level of one pixel more is another image.
    let mut other = decode(a.path().join("x/1.png")).unwrap();
    other.get_pixel_mut(3, 3).0[1] ^= 1;
    other.save(b.path().join("x/almost.png")).unwrap();
    let (train, val) = (Dataset::open(a.path(), None).unwrap(), Dataset::open(b.path(), None).unwrap());
    let found = overlaps(&[("train", &train), ("val", &val)], 2, &looked_at(&[&train, &val]));
    let pairs: Vec<_> = found.iter().map(|o| (o.first.1.clone(), o.second.1.clone(), o.same)).collect();
    let pair = |one: &str, two: &str| (a.path().join(one), b.path().join(two), Same::Pixels);
    assert_eq!(pairs, [pair("x/1.png", "x/again.webp"), pair("x/2.jpg", "x/turned.png")]);
}
