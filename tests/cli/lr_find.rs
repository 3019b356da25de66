//! The learning-rate range test: a rate that trains, in every form of output, and nothing written that was not asked for.

use crate::Space;

const FIND: &str = "lr-find --model m.safetensors --train train --val val --batch-size 6 --augment none --optimizer sgd \
                    --from 1e-4 --to 100 --lr-steps 50";

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
