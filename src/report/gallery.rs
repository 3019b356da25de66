//! Images with what the model takes them for: the surest mistakes, the least sure answers, pairs of classes, and classes.

use std::fmt::Write as _;

use super::text::{escape, integer};
use crate::train::examples::{Example, Examples, OfPair, OfSet};
use crate::train::records::Weights;

/// One image with its class, what it is taken for, and how surely.
fn figure(out: &mut String, example: &Example) {
    let (class, predicted) = (escape(&example.class), escape(&example.predicted));
    let percent = format!("{:.0}&nbsp;%", 100.0 * example.confidence);
    let right = example.class == example.predicted;
    let (kind, said) = match right {
        true => ("right", format!("{class} <small>{percent}</small>")),
        false => ("wrong", format!("{class}<br><i>{predicted}</i> <small>{percent}</small>")),
    };
    let alt = if right { format!("{class}, right") } else { format!("{class}, taken for {predicted}") };
    let _ = write!(
        out,
        "<figure class=\"{kind}\" title=\"{}\"><img alt=\"{alt}\" loading=\"lazy\" src=\"data:image/jpeg;base64,{}\"><figcaption>{said}\
         </figcaption></figure>",
        escape(&example.path.to_string_lossy()),
        example.jpeg
    );
}

fn thumbs(examples: &[Example]) -> String {
    let mut out = String::from("<div class=\"thumbs\">");
    examples.iter().for_each(|example| figure(&mut out, example));
    out + "</div>\n"
}

fn of_set(out: &mut String, of: &OfSet, h: &str) {
    let (wrong, images) = (integer(of.wrong as u64), integer(of.images as u64));
    let _ = writeln!(out, "<{h}>{}: {wrong} of {images} wrong</{h}>", escape(&of.set));
    if !of.mistakes.is_empty() {
        *out += "<p class=\"over\">The surest mistakes</p>\n";
        *out += &thumbs(&of.mistakes);
    }
    if !of.unsure.is_empty() {
        *out += "<p class=\"over\">The least sure answers</p>\n";
        *out += &thumbs(&of.unsure);
    }
}

fn of_pair(out: &mut String, of: &OfPair) {
    let [a, b] = of.classes.each_ref().map(|class| escape(class));
    let _ = write!(out, "<div class=\"pair\"><p class=\"over\"><b>{a}</b> and <b>{b}</b>: ");
    let said: Vec<String> = [(&a, &b, of.wrong[0]), (&b, &a, of.wrong[1])]
        .into_iter()
        .filter(|(.., n)| *n > 0)
        .map(|(own, other, n)| format!("{} of {own} taken for {other}", integer(n as u64)))
        .collect();
    let _ = write!(out, "{}</p><div class=\"thumbs\">", said.join(", "));
    of.examples.iter().flatten().for_each(|example| figure(out, example));
    *out += "</div></div>\n";
}

/// What level comes below `h`.
pub(super) fn below(h: &str) -> &'static str {
    if h == "h2" { "h3" } else { "h4" }
}

/// What a sentence calls weights.
pub(super) fn weights(model: Weights) -> &'static str {
    match model {
        Weights::Pretrained => "pre-trained",
        Weights::Best => "best",
        Weights::Last => "last",
    }
}

/// How many images there was no room for.
pub(super) fn left_out(count: usize) -> String {
    match count {
        0 => String::new(),
        n => format!(" {} more are left out, to keep the page small.", integer(n as u64)),
    }
}

fn opening(examples: &Examples, h: &str) -> String {
    let (weights, left) = (weights(examples.model), left_out(examples.left_out));
    format!(
        "<{h}>What the model takes images for</{h}>\n<p>Answers of the {weights} weights. Below each image stands its class; where the \
         model is wrong, its answer follows in italics; the share is how sure it is.{left}</p>\n"
    )
}

/// All examples under headings from level `h` on; empty without any.
pub(super) fn all(examples: Option<&Examples>, h: &str) -> String {
    let Some(examples) = examples else { return String::new() };
    let (mut out, h3) = (opening(examples, h), below(h));
    examples.sets.iter().for_each(|of| of_set(&mut out, of, h3));
    out += &pairs(examples, h3);
    if !examples.classes.is_empty() {
        let _ = write!(out, "<{h3}>By class</{h3}>\n{}", classes(examples));
    }
    out
}

fn classes(examples: &Examples) -> String {
    let mut out =
        String::from("<p>Right ones first, then wrong ones; of each those that the model is surest of.</p>\n");
    out += "<div class=\"pairs\">";
    for of in &examples.classes {
        let (class, right, images) = (escape(&of.class), integer(of.right as u64), integer(of.images as u64));
        let _ = write!(out, "<div class=\"pair\"><p class=\"over\"><b>{class}</b>: {right} of {images} right</p>");
        let _ = write!(out, "{}</div>", thumbs(&of.examples));
    }
    out + "</div>\n"
}

/// The surest mistakes alone and the pairs, for a page about several runs.
pub(super) fn mistakes(examples: &Examples, h: &str) -> String {
    let mut out = String::new();
    for of in examples.sets.iter().filter(|of| !of.mistakes.is_empty()) {
        let (wrong, images) = (integer(of.wrong as u64), integer(of.images as u64));
        let _ = writeln!(
            out,
            "<p class=\"over\"><b>{}</b>, {wrong} of {images} wrong: the surest mistakes</p>",
            escape(&of.set)
        );
        out += &thumbs(&of.mistakes);
    }
    out + &pairs(examples, h)
}

/// All else, folded away.
pub(super) fn others(examples: &Examples) -> String {
    let mut unsure = String::new();
    for of in examples.sets.iter().filter(|of| !of.unsure.is_empty()) {
        let _ = write!(unsure, "<p class=\"over\"><b>{}</b></p>\n{}", escape(&of.set), thumbs(&of.unsure));
    }
    folded("The least sure answers", &unsure)
        + &folded("By class", &if examples.classes.is_empty() { String::new() } else { classes(examples) })
}

/// `content` folded away below `title`; empty without any.
pub(super) fn folded(title: &str, content: &str) -> String {
    match content {
        "" => String::new(),
        _ => format!("<details><summary>{title}</summary>{content}</details>\n"),
    }
}

fn pairs(examples: &Examples, h: &str) -> String {
    if examples.pairs.is_empty() {
        return String::new();
    }
    let mut out = format!("<{h}>Classes taken for each other most</{h}>\n<div class=\"pairs\">");
    examples.pairs.iter().for_each(|of| of_pair(&mut out, of));
    out + "</div>\n"
}
