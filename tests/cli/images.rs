//! Other people's folders of images: files that are left out, broken, alike, oddly called, or not there at all.

use std::fs;

use serde_json::{Value, json};

use crate::{CLASSES, Space, TRAIN, fails, read, with};

const EVAL: &str = "eval --model m.safetensors --data t=test";

#[test]
fn broken_images_of_all_splits_are_named_before_any_work_or_left_out() {
    let space = Space::new();
    let whole = space.bytes("train/green/2.png");
    for (name, bytes) in
        [("train/green/2.png", &whole[..whole.len() / 2]), ("val/red/1.png", b""), ("test/blue/3.png", b"x")]
    {
        space.write(name, bytes);
    }
    let all = ["train/green/2.png", "val/red/1.png", "test/blue/3.png", "3 images can't be read", "--skip-broken"];
    let train = with(TRAIN, "--test t=test --steps 1 --out run");
    space.fails(1, &train, &all);
    let told = |err: &str, set: &str, path: &str| {
        let line = err.lines().find(|line| line.contains(&format!("warning: {set}: 1 images that can't be read")));
        assert!(line.is_some_and(|line| line.contains(path)), "{set} {path}\n{err}");
    };
    let (_, err) = space.run(&format!("{train} --skip-broken"));
    told(&err, "train", "train/green/2.png");
    told(&err, "val", "val/red/1.png");
    told(&err, "t", "test/blue/3.png");
    let data: Value = serde_json::from_str(&space.text("run/data.json")).unwrap();
    let images: Vec<&Value> = data.as_array().unwrap().iter().map(|set| &set["images"]).collect();
    assert_eq!(images, [17, 11, 11]);
    assert_eq!(data[0]["broken_examples"][0][0], "train/green/2.png");
    assert_eq!(data[0]["classes"], json!([["blue", 6], ["green", 5], ["red", 6]]));
    assert!(space.text("run/report.html").contains("left out"), "the report says so");

    let commands = [
        ("eval --model m.safetensors --data t=test", "t", "test/blue/3.png"),
        ("predict --model m.safetensors --data test", "data", "test/blue/3.png"),
        (
            "project --pretrained m.safetensors --finetuned m.safetensors --val val --max-iters 1 --out p",
            "val",
            "val/red/1.png",
        ),
        (
            "wise --pretrained m.safetensors --finetuned m.safetensors --val val --sweep 2 --out w",
            "val",
            "val/red/1.png",
        ),
        ("soup --models m.safetensors m.safetensors --greedy --val val --out s", "val", "val/red/1.png"),
        ("corrupt --data test --corrupt fog:1 --image-size 8 --out c", "data", "test/blue/3.png"),
    ];
    for (line, set, path) in commands {
        space.fails(1, line, &[path, "--skip-broken"]);
        let (_, err) = space.run(&format!("{line} --skip-broken"));
        // What `wise` and `soup` tell is no warning there.
        assert!(err.contains(&format!("{set}: 1 images that can't be read are left out: {path}")), "{line}\n{err}");
    }
    // Nothing is left of a class, or of a set.
    for i in 0..4 {
        space.write(&format!("val/red/{i}.png"), "x");
    }
    let (_, err) = space.run(&with(&train, "--skip-broken --out other"));
    assert!(err.contains("val has images of 2 of the model's 3 classes, none of \"red\""), "{err}");
    for (class, _) in CLASSES {
        (0..4).for_each(|i| space.write(&format!("test/{class}/{i}.png"), "x"));
    }
    space.fails(1, &format!("{EVAL} --skip-broken"), &["no image of test can be read"]);
}

#[test]
fn what_is_left_out_is_told_with_its_kinds() {
    let space = Space::new();
    for name in ["train/red/notes.txt", "train/red/photo.heic", "train/.DS_Store", "test/blue/photo.avif"] {
        space.write(name, "x");
    }
    space.image("train/red/@eaDir/0.png", "blue");
    space.image("train/__MACOSX/red/0.png", "blue");
    let (_, err) = space.run(&with(TRAIN, "--test t=test --steps 1 --out run"));
    for part in [
        "train: 18 images of 3 classes, 6 each; 16 x 16 pixels",
        "train: 5 files or folders left out: 2 of the system",
        "1 .heic",
        "1 .txt",
        "1 hidden",
        "t: 1 files or folders left out: 1 .avif",
    ] {
        assert!(err.contains(part), "lacks {part:?}\n{err}");
    }
    let (_, err) = space.run(EVAL);
    assert!(err.contains("1 .avif"), "{err}");
    let (_, err) = space.run("predict --model m.safetensors --data train");
    assert!(err.contains("data: 18 images; 16 x 16 pixels") && err.contains("1 .heic"), "{err}");
}

#[test]
fn images_with_two_labels_and_twins_are_told() {
    let space = Space::new();
    fs::copy(space.path("train/red/0.png"), space.path("train/blue/copy.png")).unwrap();
    fs::copy(space.path("train/red/1.png"), space.path("train/red/again.png")).unwrap();
    let (_, err) = space.run(&with(TRAIN, "--steps 1 --out run"));
    let two = "warning: train: 1 images are there with two labels: train/red/0.png = train/blue/copy.png";
    assert!(err.contains(two) && err.contains("train: 1 of the 20 images are there twice"), "{err}");
}

#[test]
fn one_class_alone_is_nothing_to_train_on() {
    let space = Space::new();
    for class in ["blue", "green"] {
        fs::remove_dir_all(space.path(&format!("train/{class}"))).unwrap();
    }
    space.fails(1, &format!("{TRAIN} --out run"), &["train", "of one class"]);
}

#[test]
fn missing_validation_images_are_set_apart_from_training() {
    let space = Space::new();
    let train = "finetune --model m.safetensors --train train --steps 2 --batch-size 6 --augment none";
    let (_, err) = space.run(&format!("{train} --out run"));
    assert!(err.contains("no --val: 3 of the 18 training images are set apart"), "{err}");
    assert!(
        err.contains("train: 15 images of 3 classes, 5 each") && err.contains("val: 3 images of 3 classes, 1 each"),
        "{err}"
    );
    // Whatever the run's seed is, the images are the same; a run goes on with them.
    let best = |run: &str| {
        let data: Value = serde_json::from_str(&space.text(&format!("{run}/data.json"))).unwrap();
        (data[0]["images"].clone(), data[1]["images"].clone())
    };
    assert_eq!(best("run"), (json!(15), json!(3)));
    space.ok(&format!("{train} --out run --resume"));
    let (_, err) = space.run(&format!("{train} --val-share 0.5 --val-seed 3 --out half"));
    assert!(err.contains("9 of the 18") && err.contains("--val-share 0.5, --val-seed 3"), "{err}");
    for share in ["0", "1", "20", "-0.1", "nan"] {
        space.fails(2, &format!("{train} --val-share={share} --out x"), &["--val-share", "above 0 and below 1"]);
    }
    let other = format!("{train} --val-seed 1 --out run --resume");
    let error = fails_with(&space, &other, 1);
    assert!(error.contains("val-seed was 0, is now 1"), "{error}");
    // A comparison counts the steps of the images that are left, and leaks nothing between its seeds.
    space.write(
        "c.toml",
        "seeds = [0, 1]\n[common]\nmodel = \"m.safetensors\"\nsteps = 2\nbatch-size = 6\n[[data]]\nname = \"d\"\n\
        train = \"train\"\ntest = [\"t=test\", \"o=val\"]\nid = [\"t\"]\n[[method]]\nname = \"vanilla\"\n",
    );
    let (_, err) = space.run("compare c.toml --out c");
    assert!(err.contains("d: no --val: 3 of the 18"), "{err}");
}

#[track_caller]
fn fails_with(space: &Space, line: &str, code: i32) -> String {
    fails(space.command(line), code, &[])
}

#[test]
fn augmentations_compose_and_are_told() {
    let space = Space::new();
    let line = with(TRAIN, "--steps 2 --lr 0.05 --method vanilla --out run").replace(" --augment none", "");
    let said = |flags: &str| {
        let (_, err) =
            space.run(&with(&line, &format!("{flags} --out {}", flags.replace([' ', ','], "_").replace("--", ""))));
        err.lines().find(|line| line.contains("augmented")).unwrap().to_string()
    };
    let last =
        |flags: &str| space.bytes(&format!("{}/last.safetensors", flags.replace([' ', ','], "_").replace("--", "")));
    assert_eq!(said("--seed 0"), "training images are augmented by crop,flip (--augment)");
    assert_eq!(said("--augment flip,crop"), "training images are augmented by crop,flip (--augment)");
    assert_eq!(said("--no-flip"), "training images are augmented by crop (--augment)");
    assert_eq!(said("--augment crop"), "training images are augmented by crop (--augment)");
    assert_eq!(said("--augment none"), "training images are not augmented");
    assert_eq!(said("--augment flip"), "training images are augmented by flip (--augment)");
    assert!(last("--seed 0") == last("--augment flip,crop") && last("--no-flip") == last("--augment crop"));
    assert!(last("--seed 0") != last("--no-flip") && last("--no-flip") != last("--augment none"));
    for (flags, part) in [
        ("--augment crop,blur", "\"blur\""),
        ("--augment none,flip", "none goes with nothing else"),
        ("--augment flip --no-flip", "--no-flip"),
    ] {
        let (code, _, err) = read(space.command(&with(&line, flags)).output().unwrap());
        assert!(code == Some(2) && err.contains(part), "{flags}\n{err}");
    }
}

/// A file of an earlier version has one word, whose crop flipped as well.
#[test]
fn a_run_of_an_earlier_version_goes_on_with_the_same_pixels() {
    let space = Space::new();
    let line = with(TRAIN, "--steps 4 --eval-every 1 --lr 0.05 --method vanilla").replace(" --augment none", "");
    space.ok(&format!("{line} --out whole"));
    let new = space.text("whole/config.toml");
    assert!(new.contains("augment = [\"crop\", \"flip\"] # default"), "{new}");
    let old = new.replace("augment = [\"crop\", \"flip\"] # default", "augment = \"crop\"");
    space.write("old.toml", &old);
    space.ok("finetune --config old.toml --out again");
    assert_eq!(space.bytes("again/last.safetensors"), space.bytes("whole/last.safetensors"));
    assert!(space.text("again/config.toml").contains("augment = [\"crop\", \"flip\"]"));
    // As a list, a crop is a crop.
    space.write("crop.toml", old.replace("augment = \"crop\"", "augment = [\"crop\"]"));
    let (_, err) = space.run("finetune --config crop.toml --out crop");
    assert!(err.contains("augmented by crop (--augment)"), "{err}");
}

#[test]
fn flips_of_digits_letters_and_sides_are_doubted() {
    for (classes, doubted) in [
        (["0", "1", "2"], true),
        (["a", "b", "d"], true),
        (["left", "right", "top"], true),
        (["cat", "dog", "12"], false),
    ] {
        let space = Space::empty();
        for class in classes {
            (0..2).for_each(|i| space.image(&format!("train/{class}/{i}.png"), CLASSES[i].0));
        }
        let init =
            "init --out m.safetensors --classes-of train --image-size 16 --patch-size 8 --dim 16 --depth 1 --heads 2";
        space.ok(init);
        let line = "finetune --model m.safetensors --train train --steps 1 --batch-size 2";
        let (_, err) = space.run(&format!("{line} --out run"));
        assert_eq!(err.contains("--no-flip if that matters"), doubted, "{classes:?}\n{err}");
        let (_, err) = space.run(&format!("{line} --no-flip --out other"));
        assert!(!err.contains("--no-flip if that matters"), "{err}");
    }
}

#[test]
fn outputs_that_are_no_numbers_are_an_error() {
    let space = Space::new();
    let tensors: Vec<_> = space.tensors("m.safetensors").into_iter().collect();
    let huge: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, (shape, values))| {
            let scale = if name == "head.weight" { 1e45 } else { 1.0 };
            let scaled = |v: &f32| (f64::from(*v) * scale).clamp(-3e38, 3e38) as f32;
            let values = values.iter().flat_map(|v| scaled(v).to_le_bytes()).collect();
            (name, shape, values)
        })
        .collect();
    let (_, header) = safetensors::SafeTensors::read_metadata(&space.bytes("m.safetensors")).unwrap();
    let views = huge.iter().map(|(name, shape, bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    space.write("huge.safetensors", safetensors::serialize(views, header.metadata().clone()).unwrap());
    for line in [
        "predict --model huge.safetensors --data test",
        "predict --model huge.safetensors --data test --json --logits l.safetensors",
        "eval --model huge.safetensors --data t=test",
        "eval --model huge.safetensors --data t=test --calibrate v=val --json",
    ] {
        space.fails(1, line, &["0.png", "not finite numbers"]);
    }
}

#[test]
fn eval_and_predict_tell_what_they_assume() {
    let space = Space::empty();
    for split in ["test"] {
        for (class, _) in CLASSES {
            space.image(&format!("{split}/{class}/0.png"), class);
        }
    }
    fs::copy(crate::common::fixture_path("vit_small"), space.path("vit.safetensors")).unwrap();
    let notes = |line: &str| {
        let (_, err) = space.run(line);
        err.lines().filter(|line| line.contains("assumed")).map(String::from).collect::<Vec<_>>()
    };
    let json = space.json("inspect vit.safetensors --heads 3");
    let want: Vec<&str> = json["notes"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    let want: Vec<&str> = want.into_iter().filter(|note| note.contains("assumed")).collect();
    assert!(!want.is_empty());
    assert_eq!(notes("predict --model vit.safetensors --heads 3 --data test"), want);
    space.write("l.txt", "test/blue/0.png 0\ntest/red/0.png 2\n");
    assert_eq!(notes("eval --model vit.safetensors --heads 3 --data t=l.txt"), want);
}

#[test]
fn preprocessing_on_another_scale_is_refused() {
    let space = Space::new();
    for (flags, parts) in [
        ("--mean 123.7 116.3 103.5", ["mean", "0.485"]),
        ("--mean 0.5 0.5 3", ["mean", "0 to 1"]),
        ("--std 58.4 57.1 57.4", ["std", "0.229"]),
        ("--std 0 1 1", ["std", "above 0"]),
        ("--crop-pct 87.5", ["crop pct 87.5", "at most 2"]),
        ("--crop-pct nan", ["crop pct", "above 0"]),
    ] {
        space.fails(2, &format!("{EVAL} {flags}"), &parts);
        space.fails(2, &format!("{TRAIN} {flags} --out run"), &parts);
        space.fails(2, &format!("predict --model m.safetensors --data test {flags}"), &parts);
    }
    space.ok(&format!("{EVAL} --mean 0 0 0 --std 1 1 1"));
}

/// Names as a download can have them: they reach a terminal only as text.
#[cfg(unix)]
#[test]
fn control_characters_of_names_are_written_out() {
    let space = Space::empty();
    let evil = "a\u{1b}[2Jb\u{7}";
    for split in ["train", "val", "test"] {
        for class in [evil, "green"] {
            for (i, (own, _)) in CLASSES.iter().take(2).enumerate() {
                space.image(&format!("{split}/{class}/\u{1b}]0;x\n{i}.png"), own);
            }
        }
    }
    let shared = format!("{evil}/\u{1b}]0;x\n0.png");
    fs::copy(space.path(&format!("train/{shared}")), space.path(&format!("test/{shared}"))).unwrap();
    let init =
        "init --out m.safetensors --classes-of train --image-size 16 --patch-size 8 --dim 16 --depth 1 --heads 2";
    let clean = |text: &str, what: &str| {
        let bad = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(bad, None, "{what}: {text:?}");
        assert!(!text.contains("\n0.png"), "{what}: a name broke a line: {text:?}");
    };
    let shown = "a\\u{1b}[2Jb\\u{7}";
    let train = with(TRAIN, "--test t=test --steps 1 --out run");
    for line in [
        init,
        "inspect m.safetensors",
        "predict --model m.safetensors --data test",
        "eval --model m.safetensors --data t=test --per-class --confusion confusion.csv",
        &train,
        "report run --out page.html",
    ] {
        let (out, err) = space.run(line);
        clean(&out, line);
        clean(&err, line);
        if !line.starts_with("report") {
            assert!(out.contains(shown) || err.contains(shown), "{line}\n{out}\n{err}");
        }
    }
    // So do files that are not JSON.
    for (file, part) in [
        ("confusion.csv", shown),
        ("run/leaks.csv", "\\u{1b}]0;x\\n0.png"),
        ("run/report.html", shown),
        ("page.html", shown),
    ] {
        let text = space.text(file);
        clean(&text, file);
        assert!(text.contains(part), "{file}: {text}");
    }
    // JSON has the names as they are.
    let json = space.json("predict --model m.safetensors --data test --top 2");
    let names: Vec<&str> = json[0]["top"].as_array().unwrap().iter().map(|t| t["class"].as_str().unwrap()).collect();
    assert!(names.contains(&evil), "{names:?}");
    // Errors, too.
    space.write(&format!("test/{evil}/\u{1b}[1m.png"), "x");
    let error = space.fails(1, EVAL, &["not an image that is read"]);
    clean(&error, "an error");
    fs::rename(space.path(&format!("val/{evil}")), space.path("val/\u{1b}c")).unwrap();
    clean(&space.fails(1, &with(TRAIN, "--out other"), &["outside the classes"]), "an error");
}

#[cfg(target_os = "linux")]
#[test]
fn arguments_and_names_that_are_not_text_are_refused_before_the_work() {
    use std::os::unix::ffi::OsStrExt;
    let space = Space::new();
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
    for line in [
        "predict --model m.safetensors --json --data",
        "eval --model m.safetensors --data t=test --confusion",
        "finetune --model m.safetensors --train train --json --out",
        "inspect",
        "corrupt --data test --out",
    ] {
        let mut command = space.command(line);
        command.arg(odd);
        fails(command, 2, &["is not UTF-8"]);
    }
    assert!(!space.dir.path().join(odd).exists());
    fs::copy(space.path("test/red/0.png"), space.path("test/red").join(odd).with_extension("png")).unwrap();
    for line in
        [EVAL, "predict --model m.safetensors --data test --json", "predict --model m.safetensors --data test/red"]
    {
        space.fails(1, line, &["caf", "not UTF-8", "rename it"]);
    }
}

#[cfg(unix)]
#[test]
fn pipes_are_not_waited_for() {
    let space = Space::new();
    let pipe = |name: &str| {
        assert!(std::process::Command::new("mkfifo").arg(space.path(name)).status().unwrap().success());
    };
    pipe("test/red/pipe.png");
    pipe("list.txt");
    pipe("map.txt");
    let fails = |line: &str| fails(space.command(line), 1, &["no regular file"]);
    fails("predict --model m.safetensors --data test/red/pipe.png");
    fails("corrupt --data test/red/pipe.png --out c");
    fails("eval --model m.safetensors --data t=list.txt");
    fails("eval --model m.safetensors --data t=val --class-map map.txt");
    let (_, err) = space.run(EVAL);
    assert!(err.contains("1 pipes, sockets or devices"), "{err}");
}

#[test]
fn small_images_of_a_large_input_are_told() {
    let space = Space::new();
    let init =
        "init --out big.safetensors --classes-of train --image-size 32 --patch-size 16 --dim 16 --depth 1 --heads 2";
    space.ok(init);
    let (_, err) = space.run(&with(TRAIN, "--model big.safetensors --steps 1 --out run"));
    assert!(err.contains("at most 16 pixels") && err.contains("the model's 32"), "{err}");
    let (_, err) = space.run(&with(TRAIN, "--steps 1 --out small"));
    assert!(!err.contains("are enlarged"), "{err}");
}
