//! The cache without a hub, as Python's `huggingface_hub` leaves it.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::server::{Hub, commit, sha256};
use super::{CONFIG, Home, NAME, fails, good, heads, read_json, sharded, weights};

/// A file as Python stores it: the bytes in `blobs/`, a link in the commit's snapshot.
fn store(home: &Home, commit: &str, file: &str, bytes: &[u8]) {
    let (cache, hash) = (home.cache(NAME), sha256(bytes));
    let name = if file.ends_with(".safetensors") { &hash[..] } else { &hash[..40] };
    let pointer = cache.join("snapshots").join(commit).join(file);
    fs::create_dir_all(cache.join("blobs")).unwrap();
    fs::create_dir_all(pointer.parent().unwrap()).unwrap();
    fs::write(cache.join("blobs").join(name), bytes).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(Path::new("../../blobs").join(name), pointer).unwrap();
    #[cfg(not(unix))]
    fs::copy(cache.join("blobs").join(name), pointer).map(drop).unwrap();
}

fn refer(home: &Home, revision: &str, commit: &str) {
    let path = home.cache(NAME).join("refs").join(revision);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, commit).unwrap();
}

/// A home whose hub does not answer.
fn unreachable() -> Home {
    let hub = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Home { dir: tempfile::tempdir().unwrap(), endpoint: format!("http://{hub}") }
}

fn offline(home: &Home, line: &str) -> Command {
    let mut command = home.command(line);
    command.env("HF_HUB_OFFLINE", "1");
    command
}

#[test]
fn a_cache_that_python_filled_is_found() {
    let (home, commit) = (unreachable(), commit("python"));
    store(&home, &commit, "model.safetensors", &weights());
    store(&home, &commit, "config.json", CONFIG);
    refer(&home, "main", &commit);
    refer(&home, "refs/pr/7", &commit);
    let before = home.cached(NAME);
    for name in [NAME.to_string(), format!("{NAME}@refs/pr/7"), format!("{NAME}@{commit}")] {
        let line = format!("inspect hf://{name} --json");
        assert_eq!(heads(&read_json(offline(&home, &line))), 3, "{name}");
        let mut command = home.command(&line);
        command.env("TRANSFORMERS_OFFLINE", "yes");
        assert_eq!(heads(&read_json(command)), 3, "{name}");
    }
    assert_eq!(home.cached(NAME), before, "nothing is written");
    fails(offline(&home, &format!("inspect hf://{NAME}@v2")), &["not in the cache", "HF_HUB_OFFLINE is set"]);
}

#[test]
fn shards_are_found_whole_or_not_at_all() {
    let (home, commit) = (unreachable(), commit("shards"));
    for (file, bytes) in sharded(&weights()) {
        store(&home, &commit, &file, &bytes);
    }
    store(&home, &commit, "config.json", CONFIG);
    refer(&home, "main", &commit);
    let line = format!("inspect hf://{NAME} --json");
    assert_eq!(heads(&read_json(offline(&home, &line))), 3);
    fs::remove_file(home.cache(NAME).join(format!("snapshots/{commit}/model-00002-of-00002.safetensors"))).unwrap();
    fails(offline(&home, &line), &["not in the cache", "or not whole"]);
}

#[test]
fn without_the_model_offline_says_where_it_looked() {
    let home = unreachable();
    let cache = home.path("home").join("hub");
    let parts = [&format!("hf://{NAME}: not in the cache {}", cache.display()), "HF_HUB_OFFLINE is set: unset it"];
    fails(offline(&home, &format!("inspect hf://{NAME}")), &parts);
    assert!(!home.path("home").exists());
    // A commit that is there in name only.
    refer(&home, "main", "../../../../evil");
    fails(offline(&home, &format!("inspect hf://{NAME}")), &["not in the cache"]);
}

#[test]
fn offline_asks_nothing() {
    let (hub, weights) = (Hub::start(), weights());
    hub.put(NAME, "main", &[("model.safetensors", &weights), ("config.json", CONFIG)]);
    let home = Home::of(&hub);
    let line = format!("inspect hf://{NAME} --json");
    fails(offline(&home, &line), &["not in the cache"]);
    assert!(hub.asked().is_empty());
    good(home.command(&line));
    hub.asked();
    assert_eq!(heads(&read_json(offline(&home, &line))), 3);
    assert!(hub.asked().is_empty());
    let mut command = home.command(&line);
    command.env("HF_HUB_OFFLINE", "0");
    good(command);
    assert_eq!(hub.asked().len(), 1, "0 is not offline");
}

#[test]
fn a_hub_that_is_gone_leaves_the_cache_to_use() {
    let (home, commit) = (unreachable(), commit("gone"));
    let line = format!("inspect hf://{NAME} --json");
    home.fails(&line, &[NAME, &home.endpoint, "cannot be reached", "check the connection"]);
    store(&home, &commit, "model.safetensors", &weights());
    store(&home, &commit, "config.json", CONFIG);
    refer(&home, "main", &commit);
    let (out, err) = good(home.command(&line));
    assert_eq!(heads(&serde_json::from_str(&out).unwrap()), 3);
    assert!(err.contains("cannot be reached") && err.contains("what the cache has is used"), "{err}");
}
