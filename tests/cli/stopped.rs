//! Runs that are stopped: by signals, by being killed at any moment, by a power cut; started twice; resumed with something else.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::common::Random;
use crate::resume::{TRAIN, assert_ends_as};
use crate::{Space, fails, read, with};

/// Every schedule, and methods whose state differs.
const SCHEDULES: [&str; 7] = [
    "--proj-freq 2 --max-iters 2 --save-every 2",
    "--schedule post --max-iters 60 --save-every 7 --eval-every 0",
    "--method ftp --ema-decay 0.9 --save-every 5",
    "--method vanilla --optimizer adamw --lr 1e-3 --eval-every 3 --save-every 1",
    "--method lp-ft --wise-alpha 0.5 --eval-every 4 --save-every 1s",
    "--early-stop 2 --lr 1e-30 --epochs 9 --method vanilla --save-every 2",
    "--sampler balanced --class-weights balanced --best-by loss --save-every 3",
];

fn start(space: &Space, line: &str) -> Child {
    space.command(line).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success());
}

/// Waits until `done` holds; the run must not end before.
fn wait_for(child: &mut Child, done: impl Fn() -> bool) {
    while !done() {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended before it could be stopped");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Starts `line` again and again, stopped each time by a signal at a random moment, `times` in all; then to its end.
fn stop_often(space: &Space, line: &str, times: usize, random: &mut Random) {
    let begun = || space.path("stopped/config.toml").exists();
    for _ in 0..times {
        let line = if begun() { "finetune --resume stopped" } else { line };
        let signal = ["KILL", "TERM", "INT"][random.bits() as usize % 3];
        let mut child = start(space, line);
        // Long enough to reach the end of the short run now and then, and short enough to meet its beginning.
        std::thread::sleep(Duration::from_millis(random.bits() % 1500));
        if child.try_wait().unwrap().is_none() {
            send(signal, &child);
        }
        let (code, _, err) = read(child.wait_with_output().unwrap());
        // Before its first step a run is ended by the signal itself, or it may have come to its end.
        let ends = [None, Some(0), Some(130), Some(143)];
        assert!(ends.contains(&code) && !err.contains("panicked"), "{line}, {signal}: {code:?}\n{err}");
    }
    space.ok(if begun() { "finetune --resume stopped" } else { line });
}

fn runs_stopped_at_random_moments_end_as_others(times: usize) {
    let mut random = Random::new(times as u64);
    for schedule in SCHEDULES {
        let space = Space::new();
        let train = with(TRAIN, schedule);
        space.ok(&format!("{train} --out whole"));
        stop_often(&space, &format!("{train} --out stopped"), times / SCHEDULES.len(), &mut random);
        assert_ends_as(&space, "whole");
        space.no_stray_files();
        assert!(!space.path("stopped/lock").exists());
    }
}

#[test]
fn thirty_runs_stopped_at_random_moments_end_as_others() {
    runs_stopped_at_random_moments_end_as_others(30);
}

/// `cargo test --release --test cli kill -- --ignored`
#[test]
#[ignore = "minutes"]
fn five_hundred_kills_at_random_moments() {
    runs_stopped_at_random_moments_end_as_others(500);
}

#[test]
fn a_signal_saves_the_state_and_names_the_way_on() {
    for (signal, code, by) in [("INT", 130, "Ctrl-C"), ("TERM", 143, "SIGTERM")] {
        let space = Space::new();
        let train = with(TRAIN, "--eval-every 0 --save-every 0");
        space.ok(&format!("{train} --out whole"));
        let mut child = start(&space, &with(&train, "--epochs 3000 --out long"));
        let steps = || fs::read_to_string(space.path("long/metrics.jsonl")).map_or(0, |text| text.lines().count());
        wait_for(&mut child, || steps() > 40);
        send(signal, &child);
        let (got, out, err) = read(child.wait_with_output().unwrap());
        assert_eq!((got, out.as_str()), (Some(code), ""), "{err}");
        let last = err.lines().last().unwrap();
        assert!(
            last.contains(by) && last.contains("`tpgm finetune --resume long`") && !last.starts_with("error"),
            "{err}"
        );
        assert!(steps() > 40 && !space.path("long/lock").exists());

        let mut child = start(&space, &format!("{train} --out stopped"));
        wait_for(&mut child, || space.path("stopped/state.safetensors").exists());
        send(signal, &child);
        child.wait().unwrap();
        space.ok("finetune --resume stopped");
        assert_ends_as(&space, "whole");
    }
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let space = Space::new();
    let train = with(TRAIN, "--epochs 3000 --eval-every 0 --out run");
    let mut child = start(&space, &train);
    wait_for(&mut child, || space.path("run/state.safetensors").exists());
    let owner = format!("process {}", child.id());
    for line in [train.as_str(), "finetune --resume run"] {
        fails(space.command(line), 1, &["run", &owner, "is writing this run"]);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // The lock of a dead process is none.
    assert!(space.path("run/lock").exists());
    let mut child = start(&space, "finetune --resume run");
    let steps = || fs::read_to_string(space.path("run/metrics.jsonl")).map_or(0, |text| text.lines().count());
    wait_for(&mut child, || steps() > 100);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Both find no folder, and one of them makes it.
#[test]
fn of_two_runs_started_at_once_one_is_refused() {
    let space = Space::new();
    let train = with(TRAIN, "--epochs 40 --out run");
    let both: Vec<Child> = (0..2).map(|_| start(&space, &train)).collect();
    let mut ends: Vec<_> = both.into_iter().map(|child| read(child.wait_with_output().unwrap())).collect();
    ends.sort_by_key(|(code, _, _)| *code);
    let [(first, _, why), (second, _, refused)] = ends.try_into().unwrap();
    assert_eq!(first, Some(0), "{why}");
    assert!(matches!(second, Some(1 | 2)), "{second:?}");
    assert!(refused.contains("is writing this run") || refused.contains("already holds a run"), "{refused}");
    space.ok("finetune --resume run");
}

#[test]
fn a_run_that_saved_nothing_starts_anew() {
    let space = Space::new();
    let train = with(TRAIN, "--epochs 2");
    space.ok(&format!("{train} --out whole"));
    for resume in ["finetune --resume stopped".to_string(), format!("{train} --out stopped")] {
        fs::create_dir(space.path("stopped")).unwrap();
        for file in ["config.toml", "tuning.json", "adapter.json"] {
            space.write(&format!("stopped/{file}"), space.bytes(&format!("whole/{file}")));
        }
        space.write("stopped/metrics.jsonl", "{\"step\":0,\"tra");
        space.write("stopped/.tpgm-1-0.tmp", "half a file");
        let (_, err) = space.run(&resume);
        assert!(err.contains("stopped before it had saved anything: it starts anew"), "{err}");
        assert_ends_as(&space, "whole");
        space.no_stray_files();
        fs::remove_dir_all(space.path("stopped")).unwrap();
    }
}

#[test]
fn what_a_power_cut_tears_is_made_again() {
    let space = Space::new();
    let train = with(TRAIN, "--epochs 40 --save-every 4");
    space.ok(&format!("{train} --out whole"));
    let mut child = start(&space, &format!("{train} --out stopped"));
    let lines = || fs::read_to_string(space.path("stopped/metrics.jsonl")).map_or(0, |text| text.lines().count());
    wait_for(&mut child, || lines() > 40);
    child.kill().unwrap();
    child.wait().unwrap();
    let torn: [(&str, &[u8]); 3] = [
        ("metrics.jsonl", b"{\"step\":3,\"epoch\":1,\"lr\":0.0\xc3"),
        ("radii.csv", b"2,blocks.0.attn.qk"),
        ("evaluations.jsonl", b"{\"set\":\"t\",\"mod"),
    ];
    for (file, torn) in torn {
        let name = format!("stopped/{file}");
        space.write(&name, [space.bytes(&name).as_slice(), torn].concat());
    }
    space.ok("report stopped");
    fs::remove_file(space.path("stopped/report.html")).unwrap();
    // The folder may be moved as well.
    fs::create_dir(space.path("elsewhere")).unwrap();
    fs::rename(space.path("stopped"), space.path("elsewhere/run")).unwrap();
    space.ok("finetune --resume elsewhere/run");
    fs::rename(space.path("elsewhere/run"), space.path("stopped")).unwrap();
    assert_ends_as(&space, "whole");
}

#[test]
fn a_finished_run_can_be_made_longer() {
    let space = Space::new();
    // A rate that does not follow the length: neither the schedule nor a warm-up that is a share of the steps.
    let train = with(TRAIN, "--lr-schedule constant --warmup-steps 2");
    space.ok(&with(&train, "--epochs 5 --out whole"));
    space.ok(&with(&train, "--epochs 2 --out stopped"));
    let (_, err) = space.run("finetune --resume stopped --epochs 5 --eval-every 2 --micro-batch 3");
    for change in ["epochs was 2, is now 5", "eval-every was 1, is now 2", "micro-batch was 6, is now 3"] {
        assert!(err.contains(change), "{change}: {err}");
    }
    // Parts of a batch are added up in another order: close, and not the same bits.
    let (a, b) = (space.tensors("whole/last.safetensors"), space.tensors("stopped/last.safetensors"));
    for (name, (_, values)) in &a {
        let far = values.iter().zip(&b[name].1).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(far < 1e-4, "{name}: {far}");
    }
    space.fails(2, "finetune --resume stopped --epochs 4", &["has taken 15 steps", "can't give it 12"]);
    space.fails(1, "finetune --resume stopped --lr 0.5", &["lr was 0.02, is now 0.5"]);
    space.ok(&with(TRAIN, "--epochs 2 --schedule post --max-iters 5 --out post"));
    space.fails(2, "finetune --resume post --epochs 3", &["has learned its radii", "can't be made longer"]);
}

#[test]
fn changed_inputs_are_named() {
    let space = Space::new();
    let train = with(TRAIN, "--epochs 1 --out run");
    space.ok(&train);
    let accept = "finetune --resume run --accept-changes";
    for (what, file) in [("--train", "train/red/0.png"), ("--val", "val/blue/1.png"), ("--test t", "test/green/2.png")]
    {
        let before = space.bytes(file);
        space.write(file, [before.as_slice(), &[0]].concat());
        let parts = [&format!("the images of {what}"), "have changed", "--accept-changes"];
        space.fails(1, "finetune --resume run", &parts);
        let (_, err) = space.run(accept);
        assert!(err.contains(&format!("the images of {what} have changed")), "{err}");
        space.write(file, before);
        space.ok(accept);
        space.ok("finetune --resume run");
    }
    space.image("train/red/more.png", "red");
    space.fails(1, "finetune --resume run", &["the images of --train"]);
    fs::remove_file(space.path("train/red/more.png")).unwrap();
    let other = "init --out m.safetensors --classes-of train --image-size 16 --patch-size 8 --dim 16 --depth 1 --heads 2 --seed 1";
    space.ok(other);
    space.fails(1, "finetune --resume run", &["the weights of --model", "have changed"]);
    space.fails(2, &format!("{TRAIN} --out other --accept-changes"), &["--resume"]);
}

#[test]
fn resume_needs_the_folder_and_nothing_else() {
    let space = Space::new();
    space.ok(&with(TRAIN, "--epochs 1 --out run"));
    space.ok("finetune --resume run");
    space.ok("finetune --resume --out run");
    space.ok("finetune --resume run --out run");
    space.fails(2, "finetune --resume run --out other", &["--resume run", "--out other"]);
    space.fails(2, "finetune --resume", &["--resume"]);
    space.fails(1, "finetune --resume nowhere", &["nowhere", "no run to go on with"]);
    space.fails(1, "finetune --resume train", &["train", "no run to go on with"]);
    fs::remove_file(space.path("run/state.safetensors")).unwrap();
    space.fails(1, "finetune --resume run", &["no state.safetensors", "another --out"]);
    space.fails(2, &with(TRAIN, "--epochs 1 --out run"), &["already holds the weights of a run"]);
}

/// The state has a step that no evaluation was at.
#[test]
fn the_state_is_saved_between_evaluations() {
    let space = Space::new();
    let train = with(TRAIN, "--epochs 3000 --eval-every 0 --save-every 1s --out run");
    let mut child = start(&space, &train);
    let state = space.path("run/state.safetensors");
    let first = || fs::metadata(&state).and_then(|m| m.modified()).ok();
    wait_for(&mut child, || first().is_some());
    let began = first();
    wait_for(&mut child, || first() != began);
    child.kill().unwrap();
    child.wait().unwrap();
    let lines: Vec<Value> =
        space.text("run/metrics.jsonl").lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    assert!(
        lines.iter().all(|line| line.get("eval").is_none() || line["baseline"] == true),
        "an evaluation came between"
    );
    let bytes = space.bytes("run/state.safetensors");
    let state = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let steps = u64::from_le_bytes(state.tensor("progress").unwrap().data()[..8].try_into().unwrap());
    assert!(steps > 0, "the state is still that of the start");
}
