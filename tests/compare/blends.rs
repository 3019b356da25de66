//! What trains nothing is made of the models of a method as these were trained and are kept: their settings, their anchor, their files.

use std::fs;

use serde_json::Value;

use super::{Space, entry};

/// The figures of each model of an entry on the test sets.
fn sets(entry: &Value) -> Vec<Value> {
    entry["models"].as_array().unwrap().iter().map(|model| model["sets"].clone()).collect()
}

/// Wise at one α is either model itself.
const ENDS: &str = "[[method]]\nname = \"tuned\"\nmethod = \"wise\"\nfrom = \"FROM\"\nalphas = [1]\n[[method]]\nname = \"anchor\"\n\
                    method = \"wise\"\nfrom = \"FROM\"\nalphas = [0]\n";

#[test]
fn models_see_images_as_the_chosen_point_of_a_grid_does() {
    let mut second = 0;
    for sizes in ["16, 32", "32, 16"] {
        let grid = format!("[[method]]\nname = \"vanilla\"\nlr = 0.05\ngrid.image-size = [{sizes}]\n");
        let soup = "[[method]]\nname = \"soup\"\nkind = \"uniform\"\nover = \"seeds\"\n";
        let space = Space::new(&format!("{grid}{}{soup}", ENDS.replace("FROM", "vanilla")));
        space.compare();
        let results = space.results();
        let vanilla = entry(&results, "vanilla");
        second += u32::from(vanilla["chosen"] == 1);
        assert_eq!(sets(entry(&results, "tuned")), sets(vanilla), "{sizes}");
        let point = vanilla["points"][vanilla["chosen"].as_u64().unwrap() as usize]["label"].as_str().unwrap();
        let size = point.strip_prefix("image-size ").unwrap();
        let eval = space.ok(&format!("eval --model m.safetensors --image-size {size} --data far=far --json"));
        let eval: Value = serde_json::from_str(&eval).unwrap();
        let far = &sets(entry(&results, "anchor"))[0][1];
        assert!((far["loss"].as_f64().unwrap() - eval[0]["loss"].as_f64().unwrap()).abs() < 1e-6, "{far}, {eval}");
        let eval = "eval --model out/colours/soup/all-seeds/model.safetensors --data far=far --json";
        let eval: Value = serde_json::from_str(&space.ok(&format!("{eval} --image-size {size}"))).unwrap();
        let far = &sets(entry(&results, "soup"))[0][1];
        assert!((far["loss"].as_f64().unwrap() - eval[0]["loss"].as_f64().unwrap()).abs() < 1e-6, "{far}, {eval}");
    }
    assert!(second > 0, "no second point was chosen");
}

#[test]
fn the_anchor_is_the_model_as_the_method_began_with_it() {
    let other = "[[method]]\nname = \"vanilla\"\n[[method]]\nname = \"big\"\nmethod = \"vanilla\"\nimage-size = 32\nlr = 0.05\n";
    let space = Space::new(&format!("{other}{}", ENDS.replace("FROM", "big")));
    space.compare();
    let results = space.results();
    assert_eq!(sets(entry(&results, "tuned")), sets(entry(&results, "big")));
    let eval = space.ok("eval --model m.safetensors --image-size 32 --data near=near --json");
    let eval: Value = serde_json::from_str(&eval).unwrap();
    for near in sets(entry(&results, "anchor")).iter().map(|sets| &sets[0]) {
        assert!((near["loss"].as_f64().unwrap() - eval[0]["loss"].as_f64().unwrap()).abs() < 1e-6, "{near}, {eval}");
    }
}

#[test]
fn a_whole_comparison_outlives_its_weights_and_no_model_is_taken_for_another() {
    let methods = "[[method]]\nname = \"vanilla\"\ngrid.lr = [0.01, 0.05]\n[[method]]\nname = \"wise\"\nalphas = [0, 1]\n[[method]]\n\
                   name = \"greedy\"\nmethod = \"soup\"\nkind = \"greedy\"\n";
    let space = Space::new(methods);
    space.compare();
    let (results, csv) = (space.results(), space.text("out/results.csv"));
    let weights = |name: &str| -> Vec<std::path::PathBuf> {
        let pattern = space.path("out/colours/vanilla/**").join(name);
        glob::glob(pattern.to_str().unwrap()).unwrap().map(Result::unwrap).collect()
    };
    // Copied without the large files.
    let all: Vec<_> =
        ["last", "best", "state"].iter().flat_map(|name| weights(&format!("{name}.safetensors"))).collect();
    assert_eq!(all.len(), 9);
    all.iter().for_each(|file| fs::remove_file(file).unwrap());
    let ends = space.compare();
    assert!(ends.values().all(|end| end == "was there already"), "{ends:?}");
    assert_eq!((space.results()["data"].clone(), space.text("out/results.csv")), (results["data"].clone(), csv));

    // Another model under the same path.
    let whole = fs::read(space.path("m.safetensors")).unwrap();
    space.ok(
        "init --out m.safetensors --classes-of train --image-size 16 --patch-size 8 --dim 16 --depth 2 --heads 2 --seed 7",
    );
    space.fails(
        1,
        "compare c.toml --out out",
        &["began with other weights of --model", "vanilla", "delete this folder"],
    );
    fs::write(space.path("m.safetensors"), whole).unwrap();
    space.compare();

    // What can't be told apart from somebody's work is left alone.
    let run = "out/colours/vanilla/lr-0.01/seed-3";
    let config = fs::read(space.path(&format!("{run}/config.toml"))).unwrap();
    fs::remove_file(space.path(&format!("{run}/config.toml"))).unwrap();
    space.fails(1, "compare c.toml --out out", &[run, "no config.toml", "delete this folder"]);
    fs::write(space.path(&format!("{run}/config.toml")), config).unwrap();
    fs::write(space.path(&format!("{run}/best.safetensors")), b"kept").unwrap();
    fs::remove_file(space.path(&format!("{run}/run.json"))).unwrap();
    space.fails(1, "compare c.toml --out out", &[run, "best.safetensors", "state.safetensors", "delete this folder"]);
}

#[test]
fn what_can_be_no_soup_is_refused_before_anything_runs() {
    let space = Space::new("");
    let head = space.text("c.toml");
    let soup = "[[method]]\nname = \"s\"\nmethod = \"soup\"\nkind = \"uniform\"\n";
    let cases = [
        ("[[method]]\nname = \"vanilla\"\n", "", "vanilla has no grid of several points"),
        ("[[method]]\nname = \"vanilla\"\ngrid.lr = [0.1]\n", "", "over = \"seeds\""),
        ("[[method]]\nname = \"vanilla\"\ngrid.image-size = [16, 32]\n", "", "differ in image-size"),
        ("[[method]]\nname = \"vanilla\"\ngrid.crop-pct = [0.9, 1.0]\n", "over = \"grid\"\n", "differ in crop-pct"),
    ];
    for (of, over, part) in cases {
        space.write("s.toml", &format!("{head}{of}{soup}{over}"));
        space.fails(2, "compare s.toml --out x", &["method s", part]);
    }
    let one = head.replace("seeds = [3, 5]", "seeds = [3]");
    space.write("s.toml", &format!("{one}[[method]]\nname = \"vanilla\"\n{soup}over = \"seeds\"\n"));
    space.fails(2, "compare s.toml --out x", &["method s", "there is one seed"]);
    for name in ["claim", "report.html", "Results.csv"] {
        let text = head.replace("name = \"colours\"", &format!("name = \"{name}\""));
        space.write("s.toml", &format!("{text}[[method]]\nname = \"vanilla\"\n"));
        space.fails(2, "compare s.toml --out x", &["a file of the comparison itself", name]);
    }
}

#[test]
fn what_failed_is_named_and_counted_once() {
    let methods = "[[method]]\nname = \"vanilla\"\ngrid.lr = [0.01, 1e30]\n[[method]]\nname = \"wild\"\nmethod = \"vanilla\"\nlr = 1e30\n[[method]]\nname = \"wise\"\nfrom = \"wild\"\nalphas = [0, 0.5, 1]\n[[method]]\nname = \"us\"\nmethod = \"soup\"\nkind = \"uniform\"\n";
    let space = Space::new(methods);
    let (code, _, err) = space.run("compare c.toml --out out");
    assert_eq!(code, 1, "{err}");
    let results = space.results();
    let (soup, plain) = (entry(&results, "us"), entry(&results, "vanilla"));
    assert_eq!(soup["note"], "seed 3: 1 of 2 (lr 0.01; lr 1e30 failed)");
    // Three runs, and wise with each of two seeds.
    assert_eq!(results["failures"].as_array().unwrap().len(), 5, "{}", results["failures"]);
    assert!(err.contains("5 runs failed"), "{err}");
    // One model's time.
    assert_eq!(soup["seconds"], plain["seconds"]);
}
