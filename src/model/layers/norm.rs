//! A norm over the pixels of images, of either kind.

use crate::model::layers::{BatchNormParams, GroupNormParams};
use crate::model::tape::{Act, Tape};

/// The parameters of a norm.
#[derive(Clone, Copy, Debug)]
pub enum NormParams {
    /// Of a batch norm.
    Batch(BatchNormParams),
    /// Of a group norm.
    Group(GroupNormParams),
}

impl Tape {
    /// Declares `name`'s parameters for this many channels: of a group norm with `groups`, else of a batch norm.
    pub fn pixel_norm_params(
        &mut self,
        name: &str,
        channels: usize,
        groups: Option<usize>,
        (eps, momentum): (f32, f32),
    ) -> NormParams {
        match groups {
            Some(groups) => NormParams::Group(self.group_norm_params(name, channels, groups, eps)),
            None => NormParams::Batch(self.batch_norm_params(name, channels, eps, momentum)),
        }
    }

    /// `norm(inp)`, through a ReLU if `relu`.
    pub fn pixel_norm(&mut self, inp: Act, name: &str, own: NormParams, relu: bool) -> Act {
        match own {
            NormParams::Batch(own) => self.batch_norm(inp, name, own, relu),
            NormParams::Group(own) => self.group_norm(inp, name, own, relu),
        }
    }
}
