//! The programs of `examples/`, each run as its user would.
#![allow(unreachable_pub)] // the programs are modules here

#[path = "../examples/finetune.rs"]
mod finetune;
#[path = "../examples/kernel.rs"]
mod kernel;
#[path = "../examples/predict.rs"]
mod predict;

use std::path::Path;

fn asset(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(path);
    assert!(path.exists(), "{} is missing", path.display());
    path.display().to_string()
}

#[test]
fn an_image_is_named() {
    let folder = asset("google/test/building");
    let image = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    let model = asset("vit-emoji.safetensors");
    let (class, logit) = predict::run(&[model.clone(), image.display().to_string()]).unwrap();
    assert!(!class.is_empty() && logit.is_finite(), "{class}, {logit}");
    assert_eq!(predict::run(&[model]).unwrap_err().exit_code(), 2);
}

#[test]
fn a_folder_is_learned() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").display().to_string();
    let mut args = vec![out];
    args.extend(["--model".into(), asset("resnet-emoji.safetensors"), "--train".into(), asset("google/train")]);
    args.extend([
        "--val".into(),
        asset("google/val"),
        "--steps".into(),
        "6".into(),
        "--batch-size".into(),
        "16".into(),
    ]);
    let losses = finetune::run(&args).unwrap();
    assert_eq!(losses.len(), 6);
    assert!(losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
    assert_eq!(finetune::run(&[]).unwrap_err().exit_code(), 2);
}

#[test]
fn a_kernel_computes() {
    let got = kernel::run(&[-1.0, 0.0, 3.0]).unwrap();
    // x·Φ(x)
    let want = [-0.158_655_25, 0.0, 2.995_950_3];
    assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6), "{got:?}");
}

/// They are to be read at a glance.
#[test]
fn examples_are_short() {
    for name in ["finetune", "kernel", "predict"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.rs"));
        let lines = std::fs::read_to_string(path).unwrap().lines().count();
        assert!(lines < 40, "{name}.rs has {lines} lines");
    }
}
