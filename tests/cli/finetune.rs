//! `finetune`: what a run leaves behind, and what decides it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{Space, TRAIN, with};

/// The training lines of a `metrics.jsonl`.
fn steps(space: &Space, run: &str) -> Vec<Value> {
    let lines = space.lines(&format!("{run}/metrics.jsonl"));
    lines.into_iter().filter(|line| line.get("train_loss").is_some()).collect()
}

fn losses(space: &Space, run: &str) -> Vec<f64> {
    steps(space, run).iter().map(|line| line["train_loss"].as_f64().unwrap()).collect()
}

/// The files that the same run writes byte for byte again.
#[track_caller]
fn assert_same_run(space: &Space, one: &str, two: &str) {
    for file in ["metrics.jsonl", "radii.csv", "drift.csv", "last.safetensors", "best.safetensors"] {
        let (a, b) = (space.bytes(&format!("{one}/{file}")), space.bytes(&format!("{two}/{file}")));
        assert!(a == b, "{file} of {one} and {two} differ");
    }
}

#[test]
fn plain_fine_tuning_leaves_a_run_directory() {
    let space = Space::new();
    let flags = "--epochs 4 --lr 0.05 --method vanilla --test id=test ood=val --id id --out run";
    let out = space.ok(&with(TRAIN, flags));
    let table: Vec<&str> = out.lines().collect();
    assert!(table[0].starts_with("top-1 %") && table[0].ends_with("OOD mean"), "{out}");
    assert!(table[1].starts_with("pretrained") && table[2].starts_with("last"), "{out}");
    let files = ["metrics.jsonl", "evaluations.jsonl", "radii.csv", "drift.csv", "state.safetensors", "report.html"];
    for file in files.into_iter().chain(["config.toml"]) {
        assert!(!space.bytes(&format!("run/{file}")).is_empty(), "{file} is empty");
    }
    assert_eq!(space.text("run/radii.csv"), "step,tensor,radius,max_norm,active_rows,rows\n");
    assert!(space.text("run/report.html").contains("</html>"));
    space.no_stray_files();

    let lines = steps(&space, "run");
    assert_eq!(lines.len(), 12, "4 epochs of 18 images in batches of 6");
    for (i, line) in lines.iter().enumerate() {
        assert_eq!((&line["step"], &line["epoch"]), (&Value::from(i), &Value::from(i / 3)));
        assert!(line["lr"].as_f64().unwrap() <= 0.05 && line["train_loss"].as_f64().unwrap() > 0.0, "{line}");
        assert!(line.get("radius_loss").is_none(), "{line}");
    }
    assert!(losses(&space, "run")[11] < losses(&space, "run")[0]);

    let lines = space.lines("run/metrics.jsonl");
    let evals: Vec<_> = lines.iter().filter(|l| l["eval"] == "val").map(|l| l["step"].as_u64().unwrap()).collect();
    assert_eq!(evals, [3, 6, 9, 12], "an evaluation per epoch");
    let last = lines.iter().find(|l| l["final"] == true && l["model"] == "last" && l["eval"] == "id").unwrap();
    let again = space.json("eval --model run/last.safetensors --data id=test");
    assert_eq!(last["top1"], again[0]["top1"]);
    assert!((last["loss"].as_f64().unwrap() - again[0]["loss"].as_f64().unwrap()).abs() < 1e-5);
    for model in ["best", "last"] {
        assert!(space.ok(&format!("inspect run/{model}.safetensors")).contains("blue, green, red"));
    }
}

/// Nothing is learned at this rate, so that no evaluation is better than the first.
#[test]
fn a_run_ends_early_where_nothing_gets_better() {
    let space = Space::new();
    let line = with(TRAIN, "--epochs 9 --lr 1e-30 --method vanilla --test t=test");
    let (_, said) = space.run(&format!("{line} --early-stop 2 --out run"));
    assert!(said.contains("ends after 9 of 27 steps") && said.contains("after step 3 was better"), "{said}");
    let evals = |run: &str| -> Vec<u64> {
        let lines = space.lines(&format!("{run}/metrics.jsonl"));
        lines.iter().filter(|l| l["eval"] == "val").map(|l| l["step"].as_u64().unwrap()).collect()
    };
    assert_eq!((evals("run"), steps(&space, "run").len()), (vec![3, 6, 9], 9));
    assert!(space.text("run/report.html").contains("9 steps"));
    // It is whole: to go on with it changes nothing.
    let before = space.bytes("run/metrics.jsonl");
    space.ok("finetune --resume run");
    assert!(space.bytes("run/metrics.jsonl") == before);
    // With more patience it goes on from there.
    space.ok("finetune --resume run --early-stop 4");
    assert_eq!(evals("run"), [3, 6, 9, 12, 15]);
    space.ok(&format!("{line} --early-stop 9 --out all"));
    assert_eq!(steps(&space, "all").len(), 27);
    // Half of the steps train the head alone: the other half has its own patience.
    let (_, said) =
        space.run(&format!("{} --early-stop 1 --out lp", line.replace("vanilla", "lp-ft --probe-share 0.56")));
    assert!(said.contains("ends after 18 of 27 steps"), "{said}");
    space.fails(2, &format!("{line} --early-stop 1 --eval-every 0 --out x"), &["--early-stop", "--eval-every"]);
    let post = with(TRAIN, "--early-stop 1 --schedule post --out x");
    space.fails(2, &post, &["--early-stop", "--schedule post"]);
}

/// A state takes the weights and the moments off the device, and evaluations and files share what it took.
#[test]
fn weights_leave_the_device_once_for_each_state() {
    let space = Space::new();
    let mut command =
        space.command(&with(TRAIN, "--epochs 3 --method vanilla --optimizer adamw --test id=test --out run"));
    let (code, _, err) = crate::read(command.env("TPGM_LOG", "tpgm=trace").output().unwrap());
    assert_eq!(code, Some(0), "{err}");
    let state = space.bytes("run/state.safetensors");
    let w = safetensors::SafeTensors::deserialize(&state).unwrap().tensor("w").unwrap().shape()[0];
    let from = format!("from the device bytes={}", 4 * w);
    // Before the first step, after each of three epochs: the weights and two moments.
    assert_eq!(err.lines().filter(|line| line.trim_end().ends_with(&from)).count(), 4 * 3, "{err}");
}

/// Test sets in full, at a temperature that they have no say in.
#[test]
fn final_evaluations_are_kept_in_full() {
    let space = Space::new();
    let train = with(TRAIN, "--epochs 3 --lr 0.05 --test id=test ood=train --id id");
    space.ok(&format!("{train} --out run"));
    let lines = space.lines("run/evaluations.jsonl");
    assert_eq!(lines[0], serde_json::json!({"classes": ["blue", "green", "red"]}));
    let metrics = space.lines("run/metrics.jsonl");
    let finals: Vec<&Value> = metrics.iter().filter(|line| line["final"] == true).collect();
    assert_eq!(lines.len(), 1 + finals.len());
    for (line, metric) in lines[1..].iter().zip(&finals) {
        for (key, other) in
            [("set", "eval"), ("model", "model"), ("kind", "kind"), ("top1", "top1"), ("brier", "brier")]
        {
            assert_eq!(line[key], metric[other], "{key}");
        }
        assert_eq!(line["calibrated"].is_null(), line["model"] == "pretrained");
        assert_eq!(line["calibrated"]["temperature"], metric["temperature"]);
        assert_eq!(line["calibrated"]["ece"], metric["calibrated"]["ece"]);
    }
    let last = lines.iter().find(|l| l["model"] == "last" && l["set"] == "id").unwrap();
    let model = "eval --model run/last.safetensors";
    let again = space.json(&format!("{model} --data id=test --calibrate val=val"));
    let (a, b) = (&last["calibrated"], &again[0]["calibrated"]);
    assert!((a["temperature"].as_f64().unwrap() / b["temperature"].as_f64().unwrap() - 1.0).abs() < 1e-3, "{a} {b}");
    let page = space.text("run/report.html");
    assert!(page.contains("Reliability on id") && page.contains("Confusion matrix on ood"));

    // --select has the say where there is one.
    space.ok(&format!("{train} --select test --out chosen"));
    let chosen = space.lines("chosen/evaluations.jsonl");
    let own = chosen.iter().find(|l| l["model"] == "last" && l["set"] == "id").unwrap();
    assert!(own["calibrated"]["loss"].as_f64().unwrap() <= own["loss"].as_f64().unwrap() + 1e-9, "{own}");
}

#[test]
fn tpgm_logs_a_radius_loss_a_step_and_a_row_a_tensor_and_outer_iteration() {
    let space = Space::new();
    let json = space.json(&format!("{TRAIN} --test t=test --no-baseline --out run"));
    assert_eq!((&json["steps"], &json["tests"][0]["model"]), (&Value::from(6), &Value::from("last")));
    assert!(steps(&space, "run").iter().all(|line| line["radius_loss"].as_f64().unwrap() > 0.0));
    let tensors: BTreeSet<String> = space.tensors("m.safetensors").into_keys().collect();
    let rows = space.rows("run/radii.csv");
    assert_eq!(rows.len(), 6 * tensors.len());
    for (i, row) in rows.iter().enumerate() {
        assert_eq!((row[0].as_str(), row.len()), ((i / tensors.len()).to_string().as_str(), 6));
        let (active, count): (u64, u64) = (row[4].parse().unwrap(), row[5].parse().unwrap());
        assert!(row[2].parse::<f64>().unwrap().is_finite() && active <= count, "{row:?}");
    }
    assert_eq!(rows[..tensors.len()].iter().map(|r| r[1].clone()).collect::<BTreeSet<_>>(), tensors);

    space.ok(&format!("{TRAIN} --proj-freq 2 --max-iters 3 --exclude head.* --out freq"));
    for (i, line) in steps(&space, "freq").iter().enumerate() {
        assert_eq!(line.get("radius_loss").is_some(), i % 2 == 0, "{line}");
    }
    let rows = space.rows("freq/radii.csv");
    assert_eq!(rows.len(), 3 * 3 * (tensors.len() - 2));
    assert!(rows.iter().all(|row| !row[1].starts_with("head.")));
    assert_eq!(rows.iter().map(|row| row[0].as_str()).collect::<BTreeSet<_>>(), BTreeSet::from(["0", "2", "4"]));
}

#[test]
fn the_post_schedule_learns_radii_after_plain_fine_tuning() {
    let space = Space::new();
    space.ok(&format!("{TRAIN} --method vanilla --out plain"));
    let (_, notes) = space.run(&format!("{TRAIN} --schedule post --max-iters 20 --out run"));
    assert!(notes.contains("learning the radii"), "{notes}");
    assert_eq!(losses(&space, "run"), losses(&space, "plain"), "until the end both are the same");
    let outer: Vec<Value> =
        space.lines("run/metrics.jsonl").into_iter().filter(|l| l.get("radius_loss").is_some()).collect();
    assert_eq!(outer.iter().map(|l| l["step"].as_u64().unwrap()).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    assert_eq!(space.rows("run/radii.csv").len(), 20 * space.tensors("m.safetensors").len());
    assert_ne!(space.bytes("run/last.safetensors"), space.bytes("plain/last.safetensors"));
    assert!(space.text("run/config.toml").contains("norm = \"l2\""));
}

#[test]
fn the_seed_decides_everything() {
    let space = Space::new();
    let train = with(TRAIN, "--augment crop,flip");
    for (out, seed) in [("one", 3), ("two", 3), ("other", 4)] {
        space.ok(&format!("{train} --seed {seed} --out {out}"));
    }
    assert_same_run(&space, "one", "two");
    for file in ["metrics.jsonl", "radii.csv", "last.safetensors"] {
        let (a, b) = (space.bytes(&format!("one/{file}")), space.bytes(&format!("other/{file}")));
        assert!(a != b, "{file} does not depend on the seed");
    }
}

#[test]
fn a_config_makes_the_same_run_again_and_flags_win_over_it() {
    let space = Space::new();
    space.ok(&format!("{TRAIN} --lr 0.02 --warmup-steps 2 --clip-norm 1 --test t=test --seed 5 --out one"));
    space.ok("finetune --config one/config.toml --out two");
    assert_same_run(&space, "one", "two");
    assert_eq!(space.text("one/config.toml"), space.text("two/config.toml"));

    space.ok("finetune --config one/config.toml --seed 6 --steps 4 --method vanilla --out three");
    let config: toml::Table = space.text("three/config.toml").parse().unwrap();
    let value = |key: &str| config.get(key).map(ToString::to_string);
    assert_eq!(value("seed").as_deref(), Some("6"));
    assert_eq!((value("steps").as_deref(), value("epochs")), (Some("4"), None));
    assert_eq!((value("lr").as_deref(), value("warmup-steps").as_deref()), (Some("0.02"), Some("2")));
    assert_eq!(losses(&space, "three").len(), 4);

    // What the file gives is the same run as what flags give, whatever else the flags say.
    space.write("given.toml", "weight-decay = 0.1\nmomentum = 0.5\n");
    space.ok(&with(TRAIN, "--config given.toml --method tpgm --optimizer sgd --out file"));
    space.ok(&with(TRAIN, "--optimizer sgd --weight-decay 0.1 --momentum 0.5 --out flags"));
    assert_same_run(&space, "file", "flags");
}

#[test]
fn the_config_of_one_optimiser_serves_itself_and_the_other() {
    let space = Space::new();
    space.ok(&format!("{TRAIN} --optimizer adamw --lr 1e-3 --out one"));
    space.ok("finetune --config one/config.toml --out two");
    assert_same_run(&space, "one", "two");
    space.ok("finetune --config one/config.toml --optimizer sgd --out sgd");
    assert!(space.text("sgd/config.toml").contains("momentum = 0.9"));
    space.ok("finetune --config sgd/config.toml --optimizer adamw --out three");
    assert_same_run(&space, "one", "three");
}

#[test]
fn a_wrong_config_is_named_with_its_line() {
    let space = Space::new();
    space.ok(&format!("{TRAIN} --out one"));
    let good = space.text("one/config.toml");
    let line_with = |part: &str| {
        let at = good.find(part).unwrap() + usize::from(part.starts_with('\n'));
        1 + good[..at].matches('\n').count()
    };
    let wrong = [
        (format!("{good}lerning-rate = 3\n"), good.lines().count() + 1, "lerning-rate"),
        (format!("# heads\nheads = \"two\"\n{good}"), 2, "invalid type"),
        (format!("\n\n{good}").replace("\nseed = 0", "\nseed = true"), line_with("\nseed = 0") + 2, "invalid type"),
        (good.replace("norm = \"mars\"", "norm = \"l1\""), line_with("norm = \"mars\""), "`mars` or `l2`"),
        ("epochs = = 3\n".into(), 1, "`=`"),
    ];
    for (text, line, part) in wrong {
        space.write("wrong.toml", text);
        space.fails(2, "finetune --config wrong.toml --out x", &[&format!("wrong.toml: line {line}: "), part]);
    }
    space.fails(1, "finetune --config nowhere.toml --out x", &["nowhere.toml", "cannot read"]);
}

#[test]
fn without_shuffling_batches_follow_the_sorted_paths() {
    let space = Space::new();
    space.ok("predict --model m.safetensors --data train --logits l.safetensors");
    let (_, logits) = &space.tensors("l.safetensors")["logits"];
    // The loss of each image, in sorted order, at weights that a tiny learning rate leaves where they are.
    let image = |(i, row): (usize, &[f32])| {
        let total: f64 = row.iter().map(|l| f64::from(*l).exp()).sum();
        total.ln() - f64::from(row[i / 6])
    };
    let each: Vec<f64> = logits.chunks(3).enumerate().map(image).collect();
    let want: Vec<f64> = each.chunks(4).map(|batch| batch.iter().sum::<f64>() / batch.len() as f64).collect();
    assert_eq!(want.len(), 5, "the last batch has two images");

    let frozen = with(TRAIN, "--batch-size 4 --no-shuffle --lr 1e-30 --weight-decay 0 --method vanilla");
    space.ok(&format!("{frozen} --seed 1 --out one"));
    space.ok(&format!("{frozen} --seed 2 --out two"));
    assert_eq!(space.bytes("one/metrics.jsonl"), space.bytes("two/metrics.jsonl"), "nothing is left to the seed");
    let losses = losses(&space, "one");
    assert_eq!(losses.len(), 10);
    for (i, (got, want)) in losses.iter().zip(want.iter().cycle()).enumerate() {
        assert!((got - want).abs() < 1e-5, "step {i}: {got}, expected {want}");
    }
}

#[test]
fn a_batch_may_pass_in_parts() {
    let space = Space::new();
    let train = with(TRAIN, "--batch-size 9 --method vanilla");
    space.ok(&format!("{train} --out whole"));
    space.ok(&format!("{train} --micro-batch 4 --out parts"));
    for (whole, parts) in losses(&space, "whole").iter().zip(losses(&space, "parts")) {
        assert!((whole - parts).abs() < 1e-4, "{whole} {parts}");
    }
}

/// The images that passed at once, as the plan says.
fn planned(notes: &str) -> usize {
    let plans: Vec<&str> = notes.lines().filter_map(|line| Some(line.split_once(" planned for ")?.1)).collect();
    assert_eq!(plans.len(), 1, "{notes}");
    for part in ["weights", "gradient", "optimizer", "projection", "activations", "scratch", "staging"] {
        assert!(plans[0].contains(part), "{notes}");
    }
    plans[0].split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_batch_passes_in_as_few_parts_as_fit_the_memory() {
    let space = Space::new();
    space.ok(
        "init --out big.safetensors --classes-of train --image-size 32 --patch-size 4 --dim 64 --depth 1 --heads 2",
    );
    let train = with(TRAIN, "--model big.safetensors --batch-size 18");
    assert_eq!(planned(&space.run(&format!("{train} --out whole")).1), 18);
    let auto = format!("{train} --micro-batch auto --memory-limit");
    let parts = planned(&space.run(&format!("{auto} 4 --out parts")).1);
    assert!((2..18).contains(&parts), "{parts}");
    assert_eq!(planned(&space.run(&format!("{auto} 1000 --out fits")).1), 18);
    let again = planned(&space.run(&format!("{auto} 4 --recompute --out again")).1);
    assert!(again >= parts, "{again}");
    for (whole, parts) in losses(&space, "whole").iter().zip(losses(&space, "parts")) {
        assert!((whole - parts).abs() < 1e-5 * whole, "{whole} {parts}");
    }
    assert!(space.text("parts/config.toml").contains("micro-batch = \"auto\""));
    space.ok("finetune --config parts/config.toml --out same");
    assert_same_run(&space, "parts", "same");
    space.ok("finetune --config parts/config.toml --out parts --resume");
    assert_same_run(&space, "parts", "same");

    let none = format!("{auto} 1 --out none");
    space.fails(1, &none, &["planned for 1 image at once", "the limit is 1.0 MiB", "--memory-limit"]);
    let whole = format!("{train} --memory-limit 4 --out none");
    space.fails(1, &whole, &["18 images at once", "the limit is 4.0 MiB", "--micro-batch auto"]);
}

#[test]
fn recomputation_changes_no_bit() {
    let space = Space::new();
    space.ok(&with(TRAIN, "--out kept"));
    space.ok(&with(TRAIN, "--recompute --out again"));
    assert_same_run(&space, "kept", "again");
}

#[test]
fn images_in_two_splits_are_warned_of() {
    let space = Space::new();
    let (_, notes) = space.run(&with(TRAIN, "--steps 1 --test seen=train --out run"));
    assert!(notes.contains("warning: 18 images of seen are in train"), "{notes}");
}

/// On the images and weights of the repository; the ResNet, which is the quicker of the two models.
#[test]
fn the_demo_compares_the_pretrained_model_plain_fine_tuning_and_tpgm() {
    let space = Space::new();
    let assets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let line = format!("demo --assets {} --model resnet --epochs 1 --out demo", assets.display());
    let table = space.ok(&line);
    let row = |name: &str| -> Vec<f64> {
        let line = table.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} in\n{table}"));
        line.split_whitespace().skip(1).map(|cell| cell.parse().unwrap()).collect()
    };
    let rows = ["pre-trained", "fine-tuning", "TPGM"].map(row);
    // Six test sets and two means; a model that guessed would be right on one image of thirteen.
    assert!(rows.iter().all(|r| r.len() == 8 && r[0] > 30.0), "{table}");
    assert!(rows[1] != rows[2] && rows[0] != rows[1], "{table}");
    let page = space.text("demo/report.html");
    assert!(page.contains("vanilla") && page.contains("tpgm") && page.contains("openmoji-black"));
    // A run of somebody else's is left alone.
    space.ok(&with(TRAIN, "--test t=test --epochs 1 --method vanilla --out own/vanilla"));
    space.fails(2, &line.replace("--out demo", "--out own"), &["own/vanilla holds another run"]);
    // A second demo replaces the first.
    space.ok(&line);
    space.fails(1, "demo --assets test --out other", &["test", "vit-emoji.safetensors", "--assets"]);
}
