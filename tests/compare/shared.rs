//! Several processes that share the runs of one comparison.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Space, ends};

/// Four runs to choose a grid point of the first method, and the third seed of the chosen one; three of the second.
const METHODS: &str = r#"
[[method]]
name = "vanilla"
grid.lr = [0.0001, 0.05]
[[method]]
name = "tpgm"
lr = 0.05
[[method]]
name = "wise"
alphas = [0, 0.5]
"#;

fn space() -> Space {
    let space = Space::new(METHODS);
    let text = space.text("c.toml").replace("seeds = [3, 5]", "seeds = [3, 5, 7]\ngrid-seeds = 2");
    space.write("c.toml", &text);
    space
}

/// Names of the runs that a process made, not found.
fn made(err: &str) -> Vec<String> {
    let own: String =
        err.lines().filter(|line| !line.starts_with("[adapter")).map(|line| format!("{line}\n")).collect();
    let others: String = err.lines().filter_map(|l| l.strip_prefix("[adapter 0] ")).map(|l| format!("{l}\n")).collect();
    let of = |text: &str| ends(text).into_iter().filter(|(_, end)| end.starts_with("ID ")).map(|(name, _)| name);
    let mut names: Vec<String> = of(&own).chain(of(&others)).filter(|name| name.contains(" seed ")).collect();
    names.retain(|name| !name.contains("wise"));
    names.sort();
    names
}

/// The figures of all entries, without what depends on the time.
fn figures(results: &Value) -> Vec<Value> {
    let entries = results["data"][0]["entries"].as_array().unwrap();
    let of = |entry: &Value| {
        let mut entry = entry.clone();
        strip(&mut entry);
        entry
    };
    entries.iter().map(of).collect()
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !key.contains("seconds") && key != "dir");
            fields.values_mut().for_each(strip);
        }
        Value::Array(values) => values.iter_mut().for_each(strip),
        _ => {}
    }
}

fn start(space: &Space, line: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tpgm"));
    command.current_dir(space.dir.path()).args(line.split_whitespace());
    if let Ok(adapter) = std::env::var("TPGM_TEST_ADAPTER") {
        command.args(["--adapter", &adapter]);
    }
    command.env("TPGM_NO_TUNE", "1").env("TPGM_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// All runs of [`METHODS`]; which rate the third seed of vanilla has is what the choice decides.
fn all_once(names: &[String]) {
    assert_eq!(names.len(), 8, "{names:?}");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    names.iter().for_each(|name| *counts.entry(name).or_default() += 1);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert_eq!(names.iter().filter(|name| name.contains("vanilla") && name.ends_with("seed 7")).count(), 1);
}

#[test]
fn parts_and_processes_side_by_side_give_what_one_process_gives() {
    let space = space();
    space.ok("compare c.toml --out alone");
    let alone: Value = serde_json::from_str(&space.text("alone/results.json")).unwrap();

    // By parts, one after the other.
    let (code, out, first) = space.run("compare c.toml --out parts --part 1/2");
    assert_eq!(code, 0, "{first}");
    assert!(out.contains("4 runs of other parts are missing"), "{out}");
    assert!(!space.path("parts/report.html").exists());
    let missing: Value = serde_json::from_str(&space.ok("compare c.toml --out parts --part 1/2 --json")).unwrap();
    assert_eq!(missing["missing"], 4);
    let (code, _, second) = space.run("compare c.toml --out parts --part 2/2");
    assert_eq!(code, 0, "{second}");
    let mut names = [made(&first), made(&second)].concat();
    names.sort();
    all_once(&names);
    assert!(space.path("parts/report.html").exists());
    let parts: Value = serde_json::from_str(&space.text("parts/results.json")).unwrap();
    assert_eq!(figures(&parts), figures(&alone));

    // Two processes at once.
    let both = [0, 1].map(|_| start(&space, "compare c.toml --out both"));
    let both = both.map(|child| child.wait_with_output().unwrap());
    let texts = both.map(|output| {
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{err}");
        err
    });
    let mut names = texts.iter().flat_map(|err| made(err)).collect::<Vec<_>>();
    names.sort();
    all_once(&names);
    assert!(texts.iter().all(|err| !made(err).is_empty()), "{texts:?}");
    let both: Value = serde_json::from_str(&space.text("both/results.json")).unwrap();
    assert_eq!(figures(&both), figures(&alone));

    // One that starts another on each further adapter, here the same.
    let (code, _, err) = space.run("compare c.toml --out adapters --adapters 0,0");
    assert_eq!(code, 0, "{err}");
    all_once(&made(&err));
    assert!(err.contains("[adapter 0] ") && space.path("adapters/report.html").exists(), "{err}");
    let claims = walk(&space.path("adapters")).into_iter().filter(|name| name.contains("claim")).count();
    assert_eq!(claims, 0);
}

fn walk(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .flat_map(|entry| match entry.file_type().unwrap().is_dir() {
            true => walk(&entry.path()),
            false => vec![entry.path().display().to_string()],
        })
        .collect()
}

#[test]
fn a_killed_process_leaves_its_run_to_the_next() {
    let space = space();
    let text = space.text("c.toml").replace("epochs = 3", "epochs = 20");
    space.write("c.toml", &text);
    let mut child = start(&space, "compare c.toml --out out");
    let started = Instant::now();
    let claimed =
        || walk(space.dir.path()).into_iter().find(|name| name.ends_with("/claim") || name.ends_with("\\claim"));
    while claimed().is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is claimed");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = claimed().expect("a killed process can't remove its claim");
    let (code, _, err) = space.run("compare c.toml --out out");
    assert_eq!(code, 0, "{err}");
    assert!(!std::path::Path::new(&left).exists() && !err.contains("waiting"), "{err}");
    let runs = ends(&err).into_iter().filter(|(name, end)| name.contains(" seed ") && end.starts_with("ID ")).count();
    assert!(runs >= 8, "{err}");
}

#[test]
fn what_cannot_be_shared_is_said() {
    let space = space();
    for part in ["0/2", "3/2", "2", "1/0", "a/b"] {
        let (code, _, err) = space.run(&format!("compare c.toml --out out --part {part}"));
        assert!(code == 2 && err.contains("I/N"), "{part}: {err}");
    }
    // The others make its runs; that it failed is said at the end.
    let err = space.fails(1, "compare c.toml --out out --adapters 0,no-such-card", &["no-such-card", "ended with"]);
    assert!(err.contains("[adapter no-such-card] error: "), "{err}");
    assert_eq!(made(&err).len(), 8, "{err}");
    assert!(space.path("out/report.html").exists());
}
