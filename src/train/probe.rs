//! The head of a linear probe by logistic regression, over features that are computed once.

use crate::data::Dataset;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::method::ClassWeights;
use crate::train::config::TrainConfig;
use crate::train::evaluate::{Predictor, Sound, Watched, features};
use crate::train::events::Event;
use crate::train::logistic::{Labelled, solve as solve_for};
use crate::train::source::Source;
use crate::train::splits::Splits;

/// Puts the head that is solved for in the place of that of `source`: from the training images, at the strength that does best on those
/// for selection.
///
/// # Errors
/// As [`features`] and [`solve_for`].
pub(super) fn solve(
    gpu: &Gpu,
    config: &TrainConfig,
    source: &mut Source,
    (splits, weights): (&Splits, Option<&ClassWeights>),
    events: &mut dyn FnMut(Event),
) -> Result<()> {
    let tower = Source::open(&config.model, &config.overrides())?.without_head();
    let (width, classes) = (source.recognised.config.width(), source.recognised.config.classes());
    let normalized = source.recognised.config.normalize();
    let batch = config.optim.batch_size.min(splits.train.items.len());
    let mut model = Predictor::new_in(gpu, tower.model(), &tower.snapshot(), batch, config.memory.precision())?;
    let preprocess = source.recognised.preprocess.clone();
    let mut labelled = |name: &str, images: &Dataset| {
        let mut tell = |done, of| events(Event::Evaluating { name: name.into(), done, of });
        let mut sound = Sound::new(&mut model, images);
        let mut features = features(&mut Watched::new(&mut sound, images, &mut tell), images, &preprocess)?;
        if normalized {
            for row in features.chunks_mut(width) {
                let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                row.iter_mut().for_each(|x| *x /= norm);
            }
        }
        let labels = images.items.iter().map(|item| item.label).collect();
        Ok(Labelled { features, labels, sets: images.sets.clone() })
    };
    let (name, images) = match &splits.select {
        Some(select) => ("select", select),
        None => ("val", &splits.val),
    };
    let (train, select) = (labelled("train", &splits.train)?, labelled(name, images)?);
    let is_head = |tensor: &str, what: &str| tensor == format!("{}.{what}", source.recognised.config.head());
    let bias = source.weights.iter().any(|(tensor, ..)| is_head(tensor, "bias"));
    let mut tried = 0;
    let solution =
        solve_for((&train, &select), (classes, bias), weights, config.imbalance.best_by, &mut |_, _| tried += 1)?;
    let (strength, reached) = (solution.strength, 100.0 * solution.accuracy);
    let reached = match images.is_multi_label() {
        true => format!("mAP {reached:.1} %"),
        false => format!("{reached:.1} % right"),
    };
    events(Event::Note(format!(
        "logistic regression: strength {strength:.0e} of {tried} is best on {name}, {reached}"
    )));
    let config = &source.recognised.config;
    for (tensor, _, values) in &mut source.weights {
        match tensor.strip_prefix(config.head()) {
            Some(".weight") => values.clone_from(&solution.weight),
            Some(".bias") => values.clone_from(&solution.bias),
            _ => {}
        }
    }
    Ok(())
}
