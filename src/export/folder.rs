//! A folder for another library: weights, configuration, card.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::card;
use super::library::{Library, Tensors, describe};
use crate::atomic::atomic_write;
use crate::checkpoint::{self, Checkpoint, Values, write_safetensors};
use crate::error::{Error, Result};
use crate::export::Origin;
use crate::report::read::Run;
use crate::train::source::Source;

/// A folder that was written.
#[derive(Debug)]
pub struct Folder {
    /// The library's class or architecture.
    pub architecture: String,
    /// The files, in the order in which they were written.
    pub files: Vec<PathBuf>,
    /// Bytes of the weights.
    pub bytes: u64,
    /// What differs from the model as tpgm runs it, a sentence each.
    pub remarks: Vec<String>,
}

/// Writes the folder `out`, which must be new or empty. Everything is written beside it first.
///
/// # Errors
/// [`Error::Checkpoint`] where the library has no such network; [`Error::Usage`] for a folder that holds files; files of the run that
/// can't be read, and a folder that can't be written.
pub fn write(out: &Path, library: Library, source: &Source, origin: &Origin) -> Result<Folder> {
    let full =
        || Error::Usage(format!("{} is there already, and not an empty folder: give another --out", out.display()));
    if out.exists() && !out.read_dir().is_ok_and(|mut entries| entries.next().is_none()) {
        return Err(full());
    }
    let run = origin.run.as_deref().map(Run::read).transpose()?;
    let base = base_config(source, run.as_ref());
    let pretrained = run.as_ref().and_then(|run| run.setting("model")).map(PathBuf::from);
    let pretrained = pretrained.as_deref().unwrap_or(source.checkpoint.path());
    let described = describe(library, source, base.as_ref(), pretrained)?;

    let name = out.file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned());
    let beside = out.with_file_name(format!(".tpgm-{}-{name}", std::process::id()));
    let cannot = |e| Error::io(out, "cannot create this folder", e);
    fs::create_dir_all(&beside).map_err(cannot)?;
    let written = fill(&beside, &name, library, source, &described, run.as_ref());
    let moved = written.and_then(|files| {
        if out.exists() {
            fs::remove_dir(out).map_err(cannot)?;
        }
        fs::rename(&beside, out).map_err(cannot)?;
        Ok(files)
    });
    if moved.is_err() {
        let _ = fs::remove_dir_all(&beside);
    }
    let files: Vec<PathBuf> = moved?.iter().map(|file| out.join(file)).collect();
    let size = |file: &PathBuf| fs::metadata(file).map_or(0, |m| m.len());
    let bytes = files.iter().filter(|file| file.extension().is_some_and(|e| e == "safetensors")).map(size).sum();
    Ok(Folder { architecture: described.architecture, files, bytes, remarks: described.remarks })
}

/// The `config.json` of the checkpoint, or of the pre-trained model where that is still there.
fn base_config(source: &Source, run: Option<&Run>) -> Option<Value> {
    let own = source.checkpoint.config().cloned();
    own.or_else(|| {
        let model = run?.setting("model")?;
        Checkpoint::open(model).ok()?.config().cloned()
    })
}

fn fill(
    folder: &Path,
    name: &str,
    library: Library,
    source: &Source,
    described: &super::library::Described,
    run: Option<&Run>,
) -> Result<Vec<String>> {
    let mut files = vec!["model.safetensors".to_string()];
    weights(&folder.join("model.safetensors"), source, &described.tensors)?;
    let mut add = |file: &str, text: &[u8]| {
        files.push(file.into());
        atomic_write(folder.join(file), text)
    };
    for (file, value) in &described.files {
        let text = serde_json::to_string_pretty(value).expect("JSON is text") + "\n";
        add(file, text.as_bytes())?;
    }
    if let Some(run) = run {
        let path = run.dir.join("config.toml");
        let settings = fs::read(&path).map_err(|e| Error::io(&path, "cannot read", e))?;
        add(card::SETTINGS, &settings)?;
        if let Some(figure) = card::figure(run) {
            add(card::FIGURE, figure.as_bytes())?;
        }
    }
    add("README.md", card::text(name, library, source, described, run).as_bytes())?;
    Ok(files)
}

fn weights(path: &Path, source: &Source, tensors: &Tensors) -> Result<()> {
    match tensors {
        Tensors::Kept(more) => {
            let own: Vec<_> = source.weights.iter().chain(&source.stats).cloned().collect();
            let mut all = checkpoint::replacements(&source.recognised, &own);
            all.extend(more.iter().map(|(name, shape, values)| (name.clone(), (shape.clone(), values.clone()))));
            checkpoint::save(path, &source.checkpoint, &all, &checkpoint::tpgm_metadata(&source.recognised))
        }
        Tensors::Named(tensors, counters) => {
            let floats = tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), Values::F32(values)));
            let zero = [0];
            let counts = counters.iter().map(|name| (name.clone(), Vec::new(), Values::I64(&zero)));
            let all: Vec<_> = floats.chain(counts).collect();
            let mut metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
            // torchvision has no configuration that could say it.
            if let Some(thresholds) = &source.recognised.thresholds {
                metadata.extend(checkpoint::task_metadata(&source.checkpoint, Some(thresholds)));
            }
            write_safetensors(path, &all, &metadata)
        }
    }
}
