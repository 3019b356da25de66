//! `tpgm wise` and `tpgm soup`: checkpoints made of checkpoints.

use serde_json::Value;

use crate::Space;

#[test]
fn wise_and_soup_make_checkpoints_of_checkpoints() {
    let space = Space::new("");
    let train = "finetune --model m.safetensors --train train --val val --epochs 4 --batch-size 6 --augment none --method vanilla";
    space.ok(&format!("{train} --lr 0.05 --seed 1 --out a"));
    space.ok(&format!("{train} --lr 0.02 --seed 2 --out b"));
    let wise = "wise --pretrained m.safetensors --finetuned a/last.safetensors";
    let (m, a, b) =
        (space.tensors("m.safetensors"), space.tensors("a/last.safetensors"), space.tensors("b/last.safetensors"));
    space.ok(&format!("{wise} --alpha 0 --out w0.safetensors"));
    space.ok(&format!("{wise} --alpha 1 --out w1.safetensors"));
    let out = space.ok(&format!("{wise} --out half.safetensors"));
    assert_eq!(out, "half.safetensors, alpha 0.5\n");
    let json: Value =
        serde_json::from_str(&space.ok(&format!("{wise} --alpha 0.3 --out third.safetensors --json"))).unwrap();
    assert_eq!(json["alpha"], 0.3);
    assert!(space.tensors("w0.safetensors") == m && space.tensors("w1.safetensors") == a);
    for (name, values) in space.tensors("half.safetensors") {
        for (i, v) in values.iter().enumerate() {
            assert_eq!(*v, ((f64::from(m[&name][i]) + f64::from(a[&name][i])) / 2.0) as f32, "{name}");
        }
    }
    let out = space.ok(&format!("{wise} --sweep 5 --val val --out best.safetensors"));
    assert_eq!(out.lines().count(), 1 + 5 + 1, "{out}");
    let accuracy = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap();
    let most = out.lines().skip(1).take(5).map(accuracy).fold(0.0, f64::max);
    let eval: Value = serde_json::from_str(&space.ok("eval --model best.safetensors --data v=val --json")).unwrap();
    assert!((100.0 * eval[0]["top1"].as_f64().unwrap() - most).abs() < 0.051, "{out}{eval}");

    let out = space.ok("soup --models a/last.safetensors b/last.safetensors --out s.safetensors");
    assert_eq!(out, "s.safetensors: 2 of 2 models\n");
    for (name, values) in space.tensors("s.safetensors") {
        for (i, v) in values.iter().enumerate() {
            assert_eq!(*v, ((f64::from(a[&name][i]) + f64::from(b[&name][i])) / 2.0) as f32, "{name}");
        }
    }
    let greedy = "soup --models m.safetensors a/last.safetensors a/last.safetensors --greedy --val val";
    let out = space.ok(&format!("{greedy} --out g.safetensors"));
    let rows: Vec<&str> = out.lines().collect();
    assert!(rows[2].ends_with(" 1") && rows[3].ends_with(" 2"), "the same model twice is no worse than once: {out}");

    space.ok(&greedy.replace("--greedy", "--kind greedy --out again.safetensors"));
    assert!(space.tensors("again.safetensors") == space.tensors("g.safetensors"));
    let stock = "soup --kind model-stock --models a/last.safetensors";
    let out = space.ok(&format!("{stock} b/last.safetensors --pretrained m.safetensors --out stock.safetensors"));
    assert!(
        out.starts_with("stock.safetensors: 2 of 2 models, with ") && out.ends_with(" % of their mean's drift\n"),
        "{out}"
    );
    // The same model twice has no angle: it is the model itself.
    let out = space.ok(&format!("{stock} a/last.safetensors --pretrained m.safetensors --out same.safetensors"));
    assert_eq!(out, "same.safetensors: 2 of 2 models, with 100.0 % of their mean's drift\n");
    for (name, values) in space.tensors("same.safetensors") {
        assert!(values.iter().zip(&a[&name]).all(|(v, a)| (v - a).abs() <= 1e-6 * a.abs().max(1e-3)), "{name}");
    }
    space.fails(2, &format!("{stock} --pretrained m.safetensors --out x.safetensors"), &["two models or more"]);
    space.fails(2, &format!("{stock} b/last.safetensors --out x.safetensors"), &["model-stock needs --pretrained"]);
    let unused = "soup --models a b --pretrained m.safetensors --out x.safetensors";
    space.fails(2, unused, &["--kind uniform does not use --pretrained"]);
    space.fails(2, "soup --models a b --kind greedy --out x.safetensors", &["--kind greedy", "--val"]);
    space.fails(2, "soup --models a b --val val --out x.safetensors", &["--kind uniform", "--val"]);
    let (code, _, err) = space.run("soup --models a b --kind cold --out x.safetensors");
    assert!(code == 2 && err.contains("unknown soup \"cold\": there are uniform, greedy"), "{err}");

    space.fails(2, &format!("{wise} --alpha 1.5 --out x.safetensors"), &["--alpha 1.5"]);
    space.fails(2, &format!("{wise} --sweep 1 --val val --out x.safetensors"), &["--sweep: give at least 2"]);
    space.ok(
        "init --out wide.safetensors --classes-of train --image-size 16 --patch-size 8 --dim 24 --depth 2 --heads 2",
    );
    let wide = "wise --pretrained wide.safetensors --finetuned a/last.safetensors --out x.safetensors";
    space.fails(1, wide, &["wide.safetensors", "tensor cls_token"]);
    let wide = "soup --models a/last.safetensors wide.safetensors --out x.safetensors";
    space.fails(1, wide, &["wide.safetensors", "not as in a/last.safetensors"]);
    assert!(!space.path("x.safetensors").exists());
}
