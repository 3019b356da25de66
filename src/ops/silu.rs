//! Host wrapper of `shaders/silu.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::Elem;
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Len, Recorder, check};

static SHADER: Shader = shader!("silu", FOLD);

/// Every variant that [`forward`] and [`backward_input`] record.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append(Elem::ALL.map(Elem::tail)).with("WG", LANES)]
}

fn run(r: &mut Recorder, entry: &str, views: &[(&str, &View)], inp: &View) -> Result<()> {
    let elem = Elem::of(inp.len, inp.element);
    r.push_spread((&SHADER, entry, &[], &elem.tail()), views, inp.len, elem.width, |len| Len { len })
}

/// `out = inp·σ(inp)`, as long as `inp`; both f32 or both f16.
pub fn forward(r: &mut Recorder, out: &View, inp: &View) -> Result<()> {
    check("silu", "out", out, inp.len);
    run(r, "forward", &[("out", out), ("inp", inp)], inp)
}

/// `dinp = dout` times the slope at `inp`, forward's input; all of one length, all f32 or all f16.
pub fn backward_input(r: &mut Recorder, dinp: &View, dout: &View, inp: &View) -> Result<()> {
    check("silu::backward_input", "dinp", dinp, inp.len);
    check("silu::backward_input", "dout", dout, inp.len);
    run(r, "backward_input", &[("dinp", dinp), ("dout", dout), ("inp", inp)], inp)
}
