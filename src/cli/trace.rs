//! `tpgm finetune --trace`: where a training step's time goes.

use crate::cli::console::note;
use crate::cli::table::table;
use crate::error::Result;
use crate::gpu::{Gpu, profile};
use crate::method::{Active, Anchor, Held, Learner};
use crate::train::config::TrainConfig;
use crate::train::micro_batch::MicroBatch;
use crate::train::source::Source;

/// Times a training step of one micro-batch, and what the method does beside it, kernel by kernel; the tables go to
/// stderr. It works on a model of its own: the run after it starts from the checkpoint.
pub(super) fn run(gpu: &Gpu, config: &TrainConfig) -> Result<()> {
    let source = Source::open(&config.model, &config.overrides())?;
    source.classes()?;
    // What `auto` will choose is not known yet: kernels are timed on a whole batch.
    let images = match config.memory.micro_batch(config.optim.batch_size) {
        MicroBatch::Images(images) => images,
        MicroBatch::Fitting(_) => config.optim.batch_size,
    };
    let (values, excluded) = (source.snapshot(), vec![false; source.weights.len()]);
    let mut learner = Learner::new(gpu, source.model(), &values, config.settings(images))?;
    let active =
        Active::start(&config.method, &mut learner, &Anchor { values: &values, excluded: &excluded, new_head: false })?;
    learner.trace(images)?; // compiles
    show(&format!("a step, {images} images"), &learner.trace(images)?);
    active.trace(&learner)?;
    active.trace(&learner)?.iter().for_each(|(what, timings)| show(what, timings));
    Ok(())
}

fn show(what: &str, timings: &[profile::Timing]) {
    let total: f64 = timings.iter().map(|t| t.ms).sum();
    let rows: Vec<Vec<String>> = profile::summary(timings)
        .into_iter()
        .map(|(label, calls, ms)| {
            vec![label, calls.to_string(), format!("{ms:.2}"), format!("{:.1}", 100.0 * ms / total)]
        })
        .collect();
    note!("{what}: {total:.1} ms");
    table(&["kernel", "calls", "ms", "%"], &rows).lines().for_each(|line| note!("{line}"));
}
