//! Host wrapper of `shaders/average.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::variants::Variants;
use crate::ops::{Len, Recorder, check, elementwise};

static SHADER: Shader = shader!("average", FOLD);

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER)]
}

/// `out = (a + b) / 2`, all of one length.
pub fn forward(r: &mut Recorder, out: &View, a: &View, b: &View) -> Result<()> {
    check("average", "a", a, out.len);
    check("average", "b", b, out.len);
    let kernel = r.kernel(&SHADER, "forward", &[])?;
    r.push(&kernel, &[("a", a), ("b", b), ("out", out)], &Len { len: out.len as u32 }, elementwise(out.len));
    Ok(())
}

/// `dinp = dout / 2`, the gradient of both.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View) -> Result<()> {
    check("average::backward", "dinp", dinp, dout.len);
    let kernel = r.kernel(&SHADER, "backward", &[])?;
    r.push(&kernel, &[("dout", dout), ("dinp", dinp)], &Len { len: dout.len as u32 }, elementwise(dout.len));
    Ok(())
}
