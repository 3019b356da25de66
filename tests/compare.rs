//! `tpgm compare`, `wise` and `soup`, as their users meet them: a tiny model, images made here, few steps.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use image::{Rgb, RgbImage};
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

mod common;

#[path = "compare/blends.rs"]
mod blends;
#[path = "compare/commands.rs"]
mod commands;
#[path = "compare/folds.rs"]
mod folds;
#[path = "compare/paired.rs"]
mod paired;
#[path = "compare/shared.rs"]
mod shared;
#[path = "compare/splits.rs"]
mod splits;
#[path = "compare/tensorboard.rs"]
mod tensorboard;
#[path = "compare/test_points.rs"]
mod test_points;
#[path = "compare/views.rs"]
mod views;

const CLASSES: [(&str, [u8; 3]); 3] = [("blue", [40, 60, 200]), ("green", [50, 190, 60]), ("red", [200, 50, 40])];

/// A page without its pictures, in whose base64 any word may occur.
fn without_images(page: &str) -> String {
    let mut parts = page.split("base64,");
    let first = parts.next().unwrap_or_default().to_string();
    first + &parts.map(|part| part.split_once('"').map_or(part, |(_, rest)| rest)).collect::<String>()
}

/// The start of every CONFIG here: 12 training images in batches of 6, so two steps per epoch.
const HEAD: &str = r#"
seeds = [3, 5]
[common]
model = "m.safetensors"
epochs = 3
batch-size = 6
augment = "none"
lr-schedule = "constant"
[[data]]
name = "colours"
train = "train"
val = "val"
test = ["near=near", "far=far", "dark=dark"]
id = ["near"]
"#;

const METHODS: &str = r#"
[[method]]
name = "vanilla"
grid.lr = [0.0001, 0.05]
[[method]]
name = "tpgm"
lr = 0.05
[[method]]
name = "wise"
alphas = [0, 0.5, 1]
[[method]]
name = "lines"
alphas = [0, 1]
[[method]]
name = "greedy"
method = "soup"
kind = "greedy"
[[method]]
name = "of-seeds"
method = "soup"
kind = "uniform"
over = "seeds"
[[method]]
name = "stock"
method = "soup"
kind = "model-stock"
over = "seeds"
"#;

/// A folder for one test: the working directory of everything it runs.
struct Space {
    dir: TempDir,
}

impl Space {
    /// With images of three classes, the model `m.safetensors`, and `c.toml` of [`HEAD`] and `methods`.
    fn new(methods: &str) -> Space {
        let space = Space { dir: tempfile::tempdir().unwrap() };
        for (set, each, noise) in [("train", 4, 60), ("val", 4, 60), ("near", 4, 60), ("far", 4, 200), ("dark", 3, 20)]
        {
            for (class, colour) in CLASSES {
                for i in 0..each {
                    space.image(&format!("{set}/{class}/{i}.png"), colour, noise);
                }
            }
        }
        space.ok(
            "init --out m.safetensors --classes-of train --image-size 16 --patch-size 8 --dim 16 --depth 2 --heads 2",
        );
        space.write("c.toml", &format!("{HEAD}{methods}"));
        space
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn image(&self, name: &str, colour: [u8; 3], noise: u64) {
        let seed = name.bytes().fold(7, |h: u64, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        let mut random = common::Random::new(seed);
        let image = RgbImage::from_fn(16, 16, |_, _| {
            Rgb(colour.map(|v| v.saturating_add((random.bits() % noise) as u8).saturating_sub((noise / 2) as u8)))
        });
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        image.save(self.path(name)).unwrap();
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn run(&self, line: &str) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tpgm"));
        command.current_dir(self.dir.path()).args(line.split_whitespace());
        let of_own = line.contains("--adapters");
        let on_adapter = !of_own && ["compare", "wise", "soup", "finetune", "eval"].iter().any(|c| line.starts_with(c));
        if let (true, Ok(adapter)) = (on_adapter, std::env::var("TPGM_TEST_ADAPTER")) {
            command.args(["--adapter", &adapter]);
        }
        command.env("TPGM_NO_TUNE", "1").env("TPGM_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"));
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    fn ok(&self, line: &str) -> String {
        let (code, out, err) = self.run(line);
        assert!(code == 0 && !err.contains("error"), "tpgm {line}: exit code {code}\n{out}\n{err}");
        out
    }

    /// Runs to exit code `code` and an error, the last line, with all of `parts`.
    #[track_caller]
    fn fails(&self, code: i32, line: &str, parts: &[&str]) -> String {
        let (got, out, err) = self.run(line);
        assert_eq!(got, code, "tpgm {line}\n{out}\n{err}");
        let last = err.lines().last().unwrap_or_default().to_string();
        assert!(last.starts_with("error: "), "{err}");
        parts.iter().for_each(|part| assert!(last.contains(part), "{last}\nlacks {part}"));
        err
    }

    /// Lines of `compare` about runs: how each ended, by name.
    #[track_caller]
    fn compare(&self) -> BTreeMap<String, String> {
        let (code, out, err) = self.run("compare c.toml --out out");
        assert_eq!(code, 0, "{out}\n{err}");
        ends(&err)
    }

    fn results(&self) -> Value {
        serde_json::from_str(&self.text("out/results.json")).unwrap()
    }

    fn tensors(&self, name: &str) -> BTreeMap<String, Vec<f32>> {
        let bytes = fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let values = |data: &[u8]| data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        file.iter().map(|(tensor, view)| (tensor.to_string(), values(view.data()))).collect()
    }
}

/// `[1/7] colours vanilla (lr 0.05) seed 3: was there already` by the name.
fn ends(err: &str) -> BTreeMap<String, String> {
    let runs = err.lines().filter(|line| line.starts_with('['));
    runs.map(|line| {
        let (name, end) = line.split_once("] ").unwrap().1.split_once(": ").unwrap();
        (name.to_string(), end.split("; about ").next().unwrap().to_string())
    })
    .collect()
}

fn entry<'a>(results: &'a Value, name: &str) -> &'a Value {
    let entries = results["data"][0]["entries"].as_array().unwrap();
    entries.iter().find(|e| e["name"] == name).unwrap_or_else(|| panic!("no entry {name}"))
}

fn mean(models: &Value, key: &str) -> f64 {
    let models = models.as_array().unwrap();
    models.iter().map(|m| m[key].as_f64().unwrap()).sum::<f64>() / models.len() as f64
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} {b}");
}

#[test]
fn a_comparison_runs_what_is_missing_and_gives_all_numbers() {
    let space = Space::new(METHODS);
    let plan = space.ok("compare c.toml --out out --dry-run");
    // Vanilla: two points with one seed and the chosen one with the other, 6 steps each; tpgm: two seeds.
    assert!(plan.contains("5 runs of 30 steps in all, 13 models without training"), "{plan}");
    assert!(!space.path("out").exists(), "a dry run writes nothing");

    let ends = space.compare();
    assert_eq!(ends.len(), 12, "five runs, two lines each of wise and lines, three soups: {ends:?}");
    assert!(ends.values().all(|end| end.starts_with("ID ")), "{ends:?}");
    let results = space.results();
    let names: Vec<&str> =
        results["data"][0]["entries"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["pretrained", "vanilla", "tpgm", "wise", "lines", "greedy", "of-seeds", "stock"]);
    assert_eq!(results["failures"].as_array().unwrap().len(), 0);

    let vanilla = entry(&results, "vanilla");
    assert_eq!(vanilla["points"][0]["label"], "lr 0.0001");
    assert_eq!(
        (&vanilla["chosen"], &vanilla["cost"]["tune"], &vanilla["cost"]["report"]),
        (&1.into(), &2.into(), &1.into())
    );
    assert_eq!(vanilla["models"].as_array().unwrap().len(), 2);
    assert!(vanilla["memory"].as_u64().unwrap() > 0 && vanilla["seconds"].as_f64().unwrap() > 0.0);
    assert!(vanilla["summary"]["ood_gain"].is_null());
    let tpgm = entry(&results, "tpgm");
    for (e, name) in [(vanilla, "vanilla"), (tpgm, "tpgm")] {
        for key in ["id", "ood"] {
            close(e["summary"][key]["mean"].as_f64().unwrap(), mean(&e["models"], key));
        }
        for m in e["models"].as_array().unwrap() {
            let top1 = |i: usize| m["sets"][i]["top1"].as_f64().unwrap();
            close(m["id"].as_f64().unwrap(), top1(0));
            close(m["ood"].as_f64().unwrap(), (top1(1) + top1(2)) / 2.0);
            assert!(m["dir"].as_str().unwrap().contains(name));
        }
    }
    let gain = &tpgm["summary"]["ood_gain"];
    close(gain["mean"].as_f64().unwrap(), mean(&tpgm["models"], "ood") - mean(&vanilla["models"], "ood"));
    assert_eq!(gain["n"], 2);

    // Both ends of the line are models that were evaluated by others.
    let (wise, pretrained) = (entry(&results, "wise"), entry(&results, "pretrained"));
    assert_eq!(wise["points"][0]["accuracy"][1], pretrained["models"][0]["ood"]);
    close(wise["points"][2]["accuracy"][1].as_f64().unwrap(), mean(&vanilla["models"], "ood"));
    close(
        wise["points"][2]["select"]["top1"].as_f64().unwrap(),
        vanilla["points"][1]["select"]["top1"].as_f64().unwrap(),
    );
    let lines = entry(&results, "lines");
    assert_eq!(
        (lines["kind"].as_str(), &lines["points"][1]["accuracy"]),
        (Some("lines"), &wise["points"][2]["accuracy"])
    );
    // A greedy soup starts with the best model, and is never worse on the images it is made with.
    let (greedy, best) = (entry(&results, "greedy"), vanilla["points"][1]["select"]["top1"].as_f64().unwrap());
    assert!(greedy["models"][0]["select"]["top1"].as_f64().unwrap() >= best, "{greedy}");
    assert_eq!(greedy["models"].as_array().unwrap().len(), 1, "a soup for each seed that has the grid");
    assert!(greedy["note"].as_str().unwrap().starts_with("seed 3: "), "{}", greedy["note"]);
    let of_seeds = entry(&results, "of-seeds");
    assert!(of_seeds["models"][0]["seed"].is_null() && of_seeds["summary"]["ood_gain"]["half"].is_null());
    let soup = space.tensors("out/colours/of-seeds/all-seeds/model.safetensors");
    let parts = [3, 5].map(|seed| space.tensors(&format!("out/colours/vanilla/lr-0.05/seed-{seed}/last.safetensors")));
    for (name, values) in &soup {
        for (i, v) in values.iter().enumerate() {
            let want = ((f64::from(parts[0][name][i]) + f64::from(parts[1][name][i])) / 2.0) as f32;
            assert_eq!(*v, want, "{name}");
        }
    }

    // Model Stock by the definition: the angle between the two drifts.
    let note = entry(&results, "stock")["note"].as_str().unwrap();
    assert!(note.starts_with("2 of 2 seeds (") && note.ends_with(" % of their mean's drift"), "{note}");
    let (stock, anchor) =
        (space.tensors("out/colours/stock/all-seeds/model.safetensors"), space.tensors("m.safetensors"));
    for (name, values) in &stock {
        let drift = |part: &BTreeMap<String, Vec<f32>>| -> Vec<f64> {
            part[name].iter().zip(&anchor[name]).map(|(w, w0)| f64::from(*w) - f64::from(*w0)).collect()
        };
        let [a, b] = [drift(&parts[0]), drift(&parts[1])];
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let cosine = (dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()).max(0.0);
        let t = 2.0 * cosine / (1.0 + cosine);
        for (i, v) in values.iter().enumerate() {
            let want = f64::from(anchor[name][i]) + t * (a[i] + b[i]) / 2.0;
            assert!((f64::from(*v) - want).abs() < 1e-6 * want.abs().max(1e-3), "{name}: {v} for {want}");
        }
    }

    let rows = space.text("out/results.csv");
    assert_eq!(rows.lines().count(), 1 + 3 * (1 + 2 + 2 + 2 + 2 + 1 + 1 + 1), "one row per model and test set\n{rows}");
    let choices = space.text("out/choices.csv");
    assert_eq!(choices.lines().count(), 1 + 2 + 3 + 2, "{choices}");
    assert!(
        choices.contains("vanilla,lr 0.05,3,") && choices.lines().nth(2).unwrap().contains(",1,true,"),
        "{choices}"
    );
    let table = space.text("out/results.md");
    let lines: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).collect();
    assert!(lines.len() == 2 + 8 && lines[0].starts_with("| method | chosen |"), "one row per method\n{table}");
    let columns = |line: &str| line.matches(" | ").count();
    assert!(lines.iter().all(|line| columns(line) == columns(lines[0])), "{table}");
    let page = space.text("out/report.html");
    for part in ["</html>", "Effective robustness", "greedy", "alpha 0.5", "reported only (OOD)", "radii of tpgm"] {
        assert!(page.contains(part), "the page lacks {part}");
    }
    assert!(!page.contains("<script") && !page.contains("src=\"http") && !without_images(&page).contains("NaN"));

    stopped_runs_go_on(&space);
}

/// Finished runs are not touched; the others are completed, to the same numbers.
fn stopped_runs_go_on(space: &Space) {
    let (csv, page) = (space.text("out/results.csv"), space.text("out/report.html"));
    let weights = |seed| fs::read(space.path(&format!("out/colours/tpgm/seed-{seed}/last.safetensors"))).unwrap();
    let (three, five) = (weights(3), weights(5));
    let time = |name: &str| fs::metadata(space.path(name)).unwrap().modified().unwrap();
    let kept = ["out/colours/vanilla/lr-0.05/seed-3/last.safetensors", "out/colours/wise/seed-5/blend.json"];
    let before = kept.map(time);
    let all = space.compare();
    assert!(all.len() == 12 && all.values().all(|end| end == "was there already"), "{all:?}");
    assert_eq!((space.text("out/results.csv"), space.text("out/report.html")), (csv.clone(), page));

    // One is stopped in its last evaluations, one before it had a state; one is gone, and a soup with it.
    let metrics = space.text("out/colours/tpgm/seed-3/metrics.jsonl");
    let torn: Vec<&str> = metrics.lines().filter(|line| !line.contains("\"final\"")).collect();
    space.write("out/colours/tpgm/seed-3/metrics.jsonl", &format!("{}\n{{\"step\"", torn.join("\n")));
    fs::remove_file(space.path("out/colours/tpgm/seed-3/run.json")).unwrap();
    for file in ["run.json", "state.safetensors", "last.safetensors", "best.safetensors"] {
        fs::remove_file(space.path(&format!("out/colours/tpgm/seed-5/{file}"))).unwrap();
    }
    fs::remove_dir_all(space.path("out/colours/vanilla/lr-0.05/seed-5")).unwrap();
    fs::remove_dir_all(space.path("out/colours/greedy")).unwrap();
    let ends = space.compare();
    let again: Vec<&str> =
        ends.iter().filter(|(_, end)| *end != "was there already").map(|(name, _)| name.as_str()).collect();
    let wanted =
        ["colours greedy seed 3", "colours tpgm seed 3", "colours tpgm seed 5", "colours vanilla (lr 0.05) seed 5"];
    assert_eq!(again, wanted, "the same weights came out of seed 5, so that everything made of them still holds");
    assert!(ends["colours tpgm seed 3"].ends_with("resumed"), "{ends:?}");
    assert!(!ends["colours tpgm seed 5"].contains("resumed"), "{ends:?}");
    assert_eq!(space.text("out/results.csv"), csv, "the same numbers");
    assert!(weights(3) == three && weights(5) == five, "the same bits");
    assert_eq!(kept.map(time), before, "finished runs are not touched");

    // Other weights make everything made of them stale.
    let path = "out/colours/vanilla/lr-0.05/seed-3/last.safetensors";
    fs::copy(space.path("out/colours/vanilla/lr-0.0001/seed-3/last.safetensors"), space.path(path)).unwrap();
    let ends = space.compare();
    let stale: Vec<&str> =
        ends.iter().filter(|(_, end)| *end != "was there already").map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        stale,
        ["colours greedy seed 3", "colours lines seed 3", "colours of-seeds", "colours stock", "colours wise seed 3"]
    );

    // Other settings are another comparison.
    let text = space.text("c.toml").replace("epochs = 3", "epochs = 4");
    space.write("c.toml", &text);
    space.fails(1, "compare c.toml --out out", &["other settings (epochs was 3, is now 4)", "another --out", "seed-3"]);
    assert_eq!(space.text("out/results.csv").lines().count(), csv.lines().count());
}

#[test]
fn choices_are_made_on_selection_images_alone() {
    let space = Space::new(
        "[[method]]\nname = \"vanilla\"\ngrid.lr = [1e-7, 0.05]\n[[method]]\nname = \"wise\"\nalphas = [0, 1]\n",
    );
    // Test sets whose classes are exchanged: a model that has learned is always wrong there, the untrained one is not.
    for (class, (_, colour)) in [("green", CLASSES[0]), ("red", CLASSES[1]), ("blue", CLASSES[2])] {
        for set in ["near", "far", "dark"] {
            for i in 0..4 {
                space.image(&format!("{set}/{class}/{i}.png"), colour, 40);
            }
        }
    }
    let text = space.text("c.toml").replace("seeds = [3, 5]", "seeds = [3]").replace("epochs = 3", "epochs = 12");
    space.write("c.toml", &text);
    space.compare();
    let results = space.results();
    let vanilla = entry(&results, "vanilla");
    let (slow, fast) = (&vanilla["points"][0], &vanilla["points"][1]);
    let of = |point: &Value| point["select"]["top1"].as_f64().unwrap();
    assert!(of(fast) > of(slow), "it learns: {vanilla}");
    assert!(
        fast["accuracy"][0].as_f64() < slow["accuracy"][0].as_f64(),
        "the test sets would choose otherwise: {vanilla}"
    );
    assert!(fast["accuracy"][1].as_f64() < slow["accuracy"][1].as_f64(), "{vanilla}");
    assert_eq!((&vanilla["chosen"], &fast["rank"], &slow["rank"]), (&1.into(), &1.into(), &2.into()));
    assert_eq!(entry(&results, "wise")["chosen"], 1);
    assert!(space.text("out/report.html").contains("One seed says nothing about chance"));

    // On selection images of their own, which are exchanged as well, the choice is the other one.
    fs::create_dir(space.path("chosen-on")).unwrap();
    for (class, (_, colour)) in [("green", CLASSES[0]), ("red", CLASSES[1]), ("blue", CLASSES[2])] {
        for i in 0..4 {
            space.image(&format!("chosen-on/{class}/{i}.png"), colour, 50);
        }
    }
    let text = space.text("c.toml").replace("val = \"val\"\n", "val = \"val\"\nselect = \"chosen-on\"\n");
    space.write("c.toml", &text);
    space.ok("compare c.toml --out other");
    let results: Value = serde_json::from_str(&space.text("other/results.json")).unwrap();
    assert_eq!((&entry(&results, "vanilla")["chosen"], &entry(&results, "wise")["chosen"]), (&0.into(), &0.into()));
}

#[test]
fn a_run_that_fails_is_said_and_the_others_go_on() {
    let space = Space::new(
        "[[method]]\nname = \"vanilla\"\ngrid.lr = [1e30, 0.01]\n[[method]]\nname = \"tpgm\"\nlr = 1e30\n\
         [[method]]\nname = \"wise\"\nfrom = \"tpgm\"\n",
    );
    let text = space.text("c.toml").replace("seeds = [3, 5]", "seeds = [3]");
    space.write("c.toml", &text);
    let err = space.fails(1, "compare c.toml --out out", &["3 runs failed", "not a finite number", "tries them again"]);
    let ends = ends(&err);
    assert!(ends["colours vanilla (lr 1e30) seed 3"].starts_with("failed: the "), "{ends:?}");
    assert!(ends["colours vanilla (lr 0.01) seed 3"].starts_with("ID "), "{ends:?}");
    assert!(ends["colours wise seed 3"].contains("the run that it is made of has failed"), "{ends:?}");
    let results = space.results();
    assert_eq!(entry(&results, "vanilla")["chosen"], 1);
    assert!(entry(&results, "tpgm")["summary"].is_null());
    let page = space.text("out/report.html");
    assert!(page.contains("not a finite number") && page.contains("no run has finished"));

    space.write(
        "c.toml",
        &space.text("c.toml").replace("lr = 1e30\n[[method]]\nname = \"wise\"", "lrr = 1\n[[method]]\nname = \"wise\""),
    );
    space.fails(2, "compare c.toml", &["c.toml: line 20: method tpgm: unknown field `lrr`"]);
    space.fails(1, "compare nowhere.toml", &["nowhere.toml", "cannot read"]);
}
