//! A text tower by name: its tokenizer comes with it.

use std::fs;
use std::path::PathBuf;

use super::runs::on_adapter;
use super::server::Hub;
use super::{Home, fails, good, paths};

const NAME: &str = "a/clip";

fn folder() -> PathBuf {
    super::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text/hf_clip")
}

/// The files of a small CLIP but the `missing` one.
fn publish(hub: &Hub, missing: &str) {
    let files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    let files: Vec<(&str, Vec<u8>)> = files
        .iter()
        .filter(|name| **name != missing)
        .map(|name| (*name, fs::read(folder().join(name)).unwrap()))
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    hub.put(NAME, "main", &files);
}

#[test]
fn a_text_tower_comes_with_its_tokenizer() {
    let hub = Hub::start();
    publish(&hub, "");
    let home = Home::of(&hub);
    fs::write(home.path("names.txt"), "blue\nnaïve café\n").unwrap();
    let zero_shot = |model: &str, out: &str| {
        on_adapter(&format!("zero-shot --model {model} --classes names.txt --templates varied --out {out}"))
    };
    good(home.command(&zero_shot(&format!("hf://{NAME}"), "fetched.safetensors")));
    assert!(paths(&hub.asked()).iter().any(|path| path.ends_with("/tokenizer.json")));
    good(home.command(&zero_shot(folder().to_str().unwrap(), "beside.safetensors")));
    let bytes = |name: &str| fs::read(home.path(name)).unwrap();
    assert_eq!(bytes("fetched.safetensors"), bytes("beside.safetensors"));
    // From the cache, with no hub to ask.
    let mut offline = home.command(&zero_shot(&format!("hf://{NAME}"), "cached.safetensors"));
    offline.env("HF_HUB_OFFLINE", "1");
    good(offline);
    assert_eq!(bytes("cached.safetensors"), bytes("beside.safetensors"));
    assert!(hub.asked().is_empty());
}

#[test]
fn a_text_tower_without_its_tokenizer_is_refused() {
    let hub = Hub::start();
    publish(&hub, "tokenizer.json");
    let home = Home::of(&hub);
    fs::write(home.path("names.txt"), "blue\nred\n").unwrap();
    let line = format!("zero-shot --model hf://{NAME} --classes names.txt --out head.safetensors");
    fails(home.command(&on_adapter(&line)), &["tokenizer.json", "is missing", "--tokenizer"]);
    assert!(!home.path("head.safetensors").exists());
}
