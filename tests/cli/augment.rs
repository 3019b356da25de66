//! Augmentation from the command line and from files: its messages, its effects, and the errors.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::{Rgb, RgbImage};
use tpgm::method::METHODS;

use crate::methods::FLAGS;
use crate::{Space, TRAIN, read, with};

/// Everything at once.
const ALL: &str = "--augment crop,flip --rotation 15 --color-jitter 0.4,0.4,0.4,0.1 --rand-augment --random-erasing 0.5 --mixup 0.2 \
                   --cutmix 1.0";

fn line() -> String {
    TRAIN.replace(" --augment none", "")
}

/// The same bits from a file as from flags, and the same run however batches are cut. tests/cli/resume.rs stops one.
#[test]
fn all_augmentations_are_told_kept_and_taken_from_files() {
    let space = Space::new();
    let train = format!("{} --lr 0.05 --method vanilla {ALL}", line());
    let (_, err) = space.run(&format!("{train} --out whole"));
    let told = "training images are augmented by crop,flip (--augment), --rotation 15, --color-jitter 0.4,0.4,0.4,0.1, --rand-augment 9 \
                (2 operations), --random-erasing 0.5, --mixup 0.2, --cutmix 1";
    assert!(err.contains(told), "{err}");
    let last = |run: &str| space.bytes(&format!("{run}/last.safetensors"));
    space.ok("finetune --config whole/config.toml --out again");
    assert!(last("again") == last("whole"));
    let text = space.text("whole/config.toml");
    assert!(text.contains("rand-augment = 9\n") && text.contains("color-jitter = [0.4, 0.4, 0.4, 0.1]\n"), "{text}");
    space.write(
        "hand.toml",
        "rotation = 15\ncolor-jitter = 0.4\ntrivial-augment = true\ncutmix = 0.5\nmixup-prob = 0.5\n",
    );
    let err = space.run(&with(&line(), "--steps 2 --config hand.toml --out hand")).1;
    assert!(err.contains("--rotation 15, --color-jitter 0.4, --trivial-augment, --cutmix 0.5"), "{err}");
    // In parts of a batch, the sums of a step are added in another order and no more.
    space.ok(&format!("{train} --micro-batch 4 --out cut"));
    let (cut, whole) = (space.tensors("cut/last.safetensors"), space.tensors("whole/last.safetensors"));
    for (name, (_, values)) in &whole {
        let apart = values.iter().zip(&cut[name].1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-4, "{name}: {apart}");
    }
}

#[test]
fn every_augmentation_changes_what_is_learned() {
    let space = Space::new();
    let mut seen = Vec::new();
    for (i, flags) in [
        "--augment none",
        "--augment none --rotation 30",
        "--augment none --color-jitter 0.4",
        "--augment none --rand-augment 12",
        "--augment none --rand-augment 12 --rand-augment-ops 1",
        "--augment none --trivial-augment",
        "--augment none --random-erasing 1",
        "--augment none --mixup 0.8",
        "--augment none --cutmix 1",
        "--augment none --cutmix 1 --mixup 0.8 --mixup-switch-prob 0.2",
    ]
    .into_iter()
    .enumerate()
    {
        space.ok(&with(&line(), &format!("--steps 2 --lr 0.05 --method vanilla {flags} --out r{i}")));
        let last = space.bytes(&format!("r{i}/last.safetensors"));
        assert!(!seen.contains(&last), "{flags} changes nothing");
        seen.push(last);
    }
    // Mixup with a probability of 0 changes nothing.
    space
        .ok(&with(&line(), "--steps 2 --lr 0.05 --method vanilla --augment none --mixup 0.8 --mixup-prob 0 --out off"));
    assert!(space.bytes("off/last.safetensors") == seen[0]);
}

/// Every method trains on mixed labels; a head that is solved for says that they have no effect.
#[test]
fn every_method_takes_mixed_labels() {
    let space = Space::new();
    for name in METHODS.iter().map(|method| method.name()) {
        let flags = FLAGS.iter().find(|(of, _)| *of == name).map_or("", |(_, flags)| flags);
        let train = with(&line(), "--steps 3 --class-weights balanced --label-smoothing 0.1 --mixup 0.4 --cutmix 1");
        space.ok(&format!("{train} --method {name} {flags} --out {name}"));
        let lines = space.lines(&format!("{name}/metrics.jsonl"));
        let losses: Vec<f64> = lines.iter().filter_map(|line| line["train_loss"].as_f64()).collect();
        assert!(losses.len() == 3 && losses.iter().all(|loss| loss.is_finite()), "{name}: {losses:?}");
    }
    let (_, err) = space.run(&format!("{} --method linear-probe --probe logistic --mixup 0.4 --out solved", line()));
    assert!(err.contains("mixup (goes with --probe steps)"), "{err}");
}

#[test]
fn wrong_augmentations_are_refused() {
    let space = Space::new();
    for (flags, parts) in [
        ("--rotation 181", &["--rotation 181", "0 to 180"][..]),
        ("--rand-augment 31", &["--rand-augment 31", "0 to 30"]),
        ("--rand-augment 9 --rand-augment-ops 0", &["--rand-augment-ops"]),
        ("--rand-augment --trivial-augment", &["two policies"]),
        ("--random-erasing 1.5", &["--random-erasing 1.5", "0 to 1"]),
        ("--mixup=-1", &["--mixup"]),
        ("--cutmix 1e9", &["--cutmix 1000000000", "0.001 to 1000"]),
        ("--mixup 1 --mixup-prob 2", &["--mixup-prob 2"]),
    ] {
        space.fails(2, &with(&line(), &format!("{flags} --out run")), parts);
    }
    for (value, part) in
        [("0.4,0.4", "one number"), ("0.4,0.4,0.4,0.6", "hue at most 0.5"), ("much", "\"much\" is not a number")]
    {
        let (code, _, err) =
            read(space.command(&with(&line(), &format!("--color-jitter {value} --out run"))).output().unwrap());
        assert!(code == Some(2) && err.contains(part), "{value}\n{err}");
    }
    space.write("c.toml", "color-jitter = \"0.4\"\n");
    space.fails(2, &with(&line(), "--config c.toml --out run"), &["line 1", "color-jitter", "a list of numbers"]);
}

/// The middle of the i-th picture of a grid whose rows are `height` pixels apart.
fn picture(grid: &RgbImage, height: u32, i: u32) -> Rgb<u8> {
    *grid.get_pixel(4 + i % 6 * 132 + 64, 4 + i / 6 * height + 64)
}

#[test]
fn a_preview_shows_what_the_model_gets_and_trains_nothing() {
    let space = Space::new();
    let preview = |flags: &str, file: &str| {
        let before = space.snapshot().len();
        let out = space.ok(&with(&line(), &format!("{flags} --augment-preview {file}")));
        assert_eq!((out.as_str(), space.snapshot().len()), (&*format!("{file}\n"), before + 1));
        image::load_from_memory(&space.bytes(file)).unwrap().to_rgb8()
    };
    // In order, 18 images of three colours, and six more of the first.
    let plain = preview("--augment none --no-shuffle", "plain.png");
    assert_eq!(plain.dimensions(), (6 * 132 + 4, 4 * 146 + 4));
    for i in 0..24 {
        let Rgb([r, g, b]) = picture(&plain, 146, i);
        let strongest = [b, g, r, b][i as usize / 6];
        assert_eq!(strongest, r.max(g).max(b), "{i}: {r} {g} {b}");
    }
    // The same again, and another with other flags or another seed.
    let shuffled = preview("--rand-augment --seed 1", "one.png");
    assert!(
        preview("--rand-augment --seed 1", "two.png") == shuffled && preview("--rand-augment", "three.png") != shuffled
    );
    // Mixed images have two labels, one below the other.
    assert_eq!(preview("--mixup 1", "mixed.png").dimensions(), (6 * 132 + 4, 4 * 156 + 4));
    let said = space.json(&with(&line(), "--augment-preview four.png"));
    assert_eq!(said, serde_json::json!({"augment_preview": "four.png"}));
    for (flags, code, part) in [
        ("--augment-preview grid.jpg", 2, "end in .png"),
        ("--augment-preview nowhere/grid.png", 1, "nowhere"),
        ("--augment-preview grid.png --rotation 200", 2, "--rotation"),
    ] {
        space.fails(code, &with(&line(), flags), &[part]);
    }
    assert_eq!(
        space.command(&with(&line(), "--augment-preview a.png --out run")).output().unwrap().status.code(),
        Some(2)
    );
}

#[test]
fn the_page_of_a_run_shows_its_first_images() {
    let space = Space::new();
    space.ok(&with(&line(), "--steps 1 --augment none --no-shuffle --cutmix 1 --out run"));
    let text = space.text("run/augmented.json");
    let shown: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(shown.len(), 24);
    let page = space.text("run/report.html");
    // Those with the model's answers are loaded when they are looked at.
    assert_eq!(page.matches("<img ").count() - page.matches(" loading=\"lazy\" ").count(), 24);
    for image in &shown {
        let jpeg = image["jpeg"].as_str().unwrap();
        let bytes = BASE64_STANDARD.decode(jpeg).unwrap();
        assert_eq!(image::guess_format(&bytes).unwrap(), image::ImageFormat::Jpeg);
        assert!(page.contains(jpeg));
    }
    // Batches of one class each: an image is mixed with another of the same, whose label is the same.
    let labels: Vec<&str> = shown.iter().map(|image| image["labels"][0].as_str().unwrap()).collect();
    assert!(labels[..6].iter().all(|l| *l == "blue") && labels[17] == "red" && labels[18] == "blue", "{labels:?}");
    space.ok(&with(&line(), "--steps 1 --mixup 1 --out mixed"));
    let shown: Vec<serde_json::Value> = serde_json::from_str(&space.text("mixed/augmented.json")).unwrap();
    let mixed: Vec<_> = shown.iter().filter(|image| image["labels"].as_array().unwrap().len() == 2).collect();
    assert!(!mixed.is_empty());
    for image in mixed {
        let share = |i: usize| image["labels"][i].as_str().unwrap().split(' ').next().unwrap().parse::<f64>().unwrap();
        assert!((share(0) + share(1) - 1.0).abs() < 0.011, "{image}");
    }
    // A head that is solved for has no batches.
    space.ok(&with(&line(), "--method linear-probe --probe logistic --out solved"));
    assert!(!space.path("solved/augmented.json").exists());
}
