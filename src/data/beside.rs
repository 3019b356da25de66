//! Image files that a Parquet file names by their paths, in the place of their bytes.

use std::path::{Component, Path, PathBuf};

use super::read;
use crate::error::{Help, quote, shown};

/// The fault of a path, as the rest of a sentence about its row, and what helps.
pub(super) type Wrong = (String, Option<Help>);

/// The file that a row of the Parquet file `table` means by `path`: below `root` if it is given, else beside `table`. In the layout of
/// Hugging Face's hub, where Parquet files lie in a folder `data`, it may also be relative to the folder above, and lie there.
///
/// # Errors
/// No such file, one outside of that folder, or an address in the web.
pub(super) fn find(table: &Path, root: Option<&Path>, path: &str) -> Result<PathBuf, Wrong> {
    let name = quote(path);
    if path.contains("://") {
        return Err((format!("its image \"{name}\" is an address, not a file: addresses are not fetched"), None));
    }
    let own = table.parent().unwrap_or(Path::new(""));
    let hub = || own.parent().filter(|_| own.file_name().is_some_and(|name| name == "data"));
    // All that is read lies below this folder.
    let limit = root.or_else(hub).unwrap_or(own);
    let inside = if root.is_none() { own.strip_prefix(limit).unwrap_or(Path::new("")) } else { Path::new("") };
    let places = [inside, Path::new("")].map(|from| below(limit, from, Path::new(path)));
    let mut files = places.iter().flatten().map(|place| limit.join(place));
    let Some(first) = files.next() else {
        let limit = if limit.as_os_str().is_empty() { Path::new(".") } else { limit };
        let what = format!("its image \"{name}\" lies outside of the folder {}", shown(limit));
        return Err((what, Some(Help::ListRoot)));
    };
    let missing = format!("there is no file \"{}\", which it names as its image", quote(&shown(&first)));
    let found = [first].into_iter().chain(files).find(|file| read::is_file(file));
    found.ok_or((missing, Some(Help::ListRoot)))
}

/// What of `path` is below `limit`, if it is relative to the folder `from` in it; none where it leads out of `limit`.
fn below(limit: &Path, from: &Path, path: &Path) -> Option<PathBuf> {
    let absolute = || path.strip_prefix(std::path::absolute(limit).ok()?).ok();
    let (mut place, rest) = if path.is_absolute() { (PathBuf::new(), absolute()?) } else { (from.to_path_buf(), path) };
    for part in rest.components() {
        match part {
            Component::Normal(name) => place.push(name),
            Component::CurDir => {}
            Component::ParentDir if place.pop() => {}
            _ => return None,
        }
    }
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_below_the_folder_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["hub/data/own.png", "hub/images/1.png", "flat/images/1.png", "secret.png"] {
            std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            std::fs::write(at(name), b"x").unwrap();
        }
        let told = |(what, _): Wrong| what;
        let hub = |path: &str| find(&at("hub/data/train.parquet"), None, path).map_err(told);
        assert_eq!(hub("own.png"), Ok(at("hub/data/own.png")));
        assert_eq!(hub("images/1.png"), Ok(at("hub/images/1.png")));
        assert_eq!(hub("../images/./1.png"), Ok(at("hub/images/1.png")));
        assert_eq!(hub(at("hub/images/1.png").to_str().unwrap()), Ok(at("hub/images/1.png")));
        for path in ["../../secret.png", "images/../../../secret.png", at("secret.png").to_str().unwrap()] {
            assert!(hub(path).unwrap_err().contains("lies outside of the folder"), "{path}");
        }
        let flat = |root: Option<&Path>, path: &str| find(&at("flat/train.parquet"), root, path).map_err(told);
        assert_eq!(flat(None, "images/1.png"), Ok(at("flat/images/1.png")));
        assert!(flat(None, "../secret.png").unwrap_err().contains("lies outside"));
        assert_eq!(flat(Some(dir.path()), "secret.png"), Ok(at("secret.png")));
        assert_eq!(flat(Some(&at("flat/images")), "1.png"), Ok(at("flat/images/1.png")));
        assert!(flat(Some(&at("flat/images")), "../images/1.png").unwrap_err().contains("lies outside"));
        assert!(flat(None, "images/2.png").unwrap_err().contains("there is no file"));
        assert!(flat(None, "images").unwrap_err().contains("there is no file"));
        assert!(flat(None, "https://example.org/1.png").unwrap_err().contains("is an address"));
    }
}
