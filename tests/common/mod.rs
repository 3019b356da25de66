//! What the GPU tests share: one device per process, random tensors, guard bands, comparisons.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

pub mod resnet;
pub mod threads;

use std::sync::OnceLock;

use tpgm::checkpoint::Overrides;
use tpgm::gpu::Gpu;
use tpgm::gpu::tiles::{Tile, Variant};
use tpgm::method::Snapshot;
use tpgm::model::resnet_config::{Block, BlockConfig, Downsample, Pooling, ResNetConfig, Stem};
use tpgm::model::{Model, VitConfig};
#[allow(unused_imports)] // not every test has random values
pub use tpgm::random::Random;
use tpgm::train::source::Source;

/// The device under test: `TPGM_TEST_ADAPTER` picks it (as `--adapter` does), runtime checks are on unless
/// `TPGM_TEST_UNCHECKED` is set, and `TPGM_TEST_TILE` (as `cooperative`) has every product computed in that tile if it suits. No
/// adapter is a failure.
pub fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let wanted = std::env::var("TPGM_TEST_ADAPTER").ok();
        let checked = std::env::var_os("TPGM_TEST_UNCHECKED").is_none();
        let gpu = Gpu::open(wanted.as_deref(), checked).unwrap_or_else(|e| panic!("{e}"));
        if let Ok(name) = std::env::var("TPGM_TEST_TILE") {
            let tile = serde_json::from_value(name.clone().into()).unwrap_or_else(|e| panic!("TPGM_TEST_TILE: {e}"));
            assert!(gpu.runs(tile), "TPGM_TEST_TILE: {} can't run {name}", gpu.info.name);
            gpu.force_variant(Some(Variant { tile, split: 1 }));
        }
        gpu
    })
}

/// Runs `test` on a device of its own for every tile that this adapter can run, with all products in that tile.
pub fn with_every_tile(test: impl Fn(&Gpu)) {
    let wanted = std::env::var("TPGM_TEST_ADAPTER").ok();
    for tile in Tile::ALL {
        let gpu = Gpu::open(wanted.as_deref(), true).unwrap_or_else(|e| panic!("{e}"));
        if !gpu.runs(tile) {
            continue;
        }
        gpu.force_variant(Some(Variant { tile, split: 1 }));
        println!("{tile:?}");
        test(&gpu);
    }
}

/// A file of `tests/fixtures/`. A missing file, key or type is a failure.
pub struct Fixture {
    bytes: Vec<u8>,
    name: String,
}

impl Fixture {
    pub fn open(name: &str) -> Fixture {
        let path = fixture_path(name);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Fixture { bytes, name: name.to_string() }
    }

    pub fn tensors(&self) -> safetensors::SafeTensors<'_> {
        safetensors::SafeTensors::deserialize(&self.bytes).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    pub fn has(&self, key: &str) -> bool {
        self.tensors().names().contains(&key)
    }

    pub fn shape(&self, key: &str) -> Vec<usize> {
        self.tensors().tensor(key).unwrap_or_else(|e| panic!("{}: {key}: {e}", self.name)).shape().to_vec()
    }

    pub fn f32(&self, key: &str) -> Vec<f32> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(key).unwrap_or_else(|e| panic!("{}: {key}: {e}", self.name));
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{}: {key}", self.name);
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub fn u32(&self, key: &str) -> Vec<u32> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(key).unwrap_or_else(|e| panic!("{}: {key}: {e}", self.name));
        assert_eq!(tensor.dtype(), safetensors::Dtype::I32, "{}: {key}", self.name);
        let values = tensor.data().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()));
        values.map(|v| u32::try_from(v).expect("labels and counts are not negative")).collect()
    }

    /// A metadata entry parsed as JSON.
    pub fn json(&self, key: &str) -> serde_json::Value {
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&self.bytes).unwrap();
        let text =
            metadata.metadata().as_ref().and_then(|m| m.get(key)).unwrap_or_else(|| panic!("{}: no {key}", self.name));
        serde_json::from_str(text).unwrap_or_else(|e| panic!("{}: {key}: {e}", self.name))
    }
}

pub fn fixture_path(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.safetensors"))
}

/// The largest |got − want|, over the largest |want|. NaN counts as infinite.
pub fn relative(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len(), "lengths differ");
    let scale = want.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    got.iter().zip(want).fold(0.0, |worst: f32, (g, w)| {
        let error = (g - w).abs();
        if error.is_nan() { f32::INFINITY } else { worst.max(error) }
    }) / scale.max(f32::MIN_POSITIVE)
}

/// torchvision's ResNet-50 for ImageNet at 224 pixels.
pub fn resnet_50() -> ResNetConfig {
    let stage = |count, inner, stride| {
        let block = |i| BlockConfig {
            inner,
            out: 4 * inner,
            stride: if i == 0 { stride } else { 1 },
            downsample: i == 0,
            ..BlockConfig::default()
        };
        (0..count).map(block).collect::<Vec<_>>()
    };
    ResNetConfig {
        image_size: 224,
        block: Block::Bottleneck,
        stem: Stem::Conv,
        stem_widths: vec![64],
        stages: vec![stage(3, 64, 1), stage(4, 128, 2), stage(6, 256, 2), stage(3, 512, 2)],
        downsample: Downsample::Conv,
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
        pooling: Pooling::Mean,
        eps: 1e-5,
        momentum: 0.1,
        classes: 1000,
        head_bias: true,
        normalize: false,
        grey: false,
    }
}

/// A fixture's model with its weights; ResNets at 36 pixels.
pub fn open(name: &str) -> (Model, Snapshot) {
    if name.starts_with("resnet") {
        let overrides = Overrides { image_size: Some(36), ..Overrides::default() };
        let source = Source::open(&fixture_path(name), &overrides).unwrap();
        return (source.model(), source.snapshot());
    }
    let config: VitConfig = serde_json::from_value(Fixture::open(&format!("{name}_golden")).json("config")).unwrap();
    let model = Model::new(config);
    let file = Fixture::open(name);
    let tensors: Vec<Vec<f32>> = model.layout().params.iter().map(|p| file.f32(&p.name)).collect();
    let weights = model.layout().pack(tensors.iter().map(Vec::as_slice));
    (model, Snapshot::of_weights(weights))
}
