//! Machines, disks and flags that a run can't go on with.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Space, TRAIN, fails, read, with};

#[test]
fn an_adapter_that_is_not_there() {
    let space = Space::new();
    let name = space.json("devices")[0]["name"].as_str().unwrap().to_string();
    for adapter in ["no-such-gpu", "99"] {
        let parts = [&format!("'{adapter}'"), "found: 0 ", name.as_str()];
        space.fails(1, &format!("{TRAIN} --adapter {adapter} --out run"), &parts);
        space.fails(1, &format!("predict --model m.safetensors --data test --adapter {adapter}"), &parts);
    }
    let mut command = space.command("predict --model m.safetensors --data test");
    command.env("WGPU_ADAPTER_NAME", "no-such-gpu");
    if std::env::var_os("TPGM_TEST_ADAPTER").is_none() {
        fails(command, 1, &["'no-such-gpu'", &name]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_adapter_at_all() {
    let space = Space::new();
    let before = space.snapshot();
    let without = |line: &str| {
        let mut command = space.command(line);
        for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
            command.env(name, "/nonexistent");
        }
        command.env("WGPU_BACKEND", "vulkan");
        command
    };
    for line in [&format!("{TRAIN} --out run"), "predict --model m.safetensors --data test", "devices"] {
        fails(without(line), 1, &["no GPU adapter was found", "install"]);
    }
    let output = without("devices --json").output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b"[]\n"[..]));
    assert_eq!(space.snapshot(), before);
}

#[test]
fn a_backend_that_does_not_exist() {
    let space = Space::new();
    for line in ["devices", "devices --json", "check matmul", "predict --model m.safetensors --data test"] {
        let mut command = space.command(line);
        command.env("WGPU_BACKEND", "vulcan");
        fails(command, 2, &["WGPU_BACKEND=vulcan", "'vulcan'", "vulkan, metal, dx12, gl"]);
    }
}

/// On a CPU adapter that nobody asked for, a run says so once, before anything else. Nothing else is on stderr of `devices`,
/// whether there is a session with its folder or not.
#[test]
fn a_cpu_is_named_if_nobody_asked_for_it() {
    let space = Space::new();
    let said = |line: &str, chosen: Option<&str>| {
        let mut command = space.command(line);
        command.env_remove("XDG_RUNTIME_DIR");
        if let Some(name) = chosen {
            command.env("WGPU_ADAPTER_NAME", name);
        }
        let (code, out, err) = read(command.output().unwrap());
        assert_eq!(code, Some(0), "{line}: {err}");
        (out, err)
    };
    let adapters: Value = serde_json::from_str(&said("devices --json", None).0).unwrap();
    let taken = adapters.as_array().unwrap().iter().find(|a| a["taken"] == true).unwrap();
    let name = taken["name"].as_str().unwrap();
    let predict = "predict --model m.safetensors --data test";
    let told = said(predict, None).1;
    assert_eq!(told.contains("running on the CPU"), taken["type"] == "Cpu", "{told}");
    assert!(!said(predict, Some(name)).1.contains("running on the CPU"));
    assert!(!told.contains("XDG_RUNTIME_DIR"), "{told}");
    assert_eq!(said("devices --json", None).1, "");
}

#[test]
fn a_batch_that_the_adapter_has_no_room_for() {
    let space = Space::new();
    space.ok("init --out large.safetensors --classes-of train --image-size 1024 --patch-size 128 --dim 16 --depth 1 --heads 2");
    let thousand = "train/red/0.png red\n".repeat(998) + "train/blue/0.png blue\ntrain/green/0.png green\n";
    space.write("thousand.txt", thousand);
    // 12 GB of pixels: more than any binding of 32 bits.
    let train = with(TRAIN, "--model large.safetensors --train thousand.txt --batch-size 1000 --radius-batch-size 2");
    let parts = ["images", "12000 MiB", "this adapter allows", "smaller --batch-size or --image-size"];
    // With all else 72 GB: more than is free here, unless told otherwise.
    space.fails(
        1,
        &format!("{train} --out run"),
        &["MiB planned for 1000 images at once", "the limit is", "--micro-batch auto"],
    );
    space.fails(1, &format!("{train} --out run --memory-limit 1000000"), &parts);
    space.fails(1, "predict --model large.safetensors --data thousand.txt --batch-size 1000", &parts);
    space.fails(1, "eval --model large.safetensors --data t=thousand.txt --batch-size 1000", &parts);
}

#[test]
fn a_place_that_can_not_be_written() {
    let space = Space::new();
    // Below a file, where not even root can write.
    let below = "m.safetensors/out";
    space.fails(1, &format!("{TRAIN} --out {below}"), &[below, "cannot create this folder"]);
    space.fails(1, &format!("{TRAIN} --out m.safetensors"), &["m.safetensors", "cannot create this folder"]);
    space.fails(1, &format!("predict --model m.safetensors --data test --logits {below}"), &[below, "cannot write"]);
    space.fails(1, &format!("init --classes-of train --out {below}"), &[below, "cannot write"]);
    space.fails(1, "predict --model m.safetensors --data test --logits train", &["train", "not a regular file"]);
}

/// `line` in a shell after `limit`.
#[cfg(unix)]
fn under(space: &Space, limit: &str, line: &str) -> Command {
    let command = space.command(line);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{limit}; exec \"$@\"")).arg("sh");
    shell.arg(command.get_program()).args(command.get_args()).current_dir(space.dir.path());
    shell.env_remove("RUST_BACKTRACE").env("MESA_SHADER_CACHE_DISABLE", "true");
    // What the command has, above all that nothing is measured: a cache outside would not fit under the limit either.
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

/// `line` under a limit on the size of a file, which is what a full disk looks like from inside.
#[cfg(unix)]
fn on_a_small_disk(space: &Space, kib: usize, line: &str) -> Command {
    under(space, &format!("trap '' XFSZ; ulimit -f {}", 2 * kib), line)
}

/// A limit on the address space, which is what running out of memory looks like from inside. The model's activations for
/// 60 images take 3 GiB, each within the limit of a binding; where the driver itself does not fit, that is said instead.
#[cfg(target_os = "linux")]
#[test]
fn out_of_memory() {
    let space = Space::new();
    let init = "init --classes-of train --image-size 320 --patch-size 8 --dim 32 --depth 10 --heads 2 --seed 1";
    space.ok(&format!("{init} --out large.safetensors"));
    // Enough images for a step of them: the plan follows the batch, but is never larger than the data set.
    for i in 0..60 {
        space.image(&format!("train/red/more{i}.png"), "red");
    }
    let line = "finetune --model large.safetensors --train train --val val --method vanilla --batch-size 60 --steps 1";
    let error = fails(under(&space, "ulimit -v 1500000", &format!("{line} --out run")), 1, &[]);
    assert!(error.to_lowercase().contains("memory"), "{error}");
    space.no_stray_files();
}

#[cfg(unix)]
#[test]
fn a_full_disk() {
    let space = Space::new();
    let before = space.snapshot();
    let init = "init --classes-of train --image-size 16 --patch-size 8 --dim 16 --depth 1 --heads 2 --seed 1";
    fails(on_a_small_disk(&space, 8, &format!("{init} --out m.safetensors")), 1, &["m.safetensors", "cannot write"]);
    fails(
        on_a_small_disk(&space, 8, &format!("{init} --out new.safetensors")),
        1,
        &["new.safetensors", "cannot write"],
    );
    assert_eq!(space.snapshot(), before, "the old file stays and no part of a new one");

    // A checkpoint has 28 KiB; the logs fit.
    let train = on_a_small_disk(&space, 20, &format!("{TRAIN} --out run"));
    fails(train, 1, &["run/state.safetensors", "cannot write", "File too large"]);
    assert!(!space.path("run/best.safetensors").exists() && !space.path("run/last.safetensors").exists());
    space.no_stray_files();
    // The log itself.
    let train = on_a_small_disk(&space, 1, &with(TRAIN, "--epochs 9 --out log"));
    fails(train, 1, &["log/", "cannot write"]);
    space.no_stray_files();
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_is_full_or_closed() {
    let space = Space::new();
    for line in ["inspect m.safetensors", "inspect m.safetensors --json"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = space.command(line).stdout(full).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
        assert!(error.starts_with("error: stdout: cannot write"), "{error}");
    }
    // As in `tpgm inspect | head`: an end, not a panic.
    let mut child =
        space.command("inspect m.safetensors").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &[][..]));
}

#[test]
fn a_loss_that_is_not_a_number() {
    let space = Space::new();
    let before = space.tensors("m.safetensors");
    let methods = [
        ("plain", "--method vanilla", "the loss of step 1 "),
        ("every", "--method tpgm", "the radius loss of step 0 "),
        ("post", "--schedule post", "the loss of step 1 "),
    ];
    for (out, method, what) in methods {
        let line = format!("{TRAIN} --lr 1e30 --lr-schedule constant --clip-norm 0 {method} --out {out}");
        let kept = format!("{out}/last.safetensors");
        let error = space.fails_midway(&line, &[what, "not a finite number", &kept, "--lr"]);
        let after = space.tensors(&kept);
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        assert!(after.values().flat_map(|(_, values)| values).all(|v| v.is_finite()), "{error}");
        space.ok(&format!("inspect {kept}"));
    }
}

#[test]
fn flags_that_make_no_sense() {
    let space = Space::new();
    let wrong = [
        ("--batch-size 0", "--batch-size"),
        ("--micro-batch 0", "--micro-batch"),
        ("--memory-limit 0", "--memory-limit"),
        ("--radius-batch-size 0", "--radius-batch-size"),
        ("--max-iters 0", "--max-iters"),
        ("--proj-freq 0", "--proj-freq"),
        ("--lr 0", "--lr"),
        ("--lr NaN", "--lr"),
        ("--momentum 1", "--momentum"),
        ("--optimizer adamw --momentum 0.9", "--momentum"),
        ("--nesterov --momentum 0", "--nesterov"),
        ("--label-smoothing 1", "--label-smoothing"),
        ("--test sketch", "'sketch'"),
        ("--test =test", "'=test'"),
        ("--test t=test t=val", "two data sets are called t"),
        ("--test t=test --id other", "--id other"),
        ("--id t", "--id t"),
        ("--exclude haed.*", "--exclude haed.*"),
        ("--exclude [", "--exclude ["),
        ("--std 1 1 0", "std"),
        ("--crop-pct 0", "crop"),
        ("--seed 9223372036854775808", "--seed 9223372036854775808: it must be at most 9223372036854775807"),
        ("--steps 9223372036854775808", "--steps 9223372036854775808"),
    ];
    for (flags, part) in wrong {
        space.fails(2, &with(TRAIN, &format!("--out run {flags}")), &[part]);
    }
    space.fails(2, "finetune --train train --val val --out run", &["--model is missing", "--config"]);
    space.fails(2, "eval --model m.safetensors --data t=test t=val", &["two data sets are called t"]);
    space.fails(2, "eval --model m.safetensors --data test", &["'test'", "NAME=PATH"]);
    space.fails(2, "eval --model m.safetensors --data t=test --batch-size 0", &["--batch-size"]);
    space.fails(2, "predict --model m.safetensors --data test --top 0", &["--top"]);
}

#[test]
fn the_parser_says_what_it_expected() {
    let space = Space::new();
    let wrong = [
        ("finetune --norm l1 --out run", "'--norm <NORM>'"),
        ("finetune --epochs 2 --steps 3 --out run", "cannot be used with"),
        ("finetune --no-such-flag --out run", "--no-such-flag"),
        ("finetune", "--out <DIR>"),
        ("frobnicate", "frobnicate"),
    ];
    for (line, part) in wrong {
        let output = space.command(line).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}: {error}");
        assert!(error.starts_with("error: ") && error.contains(part), "{line}: {error}");
    }
    assert!(!space.path("run").exists());
}

#[test]
fn a_run_is_not_overwritten() {
    let space = Space::new();
    space.ok(&format!("{TRAIN} --out run"));
    space.fails(2, &format!("{TRAIN} --out run"), &["run already holds a run", "--out", "--resume"]);
}
