//! Runs on archives: what folders give, archives give.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::{Space, TRAIN, with};

/// Every file below `folder`, by its path from there.
fn files(folder: &Path, below: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(folder, &path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// `data.zip` with train, val and test in it, and `train.tar.gz` with the classes of train.
fn packed() -> Space {
    let space = Space::new();
    let mut zip = zip::ZipWriter::new(File::create(space.path("data.zip")).unwrap());
    let root = space.path("");
    for file in files(&root, "").iter().filter(|file| file.ends_with(".png")) {
        zip.start_file(file.as_str(), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&space.bytes(file)).unwrap();
    }
    zip.finish().unwrap();
    let gz =
        flate2::write::GzEncoder::new(File::create(space.path("train.tar.gz")).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gz);
    for file in files(&space.path("train"), "") {
        tar.append_path_with_name(space.path(&format!("train/{file}")), &file).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    space
}

#[test]
fn a_run_on_archives_is_the_run_on_their_folders() {
    let space = packed();
    let flags = "--epochs 2 --batch-size 6 --lr 0.05 --model m.safetensors";
    space.ok(&format!("finetune {flags} --train train --val val --test test=test --out folders"));
    let (_, err) = space.run(&format!("finetune {flags} --data data.zip --out zip"));
    assert!(err.contains("train: 18 images of 3 classes"), "{err}");
    let text = space.text("zip/config.toml");
    assert!(text.contains("train = \"data.zip/train\" # default") && text.contains("test=data.zip/test"), "{text}");
    space.ok(&format!("finetune {flags} --train train.tar.gz --val data.zip/val --test test=data.zip/test --out gz"));
    for run in ["zip", "gz"] {
        assert!(space.bytes(&format!("{run}/last.safetensors")) == space.bytes("folders/last.safetensors"), "{run}");
        assert!(space.bytes(&format!("{run}/metrics.jsonl")) == space.bytes("folders/metrics.jsonl"), "{run}");
    }
    // The images of both are the same, which the search for leaks says.
    let (_, err) = space.run(&format!("finetune {flags} --train train --val data.zip/train --out leak"));
    assert!(err.contains("18 images of val are in train as well"), "{err}");
    space.fails(
        1,
        &format!("finetune {flags} --train train --val data.zip/train --strict-splits --out no"),
        &["data.zip/train"],
    );

    // A run goes on with its archive, and not with another.
    space.ok("finetune --resume gz --epochs 3");
    let gz = format!("finetune {flags} --train train.tar.gz --val data.zip/val --test test=data.zip/test");
    space.ok(&with(&gz, "--epochs 3 --out long"));
    let lines = |run: &str| space.lines(&format!("{run}/metrics.jsonl")).len();
    assert_eq!(lines("gz"), lines("long"));
    let mut tar = tar::Builder::new(Vec::new());
    for file in files(&space.path("train"), "").iter().skip(1) {
        tar.append_path_with_name(space.path(&format!("train/{file}")), file).unwrap();
    }
    let file = File::create(space.path("train.tar.gz")).unwrap();
    let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    gz.write_all(&tar.into_inner().unwrap()).unwrap();
    gz.finish().unwrap();
    space.fails(1, "finetune --resume gz --epochs 4", &["images of --train", "have changed"]);
}

#[test]
fn archives_are_evaluated_and_predicted() {
    let space = packed();
    let of = |data: &str| space.json(&format!("eval --model m.safetensors --data t={data}"))[0]["loss"].clone();
    assert_eq!(of("data.zip/test"), of("test"));
    assert_eq!(of("train.tar.gz"), of("train"));
    let predicted = |data: &str| {
        let text = space.ok(&format!("predict --model m.safetensors --data {data}"));
        text.replace("data.zip/", "")
    };
    assert_eq!(predicted("data.zip/test"), predicted("test"));
    assert_eq!(predicted("data.zip/test/red/1.png"), predicted("test/red/1.png"));
    space.write("bad.tar", "no archive");
    space.fails(1, "predict --model m.safetensors --data bad.tar", &["bad.tar", "no whole .tar archive"]);
    space.fails(1, &with(TRAIN, "--train bad.tar --out run"), &["bad.tar", "no whole .tar archive"]);
    space.fails(1, "predict --model m.safetensors --data data.zip/nothing", &["data.zip/nothing", "no such file"]);
}
