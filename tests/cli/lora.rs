//! Low-rank adapters through the commands.

use crate::{Space, TRAIN, with};

#[test]
fn adapters_are_trained_merged_and_saved_alone() {
    let space = Space::new();
    let flags = "--method vanilla --lora-rank 4 --lora-alpha 8 --lr 0.1 --epochs 2";
    let (_, notes) = space.run(&with(TRAIN, &format!("{flags} --out run")));
    assert!(notes.contains("2 weights have adapters of rank 4"), "{notes}");
    let (before, after) = (space.tensors("m.safetensors"), space.tensors("run/last.safetensors"));
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>(),
        "the merged model has the model's tensors"
    );
    let adapters = space.tensors("run/last.adapters.safetensors");
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
    let drift = space.rows("run/drift.csv");
    assert_eq!(drift.len(), before.len(), "no row for A or B: {drift:?}");
    let config = space.text("run/config.toml");
    assert!(config.contains("lora-rank = 4\n") && config.contains("lora-alpha = 8.0\n"), "{config}");

    // The default method, whose radii then come after the last step: what they hold is the merged drift.
    space.ok(&with(TRAIN, "--lora-rank 2 --max-iters 3 --epochs 1 --out post"));
    let config = space.text("post/config.toml");
    assert!(
        config.contains("schedule = \"post\" # default\n") && config.contains("lora-alpha = 2.0 # default\n"),
        "{config}"
    );
    let radii = space.rows("post/radii.csv");
    assert!(!radii.is_empty() && radii.iter().all(|row| !row[1].contains("lora")), "{radii:?}");
    assert!(!space.path("post/last.adapters.safetensors").exists(), "a projected weight is no product of the adapters");

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
