//! BMP, GIF, TIFF and PNM as Pillow reads them, and the upper 8 of 16 bits, against `fixtures/generate_formats.py`; which files of
//! a folder are images, and which are left out.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use tpgm::data::{Dataset, decode};
use tpgm::error::Error;

use super::{assert_error, fixtures, image_file, listed, max_difference, pairs, tree};

#[test]
fn every_format_is_read_as_pillow_does() {
    let file = fs::read(fixtures().join("data_formats_expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    assert_eq!(tensors.len(), 29);
    let mut wrong = Vec::new();
    for (name, tensor) in tensors.tensors() {
        let own = fixtures().join("data_formats").join(&name);
        let path = if own.is_file() { own } else { image_file(&name) };
        match decode(path) {
            Ok(image) => match max_difference(&name, &image, tensor.shape(), tensor.data()) {
                0 => {}
                // Values whose white is no power of two are rounded another way.
                1 if name.starts_with("white") => {}
                levels => wrong.push(format!("{name}: {levels} levels off")),
            },
            Err(e) => wrong.push(e.to_string()),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_error(decode(fixtures().join("data_formats/float.tif")), &["float.tif"]);
}

/// The right count by kind, and nothing read that is no image of the user's.
#[test]
fn what_is_no_image_is_counted_by_kind() {
    let dir = tree(&[
        ("cat/1.png", "rgb8.png"),
        ("cat/deep/2.BMP", "rgb8.png"),
        ("cat/3.tiff", "rgb8.png"),
        ("cat/4.GIF", "rgb8.png"),
        ("cat/5.pgm", "rgb8.png"),
        ("cat/notes.txt", "x"),
        ("cat/deep/more.TXT", "x"),
        ("cat/raw.heic", "x"),
        ("cat/photo.avif", "x"),
        ("cat/README", "x"),
        ("cat/.hidden.png", "rgb8.png"),
        ("cat/.thumbs/1.png", "rgb8.png"),
        ("cat/@eaDir/1.png", "rgb8.png"),
        ("cat/Thumbs.db", "x"),
        ("dog/1.png", "rgb8.png"),
        ("__MACOSX/cat/1.png", "rgb8.png"),
        (".git/a.png", "rgb8.png"),
        ("stray.png", "rgb8.png"),
        ("labels.csv", "x"),
    ]);
    let dataset = Dataset::open(dir.path(), None).unwrap();
    assert_eq!(dataset.classes, ["cat", "dog"]);
    assert_eq!(dataset.items.len(), 6);
    let counts: Vec<(&str, u64)> = dataset.left_out.0.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
    let want = [
        (".avif", 1),
        (".csv", 1),
        (".heic", 1),
        (".txt", 2),
        ("hidden", 3),
        ("images outside class folders", 1),
        ("of the system (@eaDir and its like)", 3),
        ("without an extension", 1),
    ];
    assert_eq!(counts, want);
    assert_eq!(dataset.left_out.total(), 13);
    let text = dataset.left_out.to_string();
    assert!(text.starts_with("3 hidden, 3 of the system") && text.ends_with("other kinds"), "{text}");
    let flat = Dataset::unlabelled(dir.path().join("cat"), None).unwrap();
    assert_eq!((flat.items.len(), flat.left_out.total()), (5, 9));
    // A class without an image says what it has instead.
    fs::remove_file(dir.path().join("dog/1.png")).unwrap();
    fs::write(dir.path().join("dog/1.heic"), "x").unwrap();
    assert_error(Dataset::open(dir.path(), None), &["dog", "empty class folder", "1 .heic"]);
}

#[cfg(unix)]
#[test]
fn links_that_lead_back_up_are_not_followed() {
    use std::os::unix::fs::symlink;
    let dir = tree(&[("cat/1.png", "rgb8.png"), ("cat/deep/2.png", "rgb8.png"), ("dog/1.png", "rgb8.png")]);
    let other = tree(&[("3.png", "rgb8.png")]);
    symlink(dir.path(), dir.path().join("cat/up")).unwrap();
    symlink(".", dir.path().join("cat/deep/here")).unwrap();
    symlink("../..", dir.path().join("dog/root")).unwrap();
    symlink(other.path(), dir.path().join("dog/elsewhere")).unwrap();
    symlink(dir.path(), other.path().join("back")).unwrap();
    symlink("nowhere.png", dir.path().join("dog/gone.png")).unwrap();
    let dataset = Dataset::open(dir.path(), None).unwrap();
    let want = pairs(&[("cat/1.png", 0), ("cat/deep/2.png", 0), ("dog/1.png", 1), ("dog/elsewhere/3.png", 1)]);
    assert_eq!(listed(&dataset, dir.path()), want);
    assert_eq!(dataset.left_out.0["links to a folder above"], 4);
    assert_eq!(dataset.left_out.0["broken links"], 1);
    // A class folder may be a link itself.
    symlink(other.path(), dir.path().join("emu")).unwrap();
    assert_eq!(Dataset::open(dir.path(), None).unwrap().classes, ["cat", "dog", "emu"]);
}

/// A pipe that nobody writes to would be waited for without end.
#[cfg(unix)]
#[test]
fn only_regular_files_are_opened() {
    let dir = tree(&[("cat/1.png", "rgb8.png")]);
    let pipe = |name: &str| {
        let path = dir.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    };
    let image = pipe("cat/pipe.png");
    let dataset = Dataset::open(dir.path(), None).unwrap();
    assert_eq!((dataset.items.len(), dataset.left_out.0["pipes, sockets or devices"]), (1, 1));
    let check = |result: Result<Dataset, Error>| assert_error(result, &["no regular file"]);
    assert_error(decode(&image), &["pipe.png", "no regular file"]);
    check(Dataset::open(pipe("list.txt"), None));
    check(Dataset::open(pipe("table.csv"), None));
    check(Dataset::unlabelled(pipe("more.txt"), None));
    assert_error(tpgm::data::ClassMap::open(pipe("map.txt")), &["map.txt", "no regular file"]);
    let list = dir.path().join("images.txt");
    fs::write(&list, "cat/1.png 0\ncat/pipe.png 1\n").unwrap();
    assert_error(Dataset::open(&list, None), &["line 2", "pipe.png"]);
    assert_error(Dataset::open(Path::new("/dev/null"), None), &["no regular file"]);
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_text_are_refused_before_any_work() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tree(&[("cat/1.png", "rgb8.png")]);
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.png");
    fs::copy(image_file("rgb8.png"), dir.path().join("cat").join(name)).unwrap();
    assert_error(Dataset::open(dir.path(), None), &["caf", "not UTF-8", "rename it"]);
    assert_error(Dataset::unlabelled(dir.path().join("cat"), None), &["caf", "not UTF-8"]);
    assert_error(Dataset::unlabelled(dir.path().join("cat").join(name), None), &["caf", "not UTF-8"]);
}
