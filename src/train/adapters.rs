//! Which weights of a run have low-rank adapters, and what these hold.

use crate::checkpoint::{Adapted, LowRank};
use crate::error::{Error, Result};
use crate::method::{MethodArgs, Snapshot};
use crate::model::{Adapter, Model};
use crate::shapes::layout::ALIGN;
use crate::train::source::Source;

/// Those that have one unless the user says otherwise: the products of a ViT's attention.
const DEFAULT: [&str; 5] = [
    "blocks.*.attn.qkv.weight",
    "blocks.*.attn.q.weight",
    "blocks.*.attn.k.weight",
    "blocks.*.attn.v.weight",
    "blocks.*.attn.proj.weight",
];

/// `model`, which is that of `source`, with the adapters that `args` asks for.
///
/// # Errors
/// [`Error::Usage`] for a pattern that fits no weight, and for a weight that can have none.
pub(super) fn adapted(args: &MethodArgs, source: &Source, model: Model) -> Result<Model> {
    let Some(rank) = args.lora.lora_rank else { return Ok(model) };
    let (layout, names) = (model.layout(), &source.recognised.names);
    let mut targets = vec![false; layout.params.len()];
    let globs: Vec<&str> =
        args.lora.lora_targets.as_ref().map_or(DEFAULT.to_vec(), |globs| globs.iter().map(String::as_str).collect());
    for text in &globs {
        let pattern = glob::Pattern::new(text)
            .map_err(|e| Error::Usage(format!("--lora-targets {text}: not a pattern: {}", e.msg)))?;
        let mut found = false;
        for (i, (name, file)) in names.iter().enumerate() {
            let weight = layout.params[i].shape.len() > 1 && !source.recognised.config.is_head(name);
            if weight && (pattern.matches(name) || pattern.matches(file)) {
                (targets[i], found) = (true, true);
            }
        }
        if !found && args.lora.lora_targets.is_some() {
            let what =
                format!("--lora-targets {text}: no weight below the head has such a name: tpgm inspect lists them");
            return Err(Error::Usage(what));
        }
    }
    let targets: Vec<usize> = (0..targets.len()).filter(|i| targets[*i]).collect();
    if targets.is_empty() {
        let what = "--lora-rank: the default targets are the attention of a ViT, which this model has none of: name weights by \
                    --lora-targets";
        return Err(Error::Usage(what.into()));
    }
    for param in targets.iter().map(|target| &layout.params[*target]) {
        let least = param.rows().min(param.len / param.rows());
        if rank > least {
            return Err(Error::Usage(format!("--lora-rank {rank}: {} has a rank of {least} at most", param.name)));
        }
        if !param.offset.is_multiple_of(ALIGN) {
            let what =
                format!("--lora-targets: {} lies in one block of memory with its neighbours: leave it out", param.name);
            return Err(Error::Usage(what));
        }
    }
    let alpha = args.lora.lora_alpha.unwrap_or(rank as f32);
    Ok(model.adapted(rank, alpha / rank as f32, &targets))
}

/// Values of the model without its adapters, with theirs.
pub(super) fn begun(model: &Model, values: Snapshot, seed: u64) -> Snapshot {
    match model.adapters() {
        Some(adapters) => Snapshot { w: adapters.begin(model.layout(), values.w, seed), ..values },
        None => values,
    }
}

/// A sentence about the adapters of `model`.
pub(super) fn note(model: &Model) -> Option<String> {
    let adapters = model.adapters()?;
    let values: usize = adapters.of.iter().map(|a| adapters.rank * (a.outputs + a.inputs)).sum();
    let whole: usize = adapters.of.iter().map(|a| a.outputs * a.inputs).sum();
    Some(format!(
        "{} weights have adapters of rank {}: {values} values are trained in place of {whole}, and the head",
        adapters.of.len(),
        adapters.rank
    ))
}

/// The values of all adapters among `w`, weights of `model`: what lies behind all other weights. None where a method of `args` makes
/// other weights of them than their product.
pub(super) fn alone<'a>(args: &MethodArgs, model: &Model, w: &'a [f32]) -> Option<&'a [f32]> {
    let first = model.adapters()?.of.first()?;
    let kept = args.active().all(|method| ["lora", "vanilla", "llrd"].contains(&method.name()));
    kept.then(|| &w[model.layout().params[first.a].offset..])
}

/// The adapters of `model`, which is that of `source`, with the values that [`alone`] gave, under the names of the file.
///
/// # Panics
/// Where the values are those of another model.
pub(super) fn named(args: &MethodArgs, source: &Source, model: &Model, values: &[f32]) -> Option<LowRank> {
    let adapters = model.adapters()?;
    let layout = model.layout();
    let before = layout.len - values.len();
    let tensor = |i: usize| {
        let param = &layout.params[i];
        values[param.offset - before..][..param.len].to_vec()
    };
    let adapted = |adapter: &Adapter| Adapted {
        target: source.recognised.names[adapter.target].1.clone(),
        a: tensor(adapter.a),
        b: tensor(adapter.b),
    };
    let alpha = args.lora.lora_alpha.unwrap_or(adapters.rank as f32);
    Some(LowRank { rank: adapters.rank, alpha, of: adapters.of.iter().map(adapted).collect() })
}
