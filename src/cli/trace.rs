//! `tpgm finetune --trace`: where a training step's time goes.

use crate::cli::table::table;
use crate::error::Result;
use crate::gpu::{Gpu, profile};
use crate::method::{Learner, Settings};
use crate::train::config::TrainConfig;
use crate::train::source::Source;

/// Times forward and backward of one micro-batch, kernel by kernel, and prints the table to stderr.
pub(super) fn run(gpu: &Gpu, config: &TrainConfig) -> Result<()> {
    let source = Source::open(&config.model, &config.model_args.overrides())?;
    let settings = Settings {
        optimizer: config.optimizer(),
        clip_norm: config.clip_norm,
        smoothing: config.label_smoothing,
        micro_batch: config.micro_batch,
        radius_batch: 0,
    };
    source.classes()?;
    let mut learner = Learner::new(gpu, source.vit(), &source.packed(), settings)?;
    learner.trace(config.micro_batch)?; // compiles
    let timings = learner.trace(config.micro_batch)?;
    let total: f64 = timings.iter().map(|t| t.ms).sum();
    let rows: Vec<Vec<String>> = profile::summary(&timings)
        .into_iter()
        .map(|(label, calls, ms)| {
            vec![label, calls.to_string(), format!("{ms:.2}"), format!("{:.1}", 100.0 * ms / total)]
        })
        .collect();
    eprint!("{}", table(&["kernel", "calls", "ms", "%"], &rows));
    eprintln!("{total:.1} ms forward and backward, {} images", config.micro_batch);
    Ok(())
}
