//! `tpgm finetune --trace`: where a training step's time goes.

use crate::cli::table::table;
use crate::error::Result;
use crate::gpu::{Gpu, profile};
use crate::method::{Learner, Tpgm, TpgmSettings};
use crate::train::config::TrainConfig;
use crate::train::fit::MicroBatch;
use crate::train::method_args::Method;
use crate::train::source::Source;

/// Times a training step of one micro-batch, and TPGM's own part of a radius update, kernel by kernel; the tables go to
/// stderr. It works on a model of its own: the run after it starts from the checkpoint.
pub(super) fn run(gpu: &Gpu, config: &TrainConfig) -> Result<()> {
    let source = Source::open(&config.model, &config.model_args.overrides())?;
    source.classes()?;
    // What `auto` will choose is not known yet: kernels are timed on a whole batch.
    let images = match config.memory.micro_batch(config.optim.batch_size) {
        MicroBatch::Images(images) => images,
        MicroBatch::Fitting(_) => config.optim.batch_size,
    };
    let values = source.snapshot();
    let mut learner = Learner::new(gpu, source.model(), &values, config.settings(images))?;
    learner.trace(images)?; // compiles
    show(&format!("a step, {images} images"), &learner.trace(images)?);
    if config.method.name == Method::Tpgm {
        let (norm, radius_lr) = (config.method.norm, config.method.radius_lr);
        let settings = TpgmSettings { norm, radius_lr, max_iters: 1, proj_freq: 1 };
        let tpgm = Tpgm::new(&learner, &values.w, &vec![false; source.weights.len()], settings)?;
        tpgm.trace(&learner)?;
        show("norms, projection and radii, beside the pass of a radius batch", &tpgm.trace(&learner)?);
    }
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
    eprintln!("{what}: {total:.1} ms");
    eprint!("{}", table(&["kernel", "calls", "ms", "%"], &rows));
}
