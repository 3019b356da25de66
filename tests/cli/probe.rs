//! A linear probe by logistic regression: no steps, the tower as it was, the same files as of any run.

use crate::Space;

const PROBE: &str = "finetune --model m.safetensors --train train --val val --method linear-probe --probe logistic";

#[test]
fn a_head_is_solved_for_without_steps() {
    let space = Space::new();
    let (_, said) = space.run(&format!("{PROBE} --test t=test --out run"));
    assert!(said.contains("logistic regression: strength") && said.contains("is best on val"), "{said}");
    assert!(said.contains("training images are not augmented"), "{said}");
    let (before, after) = (space.tensors("m.safetensors"), space.tensors("run/last.safetensors"));
    for (name, (_, values)) in &before {
        assert_eq!(*values == after[name].1, !name.starts_with("head."), "{name}");
    }
    // Colours are told apart by anything.
    let scores = space.json("eval --model run/best.safetensors --data t=test");
    assert_eq!(scores[0]["top1"], 1.0, "{scores}");
    assert!(space.path("run/report.html").is_file());
    // Classes are weighed, and settings that only steps use are named.
    let unequal = space.run(&format!("{PROBE} --class-weights balanced --lr 0.5 --sampler balanced --out w")).1;
    assert!(unequal.contains("without effect in this run: lr (goes with --probe steps), sampler"), "{unequal}");
    space.write("w.txt", "blue 1\ngreen 1\nred 50\n");
    space.ok(&format!("{PROBE} --class-weights w.txt --out heavy"));
    assert!(space.bytes("heavy/last.safetensors") != space.bytes("run/last.safetensors"));
    // The same once more, chosen on images of its own.
    space.ok(&format!("{PROBE} --select test --out again"));
    let (_, said) = space.run(&format!("{PROBE} --out same"));
    assert!(said.contains("is best on val"));
    assert_eq!(space.bytes("same/last.safetensors"), space.bytes("run/last.safetensors"));
    space.fails(
        2,
        "finetune --model m.safetensors --train train --val val --method tpgm --probe logistic --out no",
        &["--probe goes with --method linear-probe"],
    );
    // An average over steps has none to be over.
    space.fails(2, &format!("{PROBE} --ema-decay 0.9 --out no"), &["--ema-decay does not go with --probe logistic"]);
}

#[test]
fn the_tower_runs_once_for_each_image_while_it_stays_as_it_is() {
    let space = Space::new();
    let steps = "finetune --model m.safetensors --train train --val val --epochs 3 --batch-size 6 --test t=test";
    let (_, said) = space.run(&format!("{steps} --augment none --method linear-probe --out kept"));
    assert!(said.contains("the layers that are not trained run once for each of"), "{said}");
    // Images that are others every time have no features to keep.
    let (_, said) = space.run(&format!("{steps} --augment flip --method linear-probe --out flipped"));
    assert!(said.contains("with --augment none they run once for each image"), "{said}");
    // The evaluation on the way, which reads features, is that of the end, which reads images.
    let lines = space.text("kept/metrics.jsonl");
    let last = lines.lines().rfind(|line| line.contains("\"val\"")).unwrap();
    let (_, again) = space.run(&format!("{steps} --augment none --method linear-probe --eval-every 3 --out once"));
    assert!(again.contains("run once for each of"), "{again}");
    let of_once = space.text("once/metrics.jsonl");
    assert_eq!(last, of_once.lines().rfind(|line| line.contains("\"val\"")).unwrap());
    assert_eq!(space.bytes("kept/last.safetensors"), space.bytes("once/last.safetensors"));
    // What trains everything says nothing of it; lp-ft keeps features in its first part alone.
    let (_, said) = space.run(&format!("{steps} --augment none --method vanilla --out all"));
    assert!(!said.contains("that are not trained"), "{said}");
    let (_, said) = space.run(&format!("{steps} --augment none --method lp-ft --out parts"));
    assert_eq!(said.matches("that are not trained run once").count(), 1, "{said}");
}
