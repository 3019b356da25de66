//! `predict` and `eval`.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::{CLASSES, Space, read};

const PREDICT: &str = "predict --model m.safetensors";

fn softmax(logits: &[f32]) -> Vec<f64> {
    let exp: Vec<f64> = logits.iter().map(|l| f64::from(*l).exp()).collect();
    let total: f64 = exp.iter().sum();
    exp.iter().map(|e| e / total).collect()
}

/// The rows of a logits file.
fn logits(space: &Space, name: &str, count: usize) -> Vec<Vec<f32>> {
    let tensors = space.tensors(name);
    assert_eq!(tensors.keys().collect::<Vec<_>>(), ["logits"]);
    let (shape, values) = &tensors["logits"];
    assert_eq!(shape, &[count, 3]);
    values.chunks(3).map(<[f32]>::to_vec).collect()
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn a_tree_is_predicted_in_sorted_path_order() {
    let space = Space::new();
    let json = space.json(&format!("{PREDICT} --data test --logits l.safetensors --top 3"));
    let rows = logits(&space, "l.safetensors", 12);
    let list = json.as_array().unwrap();
    let expected: Vec<String> =
        CLASSES.iter().flat_map(|(class, _)| (0..4).map(move |i| format!("test/{class}/{i}.png"))).collect();
    assert_eq!(list.iter().map(|p| p["path"].as_str().unwrap()).collect::<Vec<_>>(), expected);

    for (row, logits) in list.iter().zip(&rows) {
        let top = row["top"].as_array().unwrap();
        let probabilities = softmax(logits);
        assert_eq!(top.len(), 3);
        assert!(top.is_sorted_by(|a, b| a["probability"].as_f64() >= b["probability"].as_f64()), "{row}");
        for entry in top {
            let class = CLASSES.iter().position(|(c, _)| entry["class"] == *c).unwrap();
            assert!((entry["probability"].as_f64().unwrap() - probabilities[class]).abs() < 1e-6, "{row}");
        }
    }

    // In words: one line per image, the first class of the JSON.
    let text = space.ok(&format!("{PREDICT} --data test --logits again.safetensors"));
    for (line, row) in text.lines().zip(list) {
        let (path, class) = (row["path"].as_str().unwrap(), row["top"][0]["class"].as_str().unwrap());
        assert!(line.starts_with(&format!("{path}: {class} ")) && line.ends_with(" %"), "{line}");
    }
    assert_eq!(text.lines().count(), 12);
    assert_eq!(space.bytes("again.safetensors"), space.bytes("l.safetensors"), "two runs differ");
}

#[test]
fn an_image_a_flat_folder_a_list_and_a_csv_give_the_rows_of_the_tree() {
    let space = Space::new();
    space.ok(&format!("{PREDICT} --data test --logits tree.safetensors"));
    let tree = logits(&space, "tree.safetensors", 12);

    space.ok(&format!("{PREDICT} --data test/green/1.png --logits one.safetensors"));
    assert!(close(&logits(&space, "one.safetensors", 1)[0], &tree[5]));

    space.ok(&format!("{PREDICT} --data test/green --logits flat.safetensors"));
    for (row, want) in logits(&space, "flat.safetensors", 4).iter().zip(&tree[4..8]) {
        assert!(close(row, want));
    }

    // Sorted by path, whatever the order of the lines.
    space.write("few.txt", "# two images\ntest/red/3.png red\ntest/blue/0.png blue\n");
    space.write("lists/few.csv", "label,path\nred,test/red/3.png\nblue,test/blue/0.png\n");
    for data in ["few.txt", "lists/few.csv --root ."] {
        let json = space.json(&format!("{PREDICT} --data {data} --logits few.safetensors"));
        assert!(json[0]["path"].as_str().unwrap().ends_with("test/blue/0.png"), "{json}");
        let rows = logits(&space, "few.safetensors", 2);
        assert!(close(&rows[0], &tree[0]) && close(&rows[1], &tree[11]), "{data}");
    }

    // Batches that do not divide the images.
    space.ok(&format!("{PREDICT} --data test --batch-size 5 --logits fives.safetensors"));
    for (row, want) in logits(&space, "fives.safetensors", 12).iter().zip(&tree) {
        assert!(close(row, want));
    }
}

#[test]
fn eval_gives_the_figures_of_the_logits() {
    let space = Space::new();
    space.ok(&format!("{PREDICT} --data test --logits l.safetensors"));
    let rows = logits(&space, "l.safetensors", 12);
    let (mut loss, mut right) = (0.0, [0; 3]);
    for (i, row) in rows.iter().enumerate() {
        loss -= softmax(row)[i / 4].ln() / 12.0;
        right[i / 4] += usize::from((0..3).all(|c| row[c] <= row[i / 4]));
    }
    let json = space.json("eval --model m.safetensors --data t=test v=val --per-class");
    let t = &json[0];
    assert_eq!((&t["data"], &t["images"], &json[1]["data"]), (&Value::from("t"), &Value::from(12), &Value::from("v")));
    assert!((t["loss"].as_f64().unwrap() - loss).abs() < 1e-6, "{t}, expected a loss of {loss}");
    assert!((t["top1"].as_f64().unwrap() - right.iter().sum::<usize>() as f64 / 12.0).abs() < 1e-9, "{t}");
    assert_eq!(t["top5"], 1.0);
    for (i, (class, _)) in CLASSES.iter().enumerate() {
        assert_eq!(t["per_class"][i], serde_json::json!({"class": class, "images": 4, "right": right[i]}));
    }

    let text = space.ok("eval --model m.safetensors --data t=test --per-class");
    assert!(text.starts_with("data  images  top-1 %"), "{text}");
    assert!(CLASSES.iter().all(|(class, _)| text.contains(class)), "{text}");
}

#[test]
fn eval_matches_labels_by_name() {
    let space = Space::new();
    let whole = space.json("eval --model m.safetensors --data t=test --per-class");
    // Without blue, green would be the first class if labels were numbers.
    fs::remove_dir_all(space.path("test/blue")).unwrap();
    let list: String = (0..4).map(|i| format!("test/red/{i}.png red\n")).collect();
    space.write("red.txt", list);
    let part = space.json("eval --model m.safetensors --data part=test red=red.txt --per-class --batch-size 100000");
    assert_eq!(part[0]["images"], 8);
    assert_eq!(part[0]["per_class"][0]["images"], 0);
    for class in [1, 2] {
        assert_eq!(part[0]["per_class"][class], whole[0]["per_class"][class]);
    }
    assert_eq!(part[1]["per_class"][2], whole[0]["per_class"][2]);
}

/// Folders named by WordNet id, some of the model's classes only: the same figures as a list with the outputs' numbers.
#[test]
fn a_class_map_says_which_folder_is_which_output() {
    let space = Space::new();
    let model = crate::common::fixture_path("vit_small");
    let model = format!("--model {} --heads 3", model.display());
    space.image("subset/n05/a.png", "red");
    space.image("subset/n02/b.png", "blue");
    space.image("subset/n02/c.png", "red");
    let map: String = (0..7).map(|i| format!("n0{i} class number {i}\n")).collect();
    space.write("map.txt", map);
    space.write("list.txt", "n05/a.png 5\nn02/b.png 2\nn02/c.png 2\n");
    let by_map = space.json(&format!("eval {model} --data s=subset --class-map map.txt --per-class"));
    let by_number = space.json(&format!("eval {model} --data s=list.txt --root subset"));
    for key in ["images", "loss", "top1", "top5", "ece"] {
        assert_eq!(by_map[0][key], by_number[0][key], "{key}");
    }
    assert_eq!(
        by_map[0]["per_class"][2],
        serde_json::json!({"class": "class number 2", "images": 2, "right": by_map[0]["per_class"][2]["right"]})
    );

    // `predict` names the outputs by it.
    let named = space.json(&format!("predict {model} --data subset --class-map map.txt"));
    let names: Vec<&str> = named.as_array().unwrap().iter().map(|p| p["top"][0]["class"].as_str().unwrap()).collect();
    assert!(names.len() == 3 && names.iter().all(|name| name.starts_with("class number ")), "{names:?}");

    space.write("short.txt", "n02 two\nn05 five\n");
    space.fails(
        1,
        &format!("eval {model} --data s=subset --class-map short.txt"),
        &["short.txt", "2 classes", "7 outputs"],
    );
    space.write("other.txt", "n02 two\n");
    let train = "finetune --model m.safetensors --train subset --val subset --out run --class-map other.txt";
    space.fails(1, train, &["other.txt", "\"n05\"", "not in this map"]);
}

#[test]
fn eval_tells_what_is_taken_for_what() {
    let space = Space::new();
    let json = space.json("eval --model m.safetensors --data t=test v=val --confusion c.csv");
    let mut rows = space.rows("c.csv").into_iter();
    assert!(space.text("c.csv").starts_with("data,class,predicted,images\n"));
    for set in json.as_array().unwrap() {
        let (mut images, mut right) = (0, 0);
        for cell in set["confusion"].as_array().unwrap() {
            let row = rows.next().unwrap();
            let want = [&set["data"], &cell["class"], &cell["predicted"], &cell["images"]];
            assert_eq!(row, want.map(|v| v.as_str().map_or_else(|| v.to_string(), String::from)));
            let n = cell["images"].as_u64().unwrap();
            images += n;
            right += if cell["class"] == cell["predicted"] { n } else { 0 };
        }
        assert_eq!(images, 12);
        assert!((set["top1"].as_f64().unwrap() - right as f64 / 12.0).abs() < 1e-12, "{set}");
        let bins = set["bins"].as_array().unwrap();
        assert_eq!((bins.len(), bins.iter().map(|b| b["images"].as_u64().unwrap()).sum::<u64>()), (15, 12));
    }
    assert!(rows.next().is_none());
    space.fails(1, "eval --model m.safetensors --data t=test --confusion nowhere/c.csv", &["nowhere", "cannot"]);
}

#[test]
fn eval_fits_a_temperature_on_one_set_and_judges_the_others_at_it() {
    let space = Space::new();
    let plain = space.json("eval --model m.safetensors --data t=test v=val");
    let json = space.json("eval --model m.safetensors --data t=test --calibrate v=val");
    assert_eq!(json.as_array().unwrap().len(), 1, "the set that is fitted on is not reported");
    let mut t = json[0].clone();
    let calibrated = t.as_object_mut().unwrap().remove("calibrated").unwrap();
    assert_eq!(t, plain[0], "a temperature changes nothing else");
    let temperature = calibrated["temperature"].as_f64().unwrap();
    assert!((0.05..=20.0).contains(&temperature));

    // The loss at it, from the logits themselves.
    space.ok(&format!("{PREDICT} --data test --logits l.safetensors"));
    let scaled = |row: &Vec<f32>| row.iter().map(|l| l / temperature as f32).collect::<Vec<f32>>();
    let rows = logits(&space, "l.safetensors", 12);
    let loss: f64 = rows.iter().enumerate().map(|(i, row)| -softmax(&scaled(row))[i / 4].ln() / 12.0).sum();
    assert!((calibrated["loss"].as_f64().unwrap() - loss).abs() < 1e-5, "{calibrated}, expected a loss of {loss}");

    // On the set that it was fitted on, it is no worse than none; and that this is the same set is told.
    let (out, err) = space.run("eval --model m.safetensors --data again=val --calibrate v=val --json");
    assert!(err.contains("warning: v and again share images"), "{err}");
    let again: Value = serde_json::from_str(&out).unwrap();
    let at_it = again[0]["calibrated"]["loss"].as_f64().unwrap();
    assert!(at_it <= again[0]["loss"].as_f64().unwrap(), "{again}");

    let text = space.ok("eval --model m.safetensors --data t=test --calibrate v=val");
    assert!(text.contains("ECE at T") && text.contains("temperature T = ") && text.contains("fitted on v"), "{text}");
    space.fails(2, "eval --model m.safetensors --data t=test --calibrate t=val", &["two data sets are called t"]);
}

/// The features of a file that `embed` wrote, with their shape, and its labels if it has any.
fn features(space: &Space, name: &str) -> (Vec<usize>, Vec<f32>, Option<Vec<u32>>) {
    let bytes = space.bytes(name);
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert!(file.names().iter().all(|name| ["features", "labels"].contains(name)), "{:?}", file.names());
    let words = |name: &str| -> Option<Vec<[u8; 4]>> {
        Some(file.tensor(name).ok()?.data().chunks(4).map(|word| word.try_into().unwrap()).collect())
    };
    let values = words("features").unwrap().into_iter().map(f32::from_le_bytes).collect();
    let labels = words("labels").map(|words| words.into_iter().map(u32::from_le_bytes).collect());
    (file.tensor("features").unwrap().shape().to_vec(), values, labels)
}

#[test]
fn embedded_features_are_those_that_enter_the_head() {
    let space = Space::new();
    let line = "embed --model m.safetensors --data test --out f.safetensors";
    assert!(space.ok(line).contains("of each of 12 images"));
    let ((shape, own, labels), model) = (features(&space, "f.safetensors"), space.tensors("m.safetensors"));
    assert_eq!(labels.unwrap(), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
    let (head, bias) = (&model["head.weight"], &model["head.bias"].1);
    let width = head.0[1];
    assert_eq!(shape, [12, width]);
    space.ok(&format!("{PREDICT} --data test --logits l.safetensors"));
    for (row, wanted) in own.chunks(width).zip(logits(&space, "l.safetensors", 12)) {
        let outputs = head
            .1
            .chunks(width)
            .zip(bias)
            .map(|(weights, bias)| bias + weights.iter().zip(row).map(|(w, x)| w * x).sum::<f32>());
        assert!(close(&outputs.collect::<Vec<_>>(), &wanted), "{wanted:?}");
    }
    let bytes = space.bytes("f.safetensors");
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    let list = |key: &str| serde_json::from_str::<Vec<String>>(&metadata[key]).unwrap();
    assert_eq!(list("classes"), CLASSES.map(|(class, _)| class));
    assert_eq!(list("paths")[4..6], [format!("test/{}/0.png", CLASSES[1].0), format!("test/{}/1.png", CLASSES[1].0)]);

    // A folder without folders has no labels, and a tower without a head has features all the same.
    let flat = format!("test/{}", CLASSES[2].0);
    let json = space.json(&format!("embed --model m.safetensors --data {flat} --out flat.safetensors"));
    assert_eq!((json["images"].as_u64(), json["features"].as_u64()), (Some(4), Some(width as u64)));
    let (_, part, labels) = features(&space, "flat.safetensors");
    assert!(close(&part, &own[8 * width..]) && labels.is_none());
    let tower: Vec<_> = model.iter().filter(|(name, _)| !name.starts_with("head.")).collect();
    let bytes: Vec<Vec<u8>> =
        tower.iter().map(|(_, (_, values))| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tower.iter().zip(&bytes).map(|((name, (shape, _)), bytes)| {
        (name.as_str(), safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, &space.path("tower.safetensors")).unwrap();
    space.ok("embed --model tower.safetensors --heads 2 --data test --out t.safetensors");
    assert!(close(&features(&space, "t.safetensors").1, &own));
    space.fails(1, "predict --model tower.safetensors --heads 2 --data test --logits x", &["no head", "tpgm embed"]);
    space.fails(1, "embed --model m.safetensors --data nowhere --out x", &["nowhere"]);
    space.no_stray_files();
}

/// What the `k` most similar of `train` vote for, worked out in f64.
fn voted(train: &[(usize, Vec<f32>)], row: &[f32], k: usize) -> usize {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let similar = |other: &[f32]| dot(row, other) / (dot(row, row) * dot(other, other)).sqrt();
    let mut all: Vec<(f64, usize)> = train.iter().map(|(label, other)| (similar(other), *label)).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut votes = [0.0; 3];
    all[..k].iter().for_each(|(similarity, label)| votes[*label] += (similarity / 0.07).exp());
    (0..3).max_by(|a, b| f64::total_cmp(&votes[*a], &votes[*b])).unwrap()
}

#[test]
fn neighbours_vote_for_the_classes_of_training_images() {
    let space = Space::new();
    let rows = |set: &str| {
        space.ok(&format!("embed --model m.safetensors --data {set} --out {set}.safetensors"));
        let (shape, values, _) = features(&space, &format!("{set}.safetensors"));
        let each = shape[0] / 3;
        values.chunks(shape[1]).enumerate().map(|(i, row)| (i / each, row.to_vec())).collect::<Vec<_>>()
    };
    let (train, test) = (rows("train"), rows("test"));
    for k in [1, 5, 18] {
        let right = test.iter().filter(|(label, row)| voted(&train, row, k) == *label).count();
        let knn = format!("eval --model m.safetensors --data t=test --train train --knn {k}");
        let json = space.json(&knn);
        assert_eq!(json[0]["top1"].as_f64().unwrap(), right as f64 / 12.0, "k = {k}");
        assert!(json[0]["loss"].as_f64().unwrap().is_finite());
    }
    assert_eq!(space.json("eval --model m.safetensors --data t=train --train train --knn 1")[0]["top1"], 1.0);
    let alone = space.command("eval --model m.safetensors --data t=test --knn 5").output().unwrap();
    assert!(alone.status.code() == Some(2) && String::from_utf8_lossy(&alone.stderr).contains("--train <PATH>"));
    space.fails(2, "eval --model m.safetensors --data t=test --train train --knn 0", &["--knn must be greater than 0"]);
}

#[test]
fn patterns_archives_and_lists_on_stdin_give_the_rows_of_the_tree() {
    let space = Space::new();
    let tree = space.json(&format!("{PREDICT} --data test"));
    let green: Vec<Value> = tree.as_array().unwrap()[4..8].to_vec();
    // The test's runner splits words at spaces and expands nothing, as quotes would.
    for pattern in ["test/green/*.png", "test/g*/?.png", "test/**/green/[0-3].png"] {
        assert_eq!(space.json(&format!("{PREDICT} --data {pattern}")), Value::from(green.clone()), "{pattern}");
    }
    // A folder may be matched as well, and so may a name that looks like a pattern be there.
    assert_eq!(space.json(&format!("{PREDICT} --data test/gre*")), Value::from(green.clone()));
    fs::rename(space.path("test/green/2.png"), space.path("test/green/[2].png")).unwrap();
    let one = space.json(&format!("{PREDICT} --data test/green/[2].png"));
    assert_eq!((one.as_array().unwrap().len(), &one[0]["top"]), (1, &green[2]["top"]));
    fs::rename(space.path("test/green/[2].png"), space.path("test/green/2.png")).unwrap();
    space.fails(
        1,
        &format!("{PREDICT} --data test/yellow/*.png"),
        &["test/yellow/*.png", "nothing matches this pattern"],
    );
    space.fails(2, &format!("{PREDICT} --data test/[/*.png"), &["not a pattern"]);

    let piped = |list: &str, flags: &str| {
        let mut command = space.command(&format!("{PREDICT} --data - {flags}"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
        read(child.wait_with_output().unwrap())
    };
    let list = "test/green/3.png\r\n\ntest/green/1.png\ntest/green/2.png\ntest/green/0.png\n";
    let (code, out, err) = piped(list, "--json");
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), Value::from(green.clone()));
    let (code, out, _) = piped("green/0.png\ngreen/1.png\n", "--root test --json");
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (Some(0), Value::from(green[..2].to_vec())));
    // All that can't be read are named at once, or left out.
    space.write("test/green/bad.png", "no image");
    let list = "test/green/0.png\nnowhere.png\ntest/green/bad.png\n";
    let (code, out, err) = piped(list, "");
    let last = err.lines().last().unwrap();
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(["nowhere.png", "test/green/bad.png", "--skip-broken"].iter().all(|part| last.contains(part)), "{err}");
    let (code, out, err) = piped(list, "--skip-broken");
    assert_eq!((code, out.lines().count()), (Some(0), 1), "{err}");
    let (code, _, err) = piped("\n", "");
    assert!(code == Some(1) && err.lines().last().unwrap().contains("there are no paths"), "{err}");
}

#[test]
fn a_csv_and_lines_of_json_say_what_the_document_says() {
    let space = Space::new();
    let document = space.json(&format!("{PREDICT} --data test --top 2"));
    let rows = document.as_array().unwrap();
    let lines = space.ok(&format!("{PREDICT} --data test --top 2 --jsonl --batch-size 5"));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 12);
    let near = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-6;
    for (line, row) in lines.iter().zip(rows) {
        assert_eq!((&line["path"], &line["top"][0]["class"]), (&row["path"], &row["top"][0]["class"]));
        assert!((0..2).all(|i| near(&line["top"][i]["probability"], &row["top"][i]["probability"])), "{line} {row}");
    }
    let text = space.ok(&format!("{PREDICT} --data test --top 2 --csv p.csv"));
    assert_eq!(text, space.ok(&format!("{PREDICT} --data test --top 2")), "as without it");
    let csv = space.ok(&format!("{PREDICT} --data test --top 2 --csv -"));
    assert_eq!(csv, space.text("p.csv"));
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(reader.headers().unwrap(), vec!["path", "rank", "class", "probability"]);
    let table: Vec<(String, usize, String, f64)> = reader.deserialize().map(Result::unwrap).collect();
    assert_eq!(table.len(), 24);
    for (nth, (path, rank, class, probability)) in table.iter().enumerate() {
        let entry = &rows[nth / 2]["top"][nth % 2];
        assert_eq!(
            (path.as_str(), *rank, class.as_str()),
            (rows[nth / 2]["path"].as_str().unwrap(), nth % 2 + 1, entry["class"].as_str().unwrap())
        );
        assert!((probability - entry["probability"].as_f64().unwrap()).abs() < 1e-12);
    }
    let (code, _, err) = read(space.command(&format!("{PREDICT} --data test --json --jsonl")).output().unwrap());
    assert!(code == Some(2) && err.contains("'--json' cannot be used with '--jsonl'"), "{err}");
    space.fails(2, &format!("{PREDICT} --data test --json --csv -"), &["--csv - and --json both write to stdout"]);
    space.fails(1, &format!("{PREDICT} --data test --csv nowhere/p.csv"), &["nowhere/p.csv"]);
}

#[test]
fn features_come_with_the_predictions() {
    let space = Space::new();
    space.ok("init --arch resnet --out r.safetensors --classes-of train --image-size 32");
    for (model, flags) in [("m", ""), ("r", ""), ("m", "--batch-size 5")] {
        space.ok(&format!("embed --model {model}.safetensors --data test --out alone.safetensors {flags}"));
        let line = format!("predict --model {model}.safetensors --data test --embed both.safetensors {flags}");
        let text = space.ok(&format!("{line} --logits l.safetensors"));
        assert_eq!(text, space.ok(&format!("predict --model {model}.safetensors --data test {flags}")));
        let (alone, both) = (features(&space, "alone.safetensors"), features(&space, "both.safetensors"));
        assert_eq!(alone.0, both.0);
        let most = alone.1.iter().zip(&both.1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(most < 1e-5, "{model}: {most}");
    }
    space.ok("embed --model m.safetensors --data test --out alone.safetensors");
    space.ok(&format!("{PREDICT} --data test --embed both.safetensors"));
    let paths = |name: &str| {
        let bytes = space.bytes(name);
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        header.metadata().as_ref().unwrap()["paths"].clone()
    };
    assert_eq!(paths("alone.safetensors"), paths("both.safetensors"));
    space.fails(1, &format!("{PREDICT} --data test --embed nowhere/e.safetensors"), &["nowhere"]);
    space.fails(2, &format!("{PREDICT} --data test --embed e.safetensors --tta flip"), &["--embed", "leave --tta out"]);
}
