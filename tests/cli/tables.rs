//! Tables, lists and folders as users have them: what one command reads, all read alike, and nothing is dropped without a word.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::{CLASSES, Space, TRAIN, read, with};

/// A folder of images beside a table of them, with two columns that could be labels.
fn tabled(space: &Space) {
    let mut csv = String::from("file_name,label,species\n");
    let mut lines = String::new();
    for (i, (class, _)) in CLASSES.iter().enumerate() {
        for k in 0..4 {
            let name = format!("{class}-{k}.png");
            space.image(&format!("flat/{name}"), class);
            space.image(&format!("lines/{name}"), class);
            csv += &format!("{name},{class},kind{i}\n");
            lines += &format!(
                "{{\"file_name\": \"{name}\", \"label\": \"{class}\", \"species\": \"{};both\"}}\n",
                ["even", "odd"][i % 2]
            );
        }
    }
    space.write("flat/metadata.csv", csv);
    space.write("lines/metadata.jsonl", lines);
}

#[test]
fn copies_of_images_in_a_table_keep_their_classes_and_stay_in_their_folder() {
    let space = Space::new();
    tabled(&space);
    let shape = "--image-size 16 --crop-pct 1 --crop-mode squash";
    space.ok(&format!("corrupt --data flat --out copies --corrupt fog:1 snow:2 {shape}"));
    for set in ["copies/fog/1", "copies/snow/2"] {
        let rows = space.json(&format!("eval --model m.safetensors --data t={set}"));
        assert_eq!(rows[0]["images"], 12, "{set}");
    }
    // A table may name images anywhere; their copies go nowhere else.
    space.image("else/a.png", "red");
    let before = space.bytes("else/a.png");
    space.write("else/a.png.png", "somebody's");
    let outside = space.path("else/a.png").display().to_string();
    space.image("other/a.png", "red");
    space.write("far/metadata.csv", format!("file_name,label\n{outside},red\n../other/a.png,red\n"));
    space.fails(1, &format!("corrupt --data far --out c --corrupt fog:1 {shape} --json"), &["would have the name"]);
    space.write("far/metadata.csv", format!("file_name,label\n{outside},red\n"));
    space.ok(&format!("corrupt --data far --out c --corrupt fog:1 {shape}"));
    assert!(space.path("c/fog/1/red/a.png.png").is_file());
    assert_eq!((space.bytes("else/a.png"), space.text("else/a.png.png")), (before, "somebody's".to_string()));
    space.write("far/metadata.csv", format!("file_name,label\n{outside},a/b\n"));
    space.fails(1, "corrupt --data far --out d --corrupt fog:1", &["a/b", "name of a folder"]);
    space.fails(2, "corrupt --data test --out test/red/more --corrupt fog:1", &["test/red/more", "lies in --data"]);
}

#[cfg(unix)]
#[test]
fn copies_that_are_stopped_leave_nothing_behind() {
    let space = Space::new();
    let line = "corrupt --data train --out c --image-size 256 --json";
    let mut child = space.command(line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = || {
        fs::read_dir(space.path(".")).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().starts_with(".c.part"))
    };
    while !begun() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it could be stopped");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let (code, _, err) = read(child.wait_with_output().unwrap());
    assert_eq!(code, Some(143), "{err}");
    assert!(!space.path("c").exists());
    space.no_stray_files();
}

#[test]
fn the_column_of_labels_is_that_which_is_named_whatever_the_table() {
    let space = Space::new();
    tabled(&space);
    let train = "finetune --model m.safetensors --epochs 1 --batch-size 6 --augment none --method vanilla";
    let said = |flags: &str| space.run(&format!("{train} {flags}")).1;
    assert!(said("--train flat --val flat --label-column species --out a").contains("0 = kind0, 1 = kind1, 2 = kind2"));
    assert!(said("--train lines --val lines --label-column species --out b").contains("0 = even;both, 1 = odd;both"));
    let several = said("--train lines --val lines --label-column species --label-separator ; --out c");
    assert!(several.contains("24 labels, 2.00 per image"), "{several}");
    let line = format!("{train} --train lines --val lines --label-column nosuch --out d");
    space.fails(1, &line, &["lines/metadata.jsonl", "line 1", "there is no `nosuch`"]);
    // And `embed` has the labels that the others read.
    for set in ["flat", "lines"] {
        space.ok(&format!("embed --model m.safetensors --data {set} --out {set}.safetensors"));
        let bytes = space.bytes(&format!("{set}.safetensors"));
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("labels").unwrap().shape(), [12], "{set}");
    }
    // Without a column of labels, and beside a folder of the system's, it is a folder of images.
    space.image("plain/0.png", "red");
    space.write("plain/metadata.csv", "file_name,note\n0.png,x\n");
    fs::create_dir(space.path("plain/@eaDir")).unwrap();
    space.ok("embed --model m.safetensors --data plain --out p.safetensors");
}

#[test]
fn no_cell_of_a_table_is_dropped() {
    let space = Space::new();
    let eval = "eval --model m.safetensors --data t=t.csv";
    for (text, parts) in [
        ("path,labels\ntest/red/0.png,red,blue\n", ["line 2", "it has 3 cells, and the header 2 columns"]),
        ("path,label\ntest/red/0.png,red\ntest/red/1.png,red,green\n", ["line 3", "3 cells"]),
        ("path,blue,green,blue\ntest/red/0.png,1,0,1\n", ["line 1", "the column \"blue\" is there twice"]),
    ] {
        space.write("t.csv", text);
        space.fails(1, eval, &["t.csv", parts[0], parts[1]]);
    }
    // Empty cells at the end say nothing.
    space.write("t.csv", "path,label\ntest/red/0.png,red,,\ntest/blue/1.png,blue\n");
    space.ok(eval);
}

#[test]
fn names_of_splits_and_of_copies_are_taken() {
    let space = Space::new();
    for name in ["train", "val", "select"] {
        let line = with(TRAIN, &format!("--test {name}=test --out run"));
        space.fails(2, &line, &[&format!("--test {name}="), "another split", "take another"]);
    }
    let copy = "t=test t+fog1=val --corrupt fog:1";
    space.fails(2, &with(TRAIN, &format!("--test {copy} --out run")), &["--test t+fog1=", "corrupted copy"]);
    space.fails(2, &format!("eval --model m.safetensors --data {copy}"), &["--data t+fog1=", "corrupted copy"]);
    space.ok("eval --model m.safetensors --data t=test t+fog2=val --corrupt fog:1");
    for flags in ["--epochs 6148914691236517206", "--epochs 1 --eval-every 6148914691236517206"] {
        space.fails(2, &with(TRAIN, &format!("{flags} --out run")), &["6148914691236517206", "at most"]);
    }
    let out = "lr-find --model m.safetensors --train train --batch-size 6 --lr-steps 12 --out nowhere/x.html";
    space.fails(2, out, &["--out nowhere/x.html"]);
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_name() {
    let space = Space::new();
    space.write("map.txt", "\u{feff}blue Blue\ngreen Green\nred Red\n");
    space.ok("eval --model m.safetensors --data t=test --class-map map.txt");
    space.write("map.json", "\u{feff}{\"0\": [\"blue\", \"b\"], \"1\": [\"green\", \"g\"], \"2\": [\"red\", \"r\"]}");
    space.ok("eval --model m.safetensors --data t=test --class-map map.json");
    space.write("w.txt", "\u{feff}blue 1\ngreen 2\nred 3\n");
    space.ok(&with(TRAIN, "--class-weights w.txt --steps 1 --out run"));
    let mut child = space.command("predict --model m.safetensors --data -");
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all("\u{feff}test/red/0.png\n".as_bytes()).unwrap();
    let (code, out, err) = read(child.wait_with_output().unwrap());
    assert!(code == Some(0) && out.starts_with("test/red/0.png: "), "{out}{err}");
}

#[test]
fn an_image_without_a_label_is_a_row_and_votes_are_for_one_class() {
    let space = Space::new();
    let rows = |sets: &[&str]| {
        let own = CLASSES.iter().map(|(class, _)| format!("train/{class}/0.png,{}\n", sets[0]));
        "path,labels\n".to_string() + &own.collect::<String>() + &format!("train/red/1.png,{}\n", sets[1])
    };
    space.write("many.csv", rows(&["red", "green;blue"]));
    space.fails(
        2,
        "eval --model m.safetensors --data m=many.csv s=test --knn 1 --train train",
        &["many", "--zero-shot and --knn answer with one class"],
    );
    // A model of labels whose thresholds nothing reaches.
    let train = "finetune --model m.safetensors --train many.csv --val many.csv --steps 1 --lr 1e-9 --method vanilla --batch-size 4";
    space.ok(&format!("{train} --out run"));
    space.ok("predict --model run/last.safetensors --data test --csv p.csv");
    let rows = space.rows("p.csv");
    let named: std::collections::BTreeSet<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(named.len(), 12, "{rows:?}");
    assert!(rows.iter().all(|row| row.len() == 4));
}
