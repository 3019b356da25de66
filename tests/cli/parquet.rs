//! Runs on Parquet files, which are read where they lie.

use std::fs;
use std::path::Path;

use crate::Space;

/// A model, and the files of `fixtures/generate_parquet.py` in a folder `hf`.
fn space() -> Space {
    let space = Space::empty();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parquet");
    fs::create_dir_all(space.path("hf/data")).unwrap();
    for name in ["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"] {
        let name = format!("data/{name}.parquet");
        fs::copy(fixtures.join("split").join(&name), space.path("hf").join(&name)).unwrap();
    }
    for name in ["named", "lists", "two"] {
        fs::copy(fixtures.join(format!("{name}.parquet")), space.path(&format!("{name}.parquet"))).unwrap();
    }
    space.ok("init --out m.safetensors --classes-of named.parquet --image-size 16 --patch-size 8 --dim 16 --depth 1 --heads 2");
    space
}

#[test]
fn a_data_set_of_the_hub_is_trained_on_in_its_own_layout() {
    let space = space();
    let before = space.snapshot().len();
    let line = "finetune --model m.safetensors --epochs 1 --batch-size 4 --method vanilla";
    let (out, err) = space.run(&format!("{line} --data hf --out run"));
    assert!(out.contains("top-1 %") && err.contains("train: 9 images of 3 classes"), "{out}{err}");
    let config = space.text("run/config.toml");
    assert!(
        config.contains("train = \"hf/data/train-*.parquet\"") && config.contains("hf/data/test-*.parquet"),
        "{config}"
    );
    // Nothing is unpacked beside them.
    let beside = space.snapshot().into_keys().filter(|path| !path.starts_with(space.path("run"))).count();
    assert_eq!(beside, before);
    space.ok("finetune --resume run --epochs 2");
    let answers = space.json("predict --model run/best.safetensors --data hf/data");
    assert_eq!(answers.as_array().unwrap().len(), 15);
    assert!(answers[0]["path"].as_str().unwrap().ends_with("test-00000-of-00001.parquet/image/00000000"), "{answers}");
    let table = space.ok("eval --model run/best.safetensors --data t=named.parquet p=hf/data/train-*.parquet");
    assert!(table.contains("10 ") && table.contains("12 "), "{table}");

    // Lists of classes are any number of labels.
    let line = format!("{line} --train lists.parquet --val lists.parquet --test t=lists.parquet --out labels");
    assert!(space.ok(&line).contains("mAP %"));
    space.fails(1, "eval --model m.safetensors --data t=two.parquet", &["fine, coarse", "--label-column"]);
    space.fails(1, "finetune --model m.safetensors --train hf/data/val-*.parquet --out x", &["val-*.parquet"]);
}
