//! Host wrapper of `shaders/relu.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::Elem;
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::{Len, Recorder, check, flag};

static SHADER: Shader = shader!("relu", FOLD);

/// Every variant that [`forward`] and [`backward`] record.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append(Elem::ALL.map(Elem::tail)).with("WG", LANES).with("ACCUMULATE", FLAG)]
}

fn run(r: &mut Recorder, entry: &str, own: &[(&str, f64)], views: &[(&str, &View)], saved: &View) -> Result<()> {
    let elem = Elem::of(saved.len, saved.element);
    r.push_spread((&SHADER, entry, own, &elem.tail()), views, saved.len, elem.width, |len| Len { len })
}

/// `out = max(inp, 0)`, as long as `inp`; both f32 or both f16.
pub fn forward(r: &mut Recorder, out: &View, inp: &View) -> Result<()> {
    check("relu", "out", out, inp.len);
    run(r, "forward", &[], &[("out", out), ("inp", inp)], inp)
}

/// `dinp = dout` where `out`, saved by forward, is positive, else 0; with `accumulate` it is added. All f32 or all f16.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, out: &View, accumulate: bool) -> Result<()> {
    check("relu::backward", "dinp", dinp, out.len);
    check("relu::backward", "dout", dout, out.len);
    let views = [("dinp", dinp), ("dout", dout), ("saved_out", out)];
    run(r, "backward", &[("ACCUMULATE", flag(accumulate))], &views, out)
}
