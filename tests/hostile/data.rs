//! What users and downloads bring besides checkpoints: lists, CSVs, class maps, settings, and images of every format, damaged. Each
//! is read or refused with one line.

use std::fs;
use std::path::{Path, PathBuf};

use tpgm::data::{Check, ClassMap, Dataset, decode};
use tpgm::error::Result;
use tpgm::train::{FileSettings, Flags};

use super::common::Random;
use super::{assert_line, mutate};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Writes `whole` to the file `name` of `dir` with `files` mutations and reads each; the share of a hundred that were sound.
fn attack(files: usize, dir: &Path, name: &str, whole: &[u8], read: impl Fn(&Path) -> Result<()>) -> f64 {
    let (path, mut random, mut sound) = (dir.join(name), Random::new(whole.len() as u64), 0);
    fs::write(&path, whole).unwrap();
    read(&path).unwrap_or_else(|e| panic!("{name} as it was: {e}"));
    for _ in 0..files {
        let mut bytes = whole.to_vec();
        mutate(&mut bytes, whole.len(), false, &mut random);
        fs::write(&path, &bytes).unwrap();
        match read(&path) {
            Ok(()) => sound += 1,
            Err(error) => {
                assert!(error.to_string().len() < 4_000, "{} characters", error.to_string().len());
                assert_line(error);
            }
        }
    }
    100.0 * sound as f64 / files as f64
}

/// A folder with a few small images.
fn images() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.png", "b c.png", "ü.png"] {
        fs::copy(fixtures().join("data_images/rgb8.png"), dir.path().join(name)).unwrap();
    }
    dir
}

#[test]
fn mutated_lists_and_csvs() {
    let dir = images();
    let open = |path: &Path| {
        let dataset = Dataset::open(path, None)?;
        ClassMap::of_ids(&dataset)?.label(&dataset).map(drop)
    };
    for (name, text) in [
        ("numbers.txt", "# header\na.png 0\nb c.png 3\n\u{fc}.png 12\n"),
        ("names.txt", "a.png cat\r\nb c.png dog\r\n\u{fc}.png big-dog\r\n"),
        ("table.csv", "id,label,path\n1,\"big, dog\",a.png\n2,cat,\"b c.png\"\n3,cat,\u{fc}.png\n"),
    ] {
        let sound = attack(5_000, dir.path(), name, text.as_bytes(), open);
        assert!(sound > 1.0 && sound < 90.0, "mutations of {name} must reach both sides: {sound} %");
    }
}

#[test]
fn mutated_class_maps() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("map.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish\nn02012849 crane\nn03126707 crane\n"),
        ("map.json", r#"{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"], "2": ["n02012849", "crane"]}"#),
    ] {
        let sound = attack(5_000, dir.path(), name, text.as_bytes(), |path| ClassMap::open(path).map(drop));
        assert!(sound > 1.0 && sound < 95.0, "mutations of {name} must reach both sides: {sound} %");
    }
}

#[test]
fn mutated_settings() {
    let dir = tempfile::tempdir().unwrap();
    let flags = Flags::parse("--model m --train t --val v --test a=x b=y --id a --lr 0.1".split_whitespace()).unwrap();
    let text = flags.resolve(None).unwrap().to_toml();
    let read = |path: &Path| {
        let file = FileSettings::read(path)?;
        Flags::parse([""; 0])?.resolve(Some(&file)).map(drop)
    };
    let sound = attack(3_000, dir.path(), "config.toml", text.as_bytes(), read);
    assert!(sound > 1.0 && sound < 95.0, "mutations must reach both sides: {sound} %");
}

#[test]
fn mutated_images_of_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let mut files: Vec<PathBuf> =
        fs::read_dir(fixtures().join("data_formats")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.extend(
        ["rgb8.png", "palette4.png", "lossy.webp", "lossless_animated.webp"]
            .map(|n| fixtures().join("data_images").join(n)),
    );
    files.retain(|path| path.file_name().is_some_and(|name| name != "float.tif"));
    files.sort();
    assert!(files.len() > 30);
    let (mut sound, count) = (0.0, files.len() as f64);
    for path in &files {
        let name = path.file_name().unwrap().to_str().unwrap();
        sound += attack(300, dir.path(), name, &fs::read(path).unwrap(), |path| decode(path).map(drop)) / count;
    }
    assert!(sound > 5.0 && sound < 90.0, "mutations must reach both sides: {sound} %");
}

/// The files in which findings about images are kept: a damaged one is as good as none.
#[test]
fn mutated_findings() {
    let (dir, cache) = (images(), tempfile::tempdir().unwrap());
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let dataset = Dataset::unlabelled(dir.path(), None).unwrap();
    let check = Check { cache: Some(cache.path().into()), keep_after: std::time::Duration::ZERO };
    let want = check.run(&[&dataset], &mut |_, _| {});
    let path = fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap().path();
    let (whole, mut random) = (fs::read(&path).unwrap(), Random::new(5));
    for _ in 0..300 {
        let mut bytes = whole.clone();
        mutate(&mut bytes, whole.len(), false, &mut random);
        fs::write(&path, bytes).unwrap();
        assert_eq!(check.run(&[&dataset], &mut |_, _| {}), want);
    }
}
