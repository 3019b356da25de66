//! Low-rank adapters through the commands.

use crate::{Space, TRAIN, with};

#[test]
fn adapters_are_trained_merged_and_saved_alone() {
    let space = Space::new();
    let flags = "--method vanilla --lora-rank 4 --lora-alpha 8 --lr 0.1 --epochs 2";
    space.ok(&with(TRAIN, &format!("{flags} --out plain")));
    let files = std::fs::read_dir(space.path("plain")).unwrap().map(|file| file.unwrap().file_name());
    let mut models: Vec<_> = files.filter(|name| name.to_string_lossy().ends_with(".safetensors")).collect();
    models.sort();
    assert_eq!(models, ["best.safetensors", "last.safetensors", "state.safetensors"], "no adapters without --delta");

    let (_, notes) = space.run(&with(TRAIN, &format!("{flags} --delta --out run")));
    assert!(notes.contains("2 weights have adapters of rank 4"), "{notes}");
    let told = format!("4 of {} tensors differ, 2 of them as adapters", space.tensors("m.safetensors").len());
    assert_eq!(notes.matches(&told).count(), 2, "{notes}");
    let (before, after) = (space.tensors("m.safetensors"), space.tensors("run/last.safetensors"));
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>(),
        "the merged model has the model's tensors"
    );
    let adapters = space.tensors("run/last.delta.safetensors");
    let parts = |target: &str| ["A", "B"].map(|part| format!("blocks.0.attn.{target}.lora_{part}.weight"));
    let held = [&parts("proj")[..], &parts("qkv"), &["head.bias".to_string(), "head.weight".to_string()]].concat();
    assert_eq!(adapters.keys().collect::<Vec<_>>(), held.iter().collect::<Vec<_>>(), "the adapters and the head alone");
    let moved: Vec<&String> = before.keys().filter(|name| before[*name] != after[*name]).collect();
    let expected = ["blocks.0.attn.proj.weight", "blocks.0.attn.qkv.weight", "head.bias", "head.weight"];
    assert_eq!(moved, expected);
    assert_eq!(adapters["head.weight"], after["head.weight"]);
    // What the file has alone gives the merged weights again.
    for name in &expected[..2] {
        let stem = name.strip_suffix(".weight").unwrap();
        let [(a_shape, a), (b_shape, b)] =
            ["A", "B"].map(|part| adapters[&format!("{stem}.lora_{part}.weight")].clone());
        let (rank, inputs, outputs) = (a_shape[0], a_shape[1], b_shape[0]);
        assert_eq!((rank, &before[*name].0), (4, &vec![outputs, inputs]));
        let mut largest = 0.0f32;
        for (o, i) in (0..outputs).flat_map(|o| (0..inputs).map(move |i| (o, i))) {
            let delta: f32 = (0..rank).map(|r| b[o * rank + r] * a[r * inputs + i]).sum::<f32>() * 2.0;
            let at = o * inputs + i;
            assert!((before[*name].1[at] + delta - after[*name].1[at]).abs() < 1e-5, "{name}[{o}, {i}]");
            largest = largest.max(delta.abs());
        }
        assert!(largest > 1e-4, "{name}: {largest}");
    }
    // `apply` puts them together as the run did, but for the last bits: the device sums in f32, and apply in f64.
    for name in ["best", "last"] {
        let delta = format!("run/{name}.delta.safetensors");
        let out = space.ok(&format!("apply --model m.safetensors --delta {delta} --out merged.safetensors"));
        assert!(out.contains("4 of ") && out.contains("(2 by adapters)"), "{out}");
        let (merged, saved) = (space.tensors("merged.safetensors"), space.tensors(&format!("run/{name}.safetensors")));
        assert_eq!(merged.keys().collect::<Vec<_>>(), saved.keys().collect::<Vec<_>>());
        for (tensor, (shape, values)) in &saved {
            assert_eq!(*shape, merged[tensor].0);
            for (a, b) in values.iter().zip(&merged[tensor].1) {
                let rounding = if expected[..2].contains(&tensor.as_str()) { 1e-6 * a.abs().max(0.01) } else { 0.0 };
                assert!((a - b).abs() <= rounding, "{tensor}: {a} and {b}");
            }
        }
        let about = space.ok(&format!("inspect {delta}"));
        let line = "adapters      rank 4, alpha 8, of blocks.0.attn.proj.weight, blocks.0.attn.qkv.weight";
        assert!(about.contains(line) && about.contains("changed       head.bias, head.weight"), "{about}");
    }
    // A run that is over still knows the adapters of its best weights.
    let files = ["run/best.delta.safetensors", "run/last.delta.safetensors"];
    let before_resuming = files.map(|file| std::fs::read(space.path(file)).unwrap());
    files.iter().for_each(|file| std::fs::remove_file(space.path(file)).unwrap());
    space.ok("finetune --resume run --delta");
    assert!(files.map(|file| std::fs::read(space.path(file)).unwrap()) == before_resuming);

    let drift = space.rows("run/drift.csv");
    assert_eq!(drift.len(), before.len(), "no row for A or B: {drift:?}");
    let config = space.text("run/config.toml");
    assert!(config.contains("lora-rank = 4\n") && config.contains("lora-alpha = 8.0\n"), "{config}");

    // The default method, whose radii then come after the last step: what they hold is the merged drift.
    let (_, notes) = space.run(&with(TRAIN, "--lora-rank 2 --max-iters 3 --epochs 1 --delta --out post"));
    let whole = "the adapters alone do not make last.safetensors: its delta has whole weights";
    assert!(notes.contains(whole), "{notes}");
    let config = space.text("post/config.toml");
    assert!(
        config.contains("schedule = \"post\" # default\n") && config.contains("lora-alpha = 2.0 # default\n"),
        "{config}"
    );
    let radii = space.rows("post/radii.csv");
    assert!(!radii.is_empty() && radii.iter().all(|row| !row[1].contains("lora")), "{radii:?}");
    let delta = space.tensors("post/last.delta.safetensors");
    assert!(delta.contains_key("blocks.0.attn.qkv.weight") && !delta.keys().any(|name| name.contains("lora")));
    space.ok("apply --model m.safetensors --delta post/last.delta.safetensors --out post.safetensors");
    assert!(space.tensors("post.safetensors") == space.tensors("post/last.safetensors"));

    let refused = [
        ("--method linear-probe --lora-rank 2", "--lora-rank does not go with --method linear-probe"),
        ("--method ftp --lora-rank 2", "--lora-rank does not go with --method ftp"),
        ("--schedule every-step --lora-rank 2", "tpgm without --schedule post"),
        ("--method vanilla --lora-rank 0", "--lora-rank"),
        ("--method vanilla --lora-rank 99", "blocks.0.attn.qkv.weight has a rank of 16"),
        ("--method lora --lora-targets *.nothing", "--lora-targets *.nothing"),
        ("--method vanilla --lora-alpha 2", "--lora-alpha goes with --method lora"),
    ];
    for (flags, part) in refused {
        space.fails(2, &with(TRAIN, &format!("{flags} --out x")), &[part]);
    }
}
