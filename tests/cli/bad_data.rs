//! Images and lists that can't be used: one line that names the file.

use std::fs;

use crate::{Space, TRAIN, with};

const EVAL: &str = "eval --model m.safetensors --data t=test";

#[track_caller]
fn assert_train_fails(space: &Space, code: i32, parts: &[&str]) {
    space.fails(code, &format!("{TRAIN} --out run"), parts);
}

#[test]
fn an_empty_class_folder() {
    let space = Space::new();
    fs::create_dir(space.path("train/yellow")).unwrap();
    assert_train_fails(&space, 1, &["train/yellow", "empty class folder", "remove it"]);
    fs::create_dir(space.path("test/yellow")).unwrap();
    space.fails(1, EVAL, &["test/yellow", "empty class folder"]);
}

#[test]
fn no_images_at_all() {
    let space = Space::new();
    fs::remove_dir_all(space.path("val")).unwrap();
    fs::create_dir(space.path("val")).unwrap();
    assert_train_fails(&space, 1, &["val", "no class folders"]);
    space.fails(1, "predict --model m.safetensors --data val", &["val", "no images"]);
    space.write("val.txt", "# nothing\n");
    space.fails(1, "eval --model m.safetensors --data v=val.txt", &["val.txt", "no images"]);
    space.write("val.csv", "image,class\n");
    space.fails(1, "eval --model m.safetensors --data v=val.csv", &["val.csv", "line 1", "`path` and `label`"]);
    space.fails(1, "eval --model m.safetensors --data v=test/red/0.png", &["test/red/0.png", "one image"]);
}

#[test]
fn a_broken_image() {
    let space = Space::new();
    let whole = space.bytes("train/green/2.png");
    space.write("train/green/2.png", &whole[..whole.len() / 2]);
    assert_train_fails(&space, 1, &["train/green/2.png", "broken image", "--skip-broken"]);
    for data in ["broken=train", "t=test broken=train"] {
        space.fails(1, &format!("eval --model m.safetensors --data {data}"), &["train/green/2.png", "broken image"]);
    }
    let predict = "predict --model m.safetensors --logits l.safetensors --data";
    space.fails(1, &format!("{predict} train"), &["train/green/2.png", "broken image"]);
    space.write("train/green/2.png", "");
    space.fails(1, &format!("{predict} train/green/2.png"), &["train/green/2.png", "empty"]);
    space.write("train/green/2.png", "GIF89a");
    space.fails(1, &format!("{predict} train/green"), &["train/green/2.png", "broken image"]);
    space.write("train/green/2.png", "a text");
    space.fails(1, &format!("{predict} train/green"), &["train/green/2.png", "not an image that is read"]);
}

#[test]
fn a_label_outside_the_classes() {
    let space = Space::new();
    space.image("test/yellow/0.png", "red");
    let parts = ["test/yellow/0.png", "label outside the classes", "\"yellow\"", "\"blue\""];
    space.fails(1, EVAL, &parts);
    space.fails(1, &format!("{TRAIN} --test t=test --out run"), &parts);
    space.write("list.txt", "test/red/0.png 7\n");
    space.fails(
        1,
        "eval --model m.safetensors --data l=list.txt",
        &["test/red/0.png", "label outside the classes", "\"7\""],
    );
}

#[test]
fn classes_that_differ_between_training_and_validation() {
    let space = Space::new();
    fs::rename(space.path("val/red"), space.path("val/rouge")).unwrap();
    assert_train_fails(&space, 1, &["val/rouge/0.png", "\"rouge\" of \"val\"", "\"red\""]);
}

#[test]
fn paths_that_do_not_exist() {
    let space = Space::new();
    let missing = ["nowhere", "no such file or folder"];
    for flag in ["--train", "--val", "--select"] {
        space.fails(1, &with(TRAIN, &format!("{flag} nowhere --out run")), &missing);
    }
    space.fails(1, &format!("{TRAIN} --test t=nowhere --out run"), &missing);
    space.fails(1, "eval --model m.safetensors --data t=nowhere", &missing);
    space.fails(1, "predict --model m.safetensors --data nowhere", &missing);
    space.fails(1, "predict --model m.safetensors --data nowhere.png", &["nowhere.png", "no such file or folder"]);
}

#[test]
fn lines_of_a_list() {
    let space = Space::new();
    let wrong = [
        ("test/red/0.png red\ntest/red/9.png red\n", ["line 2", "test/red/9.png"]),
        ("test/red/0.png red\n\ntest/red/1.png\n", ["line 3", "`path label`"]),
        ("test/red/0.png red\ntest/red/1.png 3\n", ["line 2", "names throughout"]),
        ("test/red/0.png -1\n", ["line 1", "-1"]),
    ];
    for (text, parts) in wrong {
        space.write("list.txt", text);
        space.fails(1, "eval --model m.safetensors --data l=list.txt", &[&["list.txt"], parts.as_slice()].concat());
    }
    space.write("list.csv", "path,label\ntest/red/0.png,red\n,red\n");
    space.fails(1, "eval --model m.safetensors --data l=list.csv", &["list.csv", "line 3", "missing"]);
}
