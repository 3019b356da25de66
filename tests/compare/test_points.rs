//! `test-points = "chosen"`: WiSE and LiNeS choose α as ever, and the test sets see the chosen one alone.

use super::{Space, entry};

/// Two of each, which differ in what the test sets see.
const METHODS: &str = r#"
[[method]]
name = "vanilla"
lr = 0.05
[[method]]
name = "wise"
alphas = [0, 0.5, 1]
[[method]]
name = "wise-chosen"
method = "wise"
alphas = [0, 0.5, 1]
test-points = "chosen"
[[method]]
name = "lines"
alphas = [0, 1]
[[method]]
name = "lines-chosen"
method = "lines"
alphas = [0, 1]
test-points = "chosen"
"#;

#[test]
fn the_choice_and_its_figures_are_those_of_all_points() {
    let space = Space::new(METHODS);
    let plan = space.ok("compare c.toml --dry-run");
    // One tuning seed on three values of α, then two seeds; all of them for the others.
    for (name, models) in [("wise", 6), ("wise-chosen", 5), ("lines", 4), ("lines-chosen", 4)] {
        let line = plan.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
        assert_eq!(line.split_whitespace().last(), Some(models.to_string().as_str()), "{plan}");
    }
    space.compare();
    let results = space.results();
    for name in ["wise", "lines"] {
        let (all, one) = (entry(&results, name), entry(&results, &format!("{name}-chosen")));
        assert_eq!(one["chosen"], all["chosen"]);
        let sets = |entry: &serde_json::Value| -> Vec<serde_json::Value> {
            entry["models"].as_array().unwrap().iter().map(|model| model["sets"].clone()).collect()
        };
        assert_eq!(sets(one), sets(all));
        let points = one["points"].as_array().unwrap().iter().zip(all["points"].as_array().unwrap());
        for (i, (of_one, of_all)) in points.enumerate() {
            assert_eq!(of_one["select"], of_all["select"]);
            assert_eq!(one["choice"], all["choice"]);
            assert_eq!(!of_one["accuracy"].is_null(), one["chosen"] == i, "{of_one}");
            assert!(!of_all["accuracy"].is_null());
        }
    }
    let page = space.text("out/report.html");
    assert!(page.contains("wise, every α") && !page.contains("wise-chosen, every α"));

    // A second call finds it all.
    let ends = space.compare();
    assert!(ends.len() == 10 && ends.values().all(|end| end == "was there already"), "{ends:?}");
}
