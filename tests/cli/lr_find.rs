//! The learning-rate range test: a rate that trains, in every form of output, and nothing written that was not asked for.

use tpgm::method::METHODS;

use crate::methods::FLAGS;
use crate::{Space, with};

const FIND: &str = "lr-find --model m.safetensors --train train --val val --batch-size 6 --augment none --optimizer sgd \
                    --from 1e-4 --to 100 --lr-steps 50 --method vanilla";

#[test]
fn a_rate_is_suggested_that_trains() {
    let space = Space::new();
    let names = || {
        let entries = std::fs::read_dir(space.path(".")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let found = space.json(FIND);
    assert_eq!(names(), before, "nothing is written");
    let rate = found["suggested"]["lr"].as_f64().unwrap_or_else(|| panic!("{found}"));
    assert!((1e-3..10.0).contains(&rate), "{found}");
    assert_eq!(found["diverged"], true, "a rate of 100 is too high: {found}");
    let points = found["points"].as_array().unwrap();
    assert!(points.len() > 10 && points.len() <= 50, "{} points", points.len());
    assert!((points[0]["lr"].as_f64().unwrap() - 1e-4).abs() < 1e-12);
    // Colours are learned at that rate.
    space.ok(&format!(
        "finetune --model m.safetensors --train train --val val --batch-size 6 --augment none --optimizer sgd --lr {rate} --epochs 10 \
         --method vanilla --out run"
    ));
    let scores = space.json("eval --model run/best.safetensors --data t=test");
    assert_eq!(scores[0]["top1"], 1.0, "{scores}");

    // The same in the terminal and on a page.
    let (out, _) = space.run(&format!("{FIND} --out rates.html"));
    assert!(out.contains(&format!("try --lr {rate}: the smoothed loss falls fastest near")), "{out}");
    assert!(out.lines().filter(|line| line.contains(" |")).count() == 12 && out.contains('•'), "{out}");
    let page = space.text("rates.html");
    for part in ["<h1>Learning rates for m.safetensors</h1>", "</svg>", "try --lr", "learning rate, as a power of ten"]
    {
        assert!(page.contains(part), "the page lacks {part}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let space = Space::new();
    space.fails(2, "lr-find --model m.safetensors --train train --from 1 --to 0.1", &["--from 1 --to 0.1", "rise"]);
    space.fails(2, "lr-find --model m.safetensors --train train --lr-steps 3", &["--lr-steps 3", "10 steps"]);
    let solved = "lr-find --model m.safetensors --train train --val val --method linear-probe --probe logistic";
    space.fails(2, solved, &["--probe logistic takes none"]);
    // Where nothing is learned, nothing is suggested.
    let (out, _) = space.run(&FIND.replace("--to 100", "--to 2e-4"));
    assert!(out.contains("no rate is suggested"), "{out}");
}

/// The same rate in f32 at each step, so that a run with it takes the same steps.
const ONE: f64 = 0.003;
const STEPS: usize = 12;
const SHARED: &str = "--model m.safetensors --train train --val val --batch-size 6 --seed 5";

/// The losses of a test at [`ONE`] rate.
fn tested(space: &Space, flags: &str) -> Vec<f32> {
    let line = format!("lr-find {} --from {ONE} --to {} --lr-steps {STEPS}", with(SHARED, flags), ONE * (1.0 + 1e-11));
    let found = space.json(&line);
    found["points"].as_array().unwrap().iter().map(|point| point["loss"].as_f64().unwrap() as f32).collect()
}

/// The training losses of the last [`STEPS`] steps of a run at that rate.
fn trained(space: &Space, flags: &str, steps: usize) -> Vec<f32> {
    let run = format!("run-{}", std::fs::read_dir(space.path(".")).unwrap().count());
    let line = format!("finetune {} --lr {ONE} --lr-schedule constant --warmup-steps 0", with(SHARED, flags));
    space.ok(&format!("{line} --steps {steps} --eval-every 0 --out {run}"));
    let lines = space.lines(&format!("{run}/metrics.jsonl"));
    let losses = lines.iter().filter_map(|line| Some(line.get("train_loss")?.as_f64()? as f32));
    losses.skip(steps - STEPS).collect()
}

#[track_caller]
fn assert_alike(space: &Space, flags: &str) -> Vec<f32> {
    let (test, run) = (tested(space, flags), trained(space, flags, STEPS));
    assert_eq!((test.len(), run.len()), (STEPS, STEPS), "{flags}");
    assert!(test.iter().zip(&run).all(|(a, b)| (a - b).abs() < 1e-5 * b.abs()), "{flags}:\n{test:?}\n{run:?}");
    test
}

#[test]
fn it_trains_as_finetune_does_with_every_method() {
    let space = Space::new();
    // Twelve steps of the second stage, after eight of the first.
    let earlier = "--method lp-ft --probe-lr 0.1 --probe-share 0.4 --steps 20 --lr-schedule constant --warmup-steps 0";
    let both = [tested(&space, earlier), trained(&space, "--method lp-ft --probe-lr 0.1 --probe-share 0.4", 20)];
    assert!(both[0].iter().zip(&both[1]).all(|(a, b)| (a - b).abs() < 1e-5 * b.abs()), "lp-ft: {both:?}");

    let plain = assert_alike(&space, "--method vanilla");
    assert_ne!(both[0], plain);
    for name in METHODS.iter().map(|method| method.name()).filter(|name| !["lp-ft", "vanilla"].contains(name)) {
        let flags = FLAGS.iter().find(|(of, _)| *of == name).map_or("", |(_, flags)| flags);
        let losses = assert_alike(&space, &format!("--method {name} {flags}"));
        // What the method does is in the losses, if it does anything to a step.
        assert_eq!(losses == plain, ["ema", "lines", "wise"].contains(&name), "{name}: {losses:?}");
    }
    assert_eq!(assert_alike(&space, "--method tpgm --schedule post"), plain);
}

#[test]
fn it_trains_as_finetune_does_with_every_other_flag() {
    let space = Space::new();
    let plain = assert_alike(&space, "--method vanilla");
    for flags in [
        "--lora-rank 2 --lora-alpha 8 --lora-targets *.fc1.weight",
        "--lora-rank 2 --schedule post --method tpgm",
        "--method distill --distill-on logits --distill-weight 3 --distill-temperature 4",
        "--layer-decay 0.5",
        "--drop-path 0.3 --dropout 0.2",
        "--clip-norm 0.05",
        "--label-smoothing 0.2 --no-shuffle",
        "--weight-decay 0.3 --optimizer adamw",
        "--mixup 0.5 --augment none",
        "--micro-batch 2 --recompute --augment none",
        "--fold 2/3",
    ] {
        let flags = if flags.contains("--method") { flags.into() } else { format!("--method vanilla {flags}") };
        assert_ne!(assert_alike(&space, &flags), plain, "{flags}");
    }
    // Unequal classes, with weights and with a sampler.
    for i in 6..14 {
        space.image(&format!("train/red/{i}.png"), "red");
    }
    let plain = assert_alike(&space, "--method vanilla");
    for flags in ["--class-weights balanced", "--sampler balanced"] {
        assert_ne!(assert_alike(&space, &format!("--method vanilla {flags}")), plain, "{flags}");
    }
    // Batch norm.
    space.ok(
        "init --arch resnet --depths 1 1 --widths 8 16 --image-size 16 --classes-of train --seed 3 --out m.safetensors",
    );
    let plain = assert_alike(&space, "--method vanilla");
    for flags in ["--freeze-bn", "--bn frozen", "--method tpgm"] {
        assert_ne!(assert_alike(&space, &with("--method vanilla", flags)), plain, "{flags}");
    }
}

#[test]
fn flags_that_set_nothing_here_are_refused_and_keys_of_a_file_are_named() {
    let space = Space::new();
    let wrong = [
        ("--epochs 3 --lr 0.1", "leave out --epochs, --lr"),
        ("--steps 3", "leave out --steps"),
        ("--test t=test --id t", "leave out --id, --test"),
        ("--warmup-steps 2 --lr-schedule linear", "leave out --lr-schedule, --warmup-steps"),
        ("--early-stop 2", "leave out --early-stop"),
        ("--tta flip", "leave out --tta"),
        ("--method vanilla --ema-decay 0.9", "leave out --ema-decay"),
        ("--method vanilla --wise-alpha 0.5", "leave out --wise-alpha"),
        ("--method vanilla --lines-alpha 0.5", "leave out --lines-alpha"),
        ("--sync-bn", "leave out --sync-bn"),
        ("--schedule post --radius-lr 0.1", "leave out --radius-lr"),
        ("--method lp-ft --probe-lr 0.1 --lr 0.2", "leave out --lr"),
        ("--method vanilla --radius 3", "--radius goes with --method fixed-radius"),
        ("--method ftp --lora-rank 2", "--lora-rank does not go with"),
        ("--freeze-bn", "--freeze-bn is for models with batch norm"),
        ("--bn frozen", "--bn frozen is for models with batch norm"),
    ];
    for (flags, part) in wrong {
        space.fails(2, &format!("lr-find {SHARED} {flags}"), &[part]);
    }
    let test =
        |train: &str| format!("lr-find {} --strict-splits --lr-steps 10", with(SHARED, &format!("--train {train}")));
    space.fails(1, &test("val"), &["--strict-splits"]);
    space.write("f.toml", "epochs = 3\ntest = [\"t=nowhere\"]\nema-decay = 0.5\nmethod = \"vanilla\"\nradius = 3.0\n");
    let (_, err) = space.run(&format!("lr-find {SHARED} --lr-steps 10 --config f.toml"));
    assert!(err.contains("without effect in lr-find: ema-decay, epochs, test\n"), "{err}");
    assert!(err.contains("without effect in this run: radius (goes with"), "{err}");
}
