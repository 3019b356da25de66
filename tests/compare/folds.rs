//! Cross-validation: each run holds out another part of the training images.

use serde_json::{Value, json};

use crate::Space;

const METHODS: &str =
    "[[method]]\nname = \"vanilla\"\ngrid.lr = [0.0001, 0.05]\n[[method]]\nname = \"tpgm\"\nlr = 0.05\n";

fn space(top: &str) -> Space {
    let space = Space::new(METHODS);
    let text = space.text("c.toml").replace("seeds = [3, 5]", top);
    space.write("c.toml", &text.replace("id = [\"near\"]\n", ""));
    space
}

#[test]
fn each_run_is_tested_on_the_fold_that_it_holds_out() {
    let space = space("folds = 4");
    space.ok("compare c.toml --out out");
    let results = space.results();
    assert_eq!((&results["folds"], &results["seeds"]), (&json!(4), &json!([1, 2, 3, 4])));
    let sets: Vec<(&str, bool)> = results["data"][0]["sets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|set| (set["name"].as_str().unwrap(), set["id"].as_bool().unwrap()))
        .collect();
    assert_eq!(sets, [("near", false), ("far", false), ("dark", false), ("fold", true)]);
    let entries = results["data"][0]["entries"].as_array().unwrap();
    assert_eq!(entries.iter().map(|e| e["name"].as_str().unwrap()).collect::<Vec<_>>(), ["vanilla", "tpgm"]);
    for entry in entries {
        assert_eq!(entry["models"].as_array().unwrap().len(), 4);
        assert!(entry["summary"]["id"]["mean"].is_number(), "{entry}");
    }
    // One image of each class is held out each time, of twelve.
    for run in (1..=4).map(|fold| format!("tpgm/seed-{fold}")).chain(["vanilla/lr-0.0001/seed-1".into()]) {
        let data: Value = serde_json::from_str(&space.text(&format!("out/colours/{run}/data.json"))).unwrap();
        let sets = data.as_array().unwrap();
        let of = |name: &str| sets.iter().find(|set| set["name"] == name).unwrap()["images"].clone();
        assert_eq!((of("train"), of("fold")), (json!(9), json!(3)), "{data}");
        let config = space.text(&format!("out/colours/{run}/config.toml"));
        let fold = run.rsplit('-').next().unwrap();
        assert!(config.contains(&format!("fold = \"{fold}/4\"")), "{config}");
    }
    assert!(space.text("out/report.html").contains("Cross-validation"));
    // What is there is not run again; fewer folds are another comparison.
    let (code, _, err) = space.run("compare c.toml --out out");
    assert!(code == 0 && err.contains("was there already") && !err.contains(": ID "), "{err}");
    space.fails(1, "compare c.toml --out out --folds 3", &["fold"]);
}

#[test]
fn a_flag_stands_for_the_file_and_what_has_no_folds_is_refused() {
    let space = space("seeds = [3, 5]");
    space.write("c.toml", &space.text("c.toml").replace("epochs = 3", "epochs = 1"));
    let (code, _, err) = space.run("compare c.toml --out out --folds 2");
    assert!(code == 0 && err.contains("without effect: seeds"), "{err}");
    assert_eq!(space.results()["folds"], 2);
    space.fails(2, "compare c.toml --out x --folds 1", &["folds"]);
    let text = space.text("c.toml");
    space.write("both.toml", &text.replace("seeds = [3, 5]", "seeds = [3, 5]\nfolds = 2"));
    space.fails(2, "compare both.toml --out x", &["seeds", "folds"]);
    space.write("wise.toml", &format!("{text}[[method]]\nname = \"wise\"\n"));
    space.fails(2, "compare wise.toml --out x --folds 2", &["wise", "folds"]);
    space.write("own.toml", &text.replace("[common]", "[common]\nfold = \"1/2\""));
    space.fails(2, "compare own.toml --out x", &["fold: "]);

    let line = "finetune --model m.safetensors --train train --steps 1 --batch-size 4 --augment none";
    space.ok(&format!("{line} --fold 2/3 --out run"));
    assert!(space.text("run/config.toml").contains("fold = \"2/3\""));
    let lines = space.text("run/metrics.jsonl");
    assert!(lines.lines().any(|line| line.contains("\"eval\":\"fold\",\"images\":4,")), "{lines}");
    let (code, _, err) = space.run(&format!("{line} --fold 4/3 --out x"));
    assert!(code == 2 && err.contains("2/5"), "{err}");
    space.fails(2, &format!("{line} --fold 1/3 --test fold=far --out x"), &["--test fold"]);
}
