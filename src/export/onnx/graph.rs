//! A graph under way: nodes in the order in which they run, and the tensors that they read besides.

use std::collections::{BTreeMap, BTreeSet};

use half::f16;

use super::proto::{self, Attribute, Node};

/// The values of a tensor of the file.
#[derive(Debug)]
pub(super) enum Data {
    F32(Vec<f32>),
    F16(Vec<f16>),
    I8(Vec<i8>),
    I64(Vec<i64>),
}

impl Data {
    pub(super) fn element(&self) -> i32 {
        match self {
            Self::F32(_) => proto::FLOAT,
            Self::F16(_) => proto::FLOAT16,
            Self::I8(_) => proto::INT8,
            Self::I64(_) => proto::INT64,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::I8(values) => values.len(),
            Self::I64(values) => values.len(),
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::I8(values) => values.iter().map(|v| v.cast_unsigned()).collect(),
            Self::I64(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }
}

/// A tensor that the file holds.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) dims: Vec<usize>,
    pub(super) data: Data,
}

impl Stored {
    /// Bytes of its values.
    pub(super) fn size(&self) -> usize {
        let each = match &self.data {
            Data::F32(_) => 4,
            Data::F16(_) => 2,
            Data::I8(_) => 1,
            Data::I64(_) => 8,
        };
        each * self.data.len()
    }
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) stored: Vec<Stored>,
    names: BTreeSet<String>,
    /// Small tensors of whole numbers and single floats, by what they hold.
    constants: BTreeMap<String, String>,
    scope: String,
}

impl Graph {
    /// Names the nodes from here on after a value of the network.
    pub(super) fn enter(&mut self, scope: &str) {
        self.scope = scope.replace(' ', "_");
    }

    /// `name`, or with a number behind it if there is one already.
    pub(super) fn unique(&mut self, name: String) -> String {
        let mut free = name.clone();
        let mut count = 1;
        while !self.names.insert(free.clone()) {
            count += 1;
            free = format!("{name}_{count}");
        }
        free
    }

    /// A node with one output, whose name is returned.
    pub(super) fn node(&mut self, op: &str, inputs: &[&str], attribute: Vec<Attribute>) -> String {
        let name = self.unique(format!("{}/{op}", self.scope));
        self.node_to(op, inputs, attribute, &[&name]);
        name
    }

    /// A node whose outputs have names already.
    pub(super) fn node_to(&mut self, op: &str, inputs: &[&str], attribute: Vec<Attribute>, outputs: &[&str]) {
        let [input, output] = [inputs, outputs].map(|names| names.iter().map(ToString::to_string).collect());
        let name = Some(outputs[0].into());
        self.nodes.push(Node { input, output, name, op_type: Some(op.into()), attribute });
    }

    /// A tensor of the file; its name is `name`, or one like it.
    pub(super) fn store(&mut self, name: &str, dims: &[usize], data: Data) -> String {
        assert_eq!(dims.iter().product::<usize>(), data.len(), "{name}: as many values as its shape has");
        let name = self.unique(name.into());
        self.stored.push(Stored { name: name.clone(), dims: dims.into(), data });
        name
    }

    /// A list of whole numbers.
    pub(super) fn ints(&mut self, values: &[i64]) -> String {
        self.constant(format!("ints {values:?}"), &[values.len()], Data::I64(values.into()))
    }

    /// One whole number.
    pub(super) fn int(&mut self, value: i64) -> String {
        self.constant(format!("int {value}"), &[], Data::I64(vec![value]))
    }

    /// One number.
    pub(super) fn float(&mut self, value: f32) -> String {
        self.constant(format!("float {value}"), &[], Data::F32(vec![value]))
    }

    /// A tensor that may have been stored already under `key`.
    pub(super) fn constant(&mut self, key: String, dims: &[usize], data: Data) -> String {
        if let Some(name) = self.constants.get(&key) {
            return name.clone();
        }
        let name = self.store(&key.replace(' ', "_"), dims, data);
        self.constants.insert(key, name.clone());
        name
    }

    // The nodes that are written most.

    pub(super) fn reshape(&mut self, value: &str, shape: &[i64]) -> String {
        let shape = self.ints(shape);
        self.node("Reshape", &[value, &shape], vec![])
    }

    pub(super) fn transpose(&mut self, value: &str, order: &[usize]) -> String {
        self.node("Transpose", &[value], vec![Attribute::ints("perm", order)])
    }

    pub(super) fn two(&mut self, op: &str, a: &str, b: &str) -> String {
        self.node(op, &[a, b], vec![])
    }

    pub(super) fn one(&mut self, op: &str, value: &str) -> String {
        self.node(op, &[value], vec![])
    }

    /// `op` with one number.
    pub(super) fn by(&mut self, op: &str, value: &str, number: f32) -> String {
        let number = self.float(number);
        self.two(op, value, &number)
    }

    /// A reduction over `axes`, which stay with a length of 1.
    pub(super) fn reduce(&mut self, op: &str, value: &str, axes: &[i64]) -> String {
        let axes = self.ints(axes);
        self.node(op, &[value, &axes], vec![Attribute::int("keepdims", 1)])
    }

    /// `count` places of an axis from `first` on.
    pub(super) fn slice(&mut self, value: &str, axis: i64, first: usize, count: usize) -> String {
        let [from, to] = [first, first + count].map(|at| self.ints(&[at as i64]));
        let axis = self.ints(&[axis]);
        self.node("Slice", &[value, &from, &to, &axis], vec![])
    }

    /// One place of an axis, which goes.
    pub(super) fn pick(&mut self, value: &str, axis: i64, at: i64) -> String {
        let at = self.int(at);
        self.node("Gather", &[value, &at], vec![Attribute::int("axis", axis)])
    }

    pub(super) fn concat(&mut self, parts: &[&str], axis: i64) -> String {
        self.node("Concat", parts, vec![Attribute::int("axis", axis)])
    }
}
