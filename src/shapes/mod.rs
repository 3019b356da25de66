//! What the floors above share: the layout of parameters ([`layout`]), and words for what models are made of and what methods
//! measure.

pub mod activation;
pub mod layout;
pub mod norm;
pub mod prefix;

pub use activation::{Activation, Pointwise};
pub use layout::{Param, ParamLayout, Segment};
pub use norm::Norm;
pub use prefix::Prefix;
