//! Model Stock against an implementation in plain Python (`fixtures/generate_model_stock.py`).

use super::model;
use crate::common::Fixture;
use tpgm::method::Snapshot;
use tpgm::method::soups::{Ingredients, Origin, named};

/// Of a value, relative to the largest of its tensor: both sides compute in f64 and round once, from angles that differ by rounding.
const VALUES: f32 = 1e-6;

#[test]
fn model_stock_is_that_of_its_definition() {
    let golden = Fixture::open("model_stock");
    let (model, anchor) = model("vit_quick");
    let layout = model.layout().clone();
    let read = |prefix: &str| {
        let tensors: Vec<Vec<f32>> =
            layout.params.iter().map(|p| golden.f32(&format!("{prefix}.{}", p.name))).collect();
        layout.pack(tensors.iter().map(Vec::as_slice))
    };
    let models = ["a", "b", "c"].map(|name| Snapshot::of_weights(read(name)));
    let ratios =
        |key: &str| layout.params.iter().map(|p| golden.json(key)[&p.name].as_f64().unwrap()).collect::<Vec<_>>();
    let mix = |count: usize, is_new: &dyn Fn(&str) -> bool| {
        let is_new = layout.params.iter().map(|p| is_new(&p.name)).collect();
        let origin = Some(Origin { model: model.clone(), values: anchor.clone(), is_new });
        let (load, evaluate) = (&mut |i: usize| Ok(models[i].clone()), &mut |_: &_| panic!("it needs no images"));
        let of = Ingredients { count, load, accuracies: &[], evaluate, origin };
        let mixed = named("model-stock").unwrap().mix(of).unwrap();
        assert_eq!((mixed.kept, mixed.accuracy), ((0..count).collect::<Vec<_>>(), None));
        (mixed.values.w, mixed.share.unwrap())
    };
    for (key, count) in [("two", 2), ("three", 3)] {
        let ((got, share), want) = (mix(count, &|_| false), read(key));
        let ratios = ratios(key);
        // Over all tensors, how long the drift is against that of the mean.
        let length = |w: &[f32]| {
            w.iter().zip(&anchor.w).map(|(w, w0)| (f64::from(*w) - f64::from(*w0)).powi(2)).sum::<f64>().sqrt()
        };
        let mean: Vec<f32> = (0..want.len())
            .map(|i| (models[..count].iter().map(|m| f64::from(m.w[i])).sum::<f64>() / count as f64) as f32)
            .collect();
        let wanted = length(&want) / length(&mean);
        assert!((share - wanted).abs() < 1e-5 && wanted < 0.9, "{share} {wanted}");
        assert!(
            ratios.contains(&0.0) && ratios.iter().any(|t| (0.2..0.8).contains(t)) && ratios.iter().any(|t| *t > 0.99)
        );
        for (((param, got), (_, want)), t) in layout.unpack(&got).zip(layout.unpack(&want)).zip(&ratios) {
            let most = want.iter().fold(f32::MIN_POSITIVE, |most, v| most.max(v.abs()));
            let off = got.iter().zip(want).fold(0.0f32, |off, (got, want)| off.max((got - want).abs()));
            assert!(off <= VALUES * most, "{key}, {}: off by {off:e} at ratio {t}", param.name);
        }
    }
    // A head without a pre-trained counterpart is averaged, and nothing else changes.
    let ((whole, _), (new, _)) = (mix(2, &|_| false), mix(2, &|name| name.starts_with("head.")));
    let mean: Vec<f32> =
        models[0].w.iter().zip(&models[1].w).map(|(a, b)| ((f64::from(*a) + f64::from(*b)) / 2.0) as f32).collect();
    for (((param, new), (_, whole)), (_, mean)) in
        layout.unpack(&new).zip(layout.unpack(&whole)).zip(layout.unpack(&mean))
    {
        assert!(new == if param.name.starts_with("head.") { mean } else { whole }, "{}", param.name);
    }
}
