//! A model's tensors by their canonical names, and what libraries want of their shapes.

use crate::checkpoint::Weight;
use crate::train::source::Source;

/// Parameters and running statistics by canonical name.
pub(super) fn canonical(source: &Source) -> Vec<Weight> {
    source.weights.iter().chain(&source.stats).cloned().collect()
}

/// The counters of training batches, beside the running means.
pub(super) fn counters(tensors: &[Weight]) -> Vec<String> {
    let counter = |name: &str| Some(format!("{}.num_batches_tracked", name.strip_suffix(".running_mean")?));
    tensors.iter().filter_map(|(name, ..)| counter(name)).collect()
}

/// With query, key and value as tensors of their own.
pub(super) fn split_qkv(tensors: Vec<Weight>) -> Vec<Weight> {
    let split = |(name, shape, values): Weight| match name.split_once(".attn.qkv.") {
        None => vec![(name, shape, values)],
        Some((block, what)) => {
            let (mut part, len) = (shape, values.len() / 3);
            part[0] /= 3;
            let named = |(i, key): (usize, &str)| {
                (format!("{block}.attn.{key}.{what}"), part.clone(), values[i * len..][..len].to_vec())
            };
            ["q", "k", "v"].into_iter().enumerate().map(named).collect()
        }
    };
    tensors.into_iter().flat_map(split).collect()
}

/// With query, key and value as one tensor. They follow each other.
pub(super) fn join_qkv(tensors: Vec<Weight>) -> Vec<Weight> {
    let mut joined: Vec<Weight> = Vec::new();
    for (name, shape, values) in tensors {
        let part = ["q", "k", "v"].into_iter().find_map(|key| {
            let (block, what) = name.split_once(&format!(".attn.{key}."))?;
            Some(format!("{block}.attn.qkv.{what}"))
        });
        let Some(whole) = part else {
            joined.push((name, shape, values));
            continue;
        };
        match joined.iter_mut().find(|(name, ..)| *name == whole) {
            Some((_, all, gathered)) => {
                all[0] += shape[0];
                gathered.extend(values);
            }
            None => joined.push((whole, shape, values)),
        }
    }
    joined
}

/// Adds zeros under `name`, unless there is such a tensor.
pub(super) fn zeros_unless(tensors: &mut Vec<Weight>, name: &str, shape: &[usize]) {
    if !tensors.iter().any(|(own, ..)| own == name) {
        tensors.push((name.into(), shape.into(), vec![0.0; shape.iter().product()]));
    }
}

/// Gives a tensor, where it is there, another shape of as many values.
pub(super) fn reshape(tensors: &mut [Weight], wanted: impl Fn(&str, &[usize]) -> Option<Vec<usize>>) {
    for (name, shape, values) in tensors {
        if let Some(other) = wanted(name, shape) {
            assert_eq!(other.iter().product::<usize>(), values.len(), "{name} as {other:?}");
            *shape = other;
        }
    }
}

/// Class tokens, registers and positions as three-dimensional tensors; some families store them flat.
pub(super) fn unflatten_tokens(tensors: &mut [Weight], dim: usize) {
    let tokens = ["cls_token", "reg_token", "dist_token", "pos_embed"];
    reshape(tensors, |name, shape| {
        let rows = shape.iter().product::<usize>() / dim;
        tokens.contains(&name).then(|| vec![1, rows, dim])
    });
}

/// Rows of positions, put before those that are there or behind the first, as zeros.
pub(super) fn pad_positions(tensors: &mut [Weight], dim: usize, at: usize, count: usize) {
    for (_, shape, values) in tensors.iter_mut().filter(|(name, ..)| name == "pos_embed") {
        shape[1] += count;
        values.splice(at * dim..at * dim, std::iter::repeat_n(0.0, count * dim));
    }
}

/// Convolutions of pixels as matrices, layer scales as `[width]` or `scale`, and responses' parameters as `response`.
pub(super) fn convnext_shapes(tensors: &mut [Weight], scale: &[usize], response: &[usize]) {
    reshape(tensors, |name, shape| {
        let len: usize = shape.iter().product();
        let with = |ones: &[usize]| Some([&[len], ones].concat());
        match name {
            _ if name.ends_with(".gamma") => with(scale),
            _ if name.contains(".grn.") => Some([response, &[len]].concat()),
            _ if name.contains(".mlp.fc") && name.ends_with(".weight") => Some(shape[..2].to_vec()),
            _ => None,
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_key_and_value_come_apart_and_together() {
        let whole = vec![
            ("blocks.0.attn.qkv.weight".to_string(), vec![6, 2], (0..12).map(|i| i as f32).collect()),
            ("blocks.0.attn.qkv.bias".to_string(), vec![6], (0..6).map(|i| i as f32).collect()),
            ("norm.bias".to_string(), vec![2], vec![1.0, 2.0]),
        ];
        let apart = split_qkv(whole.clone());
        assert_eq!(apart[1], ("blocks.0.attn.k.weight".into(), vec![2, 2], vec![4.0, 5.0, 6.0, 7.0]));
        assert_eq!(apart[5], ("blocks.0.attn.v.bias".into(), vec![2], vec![4.0, 5.0]));
        assert_eq!(join_qkv(apart), whole);
    }

    #[test]
    fn positions_grow_by_zeros() {
        let mut tensors = vec![("pos_embed".to_string(), vec![1, 2, 2], vec![1.0, 2.0, 3.0, 4.0])];
        pad_positions(&mut tensors, 2, 1, 2);
        assert_eq!(tensors[0].1, [1, 4, 2]);
        assert_eq!(tensors[0].2, [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 3.0, 4.0]);
    }
}
