//! What goes wrong on the way: nothing half is ever taken for whole, and the next call goes on.

use std::fs;

use super::server::{Fault, Hub, sha256};
use super::{CONFIG, Home, NAME, fails, good, heads, paths, sharded, weights};

/// A hub with the model, a home, and the command that opens it.
fn start() -> (Hub, Home, String) {
    let (hub, weights) = (Hub::start(), weights());
    hub.put(NAME, "main", &[("model.safetensors", &weights), ("config.json", CONFIG)]);
    let home = Home::of(&hub);
    (hub, home, format!("inspect hf://{NAME}"))
}

/// The ranges that were asked of the storage.
fn ranges(hub: &Hub) -> Vec<Option<String>> {
    let asked = hub.asked().into_iter();
    asked.filter(|asked| asked.path.starts_with("/storage/")).map(|asked| asked.range).collect()
}

/// Whether a file has the name of the weights, in the blobs or in a snapshot.
fn is_there(home: &Home) -> bool {
    let hash = sha256(&weights());
    home.cached(NAME).iter().any(|name| name.ends_with("model.safetensors") || name.ends_with(&hash))
}

#[test]
fn a_cut_connection_is_taken_up_where_it_ended() {
    let (hub, home, _) = start();
    hub.change(|state| state.faults.extend([Fault::Cut(1000), Fault::Cut(0), Fault::Cut(70_000)]));
    assert_eq!(heads(&home.inspect(NAME)), 3);
    let range = |from: usize| Some(format!("bytes={from}-"));
    assert_eq!(ranges(&hub), [None, range(1000), range(1000), range(71_000)]);
}

#[test]
fn a_connection_that_is_always_cut_leaves_nothing_that_looks_whole() {
    let (hub, home, line) = start();
    let size = weights().len();
    hub.change(|state| state.faults.extend([100, 100, 100, 100].map(Fault::Cut)));
    let ended = format!("model.safetensors: the connection ended after 400 of {size} bytes");
    home.fails(&line, &[NAME, &ended, "check the connection"]);
    assert!(!is_there(&home), "{:?}", home.cached(NAME));
    assert!(!home.cache(NAME).join("refs/main").exists());
    ranges(&hub);
    assert_eq!(heads(&home.inspect(NAME)), 3);
    assert_eq!(ranges(&hub), [Some("bytes=400-".to_string())], "the second call");
    assert!(is_there(&home));
}

#[test]
fn a_storage_that_knows_no_parts_sends_all_again() {
    let (hub, home, _) = start();
    hub.change(|state| state.faults.extend([Fault::Cut(5000), Fault::Whole]));
    assert_eq!(heads(&home.inspect(NAME)), 3);
    assert_eq!(ranges(&hub).len(), 2);
}

#[test]
fn sizes_that_differ_are_refused() {
    let size = weights().len();
    for fault in [Fault::Short(size - 8), Fault::Long] {
        let (hub, home, line) = start();
        hub.change(|state| state.faults.push_back(fault));
        home.fails(&line, &["model.safetensors: the hub says that it has", &size.to_string(), "and sends"]);
        assert!(!is_there(&home));
        assert_eq!(heads(&home.inspect(NAME)), 3);
    }
    let (hub, home, line) = start();
    hub.change(|state| state.size = Some(size + 1));
    home.fails(&line, &["the hub says that it has", &format!("and sends {size}")]);
    assert!(!is_there(&home));
}

#[test]
fn a_wrong_checksum_is_refused() {
    let (hub, home, line) = start();
    hub.change(|state| state.faults.push_back(Fault::Damaged));
    let hash = sha256(&weights());
    home.fails(&line, &["model.safetensors: its SHA-256 is", &format!("and {hash} on the hub"), "try again"]);
    assert!(!is_there(&home));
    assert!(home.cached(NAME).iter().all(|name| !name.ends_with(".incomplete")), "{:?}", home.cached(NAME));
    assert_eq!(heads(&home.inspect(NAME)), 3);
}

#[test]
fn a_damaged_half_is_fetched_anew() {
    let (hub, home, _) = start();
    let weights = weights();
    let half = home.cache(NAME).join("blobs").join(format!("{}.incomplete", sha256(&weights)));
    let longer = [weights.as_slice(), b"more"].concat();
    for (found, want) in [
        (vec![0; 1000], vec![Some("bytes=1000-".to_string()), None]),
        (longer, vec![None]),
        (weights.clone(), vec![]),
        (vec![0; weights.len()], vec![None]),
    ] {
        let _ = fs::remove_dir_all(home.cache(NAME));
        fs::create_dir_all(half.parent().unwrap()).unwrap();
        fs::write(&half, &found).unwrap();
        assert_eq!(heads(&home.inspect(NAME)), 3);
        assert_eq!(ranges(&hub), want);
        assert!(!half.exists());
    }
}

#[test]
fn a_server_that_stumbles_is_asked_again() {
    let (hub, home, line) = start();
    hub.change(|state| state.faults.extend([Fault::Status(503), Fault::Status(500)]));
    assert_eq!(heads(&home.inspect(NAME)), 3);
    assert_eq!(ranges(&hub).len(), 3);
    hub.change(|state| state.refuse[0] = Some((502, "")));
    let other = Home::of(&hub);
    other.fails(&line, &["the hub answers 502", "check the connection"]);
    assert_eq!(hub.asked().len(), 4);
}

#[test]
fn what_is_not_to_be_had_is_said_with_what_to_do() {
    let (hub, home, line) = start();
    home.fails(
        "inspect hf://nobody/nothing",
        &["hf://nobody/nothing: no such model at http://127.0.0.1", "(404)", "name"],
    );
    home.fails(&format!("{line}@v9"), &["no revision v9 (404)", "follows @"]);
    for (status, code, parts) in [
        (401, "RepoNotFound", ["no such model, or a private one (401)", "set HF_TOKEN"]),
        (403, "", ["restricted (403)", "accept its terms at http://127.0.0.1"]),
        (401, "GatedRepo", ["restricted (401)", "HF_TOKEN"]),
        (429, "", ["no more requests for now (429)", "HF_TOKEN"]),
        (400, "", ["the hub answers 400", "HF_ENDPOINT"]),
    ] {
        for place in [0, 1] {
            hub.change(|state| {
                state.refuse = [None, None];
                state.refuse[place] = Some((status, code));
            });
            hub.asked();
            home.fails(&line, &parts);
            let asked = hub.asked();
            assert_eq!(asked.len(), place + 1, "{status} is final: {asked:?}");
        }
    }
    hub.change(|state| state.refuse = [Some((401, "RepoNotFound")), None]);
    let mut command = home.command(&line);
    command.env("HF_TOKEN", "hf_old");
    fails(command, &["this HF_TOKEN may not read (401)"]);
    hub.change(|state| {
        state.refuse = [None, None];
        state.listed = vec!["preprocessor_config.json".into()];
    });
    home.fails(&line, &["lists preprocessor_config.json, but does not have it (404)"]);
}

#[test]
fn a_repository_without_safetensors_is_told_by_what_it_has() {
    let hub = Hub::start();
    hub.put("a/old", "main", &[("config.json", CONFIG), ("pytorch_model.bin", b"x"), ("tf_model.h5", b"x")]);
    let parts = ["hf://a/old: has no safetensors, but pytorch_model.bin, tf_model.h5", "docs/from-pytorch.md"];
    Home::of(&hub).fails("inspect hf://a/old", &parts);
    assert_eq!(paths(&hub.asked()), ["/api/models/a/old/revision/main"]);
}

#[test]
fn names_that_are_none_reach_no_server() {
    let hub = Hub::start();
    let home = Home::of(&hub);
    for name in ["gpt2", "../../etc", "a/..", "a/b/c", "a/b@../../x", "a/b@", "a/b?x", "a/b#c", "a%2Fb/c", "@a/b"] {
        home.fails(&format!("inspect hf://{name}"), &["not a model's name", "give hf://OWNER/NAME"]);
    }
    assert!(hub.asked().is_empty());
    assert!(!home.path("home").exists());
}

#[test]
fn nothing_that_a_server_says_leaves_the_cache() {
    let weights = weights();
    let outside = |home: &Home| {
        let names = fs::read_dir(home.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.into_iter().all(|name| name == "home"), "something was written beside the cache");
    };
    let (hub, home, line) = start();
    for commit in ["../../../../evil", "/evil", ""] {
        hub.change(|state| state.repos.values_mut().for_each(|repo| repo.0 = commit.into()));
        home.fails(&line, &["names a commit", "which is none"]);
        assert!(!home.path("home").exists());
    }
    let (hub, home, line) = start();
    for etag in ["../../../../evil", "/evil", "..", ""] {
        hub.change(|state| state.etag = Some(etag.into()));
        home.fails(&line, &["no usable ETag"]);
        outside(&home);
    }
    let mut files = sharded(&weights);
    let index = String::from_utf8(files[0].1.clone()).unwrap();
    for name in ["../../evil.safetensors", "/evil.safetensors", "evil.bin", "a b.safetensors"] {
        files[0].1 = index.replace("model-00002-of-00002.safetensors", name).into_bytes();
        hub.put("a/evil", "main", &super::borrowed(&files));
        let home = Home::of(&hub);
        hub.asked();
        home.fails("inspect hf://a/evil", &["names", name]);
        outside(&home);
        assert!(!paths(&hub.asked()).iter().any(|path| path.contains("evil.") || path.contains("b.safe")));
    }
}

#[test]
fn what_is_no_list_of_files_is_no_hub() {
    let (hub, home, _) = start();
    let mut command = home.command(&format!("inspect hf://{NAME}"));
    command.env("HF_ENDPOINT", format!("{}/wrong", hub.address));
    fails(command, &["no such model at http://127.0.0.1"]);
    let mut command = home.command(&format!("inspect hf://{NAME}"));
    command.env("HF_ENDPOINT", "no address");
    fails(command, &["no address cannot be reached"]);
    good(home.command(&format!("inspect hf://{NAME}")));
}
