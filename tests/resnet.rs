//! ResNets around the numbers: which files are understood and which refused, running statistics through saving and
//! resuming, and what batch norm can't be trained on. `golden_resnet` has the numbers themselves.

mod common;
#[path = "resnet/small_stem.rs"]
mod small_stem;

use std::collections::BTreeMap;

use common::{Random, fixture_path, gpu, resnet_50};
use tpgm::checkpoint::{
    Checkpoint, Overrides, Recognised, Values, describe, fresh_model, fresh_resnet, fresh_statistics, recognise,
    replace_head, write_model, write_safetensors,
};
use tpgm::data::Batch;
use tpgm::data::resize::Interpolation;
use tpgm::error::Error;
use tpgm::method::{Active, Anchor, BatchNorm, Held, Learner, Memory, MethodArgs, Optimizer, Settings, Tpgm};
use tpgm::model::Network;
use tpgm::model::resnet_config::{Block, BlockConfig, Downsample, Pooling, ResNetConfig, Stem};
use tpgm::model::{Model, ModelConfig};
use tpgm::ops::sgd::Sgd;
use tpgm::shapes::Norm;
use tpgm::train::help::told;
use tpgm::train::source::Source;
use tpgm::train::state::{self, Identity, Progress};

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The floating-point tensors of a fixture.
fn tensors(name: &str) -> Tensors {
    let file = Checkpoint::open(fixture_path(name)).unwrap();
    let floats = file.tensors().iter().filter(|t| !t.name.ends_with("tracked"));
    floats.map(|t| (t.name.clone(), (t.shape.clone(), file.read_f32(&t.name).unwrap()))).collect()
}

fn at(size: usize) -> Overrides {
    Overrides { image_size: Some(size), ..Overrides::default() }
}

fn write(tensors: &Tensors) -> (tempfile::TempDir, Checkpoint) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.safetensors");
    let list: Vec<_> = tensors.iter().map(|(n, (shape, v))| (n.clone(), shape.clone(), v.as_slice())).collect();
    write_safetensors(&path, &list, &BTreeMap::new()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    (dir, checkpoint)
}

fn read(tensors: &Tensors) -> Result<Recognised, Error> {
    recognise(&write(tensors).1, &at(36))
}

fn assert_error<T: std::fmt::Debug>(result: Result<T, Error>, parts: &[&str]) {
    let error = result.unwrap_err();
    let (facts, told) = (error.to_string(), told(&error));
    assert!(parts.iter().all(|part| told.contains(part)) && !told.contains('\n'), "{told}");
    assert!(!facts.contains("--"), "a flag among the facts: {facts}");
}

fn assert_usage<T: std::fmt::Debug>(result: Result<T, Error>, parts: &[&str]) {
    assert!(matches!(&result, Err(error) if matches!(error.facts(), Error::Usage(_))), "{result:?}");
    assert_error(result, parts);
}

fn config(recognised: &Recognised) -> &ResNetConfig {
    match &recognised.config {
        ModelConfig::ResNet(config) => config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn depth_widths_stem_and_shortcuts_are_read_from_the_tensors() {
    for (name, depths, block, stem, downsample, inner) in [
        ("resnet_basic", [1, 1, 1, 1], Block::Basic, Stem::Conv, Downsample::Conv, [8, 12, 16, 20]),
        ("resnet_bottleneck", [1, 2, 1, 1], Block::Bottleneck, Stem::Conv, Downsample::Conv, [6, 9, 12, 18]),
        ("resnet_d", [1, 1, 2, 1], Block::Bottleneck, Stem::Deep, Downsample::Avg, [4, 6, 8, 10]),
    ] {
        let checkpoint = Checkpoint::open(fixture_path(name)).unwrap();
        let recognised = recognise(&checkpoint, &Overrides::default()).unwrap();
        let c = config(&recognised);
        assert_eq!((c.block, c.stem, c.downsample, c.classes, c.groups), (block, stem, downsample, 5, 1), "{name}");
        assert_eq!(c.stages.iter().map(Vec::len).collect::<Vec<_>>(), depths);
        assert_eq!(c.stages.iter().map(|s| s[0].inner).collect::<Vec<_>>(), inner);
        assert_eq!(c.stages.iter().map(|s| s[0].stride).collect::<Vec<_>>(), [1, 2, 2, 2]);
        assert_eq!(c.stages[0][0].downsample, block == Block::Bottleneck, "{name}");
        assert_eq!((recognised.config.image_size(), c.stride(), recognised.ignored.len()), (224, 32, 0));
        assert_eq!(recognised.counters.len(), c.buffers().len() / 2);
        let p = &recognised.preprocess;
        assert_eq!((p.image_size, p.crop_pct, p.mean[0]), (224, 0.875, 0.485));
        assert_eq!(p.interpolation == Interpolation::Bicubic, stem == Stem::Deep);
        assert!(recognised.notes.iter().any(|n| n.what.starts_with("preprocessing assumed")), "{:?}", recognised.notes);
        let text = describe(&checkpoint, &recognised).to_string();
        for part in ["ResNet", "blocks 1-", "224 x 224, stride 32", "batch norm eps 1e-5", "5 classes"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn moco_v3_is_a_resnet_without_a_head() {
    let mut moco: Tensors = BTreeMap::new();
    for (name, tensor) in tensors("resnet_bottleneck") {
        if !name.starts_with("fc.") {
            moco.insert(format!("module.base_encoder.{name}"), tensor.clone());
            moco.insert(format!("module.momentum_encoder.{name}"), tensor);
        }
    }
    for name in ["module.base_encoder.fc.0.weight", "module.predictor.0.weight"] {
        moco.insert(name.into(), (vec![2, 2], vec![0.0; 4]));
    }
    let (_dir, checkpoint) = write(&moco);
    let mut recognised = recognise(&checkpoint, &at(64)).unwrap();
    assert_eq!((recognised.config.classes(), recognised.config.image_size()), (0, 64));
    assert!(recognised.notes.iter().any(|n| n.what.contains("projector")), "{:?}", recognised.notes);
    assert!(recognised.ignored.iter().all(|n| n.contains("momentum") || n.contains("predictor") || n.contains("fc.0")));

    let mut weights = tpgm::checkpoint::weights(&checkpoint, &recognised).unwrap();
    replace_head(&mut recognised, &mut weights, &["a".to_string(), "b".to_string()], 1);
    assert_eq!(recognised.initialised, ["fc.weight", "fc.bias"]);
    assert_eq!(recognised.names.last().unwrap().1, "module.base_encoder.fc.bias");
    let shapes: Vec<_> = weights.iter().map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
    assert_eq!(shapes, recognised.config.parameters());
}

/// CLIP's fixture at its own size, with the heads that its width can't tell.
fn clip() -> Overrides {
    Overrides { heads: Some(4), ..Overrides::default() }
}

#[test]
fn clip_is_read_under_its_own_names() {
    let checkpoint = Checkpoint::open(fixture_path("clip_resnet")).unwrap();
    let recognised = recognise(&checkpoint, &clip()).unwrap();
    let c = config(&recognised);
    assert_eq!((c.block, c.stem, c.downsample, c.classes), (Block::Bottleneck, Stem::Clip, Downsample::AntiAliased, 5));
    assert_eq!(c.pooling, Pooling::Attention { heads: 4, features: 12 });
    assert_eq!(c.stages.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 1, 1]);
    assert!(c.stages[0][0].downsample && c.stages[0][0].stride == 1);
    // Two by two positions and their mean's.
    assert_eq!((c.image_size, c.final_size(), c.stride()), (64, 2, 32));
    assert!(recognised.ignored.is_empty() && recognised.counters.len() == c.buffers().len() / 2);
    let p = &recognised.preprocess;
    assert_eq!((p.crop_pct, p.mean[0], p.interpolation), (1.0, 0.481_454_66, Interpolation::Bicubic));
    let in_file: BTreeMap<_, _> = recognised.names.iter().cloned().collect();
    assert_eq!(in_file["attnpool.positional_embedding"], "visual.attnpool.positional_embedding");
    assert_eq!(in_file["head.weight"], "head.weight");
    let text = describe(&checkpoint, &recognised).to_string();
    for part in ["CLIP ResNet", "average pool, anti-aliased strides", "attention, 4 heads of 10", "12 features"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // As OpenAI has it: with a text tower, without a head.
    let mut whole = tensors("clip_resnet");
    whole.retain(|name, _| !name.starts_with("head."));
    for name in ["positional_embedding", "transformer.resblocks.0.ln_1.weight", "ln_final.bias", "logit_scale"] {
        whole.insert(name.into(), (vec![2], vec![0.0; 2]));
    }
    let (_dir, checkpoint) = write(&whole);
    let mut recognised = recognise(&checkpoint, &clip()).unwrap();
    assert_eq!((recognised.config.classes(), recognised.ignored.len()), (0, 4));
    let mut weights = tpgm::checkpoint::weights(&checkpoint, &recognised).unwrap();
    replace_head(&mut recognised, &mut weights, &["a".to_string(), "b".to_string()], 1);
    assert_eq!(recognised.initialised, ["head.weight", "head.bias"]);
    assert_eq!(recognised.names.last().unwrap().1, "head.bias");
    let shapes: Vec<_> = weights.iter().map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
    assert_eq!(shapes, recognised.config.parameters());

    // The tower alone.
    let alone = whole.into_iter().filter_map(|(name, t)| Some((name.strip_prefix("visual.")?.to_string(), t)));
    let recognised = recognise(&write(&alone.collect()).1, &clip()).unwrap();
    assert_eq!(recognised.head_names, ["head.weight", "head.bias"]);
}

#[test]
fn what_clip_can_not_tell_or_does_not_have_is_said() {
    let whole = tensors("clip_resnet");
    let with = |overrides: Overrides, change: &dyn Fn(&mut Tensors)| {
        let mut changed = whole.clone();
        change(&mut changed);
        recognise(&write(&changed).1, &overrides)
    };
    let put = |t: &mut Tensors, name: &str, shape: &[usize]| {
        t.insert(name.into(), (shape.to_vec(), vec![0.0; shape.iter().product()]));
    };
    let same = |_: &mut Tensors| ();
    assert_error(with(Overrides::default(), &same), &["width 40", "no multiple of 64", "--heads"]);
    for heads in [0, 3] {
        let wrong = with(Overrides { heads: Some(heads), ..Overrides::default() }, &same);
        assert_usage(wrong, &["--heads: ", "width 40"]);
    }
    let pool = with(Overrides { pool: Some(tpgm::model::Pool::Mean), ..clip() }, &same);
    assert_usage(pool, &["--pool: this model is a ResNet"]);

    let sized = |size| with(Overrides { image_size: Some(size), ..clip() }, &same);
    assert_error(sized(31), &["31 pixels", "stride of 32"]);
    // 79 halves to 40, 20, 10, 5 and 2: pools leave out what fills no window.
    assert_eq!(config(&sized(79).unwrap()).final_size(), 2);
    for (size, grid) in [(32, 1), (95, 3), (96, 3)] {
        let resize = sized(size).unwrap().resize.unwrap();
        assert_eq!((resize.prefix, resize.from, resize.to), (1, 2, grid));
    }
    let positions = "visual.attnpool.positional_embedding";
    for count in [1, 4] {
        assert_error(with(clip(), &|t| put(t, positions, &[count, 40])), &[positions, "square grid"]);
    }
    assert_error(with(clip(), &|t| put(t, positions, &[5, 36])), &[positions, "[5, 40]"]);
    for name in ["visual.attnpool.c_proj.bias", "visual.conv3.weight", "visual.layer1.0.downsample.0.weight"] {
        assert_error(with(clip(), &|t| drop(t.remove(name))), &[name, "missing"]);
    }
    assert_error(
        with(clip(), &|t| put(t, "visual.attnpool.extra.weight", &[2])),
        &["visual.attnpool.extra.weight", "not supported"],
    );
    // Basic blocks there are none of.
    let basic = |t: &mut Tensors| {
        t.retain(|name, _| !name.contains(".conv3.") || name == "visual.conv3.weight");
        put(t, "visual.layer1.0.conv1.weight", &[16, 8, 3, 3]);
        put(t, "visual.layer1.0.conv2.weight", &[16, 16, 3, 3]);
    };
    assert_error(with(clip(), &basic), &["fit no known block", "visual.layer1.0.conv1.weight"]);
}

#[test]
fn heads_of_an_attention_pool_are_64_wide_and_travel_with_the_file() {
    let stage = |out: usize, stride| {
        vec![BlockConfig { inner: out / 4, out, stride, downsample: true, ..BlockConfig::default() }]
    };
    let made = ResNetConfig {
        image_size: 32,
        block: Block::Bottleneck,
        stem: Stem::Clip,
        stem_widths: vec![4, 4, 8],
        stages: vec![stage(16, 1), stage(128, 2)],
        downsample: Downsample::AntiAliased,
        pooling: Pooling::Attention { heads: 4, features: 16 },
        anti_alias: false,
        blur: false,
        attention_inside: false,
        stem_pool_conv: false,
        stride_first: false,
        ceil_pool: false,
        active_gate: false,
        norm_groups: None,
        activation: tpgm::shapes::Pointwise::Relu,
        groups: 1,
        eps: 1e-5,
        momentum: 0.1,
        classes: 2,
        head_bias: true,
        normalize: false,
        grey: false,
    };
    let json = serde_json::to_string(&made).unwrap();
    assert_eq!(serde_json::from_str::<ResNetConfig>(&json).unwrap(), made);
    let mut mean: serde_json::Value = serde_json::from_str(&json).unwrap();
    mean.as_object_mut().unwrap().remove("pooling");
    let mean: ResNetConfig = serde_json::from_value(mean).unwrap();
    assert_eq!(mean, ResNetConfig { pooling: Pooling::Mean, ..made.clone() }, "as written before there was a choice");

    let mut weights = fresh_resnet(&made, 1);
    weights.extend(fresh_statistics(&made));
    let bare: Tensors = weights.iter().map(|(name, shape, v)| (name.clone(), (shape.clone(), v.clone()))).collect();
    let (_dir, checkpoint) = write(&bare);
    let heads = |overrides: &Overrides| match config(&recognise(&checkpoint, overrides).unwrap()).pooling {
        Pooling::Attention { heads, .. } => heads,
        Pooling::Mean => 0,
    };
    assert_eq!((heads(&Overrides::default()), heads(&clip())), (2, 4));
    let recognised = recognise(&checkpoint, &Overrides::default()).unwrap();
    assert!(recognised.notes.iter().any(|n| n.what.contains("heads assumed: 2 of 64")), "{:?}", recognised.notes);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.safetensors");
    let classes = ["a".to_string(), "b".to_string()];
    let named = fresh_model(made.clone(), &recognised.preprocess, &classes);
    write_model(&path, &named, &weights).unwrap();
    let read = recognise(&Checkpoint::open(&path).unwrap(), &Overrides::default()).unwrap();
    assert_eq!(config(&read), &made);
}

#[test]
fn what_is_no_resnet_of_ours_is_refused_with_the_tensor_that_tells() {
    let whole = tensors("resnet_bottleneck");
    let with = |change: &dyn Fn(&mut Tensors)| {
        let mut changed = whole.clone();
        change(&mut changed);
        read(&changed)
    };
    let reshape = |t: &mut Tensors, name: &str, shape: [usize; 4]| {
        t.insert(name.into(), (shape.to_vec(), vec![0.0; shape.iter().product()]));
    };
    let block = "fit no known block";
    assert_error(with(&|t| reshape(t, "layer2.1.conv1.weight", [9, 24, 5, 5])), &[block, "layer2.1.conv1.weight"]);
    assert_error(with(&|t| reshape(t, "layer1.0.conv2.weight", [6, 6, 1, 1])), &[block, "layer1.0.conv2.weight"]);
    assert_error(with(&|t| reshape(t, "layer3.0.conv2.weight", [12, 6, 3, 3])), &[block, "layer3.0"]);
    assert_error(with(&|t| drop(t.remove("layer2.1.conv3.weight"))), &[block, "layer2.1"]);
    let missing = ["layer2.0.downsample.0.weight", "layer4.0.bn2.running_var", "bn1.bias", "layer3.0.conv1.weight"];
    for name in missing {
        assert_error(with(&|t| drop(t.remove(name))), &[name]);
    }
    let extra = |name: &'static str| with(&move |t| drop(t.insert(name.into(), (vec![2], vec![0.0; 2]))));
    assert_error(extra("layer1.0.se.fc1.bias"), &["layer1.0.se.fc1.bias", "not supported"]);
    assert_error(extra("conv1.bias"), &["conv1.bias", "not supported"]);
    let (_dir, negative) = write(&{
        let mut t = whole.clone();
        t.get_mut("bn1.running_var").unwrap().1[3] = -0.5;
        t
    });
    let recognised = recognise(&negative, &at(36)).unwrap();
    assert_error(tpgm::checkpoint::statistics(&negative, &recognised), &["bn1.running_var", "-0.5", "element 3"]);

    let (_dir, checkpoint) = write(&whole);
    let small = recognise(&checkpoint, &at(31));
    assert_usage(small, &["31 pixels", "stride of 32: use --image-size 32 or more"]);
    let heads = Overrides { heads: Some(2), ..at(36) };
    assert_usage(recognise(&checkpoint, &heads), &["--heads: this model is a ResNet"]);
}

const SGD: Optimizer = Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: true, weight_decay: 5e-4 });

fn settings(batch: usize, batch_norm: BatchNorm) -> Settings {
    Settings {
        optimizer: SGD,
        clip_norm: 0.0,
        smoothing: 0.0,
        micro_batch: batch,
        batch_norm,
        recompute: false,
        half: None,
    }
}

fn source(size: usize) -> Source {
    Source::open(&fixture_path("resnet_basic"), &at(size)).unwrap()
}

fn batch(seed: u64, count: usize, size: usize) -> (Vec<f32>, Vec<u32>) {
    (Random::new(seed).vec(count * 3 * size * size), (0..count as u32).map(|i| (i + seed as u32) % 5).collect())
}

#[test]
fn running_statistics_and_their_counters_are_saved_and_read_again() {
    let source = source(36);
    let mut learner = Learner::new(gpu(), source.model(), &source.snapshot(), settings(4, BatchNorm::Train)).unwrap();
    for step in 0..3 {
        // Two passes per step: each counts, as each of PyTorch's forward passes does.
        let (images, labels) = batch(step, 6, 36);
        learner.step(&images, &labels, 0.01).unwrap();
    }
    let (images, _) = batch(9, 4, 36);
    let logits = learner.logits(&images, 4).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.safetensors");
    source.save(&path, &learner.snapshot().unwrap()).unwrap();

    let saved = Source::open(&path, &Overrides::default()).unwrap();
    assert_eq!(saved.recognised.config, source.recognised.config);
    assert!(saved.stats != source.stats);
    let mut again = Learner::new(gpu(), saved.model(), &saved.snapshot(), settings(4, BatchNorm::Frozen)).unwrap();
    assert_eq!(logits, again.logits(&images, 4).unwrap());
    let (before, after) = (counters(&fixture_path("resnet_basic")), counters(&path));
    assert!(before.len() > 10 && before.keys().eq(after.keys()));
    assert!(before.iter().all(|(name, count)| after[name] == count + 6), "{before:?} {after:?}");
}

/// The I64 tensors of a file.
fn counters(path: &std::path::Path) -> BTreeMap<String, i64> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let integers = file.tensors().into_iter().filter(|(_, t)| t.dtype() == safetensors::Dtype::I64);
    integers.map(|(name, t)| (name, i64::from_le_bytes(t.data().try_into().unwrap()))).collect()
}

/// Steps `from..until` of TPGM with the state at `path`: what `state::save` writes at the end.
fn run(path: &std::path::Path, from: u64, until: u64) -> Vec<u8> {
    let source = source(36);
    let start = source.snapshot();
    let mut learner = Learner::new(gpu(), source.model(), &start, settings(6, BatchNorm::Train)).unwrap();
    let excluded: Vec<bool> = learner.model.layout().params.iter().map(|p| p.name.starts_with("fc.")).collect();
    let args = MethodArgs::parse(["--ema-decay", "0.9"]).unwrap();
    let anchor = Anchor { values: &start, excluded: &excluded, new_head: false };
    let mut active = Active::start(&args, &mut learner, &anchor).unwrap();
    if from > 0 {
        state::restore(path, &mut learner, &mut active).unwrap();
        assert_eq!(learner.batches, from);
    }
    for step in from..until {
        let (images, labels) = batch(step, 6, 36);
        learner.step(&images, &labels, 1e-2).unwrap();
        let before: Vec<u32> = learner.gpu.read(&learner.stats).unwrap();
        let (images, labels) = batch(100 + step, 6, 36);
        let mut next = || Ok(Batch { images: images.clone(), labels: labels.clone(), ..Batch::default() });
        active.after_step(&mut learner, &mut next).unwrap();
        assert!(before == learner.gpu.read::<u32>(&learner.stats).unwrap(), "a radius batch moved the statistics");
    }
    let progress = Progress { steps: until, taken: active.taken(), ..Progress::default() };
    let saved = state::capture(&learner, &active).unwrap();
    state::write(path, &saved, &learner, (progress, &[]), &Identity { setup: "setup".into(), ..Identity::default() })
        .unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn a_resumed_run_is_the_run_that_was_not_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    let whole = run(&path, 0, 6);
    run(&path, 0, 2);
    assert!(whole == run(&path, 2, 6), "weights, statistics, radii or counts differ");
}

#[test]
fn one_image_at_one_pixel_can_only_be_trained_on_with_frozen_statistics() {
    let (images, labels) = batch(1, 1, 32);
    let source = source(32);
    for (batch_norm, fits) in [(BatchNorm::Train, false), (BatchNorm::Frozen, true)] {
        let mut learner = Learner::new(gpu(), source.model(), &source.snapshot(), settings(2, batch_norm)).unwrap();
        let stepped = learner.step(&images, &labels, 0.01);
        assert_eq!(stepped.is_ok(), fits);
        if let Err(error) = stepped {
            assert_usage(Err::<(), _>(error), &["batch of one image", "--bn frozen"]);
        }
        assert!(learner.logits(&images, 1).unwrap().iter().all(|v| v.is_finite()));
    }
}

#[test]
fn a_bad_batch_spoils_neither_weights_nor_the_statistics_that_are_saved() {
    let source = source(36);
    let mut learner = Learner::new(gpu(), source.model(), &source.snapshot(), settings(4, BatchNorm::Train)).unwrap();
    let (images, labels) = batch(1, 4, 36);
    for _ in 0..16 {
        learner.step(&images, &labels, 0.01).unwrap();
    }
    learner.records(true).unwrap();
    let good = learner.snapshot().unwrap();
    let mut bad = images.clone();
    bad[7] = f32::NAN;
    learner.step(&bad, &labels, 0.01).unwrap();
    learner.step(&images, &labels, 0.01).unwrap();
    let records = learner.records(true).unwrap();
    // A ReLU may turn NaN into a number, so that only the gradient tells.
    assert!(!(records[0].loss.is_finite() && records[0].grad_norm.is_finite()), "{records:?}");
    assert_eq!(learner.last_sound().unwrap(), good);
}

#[test]
fn a_resnet_50_at_224_pixels_and_batch_8_stays_inside_4_gib() {
    let model = Model::new(resnet_50());
    // torchvision's count of a ResNet-50's parameters.
    assert_eq!(model.layout().count(), 25_557_032);
    let projection = Tpgm::bytes(model.layout(), Norm::Mars);
    let bytes = Memory::plan(gpu(), &model, &settings(8, BatchNorm::Train), projection).unwrap().total();
    assert!(bytes < 4 << 30, "{bytes} bytes");
    println!("{} MiB", bytes >> 20);
}

#[test]
fn integer_weights_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.safetensors");
    let floats = tensors("resnet_basic");
    let ones = vec![1i32; 8];
    let list: Vec<(String, Vec<usize>, Values)> = floats
        .iter()
        .map(|(n, (shape, v))| {
            let values = if n == "bn1.running_mean" { Values::I32(&ones) } else { Values::F32(v) };
            (n.clone(), shape.clone(), values)
        })
        .collect();
    write_safetensors(&path, &list, &BTreeMap::new()).unwrap();
    assert_error(recognise(&Checkpoint::open(&path).unwrap(), &at(36)), &["bn1.running_mean", "I32"]);
}
