//! What a run says of itself at its end, on the command line.

use crate::{Space, TRAIN, with};

#[test]
fn a_warm_up_that_is_longer_than_the_run_is_told() {
    let space = Space::new();
    let (_, said) = space.run(&with(TRAIN, "--method vanilla --steps 4 --warmup-steps 500 --lr 0.01 --out run"));
    assert!(said.contains("the warm-up of 500 steps is longer than the run, which has 4"), "{said}");
    assert!(said.contains("rises to 0.00008 and never reaches 0.01"), "{said}");
    let (_, said) = space.run(&with(TRAIN, "--method vanilla --steps 4 --warmup-steps 4 --lr 0.01 --out exact"));
    assert!(!said.contains("warm-up of"), "{said}");
}

#[test]
fn a_run_that_learned_nothing_says_so_and_what_to_try() {
    let space = Space::new();
    // Steps that move nothing.
    let flags = "--epochs 4 --lr 1e-12 --optimizer sgd --method vanilla --test t=test --out run";
    let (_, err) = space.run(&with(TRAIN, flags));
    let line =
        err.lines().find(|line| line.contains("warning: nothing was learned")).unwrap_or_else(|| panic!("{err}"));
    assert!(line.contains("% of val are right") && line.contains("--optimizer adamw"), "{line}");
    assert!(!err.contains("take a larger or harder set"), "{err}");
}

#[test]
fn a_run_that_is_too_short_says_so() {
    let space = Space::new();
    let flags = "--epochs 12 --lr 0.02 --optimizer sgd --momentum 0 --lr-schedule constant --method vanilla --test t=test --out run";
    let (_, err) = space.run(&with(TRAIN, flags));
    assert!(err.contains("warning: the training loss still falls") && err.contains("try --epochs 24"), "{err}");
}

#[test]
fn a_comparison_names_entries_at_chance_and_choices_that_chance_made() {
    let space = Space::new();
    let config = "seeds = [0]\nout = \"compared\"\n[common]\nmodel = \"m.safetensors\"\nepochs = 2\nbatch-size = 6\naugment = \"none\"\n[[data]]\nname = \
         \"dots\"\ntrain = \"train\"\nval = \"val\"\ntest = [\"id=test\", \"ood=val\"]\nid = [\"id\"]\n[[method]]\nname = \"vanilla\"\noptimizer = \
         \"sgd\"\ngrid.lr = [1e-11, 1e-12]\n";
    space.write("compare.toml", config);
    let (out, err) = space.run("compare compare.toml");
    assert!(out.contains("vanilla"), "{out}");
    let warned = |part: &str| err.lines().any(|line| line.starts_with("warning: dots: ") && line.contains(part));
    assert!(warned("at chance in distribution") && warned("can't tell lr 1e-11 from 1 of 1 other points"), "{err}");
    let page = space.text("compared/report.html");
    assert!(
        page.contains("at chance in distribution") && page.contains("selection images can&#39;t tell"),
        "{page:.2000}"
    );
    let results: serde_json::Value = serde_json::from_str(&space.text("compared/results.json")).unwrap();
    let advice = &results["data"][0]["advice"];
    assert_eq!(advice.as_array().map(Vec::len), Some(2), "{advice}");
    // Finished runs are read again.
    let (_, again) = space.run("compare compare.toml");
    assert!(again.contains("was there already") && again.contains("can't tell lr 1e-11"), "{again}");
    let entries = results["data"][0]["entries"].as_array().unwrap();
    let choice = &entries.iter().find(|entry| entry["name"] == "vanilla").unwrap()["choice"];
    assert_eq!(choice["figure"], "top-1", "{choice}");
    assert_eq!(
        (choice["points"][1]["behind"].as_f64(), choice["points"][1]["p"].as_f64()),
        (Some(0.0), Some(1.0)),
        "{choice}"
    );
    assert!(space.text("compared/choices.csv").lines().nth(2).is_some_and(|row| row.ends_with(",0,1")));
    assert!(page.contains("<small>Holm</small>") && page.contains("1 of them can't be told from it"), "{page:.2000}");
    // What the choice is made by is tested, image by image.
    space.write("loss.toml", config.replace("compared", "by-loss").replace("epochs", "best-by = \"loss\"\nepochs"));
    let (_, err) = space.run("compare loss.toml");
    assert!(
        err.contains("(sign-flip test over images, Holm's correction; ") && err.contains(" of loss below, p = "),
        "{err}"
    );
    let metrics = space.text("by-loss/dots/vanilla/lr-1e-11/seed-0/metrics.jsonl");
    let line = metrics.lines().rfind(|line| line.contains("\"eval\":\"val\"")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let (text, images) = (line["by_image"].as_str().unwrap(), line["images"].as_u64().unwrap() as usize);
    let values = tpgm::train::by_image::unpacked(text, images).unwrap();
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / images as f64;
    assert!((mean + line["loss"].as_f64().unwrap()).abs() < 1e-6, "{line}");
}
