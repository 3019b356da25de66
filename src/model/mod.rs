//! Models. A network is its forward pass, written on a [`tape`] with [`layers`]: [`vit`], [`resnet`], [`resnetv2`], [`convnext`], [`efficientnet`], [`vgg`], and [`text`], which reads tokens. From it follow its parameters
//! ([`ParamLayout`](crate::shapes::ParamLayout)), the memory of its passes ([`plan`], [`activations`]), and recorded passes
//! ([`recording`]). [`config`], [`resnet_config`], [`resnetv2_config`], [`convnext_config`], [`efficientnet_config`] and [`vgg_config`] say what a model is made of; [`network`] is any of them.

pub mod activations;
mod adapters;
pub mod config;
pub mod convnext;
pub mod convnext_config;
mod cut;
mod drops;
pub mod efficientnet;
pub mod efficientnet_config;
mod half_weights;
pub mod layers;
pub mod network;
pub mod operation;
pub mod place;
pub mod plan;
pub mod precision;
pub mod recording;
pub mod resnet;
pub mod resnet_config;
pub mod resnetv2;
pub mod resnetv2_config;
pub mod rope;
pub mod store;
pub mod tape;
pub mod text;
mod value;
pub mod vgg;
pub mod vgg_config;
pub mod vit;
pub mod vit_stem;

pub use activations::{Activations, Mode, Part};
pub use adapters::{Adapter, Adapters};
pub use config::{Pool, VitConfig, VitParts};
pub use convnext_config::ConvNextConfig;
pub use cut::Cut;
pub use drops::Drops;
pub use efficientnet_config::EfficientNetConfig;
pub use network::{Model, ModelConfig};
pub use operation::Operation;
pub use precision::Precision;
pub use recording::Recording;
pub use resnet_config::ResNetConfig;
pub use resnetv2_config::ResNetV2Config;
pub use store::Phase;
pub use tape::{Network, Tape};
pub use vgg_config::VggConfig;
