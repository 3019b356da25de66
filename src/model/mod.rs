//! Models: what they are made of ([`config`]), how their parameters lie in memory ([`params`]), how their activations do
//! ([`plan`]), and forward with its visible reverse ([`vit`]).

pub mod config;
pub mod params;
pub mod plan;
pub mod vit;
pub mod vit_activations;

pub use config::{Activation, Pool, VitConfig};
pub use params::ParamLayout;
pub use vit::Vit;
