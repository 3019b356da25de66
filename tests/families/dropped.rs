//! Stochastic depth and dropout against timm (`fixtures/generate_dropped.py`): rates of each block, masks, loss and gradients.

use tpgm::model::Drops;

use super::*;

/// A learner of the family `name` whose model drops, before the step of the fixture.
fn dropping(golden: &Fixture, name: &str, micro_batch: usize, recompute: bool) -> (Family, Source, Learner<'static>) {
    let family = Family::new(name);
    let source = family.open();
    let rate = |key: &str| golden.json("rates")[key].as_f64().unwrap();
    let model = source.model().dropping(Drops { path: rate("path"), head: rate("head") });
    let settings = Settings { batch_norm: BatchNorm::Frozen, micro_batch, recompute, ..settings(&source) };
    let mut learner = Learner::new(gpu(), model, &source.snapshot(), settings).unwrap();
    learner.randomize(golden.json("seed").as_str().unwrap().parse().unwrap());
    learner.resume_at(golden.json("step").as_u64().unwrap(), 0);
    (family, source, learner)
}

#[test]
fn what_timm_drops_is_dropped() {
    let golden = Fixture::open("dropped");
    let names: Vec<String> = serde_json::from_value(golden.json("names")).unwrap();
    let mut compared = 0;
    for name in &names {
        let (family, source, mut learner) = dropping(&golden, name, 4, false);
        let images = family.golden.f32("images");
        // In evaluation nothing is dropped, and nothing is scaled.
        let error = relative(&learner.logits(&images, 4).unwrap(), &family.golden.f32("logits"));
        assert!(error < LOGITS, "{name}: logits in evaluation {error:e}");
        learner.step(&images, &family.golden.u32("labels"), 0.0).unwrap();
        let error = relative(&learner.last_logits(4).unwrap(), &golden.f32(&format!("{name}.logits")));
        assert!(error < LOGITS, "{name}: logits {error:e}");
        let loss = learner.records(true).unwrap()[0].loss;
        assert!(relative(&[loss], &golden.f32(&format!("{name}.loss"))) < LOGITS, "{name}: loss {loss}");
        let in_file: BTreeMap<_, _> = source.recognised.names.iter().cloned().collect();
        let dw: Vec<f32> = gpu().read(&learner.dw).unwrap();
        for (param, gradient) in learner.model.layout().unpack(&dw) {
            let key = format!("{name}.grad.{}", in_file[&param.name]);
            if golden.has(&key) && !param.name.ends_with("attn.k.bias") {
                let gradient: Vec<f32> = sampled(gradient).into_iter().take(64).collect();
                let error = relative(&gradient, &golden.f32(&key));
                assert!(error < GRADIENTS, "{key}: {error:e}");
                compared += 1;
            }
        }
    }
    let all = golden.tensors().names().iter().filter(|key| key.contains(".grad.")).count();
    assert!(compared > all * 9 / 10, "{compared} of {all}");
}

/// The masks follow from the seed, the step and an image's place in the batch of the step: not from how a batch is cut, nor from
/// whether a block is computed again.
#[test]
fn masks_are_the_same_in_parts_and_recomputed() {
    let golden = Fixture::open("dropped");
    for name in ["timm_vit", "timm_convnext", "timm_regnet", "timm_efficientnet"] {
        let run = |micro_batch: usize, recompute: bool, seed: u64| {
            let (family, _, mut learner) = dropping(&golden, name, micro_batch, recompute);
            learner.randomize(seed);
            (0..3).for_each(|_| family.step(&mut learner));
            let w: Vec<f32> = gpu().read(&learner.w).unwrap();
            (w, learner.records(true).unwrap().iter().map(|record| record.loss).collect::<Vec<f32>>())
        };
        let whole = run(4, false, 7);
        assert!(whole == run(4, true, 7), "{name}: recomputation changes bits");
        assert!(whole == run(4, false, 7), "{name}: two equal runs differ");
        assert_ne!(whole.1, run(4, false, 8).1, "{name}: another seed drops the same");
        for micro_batch in [3, 1] {
            let parts = run(micro_batch, false, 7);
            // Other masks would show in the losses at once: they move by tenths.
            let error = relative(&parts.1, &whole.1).max(relative(&parts.0, &whole.0));
            assert!(error < 1e-5, "{name}: micro-batches of {micro_batch}: {error:e}");
        }
    }
}
