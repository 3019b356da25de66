//! A few training images of a run as its model is given them.

use std::fmt::Write as _;

use super::read::Run;
use super::text::escape;

/// The images under a heading of level `h`; empty for a run that left none.
pub(super) fn of_run(run: &Run, h: &str) -> String {
    if run.shown.is_empty() {
        return String::new();
    }
    format!("<{h}>Training images as the model gets them</{h}>\n{}", images(run, "the run"))
}

/// The images of `run`, which sentences call `name` (HTML).
pub(super) fn images(run: &Run, name: &str) -> String {
    let mut out = format!(
        "<p>The first {} of {name}, augmented, each with its label.</p>\n<div class=\"thumbs\">",
        run.shown.len()
    );
    for image in &run.shown {
        let labels: Vec<String> = image.labels.iter().map(|label| escape(label)).collect();
        let _ = write!(
            out,
            "<figure><img alt=\"{}\" src=\"data:image/jpeg;base64,{}\"><figcaption>{}</figcaption></figure>",
            labels.join(", "),
            image.jpeg,
            labels.join("<br>")
        );
    }
    out + "</div>\n"
}
