//! The report page, from run directories written here.

#[path = "report/augmented.rs"]
mod augmented;
#[cfg(unix)]
#[path = "report/pipe.rs"]
mod pipe;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tpgm::report;

const TENSORS: [(&str, u64); 6] = [
    ("patch_embed.proj.weight", 12),
    ("blocks.10.mlp.fc2.weight", 12),
    ("blocks.2.attn.qkv.weight", 36),
    ("blocks.2.attn.qkv.bias", 1),
    ("norm.weight", 1),
    ("head.weight", 13),
];

/// Writes a finished run of 60 steps in `dir`, with radii where `tpgm`.
fn write_run(dir: &Path, tpgm: bool) {
    fs::create_dir_all(dir).unwrap();
    let method = if tpgm { "tpgm" } else { "vanilla" };
    let config = format!(
        "method = \"{method}\"\nmodel = \"vit.safetensors\"\ntrain = \"pictures\"\nbatch_size = 24\nlr = 0.0123\n\
         exclude = []\n[augmentation]\nflip = true\n"
    );
    fs::write(dir.join("config.toml"), config).unwrap();
    let mut log = String::new();
    for (set, kind, top1) in [("google", "id", 0.5), ("openmoji", "ood", 0.4), ("twitter", "ood", 0.6)] {
        let _ = writeln!(
            log,
            r#"{{"step":0,"epoch":0,"eval":"{set}","images":100,"loss":1.5,"top1":{top1},"top5":0.9,"ece":0.031,"final":true,"model":"pretrained","baseline":true,"kind":"{kind}"}}"#
        );
    }
    for step in 1..=60 {
        let radius = if tpgm { format!(",\"radius_loss\":{}", 2.5 - 0.01 * f64::from(step)) } else { String::new() };
        let loss = 2.0 - 0.02 * f64::from(step);
        let _ =
            writeln!(log, r#"{{"step":{step},"epoch":{},"lr":0.0123,"train_loss":{loss}{radius}}}"#, (step - 1) / 20);
        if step % 20 == 0 {
            let top1 = 0.7 + 0.001 * f64::from(step);
            let _ = writeln!(log, r#"{{"step":{step},"epoch":1,"eval":"val","images":146,"loss":1.9,"top1":{top1}}}"#);
        }
    }
    let gain = if tpgm { 0.05 } else { 0.0 };
    for (set, kind, top1) in [("google", "id", 0.81), ("openmoji", "ood", 0.31), ("twitter", "ood", 0.55)] {
        let _ = writeln!(
            log,
            r#"{{"step":60,"epoch":2,"eval":"{set}","images":100,"loss":1.25,"top1":{},"top5":0.93,"ece":0.042,"final":true,"model":"best","kind":"{kind}","note":"unknown keys are fine"}}"#,
            top1 + gain
        );
    }
    fs::write(dir.join("metrics.jsonl"), log).unwrap();
    if tpgm {
        let mut radii = String::from("step,tensor,radius,max_norm,active_rows,rows\n");
        for step in 1..=60 {
            for (i, (name, rows)) in TENSORS.iter().enumerate() {
                // The last tensor's radius is dead, the first one has 7 active rows.
                let active = [7, 5, 11, 1, 1, 0][i];
                let _ = writeln!(radii, "{step},{name},{},{},{active},{rows}", 0.0123 * (i + 1) as f64, 0.0456);
            }
        }
        fs::write(dir.join("radii.csv"), radii).unwrap();
    }
    let mut drift = String::from("step,tensor,depth,mars_drift,l2_drift,rows\n");
    for (i, (name, rows)) in TENSORS.iter().enumerate() {
        let depth = [0, 11, 3, 3, 12, 13][i];
        let _ = writeln!(drift, "60,{name},{depth},0.0789,{},{rows}", 0.321 + i as f64);
    }
    fs::write(dir.join("drift.csv"), drift).unwrap();
}

/// `evaluations.jsonl` of `classes` classes: on `google` each class has 10 images, 8 right and 2 taken for the next class;
/// on `openmoji` half are right and half taken for the one after that.
fn write_evaluations(dir: &Path, classes: usize, name: impl Fn(usize) -> String) {
    let names: Vec<String> = (0..classes).map(name).collect();
    let mut text = format!("{}\n", serde_json::json!({"classes": names}));
    let empty = serde_json::json!({"images": 0, "confidence": 0.0, "accuracy": 0.0});
    let bins = |confidence: f64, accuracy: f64| {
        let mut bins = vec![empty.clone(); 15];
        bins[12] = serde_json::json!({"images": 10 * classes, "confidence": confidence, "accuracy": accuracy});
        bins
    };
    for (set, kind, right, step) in [("google", "id", 8, 1), ("openmoji", "ood", 5, 2)] {
        let accuracy = f64::from(right) / 10.0;
        let mut confusion = Vec::new();
        for c in 0..classes {
            let mut row = vec![(c, c, right), (c, (c + step) % classes, 10 - right)];
            row.sort();
            confusion.extend(row);
        }
        let line = serde_json::json!({
            "set": set, "model": "best", "kind": kind, "images": 10 * classes, "loss": 1.25, "top1": accuracy,
            "top5": 1.0, "ece": 0.85 - accuracy, "brier": 0.5, "per_class": vec![(10, right); classes],
            "bins": bins(0.85, accuracy), "confusion": confusion,
            "calibrated": {"temperature": 1.5, "loss": 1.125, "brier": 0.4, "ece": 0.025, "bins": bins(0.825, accuracy)},
        });
        let _ = writeln!(text, "{line}");
    }
    fs::write(dir.join("evaluations.jsonl"), text).unwrap();
}

fn append(path: &Path, text: &str) {
    let before = fs::read_to_string(path).unwrap();
    fs::write(path, before + text).unwrap();
}

fn one_run(tpgm: bool) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("my run");
    write_run(&dir, tpgm);
    (folder, dir)
}

fn assert_all(page: &str, wanted: &[&str]) {
    for text in wanted {
        assert!(page.contains(text), "the page lacks {text:?}");
    }
}

/// Every element that is opened is closed in order; `void` elements and self-closed SVG ones apart.
fn assert_balanced(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let body = &page[page.find("<body>").unwrap()..];
    for tag in body.split('<').skip(1) {
        let (inside, _) = tag.split_once('>').expect("every < is markup");
        let name = inside.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if inside.starts_with('/') {
            let top = open.pop();
            assert!(top == Some(name) || name == "html", "</{name}> closes {top:?}");
        } else if !inside.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

#[test]
fn a_tpgm_run_shows_every_number() {
    let (_folder, dir) = one_run(true);
    let page = report::render(&[dir]).unwrap();
    assert_balanced(&page);
    assert_all(
        &page,
        &[
            "<h1>Fine-tuning report: my run</h1>",
            "method tpgm, from <code>vit.safetensors</code>, trained on <code>pictures</code> for 60 steps (3 epochs)",
            "batch size 24",
            "Best top-1 on val: <b>76.0 %</b> at step 60 (146 images)",
            "Test top-1 (best weights): ID <b>86.0 %</b>, OOD <b>48.0 %</b> (mean of 2 sets)",
            // √(0.86·0.14/100) = 3.5 %; of the mean √(0.36·0.64 + 0.6·0.4)/√100/2 = 3.4 %
            "<td class=\"first\"><b>86.0</b><small>± 3.5</small></td>",
            "<td>48.0<small>± 3.4</small></td>",
            "<small>n = 100</small>",
            "<td>1.25</td><td>86.0</td><td>93.0</td><td>–</td><td>–</td><td>–</td><td>4.2</td>",
            "60 outer iterations over 6 radii. In the last one, 25 of 75 rows stood outside",
            "1 of 6 radii were dead",
            "<td>0.0738</td>",
            "<td>0.0789</td>",
            "<td>5.321</td>",
            "radius, mean of 5",
            "train, mean of 5: 1.96 at step 1, 0.82 at 60.",
            "Radius of a few tensors",
            "<th scope=\"row\" class=\"name\">augmentation.flip</th><td>true</td>",
        ],
    );
    // The pre-trained model's OOD mean, 50.0, is the best one.
    assert_all(&page, &["<td><b>50.0</b><small>± 3.5</small></td>"]);
    let places: Vec<usize> = ["patch_embed.proj.weight</th>", ">blocks.2<", ">blocks.10<", ">head.weight</th>"]
        .iter()
        .map(|text| page.find(text).unwrap_or_else(|| panic!("the page lacks {text:?}")))
        .collect();
    assert!(places.is_sorted(), "tensors run from input to output: {places:?}");
}

#[test]
fn charts_are_described_and_nothing_is_external() {
    let (_folder, dir) = one_run(true);
    let page = report::render(&[dir]).unwrap();
    for external in ["http:", "https:", "//", "<script", "<link", "<img", "url(", "@import", "src="] {
        assert!(!page.contains(external), "the page has {external:?}");
    }
    let images = page.matches("role=\"img\"").count();
    assert!(images >= 6, "{images} charts");
    assert_eq!(page.matches("<title id=").count(), images);
    assert_eq!(page.matches("<desc id=").count(), images);
    assert!(!page.contains("NaN") && !page.contains("inf\""), "a number was drawn that is none");
    let mut ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "ids are unique");
}

#[test]
fn plain_fine_tuning_needs_neither_radii_nor_drift() {
    let (_folder, dir) = one_run(false);
    let page = report::render(std::slice::from_ref(&dir)).unwrap();
    assert_all(&page, &["method vanilla", "L2 drift", "<td>0.0789</td>"]);
    assert!(!page.contains("Radius of a few tensors") && !page.contains("outer iterations"));
    fs::remove_file(dir.join("drift.csv")).unwrap();
    let page = report::render(&[dir]).unwrap();
    assert_all(&page, &["This run recorded neither radii nor drift."]);
    assert_balanced(&page);
}

#[test]
fn user_text_is_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("a<b>&\"c\"");
    write_run(&dir, true);
    append(&dir.join("config.toml"), "evil = '<script>alert(\"1\")</script>'\n");
    let line = r#"{"step":60,"eval":"<i>set&","images":9,"top1":0.5,"final":true,"model":"best"}"#;
    append(&dir.join("metrics.jsonl"), &format!("{line}\n"));
    append(&dir.join("radii.csv"), "60,\"blocks.2.<u>&\"\"q\",0.5,0.5,1,4\n");
    let page = report::render(&[dir]).unwrap();
    assert_balanced(&page);
    assert_all(
        &page,
        &[
            "a&lt;b&gt;&amp;&quot;c&quot;",
            "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;",
            "&lt;i&gt;set&amp;",
            "&lt;u&gt;&amp;&quot;q",
        ],
    );
    for raw in ["<script", "<i>", "<u>", "a<b>&"] {
        assert!(!page.contains(raw), "the page has {raw:?}");
    }
}

#[test]
fn a_loss_that_is_not_a_number_is_told_and_leaves_a_gap() {
    let (_folder, dir) = one_run(false);
    let lines =
        "{\"step\":61,\"epoch\":3,\"lr\":0.01,\"train_loss\":null}\n{\"step\":62,\"epoch\":3,\"train_loss\":null}\n";
    append(&dir.join("metrics.jsonl"), lines);
    let page = report::render(&[dir]).unwrap();
    assert_all(&page, &["the loss was not a number at 2 steps, first at step 61", "for 62 steps"]);
    assert!(!page.contains("NaN"));
}

#[test]
fn a_torn_last_line_is_passed_over_and_a_broken_one_is_not() {
    let (_folder, dir) = one_run(true);
    let whole = report::render(std::slice::from_ref(&dir)).unwrap();
    append(&dir.join("metrics.jsonl"), "{\"step\":61,\"train_lo");
    append(&dir.join("radii.csv"), "61,blocks.2.attn.qkv.weight,0.1,0.2,1,3"); // "36" lost its last digit
    assert_eq!(report::render(std::slice::from_ref(&dir)).unwrap(), whole);

    append(&dir.join("metrics.jsonl"), "\n{\"step\":62,\"train_loss\":1.0}\n");
    let error = report::render(std::slice::from_ref(&dir)).unwrap_err().to_string();
    let lines = fs::read_to_string(dir.join("metrics.jsonl")).unwrap().lines().count();
    assert!(error.contains("metrics.jsonl") && error.contains(&format!("line {}", lines - 1)), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn a_resumed_run_counts_each_step_once() {
    let (_folder, dir) = one_run(false);
    append(&dir.join("metrics.jsonl"), "{\"step\":31,\"train_loss\":9.5}\n{\"step\":32,\"train_loss\":9.25}\n");
    let page = report::render(&[dir]).unwrap();
    assert_all(&page, &["for 32 steps", "train: 1.98 at step 1, 9.25 at 32."]);
}

#[test]
fn radii_learned_after_training_have_an_axis_of_their_own() {
    let (_folder, dir) = one_run(false);
    let mut radii = String::from("step,tensor,radius,max_norm,active_rows,rows\n");
    for outer in 1..=50 {
        append(
            &dir.join("metrics.jsonl"),
            &format!("{{\"step\":60,\"radius_loss\":{}}}\n", 3.0 - 0.05 * f64::from(outer)),
        );
        let _ = writeln!(radii, "60,blocks.0.w,{},1,2,4\n60,blocks.1.w,0.5,1e-9,0,4", 0.01 * f64::from(outer));
    }
    fs::write(dir.join("radii.csv"), radii).unwrap();
    let page = report::render(&[dir]).unwrap();
    assert_all(
        &page,
        &[
            "for 60 steps",
            "radius loss: 2.95 at outer iteration 1, 0.5 at 50.",
            "blocks.0.w: 0.01 at outer iteration 1, 0.5 at 50.",
            "50 outer iterations over 2 radii. In the last one, 2 of 8 rows",
            "0 of 2 radii were dead",
            "1 of the tensors had not moved at all",
        ],
    );
}

#[test]
fn bad_folders_and_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = |dir: &Path| report::render(&[dir.to_path_buf()]).unwrap_err().to_string();
    let absent = folder.path().join("absent");
    assert!(error(&absent).contains("absent") && error(&absent).contains("no such folder"));
    let empty = error(folder.path());
    assert!(empty.contains("no config.toml and no metrics.jsonl"), "{empty}");
    assert!(report::render(&[]).is_err_and(|e| e.exit_code() == 2));

    let dir = folder.path().join("run");
    write_run(&dir, true);
    fs::remove_file(dir.join("config.toml")).unwrap();
    assert!(error(&dir).contains("no config.toml;"), "{}", error(&dir));
    fs::write(dir.join("config.toml"), "lr = = 1").unwrap();
    assert!(error(&dir).contains("config.toml: not valid TOML"), "{}", error(&dir));

    write_run(&dir, true);
    append(&dir.join("radii.csv"), "61,head.weight,wide,1,1,1\n");
    assert!(error(&dir).contains("radii.csv: line 362: radius is \"wide\""), "{}", error(&dir));
    fs::write(dir.join("radii.csv"), "step,tensor,max_norm,active_rows,rows\n").unwrap();
    assert!(error(&dir).contains("no column \"radius\""), "{}", error(&dir));
    write_run(&dir, true);
    append(&dir.join("metrics.jsonl"), "{\"step\":61,\"train_loss\":\"low\"}\n");
    assert!(error(&dir).contains("train_loss: invalid type: string \"low\""), "{}", error(&dir));
}

#[test]
fn several_runs_are_laid_over_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let dirs: Vec<PathBuf> = ["x/run", "y/run", "plain"].map(|d| folder.path().join(d)).to_vec();
    write_run(&dirs[0], true);
    write_run(&dirs[1], true);
    write_run(&dirs[2], false);
    let page = report::render(&dirs).unwrap();
    assert_balanced(&page);
    assert_all(
        &page,
        &[
            "<h1>Fine-tuning report: x/run, y/run, plain</h1>",
            "The runs compared",
            "<h2>Run x/run</h2>",
            "<h2>Run y/run</h2>",
            "<h2>Run plain</h2>",
            "Where the configurations differ",
            "<th scope=\"row\" class=\"name\">method</th><td>tpgm</td><td>tpgm</td><td>vanilla</td>",
            "id=\"all-loss-t\"",
            "id=\"r2-loss-t\"",
        ],
    );
    // One pre-trained model is common to all, so it stands in each of the two tables in one row per data set.
    assert_eq!(page.matches(">pre-trained<").count(), 1 + 3);
    // x and y tie: both are the best.
    assert_eq!(page.matches("<b>86.0</b>").count(), 2);
    assert_all(&page, &["<td class=\"first\">81.0<small>"]);
}

#[test]
fn a_run_that_is_not_finished_says_so() {
    let (_folder, dir) = one_run(false);
    let lines = [
        r#"{"step":1,"epoch":0,"lr":0.1,"train_loss":2.0}"#,
        r#"{"step":1,"epoch":0,"eval":"sketch","images":50,"top1":0.5}"#,
    ];
    fs::write(dir.join("metrics.jsonl"), lines.join("\n") + "\n").unwrap();
    let page = report::render(std::slice::from_ref(&dir)).unwrap();
    assert_all(&page, &["not finished: step 1", "for 1 step,", "Test sets", "50.0<small>± 7.1</small>"]);
    fs::write(dir.join("metrics.jsonl"), "").unwrap();
    let page = report::render(&[dir]).unwrap();
    assert_all(&page, &["no training step was logged", "No test set was evaluated"]);
    assert_balanced(&page);
}

#[test]
fn four_hundred_tensors_have_a_row_each() {
    let (_folder, dir) = one_run(false);
    let mut drift = String::from("step,tensor,depth,mars_drift,l2_drift,rows\n");
    for i in (0..400).rev() {
        let _ = writeln!(drift, "60,blocks.{}.t{}.weight,,0.1,{},3", i / 12, i % 12, 10f64.powi(i % 7 - 3));
    }
    fs::write(dir.join("drift.csv"), drift).unwrap();
    let page = report::render(&[dir]).unwrap();
    assert_eq!(page.matches("<td class=\"bar\">").count(), 400);
    let place = |block: &str| page.find(&format!("<span>{block}</span>")).unwrap();
    assert!(place("blocks.2") < place("blocks.10") && place("blocks.9") < place("blocks.33"));
    assert_all(&page, &["log bar, 6.7e-4 to 1,000"]);
}

#[test]
fn writing_is_all_or_nothing() {
    let (folder, dir) = one_run(true);
    let out = dir.join("report.html");
    fs::write(&out, "old").unwrap();
    report::write(std::slice::from_ref(&dir), &out).unwrap();
    assert_eq!(fs::read_to_string(&out).unwrap(), report::render(std::slice::from_ref(&dir)).unwrap());

    let error = report::write(std::slice::from_ref(&dir), &folder.path().join("absent/report.html")).unwrap_err();
    assert!(error.to_string().contains("cannot write") && error.exit_code() == 1, "{error}");
    // A folder stands where the page should go: nothing may be left beside it.
    assert!(report::write(std::slice::from_ref(&dir), &dir).is_err());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["my run"]);
    fs::remove_file(dir.join("metrics.jsonl")).unwrap();
    assert!(report::write(std::slice::from_ref(&dir), &out).is_err());
    assert!(fs::read_to_string(&out).unwrap().starts_with("<!DOCTYPE html>"), "a failure leaves the old page");
}

#[test]
fn what_a_model_gets_wrong_is_shown() {
    let (_folder, dir) = one_run(true);
    write_evaluations(&dir, 13, |c| format!("kind<{c}>"));
    let page = report::render(std::slice::from_ref(&dir)).unwrap();
    assert_balanced(&page);
    assert_all(
        &page,
        &[
            "Accuracy of the best weights at each confidence, as it is and with all logits divided by 1.5, which was fitted \
             on val.",
            "as it is: ECE 5.0 %",
            "at T = 1.5: ECE 2.5 %",
            "<title>130 images, confidence 85.0 %, accuracy 80.0 %</title>",
            "Confusion matrix on openmoji",
            "Most often kind&lt;",
            "<title>kind&lt;3&gt; taken for kind&lt;5&gt;: 5 of 10</title>",
            "The pairs confused most, of 26",
            "<td class=\"name\">kind&lt;2&gt;</td><td>5</td><td>0.0</td><td>50.0</td>",
            "<td>80.0</td><td>50.0</td><td>−30.0</td>",
        ],
    );
    assert_eq!(page.matches("Reliability on ").count(), 2);
    assert!(!page.contains("kind<"), "names are escaped");

    // Two runs on one page still have ids of their own.
    let both = report::render(&[dir.clone(), dir]).unwrap();
    let mut ids: Vec<&str> = both.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "ids are unique");
}

#[test]
fn which_images_each_number_saw_is_said() {
    let (_folder, dir) = one_run(true);
    let config = "method = \"tpgm\"\ntrain = \"pictures\"\nval = \"held out\"\ntest = [\"google=a<b\"]\n";
    fs::write(dir.join("config.toml"), config).unwrap();
    let page = report::render(std::slice::from_ref(&dir)).unwrap();
    assert_balanced(&page);
    let shared = "Radii and choices share the validation images";
    let rows =
        ["radii; choices: the best weights, the temperature</td>", "reported only</td>", "<code>a&lt;b</code>", shared];
    assert_all(&page, &rows);
    assert!(!page.contains("Leak</b>") && !page.contains("No image, by content"), "nobody has compared them");

    let header = "first_split,first_path,second_split,second_path,same\n";
    fs::write(dir.join("leaks.csv"), header).unwrap();
    fs::write(dir.join("config.toml"), format!("{config}select = \"chosen\"\n")).unwrap();
    let page = report::render(std::slice::from_ref(&dir)).unwrap();
    assert_all(&page, &["<td class=\"name\">radii</td>", "No image, by content, is in two"]);
    assert!(!page.contains(shared));

    let two = format!("{header}train,a.png,google,b.png,bytes\ntrain,c.png,google,d.png,pixels\n");
    fs::write(dir.join("leaks.csv"), two).unwrap();
    let page = report::render(&[dir]).unwrap();
    assert_all(
        &page,
        &["<b>Leak</b>: 2 images are in train and in google: b.png = a.png and 1 more; leaks.csv has them all"],
    );
}

#[test]
fn many_classes_have_a_table_of_the_worst_instead_of_a_picture() {
    let (_folder, dir) = one_run(false);
    write_evaluations(&dir, 200, |c| format!("c{c}"));
    let page = report::render(std::slice::from_ref(&dir)).unwrap();
    assert_balanced(&page);
    assert!(!page.contains("Confusion matrix on"));
    assert_all(&page, &["The pairs confused most, of 400", "The 30 of 200 classes that lose most out of distribution"]);
    assert_eq!(page.matches("<td>80.0</td><td>50.0</td>").count(), 30);
}

#[test]
fn evaluations_that_do_not_fit_are_named() {
    let (_folder, dir) = one_run(false);
    write_evaluations(&dir, 3, |c| c.to_string());
    let file = dir.join("evaluations.jsonl");
    let whole = fs::read_to_string(&file).unwrap();
    let page = report::render(std::slice::from_ref(&dir)).unwrap();
    append(&file, "{\"set\": \"goo");
    assert_eq!(report::render(std::slice::from_ref(&dir)).unwrap(), page, "a torn last line is passed over");
    let error = |text: &str| {
        fs::write(&file, text).unwrap();
        report::render(std::slice::from_ref(&dir)).unwrap_err().to_string()
    };
    for (text, part) in [
        (whole.replace("[\"0\",\"1\",\"2\"]", "[\"0\"]"), "line 2: not an evaluation of the 1 classes"),
        (whole.replace("[2,2,8]", "[2,7,8]"), "line 2: not an evaluation of the 3 classes"),
        (whole.replace("\"top1\":0.5", "\"top1\":\"half\""), "line 3: not an evaluation ("),
        (whole.replace("\"google\"", "google"), "line 2: not a JSON object"),
    ] {
        let error = error(&text);
        assert!(error.contains("evaluations.jsonl") && error.contains(part) && !error.contains('\n'), "{error}");
    }
}
