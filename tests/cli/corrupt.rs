//! Corrupted copies, class subsets and the leak guard.

use std::fs;

use serde_json::Value;

use crate::{CLASSES, Space, TRAIN, with};

const EVAL: &str = "eval --model m.safetensors --data t=test";

#[test]
fn eval_reports_corrupted_copies() {
    let space = Space::new();
    let rows = space.json(&format!("{EVAL} --corrupt fog:3 gaussian_noise:4..5"));
    let of =
        |name: &str| rows.as_array().unwrap().iter().find(|row| row["data"] == name).unwrap_or(&Value::Null).clone();
    assert_eq!(rows.as_array().unwrap().len(), 4);
    assert!(of("t").get("corruption").is_none());
    let fog = of("t+fog3");
    assert_eq!((&fog["of"], &fog["corruption"], &fog["severity"]), (&"t".into(), &"fog".into(), &3.into()));
    assert_ne!(of("t+gaussian_noise4")["loss"], of("t+gaussian_noise5")["loss"]);
    let again = space.json(&format!("{EVAL} --corrupt fog:3 gaussian_noise:4..5 --batch-size 5"));
    assert_eq!(again[2]["top1"], rows[2]["top1"]);
    assert!((again[2]["loss"].as_f64().unwrap() - rows[2]["loss"].as_f64().unwrap()).abs() < 1e-6);
    let other = space.json(&format!("{EVAL} --corrupt gaussian_noise:5 --corrupt-seed 1"));
    assert_ne!(other[1]["loss"], of("t+gaussian_noise5")["loss"]);

    let text = space.ok(&format!("{EVAL} --corrupt fog gaussian_noise:5"));
    for part in ["t, top-1 %", "\nfog ", "\ngaussian_noise ", "\nmean ", "mean corruption error"] {
        assert!(text.contains(part), "{text}\nlacks {part:?}");
    }
    space.fails(2, &format!("{EVAL} --corrupt frog:3"), &["frog:3", "unknown corruption", "gaussian_noise"]);
    space.fails(2, &format!("{EVAL} --corrupt fog:6"), &["fog:6", "1 to 5"]);
}

#[test]
fn written_copies_are_what_eval_sees() {
    let space = Space::new();
    let model = space.json("inspect m.safetensors");
    let p = &model["preprocess"];
    let (pct, mode, filter) = (&p["crop_pct"], p["crop_mode"].as_str().unwrap(), p["interpolation"].as_str().unwrap());
    let shape = format!("--image-size 16 --crop-pct {pct} --crop-mode {mode} --interpolation {filter}");
    space.ok(&format!("corrupt --data test --out c --corrupt snow:4 glass_blur:2 {shape}"));
    let rows = space.json(&format!("{EVAL} --corrupt snow:4 glass_blur:2"));
    let written = space
        .json("eval --model m.safetensors --data glass=c/glass_blur/2 snow=c/snow/4 --crop-pct 1 --crop-mode squash");
    for (on_the_fly, read) in [(1, 0), (2, 1)] {
        let (a, b) = (rows[on_the_fly]["loss"].as_f64().unwrap(), written[read]["loss"].as_f64().unwrap());
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
    space.fails(1, &format!("corrupt --data test --out c {shape}"), &["c:", "already"]);
}

#[test]
fn a_page_shows_one_image_at_all_severities() {
    let space = Space::new();
    space.ok("corrupt --data test/red/0.png --out page --image-size 24");
    let page = space.text("page/index.html");
    for kind in ["fog", "pixelate", "elastic_transform"] {
        for severity in 1..=5 {
            let name = format!("{kind}{severity}.png");
            assert!(page.contains(&name), "{name}");
            let image = image::open(space.path(&format!("page/{name}"))).unwrap();
            assert_eq!((image.width(), image.height()), (24, 24), "{name}");
        }
    }
    assert_eq!(fs::read_dir(space.path("page")).unwrap().count(), 17 * 5 + 2);
    space.fails(1, "corrupt --data nowhere.png --out p", &["nowhere.png"]);
    space.fails(2, "corrupt --data test --out p --corrupt fog:9", &["fog:9"]);
}

#[test]
fn a_run_tests_on_corrupted_copies_of_its_in_distribution_sets() {
    let space = Space::new();
    let flags = "--epochs 1 --test id=test ood=val --id id --corrupt fog:1..2 contrast:5 --out run";
    let out = space.ok(&with(TRAIN, flags));
    assert!(out.contains("id corrupted, top-1 %") && !out.contains("ood corrupted"), "{out}");
    assert!(out.lines().next().unwrap().ends_with("OOD mean"), "{out}");
    let lines = space.lines("run/metrics.jsonl");
    let copies: Vec<&Value> = lines.iter().filter(|l| l.get("corruption").is_some()).collect();
    assert_eq!(copies.len(), 2 * 3, "the pre-trained and the last weights");
    for line in &copies {
        assert_eq!((&line["kind"], &line["final"]), (&"ood".into(), &true.into()));
        let name = format!("id+{}{}", line["corruption"].as_str().unwrap(), line["severity"]);
        assert_eq!(line["eval"], name.as_str());
    }
    assert!(space.text("run/config.toml").contains("corrupt = [\"fog:1..2\", \"contrast:5\"]"));
    let page = space.text("run/report.html");
    assert!(page.contains("id+corrupted") && !page.contains("id+fog1"), "copies are one column");
    // Another training seed, the same test images.
    let eval = space.json("eval --model run/last.safetensors --data id=test --corrupt contrast:5 fog:2");
    let last = |name: &str| copies.iter().rfind(|l| l["eval"] == name && l["model"] == "last").unwrap()["loss"].clone();
    let fog = eval.as_array().unwrap().iter().find(|row| row["data"] == "id+fog2").unwrap();
    assert!((last("id+fog2").as_f64().unwrap() - fog["loss"].as_f64().unwrap()).abs() < 1e-5);

    space.fails(2, &format!("{TRAIN} --corrupt fog --out two"), &["--corrupt", "--test"]);
    space.fails(2, &format!("{TRAIN} --test t=test --corrupt fog:7 --out two"), &["fog:7"]);
}

#[test]
fn a_subset_of_the_classes_holds_the_answers() {
    let space = Space::new();
    fs::remove_dir_all(space.path("test/red")).unwrap();
    let (_, notes) = space.run(EVAL);
    assert!(notes.contains("2 of the model's 3 classes") && notes.contains("--subset"), "{notes}");
    let open = space.json(EVAL);
    let held = space.json(&format!("{EVAL} --subset"));
    assert_eq!((open[0].get("subset"), &held[0]["subset"]), (None, &2.into()));
    assert!(held[0]["loss"].as_f64().unwrap() < open[0]["loss"].as_f64().unwrap(), "fewer classes to lose to");
    assert!(space.ok(&format!("{EVAL} --subset")).contains("answers among its 2 of 3 classes"));
    space.ok(&with(TRAIN, "--epochs 1 --test t=test --subset --no-baseline --out run"));
    let lines = space.lines("run/metrics.jsonl");
    let (last, val) = (lines.iter().find(|l| l["eval"] == "t").unwrap(), lines.iter().find(|l| l["eval"] == "val"));
    assert_eq!((&last["subset"], val.unwrap().get("subset")), (&2.into(), None));
    let again = space.json("eval --model run/last.safetensors --data t=test --subset");
    assert!((last["loss"].as_f64().unwrap() - again[0]["loss"].as_f64().unwrap()).abs() < 1e-5);
}

/// Every image of a set beside its mirror: the mean of what the model says to both, as `predict` and the tests of a run have it.
#[test]
fn tests_and_predictions_can_be_means_over_mirrored_images() {
    let space = Space::new();
    // Images that differ from their mirrors, and these mirrors.
    let mut images = Vec::new();
    for (i, (class, _)) in CLASSES.iter().enumerate() {
        let mut image =
            image::RgbImage::from_fn(16, 16, |x, y| image::Rgb([(16 * x) as u8, (15 * y) as u8, 80 * i as u8]));
        for folder in ["seen", "mirrored"] {
            let path = space.path(&format!("{folder}/{class}/a.png"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            image.save(path).unwrap();
            image::imageops::flip_horizontal_in_place(&mut image);
        }
        images.push(image);
    }
    let logits = |data: &str, flags: &str| {
        space.ok(&format!("predict --model m.safetensors --data {data} --crop-pct 1 --logits l.safetensors {flags}"));
        space.tensors("l.safetensors")["logits"].1.clone()
    };
    let (own, other, both) = (logits("seen", ""), logits("mirrored", ""), logits("seen", "--tta flip"));
    let mean: Vec<f32> = own.iter().zip(&other).map(|(a, b)| (a + b) / 2.0).collect();
    let off = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off(&both, &mean) < 1e-5 && off(&own, &other) > 1e-3, "{} {}", off(&both, &mean), off(&own, &other));

    space.ok(&with(TRAIN, "--epochs 1 --test t=seen --tta flip --no-baseline --out run"));
    let lines = space.lines("run/metrics.jsonl");
    let of = |set: &str| lines.iter().rfind(|line| line["eval"] == set).unwrap();
    assert_eq!((&of("t")["tta"], of("val").get("tta")), (&"flip".into(), None));
    assert!(space.text("run/config.toml").contains("tta = \"flip\"\n"));
    assert!(space.text("run/report.html").contains("several views of each image (<code>--tta flip</code>)"));
    let eval = "eval --model run/last.safetensors --data t=seen --calibrate v=val";
    let (plain, flipped) = (space.json(eval), space.json(&format!("{eval} --tta flip")));
    assert_eq!((plain[0].get("tta"), &flipped[0]["tta"]), (None, &"flip".into()));
    let loss = |value: &serde_json::Value| value["loss"].as_f64().unwrap();
    assert!((loss(of("t")) - loss(&flipped[0])).abs() < 1e-5 && (loss(&plain[0]) - loss(&flipped[0])).abs() > 1e-5);
    // The temperature is of what tests see.
    let fitted = flipped[0]["calibrated"]["temperature"].as_f64().unwrap();
    assert!((of("t")["temperature"].as_f64().unwrap() / fitted - 1.0).abs() < 1e-3);
    assert!(space.ok(&format!("{eval} --tta flip")).contains("horizontal mirror"));
    space.fails(2, &format!("{eval} --knn 1 --train train --tta flip"), &["--tta", "--knn"]);
}

#[test]
fn an_image_in_two_splits_is_named_and_recorded() {
    let space = Space::new();
    let train = with(TRAIN, "--epochs 1 --test t=test");
    let (_, notes) = space.run(&format!("{train} --out clean"));
    assert!(!notes.contains("of val is in train") && !notes.contains("of t is in"), "{notes}");
    assert!(notes.contains("radii are learned and the best checkpoint is chosen on the same images"), "{notes}");
    assert_eq!(space.text("clean/leaks.csv"), "first_split,first_path,second_split,second_path,same\n");

    fs::copy(space.path("train/red/1.png"), space.path("val/red/copy.png")).unwrap();
    // The same pixels in another file.
    image::open(space.path("train/blue/2.png")).unwrap().save(space.path("test/blue/again.webp")).unwrap();
    let (_, notes) = space.run(&format!("{train} --out run"));
    for part in
        ["1 image of val is in train", "val/red/copy.png = train/red/1.png", "test/blue/again.webp = train/blue/2.png"]
    {
        assert!(notes.contains(part), "{notes}\nlacks {part:?}");
    }
    let rows = space.rows("run/leaks.csv");
    assert_eq!(rows[0], ["train", "train/red/1.png", "val", "val/red/copy.png", "bytes"]);
    assert_eq!(rows[1], ["train", "train/blue/2.png", "t", "test/blue/again.webp", "pixels"]);
    space.fails(1, &format!("{train} --strict-splits --out strict"), &["--strict-splits", "val/red/copy.png"]);
    // With a split of its own for the choice, nothing is said of it.
    for (class, _) in CLASSES {
        space.image(&format!("select/{class}/new.png"), class);
    }
    let (_, notes) = space.run(&with(&train, "--select select --out select-run"));
    assert!(!notes.contains("chosen on the same images"), "{notes}");
}
