//! The tuner on products of every kind. What it does on disk and in a run is tested with the binary (`cli/tuning.rs`).

mod common;

use std::time::Duration;

use common::gpu;
use tpgm::gpu::Gpu;
use tpgm::gpu::buffer::Element;
use tpgm::gpu::tune::Tile;
use tpgm::ops::conv2d::Dims;
use tpgm::ops::product::{Pass, Product};
use tpgm::ops::self_check;
use tpgm::ops::tune::measure;

const PASSES: [Pass; 3] = [Pass::Forward, Pass::BackwardInput, Pass::BackwardWeight];

/// Layers of odd and of round sizes, long ones whose sums may be shared; convolutions with and without padding, strides,
/// and the 1 × 1 ones that run as layers.
fn products() -> Vec<Product> {
    let conv = |height, in_channels, out_channels, kernel, stride| Dims {
        batch: 3,
        height,
        width: height,
        in_channels,
        out_channels,
        kernel,
        stride,
        padding: kernel / 2,
        groups: 1,
    };
    let linear = [(1, 3, 5), (65, 64, 192), (5000, 32, 48), (1500, 33, 7)];
    let convs =
        [conv(9, 4, 8, 3, 1), conv(14, 8, 4, 3, 2), conv(28, 4, 16, 7, 2), conv(7, 16, 8, 1, 1), conv(8, 8, 12, 1, 2)];
    let of_layers = linear.into_iter().flat_map(|(rows, out, inp)| {
        PASSES.map(|pass| Product::Linear { pass, rows, out, inp, element: Element::Word })
    });
    let of_convs = |dims| PASSES.map(|pass| Product::Conv2d { pass, dims, element: Element::Word });
    of_layers.chain(convs.into_iter().flat_map(of_convs)).collect()
}

#[test]
fn every_class_gets_one_of_its_own_variants() {
    let products = products();
    let mut heard = Vec::new();
    let choices = measure(gpu(), &products, Duration::from_secs(600), &mut |class, measured| {
        assert!(measured.iter().all(|m| m.seconds > 0.0 && m.seconds.is_finite()), "{class}: {measured:?}");
        heard.push(class.to_string());
    })
    .unwrap();
    assert_eq!(choices.len(), heard.len());
    for product in &products {
        let candidates = product.candidates(gpu());
        let default = product.default_variant(gpu().is_cpu() && gpu().has_wide_subgroups());
        assert!(candidates.contains(&default), "{product:?}: the default {default:?} is none of {candidates:?}");
        let chosen = choices.get(&product.class()).unwrap_or_else(|| panic!("{} was not measured", product.class()));
        assert!(candidates.contains(chosen), "{product:?}: {chosen:?}");
    }
}

#[test]
fn what_is_not_reached_in_time_keeps_its_default() {
    let choices = measure(gpu(), &products(), Duration::ZERO, &mut |_, _| {}).unwrap();
    assert!(choices.len() < products().len(), "{choices:?}");
}

#[test]
fn a_class_is_shared_by_batches_of_similar_size() {
    let class = |rows| Product::Linear { pass: Pass::Forward, rows, out: 8, inp: 8, element: Element::Word }.class();
    assert_eq!(class(788), class(1000));
    assert_ne!(class(788), class(1025));
}

#[test]
fn products_by_subgroups_are_compared_before_they_may_be_chosen() {
    let gpu = Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), true).unwrap();
    assert!(!gpu.may_choose(Tile::Subgroup) && gpu.may_choose(Tile::Tiled));
    assert_eq!(self_check::allow_subgroups(&gpu), gpu.has_subgroups());
    assert_eq!(gpu.may_choose(Tile::Subgroup), gpu.has_subgroups());
}
