//! Archives (`fixtures/generate_archives.py`), shards and tables of images: the same data sets as class folders give, read in place.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tpgm::data::{Check, Dataset, Loader, LoaderConfig, Same, decode, exists, overlaps, size_of};

use super::{assert_error, fixtures, image_file, listed, pairs, preprocess, tree};

fn archive(name: &str) -> PathBuf {
    fixtures().join("archives").join(name)
}

fn open(name: &str) -> Dataset {
    Dataset::open(archive(name), None).unwrap()
}

const KINDS: [&str; 3] = ["classes.tar", "classes.tar.gz", "classes.zip"];

/// The same files as in the archives of classes, in folders.
fn unpacked() -> TempDir {
    tree(&[
        ("dog/b.JPG", "grey.jpg"),
        ("dog/a.png", "rgb8.png"),
        ("cat/deep/er/1.webp", "lossy.webp"),
        ("cat/2.png", "tiny.png"),
        ("owl/x.png", "rgba8.png"),
    ])
}

#[test]
fn an_archive_of_class_folders_is_one_data_set() {
    let folder = unpacked();
    let plain = Dataset::open(folder.path(), None).unwrap();
    for name in KINDS {
        let dataset = open(name);
        assert_eq!((dataset.name.as_str(), &dataset.classes), ("classes", &plain.classes), "{name}");
        let root = archive(name).join("photos");
        assert_eq!(listed(&dataset, &root), listed(&plain, folder.path()), "{name}");
        for (item, plain) in dataset.items.iter().zip(&plain.items) {
            assert!(decode(&item.path).unwrap() == decode(&plain.path).unwrap(), "{}", item.path.display());
            assert_eq!(size_of(&item.path).unwrap(), fs::metadata(&plain.path).unwrap().len());
        }
        let left_out: Vec<(&str, u64)> = dataset.left_out.0.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
        let system = "of the system (@eaDir and its like)";
        assert_eq!(left_out, [(".txt", 1), ("hidden", 1), (system, 1), ("without an extension", 1)], "{name}");

        let unlabelled = Dataset::unlabelled(archive(name), None).unwrap();
        let sorted = ["cat/2.png", "cat/deep/er/1.webp", "dog/a.png", "dog/b.JPG", "owl/x.png"].map(|path| (path, 0));
        assert_eq!(listed(&unlabelled, &root), pairs(&sorted));
        let dogs = Dataset::unlabelled(root.join("dog"), None).unwrap();
        assert_eq!((dogs.name.as_str(), listed(&dogs, &root)), ("dog", pairs(&sorted[2..4])));
        let one = Dataset::unlabelled(root.join("dog/a.png"), None).unwrap();
        assert_eq!(listed(&one, &root), pairs(&sorted[2..3]));
        assert_eq!(Dataset::open(&root, None).unwrap().items, dataset.items);
        for (inside, there) in [("", true), ("photos", true), ("photos/dog/a.png", true), ("photos/do", false)] {
            assert_eq!(exists(&archive(name).join(inside)), there, "{inside}");
        }
    }
    assert!(!exists(&archive("nowhere.zip")) && !exists(&archive("nowhere.zip/train")) && exists(&archive("shards")));
}

#[test]
fn names_of_any_length_and_the_last_of_two_files_are_read() {
    let dataset = open("odd.tar");
    assert_eq!(dataset.classes, ["cat", "hound"]);
    let names = [
        format!("cat/{}/1.png", "long".repeat(40)),
        "cat/twice.png".into(),
        format!("hound/{}/{}.png", "ä".repeat(60), "x".repeat(120)),
    ];
    let expected: Vec<(&str, u32)> = names.iter().map(String::as_str).zip([0, 0, 1]).collect();
    assert_eq!(listed(&dataset, &archive("odd.tar")), pairs(&expected));
    assert!(decode(&dataset.items[1].path).unwrap() == decode(image_file("tiny.png")).unwrap());
    // A link has no bytes of its own.
    assert_error(decode(archive("odd.tar/cat/link.png")), &["odd.tar", "no file \"cat/link.png\""]);
}

#[test]
fn splits_in_an_archive_are_folders_in_it() {
    let train = open("splits.zip/train");
    assert_eq!((train.name.as_str(), &train.classes[..]), ("train", &["cat".to_string(), "dog".into()][..]));
    assert_eq!(train.items.len(), 3);
    let splits = Dataset::open(archive("splits.zip"), None);
    assert_error(splits, &["splits.zip", "\"train\", \"val\"", "named as splits", "splits.zip/train", "--data"]);
    assert_error(Dataset::open(archive("splits.zip/test"), None), &["splits.zip/test", "no such file or folder"]);
}

#[test]
fn webdatasets_shards_have_a_class_beside_each_image() {
    let shards = open("shards");
    assert_eq!((shards.classes.len(), shards.classes[10].as_str()), (11, "10"));
    let expected =
        [("train-000000.tar/000000.png", 2), ("train-000000.tar/000001.jpg", 0), ("train-000001.tar/000002.png", 10)];
    assert_eq!(listed(&shards, &archive("shards")), pairs(&expected));
    assert_eq!(shards.left_out.total(), 0);
    assert!(decode(&shards.items[1].path).unwrap() == decode(image_file("grey.jpg")).unwrap());
    let one = open("shards/train-000000.tar");
    assert_eq!((one.name.as_str(), one.classes.len(), &one.items[..]), ("train-000000", 3, &shards.items[..2]));
    let named = open("named.tar");
    assert_eq!(named.classes, ["cat", "dog"]);
    assert_eq!(listed(&named, &archive("named.tar")), pairs(&[("a/one.two.jpg", 1), ("b/one.png", 0)]));
    assert_eq!(Dataset::unlabelled(archive("shards"), None).unwrap().items.len(), 3);
}

#[test]
fn lists_may_name_files_in_archives() {
    let dir = tree(&[("list.txt", "classes.zip/photos/dog/a.png dog\nclasses.zip/photos/cat/2.png cat\n")]);
    for name in KINDS {
        fs::copy(archive(name), dir.path().join(name)).unwrap();
    }
    let dataset = Dataset::open(dir.path().join("list.txt"), None).unwrap();
    assert_eq!(listed(&dataset, &dir.path().join("classes.zip/photos")), pairs(&[("cat/2.png", 0), ("dog/a.png", 1)]));
    assert!(decode(&dataset.items[0].path).unwrap() == decode(image_file("tiny.png")).unwrap());
    fs::write(dir.path().join("gone.txt"), "classes.tar/photos/dog/c.png dog\n").unwrap();
    assert_error(Dataset::open(dir.path().join("gone.txt"), None), &["gone.txt", "line 1", "no file", "dog/c.png"]);
}

#[test]
fn tables_of_image_folders_are_read() {
    let images = [("img/a.png", "rgb8.png"), ("b.png", "rgb8.png"), ("c.jpg", "grey.jpg")];
    let with = |files: &[(&str, &str)]| tree(&[&images, files].concat());
    for (name, text) in [
        ("metadata.csv", "text,label,file_name\nx,dog,img/a.png\ny,cat,b.png\nz,dog,c.jpg\n"),
        (
            "metadata.jsonl",
            "{\"file_name\": \"img/a.png\", \"label\": \"dog\"}\n\n{\"file_name\": \"b.png\", \"label\": \"cat\", \"x\": []}\n\
             {\"label\": \"dog\", \"file_name\": \"c.jpg\"}\n",
        ),
    ] {
        let dir = with(&[(name, text)]);
        let dataset = Dataset::open(dir.path(), None).unwrap();
        assert_eq!(dataset.classes, ["cat", "dog"]);
        assert_eq!(listed(&dataset, dir.path()), pairs(&[("b.png", 0), ("c.jpg", 1), ("img/a.png", 1)]), "{name}");
    }
    let numbers = with(&[("metadata.jsonl", "{\"file_name\": \"b.png\", \"label\": 3}\n")]);
    assert_eq!(Dataset::open(numbers.path(), None).unwrap().items[0].label, 3);
    // A table without labels, as of captions, leaves class folders what they are.
    let captions = with(&[("metadata.csv", "file_name,text\nimg/a.png,a dog\n")]);
    assert_eq!(Dataset::open(captions.path(), None).unwrap().classes, ["img"]);
    for (name, text, parts) in [
        ("metadata.csv", "name,label\nb.png,dog\n", &["metadata.csv", "line 1", "`file_name` and `label`"][..]),
        ("metadata.csv", "file_name,label\nb.png,dog\nd.png,dog\n", &["line 3", "no file", "d.png"]),
        ("metadata.csv", "file_name,label\nb.png,dog\nc.jpg,\n", &["line 3", "missing"]),
        ("metadata.jsonl", "{\"file_name\": \"b.png\", \"label\": \"dog\"}\n[]\n", &["line 2", "no `file_name`"]),
        ("metadata.jsonl", "{\"file_name\": \"b.png\", \"label\": {}}\n", &["line 1", "neither text nor a number"]),
        ("metadata.jsonl", "{\"file_name\": \"b.png\"", &["line 1", "not a JSON object"]),
        (
            "metadata.jsonl",
            "{\"file_name\": \"b.png\", \"label\": \"dog\"}\n{\"file_name\": \"c.jpg\"}\n",
            &["line 2", "`label` is missing"],
        ),
        ("metadata.csv", "file_name,label\n", &["metadata.csv", "no images"]),
    ] {
        let dir = with(&[(name, text)]);
        assert_error(Dataset::open(dir.path(), None), parts);
    }
    let flat = tree(&[("b.png", "rgb8.png"), ("metadata.csv", "file_name,text\nb.png,a dog\n")]);
    assert_error(Dataset::open(flat.path(), None), &["metadata.csv", "no column `label`", "no class folders"]);
}

/// The look at all images, the search for shared ones, and batches: from an archive as from folders.
#[test]
fn archives_are_looked_at_compared_and_loaded_as_folders_are() {
    let folder = unpacked();
    let plain = Dataset::open(folder.path(), None).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let check = Check { cache: Some(cache.path().into()), keep_after: Duration::ZERO };
    for name in KINDS {
        // Older than the two seconds in which a file may still change.
        let copy = tempfile::tempdir().unwrap();
        let file = copy.path().join(name);
        fs::copy(archive(name), &file).unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(3600);
        fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
        let packed = Dataset::open(&file, None).unwrap();
        let looks = check.run(&[&packed, &plain], &mut |_, _| {});
        assert!(looks.broken(&packed).is_empty());
        let found = overlaps(&[("packed", &packed), ("plain", &plain)], 2, &looks);
        assert!(found.len() == 5 && found.iter().all(|o| o.same == Same::Bytes), "{name}: {found:?}");
        // What tells an archive from a later one is the time of its last change, which no copy made now has settled on everywhere.
        std::thread::sleep(Duration::from_millis(2100));
        check.run(&[&packed], &mut |_, _| {});
        let mut told = Vec::new();
        check.run(&[&packed], &mut |done, of| told.push((done, of)));
        assert!(told.is_empty(), "{name}: looked at again, {told:?}");

        let config = LoaderConfig { batch_size: 2, shuffle: true, seed: 9, ..LoaderConfig::default() };
        let take = |dataset: &Dataset| {
            let mut loader =
                Loader::new(dataset, &preprocess(8), LoaderConfig { cache_bytes: 0, ..config.clone() }).unwrap();
            (0..9).map(|_| loader.next().unwrap()).collect::<Vec<_>>()
        };
        assert!(take(&packed) == take(&plain), "{name}");
    }
}

/// An archive that is written anew is another one, and its list with it.
#[test]
fn an_archive_that_changes_is_listed_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.tar");
    fs::copy(archive("classes.tar"), &file).unwrap();
    assert_eq!(Dataset::open(&file, None).unwrap().items.len(), 5);
    let item = Dataset::open(&file, None).unwrap().items[0].path.clone();
    fs::copy(archive("named.tar"), &file).unwrap();
    assert_eq!(Dataset::open(&file, None).unwrap().items.len(), 2);
    assert_error(decode(item), &["a.tar", "no file \"photos/cat/2.png\""]);
}

#[test]
fn wrong_archives_are_errors_of_one_line_that_name_them() {
    let dir = TempDir::new().unwrap();
    let check = |name: &str, bytes: &[u8], parts: &[&str]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        assert_error(Dataset::open(&path, None), &[&[name], parts].concat());
        assert_error(Dataset::unlabelled(&path, None), &[name]);
    };
    let [tar, gz, zip] = KINDS.map(|name| fs::read(archive(name)).unwrap());
    check("cut.tar", &tar[..700], &["cut short within \"photos/dog/b.JPG\""]);
    for keep in [1, 300, 511] {
        check(&format!("{keep}.tar"), &tar[..keep], &["no whole .tar archive"]);
    }
    for keep in [1, 20, gz.len() / 2, gz.len() - 3] {
        check(&format!("{keep}.tar.gz"), &gz[..keep], &["no whole .tar.gz archive"]);
        check(&format!("{keep}.zip"), &zip[..keep], &["no whole .zip archive"]);
    }
    for kind in ["tar", "tgz", "zip"] {
        check(&format!("text.{kind}"), &b"this is no archive, whatever its name says. ".repeat(40), &["no whole"]);
    }
    check("empty.tar", b"", &["no files"]);
    check("empty.zip", b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", &["no files"]);
    check(
        "bzip.zip",
        &fs::read(archive("bzip2.zip")).unwrap(),
        &["cat/1.png", "compressed by", "not stored or deflated"],
    );

    // A file whose bytes have changed is found when it is read, and is named as it lies in the archive.
    let dataset = open("classes.zip");
    for item in &dataset.items {
        let mut bytes = zip.clone();
        let own = fs::read(image_file(match item.path.file_name().unwrap().to_str().unwrap() {
            "b.JPG" => "grey.jpg",
            "2.png" => "tiny.png",
            _ => continue,
        }))
        .unwrap();
        // The first is stored, the second deflated.
        let at = bytes
            .windows(20)
            .position(|part| part == &own[..20])
            .unwrap_or_else(|| bytes.windows(16).position(|part| part == b"photos/cat/2.png").unwrap() + 20);
        bytes[at + 10] ^= 0x55;
        fs::write(dir.path().join("bent.zip"), bytes).unwrap();
        let inside = item.path.strip_prefix(archive("classes.zip")).unwrap();
        let path = dir.path().join("bent.zip").join(inside);
        assert_error(decode(path), &["bent.zip", inside.to_str().unwrap(), "broken in its archive"]);
    }
}

/// A tar archive of these files.
fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn wrong_shards_are_errors_that_name_the_sample() {
    let dir = TempDir::new().unwrap();
    let image = fs::read(image_file("tiny.png")).unwrap();
    let labelled: [(&str, &[u8]); 2] = [("a.png", &image), ("a.cls", b"1")];
    for (more, parts) in [
        (&[("b.png", &image[..])][..], &["sample \"b\"", "no .cls and no .json"][..]),
        (&[("b.png", &image), ("b.cls", b" \n")], &["sample \"b\"", "empty"]),
        (
            &[("b.png", &image), ("b.cls", b"cat")],
            &["\"b.png\": the label \"cat\" is not a number", "\"a.png\" has \"1\""],
        ),
        (&[("b.png", &image), ("b.cls", b"\xff")], &["sample \"b\"", "UTF-8"]),
        (&[("b.png", &image), ("b.json", b"{\"text\": \"cat\"}")], &["sample \"b\"", "cls, label, class, class_name"]),
        (&[("b.png", &image), ("b.json", b"{")], &["sample \"b\"", ".json"]),
    ] {
        fs::write(dir.path().join("s.tar"), tar_of(&[&labelled[..], more].concat())).unwrap();
        assert_error(Dataset::open(dir.path().join("s.tar"), None), &[&["s.tar"], parts].concat());
        assert_error(Dataset::open(dir.path(), None), parts);
    }
    // Several archives of classes are no data set; one beside class folders is no shard.
    for name in ["s.tar", "t.tar"] {
        fs::write(dir.path().join(name), tar_of(&[("cat/a.png", &image)])).unwrap();
    }
    assert_error(Dataset::open(dir.path(), None), &["s.tar", "give one archive"]);
    fs::create_dir(dir.path().join("dog")).unwrap();
    fs::write(dir.path().join("dog/a.png"), &image).unwrap();
    let folders = Dataset::open(dir.path(), None).unwrap();
    assert_eq!((&folders.classes[..], folders.left_out.total()), (&["dog".to_string()][..], 2));
    // Names that lead out of the archive are names and no more: nothing is ever written.
    let mut outside = tar_of(&[("xx/xx/cat/a.png", &image)]);
    outside[..5].copy_from_slice(b"../..");
    let sum: u32 =
        outside[..512].iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
    outside[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    fs::write(dir.path().join("out.tar"), outside).unwrap();
    assert_eq!(Dataset::open(dir.path().join("out.tar"), None).map(|d| d.items.len()).unwrap_or(0), 0);
}
