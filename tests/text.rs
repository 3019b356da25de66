//! Text towers, tokenizers and zero-shot heads against OpenCLIP's and transformers' values, `fixtures/generate_text.py`.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{Fixture, relative};
use tpgm::checkpoint::{Checkpoint, Dtype, TextOverrides, Values, text_tower, text_weights, write_safetensors};
use tpgm::gpu::Program;
use tpgm::gpu::buffer::Element;
use tpgm::model::layers::TokenMask;
use tpgm::model::tape::{Act, Tape};
use tpgm::model::text::TextConfig;
use tpgm::model::{Activations, Mode, Network, Phase, Precision};
use tpgm::ops::Recorder;
use tpgm::shapes::ParamLayout;
use tpgm::text::{Clean, Templates, Tokenizer};
use tpgm::train::zero_shot::{Prompts, TextHead, text_features, tokenizer};

/// Goldens are f64 results, weights f16.
const TOLERANCE: f32 = 1e-4;
const OPENAI_VOCABULARY: usize = 49_408;
const MODELS: [&str; 8] = [
    "openai",
    "open_clip",
    "open_clip_custom",
    "open_clip_siglip",
    "hf_clip",
    "hf_clip_old",
    "hf_siglip",
    "hf_siglip2",
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text").join(name)
}

fn golden(name: &str) -> Fixture {
    Fixture::open(&format!("text/{name}_golden"))
}

/// The model as people have it: the table of tokens with all of OpenAI's rows, where the fixture has those of the texts.
fn model(name: &str, dir: &Path) -> PathBuf {
    let golden = golden(name);
    if !golden.has("token_rows") {
        return folder(name);
    }
    let (small, rows) = (Checkpoint::open(folder(name)).unwrap(), golden.u32("token_rows"));
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = small
        .tensors()
        .iter()
        .map(|info| {
            if matches!(info.dtype, Dtype::I64) {
                return (info.name.clone(), vec![1], vec![1.0]);
            }
            let values = small.read_f32(&info.name).unwrap();
            if !info.name.ends_with("token_embedding.weight") {
                return (info.name.clone(), info.shape.clone(), values);
            }
            let dim = info.shape[1];
            let mut table = vec![0.0; OPENAI_VOCABULARY * dim];
            for (row, values) in rows.iter().zip(values.chunks(dim)) {
                table[*row as usize * dim..][..dim].copy_from_slice(values);
            }
            (info.name.clone(), vec![OPENAI_VOCABULARY, dim], table)
        })
        .collect();
    let tensors: Vec<_> = tensors.iter().map(|(n, s, v)| (n.clone(), s.clone(), Values::F32(v))).collect();
    let out = dir.join(name);
    std::fs::create_dir_all(&out).unwrap();
    write_safetensors(out.join("model.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    for entry in std::fs::read_dir(folder(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json") {
            std::fs::copy(&path, out.join(path.file_name().unwrap())).unwrap();
        }
    }
    out
}

fn texts(golden: &Fixture, key: &str) -> Vec<String> {
    serde_json::from_value(golden.json(key)).unwrap()
}

#[test]
fn towers_and_heads_are_those_of_their_libraries() {
    let dir = tempfile::tempdir().unwrap();
    for name in MODELS {
        let (golden, checkpoint) = (golden(name), Checkpoint::open(model(name, dir.path())).unwrap());
        let tower = text_tower(&checkpoint, &TextOverrides::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let features = text_features(common::gpu(), &checkpoint, &tower, &golden.u32("ids"), &mut |_, _| {}).unwrap();
        let error = relative(&features, &golden.f32("features"));
        assert!(error <= TOLERANCE, "{name}: features are off by {error:e}");

        let prompts =
            Prompts { templates: Templates::new(texts(&golden, "templates"), "test").unwrap(), tokenizer: None };
        let names = texts(&golden, "classes");
        let head = TextHead::new(common::gpu(), &checkpoint, &TextOverrides::default(), &prompts, &names, &mut |_| {})
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let error = relative(&head.weight, &golden.f32("head"));
        assert!(error <= TOLERANCE, "{name}: the head is off by {error:e}");
        let bias = head.bias.map(|bias| vec![bias; names.len()]);
        assert_eq!(bias, golden.has("bias").then(|| golden.f32("bias")), "{name}");
    }
}

#[test]
fn gradients_of_text_towers_are_pytorchs() {
    let gpu = common::gpu();
    for name in ["open_clip", "hf_clip", "hf_siglip"] {
        let (golden, checkpoint) = (golden(name), Checkpoint::open(folder(name)).unwrap());
        let tower = text_tower(&checkpoint, &TextOverrides::default()).unwrap();
        let config = &tower.config;
        // The fixture's table has the rows of the texts alone.
        let mut ids = golden.u32("ids");
        if golden.has("token_rows") {
            let rows = golden.u32("token_rows");
            ids.iter_mut().for_each(|id| *id = rows.iter().position(|row| row == id).unwrap() as u32);
        }
        let ends = tower.ends(&golden.u32("ids"));
        let layout = ParamLayout::new(&config.parameters());
        let weights = text_weights(&checkpoint, &tower).unwrap();
        let [w, dw] = ["weights", "gradients"].map(|role| layout.arena(gpu, role).unwrap());
        gpu.write(&w, &layout.pack(weights.iter().map(|weight| weight.2.as_slice())));
        gpu.write(&dw, &vec![0f32; layout.len]);
        let stats = ParamLayout::new(&[]).arena(gpu, "statistics").unwrap();
        let batch = ends.len();
        for mode in [Mode::Train, Mode::Recompute] {
            let acts = Activations::plan(gpu, config, batch, mode, Precision::F32).unwrap().allocate(gpu).unwrap();
            let scratch = acts.scratch();
            let mut r = Recorder::new(gpu, &scratch);
            let recording = acts.forward(config, &mut r, batch, &w, &stats, Phase::Train).unwrap();
            recording.backward(&mut r, &acts.dlogits(batch), &dw, &|_| true).unwrap();
            gpu.write(&acts.numbers(TextConfig::TOKENS, batch).unwrap(), &ids);
            if let Some(view) = acts.numbers(TextConfig::ENDS, batch) {
                gpu.write(&view, &ends);
            }
            gpu.write(&acts.dlogits(batch), &golden.f32("r"));
            gpu.write(&dw, &vec![0f32; layout.len]);
            Program::run(gpu, &[], &[&r.program]).unwrap();
            let grads: Vec<f32> = gpu.read(&dw).unwrap();
            let wanted: Vec<Vec<f32>> =
                tower.names.iter().map(|(_, in_file)| golden.f32(&format!("grad.{in_file}"))).collect();
            let peak = |values: &[f32]| values.iter().fold(0f32, |peak, x| peak.max(x.abs()));
            let largest = wanted.iter().map(|want| peak(want)).fold(0.0, f32::max);
            for ((param, grad), want) in layout.unpack(&grads).zip(&wanted) {
                // The softmax takes no notice of a bias of all keys, whose gradient is rounding alone: hence the floor.
                let scale = peak(want).max(1e-2 * largest);
                let error =
                    grad.iter().zip(want).fold(0f32, |worst, (got, want)| worst.max((got - want).abs())) / scale;
                assert!(error <= TOLERANCE, "{name}: the gradient of {} is off by {error:e} ({mode:?})", param.name);
            }
        }
    }
}

#[test]
fn openais_tokens_of_odd_texts() {
    let path = folder("openai_tokens.json");
    let rows: Vec<(String, Vec<u32>)> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(rows.len() >= 100);
    let tokenizer = Tokenizer::openai(Clean::Lower, 77);
    let mut wrong = Vec::new();
    for (text, want) in &rows {
        let tokens = tokenizer.encode(std::slice::from_ref(text)).unwrap();
        let filled = tokens.ids[want.len()..].iter().all(|id| *id == 0);
        if tokens.ids[..want.len()] != want[..] || !filled {
            wrong.push(format!("{text:?}: {:?}, OpenCLIP has {want:?}", &tokens.ids[..want.len()]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

/// Those that stand beside their models as `tokenizer.json`, each with its library's cleaning.
#[test]
fn tokens_of_odd_texts_by_files() {
    for name in ["open_clip_siglip", "hf_clip", "hf_clip_old", "hf_siglip", "hf_siglip2"] {
        let checkpoint = Checkpoint::open(folder(name)).unwrap();
        let tower = text_tower(&checkpoint, &TextOverrides::default()).unwrap();
        let own = tokenizer(&checkpoint, &tower, None, &mut |_| {}).unwrap();
        let path = folder(&format!("{name}_tokens.json"));
        let rows: Vec<(String, Vec<u32>)> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(rows.len() >= 100);
        let texts: Vec<String> = rows.iter().map(|row| row.0.clone()).collect();
        let tokens = own.encode(&texts).unwrap();
        let mut wrong = Vec::new();
        for ((text, want), got) in rows.iter().zip(tokens.ids.chunks(tower.config.context)) {
            if got != want {
                wrong.push(format!("{text:?}: {got:?}, its library has {want:?}"));
            }
        }
        assert!(wrong.is_empty(), "{name}: {} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
        // Some are too long for any of them.
        assert!(tokens.cut.iter().any(|i| texts[*i].starts_with("very long")));
    }
}

#[test]
fn what_is_no_text_tower_or_an_unknown_one_is_said() {
    let fails = |path: PathBuf, parts: &[&str]| {
        let checkpoint = Checkpoint::open(path).unwrap();
        let error = text_tower(&checkpoint, &TextOverrides::default()).unwrap_err().to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{error}\nlacks {part}"));
    };
    fails(common::fixture_path("vit_small"), &["has no text tower"]);
    // Neither a configuration nor OpenAI's numbers: QuickGELU and GELU have the same tensors.
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(folder("open_clip").join("model.safetensors"), dir.path().join("other.safetensors")).unwrap();
    fails(dir.path().join("other.safetensors"), &["activation of its text tower can't be told"]);
}

/// One head of attention over embedded tokens, of which the first is the result.
struct Padded {
    causal: bool,
}

const PADDED: (usize, usize, usize) = (6, 5, 4); // rows of the table, tokens, width

impl Network for Padded {
    fn forward(&self, t: &mut Tape) -> Act {
        let (vocabulary, tokens, dim) = PADDED;
        let ids = t.numbers("ids", tokens);
        let lengths = t.numbers("lengths", 1);
        let (weight, positions) = (t.param("weight", &[vocabulary, dim]), t.param("positions", &[tokens, dim]));
        let x = t.embedding(ids, "embedded", weight, positions);
        let qkv = t.linear_params("qkv", 3 * dim, dim, false);
        let qkv = t.linear(x, "qkv", qkv, Element::Word);
        let x = t.masked_attention(qkv, "attn", 1, TokenMask { causal: self.causal, lengths: Some(lengths) });
        t.pool(x, "first", 0, 1, Element::Word)
    }
}

#[test]
fn padding_neither_gives_nor_takes() {
    let (gpu, (.., dim)) = (common::gpu(), PADDED);
    let mut random = common::Random::new(3);
    let layout = ParamLayout::new(&Padded { causal: false }.parameters());
    let values: Vec<Vec<f32>> = layout.params.iter().map(|p| random.vec(p.len)).collect();
    let dout = random.vec(2 * dim);
    // The same tokens but for those behind the end of the first text, and for the second as long as it is.
    let run = |causal: bool, ids: [u32; 10], lengths: [u32; 2]| {
        let net = Padded { causal };
        let [w, dw] = ["weights", "gradients"].map(|role| layout.arena(gpu, role).unwrap());
        gpu.write(&w, &layout.pack(values.iter().map(Vec::as_slice)));
        gpu.write(&dw, &vec![0f32; layout.len]);
        let stats = ParamLayout::new(&[]).arena(gpu, "statistics").unwrap();
        let acts = Activations::plan(gpu, &net, 2, Mode::Train, Precision::F32).unwrap().allocate(gpu).unwrap();
        let scratch = acts.scratch();
        let mut r = Recorder::new(gpu, &scratch);
        let recording = acts.forward(&net, &mut r, 2, &w, &stats, Phase::Train).unwrap();
        recording.backward(&mut r, &acts.dlogits(2), &dw, &|_| true).unwrap();
        gpu.write(&acts.numbers("ids", 2).unwrap(), &ids);
        gpu.write(&acts.numbers("lengths", 2).unwrap(), &lengths);
        gpu.write(&acts.dlogits(2), &dout);
        Program::run(gpu, &[], &[&r.program]).unwrap();
        let grads: Vec<f32> = gpu.read(&dw).unwrap();
        let table = layout.unpack(&grads).next().unwrap().1.to_vec();
        (gpu.read::<f32>(&acts.logits(2)).unwrap(), table)
    };
    let (out, table) = run(false, [0, 1, 2, 4, 4, 1, 2, 3, 0, 2], [3, 5]);
    let (other, _) = run(false, [0, 1, 2, 5, 5, 1, 2, 3, 0, 2], [3, 5]);
    assert_eq!(out, other, "what pads a text changes its result");
    assert!(table[4 * dim..].iter().all(|g| *g == 0.0), "what pads a text has a gradient: {table:?}");
    assert!(table[..4 * dim].iter().all(|g| *g != 0.0));
    // Seen alone, the first token has its own value, whatever is behind it; causal or not.
    let (alone, _) = run(false, [0, 1, 2, 4, 4, 1, 2, 3, 0, 2], [1, 1]);
    let (causal, _) = run(true, [0, 1, 2, 4, 4, 1, 2, 3, 0, 2], [3, 5]);
    assert!(relative(&alone, &causal) < 1e-6 && relative(&alone, &out) > 1e-3);
}
