//! Figures of images with any number of labels, held against scikit-learn's and torch's (`fixtures/generate_labels.py`).

use std::sync::Arc;

use crate::common::Fixture;
use tpgm::data::LabelSets;
use tpgm::train::Temperature;
use tpgm::train::calibration::Logits;
use tpgm::train::evaluate::{of_labels, of_logits};

const CASES: [&str; 4] = ["few", "many", "ties", "absent"];

/// The logits of a case, and its number of classes.
fn logits(fixture: &Fixture, case: &str) -> (Logits, usize) {
    let (values, truth) =
        (fixture.f32(&format!("figures.{case}.logits")), fixture.u32(&format!("figures.{case}.truth")));
    let classes = fixture.shape(&format!("figures.{case}.truth"))[1];
    let own = |row: &[u32]| (0..classes as u32).filter(|class| row[*class as usize] == 1).collect();
    let (sets, labels) = LabelSets::of(truth.chunks(classes).map(own));
    (Logits { values, labels, sets: Some(Arc::new(sets)) }, classes)
}

#[track_caller]
fn close(what: &str, got: f64, want: f32) {
    // A golden is rounded to f32.
    let want = f64::from(want);
    let same = got.is_nan() && want.is_nan() || (got - want).abs() <= 1e-6 * want.abs().max(1e-3);
    assert!(same, "{what}: {got}, expected {want}");
}

#[test]
fn figures_are_those_of_scikit_learn() {
    let fixture = Fixture::open("labels");
    for case in CASES {
        let (logits, classes) = logits(&fixture, case);
        let e = of_logits(&logits, classes);
        let labels = e.labels.as_ref().unwrap();
        let own = [
            labels.map,
            labels.at_half.micro_f1,
            labels.at_half.macro_f1,
            labels.at_half.exact,
            e.loss,
            e.ece,
            e.brier,
        ];
        let names = ["mAP", "micro F1", "macro F1", "exact", "loss", "ECE", "Brier"];
        for ((own, want), name) in own.iter().zip(fixture.f32(&format!("figures.{case}.figures"))).zip(names) {
            close(&format!("{case}: {name}"), *own, want);
        }
        let precisions = fixture.f32(&format!("figures.{case}.ap"));
        assert_eq!(precisions.len(), labels.labels.len());
        for (class, (own, want)) in labels.labels.iter().zip(precisions).enumerate() {
            close(&format!("{case}: AP of {class}"), own.average_precision, want);
        }
        assert!(e.top1.is_nan() && e.balanced.is_nan() && e.right.is_empty() && labels.at_own.is_none());
        assert_eq!((e.macro_f1, e.main()), (labels.at_half.macro_f1, labels.map));
    }
}

/// No threshold gives a class a larger F1 than its own.
#[test]
fn thresholds_reach_the_best_f1() {
    let fixture = Fixture::open("labels");
    for case in CASES {
        let (logits, _) = logits(&fixture, case);
        let thresholds = logits.thresholds().unwrap();
        let e = of_labels(&logits.of_labels().unwrap(), Some(&thresholds), None);
        let labels = e.labels.unwrap();
        for (class, (own, want)) in labels.labels.iter().zip(fixture.f32(&format!("figures.{case}.best"))).enumerate() {
            assert_eq!(own.threshold, thresholds[class]);
            match want.is_nan() {
                true => assert_eq!((own.threshold, own.images), (0.5, 0), "{case}: {class}"),
                false => close(&format!("{case}: F1 of {class}"), own.f1(), want),
            }
        }
        assert!(labels.at_own.unwrap().macro_f1 >= labels.at_half.macro_f1, "{case}");
    }
}

#[test]
fn the_temperature_of_labels_is_torch_s() {
    let fixture = Fixture::open("labels");
    for case in CASES {
        let (logits, _) = logits(&fixture, case);
        let fitted = Temperature::fit(&logits).unwrap();
        let want = fixture.f32(&format!("figures.{case}.temperature"))[0];
        close(case, fitted.value, want);
        assert!(!fitted.at_bound);
        // At it, the loss is less than at any near it.
        let loss = |t: f64| {
            let e = of_labels(&logits.of_labels().unwrap(), None, Some(t));
            e.calibrated.unwrap().loss
        };
        assert!(loss(fitted.value) < loss(fitted.value * 1.05) && loss(fitted.value) < loss(fitted.value / 1.05));
    }
}

#[test]
fn figures_of_labels_come_back_from_their_json() {
    let fixture = Fixture::open("labels");
    let (logits, _) = logits(&fixture, "absent");
    let thresholds = logits.thresholds().unwrap();
    let e = of_labels(&logits.of_labels().unwrap(), Some(&thresholds), Some(1.5));
    let text = serde_json::to_string(&e).unwrap();
    assert!(!text.contains("top1") && !text.contains("balanced"), "{text}");
    let back: tpgm::train::Evaluation = serde_json::from_str(&text).unwrap();
    assert!(back.top1.is_nan() && back.labels.as_ref().unwrap().labels[2].average_precision.is_nan());
    assert_eq!(serde_json::to_string(&back).unwrap(), text);
}
