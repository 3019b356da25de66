//! One self-contained HTML page about one run or several: no script, no external resource, light and dark, printable.
//!
//! [`read`] turns a run directory into a typed [`read::Run`], with [`evaluations`] in full; `tensors` orders its tensors by
//! depth; `svg` draws one line chart, `charts` says which charts there are, `tables` does the same for tables. `figures`
//! shows what the model gets wrong, by `reliability` diagrams, `confusion` matrices, `classes` and `labels`; `seen` says which images each
//! number saw, `balance` how many of each class there are, and `augmented` shows some of them; `gallery` shows some with the model's
//! answers, `label_gallery` with the labels that it gives. `about` has the command, the adapter and the time, `drift_course` the drift over time. `html` puts the page together, with the words of `text`. `compare` is the page about a comparison, with `scatter` and `forest` for its drawings.

mod about;
mod augmented;
mod balance;
mod charts;
mod classes;
mod compare;
mod compare_depth;
mod compare_tables;
mod confusion;
mod corrupted;
mod drift_course;
pub mod evaluations;
mod figures;
mod forest;
mod gallery;
mod html;
mod label_gallery;
mod labels;
mod rates;
pub mod read;
mod reliability;
mod scatter;
mod seen;
mod svg;
mod tables;
mod tensors;
mod text;

use std::path::{Path, PathBuf};

use crate::atomic::atomic_write;
use crate::compare::Results;
use crate::error::{Error, Result};
use crate::train::lr_find::Curve;

/// The page about the runs in `dirs`, in that order, as HTML text.
///
/// # Errors
/// No folder given; a folder that is not a run directory (the error names the missing files); a file in it that
/// can't be read or understood (the error names file and line).
pub fn render(dirs: &[PathBuf]) -> Result<String> {
    if dirs.is_empty() {
        return Err(Error::Usage("no run directory given: name one or more folders that a training run wrote".into()));
    }
    let mut runs = dirs.iter().map(|dir| read::Run::read(dir)).collect::<Result<Vec<_>>>()?;
    if let Some(other) = runs.iter().find(|run| run.figure() != runs[0].figure()) {
        let what = format!(
            "of this run and {} one has images with any number of labels: give runs of the same kind, or make a page for each",
            runs[0].dir.display()
        );
        return Err(Error::data(&other.dir, what));
    }
    read::tell_apart(&mut runs);
    Ok(html::page(&runs))
}

/// Writes [`render`]'s page to the file `out`: beside it first, then renamed, so that `out` is never half a page.
///
/// # Errors
/// Those of [`render`], and an `out` that can't be written.
pub fn write(dirs: &[PathBuf], out: &Path) -> Result<()> {
    atomic_write(out, render(dirs)?.as_bytes())
}

/// Writes the page about a comparison to the file `out`.
///
/// # Errors
/// A run directory among the results that can't be read, and an `out` that can't be written.
pub fn write_comparison(results: &Results, out: &Path) -> Result<()> {
    atomic_write(out, compare::page(results)?.as_bytes())
}

/// Writes the page about a learning-rate range test of `model` to the file `out`; `sentence` says what came of it.
///
/// # Errors
/// An `out` that can't be written.
pub fn write_rates(model: &str, curve: &Curve, sentence: &str, out: &Path) -> Result<()> {
    atomic_write(out, rates::page(model, curve, sentence).as_bytes())
}
