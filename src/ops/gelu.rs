//! Host wrapper of `shaders/gelu.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::Elem;
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Len, Recorder, check};
use crate::shapes::Activation;

static SHADER: Shader = shader!("gelu", FOLD, GELU_FUNCTIONS);

/// The activations that it has.
pub(super) const KINDS: [Activation; 3] = [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu];

/// The text appended to the shader, and to a matrix product's epilogue, for the activation.
pub(super) fn kind(activation: Activation) -> String {
    let kind = match activation {
        Activation::Gelu => 0,
        Activation::GeluTanh => 1,
        Activation::QuickGelu => 2,
        Activation::SwiGlu | Activation::GeGlu => unreachable!("gelu: gated activations are a stem of their own"),
    };
    format!("const KIND = {kind}u;\n")
}

fn tail(activation: Activation, elem: Elem) -> String {
    kind(activation) + &elem.tail()
}

/// Every variant that [`forward`] and [`backward`] record.
pub fn variants() -> Vec<Variants> {
    let tails = KINDS.into_iter().flat_map(|kind| Elem::ALL.map(|elem| tail(kind, elem)));
    vec![Variants::of(&SHADER).append(tails).with("WG", LANES)]
}

fn run(r: &mut Recorder, entry: &str, views: &[(&str, &View)], inp: &View, activation: Activation) -> Result<()> {
    let elem = Elem::of(inp.len, inp.element);
    r.push_spread((&SHADER, entry, &[], &tail(activation, elem)), views, inp.len, elem.width, |len| Len { len })
}

/// `out = gelu(inp)`, elementwise; both f32 or both f16.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, activation: Activation) -> Result<()> {
    check("gelu", "out", out, inp.len);
    run(r, "forward", &[("out", out), ("inp", inp)], inp, activation)
}

/// `dinp = dout · gelu'(inp)`, elementwise; all f32 or all f16.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, inp: &View, activation: Activation) -> Result<()> {
    check("gelu::backward", "dinp", dinp, inp.len);
    check("gelu::backward", "dout", dout, inp.len);
    run(r, "backward", &[("dinp", dinp), ("dout", dout), ("inp", inp)], inp, activation)
}
