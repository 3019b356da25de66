//! A comparison says whose models answered to several views of each test image.

use super::{Space, entry};

const METHODS: &str = r#"
[[method]]
name = "vanilla"
[[method]]
name = "wise"
alphas = [1]
"#;

/// The views that the figures of a method's models are of, set by set.
fn tta(space: &Space, name: &str) -> Vec<Option<String>> {
    let results = space.results();
    let models = entry(&results, name)["models"].as_array().unwrap();
    let sets = models.iter().flat_map(|model| model["sets"].as_array().unwrap());
    sets.map(|set| set.get("tta").map(|views| views.as_str().unwrap().to_string())).collect()
}

#[test]
fn several_views_of_test_images_are_told() {
    let space = Space::new(METHODS);
    let config = space.text("c.toml");
    space.compare();
    let page = space.text("out/report.html");
    assert!(!page.contains("several views") && tta(&space, "vanilla").iter().all(Option::is_none));
    for part in [
        "Training images as the model gets them",
        "Drift from the pre-trained weights over time, block by block</summary>",
        "The least sure answers</summary>",
        "By class</summary>",
    ] {
        assert!(page.contains(part), "the page lacks {part:?}");
    }

    space.write("c.toml", &config.replace("augment = \"none\"", "augment = \"none\"\ntta = \"flip\""));
    std::fs::rename(space.path("out"), space.path("plain")).unwrap();
    space.compare();
    for name in ["vanilla", "wise"] {
        let told = tta(&space, name);
        assert!(told.len() > 2 && told.iter().all(|views| views.as_deref() == Some("flip")), "{name}: {told:?}");
    }
    let page = space.text("out/report.html");
    assert!(page.contains("all models answered to several views of each image (<code>--tta flip</code>)"), "{page}");
    assert!(space.text("out/results.md").contains("over seeds; with --tta flip;"));
    // The end of WiSE is the tuned model: whoever judges it sees the same views.
    let results = space.results();
    let of = |name: &str| entry(&results, name)["models"][0]["sets"].clone();
    assert_eq!(of("wise"), of("vanilla"));
}

#[test]
fn views_are_those_of_a_data_set_and_of_no_method_alone() {
    let space = Space::new("[[method]]\nname = \"vanilla\"\n[[method]]\nname = \"tpgm\"\ntta = \"flip\"\n");
    space.fails(2, "compare c.toml", &["method tpgm", "tta", "[[data]]"]);
}
