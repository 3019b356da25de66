//! Which class is which output: the same for every command, printed, and matched where two models differ.

use std::collections::HashMap;
use std::fs;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;

use crate::{CLASSES, Space, TRAIN, with};

const INIT: &str = "init --image-size 16 --patch-size 8 --dim 16 --depth 1 --heads 2";

impl Space {
    /// A copy of the model `from` whose head has its rows in this order, under these class names (none: it names nothing).
    fn turned(&self, from: &str, to: &str, order: &[usize], names: Option<&[&str]>) {
        let (_, header) = SafeTensors::read_metadata(&self.bytes(from)).unwrap();
        let mut metadata: HashMap<String, String> = header.metadata().clone().unwrap();
        match names {
            Some(names) => metadata.insert("tpgm.classes".into(), json!(names).to_string()),
            None => metadata.remove("tpgm.classes"),
        };
        let tensors = self.tensors(from).into_iter().map(|(name, (shape, values))| {
            let turned = || {
                let row = values.len() / shape[0];
                order.iter().flat_map(|&i| values[i * row..(i + 1) * row].to_vec()).collect()
            };
            let values: Vec<f32> = if name.starts_with("head.") { turned() } else { values };
            (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
        });
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors.collect();
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        self.write(to, safetensors::serialize(views, Some(metadata)).unwrap());
    }

    /// `count` classes called by these numbers, with images in `train`, `val` and `test`.
    fn numbered(numbers: &[String]) -> Space {
        let space = Space::empty();
        for split in ["train", "val", "test"] {
            for (i, number) in numbers.iter().enumerate() {
                for image in 0..2 {
                    space.image(&format!("{split}/{number}/{image}.png"), CLASSES[i % 3].0);
                }
            }
        }
        space
    }
}

/// Folders by number and a model that does not name its outputs: the same figures from every command, and those of the outputs in
/// the order of the numbers.
#[test]
fn folders_by_number_are_the_same_outputs_for_every_command() {
    let zero_based: Vec<String> = (0..11).map(|i| i.to_string()).collect();
    let one_based: Vec<String> = (1..12).map(|i| i.to_string()).collect();
    for numbers in [zero_based, one_based] {
        let space = Space::numbered(&numbers);
        let (_, said) = space.run(&format!("{INIT} --out named.safetensors --classes-of train"));
        let pairs = |of: &[String]| {
            let pair = |(i, number): (usize, &String)| format!("{i} = {number}");
            let pairs: Vec<String> = of.iter().enumerate().map(pair).collect();
            format!("{}, …, {}", pairs[..3].join(", "), pairs[pairs.len() - 3..].join(", "))
        };
        let order = pairs(&numbers);
        assert!(said.contains(&order) && said.contains("before 10"), "{said}");
        let same: Vec<usize> = (0..11).collect();
        space.turned("named.safetensors", "m.safetensors", &same, None);

        let figures = |model: &str| {
            let (out, err) = space.run(&format!("eval --model {model} --data t=test --json --per-class"));
            assert!(err.contains(&order), "{err}");
            serde_json::from_str::<serde_json::Value>(&out).unwrap()
        };
        let want = figures("named.safetensors");
        assert_eq!(figures("m.safetensors"), want);

        let (_, err) = space.run(&with(TRAIN, "--test t=test --steps 1 --out run"));
        assert!(err.contains(&order), "{err}");
        let lines = space.lines("run/metrics.jsonl");
        let pretrained = lines.iter().find(|line| line["model"] == "pretrained").unwrap();
        let (loss, want_loss) = (pretrained["loss"].as_f64().unwrap(), want[0]["loss"].as_f64().unwrap());
        assert!((loss - want_loss).abs() < 1e-6, "finetune reads {loss}, eval {want_loss}");
        // What the run leaves names its classes, in that order.
        let inspected = space.json("inspect run/last.safetensors");
        assert_eq!(inspected["classes"], json!(numbers));

        let project = "project --pretrained m.safetensors --finetuned run/last.safetensors --val val --max-iters 1";
        let (_, err) = space.run(&format!("{project} --out p.safetensors"));
        assert!(err.contains(&order), "{err}");
        let wise = "wise --pretrained m.safetensors --finetuned run/last.safetensors --val val --sweep 2";
        let (_, err) = space.run(&format!("{wise} --out w.safetensors"));
        assert!(err.contains(&order) && err.contains("does not name its outputs"), "{err}");
    }
}

#[test]
fn predict_says_what_its_outputs_are() {
    let space = Space::new();
    let (_, err) = space.run("predict --model m.safetensors --data test");
    assert!(err.contains("3 classes as the model names them: 0 = blue, 1 = green, 2 = red"), "{err}");
    space.turned("m.safetensors", "bare.safetensors", &[0, 1, 2], None);
    let (out, err) = space.run("predict --model bare.safetensors --data test");
    assert!(err.contains("0 = 0, 1 = 1, 2 = 2") && err.contains("does not name its outputs"), "{err}");
    assert!(out.lines().all(|line| [": 0 ", ": 1 ", ": 2 "].iter().any(|class| line.contains(class))), "{out}");
}

/// The same model twice, the second with its outputs turned: whatever is made of the two is that model.
#[test]
fn heads_in_another_order_are_matched_by_name() {
    let space = Space::new();
    space.turned("m.safetensors", "t.safetensors", &[2, 0, 1], Some(&["red", "blue", "green"]));
    let logits = |model: &str| {
        let rows = space.json(&format!("predict --model {model} --data test --top 3"));
        let row = |row: &serde_json::Value| {
            let mut top: Vec<(String, f64)> = row["top"]
                .as_array()
                .unwrap()
                .iter()
                .map(|t| (t["class"].as_str().unwrap().to_string(), t["probability"].as_f64().unwrap()))
                .collect();
            top.sort_by(|a, b| a.0.cmp(&b.0));
            top
        };
        rows.as_array().unwrap().iter().map(row).collect::<Vec<_>>()
    };
    let want = logits("m.safetensors");
    let check = |model: &str| {
        for (got, want) in logits(model).iter().flatten().zip(want.iter().flatten()) {
            assert!(got.0 == want.0 && (got.1 - want.1).abs() < 1e-5, "{model}: {got:?}, expected {want:?}");
        }
    };
    check("t.safetensors");
    let by_name = "its head's rows are matched by name";
    let (_, err) =
        space.run("wise --pretrained m.safetensors --finetuned t.safetensors --alpha 0.5 --out w.safetensors");
    assert!(err.contains(by_name), "{err}");
    check("w.safetensors");
    let (_, err) = space.run("soup --models m.safetensors t.safetensors --out s.safetensors");
    assert!(err.contains(by_name), "{err}");
    check("s.safetensors");
    let (_, err) = space.run("soup --models t.safetensors m.safetensors --greedy --val val --out g.safetensors");
    assert!(err.contains(by_name), "{err}");
    check("g.safetensors");
    let project = "project --pretrained m.safetensors --finetuned t.safetensors --val val --max-iters 2";
    let (_, err) = space.run(&format!("{project} --out p.safetensors"));
    assert!(err.contains(by_name), "{err}");
    check("p.safetensors");
    assert_eq!(space.tensors("p.safetensors"), space.tensors("t.safetensors"), "nothing had drifted");
}

/// WiSE-FT and soups of a comparison whose runs have their outputs in another order than the pre-trained model come to the same.
#[test]
fn a_comparison_matches_heads_in_another_order() {
    let space = Space::new();
    space.write(
        "c.toml",
        "seeds = [1, 2]\n[common]\nmodel = \"m.safetensors\"\nepochs = 6\nlr = 0.05\naugment = \"none\"\nbatch-size = 6\n\
         [[data]]\nname = \"d\"\ntrain = \"train\"\nval = \"val\"\ntest = [\"test=test\", \"ood=val\"]\nid = [\"test\"]\n\
         [[method]]\nname = \"vanilla\"\n[[method]]\nname = \"wise\"\nalphas = [0.5, 1]\n\
         [[method]]\nname = \"soup\"\nmethod = \"soup\"\nkind = \"uniform\"\nover = \"seeds\"\n",
    );
    let figures = || {
        space.ok("compare c.toml --out out");
        let results: serde_json::Value = serde_json::from_str(&space.text("out/results.json")).unwrap();
        let of = |name: &str| {
            let entries = results["data"][0]["entries"].as_array().unwrap();
            entries.iter().find(|entry| entry["name"] == name).unwrap()["points"].clone()
        };
        [of("wise"), of("soup")]
    };
    let want = figures();
    assert!(want[0][1]["accuracy"][0].as_f64().unwrap() > 0.6, "a wrong order has to show: {want:?}");
    for seed in [1, 2] {
        let last = format!("out/d/vanilla/seed-{seed}/last.safetensors");
        let last = if space.path(&last).exists() { last } else { panic!("{:?}", space.snapshot().keys()) };
        space.turned(&last, &last, &[2, 0, 1], Some(&["red", "blue", "green"]));
    }
    assert_eq!(figures(), want);
}

#[test]
fn heads_of_other_classes_are_not_mixed() {
    let space = Space::new();
    space.turned("m.safetensors", "o.safetensors", &[0, 1, 2], Some(&["blue", "green", "rouge"]));
    let parts = ["o.safetensors", "classes are others", "\"red\""];
    space.fails(1, "soup --models m.safetensors o.safetensors --out s.safetensors", &parts);
    // WiSE-FT and projection leave such a head as it was fine-tuned, as if it had another shape.
    let (_, err) = space.run("wise --pretrained m.safetensors --finetuned o.safetensors --out w.safetensors");
    assert!(
        err.contains("no output for \"rouge\"") && err.contains("head.weight has no pre-trained counterpart"),
        "{err}"
    );
    // Two outputs with one name can't be told apart in another order.
    space.turned("m.safetensors", "a.safetensors", &[0, 1, 2], Some(&["crane", "crane", "cock"]));
    space.turned("m.safetensors", "b.safetensors", &[2, 0, 1], Some(&["cock", "crane", "crane"]));
    for line in
        ["soup --models a.safetensors b.safetensors", "wise --pretrained a.safetensors --finetuned b.safetensors"]
    {
        space.fails(1, &format!("{line} --out s.safetensors"), &["\"crane\"", "can't be told"]);
    }
    space.ok("soup --models a.safetensors a.safetensors --out s.safetensors");
}

#[test]
fn a_head_of_other_classes_than_the_data_is_refused() {
    let space = Space::new();
    let head = space.tensors("m.safetensors").remove("head.weight").unwrap();
    let write = |names: &[&str], rows: &[usize]| {
        let bytes: Vec<u8> = rows
            .iter()
            .flat_map(|&row| head.1[row * 16..(row + 1) * 16].iter().flat_map(|v| v.to_le_bytes()))
            .collect();
        let view = TensorView::new(Dtype::F32, vec![rows.len(), 16], &bytes).unwrap();
        let metadata = HashMap::from([("classes".to_string(), json!(names).to_string())]);
        space.write("h.safetensors", safetensors::serialize([("weight", view)], Some(metadata)).unwrap());
    };
    write(&["cat", "dog"], &[0, 1]);
    let train = with(TRAIN, "--head h.safetensors --test t=test --steps 1 --out run");
    space.fails(1, &train, &["h.safetensors", "other classes (2)", "train (3)"]);
    // The same classes in another order are matched by name.
    let loss = |run: &str| {
        let lines = space.lines(&format!("{run}/metrics.jsonl"));
        lines.iter().find(|line| line["model"] == "pretrained").unwrap()["loss"].as_f64().unwrap()
    };
    write(&["blue", "green", "red"], &[0, 1, 2]);
    space.ok(&with(&train, "--out straight"));
    write(&["red", "blue", "green"], &[2, 0, 1]);
    space.ok(&with(&train, "--out turned"));
    assert!((loss("straight") - loss("turned")).abs() < 1e-6);
}

#[test]
fn two_folders_with_one_name_are_two_classes() {
    let space = Space::new();
    space.write("map.txt", "red crane\nblue cock\ngreen crane\n");
    let counts = |run: &str| {
        let json =
            space.json(&format!("eval --model {run}/last.safetensors --data t=test --class-map map.txt --per-class"));
        let class = |c: &serde_json::Value| format!("{} {}", c["class"].as_str().unwrap(), c["images"]);
        json[0]["per_class"].as_array().unwrap().iter().map(class).collect::<Vec<_>>()
    };
    // A model that is named by the folders keeps its outputs and their names.
    let (_, err) = space.run(&with(TRAIN, "--class-map map.txt --test t=test --steps 1 --out kept"));
    assert!(err.contains("0 = blue (cock), 1 = green (crane), 2 = red (crane)"), "{err}");
    assert_eq!(counts("kept"), ["blue 4", "green 4", "red 4"]);
    space.ok("eval --model kept/last.safetensors --data t=test");
    // A new head has the file's order and names.
    space.turned("m.safetensors", "other.safetensors", &[0, 1, 2], Some(&["x", "y", "z"]));
    let (_, err) = space.run(&with(TRAIN, "--model other.safetensors --class-map map.txt --steps 1 --out new"));
    assert!(
        err.contains("of a new head") && err.contains("0 = red (crane), 1 = blue (cock), 2 = green (crane)"),
        "{err}"
    );
    assert_eq!(counts("new"), ["crane 4", "cock 4", "crane 4"]);
    space.fails(1, "eval --model new/last.safetensors --data t=test", &["\"blue\" of \"test\"", "--class-map"]);
    fs::rename(space.path("test/blue"), space.path("test/crane")).unwrap();
    space.fails(1, "eval --model new/last.safetensors --data t=test", &["\"crane\"", "several outputs"]);
}

#[test]
fn evaluation_sets_may_lack_classes_but_have_no_others() {
    let space = Space::new();
    fs::remove_dir_all(space.path("val/red")).unwrap();
    fs::remove_dir_all(space.path("test/blue")).unwrap();
    space.image("extra/green/0.png", "green");
    let (_, err) = space.run(&with(TRAIN, "--select extra --test t=test --steps 1 --out run"));
    for part in [
        "val has images of 2 of the model's 3 classes, none of \"red\"",
        "select has images of 1 of",
        "\nt has images",
        "none of \"blue\": any class may",
    ] {
        assert_eq!(err.matches(part).count(), 1, "{part:?} in\n{err}");
    }
    // The same with lists by number, of which one lacks the last label.
    let list = |name: &str, split: &str, classes: &[usize]| {
        let line = |c: &usize| format!("{split}/{}/1.png {c}\n", CLASSES[*c].0);
        space.write(name, classes.iter().map(line).collect::<String>());
    };
    list("train.txt", "train", &[0, 1, 2]);
    fs::create_dir_all(space.path("val/red")).unwrap();
    space.image("val/red/1.png", "red");
    list("val.txt", "val", &[0, 1]);
    space.ok(&with(TRAIN, "--train train.txt --val val.txt --steps 1 --out lists"));
    list("val.txt", "val", &[0, 2]);
    list("train.txt", "train", &[0, 1]);
    let lists = with(TRAIN, "--train train.txt --val val.txt --steps 1 --out more");
    space.fails(1, &lists, &["val/red/1.png", "\"2\" of \"val\""]);
}
