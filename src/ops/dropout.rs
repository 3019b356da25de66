//! Host wrapper of `shaders/dropout.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::Elem;
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Recorder, check};

pub use crate::cpu::dropout::{Dims, Each, State};

static SHADER: Shader = shader!("dropout", FOLD);

/// Words of what the host writes before a pass, [`State`].
pub const STATE_LEN: usize = 4;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    len: u32,
    per: u32,
    layer: u32,
    threshold: u32,
    scale: f32,
}

/// The text appended for elements of this kind: the alias, and the factors of one.
fn tail(elem: Elem) -> String {
    let factors = match elem.width {
        4 => {
            "let all = words(place, image);\n    return vec4f(factor(all.x), factor(all.y), factor(all.z), factor(all.w));"
        }
        _ => "var all = words(place / 4u, image);\n    return factor(all[place % 4u]);",
    };
    format!("{}fn factors(place: u32, image: u32) -> elem {{\n    {factors}\n}}\n", elem.tail())
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append(Elem::ALL.map(tail)).with("WG", LANES)]
}

fn run(r: &mut Recorder, (out, inp): (&View, &View), random: &View, dims: Dims) -> Result<()> {
    let elem = Elem::of(dims.per, out.element);
    let params = |len| Params {
        len,
        per: (dims.per / elem.width) as u32,
        layer: dims.layer,
        threshold: dims.threshold(),
        scale: dims.scale(),
    };
    let entry = if dims.each == Each::Image { "images" } else { "values" };
    let views = [("out", out), ("inp", inp), ("random", random)];
    r.push_spread((&SHADER, entry, &[], &tail(elem)), &views, dims.batch * dims.per, elem.width, params)
}

/// `out = inp`, of which some is dropped and the rest scaled; both `[batch, per]`, both f32 or both f16. `random` holds a [`State`].
pub fn forward(r: &mut Recorder, out: &View, inp: &View, random: &View, dims: Dims) -> Result<()> {
    check("dropout", "out", out, dims.batch * dims.per);
    check("dropout", "inp", inp, dims.batch * dims.per);
    check("dropout", "random", random, STATE_LEN);
    assert_eq!(inp.element, out.element, "dropout: inp and out of one kind");
    run(r, (out, inp), random, dims)
}

/// `dinp = dout`, dropped and scaled as the forward pass has it with the same `random`.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, random: &View, dims: Dims) -> Result<()> {
    check("dropout::backward", "dinp", dinp, dims.batch * dims.per);
    check("dropout::backward", "dout", dout, dims.batch * dims.per);
    check("dropout::backward", "random", random, STATE_LEN);
    assert_eq!(dinp.element, dout.element, "dropout::backward: dinp and dout of one kind");
    run(r, (dinp, dout), random, dims)
}
