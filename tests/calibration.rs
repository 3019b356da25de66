//! Confidence and temperature, held against NumPy's and torch's figures of the same logits.

mod common;
#[path = "calibration/labels.rs"]
mod labels;

use common::Fixture;
use tpgm::train::Temperature;
use tpgm::train::calibration::{BINS, Logits};
use tpgm::train::evaluate::Tally;

const CASES: [&str; 4] = ["sure", "unsure", "many", "ruled_out"];

fn f64s(fixture: &Fixture, key: &str) -> Vec<f64> {
    let tensors = fixture.tensors();
    let tensor = tensors.tensor(key).unwrap();
    assert_eq!(tensor.dtype(), safetensors::Dtype::F64, "{key}");
    tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The images of a case that the temperature is fitted on, and the others.
fn parts(fixture: &Fixture, case: &str) -> [Logits; 2] {
    let (values, labels) = (fixture.f32(&format!("{case}.logits")), fixture.u32(&format!("{case}.labels")));
    let fit = fixture.f32(&format!("{case}.fit"));
    let all = Logits { values, labels, sets: None };
    [1.0, 0.0].map(|part| {
        let mut out = Logits::default();
        for ((row, label), fit) in all.rows().zip(&fit) {
            if *fit == part {
                out.values.extend(row);
                out.labels.push(label as u32);
            }
        }
        out
    })
}

#[test]
fn the_fitted_temperature_is_torch_s() {
    let fixture = Fixture::open("calibration");
    for case in CASES {
        let [fit, _] = parts(&fixture, case);
        let (got, want) = (Temperature::fit(&fit).unwrap(), f64s(&fixture, &format!("{case}.temperature"))[0]);
        // L-BFGS stopped at a gradient of 1e-10, where the curvature is above 0.01.
        assert!(!got.at_bound && (got.value / want - 1.0).abs() < 1e-8, "{case}: {got:?}, expected {want}");
    }
}

#[test]
fn figures_before_and_after_are_numpy_s() {
    let fixture = Fixture::open("calibration");
    for case in CASES {
        let [_, rest] = parts(&fixture, case);
        let classes = rest.values.len() / rest.labels.len();
        let t = f64s(&fixture, &format!("{case}.temperature"))[0];
        let mut tally = Tally::new(classes, Some(t));
        rest.rows().for_each(|(row, label)| tally.add(row, label));
        let e = tally.finish();
        let after = e.calibrated.as_ref().unwrap();
        let got = [[e.loss, e.brier, e.ece], [after.loss, after.brier, after.ece]].concat();
        for (got, want) in got.iter().zip(f64s(&fixture, &format!("{case}.figures"))) {
            assert!((got - want).abs() < 1e-12 * (1.0 + want), "{case}: {got}, expected {want}");
        }
        let bins = f64s(&fixture, &format!("{case}.bins"));
        assert_eq!(bins.len(), 2 * BINS * 3);
        for (bin, want) in e.bins.iter().chain(&after.bins).zip(bins.chunks(3)) {
            assert_eq!(bin.images as f64, want[0], "{case}");
            assert!((bin.confidence - want[1]).abs() < 1e-12 && (bin.accuracy - want[2]).abs() < 1e-12, "{case}");
        }
        let mut confusion = vec![0; classes * classes];
        e.confusion.iter().for_each(|(c, p, n)| confusion[*c as usize * classes + *p as usize] = *n);
        assert_eq!(confusion, fixture.u32(&format!("{case}.confusion")), "{case}");
    }
}
