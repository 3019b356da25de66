//! `tpgm lr-find`

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::console::note;
use crate::cli::progress::Progress;
use crate::cli::{RunArgs, print, print_json};
use crate::error::{Error, Result};
use crate::report::write_rates;
use crate::stop;
use crate::train::lr_find::{Curve, Range, Suggestion, find};
use crate::train::{FileSettings, Flags, TrainConfig};

/// Flags of `lr-find`: those of `finetune`, and the rates.
#[derive(Args, Debug)]
pub(super) struct LrFindArgs {
    #[command(flatten)]
    train: Flags,
    /// A TOML file with the same names as the flags of finetune, which win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The rate of the first step
    #[arg(long, value_name = "RATE", default_value_t = 1e-7)]
    from: f64,
    /// The rate of the last step
    #[arg(long, value_name = "RATE", default_value_t = 1.0)]
    to: f64,
    /// Steps from one to the other; --epochs and --steps are for the head that lp-ft trains before
    #[arg(long, value_name = "STEPS", default_value_t = 100)]
    lr_steps: u64,
    /// Also write a page with the curve
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// What came of it, and what to do.
fn sentence(curve: &Curve) -> String {
    let end = match (curve.diverged, curve.points.last()) {
        (true, Some((rate, _))) => format!("; the test ended at {rate:.1e}, where it rises"),
        _ => String::new(),
    };
    match curve.suggestion() {
        Some(Suggestion { rate, steepest, least }) => format!(
            "try --lr {rate}: the smoothed loss falls fastest near {steepest:.1e} and is least near {least:.1e}{end}, and the lower of the first \
             and a tenth of the second is taken"
        ),
        None => format!(
            "no rate is suggested, since the smoothed loss never falls by a twentieth{end}; check that images and labels belong together, or \
             give more --lr-steps or another --from and --to"
        ),
    }
}

/// Rows and columns of the curve in a terminal.
const ROWS: usize = 12;
const COLUMNS: usize = 60;

/// The smoothed loss over the logarithm of the rate, in characters.
fn plot(curve: &Curve) -> String {
    let (Some(first), Some(last)) = (curve.points.first(), curve.points.last()) else { return String::new() };
    let begin = curve.smooth[0];
    let low = curve.smooth.iter().copied().fold(f64::INFINITY, f64::min);
    // What rises far above the beginning is cut off: it says nothing but that it rises.
    let high = curve.smooth.iter().copied().fold(begin, f64::max).min(begin + 0.5 * (begin - low).max(0.1 * begin));
    let place = |value: f64, from: f64, to: f64, cells: usize| {
        let share = if to > from { (value - from) / (to - from) } else { 0.0 };
        ((share * (cells - 1) as f64).round().max(0.0) as usize).min(cells - 1)
    };
    let mut rows = vec![vec![' '; COLUMNS]; ROWS];
    let (from, to) = (first.0.ln(), last.0.ln());
    for (point, loss) in curve.points.iter().zip(&curve.smooth) {
        rows[ROWS - 1 - place(*loss, low, high, ROWS)][place(point.0.ln(), from, to, COLUMNS)] = '•';
    }
    if let Some(Suggestion { rate, .. }) = curve.suggestion() {
        let column = place(rate.ln(), from, to, COLUMNS);
        rows.iter_mut().filter(|row| row[column] == ' ').for_each(|row| row[column] = '¦');
    }
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        let label = match i {
            0 => format!("{high:.3}"),
            i if i + 1 == ROWS => format!("{low:.3}"),
            _ => String::new(),
        };
        let row: String = row.iter().collect();
        text += &format!("{label:>9} |{}\n", row.trim_end());
    }
    let (left, right) = (format!("{:.0e}", first.0), format!("{:.0e}", last.0));
    text + &format!(
        "{:>9} +{}\n{:>11}{left}{right:>width$}\n",
        "loss",
        "-".repeat(COLUMNS),
        "",
        width = COLUMNS - left.len()
    )
}

/// A flag that sets nothing here is a mistake; a file is made for runs as well.
fn refuse_idle(config: &TrainConfig, flags: &[String]) -> Result<()> {
    let (flags, keys): (Vec<&str>, Vec<&str>) =
        config.idle_in_lr_find().into_iter().partition(|key| flags.iter().any(|flag| flag == key));
    if !keys.is_empty() {
        note!("without effect in lr-find: {}", keys.join(", "));
    }
    match flags.is_empty() {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "lr-find trains in one process, for --lr-steps at rates of its own, and evaluates and keeps nothing: leave out --{}",
            flags.join(", --")
        ))),
    }
}

pub(super) fn run(args: LrFindArgs) -> Result<()> {
    let range = Range { from: args.from, to: args.to, steps: args.lr_steps };
    range.validate()?;
    let settings = args.config.as_deref().map(FileSettings::read).transpose()?;
    if let Some(note) = settings.as_ref().and_then(|settings| settings.note.as_ref()) {
        note!("{note}");
    }
    let names = args.train.names();
    let config = args.train.resolve(settings.as_ref())?;
    refuse_idle(&config, &names)?;
    if let Some(out) = &args.out {
        // Not only after all steps.
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() || out.is_dir() {
            return Err(Error::Usage(format!("--out {}: this names no file in a folder that there is", out.display())));
        }
    }
    let gpu = args.run.open(config.memory.precision())?;
    stop::listen()?;
    let mut progress = Progress::new("");
    let curve = find(&gpu, &config, range, args.run.tunes(), &mut |event| progress.show(event))?;
    drop(progress);
    let sentence = sentence(&curve);
    if let Some(out) = &args.out {
        write_rates(&config.model.display().to_string(), &curve, &sentence, out)?;
    }
    if args.json {
        let points = curve.points.iter().zip(&curve.smooth);
        let points: Vec<_> =
            points.map(|((lr, loss), smooth)| json!({"lr": lr, "loss": loss, "smooth": smooth})).collect();
        let suggested = curve.suggestion().map(|s| json!({"lr": s.rate, "steepest": s.steepest, "least": s.least}));
        return print_json(
            &json!({"suggested": suggested, "diverged": curve.diverged, "points": points, "why": sentence}),
        );
    }
    print(&plot(&curve))?;
    print(&(sentence + "\n"))?;
    args.out.map_or(Ok(()), |out| print(&format!("{}\n", out.display())))
}
