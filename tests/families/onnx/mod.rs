//! The operators of ONNX that exported networks use, in f64 and as their specification has them: an interpreter that shares nothing
//! with what writes the files.

mod operators;
mod resize;
mod windows;

use std::collections::BTreeMap;

use tpgm::export::onnx::proto::{self, Attribute, Model, Node};

/// A tensor; whole numbers are f64 as well.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f64>,
    /// Whether they are i64 in ONNX, whose quotients are whole.
    whole: bool,
}

impl Tensor {
    pub(super) fn new(shape: Vec<usize>, values: Vec<f64>) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{shape:?}");
        Tensor { shape, values, whole: false }
    }

    fn whole(self, whole: bool) -> Tensor {
        Tensor { whole, ..self }
    }

    fn ints(&self) -> Vec<i64> {
        self.values.iter().map(|v| *v as i64).collect()
    }

    /// Elements from one place of an axis to the next.
    fn strides(&self) -> Vec<usize> {
        (0..self.shape.len()).map(|axis| self.shape[axis + 1..].iter().product()).collect()
    }

    /// The tensor of this shape with the element that `at` finds for each place.
    fn gather(&self, shape: Vec<usize>, at: impl Fn(&[usize]) -> usize) -> Tensor {
        let values = places(&shape).map(|place| self.values[at(&place)]).collect();
        Tensor::new(shape, values).whole(self.whole)
    }

    fn map(&self, f: impl Fn(f64) -> f64) -> Tensor {
        Tensor::new(self.shape.clone(), self.values.iter().map(|v| f(*v)).collect())
    }
}

/// All places of a shape, row by row.
fn places(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    (0..shape.iter().product()).map(|mut i| {
        let mut place = vec![0; shape.len()];
        for axis in (0..shape.len()).rev() {
            place[axis] = i % shape[axis];
            i /= shape[axis];
        }
        place
    })
}

/// A node's attributes, with their defaults.
struct Given<'a>(&'a Node);

impl Given<'_> {
    fn find(&self, name: &str) -> Option<&Attribute> {
        self.0.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
    }

    fn int(&self, name: &str, usual: i64) -> i64 {
        self.find(name).map_or(usual, |attribute| attribute.i.expect("a whole number"))
    }

    fn float(&self, name: &str, usual: f64) -> f64 {
        self.find(name).map_or(usual, |attribute| f64::from(attribute.f.expect("a number")))
    }

    fn text(&self, name: &str) -> &str {
        self.find(name).map_or("", |attribute| std::str::from_utf8(attribute.s.as_deref().unwrap()).unwrap())
    }

    fn ints(&self, name: &str, usual: &[usize]) -> Vec<usize> {
        self.find(name).map_or(usual.to_vec(), |attribute| attribute.ints.iter().map(|v| *v as usize).collect())
    }
}

/// An axis that may be counted from the end.
fn axis_of(axis: i64, rank: usize) -> usize {
    if axis < 0 { (axis + rank as i64) as usize } else { axis as usize }
}

fn stored(tensor: &proto::Tensor) -> Tensor {
    let bytes = tensor.raw_data.as_deref().expect("values in the file");
    let shape = tensor.dims.iter().map(|dim| *dim as usize).collect();
    let values = match tensor.data_type.unwrap() {
        proto::FLOAT => bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
        proto::FLOAT16 => {
            bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f64()).collect()
        }
        proto::INT8 => bytes.iter().map(|b| f64::from(b.cast_signed())).collect(),
        proto::INT64 => bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        other => panic!("element type {other}"),
    };
    Tensor::new(shape, values).whole(tensor.data_type == Some(proto::INT64))
}

/// Runs a model that has one input and one output. Every name is given once, and before it is read.
pub(super) fn run(model: &Model, input: Tensor) -> Tensor {
    let graph = model.graph.as_ref().unwrap();
    let mut known = BTreeMap::new();
    let give = |known: &mut BTreeMap<String, Tensor>, name: &str, value: Tensor| {
        assert!(known.insert(name.to_string(), value).is_none(), "{name} is given twice");
    };
    for tensor in &graph.initializer {
        give(&mut known, tensor.name.as_deref().unwrap(), stored(tensor));
    }
    give(&mut known, graph.input[0].name.as_deref().unwrap(), input);
    for node in &graph.node {
        let read = |name: &String| known.get(name).unwrap_or_else(|| panic!("{name} is read before it is there"));
        // An input that is left out has no name.
        let inputs: Vec<&Tensor> = node.input.iter().filter(|name| !name.is_empty()).map(read).collect();
        let out = operators::run(node.op_type.as_deref().unwrap(), &inputs, &Given(node));
        let [name] = node.output.as_slice() else { panic!("{node:?} has one output") };
        give(&mut known, name, out);
    }
    known.remove(graph.output[0].name.as_deref().unwrap()).expect("the output is given")
}
