//! Activations that take turns in common buffers, or are computed once more in backward, give the same bits as a buffer for
//! each tensor does; and so do dispatches that were cut into parts.

mod common;
#[path = "plan/giants.rs"]
mod giants;

use common::{Random, gpu, open, relative, resnet_50};
use tpgm::gpu::{Program, View};
use tpgm::method::Snapshot;
use tpgm::model::{Activations, Drops, Mode, Model, Network, Phase, Pool, Precision, VitConfig};
use tpgm::ops::attention::Scores;
use tpgm::ops::cross_entropy::{self, CHANNELS, Channel};
use tpgm::ops::distill::On;
use tpgm::ops::step_state::{STATE_WORDS, StepState};
use tpgm::ops::{MAX_FLOPS, Recorder, attention, conv2d, matmul};
use tpgm::shapes::Activation;

const MODELS: [&str; 6] = ["vit_small", "vit_mean", "vit_quick", "resnet_basic", "resnet_bottleneck", "resnet_d"];
const CAPACITY: usize = 5;

/// Activations with a buffer for each tensor.
fn apart(model: &Model, batch: usize, mode: Mode) -> Activations {
    Activations::apart(gpu(), &model.config, batch, mode, Precision::F32).unwrap()
}

/// Logits, gradient and running statistics after a pass over `batch` images, which follows a pass over NaN that has gone
/// through every tensor: a kernel that reads values that are not its own finds NaN.
fn pass(
    model: &Model,
    start: &Snapshot,
    acts: &Activations,
    batch: usize,
    phase: Phase,
    max_flops: u64,
) -> [Vec<u32>; 3] {
    pass_of(&model.config, model, start, acts, batch, phase, max_flops)
}

/// The same of `net`, which is the model's.
fn pass_of(
    net: &dyn Network,
    model: &Model,
    start: &Snapshot,
    acts: &Activations,
    batch: usize,
    phase: Phase,
    max_flops: u64,
) -> [Vec<u32>; 3] {
    let gpu = gpu();
    let (w, stats) = start.upload(gpu, model).unwrap();
    let dw = model.layout().arena(gpu, "gradient").unwrap();
    let state = gpu.upload("state", &StepState::default().words()).unwrap();
    assert_eq!(state.len, STATE_WORDS);
    let ring = gpu.buffer("ring", 16 * CHANNELS).unwrap();
    let scratch = acts.scratch();
    let mut bits = [Vec::new(), Vec::new(), Vec::new()];
    for (batch, poison) in [(CAPACITY, true), (batch, false)] {
        let mut images = Random::new(3).vec(acts.images(batch).len);
        if poison {
            images.fill(f32::NAN);
        }
        let classes = model.classes();
        gpu.write(&acts.images(batch), &images);
        gpu.write(&acts.labels(batch), &(0..batch).map(|i| (i % classes) as u32).collect::<Vec<_>>());
        gpu.write(&stats, &start.stats);
        let dims = cross_entropy::Dims { batch, classes, smoothing: 0.1, grad_scale: 1.0 / batch as f32 };
        let mut r = Recorder::new(gpu, &scratch);
        r.max_flops = max_flops;
        let recording = acts.forward(net, &mut r, batch, &w, &stats, phase).unwrap();
        let (loss, dlogits, logits) = (acts.loss(batch), acts.dlogits(batch), acts.logits(batch));
        cross_entropy::forward(&mut r, &loss, &dlogits, &logits, &acts.labels(batch), dims).unwrap();
        cross_entropy::record(&mut r, &ring, &loss, &state, Channel::Train, dims).unwrap();
        recording.backward(&mut r, &dlogits, &dw, &|_| true).unwrap();
        Program::run(gpu, &[&dw], &[&r.program]).unwrap();
        bits = [&logits, &dw, &stats].map(|v| if v.len == 0 { Vec::new() } else { gpu.read(v).unwrap() });
    }
    bits
}

#[test]
fn shared_buffers_and_recomputation_give_the_bits_of_separate_buffers() {
    for name in MODELS {
        let (model, start) = open(name);
        let apart = apart(&model, CAPACITY, Mode::Train).allocate(gpu()).unwrap();
        let modes = [Mode::Train, Mode::Recompute].map(|m| model.plan(gpu(), CAPACITY, m, Precision::F32).unwrap());
        assert!(modes[0].plan.bytes() < apart.plan.bytes(), "{name}");
        let modes = modes.map(|m| m.allocate(gpu()).unwrap());
        for phase in [Phase::Train, Phase::Eval] {
            for batch in [CAPACITY, 3, 2] {
                let wanted = pass(&model, &start, &apart, batch, phase, MAX_FLOPS);
                assert!(wanted[1].iter().all(|g| f32::from_bits(*g).is_finite()), "{name}");
                for (acts, mode) in modes.iter().zip(["shared", "recomputed"]) {
                    let got = pass(&model, &start, acts, batch, phase, MAX_FLOPS);
                    for (i, what) in ["logits", "gradient", "statistics"].iter().enumerate() {
                        assert!(got[i] == wanted[i], "{name} {phase:?} batch {batch}: {what} differ where {mode}");
                    }
                }
            }
        }
    }
}

/// A network that drops at random is another one in evaluation, and one that distills has a second gradient at its features: in the
/// same buffers.
#[test]
fn shared_buffers_and_recomputation_change_no_bit_of_what_is_dropped_or_distilled() {
    let kinds: [fn(Model) -> Model; 3] = [
        |model| model.dropping(Drops { path: 0.5, head: 0.25 }),
        |model| model.distilling(Some(On::Features)),
        |model| model.distilling(Some(On::Logits)).dropping(Drops { path: 0.5, head: 0.25 }),
    ];
    for (name, kind) in
        ["vit_small", "resnet_bottleneck", "resnet_d"].into_iter().flat_map(|name| kinds.map(|kind| (name, kind)))
    {
        let (model, start) = open(name);
        let model = kind(model);
        let apart = Activations::apart(gpu(), &model, CAPACITY, Mode::Train, Precision::F32).unwrap();
        let all = [apart].into_iter().chain(
            [Mode::Train, Mode::Recompute].map(|mode| model.plan(gpu(), CAPACITY, mode, Precision::F32).unwrap()),
        );
        let all: Vec<Activations> = all.map(|acts| acts.allocate(gpu()).unwrap()).collect();
        for phase in [Phase::Train, Phase::Frozen, Phase::Eval] {
            for batch in [CAPACITY, 2] {
                let [wanted, shared, recomputed] = [0, 1, 2].map(|i| {
                    all[i].random().iter().for_each(|random| gpu().write(random, &[5u32, 0, 9, 2]));
                    pass_of(&model, &model, &start, &all[i], batch, phase, MAX_FLOPS)
                });
                assert!(wanted[1].iter().all(|g| f32::from_bits(*g).is_finite()), "{name}");
                assert!(wanted == shared, "{name} {phase:?} batch {batch}: shared");
                assert!(wanted == recomputed, "{name} {phase:?} batch {batch}: recomputed");
            }
        }
    }
}

#[test]
fn inference_over_shared_buffers_gives_the_bits_of_separate_buffers() {
    for name in MODELS {
        let (model, start) = open(name);
        let gpu = gpu();
        let (w, stats) = start.upload(gpu, &model).unwrap();
        let logits = |acts: Activations, batch: usize| {
            let (acts, images) =
                (acts.allocate(gpu).unwrap(), Random::new(4).vec(batch * 3 * model.image_size().pow(2)));
            let scratch = acts.scratch();
            gpu.write(&acts.images(batch), &images);
            let mut r = Recorder::new(gpu, &scratch);
            acts.forward(&model.config, &mut r, batch, &w, &stats, Phase::Eval).unwrap();
            Program::run(gpu, &[], &[&r.program]).unwrap();
            gpu.read::<u32>(&acts.logits(batch)).unwrap()
        };
        for batch in [CAPACITY, 2] {
            let shared = model.plan(gpu, CAPACITY, Mode::Infer, Precision::F32).unwrap();
            assert!(logits(shared, batch) == logits(apart(&model, CAPACITY, Mode::Infer), batch), "{name}");
        }
    }
}

#[test]
fn a_plan_for_the_largest_batch_holds_for_smaller_ones() {
    for name in MODELS {
        let (model, _) = open(name);
        for mode in [Mode::Train, Mode::Recompute, Mode::Infer] {
            let acts = model.plan(gpu(), 70, mode, Precision::F32).unwrap();
            for batch in [1, 2, 3, 13, 64, 65, 70] {
                assert!(
                    acts.plan.holds(&acts.lifetimes(gpu(), &model.config, batch).unwrap()),
                    "{name} {mode:?} {batch}"
                );
            }
        }
    }
}

#[test]
fn a_model_in_many_short_dispatches_gives_the_same_logits() {
    for name in MODELS {
        let (model, start) = open(name);
        let acts = model.plan(gpu(), CAPACITY, Mode::Train, Precision::F32).unwrap().allocate(gpu()).unwrap();
        let whole = pass(&model, &start, &acts, CAPACITY, Phase::Train, MAX_FLOPS);
        let parts = pass(&model, &start, &acts, CAPACITY, Phase::Train, 1);
        assert!(whole[0] == parts[0] && whole[2] == parts[2], "{name}");
        // The gradient of a weight is a sum over rows, here of several sums.
        let [whole, parts] = [whole, parts].map(|bits| bits[1].iter().map(|b| f32::from_bits(*b)).collect::<Vec<_>>());
        let error = relative(&parts, &whole);
        assert!(error < 1e-5, "{name}: {error:e}");
    }
}

/// What `op` writes to the first of `views` in one dispatch, and in the most that it can be cut into, with their counts.
fn cut(len: usize, others: &[usize], op: impl Fn(&mut Recorder, &View, &[View])) -> [(Vec<u32>, usize); 2] {
    let gpu = gpu();
    let mut random = Random::new(7);
    let others: Vec<View> = others.iter().map(|len| gpu.upload("tensor", &random.vec(*len)).unwrap()).collect();
    let scratch = gpu.buffer("scratch", 1 << 20).unwrap();
    [MAX_FLOPS, 1].map(|max_flops| {
        let out = gpu.buffer("out", len).unwrap();
        let mut r = Recorder::new(gpu, &scratch);
        r.max_flops = max_flops;
        op(&mut r, &out, &others);
        Program::run(gpu, &[], &[&r.program]).unwrap();
        (gpu.read(&out).unwrap(), r.program.steps.len())
    })
}

fn assert_cut(name: &str, [whole, parts]: [(Vec<u32>, usize); 2]) {
    assert!(parts.1 > whole.1, "{name}: still {} dispatches", parts.1);
    assert!(whole.0 == parts.0, "{name}: other bits in {} dispatches", parts.1);
    assert!(whole.0.iter().any(|bits| *bits != 0), "{name}");
}

#[test]
fn a_long_dispatch_is_cut_into_parts_that_give_the_same_bits() {
    let (m, n, k) = (200, 48, 36);
    let product = cut(m * n, &[m * k, n * k, n], |r, out, v| {
        matmul::forward(r, out, &v[0], &v[1], Some(&v[2]), m, n, k).unwrap();
    });
    assert_cut("matmul", product);
    let product =
        cut(m * k, &[m * n, n * k], |r, out, v| matmul::backward_input(r, out, &v[0], &v[1], m, n, k).unwrap());
    assert_cut("matmul::backward_input", product);

    let dims = attention::Dims { batch: 3, tokens: 16, heads: 4, head_dim: 8 };
    let (len, stats) = (3 * 16 * 4 * 8, 3 * 16 * 4);
    let attended =
        cut(len, &[stats, 3 * len], |r, out, v| attention::forward(r, out, &v[0], &v[1], Scores::Plain, dims).unwrap());
    assert_cut("attention", attended);
    let gradient = cut(3 * len, &[stats, len, len, 3 * len, stats], |r, out, v| {
        attention::backward(r, out, &v[0], &v[1], &v[2], &v[3], &v[4], Scores::Plain, dims).unwrap();
    });
    assert_cut("attention::backward", gradient);

    for (in_channels, groups) in [(8, 1), (6, 2)] {
        let dims = conv2d::Dims {
            batch: 5,
            height: 16,
            width: 16,
            in_channels,
            out_channels: 8,
            kernel: 3,
            stride: 2,
            padding: conv2d::Padding::Even(1),
            groups,
        };
        let (inp, out) = (5 * 256 * in_channels, 5 * 64 * 8);
        let lens = [inp, dims.weight_len()];
        let image = cut(out, &lens, |r, out, v| conv2d::forward(r, out, &v[0], &v[1], dims).unwrap());
        assert_cut("conv2d", image);
        let lens = [out, dims.weight_len()];
        let gradient = cut(inp, &lens, |r, dinp, v| conv2d::backward_input(r, dinp, &v[0], &v[1], dims, true).unwrap());
        assert_cut("conv2d::backward_input", gradient);
    }
}

fn vit_config(dim: usize, heads: usize, depth: usize) -> VitConfig {
    VitConfig {
        image_size: 224,
        patch_size: 16,
        dim,
        depth,
        heads,
        mlp_dim: 4 * dim,
        classes: 1000,
        eps: 1e-6,
        activation: Activation::Gelu,
        pool: Pool::Cls,
        class_token: true,
        layer_scale: false,
        fc_norm: false,
        qkv_bias: true,
        patch_bias: true,
        head_bias: true,
        parts: Default::default(),
    }
}

fn vit(dim: usize, heads: usize, depth: usize) -> Model {
    Model::new(vit_config(dim, heads, depth))
}

#[test]
fn plans_come_close_to_what_is_alive_at_once() {
    let models = [
        ("ViT-B/16", vit(768, 12, 12), 8),
        ("ViT-Ti/16", vit(192, 3, 12), 4),
        ("ResNet-50", Model::new(resnet_50()), 8),
    ];
    for (name, model, batch) in models {
        let bytes = [Mode::Train, Mode::Recompute, Mode::Infer].map(|mode| {
            let apart = apart(&model, batch, mode);
            let lifetimes = apart.lifetimes(gpu(), &model.config, batch).unwrap();
            let (bytes, least) = (
                model.plan(gpu(), batch, mode, Precision::F32).unwrap().plan.bytes(),
                apart.plan.least_bytes(&lifetimes),
            );
            println!("{name} batch {batch} {mode:?}: apart {} shared {bytes} least {least}", apart.plan.bytes());
            // A buffer is as long as its longest tensor: what a shorter one leaves of it is lost while that lives. That
            // counts most where few are alive.
            let slack = if mode == Mode::Infer { 1.15 } else { 1.05 };
            assert!(bytes as f64 <= slack * least as f64, "{name} {mode:?}: {bytes} bytes, {least} are alive at once");
            bytes
        });
        assert!(bytes[1] < bytes[0] / 2 && bytes[2] < bytes[1], "{name}: {bytes:?}");
    }
}
