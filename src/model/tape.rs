//! The tape: a network's forward pass, written down once as a list of layers over values. It names and shapes every parameter,
//! and knows of every value what made it and who reads it; nothing is computed while it is written.
//!
//! Three things are read off it: the parameters ([`ParamLayout`](crate::shapes::ParamLayout)), how long each tensor lives
//! ([`Activations`](crate::model::Activations)), and the dispatches of a forward and a backward pass
//! ([`Recording`](crate::model::recording::Recording)).

use std::fmt;
use std::ops::Range;

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::precision::Precision;
use crate::model::store::Store;
use crate::ops::Recorder;
use crate::shapes::Activation;

/// A network: its forward pass.
pub trait Network {
    /// Writes the layers from [`Tape::images`] on; returns the last value, `[batch, classes]` where there is a head.
    fn forward(&self, t: &mut Tape) -> Act;

    /// Every parameter by its canonical name with its shape; the head comes last and only if there is one. Names and order
    /// are the libraries' own: timm's, torchvision's, OpenCLIP's.
    fn parameters(&self) -> Vec<(String, Vec<usize>)>
    where
        Self: Sized,
    {
        Tape::of(self, 1, Precision::F32).0.params
    }

    /// Running statistics by name with their shapes: tensors that a network has besides its parameters.
    fn buffers(&self) -> Vec<(String, Vec<usize>)>
    where
        Self: Sized,
    {
        Tape::of(self, 1, Precision::F32).0.statistics
    }
}

/// A value on the tape: what a layer gives, for others to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act(pub(super) usize);

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

    /// The same rows of `cols` channels.
    pub fn with_cols(self, cols: usize) -> Shape {
        Shape { cols, ..self }
    }

    /// One row of `cols` channels for each image.
    pub fn pooled(self, cols: usize) -> Shape {
        Shape { height: 1, width: 1, cols, ..self }
    }
}

/// A layer: its forward pass and its reverse, beside each other.
pub trait Layer: fmt::Debug {
    /// Writes its values from those that it reads.
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()>;

    /// Does once more, in backward, what a segment has dropped. If its result `leaves` the segment, that is still there, and
    /// so is all else that the layer wrote and has not [renewed](Store::renew).
    fn again(&self, s: &mut Store, r: &mut Recorder, leaves: bool) -> Result<()> {
        if leaves { Ok(()) } else { self.forward(s, r) }
    }

    /// From the gradient of its result to those of what it read, where they are [wanted](Store::wants), and of its parameters.
    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()>;

    /// Elements of scratch that its passes need.
    fn scratch(&self) -> usize {
        0
    }

    /// Multiply-adds of its products, in the forward pass.
    fn macs(&self) -> usize {
        0
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

/// A layer and what it reads and writes.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) layer: Box<dyn Layer>,
    pub(super) reads: Vec<Act>,
    pub(super) params: Vec<ParamRef>,
    pub(super) writes: Vec<Act>,
    pub(super) segment: Option<usize>,
}

/// Layers over values, in the order in which they run.
#[derive(Debug)]
pub struct Tape {
    pub(super) batch: usize,
    precision: Precision,
    /// Name and shape of every parameter, in the order in which they are declared.
    pub(super) params: Vec<(String, Vec<usize>)>,
    /// The same of every running statistic.
    pub(super) statistics: Vec<(String, Vec<usize>)>,
    /// The parameters that f16 products read, by their place.
    pub(super) half: Vec<usize>,
    /// The fewest pixels of an image that a batch norm sees.
    pub(super) norm_pixels: Option<usize>,
    /// What the host writes.
    pub(super) images: Option<Act>,
    pub(super) values: Vec<Value>,
    pub(super) entries: Vec<Entry>,
    /// The entries in the order whose reverse backward takes.
    pub(super) order: Vec<usize>,
    /// Entries that [`Tape::aside`] has put off.
    aside: Vec<usize>,
    scope: String,
    segment: Option<usize>,
    pub(super) segments: usize,
}

impl Tape {
    /// The forward pass of `network` over `batch` images, and the value that it ends in.
    pub fn of(network: &dyn Network, batch: usize, precision: Precision) -> (Tape, Act) {
        let mut tape = Tape {
            batch,
            precision,
            params: Vec::new(),
            statistics: Vec::new(),
            half: Vec::new(),
            norm_pixels: None,
            images: None,
            values: Vec::new(),
            entries: Vec::new(),
            order: Vec::new(),
            aside: Vec::new(),
            scope: String::new(),
            segment: None,
            segments: 0,
        };
        let out = network.forward(&mut tape);
        assert!(tape.aside.is_empty(), "layers put aside and never recalled");
        let last = &mut tape.values[out.0];
        (last.label, last.memory) = ("logits".into(), Memory::Host);
        (tape, out)
    }

    /// What activations hold that may be f16.
    pub fn element(&self) -> Element {
        self.precision.element()
    }

    /// The shape of a value.
    pub fn shape(&self, act: Act) -> Shape {
        self.values[act.0].shape
    }

    /// What a value holds.
    pub fn element_of(&self, act: Act) -> Element {
        self.values[act.0].element
    }

    /// Elements of scratch that the layers need.
    pub(super) fn scratch(&self) -> usize {
        self.entries.iter().map(|entry| entry.layer.scratch()).max().unwrap_or(0)
    }

    /// Multiply-adds of each layer that has any, in the forward pass.
    pub fn macs(&self) -> impl Iterator<Item = usize> {
        self.entries.iter().map(|entry| entry.layer.macs()).filter(|macs| *macs > 0)
    }

    /// Writes layers whose names begin with `scope`.
    pub fn within<T>(&mut self, scope: &str, write: impl FnOnce(&mut Tape) -> T) -> T {
        let inside = self.named(scope);
        let outside = std::mem::replace(&mut self.scope, inside);
        let result = write(self);
        self.scope = outside;
        result
    }

    /// Writes a segment: of all values inside, only the one that `write` returns may be read outside. Where activations are
    /// recomputed, a segment keeps what enters and leaves it, and backward computes the rest once more.
    pub fn segment(&mut self, write: impl FnOnce(&mut Tape) -> Act) -> Act {
        assert!(self.segment.is_none(), "a segment inside a segment");
        self.segment = Some(self.segments);
        self.segments += 1;
        let out = write(self);
        if self.values[out.0].segment == self.segment {
            self.values[out.0].leaves = true;
        }
        self.segment = None;
        out
    }

    /// Writes layers that run now, but whose reverse is put off until [`Tape::recall`]: with several such branches, that of the
    /// latest comes last. So the shares of a common input's gradient can come in another order than the reverse of forward's.
    pub fn aside<T>(&mut self, write: impl FnOnce(&mut Tape) -> T) -> T {
        let from = self.order.len();
        let result = write(self);
        self.aside.splice(0..0, self.order.drain(from..));
        result
    }

    /// What was put [aside](Tape::aside) comes here.
    pub fn recall(&mut self) {
        self.order.append(&mut self.aside);
    }

    /// `name` inside the scope.
    pub fn named(&self, name: &str) -> String {
        match self.scope.as_str() {
            "" => name.to_string(),
            scope => format!("{scope}.{name}"),
        }
    }

    /// Declares a parameter: its name in the scope, and its shape.
    pub fn param(&mut self, name: &str, shape: &[usize]) -> ParamRef {
        let name = self.named(name);
        self.params.push((name, shape.to_vec()));
        ParamRef { index: self.params.len() - 1, count: 1, skip: 0, len: shape.iter().product() }
    }

    /// Declares a running statistic of `len` values.
    pub fn statistic(&mut self, name: &str, len: usize) -> Statistic {
        let name = self.named(name);
        self.statistics.push((name, vec![len]));
        Statistic(self.statistics.len() - 1)
    }

    /// The images `[batch, 3, size, size]`, normalised, which the host writes.
    pub fn images(&mut self, size: usize) -> Act {
        let shape = Shape { batch: self.batch, height: size, width: size, cols: 3 };
        let images = self.value("images", shape, Element::Word, Memory::Host);
        self.images = Some(images);
        images
    }

    /// A value of a layer.
    pub(super) fn act(&mut self, name: &str, shape: Shape, element: Element) -> Act {
        self.value(name, shape, element, Memory::Shared)
    }

    /// `len` words that a layer keeps for its reverse.
    pub(super) fn saved(&mut self, name: &str, len: usize) -> Act {
        self.value(name, Shape { batch: 1, height: 1, width: 1, cols: len }, Element::Word, Memory::Shared)
    }

    pub(super) fn value(&mut self, name: &str, shape: Shape, element: Element, memory: Memory) -> Act {
        let (label, segment) = (self.named(name), self.segment);
        let (leaves, activates, masked, readers) = (false, None, false, 0);
        self.values.push(Value { label, shape, element, memory, segment, leaves, activates, masked, readers });
        Act(self.values.len() - 1)
    }

    /// Notes that products read `weight` in this format.
    pub(super) fn product(&mut self, weight: ParamRef, element: Element) {
        if element == Element::Half {
            self.half.extend(weight.places());
        }
    }

    /// Writes a layer. `writes` are all values that it makes, its result among them.
    pub(super) fn push(&mut self, layer: impl Layer + 'static, reads: &[Act], params: &[ParamRef], writes: &[Act]) {
        for read in reads {
            let value = &mut self.values[read.0];
            value.readers += 1;
            let inside = value.segment.is_none() || value.leaves || value.segment == self.segment;
            assert!(inside, "{} is read outside its segment", value.label);
            let put_off = self.aside.iter().any(|&i| self.entries[i].writes.contains(read));
            assert!(!put_off, "{} is read before it is recalled", value.label);
        }
        let (layer, segment) = (Box::new(layer), self.segment);
        self.entries.push(Entry { layer, reads: reads.into(), params: params.into(), writes: writes.into(), segment });
        self.order.push(self.entries.len() - 1);
    }
}
