//! Models by name: from a hub on the loopback into a cache of the test's own, and out of caches as Python leaves them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;
use tempfile::TempDir;

#[path = "hub/faults.rs"]
mod faults;
#[path = "hub/offline.rs"]
mod offline;
#[path = "hub/runs.rs"]
mod runs;
#[path = "hub/server.rs"]
mod server;
#[path = "hub/texts.rs"]
mod texts;

use server::{Asked, Hub, sha256};

/// A model whose heads only its configuration tells.
const NAME: &str = "some-owner/vit_small.test";
const CONFIG: &[u8] = br#"{"architecture": "vit_tiny_patch16_224", "model_args": {"num_heads": 3, "img_size": 20}}"#;

fn weights() -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vit_small.safetensors")).unwrap()
}

/// A folder for one test, with a cache of its own.
struct Home {
    dir: TempDir,
    endpoint: String,
}

impl Home {
    fn of(hub: &Hub) -> Home {
        Home { dir: tempfile::tempdir().unwrap(), endpoint: hub.address.clone() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The model's part of the cache.
    fn cache(&self, name: &str) -> PathBuf {
        self.path("home/hub").join(format!("models--{}", name.replace('/', "--")))
    }

    /// Every name below the model's part of the cache that is no folder.
    fn cached(&self, name: &str) -> Vec<String> {
        let (root, mut found) = (self.cache(name), Vec::new());
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => found.push(path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/")),
                }
            }
        }
        found.sort();
        found
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tpgm"));
        command.current_dir(self.dir.path()).args(line.split_whitespace());
        let proxies = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
        let own = ["HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"];
        let others = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME", "TPGM_LOG", "RUST_BACKTRACE"];
        [&proxies[..], &own, &others].concat().into_iter().for_each(|name| {
            command.env_remove(name);
        });
        command.env("HF_HOME", self.path("home")).env("HF_ENDPOINT", &self.endpoint);
        command.env("TPGM_NO_TUNE", "1").env("TPGM_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"));
        command
    }

    #[track_caller]
    fn inspect(&self, name: &str) -> Value {
        read_json(self.command(&format!("inspect hf://{name} --json")))
    }

    /// Runs to one line of error that has all of `parts`.
    #[track_caller]
    fn fails(&self, line: &str, parts: &[&str]) -> String {
        fails(self.command(line), parts)
    }
}

fn read(output: Output) -> (Option<i32>, String, String) {
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), out, err)
}

#[track_caller]
fn good(mut command: Command) -> (String, String) {
    let (code, out, err) = read(command.output().unwrap());
    assert_eq!(code, Some(0), "{command:?}\n{err}");
    (out, err)
}

#[track_caller]
fn read_json(command: Command) -> Value {
    serde_json::from_str(&good(command).0).unwrap()
}

#[track_caller]
fn fails(mut command: Command, parts: &[&str]) -> String {
    let (code, out, err) = read(command.output().unwrap());
    let last = err.lines().last().unwrap_or_default();
    assert!(code == Some(1) && out.is_empty() && last.starts_with("error: "), "{command:?}: {code:?}\n{out}\n{err}");
    assert!(!err.contains("panicked"), "{err}");
    for part in parts {
        assert!(last.contains(part), "{last}\nlacks {part:?}");
    }
    last.to_string()
}

fn paths(asked: &[Asked]) -> Vec<&str> {
    asked.iter().map(|asked| asked.path.as_str()).collect()
}

fn heads(json: &Value) -> u64 {
    json["config"]["heads"].as_u64().unwrap()
}

#[test]
fn a_model_is_fetched_once_with_its_configuration_and_nothing_else() {
    let (hub, weights) = (Hub::start(), weights());
    let others = ["README.md", "pytorch_model.bin", "model.py", "weights.pickle", "extra.json", "fp16.safetensors"];
    let mut files: Vec<(&str, &[u8])> = vec![("model.safetensors", &weights), ("config.json", CONFIG)];
    files.extend(others.iter().map(|name| (*name, b"not for us".as_slice())));
    let commit = hub.put(NAME, "main", &files);
    let home = Home::of(&hub);

    let (out, err) = good(home.command(&format!("inspect hf://{NAME} --json")));
    assert_eq!(heads(&serde_json::from_str(&out).unwrap()), 3, "the configuration is not read");
    assert!(err.contains(&format!("fetching hf://{NAME}/model.safetensors, 0.1 MiB")), "{err}");
    let (hash, config) = (sha256(&weights), &sha256(CONFIG)[..40]);
    let want = [
        format!("blobs/{config}"),
        format!("blobs/{hash}"),
        "refs/main".into(),
        format!("snapshots/{commit}/config.json"),
        format!("snapshots/{commit}/model.safetensors"),
    ];
    let mut want = want.to_vec();
    want.sort();
    let cached = home.cached(NAME);
    if cfg!(unix) {
        assert_eq!(cached, want);
    }
    assert_eq!(fs::read_to_string(home.cache(NAME).join("refs/main")).unwrap(), commit);
    assert_eq!(fs::read(home.cache(NAME).join(format!("snapshots/{commit}/model.safetensors"))).unwrap(), weights);

    let asked = hub.asked();
    let list = format!("/api/models/{NAME}/revision/main");
    let file = |file: &str| format!("/{NAME}/resolve/{commit}/{file}");
    let storage = format!("/storage/{hash}");
    let want = [list.clone(), file("config.json"), file("model.safetensors"), file("model.safetensors"), storage];
    assert_eq!(paths(&asked), want);
    assert!(asked.iter().all(|asked| asked.token.is_none()));

    let (_, err) = good(home.command(&format!("inspect hf://{NAME}")));
    assert_eq!(paths(&hub.asked()), [list], "the second call");
    assert!(!err.contains("fetching"), "{err}");
}

#[test]
fn nothing_is_said_with_quiet() {
    let (hub, weights) = (Hub::start(), weights());
    hub.put(NAME, "main", &[("model.safetensors", &weights), ("config.json", CONFIG)]);
    let (_, err) = good(Home::of(&hub).command(&format!("inspect hf://{NAME} --json --quiet")));
    assert_eq!(err, "");
}

#[test]
fn revisions_are_models_of_their_own() {
    let (hub, weights) = (Hub::start(), weights());
    let two = CONFIG.to_vec().into_iter().map(|b| if b == b'3' { b'6' } else { b }).collect::<Vec<_>>();
    hub.put(NAME, "main", &[("model.safetensors", &weights), ("config.json", CONFIG)]);
    let commit = hub.put(NAME, "refs/pr/1", &[("model.safetensors", &weights), ("config.json", &two)]);
    let home = Home::of(&hub);
    assert_eq!(heads(&home.inspect(NAME)), 3);
    hub.asked();
    assert_eq!(heads(&home.inspect(&format!("{NAME}@refs/pr/1"))), 6);
    let asked = hub.asked();
    assert_eq!(asked[0].path, format!("/api/models/{NAME}/revision/refs%2Fpr%2F1"));
    // The same weights are there already.
    assert!(!asked.iter().any(|asked| asked.path.starts_with("/storage/")), "{asked:?}");
    assert_eq!(fs::read_to_string(home.cache(NAME).join("refs/refs/pr/1")).unwrap(), commit);
    assert_eq!(heads(&home.inspect(&format!("{NAME}@{commit}"))), 6);
    assert_eq!(paths(&hub.asked()), [format!("/api/models/{NAME}/revision/{commit}")]);
}

#[test]
fn a_branch_that_moves_is_followed() {
    let (hub, weights) = (Hub::start(), weights());
    hub.put(NAME, "main", &[("model.safetensors", &weights), ("config.json", CONFIG)]);
    let home = Home::of(&hub);
    assert_eq!(heads(&home.inspect(NAME)), 3);
    let other = String::from_utf8_lossy(CONFIG).replace('3', "6");
    let commit = hub.put(NAME, "main", &[("model.safetensors", &weights), ("config.json", other.as_bytes())]);
    assert_eq!(heads(&home.inspect(NAME)), 6);
    assert_eq!(fs::read_to_string(home.cache(NAME).join("refs/main")).unwrap(), commit);
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let (hub, weights) = (Hub::start(), weights());
    hub.put(NAME, "main", &[("model.safetensors", &weights), ("config.json", CONFIG)]);
    let told = |change: &dyn Fn(&Home, &mut Command)| {
        let home = Home::of(&hub);
        let mut command = home.command(&format!("inspect hf://{NAME}"));
        change(&home, &mut command);
        good(command);
        let asked = hub.asked();
        let (storage, own): (Vec<Asked>, _) = asked.into_iter().partition(|asked| asked.path.starts_with("/storage/"));
        assert!(storage.len() == 1 && storage[0].token.is_none(), "{storage:?}");
        let tokens: Vec<_> = own.into_iter().map(|asked| asked.token).collect();
        assert!(tokens.iter().all(|token| token == &tokens[0]), "{tokens:?}");
        tokens[0].clone()
    };
    let write = |home: &Home, name: &str| {
        fs::create_dir_all(home.path("home")).unwrap();
        fs::write(home.path(name), "hf_written\n").unwrap();
    };
    let given = told(&|_, command| {
        command.env("HF_TOKEN", "hf_given");
    });
    assert_eq!(given, Some("Bearer hf_given".into()));
    assert_eq!(told(&|home, _| write(home, "home/token")), Some("Bearer hf_written".into()));
    let elsewhere = told(&|home, command| {
        write(home, "elsewhere");
        command.env("HF_TOKEN_PATH", home.path("elsewhere"));
    });
    assert_eq!(elsewhere, Some("Bearer hf_written".into()));
    let home = Home::of(&hub);
    let mut command = home.command(&format!("inspect hf://{NAME}"));
    command.env("HF_TOKEN", "two words");
    fails(command, &["check HF_TOKEN"]);
    assert!(hub.asked().is_empty());
}

/// `weights` in two shards, with their index.
fn sharded(weights: &[u8]) -> Vec<(String, Vec<u8>)> {
    let file = SafeTensors::deserialize(weights).unwrap();
    let mut parts = [BTreeMap::new(), BTreeMap::new()];
    let mut map = BTreeMap::new();
    for (i, (name, view)) in file.iter().enumerate() {
        map.insert(name.to_string(), format!("model-0000{}-of-00002.safetensors", i % 2 + 1));
        let view = TensorView::new(view.dtype(), view.shape().to_vec(), view.data()).unwrap();
        parts[i % 2].insert(name.to_string(), view);
    }
    let index = serde_json::json!({"metadata": {"total_size": weights.len()}, "weight_map": map});
    let mut files = vec![("model.safetensors.index.json".to_string(), index.to_string().into_bytes())];
    for (i, part) in parts.into_iter().enumerate() {
        let name = format!("model-0000{}-of-00002.safetensors", i + 1);
        files.push((name, safetensors::serialize(part, None).unwrap()));
    }
    files
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect()
}

#[test]
fn shards_are_fetched_with_their_index() {
    let (hub, weights) = (Hub::start(), weights());
    let mut files = sharded(&weights);
    files.push(("config.json".into(), CONFIG.to_vec()));
    files.push(("model-00003-of-00002.safetensors".into(), b"in no index".to_vec()));
    hub.put(NAME, "main", &borrowed(&files));
    let home = Home::of(&hub);
    let json = home.inspect(NAME);
    let alone = Home::of(&hub);
    fs::write(alone.path("vit.safetensors"), &weights).unwrap();
    let whole = read_json(alone.command("inspect vit.safetensors --heads 3 --json"));
    assert_eq!((&json["parameters"], heads(&json)), (&whole["parameters"], 3));
    assert!(!paths(&hub.asked()).iter().any(|path| path.contains("00003")));

    files.remove(2);
    hub.put("a/missing", "main", &borrowed(&files));
    Home::of(&hub).fails("inspect hf://a/missing", &["its shard model-00002-of-00002.safetensors is not on the hub"]);
}

#[test]
fn open_clip_weights_are_taken_where_there_are_no_others() {
    let (hub, weights) = (Hub::start(), weights());
    let config = br#"{"model_cfg": {"vision_cfg": {"timm_model_name": "vit_tiny_patch16_224", "image_size": 20}}}"#;
    hub.put(NAME, "main", &[("open_clip_model.safetensors", &weights), ("open_clip_config.json", config)]);
    let json = read_json(Home::of(&hub).command(&format!("inspect hf://{NAME} --heads 3 --json")));
    assert_eq!(heads(&json), 3);
    assert!(paths(&hub.asked()).iter().any(|path| path.ends_with("/open_clip_config.json")));
}

#[test]
fn a_cache_of_its_own_and_an_endpoint_with_a_slash() {
    let (hub, weights) = (Hub::start(), weights());
    hub.put(NAME, "main", &[("model.safetensors", &weights), ("config.json", CONFIG)]);
    let home = Home::of(&hub);
    let mut command = home.command(&format!("inspect hf://{NAME}"));
    command.env("HF_HUB_CACHE", home.path("other")).env("HF_ENDPOINT", format!("{}/", hub.address));
    good(command);
    assert!(!home.path("home").exists());
    assert!(home.path("other").join(format!("models--{}/refs/main", NAME.replace('/', "--"))).exists());
}
