//! `data` in a `[[data]]` table: a folder with the splits in it.

use std::fs;

use crate::Space;

/// The same runs as with every path typed; a path typed beside it wins; and a root without training images is named.
#[test]
fn a_root_fills_in_the_splits_of_a_data_set() {
    let space = Space::new("");
    fs::create_dir(space.path("root")).unwrap();
    for (from, to) in [("train", "train"), ("val", "valid"), ("near", "test")] {
        fs::rename(space.path(from), space.path(&format!("root/{to}"))).unwrap();
    }
    let config = |data: &str| {
        let common = "seeds = [3]\n[common]\nmodel = \"m.safetensors\"\nepochs = 1\nbatch-size = 6\n";
        let rest = "id = [\"test\"]\ncorrupt = [\"gaussian_noise:3\"]\n[[method]]\nname = \"vanilla\"\nlr = 0.05\n";
        space.write("c.toml", &format!("{common}[[data]]\nname = \"colours\"\n{data}{rest}"));
    };
    let used = |out: &str| {
        space.ok(&format!("compare c.toml --out {out}"));
        let results: serde_json::Value = serde_json::from_str(&space.text(&format!("{out}/results.json"))).unwrap();
        let weights = fs::read(space.path(&format!("{out}/colours/vanilla/seed-3/last.safetensors"))).unwrap();
        (results["data"][0]["uses"].clone(), results["data"][0]["entries"].clone(), weights)
    };
    config("data = \"root\"\n");
    let filled = used("filled");
    assert_eq!(filled.0["train"], serde_json::json!(["root/train", 12]), "{}", filled.0);
    assert_eq!(filled.0["val"], serde_json::json!(["root/valid", 12]));
    assert_eq!(filled.0["tests"][0], serde_json::json!(["test", "root/test", 12, true]));
    config("train = \"root/train\"\nval = \"root/valid\"\ntest = [\"test=root/test\"]\n");
    let typed = used("typed");
    assert!(typed.0 == filled.0 && typed.2 == filled.2);
    assert_eq!(typed.1[1]["models"][0]["id"], filled.1[1]["models"][0]["id"]);

    // Another validation set than the root's, and test sets of one's own.
    config("data = \"root\"\nval = \"dark\"\ntest = [\"test=far\"]\n");
    let other = used("other");
    assert_eq!(other.0["val"], serde_json::json!(["dark", 9]));
    assert_eq!(other.0["tests"][0], serde_json::json!(["test", "far", 12, true]));
    config("data = \"far\"\n");
    space.fails(2, "compare c.toml --out wrong", &["c.toml", "--data far", "no folder train"]);
}
