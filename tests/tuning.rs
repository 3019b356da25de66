//! The tuner on products of every kind. What it does on disk and in a run is tested with the binary (`cli/tuning.rs`).

mod common;

use std::time::Duration;

use common::gpu;
use tpgm::error::Result;
use tpgm::gpu::buffer::Element;
use tpgm::gpu::tiles::{Choices, Tile, Variant};
use tpgm::gpu::{Gpu, View};
use tpgm::ops::attention::Mask;
use tpgm::ops::conv2d::{Dims, Padding};
use tpgm::ops::product::{Pass, Product};
use tpgm::ops::trial::{Operands, compute};
use tpgm::ops::tune::{confirm, confirm_by, measure, measure_by};
use tpgm::ops::{Recorder, attention, matmul, self_check};

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
        padding: Padding::Even(kernel / 2),
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
        assert!(measured.iter().all(|m| m.refused.is_none()), "{class}: {measured:?}");
        heard.push(class.to_string());
    })
    .unwrap();
    assert_eq!(choices.len(), heard.len());
    for product in &products {
        let candidates = product.candidates(gpu());
        let default = product.default_variant(gpu(), gpu().is_cpu() && gpu().has_wide_subgroups());
        assert!(candidates.contains(&default), "{product:?}: the default {default:?} is none of {candidates:?}");
        let chosen = choices.get(&product.class()).unwrap_or_else(|| panic!("{} was not measured", product.class()));
        assert!(candidates.contains(chosen), "{product:?}: {chosen:?}");
    }
}

/// In f16 alone, and where the adapter has matrices that compute the right thing.
#[test]
fn attention_by_matrices_is_compared_like_any_product() {
    let allowed = gpu().check_f16().is_ok() && self_check::allow_cooperative(gpu());
    for (tokens, head_dim) in [(33, 64), (70, 20), (9, 128), (9, 132), (9, 6)] {
        let dims = attention::Dims { batch: 2, tokens, heads: 3, head_dim };
        for (pass, element) in
            [Pass::Forward, Pass::BackwardInput].map(|p| [(p, Element::Half), (p, Element::Word)]).concat()
        {
            let product = Product::Attention { pass, dims, element, mask: Mask::default() };
            let reference = product.reference(gpu());
            let by_matrices = allowed && element == Element::Half && [64, 20, 128].contains(&head_dim);
            let tiles: Vec<Tile> = product.candidates(gpu()).iter().map(|variant| variant.tile).collect();
            let want = [reference.tile, Tile::Cooperative];
            assert_eq!(tiles, want[..1 + usize::from(by_matrices)], "{product:?}");
            let mut heard = 0;
            let choices = measure(gpu(), &[product], Duration::from_secs(600), &mut |class, measured| {
                heard += measured.len();
                assert!(measured.iter().all(|m| m.refused.is_none()), "{class}: {measured:?}");
            })
            .unwrap();
            assert_eq!((choices.len(), heard), if by_matrices { (1, 2) } else { (0, 0) }, "{product:?}");
        }
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

/// Kernels that are fast and wrong: they leave everything out, or half of the rows, or spoil a few values of a right result.
#[derive(Clone, Copy, Debug)]
enum Sabotage {
    Nothing,
    Half,
    Few,
}

impl Sabotage {
    /// Records the product so, if it is to be computed in a `wrong` variant.
    fn record(
        self,
        r: &mut Recorder,
        product: Product,
        operands: &Operands,
        wrong: &dyn Fn(Variant) -> bool,
    ) -> Result<()> {
        if !r.forced.is_some_and(wrong) {
            return compute(r, product, operands);
        }
        match self {
            Sabotage::Nothing => Ok(()),
            Sabotage::Half => {
                let Product::Linear { pass, rows, out, inp, element } = product else { return Ok(()) };
                let half = rows.div_ceil(2);
                let first = |view: &View, width: usize| view.first(half * width);
                let operands = Operands {
                    saved: None,
                    inp: first(&operands.inp, inp),
                    out: first(&operands.out, out),
                    weight: operands.weight.clone(),
                };
                if rows == 1 {
                    Ok(())
                } else {
                    compute(r, Product::Linear { pass, rows: half, out, inp, element }, &operands)
                }
            }
            Sabotage::Few => {
                compute(r, product, operands)?;
                let (result, other) = match product.pass() {
                    Pass::Forward => (&operands.out, &operands.inp),
                    Pass::BackwardInput => (&operands.inp, &operands.out),
                    Pass::BackwardWeight => (&operands.weight, &operands.out),
                };
                matmul::forward(r, &result.first(1), &other.first(1), &other.first(1), None, 1, 1, 1)
            }
        }
    }
}

#[test]
fn a_wrong_kernel_is_refused_however_fast_it_is() {
    let products = products();
    for sabotage in [Sabotage::Nothing, Sabotage::Half, Sabotage::Few] {
        let mut refused = 0;
        let way = |r: &mut Recorder, product: Product, operands: &Operands| {
            let reference = product.reference(gpu());
            sabotage.record(r, product, operands, &|variant| variant != reference)
        };
        let choices = measure_by(gpu(), &products, Duration::from_secs(600), &way, &mut |class, measured| {
            let product = products.iter().find(|p| p.class() == class).unwrap();
            let reference = measured.iter().find(|m| m.variant == product.reference(gpu())).unwrap();
            assert_eq!(reference.refused, None);
            for m in measured.iter().filter(|m| m.seconds < reference.seconds) {
                let why = m.refused.as_ref().unwrap_or_else(|| panic!("{sabotage:?}, {class}: {m:?}"));
                assert!(why.contains("values are wrong, value "), "{why}");
                refused += 1;
            }
        })
        .unwrap();
        for product in &products {
            assert_eq!(choices[&product.class()], product.reference(gpu()), "{sabotage:?}, {product:?}");
        }
        // What does nothing is faster than any product.
        assert!(refused > 0 || !matches!(sabotage, Sabotage::Nothing));
    }
}

#[test]
fn after_a_wrong_kernel_the_next_fastest_is_taken() {
    // Layers with three ways to share a sum, of which the one that does nothing is the fastest.
    let product = Product::Linear { pass: Pass::BackwardWeight, rows: 5000, out: 32, inp: 48, element: Element::Word };
    let wrong = |variant: Variant| variant.split == product.candidates(gpu()).iter().map(|v| v.split).max().unwrap();
    let way = |r: &mut Recorder, product: Product, operands: &Operands| {
        Sabotage::Nothing.record(r, product, operands, &wrong)
    };
    let mut heard = Vec::new();
    let choices = measure_by(gpu(), &[product], Duration::from_secs(600), &way, &mut |_, measured| {
        heard.extend(measured.iter().cloned());
    })
    .unwrap();
    let chosen = choices[&product.class()];
    let right = heard.iter().filter(|m| !wrong(m.variant));
    let fastest = right.min_by(|a, b| a.seconds.total_cmp(&b.seconds)).unwrap();
    assert_eq!(chosen, fastest.variant, "{heard:?}");
    assert!(heard.iter().any(|m| wrong(m.variant) && m.refused.is_some()), "{heard:?}");
}

#[test]
fn choices_of_another_adapter_are_compared_before_they_are_used() {
    let products = products();
    let last = |p: &Product| *p.candidates(gpu()).last().unwrap();
    let own: Choices = products.iter().map(|p| (p.class(), last(p))).collect();
    let mut stored = own.clone();
    // Of a product that the run does not have: nothing to compare.
    stored.insert("matmul::forward, 4 rows, 1 to 1".into(), Variant { tile: Tile::Tiled, split: 1 });
    let right = confirm(gpu(), &products, &stored, &mut |class, _, why| panic!("{class}: {why}")).unwrap();
    assert_eq!(right, own);

    let wrong = |product: Product| product.pass() == Pass::BackwardWeight;
    let way = |r: &mut Recorder, product: Product, operands: &Operands| {
        let reference = product.reference(gpu());
        Sabotage::Few.record(r, product, operands, &|variant| wrong(product) && variant != reference)
    };
    let mut refused = Vec::new();
    let confirmed = confirm_by(gpu(), &products, &stored, &way, &mut |class, variant, why| {
        assert!(why.contains("values are wrong"), "{class}: {why}");
        refused.push((class.to_string(), variant));
    })
    .unwrap();
    let mut expected = 0;
    for product in &products {
        let (chosen, reference) = (own[&product.class()], product.reference(gpu()));
        let falls_back = wrong(*product) && chosen != reference;
        expected += usize::from(falls_back);
        assert_eq!(confirmed[&product.class()], if falls_back { reference } else { chosen }, "{product:?}");
        assert_eq!(refused.contains(&(product.class(), chosen)), falls_back, "{product:?}");
    }
    assert!(expected > 0 && refused.len() == expected, "{refused:?}");

    // What this adapter can't run keeps its default.
    let foreign = own.keys().map(|class| (class.clone(), Variant { tile: Tile::Tiled, split: 77 })).collect();
    assert_eq!(confirm(gpu(), &products, &foreign, &mut |class, _, why| panic!("{class}: {why}")).unwrap().len(), 0);
}

#[test]
fn long_sums_are_compared_before_a_tile_may_be_chosen() {
    // Wrong in nothing but long sums of a whole adapter's worth of workgroups, in one of the passes.
    for pass in PASSES {
        let way = |r: &mut Recorder, product: Product, operands: &Operands| {
            let long = product.pass() == pass && product.terms() >= 3072;
            Sabotage::Few.record(r, product, operands, &|variant| long && variant.tile == Tile::TiledLarge)
        };
        let refused = self_check::compare(gpu(), Tile::TiledLarge, Element::Word, &way).unwrap_err();
        assert!(refused.contains(pass.entry()) && refused.contains("1 of "), "{refused}");
    }
    assert_eq!(self_check::compare(gpu(), Tile::TiledLarge, Element::Word, &compute), Ok(()));
}

#[test]
fn products_by_subgroups_are_compared_before_they_may_be_chosen() {
    let gpu = Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), true).unwrap();
    assert!(!gpu.may_choose(Tile::Subgroup) && gpu.may_choose(Tile::Tiled));
    assert_eq!(self_check::allow_subgroups(&gpu), gpu.has_subgroups());
    assert_eq!(gpu.may_choose(Tile::Subgroup), gpu.has_subgroups());
    assert_eq!(gpu.found_right(Tile::Subgroup), gpu.has_subgroups().then_some(true));
}
