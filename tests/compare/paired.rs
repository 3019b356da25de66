//! The paired tests of a grid's points, and the shares by image that they compare, held against statsmodels', scipy's and scikit-learn's
//! (`fixtures/generate_stats.py`).

use std::sync::Arc;

use serde_json::Value;

use crate::common::Fixture;
use tpgm::compare::paired::{SignFlips, holm};
use tpgm::data::LabelSets;
use tpgm::train::by_image::by_image;
use tpgm::train::calibration::Logits;
use tpgm::train::imbalance_args::BestBy;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn p(differences: &[f64]) -> f64 {
    SignFlips::new(differences, 0.05).p(differences.iter().sum())
}

#[track_caller]
fn close(what: &str, got: f64, want: f64, relative: f64) {
    assert!((got - want).abs() <= relative * want, "{what}: {got}, expected {want}");
}

#[test]
fn one_seed_is_mcnemars_exact_test() {
    let cases = Fixture::open("stats").json("mcnemar");
    assert!(cases.as_array().unwrap().len() > 10);
    for case in cases.as_array().unwrap() {
        let [first, second, want] = numbers(case)[..] else { panic!("{case}") };
        let all = [vec![1.0; first as usize], vec![-1.0; second as usize], vec![0.0; 21]].concat();
        close(&format!("{first} against {second}"), p(&all), want, 1e-9);
    }
}

#[test]
fn signs_are_flipped_as_scipy_flips_them() {
    let golden = Fixture::open("stats");
    // Exact ones differ by rounding; of drawn ones, both are as far off as 10,000 and 200,000 draws are.
    for (kind, relative, drawn) in
        [("whole", 1e-9, false), ("parts", 1e-9, false), ("many", 1e-9, false), ("drawn", 0.0, true)]
    {
        let cases = golden.json(kind);
        assert!(cases.as_array().unwrap().len() > 1);
        for (i, case) in cases.as_array().unwrap().iter().enumerate() {
            let (differences, want) = (numbers(&case[0]), case[1].as_f64().unwrap());
            let error = 4.0 * (want * (1.0 - want) / 9_999.0).sqrt() + 1e-4;
            close(&format!("{kind} {i}"), p(&differences), want, if drawn { error / want } else { relative });
        }
    }
}

#[test]
fn holms_correction_is_that_of_statsmodels() {
    for case in Fixture::open("stats").json("holm").as_array().unwrap() {
        for (got, want) in holm(&numbers(&case[0])).iter().zip(numbers(&case[1])) {
            close("holm", *got, want, 1e-12);
        }
    }
}

#[test]
fn shares_by_image_are_those_of_leaving_each_image_out() {
    let golden = Fixture::open("stats");
    for (case, figures) in [
        ("classes", vec![("loss", BestBy::Loss), ("balanced", BestBy::Balanced), ("f1", BestBy::F1)]),
        ("labels", vec![("loss", BestBy::Loss), ("f1", BestBy::F1), ("map", BestBy::Map), ("map", BestBy::Auto)]),
    ] {
        let (values, truth) = (golden.f32(&format!("{case}.logits")), golden.u32(&format!("{case}.truth")));
        let classes = golden.shape(&format!("{case}.truth"))[1];
        let own = |row: &[u32]| (0..classes as u32).filter(|class| row[*class as usize] == 1).collect::<Vec<u32>>();
        let logits = match case {
            "classes" => Logits { values, labels: truth.chunks(classes).map(|row| own(row)[0]).collect(), sets: None },
            _ => {
                let (sets, labels) = LabelSets::of(truth.chunks(classes).map(own));
                Logits { values, labels, sets: Some(Arc::new(sets)) }
            }
        };
        let e = tpgm::train::evaluate::of_logits(&logits, classes);
        for (name, best_by) in figures {
            let (got, want) = (by_image(best_by, &logits).unwrap(), golden.f32(&format!("{case}.{name}")));
            assert_eq!(got.len(), want.len());
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                assert!((got - want).abs() <= 1e-5 * want.abs().max(0.1), "{case} {name} {i}: {got}, expected {want}");
            }
            // The mean is what the choice is made by.
            let mean = got.iter().map(|v| f64::from(*v)).sum::<f64>() / got.len() as f64;
            let figure = best_by.of(&e).0;
            assert!((mean - figure).abs() < 1e-6, "{case} {name}: {mean} of {figure}");
        }
    }
}
