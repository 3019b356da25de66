//! Which images each number saw: the splits, who learns from which, and what two of them share that should share nothing.

use std::fmt::Write as _;

use super::balance;
use super::read::{Leak, Run};
use super::text::{escape, integer};
use crate::data::Summary;
use crate::method::learns_on_val;

/// Images, and what sees them.
pub(super) struct Split {
    pub(super) name: String,
    /// Where they are.
    pub(super) path: String,
    /// How many, where that is known.
    pub(super) images: Option<u64>,
    pub(super) seen_by: String,
}

pub(super) fn table(splits: &[Split]) -> String {
    let rows = splits.iter().fold(String::new(), |mut rows, split| {
        let _ = write!(
            rows,
            "<tr><th scope=\"row\" class=\"name\">{}</th><td>{}</td><td class=\"name\">{}</td><td class=\"name\"><code>{}</code>\
             </td></tr>",
            escape(&split.name),
            split.images.map_or("–".into(), integer),
            escape(&split.seen_by),
            escape(&split.path)
        );
        rows
    });
    format!(
        "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\" class=\"name\">Images</th><th \
         scope=\"col\">n</th><th scope=\"col\" class=\"name\">seen by</th><th scope=\"col\" class=\"name\">where</th></tr>\
         </thead><tbody>{rows}</tbody></table></div>\n"
    )
}

/// The warning where radii have no validation images of their own.
pub(super) const NOT_APART: &str = "<p class=\"warn\">Radii and choices share the validation images: what radii were fitted to \
     also judges them. A <code>select</code> split keeps the two apart.</p>\n";

/// One line per pair of splits that share images, or one that says that none do.
pub(super) fn leaks(sentences: &[String]) -> String {
    if sentences.is_empty() {
        return "<p>No image, by content, is in two of train, val, select and the test sets.</p>\n".into();
    }
    let line = |leak: &String| format!("<p class=\"warn\"><b>Leak</b>: {}</p>\n", escape(leak));
    sentences.iter().map(line).collect()
}

/// The part of a run's page, under a heading of level `h`; nothing where the run does not say where its images are.
pub(super) fn of_run(run: &Run, h: &str) -> String {
    let path = |key: &str| run.setting(key).filter(|v| !v.is_empty() && v != "none");
    let images = |set: &str| {
        let found = || Some(run.data.iter().find(|split| split.name == set)?.images as u64);
        run.evals.iter().find(|e| e.set == set).and_then(|e| e.images).or_else(found)
    };
    let learns_radii = path("method").is_some_and(|name| learns_on_val(&name));
    let mut choices = "choices: the best weights, the temperature".to_string();
    if ["wise-alpha", "lines-alpha"].iter().any(|key| path(key).as_deref() == Some("sweep")) {
        choices += ", α";
    }
    let apart = path("select").is_some();
    let of_val = match (learns_radii, apart) {
        (true, true) => "radii".into(),
        (true, false) => format!("radii; {choices}"),
        (false, true) => "reported only (ID)".into(),
        (false, false) => choices.clone(),
    };
    let mut splits = Vec::new();
    for (name, seen_by) in [("train", "weights".into()), ("val", of_val), ("select", choices)] {
        splits.extend(path(name).map(|path| Split { name: name.into(), path, images: images(name), seen_by }));
    }
    if splits.is_empty() {
        return String::new();
    }
    let tests = run.config.get("test").and_then(toml::Value::as_array);
    for (name, path) in tests.into_iter().flatten().filter_map(|t| t.as_str()?.split_once('=')) {
        let (name, path) = (name.to_string(), path.to_string());
        splits.push(Split { images: images(&name), name, path, seen_by: "reported only".into() });
    }
    let mut out = format!("<{h}>Which images each number saw</{h}>\n{}", table(&splits));
    if learns_radii && !apart && path("val").is_some() {
        out += NOT_APART;
    }
    out += &run.leaks.as_deref().map(|found| leaks(&sentences(found))).unwrap_or_default();
    if !run.data.is_empty() {
        let _ = write!(out, "<{h}>What the images are</{h}>\n{}", contents(&run.data));
    }
    out
}

/// A row for each split, and below them what a person was told of it beside its counts.
pub(super) fn contents(data: &[Summary]) -> String {
    let (mut rows, mut said) = (String::new(), String::new());
    for set in data {
        let counts = set.classes.iter().map(|class| class.1 as u64);
        let each = match (counts.clone().min(), counts.max()) {
            (Some(least), Some(most)) if least < most => format!("{} – {}", integer(least), integer(most)),
            (Some(least), _) => integer(least),
            _ => "–".into(),
        };
        let by = |[width, height]: [u32; 2]| format!("{width} × {height}");
        let sizes = match set.smallest == set.largest {
            true => by(set.smallest),
            false => format!("{} – {}", by(set.smallest), by(set.largest)),
        };
        let left_out = set.left_out.total() + set.broken as u64;
        let _ = write!(
            rows,
            "<tr><th scope=\"row\" class=\"name\">{}</th><td>{}</td><td>{}</td><td>{each}</td><td>{sizes}</td><td>{}</td></tr>",
            escape(&set.name),
            integer(set.images as u64),
            integer(set.classes.len() as u64),
            integer(left_out),
        );
        for (is_warning, line) in set.lines().iter().skip(1) {
            let class = if *is_warning { " class=\"warn\"" } else { "" };
            let _ = writeln!(said, "<p{class}>{}</p>", escape(line));
        }
    }
    format!(
        "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\" class=\"name\">Images</th><th \
         scope=\"col\">n</th><th scope=\"col\">classes</th><th scope=\"col\">per class</th><th scope=\"col\">pixels</th><th \
         scope=\"col\">left out</th></tr></thead><tbody>{rows}</tbody></table></div>\n{said}{}",
        balance::table(data)
    )
}

/// One sentence for each pair of splits, with the first image that they share.
fn sentences(found: &[Leak]) -> Vec<String> {
    let mut pairs: Vec<(&Leak, usize)> = Vec::new();
    for leak in found {
        match pairs.iter_mut().find(|(one, _)| (&one.first.0, &one.second.0) == (&leak.first.0, &leak.second.0)) {
            Some((_, count)) => *count += 1,
            None => pairs.push((leak, 1)),
        }
    }
    let say = |(leak, count): &(&Leak, usize)| {
        let ((first, first_path), (second, second_path)) = (&leak.first, &leak.second);
        let (images, rest) = match count {
            1 => ("1 image is".into(), String::new()),
            n => (format!("{n} images are"), format!(" and {} more", n - 1)),
        };
        format!("{images} in {first} and in {second}: {second_path} = {first_path}{rest}; leaks.csv has them all")
    };
    pairs.iter().map(say).collect()
}
