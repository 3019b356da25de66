//! The formats that activations come in: a case that takes one runs in f32, and in f16 where the adapter has it. Inputs are
//! rounded beforehand, so that the reference sees what the kernel sees.

use super::harness::{Case, HALF_EPS, to_half};
use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::{Gpu, View};

/// Those that `gpu` has.
pub(super) fn formats(gpu: &Gpu) -> &'static [Element] {
    if gpu.check_f16().is_ok() { &[Element::Word, Element::Half] } else { &[Element::Word] }
}

/// What storing a value in this format may lose, on top of what its f32 sum is off by.
pub(super) fn stored_eps(element: Element) -> f64 {
    match element {
        Element::Word => 0.0,
        Element::Half => HALF_EPS,
    }
}

/// The nearest values in this format.
pub(super) fn rounded(values: Vec<f32>, element: Element) -> Vec<f32> {
    match element {
        Element::Word => values,
        Element::Half => to_half(&values),
    }
}

/// For a case's name.
pub(super) fn prefix(element: Element) -> &'static str {
    match element {
        Element::Word => "",
        Element::Half => "f16, ",
    }
}

impl Case<'_> {
    /// As [`Case::input`], in this format, which must hold the values ([`rounded`]).
    pub(super) fn input_as(&mut self, name: &str, element: Element, values: &[f32]) -> Result<View> {
        match element {
            Element::Word => self.input(name, values),
            Element::Half => self.half_input(name, values),
        }
    }

    /// As [`Case::output`], in this format.
    pub(super) fn output_as(&mut self, name: &str, element: Element, len: usize) -> Result<View> {
        match element {
            Element::Word => self.output(name, len),
            Element::Half => self.half_output(name, len),
        }
    }
}
