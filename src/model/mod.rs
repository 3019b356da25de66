//! Models: what they are made of ([`config`]), how their parameters lie in memory ([`params`]), how their activations do
//! ([`plan`], [`activations`]), and forward with its visible reverse ([`vit`], [`resnet`]). [`network`] is any of them.

pub mod activations;
mod attention_pool;
pub mod config;
mod head;
pub mod network;
pub mod params;
pub mod place;
pub mod plan;
pub mod precision;
pub mod resnet;
mod resnet_activations;
pub mod resnet_config;
mod resnet_layers;
pub mod vit;
mod vit_activations;
mod vit_mlp;
mod vit_pool;
mod vit_tail;

pub use activations::{Activations, Mode, Phase};
pub use config::{Activation, Pool, VitConfig, VitParts};
pub use network::{Model, ModelConfig};
pub use params::ParamLayout;
pub use precision::Precision;
pub use resnet::ResNet;
pub use resnet_config::ResNetConfig;
pub use vit::Vit;
