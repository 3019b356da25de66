//! Checkpoints: what goes in comes out, and whatever a file does to us is one clear line.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use safetensors::tensor::{TensorView, serialize};
use tempfile::TempDir;
use tpgm::checkpoint::{Checkpoint, Dtype, Overrides, Recognised, fresh_vit, recognise};
use tpgm::data::preprocess::{CropMode, Preprocess};
use tpgm::data::resize::Interpolation;
use tpgm::error::{Error, Result};
use tpgm::model::config::{Pool, VitConfig};
use tpgm::shapes::Activation;
use tpgm::train::help::told;

#[path = "checkpoint/delta.rs"]
mod delta;
#[path = "checkpoint/file.rs"]
mod file;
#[path = "checkpoint/recognised.rs"]
mod recognised;
#[path = "checkpoint/saved.rs"]
mod saved;
#[path = "checkpoint/shards.rs"]
mod shards;

/// A file to be: name → (type, shape, bytes).
#[derive(Clone, Default)]
struct Model {
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    metadata: HashMap<String, String>,
}

impl Model {
    /// A timm ViT with random weights.
    fn vit(config: &VitConfig) -> Self {
        let mut model = Self { metadata: HashMap::from([("format".into(), "pt".into())]), ..Self::default() };
        for (name, shape, values) in fresh_vit(config, 1) {
            model.add(&name, Dtype::F32, &shape, values.iter().flat_map(|v| v.to_le_bytes()).collect());
        }
        model
    }

    fn add(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) {
        self.tensors.insert(name.into(), (dtype, shape.to_vec(), bytes));
    }

    fn add_f32(&mut self, name: &str, shape: &[usize]) {
        self.add(name, Dtype::F32, shape, vec![0; 4 * shape.iter().product::<usize>()]);
    }

    /// The same with every name passed through `rename`.
    fn renamed(self, rename: impl Fn(&str) -> String) -> Self {
        Self { tensors: self.tensors.into_iter().map(|(name, t)| (rename(&name), t)).collect(), ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let views = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        serialize(views, Some(self.metadata.clone())).unwrap()
    }

    /// Opened from a folder of its own, with a `config.json` where one is given.
    fn open(&self, config: Option<&str>) -> (TempDir, Result<Checkpoint>) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("model.safetensors"), self.bytes()).unwrap();
        if let Some(config) = config {
            fs::write(dir.path().join("config.json"), config).unwrap();
        }
        let opened = Checkpoint::open(dir.path());
        (dir, opened)
    }

    fn recognise(&self, config: Option<&str>, overrides: &Overrides) -> Result<Recognised> {
        let (_dir, checkpoint) = self.open(config);
        recognise(&checkpoint?, overrides)
    }
}

/// Width 64, so that the number of heads can be assumed: 1.
fn tiny() -> VitConfig {
    VitConfig {
        image_size: 8,
        patch_size: 4,
        dim: 64,
        depth: 2,
        heads: 1,
        mlp_dim: 8,
        classes: 3,
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

fn preprocess() -> Preprocess {
    let (mean, std) = ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]);
    let (crop_mode, interpolation) = (CropMode::Squash, Interpolation::Lanczos);
    Preprocess { image_size: 8, crop_pct: 0.875, crop_mode, interpolation, mean, std, grey: false }
}

/// The one line that the user sees; every part of it must be there.
#[track_caller]
fn assert_error<T>(result: Result<T>, parts: &[&str]) -> Error {
    let Err(error) = result else { panic!("expected an error with {parts:?}") };
    let (facts, told) = (error.to_string(), told(&error));
    assert!(!told.contains('\n'), "more than one line: {told}");
    assert!(!facts.contains("--"), "a flag among the facts: {facts}");
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
    error
}
