//! The page itself: what stands where, and the sentences about each run.

use std::fmt::Write as _;

use super::read::Run;
use super::tensors::{self, Tensor};
use super::text::{escape, integer};
use super::{about, augmented, charts, drift_course, figures, gallery, label_gallery, seen, tables};

pub(super) const STYLE: &str = include_str!("page.css");

/// The page about `runs`.
pub(super) fn page(runs: &[Run]) -> String {
    let names = runs.iter().map(|r| escape(&r.name)).collect::<Vec<_>>().join(", ");
    let tensors: Vec<Vec<Tensor>> = runs.iter().map(tensors::by_depth).collect();
    let models = tables::models(runs);
    let mut body = format!("<h1>Fine-tuning report: {names}</h1>\n");
    for run in runs {
        body += &summary(run);
    }
    let accuracy = tables::accuracy(&models);
    body += "<h2>Accuracy in and out of distribution</h2>\n";
    if accuracy.is_empty() {
        body += "<p>No test set was evaluated.</p>\n";
    } else {
        body += &accuracy;
    }
    if !models.is_empty() {
        body += &tables::details(&models);
    }
    if let [run] = runs {
        body += &section("r0", run, &tensors[0], "h2");
    } else {
        let _ = write!(
            body,
            "<h2>The runs compared</h2>\n<div class=\"charts\">{}</div>\n",
            charts::of_all(runs, &tensors)
        );
        body += &tables::differences(runs);
        for (i, (run, tensors)) in runs.iter().zip(&tensors).enumerate() {
            let _ = writeln!(body, "<section><h2>Run {}</h2>", escape(&run.name));
            body += &section(&format!("r{i}"), run, tensors, "h3");
            body += "</section>\n";
        }
    }
    document(&format!("Fine-tuning report: {names}"), &body)
}

/// A whole page around `body`. Both are HTML.
pub(super) fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// One paragraph: method, model, data, length, best validation accuracy, test accuracy.
fn summary(run: &Run) -> String {
    let mut text = format!("<p><b>{}</b>: ", escape(&run.name));
    let known = |key: &str| run.setting(key).filter(|v| !v.is_empty()).map(|v| escape(&v));
    text += &known("method").map_or("fine-tuning".into(), |m| format!("method {m}"));
    if let Some(model) = known("model") {
        let _ = write!(text, ", from <code>{model}</code>");
    }
    if let Some(data) = known("train") {
        let _ = write!(text, ", trained on <code>{data}</code>");
    }
    let _ = write!(text, " for {} step{}", integer(run.steps()), if run.steps() == 1 { "" } else { "s" });
    let epochs = run.train.iter().filter_map(|p| p.epoch).max().map(|e| e + 1);
    if let Some(epochs) = epochs.filter(|e| *e > 1) {
        let _ = write!(text, " ({} epochs)", integer(epochs));
    }
    let with = [("batch_size", "batch size"), ("optimizer", "optimizer"), ("lr", "learning rate"), ("seed", "seed")];
    for (key, word) in with {
        if let Some(value) = known(key) {
            let _ = write!(text, ", {word} {value}");
        }
    }
    text += ".";
    if let Some((best, main)) = run.best_val().and_then(|b| Some((b, b.main()?))) {
        let images = best.images.map(|n| format!(" ({} images)", integer(n))).unwrap_or_default();
        let (figure, main, step) = (run.figure().name(), 100.0 * main, integer(best.step));
        let _ = write!(text, " Best {figure} on val: <b>{main:.1} %</b> at step {step}{images}.");
    }
    if let Some(views) = known("tta").filter(|views| views != "none") {
        let _ = write!(text, " On test sets it answered to several views of each image (<code>--tta {views}</code>).");
    }
    text += &tables::in_words(run);
    text + "</p>\n" + &warnings(run)
}

fn warnings(run: &Run) -> String {
    let warn = |text: String| format!("<p class=\"warn\"><b>{}</b>: {text}</p>\n", escape(&run.name));
    if run.train.is_empty() {
        return warn("no training step was logged.".into());
    }
    let broken = |v: Option<f32>| v.is_some_and(|v| !v.is_finite());
    let steps: Vec<u64> =
        run.train.iter().filter(|p| broken(p.train_loss) || broken(p.radius_loss)).map(|p| p.step).collect();
    match steps[..] {
        [] => String::new(),
        [one] => warn(format!("the loss was not a number at step {}.", integer(one))),
        [first, ..] => {
            warn(format!("the loss was not a number at {} steps, first at step {}.", steps.len(), integer(first)))
        }
    }
}

/// What to try next, under a heading of level `h`; empty for a run that left nothing about it.
fn next(run: &Run, h: &str) -> String {
    let Some(advice) = &run.advice else { return String::new() };
    let mut out = format!("<{h}>What to try next</{h}>\n");
    if advice.is_empty() {
        out += "<p>No rule found anything to mend in this run's figures.</p>\n";
    } else {
        let items = advice.iter().map(|what| format!("<li>{}</li>", escape(what)));
        let _ = writeln!(out, "<ul class=\"next\">{}</ul>", items.collect::<String>());
    }
    out
}

/// Charts, errors, tensors and configuration of one run, under headings of level `h`.
fn section(id: &str, run: &Run, tensors: &[Tensor], h: &str) -> String {
    let mut out = next(run, h);
    let facts = about::facts(&run.sessions, 1);
    if !facts.is_empty() {
        let _ = write!(out, "<{h}>How it was made</{h}>\n{facts}");
    }
    let charts = charts::of_run(id, run, tensors) + &drift_course::chart(format!("{id}-moved"), run);
    let _ = write!(out, "<{h}>Training</{h}>\n<div class=\"charts\">{charts}</div>\n");
    out += &augmented::of_run(run, h);
    out += &gallery::all(run.examples.as_ref(), h);
    out += &label_gallery::all(run.label_examples.as_ref(), h);
    out += &figures::of_run(id, run, h);
    let _ = writeln!(out, "<{h}>Radius and drift by tensor</{h}>");
    out += &activity(run);
    out += &tables::layers(tensors);
    if tensors.is_empty() {
        out += "<p>This run recorded neither radii nor drift.</p>\n";
    }
    out += &seen::of_run(run, h);
    out + &tables::config(run)
}

/// What the last outer iteration did, in one sentence.
fn activity(run: &Run) -> String {
    let iterations = tensors::iterations(run);
    let Some(last) = iterations.last() else { return String::new() };
    let unmoved = match last.unmoved {
        0 => String::new(),
        n => format!(" {} of the tensors had not moved at all.", integer(n)),
    };
    format!(
        "<p>{} outer iterations over {} radii. In the last one, {} of {} rows stood outside their ball and were clipped; \
         {} of {} radii were dead: no row outside, so no gradient.{unmoved}</p>\n",
        integer(iterations.len() as u64),
        integer(last.tensors),
        integer(last.active),
        integer(last.rows),
        integer(last.dead),
        integer(last.tensors)
    )
}
