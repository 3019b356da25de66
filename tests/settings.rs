//! How a run's settings are decided: defaults, a file, flags, and the tables of a comparison.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use toml::{Table, Value};
use tpgm::compare::CompareConfig;
use tpgm::compare::spec::EntryKind;
use tpgm::error::Result;
use tpgm::train::resolve::keys_of;
use tpgm::train::{FileSettings, Flags, TrainConfig};

/// What every run needs.
const BASE: &str = "--model m --train t --val v";

/// The settings of `finetune` with `flags`, over a file of the text `file`.
fn with_file(file: &str, flags: &str) -> Result<TrainConfig> {
    let dir = tempfile::tempdir().unwrap();
    let path = written(&dir, "config.toml", file);
    Flags::parse(flags.split_whitespace())?.resolve(Some(&FileSettings::read(&path)?))
}

fn flags(flags: &str) -> Result<TrainConfig> {
    Flags::parse(flags.split_whitespace())?.resolve(None)
}

fn written(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// The values of a `config.toml`.
fn values(config: &TrainConfig) -> Table {
    config.to_toml().parse().unwrap()
}

/// The settings of each method of a comparison, each at its first grid point, with `common` in `[common]`.
fn compared(common: &str, methods: &str) -> Result<(Vec<TrainConfig>, Vec<String>)> {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "seeds = [0]\n[common]\nmodel = \"m\"\n{common}\n[[data]]\nname = \"d\"\ntrain = \"t\"\nval = \"v\"\n\
         test = [\"a=a\", \"b=b\"]\nid = [\"a\"]\n{methods}"
    );
    let config = CompareConfig::read(&written(&dir, "c.toml", &text), None, None)?;
    let first = |kind: &EntryKind| match kind {
        EntryKind::Train(_, configs) => configs[0][0].clone(),
        other => panic!("{other:?}"),
    };
    Ok((config.methods.iter().map(|method| first(&method.kind)).collect(), config.notes))
}

/// Recorded before flags, keys and defaults became one struct.
#[test]
fn settings_are_those_of_earlier_versions() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/resolved.toml");
    let recorded: Table = fs::read_to_string(fixture).unwrap().parse().unwrap();
    let runs = recorded["run"].as_array().unwrap();
    assert_eq!(runs.len(), 23);
    let mut seen = BTreeSet::new();
    for run in runs {
        let line = run["flags"].as_str().unwrap();
        // What a run did that was given neither: defaults have followed the model since.
        let old = [("warmup-steps", "0"), ("clip-norm", "0")];
        let probe = (line.contains("linear-probe") && !line.contains("--lr")).then_some(("lr", "0.01"));
        let old = old.into_iter().filter(|(flag, _)| !line.contains(flag)).chain(probe);
        let line = &old.fold(line.to_string(), |line, (flag, value)| format!("{line} --{flag} {value}"));
        let config = flags(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        let mut own = values(&config);
        // Flags that came later have their defaults.
        own.retain(|key, _| run["config"].get(key).is_some() || config.given.contains(key));
        let mut recorded = run["config"].as_table().unwrap().clone();
        // An augmentation was one word, whose crop flipped as well.
        let words = if recorded["augment"].as_str() == Some("crop") { vec!["crop", "flip"] } else { vec!["flip"] };
        recorded.insert("augment".into(), Value::from(words));
        assert_eq!(own, recorded, "{line}");
        // A run folder of an earlier version goes on: by its flags, and by its own file, which marks no defaults.
        let earlier = toml::to_string(&run["config"]).unwrap();
        let again = with_file(&earlier, "").unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(values(&again), values(&config), "{line}");
        // Earlier versions dropped the rest of an epoch, if it was shuffled.
        if !config.no_shuffle {
            let both = "drop-last was true, is now false";
            assert_eq!(config.difference(&earlier).as_deref(), Some(both), "{line}");
            assert_eq!(again.difference(&earlier).as_deref(), Some(both), "{line}");
        }
        let flag = if config.no_shuffle { "" } else { " --drop-last" };
        assert_eq!(flags(&format!("{line}{flag}")).unwrap().difference(&earlier), None, "{line}");
        assert_eq!(with_file(&earlier, flag).unwrap().difference(&earlier), None, "{line}");
        seen.extend(values(&config).into_iter().map(|(key, _)| key));
    }
    // Flags that came later and have no default.
    let later = "--model m --train t --zero-shot --class-names names.txt --templates simple --tokenizer tokenizer.json";
    seen.extend(values(&flags(later).unwrap()).into_iter().map(|(key, _)| key));
    // Flag and key have one name: under another, a value of a file would be lost.
    let flags: BTreeSet<String> = keys_of::<TrainConfig>().into_iter().collect();
    // Flags that came later without a default have tests of their own.
    let later = "data digrap-lr distill-on distill-temperature distill-weight fold image-column in-channels label-column label-separator \
                 lines-alpha lora-alpha lora-rank lora-targets rand-augment sam-rho";
    seen.extend(later.split_whitespace().map(String::from));
    assert_eq!(seen, flags, "every flag is in one of the runs of tests/fixtures/resolved.toml, or has a default");
}

/// `--data` gives defaults, to a file as to the command line: a typed flag wins, and values it filled in are marked.
#[test]
fn a_folder_with_splits_fills_in_what_is_not_given() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    for split in ["train", "valid", "test"] {
        std::fs::create_dir(dir.path().join(split)).unwrap();
    }
    let config = with_file(&format!("model = \"m\"\ndata = {root:?}\n"), "").unwrap();
    let split = |name: &str| dir.path().join(name);
    assert_eq!((&config.splits.train, &config.splits.val), (&split("train"), &split("valid")));
    assert_eq!(config.splits.test, [format!("test={root}/test")]);
    let text = config.to_toml();
    let marked = |key: &str| text.lines().any(|line| line.starts_with(key) && line.ends_with(" # default"));
    assert!(marked("train = ") && marked("val = ") && marked("test = ") && !marked("data = "), "{text}");
    let typed = flags(&format!("--model m --data {root} --train t --val v --test x=y")).unwrap();
    assert_eq!((typed.splits.train.to_str(), typed.splits.val.to_str()), (Some("t"), Some("v")));
    assert_eq!(typed.splits.test, ["x=y"]);
}

/// The pairs of a value in a file and flags that once changed or dropped it.
const PAIRS: [(&str, &str); 31] = [
    ("weight-decay = 0.1", "--method tpgm"),
    ("weight-decay = 0.1", "--method ftp"),
    ("weight-decay = 0.1", "--method spd"),
    ("weight-decay = 0.1", "--optimizer adamw"),
    ("bn = \"frozen\"", "--method vanilla"),
    ("bn = \"train\"", "--method bitfit"),
    ("bn = \"train\"", "--method partial"),
    ("momentum = 0.5", "--optimizer sgd"),
    ("momentum = 0.5", "--optimizer adamw"),
    ("momentum = 0.5", "--method spd"),
    ("nesterov = false", "--optimizer sgd"),
    ("nesterov = true", "--optimizer adamw"),
    ("radius = 2.0", "--method tpgm"),
    ("radius = 2.0", "--method fixed-radius"),
    ("ftp-k = 0.5", "--method vanilla"),
    ("ftp-k = 0.5", "--method ftp"),
    ("anchor-decay = 0.25", "--method l2-sp"),
    ("layer-decay = 0.5", "--method tpgm"),
    ("layer-decay = 0.5", "--method llrd"),
    ("freeze-blocks = 1", "--method partial"),
    ("probe-share = 0.25", "--method lp-ft"),
    ("probe-lr = 0.5", "--method vanilla"),
    ("ema-decay = 0.5", "--method ema"),
    ("method = \"ema\"\nema-decay = 0.5", "--method vanilla"),
    ("method = \"wise\"\nwise-alpha = 0.5", "--method vanilla"),
    ("weight-decay = 0.1", "--method digrap"),
    ("digrap-lr = 0.5", "--method digrap"),
    ("method = \"sam\"\nsam-rho = 0.5", "--method vanilla"),
    ("method = \"lines\"\nlines-alpha = 0.5", "--method vanilla"),
    ("loss-scale = 1024.0\nprecision = \"f16\"", "--precision f32"),
    ("micro-batch = 512", "--batch-size 16"),
];

#[test]
fn what_the_user_wrote_is_never_changed_by_another_flag() {
    for (file, flag) in PAIRS {
        let name = format!("{file} and {flag}");
        let wrote: Table = file.parse().unwrap();
        let one = with_file(file, &format!("{BASE} {flag}")).unwrap_or_else(|e| panic!("{name}: {e}"));
        let over = flag.trim_start_matches("--").split_once(' ').unwrap();
        let kept: Vec<(&String, &Value)> = wrote.iter().filter(|(key, _)| *key != over.0).collect();
        for &(key, value) in &kept {
            assert_eq!(values(&one).get(key), Some(value), "{name}");
            assert!(one.given.contains(key), "{name}");
        }
        // It is there to be taken up again: the run's own file says the same.
        let again = with_file(&one.to_toml(), "").unwrap();
        assert_eq!(again, one, "{name}");

        // `compare` decides likewise, with the flag as a key of the method's entry or of the grid.
        let method = if over.0 == "method" { String::new() } else { "method = \"tpgm\"\n".to_string() };
        let value = over.1.parse::<f64>().map_or_else(|_| format!("\"{}\"", over.1), |_| over.1.to_string());
        let common: String = kept
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"))
            .filter(|line| !line.starts_with("method"))
            .collect();
        for (place, key) in [("", format!("{} = {value}", over.0)), ("grid", format!("grid.{} = [{value}]", over.0))] {
            if place == "grid" && over.0 == "method" {
                continue;
            }
            let entry = format!("[[method]]\nname = \"x\"\n{method}{key}\n");
            let (compared, _) = compared(&common, &entry).unwrap_or_else(|e| panic!("{name}: {e}"));
            let (mut ours, theirs) = (values(&one), values(&compared[0]));
            for key in ["test", "id"] {
                ours.insert(key.into(), theirs[key].clone());
            }
            assert_eq!(ours, theirs, "{name}, {place}");
        }
    }
}

#[test]
fn defaults_follow_the_method_and_the_optimiser() {
    // A run's own file, of which only the given values stay when another method is asked for.
    let run = flags(&format!("{BASE} --method ftp --lr 0.5")).unwrap().to_toml();
    assert!(run.contains("lr = 0.5\n") && run.contains("weight-decay = 0.0 # default\n"), "{run}");
    for other in [
        "tpgm",
        "spd",
        "bitfit --optimizer adamw",
        "lp-ft",
        "ema",
        "wise",
        "lines",
        "sam",
        "digrap",
        "fixed-radius --radius 3",
        "partial",
    ] {
        let here = with_file(&run, &format!("--method {other}")).unwrap();
        assert_eq!(here, flags(&format!("{BASE} --lr 0.5 --method {other}")).unwrap(), "{other}");
    }
    for other in ["--optimizer adamw", "--batch-size 7", "--schedule post --method tpgm", "--momentum 0", "--steps 3"] {
        let here = with_file(&run, other).unwrap();
        let all = if other.contains("--method") { String::new() } else { "--method ftp ".into() };
        assert_eq!(here, flags(&format!("{BASE} --lr 0.5 {all}{other}")).unwrap(), "{other}");
    }
    let post = values(&with_file(&run, "--schedule post --method tpgm").unwrap());
    assert_eq!((&post["norm"], &post["max-iters"]), (&Value::from("l2"), &Value::from(200)));
    let small = values(&with_file(&run, "--batch-size 7").unwrap());
    assert_eq!((&small["micro-batch"], &small["radius-batch-size"]), (&Value::from(7), &Value::from(7)));
}

#[test]
fn a_mark_counts_only_behind_the_default() {
    let run = flags(BASE).unwrap().to_toml();
    assert_eq!(run.lines().filter(|line| !line.ends_with(" # default")).count(), 3, "{run}");
    // An edit that leaves the mark is a value that the user wrote.
    let edited = run.replace("weight-decay = 0.0005 #", "weight-decay = 0.1 #");
    assert_ne!(edited, run);
    let config = with_file(&edited, "--method ftp").unwrap();
    assert_eq!((config.optim.weight_decay, config.given.contains("weight-decay")), (0.1, true));
    // The words in a string are no mark.
    let config = with_file("root = \"r # default\"\nid = [] # not a # default\n", BASE).unwrap();
    assert!(config.given.contains("root") && config.given.contains("id"));
}

#[test]
fn a_file_of_an_earlier_version_gives_everything_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let run = flags(&format!("{BASE} --method ftp")).unwrap().to_toml();
    let note = |text: &str| FileSettings::read(&written(&dir, "run.toml", text)).unwrap().note;
    assert_eq!(note(&run), None);
    assert_eq!(note("lr = 0.5\n"), None);
    let earlier = run.replace(" # default", "");
    assert!(note(&earlier).is_some_and(|note| note.contains("run.toml") && note.contains("--method")));
    assert_eq!(with_file(&earlier, "--method tpgm").unwrap().optim.weight_decay, 0.0);
}

#[test]
fn the_rest_of_an_epoch_is_kept_unless_dropped() {
    let steps = |line: &str, images| flags(&format!("{BASE} --batch-size 64 --epochs 2 {line}")).unwrap().steps(images);
    assert_eq!([steps("", 127), steps("--no-shuffle", 127), steps("", 128), steps("", 20)], [4, 4, 4, 2]);
    // A single image joins the batch before it, if batches are shuffled and batch norm learns from them.
    assert_eq!([steps("", 129), steps("--no-shuffle", 129), steps("--bn frozen", 129), steps("", 130)], [4, 6, 6, 6]);
    let dropped = "--drop-last";
    assert_eq!([steps(dropped, 127), steps("--drop-last --no-shuffle", 127), steps(dropped, 128)], [2, 2, 4]);
    // An epoch's only batch is kept: without it, there would be nothing to train on.
    assert_eq!(steps(dropped, 20), 2);
}

#[test]
fn a_length_is_one_setting() {
    let length = |file: &str, flags: &str| {
        let config = with_file(file, &format!("{BASE} {flags}")).unwrap();
        let values = values(&config);
        let number = |key: &str| values.get(key).and_then(Value::as_integer);
        assert_eq!(
            (config.optim.epochs, config.optim.steps),
            (number("epochs").map(|n| n as u64), number("steps").map(|n| n as u64))
        );
        (number("epochs"), number("steps"))
    };
    assert_eq!(length("", ""), (Some(10), None));
    assert_eq!(length("epochs = 3", "--steps 4"), (None, Some(4)));
    assert_eq!(length("steps = 4", "--epochs 3"), (Some(3), None));
    assert_eq!(length("steps = 4", ""), (None, Some(4)));
    let both = with_file("lr = 0.1\nepochs = 3\nsteps = 4\n", BASE).unwrap_err();
    assert!(both.exit_code() == 2 && both.to_string().contains("line 3: epochs and steps"), "{both}");
    let entry = "[[method]]\nname = \"vanilla\"\n";
    assert_eq!(compared("epochs = 3", &format!("{entry}steps = 4\n")).unwrap().0[0].optim.epochs, None);
    let both = compared("", &format!("{entry}steps = 4\nepochs = 3\n")).unwrap_err().to_string();
    assert!(both.contains("line 13: method vanilla: epochs and steps"), "{both}");
    assert!(compared("", &format!("{entry}grid.steps = [4]\ngrid.epochs = [3]\n")).is_err());
}

#[test]
fn nothing_is_without_effect_in_silence() {
    let note =
        |file: &str, flags: &str| with_file(file, &format!("{BASE} {flags}")).unwrap().note().unwrap_or_default();
    let all =
        note("anchor-decay = 0.5\nmomentum = 0.5\nlr = 0.1\nradius-lr = 0.5", "--method bitfit --optimizer adamw");
    for part in
        ["anchor-decay (goes with --method l2-sp)", "momentum (goes with --optimizer sgd)", "radius-lr (goes with"]
    {
        assert!(all.contains(part), "{all}");
    }
    assert!(!all.contains("lr (goes with --optimizer"), "{all}");
    assert_eq!(note("momentum = 0.0\nnesterov = false\nradius-lr = 0.5", "--optimizer adamw"), "");
    assert!(note("loss-scale = 8.0", "").contains("--precision f16"));
    // Everything that one method or optimiser alone uses, under another.
    let own = "radius = 1.0\nftp-k = 0.5\nanchor-decay = 0.5\nfreeze-blocks = 1\nprobe-share = 0.25\n\
               probe-lr = 0.5\nmomentum = 0.5\nnesterov = true\nloss-scale = 8.0\nschedule = \"post\"\nmax-iters = 3\n\
               radius-batch-size = 2\nproj-freq = 2\nnorm = \"l2\"\nradius-lr = 0.5\nexclude = [\"a\"]\n";
    let all = note(own, "--method vanilla --optimizer adamw");
    for key in own.parse::<Table>().unwrap().keys() {
        assert!(all.contains(&format!("{key} (goes with --")), "{key}: {all}");
    }

    let methods =
        "[[method]]\nname = \"vanilla\"\nradius-lr = 0.5\n[[method]]\nname = \"l2-sp\"\noptimizer = \"adamw\"\n";
    let (_, notes) = compared("anchor-decay = 0.5\nmomentum = 0.5\nproj-freq = 3", methods).unwrap();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].starts_with("method vanilla: without effect: radius-lr"), "{notes:?}");
    assert!(notes[1].contains("every method: proj-freq"), "{notes:?}");
}

/// A value beside the choice of another method is a mistake; one below it waits for its own.
#[test]
fn values_of_another_method_are_refused_beside_it() {
    let refused = |result: Result<TrainConfig>, part: &str| {
        let error = result.unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(part), "{error}");
    };
    refused(flags(&format!("{BASE} --method ftp --anchor-decay 0.5")), "--anchor-decay goes with --method l2-sp");
    refused(with_file("method = \"ftp\"", &format!("{BASE} --anchor-decay 0.5")), "--method l2-sp");
    refused(with_file("optimizer = \"adamw\"", &format!("{BASE} --momentum 0.5")), "--optimizer sgd");
    refused(flags(&format!("{BASE} --loss-scale 8")), "--precision f16");
    assert!(with_file("anchor-decay = 0.5\nmethod = \"ftp\"", BASE).is_ok());
    let entry = "[[method]]\nname = \"ftp\"\n";
    let one =
        |common: &str, key: &str| compared(common, &format!("{entry}{key}\n")).map(|(configs, _)| configs[0].clone());
    refused(one("", "anchor-decay = 0.5"), "line 11: method ftp: --anchor-decay goes with");
    refused(one("", "grid.anchor-decay = [0.5]"), "method ftp: at anchor-decay 0.5: --anchor-decay goes with");
    assert_eq!(one("anchor-decay = 0.5", "").unwrap().method.l2_sp.anchor_decay, 0.5);
}

#[test]
fn rates_by_layer_and_frozen_norms_go_with_every_method_that_trains_more_than_the_head() {
    let rates = |line: &str| flags(&format!("{BASE} {line}")).unwrap().method.layer_decay;
    assert_eq!([rates(""), rates("--method llrd"), rates("--method llrd --layer-decay 0.5")], [1.0, 0.75, 0.5]);
    for method in [
        "vanilla", "tpgm", "ftp", "spd", "l2-sp", "bitfit", "partial", "lp-ft", "ema", "wise", "lines", "sam", "digrap",
    ] {
        let line = format!("--method {method} --layer-decay 0.5 --freeze-bn");
        let config = flags(&format!("{BASE} {line}")).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!((config.method.layer_decay, config.note()), (0.5, None), "{line}");
        // The statistics stay, too; the file says so, and gives the same run.
        assert!(config.to_toml().contains("bn = \"frozen\" # default\n"), "{line}");
        assert_eq!(with_file(&config.to_toml(), "").unwrap(), config);
    }
    let probe = |line: &str| flags(&format!("{BASE} --method linear-probe {line}"));
    for (line, part) in [("--layer-decay 0.5", "--layer-decay goes with"), ("--freeze-bn", "--freeze-bn goes with")] {
        let error = probe(line).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(part), "{error}");
    }
    assert!(probe("--layer-decay 1 --freeze-bn false").is_ok());
    let both = flags(&format!("{BASE} --freeze-bn --bn train")).unwrap_err();
    assert!(both.exit_code() == 2 && both.to_string().contains("--bn train"), "{both}");
}

#[test]
fn numbers_that_toml_has_no_room_for_are_refused_by_name() {
    for flag in ["seed", "steps", "batch-size", "memory-limit", "micro-batch", "max-iters"] {
        let error = flags(&format!("{BASE} --{flag} 9223372036854775808")).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{flag}");
        assert!(error.to_string().starts_with(&format!("--{flag} 9223372036854775808: ")), "{error}");
    }
    let error = flags(&format!("{BASE} --warmup-steps 9223372036854775808")).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("'--warmup-steps"), "{error}");
    let most = flags(&format!("{BASE} --seed 9223372036854775807")).unwrap();
    assert_eq!(with_file(&most.to_toml(), "").unwrap().seed, i64::MAX as u64);
}

#[cfg(unix)]
#[test]
fn paths_that_are_not_utf_8_are_refused_by_name() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    for flag in ["--train", "--root", "--head"] {
        let words = BASE.split(' ').filter(|word| *word != "--train" && *word != "t").map(OsString::from);
        let words = words.chain([flag.into(), OsString::from_vec(b"caf\xe9".to_vec())]);
        let error = Flags::parse(words).and_then(|flags| flags.resolve(None)).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("UTF-8"), "{error}");
    }
}

#[test]
fn a_difference_names_the_setting_with_both_values() {
    let run = flags(&format!("{BASE} --seed 3")).unwrap();
    let difference = |then: &str| run.difference(then).unwrap_or_default();
    assert_eq!(difference(&run.to_toml().replace("seed = 3", "seed = 4")), "seed was 4, is now 3");
    assert_eq!(difference(&format!("{}select = \"x\"\n", run.to_toml())), "select was \"x\", is now unset");
    assert_eq!(difference(&format!("{}anchor-decay = 0.5\n", run.to_toml())), "");
    assert_eq!(difference(&run.to_toml().replace(" # default", "")), "");
    // A flag that the earlier version did not have, at its default and given.
    assert_eq!(difference(&run.to_toml().replace("eval-every = 1 # default\n", "")), "");
    assert_eq!(difference(&run.to_toml().replace("seed = 3\n", "")), "seed was unset, is now 3");
    // The method, which the user gave, and not the rate that follows from it.
    let other = flags(&format!("{BASE} --seed 3 --method spd")).unwrap();
    assert_eq!(other.difference(&run.to_toml()).unwrap(), "method was \"tpgm\", is now \"spd\"");
    assert!(difference("= no").contains("can't be read"));
}

/// A ViT of timm's names and this width and depth, with no bytes on the disk behind its weights.
fn sparse_vit(dir: &TempDir, name: &str, dim: usize, depth: usize) -> PathBuf {
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("cls_token".into(), vec![1, 1, dim]),
        ("pos_embed".into(), vec![1, 197, dim]),
        ("patch_embed.proj.weight".into(), vec![dim, 3, 16, 16]),
        ("patch_embed.proj.bias".into(), vec![dim]),
        ("head.weight".into(), vec![10, dim]),
        ("head.bias".into(), vec![10]),
    ];
    let mut pair = |name: String, out: usize, inp: Option<usize>| {
        shapes.push((format!("{name}.weight"), std::iter::once(out).chain(inp).collect()));
        shapes.push((format!("{name}.bias"), vec![out]));
    };
    pair("norm".into(), dim, None);
    for i in 0..depth {
        let linears =
            [("attn.qkv", 3 * dim, dim), ("attn.proj", dim, dim), ("mlp.fc1", 4 * dim, dim), ("mlp.fc2", dim, 4 * dim)];
        ["norm1", "norm2"].iter().for_each(|norm| pair(format!("blocks.{i}.{norm}"), dim, None));
        linears.iter().for_each(|(name, out, inp)| pair(format!("blocks.{i}.{name}"), *out, Some(*inp)));
    }
    let (mut at, mut header) = (0, serde_json::Map::new());
    for (name, shape) in shapes {
        let end = at + 4 * shape.iter().product::<usize>();
        header.insert(name, serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let header = serde_json::to_vec(&header).unwrap();
    let path = dir.path().join(name);
    fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_slice()].concat()).unwrap();
    let file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.set_len((8 + header.len() + at) as u64).unwrap();
    path
}

#[test]
fn defaults_follow_the_models_family_and_size() {
    let dir = tempfile::tempdir().unwrap();
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let models = [
        (sparse_vit(&dir, "small.safetensors", 384, 12), "adamw", 1e-4),
        (sparse_vit(&dir, "large.safetensors", 1024, 24), "adamw", 3e-5),
        (assets.join("vit-emoji.safetensors"), "sgd", 1e-2),
        (assets.join("resnet-emoji.safetensors"), "sgd", 1e-2),
    ];
    for (model, optimizer, lr) in &models {
        let base = format!("--model {} --train t", model.display());
        let of = |more: &str| values(&flags(&format!("{base} {more}")).unwrap());
        let decided = |table: &Table| {
            let value = |key: &str| table[key].to_string().replace('"', "");
            (value("optimizer"), table["lr"].as_float().unwrap(), value("warmup-steps"), value("clip-norm"))
        };
        let wanted = (optimizer.to_string(), *lr, "10%".to_string(), "1.0".to_string());
        // Equal for every method that does not name an optimiser of its own.
        for method in ["vanilla", "tpgm", "ftp", "lp-ft", "l2-sp", "wise"] {
            assert_eq!(decided(&of(&format!("--method {method}"))), wanted, "{base} {method}");
        }
        // But a head alone has a rate of its own, whatever the model is.
        let rate = if *optimizer == "adamw" { 1e-2 } else { 1e-1 };
        assert_eq!(decided(&of("--method linear-probe")).1, rate);
        assert_eq!(of("--method lp-ft")["probe-lr"].as_float(), Some(rate));
        assert_eq!(of("--method lp-ft --lr 0.3")["probe-lr"].as_float(), Some(0.3));
        assert_eq!(decided(&of("--method linear-probe --lr 0.3")).1, 0.3);
        assert_eq!(of("")["weight-decay"].as_float(), Some(if *optimizer == "adamw" { 0.05 } else { 5e-4 }));
        // What the user types stays, and what follows follows it.
        let own = of("--optimizer adamw --warmup-steps 3 --clip-norm 0");
        let rate = if *optimizer == "adamw" { *lr } else { 1e-3 };
        assert_eq!(decided(&own), ("adamw".into(), rate, "3".into(), "0.0".into()), "{base}");
        assert_eq!(decided(&of("--optimizer sgd")).1, 1e-2);
        assert_eq!(decided(&of("--lr 0.7")).1, 0.7);
        assert_eq!(of("--method spd")["optimizer"].as_str(), Some("adamw"));
        // The paper's recipes, whatever the model is.
        let paper = of("--recipe paper-vit");
        let rate = if *optimizer == "adamw" { *lr } else { 1e-3 };
        assert_eq!(decided(&paper), ("adamw".into(), rate, "0".into(), "0.0".into()));
        let post = (paper["schedule"].as_str(), paper["norm"].as_str(), paper["max-iters"].as_integer());
        assert_eq!(post, (Some("post"), Some("l2"), Some(200)));
        let paper = of("--recipe paper-resnet --clip-norm 2");
        assert_eq!(decided(&paper), ("sgd".into(), 1e-2, "0".into(), "2.0".into()));
        assert_eq!(paper["lr-schedule"].as_str(), Some("cosine-epoch"));
        assert_eq!((paper["schedule"].as_str(), paper["norm"].as_str()), (Some("every-step"), Some("mars")));
        // Those for CLIP differ in the head that they start from, and with AdamW in the rate.
        for (own, rate) in [("paper-vit", 3e-5), ("paper-resnet", 1e-2)] {
            let mut plain = of(&format!("--recipe {own}"));
            let mut clip = of(&format!("--recipe {}", own.replace("paper", "paper-clip")));
            assert_eq!(clip.remove("zero-shot").and_then(|on| on.as_bool()), Some(true));
            assert_eq!(clip.remove("normalize-features").is_some(), own == "paper-vit");
            assert_eq!(decided(&clip).1, rate);
            for key in ["recipe", "lr", "radius-lr"] {
                assert_eq!(plain.remove(key).is_some(), clip.remove(key).is_some());
            }
            assert_eq!(plain, clip);
        }
    }
    // Another model takes its own defaults from a file that another one's run wrote; a value that was typed stays.
    let [small, .., resnet] = &models;
    let run = flags(&format!("--model {} --train t --clip-norm 3", small.0.display())).unwrap();
    let other = with_file(&run.to_toml(), &format!("--model {}", resnet.0.display())).unwrap();
    assert_eq!((other.optim.lr, other.optim.clip_norm, other.optim.momentum), (1e-2, 3.0, 0.9));
    // A model that can't be read is the run's to report.
    assert_eq!(flags("--model nowhere --train t").unwrap().optim.lr, 1e-2);
}
