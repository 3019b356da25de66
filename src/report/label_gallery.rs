//! Images with the labels that the model gives them: the surest mistakes, the least sure answers, labels, and pairs of labels.

use std::fmt::Write as _;

use super::gallery::{below, folded, left_out, weights};
use super::text::{escape, integer};
use crate::train::label_examples::{LabelExample, LabelExamples, OfPair, OfSet, Said};

/// Labels below an image.
const SHOWN: usize = 6;

/// One image with its labels and those that it is given. It is an example of the first `focus` of them, else of all.
fn figure(out: &mut String, example: &LabelExample, focus: usize) {
    let (shown, rest) = example.labels.split_at(example.labels.len().min(SHOWN.max(focus)));
    let line = |(at, said): (usize, &Said)| {
        let (sign, open, close) = match (said.given, said.has) {
            (true, false) => ("+&nbsp;", "<i>", "</i>"),
            (false, true) => ("−&nbsp;", "<i>", "</i>"),
            // One that is neither stands here alone where the image is an example of it.
            _ => ("", "", ""),
        };
        let label = if at < focus { format!("<b>{}</b>", escape(&said.label)) } else { escape(&said.label) };
        format!("<span>{open}{sign}{label}{close} <small>{:.0}&nbsp;%</small></span>", 100.0 * said.probability)
    };
    let mut lines: Vec<String> = shown.iter().enumerate().map(line).collect();
    match rest.len() + example.more {
        0 if lines.is_empty() => lines.push("no label".into()),
        0 => {}
        more => lines.push(format!("<small>and {} more</small>", integer(more as u64))),
    }
    let names = |wanted: fn(&Said) -> bool| -> Vec<String> {
        shown.iter().filter(|said| wanted(said)).map(|said| escape(&said.label)).collect()
    };
    let parts = [
        ("right", names(|said| said.given && said.has)),
        ("given wrongly", names(|said| said.given && !said.has)),
        ("missed", names(|said| !said.given && said.has)),
    ];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty());
    let alt: Vec<String> = parts.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
    let right = if focus == 0 { example.exact } else { example.labels.iter().take(focus).all(Said::is_right) };
    let _ = write!(
        out,
        "<figure class=\"{}\" title=\"{}\"><img alt=\"{}\" loading=\"lazy\" src=\"data:image/jpeg;base64,{}\"><figcaption>{}\
         </figcaption></figure>",
        if right { "right" } else { "wrong" },
        escape(&example.path.to_string_lossy()),
        if alt.is_empty() { "no label".into() } else { alt.join("; ") },
        example.jpeg,
        lines.concat()
    );
}

fn thumbs(examples: &[LabelExample], focus: usize) -> String {
    let mut out = String::from("<div class=\"thumbs labelled\">");
    examples.iter().for_each(|example| figure(&mut out, example, focus));
    out + "</div>\n"
}

/// How many images of a set have a wrong label.
fn count(of: &OfSet) -> String {
    format!("{} of {} images with a wrong label", integer(of.wrong as u64), integer(of.images as u64))
}

fn of_set(out: &mut String, of: &OfSet, h: &str) {
    let _ = writeln!(out, "<{h}>{}: {}</{h}>", escape(&of.set), count(of));
    if !of.mistakes.is_empty() {
        *out += "<p class=\"over\">The surest mistakes, each in bold</p>\n";
        *out += &thumbs(&of.mistakes, 1);
    }
    if !of.unsure.is_empty() {
        *out += "<p class=\"over\">The least sure answers, over all labels together</p>\n";
        *out += &thumbs(&of.unsure, 0);
    }
}

fn of_pair(out: &mut String, of: &OfPair) {
    let [a, b] = of.labels.each_ref().map(|label| escape(label));
    let said: Vec<String> = [
        (of.swapped[0], format!("{b} in the place of {a}")),
        (of.swapped[1], format!("{a} in the place of {b}")),
        (of.given, "both given wrongly".into()),
        (of.missed, "both missed".into()),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{what} on {}", integer(n as u64)))
    .collect();
    let _ = write!(out, "<div class=\"pair\"><p class=\"over\"><b>{a}</b> and <b>{b}</b>: {}</p>", said.join(", "));
    let _ = write!(out, "{}</div>", thumbs(&of.examples, 2));
}

fn legend() -> &'static str {
    "Below each image stand the labels that it has and those that it is given, each with the model's probability: + is before a label \
     that is given wrongly, − before one that is missed. A label is given from its own threshold on."
}

/// All examples under headings from level `h` on; empty without any.
pub(super) fn all(examples: Option<&LabelExamples>, h: &str) -> String {
    let Some(examples) = examples else { return String::new() };
    let h3 = below(h);
    let mut out = format!(
        "<{h}>Labels that the model gives</{h}>\n<p>Answers of the {} weights. {}{}</p>\n",
        weights(examples.model),
        legend(),
        left_out(examples.left_out)
    );
    examples.sets.iter().for_each(|of| of_set(&mut out, of, h3));
    out += &pairs(examples, h3);
    if !examples.labels.is_empty() {
        let _ = write!(out, "<{h3}>By label</{h3}>\n{}", labels(examples));
    }
    out
}

fn labels(examples: &LabelExamples) -> String {
    let mut out = String::from(
        "<p>Images that have the label and are given it, then those that it is missed on, then others that are given it; of each those \
         that the model is surest of.</p>\n<div class=\"pairs\">",
    );
    for of in &examples.labels {
        let label = escape(&of.label);
        let others = of.given.saturating_sub(of.right);
        let [right, images, others] = [of.right, of.images, others].map(|n| integer(n as u64));
        let precision = match of.average_precision.is_finite() {
            true => format!("AP {:.1}&nbsp;%, ", 100.0 * of.average_precision),
            false => String::new(),
        };
        let _ = write!(
            out,
            "<div class=\"pair\"><p class=\"over\"><b>{label}</b>: {precision}given to {right} of the {images} images that have it, and \
             to {others} others</p>{}</div>",
            thumbs(&of.examples, 1)
        );
    }
    out + "</div>\n"
}

/// The surest mistakes alone and the pairs, for a page about several runs.
pub(super) fn mistakes(examples: &LabelExamples, h: &str) -> String {
    let mut out = format!("<p>{}</p>\n", legend());
    for of in examples.sets.iter().filter(|of| !of.mistakes.is_empty()) {
        let _ = writeln!(out, "<p class=\"over\"><b>{}</b>, {}: the surest mistakes</p>", escape(&of.set), count(of));
        out += &thumbs(&of.mistakes, 1);
    }
    out + &pairs(examples, h)
}

/// All else, folded away.
pub(super) fn others(examples: &LabelExamples) -> String {
    let mut unsure = String::new();
    for of in examples.sets.iter().filter(|of| !of.unsure.is_empty()) {
        let _ = write!(unsure, "<p class=\"over\"><b>{}</b></p>\n{}", escape(&of.set), thumbs(&of.unsure, 0));
    }
    folded("The least sure answers", &unsure)
        + &folded("By label", &if examples.labels.is_empty() { String::new() } else { labels(examples) })
}

fn pairs(examples: &LabelExamples, h: &str) -> String {
    if examples.pairs.is_empty() {
        return String::new();
    }
    let counted = match examples.counted {
        Some(n) => format!(" Of an image, the {n} wrong labels are counted that the model is surest of."),
        None => String::new(),
    };
    let mut out = format!(
        "<{h}>Labels that are wrong on the same images most</{h}>\n<p>How many images, by the labels that are wrong.{counted}</p>\n<div \
         class=\"pairs\">"
    );
    examples.pairs.iter().for_each(|of| of_pair(&mut out, of));
    out + "</div>\n"
}
