//! A norm over the pixels of images, of either kind.

use crate::model::layers::{BatchNormParams, GroupNormParams};
use crate::model::tape::{Act, Tape};
use crate::shapes::Pointwise;

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
        self.pixel_norm_then(inp, name, own, relu.then_some(Pointwise::Relu))
    }

    /// `norm(inp)`, through an activation if there is one: in the same kernel where that can be.
    pub fn pixel_norm_then(&mut self, inp: Act, name: &str, own: NormParams, activation: Option<Pointwise>) -> Act {
        let own = match own {
            NormParams::Batch(own) => return self.batch_norm_then(inp, name, own, activation),
            NormParams::Group(own) => own,
        };
        let relu = activation == Some(Pointwise::Relu);
        let x = self.group_norm(inp, name, own, relu);
        match activation.filter(|_| !relu) {
            Some(kind) => self.activation(x, &format!("{name}.act"), kind),
            None => x,
        }
    }
}
