//! TPGM on every family: each tensor of the file has a radius of its own, and no row ends farther out than that.

use tpgm::method::{Tpgm, TpgmSettings};
use tpgm::shapes::Norm;

use super::common::gpu;
use super::{Family, NAMES, learner};

#[test]
fn every_family_is_projected_tensor_by_tensor() {
    for name in NAMES {
        let family = Family::new(name);
        let source = family.open();
        let mut learner = learner(&source);
        let anchor: Vec<f32> = gpu().read(&learner.w).unwrap();
        for _ in 0..2 {
            family.step(&mut learner);
        }
        let moved: Vec<f32> = gpu().read(&learner.w).unwrap();
        let count = learner.model.layout().params.len();
        assert_eq!(count, source.recognised.names.len(), "{name}: a tensor of the file is a tensor of ours");
        let settings = TpgmSettings { norm: Norm::Mars, radius_lr: 1e-2, max_iters: 2, proj_freq: 1 };
        let mut tpgm = Tpgm::new(&learner, &anchor, &vec![false; count], settings).unwrap();
        for _ in 0..2 {
            tpgm.outer(&mut learner, &family.golden.f32("images"), &family.golden.u32("labels")).unwrap();
        }
        let record = tpgm.records(&learner, true).unwrap().pop().unwrap();
        assert!(record.loss.is_finite() && record.radii.len() == count, "{name}");
        tpgm.apply(&mut learner).unwrap();
        let after: Vec<f32> = gpu().read(&learner.w).unwrap();
        let layout = learner.model.layout();
        let (mut held, mut parts) = (0, layout.unpack(&anchor).zip(layout.unpack(&moved)).zip(layout.unpack(&after)));
        for radius in &record.radii {
            let (((param, anchor), (_, moved)), (_, after)) = parts.next().unwrap();
            let width = param.len / param.rows();
            let norm = |from: &[f32], row: usize| {
                let row = row * width..(row + 1) * width;
                from[row.clone()].iter().zip(&anchor[row]).map(|(a, b)| f64::from(a - b).abs()).sum::<f64>()
            };
            // A radius may have been learned down to nothing; then all of the drift goes.
            let bound = f64::from(radius.radius).max(0.0);
            for row in 0..param.rows() {
                let (was, is) = (norm(moved, row), norm(after, row));
                let want = was.min(bound);
                let rounding = 1e-4 * was + 1e-6;
                assert!((is - want).abs() < rounding, "{name}: {}, row {row}: {is}, want {want} of {was}", param.name);
                held += usize::from(want < was);
            }
        }
        assert!(held > 0, "{name}: no row was held");
    }
}
