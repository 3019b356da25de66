//! The activation inside a vision transformer's MLP, with the product in front of it; and their visible reverse.

use crate::error::Result;
use crate::gpu::View;
use crate::model::config::Activation;
use crate::model::vit::VitPass;
use crate::ops::{Recorder, matmul, swiglu};

impl VitPass<'_> {
    /// `activated = act(hidden)` `[R, F]`, `hidden = inp·weightᵀ + bias`.
    pub(super) fn hidden_forward(
        &self,
        r: &mut Recorder,
        activated: &View,
        hidden: &View,
        inp: &View,
        weight: &View,
        bias: &View,
    ) -> Result<()> {
        let c = self.config();
        let (rows, d, n) = (self.rows(), c.dim, c.hidden_dim());
        match c.activation {
            Activation::SwiGlu => {
                matmul::forward(r, hidden, inp, weight, Some(bias), rows, n, d)?;
                swiglu::forward(r, activated, hidden, rows, c.mlp_dim)
            }
            gelu => matmul::forward_gelu(r, activated, hidden, inp, weight, Some(bias), gelu, rows, n, d),
        }
    }

    /// `dhidden = ` from the gradient `dout` of the second layer's output, whose weight is `weight`. `dactivated` is written
    /// only where no epilogue does its part.
    pub(super) fn hidden_backward(
        &self,
        r: &mut Recorder,
        dhidden: &View,
        dactivated: &View,
        dout: &View,
        weight: &View,
        hidden: &View,
    ) -> Result<()> {
        let c = self.config();
        let (rows, d, f) = (self.rows(), c.dim, c.mlp_dim);
        match c.activation {
            Activation::SwiGlu => {
                matmul::backward_input(r, dactivated, dout, weight, rows, d, f)?;
                swiglu::backward(r, dhidden, dactivated, hidden, rows, f)
            }
            gelu => matmul::backward_input_gelu(r, dhidden, dactivated, dout, weight, hidden, gelu, rows, d, f),
        }
    }
}
