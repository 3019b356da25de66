//! The images that a command without labels is given: by a path, a pattern, or a list on stdin.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use crate::data::{Dataset, Item, LeftOut, exists, is_image};
use crate::error::{Error, Result, escaped};
use crate::flag::without_mark;
use crate::train::data_args::DataArgs;

/// Whether `path` is a pattern, and not the name of something that is there.
fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '[']) && !exists(path)
}

/// What matches the pattern `data`, sorted.
fn matching(data: &Path) -> Result<Vec<PathBuf>> {
    let wrong = |what: String| Error::Usage(format!("--data {}: {what}", escaped(&data.to_string_lossy())));
    let found = glob::glob(&data.to_string_lossy()).map_err(|e| wrong(format!("not a pattern: {e}")))?;
    let found = found.collect::<std::result::Result<Vec<_>, _>>();
    let found = found.map_err(|e| Error::io(e.path(), "cannot read", std::io::Error::other(e.error().to_string())))?;
    match found.is_empty() {
        true => Err(Error::data(data, "nothing matches this pattern")),
        false => Ok(found),
    }
}

/// The paths on stdin, one per line; relative ones below `root`.
fn listed(root: Option<&Path>) -> Result<Vec<PathBuf>> {
    if std::io::stdin().is_terminal() {
        return Err(Error::Usage("--data - reads paths from stdin, one per line: send them there, as `find . -name '*.jpg' | tpgm predict --data - …` does".into()));
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(|e| Error::io("stdin", "cannot read", e))?;
    let text = String::from_utf8(bytes).map_err(|_| Error::data("stdin", "the list of paths is not UTF-8"))?;
    let lines = without_mark(&text).lines().map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty());
    let paths: Vec<PathBuf> = lines.map(|line| root.map_or_else(|| line.into(), |root| root.join(line))).collect();
    match paths.is_empty() {
        true => Err(Error::data("stdin", "there are no paths: --data - expects one per line")),
        false => Ok(paths),
    }
}

/// The images of `data`: an image, a folder, an archive, a list or a CSV; a pattern with `*`, `?` or `[…]`, `**` for any folders; or
/// `-` for a list of paths on stdin.
///
/// # Errors
/// As [`Dataset::unlabelled`], and where nothing matches or is listed.
pub(super) fn open(data: &Path, files: &DataArgs) -> Result<Dataset> {
    let paths = match data.to_str() {
        Some("-") => listed(files.root.as_deref())?,
        _ if is_pattern(data) => matching(data)?,
        _ => return files.unlabelled(data),
    };
    let (name, mut items, mut left_out) = (data.to_string_lossy().into_owned(), Vec::new(), LeftOut::default());
    for path in paths {
        // One that is missing is named together with all that can't be read.
        if is_image(&path) && !path.is_dir() {
            items.push(Item { path, label: 0 });
            continue;
        }
        let found = files.unlabelled(&path)?;
        items.extend(found.items);
        left_out.add(found.left_out);
    }
    Ok(Dataset { name, classes: Vec::new(), items, sets: None, left_out })
}
