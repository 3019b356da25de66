//! Heads from class names: the same by `zero-shot` and in place, and the errors for names and models that do not do.

use std::fs;
use std::path::Path;

use crate::{Space, TRAIN};

impl Space {
    /// With a small random model of the library's in `clip`.
    fn with_text_tower(name: &str) -> Space {
        let space = Space::new();
        fs::create_dir(space.path("clip")).unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text").join(name);
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, space.path("clip").join(path.file_name().unwrap())).unwrap();
        }
        space
    }
}

#[test]
fn a_head_is_the_same_by_its_file_and_in_place() {
    for model in ["hf_clip", "hf_siglip"] {
        let space = Space::with_text_tower(model);
        let made = space.json("zero-shot --model clip --classes-of train --templates varied --out head.safetensors");
        assert_eq!(made["classes"], serde_json::json!(["blue", "green", "red"]));
        assert_eq!(made["templates"], 30);
        assert_eq!(made["bias"].is_number(), model == "hf_siglip");
        let head = space.tensors("head.safetensors");
        let (shape, rows) = &head["weight"];
        assert_eq!(shape[0], 3);
        // 2.3 is the fixture's logit_scale, in f16.
        for row in rows.chunks(shape[1]) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((norm / 2.3f32.exp() - 1.0).abs() < 1e-3, "{norm}");
        }
        let from_file = space.json("eval --model clip --data test=test --head head.safetensors --normalize-features");
        let in_place = space.json("eval --model clip --data test=test --zero-shot --templates varied");
        assert_eq!(from_file, in_place);
        space.write("names.txt", "blue\ngreen\nred\n");
        let by_file = "predict --model clip --data test/red --head head.safetensors --normalize-features --top 3";
        let by_name =
            "predict --model clip --data test/red --zero-shot --class-names names.txt --templates varied --top 3";
        assert_eq!(space.json(by_file), space.json(by_name));
    }
}

#[test]
fn a_run_starts_from_the_zero_shot_head_and_keeps_it_as_its_anchor() {
    let space = Space::with_text_tower("hf_clip");
    let train = TRAIN.replace("m.safetensors", "clip");
    let (_, said) =
        space.run(&format!("{train} --zero-shot --test t=test --out run --method tpgm --schedule post --max-iters 3"));
    assert!(said.contains("the head for 3 classes is made from their names"), "{said}");
    let radii = fs::read_to_string(space.path("run/radii.csv")).unwrap();
    assert!(radii.contains(",head.weight,"), "{radii}");
    let config = fs::read_to_string(space.path("run/config.toml")).unwrap();
    assert!(config.contains("zero-shot = true"), "{config}");
    // The fine-tuned model needs neither names nor the text tower.
    space.ok("eval --model run/best.safetensors --data test=test");
    space.ok(&format!("{train} --zero-shot --method vanilla --out plain"));
    space.ok("finetune --resume plain --epochs 3");
    let radii = space.ok(
        "project --pretrained clip --finetuned run/last.safetensors --zero-shot --val val --max-iters 2 --out p.safetensors",
    );
    assert!(radii.contains("p.safetensors"));
    assert!(fs::read_to_string(space.path("p.safetensors.radii.csv")).unwrap().contains(",head.weight,"));
}

#[test]
fn names_and_models_that_do_not_do_are_said() {
    let space = Space::with_text_tower("hf_clip");
    space.write("empty.txt", "cat\n\ndog\n");
    space.write("twice.txt", "cat\ndog\ncat\n");
    space.write("nothing.txt", "");
    space.write("two.txt", "cat\ndog\n");
    space.write("long.txt", format!("cat\n{}\n", "very ".repeat(100)));
    space.write("templates.txt", "# pictures\na photo of a {}.\na photo\n");
    let zero_shot = "zero-shot --model clip --out h.safetensors";
    space.fails(1, &format!("{zero_shot} --classes empty.txt"), &["empty.txt", "the name of class 2 is empty"]);
    space.fails(1, &format!("{zero_shot} --classes twice.txt"), &["twice.txt", "two classes are called \"cat\""]);
    space.fails(1, &format!("{zero_shot} --classes nothing.txt"), &["nothing.txt", "no class names"]);
    space.fails(2, &format!("{zero_shot} --classes two.txt --template photo"), &["--template", "\"photo\" has no {}"]);
    space.fails(2, &format!("{zero_shot} --classes two.txt --templates templates.txt"), &["\"a photo\" has no {}"]);
    space.fails(2, &format!("{zero_shot} --classes two.txt --templates nonsense"), &["nonsense", "simple or varied"]);
    space.fails(
        1,
        "zero-shot --model m.safetensors --classes two.txt --out h.safetensors",
        &["m.safetensors", "has no text tower"],
    );
    let (_, said) = space.run(&format!("{zero_shot} --classes long.txt --templates varied"));
    assert_eq!(said.matches("are cut").count(), 1, "{said}");
    space.fails(
        1,
        "eval --model clip --data t=test --zero-shot --class-names two.txt",
        &["two.txt", "names 2 classes, but there are 3: blue, green, red"],
    );
    space.fails(2, "predict --model clip --data test/red --zero-shot", &["--class-names"]);
    space.fails(2, "eval --model clip --data t=test --templates varied", &["--templates goes with --zero-shot"]);
    space.fails(2, "eval --model clip --data t=test --zero-shot --head h.safetensors", &["--zero-shot and --head"]);
    fs::remove_file(space.path("clip/tokenizer.json")).unwrap();
    space.fails(
        1,
        &format!("{zero_shot} --classes two.txt"),
        &["tokenizer.json", "is missing", "Hugging Face hub", "--tokenizer"],
    );
}

#[test]
fn a_tower_of_fewer_tokens_than_openais_vocabulary_asks_for_its_own() {
    let space = Space::with_text_tower("open_clip");
    let parts = ["model.safetensors", "text tower has", "49408", "--tokenizer"];
    space.fails(1, "zero-shot --model clip --classes-of train --out h.safetensors", &parts);
    space.fails(1, "eval --model clip --data t=test --zero-shot", &parts);
}

#[test]
fn in_a_comparison_all_rows_start_from_the_same_head() {
    let space = Space::with_text_tower("hf_clip");
    let file = "seeds = [0]\n[common]\nmodel = \"clip\"\nzero-shot = true\nepochs = 1\nbatch-size = 6\naugment = \"none\"\n[[data]]\nname = \
                \"d\"\ntrain = \"train\"\nval = \"val\"\ntest = [\"id=test\", \"ood=val\"]\nid = [\"id\"]\n[[method]]\nname = \
                \"vanilla\"\n[[method]]\nname = \"wise\"\nalphas = [0.0, 0.5, 1.0]\n";
    space.write("c.toml", file);
    let table = space.ok("compare c.toml");
    assert!(table.contains("pretrained") && table.contains("wise"), "{table}");
}
