//! A hundred thousand files that somebody has damaged, or made to do damage: each is read or refused with one line, without
//! a panic and without memory that the file's own size does not justify. A binary of its own: its allocator counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use tpgm::checkpoint::{
    Checkpoint, Delta, Overrides, describe, describe_delta, fresh_model, fresh_vit, recognise, save, tpgm_metadata,
    weights, write_delta, write_model, write_safetensors,
};
use tpgm::data::preprocess::{CropMode, Preprocess};
use tpgm::data::resize::Interpolation;
use tpgm::model::Network;
use tpgm::model::config::{Pool, VitConfig};
use tpgm::shapes::Activation;

mod common;
#[path = "hostile/data.rs"]
mod data;
use common::Random;

/// The system's allocator, which counts what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    let held = HELD.get() + change;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that `run` held at a time beyond those held before, and what it gave.
fn peak<T>(run: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.get();
    PEAK.set(before);
    let out = run();
    ((PEAK.get() - before) as usize, out)
}

/// What reading a file of `len` bytes may hold: the header some forty times over as strings and maps, and a little.
fn allowed(len: usize) -> usize {
    64 * len + (64 << 10)
}

/// Files of the property test in all.
const FILES: usize = 100_000;
const THREADS: usize = 2;

/// A ViT of 700 parameters.
fn small() -> VitConfig {
    VitConfig {
        image_size: 4,
        patch_size: 2,
        dim: 4,
        depth: 1,
        heads: 2,
        mlp_dim: 4,
        classes: 2,
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

fn write_small(path: &Path) {
    let preprocess = Preprocess {
        image_size: 4,
        crop_pct: 0.9,
        crop_mode: CropMode::Center,
        interpolation: Interpolation::Bicubic,
        mean: [0.5; 3],
        std: [0.5; 3],
        grey: false,
    };
    let recognised = fresh_model(small(), &preprocess, &["ant".into(), "bee".into()]);
    write_model(path, &recognised, &fresh_vit(&small(), 1)).unwrap();
}

/// What stands where a number or a word stood.
const WORDS: [&str; 24] = [
    "0",
    "-1",
    "1e400",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "null",
    "true",
    "[]",
    "{}",
    "[[[[[[[[",
    "\"F16\"",
    "\"F64\"",
    "\"F4\"",
    "\"I64\"",
    "\"BOOL\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "[0]",
    "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]",
    "1.5",
    "\"cls_token\"",
    "NaN",
];

/// One to four changes, most of them among the first `header` bytes. Where these grow or shrink, most files have the header's
/// length put right (`framed` ones have it in front), so that what follows is met.
fn mutate(bytes: &mut Vec<u8>, header: usize, framed: bool, random: &mut Random) {
    for _ in 0..[1, 1, 1, 2, 4][(random.bits() % 5) as usize] {
        if bytes.is_empty() {
            return;
        }
        let mut below = |n: usize| (random.bits() % n.max(1) as u64) as usize;
        let in_header = below(2) > 0;
        let reach = if in_header { header.min(bytes.len()) } else { bytes.len() };
        let (at, before) = (below(reach), bytes.len());
        match below(10) {
            0 => bytes[at] = below(256) as u8,
            1 => bytes[at] ^= 1 << below(8),
            2 => bytes.insert(at, b"0123456789{}[]\",:"[below(17)]),
            3 => drop(bytes.remove(at)),
            4 if below(4) == 0 => bytes.truncate(below(before)),
            // The header's length.
            4 | 5 => {
                let place = below(8).min(bytes.len() - 1);
                bytes[place] = [0, 1, 0x7f, 0x80, 0xff, below(256) as u8][below(6)];
                continue;
            }
            // A piece once more, which names tensors twice.
            6 => {
                let piece = bytes[at..(at + below(200)).min(before)].to_vec();
                let to = below(reach);
                bytes.splice(to..to, piece);
            }
            // Another number or word.
            7 | 8 => {
                let starts: Vec<usize> = (9..reach).filter(|&i| b":,[".contains(&bytes[i - 1])).collect();
                if let Some(&start) = starts.get(below(starts.len())) {
                    let end = (start..before).find(|&i| b",]}".contains(&bytes[i])).unwrap_or(before);
                    bytes.splice(start..end, WORDS[below(WORDS.len())].bytes());
                }
            }
            // NaN, infinity and the like among the weights.
            _ => bytes.iter_mut().skip(at).take(4).for_each(|byte| *byte = 0xff),
        }
        if let (true, true, Some(&length)) = (framed, in_header && below(8) > 0, bytes.first_chunk::<8>()) {
            let length = u64::from_le_bytes(length).wrapping_add(bytes.len() as u64).wrapping_sub(before as u64);
            bytes[..8].copy_from_slice(&length.to_le_bytes());
        }
    }
}

/// One line, and a short one.
fn assert_line(error: impl Display) {
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 2000, "{} bytes: {text:.300}", text.len());
}

/// How far a file was read.
#[derive(Clone, Copy, PartialEq)]
enum Reached {
    Nothing,
    Header,
    Weights,
}

/// Everything that a command does with a model before there is an adapter.
fn read(path: &Path) -> Reached {
    let checkpoint = match Checkpoint::open(path) {
        Ok(checkpoint) => checkpoint,
        Err(e) => {
            assert_line(e);
            return Reached::Nothing;
        }
    };
    match describe_delta(&checkpoint) {
        Ok(Some(delta)) => drop(delta.to_string()),
        Ok(None) => {}
        Err(e) => assert_line(e),
    }
    match recognise(&checkpoint, &Overrides::default()).and_then(|r| Ok((weights(&checkpoint, &r)?, r))) {
        Ok((weights, recognised)) => {
            assert_eq!(weights.len(), recognised.config.parameters().len());
            assert!(weights.iter().all(|(_, shape, values)| shape.iter().product::<usize>() == values.len()));
            assert!(weights.iter().flat_map(|w| &w.2).all(|v| v.is_finite()));
            assert!(!describe(&checkpoint, &recognised).to_string().is_empty());
            Reached::Weights
        }
        Err(e) => {
            assert_line(e);
            for tensor in checkpoint.tensors() {
                checkpoint.read_f32(&tensor.name).map_or_else(assert_line, drop);
            }
            Reached::Header
        }
    }
}

/// Mutates the file `name` of a folder that `prepare` fills, `files` times. Shares of a hundred that were opened, and read to
/// the end.
fn attack(
    files: usize,
    name: &str,
    header: impl Fn(&[u8]) -> usize + Sync,
    prepare: impl Fn(&Path) + Sync,
) -> (f64, f64) {
    let (header, prepare) = (&header, &prepare);
    let one = move |thread: usize| {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let path = dir.path().join(name);
        let whole = fs::read(&path).unwrap();
        let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let others: u64 = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        let (header, mut random) = (header(&whole), Random::new(thread as u64));
        let (mut opened, mut sound) = (0, 0);
        let framed = name.ends_with(".safetensors");
        for _ in 0..files / THREADS {
            let mut bytes = whole.clone();
            mutate(&mut bytes, header, framed, &mut random);
            // Not truncated to nothing first: file systems may bring that to the disk every time.
            file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&bytes)).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
            let (held, reached) = peak(|| read(dir.path()));
            let most = allowed(bytes.len() + others as usize);
            assert!(held < most, "{held} bytes held for a file of {}: {most} are allowed", bytes.len());
            opened += usize::from(reached != Reached::Nothing);
            sound += usize::from(reached == Reached::Weights);
        }
        (opened, sound)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || one(thread))).collect();
        let counts = threads.into_iter().map(|t| t.join().expect("no mutated file makes the reader panic"));
        let (opened, sound) = counts.fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
        let share = |n: usize| 100.0 * n as f64 / files as f64;
        (share(opened), share(sound))
    })
}

fn header_of(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8
}

#[test]
fn a_hundred_thousand_mutated_files() {
    let (opened, sound) =
        attack(FILES, "model.safetensors", header_of, |dir| write_small(&dir.join("model.safetensors")));
    assert!(opened > 5.0 && sound > 2.0 && sound < 50.0, "mutations must reach every part: {opened} % {sound} %");
}

#[test]
fn mutated_deltas() {
    let (opened, sound) = attack(4000, "model.safetensors", header_of, |dir| {
        let (base, whole) = (dir.join("base"), dir.join("whole"));
        write_small(&base);
        let base = Checkpoint::open(&base).unwrap();
        let replaced = BTreeMap::from([("norm.bias".to_string(), (vec![4], vec![0.5; 4]))]);
        save(&whole, &base, &replaced, &BTreeMap::new()).unwrap();
        write_delta(dir.join("model.safetensors"), &base, &Checkpoint::open(&whole).unwrap()).unwrap();
        assert!(Delta::of(&Checkpoint::open(dir).unwrap()).unwrap().is_some());
    });
    assert!(opened > 5.0 && opened < 90.0 && sound < 2.0, "a delta is no model: {opened} % {sound} %");
}

#[test]
fn mutated_indexes() {
    let (_, sound) = attack(5000, "model.safetensors.index.json", <[u8]>::len, |dir| {
        let tensors = fresh_vit(&small(), 1);
        let mut map = serde_json::Map::new();
        for (i, half) in tensors.chunks(tensors.len() / 2 + 1).enumerate() {
            let file = format!("model-{i}.safetensors");
            let half: Vec<_> = half.iter().map(|(n, shape, v)| (n.clone(), shape.clone(), v.as_slice())).collect();
            map.extend(half.iter().map(|(n, ..)| (n.clone(), file.clone().into())));
            let metadata = BTreeMap::from([("tpgm.heads".to_string(), "2".to_string())]);
            write_safetensors(dir.join(&file), &half, &metadata).unwrap();
        }
        let index = serde_json::json!({"metadata": {"total_size": 1234}, "weight_map": map});
        fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    });
    assert!(sound > 0.2 && sound < 90.0, "mutations must reach both sides: {sound} %");
}

#[test]
fn mutated_configs() {
    let config = r#"{"architecture": "vit_tiny_patch16_224", "num_classes": 2, "label_names": ["ant", "bee"],
        "model_args": {"num_heads": 2, "act_layer": "gelu", "global_pool": "token", "img_size": 4},
        "pretrained_cfg": {"input_size": [3, 4, 4], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop_pct": 0.9,
        "crop_mode": "center", "interpolation": "bicubic"}, "id2label": {"0": "ant", "1": "bee"}}"#;
    let (_, sound) = attack(10_000, "config.json", <[u8]>::len, |dir| {
        let tensors = fresh_vit(&small(), 1);
        let tensors: Vec<_> = tensors.iter().map(|(n, shape, v)| (n.clone(), shape.clone(), v.as_slice())).collect();
        write_safetensors(dir.join("model.safetensors"), &tensors, &BTreeMap::new()).unwrap();
        fs::write(dir.join("config.json"), config).unwrap();
    });
    assert!(sound > 1.0 && sound < 90.0, "mutations must reach both sides: {sound} %");
}

#[test]
fn mutated_metadata() {
    let (_, sound) = attack(
        10_000,
        "model.safetensors",
        // Only our own entries, which stand first and are JSON in JSON.
        |bytes| bytes.windows(9).position(|w| w == b"cls_token").unwrap(),
        |dir| {
            let (path, plain) = (dir.join("model.safetensors"), dir.join("plain"));
            write_small(&plain);
            let plain = Checkpoint::open(&plain).unwrap();
            let recognised = recognise(&plain, &Overrides::default()).unwrap();
            save(&path, &plain, &BTreeMap::new(), &tpgm_metadata(&recognised)).unwrap();
        },
    );
    assert!(sound > 1.0 && sound < 90.0, "mutations must reach both sides: {sound} %");
}

/// A header as long as the format allows, of what takes the most memory per byte.
#[test]
fn a_header_of_a_hundred_megabytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let fill = |entry: &dyn Fn(usize) -> String, start: &str, end: &str| {
        let mut header = start.to_string();
        for i in 0.. {
            let next = entry(i);
            if header.len() + next.len() + end.len() > 100_000_000 {
                break;
            }
            header += &next;
        }
        header + end
    };
    let tensor = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
    for (header, what) in [
        (fill(&|i| format!("\"{i:x}\":{tensor},"), "{", &format!("\"x\":{tensor}}}")), "more than 100000 tensors"),
        (fill(&|i| format!("\"{i:x}\":\"\","), "{\"__metadata__\":{", "\"x\":\"\"}}"), "more than 100000 entries"),
        (fill(&|_| "1,".into(), "{\"x\":{\"shape\":[", "1]}}"), "more than 16 dimensions"),
        (fill(&|_| "n".into(), "{\"", "\":0}"), "a name of"),
        (fill(&|_| "[".into(), "{\"x\":", ""), "header can't be read"),
        (fill(&|_| " ".into(), "{", "\"x\":0}"), "header can't be read"),
        (fill(&|_| "F".into(), "{\"x\":{\"shape\":[],\"data_offsets\":[0,0],\"dtype\":\"", "\"}}"), "unknown type"),
        (fill(&|_| "x".into(), "{\"x\":\"", "\"}"), "header can't be read"),
    ] {
        fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
        let (held, opened) = peak(|| Checkpoint::open(&path));
        let error = opened.unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert_line(error);
        // The header itself, and where it is one text, copies of that text in an error before it is cut.
        assert!(held < 8 * header.len(), "{held} bytes held at {what}");
    }
    // A longer header is not even read.
    fs::write(&path, 100_000_001u64.to_le_bytes()).unwrap();
    let (held, opened) = peak(|| Checkpoint::open(&path));
    assert!(opened.is_err() && held < 1 << 16);
}
