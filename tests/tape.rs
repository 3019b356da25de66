//! Networks written on a tape: the gradients that it records on the GPU against differences in f64. Each layer kind alone, and
//! random networks with branches, values of several readers, dead ends and segments.
//!
//! The difference is the central one with a step of 1e-7: short enough that hardly any ReLU or maximum changes sides on the
//! way, and exact to about 1e-8. [`TOLERANCE`] is for the f32 of the GPU; the errors seen are printed.

#![allow(unreachable_pub)] // modules of a test binary

mod common;

#[path = "tape/machine.rs"]
mod machine;
#[path = "tape/reference.rs"]
mod reference;
#[path = "tape/written.rs"]
mod written;

use std::collections::HashMap;

use common::{Random, gpu};
use machine::{CLASSES, End, Net, Op, Start};
use reference::{BATCH, Reference, SIZE};
use tpgm::gpu::Program;
use tpgm::model::{Activations, Mode, Network, Phase, Precision};
use tpgm::ops::Recorder;
use tpgm::shapes::{Activation, ParamLayout, Pointwise};

/// Largest error of a gradient, as a share of the largest element of that gradient.
const TOLERANCE: f64 = 5e-5;
/// Elements of a parameter that are compared, at most.
const COMPARED: usize = 16;

/// A network's parameters, images, and gradient of its logits.
struct Point {
    params: Vec<Vec<f32>>,
    images: Vec<f32>,
    dlogits: Vec<f32>,
}

impl Point {
    fn random(layout: &ParamLayout, seed: u64) -> Point {
        let mut random = Random::new(seed);
        let params = layout.params.iter().map(|p| {
            // Norms' weights and layer scales around 1, so that no branch is switched off.
            let scales = p.name.ends_with("norm.weight") || p.name.ends_with("gamma");
            let (centre, width) = if scales { (1.0, 0.4) } else { (0.0, 0.6) };
            random.vec(p.len).into_iter().map(|x| centre + width * x).collect()
        });
        let params = params.collect();
        Point { params, images: random.vec(BATCH * 3 * SIZE * SIZE), dlogits: random.vec(BATCH * CLASSES) }
    }
}

/// What a pass on the GPU gives, as bits.
#[derive(PartialEq)]
struct Pass {
    logits: Vec<u32>,
    /// The gradient's arena.
    gradient: Vec<u32>,
    dispatches: usize,
}

fn pass(net: &Net, layout: &ParamLayout, point: &Point, acts: Activations, trained: &dyn Fn(usize) -> bool) -> Pass {
    let gpu = gpu();
    let acts = acts.allocate(gpu).unwrap();
    let w = gpu.upload("weights", &layout.pack(point.params.iter().map(Vec::as_slice))).unwrap();
    let statistics = ParamLayout::new(&net.buffers());
    let stats = statistics.arena(gpu, "statistics").unwrap();
    let dw = layout.arena(gpu, "gradient").unwrap();
    gpu.write(&acts.images(BATCH), &point.images);
    gpu.write(&acts.dlogits(BATCH), &point.dlogits);
    let scratch = acts.scratch();
    let mut r = Recorder::new(gpu, &scratch);
    let recording = acts.forward(net, &mut r, BATCH, &w, &stats, Phase::Train).unwrap();
    recording.backward(&mut r, &acts.dlogits(BATCH), &dw, trained).unwrap();
    // Once more than needed: a value that is not written anew shows.
    for _ in 0..2 {
        Program::run(gpu, &[&dw], &[&r.program]).unwrap();
    }
    let (logits, gradient) = (gpu.read(&acts.logits(BATCH)).unwrap(), gpu.read(&dw).unwrap());
    Pass { logits, gradient, dispatches: r.program.steps.len() }
}

fn plan(net: &Net, mode: Mode) -> Activations {
    Activations::plan(gpu(), net, BATCH, mode, Precision::F32).unwrap()
}

/// Holds what the GPU computes for `net` against the reference; returns the largest error of a gradient.
fn check(name: &str, net: &Net, seed: u64) -> f64 {
    let layout = ParamLayout::new(&net.parameters());
    let point = Point::random(&layout, seed);
    let whole = pass(net, &layout, &point, plan(net, Mode::Train), &|_| true);

    let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let names = layout.params.iter().map(|p| p.name.clone());
    let mut params: HashMap<String, Vec<f64>> = names.zip(point.params.iter().map(|p| wide(p))).collect();
    let (images, dlogits) = (wide(&point.images), wide(&point.dlogits));
    let logits = |params: &HashMap<String, Vec<f64>>| {
        let mut reference = Reference::new(params, &images);
        let last = net.run(&mut reference);
        reference.value(last).to_vec()
    };
    let loss = |params: &HashMap<String, Vec<f64>>| {
        logits(params).iter().zip(&dlogits).map(|(logit, d)| logit * d).sum::<f64>()
    };
    let (want, got) = (logits(&params), whole.logits.iter().map(|bits| f64::from(f32::from_bits(*bits))));
    let largest = want.iter().fold(0.0, |a: f64, x| a.max(x.abs()));
    got.zip(&want).for_each(|(got, want)| {
        assert!((got - want).abs() <= TOLERANCE * largest, "{name}: logit {got}, wanted {want}");
    });

    let gradient: Vec<f32> = whole.gradient.iter().map(|bits| f32::from_bits(*bits)).collect();
    // A gradient that is zero but for rounding has no scale of its own: a bias in front of a norm, the keys' bias.
    let scale = gradient.iter().fold(0.0, |a: f64, g| a.max(f64::from(g.abs())));
    let (mut worst, h) = (0.0f64, 1e-7);
    for (param, got) in layout.unpack(&gradient) {
        let largest = got.iter().fold(1e-2 * scale, |a: f64, g| a.max(f64::from(g.abs())));
        for i in (0..param.len).step_by(param.len.div_ceil(COMPARED)) {
            let mut at = |to: f64| {
                let element = &mut params.get_mut(&param.name).unwrap()[i];
                let before = std::mem::replace(element, to);
                let loss = loss(&params);
                params.get_mut(&param.name).unwrap()[i] = before;
                loss
            };
            let x = f64::from(point.params[layout.index(&param.name)][i]);
            let numeric = (at(x + h) - at(x - h)) / (2.0 * h);
            let error = (f64::from(got[i]) - numeric).abs() / largest;
            assert!(error <= TOLERANCE, "{name}: {}[{i}]: tape {}, differences {numeric}", param.name, got[i]);
            worst = worst.max(error);
        }
    }

    // Other memory, recomputed segments: the same bits.
    let apart = Activations::apart(gpu(), net, BATCH, Mode::Train, Precision::F32).unwrap();
    let apart = pass(net, &layout, &point, apart, &|_| true);
    assert!(apart == whole, "{name}: other bits where every tensor has a buffer of its own");
    let again = pass(net, &layout, &point, plan(net, Mode::Recompute), &|_| true);
    assert!((&again.logits, &again.gradient) == (&whole.logits, &whole.gradient), "{name}: other bits recomputed");

    // A trained tensor has the same gradient, whatever else is trained.
    let mut random = Random::new(seed);
    let chosen: Vec<bool> = layout.params.iter().map(|_| random.bits().is_multiple_of(4)).collect();
    for mode in [Mode::Train, Mode::Recompute] {
        let some = pass(net, &layout, &point, plan(net, mode), &|i| chosen[i]);
        for (i, param) in layout.params.iter().enumerate().filter(|(i, _)| chosen[*i]) {
            let range = param.offset..param.offset + param.len;
            assert!(some.gradient[range.clone()] == whole.gradient[range], "{name} {mode:?}: {} of {i}", param.name);
        }
    }
    let none = pass(net, &layout, &point, plan(net, Mode::Train), &|_| false);
    assert!(none.logits == whole.logits && none.gradient.iter().all(|bits| *bits == 0), "{name}: nothing is trained");
    assert!(none.dispatches < whole.dispatches);
    worst
}

const KINDS: [Activation; 3] = [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu];

#[test]
fn each_layer_of_tokens() {
    let mlp = |kind, twice| Op::Mlp { inp: 0, kind, twice };
    let mut nets: Vec<(String, Vec<Op>)> = vec![
        ("norm".into(), vec![Op::Norm(0)]),
        ("linear".into(), vec![Op::Linear(0)]),
        ("gate".into(), vec![Op::Gated(0)]),
        ("attention".into(), vec![Op::Attention(0)]),
        ("fixed angles".into(), vec![Op::Turned { inp: 0, learned: false }]),
        ("learned angles".into(), vec![Op::Turned { inp: 0, learned: true }]),
        ("root mean square norm".into(), vec![Op::RmsNorm(0)]),
        ("pair".into(), vec![Op::Pair(0)]),
        ("sum".into(), vec![Op::Norm(0), Op::Add { stream: 0, branch: 1, scaled: false }]),
        ("scaled sum".into(), vec![Op::Norm(0), Op::Add { stream: 0, branch: 1, scaled: true }]),
        ("sum with itself".into(), vec![Op::Add { stream: 0, branch: 0, scaled: true }]),
        ("plain sum with itself".into(), vec![Op::Add { stream: 0, branch: 0, scaled: false }]),
        ("onto".into(), vec![Op::Norm(0), Op::Onto { stream: 0, inp: 1, scaled: false }]),
        ("scaled onto".into(), vec![Op::Norm(0), Op::Onto { stream: 0, inp: 1, scaled: true }]),
        ("onto itself".into(), vec![Op::Onto { stream: 0, inp: 0, scaled: true }]),
        ("average".into(), vec![Op::Norm(0), Op::Average(0, 1)]),
        ("average of one".into(), vec![Op::Average(0, 0)]),
        ("unit length".into(), vec![Op::Unit(0)]),
        ("projection".into(), vec![Op::Project(0)]),
    ];
    for kind in KINDS {
        nets.extend([false, true].map(|twice| (format!("{kind:?}, twice {twice}"), vec![mlp(kind, twice)])));
    }
    for (name, ops) in nets {
        for end in [End::Mean, End::TwoHeads, End::Learned] {
            let net = Net { start: Start::Patches, ops: ops.clone(), end };
            let error = check(&format!("{name}, {end:?}"), &net, 1);
            println!("{name}, {end:?}: {error:.1e}");
        }
    }
}

#[test]
fn each_layer_of_pixels() {
    let nets = [
        ("convolution", vec![Op::Conv { inp: 0, grouped: false }]),
        ("groups", vec![Op::Conv { inp: 0, grouped: true }]),
        ("batch norm", vec![Op::BatchNorm { inp: 0, activation: None }]),
        ("batch norm and ReLU", vec![Op::BatchNorm { inp: 0, activation: Some(Pointwise::Relu) }]),
        ("batch norm and ReLU6", vec![Op::BatchNorm { inp: 0, activation: Some(Pointwise::Relu6) }]),
        ("batch norm and SiLU", vec![Op::BatchNorm { inp: 0, activation: Some(Pointwise::Silu) }]),
        ("batch norm and hard swish", vec![Op::BatchNorm { inp: 0, activation: Some(Pointwise::HardSwish) }]),
        ("batch norm and GELU", vec![Op::BatchNorm { inp: 0, activation: Some(Pointwise::Gelu) }]),
        ("identity", vec![Op::Join { shortcut: 0, inp: 0, own: false }]),
        ("shortcut", vec![Op::Join { shortcut: 0, inp: 0, own: true }]),
        (
            "a norm as the shortcut",
            vec![Op::BatchNorm { inp: 0, activation: None }, Op::Join { shortcut: 1, inp: 0, own: false }],
        ),
        ("max pool", vec![Op::MaxPool(0)]),
        ("depth-wise", vec![Op::Depthwise(0)]),
        ("weighed", vec![Op::Weighed(0)]),
        ("windows", vec![Op::Windows(0)]),
        ("responses", vec![Op::Grn(0)]),
        ("squeeze", vec![Op::Gate { shortcut: 0, inp: 0, neighbours: false }]),
        ("neighbours", vec![Op::Depthwise(0), Op::Gate { shortcut: 0, inp: 1, neighbours: true }]),
        (
            "a norm as a gate's shortcut",
            vec![Op::BatchNorm { inp: 0, activation: None }, Op::Gate { shortcut: 1, inp: 0, neighbours: false }],
        ),
    ];
    for (name, ops) in nets {
        for end in [End::Mean, End::Clip] {
            let net = Net { start: Start::Pixels, ops: ops.clone(), end };
            let error = check(&format!("{name}, {end:?}"), &net, 2);
            println!("{name}, {end:?}: {error:.1e}");
        }
    }
}

/// Random steps from the values `0..seen` on.
const AFTER_NORM: [Option<Pointwise>; 4] =
    [None, Some(Pointwise::Relu), Some(Pointwise::Silu), Some(Pointwise::HardSwish)];

fn random_ops(random: &mut Random, start: Start, seen: usize, count: usize, nested: bool) -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    for i in 0..count {
        let pick = |random: &mut Random, n: u64| (random.bits() % n) as usize;
        let known = seen + i;
        // Mostly the latest value, so that the network is deep and few steps are dead ends.
        let value = |random: &mut Random| match pick(random, 3) {
            0 => pick(random, known as u64),
            _ => known - 1,
        };
        let (a, b) = (value(random), value(random));
        let [yes, other] = [0; 2].map(|_| pick(random, 2) == 0);
        let kinds = if start == Start::Pixels { 14 } else { 9 };
        ops.push(match (start, pick(random, kinds)) {
            (_, 0 | 1) if !nested => {
                let count = 2 + pick(random, 3);
                Op::Segment(random_ops(random, start, known, count, true))
            }
            (Start::Patches, 0 | 1) => Op::Norm(a),
            (Start::Patches, 2) => Op::Mlp { inp: a, kind: KINDS[pick(random, 3)], twice: yes },
            (Start::Patches, 3) if other => Op::Pair(a),
            (Start::Patches, 3) => Op::Gated(a),
            (Start::Patches, 4) if other => Op::Turned { inp: a, learned: yes },
            (Start::Patches, 4) => Op::Attention(a),
            (Start::Patches, 5) if other => Op::Add { stream: a, branch: b, scaled: yes },
            (Start::Patches, 6) if other && yes => Op::RmsNorm(a),
            (Start::Patches, 5 | 6) => Op::Onto { stream: a, inp: b, scaled: yes },
            (_, 7) => Op::Average(a, b),
            (Start::Patches, _) => {
                if yes {
                    Op::Project(a)
                } else {
                    Op::Unit(a)
                }
            }
            (Start::Pixels, 0) => Op::MaxPool(a),
            (Start::Pixels, 1) => Op::Conv { inp: a, grouped: yes },
            (Start::Pixels, 2 | 3) => {
                Op::BatchNorm { inp: a, activation: AFTER_NORM[2 * usize::from(yes) + usize::from(other)] }
            }
            (Start::Pixels, 9) => Op::Depthwise(a),
            (Start::Pixels, 10) => Op::Windows(a),
            (Start::Pixels, 11) => Op::Grn(a),
            (Start::Pixels, 12) => Op::Gate { shortcut: a, inp: b, neighbours: yes },
            (Start::Pixels, 13) => Op::Weighed(a),
            (Start::Pixels, _) => Op::Join { shortcut: a, inp: b, own: other },
        });
    }
    ops
}

#[test]
fn random_networks_of_tokens() {
    for seed in 0..16 {
        let mut random = Random::new(100 + seed);
        let ops = random_ops(&mut random, Start::Patches, 1, 7, false);
        let end = [End::Mean, End::TwoHeads, End::Learned][(seed % 3) as usize];
        let net = Net { start: Start::Patches, ops, end };
        println!("{seed}: {:.1e} {net:?}", check(&format!("{seed}: {net:?}"), &net, seed));
    }
}

#[test]
fn random_networks_of_pixels() {
    for seed in 0..12 {
        let mut random = Random::new(200 + seed);
        let ops = random_ops(&mut random, Start::Pixels, 1, 5, false);
        let net = Net { start: Start::Pixels, ops, end: [End::Mean, End::Clip][(seed % 2) as usize] };
        println!("{seed}: {:.1e} {net:?}", check(&format!("{seed}: {net:?}"), &net, seed));
    }
}
