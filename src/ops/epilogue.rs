//! What a matrix product does with its sums on their way out: `shaders/lib/epilogue_*.wgsl`.

use crate::gpu::shaders::GELU_FUNCTIONS;
use crate::ops::gelu;
use crate::shapes::Activation;

/// A text that is appended to `matmul.wgsl` and its other algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Epilogue {
    /// `out = sum`
    None,
    /// `out = gelu(sum)`, `hidden = sum`
    Gelu(Activation),
    /// `out = sum · gelu'(hidden)`
    GeluBackward(Activation),
    /// `out = residual + sum`
    Residual,
    /// `out = residual + gamma · sum`, `branch = sum`
    ResidualScaled,
}

impl Epilogue {
    pub(super) fn all() -> Vec<Epilogue> {
        let with = |end: fn(Activation) -> Epilogue| gelu::KINDS.map(end);
        let gelus = [with(Epilogue::Gelu), with(Epilogue::GeluBackward)].concat();
        [vec![Epilogue::None], gelus, vec![Epilogue::Residual, Epilogue::ResidualScaled]].concat()
    }

    pub(super) fn text(self) -> String {
        let gelu = |own: &str, kind| format!("{own}\n{GELU_FUNCTIONS}\nalias elem = vec4f;\n{}", gelu::kind(kind));
        match self {
            Epilogue::None => include_str!("../../shaders/lib/epilogue_none.wgsl").into(),
            Epilogue::Gelu(kind) => gelu(include_str!("../../shaders/lib/epilogue_gelu.wgsl"), kind),
            Epilogue::GeluBackward(kind) => gelu(include_str!("../../shaders/lib/epilogue_gelu_backward.wgsl"), kind),
            Epilogue::Residual => include_str!("../../shaders/lib/epilogue_residual.wgsl").into(),
            Epilogue::ResidualScaled => include_str!("../../shaders/lib/epilogue_residual_scaled.wgsl").into(),
        }
    }
}
