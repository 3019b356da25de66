//! What programs that use the crate need most: load a model, predict, evaluate, fine-tune.
//!
//! `examples/` has a program for each of these; the modules that the names come from have the rest.

pub use crate::checkpoint::Overrides;
pub use crate::data::{Dataset, ImageCache, decode};
pub use crate::error::{Error, Result};
pub use crate::gpu::Gpu;
pub use crate::train::evaluate::{Classifier, Evaluation, Predictor, evaluate};
pub use crate::train::records::{Metric, Weights};
pub use crate::train::source::Source;
pub use crate::train::{Event, Flags, Start, Summary, train};
