//! The tape: a network's forward pass, written down once as a list of layers over values. It names and shapes every parameter,
//! and notes what each layer reads and writes; nothing is computed while it is written.
//!
//! Three things are read off it: the parameters ([`ParamLayout`](crate::shapes::ParamLayout)), how long each tensor lives
//! ([`Activations`](crate::model::Activations)), and the dispatches of a forward and a backward pass
//! ([`Recording`](crate::model::recording::Recording)).

use std::fmt;
use std::ops::Range;

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::drops::Drops;
use crate::model::operation::Operation;
use crate::model::precision::Precision;
use crate::model::store::Store;
use crate::model::value::{Memory, Value};
use crate::ops::Recorder;
use crate::ops::distill::On;
use crate::ops::dropout::STATE_LEN;

pub use crate::model::value::{Act, ParamRef, Shape, Statistic};

/// The label of the value that random numbers come from.
pub(super) const RANDOM: &str = "random";

/// A network: its forward pass.
pub trait Network {
    /// Writes the layers from [`Tape::images`] on; returns the last value, `[batch, classes]` if there is a head.
    fn forward(&self, t: &mut Tape) -> Act;

    /// What it drops at random while it is trained.
    fn drops(&self) -> Drops {
        Drops::default()
    }

    /// Ranks over whose images together batch norm takes its statistics while it is trained.
    fn ranks(&self) -> usize {
        1
    }

    /// What a loss keeps near another model's while it is trained.
    fn distills(&self) -> Option<On> {
        None
    }

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

    /// What it computes in evaluation, for those who write the network for another runtime; nothing if they can't have it.
    fn operation(&self) -> Option<Operation> {
        None
    }
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
    /// Ranks that share the statistics of batch norms.
    pub(super) ranks: usize,
    /// The weights and biases of batch norms, by their place among the parameters.
    pub(super) norms: Vec<usize>,
    /// What the host writes before a replay.
    pub(super) images: Option<Act>,
    pub(super) numbers: Vec<Act>,
    /// What it writes once, by the value's label.
    pub(super) constants: Vec<(String, Vec<f32>)>,
    pub(super) values: Vec<Value>,
    pub(super) entries: Vec<Entry>,
    /// The entries in the order whose reverse backward takes.
    pub(super) order: Vec<usize>,
    /// Entries that [`Tape::aside`] has put off.
    aside: Vec<usize>,
    scope: String,
    segment: Option<usize>,
    pub(super) segments: usize,
    pub(super) drops: Drops,
    /// The probability that the block that is being written drops its branches.
    pub(super) path: f64,
    /// Where random numbers come from, which the host writes before a pass: there if anything is dropped.
    pub(super) random: Option<Act>,
    /// Layers that draw random numbers so far.
    pub(super) drawn: u32,
    pub(super) distills: Option<On>,
    /// What enters the head.
    features: Option<Act>,
    pub(super) taught: Option<Taught>,
}

/// Values that a loss compares with another model's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taught {
    pub(super) on: On,
    /// The network's own.
    pub(super) student: Act,
    /// What another has in its place, which is there before the pass.
    pub(super) teacher: Act,
    /// The gradient that the loss gives, unless it is that of the logits.
    pub(super) gradient: Option<Act>,
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
            ranks: network.ranks(),
            norms: Vec::new(),
            images: None,
            numbers: Vec::new(),
            constants: Vec::new(),
            values: Vec::new(),
            entries: Vec::new(),
            order: Vec::new(),
            aside: Vec::new(),
            scope: String::new(),
            segment: None,
            segments: 0,
            drops: network.drops(),
            path: 0.0,
            random: None,
            drawn: 0,
            distills: network.distills(),
            features: None,
            taught: None,
        };
        if tape.drops.any() {
            let shape = Shape { batch: 1, height: 1, width: 1, cols: STATE_LEN };
            tape.random = Some(tape.value(RANDOM, shape, Element::Word, Memory::Host));
        }
        let out = network.forward(&mut tape);
        assert!(tape.aside.is_empty(), "layers put aside and never recalled");
        let last = &mut tape.values[out.0];
        (last.label, last.memory) = ("logits".into(), Memory::Host);
        tape.taught = tape.distills.and_then(|on| {
            let student = if on == On::Logits { out } else { tape.features? };
            let shape = tape.shape(student);
            assert_eq!(tape.element_of(student), Element::Word, "the distilled values are f32");
            let teacher = tape.value("teacher", shape, Element::Word, Memory::Host);
            let gradient = (on == On::Features)
                .then(|| tape.value("gradient of the teacher's loss", shape, Element::Word, Memory::Host));
            Some(Taught { on, student, teacher, gradient })
        });
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

    /// The operations in their order; a layer that has none is an error with its name.
    pub fn operations(&self) -> impl Iterator<Item = Result<Operation, String>> {
        self.entries.iter().map(|entry| {
            let named = || format!("{:?}", entry.layer).split([' ', '(']).next().unwrap_or_default().to_string();
            entry.layer.operation().ok_or_else(named)
        })
    }

    /// What a value is called, as no other is.
    pub fn label(&self, act: Act) -> &str {
        &self.values[act.0].label
    }

    /// The numbers of a [constant](Tape::constant), and their name.
    ///
    /// # Panics
    /// Where it is none.
    pub fn constant_of(&self, act: Act) -> (&str, &[f32]) {
        let label = self.label(act);
        let found = self.constants.iter().find(|(name, _)| name == label);
        let (name, values) = found.unwrap_or_else(|| panic!("{label} is no constant"));
        (name, values)
    }

    /// The parameters of which `param` is made, by their places among [`Network::parameters`],
    /// and the elements of each.
    pub fn pieces(&self, param: ParamRef) -> Vec<(usize, Range<usize>)> {
        let (mut skip, mut left, mut pieces) = (param.skip, param.len, Vec::new());
        for place in param.places() {
            let len: usize = self.params[place].1.iter().product();
            let (from, to) = (skip.min(len), (skip + left).min(len));
            if from < to {
                pieces.push((place, from..to));
            }
            left -= to - from;
            skip = skip.saturating_sub(len);
        }
        pieces
    }

    /// The place of a running statistic among [`Network::buffers`].
    pub fn place_of(&self, statistic: Statistic) -> usize {
        statistic.0
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

    /// The layers that were put [aside](Tape::aside) come here.
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

    /// Notes what enters the head.
    pub(super) fn enters_head(&mut self, features: Act) {
        if self.features.is_none() && self.distills == Some(On::Features) {
            self.features = Some(features);
            // A loss reads it as well, so that its gradient can't pass it by.
            self.values[features.0].readers += 1;
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

    /// Whole numbers `[batch, count]` u32, such as a text's tokens, which the host writes.
    pub fn numbers(&mut self, name: &str, count: usize) -> Act {
        let shape = Shape { batch: self.batch, height: count, width: 1, cols: 1 };
        let numbers = self.value(name, shape, Element::Word, Memory::Host);
        self.numbers.push(numbers);
        numbers
    }

    /// Numbers that are the same in every pass.
    pub fn constant(&mut self, name: &str, values: Vec<f32>) -> Act {
        let shape = Shape { batch: 1, height: 1, width: 1, cols: values.len() };
        let act = self.value(name, shape, Element::Word, Memory::Host);
        self.constants.push((self.named(name), values));
        act
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
