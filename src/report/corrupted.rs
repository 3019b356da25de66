//! Corrupted copies of a test set, of which there may be 85: the page shows their mean, as one set.

use crate::train::records::EvaluationLine;

/// `evals` with `copy`, an evaluation of a corrupted copy, added to the mean of its set, model and step.
pub(super) fn add(evals: &mut Vec<(EvaluationLine, f64)>, mut copy: EvaluationLine) {
    let set = copy.set.rsplit_once('+').map_or(copy.set.as_str(), |(set, _)| set);
    copy.set = format!("{set}+corrupted");
    let same = |e: &EvaluationLine| e.set == copy.set && e.model == copy.model && e.step == copy.step;
    let Some((mean, count)) = evals.iter_mut().find(|(e, _)| same(e)) else {
        evals.push((copy, 1.0));
        return;
    };
    *count += 1.0;
    let figures = [
        (&mut mean.loss, copy.loss),
        (&mut mean.top1, copy.top1),
        (&mut mean.top5, copy.top5),
        (&mut mean.balanced, copy.balanced),
        (&mut mean.macro_f1, copy.macro_f1),
        (&mut mean.map, copy.map),
        (&mut mean.micro_f1, copy.micro_f1),
        (&mut mean.exact, copy.exact),
        (&mut mean.ece, copy.ece),
    ];
    for (mean, value) in figures {
        *mean = mean.zip(value).map(|(mean, value)| mean + (value - mean) / *count);
    }
}
