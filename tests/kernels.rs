//! Every kernel against its f64 reference, on the device under test and, as release runs have it, without runtime checks;
//! then the harness itself, which must notice what it is there to notice.

#![allow(clippy::single_range_in_vec_init)] // lists of ranges, of which some have one

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use tpgm::cpu;
use tpgm::gpu::kernel::parse;
use tpgm::gpu::{Gpu, View};
use tpgm::ops::variants::Variants;
use tpgm::ops::{self, OPS};
use tpgm::shapes::Activation::Gelu;
use tpgm::suite::harness::{Case, EPS, Launch, Random, error, wide};
use tpgm::suite::{self, CaseResult, Event, Selection};

#[path = "kernels/channels.rs"]
mod channels;
mod common;
#[path = "kernels/goldens.rs"]
mod goldens;
#[path = "kernels/resnet.rs"]
mod resnet;

/// The same adapter with shaders that carry no runtime checks.
fn unchecked() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let wanted = std::env::var("TPGM_TEST_ADAPTER").ok();
        Gpu::open(wanted.as_deref(), false).unwrap_or_else(|e| panic!("{e}"))
    })
}

/// Fails with every outcome that has not passed; prints the worst error as a share of its tolerance.
fn assert_passed(what: &str, outcomes: &[CaseResult]) {
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|o| !o.passed())
        .map(|o| {
            let failure = o.failure.as_ref().unwrap_or(&o.worst);
            format!("{} ({}): {failure}; error {:.2e}, tolerance {:.2e}", o.kernel, o.case, o.error, o.tolerance)
        })
        .collect();
    let worst = outcomes.iter().max_by(|a, b| (a.error / a.tolerance).total_cmp(&(b.error / b.tolerance)));
    let worst = worst.unwrap_or_else(|| panic!("{what}: no cases"));
    println!(
        "{what}: {} outcomes, worst {:.1e} of {:.1e} in {} ({})",
        outcomes.len(),
        worst.error,
        worst.tolerance,
        worst.kernel,
        worst.case
    );
    assert!(failed.is_empty(), "{what}: {} of {} failed:\n{}", failed.len(), outcomes.len(), failed.join("\n"));
}

/// What the cases of a stem came to on the device under test; they run once.
fn outcomes(stem: &str) -> &'static [CaseResult] {
    static ALL: [OnceLock<Vec<CaseResult>>; TESTED.len()] = [const { OnceLock::new() }; TESTED.len()];
    let place = TESTED.iter().position(|tested| *tested == stem).unwrap_or_else(|| panic!("no test of {stem}"));
    ALL[place].get_or_init(|| suite::run_stem(common::gpu(), stem).unwrap_or_else(|e| panic!("{e}")))
}

fn run(stem: &str) {
    let unchecked_outcomes = suite::run_stem(unchecked(), stem).unwrap_or_else(|e| panic!("{e}"));
    for (mode, outcomes) in [("as opened", outcomes(stem)), ("unchecked", &unchecked_outcomes)] {
        // An adapter without 16-bit floats has nothing to run there, and a run that asks for them is an error.
        if let ("cast", Err(_)) = (stem, common::gpu().check_f16()) {
            assert!(outcomes.is_empty(), "{stem}: {} outcomes without f16", outcomes.len());
            continue;
        }
        assert_passed(&format!("{stem}, {mode}"), outcomes);
    }
}

macro_rules! tests {
    ($($stem:ident $({ $($reason:tt)* })?;)*) => {
        $(
            #[test]
            fn $stem() {
                run(stringify!($stem));
            }
        )*
        const TESTED: &[&str] = &["epilogue", $(stringify!($stem)),*];
    };
}
tpgm::for_each_stem!(tests);

#[test]
fn epilogue() {
    run("epilogue");
}

/// What a run of the suite was about.
#[derive(Default)]
struct Seen {
    /// The kernels of each stem's outcomes.
    kernels: BTreeMap<&'static str, BTreeSet<String>>,
    /// Labels of the kernels that were dispatched.
    dispatched: BTreeSet<String>,
    /// The same with their variants.
    variants: BTreeSet<(String, Arc<str>)>,
    /// What its variants were made of: an entry point, whichever tile's file it is in, and one constant, alias or function of it.
    made_of: BTreeSet<(String, String)>,
}

impl Seen {
    fn add(&mut self, stem: &'static str, outcomes: &[CaseResult]) {
        self.kernels.entry(stem).or_default().extend(outcomes.iter().map(|o| o.kernel.clone()));
        for (label, variant) in outcomes.iter().flat_map(|o| o.dispatched.iter().zip(&o.variants)) {
            self.dispatched.insert(label.clone());
            self.variants.insert((label.clone(), variant.clone()));
            let (constants, tail) = variant.split_once("; ").unwrap_or((variant, ""));
            for part in constants.split(", ").chain(tail.split(';')).map(str::trim) {
                let owner =
                    ["_direct", "_subgroup", "_cooperative"].iter().fold(label.clone(), |l, tile| l.replace(tile, ""));
                // Kernels for heads of all widths that are cut alike count as one.
                if !["const HD = ", "const HD4 = ", "const SUMS = "].iter().any(|width| part.starts_with(width)) {
                    self.made_of.insert((owner, part.to_string()));
                }
            }
        }
    }
}

#[test]
fn every_stem_has_a_test_and_every_entry_point_a_case() {
    let names: BTreeSet<&str> = suite::stems().iter().map(|stem| stem.name).collect();
    assert_eq!(names, BTreeSet::from_iter(TESTED.iter().copied()));
    let gpu = common::gpu();
    let [mut whole, mut quick] = [Seen::default(), Seen::default()];
    TESTED.iter().for_each(|stem| whole.add(stem, outcomes(stem)));
    suite::run(gpu, &Selection { quick: true, ..Selection::all() }, &mut |event| {
        if let Event::Stem(stem, outcomes) = event {
            assert_passed(&format!("{stem}, quick"), outcomes);
            quick.add(stem, outcomes);
        }
    })
    .unwrap_or_else(|e| panic!("{e}"));
    for stem in suite::stems() {
        let listed: BTreeSet<String> = stem.kernels.iter().map(|kernel| kernel.to_string()).collect();
        assert_eq!(listed.len(), stem.kernels.len(), "{}: a kernel is listed twice", stem.name);
        // Without 16-bit floats some of the kernels have nothing to run.
        let seen = whole.kernels.get(stem.name).cloned().unwrap_or_default();
        assert!(seen == listed || (gpu.check_f16().is_err() && seen.is_subset(&listed)), "{}: {seen:?}", stem.name);
        assert_eq!(quick.kernels.get(stem.name), whole.kernels.get(stem.name), "{}, quick", stem.name);
    }
    assert_eq!(quick.dispatched, whole.dispatched);
    // Not every combination, but every tile, width of words, format, epilogue and flag of each entry point.
    let missing: Vec<_> = whole.made_of.difference(&quick.made_of).collect();
    assert!(missing.is_empty(), "{} parts of variants that a quick run leaves out: {missing:#?}", missing.len());
    let listed: Vec<Variants> = OPS.iter().flat_map(|op| (op.variants)()).collect();
    for of in listed.iter().filter(|of| of.run_on(gpu)) {
        let name = of.shader.name;
        let (module, _) = parse(name, &of.shader.source(of.any_tail())).unwrap_or_else(|e| panic!("{e}"));
        for entry in &module.entry_points {
            let label = format!("{name}::{}", entry.name);
            assert!(whole.dispatched.contains(&label), "no case runs {label}");
        }
    }
    // The other way round: what an op asks for is in its list, with heads of any width.
    for (label, variant) in &whole.variants {
        let (shader, entry) = label.split_once("::").unwrap();
        let of = listed.iter().find(|of| of.shader.name == shader).unwrap_or_else(|| panic!("no op lists {label}"));
        let (constants, tail) = variant.split_once("; ").unwrap();
        let known: BTreeSet<String> =
            of.constants_for(entry).into_iter().flatten().map(|(name, value)| format!("{name} {value}")).collect();
        for constant in constants.split(", ").filter(|c| !c.is_empty() && !c.starts_with("PER_LANE ")) {
            assert!(known.contains(constant), "{label} is run with {constant}, which its op does not list");
        }
        let own = of.tails().into_iter().filter(|(_, own)| own.is_none_or(|own| own == entry));
        let known = own.map(|(tail, _)| of_any_width(&tail)).any(|known| known == of_any_width(tail));
        assert!(known, "{label} is run with a text that its op does not list: {tail}");
    }
}

/// The text that is appended to a shader, on one line, without the numbers that follow from a head's width.
fn of_any_width(tail: &str) -> String {
    let words: Vec<&str> = tail.split_whitespace().collect();
    let of_width = |i: usize| i >= 2 && ["HD", "HD4", "SUMS"].contains(&words[i - 2]) && words[i - 1] == "=";
    let masked = words.iter().enumerate().map(|(i, word)| if of_width(i) { "_" } else { word });
    masked.collect::<Vec<_>>().join(" ")
}

// The harness. Each of these does something wrong on purpose.

const LEN: usize = 65;

/// A case of GELU on [`LEN`] elements: the case, its input on the device and on the host, and the right result.
fn gelu_case() -> (Case<'static>, View, Vec<f64>) {
    let inp = Random::new(1).vec(LEN);
    let mut want = vec![0.0; LEN];
    cpu::gelu::forward(&mut want, &wide(&inp), Gelu);
    let mut case = Case::new(common::gpu(), "sabotage", 0).unwrap();
    let inp = case.input("inp", &inp).unwrap();
    (case, inp, want)
}

fn forward(case: &mut Case, out: &View, inp: &View) {
    let launch = Launch::natural(common::gpu());
    case.run(launch, |r| ops::gelu::forward(r, out, inp, Gelu)).unwrap();
}

/// The only outcome of a case.
fn outcome(case: Case) -> CaseResult {
    let mut outcomes = case.finish().unwrap();
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

/// Expects a failure whose text contains `text`.
fn assert_failure(case: Case, text: &str) {
    let outcome = outcome(case);
    assert!(!outcome.passed() && outcome.failure.as_ref().is_some_and(|f| f.contains(text)), "{text}: {outcome:?}");
}

#[test]
fn the_harness_passes_a_right_result() {
    let (mut case, inp, want) = gelu_case();
    let out = case.output("out", LEN).unwrap();
    forward(&mut case, &out, &inp);
    case.expect("gelu::forward", &out, &want, 16.0 * EPS);
    let outcome = outcome(case);
    assert!(outcome.passed(), "{outcome:?}");
    assert_eq!(outcome.dispatched, ["gelu::forward"]);
}

#[test]
fn the_harness_notices_one_wrong_element() {
    let (mut case, inp, mut want) = gelu_case();
    let out = case.output("out", LEN).unwrap();
    forward(&mut case, &out, &inp);
    let smallest = (0..LEN).min_by(|&a, &b| want[a].abs().total_cmp(&want[b].abs())).unwrap();
    want[smallest] += 1e-4;
    case.expect("gelu::forward", &out, &want, 16.0 * EPS);
    let outcome = outcome(case);
    assert!(!outcome.passed() && outcome.failure.is_none() && outcome.error > 1e-4, "{outcome:?}");
}

#[test]
fn the_harness_notices_an_element_not_written() {
    let (mut case, inp, want) = gelu_case();
    let out = case.output("out", LEN).unwrap();
    forward(&mut case, &out.first(LEN - 1), &inp.first(LEN - 1));
    case.expect("gelu::forward", &out, &want, 16.0 * EPS);
    assert_failure(case, "out[64] was not written");
}

#[test]
fn the_harness_notices_a_nan() {
    let (mut case, _, want) = gelu_case();
    let mut values = Random::new(1).vec(LEN);
    values[17] = f32::NAN;
    let (inp, out) = (case.input("broken", &values).unwrap(), case.output("out", LEN).unwrap());
    // A residual addition carries a NaN through on every adapter; an activation may clamp it away.
    let launch = Launch::natural(common::gpu());
    case.run(launch, |r| ops::residual::forward(r, &out, &inp, &inp, None, 1, LEN)).unwrap();
    case.expect("residual::forward", &out, &want, 1e9);
    assert_failure(case, "out[17] is NaN");
}

#[test]
fn the_harness_notices_writes_before_and_past_a_range() {
    for (offset, len, text) in [(0, LEN + 1, "out[65] was written, of 65"), (64, LEN, "out[-64] was written, of 65")] {
        let (mut case, inp, want) = gelu_case();
        let out = case.output("out", LEN).unwrap();
        let long = case.input("longer", &Random::new(2).vec(len)).unwrap();
        forward(&mut case, &out, &inp);
        forward(&mut case, &View { offset: out.offset - offset, len, ..out.clone() }, &long);
        // The second run writes good elements too: only the guard is of interest.
        case.expect("gelu::forward", &out, &want, 1e9);
        assert_failure(case, text);
    }
}

#[test]
fn the_harness_notices_a_changed_input() {
    let (mut case, inp, want) = gelu_case();
    let (out, other) = (case.output("out", LEN).unwrap(), case.input("other", &[1.0; LEN]).unwrap());
    forward(&mut case, &out, &inp);
    forward(&mut case, &other, &inp);
    case.expect("gelu::forward", &out, &want, 16.0 * EPS);
    assert_failure(case, "other[0] was written");
}

#[test]
fn the_harness_notices_wrong_bits() {
    let (mut case, inp, _) = gelu_case();
    let out = case.input("out", &[0.0; LEN]).unwrap();
    forward(&mut case, &out, &inp);
    case.expect_unchanged("gelu::forward", &out);
    assert_failure(case, "out[0] is");
}

#[test]
fn the_harness_notices_assigning_where_adding_is_meant() {
    let (mut case, inp, want) = gelu_case();
    let before = [0.5; LEN];
    let out = case.input("out", &before).unwrap();
    forward(&mut case, &out, &inp);
    let sum: Vec<f64> = want.iter().map(|w| w + 0.5).collect();
    case.expect("gelu::forward", &out, &sum, 16.0 * EPS);
    assert!(!outcome(case).passed());
}

#[test]
fn errors_are_measured_where_they_can_not_hide() {
    assert_eq!(error(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
    assert_eq!(error(&[0.0], &[0.0]), 0.0);
    assert_eq!(error(&[1e-30], &[0.0]), f64::INFINITY);
    assert_eq!(error(&[1.0, f64::NAN], &[1.0, 1.0]), f64::INFINITY);
    // One large element does not excuse a small one: the mean is 1000.5 / 1001, not 1000.
    let mut want = vec![0.0005; 1000];
    want.push(1000.0);
    let mut got = want.clone();
    got[3] += 0.1;
    assert!(error(&got, &want) > 0.09);
}
