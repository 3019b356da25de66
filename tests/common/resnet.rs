//! The ResNets of `fixtures/generate_resnet.py`, with PyTorch's names for their tensors.

use std::collections::BTreeMap;

use super::{Fixture, fixture_path};
use tpgm::checkpoint::Overrides;
use tpgm::method::Snapshot;
use tpgm::model::Model;
use tpgm::train::source::Source;

/// All of them.
pub const NAMES: [&str; 5] = ["resnet_basic", "resnet_bottleneck", "resnext", "resnet_d", "clip_resnet"];

/// A fixture's model, its start, and the names that PyTorch has for its tensors.
pub struct Net {
    pub model: Model,
    pub start: Snapshot,
    pub names: BTreeMap<String, String>,
}

pub fn open(name: &str) -> Net {
    let config = Fixture::open(&format!("{name}_golden")).json("config");
    let size = |key: &str| config[key].as_u64().map(|size| size as usize);
    let overrides = Overrides { image_size: size("image_size"), heads: size("heads"), ..Overrides::default() };
    let source = Source::open(&fixture_path(name), &overrides).unwrap();
    let names = source.recognised.names.iter().chain(&source.recognised.buffers).cloned().collect();
    Net { model: source.model(), start: source.snapshot(), names }
}

/// The batches that the rows of `key` name.
pub fn batches(fixture: &Fixture, key: &str) -> Vec<(Vec<f32>, Vec<u32>)> {
    let images = Fixture::open(fixture.json("images").as_str().unwrap());
    let (pixels, labels) = (images.f32("images"), images.u32("labels"));
    let one = pixels.len() / labels.len();
    let rows = fixture.u32(key);
    let cut = |row: &[u32]| {
        let of = |i: &u32| pixels[*i as usize * one..(*i as usize + 1) * one].to_vec();
        (row.iter().flat_map(of).collect(), row.iter().map(|i| labels[*i as usize]).collect())
    };
    rows.chunks(fixture.shape(key)[1]).map(cut).collect()
}
