//! What every operation is written with: the tape's values in the layouts that ONNX wants, and parameters as tensors of the file.
//!
//! A value of the tape has channels last. Operations over tokens want that, `[batch, rows, cols]` ([`Writer::rows`]), and one row per
//! image as `[batch, cols]`. Operations over pixels want `[batch, channels, height, width]` ([`Writer::image`]). A value is
//! transposed when an operation wants the other layout, once.

use std::collections::HashMap;

use super::graph::{Data, Graph};
use super::proto::{self, Attribute};
use super::weights::{Product, Weights};
use crate::error::{Error, Result};
use crate::model::Tape;
use crate::model::tape::{Act, ParamRef, Shape};

/// Windows of an image, that no node has laid out: a linear layer over them is a convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    /// The image.
    pub(super) of: Act,
    pub(super) channels: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    /// Pixels above, to the left, below and to the right.
    pub(super) pads: [usize; 4],
}

/// The layouts in which there is a value.
#[derive(Clone, Debug, Default)]
struct Forms {
    image: Option<String>,
    rows: Option<String>,
    windows: Option<Windows>,
}

#[derive(Debug)]
pub(super) struct Writer<'a> {
    pub(super) graph: Graph,
    pub(super) tape: &'a Tape,
    pub(super) weights: Weights<'a>,
    /// The images `[batch, channels, size, size]`.
    pub(super) images: String,
    /// Channels of the images.
    pub(super) channels: usize,
    forms: HashMap<usize, Forms>,
    batch: Option<String>,
}

/// Zeros behind the last of `size` pixels.
pub(super) fn after(size: usize, before: usize, windows: usize, kernel: usize, stride: usize) -> usize {
    ((windows - 1) * stride + kernel).saturating_sub(size + before)
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        tape: &'a Tape,
        weights: Weights<'a>,
        graph: Graph,
        images: String,
        channels: usize,
    ) -> Writer<'a> {
        Writer { graph, tape, weights, images, channels, forms: HashMap::new(), batch: None }
    }

    pub(super) fn shape(&self, act: Act) -> Shape {
        self.tape.shape(act)
    }

    /// The number of images, `[1]`.
    pub(super) fn batch(&mut self) -> String {
        if let Some(batch) = &self.batch {
            return batch.clone();
        }
        let images = self.images.clone();
        let shape = self.graph.one("Shape", &images);
        let batch = self.graph.slice(&shape, 0, 0, 1);
        self.batch = Some(batch.clone());
        batch
    }

    fn forms(&mut self, act: Act) -> &mut Forms {
        self.forms.entry(act.place()).or_default()
    }

    pub(super) fn set_image(&mut self, act: Act, name: String) {
        self.forms(act).image = Some(name);
    }

    pub(super) fn set_rows(&mut self, act: Act, name: String) {
        self.forms(act).rows = Some(name);
    }

    pub(super) fn set_windows(&mut self, act: Act, windows: Windows) {
        self.forms(act).windows = Some(windows);
    }

    pub(super) fn windows(&mut self, act: Act) -> Option<Windows> {
        self.forms(act).windows
    }

    /// Whether a value's channels come first already.
    pub(super) fn is_image(&mut self, act: Act) -> bool {
        self.forms(act).image.is_some()
    }

    pub(super) fn is_rows(&mut self, act: Act) -> bool {
        self.forms(act).rows.is_some()
    }

    /// Whether values are best met with channels first: unless all have rows.
    pub(super) fn as_images(&mut self, acts: &[Act]) -> bool {
        !acts.iter().all(|act| self.is_rows(*act)) && acts.iter().any(|act| self.is_image(*act))
    }

    /// In one layout or the other.
    pub(super) fn get(&mut self, act: Act, image: bool) -> String {
        if image { self.image(act) } else { self.rows(act) }
    }

    pub(super) fn set(&mut self, act: Act, image: bool, name: String) {
        if image { self.set_image(act, name) } else { self.set_rows(act, name) }
    }

    /// `[batch, cols, height, width]`
    pub(super) fn image(&mut self, act: Act) -> String {
        if let Some(name) = &self.forms(act).image {
            return name.clone();
        }
        let Shape { height, width, cols, .. } = self.shape(act);
        if self.forms(act).rows.is_none() && self.forms(act).windows.is_some() {
            return self.lay_out(act);
        }
        let rows = self.rows(act);
        let [height, width, cols] = [height, width, cols].map(|n| n as i64);
        let name = if self.shape(act).is_pooled() {
            self.graph.reshape(&rows, &[0, cols, 1, 1])
        } else {
            let apart = self.graph.reshape(&rows, &[0, height, width, cols]);
            self.graph.transpose(&apart, &[0, 3, 1, 2])
        };
        self.set_image(act, name.clone());
        name
    }

    /// `[batch, rows, cols]`, or `[batch, cols]` if there is one row.
    pub(super) fn rows(&mut self, act: Act) -> String {
        if let Some(name) = &self.forms(act).rows {
            return name.clone();
        }
        let shape = self.shape(act);
        let image = self.image(act);
        let [cols, pixels] = [shape.cols, shape.pixels()].map(|n| n as i64);
        let name = if shape.is_pooled() {
            self.graph.reshape(&image, &[0, cols])
        } else {
            let flat = self.graph.reshape(&image, &[0, cols, pixels]);
            self.graph.transpose(&flat, &[0, 2, 1])
        };
        self.set_rows(act, name.clone());
        name
    }

    /// `[batch, rows, cols]`, however many rows there are.
    pub(super) fn tokens(&mut self, act: Act) -> String {
        let rows = self.rows(act);
        if self.shape(act).is_pooled() { self.graph.reshape(&rows, &[0, 1, self.shape(act).cols as i64]) } else { rows }
    }

    /// From `[batch, rows, cols]` to what [`Writer::rows`] wants.
    pub(super) fn set_tokens(&mut self, act: Act, name: String) {
        let shape = self.shape(act);
        let name = if shape.is_pooled() { self.graph.reshape(&name, &[0, shape.cols as i64]) } else { name };
        self.set_rows(act, name);
    }

    /// Windows as an image of many channels: a convolution by ones.
    fn lay_out(&mut self, act: Act) -> String {
        let windows = self.windows(act).expect("asked for");
        let Windows { channels, kernel, .. } = windows;
        let taps = kernel * kernel;
        let ones = (0..channels * taps * taps).map(|i| f32::from(u8::from(i % taps == i / taps % taps))).collect();
        let dims = [channels * taps, 1, kernel, kernel];
        let weight = self.graph.constant(format!("windows {channels} {kernel}"), &dims, Data::F32(ones));
        let name = self.convolve(windows, &weight, None, channels);
        self.set_image(act, name.clone());
        name
    }

    /// A convolution over windows, by `groups` of channels.
    pub(super) fn convolve(&mut self, windows: Windows, weight: &str, bias: Option<&str>, groups: usize) -> String {
        let image = self.image(windows.of);
        let attributes = windows.attributes().into_iter().chain([Attribute::int("group", groups as i64)]).collect();
        let inputs: Vec<&str> = [image.as_str(), weight].into_iter().chain(bias).collect();
        self.graph.node("Conv", &inputs, attributes)
    }

    /// A parameter as it is, in this shape.
    pub(super) fn plain(&mut self, param: ParamRef, dims: &[usize]) -> String {
        let name = self.weights.name(self.tape, param);
        let values = self.weights.values(self.tape, param);
        self.graph.constant(format!("{name} {dims:?}").replace(", ", ","), dims, Data::F32(values))
    }

    /// A parameter per channel, as values in this layout want it.
    pub(super) fn per_channel(&mut self, param: ParamRef, image: bool) -> String {
        let dims = [param.elements(), 1, 1];
        self.plain(param, if image { &dims } else { &dims[..1] })
    }

    /// A running statistic.
    pub(super) fn statistic(&mut self, place: usize) -> String {
        let (name, values) = self.weights.statistic(place);
        let (name, values) = (name.to_string(), values.to_vec());
        let len = values.len();
        self.graph.store(&name, &[len], Data::F32(values))
    }

    /// A product's weight in the format that was asked for. `param` has a row for each output, or a column if `columns`; in the file
    /// it is `dims`, transposed first if `transposed`, with the outputs along `axis`.
    pub(super) fn product(
        &mut self,
        param: ParamRef,
        columns: bool,
        outputs: usize,
        (dims, axis, transposed): (&[usize], usize, bool),
    ) -> Result<String> {
        let tape = self.tape;
        let name = self.weights.name(tape, param);
        let stored = self.weights.product(tape, param, columns, outputs);
        let stored = stored.map_err(|what| Error::Train(format!("{name}: {what}")))?;
        Ok(match stored {
            Product::F32(values) => self.graph.store(&name, dims, Data::F32(turned(values, transposed, outputs))),
            Product::F16(values) => {
                let values = turned(values, transposed, outputs);
                let half = self.graph.store(&format!("{name}.f16"), dims, Data::F16(values));
                self.graph.node("Cast", &[&half], vec![Attribute::int("to", i64::from(proto::FLOAT))])
            }
            Product::I8 { values, scales } => {
                let values = turned(values, transposed, outputs);
                let scale = self.graph.store(&format!("{name}.scale"), &[outputs], Data::F32(scales));
                let int = self.graph.store(&format!("{name}.int8"), dims, Data::I8(values));
                let axis = vec![Attribute::int("axis", axis as i64)];
                self.graph.node("DequantizeLinear", &[&int, &scale], axis)
            }
        })
    }
}

/// A matrix of `rows`, or its transpose.
fn turned<T: Copy>(values: Vec<T>, transposed: bool, rows: usize) -> Vec<T> {
    if !transposed {
        return values;
    }
    let cols = values.len() / rows.max(1);
    (0..values.len()).map(|i| values[i % rows * cols + i / rows]).collect()
}

impl Windows {
    pub(super) fn attributes(self) -> [Attribute; 3] {
        let Windows { kernel, stride, pads, .. } = self;
        [
            Attribute::ints("kernel_shape", &[kernel; 2]),
            Attribute::ints("strides", &[stride; 2]),
            Attribute::ints("pads", &pads),
        ]
    }
}
