//! A model card, `README.md` with the hub's metadata, and the figure of its radii.

use std::fmt::Write;
use std::path::Path;

use crate::checkpoint::Checkpoint;
use crate::export::library::{Described, Library, labels};
use crate::report::read::Run;
use crate::train::records::{EvaluationLine, Weights};
use crate::train::source::Source;

/// The figure's file, if there is one.
pub(super) const FIGURE: &str = "radii.svg";
/// The run's settings, as `tpgm finetune --config` reads them.
pub(super) const SETTINGS: &str = "training.toml";
/// Class names that the card lists, at most.
const NAMED: usize = 200;

/// A scalar of YAML, quoted as JSON is.
fn scalar(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON")
}

/// Text in a cell of a table, or in a line.
fn plain(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('|', "\\|").replace('<', "&lt;")
}

/// The test sets at the end of a run, at the weights that are exported, which are the best; none where the run tested others.
fn results(run: &Run) -> Vec<&EvaluationLine> {
    let plain = |e: &&EvaluationLine| !e.is_baseline() && e.main().is_some() && e.corruption.is_none();
    let of = |weights: Weights| -> Vec<&EvaluationLine> {
        let at_end = |e: &&EvaluationLine| e.is_final && e.model == Some(weights);
        run.evals.iter().filter(plain).filter(at_end).collect()
    };
    let best = of(Weights::Best);
    match best.is_empty() && are_same(run) {
        true => of(Weights::Last),
        false => best,
    }
}

/// Whether the best weights of a run are its last.
fn are_same(run: &Run) -> bool {
    let digest = |name: &str| Checkpoint::open(run.dir.join(name)).and_then(|file| file.sha256()).ok();
    let digests = ["best.safetensors", "last.safetensors"]
        .map(|name| digest(name).map(|all| all.into_values().collect::<Vec<_>>()));
    digests[0].is_some() && digests[0] == digests[1]
}

/// The name of the pre-trained model on the hub.
fn base_model(run: Option<&Run>) -> Option<String> {
    let name = run?.setting("model")?;
    let name = name.strip_prefix("hf://")?;
    Some(name.split('@').next().unwrap_or(name).to_string())
}

/// The text of the card. `name` is the folder's.
pub(super) fn text(name: &str, library: Library, source: &Source, described: &Described, run: Option<&Run>) -> String {
    let recognised = &source.recognised;
    let (classes, results) = (labels(source), run.map(results).unwrap_or_default());
    let mut card = String::from("---\npipeline_tag: image-classification\n");
    let hub = match library {
        Library::Transformers => "transformers",
        Library::Timm => "timm",
        Library::Torchvision => "pytorch",
    };
    let _ = write!(card, "library_name: {hub}\ntags:\n- image-classification\n- {hub}\n- tpgm\n");
    if let Some(base) = base_model(run) {
        let _ = writeln!(card, "base_model: {}", scalar(&base));
    }
    if !results.is_empty() {
        let metric = if source.recognised.thresholds.is_some() { "mean_average_precision" } else { "accuracy" };
        let _ = write!(card, "metrics:\n- {metric}\nmodel-index:\n- name: {}\n  results:\n", scalar(name));
        for e in &results {
            let _ = write!(
                card,
                "  - task:\n      type: image-classification\n    dataset:\n      name: {set}\n      type: {set}\n    metrics:\n    - type: {metric}\n      value: {:.6}\n",
                e.main().unwrap_or_default(),
                set = scalar(&e.set),
            );
        }
    }
    let size = recognised.config.image_size();
    let _ = write!(
        card,
        "---\n\n# {}\n\nAn image classifier with {} classes for images of {size} x {size} pixels: {}, as `{}` of {}.\n",
        plain(name),
        classes.len(),
        recognised.family,
        described.architecture,
        library.name(),
    );
    if let Some(run) = run {
        let method = run.setting("method").unwrap_or_default();
        let _ = writeln!(card, "Fine-tuned with `tpgm`, method `{method}`.");
    }
    if !results.is_empty() {
        let names =
            if source.recognised.thresholds.is_some() { ["mAP", "F1 of all labels"] } else { ["top-1", "top-5"] };
        let [first, second] = names;
        let _ = write!(
            card,
            "\n## Results\n\n| data | images | {first} | {second} | calibration error |\n| --- | ---: | ---: | ---: | ---: |\n"
        );
        let percent =
            |share: Option<f64>| share.filter(|s| s.is_finite()).map_or("-".into(), |s| format!("{:.1} %", 100.0 * s));
        for e in &results {
            let images = e.images.map_or("-".into(), |n| n.to_string());
            let ece = e.ece.filter(|e| e.is_finite()).map_or("-".into(), |e| format!("{e:.3}"));
            let (first, second) = (percent(e.main()), percent(e.top5.or(e.micro_f1)));
            let _ = writeln!(card, "| {} | {images} | {first} | {second} | {ece} |", plain(&e.set));
        }
    }
    let _ = write!(card, "\n## Use\n\n```python\n{}```\n", described.python.replace("FOLDER", name));
    let _ = write!(card, "\n## Input\n\n{}.\n", crate::export::onnx::sentence(&recognised.preprocess));
    if !described.remarks.is_empty() {
        card += "\n";
        described.remarks.iter().for_each(|remark| {
            let _ = writeln!(card, "- {remark}.");
        });
    }
    let shown: Vec<String> = classes.iter().take(NAMED).map(|class| plain(class)).collect();
    let more = classes.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more in config.json") } else { String::new() };
    let _ = write!(card, "\n## Classes\n\n{}{more}\n", shown.join(", "));
    if let Some(run) = run {
        training(&mut card, run);
    }
    card
}

/// How it was trained.
fn training(card: &mut String, run: &Run) {
    let base = run.setting("model").unwrap_or_default();
    let base = base_model(Some(run)).map_or_else(
        // A path of somebody's machine says nothing, but for its end.
        || Path::new(&base).file_name().map_or(base.clone(), |name| name.to_string_lossy().into_owned()),
        |name| format!("[{name}](https://huggingface.co/{name})"),
    );
    let _ = write!(
        card,
        "\n## Training\n\nFrom {}, {} steps. All settings are in `{SETTINGS}`:\n\n```sh\ntpgm finetune --config {SETTINGS} --out RUN\n```\n\n| setting | value |\n| --- | --- |\n",
        plain(&base),
        run.steps(),
    );
    for key in [
        "method",
        "epochs",
        "batch-size",
        "optimizer",
        "lr",
        "weight-decay",
        "lr-schedule",
        "augment",
        "label-smoothing",
        "seed",
        "norm",
        "radius-lr",
    ] {
        if let Some(value) = run.setting(key) {
            let _ = writeln!(card, "| {key} | {} |", plain(&value));
        }
    }
    if !run.radii.rows.is_empty() {
        let _ = write!(
            card,
            "\n## Radii\n\nHow far each tensor was allowed to drift from the pre-trained weights, as learned on validation images.\n\n![Radii by tensor]({FIGURE})\n"
        );
    }
}

/// A bar for each tensor's last radius, from input to output; nothing if the run learned none.
pub(super) fn figure(run: &Run) -> Option<String> {
    let mut last = vec![None; run.radii.tensors.len()];
    run.radii.rows.iter().for_each(|(tensor, row)| last[*tensor] = Some(row.in_force()));
    let bars: Vec<(&String, f64)> =
        run.radii.tensors.iter().zip(&last).filter_map(|(name, radius)| Some((name, (*radius)?))).collect();
    let highest = bars.iter().map(|(_, radius)| *radius).filter(|r| r.is_finite()).fold(0.0, f64::max);
    if bars.is_empty() || highest <= 0.0 {
        return None;
    }
    let (left, top, width, height) = (70.0, 30.0, 640.0, 220.0);
    let step = width / bars.len() as f64;
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 740 300\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\">\n\
         <rect width=\"740\" height=\"300\" fill=\"#fff\"/>\n\
         <text x=\"70\" y=\"18\" font-size=\"14\">Radius by tensor, from input to output</text>\n",
    );
    for share in [0.0, 0.5, 1.0] {
        let y = top + height * (1.0 - share);
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#ccc\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            left + width,
            left - 6.0,
            y + 4.0,
            short(highest * share),
        );
    }
    for (i, (name, radius)) in bars.iter().enumerate() {
        let tall = height * (radius / highest).clamp(0.0, 1.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{tall:.2}\" fill=\"#2f6f9f\"><title>{}: {radius:.6}</title></rect>",
            left + step * i as f64,
            top + height - tall,
            (step * 0.85).max(0.5),
            html_escape::encode_text(name),
        );
    }
    let (first, end) = (bars[0].0, bars[bars.len() - 1].0);
    let _ = write!(
        svg,
        "<text x=\"{left}\" y=\"270\">{}</text><text x=\"{}\" y=\"270\" text-anchor=\"end\">{}</text>\n</svg>\n",
        html_escape::encode_text(first),
        left + width,
        html_escape::encode_text(end),
    );
    Some(svg)
}

/// A number of three digits.
fn short(value: f64) -> String {
    if value == 0.0 || (0.001..1000.0).contains(&value) { format!("{value:.3}") } else { format!("{value:.1e}") }
}
