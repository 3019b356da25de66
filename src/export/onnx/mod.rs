//! ONNX files: a network's tape as a graph of ONNX's operators, opset 18, with a batch of any size.
//!
//! `graph` holds nodes and tensors under way, `writer` the layouts of values; `lower`, `pixels` and `tokens` write each
//! operation, `preprocess` what stands before the network, `weights` how parameters are stored, and [`proto`] has the file's
//! messages. Every layer says by [`Layer::operation`](crate::model::tape::Layer::operation) what it computes; one that does not is an
//! error.

mod graph;
mod lower;
mod pixels;
mod preprocess;
pub mod proto;
mod tokens;
mod weights;
mod writer;

use std::path::{Path, PathBuf};

use prost::Message;
use serde_json::json;

use crate::atomic::{AtomicFile, atomic_write};
use crate::checkpoint::{Recognised, Weight};
use crate::error::{Error, Result};
use crate::model::{Precision, Tape};

use self::graph::{Graph, Stored};
use self::proto::{Entry, ValueInfo};
use self::weights::Weights;
use self::writer::Writer;

pub use self::preprocess::sentence;
pub use self::weights::Format;

/// The version of ONNX's operators. 17 has layer norm, 18 lets `Resize` filter as it shrinks, which preprocessing needs.
pub const OPSET: i64 = 18;
/// The version of the file's format that goes with it.
const IR_VERSION: i64 = 8;
/// The most bytes of tensors that the file itself holds: protocol buffers end at 2 GiB.
pub const LIMIT: usize = 1_900_000_000;

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How the weights of products are stored.
    pub weights: Format,
    /// Whether the graph reads pixels as a decoder gives them, and not normalised images.
    pub with_preprocessing: bool,
    /// The most bytes of tensors in the file itself; more go to another one beside it.
    pub limit: usize,
}

/// The files that were written.
#[derive(Debug)]
pub struct Written {
    /// The file with the tensors, if that is another one.
    pub data: Option<PathBuf>,
    /// Bytes of both.
    pub bytes: usize,
    /// Nodes of the graph.
    pub nodes: usize,
    /// The parameters as the file has them, where they were rounded.
    pub rounded: Vec<Weight>,
}

/// Writes the model to the file `path`. `params` and `statistics` are in the order of the model's.
///
/// # Errors
/// [`Error::Checkpoint`] naming a layer that ONNX can't be told of, or a weight that does not fit the format; [`Error::Usage`] where
/// preprocessing is asked for that the graph can't do; and an unwritable path.
pub fn write(
    path: &Path,
    recognised: &Recognised,
    (params, statistics): (&[Weight], &[Weight]),
    options: Options,
) -> Result<Written> {
    let config = &recognised.config;
    let (tape, logits) = Tape::of(config, 1, Precision::F32);
    let channels = if config.grey() { 1 } else { 3 };
    let size = config.image_size();
    let mut graph = Graph::default();
    let (input, images) = if options.with_preprocessing {
        preprocess::write(&mut graph, &recognised.preprocess)?
    } else {
        let name = graph.unique("images".into());
        let doc = format!("normalised: {}", preprocess::sentence(&recognised.preprocess));
        let shape = [Err("batch"), Ok(channels), Ok(size), Ok(size)];
        (ValueInfo::new(&name, proto::FLOAT, &shape, &doc), name)
    };
    let weights = Weights::new(params, statistics, options.weights);
    let mut writer = Writer::new(&tape, weights, graph, images, channels);
    for operation in tape.operations() {
        let unknown = |layer| Error::Train(format!("the layer {layer} has no counterpart in ONNX yet"));
        operation
            .map_err(unknown)
            .and_then(|operation| writer.write(operation))
            .map_err(|e| Error::checkpoint(path, format!("not written: {e}")))?;
    }
    let last = writer.rows(logits);
    writer.graph.node_to("Identity", &[&last], vec![], &["logits"]);
    let Writer { graph: Graph { nodes, stored, .. }, weights, .. } = writer;
    let classes = config.classes();
    let output = ValueInfo::new("logits", proto::FLOAT, &[Err("batch"), Ok(classes)], "before softmax");
    let count = nodes.len();
    let graph = proto::Graph {
        node: nodes,
        name: Some(recognised.family.into()),
        initializer: Vec::new(),
        input: vec![input],
        output: vec![output],
    };
    let model = proto::Model {
        ir_version: Some(IR_VERSION),
        producer_name: Some("tpgm".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        doc_string: None,
        graph: Some(graph),
        opset_import: vec![proto::OperatorSetId { domain: Some(String::new()), version: Some(OPSET) }],
        metadata_props: metadata(recognised, options),
    };
    let (bytes, data) = save(path, model, &stored, options.limit)?;
    Ok(Written { data, bytes, nodes: count, rounded: weights.rounded })
}

/// What runtimes hand on: how the input is made, and what the outputs stand for.
fn metadata(recognised: &Recognised, options: Options) -> Vec<Entry> {
    let input = &recognised.preprocess;
    let mut entries = vec![
        Entry::new("family", recognised.family),
        Entry::new("preprocess", json!(input).to_string()),
        Entry::new("preprocess.steps", preprocess::sentence(input)),
        Entry::new("preprocess.in_graph", options.with_preprocessing.to_string()),
        Entry::new("image_size", input.image_size.to_string()),
        Entry::new("mean", json!(input.mean).to_string()),
        Entry::new("std", json!(input.std).to_string()),
        Entry::new("weights", options.weights.name()),
        Entry::new("outputs", "logits"),
    ];
    let task = if recognised.thresholds.is_some() { "multi-label" } else { "single-label" };
    entries.push(Entry::new("task", task));
    if let Some(thresholds) = &recognised.thresholds {
        entries.push(Entry::new("thresholds", json!(thresholds).to_string()));
    }
    if let Some(classes) = &recognised.classes {
        entries.push(Entry::new("classes", json!(classes).to_string()));
    }
    entries
}

/// Writes the file, and one with the tensors beside it if they are more than `limit` bytes.
fn save(path: &Path, mut model: proto::Model, stored: &[Stored], limit: usize) -> Result<(usize, Option<PathBuf>)> {
    let total: usize = stored.iter().map(Stored::size).sum();
    let beside = (total > limit).then(|| {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".data");
        path.with_file_name(name)
    });
    let mut data = beside.as_ref().map(AtomicFile::create).transpose()?;
    let name = beside.as_ref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    let (mut offset, mut tensors) = (0usize, Vec::new());
    for tensor in stored {
        let mut written = proto::Tensor {
            dims: tensor.dims.iter().map(|dim| *dim as i64).collect(),
            data_type: Some(tensor.data.element()),
            name: Some(tensor.name.clone()),
            ..proto::Tensor::default()
        };
        let bytes = tensor.data.bytes();
        // Shapes and indices are needed to check the graph, and small.
        match (&mut data, &name) {
            (Some(file), Some(name)) if tensor.data.element() != proto::INT64 => {
                // Runtimes map the file, and want a tensor to begin at a page.
                let skip = offset.next_multiple_of(4096) - offset;
                file.write(&vec![0; skip])?;
                offset += skip;
                file.write(&bytes)?;
                written.data_location = Some(proto::EXTERNAL);
                let place =
                    [("location", name.clone()), ("offset", offset.to_string()), ("length", bytes.len().to_string())];
                written.external_data = place.map(|(key, value)| Entry::new(key, value)).into();
                offset += bytes.len();
            }
            _ => written.raw_data = Some(bytes),
        }
        tensors.push(written);
    }
    model.graph.as_mut().expect("it was just made").initializer = tensors;
    let bytes = model.encode_to_vec();
    if let Some(data) = data {
        data.commit()?;
    }
    atomic_write(path, &bytes)?;
    Ok((bytes.len() + offset, beside))
}
