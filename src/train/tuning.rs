//! Before a run: the variants of its products that this adapter runs fastest are measured, once, and kept for the next run.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::gpu::cache::cache_dir;
use crate::gpu::tiles::{Choices, Variant};
use crate::ops::product::Product;
use crate::ops::tune;
use crate::train::events::Event;

/// Measuring takes no longer than this by much: products left keep their defaults, and have their turn in the next run.
const LIMIT: Duration = Duration::from_secs(10);

/// Measures those among `products` that nobody has measured on this adapter, and keeps what came out.
pub fn tune(gpu: &Gpu, products: &[Product], events: &mut dyn FnMut(Event)) -> Result<()> {
    let started = Instant::now();
    let choices = tune::measure(gpu, products, LIMIT, &mut |class, measured| {
        tracing::debug!(class, ?measured, "measured");
        for (variant, why) in measured.iter().filter_map(|m| Some((m.variant, m.refused.as_ref()?))) {
            events(refused(class, variant, why));
        }
    })?;
    if choices.is_empty() {
        return Ok(());
    }
    let (count, seconds) = (choices.len(), started.elapsed().as_secs_f64());
    gpu.choose_variants(choices);
    events(Event::Note(format!("measured the kernels for {count} products on this adapter in {seconds:.1} s")));
    if let Some(Err(e)) = cache_dir().map(|dir| gpu.save_choices(&dir)) {
        events(Event::Warning(format!("the measurements are not kept for later runs: {e}")));
    }
    Ok(())
}

fn refused(class: &str, variant: Variant, why: &str) -> Event {
    Event::Warning(format!("{class}: {:?} is not used on this adapter: {why}", variant.tile))
}

/// Uses the `choices` of a run that was on another adapter, or under another driver, for `products`: those that compute the
/// right thing here. The others keep their defaults.
pub(super) fn confirm(gpu: &Gpu, products: &[Product], choices: &Choices, events: &mut dyn FnMut(Event)) -> Result<()> {
    let confirmed = tune::confirm(gpu, products, choices, &mut |class, variant, why| {
        events(refused(class, variant, why));
    })?;
    if !choices.is_empty() {
        events(Event::Note(format!(
            "the run was on another adapter, driver or version: the kernels for {} products were compared with their \
             references, the others are this adapter's defaults",
            confirmed.len()
        )));
    }
    gpu.replace_variants(confirmed);
    Ok(())
}

/// The choices that a run uses, for its directory: resumed, it must use the same, or its bits differ.
pub(super) fn write_choices(gpu: &Gpu, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(&gpu.choices()).expect("choices are plain values");
    crate::atomic::atomic_write(path, text.as_bytes())
}

/// Choices as another rank is told them.
pub(super) fn to_json(choices: &Choices) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(choices).expect("choices are plain values"))
}

/// What [`to_json`] made.
pub(super) fn from_json(bytes: &[u8]) -> Choices {
    serde_json::from_slice(bytes).expect("what another rank of this program has written")
}

/// The choices of a run's directory; a run that has no such file used the defaults.
pub(super) fn read_choices(path: &Path) -> Result<Choices> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => "{}".into(),
        Err(e) => return Err(Error::io(path, "cannot read", e)),
    };
    serde_json::from_str(&text)
        .map_err(|e| Error::data(path, format!("not a choice of kernels ({e}): delete it to go on with the defaults")))
}
