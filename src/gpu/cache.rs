//! What an adapter need not find out twice, on disk: which variants are fastest, and pipelines where the driver gives them
//! out. Lost or broken files cost time, nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::atomic::atomic_write;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::gpu::tiles::{Choices, Tile};

/// A file of choices: in the open, so that one can see what was chosen. All of it was compared with reference kernels before
/// it came here.
#[derive(Serialize, Deserialize)]
struct Stored {
    adapter: String,
    right: BTreeMap<Tile, bool>,
    choices: Choices,
}

/// The folder for all this: `TPGM_CACHE_DIR`, else `tpgm` in the user's cache folder. None without one.
pub fn cache_dir() -> Option<PathBuf> {
    match std::env::var_os("TPGM_CACHE_DIR") {
        Some(dir) if !dir.is_empty() => Some(dir.into()),
        _ => dirs::cache_dir().map(|dir| dir.join("tpgm")),
    }
}

/// What `path` holds; None where there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, "cannot read", e)),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "cannot create", e))?;
    }
    atomic_write(path, bytes)
}

impl Gpu {
    /// A file of this adapter's, driver's and program version's own.
    fn cache_file(&self, dir: &Path, extension: &str) -> PathBuf {
        let name: String = Sha256::digest(self.identity()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        dir.join(format!("{name}.{extension}"))
    }

    /// Takes the variants that were found to be fastest before, and which tiles to be right.
    ///
    /// # Errors
    /// Where there is a file that can't be used; nothing was taken from it then.
    pub fn load_choices(&self, dir: &Path) -> Result<()> {
        let path = self.cache_file(dir, "tuning.json");
        let Some(bytes) = read(&path)? else { return Ok(()) };
        let stored: Stored = serde_json::from_slice(&bytes)
            .map_err(|e| Error::data(&path, format!("no choice of kernels can be read from it ({e})")))?;
        if stored.adapter != self.identity() {
            return Err(Error::data(&path, format!("it belongs to another adapter, {}", stored.adapter)));
        }
        self.choose_variants(stored.choices);
        self.found().extend(stored.right);
        Ok(())
    }

    /// Keeps the choices, and which tiles were found to be right, for later runs.
    pub fn save_choices(&self, dir: &Path) -> Result<()> {
        let right = self.found().clone();
        let stored = Stored { adapter: self.identity(), right, choices: self.choices() };
        let text = serde_json::to_string_pretty(&stored).expect("choices are plain values");
        write(&self.cache_file(dir, "tuning.json"), text.as_bytes())
    }

    /// Takes the pipelines that the driver compiled in earlier runs, where it gives them out: before the first kernel.
    pub fn load_pipelines(&self, dir: &Path) -> Result<()> {
        if !self.features.contains(wgpu::Features::PIPELINE_CACHE) {
            return Ok(());
        }
        let data = read(&self.cache_file(dir, "pipelines"))?;
        let descriptor = wgpu::PipelineCacheDescriptor {
            label: Some("pipelines"),
            data: data.as_deref().and_then(checked),
            // What the driver does not know is compiled as ever.
            fallback: true,
        };
        // SAFETY: the data is what `save_pipelines` got from `PipelineCache::get_data`, by its digest, and wgpu checks that
        // it was of this adapter and driver.
        let cache = unsafe { self.device.create_pipeline_cache(&descriptor) };
        let _ = self.pipelines.set(cache);
        Ok(())
    }

    /// Keeps the pipelines compiled so far for later runs.
    pub fn save_pipelines(&self, dir: &Path) -> Result<()> {
        let Some(data) = self.pipelines.get().and_then(wgpu::PipelineCache::get_data) else { return Ok(()) };
        let path = self.cache_file(dir, "pipelines");
        let bytes = [Sha256::digest(&data).as_slice(), &data].concat();
        if read(&path)?.as_ref() == Some(&bytes) {
            return Ok(());
        }
        write(&path, &bytes)
    }
}

/// The data behind its digest, if that is right: a driver may crash on data that it did not write.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (digest, data) = bytes.split_at_checked(32)?;
    (Sha256::digest(data).as_slice() == digest).then_some(data)
}
