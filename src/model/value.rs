//! What stands on a tape besides its layers: values and their shapes, and references to parameters.

use std::ops::Range;

use crate::gpu::buffer::Element;
use crate::shapes::Activation;

/// A value on the tape: what a layer gives, for others to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act(pub(super) usize);

impl Act {
    /// Its place among the tape's values.
    pub fn place(self) -> usize {
        self.0
    }
}

/// A parameter, a part of one, or neighbouring ones read as one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamRef {
    /// Its place in the layout, or the first one's.
    pub(super) index: usize,
    /// How many parameters it reaches over.
    pub(super) count: usize,
    /// Elements left out at the start.
    pub(super) skip: usize,
    /// Number of elements.
    pub(super) len: usize,
}

impl ParamRef {
    /// The places of its parameters.
    pub(super) fn places(self) -> Range<usize> {
        self.index..self.index + self.count
    }

    /// Number of elements.
    pub fn elements(self) -> usize {
        self.len
    }

    /// `len` elements from `skip` on.
    pub fn part(self, skip: usize, len: usize) -> ParamRef {
        assert!(skip + len <= self.len, "a part {skip}..{} of {} elements", skip + len, self.len);
        ParamRef { skip: self.skip + skip, len, ..self }
    }

    /// Parameters that were declared one after another, as one tensor.
    pub fn joined(parts: &[ParamRef]) -> ParamRef {
        let first = parts[0];
        assert!(parts.windows(2).all(|p| p[0].index + 1 == p[1].index), "parameters that lie apart");
        ParamRef { count: parts.len(), len: parts.iter().map(|p| p.len).sum(), ..first }
    }
}

/// A running statistic, by its place among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistic(pub(super) usize);

/// The shape of a value: `height` × `width` pixels, or a row of `height` tokens, of `cols` channels for each image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Images.
    pub batch: usize,
    /// Pixels from top to bottom, or tokens.
    pub height: usize,
    /// Pixels from left to right; 1 for tokens.
    pub width: usize,
    /// Channels.
    pub cols: usize,
}

impl Shape {
    /// Rows of `cols` channels.
    pub fn rows(self) -> usize {
        self.batch * self.pixels()
    }

    /// Pixels or tokens of an image.
    pub fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Elements.
    pub fn len(self) -> usize {
        self.rows() * self.cols
    }

    /// Whether there are no elements.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether there is one row per image.
    pub fn is_pooled(self) -> bool {
        self.pixels() == 1
    }

    /// The same rows of `cols` channels.
    pub fn with_cols(self, cols: usize) -> Shape {
        Shape { cols, ..self }
    }

    /// One row of `cols` channels for each image.
    pub fn pooled(self, cols: usize) -> Shape {
        Shape { height: 1, width: 1, cols, ..self }
    }
}

/// What the tape knows of a value.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) label: String,
    pub(super) shape: Shape,
    pub(super) element: Element,
    pub(super) memory: Memory,
    pub(super) segment: Option<usize>,
    /// Whether it is read outside its segment.
    pub(super) leaves: bool,
    /// The value of which this one is the activation.
    pub(super) activates: Option<(Act, Activation)>,
    /// Whether the layer that made it takes a gradient together with a ReLU's mask.
    pub(super) masked: bool,
    /// Layers that read it.
    pub(super) readers: usize,
}

impl Value {
    /// What its tensor is called; none if it has no memory.
    pub(super) fn tensor(&self) -> Option<String> {
        match self.memory {
            Memory::None => None,
            Memory::Host => Some(self.label.clone()),
            Memory::Shared | Memory::Held => Some(format!("activation {}", self.label)),
        }
    }
}

/// Whether a value has memory, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// From the first dispatch that touches it to the last.
    Shared,
    /// The same, and a segment does not drop it.
    Held,
    /// The host's, for as long as the activations are there.
    Host,
    /// None: it is only there for its gradient.
    None,
}
