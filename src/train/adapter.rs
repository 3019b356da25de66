//! Which adapter a run is on, for its directory: resumed, it goes on where it was, on a laptop with two GPUs too.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::atomic::atomic_write;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::gpu::adapters::AdapterName;

/// The file in the run directory.
const ADAPTER: &str = "adapter.json";

#[derive(Serialize, Deserialize)]
struct Stored {
    adapter: AdapterName,
    /// [`Gpu::identity`], with driver and program version; older runs have none.
    identity: Option<String>,
}

/// Notes that the run in `dir` is on `gpu`.
pub(super) fn write(gpu: &Gpu, dir: &Path) -> Result<()> {
    let stored = Stored { adapter: gpu.name(), identity: Some(gpu.identity()) };
    let text = serde_json::to_string_pretty(&stored).expect("names are plain values");
    atomic_write(dir.join(ADAPTER), text.as_bytes())
}

/// Whether the run in `dir` was on this very adapter, with the same driver and program. A file that does not say so can't tell.
pub(super) fn is_same(gpu: &Gpu, dir: &Path) -> bool {
    let stored = std::fs::read(dir.join(ADAPTER)).ok().and_then(|text| serde_json::from_slice::<Stored>(&text).ok());
    stored.and_then(|stored| stored.identity).is_some_and(|identity| identity == gpu.identity())
}

/// The adapter that the run in `dir` was on; None where it does not say.
pub fn read(dir: &Path) -> Result<Option<AdapterName>> {
    let path = dir.join(ADAPTER);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, "cannot read", e)),
    };
    let stored: Stored = serde_json::from_str(&text).map_err(|e| {
        Error::data(&path, format!("no adapter can be read from it ({e}): give --adapter, or remove the file"))
    })?;
    Ok(Some(stored.adapter))
}
