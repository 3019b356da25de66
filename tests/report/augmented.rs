//! The training images on a run's page.

use std::fs;

use tpgm::report;

use crate::one_run;

#[test]
fn training_images_are_shown_with_their_labels_and_nothing_else_is_taken_from_the_file() {
    let (_folder, dir) = one_run(true);
    let write = |text: &str| fs::write(dir.join("augmented.json"), text).unwrap();
    let render = || report::render(std::slice::from_ref(&dir));
    let heading = "Training images as the model gets them";
    assert!(!render().unwrap().contains(heading));
    write(r#"[{"labels": ["<b>cat"], "jpeg": "/9j//w=="}, {"labels": ["0.30 cat", "0.70 dog"], "jpeg": "AAAA"}]"#);
    let page = render().unwrap();
    for text in [
        heading,
        "The first 2 of the run",
        "<img alt=\"&lt;b&gt;cat\" src=\"data:image/jpeg;base64,/9j//w==\"><figcaption>&lt;b&gt;cat</figcaption>",
        "<figcaption>0.30 cat<br>0.70 dog</figcaption>",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(page.matches("src=").count(), 2);
    for broken in [r#"[{"labels": ["cat"], "jpeg": "\" onload=\"x"}]"#, r#"[{"labels": ["cat"]}]"#, "["] {
        write(broken);
        let error = render().unwrap_err().to_string();
        assert!(
            error.contains("augmented.json") && error.contains("can't be understood") && !error.contains('\n'),
            "{error}"
        );
    }
}
