//! Cross-validation: each run holds out another part of the training images.

use serde_json::{Value, json};

use crate::{Space, without_images};

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
    let names: Vec<&str> = entries.iter().map(|e| e["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["pretrained", "vanilla", "tpgm"]);
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
    // Finished runs are not run again; fewer folds are another comparison.
    let (code, _, err) = space.run("compare c.toml --out out");
    assert!(code == 0 && err.contains("was there already") && !err.contains(": ID "), "{err}");
    space.fails(1, "compare c.toml --out out --folds 3", &["fold"]);
}

/// Models that are made without training are judged in each fold, as those are that they are made of.
#[test]
fn what_trains_nothing_is_made_and_tested_fold_by_fold() {
    let space = space("folds = 4");
    let blends = "[[method]]\nname = \"wise\"\nalphas = [0, 0.5, 1]\n[[method]]\nname = \"mean\"\nmethod = \"soup\"\nkind = \"uniform\"\n\
                  [[method]]\nname = \"greedy\"\nmethod = \"soup\"\nkind = \"greedy\"\n";
    space.write("c.toml", &format!("{}{blends}", space.text("c.toml")));
    // The grid in every fold, since a soup is made in each; one tpgm, three of wise and one of each soup.
    let plan = space.ok("compare c.toml --out out --dry-run");
    assert!(plan.contains("12 runs of") && plan.contains("20 models without training"), "{plan}");
    space.ok("compare c.toml --out out");
    let results = space.results();
    let entry = |name: &str| crate::entry(&results, name).clone();
    let fold = |model: &Value| {
        let sets = model["sets"].as_array().unwrap();
        let fold = sets.iter().find(|set| set["name"] == "fold").unwrap();
        assert_eq!(fold["images"], 3);
        [fold["top1"].as_f64().unwrap(), fold["loss"].as_f64().unwrap()]
    };
    let folds = |entry: &Value| -> Vec<[f64; 2]> {
        let models = entry["models"].as_array().unwrap();
        assert_eq!(models.iter().map(|m| m["seed"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4], "{entry}");
        models.iter().map(fold).collect()
    };
    for name in ["pretrained", "vanilla", "tpgm", "wise", "mean", "greedy"] {
        let entry = entry(name);
        let own = folds(&entry);
        crate::close(entry["summary"]["id"]["mean"].as_f64().unwrap(), own.iter().map(|f| f[0]).sum::<f64>() / 4.0);
        assert_eq!(entry["summary"]["id"]["n"], 4);
        assert!(entry["summary"]["id"]["half"].is_number());
        if name != "vanilla" {
            assert_eq!(entry["summary"]["id_gain"]["n"], 4, "{name}: gains are taken fold by fold");
        }
    }
    // All folds together are the training images.
    let whole: Value = serde_json::from_str(&space.ok("eval --model m.safetensors --data t=train --json")).unwrap();
    let mean = |i: usize| folds(&entry("pretrained")).iter().map(|f| f[i]).sum::<f64>() / 4.0;
    crate::close(mean(0), whole[0]["top1"].as_f64().unwrap());
    assert!((mean(1) - whole[0]["loss"].as_f64().unwrap()).abs() < 1e-5);

    // Both ends of the line, in each fold; and the mean of each fold's grid.
    let blend =
        |dir: &str| -> Value { serde_json::from_str(&space.text(&format!("out/colours/{dir}/blend.json"))).unwrap() };
    let (pretrained, vanilla) = (folds(&entry("pretrained")), folds(&entry("vanilla")));
    for k in 1..=4 {
        let wise = blend(&format!("wise/seed-{k}"));
        for (at, ends) in [(0, &pretrained), (2, &vanilla)] {
            let (own, other) = (fold(&wise["blends"][at]), ends[k - 1]);
            assert!(own[0] == other[0] && (own[1] - other[1]).abs() < 1e-5, "fold {k}: {own:?} {other:?}");
        }
        let soup = space.tensors(&format!("out/colours/mean/seed-{k}/model.safetensors"));
        let parts = ["0.0001", "0.05"]
            .map(|lr| space.tensors(&format!("out/colours/vanilla/lr-{lr}/seed-{k}/last.safetensors")));
        for (name, values) in &soup {
            for (i, v) in values.iter().enumerate() {
                assert_eq!(*v, ((f64::from(parts[0][name][i]) + f64::from(parts[1][name][i])) / 2.0) as f32, "{name}");
            }
        }
    }
    assert!(vanilla.windows(2).any(|pair| pair[0] != pair[1]), "the folds differ: {vanilla:?}");
    let page = space.text("out/report.html");
    assert!(page.contains("Cross-validation") && page.contains("pretrained") && !without_images(&page).contains("NaN"));

    // All of it is found again; other folds are another comparison.
    let (code, _, err) = space.run("compare c.toml --out out");
    assert!(code == 0 && !err.contains(": ID "), "{err}");
    space.write("c.toml", &space.text("c.toml").replace("[common]", "[common]\nval-seed = 1"));
    space.fails(1, "compare c.toml --out out", &["val-seed"]);
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
    let soup = "[[method]]\nname = \"soup\"\nkind = \"uniform\"\n";
    space.write("seeds.toml", &format!("{text}{soup}over = \"seeds\"\n"));
    space.fails(2, "compare seeds.toml --out x --folds 2", &["method soup: over: a soup over folds can't be had"]);
    space.write("one.toml", &format!("{text}{soup}every-seed = false\n"));
    space.fails(
        2,
        "compare one.toml --out x --folds 2",
        &["method soup: every-seed: with folds, a soup is made in each"],
    );
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
