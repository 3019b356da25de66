//! What a run's page shows of its images, its settings and its course.

use std::fs;

use serde_json::Value;

use crate::{CLASSES, Space, TRAIN, with};

/// Whatever a page loads from elsewhere, or runs.
pub(crate) fn assert_self_contained(page: &str) {
    for part in ["<script", "<link", "src=\"http", "href=\"http", "url(", "@import", "<iframe"] {
        // A drawing may clip by a part of its own page.
        assert!(!page.replace("url(#", "").contains(part), "{part}");
    }
    assert_eq!(page.matches(" src=\"").count(), page.matches(" src=\"data:image/jpeg;base64,").count());
}

#[test]
fn a_page_says_how_the_run_was_made_and_shows_its_answers_again_without_the_images() {
    let space = Space::new();
    let flags = "--epochs 4 --lr 0.02 --method vanilla --test id=test ood=val --id id --out run";
    space.ok(&with(TRAIN, flags));
    let page = space.text("run/report.html");
    for text in [
        "<dt>Command</dt><dd><code>tpgm finetune --model m.safetensors --train train",
        "<dt>Started</dt><dd>20",
        "<dt>Duration</dt>",
        "<dt>Peak memory</dt>",
        "<dt>Adapter</dt>",
        "<dt>Driver</dt>",
        "What to try next",
        "too little validation data: val has 12 images",
        "Images by class",
        "What the model takes images for",
        "The least sure answers",
        "<b>blue</b>: ",
        "Drift from the pre-trained weights over time",
        "<th scope=\"row\" class=\"name\">train</th><td>18</td><td class=\"name\">weights</td>",
    ] {
        assert!(page.contains(text), "the page lacks {text:?}");
    }
    assert_self_contained(&page);
    let session: Value = serde_json::from_str(&space.text("run/sessions.json")).unwrap();
    let session = &session[0];
    assert!(session["version"].as_str().unwrap().starts_with(env!("CARGO_PKG_VERSION")), "{session}");
    assert_eq!(session["steps"], serde_json::json!([0, 12]));
    assert!(session["seconds"].as_f64().unwrap() > 0.0 && session["memory"].as_u64().unwrap() > 1000, "{session}");
    assert!(session["images_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{session}");
    assert!(session["started"].as_str().unwrap().ends_with('Z'), "{session}");
    // Each evaluation on the way has a row per tensor; the last one is in drift.csv.
    let tensors = space.rows("run/drift.csv").len();
    let steps: Vec<String> = space.rows("run/drift_over_time.csv").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(steps.len(), 3 * tensors);
    assert_eq!((steps[0].as_str(), steps[tensors].as_str(), steps[2 * tensors].as_str()), ("3", "6", "9"));

    // The page shows the answers that `predict` gives.
    let examples: Value = serde_json::from_str(&space.text("run/examples.json")).unwrap();
    let sets = examples["sets"].as_array().unwrap();
    assert_eq!(sets.iter().map(|of| of["set"].as_str().unwrap()).collect::<Vec<_>>(), ["id", "ood"]);
    let model = examples["model"].as_str().unwrap();
    let predicted = space.json(&format!("predict --model run/{model}.safetensors --data test"));
    let unsure = sets[0]["unsure"].as_array().unwrap();
    let mut least = predicted.as_array().unwrap().clone();
    let sure = |row: &Value| row["top"][0]["probability"].as_f64().unwrap();
    least.sort_by(|a, b| sure(a).total_cmp(&sure(b)));
    for (shown, row) in unsure.iter().zip(&least) {
        assert!((shown["confidence"].as_f64().unwrap() - sure(row)).abs() < 1e-4, "{shown} {row}");
        let same = predicted.as_array().unwrap().iter().find(|row| row["path"] == shown["path"]).unwrap();
        assert_eq!(shown["predicted"], same["top"][0]["class"]);
    }
    let wrong = sets[0]["wrong"].as_u64().unwrap() as usize;
    let truth = |row: &Value| row["path"].as_str().unwrap().split('/').nth(1).unwrap().to_string();
    let missed = predicted.as_array().unwrap().iter().filter(|row| row["top"][0]["class"] != truth(row).as_str());
    assert_eq!(wrong, missed.count());

    for split in ["train", "val", "test"] {
        fs::remove_dir_all(space.path(split)).unwrap();
    }
    space.ok("report run --out again.html");
    assert!(space.text("again.html") == page, "the same page without the images");
}

#[test]
fn a_run_without_test_sets_shows_its_validation_images() {
    let space = Space::new();
    space.ok(&with(TRAIN, "--epochs 1 --method vanilla --out run"));
    let examples: Value = serde_json::from_str(&space.text("run/examples.json")).unwrap();
    assert_eq!((&examples["sets"][0]["set"], &examples["sets"][0]["images"]), (&"val".into(), &12.into()));
}

/// Every epoch's line has the loss of that epoch's steps, whether or not an evaluation waits for them.
#[test]
fn the_line_of_an_epoch_has_the_loss_of_its_own_steps() {
    let space = Space::new();
    let (_, err) =
        space.run(&with(TRAIN, "--epochs 4 --eval-every 4 --lr 0.05 --method vanilla --no-baseline --out run"));
    let lines = space.lines("run/metrics.jsonl");
    let losses: Vec<f64> = lines.iter().filter_map(|line| line["train_loss"].as_f64()).collect();
    assert_eq!(losses.len(), 12);
    for (epoch, own) in (1..).zip(losses.chunks(3)) {
        let start = format!("epoch {epoch}/4: train loss ");
        let told = err.lines().find_map(|line| line.split_once(&start)).unwrap_or_else(|| panic!("{start}\n{err}"));
        let told: f64 = told.1.split(',').next().unwrap().parse().unwrap();
        assert!((told - own.iter().sum::<f64>() / 3.0).abs() < 1e-4, "{epoch}: {told} {own:?}");
    }
}

#[test]
fn a_resumed_run_names_both_of_its_sessions() {
    let space = Space::new();
    space.ok(&with(TRAIN, "--epochs 1 --method vanilla --out run"));
    space.ok("finetune --resume run --epochs 2");
    let sessions: Value = serde_json::from_str(&space.text("run/sessions.json")).unwrap();
    assert_eq!(
        (&sessions[0]["steps"], &sessions[1]["steps"]),
        (&serde_json::json!([0, 3]), &serde_json::json!([3, 6]))
    );
    let page = space.text("run/report.html");
    assert!(page.contains("in 2 parts") && page.contains("tpgm finetune --resume run --epochs 2"), "both commands");
}

#[test]
#[cfg(unix)]
fn hostile_names_of_classes_files_and_folders_stay_text() {
    let space = Space::empty();
    let classes = ["<img src=x onload=alert(1)>", "a\"><script>", "it's & \u{202e}gpj"];
    for (split, each) in [("train", 4), ("val", 2), ("te'st<b>", 2)] {
        for (class, (colour, _)) in classes.iter().zip(CLASSES) {
            for i in 0..each {
                space.image(&format!("{split}/{class}/{i}\"><script>.png"), colour);
            }
        }
    }
    space.ok("init --out m.safetensors --classes-of train --image-size 16 --patch-size 8 --dim 16 --depth 1 --heads 2");
    space.ok(
        "finetune --model m.safetensors --train train --val val --test <i>=te'st<b> --epochs 1 --batch-size 6 --augment none --method \
         vanilla --out run",
    );
    let page = space.text("run/report.html");
    for part in ["<script", "<img src=x", "<b>/", "<i>=", "\u{202e}"] {
        assert!(!page.contains(part), "{part}");
    }
    assert!(
        page.contains("&lt;img src=x onload=alert(1)&gt;") && page.contains("&lt;i&gt;: "),
        "they are there, as text"
    );
    assert_self_contained(&page);
}

#[test]
fn a_page_of_many_classes_and_loud_images_stays_small() {
    let space = Space::empty();
    let mut random = crate::common::Random::new(3);
    for (split, each) in [("train", 2), ("val", 1), ("test", 2)] {
        for class in 0..120 {
            for i in 0..each {
                let path = space.path(&format!("{split}/class number {class:03}/{i}.png"));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let pixel = |_, _| image::Rgb([0; 3].map(|_: u8| random.bits() as u8));
                image::RgbImage::from_fn(96, 96, pixel).save(path).unwrap();
            }
        }
    }
    space.ok("init --out m.safetensors --classes-of train --image-size 16 --patch-size 8 --dim 16 --depth 1 --heads 2");
    let tests = "--test a=test b=test c=test d=test e=test f=test g=test h=test";
    space.ok(&format!(
        "finetune --model m.safetensors --train train --val val {tests} --epochs 1 --batch-size 24 --method vanilla --out run"
    ));
    let (page, examples) = (space.text("run/report.html"), space.bytes("run/examples.json"));
    assert!(examples.len() < 2_200_000, "{}", examples.len());
    assert!(page.len() < 5_000_000, "{}", page.len());
    assert!(page.contains("more are left out, to keep the page small"), "noise is large");
}
