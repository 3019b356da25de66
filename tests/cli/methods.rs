//! Every `--method` from the command line.

use safetensors::SafeTensors;
use tpgm::method::METHODS;

use crate::{Space, TRAIN, with};

/// Flags of a method that its run is better seen with, or can't be without.
pub(crate) const FLAGS: [(&str, &str); 3] =
    [("partial", "--freeze-blocks 1"), ("fixed-radius", "--radius 0.01"), ("ftp", "--optimizer adamw")];

/// How far each tensor of a run ended from its anchor.
fn drifts(space: &Space, run: &str) -> Vec<(String, f64)> {
    let rows = space.rows(&format!("{run}/drift.csv"));
    rows.iter().map(|row| (row[1].clone(), row[3].parse().unwrap())).collect()
}

#[test]
fn every_method_leaves_a_whole_run() {
    let space = Space::new();
    for name in METHODS.iter().map(|method| method.name()) {
        let flags = FLAGS.iter().find(|(of, _)| *of == name).map_or("", |(_, flags)| flags);
        space.ok(&with(TRAIN, &format!("--test t=test --no-baseline --method {name} {flags} --out {name}")));
        assert!(space.text(&format!("{name}/config.toml")).contains(&format!("method = \"{name}\"")));
        // The file that a run writes is one that it takes.
        let again = space.json(&format!("finetune --config {name}/config.toml --no-baseline --out {name}-again"));
        assert_eq!(again["steps"], 6);
        let last = |run: &str| space.bytes(&format!("{run}/last.safetensors"));
        assert!(last(name) == last(&format!("{name}-again")), "{name}: its config.toml says another run");
        let has_radii = ["tpgm", "ftp"].contains(&name);
        assert_eq!(!space.rows(&format!("{name}/radii.csv")).is_empty(), has_radii, "{name}");
    }
    let still = |run: &str, stays: &dyn Fn(&str) -> bool| {
        for (tensor, drift) in drifts(&space, run) {
            assert_eq!(drift == 0.0, stays(&tensor), "{run}: {tensor} moved by {drift}");
        }
    };
    still("linear-probe", &|t| !t.starts_with("head."));
    still("bitfit", &|t| !t.starts_with("head.") && !t.ends_with("bias"));
    still("partial", &|t| {
        ["cls_token", "pos_embed", "patch_embed"].iter().any(|s| t.starts_with(s)) || t.starts_with("blocks.0.")
    });
    for (tensor, drift) in drifts(&space, "fixed-radius") {
        assert!(drift < 0.0101, "fixed-radius: {tensor} moved by {drift}");
    }
    let moved = |run: &str| drifts(&space, run).iter().map(|(_, drift)| drift).sum::<f64>();
    assert!(moved("ftp") < moved("vanilla") && moved("ema") < moved("vanilla"));
}

#[test]
fn wise_lies_between_the_pre_trained_and_the_fine_tuned_weights() {
    let space = Space::new();
    let run = |flags: &str, out: &str| space.ok(&with(TRAIN, &format!("--method vanilla {flags} --out {out}")));
    run("", "plain");
    run("--wise-alpha 0", "none");
    run("--wise-alpha 0.25", "quarter");
    run("--wise-alpha 1", "whole");
    let tensors = |path: &str| space.tensors(path);
    let (first, last) = (tensors("m.safetensors"), tensors("plain/last.safetensors"));
    assert!(tensors("none/last.safetensors") == first && tensors("whole/last.safetensors") == last);
    for (name, (_, got)) in tensors("quarter/last.safetensors") {
        for ((got, a), b) in got.iter().zip(&first[&name].1).zip(&last[&name].1) {
            assert!((got - (0.75 * a + 0.25 * b)).abs() <= 1e-6 * b.abs().max(1.0), "{name}");
        }
    }
    // A run that is resumed goes on from its own weights, not from those between.
    let state = |run: &str| space.bytes(&format!("{run}/state.safetensors"));
    let weights = |bytes: &[u8]| SafeTensors::deserialize(bytes).unwrap().tensor("w").unwrap().data().to_vec();
    assert!(weights(&state("quarter")) == weights(&state("plain")));

    run("--wise-alpha sweep --select test", "swept");
    let lines = space.lines("swept/metrics.jsonl");
    let alpha = lines.iter().find_map(|line| line.get("wise_alpha")?.as_f64()).unwrap();
    assert!((0.0..=1.0).contains(&alpha));
}

#[test]
fn lines_keeps_more_of_what_is_nearer_to_the_head() {
    let space = Space::new();
    space.ok(
        "init --out deep.safetensors --classes-of train --image-size 16 --patch-size 8 --dim 16 --depth 3 --heads 2",
    );
    let train = TRAIN.replace("m.safetensors", "deep.safetensors");
    let run = |flags: &str, out: &str| space.run(&with(&train, &format!("--method vanilla {flags} --out {out}"))).1;
    run("", "plain");
    let notes = run("--lines-alpha 0.25", "quarter");
    assert!(notes.contains("the first block keeps 0.25 of its drift from the pre-trained weights"), "{notes}");
    let (first, last) = (space.tensors("deep.safetensors"), space.tensors("plain/last.safetensors"));
    let check = |path: &str| {
        let mut scales = std::collections::BTreeSet::new();
        for (name, (_, got)) in space.tensors(path) {
            let block =
                name.strip_prefix("blocks.").map(|rest| rest.split('.').next().unwrap().parse::<u32>().unwrap());
            let scale = match block {
                Some(2) => 1.0,
                Some(1) => 0.625,
                None if name.starts_with("head.") => 1.0,
                _ => 0.25,
            };
            scales.insert(format!("{block:?} {scale}"));
            for ((got, a), b) in got.iter().zip(&first[&name].1).zip(&last[&name].1) {
                let want = f64::from(*a) + scale * f64::from(b - a);
                assert!(
                    (f64::from(*got) - want).abs() <= 1e-6 * f64::from(b.abs().max(1.0)),
                    "{path} {name}: {got} for {want}"
                );
            }
        }
        assert_eq!(scales.len(), 5, "stem, three blocks, head: {scales:?}");
    };
    check("quarter/last.safetensors");
    // A checkpoint that was fine-tuned before gives the same model.
    let models = "wise --lines --pretrained deep.safetensors --finetuned plain/last.safetensors";
    let said = space.json(&format!("{models} --alpha 0.25 --out after.safetensors"));
    assert_eq!((&said["rule"], &said["alpha"]), (&"lines".into(), &0.25.into()));
    check("after.safetensors");
    space.ok(&format!("{models} --sweep 3 --val val --out best.safetensors"));

    // A run that is resumed goes on from its own weights, and a sweep says what it took.
    let weights = |run: &str| {
        let state = space.bytes(&format!("{run}/state.safetensors"));
        SafeTensors::deserialize(&state).unwrap().tensor("w").unwrap().data().to_vec()
    };
    assert!(weights("quarter") == weights("plain"));
    run("--lines-alpha sweep --select test", "swept");
    let lines = space.lines("swept/metrics.jsonl");
    let alpha = lines.iter().find_map(|line| line.get("lines_alpha")?.as_f64()).unwrap();
    assert!((0.0..=1.0).contains(&alpha));
    assert!(lines.iter().all(|line| line.get("wise_alpha").is_none()));
}

#[test]
fn flags_of_other_methods_are_refused() {
    let space = Space::new();
    let wrong = [
        ("--method tpgm --radius 1", "--radius goes with --method fixed-radius"),
        ("--method fixed-radius", "needs its --radius"),
        ("--method linear-probe --layer-decay 0.5", "--layer-decay goes with a --method that trains more"),
        ("--method ftp --ftp-k 2", "--ftp-k 2"),
        ("--method llrd --layer-decay 0", "--layer-decay 0"),
        ("--method vanilla --distill-weight 2", "--distill-weight goes with --method distill"),
        ("--method distill --distill-temperature 3", "--distill-temperature goes with --distill-on logits"),
        ("--method distill --distill-on logits --distill-temperature 0", "--distill-temperature"),
        ("--method distill --distill-on logits --train two --val two", "--distill-on logits needs a head"),
        ("--drop-path 1", "--drop-path 1"),
        ("--dropout 1.5", "--dropout 1.5"),
        ("--method linear-probe --drop-path 0.1", "--drop-path goes with a --method that trains more"),
        ("--method lp-ft --probe-share 1", "--probe-share 1"),
        ("--method lp-ft --steps 1", "two steps"),
        ("--method partial --freeze-blocks 99", "blocks"),
        ("--method spd --optimizer sgd", "--optimizer adamw"),
        ("--method linear-probe --bn train", "--bn train"),
        ("--ema-decay 1", "--ema-decay 1"),
        ("--ema-decay 0.9 --schedule post", "--schedule post"),
        ("--method vanilla --wise-alpha 2", "--wise-alpha 2"),
        ("--method vanilla --lines-alpha 2", "--lines-alpha 2"),
        ("--method lines --wise-alpha 0.5", "leave one out"),
        ("--method vanilla --sam-rho 0", "--sam-rho 0"),
        ("--method vanilla --lora-rank 2 --sam-rho 0.1", "--sam-rho does not go with --lora-rank"),
        ("--method linear-probe --probe logistic --sam-rho 0.1", "--sam-rho does not go with --probe logistic"),
        ("--method sam --lora-rank 2", "--lora-rank"),
        ("--method digrap --lora-rank 2", "--lora-rank does not go with --method digrap"),
        ("--method digrap --digrap-lr 0", "--digrap-lr"),
        ("--method vanilla --digrap-lr 0.1", "--digrap-lr goes with --method digrap"),
    ];
    // Other classes than the model's, which then has a new head.
    for (class, color) in [("a", "red"), ("b", "blue")] {
        (0..4).for_each(|i| space.image(&format!("two/{class}/{i}.png"), color));
    }
    for (flags, part) in wrong {
        space.fails(2, &with(TRAIN, &format!("{flags} --out run")), &[part]);
    }
    // What sets one method stays, without effect, when a flag asks for another.
    space.ok(&with(TRAIN, "--method l2-sp --anchor-decay 0.5 --out l2-sp"));
    let (_, notes) = space.run("finetune --config l2-sp/config.toml --method bitfit --out bitfit");
    assert!(notes.contains("without effect in this run: anchor-decay (goes with --method l2-sp)"), "{notes}");
    assert!(space.text("bitfit/config.toml").contains("anchor-decay = 0.5\n"));
    space.ok(&with(TRAIN, "--method bitfit --out alone"));
    assert!(space.bytes("bitfit/last.safetensors") == space.bytes("alone/last.safetensors"));
}

#[test]
fn digrap_records_how_much_it_takes_out_of_each_gradient() {
    let space = Space::new();
    let train = with(TRAIN, "--epochs 4 --eval-every 1 --lr 0.05 --method digrap --digrap-lr 0.2 --exclude head.*");
    space.ok(&format!("{train} --out digrap"));
    let rows = space.rows("digrap/shares.csv");
    let tensors: Vec<String> = drifts(&space, "digrap").into_iter().map(|(tensor, _)| tensor).collect();
    let with_share: Vec<&String> = tensors.iter().filter(|t| !t.starts_with("head.")).collect();
    for (of, step) in rows.chunks(with_share.len()).zip(["3", "6", "9", "12"]) {
        assert!(of.iter().all(|row| row[0] == step), "{of:?}");
        assert_eq!(of.iter().map(|row| &row[1]).collect::<Vec<_>>(), with_share);
    }
    assert_eq!(rows.len(), 4 * with_share.len());
    let shares: Vec<f32> = rows.iter().map(|row| row[2].parse().unwrap()).collect();
    assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)) && shares.iter().any(|share| *share > 0.1));

    // The last ones are those that the state goes on from.
    let bytes = space.bytes("digrap/state.safetensors");
    let state = SafeTensors::deserialize(&bytes).unwrap();
    let words = state.tensor("shares").unwrap();
    let state: Vec<f32> =
        words.data().chunks(24).map(|radius| f32::from_le_bytes(radius[..4].try_into().unwrap())).collect();
    let last = shares[shares.len() - with_share.len()..].iter();
    let of_state: Vec<f32> =
        (0..tensors.len()).filter(|t| !tensors[*t].starts_with("head.")).map(|t| state[t]).collect();
    assert_eq!(last.copied().collect::<Vec<_>>(), of_state);

    // The page has them by tensor; no other method has any.
    let page = space.text("digrap/report.html");
    assert!(page.contains("taken out of the gradient"));
    space.ok(&with(TRAIN, "--method vanilla --out vanilla"));
    assert!(!space.path("vanilla/shares.csv").exists());
    assert!(!space.text("vanilla/report.html").contains("taken out of the gradient"));
}

/// Images of classes that the model does not know, so that its head is new.
fn renamed(space: &Space) {
    for split in ["train", "val"] {
        for (class, name) in [("red", "fox"), ("green", "frog"), ("blue", "whale")] {
            for file in std::fs::read_dir(space.path(&format!("{split}/{class}"))).unwrap().map(|f| f.unwrap().path()) {
                let to = space.path(&format!("other/{split}/{name}")).join(file.file_name().unwrap());
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::copy(&file, to).unwrap();
            }
        }
    }
}

#[test]
fn nothing_holds_a_new_head_near_its_random_start() {
    let space = Space::new();
    renamed(&space);
    let train = with(TRAIN, "--train other/train --val other/val --lr 0.05");
    let moved = |flags: &str| {
        space.ok(&with(&train, &format!("{flags} --out run")));
        let of_head = drifts(&space, "run").into_iter().find(|(name, _)| name == "head.weight").unwrap().1;
        std::fs::remove_dir_all(space.path("run")).unwrap();
        of_head
    };
    for flags in
        ["--method fixed-radius --radius 0.001", "--method ftp --optimizer adamw", "--method l2-sp --anchor-decay 10"]
    {
        let free = moved(flags);
        assert!(free > 0.01, "{flags}: {free}");
        // An excluded tensor beside it moves freely, and the head with it by a little.
        let beside = moved(&format!("{flags} --exclude blocks.0.norm1.*"));
        assert!((beside / free - 1.0).abs() < 0.1, "{flags}: {free}, and {beside}");
    }
    // What a new head answers is no lesson, whatever else is excluded; a pre-trained one is, if it has no radius too.
    let logits = "--method distill --distill-on logits";
    for (i, exclude) in ["", "--exclude norm.*", "--exclude head.*"].into_iter().enumerate() {
        let line = with(&train, &format!("{logits} {exclude} --out no"));
        space.fails(2, &line, &["--distill-on logits needs a head of the pre-trained model"]);
        space.ok(&with(TRAIN, &format!("{logits} {exclude} --steps 1 --out known{i}")));
    }
}

#[test]
fn a_longer_lp_ft_stays_in_the_part_that_it_had_come_to() {
    let space = Space::new();
    let train = with(TRAIN, "--method lp-ft --lr-schedule constant --warmup-steps 0 --probe-lr 0.5 --lr 0.001");
    let rates = |run: &str| -> Vec<f64> {
        let lines = space.lines(&format!("{run}/metrics.jsonl")).into_iter();
        lines.filter(|line| line.get("train_loss").is_some()).map(|line| line["lr"].as_f64().unwrap()).collect()
    };
    space.ok(&with(&train, "--steps 6 --out run"));
    let before = rates("run");
    let (_, said) = space.run("finetune --resume run --steps 18");
    assert!(said.contains("the first 3 steps train the head alone"), "{said}");
    let after = rates("run");
    assert_eq!((before.len(), after.len()), (6, 18));
    assert!(before[..3].iter().all(|lr| *lr > 0.4) && after[3..].iter().all(|lr| *lr < 0.002), "{before:?}, {after:?}");
    // It says so of a run that is resumed once more, too.
    let (_, said) = space.run("finetune --resume run --steps 20");
    assert!(said.contains("the first 3 steps train the head alone"), "{said}");
}
