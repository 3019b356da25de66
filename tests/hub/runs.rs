//! Every command that opens a model takes its name, and a run goes on with the model that it began with.

use std::fs;

use image::{Rgb, RgbImage};
use serde_json::Value;

use super::server::Hub;
use super::{Home, fails, good, read};

const NAME: &str = "a/tiny";
const TRAIN: &str =
    "finetune --model hf://a/tiny --train train --val train --steps 4 --batch-size 3 --augment none --out run";

/// A home with images of two classes, and a model of them on the hub that only the hub has.
fn start() -> (Hub, Home) {
    let hub = Hub::start();
    let home = Home::of(&hub);
    for (class, colour) in [("blue", [40, 60, 200]), ("red", [200, 50, 40])] {
        fs::create_dir_all(home.path("train").join(class)).unwrap();
        for i in 0..3u8 {
            let image = RgbImage::from_fn(16, 16, |x, y| Rgb(colour.map(|v| v + (x * y) as u8 % (3 + i))));
            image.save(home.path(&format!("train/{class}/{i}.png"))).unwrap();
        }
    }
    publish(&hub, &home, 0);
    (hub, home)
}

/// Puts a model drawn by `seed` on the hub; a copy stays in the home.
fn publish(hub: &Hub, home: &Home, seed: u64) {
    let model = "--image-size 16 --patch-size 8 --dim 16 --depth 1 --heads 2";
    good(home.command(&format!("init --out first.safetensors --classes-of train {model} --seed {seed}")));
    hub.put(NAME, "main", &[("model.safetensors", &fs::read(home.path("first.safetensors")).unwrap())]);
}

/// `line` on the adapter under test.
pub(super) fn on_adapter(line: &str) -> String {
    match std::env::var("TPGM_TEST_ADAPTER") {
        Ok(adapter) => format!("{line} --adapter {adapter}"),
        Err(_) => line.into(),
    }
}

#[test]
fn every_command_takes_a_name() {
    let (_hub, home) = start();
    let run = |line: &str| {
        let by_name = good(home.command(line)).0;
        let by_path = good(home.command(&line.replace("hf://a/tiny", "first.safetensors"))).0;
        (by_name, by_path)
    };
    for line in ["eval --model hf://a/tiny --data t=train", "predict --model hf://a/tiny --data train"] {
        let (by_name, by_path) = run(&on_adapter(line));
        assert!(!by_name.is_empty(), "{line}");
        assert_eq!(by_name, by_path, "{line}");
    }
    for line in [
        "embed --model hf://a/tiny --data train --out out.safetensors",
        "wise --pretrained hf://a/tiny --finetuned hf://a/tiny --alpha 0.5 --out out.safetensors",
        "soup --models hf://a/tiny hf://a/tiny@main --out out.safetensors",
        "soup --models hf://a/tiny hf://a/tiny --pretrained hf://a/tiny --kind model-stock --out out.safetensors",
        "project --pretrained hf://a/tiny --finetuned hf://a/tiny --val train --max-iters 2 --out out.safetensors --delta",
    ] {
        let mut written = Vec::new();
        for line in [
            line.to_string(),
            line.replace("hf://a/tiny@main", "first.safetensors").replace("hf://a/tiny", "first.safetensors"),
        ] {
            good(home.command(&on_adapter(&line)));
            written.push(fs::read(home.path("out.safetensors")).unwrap());
        }
        assert!(written[0] == written[1], "{line}: other bytes than with a path");
    }
    let delta = "apply --model hf://a/tiny --delta out.delta.safetensors --out applied.safetensors";
    good(home.command(delta));
}

#[test]
fn a_run_keeps_the_name_and_goes_on_with_the_same_model() {
    let (hub, home) = start();
    good(home.command(&on_adapter(TRAIN)));
    let config = fs::read_to_string(home.path("run/config.toml")).unwrap();
    assert!(config.contains("model = \"hf://a/tiny\""), "{config}");
    good(home.command(&on_adapter("finetune --resume run --steps 6")));
    let delta = on_adapter(&TRAIN.replace("--out run", "--delta --out other"));
    good(home.command(&delta));
    good(home.command("apply --model hf://a/tiny --delta other/last.delta.safetensors --out whole.safetensors"));
    assert_eq!(
        fs::read(home.path("whole.safetensors")).unwrap(),
        fs::read(home.path("other/last.safetensors")).unwrap()
    );

    publish(&hub, &home, 1);
    let command = home.command(&on_adapter("finetune --resume run --steps 8"));
    fails(command, &["the weights of --model"]);
}

#[test]
fn a_run_by_config_and_a_comparison_take_a_name() {
    let (_hub, home) = start();
    let settings =
        "model = \"hf://a/tiny\"\ntrain = \"train\"\nval = \"train\"\nsteps = 2\nbatch-size = 3\naugment = \"none\"\n";
    fs::write(home.path("run.toml"), settings).unwrap();
    good(home.command(&on_adapter("finetune --config run.toml --out run")));
    let common = settings.replace("train = \"train\"\nval = \"train\"\n", "");
    let text = format!(
        "out = \"compared\"\nseeds = [0]\n[common]\n{common}\n[[data]]\nname = \"c\"\ntrain = \"train\"\nval = \"train\"\n\
         test = [\"t=train\", \"u=train\"]\nid = [\"t\"]\n\n[[method]]\nname = \"vanilla\"\ngrid.lr = [0.01]\n"
    );
    fs::write(home.path("compare.toml"), text).unwrap();
    let (code, out, err) = read(home.command(&on_adapter("compare compare.toml --json")).output().unwrap());
    assert_eq!(code, Some(0), "{err}");
    assert!(serde_json::from_str::<Value>(&out).is_ok() && home.path("compared").is_dir(), "{out}");
}
