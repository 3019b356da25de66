//! Models for other programs: [`onnx`] files.

pub mod onnx;
