//! Checkpoints in 16-bit floats: fine-tuned in f32, saved as they came.

use std::collections::BTreeMap;

use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::Value;
use tpgm::checkpoint::Overrides;
use tpgm::train::source::Source;

use crate::{Space, TRAIN, with};

type Bytes = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn tensors(bytes: &[u8]) -> Bytes {
    let file = SafeTensors::deserialize(bytes).unwrap();
    file.iter().map(|(name, t)| (name.into(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect()
}

fn metadata(bytes: &[u8]) -> BTreeMap<String, String> {
    SafeTensors::read_metadata(bytes).unwrap().1.metadata().clone().unwrap().into_iter().collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// To the nearest of `dtype`, and of two as near to the even one: by hand, from the neighbours.
fn nearest(dtype: Dtype, value: f32) -> u16 {
    let wide = |bits: u16| match dtype {
        Dtype::F16 => f16::from_bits(bits).to_f64(),
        _ => bf16::from_bits(bits).to_f64(),
    };
    let value = f64::from(value);
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    // Positive numbers sort as their bits do.
    let (mut low, mut high) = (0u16, 0x7bff);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if wide(middle) <= value.abs() { low = middle } else { high = middle }
    }
    let (below, above) = (value.abs() - wide(low), wide(high) - value.abs());
    let up = above < below || (above == below && low % 2 == 1);
    sign | if up { high } else { low }
}

#[test]
fn a_checkpoint_of_16_bit_floats_stays_one() {
    // Digits that a float of each type has, and the logits of weights so rounded.
    for (dtype, tolerance) in [(Dtype::BF16, 2e-2), (Dtype::F16, 3e-3)] {
        let space = Space::new();
        let whole = space.bytes("m.safetensors");
        let mut own = tensors(&whole);
        for (kind, _, data) in own.values_mut() {
            (*kind, *data) = (dtype, floats(data).iter().flat_map(|v| nearest(dtype, *v).to_le_bytes()).collect());
        }
        let views =
            own.iter().map(|(n, (kind, shape, data))| (n, TensorView::new(*kind, shape.clone(), data).unwrap()));
        let mut said = metadata(&whole);
        said.insert("license".into(), "free".into());
        space.write("m.safetensors", serialize(views, Some(said.clone().into_iter().collect())).unwrap());

        space.ok(&with(TRAIN, "--steps 5 --lr 0.01 --test t=test --out run"));
        let saved = space.bytes("run/last.safetensors");
        let after = tensors(&saved);
        let kinds = |file: &Bytes| file.iter().map(|(n, (d, s, _))| (n.clone(), *d, s.clone())).collect::<Vec<_>>();
        assert_eq!(kinds(&after), kinds(&own), "names, types and shapes");
        let kept = metadata(&saved);
        assert!(said.iter().all(|(key, value)| kept.get(key) == Some(value)), "{kept:?}");
        // A norm's weights are near one, where a step of this size is less than BF16 can tell.
        let matrices =
            after.iter().filter(|(_, (_, shape, _))| shape.len() > 1 && shape.iter().product::<usize>() > 16);
        assert!(matrices.clone().count() > 5);
        matrices.for_each(|(name, (.., data))| assert!(*data != own[name].2, "{name} stayed"));

        // What the run itself had when it ended.
        let weights = floats(&tensors(&space.bytes("run/state.safetensors"))["w"].2);
        let read = Source::open(&space.path("run/last.safetensors"), &Overrides::default()).unwrap();
        for (param, values) in read.model().layout().unpack(&weights) {
            let saved: Vec<u16> = after[&param.name].2.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
            let want: Vec<u16> = values.iter().map(|w| nearest(dtype, *w)).collect();
            assert_eq!(saved, want, "{}", param.name);
        }

        // The run evaluated the weights that it had, `eval` what it saved of them.
        let lines = space.lines("run/metrics.jsonl");
        let last = lines.iter().find(|l| l["final"] == true && l["model"] == "last").unwrap();
        let again: Value = space.json("eval --model run/last.safetensors --data t=test");
        let [ran, read] = [&last["loss"], &again[0]["loss"]].map(|loss| loss.as_f64().unwrap());
        assert!(ran != read && (ran - read).abs() < tolerance * ran, "{dtype:?}: {ran}, read again {read}");
    }
}
